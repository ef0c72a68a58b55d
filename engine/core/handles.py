"""The awaitables and handles of a deterministic loop: asyncio's own, with a hash that is the same in every process.

Sets of them (in `asyncio.wait`, in anyio's scopes, in user code) therefore iterate alike at every replay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import copy_context
from types import MethodType
from typing import Any, Final

from engine.core.lineage import Branch

__all__ = ["STEP", "WAKE_UP", "BranchTask", "LoopFuture", "ReadyHandle", "WorkflowTimer"]


class ReadyHandle(asyncio.Handle):
    """What `call_soon` returns: asyncio's own, made without asking the loop for its debug mode each time."""

    __slots__ = ()

    def __init__(self, callback: Any, args: Any, loop: Any, context: Any) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class _StepSeen:
    """A loop that only looks at what a task hands to `call_soon` for its first step."""

    kind: type[Any] | None = None

    def get_debug(self) -> bool:
        return False

    def call_soon(self, callback: Any, *_args: Any, context: Any) -> None:  # noqa: ARG002 - asyncio passes it by name
        self.kind = type(callback)


def _kind_of_steps() -> type[Any] | None:
    """The type of the callback that is a task's step, where it is one of its own (asyncio's tasks written in C)."""

    async def nothing() -> None:
        """Closed before it begins."""

    seen: Any = _StepSeen()
    coro = nothing()
    task: Any = asyncio.Task(coro, loop=seen)
    task._log_destroy_pending = False
    coro.close()
    return None if seen.kind is MethodType else seen.kind


STEP: Final = _kind_of_steps()
WAKE_UP: Final = "task_wakeup"
"""How to know asyncio's own step of a task (by its type) and its wake-up (a built-in method of that name): nobody keeps
the handle of those, to cancel it.
"""


class WorkflowTimer(asyncio.TimerHandle):
    """What `call_at` returns. `id` is set while the timer is durable; empty for one that never fires, or at once."""

    id: str = ""
    _loop: Any  # asyncio's own attribute, which typeshed leaves out

    def cancel(self) -> None:
        if not self.cancelled():
            super().cancel()
            if self.id:
                self._loop.host.cancel_timer(self)


class LoopFuture(asyncio.Future[Any]):
    """A future whose hash is the same in every process."""

    __slots__ = ("stable_hash",)

    def __init__(self, *, loop: Any) -> None:
        self.stable_hash: int = loop.next_hash()
        asyncio.Future.__init__(self, loop=loop)

    def __hash__(self) -> int:
        return self.stable_hash


_UNNAMED: Final = "Task"


class BranchTask(asyncio.Task[Any]):
    """A branch: an asyncio task with a stable hash, whose name at its first step becomes part of its identity."""

    __slots__ = ("branch", "explicit_name", "stable_hash")

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: Any, name: str | None, context: Any) -> None:
        self.stable_hash: int = loop.next_hash()
        self.explicit_name = name
        self.branch: Branch | None = None
        # Without a name asyncio makes one up from a count of all tasks in the process, which no replay would repeat.
        asyncio.Task.__init__(self, coro, loop=loop, name=_UNNAMED if name is None else name, context=context)

    def get_name(self) -> str:
        """What its author called it, or else its id."""
        if self.explicit_name is None and self.branch is not None:
            return self.branch.id
        return super().get_name()

    def __hash__(self) -> int:
        return self.stable_hash

    def uncancel(self) -> int:
        left = super().uncancel()
        if not left:
            loop: Any = self.get_loop()
            loop.host.cancelling.taken_back(self)
        return left

    def set_name(self, value: object) -> None:
        # Python 3.11's create_task names a task only after it was made; later than its first step it is just a label.
        self.explicit_name = str(value)
        super().set_name(value)
