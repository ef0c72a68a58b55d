"""Reopening: a run that has ended goes on behind its end, with everything that was completed, and nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, Signal, attempt, durable, task, workflow
from engine.core.events import (
    LimitSet,
    RunBegun,
    RunCompleted,
    RunFailed,
    RunReopened,
    TaskCancelled,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TimerFired,
    decode_header,
)
from engine.errors import (
    EngineFailed,
    RepairRefused,
    RunCancelledError,
    RunEnded,
    RunFailedError,
    RunNotFound,
    RunTerminatedError,
    SingletonHeld,
    UnknownWorkflow,
)
from engine.runtime.keys import pool_of
from engine.runtime.streams import new_event
from eventstore import Commit, StoreUnavailable
from eventstore.port import pool_stream
from tests.runtime.faulty import FaultyStore, at_call
from tests.runtime.invariants import check_history
from tests.runtime.worlds import (
    START,
    World,
    at_rest,
    events_of,
    kinds_of,
    settle,
    soon,
    unowned,
    until,
    until_async,
)

HOUR = 3_600.0
word = Signal("word", str)


class Outside:
    """What tasks depend on."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.down = True
        self.effects: Counter[str] = Counter()  # by task and key
        self.numbers: list[int] = []  # attempts of `fragile`
        self.tokens: list[str] = []  # of `signature`
        self.gate = asyncio.Event()
        self.code_is_mended = False


outside = Outside()


@pytest.fixture(autouse=True)
def _outside() -> None:
    outside.clear()


def effect(name: str) -> None:
    outside.effects[f"{name} {attempt().idempotency_key}"] += 1


@task
async def solid(n: int) -> int:
    effect(f"solid {n}")
    return n


@task
async def fragile() -> int:
    effect("fragile")
    outside.numbers.append(attempt().number)
    if outside.down:
        raise ConnectionError("the warehouse is down")
    return 10


@task
async def slow() -> int:
    effect("slow")
    if outside.down:
        await outside.gate.wait()
    return 100


@workflow
async def load() -> int:
    return await solid(1) + await fragile() + await solid(2)


@workflow
async def load_beside() -> int:
    """When one fails, what runs beside it is called off, and so is a timer."""
    async with asyncio.timeout(HOUR):
        return sum(await asyncio.gather(solid(1), fragile(), slow()))


@task
async def signature() -> int:
    effect("signature")
    outside.tokens.append(attempt().token)
    attempt().later()


@workflow
async def sign() -> int:
    return await signature()


async def fails(engine: Engine, call: Any, run_id: str = "r") -> Any:
    run = await engine.start(call, id=run_id)
    with pytest.raises(RunFailedError):
        await soon(run.result())
    return run


async def test_a_failed_task_is_tried_anew_and_what_was_done_stays(world: World) -> None:
    async with world.engine(load) as engine:
        run = await fails(engine, load())
        outside.down = False
        again = await engine.reopen("r", by="ann", reason="the warehouse is back")
        assert await soon(again.result()) == 13
        assert await soon(run.result()) == 13, "who held a handle is not told of the old end"
        events = await events_of(run)
        (note,) = [event for event in events if isinstance(event, RunReopened)]
        assert (note.by, note.reason, note.takes_back) == ("ann", "the warehouse is back", "turn")
        assert [isinstance(event, TaskFailed) for event in events].count(True) == 1
        assert outside.numbers == [1, 2], "its attempts are counted on"
        assert sorted(outside.effects.values()) == [1, 1, 2], "the same key, and nothing else twice"
        state = await run.state()
        assert (state.status, state.reopened, state.result) == ("completed", 1, b"13")
        assert state.tasks["load/fragile#1"].attempts == 2
    await check_history(await world.store(), "r", load)


async def test_what_the_failure_called_off_goes_on(world: World) -> None:
    async with world.engine(load_beside) as engine:
        run = await fails(engine, load_beside())
        assert "TimerCancelled" in await kinds_of(run)
        cut_off = [event for event in await events_of(run) if isinstance(event, TaskCancelled)]
        assert [event.id.rpartition("/")[2] for event in cut_off] == ["slow#1"]
        outside.down = False
        await engine.reopen("r")
        assert await soon(run.result()) == 111
    await check_history(await world.store(), "r", load_beside)


