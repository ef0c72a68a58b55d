"""Durable time: timers that signals move, sleeping until a date, and what a run that sleeps for a year costs."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from engine import Engine, Signal, durable, testing, workflow
from engine.core.events import TimerStarted
from engine.core.instance import Instance
from engine.errors import RunFailedError
from tests.language.hands import rests, tell, told
from tests.runtime.faulty import FaultyStore
from tests.runtime.invariants import check_history
from tests.runtime.worlds import START, World, events_of, settle, soon

moved = Signal("moved", float)
DAY = 86_400.0


@workflow
async def by_reschedule(seconds: float) -> str:
    """A deadline that signals move; one below zero calls it off."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds) as limit:
            async for value in moved:
                if value < 0:
                    return "called off"
                limit.reschedule(loop.time() + value)
    except TimeoutError:
        return f"rang after {(durable.now() - datetime.fromtimestamp(START / 1e6, UTC)).total_seconds():g}"
    raise AssertionError


@workflow
async def by_event(seconds: float) -> str:
    changed, wanted = asyncio.Event(), [seconds]

    async def listen() -> None:
        async for value in moved:
            wanted[0] = value
            changed.set()

    async with asyncio.TaskGroup() as group:
        listener = group.create_task(listen())
        while True:
            if wanted[0] < 0:
                listener.cancel()
                return "called off"
            changed.clear()
            try:
                await asyncio.wait_for(changed.wait(), wanted[0])
            except TimeoutError:
                listener.cancel()
                return f"rang after {(durable.now() - datetime.fromtimestamp(START / 1e6, UTC)).total_seconds():g}"


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("timer", [by_reschedule, by_event])
async def test_a_timer_is_moved_by_signals(timer, restart: bool, world: World) -> None:
    async with world.engine(timer) as engine:
        run = await engine.start(timer(100.0), id="r")
        await rests(engine, "r")
        world.clock.advance(60)
        await run.signal(moved, 500.0, id="m-1")  # from now: 560
        await rests(engine, "r")
        if not restart:
            world.clock.advance(499)
            await settle()
            assert await run.status() == "running", "the first deadline is past, and was moved"
            world.clock.advance(1)
            assert await soon(run.result()) == "rang after 560"
            await check_history(engine.store, "r", timer)
            return
    world.clock.advance(499)  # nobody is there
    async with world.engine(timer) as engine:
        run = engine.run("r")
        await settle()
        assert await run.status() == "running"
        world.clock.advance(1)
        assert await soon(run.result()) == "rang after 560"
        await check_history(engine.store, "r", timer)


@pytest.mark.parametrize("timer", [by_reschedule, by_event])
async def test_a_timer_is_moved_nearer_and_called_off(timer, world: World) -> None:
    async with world.engine(timer) as engine:
        near = await engine.start(timer(1_000.0), id="near", signals=[moved.message(10.0)])
        off = await engine.start(timer(1_000.0), id="off", signals=[moved.message(-1.0)])
        assert await soon(off.result()) == "called off"
        await rests(engine, "near")
        world.clock.advance(10)
        assert await soon(near.result()) == "rang after 10"


# -- until a date -------------------------------------------------------------------------------------------------------


@workflow
async def until(when: datetime) -> str:
    await durable.sleep_until(when)
    return durable.now().isoformat()


async def test_sleep_until_a_date(world: World) -> None:
    when = datetime(2026, 3, 29, 3, 30, tzinfo=UTC)
    async with world.engine(until) as engine:
        run = await engine.start(until(when), id="r")
        await rests(engine, "r")
        deadlines = [event.deadline for event in await events_of(run) if isinstance(event, TimerStarted)]
        assert deadlines == [round(when.timestamp() * 1_000_000)]
        world.clock.advance((when - datetime.fromtimestamp(START / 1e6, UTC)).total_seconds() - 0.001)
        await settle()
        assert await run.status() == "running"
        world.clock.advance(0.001)
        assert await soon(run.result()) == when.isoformat()


async def test_sleep_until_the_past_and_until_no_zone(world: World) -> None:
    async with world.engine(until, naive_sleep) as engine:
        run = await engine.start(until(datetime(2020, 1, 1, tzinfo=UTC)), id="past")
        assert await soon(run.result()) == datetime.fromtimestamp(START / 1e6, UTC).isoformat()
        naive = await engine.start(naive_sleep(), id="naive")
        with pytest.raises(RunFailedError, match="without a zone"):
            await soon(naive.result())


@workflow
async def naive_sleep() -> None:
    await durable.sleep_until(datetime(2030, 1, 1))


@workflow
async def other_zones() -> list[float]:
    from datetime import timezone

    found = []
    for hours in (-11, 0, 9):
        before = durable.now()
        await durable.sleep_until((before + timedelta(hours=1)).astimezone(timezone(timedelta(hours=hours))))
        found.append((durable.now() - before).total_seconds())
    return found


async def test_a_time_is_the_same_time_in_every_zone() -> None:
    async with testing.engine(other_zones) as lab:
        assert await lab.run(other_zones()) == [3_600.0] * 3


# -- a year -----------------------------------------------------------------------------------------------------------


@workflow
async def sleeps_for_a_year(n: int) -> int:
    await asyncio.sleep(365 * DAY)
    await tell(f"woke {n}")
    return n


async def test_a_run_that_sleeps_for_a_year_costs_no_wake_ups_and_no_memory(world: World) -> None:
    runs = 25
    inner = await world.store()
    store = FaultyStore(inner)
    async with Engine(store, workflows=[sleeps_for_a_year], clock=world.clock, cached=0) as engine:
        handles = [await engine.start(sleeps_for_a_year(n), id=f"r-{n}") for n in range(runs)]
        for n in range(runs):
            await rests(engine, f"r-{n}")
        await settle()
        gc.collect()
        assert not [each for each in gc.get_objects() if isinstance(each, Instance) and each.started], "in memory"
        months: list[Counter[str]] = []
        for _ in range(11):
            store.calls.clear()
            world.clock.advance(30 * DAY)
            await settle(300)
            months.append(Counter(store.calls))
        costly = [dict(month) for month in months if month["commit"] or month["read"] or month["head"]]
        assert costly == [], "a sleeping run was looked at"
        claims = max(month["claim"] for month in months)
        assert claims <= 3, f"{claims} claims a month of {runs} sleeping runs"
        assert told == []
        world.clock.advance(40 * DAY)
        assert await soon(asyncio.gather(*(handle.result() for handle in handles))) == list(range(runs))
        assert sorted(told) == sorted(f"woke {n}" for n in range(runs))
    await world.release(inner)


async def test_a_year_passes_while_nobody_is_there(world: World) -> None:
    async with world.engine(sleeps_for_a_year) as engine:
        await engine.start(sleeps_for_a_year(1), id="r")
        await rests(engine, "r")
    world.clock.advance(400 * DAY)
    async with world.engine(sleeps_for_a_year) as engine:
        assert await soon(engine.run("r").result()) == 1
        await check_history(engine.store, "r", sleeps_for_a_year)
