"""Retries speak tenacity; only the answers are recorded, and a restart goes on with the same back-off."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import tenacity
from tenacity import (
    TryAgain,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_before_delay,
    stop_never,
    wait_exponential,
    wait_fixed,
    wait_incrementing,
    wait_none,
)

from engine import RunHandle, attempt, task, workflow
from engine.core.events import AttemptFailed, TaskFailed
from engine.errors import RunFailedError, TaskError, TaskTimeout
from tests.runtime.invariants import check_history, check_store
from tests.runtime.worlds import START, MemoryWorld, World, at_rest, events_of, settle, soon, until, until_async


class Trial:
    """A task that fails a number of times, and the workflow of it."""

    def __init__(self, failures: int, error: Callable[[], BaseException] = ConnectionError, **options: Any) -> None:
        self.times: list[int] = []
        self.numbers: list[int] = []
        self.clock: Any = None
        trial = self

        @task(**options)
        async def attempted() -> int:
            trial.times.append(trial.clock.now() - START)
            trial.numbers.append(attempt().number)
            if len(trial.times) <= failures:
                raise error()
            return attempt().number

        @workflow
        async def trying() -> int:
            return await attempted()

        self.workflow = trying

    @property
    def seconds(self) -> list[float]:
        """When the attempts began."""
        return [time / 1_000_000 for time in self.times]


async def waits_for_retry(run: RunHandle[Any]) -> bool:
    """Whether a task waits for its next attempt, durably."""
    return any(found.status == "retrying" for found in (await run.state()).tasks.values())


async def next_attempt(world: World, trial: Trial, run: RunHandle[Any], ending: asyncio.Task[Any]) -> bool:
    """Let time pass up to the next attempt, exactly, and let that begin. False when there is none: it has ended."""
    while not ending.done() and not await waits_for_retry(run):
        await asyncio.sleep(0)
    if ending.done():
        return False
    begun = len(trial.times)
    (found,) = (await run.state()).tasks.values()
    assert found.retry_at is not None
    world.clock.advance((found.retry_at - world.clock.now()) / 1_000_000)
    await until(lambda: len(trial.times) > begun or ending.done())
    return True


async def play(world: World, trial: Trial) -> Any:
    """Run it to its end, letting time pass whenever it waits. Returns the result or the error."""
    trial.clock = world.clock
    async with world.engine(trial.workflow, threads=2) as engine:
        run = await engine.start(trial.workflow(), id="a")
        ending = asyncio.create_task(run.result())
        while await next_attempt(world, trial, run, ending):
            pass
        (result,) = await soon(asyncio.gather(ending, return_exceptions=True))
        await check_history(engine.store, "a", trial.workflow)
    return result


async def test_without_a_policy_there_is_one_attempt(world: World) -> None:
    trial = Trial(1)
    assert isinstance(await play(world, trial), RunFailedError)
    assert trial.numbers == [1]


async def test_stop_after_attempt(world: World) -> None:
    trial = Trial(99, stop=stop_after_attempt(3))
    error = await play(world, trial)
    assert isinstance(error, RunFailedError)
    assert isinstance(error.__cause__, ConnectionError)
    assert trial.numbers == [1, 2, 3]


async def test_it_may_succeed_in_the_last_attempt(world: World) -> None:
    trial = Trial(2, stop=stop_after_attempt(3))
    assert await play(world, trial) == 3


async def test_waits_are_kept_and_recorded(world: World) -> None:
    trial = Trial(3, stop=stop_after_attempt(9), wait=wait_incrementing(start=10, increment=5))
    trial.clock = world.clock
    async with world.engine(trial.workflow) as engine:
        run = await engine.start(trial.workflow(), id="a")
        for failures, seconds in enumerate((10, 15, 20), 1):
            await until(lambda failures=failures: len(trial.times) == failures)
            await until_async(lambda: waits_for_retry(run))
            failed = [event for event in await events_of(run) if isinstance(event, AttemptFailed)]
            assert len(failed) == failures
            assert failed[-1].retry_at == world.clock.now() + seconds * 1_000_000
            assert failed[-1].attempt == failures
            assert failed[-1].error == "ConnectionError"
            await at_rest(engine.store, "a")  # nothing to do meanwhile
            world.clock.advance(seconds - 0.001)
            await settle()
            assert len(trial.times) == failures
            world.clock.advance(0.001)
        assert await soon(run.result()) == 4
        assert trial.seconds == [0, 10, 25, 45]
        await check_history(engine.store, "a", trial.workflow)


async def test_short_waits_are_kept_in_memory(memory: MemoryWorld) -> None:
    trial = Trial(3, stop=stop_after_attempt(9), wait=wait_fixed(0.5))
    assert await play(memory, trial) == 4
    assert trial.seconds == [0, 0.5, 1.0, 1.5]


async def test_no_wait_after_the_last_attempt(world: World) -> None:
    """The waits of 1,000 s come between two attempts, never behind the last."""
    trial = Trial(9, stop=stop_after_attempt(2), wait=wait_fixed(1_000))
    trial.clock = world.clock
    async with world.engine(trial.workflow) as engine:
        run = await engine.start(trial.workflow(), id="a")
        await until_async(lambda: waits_for_retry(run))
        world.clock.advance(1_000)
        with pytest.raises(RunFailedError):
            await soon(run.result())
        assert world.clock.now() == START + 1_000_000_000
        events = await events_of(run)
        assert sum(isinstance(event, AttemptFailed) for event in events) == 1
        assert [event.attempt for event in events if isinstance(event, TaskFailed)] == [2]


@pytest.mark.parametrize(
    ("stop", "times"),
    [
        (stop_after_delay(25), [0, 10, 20, 30]),
        (stop_before_delay(25), [0, 10, 20]),
        (stop_after_attempt(2) | stop_after_delay(100), [0, 10]),
        (stop_after_attempt(4) & stop_after_delay(15), [0, 10, 20, 30]),
        (lambda state: state.idle_for >= 20, [0, 10, 20]),
        (lambda state: state.attempt_number == 3, [0, 10, 20]),
    ],
    ids=["after", "before", "or", "and", "idle_for", "attempt_number"],
)
async def test_stops(memory: MemoryWorld, stop: Any, times: list[float]) -> None:
    trial = Trial(99, stop=stop, wait=wait_fixed(10))
    assert isinstance(await play(memory, trial), RunFailedError)
    assert trial.seconds == times


@pytest.mark.parametrize("stop", [stop_after_delay(25), stop_before_delay(35), stop_after_attempt(4)])
async def test_stops_count_over_a_restart(world: World, stop: Any) -> None:
    trial = Trial(99, stop=stop, wait=wait_fixed(10))
    trial.clock = world.clock
    going_on, result = True, None
    while going_on:
        async with world.engine(trial.workflow) as engine:
            run = await engine.start(trial.workflow(), id="a")
            ending = asyncio.create_task(run.result())
            going_on = await next_attempt(world, trial, run, ending)
            if not going_on:
                await check_history(engine.store, "a", trial.workflow)
            else:
                while not ending.done() and not await waits_for_retry(run):
                    await asyncio.sleep(0)
            ending.cancel()
            (result,) = await asyncio.gather(ending, return_exceptions=True)
    assert isinstance(result, RunFailedError)
    assert trial.numbers == [1, 2, 3, 4]
    assert trial.seconds[-1] == 30


async def test_retry_predicates(worlds) -> None:
    asked: list[str] = []

    async def temporary(error: BaseException) -> bool:
        await asyncio.sleep(0)
        asked.append(str(error))
        return "temporary" in str(error)

    policies = [
        (retry_if_exception_type(ConnectionError), lambda: ConnectionError("temporary"), 3),
        (retry_if_exception_type(ConnectionError), lambda: ValueError("temporary"), 1),
        (retry_if_not_exception_type(ValueError), lambda: ValueError("temporary"), 1),
        (tenacity.retry_if_exception_message(match="temp.*"), lambda: ValueError("temporary"), 3),
        (tenacity.retry_if_exception_cause_type(KeyError), lambda: _caused(), 3),
        (tenacity.asyncio.retry_if_exception(temporary), lambda: ValueError("temporary"), 3),
        (tenacity.asyncio.retry_if_exception(temporary), lambda: ValueError("for ever"), 1),
        (lambda state: state.outcome.exception().args[0] == 1, lambda: ValueError(1), 3),
        (tenacity.retry_never, lambda: ValueError(1), 1),
        (tenacity.retry_if_exception_type(), lambda: SystemExit(1), 1),
        (tenacity.retry_if_exception_type(BaseException), lambda: SystemExit(1), 3),
    ]
    for retry, error, expected in policies:
        world = worlds()
        trial = Trial(2, error, retry=retry, stop=stop_after_attempt(3))
        result = await play(world, trial)
        assert len(trial.numbers) == expected, (retry, error())
        assert result == 3 if expected == 3 else isinstance(result, RunFailedError)
    assert asked == ["temporary", "temporary", "for ever"]


def _caused() -> BaseException:
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    return error


async def test_asynchronous_stops_and_waits(memory: MemoryWorld) -> None:
    async def stop(state: Any) -> bool:
        await asyncio.sleep(0)
        return bool(state.attempt_number >= 3)

    async def wait(state: Any) -> float:
        await asyncio.sleep(0)
        return float(state.attempt_number)

    trial = Trial(9, stop=stop, wait=wait)
    assert isinstance(await play(memory, trial), RunFailedError)
    assert trial.seconds == [0, 1, 3]


async def test_try_again(memory: MemoryWorld) -> None:
    """tenacity's way of asking for another attempt, whatever `retry` says."""
    trial = Trial(2, TryAgain, retry=retry_if_exception_type(KeyError), stop=stop_after_attempt(5))
    assert await play(memory, trial) == 3


