"""Signals: early, late, again, in order, from anywhere, to runs that are gone; a signal that was accepted is delivered."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from engine import Engine, Request, Signal, task, workflow
from engine.core.events import RunStarted, SignalReceived, TimerFired
from engine.errors import (
    DefinitionError,
    NotRecordable,
    RequestRefused,
    RunCancelledError,
    RunEnded,
    RunNotFound,
    RunSuspendedError,
)
from eventstore import StoreUnavailable
from tests.language.talk import client, crashing, has, is_status, send_raw, signals_in
from tests.runtime.faulty import FaultyStore, at_call
from tests.runtime.invariants import check_history
from tests.runtime.worlds import MemoryWorld, World, at_rest, events_of, kinds_of, settle, soon, until

number = Signal("number", int)
word = Signal("word", str)


@workflow
async def collecting(n: int) -> list[int]:
    return [await number.receive() for _ in range(n)]


@workflow
async def late(n: int) -> list[int]:
    await asyncio.sleep(100)
    return [await number.receive() for _ in range(n)]


@workflow
async def looking() -> list[int]:
    waiting = [number.waiting()]
    await asyncio.sleep(100)
    waiting.append(number.waiting())
    await number.receive()
    waiting.append(number.waiting())
    return waiting


@workflow
async def both() -> list[Any]:
    found: list[Any] = [await number.receive(), await number.receive()]
    found += [await word.receive(), await word.receive()]
    return found


@workflow
async def iterating() -> int:
    total = 0
    async for value in number:
        if value == 0:
            return total
        total += value
    return -1


async def test_signals_are_received_in_the_order_in_which_they_were_sent(world: World) -> None:
    async with world.engine(collecting) as engine:
        run = await engine.start(collecting(5), id="a")
        for value in range(5):
            await run.signal(number, value)
        assert await soon(run.result()) == [0, 1, 2, 3, 4]
        await check_history(await world.store(), "a", collecting)


async def test_signals_that_come_before_the_workflow_asks_wait_in_order(world: World) -> None:
    async with world.engine(late) as engine:
        run = await engine.start(late(4), id="a")
        for value in (3, 1, 2):
            await run.signal(number, value)
        await has(run, SignalReceived, 3)
        world.clock.advance(100)
        await run.signal(number, 4)
        assert await soon(run.result()) == [3, 1, 2, 4]


async def test_names_are_independent_of_each_other(world: World) -> None:
    async with world.engine(both) as engine:
        run = await engine.start(both(), id="a")
        for signal, value in ((word, "x"), (number, 1), (word, "y"), (number, 2)):
            await run.signal(signal, value)
        assert await soon(run.result()) == [1, 2, "x", "y"]


async def test_waiting_tells_how_many_have_come_and_were_not_received(memory: MemoryWorld) -> None:
    async with memory.engine(looking) as engine:
        run = await engine.start(looking(), id="a")
        await run.signal(number, 1)
        await run.signal(number, 2)
        await has(run, SignalReceived, 2)
        memory.clock.advance(100)
        assert await soon(run.result()) == [0, 2, 1]


async def test_a_signal_is_an_async_iterator(memory: MemoryWorld) -> None:
    async with memory.engine(iterating) as engine:
        run = await engine.start(iterating(), id="a")
        for value in (1, 2, 3, 0):
            await run.signal(number, value)
        assert await soon(run.result()) == 6


async def test_the_same_id_is_delivered_once_wherever_it_is_sent_from(world: World) -> None:
    async with world.engine(collecting) as engine, client(world) as other:
        run = await engine.start(collecting(2), id="a")
        for _ in range(3):
            await run.signal(number, 1, id="m-1")
            await other.run("a").signal(number, 1, id="m-1")
        await has(run, SignalReceived)
        await run.signal(number, 1, id="m-1")  # it was received meanwhile
        await run.signal(number, 2, id="m-2")
        assert await soon(run.result()) == [1, 2]
        assert await signals_in(run) == ["m-1", "m-2"]


async def test_the_same_id_after_a_restart_and_after_the_end_is_accepted_and_does_nothing(world: World) -> None:
    async with crashing(world, collecting) as (engine, _):
        run = await engine.start(collecting(2), id="a")
        await run.signal(number, 1, id="m-1")
        await has(run, SignalReceived)
    async with world.engine(collecting) as engine:
        run = engine.run("a")
        await run.signal(number, 1, id="m-1")
        await run.signal(number, 2, id="m-2")
        assert await soon(run.result()) == [1, 2]
        await run.signal(number, 2, id="m-2")
        with pytest.raises(RunEnded):
            await run.signal(number, 3, id="m-3")


@pytest.mark.parametrize("fault", ["lose reply", "refuse"])
async def test_a_send_whose_reply_was_lost_is_repeated_with_its_id(memory: MemoryWorld, fault: Any) -> None:
    store = FaultyStore(memory.data, at_call(1, fault, only="send"))
    async with memory.engine(collecting) as engine:
        run = await engine.start(collecting(2), id="a")
        async with Engine(store, clock=memory.clock) as sender:
            with pytest.raises(StoreUnavailable):
                await sender.run("a").signal(number, 1, id="m-1")
            await sender.run("a").signal(number, 1, id="m-1")
            await sender.run("a").signal(number, 2, id="m-2")
        assert await soon(run.result()) == [1, 2]
        assert await signals_in(run) == ["m-1", "m-2"]


async def test_a_signal_to_an_unknown_run_is_an_error_at_the_sender(world: World) -> None:
    async with client(world) as engine:
        with pytest.raises(RunNotFound):
            await engine.run("nobody").signal(number, 1)
        with pytest.raises(RunNotFound):  # nothing was opened by the first
            await engine.run("nobody").signal(number, 1)


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled", "terminated"])
async def test_a_signal_to_a_finished_run_is_an_error_at_the_sender(memory: MemoryWorld, how: str) -> None:
    @workflow
    async def ending() -> None:
        if await number.receive() == 1:
            raise ValueError("one")

    async with memory.engine(ending) as engine:
        run = await engine.start(ending(), id="a")
        if how == "cancelled":
            await run.cancel()
        elif how == "terminated":
            await run.terminate()
        else:
            await run.signal(number, 1 if how == "failed" else 0)
        await is_status(run, how)
        before = await kinds_of(run)
        with pytest.raises(RunEnded):
            await run.signal(number, 2)
        assert await kinds_of(run) == before


@pytest.mark.parametrize("value", ["one", 1.5, None, [1], object()])
async def test_a_value_that_is_not_of_the_type_is_refused_at_the_sender(memory: MemoryWorld, value: Any) -> None:
    async with memory.engine(collecting) as engine:
        run = await engine.start(collecting(1), id="a")
        with pytest.raises(NotRecordable):
            await run.signal(number, value, id="m-1")
        with pytest.raises(NotRecordable):
            number.message(value)
        await run.signal(number, 7, id="m-1")  # the refused one used nothing up
        assert await soon(run.result()) == [7]


@pytest.mark.parametrize("name", ["", "with space", "a/b", "a#b", "a~b", "line\n", "x" * 101, 5])
def test_names_that_could_not_be_told_apart_in_a_history_are_refused(name: Any) -> None:
    with pytest.raises(DefinitionError):
        Signal(name, int)


def test_a_type_that_cannot_be_recorded_is_refused_when_it_is_declared() -> None:
    with pytest.raises(DefinitionError):
        Signal("socket", asyncio.AbstractEventLoop)


async def test_a_recorded_value_of_another_type_suspends_and_fixed_code_goes_on(world: World) -> None:
    async with world.engine(collecting) as engine:
        run = await engine.start(collecting(2), id="a")
        await run.signal(number, 1)
        await has(run, SignalReceived)
        await send_raw(engine.store, "a", "number", b'"two"', id="m-2")
        with pytest.raises(RunSuspendedError):
            await soon(run.result())
        await run.signal(number, 3, id="m-3")  # what arrives is kept

    @workflow(name="collecting")
    async def fixed(n: int) -> list[Any]:
        loose: Signal[Any] = Signal("number", int | str)
        return [await loose.receive() for _ in range(n)]

    async with world.engine(fixed) as engine:
        run = engine.run("a")
        await run.resume()
        assert await soon(run.result()) == [1, "two"]
        assert (await signals_in(run))[1] == "m-2"
        assert "m-3" in await signals_in(run)  # it arrived before the end was written
        await check_history(engine.store, "a", fixed)


async def test_a_run_that_is_suspended_by_a_signal_can_be_cancelled(memory: MemoryWorld) -> None:
    async with memory.engine(collecting) as engine:
        run = await engine.start(collecting(2), id="a")
        await send_raw(engine.store, "a", "number", b"{}", id="m-1")
        with pytest.raises(RunSuspendedError):
            await soon(run.result())
        await run.cancel()
        await is_status(run, "terminated")


async def test_a_value_of_another_type_that_nobody_asks_for_harms_nobody(memory: MemoryWorld) -> None:
    async with memory.engine(collecting) as engine:
        run = await engine.start(collecting(1), id="a")
        await send_raw(engine.store, "a", "unheard-of", b'{"x": []}', id="m-1")
        await has(run, SignalReceived)
        await run.signal(number, 1)
        assert await soon(run.result()) == [1]


# -- with the start -------------------------------------------------------------------------------------------------------


async def test_a_signal_that_a_run_starts_with_is_the_first_thing_delivered(world: World) -> None:
    async with world.engine(collecting) as engine:
        run = await engine.start(collecting(3), id="a", signals=[number.message(1, id="m-1"), number.message(2)])
        await run.signal(number, 3)
        assert await soon(run.result()) == [1, 2, 3]
        events = await events_of(run)
        assert isinstance(events[0], RunStarted)
        assert [type(event) for event in events[1:3]] == [SignalReceived, SignalReceived]
        assert events[1].id == "m-1"


async def test_the_start_and_its_signals_are_one_commit(world: World) -> None:
    handle = await world.store()
    store = FaultyStore(handle, at_call(1, "die after", only="commit"))
    from engine.errors import EngineFailed

    with pytest.raises((StoreUnavailable, EngineFailed)):
        async with Engine(store, workflows=[collecting], clock=world.clock, grace=0) as engine:
            await engine.start(collecting(1), id="a", signals=[number.message(1, id="m-1")])
    await world.release(handle)
    async with world.engine(collecting) as engine:
        assert await soon(engine.run("a").result()) == [1]
        assert await signals_in(engine.run("a")) == ["m-1"]


async def test_a_start_that_is_repeated_delivers_its_signals_once(world: World) -> None:
    async def start(engine: Any) -> Any:
        return await engine.start(collecting(2), id="a", signals=[number.message(1, id="m-1")])

    async with world.engine(collecting) as engine:
        await start(engine)
        await at_rest(engine.store, "a")
        await start(engine)
    async with world.engine(collecting) as engine:
        run = await start(engine)
        await run.signal(number, 2, id="m-2")
        assert await soon(run.result()) == [1, 2]
        again = await start(engine)  # its signal was delivered: the sender is told no error
        assert await soon(again.result()) == [1, 2]
        assert await signals_in(run) == ["m-1", "m-2"]


async def test_a_start_of_a_run_that_is_there_sends_its_signals_to_it(world: World) -> None:
    async with world.engine(collecting) as engine:
        await engine.start(collecting(2), id="a", signals=[number.message(1, id="m-1")])
        run = await engine.start(collecting(2), id="a", signals=[number.message(2, id="m-2")])
        assert await soon(run.result()) == [1, 2]
        with pytest.raises(RunEnded):
            await engine.start(collecting(2), id="a", signals=[number.message(3, id="m-3")])


async def test_the_same_id_twice_in_one_start_is_delivered_once(memory: MemoryWorld) -> None:
    async with memory.engine(collecting) as engine:
        message = number.message(1, id="m-1")
        run = await engine.start(collecting(2), id="a", signals=[message, message])
        await run.signal(number, 1, id="m-1")
        await run.signal(number, 2, id="m-2")
        assert await soon(run.result()) == [1, 2]


async def test_a_run_can_end_in_the_turn_of_a_signal_that_it_started_with(memory: MemoryWorld) -> None:
    async with memory.engine(collecting) as engine:
        run = await engine.start(
            collecting(1), id="a", signals=[number.message(value, id=f"m-{value}") for value in range(3)]
        )
        assert await soon(run.result()) == [0]
        assert sorted(await signals_in(run)) == ["m-0", "m-1", "m-2"], "a signal that was accepted is in the history"
        await check_history(memory.data, "a", collecting)


# -- crowds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_more_signals_than_a_page_of_mail_holds_wait_for_a_worker(worlds, kind: str) -> None:
    world, count = worlds(kind), 2_300 if kind == "memory" else 1_100
    async with world.engine(collecting) as engine:
        await engine.start(collecting(count), id="a")
    async with client(world) as engine:
        for value in range(count):
            await engine.run("a").signal(number, value)
    async with world.engine(collecting) as engine:
        assert await soon(engine.run("a").result()) == list(range(count))


async def test_a_run_that_ends_has_more_than_a_page_of_mail_in_its_history(memory: MemoryWorld) -> None:
    async with memory.engine(collecting) as engine:
        await engine.start(collecting(1), id="a")
    async with client(memory) as engine:
        for value in range(1_500):
            await engine.run("a").signal(number, value, id=f"m-{value}")
    async with memory.engine(collecting) as engine:
        run = engine.run("a")
        assert await soon(run.result()) == [0]
        ids = await signals_in(run)
        assert len(ids) == 1_500
        assert set(ids) == {f"m-{value}" for value in range(1_500)}


async def test_two_engines_and_many_senders_share_one_store(world: World) -> None:
    """Each run gets what was sent to it, in each sender's order, whoever has it and whoever dies."""
    async with world.engine(collecting) as engine, client(world) as other:
        runs = [await engine.start(collecting(20), id=f"run-{n}") for n in range(4)]

        async def send(sender: Any, run_id: str, first: int) -> None:
            for value in range(first, first + 10):
                await sender.run(run_id).signal(number, value)

        await asyncio.gather(*(send(engine, run.id, 0) for run in runs), *(send(other, run.id, 100) for run in runs))
        for run in runs:
            found = await soon(run.result())
            assert [value for value in found if value < 100] == list(range(10))
            assert [value for value in found if value >= 100] == list(range(100, 110))


