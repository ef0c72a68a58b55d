"""Plain functions in worker threads."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from threading import Lock
from typing import Any

import anyio
import anyio.to_thread

from engine.errors import DefinitionError
from engine.executors.port import Slots, Work
from engine.tasks import Task, bind_attempt

__all__ = ["ThreadExecutor"]


class ThreadExecutor:
    """Runs `def` tasks in threads of anyio's pool.

    A thread cannot be stopped: when the caller is cancelled (a timeout, a cancelled task, the end of the engine's grace
    period) the function finds that in `attempt()`; if it does not look it goes on to its end unheard, and its slot
    stays taken until then.
    """

    name = "threads"

    def __init__(self, slots: int) -> None:
        self.slots = Slots(slots)

    def check(self, task: Task[..., Any]) -> None:
        """Raise `DefinitionError` for a coroutine function."""
        if task.is_coroutine:
            raise DefinitionError(f"{task.where} is an `async def`: it runs on executor 'loop', not in 'threads'")

    async def run(self, work: Work) -> Any:
        passage = _Passage(self.slots)
        try:
            # The slot is the limit. A limiter of its own leaves anyio's default one, which the program shares, alone.
            return await anyio.to_thread.run_sync(
                passage.through, work, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
            )
        except asyncio.CancelledError:
            work.contact.cancelled.give()
            raise
        finally:
            passage.leave()

    async def aclose(self) -> None:
        """Threads that still run end with their function."""


class _Passage:
    """Gives a slot back exactly once: when the function ends, or when it is certain never to begin."""

    __slots__ = ("_begun", "_left", "_lock", "_loop", "_slots")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._lock = Lock()
        self._begun = False
        self._left = False

    def through(self, work: Work) -> Any:
        """In the thread: run the work, unless its caller has left already."""
        with self._lock:
            if self._left:
                return None
            self._begun = True
        try:
            work.begin()
            bind_attempt(work.attempt)
            return work.fn(*work.args, **work.kwargs)
        except GeneratorExit as error:
            # Thrown into whoever awaits it, this one would close coroutines instead of being an outcome.
            raise RuntimeError("the function raised GeneratorExit") from error
        finally:
            with suppress(RuntimeError):  # the program's loop was closed meanwhile; nobody waits for slots any more
                self._loop.call_soon_threadsafe(self._slots.give_back)

    def leave(self) -> None:
        """On the loop: the caller has its result, or no longer waits for it."""
        with self._lock:
            self._left = True
            if self._begun:
                return
        self._slots.give_back()