async def test_it_may_fail_again_and_be_reopened_again(world: World) -> None:
    async with world.engine(load) as engine:
        run = await fails(engine, load())
        for times in (1, 2):
            await engine.reopen("r", by=f"time {times}")
            with pytest.raises(RunFailedError):
                await soon(run.result())
            assert (await run.state()).reopened == times
        outside.down = False
        await engine.reopen("r")
        assert await soon(run.result()) == 13
        assert outside.numbers == [1, 2, 3, 4]
    await check_history(await world.store(), "r", load)


async def test_time_in_which_it_had_ended_does_not_count(world: World) -> None:
    """A week later, the hour that the run gives itself has not passed."""
    async with world.engine(load_beside) as engine:
        run = await fails(engine, load_beside())
        world.clock.advance(7 * 24 * HOUR)
        outside.down = False
        await engine.reopen("r")
        assert await soon(run.result()) == 111
        assert not [event for event in await events_of(run) if isinstance(event, TimerFired)]


async def test_it_goes_on_at_once_though_the_clock_was_set_back(world: World) -> None:
    """Its note is dated behind its end, and nobody waits until that time has come again."""
    async with world.engine(load) as engine:
        run = await fails(engine, load())
        outside.down = False
        world.clock.step(-HOUR)
        await engine.reopen("r")
        assert await soon(run.result()) == 13
    await check_history(await world.store(), "r", load)


@task(stop=stop_after_attempt(3), wait=wait_fixed(5), deadline=60)
async def patient() -> int:
    outside.numbers.append(attempt().number)
    if outside.down or len(outside.numbers) < 5:
        raise ConnectionError("down")
    return attempt().number


@workflow
async def patiently() -> int:
    return await patient()


async def test_its_policy_is_asked_as_if_it_had_not_begun(worlds) -> None:
    world = worlds()
    async with world.engine(patiently) as engine:
        run = await engine.start(patiently(), id="r")
        for begun in (2, 3):
            await until(lambda: outside.numbers and len(outside.numbers) == begun - 1)
            await until_async(lambda: waits_for_retry(run))
            world.clock.advance(5)
        with pytest.raises(RunFailedError):
            await soon(run.result())
        world.clock.advance(HOUR)  # its deadline over all attempts has passed long since
        outside.down = False
        await engine.reopen("r")
        await until(lambda: len(outside.numbers) == 4)
        await until_async(lambda: waits_for_retry(run))
        world.clock.advance(5)
        assert await soon(run.result()) == 5
        assert outside.numbers == [1, 2, 3, 4, 5]


async def waits_for_retry(run: Any) -> bool:
    return any(each.status == "retrying" for each in (await run.state()).tasks.values())


@workflow
async def told() -> str:
    try:
        return await word.receive()
    finally:
        await asyncio.sleep(0)


async def test_a_cancelled_run_goes_on_as_if_nobody_had_asked(world: World) -> None:
    async with world.engine(told) as engine:
        run = await engine.start(told(), id="r")
        await run.cancel(by="bob", reason="by mistake")
        with pytest.raises(RunCancelledError):
            await soon(run.result())
        await engine.reopen("r", by="ann", reason="it was the wrong one")
        assert not (await run.state()).cancel_requested
        await run.signal(word, "here")
        assert await soon(run.result()) == "here"
    await check_history(await world.store(), "r", told)


@workflow
async def tidy() -> None:
    try:
        await word.receive()
    finally:
        await solid(9)


async def test_what_was_handed_out_is_handed_out_anew(world: World) -> None:
    """Its answer came when the run had ended, or as it did: whoever has the token is told of it once more."""
    async with world.engine(sign) as engine:
        run = await engine.start(sign(), id="r")
        await until(lambda: len(outside.tokens) == 1)
        await run.cancel(reason="a mistake")
        with pytest.raises(RunCancelledError):
            await soon(run.result())
        with pytest.raises(RunEnded):
            await engine.complete(outside.tokens[0], 7)
        again = await engine.reopen("r", by="ann")
        await until(lambda: len(outside.tokens) == 2)
        assert outside.tokens[0] == outside.tokens[1]
        assert list(outside.effects.values()) == [2], "the same key"
        await engine.complete(outside.tokens[1], 8)
        assert await soon(again.result()) == 8
    await check_history(await world.store(), "r", sign)