async def test_another_engine_takes_over_with_what_was_received_and_what_was_not(world: World) -> None:
    async with crashing(world, collecting) as (engine, _):
        run = await engine.start(collecting(4), id="a")
        await run.signal(number, 1)
        await run.signal(number, 2)
        await has(run, SignalReceived, 2)
    async with client(world) as sender:
        await sender.run("a").signal(number, 3)
    async with world.engine(collecting) as engine:
        await engine.run("a").signal(number, 4)
        assert await soon(engine.run("a").result()) == [1, 2, 3, 4]


@task
async def note(what: str) -> str:
    return what


@pytest.mark.parametrize("cached", [0, 10])
async def test_a_signal_wakes_a_run_that_was_given_up_and_forgotten(world: World, cached: int) -> None:
    @workflow
    async def noting() -> list[str]:
        return [await note(f"{await number.receive()}") for _ in range(3)]

    async with world.engine(noting, cached=cached) as engine:
        run = await engine.start(noting(), id="a")
        for value in range(3):
            await at_rest(engine.store, "a")
            await run.signal(number, value)
            await has(run, SignalReceived, value + 1)
        assert await soon(run.result()) == ["0", "1", "2"]


async def test_a_cancelled_run_may_still_receive_while_it_cleans_up(memory: MemoryWorld) -> None:
    kept: list[int] = []

    @task
    async def keep(value: int) -> None:
        kept.append(value)

    @workflow
    async def cleaning() -> None:
        try:
            await asyncio.sleep(1e6)
        finally:
            while number.waiting():
                await keep(await number.receive())
            await keep(await number.receive())

    async with memory.engine(cleaning) as engine:
        run = await engine.start(cleaning(), id="a")
        await run.signal(number, 1)
        await run.signal(number, 2)
        await has(run, SignalReceived, 2)
        await run.cancel()
        await until(lambda: kept == [1, 2])
        await run.signal(number, 3)
        with pytest.raises(RunCancelledError):
            await soon(run.result())
        assert kept == [1, 2, 3]


