"""Signals in the moments when they are awkward: as the run ends, and as the wait for them is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import anyio
import pytest

from engine import Engine, Signal, task, workflow
from engine.core.events import RunTerminated, SignalReceived, decode_header
from engine.errors import ResultError, RunEnded
from tests.language.talk import has, is_status, signals_in, told_in_order
from tests.runtime.faulty import FaultyStore
from tests.runtime.invariants import check_history
from tests.runtime.worlds import MemoryWorld, World, at_rest, events_of, result_of, settle, soon

number = Signal("number", int)
stop = Signal("stop", bool)


@task
async def work(value: int) -> int:
    await asyncio.sleep(0)
    return value


@workflow
async def draining() -> list[int]:
    """Its last task, and then whatever has come meanwhile."""
    await work(1)
    found = []
    while number.waiting():
        found.append(await number.receive())
    return found


@workflow
async def failing() -> None:
    await work(1)
    raise ValueError(f"{number.waiting()} waited")


@workflow
async def sleeping() -> list[int]:
    await asyncio.sleep(100)
    return [await number.receive() for _ in range(number.waiting())]


@workflow
async def stopping() -> list[int]:
    await stop.receive()
    return [await number.receive() for _ in range(number.waiting())]


class Late:
    """Sends signals, one before each of the first commits that would close the run."""

    def __init__(self, store: FaultyStore, other: Engine, count: int) -> None:
        self.sent: list[str] = []

        async def before(name: str, argument: Any) -> None:
            if name == "commit" and argument.closed is True and len(self.sent) < count:
                self.sent.append(f"late-{len(self.sent)}")
                await other.run("a").signal(number, len(self.sent), id=self.sent[-1])

        store.before = before


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("workflow_", [draining, sleeping], ids=lambda found: found.name)
async def test_a_signal_that_comes_just_before_the_end_is_written_is_received(
    count: int, workflow_: Any, world: World
) -> None:
    handle = await world.store()
    store = FaultyStore(handle)
    async with Engine(store, workflows=[workflow_], clock=world.clock) as engine, world.engine() as other:
        late = Late(store, other, count)
        run = await engine.start(workflow_(), id="a")
        if workflow_ is sleeping:
            await at_rest(handle, "a")
            world.clock.advance(100)
        assert await soon(run.result()) == list(range(1, count + 1))
        assert len(late.sent) == count
        assert await told_in_order(run, late.sent) == count
        await check_history(handle, "a", workflow_)
    await world.release(handle)


@pytest.mark.parametrize("chunk", [1, 2])
@pytest.mark.parametrize("count", [1, 5])
async def test_a_signal_that_comes_between_the_chunks_of_the_last_step_is_in_the_history(
    count: int, chunk: int, memory: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.runtime.writing.COMMIT_EVENTS_MAX", chunk)

    @workflow
    async def leaving() -> list[int]:
        waiting = [asyncio.ensure_future(asyncio.sleep(1e6)) for _ in range(3)]
        await work(1)
        return [number.waiting(), len(waiting)]

    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[leaving], clock=memory.clock) as engine, memory.engine() as other:
        late = Late(store, other, count)
        run = await engine.start(leaving(), id="a")
        found = await soon(run.result())
        assert len(late.sent) == count
        assert await told_in_order(run, late.sent) == found[0]
        await check_history(memory.data, "a", leaving)


@pytest.mark.parametrize("workflow_", [draining, failing, stopping], ids=lambda found: found.name)
async def test_signals_that_never_stop_coming_do_not_keep_a_run_from_ending(
    workflow_: Any, memory: MemoryWorld
) -> None:
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[workflow_], clock=memory.clock) as engine, memory.engine() as other:
        late = Late(store, other, 25)
        run = await engine.start(workflow_(), id="a")
        if workflow_ is stopping:
            await run.signal(stop, True)
        try:
            found = await soon(run.result())
        except ResultError:
            found = None
        told = await told_in_order(run, late.sent)
        if found is not None:
            assert found == list(range(1, told + 1))
        await check_history(memory.data, "a", workflow_)


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_a_signal_that_comes_just_before_another_end_is_in_the_history(how: str, world: World) -> None:
    handle = await world.store()
    store = FaultyStore(handle)
    async with Engine(store, workflows=[sleeping], clock=world.clock) as engine, world.engine() as other:
        late = Late(store, other, 2)
        run = await engine.start(sleeping(), id="a")
        await at_rest(handle, "a")
        await getattr(run, how)()
        with pytest.raises(ResultError):
            await soon(run.result())
        assert late.sent
        assert await signals_in(run) == late.sent
        await check_history(handle, "a", sleeping)
    await world.release(handle)


async def test_signals_that_wait_for_a_run_that_is_terminated_are_in_its_history(world: World) -> None:
    async with world.engine(sleeping) as engine:
        await engine.start(sleeping(), id="a")
    async with world.engine() as other:
        for value in range(5):
            await other.run("a").signal(number, value, id=f"m-{value}")
        await other.run("a").terminate()
    async with world.engine(sleeping) as engine:
        run = engine.run("a")
        await is_status(run, "terminated")
        assert await signals_in(run) == [f"m-{value}" for value in range(5)]
        kinds = [type(event) for event in await events_of(run)]
        assert RunTerminated in kinds


async def test_a_crash_behind_the_commit_that_notes_late_signals(memory: MemoryWorld) -> None:
    """Every commit of an end that signals keep pouring into is the last one, once."""
    for number_of_commit in range(1, 40):
        world = MemoryWorld()
        store = FaultyStore(world.data)
        commits = 0

        def plan(_n: int, name: str, at: int = number_of_commit) -> Any:
            nonlocal commits
            commits += name == "commit"
            return "die after" if name == "commit" and commits == at else None

        store.plan = plan
        late = None
        try:
            async with world.engine() as other:
                late = Late(store, other, 6)
                async with Engine(store, workflows=[draining], clock=world.clock, grace=0) as engine:
                    await soon((await engine.start(draining(), id="a")).result())
        except Exception as error:
            assert "planned" in str(error) or store.dead
        sent = list(late.sent) if late is not None else []
        async with world.engine(draining) as engine:
            run = await engine.start(draining(), id="a")
            found = await soon(run.result())
            assert found == list(range(1, await told_in_order(run, sent) + 1))
            await check_history(world.data, "a", draining)
        dead = store.dead
        await world.aclose()
        if not dead:
            return
    pytest.fail("it makes more commits than that")


@pytest.mark.parametrize("seed", range(12))
async def test_of_signals_that_race_with_the_end_every_accepted_one_is_in_the_history(seed: int, worlds) -> None:
    random = Random(seed)
    world = worlds("sqlite" if seed % 6 == 0 else "memory")
    async with world.engine(draining, stopping, grace=0) as engine, world.engine() as other:
        for attempt in range(6):
            run_id, workflow_ = f"run-{attempt}", random.choice([draining, stopping])
            run = await engine.start(workflow_(), id=run_id)
            accepted: list[str] = []

            async def send(sender: Engine, label: str, run_id: str = run_id, accepted: list[str] = accepted) -> None:
                for value in range(8):
                    for _ in range(random.randint(0, 4)):
                        await asyncio.sleep(0)
                    try:
                        await sender.run(run_id).signal(number, value, id=f"{label}-{value}")
                    except RunEnded:
                        return
                    accepted.append(f"{label}-{value}")

            async def end(run: Any = run, workflow_: Any = workflow_) -> None:
                if workflow_ is stopping:
                    for _ in range(random.randint(0, 60)):
                        await asyncio.sleep(0)
                    await run.signal(stop, True, id="stop")

            await soon(asyncio.gather(send(engine, "one"), send(other, "two"), end()))
            await soon(run.result())
            assert sorted(id_ for id_ in await signals_in(run) if id_ != "stop") == sorted(accepted)
            for label in ("one", "two"):
                await told_in_order(run, [id_ for id_ in accepted if id_.startswith(label)])
            await check_history(engine.store, run_id, workflow_)


# -- giving up the wait ---------------------------------------------------------------------------------------------------


async def _wait_for() -> int | None:
    try:
        return await asyncio.wait_for(number.receive(), 3)
    except TimeoutError:
        return None


async def _timeout() -> int | None:
    try:
        async with asyncio.timeout(3):
            return await number.receive()
    except TimeoutError:
        return None


async def _anyio_scope() -> int | None:
    with anyio.move_on_after(3):
        return await number.receive()
    return None


async def _wait_first() -> int | None:
    receiving = asyncio.ensure_future(number.receive())
    sleeping_ = asyncio.ensure_future(asyncio.sleep(3))
    done, pending = await asyncio.wait({receiving, sleeping_}, return_when=asyncio.FIRST_COMPLETED)
    for branch in pending:
        branch.cancel()
    await asyncio.wait(pending)
    return receiving.result() if receiving in done else None


async def _group() -> int | None:
    found: list[int] = []

    async def give_up() -> None:
        await asyncio.sleep(3)
        raise TimeoutError

    async def receive() -> None:
        found.append(await number.receive())
        raise LookupError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(receive())
            group.create_task(give_up())
    except* (TimeoutError, LookupError):
        pass
    return found[0] if found else None


async def _shielded_cancel() -> int | None:
    """Cancelled by another branch of the workflow."""
    receiving = asyncio.ensure_future(number.receive())

    async def cancel() -> None:
        await asyncio.sleep(3)
        receiving.cancel()

    cancelling = asyncio.ensure_future(cancel())
    try:
        return await receiving
    except asyncio.CancelledError:
        return None
    finally:
        cancelling.cancel()
        await asyncio.wait([cancelling])


WAYS: dict[str, Callable[[], Awaitable[int | None]]] = {
    "wait_for": _wait_for,
    "timeout": _timeout,
    "scope": _anyio_scope,
    "wait": _wait_first,
    "group": _group,
    "cancel": _shielded_cancel,
}
COUNT = 10


@workflow
async def impatient(way: str) -> list[int]:
    found: list[int] = []
    while len(found) < COUNT:
        value = await WAYS[way]()
        if value is not None:
            found.append(value)
    return found


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("way", WAYS)
async def test_a_wait_that_is_given_up_loses_no_signal(way: str, seed: int, worlds) -> None:
    """Signals and the clock move at random, often in the same moment."""
    random, world = Random(f"{way} {seed}"), worlds()
    async with world.engine(impatient, grace=0, cached=random.choice([0, 10])) as engine:
        run = await engine.start(impatient(way), id="a")
        for value in range(COUNT):
            for _ in range(random.randint(0, 2)):
                world.clock.advance(random.choice([1, 3, 3, 4]))
                await settle(random.choice([0, 0, 3, 30]))
            if random.random() < 0.5:
                await run.signal(number, value)
                world.clock.advance(random.choice([0, 3]))
            else:
                sending = asyncio.ensure_future(run.signal(number, value))
                world.clock.advance(3)
                await sending
            await settle(random.choice([0, 0, 5, 60]))
        assert await soon(run.result()) == list(range(COUNT))
        await check_history(world.data, "a", impatient)


@pytest.mark.parametrize("way", ["wait_for", "wait", "group"])
async def test_a_wait_that_is_given_up_loses_no_signal_across_crashes(way: str, memory: MemoryWorld) -> None:
    from tests.language.talk import crashing

    sent = 0
    for step in range(40):
        async with crashing(memory, impatient) as (engine, _):
            run = await engine.start(impatient(way), id="a")
            if sent < COUNT:
                await run.signal(number, sent, id=f"m-{sent}")
                sent += 1
            memory.clock.advance(3 if step % 2 else 2)
            await settle(step * 3)
    async with memory.engine(impatient) as engine:
        run = engine.run("a")
        assert await soon(result_of(run)) == list(range(COUNT))  # so many deaths may have parked it
        await check_history(memory.data, "a", impatient)


async def test_a_signal_that_comes_with_the_cancellation_of_its_run_is_not_swallowed(memory: MemoryWorld) -> None:
    @workflow
    async def cleaning() -> None:
        try:
            await number.receive()
        finally:
            await asyncio.sleep(10)
            if number.waiting():
                await work(await number.receive())

    async with memory.engine(cleaning) as engine:
        run = await engine.start(cleaning(), id="a")
        await asyncio.gather(run.cancel(), run.signal(number, 5))
        await has(run, SignalReceived)
        await at_rest(memory.data, "a")
        memory.clock.advance(10)
        with pytest.raises(ResultError):
            await soon(run.result())
        recorded = [event async for event in memory.data.read("run:a")]
        assert any(b"SignalReceived" in item.header for item in recorded)
        assert decode_header(recorded[-1].header)
        await check_history(memory.data, "a", cleaning)


@pytest.mark.parametrize("chunk", [1, 2, 3])
async def test_signals_that_wait_and_end_the_run_in_a_step_of_many_chunks(
    chunk: int, memory: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.runtime.writing.COMMIT_EVENTS_MAX", chunk)

    @workflow
    async def collecting() -> list[int]:
        return [await number.receive() for _ in range(4)]

    async with memory.engine(collecting) as engine:
        await engine.start(collecting(), id="a")
    async with memory.engine() as other:
        for value in range(6):
            await other.run("a").signal(number, value, id=f"m-{value}")
    async with memory.engine(collecting) as engine:
        run = engine.run("a")
        assert await soon(run.result(), seconds=10) == [0, 1, 2, 3]
        assert await told_in_order(run, [f"m-{value}" for value in range(6)]) == 4
        await check_history(memory.data, "a", collecting)