async def test_a_run_that_has_cleaned_up_is_refused(world: World) -> None:
    async with world.engine(tidy) as engine:
        run = await engine.start(tidy(), id="r")
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await soon(run.result())
        before = await events_of(run)
        with pytest.raises(RepairRefused, match="its code ends it again: end as cancelled"):
            await engine.reopen("r")
        assert await events_of(run) == before
        assert await run.status() == "cancelled"


@pytest.mark.parametrize("paused", [False, True])
async def test_a_terminated_run_goes_on_from_where_it_was(world: World, paused: bool) -> None:
    async with world.engine(two_words) as engine:
        run = await engine.start(two_words(), id="r")
        await run.signal(word, "a")
        await until_async(lambda: has(run, "TaskCompleted"))
        if paused:
            await run.pause(by="bob")
            await until_async(lambda: is_(run, "paused"))
        await run.terminate(by="bob")
        with pytest.raises(RunTerminatedError):
            await soon(run.result())
        await engine.reopen("r", by="ann")
        assert await run.status() == (await run.state()).status == "running"
        await run.signal(word, "b")
        assert await soon(run.result()) == "ab"
        assert set(outside.effects.values()) == {1}
    await check_history(await world.store(), "r", two_words)


@workflow
async def two_words() -> str:
    first = await word.receive()
    await solid(1)
    return first + await word.receive()


async def has(run: Any, kind: str) -> bool:
    return kind in await kinds_of(run)


async def is_(run: Any, status: str) -> bool:
    return await run.status() == status


@workflow
async def wrong() -> int:
    n = await solid(1)
    if not outside.code_is_mended:
        raise ValueError(f"{n} is wrong")
    return n + await solid(2)


async def test_code_that_raised_is_told_again_once_it_is_mended(world: World) -> None:
    async with world.engine(wrong) as engine:
        run = await fails(engine, wrong())
        with pytest.raises(RepairRefused, match="ends it again: raise ValueError: 1 is wrong. Change the code first"):
            await engine.reopen("r")
        assert await run.status() == "failed"
    outside.code_is_mended = True  # what a deployment does
    async with world.engine(wrong) as engine:
        await engine.reopen("r", by="ann")
        assert await soon(engine.run("r").result()) == 3
        (note,) = [event for event in await events_of(engine.run("r")) if isinstance(event, RunReopened)]
        assert note.takes_back == "decisions"
        assert set(outside.effects.values()) == {1}
        # What it decided the first time is no part of what counts.
        kinds = await kinds_of(engine.run("r"))
        assert kinds.count("RunFailed") == 1
        assert kinds.count("RunCompleted") == 1
    await check_history(await world.store(), "r", wrong)


@workflow
async def wrong_at_once() -> int:
    if not outside.code_is_mended:
        raise ValueError("at once")
    await asyncio.sleep(60)
    return 1


async def test_a_run_that_failed_before_it_did_anything(world: World) -> None:
    async with world.engine(wrong_at_once) as engine:
        run = await fails(engine, wrong_at_once())
        outside.code_is_mended = True
        world.clock.advance(HOUR)
        await engine.reopen("r")
        await until_async(lambda: has(run, "TimerStarted"))
        assert await run.status() == "running", "its minute begins now"
        world.clock.advance(60)
        assert await soon(run.result()) == 1
    await check_history(await world.store(), "r", wrong_at_once)


@task(effect="at_most_once")
async def pay() -> None:
    effect("pay")
    raise ConnectionError("no answer")


@workflow
async def paying() -> None:
    await pay()


async def test_a_task_that_is_tried_at_most_once_is_not_tried_anew(world: World) -> None:
    async with world.engine(paying) as engine:
        await fails(engine, paying())
        with pytest.raises(RepairRefused, match="effect='at_most_once' says that it is never tried again"):
            await engine.reopen("r")
        assert list(outside.effects.values()) == [1]


@workflow
async def child() -> int:
    return await fragile()


@workflow
async def parent() -> int:
    return 1 + await child()


