"""One attempt of a task, from recorded arguments to an outcome that can be recorded.

Nothing here writes: an `Outcome` comes back, and the run's driver records it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from engine.core.failures import ErrorInfo, describe
from engine.core.loop import TIME_MAX
from engine.core.pending import PendingTask
from engine.core.replay import Attempts
from engine.errors import ArgumentsError, NotRecordable, PayloadTooLarge, TaskTimeout
from engine.executors import Executor, Work
from engine.runtime.alarms import Alarms
from engine.runtime.retrying import PastAttempts, seconds_to_wait
from engine.tasks import Attempt, CompletedLater, Task
from eventstore.clock import Clock

__all__ = [
    "Asked",
    "AskedInVain",
    "Completed",
    "Failed",
    "FoundDone",
    "FoundUndone",
    "HandedOut",
    "Outcome",
    "Retried",
    "after_failure",
    "run_attempt",
    "run_within",
    "timed_out",
]


class Completed(Struct, frozen=True):
    """The task's result, encoded and known to decode."""

    payload: bytes


class Retried(Struct, frozen=True):
    """The attempt failed, and another follows at `retry_at` (microseconds since the epoch)."""

    error: ErrorInfo
    retry_at: int


class Failed(Struct, frozen=True):
    """The attempt failed, and it was the last."""

    error: ErrorInfo


class HandedOut(Struct, frozen=True):
    """The attempt has ended, and whoever has the task's token completes it."""


class FoundDone(Struct, frozen=True):
    """The outside was asked: the effect of an earlier attempt is there, with this result, encoded."""

    payload: bytes


class FoundUndone(Struct, frozen=True):
    """The outside was asked, and knows nothing of it."""


class AskedInVain(Struct, frozen=True):
    """Asking the outside failed, and is done again at `retry_at` (microseconds since the epoch)."""

    error: ErrorInfo
    retry_at: int


Outcome: TypeAlias = Completed | Retried | Failed | HandedOut | FoundDone | FoundUndone | AskedInVain


class Asked(Protocol):
    """A running attempt, as whoever runs it knows it."""

    asked_to_end: bool


async def run_attempt(
    pending: PendingTask,
    attempts: Attempts,
    attempt: Attempt,
    *,
    executor: Executor,
    clock: Clock,
    alarms: Alarms,
    running: Asked,
) -> Outcome:
    """Run one attempt in a slot taken before. Only a cancellation that was asked for comes out as an exception."""
    definition: Any = pending.definition
    try:
        args, kwargs = definition.arguments.decode(pending.arguments)
    except ArgumentsError as error:
        executor.slots.give_back()
        return Failed(describe(error))
    seconds, whole = _seconds_left(definition, pending, clock)
    if seconds is not None and seconds <= 0:
        executor.slots.give_back()
        return Failed(describe(timed_out(definition, whole=True)))
    work = Work(definition.fn, args, kwargs, attempt)
    try:
        if seconds is None:
            value = await executor.run(work)
        else:
            value = await run_within(seconds, executor.run(work), definition, whole=whole, clock=clock, alarms=alarms)
        return Completed(definition.result.encode_checked(value))
    except CompletedLater:
        return HandedOut()
    except (NotRecordable, PayloadTooLarge) as error:
        return Failed(describe(error))  # another attempt would return the same kind of thing
    except asyncio.CancelledError as error:
        if running.asked_to_end:
            raise
        failure: BaseException = error  # the task's own code raised it; nobody asked us to stop
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        failure = error
    return await after_failure(definition, pending, attempts, failure, (args, kwargs), clock=clock, running=running)


async def after_failure(
    definition: Task[..., Any],
    pending: PendingTask,
    attempts: Attempts,
    failure: BaseException,
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    *,
    clock: Clock,
    running: Asked,
) -> Retried | Failed:
    """What a failure leads to: another attempt, and when, or none. Asks the task's policies."""
    now = clock.now()
    past = PastAttempts(
        failed=attempts.failed + 1,
        elapsed=max(0, now - (attempts.first_started_at or now)) / 1_000_000,
        slept=attempts.slept / 1_000_000,
    )
    try:
        wait = await seconds_to_wait(definition, failure, past, *arguments)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, asyncio.CancelledError) and running.asked_to_end):
            raise
        error.add_note(f"raised by the retry policy of {definition.where}, asked about the exception that is its cause")
        error.__cause__ = failure
        return Failed(describe(error))
    if wait is None:
        return Failed(describe(failure))
    retry_at = min(TIME_MAX, now + round(wait * 1_000_000))
    deadline = definition.policy.deadline
    if deadline is not None and retry_at >= pending.scheduled_at + round(deadline * 1_000_000):
        failure.add_note(f"not retried: the next attempt would begin after the deadline of {deadline:g} s")
        return Failed(describe(failure))
    return Retried(describe(failure), retry_at)


def _seconds_left(definition: Task[..., Any], pending: PendingTask, clock: Clock) -> tuple[float | None, bool]:
    """Seconds this attempt may take, and whether it is the deadline over all attempts that says so."""
    timeout, deadline = definition.policy.timeout, definition.policy.deadline
    if deadline is None:
        return timeout, False
    left = deadline - (clock.now() - pending.scheduled_at) / 1_000_000
    if timeout is not None and timeout <= left:
        return timeout, False
    return left, True


async def run_within(
    seconds: float | None, running: Any, definition: Task[..., Any], *, whole: bool, clock: Clock, alarms: Alarms
) -> Any:
    """Await under a time limit (None: without) that follows the engine's clock."""
    if seconds is None:
        return await running
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(None)
    alarm = alarms.at(clock.now() + round(seconds * 1_000_000), lambda: limit.reschedule(loop.time()))
    try:
        async with limit:
            return await running
    except TimeoutError as error:
        if limit.expired():
            raise timed_out(definition, whole=whole) from error
        raise
    finally:
        alarm.cancel()


def timed_out(definition: Task[..., Any], *, whole: bool) -> TaskTimeout:
    """The error of an attempt that took too long, or (`whole`) of a task that did, over all of its attempts."""
    if whole:
        return TaskTimeout(f"{definition.where} was not done within its deadline of {definition.policy.deadline:g} s")
    return TaskTimeout(
        f"an attempt of {definition.where} took longer than its timeout of {definition.policy.timeout:g} s"
    )
