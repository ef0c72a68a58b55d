"""One attempt of a task, from recorded arguments to an outcome that can be recorded.

Nothing here writes: an `Outcome` comes back, and the run's driver records it.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import anyio.to_thread
import msgspec
from msgspec import Struct

from engine.core.carriage import PAYLOAD_INLINE_BYTES
from engine.core.failures import ErrorInfo, describe
from engine.core.loop import TIME_MAX
from engine.core.pending import PendingTask
from engine.core.replay import Attempts
from engine.errors import ArgumentsError, DefinitionError, NotRecordable, PayloadTooLarge
from engine.executors import Encoded, Executor, NotBegun, Work, WorkFailed
from engine.runtime.alarms import Alarms
from engine.runtime.heartbeats import Pulse
from engine.runtime.limiting import timed_out, within
from engine.runtime.retrying import PastAttempts, seconds_to_wait
from engine.tasks import Attempt, CompletedLater, Task
from eventstore.clock import Clock

__all__ = [
    "Asked",
    "AskedInVain",
    "Committed",
    "Completed",
    "Failed",
    "Failure",
    "FoundDone",
    "FoundUndone",
    "HandedOut",
    "Outcome",
    "Ready",
    "Retried",
    "Reused",
    "Withheld",
    "after_failure",
    "encoded",
    "failure_of",
    "make_ready",
    "run_attempt",
]


class Completed(Struct, frozen=True, gc=False):
    """The task's result, encoded and known to decode."""

    payload: bytes


class Committed(Struct, frozen=True):
    """The attempt was a transaction, which has recorded the task's completion itself."""


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


class Withheld(Struct, frozen=True):
    """The attempt was not begun: its process stood still on the way there, and others may have the run."""


class Reused(Struct, frozen=True):
    """No attempt was made: the result is that of a task call `id` in the run of that id, encoded, known to decode."""

    payload: bytes
    run: str
    id: str


Outcome: TypeAlias = (
    Completed | Committed | Retried | Failed | HandedOut | FoundDone | FoundUndone | AskedInVain | Withheld | Reused
)


class Asked(Protocol):
    """A running attempt, as whoever runs it knows it."""

    asked_to_end: bool
    pulse: Pulse
    may_begin: Callable[[], bool]
    failed_with: BaseException | None

    @property
    def in_thread(self) -> bool:
        """Whether what takes long may be done in a thread."""

    async def keep(self, payload: bytes) -> None:
        """Write a large result to where it is to lie. Raises `StorageError`."""


async def encoded(value: Any, definition: Task[..., Any], pending: PendingTask, running: Asked) -> bytes:
    """A result as it is recorded; one that is large is where it is to lie. Raises what says why it cannot be."""
    codec = definition.result
    if isinstance(value, Encoded):
        payload = value.payload
    elif codec.tabular and running.in_thread:  # writing a table takes its time
        payload = await anyio.to_thread.run_sync(codec.encode_checked, value, pending.carriage)
    else:
        payload = codec.encode_checked(value, pending.carriage)
    if len(payload) > PAYLOAD_INLINE_BYTES or codec.tabular:
        await running.keep(payload)
    return payload


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
    ready = make_ready(pending, attempt, executor=executor, clock=clock, may_begin=running.may_begin)
    if isinstance(ready, Failed):
        return ready
    work, definition = ready.work, ready.work.task
    run = executor.run(work)
    limited = within(ready.seconds, run, definition, whole=ready.whole, clock=clock, alarms=alarms, pulse=running.pulse)
    del ready  # there may be thousands of attempts, and while this one runs it is not needed
    try:
        return Completed(await encoded(await limited, definition, pending, running))
    except CompletedLater:
        return HandedOut()
    except NotBegun:
        return Withheld()
    except BaseException as error:
        failure = failure_of(error, definition, running)
    try:
        if isinstance(failure.error, NotRecordable | PayloadTooLarge):
            return Failed(failure.described())  # another attempt would return the same kind of thing
        arguments = work.args, dict(work.kwargs)
        return await after_failure(definition, pending, attempts, failure, arguments, clock=clock, running=running)
    finally:
        del failure  # the error knows this frame


class Ready(Struct, frozen=True):
    """What an attempt does, how many seconds it may take, and whether it is the deadline over all attempts that says
    so.
    """

    work: Work
    seconds: float | None
    whole: bool


def make_ready(
    pending: PendingTask, attempt: Attempt, *, executor: Executor, clock: Clock, may_begin: Callable[[], bool]
) -> Ready | Failed:
    """What an attempt in a slot taken before begins with; or why it cannot begin, and then the slot is given back."""
    definition: Any = pending.definition
    try:
        executor.check(definition)
        args, kwargs = definition.arguments.decode(pending.arguments, pending.carriage)
    except (ArgumentsError, DefinitionError) as error:
        executor.slots.give_back()
        return Failed(describe(error))
    seconds, whole = _seconds_left(definition, pending, clock)
    if seconds is not None and seconds <= 0:
        executor.slots.give_back()
        return Failed(describe(timed_out(definition, whole=True)))
    bytes_max = pending.carriage.bytes_max
    work = Work(definition, pending.arguments, args, kwargs, attempt, bytes_max=bytes_max, may_begin=may_begin)
    return Ready(work, seconds, whole)


class Failure(Struct, frozen=True):
    """What went wrong, as policies see it, and as it was described where it happened, if that was not here."""

    error: BaseException
    info: ErrorInfo | None = None

    def described(self, *notes: str) -> ErrorInfo:
        info = describe(self.error) if self.info is None else self.info
        return msgspec.structs.replace(info, notes=(*info.notes, *notes)) if notes else info


def failure_of(error: BaseException, definition: Task[..., Any], running: Asked) -> Failure:
    """Raises it again if it is no failure of the task."""
    match error:
        case KeyboardInterrupt():
            raise error
        case CancelledError() if running.asked_to_end:  # otherwise the task's own code raised it
            raise error
        case WorkFailed():
            failure = Failure(error.as_itself(definition.raises), error.info)
        case _:
            failure = Failure(error)
    running.failed_with = failure.error
    return failure


async def after_failure(
    definition: Task[..., Any],
    pending: PendingTask,
    attempts: Attempts,
    failure: Failure,
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
        wait = await seconds_to_wait(definition, failure.error, past, *arguments)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or (isinstance(error, CancelledError) and running.asked_to_end):
            raise
        error.add_note(f"raised by the retry policy of {definition.where}, asked about the exception that is its cause")
        error.__cause__ = failure.error
        return Failed(describe(error))
    if wait is None:
        return Failed(failure.described())
    retry_at = min(TIME_MAX, now + round(wait * 1_000_000))
    deadline = definition.policy.deadline
    if deadline is not None and retry_at >= pending.scheduled_at + round(deadline * 1_000_000):
        note = f"not retried: the next attempt would begin after the deadline of {deadline:g} s"
        return Failed(failure.described(note))
    return Retried(failure.described(), retry_at)


def _seconds_left(definition: Task[..., Any], pending: PendingTask, clock: Clock) -> tuple[float | None, bool]:
    """Seconds this attempt may take, and whether it is the deadline over all attempts that says so."""
    timeout, deadline = definition.policy.timeout, definition.policy.deadline
    if deadline is None:
        return timeout, False
    left = deadline - (clock.now() - pending.scheduled_at) / 1_000_000
    if timeout is not None and timeout <= left:
        return timeout, False
    return left, True