async def test_a_child_is_reopened_first_and_then_its_parent(world: World) -> None:
    async with world.engine(parent, child) as engine:
        run = await fails(engine, parent())
        with pytest.raises(RepairRefused, match=r"Its child of call 'parent/child#1' had not completed: reopen that"):
            await engine.reopen("r")
        outside.down = False
        reopened = await engine.reopen("r/child#1")
        assert await soon(reopened.result()) == 10
        await settle()
        assert await run.status() == "failed", "a parent that has heard of the end is not told again"
        await engine.reopen("r")
        assert await soon(run.result()) == 11
    store = await world.store()
    await check_history(store, "r", parent)
    await check_history(store, "r/child#1", child)


@workflow
async def parent_beside() -> int:
    return sum(await asyncio.gather(told_child(), fragile()))


@workflow
async def told_child() -> int:
    try:
        return len(await word.receive())
    except asyncio.CancelledError:
        await slow()
        raise


async def test_a_child_that_still_runs_stands_in_the_way(world: World) -> None:
    async with world.engine(parent_beside, told_child) as engine:
        run = await fails(engine, parent_beside())
        with pytest.raises(RepairRefused, match="has not ended, and run 'r' would not hear of its end"):
            await engine.reopen("r")
        outside.gate.set()
        (started,) = [event for event in await events_of(run) if type(event).__name__ == "ChildStarted"]
        with pytest.raises(RunCancelledError):
            await soon(engine.run(started.run).result())
        outside.down = False
        await engine.reopen("r")  # and now it hears that its child was cancelled
        with pytest.raises(RunFailedError, match="was cancelled"):
            await soon(run.result())
    await check_history(await world.store(), "r", parent_beside)


@workflow
async def messenger() -> None:
    async def say() -> None:
        await durable.run("other").signal(word, "x")

    try:
        await fragile()
    finally:
        asyncio.create_task(say())  # noqa: RUF006
        await asyncio.sleep(0)


async def test_what_was_said_to_others_cannot_be_taken_back(world: World) -> None:
    async with world.engine(messenger) as engine:
        run = await fails(engine, messenger())
        if "MessageSent" in await kinds_of(run):
            with pytest.raises(RepairRefused, match="it has said something to others"):
                await engine.reopen("r")
        else:
            pytest.fail("the play sends nothing")


async def test_what_has_not_ended_or_completed_is_refused(world: World) -> None:
    outside.down = False
    async with world.engine(load, told) as engine:
        run = await engine.start(load(), id="r")
        await soon(run.result())
        with pytest.raises(RepairRefused, match="run 'r' has completed: there is nothing to go on with"):
            await engine.reopen("r")
        await engine.start(told(), id="open")
        with pytest.raises(RepairRefused, match="run 'open' has not ended: it is running"):
            await engine.reopen("open")
        with pytest.raises(RunNotFound):
            await engine.reopen("nobody")
    async with world.engine() as client:
        with pytest.raises(RepairRefused, match="has completed"):
            await client.reopen("r")


async def test_an_engine_without_its_code_cannot_try_it(world: World) -> None:
    async with world.engine(load) as engine:
        await fails(engine, load())
    async with world.engine(told) as engine:
        with pytest.raises(UnknownWorkflow, match="load"):
            await engine.reopen("r")


async def test_code_that_no_longer_fits_is_refused_with_the_diagnosis(world: World) -> None:
    async with world.engine(load) as engine:
        await fails(engine, load())

    @workflow(name="load")
    async def other() -> int:
        return await slow()

    async with world.engine(other) as engine:
        with pytest.raises(RepairRefused, match="which does not fit its history") as refused:
            await engine.reopen("r")
        assert "solid(1)" in str(refused.value)
        assert await engine.run("r").status() == "failed"


async def test_two_who_reopen_at_once_reopen_it_once(world: World) -> None:
    async with world.engine(load) as engine:
        run = await fails(engine, load())
        outside.down = False
        answers = await asyncio.gather(*(engine.reopen("r") for _ in range(4)), return_exceptions=True)
        assert sum(not isinstance(answer, BaseException) for answer in answers) == 1
        assert all(isinstance(answer, RepairRefused) or not isinstance(answer, BaseException) for answer in answers)
        assert await soon(run.result()) == 13
        assert (await kinds_of(run)).count("RunReopened") == 1