@pytest.mark.parametrize("part", ["stop", "wait", "retry"])
@pytest.mark.parametrize("raised", [ZeroDivisionError("policy"), asyncio.CancelledError("policy")])
async def test_a_policy_that_raises_is_final(world: World, part: str, raised: BaseException) -> None:
    def broken(_state: Any) -> bool:
        raise raised

    options: dict[str, Any] = {"stop": stop_after_attempt(9), "wait": wait_none(), part: broken}
    trial = Trial(9, **options)
    error = await play(world, trial)
    assert isinstance(error, RunFailedError)
    assert trial.numbers == [1]
    assert "policy" in str(error)
    assert isinstance(error.__cause__, BaseException)


@pytest.mark.parametrize(
    "wait",
    [float("inf"), 1e15, 1e300, float("nan"), -5, "soon", None],
    ids=str,
)
async def test_a_policy_that_answers_nonsense(memory: MemoryWorld, wait: Any) -> None:
    """Whatever a policy answers, it concerns this task alone."""
    trial = Trial(1, stop=stop_after_attempt(3), wait=lambda _state: wait)
    trial.clock = memory.clock

    @workflow
    async def fine() -> str:
        return "fine"

    async with memory.engine(trial.workflow, fine) as engine:
        run = await engine.start(trial.workflow(), id="a")

        async def over_or_waiting() -> bool:
            return await run.status() != "running" or await waits_for_retry(run) or len(trial.times) > 1

        await until_async(over_or_waiting)
        assert await soon((await engine.start(fine())).result()) == "fine"
        await check_history(memory.data, "a", trial.workflow)
    async with memory.engine(trial.workflow, fine) as engine:  # and it can be read back
        await settle()
        assert await soon((await engine.start(fine())).result()) == "fine"


