"""Messages from a run to another: part of the sender's history, delivered once, and refused inside the workflow."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from engine import Engine, RunHandle, Signal, durable, workflow
from engine.errors import (
    EngineFailed,
    HoldfastError,
    NotRecordable,
    RunFailedError,
    RunNotFound,
    RunTerminatedError,
)
from eventstore import StoreUnavailable, StreamNotFound
from tests.language.hands import becomes, gate, held, rests, tell, told
from tests.runtime.faulty import Fault, FaultyStore, at_call
from tests.runtime.invariants import check_store
from tests.runtime.worlds import MemoryWorld, World, events_of, kinds_of, soon, until, until_async

number = Signal("number", int)
word = Signal("word", str)


@workflow
async def collecting(n: int) -> list[int]:
    return [await number.receive() for _ in range(n)]


@workflow
async def sending(to: str, values: list[int]) -> str:
    for value in values:
        await durable.run(to).signal(number, value)
    return "sent"


@workflow
async def trying(to: str, how: str) -> str:
    try:
        target = durable.run(to)
        match how:
            case "signal":
                await target.signal(number, 1)
            case "cancel":
                await target.cancel("because")
            case _:
                await target.terminate("because")
    except HoldfastError as error:
        return f"{type(error).__name__}: {error}"
    return "delivered"


@workflow
async def ended() -> str:
    return "ended"


@workflow
async def asleep() -> str:
    try:
        await asyncio.sleep(1e6)
    finally:
        await tell("cleaned up")
    return "slept"


async def test_signals_arrive_in_the_order_they_were_sent(world: World) -> None:
    async with world.engine(collecting, sending) as engine:
        to = await engine.start(collecting(5), id="to")
        run = await engine.start(sending("to", [1, 2, 3, 4, 5]), id="from")
        assert await soon(run.result()) == "sent"
        assert await soon(to.result()) == [1, 2, 3, 4, 5]
        received = [event for event in await events_of(to) if type(event).__name__ == "SignalReceived"]
        assert {event.by for event in received} == {"run from"}
        assert (await kinds_of(run)).count("SendAccepted") == 5
        await check_store(engine.store, collecting, sending)


@workflow
async def sending_at_once(to: str, n: int) -> int:
    await asyncio.gather(*(durable.run(to).signal(number, index) for index in range(n)))
    return n


async def test_many_sends_in_one_turn_keep_their_order(world: World) -> None:
    async with world.engine(collecting, sending_at_once) as engine:
        to = await engine.start(collecting(200), id="to")
        run = await engine.start(sending_at_once("to", 200), id="from")
        assert await soon(run.result()) == 200
        assert await soon(to.result()) == list(range(200))
        await check_store(engine.store, collecting, sending_at_once)


@pytest.mark.parametrize("how", ["signal", "cancel", "terminate"])
async def test_a_message_to_a_run_that_does_not_exist_is_an_error_in_the_workflow(how: str, world: World) -> None:
    async with world.engine(trying) as engine:
        run = await engine.start(trying("nobody", how), id="a")
        said = await soon(run.result())
        assert said.startswith("RunNotFound: ")
        assert "nobody" in said
        with pytest.raises(StreamNotFound):
            await engine.store.head("run:nobody")
        await check_store(engine.store, trying)


@pytest.mark.parametrize("how", ["signal", "cancel", "terminate"])
async def test_a_finished_run_takes_no_message_and_its_sender_learns_it(how: str, world: World) -> None:
    async with world.engine(trying, ended) as engine:
        await soon((await engine.start(ended(), id="over")).result())
        run = await engine.start(trying("over", how), id="a")
        said = await soon(run.result())
        assert said.startswith("RunEnded: run 'over' has ended: it ")
        assert how in said
        assert "SendRejected" in await kinds_of(run)
        assert (await engine.store.head("run:over")).messages == ()
        assert await engine.run("over").status() == "completed"
        await check_store(engine.store, trying, ended)


@pytest.mark.parametrize("how", ["cancel", "terminate"])
@pytest.mark.parametrize("fault", ["die before", "die after"])
async def test_who_has_ended_a_run_and_crashed_is_not_told_that_it_had_ended(
    fault: Fault, how: str, worlds: Any
) -> None:
    """The message was delivered and has done its work before its sender heard of it: sent again, it counts once."""
    for number_ in range(1, 20):
        told.clear()
        world: World = worlds("sqlite")
        store = await world.store()
        faulty = FaultyStore(store, at_call(number_, fault, only="commit"))
        async with world.engine(asleep) as other:
            target = await other.start(asleep(), id="to")
            await rests(other, "to")
            with suppress(EngineFailed, StoreUnavailable):
                async with Engine(faulty, workflows=[trying], clock=world.clock, grace=0) as engine:
                    await soon((await engine.start(trying("to", how), id="a")).result())
            await world.release(store)
            async with world.engine(trying) as again:
                if (await _events_or_none(again, "a")).count("MessageSent"):
                    await until_async(lambda: _has_ended(target))  # by the message that was delivered before the crash
                run = await again.start(trying("to", how), id="a")
                assert await soon(run.result()) == "delivered"
                assert (await kinds_of(run)).count("SendAccepted") == 1
                await until_async(lambda: _has_ended(target))
                await check_store(again.store, trying, asleep)
        if not faulty.faults:
            break
    assert not faulty.faults
    assert number_ > 2


async def _events_or_none(engine: Engine, run_id: str) -> list[str]:
    try:
        return await kinds_of(engine.run(run_id))
    except RunNotFound:
        return []


async def _has_ended(run: RunHandle[Any]) -> bool:
    return await run.status() in ("cancelled", "terminated")


async def test_a_refused_message_is_refused_at_replay_too(world: World) -> None:
    """What the sender was told stands in its history."""

    @workflow
    async def asking_twice(to: str) -> list[str]:
        said = [await trying.fn(to, "cancel"), await trying.fn(to, "terminate")]
        await asyncio.sleep(60)
        return said

    async with world.engine(asking_twice, ended) as engine:
        await soon((await engine.start(ended(), id="over")).result())
        await engine.start(asking_twice("over"), id="a")
        await rests(engine, "a")
    world.clock.advance(61)
    async with world.engine(asking_twice, ended) as engine:
        said = await soon(engine.run("a").result())
        assert [text.partition(":")[0] for text in said] == ["RunEnded", "RunEnded"]
        assert (await kinds_of(engine.run("a"))).count("SendRejected") == 2
        await check_store(engine.store, asking_twice, ended)


@workflow
async def not_catching(to: str) -> None:
    await durable.run(to).signal(number, 1)


async def test_an_error_of_a_send_that_nobody_catches_fails_the_run(world: World) -> None:
    async with world.engine(not_catching) as engine:
        with pytest.raises(RunFailedError) as caught:
            await soon((await engine.start(not_catching("nobody"), id="a")).result())
        assert "RunNotFound" in caught.value.type


@pytest.mark.parametrize(("how", "status"), [("cancel", "cancelled"), ("terminate", "terminated")])
async def test_a_run_may_end_another_one(how: str, status: str, world: World) -> None:
    async with world.engine(trying, asleep) as engine:
        other = await engine.start(asleep(), id="other")
        await rests(engine, "other")
        assert await soon((await engine.start(trying("other", how), id="a")).result()) == "delivered"
        await becomes(other, status)
        assert (await other.state()).reason == "because"
        assert told == (["cleaned up"] if how == "cancel" else [])
        asked = [e for e in await events_of(other) if type(e).__name__ in ("CancelRequested", "RunTerminated")]
        assert [event.by for event in asked] == ["run a"]
        await check_store(engine.store, trying, asleep)


# -- to oneself -------------------------------------------------------------------------------------------------------------


@workflow
async def talking_to_itself() -> list[int]:
    me = durable.run(durable.run_id())
    await me.signal(number, 1)
    await me.signal(number, 2)
    return [await number.receive(), await number.receive()]


async def test_a_run_may_signal_itself(world: World) -> None:
    async with world.engine(talking_to_itself) as engine:
        assert await soon((await engine.start(talking_to_itself(), id="a")).result()) == [1, 2]
        await check_store(engine.store, talking_to_itself)


@workflow
async def ending_itself(how: str) -> str:
    try:
        await getattr(durable.run(durable.run_id()), how)("myself")
        await asyncio.sleep(1e6)
    finally:
        await tell("finally")
    return "never"


async def test_a_run_may_cancel_itself(world: World) -> None:
    async with world.engine(ending_itself) as engine:
        run = await engine.start(ending_itself("cancel"), id="a")
        await becomes(run, "cancelled")
        assert told == ["finally"]
        await check_store(engine.store, ending_itself)


async def test_a_run_may_terminate_itself(world: World) -> None:
    async with world.engine(ending_itself) as engine:
        run = await engine.start(ending_itself("terminate"), id="a")
        with pytest.raises(RunTerminatedError, match="myself"):
            await soon(run.result())
        assert told == []


# -- awaits that are cancelled ------------------------------------------------------------------------------------------------


@workflow
async def not_waiting(to: str) -> str:
    """The await is cancelled in the very turn that began it: as with a call, it then never happened."""
    sending_ = asyncio.ensure_future(durable.run(to).signal(number, 1))
    await asyncio.sleep(0)
    sending_.cancel()
    await asyncio.wait([sending_])
    await durable.run(to).signal(number, 2)
    return f"cancelled {sending_.cancelled()}"


async def test_a_send_cancelled_in_its_own_turn(world: World) -> None:
    async with world.engine(collecting, not_waiting) as engine:
        to = await engine.start(collecting(1), id="to")
        run = await engine.start(not_waiting("to"), id="a")
        assert await soon(run.result()) == "cancelled True"
        (got,) = await soon(to.result())
        sent = [event for event in await events_of(run) if type(event).__name__ == "MessageSent"]
        assert got == (2 if len(sent) == 1 else 1), "what is in the history was delivered, in order"
        await check_store(engine.store, collecting, not_waiting)


@workflow
async def last_words(to: str) -> str:
    asyncio.ensure_future(durable.run(to).signal(number, 7))  # noqa: RUF006
    await asyncio.sleep(0)
    return "over"


async def test_what_was_sent_by_a_run_that_then_ends_is_delivered_if_it_is_recorded(world: World) -> None:
    async with world.engine(collecting, last_words) as engine:
        to = await engine.start(collecting(1), id="to")
        run = await engine.start(last_words("to"), id="a")
        assert await soon(run.result()) == "over"
        if "MessageSent" in await kinds_of(run):
            assert await soon(to.result()) == [7]
        else:
            await rests(engine, "to")
            assert "SignalReceived" not in await kinds_of(to)
        await check_store(engine.store, collecting, last_words)


# -- values -------------------------------------------------------------------------------------------------------------------


@workflow
async def mistyped(to: str) -> str:
    try:
        await durable.run(to).signal(number, "not a number")  # type: ignore[arg-type]
    except NotRecordable as error:
        return str(error)
    return "sent"


async def test_a_value_of_another_type_is_refused_at_the_sender(world: World) -> None:
    async with world.engine(collecting, mistyped) as engine:
        to = await engine.start(collecting(1), id="to")
        assert "number" in await soon((await engine.start(mistyped("to"), id="a")).result())
        await rests(engine, "to")
        assert "SignalReceived" not in await kinds_of(to)


async def test_an_id_that_no_run_can_have_is_refused(memory: MemoryWorld) -> None:
    async with memory.engine(trying) as engine:
        said = await soon((await engine.start(trying("", "signal"), id="a")).result())
        assert said.startswith("HoldfastError")


# -- to children, and up ------------------------------------------------------------------------------------------------------


@workflow
async def leading() -> list[int]:
    handle = await durable.start(collecting(3))
    for value in range(3):
        await handle.signal(number, value)
    return await handle.result()


async def test_a_child_can_be_told_something_at_once(world: World) -> None:
    async with world.engine(leading) as engine:
        assert await soon((await engine.start(leading(), id="p")).result()) == [0, 1, 2]
        await check_store(engine.store, leading, collecting)


@workflow
async def reporting(parent: str, n: int) -> None:
    await durable.run(parent).signal(number, n)


@workflow
async def hearing(n: int) -> list[int]:
    async with asyncio.TaskGroup() as group:
        for index in range(n):
            group.create_task(reporting(durable.run_id(), index))
        return sorted([await number.receive() for _ in range(n)])


async def test_children_may_report_to_their_parent(world: World) -> None:
    async with world.engine(hearing) as engine:
        assert await soon((await engine.start(hearing(20), id="p")).result()) == list(range(20))
        await check_store(engine.store, hearing, reporting)


# -- where it goes wrong ------------------------------------------------------------------------------------------------------


async def test_a_lost_reply_to_the_commit_that_sends_repeats_nothing(memory: MemoryWorld) -> None:
    """The commit happened, its reply did not come: the run is rebuilt from the log, and the message is there once."""
    from engine import Engine

    lost = False

    def plan(_call: int, _name: str) -> None:
        return None

    store = FaultyStore(memory.data, plan)

    async def lose(name: str, commit: Any) -> None:
        nonlocal lost
        if not lost and name == "commit" and any(b'"MessageSent"' in event.header for event in commit.events):
            lost = True
            store.die()
            raise ConnectionError("the reply is lost")

    async with memory.engine(collecting) as receiver:
        to = await receiver.start(collecting(2), id="to")
        store.after = lose
        with pytest.raises(Exception):  # noqa: B017, PT011 - however the death of its store is told
            async with Engine(store, workflows=[sending], clock=memory.clock, grace=0) as engine:
                await soon((await engine.start(sending("to", [1, 2]), id="a")).result())
        assert lost
        async with memory.engine(sending) as engine:
            assert await soon(engine.run("a").result()) == "sent"
        assert await soon(to.result()) == [1, 2]
        await check_store(memory.data, collecting, sending)


async def test_replay_sends_nothing_again(world: World) -> None:
    async with world.engine(sending_then_waiting, collecting, cached=0, grace=0) as engine:
        to = await engine.start(collecting(2), id="to")
        await engine.start(sending_then_waiting("to"), id="a")
        await rests(engine, "a")
    for _ in range(3):
        async with world.engine(sending_then_waiting, collecting, cached=0, grace=0) as engine:
            to = engine.run("to")
            await engine.run("a").signal(word, "look")
            for name in ("a", "to"):
                await rests(engine, name)
            assert (await kinds_of(to)).count("SignalReceived") == 1
    async with world.engine(sending_then_waiting, collecting) as engine:
        await engine.run("a").signal(word, "go")
        assert await soon(engine.run("a").result()) == "over"
        assert await soon(engine.run("to").result()) == [1, 2]
        await check_store(engine.store, sending_then_waiting, collecting)


@workflow
async def sending_then_waiting(to: str) -> str:
    await durable.run(to).signal(number, 1)
    while await word.receive() != "go":
        pass
    await durable.run(to).signal(number, 2)
    return "over"


async def test_a_message_to_a_run_that_ends_meanwhile_is_delivered_or_refused_never_lost(world: World) -> None:
    async with world.engine(trying, holding) as engine:
        other = await engine.start(holding(), id="other")
        await until(lambda: told == ["x began"])
        asker = await engine.start(trying("other", "signal"), id="a")
        gate("x").set()
        said = await soon(asker.result())
        assert await soon(other.result()) == "x"
        received = "SignalReceived" in await kinds_of(other)
        assert received == (said == "delivered")
        await check_store(engine.store, trying, holding)


@workflow
async def holding() -> str:
    return await held("x")


# -- mail that ends a run, and mail behind it -------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [True, False])
async def test_a_signal_behind_the_one_that_ends_the_run_does_not_keep_it_from_ending(
    there: bool, world: World
) -> None:
    """Twice the same name: the second was sent in time, and nobody is left to receive it."""
    async with world.engine(collecting, sending_at_once, grace=0) as engine:
        to = await engine.start(collecting(1), id="to")
        await rests(engine, "to")
        if there:
            await (await engine.start(sending_at_once("to", 3), id="a")).result()
            assert await soon(to.result()) == [0]
    if not there:
        async with world.engine(sending_at_once) as engine:
            await (await engine.start(sending_at_once("to", 3), id="a")).result()
        async with world.engine(collecting) as engine:
            assert await soon(engine.run("to").result()) == [0]
            await check_store(engine.store, collecting, sending_at_once)


async def test_a_signal_of_another_name_behind_the_one_that_ends_the_run_is_in_the_history(world: World) -> None:
    async with world.engine(collecting) as engine:
        await engine.start(collecting(2), id="to")
        await rests(engine, "to")
    async with world.engine() as client:
        to = client.run("to")
        await to.signal(word, "first")
        await to.signal(number, 1)
        await to.signal(number, 2)
        await to.signal(word, "last")
    async with world.engine(collecting) as engine:
        assert await soon(engine.run("to").result()) == [1, 2]
        arrived = [event for event in await events_of(engine.run("to")) if type(event).__name__.startswith("Signal")]
        assert sorted(event.name for event in arrived) == ["number", "number", "word", "word"]
        await check_store(engine.store, collecting)


@workflow
async def one_of_each() -> str:
    """Ends with the first number, or the first word."""
    branches = [asyncio.ensure_future(number.receive()), asyncio.ensure_future(word.receive())]
    done, pending = await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
    for branch in pending:
        branch.cancel()
    return str(sorted(str(branch.result()) for branch in done))


async def test_of_two_signals_that_both_end_the_run_one_does(world: World) -> None:
    async with world.engine(one_of_each) as engine:
        await engine.start(one_of_each(), id="to")
        await rests(engine, "to")
    async with world.engine() as client:
        await client.run("to").signal(number, 1)
        await client.run("to").signal(word, "w")
    async with world.engine(one_of_each) as engine:
        assert await soon(engine.run("to").result()) in ("['1']", "['w']")
        await check_store(engine.store, one_of_each)


async def test_very_many_signals_behind_the_one_that_ends_the_run(memory: MemoryWorld) -> None:
    """More than a step takes, and more than a page of the mailbox."""
    async with memory.engine(collecting) as engine:
        await engine.start(collecting(1), id="to")
        await rests(engine, "to")
    async with memory.engine() as client:
        for value in range(2_100):
            await client.run("to").signal(number, value)
    async with memory.engine(collecting) as engine:
        assert await soon(engine.run("to").result()) == [0]
        await check_store(engine.store, collecting)


async def test_a_signal_behind_a_cancel_is_in_the_history(world: World) -> None:
    async with world.engine(collecting) as engine:
        await engine.start(collecting(2), id="to")
        await rests(engine, "to")
    async with world.engine() as client:
        await client.run("to").cancel()
        await client.run("to").signal(number, 1)
    async with world.engine(collecting) as engine:
        run = engine.run("to")
        await becomes(run, "cancelled")
        assert sum(kind.startswith("Signal") for kind in await kinds_of(run)) == 1
        await check_store(engine.store, collecting)


async def test_signals_that_a_run_is_started_with_do_not_keep_it_from_ending_at_once(world: World) -> None:
    async with world.engine(ended) as engine:
        run = await engine.start(ended(), id="a", signals=[number.message(1), word.message("two")])
        assert await soon(run.result()) == "ended"
        await check_store(engine.store, ended)


@workflow
async def talking_to_a_short_life() -> str:
    handle = await durable.start(ended())
    try:
        await handle.signal(number, 1)
        await handle.signal(number, 2)
    except HoldfastError as error:
        await tell(type(error).__name__)
    return await handle.result()


async def test_a_child_that_ends_at_once_may_have_mail(world: World) -> None:
    async with world.engine(talking_to_a_short_life) as engine:
        run = await engine.start(talking_to_a_short_life(), id="p")
        assert await soon(run.result()) == "ended"
        assert told in ([], ["RunEnded"])
        child = engine.run("p/ended#1")
        assert (await kinds_of(child))[0] == "RunStarted"
        assert (await child.state()).workflow == "ended"
        await check_store(engine.store, talking_to_a_short_life, ended)
