"""What a run costs in commits: the promise that a sequential step is one, and that waiting is none."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, task, workflow
from engine.runtime.alarms import Alarms
from engine.runtime.dispatch import Running
from engine.runtime.limiting import within
from tests.runtime.faulty import FaultyStore
from tests.runtime.worlds import MemoryWorld, at_rest, settle, soon, until_async


@task
async def step(n: int) -> int:
    return n


@task
def step_in_thread(n: int) -> int:
    return n


@workflow
async def steps(count: int) -> int:
    for n in range(count):
        await step(n)
    return count


@workflow
async def steps_in_threads(count: int) -> int:
    for n in range(count):
        await step_in_thread(n)
    return count


@workflow
async def wide(count: int) -> int:
    return len(await asyncio.gather(*(step(n) for n in range(count))))


@workflow
async def naps(count: int) -> int:
    for _ in range(count):
        await asyncio.sleep(100)
    return count


async def commits_of(memory: MemoryWorld, call, *, turn: float = 0) -> int:
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[steps, steps_in_threads, wide, naps], clock=memory.clock) as engine:
        run = await engine.start(call, id="a")
        ending = asyncio.create_task(run.result())
        while not ending.done():
            if turn:
                await at_rest(memory.data, "a")
                memory.clock.advance(turn)
            await asyncio.sleep(0.001)
        await soon(ending)
    return store.calls.count("commit")


@pytest.mark.parametrize("definition", [steps, steps_in_threads], ids=["coroutines", "threads"])
async def test_a_sequential_step_is_one_commit(memory: MemoryWorld, definition) -> None:
    """`TaskCompleted k`, its decision `TaskScheduled k+1` and the note `TaskStarted k+1` travel together."""
    assert await commits_of(memory, definition(20)) == 21


async def test_a_fan_out_shares_commits(memory: MemoryWorld) -> None:
    assert await commits_of(memory, wide(300)) <= 10


async def test_a_nap_is_two_commits(memory: MemoryWorld) -> None:
    """One that wakes the run and one that lets it rest, at most; the waiting itself is none."""
    assert await commits_of(memory, naps(10), turn=100) <= 21


async def test_claims_are_not_made_in_vain(memory: MemoryWorld) -> None:
    """An idle engine asks its store for nothing but, seldom, what there is to do."""
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[naps], clock=memory.clock) as engine:
        await engine.start(naps(1), id="a")
        await at_rest(memory.data, "a")
        await settle(50)
        before = len(store.calls)
        await settle(1_000)
        assert len(store.calls) - before <= 3, store.calls[before:]


async def test_a_retry_is_two_commits(memory: MemoryWorld) -> None:
    failures: list[int] = []

    @task(stop=stop_after_attempt(9), wait=wait_fixed(100))
    async def flaky() -> int:
        failures.append(1)
        if len(failures) < 6:
            raise ConnectionError
        return len(failures)

    @workflow
    async def trying() -> int:
        return await flaky()

    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[trying], clock=memory.clock) as engine:
        run = await engine.start(trying(), id="a")

        async def waits() -> bool:
            return any(found.status == "retrying" for found in (await run.state()).tasks.values())

        for _ in range(5):
            await until_async(waits)
            await at_rest(memory.data, "a")
            memory.clock.advance(100)
            await settle()
        assert await soon(run.result()) == 6
    assert store.calls.count("commit") <= 2 + 5 * 2


# -- what an attempt leaves, and does without ------------------------------------------------------------------------


async def test_an_attempt_without_limits_is_awaited_as_it_is(memory: MemoryWorld) -> None:
    async def work() -> int:
        return 1

    alarms, running = Alarms(memory.clock), work()
    bare = within(None, running, step, whole=False, clock=memory.clock, alarms=alarms, pulse=None)
    assert bare is running
    assert await bare == 1
    limited = within(5.0, work(), step, whole=False, clock=memory.clock, alarms=alarms, pulse=None)
    assert await limited == 1
    alarms.close()


async def test_attempts_that_have_ended_are_left_to_nobody(memory: MemoryWorld) -> None:
    """Not even to the collector: it finds nothing of them, however many there were."""
    gone: list[bool] = []

    async with Engine(memory.data, workflows=[steps], clock=memory.clock) as engine:
        assert engine._worker is not None
        dispatcher = engine._worker.dispatcher
        launch = dispatcher.launch

        def launched(*args: Any, **options: Any) -> Running:
            running = launch(*args, **options)
            weakref.finalize(running.task, gone.append, True)  # which the attempt holds
            return running

        dispatcher.launch = launched  # type: ignore[method-assign]
        collecting = gc.isenabled()
        gc.disable()
        try:
            run = await engine.start(steps(5), id="a")
            assert await soon(run.result()) == 5
            await settle()
            assert len(gone) == 5
        finally:
            if collecting:
                gc.enable()
