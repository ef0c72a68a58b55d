"""The watchdog: a turn that takes long is named, and one that does not end is broken off, so that other runs go on.

All runs of an engine share one thread for their code. A workflow that computes or blocks therefore stalls every other;
without a word, nobody knows which. One daemon thread per open engine looks at the turn under way, a few times per
warning limit. Over `TURN_WARN_SECONDS` it logs the workflow, the run, and the file and line where the code is now. Over
`TURN_SECONDS_MAX` it raises an exception in that code from outside; the run is suspended with the reason "spinning".

What it promises: the exception is raised in workflow code of that very turn, or not at all. Code that blocks in C and
never comes back to the interpreter (a long `re` match, a lock held elsewhere) cannot be broken off, only named. Code
that is being debugged is left alone, and so is what a coroutine does while it is put away.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from types import FrameType
from typing import Any, Final

from msgspec import Struct

from engine.core.nesting import run_nested
from engine.errors import StepLimitExceeded
from eventstore import Clock

__all__ = ["TURN_SECONDS_MAX", "TURN_WARN_SECONDS", "SlowTurn", "TurnWatch", "Watchdog"]

TURN_WARN_SECONDS: Final = 1.0
"""A turn that takes longer is named in the log and in the history: nothing else ran meanwhile."""
TURN_SECONDS_MAX: Final = 30.0
"""A turn that takes longer is broken off, and its run suspended."""
LOOKS: Final = 4
"""How often the watchdog looks within the shorter of the two limits."""

_NEVER_SECONDS: Final = 1e6  # a thread can wait for so long
_LIBRARIES: Final = frozenset({"anyio", "engine"}) | sys.stdlib_module_names
_DEBUGGERS: Final = frozenset({"bdb", "pdb", "pydevd", "_pydevd_bundle", "debugpy"})
_log: Final = logging.getLogger(__name__)


class _BrokenOff(KeyboardInterrupt):
    """Raised from outside. A `KeyboardInterrupt`, because asyncio lets these out of its tasks at once."""


class SlowTurn(Struct, frozen=True):
    """A turn over the warning limit, that has ended."""

    took: int  # microseconds
    site: str  # file and line where it was seen last, if it was


class TurnWatch:
    """What one live instance is watched by: see `Instance.around`. `slow` is the slowest since it was last emptied."""

    def __init__(self, watchdog: Watchdog, run_id: str, workflow: str, slowest: int) -> None:
        self.run_id = run_id
        self.workflow = workflow
        self.slow: SlowTurn | None = None
        self.slowest = slowest  # microseconds; of all that stand in the history
        self._watchdog = watchdog

    def __call__(self, work: Callable[[], None]) -> None:
        """Call `work`, which runs workflow code. Raises `StepLimitExceeded` when it had to be broken off."""
        dog = self._watchdog
        turn = _Turn(self, dog.clock.monotonic())
        try:
            dog.turn = turn
            work()
        except _BrokenOff:
            pass  # code may have swallowed it, too: what counts is that it was sent
        finally:
            # In this order: once it is `ending` none is sent; unless it is aimed at, when one may be on its way, which
            # arrives at the latest in `end`.
            turn.ending = True
            if turn.aimed:
                try:
                    dog.end(turn)
                except _BrokenOff:
                    dog.end(turn)
            else:
                dog.turn = None
        seconds = dog.clock.monotonic() - turn.began
        if turn.broken:
            raise StepLimitExceeded(
                f"a turn of workflow {self.workflow!r} had not ended after {seconds:.1f} seconds and was broken off; it"
                f" was at {turn.site or 'an unknown place'}: look for a loop without an await, or move the work into a"
                " @task"
            )
        if seconds >= dog.warn:
            took = round(seconds * 1_000_000)
            if self.slow is None or took > self.slow.took:
                self.slow = SlowTurn(took, turn.site)


class _Turn:
    """A turn under way. One is made for every fact of a replay: what hardly any needs is kept by the class."""

    site: str = ""
    warned: bool = False
    aimed: bool = False  # the watchdog looks at it closely: its end waits for that
    broken: bool = False  # an exception was sent
    ending: bool = False  # none may be sent any more

    def __init__(self, watch: TurnWatch, began: float) -> None:
        self.watch = watch
        self.began = began  # seconds


class Watchdog:
    """Made by a worker. `open` starts its thread, `close` ends it; between the two, turns are watched."""

    def __init__(self, clock: Clock, *, warn: float = TURN_WARN_SECONDS, limit: float = TURN_SECONDS_MAX) -> None:
        self.clock = clock
        self.warn = warn
        self.turn: _Turn | None = None
        self._limit = limit
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched = 0  # the thread that turns are taken in: the one that opened this

    def open(self) -> None:
        """Begin to look at what the calling thread does, until `close`, or until its event loop is closed."""
        self._watched = threading.get_ident()
        self._loop = asyncio._get_running_loop()
        self._thread = threading.Thread(target=self._look_on, name="holdfast-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more. Returns when the thread has ended. Doing it twice is fine."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def let_be(self) -> None:
        """Name and break off nothing any more: somebody looks at the code, and takes their time."""
        self.warn = self._limit = _NEVER_SECONDS

    def watch(self, run_id: str, workflow: str, *, slowest: int = 0) -> TurnWatch:
        """What the instance of a run calls its code through."""
        return TurnWatch(self, run_id, workflow, slowest)

    def end(self, turn: _Turn) -> None:
        """The turn has ended: whatever was sent and has not arrived is taken back."""
        with self._lock:
            self.turn = None
            if turn.broken:
                _send(self._watched, None)

    def _look_on(self) -> None:
        while not self._closed.wait(min(self.warn, self._limit) / LOOKS):
            if self._loop is not None and self._loop.is_closed():
                return  # whoever opened it is gone, and has not closed it
            if self.turn is not None:
                self._look()

    def _look(self) -> None:
        with self._lock:
            turn = self.turn
            if turn is None:
                return
            seconds = self.clock.monotonic() - turn.began
            if seconds < min(self.warn, self._limit):
                return
            turn.aimed = True
            if turn.ending:  # asked after it was aimed at, as its end asks in the other order: one of the two sees it
                return
            turn.site, debugged = _place(self._watched)
            if seconds >= self._limit and not debugged:
                turn.broken = True
                _send(self._watched, _BrokenOff)  # again at every look, for code that swallows it
            told, turn.warned = turn.warned, True
        if not told:  # not under the lock: handlers are other people's, and may take their time
            _log.warning(
                "workflow %r, run %r: a turn has taken %.1f seconds so far, now at %s; all other runs of this engine"
                " wait for it. Move long work into a @task.",
                turn.watch.workflow,
                turn.watch.run_id,
                seconds,
                turn.site or "an unknown place",
            )


def _place(thread: int) -> tuple[str, bool]:
    """File and line of the innermost workflow code of a thread, and whether somebody debugs it."""
    frame: FrameType | None = sys._current_frames().get(thread)
    site = ""
    while frame is not None and frame.f_code is not run_nested.__code__:
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if module in _DEBUGGERS:
            return site, True
        if not site and module not in _LIBRARIES:
            site = f"{frame.f_code.co_filename.replace(chr(92), '/').rpartition('/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return site, False


def _send(thread: int, error: type[BaseException] | None) -> None:
    """Let an exception be raised in a thread, soon; `None` takes back one that has not been raised yet."""
    # Imported late: it takes a while, and hardly any process ever needs it.
    ctypes: Any = import_module("ctypes")
    if hasattr(ctypes, "pythonapi"):  # CPython only
        raised = None if error is None else ctypes.py_object(error)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