async def test_a_cancel_that_came_too_late_does_not_cancel_it_now(worlds) -> None:
    """A word to a run that had ended, and that nobody has taken out of its box, comes to nothing."""
    world = worlds()
    async with world.engine(load) as engine:
        await fails(engine, load())
    from engine.runtime.mail import CancelMail, control_message

    await world.data.send(control_message("run:r", "late", CancelMail(by="bob")))
    outside.down = False
    async with world.engine(load, only=("another",)) as engine:
        await engine.reopen("r")
    async with world.engine(load) as engine:
        assert await soon(engine.run("r").result()) == 13


async def test_another_process_reopens_it(sqlite) -> None:
    async with sqlite.engine(load) as service:
        run = await fails(service, load())
        outside.down = False
        async with sqlite.engine(load, only=("another",)) as other:
            await other.reopen("r", by="ann")
        await until_async(lambda: is_(run, "completed"))
        assert await soon(run.result()) == 13


@workflow
async def rounds(n: int) -> int:
    if n < 3:
        await solid(n)
        await durable.continue_as_new(rounds(n + 1))
    return n + await fragile()


async def test_a_run_that_has_continued_as_new(world: World) -> None:
    async with world.engine(rounds) as engine:
        run = await fails(engine, rounds(0))
        outside.down = False
        await engine.reopen("r")
        assert await soon(run.result()) == 13
    await check_history(await world.store(), "r", rounds)


@pytest.mark.parametrize("fault", ["die before", "die after", "lose reply"])
@pytest.mark.parametrize("played", [load, load_beside], ids=lambda each: each.name)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_crash_at_every_commit_of_a_reopened_run(worlds, fault: Any, played: Any, kind: str) -> None:
    """Whoever comes behind the crash asks for the same again: one reopening, the same end, nothing done twice."""
    for number in range(1, 60):
        outside.clear()
        world = worlds(kind)
        async with world.engine(played) as engine:
            await fails(engine, played())
        done_before = Counter(outside.effects)
        outside.down = False
        handle = await world.store()
        store = FaultyStore(handle, at_call(number, fault, only="commit"))
        try:
            async with Engine(store, workflows=[played], clock=world.clock, grace=0) as engine:
                await soon(ask_until_it_ends(engine))
        except (StoreUnavailable, EngineFailed):
            assert store.faults
        if not store.dead:
            store.die()
        await world.release(handle)
        async with world.engine(played) as engine:
            result = await soon(ask_until_it_ends(engine))
            assert result in (13, 111)
            kinds = await kinds_of(engine.run("r"))
        assert kinds.count("RunReopened") == 1
        store_ = await world.store()
        events = await check_history(store_, "r", played)
        begun = Counter(event.id for event in events if isinstance(event, TaskStarted))
        for key, count in outside.effects.items():
            if key.startswith("solid 1"):
                assert count == done_before[key] == 1, "what was completed is not done again"
        assert max(begun.values()) <= 4
        if not store.faults:
            return
    pytest.fail("it makes more than 60 commits")


async def ask_until_it_ends(engine: Engine) -> Any:
    if await engine.run("r").status() == "failed":
        await engine.reopen("r", by="ann")
    return await engine.run("r").result()


def test_the_sample_of_a_taken_back_turn() -> None:
    """What counts of a history is told without code."""
    from engine.core.standing import standing
    from tests.runtime.invariants import counting

    events = [
        decode_header(header)
        for header in (
            b'{"type":"RunStarted","at":1,"workflow":"w","seed":"00"}',
            b'{"type":"TaskScheduled","at":1,"id":"w/a#1","task":"a"}',
            b'{"type":"TaskFailed","at":2,"id":"w/a#1","error":"E"}',
            b'{"type":"RunFailed","at":2,"error":"E"}',
            b'{"type":"RunReopened","at":3}',
            b'{"type":"TaskCompleted","at":4,"id":"w/a#1","attempt":2}',
            b'{"type":"RunCompleted","at":4}',
        )
    ]
    assert [type(event).__name__ for event in counting(events)] == [
        "RunStarted",
        "TaskScheduled",
        "RunReopened",
        "TaskCompleted",
        "RunCompleted",
    ]
    assert standing([]) == []
    assert {TaskScheduled, RunFailed, RunCompleted} <= {type(event) for event in events}


