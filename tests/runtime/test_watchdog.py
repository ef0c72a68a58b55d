"""A turn that takes long is named; one that does not end is broken off, and the others go on."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from engine import Engine, durable, task, workflow
from engine.cli.tables import runs_table, state_view
from engine.core.events import TurnSlow
from engine.errors import HoldfastError, RunSuspendedError, StepLimitExceeded
from engine.runtime.watchdog import Watchdog
from eventstore import SystemClock
from tests.runtime.invariants import check_history
from tests.runtime.worlds import ManualClock, MemoryWorld, World, at_rest, events_of, soon, until, until_async

WARN, LIMIT = 0.02, 0.08
"""Seconds of the real clock, for the tests that let real time pass: the rest turn a clock by hand."""

# Reached through this list, where the check at registration does not look.
clocks: list[ManualClock] = []


@pytest.fixture(autouse=True)
def _clock() -> Iterator[None]:
    yield
    clocks.clear()
    assert gc.isenabled(), "something that was broken off left the collector switched off"


@task
async def work(n: int) -> int:
    return n


@workflow
async def bystander() -> int:
    await asyncio.sleep(10)
    return await work(7)


@workflow
async def spinning() -> None:
    await work(1)
    while True:
        pass


@workflow
async def stubborn() -> None:
    """Swallows what breaks it off, a few times over."""
    await work(1)
    swallowed = 0
    while swallowed < 3:
        try:
            while True:
                pass
        except BaseException:
            swallowed += 1


@workflow
async def spinning_in_a_branch() -> None:
    async def branch() -> None:
        await work(2)
        await asyncio.sleep(0)
        while True:
            sum(range(100))

    async with asyncio.TaskGroup() as group:
        group.create_task(branch())
        group.create_task(bystander.fn())


@workflow
async def quick() -> int:
    return await work(7)


@pytest.mark.parametrize("definition", [spinning, stubborn, spinning_in_a_branch], ids=lambda each: each.name)
async def test_a_turn_that_does_not_end_is_broken_off_and_others_go_on(world: World, definition: Any) -> None:
    async with world.engine(definition, quick, clock=SystemClock(), turn_seconds=(WARN, LIMIT)) as engine:
        run = await soon(engine.start(definition(), id="a"))
        with pytest.raises(RunSuspendedError) as caught:
            await soon(run.result())
        state = await run.state()
        assert state.diagnosis is not None
        assert state.diagnosis.reason == "spinning"
        assert "test_watchdog.py:" in state.diagnosis.message
        assert repr(definition.name) in state.diagnosis.message
        assert "look for a loop" in str(caught.value)
        other = await engine.start(quick(), id="b")
        assert await soon(other.result()) == 7
        await check_history(engine.store, "a")
        assert asyncio.get_running_loop().is_running()
    assert asyncio.current_task() is not None


async def test_it_is_broken_off_again_when_it_is_resumed_and_fixed_code_goes_on(world: World) -> None:
    @workflow(name="spinning")
    async def fixed() -> str:
        await work(1)
        return "fixed"

    async with world.engine(spinning, clock=SystemClock(), turn_seconds=(WARN, LIMIT)) as engine:
        run = await soon(engine.start(spinning(), id="a"))
        with pytest.raises(RunSuspendedError):
            await soon(run.result())
        await run.resume()
        await until_suspended_again(run)
    async with world.engine(fixed) as engine:
        run = engine.run("a")
        await run.resume()
        assert await soon(run.result()) == "fixed"


@workflow
async def spinning_later(n: int) -> None:
    if n < 1:
        await durable.continue_as_new(spinning_later(n + 1))
    await work(1)
    while True:
        pass


async def test_a_later_epoch_is_watched_when_it_is_replayed(world: World) -> None:
    async with world.engine(spinning_later, clock=SystemClock(), turn_seconds=(WARN, LIMIT)) as engine:
        run = await soon(engine.start(spinning_later(0), id="a"))
        with pytest.raises(RunSuspendedError):
            await soon(run.result())
        await run.resume()
        await until_suspended_again(run)
        assert (await run.state()).epoch == 1


async def until_suspended_again(run: Any) -> None:
    async with asyncio.timeout(30):
        while [type(event).__name__ for event in await events_of(run)].count("RunSuspended") < 2:
            await asyncio.sleep(0.01)


async def test_a_long_turn_is_named_while_it_lasts_and_afterwards(
    memory: MemoryWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """The turn ends only after it was named: nothing here depends on how fast the machine is."""
    clocks.append(memory.clock)
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("engine.runtime.watchdog").addHandler(handler)

    @workflow
    async def long() -> int:
        clocks[0].advance(5)
        while not told:
            pass
        await work(1)
        return 1

    async with memory.engine(long) as engine:
        run = await soon(engine.start(long(), id="a"))
        assert await soon(run.result()) == 1
        logging.getLogger("engine.runtime.watchdog").removeHandler(handler)
        # Another thread says it: our handler has heard it first, and the turn went on; the next one hears it in a moment.
        await until(lambda: any("a turn has taken" in record.getMessage() for record in caplog.records))
        (record,) = [record for record in caplog.records if "a turn has taken" in record.getMessage()]
        assert record.levelno == logging.WARNING
        for part in ("workflow 'long'", "run 'a'", "5.0 seconds", "test_watchdog.py:"):
            assert part in record.getMessage()
        (slow,) = [event for event in await events_of(run) if isinstance(event, TurnSlow)]
        assert slow.took == 5_000_000
        assert slow.site.startswith("test_watchdog.py:")
        state = await run.state()
        assert (state.slow_turns, state.slowest_turn, state.slow_site) == (1, 5_000_000, slow.site)
        (summary,) = (await engine.runs()).items
        assert summary.slow == 5_000_000
        await check_history(engine.store, "a", long)
        assert "5.0 s" in shown(runs_table([summary]))
        assert f"1, the slowest 5.0 s, the last at {slow.site}" in shown(state_view(state))


async def has_been_slow(run: Any, times: int) -> bool:
    return (await run.state()).slow_turns == times


async def test_the_slowest_of_several_is_kept_across_engines(memory: MemoryWorld) -> None:
    clocks.append(memory.clock)
    seconds = [4.0, 9.0, 2.0]

    @workflow
    async def long() -> None:
        for each in seconds:
            clocks[0]._monotonic += each
            await asyncio.sleep(1_000)

    for turns in range(1, len(seconds) + 1):
        async with memory.engine(long, cached=0) as engine:
            run = await engine.start(long(), id="a") if turns == 1 else engine.run("a")
            await until_async(lambda: has_been_slow(run, turns))
            await at_rest(engine.store, "a")
        memory.clock.advance(1_000)
    async with memory.engine(long) as engine:
        run = engine.run("a")
        await soon(run.result())
        state = await run.state()
        assert (state.slow_turns, state.slowest_turn) == (3, 9_000_000)
        assert (await engine.runs()).items[0].slow == 9_000_000
        await check_history(engine.store, "a")


async def test_a_quick_turn_leaves_no_trace(memory: MemoryWorld, caplog: pytest.LogCaptureFixture) -> None:
    async with memory.engine(bystander) as engine:
        run = await engine.start(bystander(), id="a")
        await at_rest(engine.store, "a")
        memory.clock.advance(100)
        assert await soon(run.result()) == 7
        assert not [event for event in await events_of(run) if isinstance(event, TurnSlow)]
        assert (await engine.runs()).items[0].slow == 0
        assert "slowest" not in shown(runs_table((await engine.runs()).items))
        assert "slow turns" not in shown(state_view(await run.state()))
    assert caplog.messages == []


def test_its_thread_ends_with_the_loop_of_an_engine_that_nobody_closed() -> None:
    async def abandon() -> Watchdog:
        dog = Watchdog(SystemClock(), warn=0.01, limit=1.0)
        dog.open()
        return dog

    dog = asyncio.run(abandon())
    assert dog._thread is not None
    dog._thread.join(30)
    assert not dog._thread.is_alive()


async def test_its_thread_lives_as_long_as_the_engine(memory: MemoryWorld) -> None:
    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if "watchdog" in thread.name]

    async with memory.engine():
        assert threads() == []  # a client runs no code
    async with memory.engine(bystander), memory.engine(spinning):
        assert len(threads()) == 2
    assert threads() == []


@pytest.mark.parametrize("wrong", [(0, 1), (1, -1)])
def test_limits_are_above_zero(wrong: tuple[float, float]) -> None:
    with pytest.raises(HoldfastError, match="turn_seconds"):
        Engine("sqlite:///unused.db", turn_seconds=wrong)


# -- the protocol -----------------------------------------------------------------------------------------------------


def test_the_exception_never_hits_what_is_not_the_turn() -> None:
    """Turns that end just as the watchdog aims at them, thousands of times: outside of them nothing is ever raised."""
    dog = Watchdog(SystemClock(), warn=0.000_01, limit=0.000_02)
    watch = dog.watch("a", "w")
    logging.getLogger("engine.runtime.watchdog").disabled = True
    dog.open()
    broken = whole = 0
    try:
        deadline = time.monotonic() + 1.0
        turn = 0
        while time.monotonic() < deadline and broken < 3_000:
            turn += 1
            try:
                watch(lambda: sum(range(turn % 400)))
                whole += 1
            except StepLimitExceeded:
                broken += 1
            for _ in range(20):  # whatever was on its way would arrive here
                len("outside")
    finally:
        dog.close()
        logging.getLogger("engine.runtime.watchdog").disabled = False
    assert broken
    assert dog.turn is None
    assert whole + broken == turn


def test_a_turn_that_fails_by_itself_keeps_its_error() -> None:
    dog = Watchdog(SystemClock())
    watch = dog.watch("a", "w")

    def fail() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        watch(fail)
    assert dog.turn is None
    with pytest.raises(KeyboardInterrupt):
        watch(lambda: (_ for _ in ()).throw(KeyboardInterrupt()))  # somebody's Ctrl-C
    assert dog.turn is None


def shown(renderable: Any) -> str:
    from io import StringIO

    from rich.console import Console

    console = Console(file=StringIO(), width=160)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]
