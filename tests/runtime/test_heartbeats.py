"""Attempts that say that they live: what is recorded, what the next attempt finds, what happens to one that is silent."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tenacity import retry_if_exception_type, stop_after_attempt, wait_fixed

from engine import Engine, ErrorInfo, RunHandle, attempt, task, workflow
from engine.core.events import AttemptHeartbeat
from engine.errors import (
    DefinitionError,
    EngineFailed,
    HeartbeatTimeout,
    HoldfastError,
    NotRecordable,
    PayloadTooLarge,
    RunFailedError,
)
from engine.runtime.heartbeats import HEARTBEAT_SECONDS
from engine.tasks import Attempt, Contact, GivenNames
from tests.runtime.faulty import FaultyStore
from tests.runtime.invariants import check_history
from tests.runtime.worlds import MemoryWorld, World, kinds_of, settle, soon, until, until_async


async def beats_of(run: RunHandle[Any]) -> list[tuple[int, bytes | None]]:
    """Attempt and details of every heartbeat on record."""
    return [
        (item.event.attempt, item.payload) async for item in run.events() if isinstance(item.event, AttemptHeartbeat)
    ]


async def beaten(run: RunHandle[Any], number: int) -> None:
    async def recorded() -> bool:
        return len(await beats_of(run)) >= number

    await until_async(recorded)


def bare(**contact: Any) -> Attempt:
    return Attempt(
        run_id="r", task_id="r/t#1", task="t", number=1, scheduled_at=0, _names=GivenNames("0" * 32, ""),
        _contact=Contact(**contact),
    )  # fmt: skip


# -- what is recorded -------------------------------------------------------------------------------------------------


async def test_a_hundred_thousand_beats_are_a_few_events(world: World) -> None:
    @task
    def in_thread() -> int:
        for n in range(100_000):
            attempt().heartbeat(n)
        raise ConnectionError

    @task
    async def on_loop() -> int:
        for n in range(100_000):
            attempt().heartbeat({"row": n})
            if n % 10_000 == 0:
                await asyncio.sleep(0)
        raise ConnectionError

    @workflow
    async def beating() -> None:
        await asyncio.gather(in_thread(), on_loop(), return_exceptions=True)

    async with world.engine(beating) as engine:
        run = await engine.start(beating(), id="r")
        await soon(run.result())
        beats = [details for _, details in await beats_of(run)]
        # The clock stands: the first of each at once, the last of each when it fails; nothing between.
        assert len(beats) == 4
        assert {b"99999", b'{"row":99999}'} <= set(beats)
        await check_history(engine.store, "r", beating)


async def test_one_an_interval_and_always_the_last(world: World) -> None:
    go = asyncio.Event()

    @task
    async def beat() -> None:
        for word in ("one", "two", "three"):
            attempt().heartbeat(word)
        await go.wait()

    @workflow
    async def beating() -> None:
        await beat()

    async with world.engine(beating) as engine:
        run = await engine.start(beating(), id="r")
        await beaten(run, 1)
        assert await beats_of(run) == [(1, b'"three"')]  # said before the loop could look
        world.clock.advance(HEARTBEAT_SECONDS)
        await settle()
        assert len(await beats_of(run)) == 1  # nothing new was said
        go.set()
        await soon(run.result())
        assert len(await beats_of(run)) == 1


async def test_what_was_said_within_an_interval_is_written_when_it_is_over(world: World) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()

    @task
    async def beat() -> None:
        while (word := await said.get()) != "end":
            attempt().heartbeat(word)
            said.task_done()

    @workflow
    async def beating() -> None:
        await beat()

    async with world.engine(beating) as engine:
        run = await engine.start(beating(), id="r")
        said.put_nowait("a")
        await beaten(run, 1)
        for word in "bcd":
            said.put_nowait(word)
        await said.join()
        await settle()
        assert len(await beats_of(run)) == 1
        world.clock.advance(HEARTBEAT_SECONDS - 1)
        await settle()
        assert len(await beats_of(run)) == 1
        world.clock.advance(1)
        await beaten(run, 2)
        assert await beats_of(run) == [(1, b'"a"'), (1, b'"d"')]
        state = await run.state()
        (told,) = state.tasks.values()
        assert (told.heartbeat, told.heartbeat_at) == (b'"d"', world.clock.now())
        said.put_nowait("end")
        await soon(run.result())
        await check_history(engine.store, "r", beating)


async def test_a_beat_without_details_keeps_those_before(world: World) -> None:
    @task(stop=stop_after_attempt(2))
    async def beat() -> Any:
        here = attempt()
        if here.number == 1:
            here.heartbeat({"page": 7})
            await asyncio.sleep(0)
            here.heartbeat()
            raise ConnectionError
        return here.last_heartbeat

    @workflow
    async def beating() -> Any:
        return await beat()

    async with world.engine(beating) as engine:
        run = await engine.start(beating(), id="r")
        assert await soon(run.result()) == {"page": 7}
        assert await beats_of(run) == [(1, b'{"page":7}'), (1, None)]
        (told,) = (await run.state()).tasks.values()
        assert told.heartbeat == b'{"page":7}'


def test_details_that_cannot_be_recorded_are_refused_where_they_are_given() -> None:
    heard: list[bytes | None] = []
    here = bare(listener=heard.append)
    with pytest.raises(NotRecordable, match="the details of a heartbeat"):
        here.heartbeat(object())
    with pytest.raises(NotRecordable, match="NaN"):
        here.heartbeat(float("nan"))
    with pytest.raises(PayloadTooLarge):
        here.heartbeat("x" * 300_000)
    assert heard == []
    here.heartbeat({"rows": (1, 2)})
    here.heartbeat()
    assert heard == [b'{"rows":[1,2]}', None]


# -- what the next attempt finds --------------------------------------------------------------------------------------


async def test_the_next_attempt_knows_how_far_it_was_and_why_it_failed(world: World) -> None:
    found: list[tuple[Any, ErrorInfo | None]] = []

    def look() -> None:
        here = attempt()
        found.append((here.last_heartbeat, here.last_failure))
        here.heartbeat({"rows": here.number})
        if here.number < 3:
            raise ConnectionError(f"line {here.number} is dead")

    @task(stop=stop_after_attempt(3), wait=wait_fixed(5))
    async def on_loop() -> None:
        look()

    @task(stop=stop_after_attempt(3), wait=wait_fixed(5))
    def in_thread() -> None:
        look()

    @workflow
    async def looking() -> None:
        await on_loop()
        await in_thread()

    async with world.engine(looking) as engine:
        run = await engine.start(looking(), id="r")
        for number in (1, 2, 4, 5):
            await until(lambda number=number: len(found) == number)
            await until_async(lambda number=number: failed(run, number if number < 3 else number - 1))
            world.clock.advance(5)
        await soon(run.result())
        assert [details for details, _ in found] == [None, {"rows": 1}, {"rows": 2}] * 2
        failures = [info for _, info in found if info is not None]
        assert [(info.type, info.message) for info in failures] == [
            ("ConnectionError", "line 1 is dead"),
            ("ConnectionError", "line 2 is dead"),
        ] * 2
        assert found[0][1] is None
        await check_history(engine.store, "r", looking)


async def failed(run: RunHandle[Any], number: int) -> bool:
    return (await kinds_of(run)).count("AttemptFailed") >= number


async def test_also_after_a_crash_between_heartbeat_and_outcome(world: World) -> None:
    """The store dies before it writes how the attempt ended; the next worker's attempt knows the last recorded beat."""
    dying = asyncio.Event()
    found: list[Any] = []

    @task(stop=stop_after_attempt(5))
    async def beat() -> str:
        here = attempt()
        found.append((here.number, here.last_heartbeat, here.last_failure))
        if here.number == 1:
            here.heartbeat("failing soon")
            raise ConnectionError("first")
        if here.number == 2:
            here.heartbeat({"page": 12})
            await dying.wait()
            raise ValueError("never recorded")
        return "done"

    @workflow
    async def beating() -> str:
        return await beat()

    store = await world.store()
    faulty = FaultyStore(store)
    async with Engine(faulty, workflows=[beating], clock=world.clock, grace=0) as engine:
        run = await engine.start(beating(), id="r")
        await beaten(run, 2)
        faulty.plan = lambda _number, name: "die before" if name == "commit" else None
        dying.set()
        with pytest.raises(EngineFailed):
            await soon(run.result())
    await world.release(store)
    async with world.engine(beating) as engine:
        run = engine.run("r")
        assert await soon(run.result()) == "done"
        await check_history(engine.store, "r", beating)
    assert [(number, details) for number, details, _ in found] == [(1, None), (2, "failing soon"), (3, {"page": 12})]
    assert found[2][2].message == "first"  # an attempt that was cut off has not failed


