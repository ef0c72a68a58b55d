"""Runs that are started at once begin so many at a time; what has not begun can be called off, recorded, or refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine import Engine, RunHandle, task, workflow
from engine.errors import EngineFailed
from engine.runtime import histories
from engine.runtime.launching import LAUNCHES_AT_ONCE
from eventstore import NEW, StoreUnavailable, StreamNotFound
from tests.runtime.faulty import FaultyStore, leave
from tests.runtime.invariants import check_store
from tests.runtime.worlds import MemoryWorld, settle, soon, until

MANY = LAUNCHES_AT_ONCE * 3
began: list[int] = []


@pytest.fixture(autouse=True)
def _nothing_began() -> None:
    began.clear()


@workflow
async def numbered(n: int) -> int:
    began.append(n)
    return n


@task
async def endless(n: int) -> None:
    began.append(n)
    await asyncio.Event().wait()


@workflow
async def busy(n: int) -> None:
    """Stays in memory."""
    await endless(n)


class Door:
    """Holds back every commit that makes a run, until `open` is set; then fails it, if it is told to."""

    def __init__(self, store: FaultyStore, *, error: Exception | None = None) -> None:
        self.open = asyncio.Event()
        self._error = error
        self.held = 0
        store.before = self._hold

    async def _hold(self, name: str, argument: Any) -> None:
        if name == "commit" and argument.expected_version == NEW and argument.stream.startswith("run:"):
            self.held += 1
            await self.open.wait()
            if self._error is not None:
                raise self._error


@asynccontextmanager
async def crowd(
    memory: MemoryWorld, **options: Any
) -> AsyncIterator[tuple[Engine, Door, list[asyncio.Task[RunHandle[int]]]]]:
    """An engine in which many runs have been started, and the first of them are being written."""
    store = FaultyStore(memory.data)
    door = Door(store)
    async with Engine(store, workflows=[numbered], clock=memory.clock, grace=0, **options) as engine:
        await settle()  # its first claim is over, which kept room for what it might find
        starts = starting(engine)
        await until(lambda: door.held)
        yield engine, door, starts


def starting(engine: Engine) -> list[asyncio.Task[RunHandle[int]]]:
    return [asyncio.create_task(engine.start(numbered(n), id=f"run-{n}")) for n in range(MANY)]


async def test_so_many_begin_at_once_and_the_others_behind_them(memory: MemoryWorld) -> None:
    async with crowd(memory) as (engine, door, starts):
        await settle(200)
        assert began == list(range(LAUNCHES_AT_ONCE))
        door.open.set()
        runs = await soon(asyncio.gather(*starts))
        assert await soon(asyncio.gather(*(run.result() for run in runs))) == list(range(MANY))
        assert began == list(range(MANY))  # in the order in which they were started
        await check_store(memory.data, numbered)


async def waiting(memory: MemoryWorld) -> list[int]:
    """Which of them were recorded first, for whoever has room to claim."""
    found = []
    for n in range(MANY):
        started = await histories.read_beginning(memory.data, f"run-{n}")
        assert started is not None
        found += [n] * started[0].waits
    return found


async def test_whether_there_is_room_is_asked_when_it_is_their_turn(memory: MemoryWorld) -> None:
    """As many at the door as may be in memory, and one is there: those before them have ended when it is their turn."""
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[numbered, busy], clock=memory.clock, grace=0, runs=MANY) as engine:
        await engine.start(busy(-1))
        await until(lambda: began == [-1])
        door = Door(store)
        starts = starting(engine)
        await settle(200)
        assert began == [-1, *range(LAUNCHES_AT_ONCE)]
        door.open.set()
        runs = await soon(asyncio.gather(*starts))
        assert await soon(asyncio.gather(*(run.result() for run in runs))) == list(range(MANY))
        assert began == [-1, *range(MANY)]
        assert await waiting(memory) == []


async def test_as_many_wait_at_the_door_as_may_be_in_memory(memory: MemoryWorld) -> None:
    """What comes beyond is recorded at once: who starts it hears soon that it is durable."""
    room = LAUNCHES_AT_ONCE + 2
    async with crowd(memory, runs=room) as (_, door, starts):
        await settle(200)
        assert began == list(range(LAUNCHES_AT_ONCE))  # which nobody lets on
        assert door.held == MANY - (room - LAUNCHES_AT_ONCE)  # all are being written, but for the two at the door
        door.open.set()
        runs = await soon(asyncio.gather(*starts))
        assert await soon(asyncio.gather(*(run.result() for run in runs))) == list(range(MANY))
        assert await waiting(memory) == list(range(room, MANY))


async def test_those_that_find_no_room_at_their_turn_are_recorded(memory: MemoryWorld) -> None:
    room = LAUNCHES_AT_ONCE + 2
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[busy], clock=memory.clock, grace=0, runs=room) as engine:
        await settle()
        runs = await soon(asyncio.gather(*(engine.start(busy(n), id=f"run-{n}") for n in range(MANY))))
        await settle(200)
        assert began == list(range(room))
        assert await waiting(memory) == list(range(room, MANY))
        await runs[0].cancel()
        await until(lambda: len(began) > room)  # its place is another's
        assert len(set(began)) == len(began) == room + 1


async def test_one_that_is_called_off_before_its_turn_is_not_made(memory: MemoryWorld) -> None:
    """And who wants the same run makes it; nobody's turn is lost."""
    last = MANY - 1
    async with crowd(memory) as (engine, door, starts):
        twin = asyncio.create_task(engine.start(numbered(last), id=f"run-{last}"))
        await settle()
        for start in (starts[LAUNCHES_AT_ONCE], starts[last]):
            start.cancel()
        await settle()
        door.open.set()
        await soon(asyncio.wait(starts))
        assert await soon((await soon(twin)).result()) == last
        called_off = f"run-{LAUNCHES_AT_ONCE}"
        assert [start.cancelled() for start in starts].count(True) == 2
        with pytest.raises(StreamNotFound):
            await memory.data.head(f"run:{called_off}")
        again = await soon(engine.start(numbered(LAUNCHES_AT_ONCE), id=called_off))
        assert await soon(again.result()) == LAUNCHES_AT_ONCE
        assert sorted(began) == list(range(MANY))
        await check_store(memory.data, numbered)


