"""Debounced calls: those close to each other become one run, of the last of them; none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from engine import Engine, RunHandle, task, workflow
from engine.core.events import CallDebounced, RunBegun, decode_header
from engine.errors import (
    ArgumentsError,
    EngineFailed,
    HoldfastError,
    RunCancelledError,
    UnknownWorkflow,
)
from eventstore import StoreUnavailable
from tests.runtime.faulty import Fault, FaultyStore, Pause, at_call
from tests.runtime.invariants import check_store
from tests.runtime.worlds import START, World, events_of, kinds_of, settle, soon, until_async

SECOND = 1_000_000
indexed: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_indexed() -> Iterator[None]:
    indexed.clear()
    yield
    indexed.clear()


@task
async def write(what: str) -> str:
    indexed.append(what)
    return what


@workflow
async def index(what: str) -> str:
    return await write(what)


@workflow
async def reindex(what: str) -> str:
    return await write(what)


async def superseded(run: RunHandle[Any], by: str) -> None:
    with pytest.raises(RunCancelledError, match=f"superseded by run '{by}'"):
        await soon(run.result())
    assert "RunBegun" not in await kinds_of(run)


async def recorded(run: RunHandle[Any]) -> None:
    """Wait until a worker has taken it in."""

    async def is_it() -> bool:
        return bool(await kinds_of(run))

    await until_async(is_it)


async def begun_at(run: RunHandle[Any]) -> list[int]:
    """Seconds from the start of the world at which it began."""
    return [(event.at - START) // SECOND for event in await events_of(run) if isinstance(event, RunBegun)]


async def test_calls_that_are_close_become_one_run_of_the_last(world: World) -> None:
    async with world.engine(index) as engine:
        runs = []
        for n in range(4):
            runs.append(await engine.debounce(index(str(n)), key="doc-1", seconds=10, by="ann"))
            assert await runs[-1].status() == "queued"
            world.clock.advance(6)
        await settle()
        assert indexed == []
        world.clock.advance(4)
        assert await soon(runs[3].result()) == "3"
        assert await begun_at(runs[3]) == [28]
        for run, behind in zip(runs, runs[1:], strict=False):
            await superseded(run, behind.id)
        assert indexed == ["3"]
        calls = [decode_header(item.header) async for item in engine.store.read("debounce:index/doc-1")]
        assert [call.run for call in calls if isinstance(call, CallDebounced)] == [run.id for run in runs]
        last = calls[-1]
        assert isinstance(last, CallDebounced)
        assert (last.since, last.begins_at, last.instead_of) == (START, START + 28 * SECOND, runs[2].id)
        assert last.by == "ann"
        await check_store(engine.store, index)


async def test_after_quiet_the_next_call_is_a_run_of_its_own(world: World) -> None:
    async with world.engine(index) as engine:
        first = await engine.debounce(index("1"), key="doc", seconds=10)
        world.clock.advance(10)
        assert await soon(first.result()) == "1"
        second = await engine.debounce(index("2"), key="doc", seconds=10)
        world.clock.advance(10)
        assert await soon(second.result()) == "2"
        assert await begun_at(second) == [20]
        await check_store(engine.store, index)


async def test_it_is_put_off_no_longer_than_it_may(world: World) -> None:
    async with world.engine(index) as engine:
        runs = []
        for n in range(10):
            runs.append(await engine.debounce(index(str(n)), key="doc", seconds=10, longest=25))
            await recorded(runs[-1])
            world.clock.advance(5)
            if n in (4, 9):
                assert await soon(runs[n].result()) == str(n)
        assert [await begun_at(run) for run in runs] == [[25] if n == 4 else [50] if n == 9 else [] for n in range(10)]
        assert indexed == ["4", "9"]
        await check_store(engine.store, index)


async def test_keys_and_workflows_do_not_disturb_each_other(world: World) -> None:
    async with world.engine(index, reindex) as engine:
        long = "é" * 200
        runs = [
            await engine.debounce(index("a"), key="a", seconds=1),
            await engine.debounce(index("b"), key="b", seconds=1),
            await engine.debounce(reindex("c"), key="a", seconds=1),
            await engine.debounce(index("d"), key=long, seconds=1),
        ]
        await asyncio.gather(*map(recorded, runs))
        world.clock.advance(1)
        assert await soon(asyncio.gather(*(run.result() for run in runs))) == ["a", "b", "c", "d"]


async def test_calls_at_once_from_two_engines_become_one_run(world: World) -> None:
    async with world.engine(index) as one, world.engine(index) as two:
        runs = await asyncio.gather(
            *((one, two)[n % 2].debounce(index(str(n)), key="doc", seconds=10) for n in range(20))
        )
        assert len({run.id for run in runs}) == 20
        world.clock.advance(10)

        async def over() -> bool:
            return not (await one.runs(status=("queued", "running"))).items

        await until_async(over)
        assert len(indexed) == 1
        await check_store(one.store, index)


async def test_no_worker_is_needed_to_call_and_the_next_begins_it_once(world: World) -> None:
    """The workers are away, the time passes: the run that is to begin has begun by nobody, and its forerunners end."""
    async with world.engine(index, runs=1) as engine:
        await engine.pause_workflow(index)
        first = await engine.debounce(index("1"), key="doc", seconds=10)
        second = await engine.debounce(index("2"), key="doc", seconds=10)
    world.clock.advance(1_000)
    async with world.engine(index) as engine:
        await engine.unpause_workflow(index)
        await superseded(engine.run(first.id), second.id)
        assert await soon(engine.run(second.id).result()) == "2"
        assert await begun_at(engine.run(second.id)) == [1_000]
        assert indexed == ["2"]
        await check_store(engine.store, index)


@pytest.mark.parametrize("how", ["pause", "suspend"])
async def test_a_run_that_is_held_is_superseded_all_the_same(world: World, how: str) -> None:
    @workflow(name="index")
    async def changed(what: int) -> str:
        return str(what)

    async with world.engine(index) as engine:
        first = await engine.debounce(index("1"), key="doc", seconds=10)
        await recorded(first)
        if how == "pause":
            await first.pause()

            async def is_paused() -> bool:
                return await first.status() == "paused"

            await until_async(is_paused)
    if how == "suspend":
        async with world.engine(changed) as engine:
            await engine.run(first.id).unpause()  # somebody has to look at it

            async def is_suspended() -> bool:
                return await engine.run(first.id).status() == "suspended"

            await until_async(is_suspended)
    async with world.engine(index) as engine:
        second = await engine.debounce(index("2"), key="doc", seconds=10)

        async def has_ended() -> bool:
            return (await engine.run(first.id).state()).ended

        await until_async(has_ended)
        assert f"superseded by run '{second.id}'" in (await engine.run(first.id).state()).reason
        world.clock.advance(10)
        assert await soon(second.result()) == "2"
        assert indexed == ["2"]
        await check_store(engine.store, index)


async def test_one_that_has_begun_is_left_alone(world: World) -> None:
    """The call came while it was to begin yet; its message comes when it has begun."""
    inner = await world.store()
    store = FaultyStore(inner)
    async with world.engine(index) as away, Engine(store, workflows=[], clock=world.clock) as _client:
        first = await away.debounce(index("1"), key="doc", seconds=10)
        async with Engine(store, workflows=[reindex, index], clock=world.clock, only=["none"]) as engine:
            calling = Pause(
                store, behind=False, when=lambda name, c: name == "commit" and c.stream.startswith("debounce:")
            )
            second = asyncio.ensure_future(engine.debounce(index("2"), key="doc", seconds=10))
            await soon(calling.reached.wait())
            await recorded(first)
            world.clock.advance(10)
            assert await soon(first.result()) == "1"
            calling.let_go.set()
            later = away.run((await soon(second)).id)
        world.clock.advance(10)
        assert await soon(later.result()) == "2"
        assert indexed == ["1", "2"]
        assert (await kinds_of(first))[-1] == "RunCompleted"
        await check_store(away.store, index)
    await world.release(inner)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"seconds": 0}, "seconds=0"),
        ({"seconds": float("inf")}, "seconds=inf"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"seconds": "1"}, "seconds='1'"),
        ({"seconds": 5, "longest": 4}, "longest is at least"),
        ({"seconds": 5, "key": ""}, "key=''"),
    ],
)
async def test_what_makes_no_sense_is_refused(world: World, options: Any, match: str) -> None:
    async with world.engine(index) as engine:
        with pytest.raises(HoldfastError, match=match):
            await engine.debounce(index("1"), **{"key": "doc", **options})
        with pytest.raises(ArgumentsError):
            await engine.debounce(index(1), key="doc", seconds=1)  # type: ignore[arg-type]
        with pytest.raises(UnknownWorkflow):
            await engine.debounce(reindex("1"), key="doc", seconds=1)
        assert (await engine.runs()).items == ()


async def a_life(world: World, store: Any, calls: list[str]) -> bool:
    """Two calls, and the end of the run that comes of them. Whether all of that was done."""
    try:
        async with Engine(store, workflows=[index], clock=world.clock, grace=0) as engine:
            run: RunHandle[str] | None = None
            for what in ("1", "2"):
                if what not in calls:
                    run = await engine.debounce(index(what), key="doc", seconds=10)
                    calls.append(what)
            await settle(50)
            world.clock.advance(10)
            if run is not None:
                await soon(run.result())
    except (StoreUnavailable, EngineFailed):
        return False
    return True


@pytest.mark.parametrize("fault", ["die before", "die after"])
async def test_a_crash_at_any_call_of_the_store_loses_no_call(worlds: Any, fault: Fault) -> None:
    for number in range(1, 200):
        world = worlds("memory")
        calls: list[str] = []
        indexed.clear()
        store = FaultyStore(await world.store(), at_call(number, fault))
        done = await a_life(world, store, calls)
        for _ in range(3):
            done = done or await a_life(world, await world.store(), calls)
        assert done
        async with world.engine(index) as engine:
            world.clock.advance(10)

            async def over(engine: Engine = engine) -> bool:
                return not (await engine.runs(status=("queued", "running"))).items

            await until_async(over)
            # A client that died in a call calls once more: that may be a run of its own, if time has passed.
            assert indexed[-1:] == ["2"]
            assert len(indexed) <= 1 + bool(store.faults)
            await check_store(engine.store, index)
        if not store.faults:
            assert number > 10
            return
    raise AssertionError("there is no end of it")
