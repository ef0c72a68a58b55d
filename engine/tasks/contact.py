"""What ties an attempt's code to whoever runs it: notices that reach the code, heartbeats that come back.

The two sides may be in different threads. Executors carry a contact's words over whatever lies between; the engine
makes one for each attempt and listens. Nothing here knows a clock, an event loop of its own, or a history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock

__all__ = ["Contact", "Notice"]


class Notice:
    """Something that is said once and never taken back. Every method may be called from every thread."""

    __slots__ = ("_listeners", "_lock", "given")

    def __init__(self) -> None:
        self.given = False
        self._lock = Lock()
        self._listeners: list[Callable[[], None]] = []

    def give(self) -> None:
        """Say it: whoever waits goes on. Again: nothing happens."""
        with self._lock:
            self.given = True
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def when_given(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call back once, in the thread that gives it, or at once if it was given. Returns what ends that."""
        with self._lock:
            if not self.given:
                self._listeners.append(listener)
                return lambda: self._forget(listener)
        listener()
        return _nothing

    def wait(self, seconds: float | None) -> bool:
        """Block this thread until it is given, at most so many seconds (None: for ever). Whether it was given."""
        woken = Event()
        forget = self.when_given(woken.set)
        try:
            woken.wait(seconds)
        finally:
            forget()
        return self.given

    async def until(self) -> None:
        """Wait in a coroutine until it is given."""
        loop = asyncio.get_running_loop()
        given: asyncio.Future[None] = loop.create_future()
        forget = self.when_given(lambda: _resolve_from_anywhere(loop, given))
        try:
            await given
        finally:
            forget()

    def _forget(self, listener: Callable[[], None]) -> None:
        with self._lock, suppress(ValueError):  # given meanwhile
            self._listeners.remove(listener)


class Contact:
    """One attempt's. `beat` is how its code says that it lives, with details as JSON or None for none."""

    __slots__ = ("_begun", "beat", "cancelled", "preparing", "stopping")

    def __init__(
        self, beat: Callable[[bytes | None], None] | None = None, begun: Callable[[], None] | None = None
    ) -> None:
        self.beat: Callable[[bytes | None], None] = _unheard if beat is None else beat
        self._begun: Callable[[], None] = _nothing if begun is None else begun
        self.cancelled = Notice()  # the attempt is asked to end
        self.stopping = Notice()  # the engine closes; the attempt has the rest of the grace period
        self.preparing = False  # its place is being made ready (a process starts): silence is not the code's

    def begin(self) -> None:
        """Its code begins now; for executors that have set `preparing`."""
        self.preparing = False
        self._begun()


def _unheard(_details: bytes | None) -> None:
    """Nobody listens."""


def _nothing() -> None:
    """There is nothing to end."""


def _resolve_from_anywhere(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    with suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