async def test_policies_see_what_they_would_see_from_tenacity(memory: MemoryWorld) -> None:
    """The same task under tenacity itself, and under the engine: the same questions."""
    seen: list[tuple[Any, ...]] = []

    def look(state: Any) -> float:
        seen.append(
            (state.attempt_number, type(state.outcome.exception()), state.fn.__name__, state.args, dict(state.kwargs))
        )
        return 0.0

    @task(stop=stop_after_attempt(3), wait=look)
    async def fails(a: int, b: str = "b") -> None:
        raise KeyError(a)

    @workflow
    async def failing() -> None:
        await fails(1, b="x")

    async with memory.engine(failing) as engine:
        with pytest.raises(RunFailedError):
            await soon((await engine.start(failing())).result())
    here, seen[:] = list(seen), []
    with pytest.raises(KeyError):
        await tenacity.AsyncRetrying(stop=stop_after_attempt(3), wait=look, reraise=True)(fails.fn, 1, b="x")
    # What is recorded are arguments by name: positional ones come back as such where the signature allows.
    assert [item[:3] for item in here] == [item[:3] for item in seen]
    assert all(dict(zip(("a", "b"), args, strict=False)) | kwargs == {"a": 1, "b": "x"} for *_, args, kwargs in here)


# -- restarts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("away", [0.0, 3.0, 500.0], ids=["at once", "within the wait", "long after"])
async def test_a_restart_goes_on_with_the_same_wait(world: World, away: float) -> None:
    trial = Trial(2, stop=stop_after_attempt(3), wait=wait_exponential(multiplier=10, min=10))
    trial.clock = world.clock
    async with world.engine(trial.workflow) as engine:
        run = await engine.start(trial.workflow(), id="a")
        await until_async(lambda: waits_for_retry(run))
        before = (await run.state()).tasks
    world.clock.advance(away)
    async with world.engine(trial.workflow) as engine:
        run = engine.run("a")
        if away < 10:
            await settle(200)
            assert (await run.state()).tasks == before
            world.clock.advance(10 - away - 0.001)
            await settle(200)
            assert len(trial.times) == 1
            world.clock.advance(0.001)
        await until(lambda: len(trial.times) == 2)
        assert trial.seconds[1] == max(10, away)
        await until_async(lambda: waits_for_retry(run))
        failed = [event for event in await events_of(run) if isinstance(event, AttemptFailed)]
        assert failed[1].retry_at == trial.times[1] + START + 20_000_000  # the second wait: the counter was kept
        world.clock.advance(20)
        assert await soon(run.result()) == 3
        await check_history(engine.store, "a", trial.workflow)
    assert trial.numbers == [1, 2, 3]


