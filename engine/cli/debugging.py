"""pdb in a replay: where the code stands when the replay has come to its version, and at breakpoints on the way.

At breakpoints the code runs as it ran when it happened: `next` and `continue` go on, over awaits too, for what is
awaited is told from the history. Where the replay has come to its version nothing runs further; there is the stack of
every branch to look at. Leaving with `quit` at a breakpoint ends the replay. What is typed at the prompt may read and
write as it likes: the guard of workflow code lets debuggers be.
"""

from __future__ import annotations

import bdb
import linecache
import os
import pdb  # noqa: T100 - that is what it is about
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final

from engine import LiveBranch
from engine.cli.problems import Problem

__all__ = ["Debugger", "Left"]

_LIBRARIES: Final = frozenset({"anyio", "engine", "eventstore", "msgspec"}) | sys.stdlib_module_names
"""Modules that stepping goes through without a stop, and stacks are shown without."""
_STANDS: Final = "*** Nothing runs further here; `branches`, `branch N`, `up` and `down` look, `quit` leaves."


class Left(KeyboardInterrupt):
    """`quit` at a breakpoint. Of this kind, because asyncio lets these out of its tasks at once."""


class Debugger:
    """Runs the code of a replay, and opens pdb: at `breakpoint()`, at other breakpoints, and at its end if `stop`."""

    def __init__(self, *, stop: bool) -> None:
        self._stop = stop
        self._pdb = _Pdb()

    def break_at(self, place: str, target: str) -> None:
        """Set a breakpoint at ``FILE:LINE``, or ``LINE`` of the target's file. Raises `Problem`."""
        file, _, number = place.rpartition(":")
        if not number.isdigit():
            raise Problem(f"--break {place} is not FILE:LINE, as in shop.py:41")
        path = _path_of(file or target)
        line = linecache.getline(path, int(number)).strip()
        if not line or line.startswith("#"):
            why = "is blank, or a comment" if linecache.getline(path, int(number)) else "is not there"
            raise Problem(f"--break {place}: line {number} of {path} {why}")
        if error := self._pdb.set_break(path, int(number)):
            raise Problem(f"--break {place}: {error}")

    @property
    def hit(self) -> bool:
        """Whether pdb was opened on the way."""
        return self._pdb.opened

    def run(self, work: Callable[[], None], *, again: bool, opened: Callable[[], None]) -> None:
        """See `engine.ReplayDebugger`. Raises `Left`."""
        self._pdb.tell = opened
        hook, tracing = sys.breakpointhook, sys.gettrace()
        sys.breakpointhook = _pass_by if again else self._opened
        if not again:
            self._pdb.trace(sys._getframe())
        try:
            work()
        finally:
            sys.settrace(tracing)
            sys.breakpointhook = hook

    def _opened(self, *_args: Any, **_kwargs: Any) -> None:
        self._pdb.set_trace(sys._getframe(1))

    def look(self, branches: Sequence[LiveBranch], raised: TracebackType | None) -> None:
        """See `engine.ReplayDebugger`."""
        if not self._stop:
            return
        if branches or raised is not None:
            _Standing(branches, raised).begin()
        else:
            self._pdb.message("*** No code stands here: there is nothing to look at.")


def _pass_by(*_args: Any, **_kwargs: Any) -> None:
    """`breakpoint()` in turns that were run before."""


def _path_of(file: str) -> str:
    """The file as frames name it: as it was said, or as one of those that are loaded is called."""
    if Path(file).is_file():
        return str(Path(file).resolve())
    loaded = {
        str(each) for each in (getattr(module, "__file__", None) for module in list(sys.modules.values())) if each
    }
    found = sorted(each for each in loaded if each.endswith(f"{os.sep}{file}"))
    if not found:
        raise Problem(f"--break {file}: no such file, and none that is loaded is called so")
    return found[0]