async def test_waiters_of_one_name_are_served_in_the_order_in_which_they_began_to_wait(memory: MemoryWorld) -> None:
    @workflow
    async def queueing() -> list[list[Any]]:
        found: list[list[Any]] = []

        async def wait(label: str) -> None:
            found.append([label, await number.receive()])

        branches = [asyncio.create_task(wait(label), name=label) for label in ("a", "b", "c")]
        await asyncio.sleep(10)
        branches[0].cancel()
        await asyncio.wait(branches)
        return found

    async with memory.engine(queueing) as engine:
        run = await engine.start(queueing(), id="q")
        await at_rest(memory.data, "q")
        memory.clock.advance(10)
        await has(run, TimerFired)  # the first has given up
        await run.signal(number, 1)
        await run.signal(number, 2)
        found = await soon(run.result())
        assert found == [["b", 1], ["c", 2]]


def test_a_message_carries_what_was_said() -> None:
    message = number.message(Random(1).randrange(5), id="m-1")
    assert (message.name, message.id) == ("number", "m-1")


async def test_a_look_at_the_mailbox_from_before_it_was_answered_harms_nothing(memory: MemoryWorld) -> None:
    """What a worker asked the store comes late: the message in it was received, and a refused request was refused."""
    refused = Request("refused", int, int)

    def refuse(value: int) -> None:
        raise ValueError(f"{value}")

    @workflow
    async def busy() -> list[int]:
        async with refused.serve(lambda value: value, validator=refuse):
            waiting = asyncio.ensure_future(held())
            found = [await number.receive(), await number.receive()]
            await waiting
        return found

    gate = asyncio.Event()

    @task
    async def held() -> None:
        await gate.wait()

    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[busy], clock=memory.clock) as engine, memory.engine() as other:
        run = await engine.start(busy(), id="a")
        old: list[Any] = []

        async def look(name: str, argument: Any) -> None:
            if name == "commit" and argument.consumes:
                old.append(await memory.data.head("run:a"))

        store.before = look
        await other.run("a").signal(number, 1, id="m-1")
        await has(run, SignalReceived)
        with pytest.raises(RequestRefused):
            await soon(other.run("a").request(refused, 1, id="q-1"))
        assert [[message.id for message in head.messages] for head in old] == [["m-1"], ["q-1"]]
        store.before = None
        for head in old:
            engine._worker.take(head)  # type: ignore[union-attr]
            await settle()
        gate.set()
        await other.run("a").signal(number, 2, id="m-2")
        assert await soon(run.result()) == [1, 2]
        assert await signals_in(run) == ["m-1", "m-2"]
        await check_history(memory.data, "a", busy)
