"""`continue_as_new` in engines: nothing is lost or doubled between epochs, and nothing of one reaches the next."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, Request, RunHandle, Signal, attempt, durable, task, workflow
from engine.core.events import (
    AttemptFailed,
    ContinuedAsNew,
    RunStarted,
    SignalReceived,
    TaskCompleted,
    TaskHandedOut,
    TaskStarted,
)
from engine.errors import HoldfastError, RequestFailedError, RunCancelledError, RunFailedError
from tests.language.hands import becomes, gate, rests, tell, told
from tests.runtime.faulty import FaultyStore
from tests.runtime.invariants import check_history
from tests.runtime.worlds import World, events_of, kinds_of, settle, soon, until, until_async

item = Signal("item", int)
halt = Signal("halt", type(None))
ask = Request("ask", int, int)


async def epoch_of(run: RunHandle[Any]) -> int:
    return (await run.state()).epoch


async def reaches(run: RunHandle[Any], epoch: int) -> None:
    async def there() -> bool:
        return await epoch_of(run) >= epoch

    await until_async(there)


# -- signals ----------------------------------------------------------------------------------------------------------


@workflow
async def collector(found: list[int], wanted: int, each: int) -> list[int]:
    """A few in every epoch."""
    for _ in range(each):
        found.append(await item.receive())
        if len(found) == wanted:
            return found
        if found[-1] % 7 == 0:
            await tell(str(found[-1]))
    await durable.continue_as_new(collector(found, wanted, each))


@pytest.mark.parametrize("seed", range(6))
async def test_signals_that_pour_in_are_received_once_and_in_order(seed: int, world: World) -> None:
    random, count = Random(seed), 60
    async with world.engine(collector) as engine:
        run = await engine.start(collector([], count, random.randint(1, 4)), id="r")

        async def pour() -> None:
            for number in range(count):
                await run.signal(item, number, id=f"m-{number}")
                if random.random() < 0.2:
                    await run.signal(item, number, id=f"m-{number}")
                for _ in range(random.randint(0, 30)):
                    await asyncio.sleep(0)

        pouring = asyncio.create_task(pour())
        assert await soon(run.result()) == list(range(count))
        await pouring
        events = await check_history(engine.store, "r", collector)
        assert sum(isinstance(event, ContinuedAsNew) for event in events) >= count // 5
        fresh = [event.id for event in events if isinstance(event, SignalReceived) and not event.carried]
        assert fresh == [f"m-{number}" for number in range(count)]


async def test_signals_pour_in_while_engines_come_and_go(world: World) -> None:
    random, count, found = Random(5), 40, None
    sent = 0
    while found is None:
        async with world.engine(collector, grace=0) as engine:
            run = await engine.start(collector([], count, 2), id="r")
            for _ in range(random.randint(2, 9)):
                if sent < count:
                    await run.signal(item, sent, id=f"m-{sent}")
                    sent += 1
            if sent == count:
                found = await soon(run.result())
            await settle(random.randint(0, 60))
    assert found == list(range(count))


@workflow
async def drainer(total: int) -> int:
    """Looks how many wait, takes those, and ends."""
    if not total:
        total = 100 + await item.receive()
        await durable.continue_as_new(drainer(total))
    while item.waiting():
        total += await item.receive()
    return total


@pytest.mark.parametrize("facts", [1, 3, 500])
@pytest.mark.parametrize("chunk", [1, 2, 10_000])
async def test_what_was_carried_on_waits_before_the_code_begins(
    facts: int, chunk: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However steps and commits are cut."""
    monkeypatch.setattr("engine.runtime.intake.STEP_FACTS_MAX", facts)
    monkeypatch.setattr("engine.runtime.writing.COMMIT_EVENTS_MAX", chunk)
    async with world.engine() as client:
        await client.pause_workflow(drainer)  # before the worker is there: a claim under way would look too early
    async with world.engine(drainer) as engine:
        run = await engine.start(drainer(0), id="r")
        for number in range(8):
            await run.signal(item, number, id=f"m-{number}")
        await engine.unpause_workflow(drainer)
        assert await soon(run.result()) == 100 + sum(range(8))
        await check_history(engine.store, "r", drainer)


@workflow
async def short(n: int) -> str:
    """Its last epoch ends in its first turn."""
    if n == 0:
        await item.receive()
        await durable.continue_as_new(short(1))
    return f"{item.waiting()} waited"


