"""Durable timers: they outlive engines, cost nothing while they wait, and bear a clock that is set."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from engine import Engine, RunHandle, durable, task, workflow
from engine.core.events import TimerFired
from engine.errors import RunFailedError, RunTerminatedError
from tests.runtime.invariants import check_history, check_store
from tests.runtime.worlds import (
    START,
    ManualClock,
    MemoryWorld,
    World,
    at_rest,
    events_of,
    forget,
    settle,
    soon,
    until,
    until_async,
)

YEAR = 365 * 86_400


@task
async def tick(n: int) -> int:
    return n


@workflow
async def sleeping(seconds: float) -> float:
    before = durable.now()
    await asyncio.sleep(seconds)
    return (durable.now() - before).total_seconds()


@workflow
async def naps(count: int, seconds: float) -> list[int]:
    found = []
    for n in range(count):
        await asyncio.sleep(seconds)
        found.append(await tick(n))
    return found


async def test_a_timer_outlives_its_engine(world: World) -> None:
    async with world.engine(sleeping) as engine:
        run = await engine.start(sleeping(3_600), id="a")
        await at_rest(engine.store, "a")
    for _ in range(3):
        world.clock.advance(1_000)
        async with world.engine(sleeping) as engine:
            await settle(200)
            assert await engine.run("a").status() == "running"
    async with world.engine(sleeping) as engine:
        run = engine.run("a")
        waiting = asyncio.create_task(run.result())
        world.clock.advance(599)
        await settle(200)
        assert not waiting.done()
        world.clock.advance(1)
        assert await soon(waiting) == 3_600
        await check_history(engine.store, "a", sleeping)


async def test_a_timer_that_fell_due_while_nobody_was_there(world: World) -> None:
    async with world.engine(sleeping) as engine:
        await engine.start(sleeping(3_600), id="a")
        await at_rest(engine.store, "a")
    world.clock.advance(10_000)
    async with world.engine(sleeping) as engine:
        assert await soon(engine.run("a").result()) == 10_000
        events = await events_of(engine.run("a"))
        assert [event.at - START for event in events if isinstance(event, TimerFired)] == [10_000_000_000]
        await check_history(engine.store, "a", sleeping)


async def test_an_engine_may_die_between_release_and_alarm(world: World) -> None:
    store = await world.store()
    async with world.engine(naps) as engine:
        await engine.start(naps(3, 1_000), id="a")
        for _ in range(3):
            await at_rest(engine.store, "a")
            async with moves_on(engine, "a"):
                world.clock.advance(1_001)
        assert await soon(engine.run("a").result()) == [0, 1, 2]
    await check_history(store, "a", naps)
    await world.release(store)


@asynccontextmanager
async def moves_on(engine: Engine, run_id: str) -> AsyncIterator[None]:
    """What is done inside makes the run go on: wait until it has. It may have before that is through."""
    stream = f"run:{run_id}"
    version = (await engine.store.head(stream)).version
    yield

    async def has_moved() -> bool:
        return (await engine.store.head(stream)).version != version

    await until_async(has_moved)


async def test_a_year_costs_nothing(memory: MemoryWorld) -> None:
    """While a run waits for a year nothing is written, nobody claims it, and no store call is made for it."""
    async with memory.engine(sleeping) as engine:
        run = await engine.start(sleeping(YEAR), id="a")
        await at_rest(memory.data, "a")
        head = await memory.data.head("run:a")
        assert head.alarm == START + YEAR * 1_000_000
        for _ in range(364):
            memory.clock.advance(86_400)
            await settle(5)
        assert await memory.data.head("run:a") == head
        memory.clock.advance(86_400)
        assert await soon(run.result()) == YEAR


async def test_thousands_sleep(world: World) -> None:
    """Resting runs beyond the cache hold no memory, and all of them wake."""
    count = 300
    async with world.engine(sleeping, cached=10) as engine:
        runs = [await engine.start(sleeping(1_000 + n), id=f"run-{n}") for n in range(count)]
        await asyncio.gather(*(at_rest(engine.store, run.id) for run in runs))
        world.clock.advance(1_000 + count)
        results = await soon(asyncio.gather(*(run.result() for run in runs)))
        assert all(result >= 1_000 + n for n, result in enumerate(results))
        await check_store(engine.store, sleeping)


async def test_timers_fire_in_the_order_of_their_deadlines(world: World) -> None:
    @workflow
    async def racing() -> list[int]:
        order: list[int] = []

        async def lap(n: int) -> None:
            await asyncio.sleep(n * 100)
            order.append(n)

        await asyncio.gather(*(lap(n) for n in (3, 1, 2)))
        return order

    async with world.engine(racing) as engine:
        run = await engine.start(racing(), id="a")
        await at_rest(engine.store, "a")
        world.clock.advance(1_000)  # all three at once
        assert await soon(run.result()) == [1, 2, 3]
        await check_history(engine.store, "a", racing)


async def test_the_clock_is_set_back(world: World) -> None:
    """Times in a history never go back; a timer waits for its moment by the clock as it now is."""
    async with world.engine(naps) as engine:
        run = await engine.start(naps(2, 1_000), id="a")
        await at_rest(engine.store, "a")
        world.clock.advance(900)
        world.clock.step(-5_000)
        await settle(100)
        assert await run.status() == "running"
        async with moves_on(engine, "a"):
            world.clock.advance(5_100)
        await at_rest(engine.store, "a")
        world.clock.step(-800)
        world.clock.advance(900)
        await settle(100)
        assert await run.status() == "running"
        world.clock.advance(900)
        assert await soon(run.result()) == [0, 1]
        await check_history(engine.store, "a", naps)


async def test_the_clock_is_set_back_behind_a_restart(world: World) -> None:
    async with world.engine(naps) as engine:
        await engine.start(naps(2, 10), id="a")
        await at_rest(engine.store, "a")
        async with moves_on(engine, "a"):
            world.clock.advance(10)
        await at_rest(engine.store, "a")
    world.clock.step(-100_000)
    async with world.engine(naps) as engine:
        run = await engine.start(naps(2, 10), id="a")
        await run.cancel()
        await soon(asyncio.gather(run.result(), return_exceptions=True))
        await check_history(engine.store, "a", naps)


async def test_the_clock_is_set_forward(world: World) -> None:
    async with world.engine(naps) as engine:
        run = await engine.start(naps(3, 1_000), id="a")
        for _ in range(3):
            await at_rest(engine.store, "a")
            async with moves_on(engine, "a"):
                world.clock.step(1_000)
        assert await soon(run.result()) == [0, 1, 2]
        await check_history(engine.store, "a", naps)


async def test_short_sleeps_stay_in_memory(memory: MemoryWorld) -> None:
    """Below a second the run is kept, and its timer rings without a look at the store."""
    async with memory.engine(naps) as engine:
        run = await engine.start(naps(5, 0.5), id="a")
        ending = asyncio.create_task(run.result())
        for _ in range(5):
            await settle()
            assert (await memory.data.head("run:a")).owner is not None
            memory.clock.advance(0.5)
        assert await soon(ending) == list(range(5))
        assert (await memory.data.head("run:a")).claims == 0


async def test_no_time_at_all(world: World) -> None:
    @workflow
    async def instants() -> list[str]:
        said = []
        for seconds in (0, -1, 0.0, -1e9):
            await asyncio.sleep(seconds)
        try:
            async with asyncio.timeout(0):
                await asyncio.sleep(5)
        except TimeoutError:
            said.append("timeout")
        with anyio.move_on_after(0) as scope:
            await anyio.sleep(5)
        said.append(f"caught {scope.cancelled_caught}")
        return said

    async with world.engine(instants) as engine:
        run = await engine.start(instants(), id="a")
        assert await soon(run.result()) == ["timeout", "caught True"]
        assert not any(isinstance(event, TimerFired) for event in await events_of(run))
        await check_history(engine.store, "a", instants)


async def test_for_ever_is_no_timer(world: World) -> None:
    @workflow
    async def waiting() -> None:
        await asyncio.sleep(float("inf"))

    async with world.engine(waiting) as engine:
        run = await engine.start(waiting(), id="a")
        await at_rest(engine.store, "a")
        assert (await engine.store.head("run:a")).alarm is None
        world.clock.advance(1000 * YEAR)
        await settle(100)
        assert await run.status() == "running"
        await run.cancel()
        await soon(asyncio.gather(run.result(), return_exceptions=True))
        assert await run.status() == "cancelled"


async def test_times_beyond_every_calendar(world: World) -> None:
    """Nonsense as a duration concerns its own run; the others, and the engine, go on."""
    async with world.engine(sleeping, naps) as engine:
        for n, seconds in enumerate((1e11, 1e12, 1e13, 1e15, 1e18, 1e300)):
            run = await soon(engine.start(sleeping(seconds), id=f"run-{n}"))
            await settle(100)
            assert await run.status() in ("running", "failed")
            assert await soon((await engine.start(naps(1, 0))).result()) == [0]
        await check_store(engine.store, sleeping, naps)
    async with world.engine(sleeping, naps) as engine:
        assert await soon((await engine.start(naps(1, 0))).result()) == [0]
        for n in range(6):
            run = engine.run(f"run-{n}")
            if await run.status() == "running":
                await run.cancel()
                await soon(asyncio.gather(run.result(), return_exceptions=True))
            assert await run.status() in ("cancelled", "failed")


async def test_durable_timeouts_outlive_engines(world: World) -> None:
    begun: list[int] = []

    @task
    async def endless() -> None:
        begun.append(1)
        await asyncio.Event().wait()

    @workflow
    async def limited() -> str:
        try:
            async with asyncio.timeout(3_600):
                await endless()
        except TimeoutError:
            return f"gave up after {durable.now().timestamp() - START / 1e6:.0f}"
        return "ended"

    async with world.engine(limited, grace=0) as engine:
        await engine.start(limited(), id="a")
        await until(lambda: len(begun) == 1)
    world.clock.advance(3_000)
    async with world.engine(limited, grace=0) as engine:
        await until(lambda: len(begun) == 2)
        world.clock.advance(599)
        await settle(100)
        assert await engine.run("a").status() == "running"
        world.clock.advance(1)
        assert await soon(engine.run("a").result()) == "gave up after 3600"
        await check_history(engine.store, "a", limited)


async def test_a_released_run_goes_on_behind_a_timeout(world: World) -> None:
    """The timeout cancels an attempt, and the run rests at once: what the attempt says then must harm nobody."""
    ended: list[int] = []

    @task
    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            ended.append(1)

    @workflow
    async def patient() -> str:
        for _ in range(3):
            try:
                async with asyncio.timeout(100):
                    await endless()
            except TimeoutError:
                await asyncio.sleep(1_000)
        return "patient"

    async with world.engine(patient) as engine:
        run = await engine.start(patient(), id="a")
        for n in range(1, 4):
            await until_started(engine, "a", n)
            world.clock.advance(100)
            await until(lambda n=n: len(ended) == n)
            await at_rest(engine.store, "a")
            await settle()
            world.clock.advance(1_000)
        assert await soon(run.result()) == "patient"
        await check_history(engine.store, "a", patient)


async def until_started(engine, run_id: str, attempts: int) -> None:
    async with asyncio.timeout(30):
        while sum(found.attempts for found in (await engine.run(run_id).state()).tasks.values()) < attempts:
            await asyncio.sleep(0.001)
    await settle()


async def test_ten_thousand_sleepers_are_small(memory: MemoryWorld) -> None:
    """Beyond the cache, a resting run of an engine costs nothing but what the store holds of it."""
    async with memory.engine(sleeping, cached=0) as engine:
        run = await engine.start(sleeping(1e6), id="first")
        await at_rest(memory.data, "first")
        forget()
        tracemalloc.start()
        for n in range(200):
            await engine.start(sleeping(1e6), id=f"run-{n}")
        await asyncio.gather(*(at_rest(memory.data, f"run-{n}") for n in range(200)))
        await settle(10)
        forget()
        snapshot = tracemalloc.take_snapshot()
        tracemalloc.stop()
        ours = snapshot.filter_traces([tracemalloc.Filter(True, "*/engine/*")])
        held = sum(item.size for item in ours.statistics("filename"))
        assert held < 200 * 1_000, f"{held / 200:.0f} bytes of the engine per sleeping run"
        await run.cancel()


async def test_a_fork_is_not_dated_before_what_it_has_lived_through(memory: MemoryWorld) -> None:
    ahead = ManualClock(START + 3_600_000_000)

    @workflow
    async def ticking() -> int:
        return await tick(1) + await tick(2)

    async with memory.engine(ticking, clock=ahead) as engine:
        run = await engine.start(ticking(), id="a")
        done = await soon(run.result())
    async with memory.engine(ticking) as engine:
        fork = await engine.fork("a", at=4, id="f")
        assert await soon(fork.result()) == done
    events = await check_history(memory.data, "f", ticking)
    assert events[0].at >= events[4].at > START + 3_600_000_000 - 1


@pytest.mark.parametrize("how", ["suspended", "terminated", "reopened"])
async def test_what_is_written_without_the_code_of_a_run_is_not_before_its_history(
    memory: MemoryWorld, how: str
) -> None:
    """Who wrote the history has a clock that is an hour ahead of everybody else's, the store's included."""
    ahead, fails = ManualClock(START + 3_600_000_000), [True]

    @task
    async def sulk() -> None:
        if fails:
            raise ValueError(fails.pop())

    @workflow(name="met")
    async def meeting() -> None:
        await (sulk() if how == "reopened" else asyncio.sleep(1e6))

    @workflow(name="met")
    async def changed() -> None:
        await tick(1)

    async with memory.engine(meeting, clock=ahead) as engine:
        run = await engine.start(meeting(), id="a")
        if how == "reopened":
            with pytest.raises(RunFailedError):
                await soon(run.result())
        await settle()
    async with memory.engine(changed if how == "suspended" else meeting) as engine:
        run = engine.run("a")
        match how:
            case "suspended":
                await run.pause()  # so that somebody looks at it
                await until_async(lambda: is_suspended(run))
            case "terminated":
                await run.terminate()
                with pytest.raises(RunTerminatedError):
                    await soon(run.result())
            case "reopened":
                run = await engine.reopen("a", reason="once more")
                memory.clock.advance(3_600)  # its next attempt is not before its history either
                await soon(run.result())
    times = [event.at for event in await check_history(memory.data, "a")]
    assert times == sorted(times)
    assert len(times) > 2


async def is_suspended(run: RunHandle[None]) -> bool:
    return await run.status() == "suspended"
