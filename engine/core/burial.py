"""Putting a run's live objects away: coroutines are closed, tasks brought to an end, and nothing is decided.

User `finally` blocks run whenever a coroutine is closed; that cannot be prevented. So the loop is poisoned first: from
then on durable calls raise `Evicted`, timers never fire and new tasks never begin. What a dying coroutine still waits
for is cancelled, a few times over, for a `finally` block may wait for a branch that is put away with it.

The tasks are brought to an end, not just dropped: anyio keeps a table of unfinished ones, whose values hold its keys.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any, Final

__all__ = ["bury", "is_level_cancellation"]

_STEPS: Final = 16  # callbacks per task and round: its wake-up, and those that hear of its end
_ROUNDS: Final = 8  # waits of one `finally` block that are cancelled before it is given up


def bury(loop: Any) -> None:
    """Close and end whatever lives on a poisoned loop, oldest branch first. The loop must be the running one."""
    tasks = list(loop.tasks.values())
    for task in tasks:
        task._log_destroy_pending = False
        # As the current task: an anyio scope that is left in another one is not left at all.
        asyncio.tasks._enter_task(loop, task)
        loop.refusals = 0
        try:
            loop.close_silently(task.get_coro())
        finally:
            asyncio.tasks._leave_task(loop, task)
    for generator in loop.live_generators():
        loop.close_silently(generator)
    loop.burying, loop.refusals = True, 0
    _drain(loop, len(tasks))
    for _ in range(_ROUNDS):
        waiting = [task for task in tasks if not task.done()]
        if not waiting:
            break
        for task in waiting:
            with suppress(BaseException):
                task.cancel()
        _drain(loop, len(waiting))
    loop.burying = False
    # Code that swallows everything in an endless loop cannot be ended. Collected later, outside of its run, it would go
    # on, and its calls of tasks would be plain calls, with effects: so it is never collected.
    loop.unburied += [task.get_coro() for task in tasks if getattr(task.get_coro(), "cr_frame", None) is not None]


def _drain(loop: Any, tasks: int) -> None:
    ready: deque[Any] = loop.ready
    for _ in range(_STEPS * (1 + tasks)):
        if not ready:
            return
        entry = ready.popleft()
        if type(entry) is tuple:
            callback, args, context = entry
        elif entry._cancelled:
            continue
        else:
            callback, args, context = entry._callback, entry._args, entry._context
        if not is_level_cancellation(callback):
            with suppress(BaseException):  # nobody is left to hear it
                context.run(callback, *args)


def is_level_cancellation(callback: Any) -> bool:
    """Whether this is anyio's retry of a cancellation, which calls itself again until the cancelled task has ended."""
    return getattr(callback, "__name__", "") == "_deliver_cancellation" and type(
        getattr(callback, "__self__", None)
    ).__module__.startswith("anyio.")