async def test_a_signal_that_comes_while_an_epoch_begins_and_ends_is_in_its_history(world: World) -> None:
    """The step that begins and ends the epoch is refused for the mail that it has not seen, and taken anew."""
    inner = await world.store()
    store = FaultyStore(inner)
    sent: list[str] = []

    async with Engine(store, workflows=[short], clock=world.clock) as engine:
        run = await engine.start(short(0), id="r")

        async def late(name: str, commit: Any) -> None:
            headers = [event.header for event in commit.events] if name == "commit" else []
            if any(b'"epoch":1' in header for header in headers) and not sent:
                sent.append("late")
                await run.signal(item, 2, id="late")

        store.before = late
        await run.signal(item, 1, id="first")
        assert await soon(run.result()) == "1 waited"
        assert sent == ["late"]
        store.before = None
        events = await check_history(engine.store, "r", short)
        fresh = [event.id for event in events if isinstance(event, SignalReceived) and not event.carried]
        assert fresh == ["first", "late"]
    await world.release(inner)


# -- attempts of the last epoch -----------------------------------------------------------------------------------------


@task
async def slow(n: int) -> str:
    """In the first epoch it does not let itself be stopped."""
    told.append(f"slow {n} began under {attempt().idempotency_key}")
    while True:
        try:
            await gate(f"slow {n}").wait()
            return f"of epoch {n}"
        except asyncio.CancelledError:
            if n:
                raise


@workflow
async def restarts(n: int) -> str:
    waiting = asyncio.create_task(slow(n), name="slow")
    if n == 0:
        await item.receive()
        await durable.continue_as_new(restarts(1))
    return await waiting


async def test_an_attempt_of_an_old_epoch_never_reaches_the_new_one(world: World) -> None:
    async with world.engine(restarts) as engine:
        run = await engine.start(restarts(0), id="r")
        await until(lambda: len(told) == 1)
        await run.signal(item, 1)
        await until(lambda: len(told) == 2)
        gate("slow 0").set()  # now it ends, and its task's id is that of the new epoch's task
        await settle(200)
        assert await run.status() == "running"
        gate("slow 1").set()
        assert await soon(run.result()) == "of epoch 1"
        keys = {line.rpartition(" ")[2] for line in told}
        assert len(keys) == 2, "an idempotency key is of one epoch"
        events = await check_history(engine.store, "r", restarts)
        assert sum(isinstance(event, TaskCompleted) for event in events) == 1
        assert len({event.id for event in events if isinstance(event, TaskStarted)}) == 1


@task(stop=stop_after_attempt(5), wait=wait_fixed(1_000))
async def failing_first(n: int) -> str:
    told.append(f"try {n}")
    await gate(f"try {n}").wait()
    if n == 0:
        raise ConnectionError("the first epoch's")
    return f"of epoch {n}"


@task
async def handing_out(n: int) -> str:
    told.append(f"try {n}")
    await gate(f"try {n}").wait()
    if n == 0:
        attempt().later()
    return f"of epoch {n}"


@workflow
async def renews(n: int, kind: str) -> str:
    call = failing_first(n) if kind == "fails" else handing_out(n)
    waiting = asyncio.create_task(call, name="waiting")
    if n == 0:
        await item.receive()
        await item.receive()
        await durable.continue_as_new(renews(1, kind))
    return await waiting


@pytest.mark.parametrize("kind", ["fails", "hands out"])
async def test_what_is_noted_of_an_old_attempt_says_nothing_of_the_new_task(kind: str, world: World) -> None:
    """A failed (or handed out) attempt and the signal that ends the epoch meet in one step."""
    inner = await world.store()
    store = FaultyStore(inner)
    hold, held = asyncio.Event(), asyncio.Event()

    async def slowly(name: str, commit: Any) -> None:
        if name == "commit" and any(message == "m-1" for message in commit.consumes):
            held.set()
            await hold.wait()

    async with Engine(store, workflows=[renews], clock=world.clock, grace=0) as engine:
        run = await engine.start(renews(0, kind), id="r")
        await until(lambda: told == ["try 0"])
        store.before = slowly
        await run.signal(item, 1, id="m-1")
        await soon(held.wait())
        await run.signal(item, 2, id="m-2")
        await settle(100)
        gate("try 0").set()
        await settle(100)
        hold.set()
        await reaches(run, 1)
        await until(lambda: len(told) == 2)
        store.before = None
        events = await events_of(run)
        begun = max(n for n, event in enumerate(events) if isinstance(event, RunStarted))
        assert not [event for event in events[begun:] if isinstance(event, AttemptFailed | TaskHandedOut)]
        task_state = next(iter((await run.state()).tasks.values()))
        assert task_state.status == "running"
    await world.release(inner)
    gate("try 1").set()
    async with world.engine(renews) as engine:  # what was noted would now be believed
        assert await soon(engine.run("r").result()) == "of epoch 1"
        await check_history(engine.store, "r", renews)


