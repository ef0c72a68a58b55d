"""An executor as somebody else would write it, with what is public: it passes the suite, and serves an engine."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine import Task, task, workflow
from engine.core.events import TaskStarted
from engine.errors import DefinitionError
from engine.executors import Slots, Work, bind_attempt
from engine.executors.conformance import CHECKS, Check, ExecutorHarness, name_of
from tests.runtime.worlds import MemoryWorld, events_of, soon


class PoolExecutor:
    """Plain functions in a pool of one's own."""

    name = "pool"

    def __init__(self, slots: int) -> None:
        self.slots = Slots(slots)
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="pool")

    def check(self, task: Task[..., Any]) -> None:
        if task.is_coroutine:
            raise DefinitionError(f"{task.where} is an `async def`, and the pool is for plain functions")

    async def run(self, work: Work) -> Any:
        loop = asyncio.get_running_loop()
        running = self._pool.submit(contextvars.Context().run, self._call, work)
        running.add_done_callback(lambda _: loop.call_soon_threadsafe(self.slots.give_back))  # when it has really ended
        try:
            return await asyncio.wrap_future(running)
        except asyncio.CancelledError:
            work.contact.cancelled.give()  # it cannot be stopped; it can look
            raise

    def _call(self, work: Work) -> Any:
        work.begin()
        bind_attempt(work.attempt)
        try:
            return work.fn(*work.args, **work.kwargs)
        except GeneratorExit as error:  # whoever awaits this one would be closed by it
            raise RuntimeError("the function raised GeneratorExit") from error

    async def aclose(self) -> None:
        self._pool.shutdown(wait=False)


@pytest.fixture
async def harness() -> AsyncIterator[ExecutorHarness]:
    harness = ExecutorHarness(PoolExecutor)  # called with a number of slots
    yield harness
    await harness.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_conformance(check: Check, harness: ExecutorHarness) -> None:
    await check(harness)


@task(executor="pool")
def double(n: int) -> int:
    return n * 2


@workflow
async def doubling(n: int) -> list[int]:
    return await asyncio.gather(*(double(each) for each in range(n)))


async def test_it_serves_an_engine(memory: MemoryWorld) -> None:
    async with memory.engine(doubling, executors=[PoolExecutor(2)]) as engine:
        run = await engine.start(doubling(5))
        assert await soon(run.result()) == [0, 2, 4, 6, 8]
        starts = [event for event in await events_of(run) if isinstance(event, TaskStarted)]
        assert {event.executor for event in starts} == {"pool"}
