"""Where the code of a live instance stands: its branches, what each awaits, its stack and its locals.

A suspended coroutine holds its own frame, and knows what it awaits; so the stack of a branch is a walk from the
coroutine of its task to the future that it waits for. What is shown of values is bounded, and a value whose `repr`
raises is named by its type: looking changes nothing and fails nowhere.
"""

from __future__ import annotations

import asyncio
import gc
import linecache
import reprlib
from collections.abc import Iterator, Sequence
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType, TracebackType
from typing import Any, Final

from msgspec import Struct

from engine.core.compare import shown_time
from engine.core.instance import Instance
from engine.core.pending import PendingChild, PendingTask
from engine.core.sites import is_library

__all__ = ["BranchStack", "LiveBranch", "LiveFrame", "StackFrame", "described", "frames_of_error", "live_branches"]

VALUE_CHARS: Final = 200
"""Characters of one value that are shown."""
LOCALS_MAX: Final = 50
"""Local variables of one frame that are shown."""
FRAMES_MAX: Final = 200
"""Frames of one branch, the outermost first: deeper there is recursion."""
_NAMED_MAX: Final = 3  # of several things that a branch awaits at once

_AWAITED: Final[dict[str, tuple[str, str, str]]] = {
    "Inbox.receive": ("signal", "signal", "name"),
    "Request._next": ("request", "self", "name"),
    "ChildHandle.result": ("the end of child run", "self", "id"),
}
"""Library code that waits on behalf of the author's: what for, and which local's attribute names it."""
_WRAPPED: Final = (CoroutineType, AsyncGeneratorType, GeneratorType, asyncio.Future)


class StackFrame(Struct, frozen=True, kw_only=True):
    """One frame of a branch. `locals`: what they are, as text. `library`: it is asyncio's, anyio's or Holdfast's."""

    file: str
    line: int
    function: str
    source: str  # the line itself, if it can be had
    locals: dict[str, str]
    library: bool


class BranchStack(Struct, frozen=True, kw_only=True):
    """A branch of a workflow as it stands. `name`: its lineage id; `awaits`: what it goes on with. Of its stack the
    outermost frame comes first.
    """

    name: str
    awaits: str
    stack: tuple[StackFrame, ...]


class LiveFrame(Struct, frozen=True):
    """A frame itself, and the line that it is at."""

    frame: FrameType
    line: int
    library: bool


class LiveBranch(Struct, frozen=True):
    """A branch as it stands while its instance lives: the frames themselves, outermost first."""

    name: str
    awaits: str
    frames: tuple[LiveFrame, ...]


def live_branches(instance: Instance) -> tuple[LiveBranch, ...]:
    """The branches of an instance that have not ended, oldest first. None: its code has not begun, or has ended."""
    if instance.main is None:
        return ()
    loop = instance.loop
    loop.name_branches()
    found: list[LiveBranch] = []
    for task in loop.tasks.values():
        if task.done():
            continue
        frames, awaited = _walk(task.get_coro())
        awaits = _behind(frames) or _called(awaited, instance) or _primitive(frames) or "nothing: it is about to run"
        live = tuple(LiveFrame(frame, frame.f_lineno, is_library(frame)) for frame in frames)
        found.append(LiveBranch(_name_of(task), awaits, live))
    return tuple(found)


def described(branch: LiveBranch) -> BranchStack:
    """A branch as data."""
    stack = tuple(_frame(each.frame, each.line) for each in branch.frames)
    return BranchStack(name=branch.name, awaits=branch.awaits, stack=stack)