async def test_a_run_at_rest_is_left_to_whoever_comes(world: World) -> None:
    """Reopened by an engine that closes at once: the next one goes on with it."""
    async with world.engine(load) as engine:
        await fails(engine, load())
    async with world.engine(load, only=("another",)) as engine:
        await engine.reopen("r")
        await unowned(engine.store, "r")
    outside.down = False
    async with world.engine(load) as engine:
        assert await soon(engine.run("r").result()) == 13


@workflow
async def lives_within(n: int) -> int:
    if n < 1:
        await solid(n)
        await fragile()
        await durable.continue_as_new(lives_within(n + 1))
    await asyncio.sleep(20)
    return n


async def test_a_runs_deadline_stands_still_too(world: World) -> None:
    """Also for the epochs to come, and its children: an hour later it has as long as it had left."""
    async with world.engine(lives_within) as engine:
        run = await engine.start(lives_within(0), id="r", deadline=60)
        with pytest.raises(RunFailedError):
            await soon(run.result())
        deadline = (await run.state()).deadline
        world.clock.advance(HOUR)
        outside.down = False
        await engine.reopen("r")
        assert (await run.state()).deadline >= deadline + round(HOUR * 1e6)
        await until_async(lambda: sleeps(run))
        assert (await run.state()).epoch == 1
        assert (await run.state()).deadline >= deadline + round(HOUR * 1e6)
        world.clock.advance(20)
        assert await soon(run.result()) == 1
    await check_history(await world.store(), "r", lives_within)


async def sleeps(run: Any) -> bool:
    state = await run.state()
    return state.epoch == 1 and len(state.timers) == 2


@task
async def stubborn() -> int:
    """Takes its time when it is asked to end."""
    effect("stubborn")
    try:
        await asyncio.Event().wait() if outside.down else None
    except asyncio.CancelledError:
        await outside.gate.wait()
        raise
    return 5


@workflow
async def with_a_stubborn_task() -> int:
    return sum(await asyncio.gather(stubborn(), fragile()))


