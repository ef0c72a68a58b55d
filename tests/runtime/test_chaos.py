"""Everything at once, seeded: several workers on one store that fails, dawdles, loses replies and stalls leases.

A failing seed is in the test's id. It makes the same choices again, not the same schedule: how many turns fit between
two of them is the machine's, so a failure may need several tries.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, attempt, task, workflow
from engine.core.events import TaskCompleted, TaskStarted, decode_header
from engine.core.lineage import idempotency_key
from engine.errors import EngineFailed, ResultError, TaskError
from eventstore import EventStoreError, StreamQuery
from tests.runtime.faulty import FaultyStore
from tests.runtime.invariants import check_store
from tests.runtime.worlds import MemoryWorld, result_of, until_async

SEEDS = range(12)
RUNS = 6

effects: Counter[str] = Counter()
failures: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _nothing_happened() -> None:
    effects.clear()
    failures.clear()


def effect() -> None:
    effects[attempt().idempotency_key] += 1


@task
async def work(n: int, turns: int) -> int:
    effect()
    for _ in range(turns):
        await asyncio.sleep(0)
    return n


@task(stop=stop_after_attempt(100), wait=wait_fixed(3), timeout=50)
async def shaky(n: int) -> int:
    effect()
    key = attempt().idempotency_key
    failures[key] += 1
    if failures[key] % 4 in (1, 2):
        raise ConnectionError(n)
    return n


@task
async def endless() -> None:
    effect()
    await asyncio.Event().wait()


@task(on_cancel="wait", stop=stop_after_attempt(100), wait=wait_fixed(2))
async def charge(n: int) -> int:
    effect()
    await asyncio.sleep(0)
    if n % 2:
        raise ConnectionError(n)
    await asyncio.Event().wait()
    return n


@task
async def undo(n: int) -> int:
    effect()
    return -n


@workflow
async def mixed(n: int) -> list[int]:
    found = [await work(n, n % 3)]
    found += await asyncio.gather(*(shaky(k) if k % 2 else work(k, k) for k in range(4)))
    try:
        async with asyncio.timeout(20):
            await endless()
    except TimeoutError:
        found.append(await undo(n))
    try:
        async with asyncio.timeout(9):
            await charge(n)
    except (TimeoutError, TaskError, ConnectionError):
        found.append(await undo(n))
    await asyncio.sleep(100)
    async with asyncio.TaskGroup() as group:
        branches = [group.create_task(_branch(k)) for k in range(3)]
    return found + [branch.result() for branch in branches]


async def _branch(k: int) -> int:
    await asyncio.sleep(k)
    return await shaky(k)


@workflow
async def to_be_cancelled(n: int) -> None:
    try:
        await asyncio.gather(endless(), charge(n), work(n, 1), asyncio.sleep(1e9))
    finally:
        await undo(n)
        await asyncio.sleep(5)
        await shaky(n)


class Chaos:
    """One seed: the store's mood, and what befalls the workers."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = MemoryWorld(lease_ttl=30)
        self.calm = False

    def store(self) -> FaultyStore:
        random = self.random
        rate = random.choice([0.0, 0.0, 0.01, 0.04])

        def plan(_number: int, _name: str) -> Any:
            if self.calm or random.random() >= rate:
                return None
            return random.choice(["die before", "die after", "refuse", "lose reply"])

        async def dawdle(_name: str, _argument: Any) -> None:
            for _ in range(random.choice([0, 0, 0, 1, 3, 20])):
                await asyncio.sleep(0)

        store = FaultyStore(self.world.data, plan)
        store.before = store.after = dawdle
        return store

    async def worker(self, number: int) -> None:
        """Shifts of one worker after the other; each ends as it happens to."""
        random = self.random
        while not self.calm:
            store = self.store()
            try:
                async with Engine(
                    store,
                    workflows=[mixed, to_be_cancelled],
                    worker=f"w{number}",
                    clock=self.world.clock,
                    grace=random.choice([0, 0.001]),
                    cached=random.choice([0, 1, 100]),
                    runs=random.choice([1, 3, 100]),
                    concurrency=random.choice([1, 4, 100]),
                ):
                    for _ in range(random.randrange(5, 60)):
                        await asyncio.sleep(0.0003)
                        if self.calm or store.dead:
                            break
                        if random.random() < 0.02:
                            for lease in list(self.world.data._leases.values()):
                                if random.random() < 0.5:
                                    lease.stall()
                    if random.random() < 0.3:
                        store.die()
            except EventStoreError:
                await asyncio.sleep(0)

    async def time(self) -> None:
        while True:
            await asyncio.sleep(0.0005)
            self.world.clock.advance(self.random.choice([0.1, 0.5, 2, 15]))
            if self.random.random() < 0.02:
                self.world.clock.step(-self.random.random() * 10)

    async def half_done(self) -> bool:
        """Whether half of the runs have ended."""
        page = await self.world.data.find(StreamQuery(closed=True, limit=RUNS))
        return len(page.items) == RUNS

    async def user(self) -> None:
        """Starts the runs, asks for the end of some, and repeats itself whenever it is told that something failed."""
        for number in range(2 * RUNS):
            definition, n = (mixed, number) if number < RUNS else (to_be_cancelled, number - RUNS)
            while True:
                try:
                    async with Engine(
                        self.store(),
                        workflows=[mixed, to_be_cancelled],
                        clock=self.world.clock,
                        grace=0,
                        only=[f"run-{number}"],
                    ) as engine:
                        run = await engine.start(definition(n), id=f"run-{number}")
                        await asyncio.sleep(self.random.random() * 0.003)
                        if definition is to_be_cancelled:
                            await run.cancel(reason="enough")
                    break
                except (EventStoreError, EngineFailed):
                    await asyncio.sleep(0)


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_and_nothing_recorded_happens_again(seed: int) -> None:
    chaos = Chaos(seed)
    async with asyncio.timeout(60):
        time = asyncio.create_task(chaos.time())
        workers = [asyncio.create_task(chaos.worker(number)) for number in range(3)]
        try:
            await chaos.user()
            await until_async(chaos.half_done)
            recorded = await completed_effects(chaos.world)
            chaos.calm = True
            await asyncio.gather(*workers)
            settled = await completed_effects(chaos.world)
            store = FaultyStore(chaos.world.data)
            async with Engine(store, workflows=[mixed, to_be_cancelled], clock=chaos.world.clock, grace=0) as engine:
                handles = [engine.run(f"run-{number}") for number in range(2 * RUNS)]
                results = await asyncio.gather(*(result_of(handle) for handle in handles), return_exceptions=True)
        finally:
            for each in (time, *workers):
                each.cancel()
            await asyncio.gather(time, *workers, return_exceptions=True)
    for n, result in enumerate(results[:RUNS]):
        assert result == [n, 0, 1, 2, 3, -n, -n, 0, 1, 2]
    assert all(isinstance(result, ResultError) and "cancelled" in str(result) for result in results[RUNS:]), results
    await check_store(chaos.world.data, mixed, to_be_cancelled)
    for key, count in (recorded | settled).items():
        assert effects[key] == count
    begun = await recorded_attempts(chaos.world)
    for key, count in effects.items():
        assert count <= begun[key], f"{count} effects of {begun[key]} recorded attempts"
    await chaos.world.aclose()


async def recorded_attempts(world: MemoryWorld) -> Counter[str]:
    """How many attempts are recorded, by key: no effect without one."""
    found: Counter[str] = Counter()
    async for item in world.data.read_all(category="run"):
        event = decode_header(item.header)
        if isinstance(event, TaskStarted):
            found[idempotency_key(item.stream.partition(":")[2], 0, event.id)] += 1
    return found


async def completed_effects(world: MemoryWorld) -> dict[str, int]:
    """How often those tasks have had effects whose completion is recorded now."""
    found = {}
    async for item in world.data.read_all(category="run"):
        event = decode_header(item.header)
        if isinstance(event, TaskCompleted):
            key = idempotency_key(item.stream.partition(":")[2], 0, event.id)
            found[key] = effects[key]
    return found
