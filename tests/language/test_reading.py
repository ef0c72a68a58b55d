"""What others read of a run: queries, states, feeds. Nothing that they do changes it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import Engine, Feed, Query, Signal, State, task, workflow
from engine.core.events import FeedPublished, StatePublished
from engine.errors import (
    NotPublished,
    NotRecordable,
    QueryFailed,
    RunFailedError,
    RunNotFound,
    RunSuspendedError,
    UnknownWorkflow,
)
from tests.language.talk import client, crashing, has, is_status, send_raw
from tests.runtime.faulty import FaultyStore
from tests.runtime.invariants import check_history
from tests.runtime.worlds import MemoryWorld, World, at_rest, events_of, kinds_of, settle, soon, until

number = Signal("number", int)
phase = State("phase", str, initial="new")
bare = State("bare", int)
line = Feed("line", str)
total = Query("total", None, int)
above = Query("above", int, list[int])
broken = Query("broken", None, int)
sly = Query("sly", None, int)

tried: list[str] = []


@task
async def attempted(what: str) -> str:
    tried.append(what)
    return what


@workflow
async def summing(count: int) -> int:
    seen: list[int] = []

    def fail() -> int:
        raise LookupError("no answer")

    def decide() -> int:
        asyncio.ensure_future(attempted("by a query"))
        return 1

    total.provide(lambda: sum(seen))
    above.provide(lambda least: [value for value in seen if value > least])
    broken.provide(fail)
    sly.provide(decide)
    for _ in range(count):
        seen.append(await number.receive())
        await phase.publish(f"{len(seen)} seen")
        await line.publish(f"saw {seen[-1]}")
        await attempted(f"{seen[-1]}")
    return sum(seen)


@pytest.fixture(autouse=True)
def _nothing_tried() -> None:
    tried.clear()


# -- queries --------------------------------------------------------------------------------------------------------------


async def test_a_query_is_answered_while_the_run_runs_and_behind_its_end(world: World) -> None:
    async with world.engine(summing) as engine:
        run = await engine.start(summing(2), id="a")
        assert await soon(run.query(total)) == 0
        await run.signal(number, 3)
        await until(lambda: tried == ["3"])
        await at_rest(engine.store, "a")
        assert await soon(run.query(total)) == 3
        await run.signal(number, 4)
        assert await soon(run.result()) == 7
        before = await engine.store.head("run:a")
        assert await soon(run.query(total)) == 7
        assert await soon(run.query(above, 3)) == [4]
        assert await engine.store.head("run:a") == before
        assert tried == ["3", "4"]


async def test_a_query_writes_nothing_and_asks_no_worker(memory: MemoryWorld) -> None:
    store = FaultyStore(memory.data)
    async with memory.engine(summing) as engine:
        run = await engine.start(summing(2), id="a")
        await run.signal(number, 3)
        await until(lambda: tried == ["3"])
        await at_rest(memory.data, "a")
    async with Engine(store, workflows=[summing], only=["nothing"], clock=memory.clock) as engine:
        await settle()
        store.calls.clear()
        before = await memory.data.head("run:a")
        for _ in range(3):
            assert await soon(engine.run("a").query(total)) == 3
        assert await memory.data.head("run:a") == before
        assert not {"commit", "send"} & set(store.calls)
        assert tried == ["3"]


@pytest.mark.parametrize("query", [broken, sly, Query("unheard-of", None, int)], ids=lambda query: query.name)
async def test_a_query_that_has_no_answer_raises_and_changes_nothing(query: Any, memory: MemoryWorld) -> None:
    async with memory.engine(summing) as engine:
        run = await engine.start(summing(1), id="a")
        await at_rest(memory.data, "a")
        before = await events_of(run)
        with pytest.raises(QueryFailed):
            await soon(run.query(query))
        await settle()
        assert await events_of(run) == before
        assert tried == []
        await run.signal(number, 5)
        assert await soon(run.result()) == 5


async def test_a_query_that_answers_another_type_fails(memory: MemoryWorld) -> None:
    wrong = Query("total", None, str)
    async with memory.engine(summing) as engine:
        run = await engine.start(summing(1), id="a")
        with pytest.raises(QueryFailed):
            await soon(run.query(wrong))
        with pytest.raises(NotRecordable):
            await soon(run.query(above, "three"))  # type: ignore[arg-type]


async def test_a_query_needs_the_workflow_and_the_run(memory: MemoryWorld) -> None:
    async with memory.engine(summing) as engine, client(memory) as other:
        await engine.start(summing(1), id="a")
        with pytest.raises(UnknownWorkflow):
            await soon(other.run("a").query(total))
        with pytest.raises(RunNotFound):
            await soon(engine.run("b").query(total))


async def test_a_query_of_a_suspended_run_tells_of_it_and_leaves_it(memory: MemoryWorld) -> None:
    async with memory.engine(summing) as engine:
        run = await engine.start(summing(2), id="a")
        await run.signal(number, 3)
        await until(lambda: tried == ["3"])
        await send_raw(memory.data, "a", "number", b'"four"', id="m")
        await is_status(run, "suspended")
        before = await kinds_of(run)
        try:
            assert await soon(run.query(total)) == 3
        except RunSuspendedError:
            pass
        assert await kinds_of(run) == before

    @workflow(name="summing")
    async def fixed(count: int) -> int:
        loose: Signal[Any] = Signal("number", int | str)
        seen: list[Any] = []
        total.provide(lambda: 100 + len(seen))
        for _ in range(count):
            seen.append(await loose.receive())
            await phase.publish(f"{len(seen)} seen")
            await line.publish(f"saw {seen[-1]}")
            await attempted(f"{seen[-1]}")
        return len(seen)

    async with memory.engine(fixed, only=["nothing"]) as engine:
        assert await soon(engine.run("a").query(total)) == 102
        assert await engine.run("a").status() == "suspended"


async def test_queries_at_once_while_signals_pour_in(world: World) -> None:
    async with world.engine(summing) as engine:
        run = await engine.start(summing(15), id="a")

        async def ask() -> list[int]:
            found = []
            while not (found and found[-1] == 15):
                found.append(await run.query(total))
            return found

        asking = [asyncio.create_task(ask()) for _ in range(2)]
        for _ in range(15):
            await run.signal(number, 1)
        for found in await soon(asyncio.gather(*asking)):
            assert found == sorted(found), "a sum that only grows was seen to shrink"
        assert await soon(run.result()) == 15
        assert len(tried) == 15
        await check_history(engine.store, "a", summing)


# -- states ---------------------------------------------------------------------------------------------------------------


async def test_a_state_is_read_without_a_worker(world: World) -> None:
    async with world.engine(summing) as engine:
        run = await engine.start(summing(3), id="a")
        assert await run.read(phase) == "new"
        with pytest.raises(NotPublished):
            await run.read(bare)
        await run.signal(number, 3)
        await has(run, StatePublished)
        assert await run.read(phase) == "1 seen"
    async with client(world) as engine:
        assert await engine.run("a").read(phase) == "1 seen"
        with pytest.raises(RunNotFound):
            await engine.run("b").read(phase)
    async with world.engine(summing) as engine:
        run = engine.run("a")
        await run.signal(number, 3)
        await run.signal(number, 3)
        await soon(run.result())
        assert await run.read(phase) == "3 seen"


async def test_a_state_is_the_last_one_published_however_often_in_one_turn(world: World) -> None:
    @workflow
    async def publishing() -> None:
        for value in range(10):
            await bare.publish(value)
            await line.publish(str(value))
        await number.receive()
        await bare.publish(99)

    async with world.engine(publishing) as engine:
        run = await engine.start(publishing(), id="a")
        assert await run.read(bare) == 9
        assert [value async for value in run.feed(line, follow=False)] == [str(value) for value in range(10)]
        await run.signal(number, 1)
        await soon(run.result())
        assert await run.read(bare) == 99
        await check_history(engine.store, "a", publishing)


async def test_a_state_of_another_type_is_refused_at_the_workflow(memory: MemoryWorld) -> None:
    @workflow
    async def wrong() -> None:
        await bare.publish("text")  # type: ignore[arg-type]

    async with memory.engine(wrong) as engine:
        run = await engine.start(wrong(), id="a")
        with pytest.raises(RunFailedError) as caught:
            await soon(run.result())
        assert "NotRecordable" in caught.value.type
        with pytest.raises(NotPublished):
            await run.read(bare)


async def test_states_survive_a_crash_and_are_published_once(world: World) -> None:
    async with crashing(world, summing) as (engine, _):
        run = await engine.start(summing(2), id="a")
        await run.signal(number, 1)
        await has(run, StatePublished)
    async with world.engine(summing) as engine:
        run = engine.run("a")
        assert await run.read(phase) == "1 seen"
        await run.signal(number, 1)
        await soon(run.result())
        published = [event for event in await events_of(run) if isinstance(event, StatePublished | FeedPublished)]
        assert len(published) == 4


# -- feeds ----------------------------------------------------------------------------------------------------------------


async def test_late_readers_see_a_feed_whole_and_following_ends_with_the_run(world: World) -> None:
    async with world.engine(summing) as engine, client(world) as other:
        run = await engine.start(summing(4), id="a")
        early = asyncio.create_task(_all_of(run.feed(line)))
        far = asyncio.create_task(_all_of(other.run("a").feed(line)))
        for value in (1, 2):
            await run.signal(number, value)
        await has(run, FeedPublished, 2)
        assert [value async for value in run.feed(line, follow=False)] == ["saw 1", "saw 2"]
        late = asyncio.create_task(_all_of(run.feed(line)))
        for value in (3, 4):
            await run.signal(number, value)
        expected = ["saw 1", "saw 2", "saw 3", "saw 4"]
        for reading in (early, far, late):
            assert await soon(reading) == expected
        assert await soon(_all_of(other.run("a").feed(line))) == expected


async def test_a_feed_goes_on_over_a_crash(memory: MemoryWorld) -> None:
    async with memory.engine() as other:
        async with crashing(memory, summing) as (engine, _):
            run = await engine.start(summing(2), id="a")
            reading = asyncio.create_task(_all_of(other.run("a").feed(line)))
            await run.signal(number, 1)
            await has(run, FeedPublished)
        async with memory.engine(summing) as engine:
            await engine.run("a").signal(number, 2)
            await soon(engine.run("a").result())
            memory.clock.advance(5)
            assert await soon(reading) == ["saw 1", "saw 2"]


async def test_a_reader_may_leave_a_feed_early(memory: MemoryWorld) -> None:
    async with memory.engine(summing) as engine:
        run = await engine.start(summing(2), id="a")
        await run.signal(number, 1)
        async for value in run.feed(line):
            assert value == "saw 1"
            break
        reading = asyncio.create_task(_all_of(run.feed(line)))
        await settle()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await run.signal(number, 2)
        assert await soon(run.result()) == 3


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_a_feed_ends_however_the_run_ends(memory: MemoryWorld, how: str) -> None:
    async with memory.engine(summing) as engine:
        run = await engine.start(summing(2), id="a")
        reading = asyncio.create_task(_all_of(run.feed(line)))
        await run.signal(number, 1)
        await has(run, FeedPublished)
        await getattr(run, how)()
        assert await soon(reading) == ["saw 1"]


async def test_a_feed_of_an_unknown_run(memory: MemoryWorld) -> None:
    async with memory.engine() as engine:
        with pytest.raises(RunNotFound):
            await _all_of(engine.run("nobody").feed(line))


async def _all_of(values: Any) -> list[Any]:
    return [value async for value in values]
