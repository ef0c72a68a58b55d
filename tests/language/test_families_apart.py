"""Parents and children in two engines, one of which dies; and very many children."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine import Engine, workflow
from tests.language.hands import exists, gate, held, tell, told
from tests.runtime.faulty import FaultyStore, leave
from tests.runtime.invariants import check_store
from tests.runtime.worlds import MemoryWorld, World, events_of, soon, until, until_async


@workflow
async def child(name: str) -> str:
    await tell(f"{name} here")
    return await held(name)


@workflow
async def parent() -> list[str]:
    """Keeps its engine's memory full while it waits, so that its child is for another engine."""
    return list(await asyncio.gather(held("own"), child.options(id="theirs")("theirs")))


async def owner(engine: Engine, run_id: str) -> int | None:
    return (await engine.store.head(f"run:{run_id}")).owner


@pytest.mark.parametrize("dies", ["parent's", "child's"])
async def test_parent_and_child_in_two_engines_one_of_which_dies(dies: str, world: World) -> None:
    first_store, second_store = FaultyStore(await world.store()), FaultyStore(await world.store())
    options: dict[str, Any] = {"clock": world.clock, "grace": 0}
    first = Engine(first_store, workflows=[parent], runs=1, **options)
    second = Engine(second_store, workflows=[parent, child], **options)
    await first.__aenter__()
    await first.start(parent(), id="p")
    await until(lambda: "own began" in told)  # before the other comes: a start while it claims is anybody's
    await second.__aenter__()
    try:
        run = await exists(second, "theirs")
        await until(lambda: "theirs began" in told)
        assert await owner(second, "p") != await owner(second, "theirs")
        dead, alive = (first, second) if dies == "parent's" else (second, first)
        (first_store if dead is first else second_store).die()
        gate("own").set()
        gate("theirs").set()
        assert await soon(alive.run("p").result()) == ["own", "theirs"]
        assert await soon(alive.run(run.id).result()) == "theirs"
    finally:
        for engine in (first, second):
            await leave(engine)
    store = await world.store()
    await check_store(store, parent, child)
    kinds = Counter(type(event).__name__ for event in await _events(world, "p"))
    assert (kinds["ChildStarted"], kinds["ChildCompleted"]) == (1, 1)
    for each in (first_store, second_store):
        await world.release(each.inner)
    await world.release(store)


async def _events(world: World, run_id: str) -> list[Any]:
    async with world.engine() as client:
        return await events_of(client.run(run_id))


# -- very many ------------------------------------------------------------------------------------------------------------


@workflow
async def one(n: int) -> int:
    return n


@workflow
async def windowed(n: int) -> int:
    window = asyncio.Semaphore(10)

    async def within(index: int) -> int:
        async with window:
            return await one(index)

    return sum(await asyncio.gather(*(within(index) for index in range(n))))


class Counting(FaultyStore):
    """Counts the events that are read."""

    read_events = 0

    async def read(
        self, stream: str, *, after: int = 0, until: int | None = None, proof: bool = True
    ) -> AsyncIterator[Any]:
        async for event in super().read(stream, after=after, until=until, proof=proof):
            self.read_events += 1
            yield event


async def perform(world: MemoryWorld, n: int) -> Counting:
    store = Counting(world.data)
    async with Engine(store, workflows=[windowed], clock=world.clock) as engine:
        run = await engine.start(windowed(n), id=f"p{n}")
        assert await soon(run.result(), seconds=300) == n * (n - 1) // 2
        most, now = 0, 0
        for event in await events_of(run):
            now += {"ChildStarted": 1, "ChildCompleted": -1}.get(type(event).__name__, 0)
            most = max(most, now)
        assert most == 10
    return store


async def test_thousands_of_children_under_a_window_of_ten(worlds) -> None:
    """Reads and calls of the store grow with the number of children and no faster; no more than ten run at once."""
    few, many = await perform(worlds(), 200), await perform(worlds(), 2_000)
    assert many.read_events <= 12 * max(few.read_events, 200)
    assert len(many.calls) <= 12 * len(few.calls)


async def test_finished_children_take_no_memory_in_their_parent(worlds) -> None:
    """What a run of many children leaves in the engine is little more than what one of few leaves."""
    left = []
    for n in (50, 300):
        world = worlds()
        async with Engine(world.data, workflows=[windowed], clock=world.clock, cached=0) as engine:
            tracemalloc.start()
            try:
                run = await engine.start(windowed(n), id="p")
                await soon(run.result(), seconds=300)

                async def gone(engine: Engine = engine) -> bool:
                    return not engine._worker.residents.drivers  # type: ignore[union-attr]

                await until_async(gone)
                gc.collect()
                snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/engine/*")])
                left.append(sum(statistic.size for statistic in snapshot.statistics("filename")))
            finally:
                tracemalloc.stop()
    assert left[1] - left[0] < 250 * 2_500, f"bytes left behind by 50 and by 300 children: {left}"