async def test_one_that_is_called_off_once_it_has_begun_keeps_its_place(memory: MemoryWorld) -> None:
    """It is recorded all the same: until then it counts among those that are under way."""
    async with crowd(memory) as (engine, door, starts):
        for start in starts[:LAUNCHES_AT_ONCE]:
            start.cancel()
        await settle(200)
        assert began == list(range(LAUNCHES_AT_ONCE))
        door.open.set()
        await soon(asyncio.wait(starts))
        results = [engine.run(f"run-{n}").result() for n in range(MANY)]
        assert await soon(asyncio.gather(*results)) == list(range(MANY))


async def test_those_that_have_not_begun_when_their_workflow_is_paused_wait(memory: MemoryWorld) -> None:
    async with crowd(memory) as (engine, door, starts):
        await engine.pause_workflow(numbered)
        door.open.set()
        runs = await soon(asyncio.gather(*starts))
        await settle(200)
        assert began == list(range(LAUNCHES_AT_ONCE))
        await engine.unpause_workflow(numbered)
        assert await soon(asyncio.gather(*(run.result() for run in runs))) == list(range(MANY))
        await check_store(memory.data, numbered)


async def test_those_that_have_not_begun_when_the_engine_closes_are_recorded(memory: MemoryWorld) -> None:
    store = FaultyStore(memory.data)
    door = Door(store)
    engine = Engine(store, workflows=[numbered], clock=memory.clock)
    await engine.__aenter__()
    starts = starting(engine)
    await until(lambda: door.held)
    closing = asyncio.create_task(engine.__aexit__(None, None, None))
    await settle()
    door.open.set()
    runs = await soon(asyncio.gather(*starts))
    await soon(closing)
    assert began == list(range(LAUNCHES_AT_ONCE))
    async with Engine(memory.data, workflows=[numbered], clock=memory.clock) as engine:
        results = [engine.run(run.id).result() for run in runs]
        assert await soon(asyncio.gather(*results)) == list(range(MANY))
    assert sorted(began) == list(range(MANY))
    await check_store(memory.data, numbered)


async def test_those_that_have_not_begun_when_the_store_fails_are_refused(memory: MemoryWorld) -> None:
    store = FaultyStore(memory.data)
    door = Door(store, error=StoreUnavailable("planned"))
    engine = Engine(store, workflows=[numbered], clock=memory.clock)
    await engine.__aenter__()
    starts = starting(engine)
    await until(lambda: door.held)
    door.open.set()
    found = await soon(asyncio.gather(*starts, return_exceptions=True))
    assert began == list(range(LAUNCHES_AT_ONCE))
    assert {type(error) for error in found[:LAUNCHES_AT_ONCE]} == {StoreUnavailable}
    assert {type(error) for error in found[LAUNCHES_AT_ONCE:]} == {EngineFailed}
    await soon(leave(engine))