async def test_what_was_not_recorded_yet_is_when_the_engine_closes(world: World) -> None:
    found: list[Any] = []
    begun = asyncio.Event()

    @task
    async def beat() -> str:
        found.append(attempt().last_heartbeat)
        if attempt().number > 1:
            return "done"
        attempt().heartbeat("first")
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            attempt().heartbeat("on my way out")

    @workflow
    async def beating() -> str:
        return await beat()

    async with world.engine(beating, grace=0) as engine:
        run = await engine.start(beating(), id="r")
        await soon(begun.wait())
        await beaten(run, 1)
    async with world.engine(beating) as engine:
        assert await soon(engine.run("r").result()) == "done"
        await check_history(engine.store, "r", beating)
    assert found == [None, "on my way out"]


async def test_a_thread_that_was_given_up_is_not_heard(memory: MemoryWorld) -> None:
    go, over = threading.Event(), threading.Event()

    @task(timeout=5)
    def stubborn() -> None:
        attempt().heartbeat("in time")
        go.wait(30)
        attempt().heartbeat("too late")
        over.set()

    @workflow
    async def beating() -> str:
        try:
            await stubborn()
        except TimeoutError:
            return "timed out"
        return "?"

    async with memory.engine(beating) as engine:
        run = await engine.start(beating(), id="r")
        await beaten(run, 1)
        memory.clock.advance(5)
        assert await soon(run.result()) == "timed out"
        go.set()
        await until(over.is_set)
        memory.clock.advance(HEARTBEAT_SECONDS)
        await settle()
        assert await beats_of(run) == [(1, b'"in time"')]


