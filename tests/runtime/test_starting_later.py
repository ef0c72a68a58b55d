"""Runs that begin later than they are recorded: their own time begins when they do, and nothing of them is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine import Engine, Query, Request, RunHandle, Signal, durable, task, workflow
from engine.core.events import RunBegun, RunStarted
from engine.errors import (
    EngineFailed,
    HoldfastError,
    QueryFailed,
    RunCancelledError,
    RunFailedError,
    RunTerminatedError,
)
from eventstore import StoreUnavailable
from tests.runtime.faulty import Fault, FaultyStore, Pause, at_call
from tests.runtime.invariants import check_store
from tests.runtime.worlds import (
    START,
    MemoryWorld,
    World,
    at_rest,
    events_of,
    kinds_of,
    settle,
    soon,
    until,
    until_async,
)

word = Signal("word", str)
question = Request("question", str, str)
how: Query[None, str] = Query("how", None, str)
begun: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_begun() -> Iterator[None]:
    begun.clear()
    yield
    begun.clear()


@task
async def quick(what: str) -> str:
    begun.append(what)
    return what


@workflow
async def simple(what: str) -> str:
    return await quick(what)


@workflow
async def within_a_minute() -> str:
    async with asyncio.timeout(60):
        await asyncio.sleep(1)
        return await quick("done")


@workflow
async def collecting(count: int) -> list[str]:
    return [await word.receive() for _ in range(count)]


@workflow
async def answering() -> str:
    how.provide(lambda: "well")
    received = await question.receive()
    received.answer(received.value.upper())
    return received.value


@workflow
async def tidy() -> None:
    begun.append("tidy")  # deterministic: told to the test, which looks whether any code has run
    try:
        await asyncio.sleep(1e6)
    finally:
        await quick("cleaned up")


@workflow
async def above(run: str) -> str:
    handle = await durable.start(simple("child"), id=run)
    return await handle.result()


async def becomes(run: RunHandle[Any], status: str) -> None:
    async def has_it() -> bool:
        return await run.status() == status

    await until_async(has_it)


# -- their time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", [False, True])
async def test_the_time_of_a_run_that_had_to_wait_begins_when_it_does(world: World, crash: bool) -> None:
    async with world.engine(within_a_minute) as engine:
        await engine.pause_workflow(within_a_minute)
        run = await engine.start(within_a_minute(), id="a")
        assert await run.status() == "queued"
        await settle()
        world.clock.advance(3_600)
        await engine.unpause_workflow(within_a_minute)
        await becomes(run, "running")
        if crash:
            await world.crash(engine.store)
    async with world.engine(within_a_minute) as engine:
        run = engine.run("a")
        world.clock.advance(2)
        assert await soon(run.result()) == "done"
        assert (await kinds_of(run))[:3] == ["RunStarted", "RunBegun", "TimerStarted"]
        first, second, *_ = await events_of(run)
        assert (first.at, second.at) == (START, START + 3_600_000_000)
        state = await run.state()
        assert (state.started_at, state.begun_at) == (first.at, second.at)
        await check_store(engine.store, within_a_minute)


async def test_a_run_that_memory_has_no_room_for_is_queued(memory: MemoryWorld) -> None:
    async with memory.engine(tidy, collecting, runs=1) as engine:
        busy = await engine.start(collecting(1), id="busy")
        keeps = asyncio.ensure_future(busy.request(question, "?"))  # which nobody serves: it stays in memory
        await settle()
        other = await engine.start(collecting(1), id="other")
        await settle()
        assert await other.status() == "queued"
        assert await kinds_of(other) == ["RunStarted"]
        await busy.signal(word, "go")
        await soon(busy.result())
        await other.signal(word, "go")
        assert await soon(other.result()) == ["go"]
        keeps.cancel()
        await check_store(engine.store, tidy, collecting)


# -- later --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "delay", [60, 60.0, timedelta(minutes=1), datetime.fromtimestamp(START / 1_000_000 + 60, UTC)], ids=str
)
async def test_it_begins_when_it_was_told_to(world: World, delay: Any) -> None:
    async with world.engine(simple) as engine:
        run = await engine.start(simple("a"), id="a", delay=delay)
        assert await run.status() == "queued"
        summary = (await engine.runs(status="queued")).items[0]
        assert (summary.id, summary.begins_at) == ("a", START + 60_000_000)
        assert (await run.state()).begins_at == START + 60_000_000
        world.clock.advance(59)
        await settle()
        assert (await kinds_of(run), begun) == (["RunStarted"], [])
        world.clock.advance(1)
        assert await soon(run.result()) == "a"
        assert (await kinds_of(run))[:2] == ["RunStarted", "RunBegun"]
        assert (await engine.runs(status="completed")).items[0].begins_at == 0
        await check_store(engine.store, simple)


async def test_it_begins_in_the_next_engine_and_begins_once(world: World) -> None:
    async with world.engine(simple) as engine:
        await engine.start(simple("a"), id="a", delay=60)
    world.clock.advance(3_600)
    async with world.engine(simple) as one, world.engine(simple) as two:
        assert await soon(one.run("a").result()) == "a"
        assert await soon(two.run("a").result()) == "a"
        assert begun == ["a"]
        assert [event.at for event in await events_of(one.run("a")) if isinstance(event, RunBegun)] == [
            START + 3_600_000_000
        ]


@pytest.mark.parametrize("delay", [None, 0, timedelta(0), datetime(2020, 1, 1, tzinfo=UTC)])
async def test_what_is_to_begin_now_begins_now(world: World, delay: Any) -> None:
    async with world.engine(simple) as engine:
        run = await engine.start(simple("a"), delay=delay)
        assert await soon(run.result()) == "a"
        assert "RunBegun" not in await kinds_of(run)


@pytest.mark.parametrize(
    ("delay", "match"),
    [
        (-1, "before it is started"),
        (timedelta(seconds=-1), "before it is started"),
        (datetime(2030, 1, 1), "without a zone"),  # noqa: DTZ001
        ("soon", "delay='soon'"),
        (float("nan"), "delay=nan"),
    ],
)
async def test_what_is_no_delay_is_refused(memory: MemoryWorld, delay: Any, match: str) -> None:
    async with memory.engine(simple) as engine:
        with pytest.raises(HoldfastError, match=match):
            await engine.start(simple("a"), id="a", delay=delay)
        with pytest.raises(HoldfastError, match="done before it begins"):
            await engine.start(simple("a"), id="a", delay=60, deadline=30)
        assert (await engine.runs()).items == ()


async def test_the_same_id_again_is_the_same_run(world: World) -> None:
    async with world.engine(simple) as engine:
        await engine.start(simple("a"), id="a", delay=60)
        call = simple("a")
        found = await engine.unfinished(call)
        assert found is not None
        assert found.id == "a"
        again = await engine.start(call, id="a")
        await settle()
        assert await again.status() == "queued"
        world.clock.advance(60)
        assert await soon(again.result()) == "a"


async def test_it_costs_neither_memory_nor_wake_ups_until_then(world: World) -> None:
    inner = await world.store()
    store = FaultyStore(inner)
    async with Engine(store, workflows=[simple], clock=world.clock) as engine:
        runs = [await engine.start(simple(str(n)), delay=1_000 + n) for n in range(20)]
        await settle()
        commits = store.calls.count("commit")
        world.clock.advance(500)
        await settle(200)
        assert store.calls.count("commit") == commits
        assert not engine._worker.residents.drivers  # type: ignore[union-attr]
        world.clock.advance(600)
        await soon(asyncio.gather(*(run.result() for run in runs)))
    await world.release(inner)


# -- what reaches them before -------------------------------------------------------------------------------------------


async def test_signals_that_come_before_it_begins_are_kept_in_their_order(world: World) -> None:
    async with world.engine(collecting) as engine:
        run = await engine.start(collecting(5), id="a", delay=60, signals=[word.message("1"), word.message("2")])
        await run.signal(word, "3")
        await at_rest(engine.store, "a")
        await run.signal(word, "4")
        await at_rest(engine.store, "a")
        assert await run.status() == "queued"
        world.clock.advance(30)
    async with world.engine(collecting) as engine:
        run = engine.run("a")
        await run.signal(word, "5")
        await settle()
        world.clock.advance(30)
        assert await soon(run.result()) == ["1", "2", "3", "4", "5"]
        assert (await kinds_of(run)).index("RunBegun") == 6
        await check_store(engine.store, collecting)


async def test_a_request_waits_until_it_is_served_and_a_query_is_refused(world: World) -> None:
    async with world.engine(answering) as engine:
        run = await engine.start(answering(), id="a", delay=60)
        asked = asyncio.ensure_future(run.ask(question, "why"))
        await settle()
        with pytest.raises(QueryFailed, match="provides no answer"):
            await run.query(how)
        assert not asked.done()
        assert await run.status() == "queued"
        world.clock.advance(60)
        assert await soon(asked) == "WHY"
        assert await soon(run.result()) == "why"
        await check_store(engine.store, answering)


@pytest.mark.parametrize("ending", ["cancel", "terminate"])
@pytest.mark.parametrize("paused", [False, True])
async def test_it_ends_without_its_code_when_it_is_told_to(world: World, ending: str, paused: bool) -> None:
    async with world.engine(tidy) as engine:
        run = await engine.start(tidy(), id="a", delay=60)
        await run.signal(word, "lost")
        if paused:
            await run.pause(reason="first")
            await becomes(run, "paused")
        if ending == "cancel":
            await run.cancel(reason="after all")
            with pytest.raises(RunCancelledError, match="after all"):
                await soon(run.result())
            assert (await kinds_of(run))[-2:] == ["CancelRequested", "RunCancelled"]
        else:
            await run.terminate(reason="after all")
            with pytest.raises(RunTerminatedError, match="after all"):
                await soon(run.result())
        world.clock.advance(120)
        await settle()
        assert begun == []
        assert (await kinds_of(run)).count("RunBegun") == 0
        await check_store(engine.store, tidy)


async def test_a_pause_holds_it_beyond_its_time(world: World) -> None:
    async with world.engine(simple) as engine:
        run = await engine.start(simple("a"), id="a", delay=60)
        await run.pause(reason="not yet")
        await becomes(run, "paused")
        assert (await run.state()).status == "paused"
        world.clock.advance(120)
        await settle()
        assert begun == []
        await run.unpause()
        assert await soon(run.result()) == "a"
        assert [event.at for event in await events_of(run) if isinstance(event, RunBegun)] == [START + 120_000_000]
        await check_store(engine.store, simple)


@pytest.mark.parametrize("workflow_too", [False, True])
async def test_its_time_comes_while_it_is_being_paused(world: World, workflow_too: bool) -> None:
    """It is in memory; that it is paused is under way to the store when its time comes: it does not begin."""
    inner = await world.store()
    store = FaultyStore(inner)
    async with Engine(store, workflows=[answering], clock=world.clock) as engine:
        run = await engine.start(answering(), id="a", delay=60)
        asking = asyncio.ensure_future(run.ask(question, "why"))  # which keeps it in memory
        await until(lambda: "a" in engine._worker.residents.drivers)  # type: ignore[union-attr]
        await settle()
        pausing = Pause(store, behind=False, when=lambda name, c: name == "commit" and c.stream == "run:a")
        await run.pause()
        await soon(pausing.reached.wait())
        world.clock.advance(61)
        await settle()
        if workflow_too:
            await engine.pause_workflow(answering)
        pausing.let_go.set()
        await becomes(run, "paused")
        await settle(200)
        assert "RunBegun" not in await kinds_of(run)
        await run.unpause()
        if workflow_too:
            await becomes(run, "queued")
            await settle(200)
            assert "RunBegun" not in await kinds_of(run)
            await engine.unpause_workflow(answering)
        assert await soon(asking) == "WHY"
        assert await soon(run.result()) == "why"
        await check_store(engine.store, answering)
    await world.release(inner)


async def test_one_that_is_unpaused_before_its_time_is_queued_again(world: World) -> None:
    async with world.engine(simple) as engine:
        run = await engine.start(simple("a"), id="a", delay=60)
        await run.pause()
        await becomes(run, "paused")
        await run.unpause()
        await becomes(run, "queued")
        assert (await run.state()).status == "queued"
        await at_rest(engine.store, "a")
        world.clock.advance(60)
        assert await soon(run.result()) == "a"
        await check_store(engine.store, simple)


async def test_a_paused_workflow_holds_it_beyond_its_time(world: World) -> None:
    async with world.engine(simple) as engine:
        run = await engine.start(simple("a"), id="a", delay=60)
        await engine.pause_workflow(simple)
        world.clock.advance(120)
        await settle()
        assert begun == []
        cancelled = await engine.start(simple("b"), id="b", delay=60)
        await cancelled.cancel()
        with pytest.raises(RunCancelledError):
            await soon(cancelled.result())
        await engine.unpause_workflow(simple)
        assert await soon(run.result()) == "a"
        assert begun == ["a"]
        await check_store(engine.store, simple)


async def test_a_deadline_counts_from_the_start(world: World) -> None:
    async with world.engine(tidy) as engine:
        run = await engine.start(tidy(), id="a", delay=60, deadline=100)
        world.clock.advance(60)
        await becomes(run, "running")
        world.clock.advance(41)
        with pytest.raises(RunFailedError, match="RunDeadlineExceeded"):
            await soon(run.result())
        await engine.pause_workflow(tidy)
        late = await engine.start(tidy(), id="b", deadline=100)
        world.clock.advance(1_000)
        await engine.unpause_workflow(tidy)
        with pytest.raises(RunFailedError, match="RunDeadlineExceeded"):
            await soon(late.result())
        await check_store(engine.store, tidy)


async def test_a_child_of_a_paused_workflow_begins_with_its_own_time(world: World) -> None:
    async with world.engine(above, simple) as engine:
        await engine.pause_workflow(simple)
        run = await engine.start(above("c"), id="p")
        await at_rest(engine.store, "p")
        child = engine.run("c")
        await child.cancel()
        with pytest.raises(RunCancelledError):
            await soon(child.result())
        with pytest.raises(RunFailedError, match="RunCancelledError"):
            await soon(run.result())
        assert (await kinds_of(child)) == ["RunStarted", "CancelRequested", "RunCancelled"]
        await check_store(engine.store, above, simple)


# -- crashes --------------------------------------------------------------------------------------------------------------


async def a_life(world: World, store: Any) -> bool:
    """Start it, tell it something, let its time come. Whether all of that was done."""
    try:
        async with Engine(store, workflows=[collecting], clock=world.clock, grace=0) as engine:
            run = await engine.start(collecting(2), id="a", delay=60, signals=[word.message("1", id="m-1")])
            await run.signal(word, "2", id="m-2")
            await settle(50)
            if world.clock.now() < START + 60_000_000:
                world.clock.advance(60)
            await soon(run.result())
    except (StoreUnavailable, EngineFailed):
        return False
    return True


@pytest.mark.parametrize("fault", ["die before", "die after"])
async def test_a_crash_at_any_call_of_the_store_changes_nothing(worlds: Any, fault: Fault) -> None:
    for number in range(1, 200):
        world = worlds("memory")
        store = FaultyStore(await world.store(), at_call(number, fault))
        done = await a_life(world, store)
        faults = store.faults
        for _ in range(3):
            if done:
                break
            done = await a_life(world, await world.store())
        async with world.engine(collecting) as engine:
            assert await soon(engine.run("a").result()) == ["1", "2"]
            events = await events_of(engine.run("a"))
            assert sum(isinstance(event, RunBegun) for event in events) == 1
            assert isinstance(events[0], RunStarted)
            await check_store(engine.store, collecting)
        if not faults:
            assert number > 10
            return
    raise AssertionError("there is no end of it")


async def test_two_engines_and_a_takeover(world: World) -> None:
    """Its owner dies while it has taken in a signal: another begins it, when its time has come."""
    store = await world.store()
    async with world.engine(collecting) as other:
        async with Engine(store, workflows=[collecting], clock=world.clock, grace=0) as engine:
            run = await engine.start(collecting(1), id="a", delay=60)
            await run.signal(word, "1")
            await settle()
            await world.crash(store)
        world.clock.advance(61)
        assert await soon(other.run("a").result()) == ["1"]
        await check_store(other.store, collecting)
    await world.release(store)