async def test_a_crash_in_an_attempt_is_no_failure(world: World) -> None:
    """Attempts that a crash cut off are counted as begun, not as failed: the policy does not hear of them."""
    begun: list[int] = []
    failing = asyncio.Event()

    @task(stop=stop_after_attempt(2), wait=wait_fixed(1))
    async def crashing() -> int:
        begun.append(attempt().number)
        if not failing.is_set():
            await asyncio.Event().wait()
        raise ConnectionError

    @workflow
    async def trying() -> int:
        return await crashing()

    for n in range(3):
        async with world.engine(trying, grace=0) as engine:
            await engine.start(trying(), id="a")
            await until(lambda n=n: len(begun) == n + 1)
    failing.set()
    async with world.engine(trying) as engine:
        run = engine.run("a")
        await until_async(lambda: waits_for_retry(run))
        world.clock.advance(1)
        with pytest.raises(RunFailedError):
            await soon(run.result())
        await check_history(engine.store, "a", trying)
    assert begun == [1, 2, 3, 4, 5]


# -- timeouts and deadlines -------------------------------------------------------------------------------------------


class Sleepy:
    """A task that never ends of its own, and counts."""

    def __init__(self, **options: Any) -> None:
        self.begun = self.cancelled = 0
        sleepy = self

        @task(**options)
        async def sleeping() -> None:
            sleepy.begun += 1
            try:
                await asyncio.Event().wait()
            finally:
                sleepy.cancelled += 1

        @workflow
        async def trying() -> str:
            try:
                await sleeping()
            except TimeoutError as error:
                return f"{type(error).__name__}: {error}"
            return "awake"

        self.workflow = trying


