"""Coroutines beside everything else, none of them forgotten, no failure unheard."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Collection, Coroutine
from typing import Any

__all__ = ["Spawner"]


class Spawner:
    """Starts coroutines as tasks of the running loop; what one of them raises is handed to `on_failure`."""

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self._on_failure = on_failure
        # One of each for all tasks: asyncio would copy the context of whoever spawns for every one of them.
        self._context = contextvars.copy_context()
        self._on_end = self._ended
        self._tasks: dict[asyncio.Task[None], Callable[[], None] | None] = {}

    def __call__(
        self,
        coro: Coroutine[Any, Any, None],
        /,
        *,
        name: str = "holdfast",
        context: contextvars.Context | None = None,
        ended: Callable[[], None] | None = None,
    ) -> asyncio.Task[None]:
        """Start it; the task may be cancelled, or left alone. `ended` is called when it is done, however it ended.

        `name` is the task's, for who debugs: asyncio would make one up for each.
        `context`: what it runs in; None for a copy of the caller's.
        """
        task = asyncio.get_running_loop().create_task(coro, name=name, context=context)
        self._tasks[task] = ended
        task.add_done_callback(self._on_end, context=self._context)
        return task

    def leave(self, task: asyncio.Task[None]) -> None:
        """Called by a task's own coroutine as the last thing it does: nothing of its end is to be heard any more.

        A callback of that would be one more round of the loop for each. What has begun and is cancelled in this very
        step has ended all the same.
        """
        if task.remove_done_callback(self._on_end):  # none yet, where the program's loop begins tasks at once
            del self._tasks[task]

    async def wait(self, *, but: Collection[asyncio.Task[None]] = (), seconds: float) -> None:
        """Wait until all have ended but those named, looking for new ones at least every `seconds`."""
        while tasks := [task for task in self._tasks if task not in but]:
            await asyncio.wait(tasks, timeout=seconds)

    def cancel_all(self) -> None:
        """Ask all of them to end."""
        for task in list(self._tasks):
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        ended = self._tasks.pop(task)
        if ended is not None:
            ended()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(error)