# -- reading ----------------------------------------------------------------------------------------------------------


class CountingStore(FaultyStore):
    """Counts the events of runs that are read."""

    events = 0

    async def read(self, stream: str, *, after: int = 0, until: int | None = None, proof: bool = True) -> Any:
        async for event in super().read(stream, after=after, until=until, proof=proof):
            self.events += 1
            yield event


@workflow
async def long_lived(n: int) -> int:
    for index in range(20):
        await tell(f"{n}.{index}")
    if n == 9:
        await halt.receive()
        return n
    await durable.continue_as_new(long_lived(n + 1))


async def test_a_rebuild_reads_the_last_epoch_only(world: World) -> None:
    async with world.engine(long_lived) as engine:
        run = await engine.start(long_lived(0), id="r")
        await reaches(run, 9)
        await rests(engine, "r")
        total = (await run.state()).version
    inner = await world.store()
    store = CountingStore(inner)
    async with Engine(store, workflows=[long_lived], clock=world.clock) as engine:
        run = engine.run("r")
        await run.signal(halt, None)
        await becomes(run, "completed")
        read = store.events  # before we ask for the result: who was not there when it came looks it up in the history
        assert await soon(run.result()) == 9
        assert len(told) == 200
        assert total > 600
        assert read < total / 5, f"{read} events were read of {total}"
    await world.release(inner)


async def test_the_state_at_any_version_is_of_its_epoch(world: World) -> None:
    async with world.engine(long_lived) as engine:
        run = await engine.start(long_lived(7), id="r")
        await reaches(run, 2)
        await rests(engine, "r")
        starts = [n for n, event in enumerate(await events_of(run), 1) if isinstance(event, RunStarted)]
        for epoch, start in enumerate(starts):
            state = await run.state(at=start)
            assert (state.epoch, state.tasks) == (epoch, {})
        assert len((await run.state()).tasks) == 20


# -- what it takes along --------------------------------------------------------------------------------------------------


@workflow
async def serves(n: int) -> int:
    async def answer(value: int) -> int:
        told.append(f"{n} asked {value}")
        await gate(f"epoch {n}").wait() if n == 99 else await pause()
        return value * 2

    async with ask.serve(answer):
        await item.receive()
        if n == 0:
            await durable.continue_as_new(serves(1))
        await item.receive()
    return n


@task
async def pause() -> None:
    await gate("answers").wait()


async def test_requests_that_were_accepted_are_answered_by_the_next_epoch(world: World) -> None:
    async with world.engine(serves) as engine:
        run = await engine.start(serves(0), id="r")
        pending = [await soon(run.request(ask, n, id=f"q-{n}")) for n in (1, 2)]
        await run.signal(item, 0)
        await reaches(run, 1)
        gate("answers").set()
        assert [await soon(each.answer()) for each in pending] == [2, 4]
        assert await soon(run.ask(ask, 1, id="q-1")) == 2, "the same request"
        for _ in range(2):
            await run.signal(item, 0)
        assert await soon(run.result()) == 1
        kinds = await kinds_of(run)
        assert kinds.count("RequestAnswered") == 2
        assert kinds.count("RequestReceived") == 4, "accepted twice, carried on twice"
        await check_history(engine.store, "r", serves)


@workflow
async def limited(n: int) -> str:
    if n < 3:
        await asyncio.sleep(40)
        await durable.continue_as_new(limited(n + 1))
    return "in time"


async def test_the_deadline_of_a_run_is_one_for_all_its_epochs(world: World) -> None:
    async with world.engine(limited) as engine:
        run = await engine.start(limited(0), id="r", deadline=100)
        for epoch in (1, 2):
            await rests(engine, "r")
            world.clock.advance(40)
            await reaches(run, epoch)
        await rests(engine, "r")
        world.clock.advance(21)
        with pytest.raises(RunFailedError, match="RunDeadlineExceeded"):
            await soon(run.result())
        await check_history(engine.store, "r", limited)


@workflow
async def shielded_epochs(n: int) -> int:
    async with durable.shielded():
        await item.receive()
        if n == 0:
            await durable.continue_as_new(shielded_epochs(1))
    await asyncio.sleep(1e6)
    return n


