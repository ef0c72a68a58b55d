"""Functions that run in place of a task's own: how tests put fakes where effects would be.

An engine is handed one function, which is asked at every attempt what to run. Everything else of the attempt is as
ever: its record, arguments and result through their codecs, retries, timeouts, its idempotency key.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any, TypeAlias

from msgspec import structs

from engine.executors import Executor, Work
from engine.executors.port import Slots
from engine.tasks import Task

__all__ = ["StandIn", "StandingIn", "place_of"]

StandIn: TypeAlias = Callable[[Task[..., Any], Callable[..., Any]], Callable[..., Any]]
"""Given a task and the function that is to run for it (its own, or its ``reconcile``): the one that runs instead."""


def place_of(task: Task[..., Any], function: Callable[..., Any], stand_in: StandIn) -> str:
    """The name of the executor where what stands in for a function runs."""
    return "loop" if iscoroutinefunction(stand_in(task, function)) else "threads"


class StandingIn:
    """An executor that runs other functions than those it is asked to run."""

    def __init__(self, executor: Executor, task: Task[..., Any], stand_in: StandIn) -> None:
        self._executor = executor
        self._task = task
        self._stand_in = stand_in

    @property
    def name(self) -> str:
        return self._executor.name

    @property
    def slots(self) -> Slots:
        return self._executor.slots

    def check(self, task: Task[..., Any]) -> None:
        """What stands in can run here, wherever the task's own function would."""

    async def run(self, work: Work) -> Any:
        return await self._executor.run(structs.replace(work, instead=self._stand_in(self._task, work.fn)))

    async def aclose(self) -> None:
        await self._executor.aclose()
