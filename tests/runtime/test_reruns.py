"""Rerun: a run of its own, from the start, with the same workflow, arguments and first signals; and two side by side."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import Engine, Signal, durable, task, workflow
from engine.core.events import RunStarted
from engine.errors import HoldfastError, RepairRefused, RunConflict, RunFailedError, RunNotFound
from eventstore import StoreUnavailable
from tests.runtime.faulty import FaultyStore, at_call
from tests.runtime.invariants import check_history
from tests.runtime.worlds import World, events_of, kinds_of, soon, until_async

word = Signal("word", str)
answers: list[int] = []


@pytest.fixture(autouse=True)
def _answers() -> None:
    answers.clear()


@task
async def next_answer(n: int) -> int:
    return answers.pop(0) if answers else n


@workflow
async def added(n: int) -> int:
    first = await next_answer(n)
    if first < 0:
        raise ValueError("negative")
    await asyncio.sleep(5)
    return first + await next_answer(n)


@workflow
async def told() -> str:
    return await word.receive() + await word.receive()


async def ended(world: World, run: Any) -> Any:
    async def over() -> bool:
        world.clock.advance(5)
        return (await run.state()).ended

    await until_async(over)
    return await run.result()


async def test_it_begins_with_the_same_and_says_of_what_it_is_the_rerun(world: World) -> None:
    async with world.engine(added) as engine:
        answers.append(-1)
        run = await engine.start(added(4), id="r", by="cron", deadline=1e7)
        with pytest.raises(RunFailedError):
            await soon(run.result())
        before = await events_of(run)
        again = await engine.rerun("r", id="again", by="ann", reason="the source was wrong")
        assert await soon(ended(world, again)) == 8
        started, origin = (await events_of(again))[0], before[0]
        assert isinstance(started, RunStarted)
        assert (started.by, started.rerun_of, started.reason) == ("ann", "r", "the source was wrong")
        assert (started.workflow, started.carried) == ("added", 0)
        assert started.seed != origin.seed
        assert started.deadline - started.at == origin.deadline - origin.at, "it has as long as the other had"
        assert await events_of(run) == before, "nothing is written to the other one"
        assert (await again.state()).rerun_of == "r"
        assert (await again.state()).arguments == (await run.state()).arguments
    await check_history(await world.store(), "again", added)


async def test_what_it_was_told_first_it_is_told_again(world: World) -> None:
    async with world.engine(told) as engine:
        run = await engine.start(told(), id="r", signals=[word.message("a", id="m-1"), word.message("b", id="m-2")])
        assert await soon(run.result()) == "ab"
        again = await engine.rerun("r")
        assert again.id.startswith("r~")
        assert await soon(again.result()) == "ab"
    await check_history(await world.store(), again.id, told)


async def test_the_same_rerun_asked_for_twice_is_one(world: World) -> None:
    async with world.engine(told) as engine:
        await engine.start(told(), id="r")
        await engine.start(told(), id="other")
        for _ in range(2):
            await engine.rerun("r", id="again")
        assert len((await engine.runs()).items) == 3
        with pytest.raises(RunConflict, match="run 'again' exists already, and is no rerun of 'other'"):
            await engine.rerun("other", id="again")
        with pytest.raises(RunConflict):
            await engine.rerun("r", id="other")
        with pytest.raises(RunNotFound):
            await engine.rerun("nobody")
        with pytest.raises(HoldfastError, match="cannot be a run's id"):
            await engine.rerun("r", id="")


async def test_a_client_without_code_asks_and_a_worker_does_it(world: World) -> None:
    async with world.engine(told) as engine:
        await engine.start(told(), id="r", signals=[word.message("a"), word.message("b")])
        await soon(engine.run("r").result())
        async with Engine(await world.store(), clock=world.clock) as client:
            again = await client.rerun("r")
            assert await soon(engine.run(again.id).result()) == "ab"


@workflow
async def lives(n: int) -> int:
    if n < 2:
        await durable.continue_as_new(lives(n + 1))
    return n + await next_answer(1)


async def test_a_run_that_has_continued_as_new_begins_at_its_first_beginning(world: World) -> None:
    async with world.engine(lives) as engine:
        run = await engine.start(lives(0), id="r")
        assert await soon(run.result()) == 3
        again = await engine.rerun("r", id="again")
        assert await soon(again.result()) == 3
        assert (await kinds_of(again)).count("RunStarted") == 3
    await check_history(await world.store(), "again", lives)


@pytest.mark.parametrize("fault", ["die before", "die after", "lose reply", "refuse"])
async def test_a_crash_at_every_commit(worlds, fault: Any) -> None:
    for number in range(1, 20):
        world = worlds("sqlite" if number % 2 else "memory")
        async with world.engine(told) as engine:
            await soon((await engine.start(told(), id="r", signals=[word.message("a"), word.message("b")])).result())
        handle = await world.store()
        store = FaultyStore(handle, at_call(number, fault, only="commit"))
        try:
            async with Engine(store, workflows=[told], clock=world.clock, grace=0) as engine:
                await soon((await engine.rerun("r", id="again")).result())
        except (StoreUnavailable, HoldfastError):
            assert store.faults
        if not store.dead:
            store.die()
        await world.release(handle)
        async with world.engine(told) as engine:
            assert await soon((await engine.rerun("r", id="again")).result()) == "ab"
            assert len((await engine.runs()).items) == 2
        await check_history(await world.store(), "again", told)
        if not store.faults:
            return
    pytest.fail("it makes more than 20 commits")


async def test_arguments_that_were_destroyed(worlds) -> None:
    world = worlds()
    async with world.engine(added) as engine:
        await engine.start(added(1), id="r")
        from msgspec import structs

        stream = world.data._streams.existing("run:r")
        stream.events[0] = structs.replace(stream.events[0], payload=None, salt=None)
        with pytest.raises(RepairRefused, match="the arguments of run 'r' were destroyed"):
            await engine.rerun("r")


async def test_runs_that_do_the_same_are_alike(world: World) -> None:
    async with world.engine(added) as engine:
        run = await engine.start(added(4), id="r")
        await soon(ended(world, run))
        again = await engine.rerun("r", id="again")
        await soon(ended(world, again))
        found = await engine.diff("r", "again")
        assert found.rows == ()
        assert found.alike == 8


async def test_where_two_runs_part(world: World) -> None:
    async with world.engine(added) as engine:
        await soon(ended(world, await engine.start(added(4), id="r")))
        answers.extend([4, 7])
        await soon(ended(world, await engine.rerun("r", id="again")))
        found = await engine.diff("r", "again")
        first = found.rows[0]
        assert not first.alike
        assert [type(side.event).__name__ for side in (first.left, first.right)] == ["TaskCompleted", "TaskCompleted"]
        assert (first.left.payload, first.right.payload) == (b"4", b"7")
        answers.append(-1)
        with pytest.raises(RunFailedError):
            await soon(ended(world, await engine.rerun("r", id="worse")))
        found = await engine.diff("r", "worse")
        assert found.alike == 2
        assert [row.right is None for row in found.rows].count(True) >= 3
        assert any(row.right is not None and type(row.right.event).__name__ == "RunFailed" for row in found.rows)


async def test_a_turn_that_was_taken_back_is_no_difference(world: World) -> None:
    async with world.engine(failing_once) as engine:
        answers.append(-1)
        run = await engine.start(failing_once(), id="r")
        with pytest.raises(RunFailedError):
            await soon(run.result())
        answers.append(1)
        await soon((await engine.reopen("r")).result())
        answers.append(1)
        await soon((await engine.rerun("r", id="again")).result())
        assert (await engine.diff("r", "again")).rows == ()


@task
async def checked() -> int:
    found = answers.pop(0)
    if found < 0:
        raise ValueError("negative")
    return found


@workflow
async def failing_once() -> int:
    return await checked()