async def test_a_cancellation_that_was_held_back_reaches_the_next_epoch(world: World) -> None:
    async with world.engine(shielded_epochs) as engine:
        run = await engine.start(shielded_epochs(0), id="r")
        await run.cancel(reason="enough", by="ann")
        await until_async(lambda: _has(run, "CancelRequested"))
        await run.signal(item, 1)
        await reaches(run, 1)
        await run.signal(item, 1)
        with pytest.raises(RunCancelledError, match="enough"):
            await soon(run.result())
        await check_history(engine.store, "r", shielded_epochs)


async def _has(run: RunHandle[Any], kind: str) -> bool:
    return kind in await kinds_of(run)


# -- where it may be said ---------------------------------------------------------------------------------------------------


@workflow
async def from_anywhere(place: str, n: int = 0) -> str:
    if n == 1:
        return f"from {place}"
    again = from_anywhere(place, 1)
    match place:
        case "a group":
            async with asyncio.TaskGroup() as group:
                group.create_task(tell("beside"))
                await durable.continue_as_new(again)
        case "wait_for":
            await asyncio.wait_for(durable.continue_as_new(again), 60)
        case "a timeout":
            async with asyncio.timeout(60):
                await durable.continue_as_new(again)
        case "serve":
            async with ask.serve(lambda value: value):
                await durable.continue_as_new(again)
        case "finally":
            try:
                await tell("first")
            finally:
                await durable.continue_as_new(again)
        case "a cleaned up block":
            try:
                await durable.continue_as_new(again)
            finally:
                await tell("cleaned up")
                await asyncio.sleep(5)
    raise AssertionError(place)


PLACES = ["a group", "wait_for", "a timeout", "serve", "finally", "a cleaned up block"]


@pytest.mark.parametrize("place", PLACES)
async def test_it_may_be_said_anywhere(place: str, world: World) -> None:
    async with world.engine(from_anywhere) as engine:
        run = await engine.start(from_anywhere(place), id="r")
        if place == "a cleaned up block":
            await rests(engine, "r")
            world.clock.advance(6)
        assert await soon(run.result()) == f"from {place}"
        assert (await run.state()).epoch == 1
        await check_history(engine.store, "r", from_anywhere)


@workflow
async def from_a_branch(place: str, n: int = 0) -> list[str]:
    """Where it cannot be said: the run goes on as it was."""
    said: list[str] = []

    async def leave(_: int = 0) -> int:
        try:
            await durable.continue_as_new(from_a_branch(place, n + 1))
        except HoldfastError as error:
            said.append(str(error))
            raise

    match place:
        case "a group":
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(leave())
            except* HoldfastError:
                said.append("raised to the main branch")
        case "gather":
            said += [type(found).__name__ for found in await asyncio.gather(leave(), return_exceptions=True)]
        case "alone":
            branch = asyncio.create_task(leave())
            await asyncio.sleep(10)
            branch.exception()
        case "a handler":
            async with ask.serve(leave):
                await halt.receive()
    await tell("went on")
    return [*said, str(n)]


@pytest.mark.parametrize("place", ["a group", "gather", "alone", "a handler"])
async def test_in_another_branch_than_the_main_one_it_is_an_error(place: str, world: World) -> None:
    async with world.engine(from_a_branch) as engine:
        run = await engine.start(from_a_branch(place), id="r")
        if place == "a handler":
            with pytest.raises(RequestFailedError, match="called in branch"):
                await soon(run.ask(ask, 1))
            await run.signal(halt, None)
        elif place == "alone":
            await rests(engine, "r")
            world.clock.advance(11)
        said = await soon(run.result())
        assert "main branch can leave" in said[0]
        assert said[-1] == "0"
        assert await epoch_of(run) == 0
        assert told == ["went on"]
        await check_history(engine.store, "r", from_a_branch)


@workflow
async def mistyped(n: int) -> int:
    if n == 0:
        await durable.continue_as_new(mistyped("one"))  # type: ignore[arg-type]
    return n


async def test_arguments_that_do_not_fit_fail_the_run_and_say_so(world: World) -> None:
    async with world.engine(mistyped) as engine:
        run = await engine.start(mistyped(0), id="r")
        with pytest.raises(RunFailedError, match="ArgumentsError.*got `str`"):
            await soon(run.result())
        assert await epoch_of(run) == 0
        await check_history(engine.store, "r", mistyped)
