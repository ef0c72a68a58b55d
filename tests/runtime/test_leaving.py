"""What has left memory is gone at once: it does not wait for the garbage collector, which would go through all of it.

An error knows the frames that it came through, and none of ours knows it for longer than it is raised in. What Python's
own (`TaskGroup`, 3.11's `wait_for`, a thread's future) or the author's keep of it is theirs.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, NotHappened, RunHandle, task, workflow
from engine.core.instance import Instance
from engine.core.loop import DeterministicLoop
from engine.errors import RunCancelledError, RunFailedError
from engine.runtime.alarms import OneAlarm
from engine.runtime.board import Board
from engine.runtime.dispatch import Running
from engine.runtime.driver import Driver
from engine.runtime.pump import Pump
from engine.workflows import durable
from tests.runtime.faulty import FaultyStore, Pause
from tests.runtime.test_costs import step, steps, wide
from tests.runtime.worlds import PATIENCE_SECONDS, MemoryWorld, at_rest, settle, soon, until, until_async

OF_A_RUN = (Board, DeterministicLoop, Driver, Instance, Pump, Running)
RUNS = 3


@workflow
async def naps(count: int) -> int:
    async with asyncio.timeout(10_000):
        for _ in range(count):
            await asyncio.sleep(100)
    return count


@workflow
async def epochs(left: int) -> int:
    await step(left)
    if left:
        await durable.continue_as_new(epochs(left - 1))
    return left


@workflow
async def parent(count: int) -> int:
    return await steps(count)


@task
async def breaks(n: int) -> int:
    raise ConnectionError(n)


@task(timeout=100, heartbeat_timeout=50)
async def limited(n: int) -> int:
    return n


async def does_not_answer(n: int) -> None:
    raise TimeoutError(n)


@task(stop=stop_after_attempt(2), wait=wait_fixed(0), reconcile=does_not_answer)
async def asks_in_vain(n: int) -> int:
    raise ConnectionError(n)


@workflow
async def fails(count: int) -> int:
    return sum(await asyncio.gather(*(breaks(n) for n in range(count))))


@workflow
async def raises(count: int) -> int:
    await limited(count)
    raise ValueError(count)


@workflow
async def asks(count: int) -> int:
    return await asks_in_vain(count)


@workflow
async def mother_of_failures(count: int) -> int:
    return await fails(count)


@workflow
async def returns_what_cannot_be(count: int) -> Any:
    return object()


@workflow
async def recovers(count: int) -> int:
    try:
        return await breaks(count)
    except ConnectionError:
        return count


async def has_failed(run: RunHandle[Any], world: MemoryWorld) -> None:
    with pytest.raises(RunFailedError):
        await run.result()


async def ends(run: RunHandle[Any], world: MemoryWorld) -> None:
    await run.result()


async def is_cancelled(run: RunHandle[Any], world: MemoryWorld) -> None:
    await run.cancel()
    with pytest.raises(RunCancelledError):
        await run.result()


async def rests_and_is_put_away(run: RunHandle[Any], world: MemoryWorld) -> None:
    await at_rest(world.data, run.id)


async def rests_and_comes_back(run: RunHandle[Any], world: MemoryWorld) -> None:
    ending = asyncio.create_task(run.result())
    while not ending.done():
        await at_rest(world.data, run.id)
        world.clock.advance(100)
        await settle()
    await ending


def living() -> Counter[str]:
    return Counter(type(found).__name__ for found in gc.get_objects() if isinstance(found, OF_A_RUN))


@pytest.mark.parametrize(
    ("call", "life", "cached"),
    [
        (lambda: steps(3), ends, 10),
        (lambda: wide(10), ends, 10),
        (lambda: parent(3), ends, 10),
        (lambda: epochs(3), ends, 10),
        (lambda: naps(3), is_cancelled, 10),
        (lambda: fails(3), has_failed, 10),
        (lambda: raises(3), has_failed, 10),
        (lambda: asks(3), has_failed, 10),
        (lambda: mother_of_failures(3), has_failed, 10),
        (lambda: returns_what_cannot_be(3), has_failed, 10),
        (lambda: recovers(3), ends, 10),
        (lambda: naps(3), rests_and_is_put_away, 0),
        (lambda: naps(3), rests_and_comes_back, 0),
        (lambda: naps(3), rests_and_comes_back, 10),
    ],
)
async def test_a_run_leaves_nothing_to_the_garbage_collector(
    memory: MemoryWorld,
    call: Callable[[], Any],
    life: Callable[[RunHandle[Any], MemoryWorld], Awaitable[None]],
    cached: int,
) -> None:
    workflows: list[Any] = [steps, wide, naps, epochs, parent]
    workflows += [fails, raises, asks, mother_of_failures, returns_what_cannot_be, recovers]
    async with Engine(memory.data, workflows=workflows, clock=memory.clock, cached=cached) as engine:
        await settle()
        gc.collect()
        before = living()
        gc.disable()
        try:
            for _ in range(RUNS):
                await soon(life(await engine.start(call()), memory))
            await settle(200)
            assert living() - before == Counter()
        finally:
            gc.enable()


async def test_an_attempt_with_limits_leaves_nothing_to_the_garbage_collector(memory: MemoryWorld) -> None:
    async with Engine(memory.data, workflows=[limiting], clock=memory.clock) as engine:
        await soon((await engine.start(limiting())).result())
        await settle()
        gc.collect()
        gc.disable()
        try:
            before = sum(isinstance(found, OneAlarm) for found in gc.get_objects())
            await soon((await engine.start(limiting())).result())
            await settle(200)
            assert sum(isinstance(found, OneAlarm) for found in gc.get_objects()) == before
        finally:
            gc.enable()


@workflow
async def limiting() -> int:
    return await limited(1) + await limited(2)


# -- what is said to a run that is gone --------------------------------------------------------------------------------


@task(executor="threads")
def keeps_its_thread() -> None:
    inside.set()
    assert may_go.wait(PATIENCE_SECONDS)


@task(reconcile=lambda n: NotHappened(), stop=stop_after_attempt(5), wait=wait_fixed(3_600))
async def pays(n: int) -> int:
    tried.append(n)
    raise ConnectionError(n)


@workflow
async def keeping() -> None:
    await keeps_its_thread()


@workflow
async def paying() -> str:
    try:
        return str(await pays(1))
    except asyncio.CancelledError:
        return "ended"


inside, may_go, tried = threading.Event(), threading.Event(), list[int]()


async def test_a_task_that_is_called_off_behind_the_end_of_its_lease_asks_nobody() -> None:
    """The outside would be asked what became of it, once there is a slot: for a run that has left memory since."""
    inside.clear(), may_go.clear(), tried.clear()
    world = MemoryWorld(lease_ttl=10)
    store = FaultyStore(world.data)
    async with Engine(store, workflows=[keeping, paying], clock=world.clock, threads=1) as engine:
        kept = await engine.start(keeping(), id="keeping")
        await until(inside.is_set)
        run = await engine.start(paying(), id="paying")
        await until(lambda: tried)
        pause = Pause(store, behind=True, when=calls_off)
        await until_async(lambda: is_retrying(run))
        await run.cancel()
        await soon(pause.reached.wait())
        (lease,) = world.data._leases.values()
        lease.stall()
        world.clock.advance(11)
        await until(lambda: engine._worker is not None and engine._worker.lease is not lease)
        pause.let_go.set()
        await settle(100)
        may_go.set()
        assert await soon(run.result()) == "ended"
        await soon(kept.result())
        engine.check()
        assert tried == [1]
    await world.aclose()


def calls_off(name: str, argument: Any) -> bool:
    return name == "commit" and any(b'"TaskCancelled"' in event.header for event in argument.events)


async def is_retrying(run: RunHandle[Any]) -> bool:
    return any(found.status == "retrying" for found in (await run.state()).tasks.values())


@task
async def stays() -> None:
    tried.append(0)
    await asyncio.Event().wait()


@workflow
async def staying() -> None:
    await stays()


async def test_a_run_whose_pump_was_cancelled_is_let_go_on(memory: MemoryWorld) -> None:
    """The program's tasks are all cancelled at once, and one of them unpauses the workflow on its way out."""
    tried.clear()
    async with Engine(memory.data, workflows=[staying], clock=memory.clock, grace=0) as engine:
        run = await engine.start(staying(), id="a")
        await until(lambda: tried)
        await settle()
        await engine.pause_workflow(staying)
        await settle()
        for found in asyncio.all_tasks():
            if found.get_coro().__qualname__ == "Pump._run":  # type: ignore[union-attr]
                found.cancel()
        await settle()
        await engine.unpause_workflow(staying)
        assert await run.status() == "running"
