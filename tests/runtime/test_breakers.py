"""Circuit breakers: an outage of what tasks depend on does not become a storm of retries."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Breaker, Engine, RunHandle, Transaction, task, workflow
from engine.errors import DefinitionError, HoldfastError, RunCancelledError, RunFailedError
from eventstore import VersionConflict
from tests.runtime.faulty import FaultyStore
from tests.runtime.worlds import (
    LOOK_SECONDS,
    PATIENCE_SECONDS,
    MemoryWorld,
    SqliteWorld,
    World,
    at_rest,
    settle,
    soon,
    until,
)

SECONDS = 30.0


class Warehouse:
    """What the tasks depend on: it is there, or not, or complains of what it is asked."""

    def __init__(self) -> None:
        self.down = True
        self.complains = False
        self.calls: list[int] = []
        self.hold: asyncio.Event | None = None
        mine = self

        @task(breaker="warehouse", stop=stop_after_attempt(3), wait=wait_fixed(1))
        async def load(n: int) -> int:
            mine.calls.append(n)
            if mine.hold is not None:
                await mine.hold.wait()
            if mine.complains:
                raise ValueError(n)
            if mine.down:
                raise ConnectionError(n)
            return n

        @workflow
        async def many(n: int) -> list[int]:
            return await asyncio.gather(*(load(k) for k in range(n)))

        @workflow
        async def one(n: int, deadline: float | None = None) -> int:
            return await load.options(deadline=deadline)(n)

        self.load, self.many, self.one = load, many, one


@pytest.fixture
def warehouse() -> Warehouse:
    return Warehouse()


def opened(world: World, warehouse: Warehouse, **options: Any) -> Any:
    options.setdefault("breakers", {"warehouse": Breaker(failures=5, seconds=SECONDS)})
    return world.engine(warehouse.many, warehouse.one, **options)


async def trip(world: World, engine: Engine, warehouse: Warehouse, count: int) -> RunHandle[list[int]]:
    """Start so many loads, two at a time, and let them find out that the warehouse is down."""
    run = await engine.start(warehouse.many(count), id="many")
    await until(lambda: len(warehouse.calls) >= 5)
    await settle()
    return run


async def test_a_storm_is_a_breeze(world: World, warehouse: Warehouse) -> None:
    async with opened(world, warehouse, concurrency=2) as engine:
        run = await trip(world, engine, warehouse, 200)
        begun = len(warehouse.calls)
        assert begun <= 6, "five in a row, and what was under way"
        for _ in range(int(SECONDS) - 2):
            world.clock.advance(1.0)
            await settle()
        assert len(warehouse.calls) == begun, "retries are due, and none begins"
        (circuit,) = engine.circuits()
        assert (circuit.name, circuit.failures >= 5) == ("warehouse", True)
        assert circuit.until is not None
        world.clock.advance(2.0)
        await until(lambda: len(warehouse.calls) == begun + 1)
        await settle()
        assert len(warehouse.calls) == begun + 1, "one is let through, to see"
        warehouse.down = False
        await until_done(world, run)
        assert sorted(await run.result()) == list(range(200))
        assert engine.circuits()[0].until is None
        assert len(warehouse.calls) <= 200 + 10


async def until_done(world: World, run: RunHandle[Any]) -> None:
    """Let time pass until the run has ended."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while await run.status() in ("queued", "running", "paused"):
        assert asyncio.get_running_loop().time() < deadline, "it did not end"
        world.clock.advance(1.0)
        await asyncio.sleep(LOOK_SECONDS)  # a slow disk is given time, too


