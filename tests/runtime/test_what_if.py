"""What would have come of a run: nothing runs but its code, nothing is written, and the history answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import Request, Signal, WhatIf, durable, task, workflow
from engine.core.events import PrefixEnded, RunStarted, TimerFired, TimerStarted
from engine.errors import NotRecordable, RepairRefused, ResultError, RunNotFound, UnknownWorkflow
from eventstore import EventStore
from tests.runtime.plays import PLAYS, Play, stage
from tests.runtime.test_crash_everywhere import perform
from tests.runtime.worlds import World, events_of, soon, until_async

word = Signal("word", str)
double = Request("double", int, int)
begun: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_begun() -> None:
    begun.clear()
    stage.clear()


@task
async def rate(day: int) -> int:
    begun.append("rate")
    return 3


@task
async def buy(price: int) -> str:
    begun.append("buy")
    return f"bought at {price}"


@task
async def wait_for_better(price: int) -> str:
    begun.append("wait")
    return "waited"


@workflow
async def trade(day: int) -> str:
    price = await rate(day)
    if price < 5:
        return await buy(price)
    return await wait_for_better(price)


async def ended(world: World, run: Any) -> Any:
    async def over() -> bool:
        world.clock.advance(60)
        return (await run.state()).ended

    await until_async(over)
    return await run.result()


async def everything(store: EventStore) -> list[Any]:
    return [event async for event in store.read_all()]


async def test_with_a_result_given_it_takes_another_way(world: World) -> None:
    async with world.engine(trade) as engine:
        run = await engine.start(trade(1), id="r")
        assert await soon(run.result()) == "bought at 3"
        before = await everything(engine.store)
        same = await engine.what_if("r", at=1)
        assert (same.would_be.result, same.diff.rows, same.problem) == (b'"bought at 3"', (), "")
        cheaper = await engine.what_if("r", at=4, substitute={"trade/rate#1": 2})
        assert cheaper.was.result == b'"bought at 3"'
        assert cheaper.would_be.result == b'"bought at 3"', "the history knows only this"
        assert cheaper.asked_otherwise == ("trade/buy#1",), "and it says so"
        dearer = await engine.what_if("r", at=4, substitute={"trade/rate#1": 9})
        assert (dearer.would_be.status, dearer.unanswered) == ("running", ("trade/wait_for_better#1",))
        both = await engine.what_if("r", at=4, substitute={"trade/rate#1": 9, "trade/wait_for_better#1": "well"})
        assert both.would_be.result == b'"well"'
        assert [type(item.event).__name__ for item in both.history][0] == "RunForked"
        first = both.diff.rows[0]
        assert (first.left.payload, first.right.payload) == (b"3", b"9")
        never = await engine.what_if("r", at=4, substitute={"trade/nobody#1": 9})
        assert never.never_called == ("trade/nobody#1",)
        assert begun == ["rate", "buy"], "nothing is begun"
        assert await everything(engine.store) == before, "nothing is written"


async def test_with_other_code_it_comes_to_another_end(world: World) -> None:
    async with world.engine(trade) as engine:
        await soon((await engine.start(trade(1), id="r")).result())

    @workflow(name="trade")
    async def bolder(day: int) -> str:
        price = await rate(day)
        return f"{await buy(price)}, twice"

    @workflow(name="trade")
    async def other(day: int) -> str:
        return await buy(day)

    async with world.engine(bolder) as engine:
        found = await engine.what_if("r", at=1)
        assert found.would_be.result == b'"bought at 3, twice"'
        assert [type(row.left.event).__name__ for row in found.diff.rows if row.left] == ["RunCompleted"]
    async with world.engine(other) as engine:
        with pytest.raises(RepairRefused, match="the present code does not fit run 'r' up to version 3"):
            await engine.what_if("r", at=3)
        found = await engine.what_if("r", at=1)
        assert found.would_be.result == b'"bought at 3"'


@workflow
async def limited() -> str:
    try:
        async with asyncio.timeout(600):
            found = await word.receive()
            await asyncio.sleep(60)
            return found + await word.receive()
    except TimeoutError:
        return "too late"


async def test_signals_and_timers_come_as_they_came(world: World) -> None:
    async with world.engine(limited) as engine:
        run = await engine.start(limited(), id="r")
        world.clock.advance(100)
        await run.signal(word, "a")
        await run.signal(word, "b")
        assert await soon(ended(world, run)) == "ab"
        versions = len(await events_of(run))
        for at in range(1, versions + 1):
            found = await engine.what_if("r", at=at)
            assert (found.would_be.result, found.diff.rows) == (b'"ab"', ()), at

    @workflow(name="limited")
    async def hasty() -> str:
        try:
            async with asyncio.timeout(50):
                return await word.receive()
        except TimeoutError:
            return "too late"

    async with world.engine(hasty) as engine:
        found = await engine.what_if("r", at=1)
        assert found.would_be.result == b'"too late"', "a timer that was not there fires when it is due"


async def test_what_cannot_be_answered_is_said(world: World) -> None:
    async with world.engine(trade, for_ever) as engine:
        run = await engine.start(trade(1), id="r")
        await soon(run.result())
        with pytest.raises(RepairRefused, match="it cannot be forked at version 99"):
            await engine.what_if("r", at=99)
        with pytest.raises(NotRecordable):
            await engine.what_if("r", at=4, substitute={"trade/rate#1": "much"})
        with pytest.raises(RunNotFound):
            await engine.what_if("nobody", at=1)
    async with world.engine(limited) as engine:
        with pytest.raises(UnknownWorkflow):
            await engine.what_if("r", at=1)


@workflow
async def for_ever(day: int) -> None:
    while True:
        await asyncio.sleep(1)


async def test_code_that_would_be_suspended_or_never_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.runtime.what_if.TURNS_MAX", 100)
    async with world.engine(trade) as engine:
        await soon((await engine.start(trade(1), id="r")).result())

    @task(name="rate")
    async def worded_rate(day: int) -> list[str]:
        return []

    @workflow(name="trade")
    async def worded(day: int) -> str:
        return "".join(await worded_rate(day))

    @workflow(name="trade")
    async def endless(day: int) -> None:
        while True:
            await asyncio.sleep(1)

    async with world.engine(worded) as engine:
        found = await engine.what_if("r", at=1)
        assert found.problem.startswith("it would be suspended: "), found.problem
    async with world.engine(endless) as engine:
        found = await engine.what_if("r", at=1)
        assert found.problem == "it would go on for ever: 100 facts were told, and it has not ended"


@workflow
async def epochs(n: int) -> int:
    price = await rate(n)
    if n < 2:
        await durable.continue_as_new(epochs(n + 1))
    return price + n


async def test_a_run_that_has_continued_as_new(world: World) -> None:
    async with world.engine(epochs) as engine:
        run = await engine.start(epochs(0), id="r")
        assert await soon(run.result()) == 5
        for at in range(1, len(await events_of(run)) + 1):
            found = await engine.what_if("r", at=at)
            assert (found.would_be.result, found.diff.rows, found.asked_otherwise) == (b"5", (), ()), at


@pytest.mark.parametrize("play", PLAYS, ids=lambda play: play.name)
async def test_what_happened_would_happen_again_from_every_version(play: Play, worlds) -> None:
    """With the same code, whatever it does: where it can be cut, the same comes out, and nothing is done."""
    world = worlds()
    await perform(world, play, lambda _number, _name: None)
    effects = dict(stage.effects)
    cuts = 0
    async with world.engine(*play.definitions) as engine:
        before = await everything(engine.store)
        state = await engine.run("play").state()
        for at in range(1, state.version + 1):
            try:
                found: WhatIf = await engine.what_if("play", at=at)
            except RepairRefused as refused:
                assert "stands before all that it began with" in str(refused), refused
                continue
            cuts += 1
            assert not found.problem, (at, found.problem)
            assert (found.would_be.status, found.would_be.result) == (state.status, state.result), at
            assert found.diff.rows == (), (at, found.diff.rows)
        assert await everything(engine.store) == before
    assert cuts > 3
    assert dict(stage.effects) == effects


async def test_an_end_that_was_an_error(world: World) -> None:
    async with world.engine(failing) as engine:
        run = await engine.start(failing(), id="r")
        with pytest.raises(ResultError):
            await soon(run.result())
        found = await engine.what_if("r", at=1, substitute={"failing/breaks#1": 5})
        assert (found.was.status, found.would_be.result) == ("failed", b"5")


@task
async def breaks() -> int:
    raise ValueError("broken")


@workflow
async def failing() -> int:
    return await breaks()


@workflow
async def child(n: int) -> int:
    return n


@workflow
async def mother(parent_close: Any) -> int:
    return await child.options(parent_close=parent_close)(3)


async def test_an_option_that_is_its_default_is_no_difference(world: World) -> None:
    """Whichever object it is: what was read from a history, and what the code says, are two."""
    async with world.engine(mother, child) as engine:
        for n, said in enumerate(["cancel", "-cancel"[1:]]):
            run = await engine.start(mother(said), id=f"r{n}")
            assert await soon(run.result()) == 3
            assert (await engine.what_if(run.id, at=1)).diff.rows == ()
        assert [row.left.event.type for row in (await engine.diff("r0", "r1")).rows if row.left] == []


@workflow
async def unlucky() -> int:
    raise ValueError("out of luck")


@workflow
async def foster() -> int:
    return await unlucky()


async def test_an_end_that_names_a_child_is_the_same_end(world: World) -> None:
    """Its id begins with that of the run, which is another one."""
    async with world.engine(foster, unlucky) as engine:
        for n in range(2):
            run = await engine.start(foster(), id=f"r{n}")
            with pytest.raises(ResultError, match=f"'r{n}/unlucky#1' failed"):
                await soon(run.result())
            assert (await engine.what_if(run.id, at=1)).diff.rows == ()
        assert (await engine.diff("r0", "r1")).rows == ()


@workflow
async def idle() -> None:
    await asyncio.Event().wait()


async def test_a_deadline_that_passed_is_the_same_end(world: World) -> None:
    """Its error names the run, which is another one."""
    async with world.engine(idle) as engine:
        run = await engine.start(idle(), id="r", deadline=5)
        with pytest.raises(ResultError, match="'r'"):
            await ended(world, run)
        assert (await engine.what_if("r", at=1)).diff.rows == ()


@workflow
async def slow() -> int:
    price = await rate(1)
    await asyncio.sleep(30)
    return price


async def test_time_does_not_go_back_to_before_a_fork(world: World) -> None:
    """A fork that was told its start anew has its deadline counted from then; a what-if of it has as much time."""
    async with world.engine(slow) as engine:
        assert await ended(world, await engine.start(slow(), id="r", deadline=1_000)) == 3
        world.clock.advance(500)
        assert await ended(world, await engine.fork("r", at=1, id="f")) == 3
        at = next(n for n, event in enumerate(await events_of(engine.run("f")), 1) if isinstance(event, PrefixEnded))
        found = await engine.what_if("f", at=at)
        assert (found.would_be.result, found.diff.rows) == (b"3", ())
        (started,) = [item.event for item in found.history if isinstance(item.event, TimerStarted)][:1]
        assert started.deadline - started.at == 1_000 * 1_000_000


@workflow
async def naps(n: int) -> int:
    if n:
        await durable.continue_as_new(naps(n - 1))
    await asyncio.sleep(5)
    return n


async def test_an_epoch_begins_when_it_began(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fires in it fires at its time: else it would come before what has called it off."""
    monkeypatch.setattr("engine.runtime.writing.COMMIT_EVENTS_MAX", 1)
    async with world.engine(naps) as engine:
        commit = engine.store.commit

        async def slowly(what: Any) -> Any:
            world.clock.advance(1)
            return await commit(what)

        monkeypatch.setattr(engine.store, "commit", slowly)
        run = await engine.start(naps(1), id="r")
        assert await ended(world, run) == 0
        was = [event.at for event in await events_of(run) if isinstance(event, RunStarted | TimerFired)]
        assert was[1] > was[0]
        found = await engine.what_if("r", at=1)
        would_be = [item.event.at for item in found.history if isinstance(item.event, RunStarted | TimerFired)]
        assert (would_be, found.diff.rows) == (was, ())