async def test_while_an_attempt_is_still_being_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever ended the run still has it; it is reopened once that is through."""
    async with world.engine(with_a_stubborn_task) as engine:
        run = await fails(engine, with_a_stubborn_task())
        assert (await engine.store.head("run:r")).owner is not None
        outside.down = False
        with monkeypatch.context() as patched:
            patched.setattr("engine.runtime.reopening.LOOKS_MAX", 2)
            with pytest.raises(RepairRefused, match="attempts of it are still under way"):
                await engine.reopen("r")
        reopening = asyncio.create_task(engine.reopen("r"))
        await settle()
        outside.gate.set()
        await soon(reopening)
        assert await soon(run.result()) == 15
    await check_history(await world.store(), "r", with_a_stubborn_task)


async def begun_at(run: Any) -> list[int]:
    return [event.at for event in await events_of(run) if isinstance(event, RunBegun)]


async def test_one_that_had_not_begun_waits_for_its_time_again(world: World) -> None:
    async with world.engine(load) as engine:
        outside.down = False
        run = await engine.start(load(), id="r", delay=60)
        await run.terminate()
        with pytest.raises(RunTerminatedError):
            await soon(run.result())
        world.clock.advance(10)
        await engine.reopen("r")
        await settle(200)
        await at_rest(engine.store, "r")
        assert await run.status() == (await run.state()).status == "queued"
        await check_history(await world.store(), "r", load)
        begins_at = (await run.state()).begins_at
        assert (await engine.store.head("run:r")).alarm == begins_at, "nobody looks at it before"
        world.clock.advance(50)
        assert await soon(run.result()) == 13
        assert await begun_at(run) == [begins_at]
    await check_history(await world.store(), "r", load)


async def test_one_that_had_not_begun_is_reopened_twice(world: World) -> None:
    """It has no time of its own yet: how long it stood still is counted from when it was last let go on."""
    async with world.engine(load) as engine:
        outside.down = False
        run = await engine.start(load(), id="r", delay=60, deadline=100)
        for _ in range(2):
            await run.terminate()
            with pytest.raises(RunTerminatedError):
                await soon(run.result())
            world.clock.advance(10)
            await engine.reopen("r")
        state = await run.state()
        assert (state.status, state.reopened) == ("queued", 2)
        started_at = state.started_at
        assert state.deadline == started_at + 120_000_000, "twice ten seconds do not count"
        await check_history(await world.store(), "r", load)
    async with world.engine(load) as engine:  # and whoever brings it back finds the same
        run = engine.run("r")
        world.clock.advance(40)
        assert await soon(run.result()) == 13
        assert await begun_at(run) == [started_at + 60_000_000]
    await check_history(await world.store(), "r", load)


async def test_why_it_was_suspended_is_said_no_more(world: World) -> None:
    @workflow(name="two_words")
    async def changed() -> str:
        return str(await solid(1))

    async with world.engine(two_words) as engine:
        run = await engine.start(two_words(), id="r")
        await run.signal(word, "a")
        await until_async(lambda: has(run, "TaskCompleted"))
    async with world.engine(changed) as engine:
        run = engine.run("r")
        await run.signal(word, "b")
        await until_async(lambda: is_(run, "suspended"))
        await run.terminate()
        with pytest.raises(RunTerminatedError):
            await soon(run.result())
    async with world.engine(two_words) as engine:
        run = await engine.reopen("r")
        assert (await engine.runs()).items[0].suspended_for == ""
        assert await run.status() == "running"
        await run.signal(word, "c")
        assert await soon(run.result()) == "ac"
    await check_history(await world.store(), "r", two_words)


async def test_one_that_was_bound_to_other_code_goes_on_with_the_code_that_it_was_tried_with(world: World) -> None:
    """It was let go on once by code that nobody has any more; whoever reopens it does not wait for that."""
    async with world.engine(load) as engine:
        run = await fails(engine, load())
        await at_rest(engine.store, "r")
        bound = {"code": "0" * 16, "bound": True}
        version = (await engine.store.head("run:r")).version
        await engine.store.commit(Commit(id="bound", stream="run:r", expected_version=version, attributes=bound))
        outside.down = False
        await engine.reopen("r")
        assert await soon(run.result()) == 13
    await check_history(await world.store(), "r", load)


async def test_a_key_that_nobody_ever_had_in_this_store_is_made(world: World) -> None:
    """As of a run whose history came here from elsewhere."""
    async with world.engine(load) as engine:
        run = await fails(engine, load())
        await at_rest(engine.store, "r")
        version = (await engine.store.head("run:r")).version
        keyed = {"singleton": "k"}
        await engine.store.commit(Commit(id="keyed", stream="run:r", expected_version=version, attributes=keyed))
        await engine.reopen("r")
        with pytest.raises(SingletonHeld, match="run 'r' of workflow 'load' has the singleton key 'k'"):
            await engine.start(load(), singleton="k")
        with pytest.raises(RunFailedError):
            await soon(run.result())


async def test_a_key_that_is_shut(world: World) -> None:
    outside.down = False
    async with world.engine(load) as engine:
        run = await engine.start(load(), id="r", singleton="k", delay=60)
        await run.terminate()
        with pytest.raises(RunTerminatedError):
            await soon(run.result())
        stream = pool_stream(pool_of("load", "k"))
        event = new_event(LimitSet(at=START, name=pool_of("load", "k"), limit=0))
        version = (await engine.store.head(stream)).version
        shut = Commit(id="shut", stream=stream, expected_version=version, events=(event,), attributes={"limit": 0})
        await engine.store.commit(shut)
        with pytest.raises(RepairRefused, match="its singleton key 'k' is shut, for its pool was set to no slot"):
            await engine.reopen("r")


async def test_a_patch_is_what_mends_it(world: World) -> None:
    """The mend asks before the place where the run ended, at which the code had asked for a patch in that very turn."""

    @workflow(name="patching")
    async def wrong_at_a_patch() -> str:
        await solid(1)
        if durable.patched("p"):
            raise ValueError("the new way is wrong")
        return "old"

    @workflow(name="patching")
    async def mended() -> str:
        await solid(1)
        if durable.patched("q"):
            return f"mended {await solid(2)}"
        if durable.patched("p"):
            raise ValueError("the new way is wrong")
        return "old"

    async with world.engine(wrong_at_a_patch) as engine:
        run = await fails(engine, wrong_at_a_patch())
        assert list((await run.state()).patches) == ["p"]
    async with world.engine(mended) as engine:
        run = await engine.reopen("r")
        assert await soon(run.result()) == "mended 2"
        assert list((await run.state()).patches) == ["q"]
    await check_history(await world.store(), "r", mended)
