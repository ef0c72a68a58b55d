"""Deadlines of runs: a time, not a span; inherited; and what comes after one is as durable as the rest."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine import RunHandle, durable, testing, workflow
from engine.errors import HoldfastError, RunDeadlineExceeded, RunFailedError
from tests.language.hands import becomes, gate, held, rests, tell, told
from tests.runtime.invariants import check_store
from tests.runtime.worlds import World, at_rest, soon, until


@workflow
async def slow() -> str:
    try:
        await asyncio.sleep(1_000)
    finally:
        await tell("cleaned up")
    return "slept"


@workflow
async def asking() -> list[Any]:
    return [durable.deadline(), durable.now()]


@workflow
async def above(own: float | None) -> str:
    call = slow.options(deadline=own, id="child") if own else slow.options(id="child")
    try:
        return await call()
    except RunFailedError as error:
        await tell(f"child: {type(error.__cause__).__name__}")
        raise


def now(world: World) -> datetime:
    return datetime.fromtimestamp(world.clock.now() / 1_000_000, UTC)


async def exceeds(run: RunHandle[Any]) -> None:
    with pytest.raises(RunFailedError) as caught:
        await soon(run.result())
    assert caught.value.type.endswith("RunDeadlineExceeded")
    assert isinstance(caught.value.__cause__, RunDeadlineExceeded | TimeoutError) or "RunDeadlineExceeded" in repr(
        caught.value.__cause__
    )


@pytest.mark.parametrize("form", ["seconds", "span", "time"])
async def test_past_its_deadline_a_run_is_cancelled_cleans_up_and_fails(form: str, world: World) -> None:
    deadline: Any = {"seconds": 60, "span": timedelta(minutes=1), "time": now(world) + timedelta(minutes=1)}[form]
    async with world.engine(slow) as engine:
        run = await engine.start(slow(), id="a", deadline=deadline)
        await rests(engine, "a")
        world.clock.advance(59)
        await rests(engine, "a")
        assert told == []
        world.clock.advance(2)
        await exceeds(run)
        assert told == ["cleaned up"]
        await check_store(engine.store, slow)


async def test_a_run_that_is_done_in_time_is_done(world: World) -> None:
    async with world.engine(slow) as engine:
        run = await engine.start(slow(), id="a", deadline=2_000)
        await rests(engine, "a")
        world.clock.advance(1_001)
        assert await soon(run.result()) == "slept"
        await check_store(engine.store, slow)


async def test_recovery_does_not_renew_it(world: World) -> None:
    for _ in range(3):
        async with world.engine(slow, grace=0) as engine:
            await engine.start(slow(), id="a", deadline=now(world) + timedelta(seconds=100) if not _ else None)
            await at_rest(engine.store, "a")
        world.clock.advance(30)
    world.clock.advance(11)
    async with world.engine(slow) as engine:
        await exceeds(engine.run("a"))
        await check_store(engine.store, slow)


async def test_it_may_pass_while_nobody_is_there(world: World) -> None:
    async with world.engine(slow, grace=0) as engine:
        await engine.start(slow(), id="a", deadline=60)
        await rests(engine, "a")
    world.clock.advance(1_000_000)
    async with world.engine(slow) as engine:
        await exceeds(engine.run("a"))
        assert told == ["cleaned up"]
        await check_store(engine.store, slow)


async def test_it_may_have_passed_before_the_run_begins(world: World) -> None:
    async with world.engine(slow) as engine:
        run = await engine.start(slow(), id="a", deadline=now(world) - timedelta(seconds=1))
        await exceeds(run)


async def test_a_time_without_a_zone_is_refused(world: World) -> None:
    async with world.engine(slow) as engine:
        with pytest.raises(HoldfastError, match="zone"):
            await engine.start(slow(), deadline=datetime(2026, 1, 2))  # noqa: DTZ001


async def test_a_workflow_knows_its_deadline() -> None:
    async with testing.engine(asking) as lab:
        found = await lab.run(asking(), deadline=60)
        assert [datetime.fromisoformat(each) for each in found] == [lab.now + timedelta(seconds=60), lab.now]
        assert (await lab.run(asking()))[0] is None


@pytest.mark.parametrize(("own", "passes"), [(None, 60), (1e5, 60), (20, 20)])
async def test_a_child_has_the_earlier_of_its_parents_and_its_own(own: float | None, passes: int, world: World) -> None:
    async with world.engine(above) as engine:
        run = await engine.start(above(own), id="p", deadline=60)
        await rests(engine, "child")
        await rests(engine, "p")
        deadline = (await engine.run("child").state()).deadline
        assert deadline == world.clock.now() + passes * 1_000_000
        world.clock.advance(passes + 1)
        with pytest.raises(RunFailedError):
            await soon(run.result())
        await until(lambda: "cleaned up" in told)  # in its own time: nobody waits for a child whose parent has ended
        await check_store(engine.store, above, slow)


@workflow
async def tidying() -> None:
    try:
        await asyncio.sleep(1e6)
    finally:
        await held("clean-up")
        await asyncio.sleep(500)
        await tell("last")


async def test_clean_up_after_it_may_take_its_time_and_survives_a_restart(world: World) -> None:
    async with world.engine(tidying, grace=0) as engine:
        await engine.start(tidying(), id="a", deadline=60)
        await rests(engine, "a")
        world.clock.advance(61)
        await until(lambda: told == ["clean-up began"])
    async with world.engine(tidying) as engine:
        await until(lambda: told.count("clean-up began") == 2)
        gate("clean-up").set()
        await rests(engine, "a")
        world.clock.advance(501)
        await exceeds(engine.run("a"))
        assert told[-1] == "last"
        await check_store(engine.store, tidying)


async def test_it_holds_over_epochs(world: World) -> None:
    async with world.engine(for_ever) as engine:
        run = await engine.start(for_ever(0), id="a", deadline=60)
        for _ in range(4):
            await rests(engine, "a")
            world.clock.advance(20)
        await exceeds(run)
        assert (await run.state()).epoch >= 1


@workflow
async def for_ever(n: int) -> None:
    await asyncio.sleep(15)
    await durable.continue_as_new(for_ever(n + 1))


async def test_a_paused_run_exceeds_its_deadline_when_it_goes_on(world: World) -> None:
    async with world.engine(slow) as engine:
        run = await engine.start(slow(), id="a", deadline=60)
        await rests(engine, "a")
        await run.pause()
        await becomes(run, "paused")
        await rests(engine, "a")
        world.clock.advance(61)
        assert await run.status() == "paused"
        await run.unpause()
        await exceeds(run)