async def test_the_pause_is_doubled_when_it_is_still_down_and_not_beyond_its_maximum(
    world: World, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    breakers = {"warehouse": Breaker(failures=2, seconds=10, seconds_max=25)}
    with caplog.at_level(logging.INFO, logger="engine.runtime.breakers"):
        async with opened(world, warehouse, concurrency=1, breakers=breakers) as engine:
            run = await engine.start(warehouse.many(40), id="many")
            await until(lambda: len(warehouse.calls) == 2)
            for pause in (10, 20, 25, 25):
                before = len(warehouse.calls)
                world.clock.advance(pause - 0.5)
                await settle()
                assert len(warehouse.calls) == before
                world.clock.advance(0.6)
                await until(lambda before=before: len(warehouse.calls) == before + 1)
                await settle()
            warehouse.down = False
            await until_done(world, run)
    said = [record.getMessage() for record in caplog.records]
    assert [text.split(" s ")[0] for text in said[:-1]] == [
        f"breaker warehouse: open for {pause}" for pause in (10, 20, 25, 25, 25)
    ]
    assert said[0].endswith("after 2 failures in a row, the last of them ConnectionError: 1")
    assert said[-1] == "breaker warehouse: closed, an attempt has succeeded"


async def test_only_one_is_let_through_while_nothing_is_heard_of_it(world: World, warehouse: Warehouse) -> None:
    async with opened(world, warehouse, concurrency=5) as engine:
        run = await trip(world, engine, warehouse, 50)
        warehouse.hold, before = asyncio.Event(), len(warehouse.calls)
        world.clock.advance(SECONDS + 1)
        await until(lambda: len(warehouse.calls) == before + 1)
        for _ in range(10):
            world.clock.advance(1.0)
            await settle()
        assert len(warehouse.calls) == before + 1
        warehouse.down = False
        warehouse.hold.set()
        await until_done(world, run)
        assert len(await run.result()) == 50


async def test_one_that_is_let_through_and_does_not_begin_keeps_nobody_out(
    memory: MemoryWorld, warehouse: Warehouse
) -> None:
    """Its `TaskStarted` was not written, for the run was not as its worker had it: the next may try at once."""
    store = FaultyStore(await memory.store())
    lost: list[str] = []

    async def lose(name: str, argument: Any) -> None:
        if name == "commit" and not lost and any("TaskStarted" in str(event.header) for event in argument.events):
            lost.append(argument.stream)
            raise VersionConflict(argument.stream, expected=1, actual=2)

    breakers = {"warehouse": Breaker(failures=5, seconds=SECONDS)}
    options: Any = {"clock": memory.clock, "concurrency": 1, "breakers": breakers}
    async with Engine(store, workflows=[warehouse.many, warehouse.one], **options) as engine:
        await trip(memory, engine, warehouse, 10)
        before = len(warehouse.calls)
        store.before = lose
        memory.clock.advance(SECONDS + 1)
        await until(lambda: bool(lost))
        for _ in range(5):  # less than a circuit waits for one that it has let through
            await settle()
            memory.clock.advance(1.0)
        await until(lambda: len(warehouse.calls) == before + 1)
        warehouse.down = False
        await until_done(memory, engine.run("many"))


async def test_one_that_was_called_off_gives_up_no_other_that_is_let_through(
    world: World, warehouse: Warehouse
) -> None:
    """It began before the circuit was opened, and says nothing of whoever is let through since."""
    async with opened(world, warehouse, concurrency=2) as engine:
        warehouse.hold = asyncio.Event()
        early = await engine.start(warehouse.one(100), id="one")
        await until(lambda: warehouse.calls == [100])
        warehouse.hold = None
        run = await trip(world, engine, warehouse, 20)
        await until(lambda: engine.circuits()[0].until is not None)
        warehouse.hold, before = asyncio.Event(), len(warehouse.calls)
        world.clock.advance(SECONDS + 1)
        await until(lambda: len(warehouse.calls) == before + 1)
        await early.cancel()
        with pytest.raises(RunCancelledError):
            await soon(early.result())
        for _ in range(10):
            world.clock.advance(1.0)
            await settle()
            await asyncio.sleep(LOOK_SECONDS)
        assert len(warehouse.calls) == before + 1, "the one that is let through is still to be heard of"
        warehouse.down = False
        warehouse.hold.set()
        await until_done(world, run)
        assert len(await run.result()) == 20


async def test_one_that_is_let_through_and_called_off_lets_the_next_one_try(world: World, warehouse: Warehouse) -> None:
    async with opened(world, warehouse, concurrency=1) as engine:
        await trip(world, engine, warehouse, 5)
        await until(lambda: engine.circuits()[0].until is not None)
        run = await engine.start(warehouse.one(100), id="one")  # it asks first, for the others wait for their retries
        warehouse.hold, before = asyncio.Event(), len(warehouse.calls)
        world.clock.advance(SECONDS + 1)
        await until(lambda: len(warehouse.calls) == before + 1)
        called_off = engine.run("one" if warehouse.calls[-1] == 100 else "many")
        await called_off.cancel()
        with pytest.raises(RunCancelledError):
            await soon(called_off.result())
        for _ in range(5):  # less than a circuit waits for one that it has let through
            world.clock.advance(1.0)
            await settle()
        await until(lambda: len(warehouse.calls) == before + 2)
        warehouse.down = False
        warehouse.hold.set()
        await until_done(world, engine.run("many") if called_off.id == "one" else run)


def odd(n: int, *, warehouse: Warehouse) -> int:
    """What is there and says what nobody can record; or is not there."""
    warehouse.calls.append(n)
    if warehouse.down:
        raise ConnectionError(n)
    return "of no type that it said"  # type: ignore[return-value]


@pytest.mark.parametrize("effect", ["idempotent", "transactional"])
async def test_a_result_that_cannot_be_recorded_is_an_answer(
    sqlite: SqliteWorld, warehouse: Warehouse, effect: str
) -> None:
    """The task fails; what it depends on is there, so the circuit stays closed, and is closed if it was open."""

    @task(name="odd", breaker="warehouse")
    async def alone(n: int) -> int:
        return odd(n, warehouse=warehouse)

    @task(name="odd", breaker="warehouse", effect="transactional")
    def transacted(_: Transaction, n: int) -> int:
        return odd(n, warehouse=warehouse)

    @workflow
    async def asking(n: int) -> int:
        return await (alone(n) if effect == "idempotent" else transacted(n))

    async with sqlite.engine(asking, breakers={"warehouse": Breaker(failures=2, seconds=SECONDS)}) as engine:

        async def asks(n: int) -> None:
            with pytest.raises(RunFailedError):
                await soon((await engine.start(asking(n))).result())

        warehouse.down = False
        for n in range(4):
            await asks(n)
            assert (engine.circuits()[0].failures, engine.circuits()[0].until) == (0, None)
        warehouse.down = True
        await asks(4)
        await asks(5)
        assert engine.circuits()[0].until is not None
        warehouse.down = False
        sqlite.clock.advance(SECONDS + 1)
        await asks(6)
        assert (engine.circuits()[0].failures, engine.circuits()[0].until) == (0, None)
        assert warehouse.calls == list(range(7)), "no attempt is made again"


async def test_what_does_not_count_is_an_answer(world: World, warehouse: Warehouse) -> None:
    """A `ValueError` says that somebody is there."""
    breakers = {"warehouse": Breaker(failures=3, seconds=SECONDS, on=(ConnectionError,))}
    async with opened(world, warehouse, concurrency=1, breakers=breakers) as engine:
        warehouse.complains = True
        run = await engine.start(warehouse.many(10), id="many")
        await until_done(world, run)
        with pytest.raises(RunFailedError):
            await run.result()
        assert engine.circuits()[0].failures == 0
        assert len(warehouse.calls) >= 10


async def test_a_deadline_counts_while_it_waits(world: World, warehouse: Warehouse) -> None:
    async with opened(world, warehouse, concurrency=1) as engine:
        await trip(world, engine, warehouse, 10)
        run = await engine.start(warehouse.one(7, 10.0), id="one")
        await settle()
        world.clock.advance(11)
        with pytest.raises(RunFailedError, match="deadline of 10 s"):
            await soon(run.result())


async def test_a_run_that_waits_is_given_up_and_comes_back(world: World, warehouse: Warehouse) -> None:
    async with opened(world, warehouse, concurrency=1, cached=0) as engine:
        await trip(world, engine, warehouse, 10)
        run = await engine.start(warehouse.one(100), id="one")
        await at_rest(engine.store, "one")
        assert 100 not in warehouse.calls
        warehouse.down = False
        await until_done(world, run)
        assert await run.result() == 100


async def test_whoever_waits_can_be_cancelled(world: World, warehouse: Warehouse) -> None:
    async with opened(world, warehouse, concurrency=1) as engine:
        await trip(world, engine, warehouse, 10)
        run = await engine.start(warehouse.one(100), id="one")
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await soon(run.result())
        warehouse.down = False
        await until_done(world, engine.run("many"))
        assert 100 not in warehouse.calls


async def test_an_engine_that_is_opened_anew_finds_out_for_itself_and_no_attempt_is_lost(
    world: World, warehouse: Warehouse
) -> None:
    async with opened(world, warehouse, concurrency=1) as engine:
        await trip(world, engine, warehouse, 10)
    before = len(warehouse.calls)
    async with opened(world, warehouse, concurrency=1) as engine:
        world.clock.advance(1.0)
        await until(lambda: len(warehouse.calls) == before + 5)
        await settle()
        assert engine.circuits()[0].until is not None
        warehouse.down = False
        run = engine.run("many")
        await until_done(world, run)
        assert sorted(await run.result()) == list(range(10))


async def test_with_a_pool_whoever_waits_keeps_no_slot(world: World, warehouse: Warehouse) -> None:
    @task(pool="doors")
    async def other() -> str:
        return "through"

    @workflow
    async def passing() -> str:
        return await other()

    @task(pool="doors", breaker="warehouse", stop=stop_after_attempt(9))
    async def carry(n: int) -> int:
        warehouse.calls.append(n)
        if warehouse.down:
            raise ConnectionError
        return n

    @workflow
    async def carrying() -> list[int]:
        return await asyncio.gather(*(carry(n) for n in range(5)))

    breakers = {"warehouse": Breaker(failures=2, seconds=SECONDS)}
    async with world.engine(carrying, passing, breakers=breakers, pools={"doors": 1}) as engine:
        run = await engine.start(carrying(), id="carrying")
        await until(lambda: engine.circuits() != () and engine.circuits()[0].until is not None)
        assert await soon((await engine.start(passing())).result()) == "through"
        warehouse.down = False
        await until_done(world, run)
        assert await run.result() == list(range(5))


@pytest.mark.parametrize(
    ("breaker", "says"),
    [
        (5, "a Breaker"),
        (Breaker(failures=0), "at least 1"),
        (Breaker(seconds=0), "above 0"),
        (Breaker(seconds=60, seconds_max=30), "not above seconds_max"),
        (Breaker(on=()), "exception types"),
        (Breaker(on=ConnectionError), "exception types"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_breaker_is_refused(breaker: Any, says: str) -> None:
    with pytest.raises(HoldfastError, match=says):
        Engine("memory:", breakers={"warehouse": breaker})


@pytest.mark.parametrize("name", ["", 5])
def test_a_breaker_is_named(name: Any) -> None:
    with pytest.raises(DefinitionError, match="breaker is the name of one"):
        task(breaker=name)(_nothing)


async def _nothing() -> None:
    """Do nothing."""
