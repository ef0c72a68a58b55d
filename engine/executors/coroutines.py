"""Coroutine functions on the engine's own event loop."""

from __future__ import annotations

from typing import Any

from engine.errors import DefinitionError
from engine.executors.port import Slots, Work
from engine.tasks import Task, bind_attempt

__all__ = ["LoopExecutor"]


class LoopExecutor:
    """Runs `async def` tasks in the caller's asyncio task; cancelling that task cancels the work."""

    name = "loop"

    def __init__(self, slots: int) -> None:
        self.slots = Slots(slots)

    def check(self, task: Task[..., Any]) -> None:
        """Raise `DefinitionError` for a plain function: it would keep the loop."""
        if not task.is_coroutine:
            raise DefinitionError(f"{task.where} is a plain function, and executor 'loop' is for `async def`")

    async def run(self, work: Work) -> Any:
        try:
            work.begin()
            bind_attempt(work.attempt)
            return await work.fn(*work.args, **work.kwargs)
        finally:
            self.slots.give_back()

    async def aclose(self) -> None:
        """There is nothing of its own to end."""