class _Pdb(pdb.Pdb):
    """pdb on code that runs."""

    def __init__(self) -> None:
        super().__init__(skip=("engine",), nosigint=True)  # what is skipped is said below
        self.opened = False
        self.tell: Callable[[], object] = bool  # somebody that it is opened
        self.reset()

    def trace(self, bottom: FrameType) -> None:
        """Trace what runs from here on, if there is a breakpoint, or a step under way that is to lead somewhere."""
        if self.botframe is None:  # as `continue` leaves it: nothing stops but breakpoints
            self.botframe = self.stopframe = bottom
            self.stoplineno = -1
        if self.breaks or self.stopframe is not self.botframe:
            sys.settrace(self.trace_dispatch)

    def is_skipped_module(self, module_name: str) -> bool:
        return str(module_name).partition(".")[0] in _LIBRARIES

    def get_stack(self, f: FrameType | None, t: TracebackType | None) -> tuple[list[tuple[FrameType, int]], int]:
        stack, _ = super().get_stack(f, t)
        own = [each for each in stack if not self.is_skipped_module(each[0].f_globals.get("__name__", ""))]
        return own or stack, len(own or stack) - 1

    def trace_dispatch(self, frame: FrameType, event: str, arg: Any) -> Any:
        try:
            return super().trace_dispatch(frame, event, arg)
        except bdb.BdbQuit:
            raise Left from None

    def interaction(self, frame: Any, traceback: Any) -> None:
        self.opened = True
        self.tell()
        super().interaction(frame, traceback)

    def do_run(self, arg: str) -> bool | None:  # noqa: ARG002 - as pdb calls it
        """Not here: a replay is begun again with its command."""
        self.error("begin the replay again with its command")
        return None

    do_restart = do_run


class _Standing(pdb.Pdb):
    """pdb on branches that stand still."""

    def __init__(self, branches: Sequence[LiveBranch], raised: TracebackType | None) -> None:
        super().__init__(nosigint=True)
        self.prompt = "(replay) "
        self._branches = branches
        self._raised = raised
        self.reset()

    def begin(self) -> None:
        """Open it: where an error was raised, or else in the innermost frame of the oldest branch."""
        if self._raised is not None:
            self.message(
                "The error that the run failed with is where this begins; `branches` shows how it stood before."
            )
            self.interaction(None, self._raised)
            return
        self._list()
        self.interaction(None, _traceback_of(self._branches[0]))

    def _list(self) -> None:
        for number, branch in enumerate(self._branches, 1):
            self.message(f"{number:>3}  {branch.name}  awaits {branch.awaits}")

    def do_branches(self, _arg: str) -> None:
        """branches: list the branches of the workflow, and what each awaits."""
        self._list()

    def do_branch(self, arg: str) -> None:
        """branch N: look at the stack of another branch, by its number in `branches` or its name."""
        names = {branch.name: branch for branch in self._branches}
        chosen = names.get(arg)
        if chosen is None and arg.isdigit() and 1 <= int(arg) <= len(self._branches):
            chosen = self._branches[int(arg) - 1]
        if chosen is None:
            self.error(f"there is no branch {arg!r}; `branches` lists them")
            return
        self.setup(None, _traceback_of(chosen))
        self.print_stack_entry(self.stack[self.curindex])

    def _stands(self, arg: str) -> bool | None:  # noqa: ARG002 - as pdb calls it
        """Not here: nothing runs further where a replay has come to its version."""
        self.message(_STANDS)
        return None

    do_step = do_s = do_next = do_n = do_until = do_unt = do_return = do_r = do_jump = do_j = _stands
    do_run = do_restart = _stands

    def do_continue(self, arg: str) -> bool | None:  # noqa: ARG002
        """c(ont(inue)): leave; nothing runs further here."""
        return True

    do_c = do_cont = do_continue


def _traceback_of(branch: LiveBranch) -> TracebackType | None:
    """A stack that stands still as pdb takes one: outermost frame first, without the libraries' own at either end."""
    own = [each for each in branch.frames if not each.library] or list(branch.frames)
    found: TracebackType | None = None
    for each in reversed(own):
        found = TracebackType(found, each.frame, each.frame.f_lasti, each.line)
    return found
