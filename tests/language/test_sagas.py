"""Sagas: an `AsyncExitStack` whose callbacks make durable calls. Each runs once, the last one first, whatever happens."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from engine import durable, testing, workflow
from engine.errors import RunCancelledError, RunFailedError, RunTerminatedError
from tests.language.hands import gate, held, tell, told
from tests.runtime.invariants import check_store
from tests.runtime.worlds import World, soon, until


@workflow
async def booking(how: str) -> str:
    async with AsyncExitStack() as stack:
        for label in ("flight", "hotel", "car"):
            await tell(f"book {label}")
            stack.push_async_callback(undo, label, how)
        if how == "good":
            stack.pop_all()
            return "booked"
        if how == "fails":
            raise ValueError("no luck")
        await held("work")
    return "done"


async def undo(label: str, how: str) -> None:
    if how == "fails badly" and label == "hotel":
        raise RuntimeError("the hotel insists")
    await held(f"undo {label}") if label == "hotel" else await tell(f"undo {label}")


_DAY = timedelta(days=1)
BOUNDS = testing.Bounds(schedules=60)
BOOKED = ["book flight", "book hotel", "book car"]


async def test_nothing_is_undone_of_what_went_well(world: World) -> None:
    async with world.engine(booking) as engine:
        assert await soon((await engine.start(booking("good"), id="a")).result()) == "booked"
        assert told == BOOKED
        await check_store(engine.store, booking)


async def test_a_crash_in_the_middle_of_compensating(world: World) -> None:
    async with world.engine(booking, grace=0) as engine:
        await engine.start(booking("fails"), id="a")
        await until(lambda: "undo hotel began" in told)
    assert told == [*BOOKED, "undo car", "undo hotel began", "undo hotel cut off"]
    gate("undo hotel").set()
    async with world.engine(booking) as engine:
        with pytest.raises(RunFailedError, match="no luck"):
            await soon(engine.run("a").result())
        assert told[6:] == ["undo hotel began", "undo hotel done", "undo flight"]
        await check_store(engine.store, booking)


async def test_a_cancellation_compensates_too(world: World) -> None:
    gate("undo hotel").set()
    async with world.engine(booking) as engine:
        run = await engine.start(booking("waits"), id="a")
        await until(lambda: "work began" in told)
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await soon(run.result())
        undone = [what for what in told if what.startswith("undo")]
        assert undone == ["undo car", "undo hotel began", "undo hotel done", "undo flight"]
        await check_store(engine.store, booking)


async def test_a_termination_does_not(world: World) -> None:
    async with world.engine(booking) as engine:
        run = await engine.start(booking("waits"), id="a")
        await until(lambda: "work began" in told)
        await run.terminate()
        with pytest.raises(RunTerminatedError):
            await soon(run.result())
        await until(lambda: "work cut off" in told)
        assert not [what for what in told if what.startswith("undo")]


async def test_a_compensation_that_fails_does_not_keep_the_others_from_running() -> None:
    report = await testing.explore(booking("fails badly"), prepare=lambda _: gate("work").set(), bounds=BOUNDS)
    report.raise_for_findings()
    assert report.outcome.result == "with RuntimeError: the hotel insists"
    undone = [what for what in report.outcome.effects if "undo" in what]
    assert undone == ["tell(what='undo car')", "tell(what='undo flight')"]


@workflow
async def with_children() -> Any:
    async with AsyncExitStack() as stack:
        stack.push_async_callback(undoing, "outer")
        async with durable.shielded():
            await tell("charge")
        stack.push_async_callback(undoing, "inner")
        raise ValueError("no luck")


@workflow
async def undoing_child(label: str) -> None:
    await tell(f"undo {label}")


async def undoing(label: str) -> None:
    await undoing_child(label)


async def test_compensations_may_be_children(world: World) -> None:
    async with world.engine(with_children, cached=0) as engine:
        run = await engine.start(with_children(), id="a")
        with pytest.raises(RunFailedError, match="no luck"):
            await soon(run.result())
        assert told == ["charge", "undo inner", "undo outer"]
        await check_store(engine.store, with_children, undoing_child)


async def test_a_run_that_rests_in_the_middle_of_a_saga() -> None:
    async with testing.engine(resting, cached=0) as lab:
        with pytest.raises(RunFailedError, match="at last"):
            await lab.run(resting())
        assert told == ["one", "undo"]
        await check_store(lab.memory, resting)
    (await testing.explore(resting(), bounds=BOUNDS)).raise_for_findings()


@workflow
async def resting() -> None:
    async with AsyncExitStack() as stack:
        await tell("one")
        stack.push_async_callback(slowly)
        await durable.sleep_until(durable.now() + _DAY)
        raise ValueError("at last")


async def slowly() -> None:
    await durable.sleep_until(durable.now() + _DAY)
    await tell("undo")
