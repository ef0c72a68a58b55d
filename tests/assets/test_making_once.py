"""Two runs on one store make nothing twice, and wait for each other no longer than they must."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, RunHandle
from engine.assets import (
    AssetContext,
    AssetFailed,
    AssetPromoted,
    AssetPublished,
    Assets,
    AssetSkipped,
    AssetStarted,
    AssetState,
    AssetUnchanged,
    Catalog,
    CheckContext,
    Definitions,
    Out,
    Plan,
    Report,
    Static,
    asset,
    assets,
    check,
)
from engine.assets.catalog import fold
from engine.assets.events import new_event
from engine.errors import RunFailedError
from engine.storage import Storage
from eventstore import NEW, Commit, EventStore, RecordedEvent
from tests.assets.shop import counts, made, materialize, run, scheduled, shop, tell, told
from tests.runtime.worlds import World, soon, until


def test_what_another_run_says_does_not_end_a_making() -> None:
    published = {"code_version": "1", "data_version": "d", "provenance": "p"}
    for said in (
        AssetPublished(at=2, run="two", **published),
        AssetPromoted(at=2, run="two", environment="dev", version=1, **published),
        AssetFailed(at=2, run="two"),
        AssetSkipped(at=2, run="two", because=("x",)),
        AssetUnchanged(at=2, run="two", provenance="p"),
    ):
        state = AssetState(key="a", environment="prod", partitions={}, published={})
        started = AssetStarted(at=1, run="one", provenance="p")
        fold(state, started, 1)
        fold(state, said, 2)
        assert state.of("").started == started, said
        fold(state, AssetFailed(at=3, run="one"), 3)
        assert state.of("").started is None


async def test_limits_of_assets_are_known_when_the_engine_opens(world: World, tmp_path: Path) -> None:
    @asset(rate="1000/s", code_version="1")
    async def limited() -> int:
        await asyncio.sleep(0)
        return 1

    async with shop(world, tmp_path, limited) as (offered, engine):
        assert (await materialize(offered, engine)).counts == {"published": 1}


def _slow(gate: asyncio.Event, *, count: int = 1) -> list[Any]:
    """Partitions that are made when the gate opens, and one asset beside them."""

    @asset(partitions=Static([f"p{number}" for number in range(count)]), code_version="1")
    async def slow(context: AssetContext) -> int:
        tell("slow", context.partition)
        await gate.wait()
        return 1

    @asset(code_version="1")
    async def beside() -> int:
        tell("beside")
        return 1

    return [slow, beside]


async def _starts(offered: Assets, engine: Engine, plan: Plan, run_id: str) -> RunHandle[Report]:
    return await engine.start(offered.materialize(plan), id=run_id)


async def test_runs_that_wait_for_another_take_no_slot_from_it(world: World, tmp_path: Path) -> None:
    gate = asyncio.Event()
    definitions = Definitions(_slow(gate, count=4))
    store = await world.store()
    offered = Assets(definitions, store, storage=Storage(tmp_path), clock=world.clock)
    async with Engine(store, workflows=offered.workflows, clock=world.clock, grace=0, concurrency=6) as engine:
        one = await _starts(offered, engine, await offered.plan("slow"), "one")
        await until(lambda: len(made) == 4)
        two = await _starts(offered, engine, await offered.plan(), "two")
        await until(lambda: "beside" in made)
        gate.set()
        assert (await soon(one.result())).counts == {"published": 4}
        assert (await soon(two.result())).counts == {"published": 1, "unchanged": 4}
        watches = [event async for event in scheduled(two) if event.task == "watch"]
        assert len(watches) <= 4
    assert told() == ["beside", "slow[p0]", "slow[p1]", "slow[p2]", "slow[p3]"]


@pytest.mark.parametrize("how", ["pause", "cancel"])
async def test_what_a_run_that_is_held_or_ended_was_making(world: World, tmp_path: Path, how: str) -> None:
    gate = asyncio.Event()
    async with shop(world, tmp_path, *_slow(gate)) as (offered, engine):
        plan = await offered.plan("slow")
        one = await _starts(offered, engine, plan, "one")
        await until(lambda: made)
        two = await _starts(offered, engine, plan, "two")
        async with asyncio.timeout(30):
            while not any([event.task == "watch" async for event in scheduled(two)]):
                await asyncio.sleep(0.01)
        if how == "pause":
            await one.pause(by="ann", reason="to look at it")
            with pytest.raises(
                RunFailedError, match=r"slow\[p0\] is being made by run one, which is paused: .*unpause"
            ):
                await soon(two.result())
            await one.unpause()
            gate.set()
            assert (await soon(one.result())).counts == {"published": 1}
            assert told() == ["slow[p0]"]
        else:
            await one.cancel()
            gate.set()
            assert (await soon(two.result())).counts == {"published": 1}
            assert told() == ["slow[p0]", "slow[p0]"]


async def test_what_another_run_has_published_since_is_not_published_again(world: World, tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with shop(world, tmp_path, *_slow(gate)) as (offered, engine):
        one = await _starts(offered, engine, await offered.plan("slow"), "one")
        await until(lambda: made)
        catalog = await offered.catalog()
        started = (await catalog.state("slow")).of("p0").started
        assert started is not None
        event = AssetPublished(  # as a run says it that was reopened, or forked off this one
            at=1, partition="p0", run="fork", code_version="1", data_version="d", provenance=started.provenance
        )
        as_of = (await catalog.state("slow")).as_of
        await offered.store.commit(
            Commit(id="fork", stream="asset:prod/slow", expected_version=as_of, events=(new_event(event),))
        )
        gate.set()
        assert (await soon(one.result())).counts == {"published": 1}
        current = (await catalog.state("slow")).of("p0").current
        assert current is not None
        assert current.run == "fork"


class Counting:
    """A store that counts what is read of it, and lets others run meanwhile."""

    def __init__(self, inner: EventStore) -> None:
        self.inner = inner
        self.reads = 0
        self.events = 0
        self.of: Counter[str] = Counter()  # reads by stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def read(
        self, stream: str, *, after: int = 0, until: int | None = None, proof: bool = True
    ) -> AsyncIterator[RecordedEvent]:
        self.reads += 1
        self.of[stream] += 1
        async for each in self.inner.read(stream, after=after, until=until, proof=proof):
            self.events += 1
            await asyncio.sleep(0)
            yield each


async def test_looks_at_once_fold_each_event_once_and_see_what_was_there_when_they_began(memory: World) -> None:
    store = Counting(await memory.store())
    catalog = Catalog(store)  # type: ignore[arg-type]
    version = 0

    async def publish() -> int:
        nonlocal version
        event = AssetPublished(at=1, run="r", code_version="1", data_version=str(version), provenance="p")
        version += 1
        await store.commit(
            Commit(
                id=str(version), stream="asset:prod/a", expected_version=version - 1 or NEW, events=(new_event(event),)
            )
        )
        return version

    async def look() -> None:
        there = await publish()
        assert (await catalog.state("a")).as_of >= there

    for _ in range(20):
        await publish()
    await asyncio.gather(*(look() for _ in range(50)))
    state = await catalog.state("a")
    assert (state.as_of, len(state.published), store.events) == (70, 70, 70)
    assert store.reads < 60


async def test_what_is_said_of_a_step_reads_its_stream_once(memory: World, tmp_path: Path) -> None:
    @asset(code_version="1")
    async def number() -> int:
        return 1

    store = Counting(await memory.store())
    async with shop(memory, tmp_path, number, store=store) as (offered, engine):  # type: ignore[arg-type]
        plan = await offered.plan()
        store.of.clear()
        await run(offered, engine, plan)
        assert store.of["asset:prod/number"] == 3, "to pin, to begin, to publish"


async def test_two_engines_with_definitions_and_handles_of_their_own(world: World, tmp_path: Path) -> None:
    regions = Static([f"r{number}" for number in range(12)])

    def several() -> list[Any]:
        @assets(outs={"north": Out(), "east": Out()}, partitions=regions, code_version="1")
        async def pair(context: AssetContext) -> tuple[str, int]:
            tell("north", context.partition)
            await asyncio.sleep(0)
            return context.partition, 1

        @asset(partitions=regions, code_version="1")
        def south(north: str, east: int, context: AssetContext) -> str:
            tell("south", context.partition)
            return north * east

        @asset(code_version="1")
        def both(south: dict[str, str]) -> int:
            tell("both")
            return len(south)

        return [pair, south, both]

    async with (
        shop(world, tmp_path, *several()) as (first, one),
        shop(world, tmp_path, *several()) as (second, two),
    ):
        wanted = [("a", first, one), ("b", second, two)] * 2
        plans = [await offered.plan() for _, offered, _ in wanted]  # before anything is made: all of them want all
        runs = [
            await engine.start(offered.materialize(plan), id=f"{name}-{number}")
            for number, ((name, offered, engine), plan) in enumerate(zip(wanted, plans, strict=True))
        ]
        reports = [await soon(run.result(), seconds=120) for run in runs]
        assert sum(report.counts.get("published", 0) for report in reports) == 25
        assert {sum(report.counts.values()) for report in reports} == {25}
        assert max(counts().values()) == 1
        assert await second.read("both") == 12


def _when_details_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, wanted: str, do: Callable[[], Awaitable[None]]
) -> list[Callable[[], Awaitable[None]]]:
    """Do it once, when somebody asks for details of a version of that asset. What is left to be done."""
    details, left = Catalog.details, [do]

    async def and_meanwhile(catalog: Catalog, key: str, version: Any) -> Any:
        found = await details(catalog, key, version)
        if key == wanted and left:
            await left.pop()()
        return found

    monkeypatch.setattr(Catalog, "details", and_meanwhile)
    return left


async def test_what_is_published_while_a_step_pins_is_not_taken_for_what_it_reads(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made from the version that it pinned, and says so: what came since makes it stale."""
    numbers = iter(range(1, 10))

    @asset(code_version="1")
    async def number() -> int:
        return next(numbers)

    @asset(code_version="1")
    async def doubled(number: int) -> int:
        return 2 * number

    async with shop(world, tmp_path, number, doubled) as (offered, engine):
        await materialize(offered, engine, "number")
        catalog = await offered.catalog()

        async def one_more() -> None:
            await materialize(offered, engine, "number", force=True)
            await catalog.view(["number"])  # as the next step does that reads it

        left = _when_details_are_asked_for(monkeypatch, "number", one_more)
        await materialize(offered, engine, "doubled")
        assert not left, "nothing was asked for while it pinned"
        assert await offered.read("doubled") == 2
        assert [str(step.node) for step in (await offered.plan()).steps] == ["doubled"]
        await materialize(offered, engine)
        assert await offered.read("doubled") == 4


async def test_a_step_that_was_made_while_it_was_looked_up_is_not_made_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another run, while what its checks know of before was looked up."""
    numbers = iter(range(1, 10))

    @asset(code_version="1")
    async def number() -> int:
        return next(numbers)

    @asset(code_version="1")
    async def doubled(number: int) -> int:
        tell("doubled")
        return 2 * number

    @check(doubled)
    def larger(doubled: int, context: CheckContext) -> bool:
        return True

    async with shop(world, tmp_path, number, doubled, checks=[larger]) as (offered, engine):
        await materialize(offered, engine)
        await materialize(offered, engine, "number", force=True)
        assert told() == ["doubled"]
        plan = await offered.plan("doubled")
        catalog = await offered.catalog()

        async def another_run() -> None:
            await run(offered, engine, plan)
            await catalog.view(["doubled"])  # as the next step does that reads it

        left = _when_details_are_asked_for(monkeypatch, "doubled", another_run)
        assert (await run(offered, engine, plan)).counts == {"unchanged": 1}
        assert not left, "nothing was asked for while it was looked up"
        assert told() == ["doubled"]