def frames_of_error(traceback: TracebackType | None) -> tuple[StackFrame, ...]:
    """The frames that an exception came through, as they stood then."""
    found: list[StackFrame] = []
    while traceback is not None and len(found) < FRAMES_MAX:
        found.append(_frame(traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return tuple(found)


# -- the walk ----------------------------------------------------------------------------------------------------------


def _walk(awaitable: Any) -> tuple[list[FrameType], Any]:
    """The frames of a suspended coroutine, outermost first, and what the innermost waits for."""
    frames: list[FrameType] = []
    while awaitable is not None and len(frames) < FRAMES_MAX:
        frame, inner = _step(awaitable)
        if frame is not None:
            frames.append(frame)
        elif inner is None:
            break
        awaitable = inner
    return frames, awaitable


def _step(awaitable: Any) -> tuple[FrameType | None, Any]:
    for prefix, next_ in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
        frame = getattr(awaitable, f"{prefix}_frame", None)
        if frame is not None:
            return frame, getattr(awaitable, next_, None)
    if isinstance(awaitable, asyncio.Future):
        return None, None
    # What wraps a coroutine, an async generator or a future while it is awaited has no name for what is inside.
    return None, next((each for each in gc.get_referents(awaitable) if isinstance(each, _WRAPPED)), None)


def _name_of(task: asyncio.Task[Any]) -> str:
    branch = getattr(task, "branch", None)
    return task.get_name() if branch is None else str(branch.id)


# -- what is awaited ---------------------------------------------------------------------------------------------------


def _behind(frames: Sequence[FrameType]) -> str:
    """What library code waits for, where that says more than the future does."""
    for frame in _innermost_library(frames):
        found = _AWAITED.get(frame.f_code.co_qualname)
        if found is not None:
            what, local, attribute = found
            return f"{what} {getattr(frame.f_locals.get(local), attribute, '?')}"
    return ""


def _innermost_library(frames: Sequence[FrameType]) -> Iterator[FrameType]:
    for frame in reversed(frames):
        if not is_library(frame):
            return
        yield frame


def _called(awaited: Any, instance: Instance) -> str:
    """What a future stands for."""
    match awaited:
        case PendingTask():
            return f"task {awaited.definition.name} [{awaited.id}]"
        case PendingChild():
            return f"child run {awaited.run_id} [{awaited.id}]"
        case asyncio.Task():
            return f"branch {_name_of(awaited)}"
        case asyncio.Future():
            return _timer(awaited, instance) or _send(awaited, instance) or _several(awaited, instance)
        case _:
            return ""


def _timer(future: Any, instance: Instance) -> str:
    for id_, pending in instance.timers.items():
        if any(each is future for each in pending.timer._args or ()):
            return f"a timer until {shown_time(pending.deadline)} [{id_}]"
    return ""


def _send(future: Any, instance: Instance) -> str:
    for id_, pending in instance.outbox.sends.items():
        if pending.future is future:
            return f"the delivery of a {pending.event.kind} to run {pending.event.run} [{id_}]"
    return ""


def _several(future: Any, instance: Instance) -> str:
    """Of a `gather`: those that it still waits for."""
    waited_for = [each for each in getattr(future, "_children", ()) if not each.done()]
    named = [_called(each, instance) or "a future" for each in waited_for[:_NAMED_MAX]]
    more = f" and {len(waited_for) - _NAMED_MAX:,} more" if len(waited_for) > _NAMED_MAX else ""
    return f"all of: {', '.join(named)}{more}" if named else ""


def _primitive(frames: Sequence[FrameType]) -> str:
    """The outermost library code that the author's own awaits: ``asyncio.queues.Queue.get``."""
    outermost = None
    for frame in _innermost_library(frames):
        outermost = frame
    if outermost is None:
        return "a future" if frames else ""
    return f"{outermost.f_globals.get('__name__', '?')}.{outermost.f_code.co_qualname}"


# -- what is shown -----------------------------------------------------------------------------------------------------


class _Bounded(reprlib.Repr):
    """Short, and in spite of what a `repr` raises."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = VALUE_CHARS - 20
        self.maxlevel = 4

    def repr_instance(self, x: Any, level: int) -> str:  # noqa: ARG002 - as `reprlib` calls it
        return self.of(x)

    def of(self, value: Any) -> str:
        """The `repr` of one value, or of what type it is."""
        try:
            text = repr(value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the user's code, and nobody's business but to be told
            return f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
        return text if len(text) <= self.maxother else f"{text[: self.maxother]}…"


_bounded: Final = _Bounded()


def _shown(value: Any) -> str:
    try:
        text = _bounded.repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a container of the user's that cannot be walked
        text = _bounded.of(value)
    text = " ".join(text.split())
    return _sayable(text if len(text) <= VALUE_CHARS else f"{text[: VALUE_CHARS - 1]}…")


def _sayable(text: str) -> str:
    """Text that has a UTF-8 form, whatever a `repr` or a file's name holds."""
    return text.encode("utf-8", "backslashreplace").decode()


def _frame(frame: FrameType, line: int) -> StackFrame:
    file = frame.f_code.co_filename
    names = list(frame.f_locals.items())
    shown = {name: _shown(value) for name, value in names[:LOCALS_MAX]}
    if len(names) > LOCALS_MAX:
        shown["…"] = f"{len(names) - LOCALS_MAX:,} more"
    return StackFrame(
        file=_sayable(file),
        line=line,
        function=frame.f_code.co_qualname,
        source=_sayable(linecache.getline(file, line, frame.f_globals).strip()),
        locals=shown,
        library=is_library(frame),
    )