async def test_a_paused_run_goes_on_noting_what_its_attempts_say(world: World) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()

    @task
    async def beat() -> str:
        while (word := await said.get()) != "end":
            attempt().heartbeat(word)
        return "done"

    @workflow
    async def beating() -> str:
        return await beat()

    async with world.engine(beating) as engine:
        run = await engine.start(beating(), id="r")
        said.put_nowait("one")
        await beaten(run, 1)
        await run.pause()

        async def paused() -> bool:
            return await run.status() == "paused"

        await until_async(paused)
        world.clock.advance(HEARTBEAT_SECONDS)
        said.put_nowait("two")
        await beaten(run, 2)
        assert await run.status() == "paused"
        said.put_nowait("end")
        await run.unpause()
        assert await soon(run.result()) == "done"
        assert [details for _, details in await beats_of(run)] == [b'"one"', b'"two"']
        await check_history(engine.store, "r", beating)


async def test_nothing_is_noted_of_a_task_that_nobody_wants_any_more(world: World) -> None:
    go, over = threading.Event(), threading.Event()

    @task
    def abandoned() -> None:
        attempt().heartbeat("one")
        go.wait(30)
        attempt().heartbeat("two")
        over.set()

    @task
    async def rest() -> None:
        await asyncio.sleep(0)

    @workflow
    async def leaving() -> str:
        try:
            async with asyncio.timeout(60):
                await abandoned()
        except TimeoutError:
            await rest()
        return "left"

    async with world.engine(leaving) as engine:
        run = await engine.start(leaving(), id="r")
        await beaten(run, 1)
        world.clock.advance(60)
        go.set()
        assert await soon(run.result()) == "left"
        await until(over.is_set)
        world.clock.advance(HEARTBEAT_SECONDS)
        await settle()
        assert {details for _, details in await beats_of(run)} <= {b'"one"', b'"two"'}
        await check_history(engine.store, "r", leaving)


# -- silence ----------------------------------------------------------------------------------------------------------


async def test_silence_is_a_failure_that_is_retried(world: World) -> None:
    beats: asyncio.Queue[None] = asyncio.Queue()
    ended: list[int] = []
    inside = asyncio.Event()

    @task(heartbeat_timeout=10, stop=stop_after_attempt(2), retry=retry_if_exception_type(HeartbeatTimeout))
    async def quiet() -> str:
        if attempt().number == 2:
            assert attempt().last_failure.type == "engine.errors.HeartbeatTimeout"
            return attempt().last_heartbeat
        inside.set()
        try:
            while True:
                await beats.get()
                attempt().heartbeat("here")
                beats.task_done()
        finally:
            assert attempt().cancelled
            ended.append(attempt().number)

    @workflow
    async def listening() -> str:
        return await quiet()

    async with world.engine(listening) as engine:
        run = await engine.start(listening(), id="r")
        await soon(inside.wait())
        for _ in range(3):  # each 9 s, more than 10 together
            world.clock.advance(9)
            beats.put_nowait(None)
            await beats.join()
            await settle()
        assert ended == []
        world.clock.advance(10)
        assert await soon(run.result()) == "here"
        assert ended == [1]
        await check_history(engine.store, "r", listening)


