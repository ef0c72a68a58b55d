"""Plain functions in processes of their own: work that computes, or that must be ended for certain.

Processes are started when they are first needed, from a fresh interpreter (never forked: a forked child would keep the
store's lock alive), and used again. One that dies, or whose work was cancelled, is replaced. They end when the engine
closes, and when it dies: their standard input then ends. Why this is no library is decision 13.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from engine.errors import DefinitionError
from engine.executors.port import Slots, Work
from engine.tasks import Task

if TYPE_CHECKING:
    from engine.executors.visits import Process, Visit

__all__ = ["ProcessExecutor"]


class ProcessExecutor:
    """See the module. Cancelling the caller ends the process: the work is interrupted, killed if it does not end."""

    name = "processes"

    def __init__(self, slots: int) -> None:
        self.slots = Slots(slots)
        self._idle: list[Process] = []
        self._visits: set[Visit] = set()

    def check(self, task: Task[..., Any]) -> None:
        """Raise `DefinitionError` for a coroutine function, or one that another process would not find."""
        if task.is_coroutine:
            raise DefinitionError(f"{task.where} is an `async def`: it runs on executor 'loop', not in 'processes'")
        if task.arguments.tabular or task.result.tabular:
            raise DefinitionError(
                f"{task.where} takes or returns tables, which do not travel to worker processes: let it run on executor"
                " 'threads', or hand on a path"
            )
        from engine.executors.functions import name_of  # noqa: PLC0415 - only who uses processes needs any of this

        name_of(task)

    async def run(self, work: Work) -> Any:
        from engine.executors import visits  # noqa: PLC0415 - as above

        visit = visits.Visit(self, work)
        self._visits.add(visit)
        visit.task.add_done_callback(lambda _: self._visits.discard(visit))
        try:
            return await asyncio.shield(visit.task)
        except asyncio.CancelledError:
            visit.call_off()
            # Until its process has ended, so that no other attempt begins beside it; a second cancel does not wait.
            await asyncio.wait([visit.task])
            raise

    async def aclose(self) -> None:
        """End all processes, and wait until they have ended."""
        for visit in self._visits:
            visit.call_off()
        if self._visits:
            await asyncio.wait([visit.task for visit in self._visits])
        idle, self._idle = self._idle, []
        await asyncio.gather(*(process.end() for process in idle))

    def take(self) -> Process | None:
        """A process that waits for work, if there is one."""
        while self._idle:
            process = self._idle.pop()
            if process.alive:
                return process
        return None

    def put(self, process: Process) -> None:
        """It may be used again."""
        self._idle = [each for each in self._idle if each.alive]
        self._idle.append(process)
