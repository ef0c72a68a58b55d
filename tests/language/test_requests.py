"""Requests: accepted, refused, answered once; across crashes, engines and waiters that give up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine import Engine, Request, RunHandle, Signal, task, workflow
from engine.core.events import RequestAnswered, RequestFailed, RequestReceived
from engine.errors import NotRecordable, RequestFailedError, RequestRefused, RunCancelledError, RunEnded, RunNotFound
from eventstore import StoreUnavailable
from tests.language.talk import client, crashing, has, is_status, requests_in, send_raw
from tests.runtime.faulty import FaultyStore, Pause, at_call
from tests.runtime.invariants import check_history
from tests.runtime.worlds import MemoryWorld, World, at_rest, events_of, kinds_of, settle, soon, until, until_async

double = Request("double", int, int)
nothing = Request("nothing", None, str)
stop = Signal("stop", bool)

handled: list[int] = []
validated: list[int] = []
tried: list[int] = []


@pytest.fixture(autouse=True)
def _nothing_happened() -> None:
    handled.clear()
    validated.clear()
    tried.clear()


def check(value: int) -> None:
    validated.append(value)
    if value < 0:
        raise ValueError(f"{value} is negative")


@task
async def twice(value: int) -> int:
    tried.append(value)
    return 2 * value


async def answer(value: int) -> int:
    handled.append(value)
    if value == 13:
        raise LookupError("thirteen")
    return await twice(value)


@workflow
async def serving() -> str:
    async with double.serve(answer, validator=check):
        await stop.receive()
    return "stopped"


@workflow
async def serving_late() -> str:
    await asyncio.sleep(100)
    async with double.serve(lambda value: 2 * value, validator=check):
        await stop.receive()
    return "stopped"


@workflow
async def one_by_one(count: int) -> list[str]:
    taken = []
    for _ in range(count):
        received = await double.receive()
        taken.append(received.id)
        if received.value == 0:
            received.reject("zero")
        elif received.value == 1:
            received.reject(ValueError("one"))
        else:
            received.answer(2 * received.value)
    return taken


@workflow
async def hanging() -> str:
    async with double.serve(hang):
        await stop.receive()
        raise ValueError("left by an exception")


async def hang(value: int) -> int:
    handled.append(value)
    await asyncio.Event().wait()
    return value


async def test_a_request_is_accepted_then_answered(world: World) -> None:
    async with world.engine(serving) as engine:
        run = await engine.start(serving(), id="a")
        pending = await run.request(double, 4, id="q-1")
        assert pending.id == "q-1"
        assert await requests_in(run) == ["q-1"]
        assert await soon(pending.answer()) == 8
        assert await soon(pending.answer()) == 8
        assert await soon(run.ask(double, 5)) == 10
        await run.signal(stop, True)
        assert await soon(run.result()) == "stopped"
        await check_history(engine.store, "a", serving)


async def test_a_request_without_an_argument_and_a_plain_handler(memory: MemoryWorld) -> None:
    @workflow
    async def plain() -> None:
        async with nothing.serve(lambda _: "here"):
            await stop.receive()

    async with memory.engine(plain) as engine:
        run = await engine.start(plain(), id="a")
        assert await soon(run.ask(nothing)) == "here"
        await run.signal(stop, True)
        await soon(run.result())


async def test_acceptance_does_not_wait_for_the_answer(memory: MemoryWorld) -> None:
    async with memory.engine(hanging) as engine:
        run = await engine.start(hanging(), id="a")
        await soon(run.request(double, 1, id="q-1"))
        assert RequestAnswered not in {type(event) for event in await events_of(run)}


async def test_a_refused_request_leaves_the_history_untouched_and_is_refused_again(world: World) -> None:
    async with world.engine(serving) as engine:
        run = await engine.start(serving(), id="a")
        await at_rest(engine.store, "a")
        before = await events_of(run)
        for _ in range(2):
            with pytest.raises(RequestRefused, match="-3 is negative") as caught:
                await soon(run.request(double, -3, id="q-1"))
            assert isinstance(caught.value.__cause__, ValueError)
            assert caught.value.request_id == "q-1"
        assert await events_of(run) == before
        assert validated == [-3]
    async with world.engine(serving) as engine, client(world) as other:
        for asker in (engine, other):
            with pytest.raises(RequestRefused):
                await soon(asker.run("a").ask(double, -3, id="q-1"))
        assert validated == [-3]
        assert await soon(engine.run("a").ask(double, 3, id="q-2")) == 6


async def test_validators_run_live_only(world: World) -> None:
    async with crashing(world, serving) as (engine, _):
        run = await engine.start(serving(), id="a")
        for value in (1, 2):
            await soon(run.ask(double, value, id=f"q-{value}"))
        assert validated == [1, 2]
    async with world.engine(serving, cached=0) as engine:
        run = engine.run("a")
        assert await soon(run.ask(double, 3, id="q-3")) == 6
        assert validated == [1, 2, 3]
        await run.signal(stop, True)
        await soon(run.result())
        assert tried == [1, 2, 3], "no task of an answer that is recorded runs again"
        assert validated == [1, 2, 3]


async def test_the_same_id_is_answered_once_across_engines_and_restarts(world: World) -> None:
    async with crashing(world, serving) as (engine, _):
        await engine.start(serving(), id="a")
        async with client(world) as other:
            answers = await soon(
                asyncio.gather(*(asker.run("a").ask(double, 4, id="q-1") for asker in (engine, other, engine)))
            )
        assert answers == [8, 8, 8]
    async with world.engine(serving) as engine, client(world) as other:
        assert await soon(other.run("a").ask(double, 4, id="q-1")) == 8
        assert await soon(engine.run("a").ask(double, 4, id="q-1")) == 8
        assert await soon(engine.run("a").pending_request(double, "q-1").answer()) == 8
        await engine.run("a").signal(stop, True)
        await soon(engine.run("a").result())
        assert await soon(other.run("a").ask(double, 4, id="q-1")) == 8  # answered for ever, also behind the end
        assert await requests_in(engine.run("a")) == ["q-1"]
    assert tried == [4]


@pytest.mark.parametrize("fault", ["lose reply", "refuse"])
async def test_a_request_whose_reply_was_lost_is_repeated_with_its_id(memory: MemoryWorld, fault: Any) -> None:
    store = FaultyStore(memory.data, at_call(1, fault, only="send"))
    async with memory.engine(serving) as engine, Engine(store, clock=memory.clock) as sender:
        await engine.start(serving(), id="a")
        with pytest.raises(StoreUnavailable):
            await sender.run("a").ask(double, 4, id="q-1")
        assert await soon(sender.run("a").ask(double, 4, id="q-1")) == 8
        assert tried == [4]


async def test_an_accepted_request_is_answered_after_a_crash(world: World) -> None:
    @task
    async def slow(value: int) -> int:
        tried.append(value)
        if len(tried) == 1:
            await asyncio.Event().wait()
        return 2 * value

    @workflow
    async def slowly() -> None:
        async with double.serve(lambda value: slow(value)):
            await stop.receive()

    async with crashing(world, slowly) as (engine, _):
        run = await engine.start(slowly(), id="a")
        await soon(run.request(double, 4, id="q-1"))
        await until(lambda: tried == [4])
    async with world.engine(slowly) as engine:
        assert await soon(engine.run("a").pending_request(double, "q-1").answer()) == 8
        await engine.run("a").signal(stop, True)
        await soon(engine.run("a").result())
        assert tried == [4, 4]


# -- before it is served --------------------------------------------------------------------------------------------------


async def test_a_request_that_comes_early_waits_unrecorded_and_keeps_nobody_busy(memory: MemoryWorld) -> None:
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[serving_late], clock=memory.clock) as engine:
        run = await engine.start(serving_late(), id="a")
        asking = asyncio.create_task(run.ask(double, 4, id="q-1"))
        await until(lambda: "send" in store.calls)
        await settle(300)
        before = len(store.calls)
        for _ in range(10):
            await asyncio.sleep(0.02)  # real time, in which a spinning worker would claim thousands of times
            await settle()
        claims = store.calls[before:].count("claim")
        assert claims <= 20, f"{claims} claims in 0.2 s for a run that can do nothing"
        assert store.calls[before:].count("commit") <= 2
        assert await requests_in(run) == []
        assert validated == []
        memory.clock.advance(100)
        assert await soon(asking) == 8
        assert validated == [4]
        await run.signal(stop, True)
        await soon(run.result())
        await check_history(memory.data, "a", serving_late)


async def test_signals_and_timers_reach_a_run_for_which_a_request_waits(world: World) -> None:
    async with world.engine(serving_late) as engine:
        run = await engine.start(serving_late(), id="a")
        asking = asyncio.create_task(run.ask(double, 4, id="q-1"))
        await run.signal(stop, True)

        async def waits() -> bool:
            return any(message.id == "q-1" for message in (await engine.store.head("run:a")).messages)

        from tests.runtime.worlds import until_async

        await until_async(waits)
        world.clock.advance(100)
        assert await soon(run.result()) == "stopped"
        try:
            assert await soon(asking) == 8
        except RunEnded:  # it was served for one turn only
            assert await requests_in(run) == []


async def test_an_early_request_survives_restarts_and_is_validated_once(world: World) -> None:
    async with world.engine(serving_late) as engine:
        run = await engine.start(serving_late(), id="a")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run.request(double, 4, id="q-1"), 0.05)
    async with crashing(world, serving_late) as (engine, _):
        assert await requests_in(engine.run("a")) == []
    async with world.engine(serving_late) as engine:
        world.clock.advance(100)
        assert await soon(engine.run("a").pending_request(double, "q-1").answer()) == 8
        assert validated == [4]


async def test_a_run_that_ends_with_a_request_waiting_tells_its_sender(world: World) -> None:
    async with world.engine(serving_late) as engine:
        run = await engine.start(serving_late(), id="a")
        asking = asyncio.create_task(run.request(nothing, id="q-1"))  # which it never serves
        await settle()
        await run.signal(stop, True)
        world.clock.advance(100)
        await soon(run.result())
        with pytest.raises(RunEnded):
            await soon(asking)
        assert await requests_in(run) == []


# -- ends -----------------------------------------------------------------------------------------------------------------


async def test_a_handler_that_raises_fails_its_request_only(world: World) -> None:
    async with world.engine(serving) as engine:
        run = await engine.start(serving(), id="a")
        pending = await run.request(double, 13, id="q-1")
        for _ in range(2):
            with pytest.raises(RequestFailedError, match="thirteen") as caught:
                await soon(pending.answer())
            assert isinstance(caught.value.__cause__, LookupError)
            assert caught.value.request_id == "q-1"
        assert await soon(run.ask(double, 1)) == 2


async def test_a_handler_whose_answer_is_of_another_type_fails_its_request_only(memory: MemoryWorld) -> None:
    @workflow
    async def wrong() -> None:
        async with double.serve(lambda value: "text"):  # type: ignore[arg-type, return-value]
            await stop.receive()

    async with memory.engine(wrong) as engine:
        run = await engine.start(wrong(), id="a")
        with pytest.raises(RequestFailedError) as caught:
            await soon(run.ask(double, 1))
        assert isinstance(caught.value.__cause__, NotRecordable | TypeError | Exception)
        await run.signal(stop, True)
        await soon(run.result())


async def test_leaving_the_block_waits_for_requests_under_way(memory: MemoryWorld) -> None:
    gate = asyncio.Event()

    @task
    async def slow(value: int) -> int:
        await gate.wait()
        return 2 * value

    @workflow
    async def leaving() -> str:
        async with double.serve(lambda value: slow(value)):
            await stop.receive()
        return "left"

    async with memory.engine(leaving) as engine:
        run = await engine.start(leaving(), id="a")
        pending = await run.request(double, 4)
        await run.signal(stop, True)
        await settle(200)
        assert await run.status() == "running"
        gate.set()
        assert await soon(pending.answer()) == 8
        assert await soon(run.result()) == "left"


async def test_leaving_the_block_by_an_exception_cancels_its_requests_and_tells_their_senders(world: World) -> None:
    async with world.engine(hanging) as engine:
        run = await engine.start(hanging(), id="a")
        pending = await run.request(double, 1, id="q-1")
        await run.signal(stop, True)
        with pytest.raises((RequestFailedError, RunEnded)):
            await soon(pending.answer())
        await is_status(run, "failed")
        await check_history(engine.store, "a", hanging)


@pytest.mark.parametrize("how", ["cancel", "terminate", "return"])
async def test_a_run_that_ends_unanswered_tells_the_sender(memory: MemoryWorld, how: str) -> None:
    @workflow
    async def taking() -> None:
        await double.receive()
        await stop.receive()

    async with memory.engine(taking) as engine:
        run = await engine.start(taking(), id="a")
        pending = await run.request(double, 1)
        if how == "return":
            await run.signal(stop, True)
        else:
            await getattr(run, how)()
        with pytest.raises((RunEnded, RequestFailedError)):
            await soon(pending.answer())


async def ended_and_reopened(engine: Engine, run: RunHandle[Any], how: str) -> None:
    await getattr(run, how)()
    await is_status(run, "cancelled" if how == "cancel" else "terminated")
    await engine.reopen(run.id)


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_a_request_that_the_end_turned_away_is_told_so_though_the_run_was_reopened(
    how: str, world: World
) -> None:
    """By whoever asks for it: who waits, who asks again, who has only its id; and others are served as ever."""
    async with world.engine(serving_late) as engine, client(world) as other:
        run = await engine.start(serving_late(), id="a")
        asking = [asyncio.create_task(each.run("a").ask(double, 1, id="q-1")) for each in (engine, other)]
        await until_async(lambda: waits_for(engine, "a", 1))
        await ended_and_reopened(engine, run, how)
        for waiting in asking:
            with pytest.raises(RunEnded, match="ended before it took"):
                await soon(waiting)
        with pytest.raises(RunEnded, match="reopened"):
            await soon(run.ask(double, 1, id="q-1"))
        with pytest.raises(RunEnded, match="reopened"):
            await soon(other.run("a").pending_request(double, "q-1").answer())
        later = asyncio.create_task(run.ask(double, 2, id="q-2"))
        await until_async(lambda: waits_for(engine, "a", 1))
        await settle()
        assert not later.done()
        world.clock.advance(100)
        assert await soon(later) == 4
        with pytest.raises(RequestRefused):
            await soon(run.ask(double, -1, id="q-3"))
        await run.signal(stop, True)
        assert await soon(run.result()) == "stopped"
        await check_history(engine.store, "a", serving_late)


async def test_who_waits_hears_of_an_end_that_was_taken_back_whatever_else_waits_there(world: World) -> None:
    """It saw neither the end nor an empty box: only that the run has gone on behind an end."""
    async with world.engine(serving_late) as engine, watching(world) as (other, store):
        run = await engine.start(serving_late(), id="a")
        asking = asyncio.create_task(run.ask(double, 1, id="q-1"))
        await until_async(lambda: waits_for(engine, "a", 1))
        pause = Pause(store, behind=True, when=lambda name, argument: (name, argument) == ("head", "run:a"))
        waiting = asyncio.create_task(other.run("a").pending_request(double, "q-1").accepted())
        await soon(pause.reached.wait())
        await ended_and_reopened(engine, run, "cancel")
        with pytest.raises(RunEnded):
            await soon(asking)
        later = asyncio.create_task(run.ask(double, 2, id="q-2"))
        await until_async(lambda: waits_for(engine, "a", 1))
        pause.let_go.set()
        with pytest.raises(RunEnded, match="reopened"):
            await soon(waiting)
        world.clock.advance(100)
        assert await soon(later) == 4


@asynccontextmanager
async def watching(world: World) -> AsyncIterator[tuple[Engine, FaultyStore]]:
    """A client whose calls of the store can be held back."""
    handle = await world.store()
    store = FaultyStore(handle)
    try:
        async with Engine(store, workflows=[], clock=world.clock) as engine:
            yield engine, store
    finally:
        await world.release(handle)


async def waits_for(engine: Engine, run_id: str, count: int) -> bool:
    return len((await engine.store.head(f"run:{run_id}")).messages) == count


async def test_a_request_to_a_finished_or_unknown_run(memory: MemoryWorld) -> None:
    async with memory.engine(serving) as engine:
        with pytest.raises(RunNotFound):
            await soon(engine.run("nobody").request(double, 1))
        run = await engine.start(serving(), id="a")
        await run.signal(stop, True)
        await soon(run.result())
        with pytest.raises(RunEnded):
            await soon(run.request(double, 1))
        with pytest.raises(RunEnded):
            await soon(run.pending_request(double, "never sent").answer())


async def test_a_waiter_that_gives_up_cancels_nothing(memory: MemoryWorld) -> None:
    gate = asyncio.Event()

    @task
    async def slow(value: int) -> int:
        await gate.wait()
        return 2 * value

    @workflow
    async def leaving() -> str:
        async with double.serve(lambda value: slow(value)):
            await stop.receive()
        return "left"

    async with memory.engine(leaving) as engine:
        run = await engine.start(leaving(), id="a")
        waiting = asyncio.create_task(run.ask(double, 4, id="q-1"))
        await has(run, RequestReceived)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.set()
        assert await soon(run.ask(double, 4, id="q-1")) == 8


async def test_requests_taken_one_by_one(world: World) -> None:
    async with world.engine(one_by_one) as engine:
        run = await engine.start(one_by_one(3), id="a")
        with pytest.raises(RequestFailedError, match="zero"):
            await soon(run.ask(double, 0, id="q-0"))
        with pytest.raises(RequestFailedError) as caught:
            await soon(run.ask(double, 1, id="q-1"))
        assert isinstance(caught.value.__cause__, ValueError)
        assert await soon(run.ask(double, 2, id="q-2")) == 4
        assert await soon(run.result()) == ["q-0", "q-1", "q-2"]
        await check_history(engine.store, "a", one_by_one)


async def test_a_request_answered_twice_raises_in_the_workflow(memory: MemoryWorld) -> None:
    @workflow
    async def twice_answered() -> str:
        received = await double.receive()
        received.answer(1)
        try:
            received.answer(2)
        except Exception as error:
            return type(error).__name__
        return "answered twice"

    async with memory.engine(twice_answered) as engine:
        run = await engine.start(twice_answered(), id="a")
        assert await soon(run.ask(double, 1)) == 1
        assert await soon(run.result()) == "HoldfastError"


@pytest.mark.parametrize("value", ["one", None, 1.5])
async def test_an_argument_that_is_not_of_the_type_is_refused_at_the_sender(memory: MemoryWorld, value: Any) -> None:
    async with memory.engine(serving) as engine:
        run = await engine.start(serving(), id="a")
        with pytest.raises(NotRecordable):
            await run.request(double, value, id="q-1")
        assert await soon(run.ask(double, 2, id="q-1")) == 4


async def test_a_recorded_argument_of_another_type_is_refused_not_recorded(memory: MemoryWorld) -> None:
    async with memory.engine(serving) as engine:
        run = await engine.start(serving(), id="a")
        await at_rest(memory.data, "a")
        before = await kinds_of(run)
        await send_raw(memory.data, "a", "double", b'"text"', id="q-1", kind="request")
        with pytest.raises(RequestRefused):
            await soon(run.pending_request(double, "q-1").answer())
        assert await kinds_of(run) == before


async def test_a_validator_may_read_and_decide_nothing(memory: MemoryWorld) -> None:
    @workflow
    async def sneaky() -> str:
        async with double.serve(lambda value: value, validator=lambda value: asyncio.ensure_future(twice(value))):
            await stop.receive()
        return "stopped"

    async with memory.engine(sneaky) as engine:
        run = await engine.start(sneaky(), id="a")
        with pytest.raises(RequestRefused, match="validator"):
            await soon(run.request(double, 1))
        assert await requests_in(run) == []
        await run.signal(stop, True)
        await is_status(run, "suspended")  # the instance did what no replay will do
        assert "TaskScheduled" not in await kinds_of(run)
        await run.resume()
        assert await soon(run.result()) == "stopped"
        assert tried == []


async def test_many_requests_at_once_are_each_answered_with_their_own(world: World) -> None:
    async with world.engine(serving) as engine, client(world) as other:
        await engine.start(serving(), id="a")
        askers = [engine, other]
        answers = await soon(
            asyncio.gather(*(askers[value % 2].run("a").ask(double, value, id=f"q-{value}") for value in range(14, 44)))
        )
        assert answers == [2 * value for value in range(14, 44)]
        await engine.run("a").signal(stop, True)
        await soon(engine.run("a").result())
        await check_history(engine.store, "a", serving)


async def test_a_request_that_comes_as_the_run_ends_is_answered_or_told(memory: MemoryWorld) -> None:
    """Delivered just before the closing commit."""
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[serving], clock=memory.clock) as engine, memory.engine() as other:
        run = await engine.start(serving(), id="a")
        asking: list[asyncio.Task[int]] = []

        async def ask(name: str, argument: Any) -> None:
            if name == "commit" and argument.closed is True and not asking:
                asking.append(asyncio.create_task(other.run("a").ask(double, 4, id="q-1")))
                await settle()

        store.before = ask
        await run.signal(stop, True)
        assert await soon(run.result()) == "stopped"
        assert asking
        with pytest.raises(RunEnded):
            assert await soon(asking[0]) == 8
            raise RunEnded("answered")
        await check_history(memory.data, "a", serving)


async def test_a_cancelled_run_fails_or_answers_what_is_under_way(world: World) -> None:
    async with world.engine(hanging) as engine:
        run = await engine.start(hanging(), id="a")
        pending = await run.request(double, 1)
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await soon(run.result())
        with pytest.raises((RunEnded, RequestFailedError)):
            await soon(pending.answer())
        failed = [event for event in await events_of(run) if isinstance(event, RequestFailed)]
        assert len(failed) <= 1
        await check_history(engine.store, "a", hanging)


async def test_a_name_served_twice_at_once_is_refused_and_one_after_the_other_is_not(memory: MemoryWorld) -> None:
    @workflow
    async def again() -> list[str]:
        said = []
        async with double.serve(lambda value: value):
            try:
                async with double.serve(lambda value: value):
                    said.append("nested")
            except Exception as error:
                said.append(type(error).__name__)
            await stop.receive()
        async with double.serve(lambda value: 10 * value):
            await stop.receive()
        received = await double.receive()
        received.answer(100)
        return said

    async with memory.engine(again) as engine:
        run = await engine.start(again(), id="a")
        assert await soon(run.ask(double, 1)) == 1
        await run.signal(stop, True)
        await at_rest(memory.data, "a")
        assert await soon(run.ask(double, 1)) == 10
        await run.signal(stop, True)
        assert await soon(run.ask(double, 1)) == 100
        assert await soon(run.result()) == ["HoldfastError"]
        await check_history(memory.data, "a", again)


async def test_a_workflow_may_serve_what_it_has_received_before(memory: MemoryWorld) -> None:
    @workflow
    async def first_by_hand() -> int:
        received = await double.receive()
        received.answer(0)
        async with double.serve(lambda value: 2 * value):
            await stop.receive()
        return received.value

    async with memory.engine(first_by_hand) as engine:
        run = await engine.start(first_by_hand(), id="a")
        assert await soon(run.ask(double, 5)) == 0
        assert await soon(run.ask(double, 6)) == 12
        await run.signal(stop, True)
        assert await soon(run.result()) == 5