async def test_a_timeout_is_per_attempt(world: World) -> None:
    sleepy = Sleepy(timeout=30, stop=stop_after_attempt(3), wait=wait_fixed(10))
    async with world.engine(sleepy.workflow) as engine:
        run = await engine.start(sleepy.workflow(), id="a")
        for n in range(1, 4):
            await until(lambda n=n: sleepy.begun == n)
            world.clock.advance(29.9)
            await settle()
            assert sleepy.cancelled == n - 1
            world.clock.advance(0.1)
            await until(lambda n=n: sleepy.cancelled == n)
            if n < 3:
                await until_async(lambda: waits_for_retry(run))
                world.clock.advance(10)
        assert (await soon(run.result())).startswith("TaskTimeout")
        await check_history(engine.store, "a", sleepy.workflow)


async def test_a_timeout_begins_anew_after_a_restart(world: World) -> None:
    sleepy = Sleepy(timeout=30)
    async with world.engine(sleepy.workflow, grace=0) as engine:
        await engine.start(sleepy.workflow(), id="a")
        await until(lambda: sleepy.begun == 1)
    world.clock.advance(1_000)
    async with world.engine(sleepy.workflow) as engine:
        await until(lambda: sleepy.begun == 2)
        world.clock.advance(29.9)
        await settle()
        assert sleepy.cancelled == 1
        world.clock.advance(0.2)
        assert "timeout of 30 s" in await soon(engine.run("a").result())


async def test_a_timeout_of_its_own_is_not_ours(memory: MemoryWorld) -> None:
    @task(timeout=100)
    async def impatient() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    @workflow
    async def trying() -> str:
        try:
            await impatient()
        except TimeoutError as error:
            return type(error).__name__
        return "awake"

    async with memory.engine(trying) as engine:
        assert await soon((await engine.start(trying())).result()) == "TimeoutError"


async def test_a_timed_out_thread_keeps_its_slot_until_it_ends(world: World) -> None:
    begun: list[str] = []
    leave = threading.Event()

    @task(timeout=30)
    def stuck() -> None:
        begun.append("stuck")
        assert leave.wait(30)

    @task
    def quick() -> str:
        begun.append("quick")
        return "quick"

    @workflow
    async def trying() -> str:
        try:
            await stuck()
        except TaskTimeout:
            return await quick()
        return "awake"

    async with world.engine(trying, threads=1) as engine:
        run = await engine.start(trying(), id="a")
        await until(lambda: begun)
        world.clock.advance(31)

        async def timed_out() -> bool:
            return (await run.state()).counts().get("failed") == 1

        await until_async(timed_out)
        await settle(100)
        assert begun == ["stuck"]
        assert (await run.state()).counts() == {"failed": 1, "scheduled": 1}
        leave.set()
        assert await soon(run.result()) == "quick"
        await check_history(engine.store, "a", trying)


async def test_what_a_timed_out_attempt_says_late_is_not_the_outcome(world: World) -> None:
    """The first attempt's thread returns after its timeout, while the second runs: the second's result counts."""
    leave, entered, results = [threading.Event(), threading.Event()], [], []

    @task(timeout=30, stop=stop_after_attempt(2))
    def slow() -> int:
        number = attempt().number
        entered.append(number)
        assert leave[number - 1].wait(30)
        results.append(number)
        return number

    @workflow
    async def trying() -> int:
        return await slow()

    async with world.engine(trying, threads=2) as engine:
        run = await engine.start(trying(), id="a")

        await until(lambda: entered == [1])
        world.clock.advance(31)
        await until(lambda: entered == [1, 2])
        leave[0].set()
        await until(lambda: results == [1])
        await settle(100)
        assert await run.status() == "running"
        leave[1].set()
        assert await soon(run.result()) == 2
        await check_history(engine.store, "a", trying)


async def test_a_deadline_holds_over_all_attempts(world: World) -> None:
    trial = Trial(99, stop=stop_never, wait=wait_fixed(10), deadline=35)
    error = await play(world, trial)
    assert isinstance(error, RunFailedError)
    assert trial.seconds == [0, 10, 20, 30]
    assert isinstance(error.__cause__, ConnectionError)
    assert "deadline of 35 s" in "".join(error.__cause__.__notes__)