async def test_a_silent_thread_is_told_and_its_task_fails(world: World) -> None:
    told: list[bool] = []
    inside = threading.Event()

    @task(heartbeat_timeout=10)
    def quiet() -> None:
        inside.set()
        told.append(attempt().wait_cancelled(30))

    @workflow
    async def listening() -> None:
        await quiet()

    async with world.engine(listening) as engine:
        run = await engine.start(listening(), id="r")
        await until(inside.is_set)
        world.clock.advance(10)
        with pytest.raises(RunFailedError, match="said nothing for 10 s") as caught:
            await soon(run.result())
        assert isinstance(caught.value.__cause__, HeartbeatTimeout)
        await until(lambda: told)
    assert told == [True]


async def test_the_shorter_limit_holds(world: World) -> None:
    inside = asyncio.Event()

    @task(heartbeat_timeout=30, timeout=20)
    async def never() -> None:
        inside.set()
        await asyncio.Event().wait()

    @workflow
    async def limited() -> str:
        try:
            await never()
        except TimeoutError as error:
            return type(error).__name__
        return "?"

    async with world.engine(limited) as engine:
        run = await engine.start(limited(), id="r")
        await soon(inside.wait())
        world.clock.advance(20)
        assert await soon(run.result()) == "TaskTimeout"


@pytest.mark.parametrize("seconds", [0, -1, "soon"])
def test_a_heartbeat_timeout_is_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(DefinitionError, match="heartbeat_timeout must be a number of seconds above 0"):

        @task(heartbeat_timeout=seconds)
        async def never() -> None: ...


# -- notices ----------------------------------------------------------------------------------------------------------


async def test_a_thread_finds_that_it_is_asked_to_end(world: World) -> None:
    seen: list[Any] = []
    inside = threading.Event()

    @task
    def patient() -> None:
        here = attempt()
        seen.append((here.cancelled, here.wait_cancelled(0)))
        here.check()
        inside.set()
        seen.append(here.wait_cancelled(30))
        try:
            here.check()
        except asyncio.CancelledError:
            seen.append(here.cancelled)
            raise

    @workflow
    async def cancelling() -> str:
        try:
            async with asyncio.timeout(60):
                await patient()
        except TimeoutError:
            return "gave it up"
        return "?"

    async with world.engine(cancelling, threads=1) as engine:
        run = await engine.start(cancelling(), id="r")
        await until(inside.is_set)
        world.clock.advance(60)
        assert await soon(run.result()) == "gave it up"
        await until(lambda: len(seen) == 3)
    assert seen == [(False, False), True, True]


async def test_code_hears_that_the_engine_closes_before_it_is_cancelled(world: World) -> None:
    heard: list[str] = []
    ready = [asyncio.Event(), threading.Event()]

    @task
    async def on_loop() -> str:
        assert not attempt().stopping
        ready[0].set()
        await attempt().until_stopping()
        heard.append(f"loop {attempt().stopping} {attempt().cancelled}")
        return "put away"

    @task
    def in_thread() -> str:
        assert not attempt().wait_stopping(0)
        ready[1].set()
        assert attempt().wait_stopping(30)
        heard.append(f"thread {attempt().stopping} {attempt().cancelled}")
        return "put away"

    @task
    async def deaf() -> str:
        if attempt().number > 1:
            return "again"
        try:
            await asyncio.Event().wait()
        finally:
            heard.append(f"deaf {attempt().stopping} {attempt().cancelled}")

    @workflow
    async def closing() -> list[str]:
        return await asyncio.gather(on_loop(), in_thread(), deaf())

    async with world.engine(closing, grace=0.2) as engine:
        await engine.start(closing(), id="r")
        await until(lambda: ready[0].is_set() and ready[1].is_set())
    assert sorted(heard) == ["deaf True True", "loop True False", "thread True False"]
    async with world.engine(closing) as engine:
        assert await soon(engine.run("r").result()) == ["put away", "put away", "again"]


async def test_blocking_waits_are_not_for_coroutines() -> None:
    here = bare()
    for wait in (here.wait_cancelled, here.wait_stopping):
        with pytest.raises(HoldfastError, match="in a coroutine: await"):
            wait(1)
    waiting = asyncio.ensure_future(here.until_stopping())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    here._contact.stopping.give()
    await soon(here.until_stopping())
    assert here._contact.stopping._listeners == []


def test_a_notice_wakes_every_thread_that_waits() -> None:
    here = bare()
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(here.wait_cancelled(30))) for _ in range(8)]
    for thread in threads:
        thread.start()
    here._contact.cancelled.give()
    here._contact.cancelled.give()
    for thread in threads:
        thread.join(30)
    assert woken == [True] * 8