async def test_a_deadline_cuts_an_attempt(world: World) -> None:
    sleepy = Sleepy(timeout=30, deadline=50, stop=stop_after_attempt(9))
    async with world.engine(sleepy.workflow) as engine:
        run = await engine.start(sleepy.workflow(), id="a")
        await until(lambda: sleepy.begun == 1)
        world.clock.advance(30)
        await until(lambda: sleepy.begun == 2)
        world.clock.advance(19.9)
        await settle()
        assert sleepy.cancelled == 1
        world.clock.advance(0.1)
        assert "deadline of 50 s" in await soon(run.result())
        assert sleepy.begun == sleepy.cancelled == 2
        await check_history(engine.store, "a", sleepy.workflow)


async def test_a_deadline_counts_across_a_restart(world: World) -> None:
    sleepy = Sleepy(deadline=50)
    async with world.engine(sleepy.workflow, grace=0) as engine:
        await engine.start(sleepy.workflow(), id="a")
        await until(lambda: sleepy.begun == 1)
        world.clock.advance(20)
    world.clock.advance(20)
    async with world.engine(sleepy.workflow, grace=0) as engine:
        await until(lambda: sleepy.begun == 2)
        world.clock.advance(9)
        await settle()
        assert sleepy.cancelled == 1
        world.clock.advance(1)
        assert "deadline of 50 s" in await soon(engine.run("a").result())


async def test_a_deadline_that_passed_while_nobody_was_there(world: World) -> None:
    sleepy = Sleepy(deadline=50)
    async with world.engine(sleepy.workflow, grace=0) as engine:
        await engine.start(sleepy.workflow(), id="a")
        await until(lambda: sleepy.begun == 1)
    world.clock.advance(1_000)
    async with world.engine(sleepy.workflow) as engine:
        assert "deadline of 50 s" in await soon(engine.run("a").result())
        assert sleepy.begun == 1
        await check_store(engine.store, sleepy.workflow)


async def test_a_deadline_counts_while_a_task_waits_for_a_slot(memory: MemoryWorld) -> None:
    """From scheduling: also when nobody had a slot for it all the while."""
    sleepy = Sleepy(deadline=50)
    gate = asyncio.Event()

    @task
    async def block() -> None:
        await gate.wait()

    @workflow
    async def blocking() -> None:
        await block()

    async with memory.engine(sleepy.workflow, blocking, concurrency=1) as engine:
        await engine.start(blocking(), id="b")
        run = await engine.start(sleepy.workflow(), id="a")
        memory.clock.advance(60)
        await settle()
        gate.set()
        assert "deadline of 50 s" in await soon(run.result())
        assert sleepy.begun == 0


async def test_options_per_call(memory: MemoryWorld) -> None:
    tries: list[int] = []

    @task(stop=stop_after_attempt(2))
    async def failing(n: int) -> None:
        tries.append(n)
        raise ValueError(n)

    @workflow
    async def calling() -> list[str]:
        said = []
        for call in (failing(1), failing.options(stop=stop_after_attempt(4))(2), failing.options(stop=None)(3)):
            try:
                await call
            except ValueError as error:
                said.append(str(error))
        return said

    async with memory.engine(calling) as engine:
        assert await soon((await engine.start(calling())).result()) == ["1", "2", "3"]
    assert [tries.count(n) for n in (1, 2, 3)] == [2, 4, 1]


async def test_a_task_error_goes_through_two_tasks(memory: MemoryWorld) -> None:
    """What one task could not say, another raises again: still known by its first name."""

    class Odd(Exception):
        pass

    @task
    async def first() -> None:
        raise Odd("oh")

    @task
    async def second(message: str) -> None:
        raise TaskError("shop.Odd", message)

    @workflow
    async def passing() -> str:
        try:
            await first()
        except TaskError as error:
            try:
                await second(error.message)
            except TaskError as again:
                return f"{again.type}|{again.message}"
        return ""

    async with memory.engine(passing) as engine:
        assert await soon((await engine.start(passing())).result()) == "shop.Odd|oh"
