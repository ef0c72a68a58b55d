"""Asking the outside what became of an attempt that began and did not end well: see `engine.tasks.effects`.

The question is asked in a slot, under the attempt's own idempotency key, before any further attempt, and by nobody who
was told to stop. It has no effect of its own, so nothing is recorded before it; the answer is.
"""

from __future__ import annotations

from typing import Any

from engine.core.failures import describe
from engine.core.pending import PendingTask
from engine.core.replay import Attempts
from engine.errors import ArgumentsError, NotRecordable, PayloadTooLarge, TaskInterrupted
from engine.executors import Executor, Work
from engine.runtime.alarms import Alarms
from engine.runtime.attempts import (
    Asked,
    AskedInVain,
    Failed,
    Failure,
    FoundDone,
    FoundUndone,
    Outcome,
    Retried,
    after_failure,
    encoded,
    failure_of,
)
from engine.runtime.limiting import within
from engine.tasks import Attempt, Happened, NotHappened, Task
from eventstore.clock import Clock

__all__ = ["interrupted", "is_cut_off", "must_ask", "run_reconciliation"]


def must_ask(pending: PendingTask, attempts: Attempts) -> bool:
    """Whether the outside is to be asked before anything else is done about this task."""
    definition: Any = pending.definition
    return definition.policy.effect == "reconcile" and attempts.started > attempts.settled


def is_cut_off(pending: PendingTask, attempts: Attempts) -> bool:
    """Whether an attempt of a task that is tried at most once has begun, and nobody knows how it ended."""
    definition: Any = pending.definition
    return attempts.open and definition.policy.effect == "at_most_once"


def interrupted(definition: Task[..., Any], number: int) -> TaskInterrupted:
    """The error of a task that may not be tried again."""
    return TaskInterrupted(
        f"attempt {number} of {definition.where} began, and its worker was gone before it had ended: whether it had"
        " its effect is not known, and effect='at_most_once' says that it is never tried again"
    )


async def run_reconciliation(
    pending: PendingTask,
    attempts: Attempts,
    attempt: Attempt,
    *,
    executor: Executor,
    clock: Clock,
    alarms: Alarms,
    running: Asked,
) -> Outcome:
    """Ask, in a slot taken before. Only a cancellation that was asked for comes out as an exception."""
    definition: Any = pending.definition
    try:
        args, kwargs = definition.arguments.decode(pending.arguments, pending.carriage)
    except ArgumentsError as error:
        executor.slots.give_back()
        return Failed(describe(error))
    run = executor.run(Work(definition, pending.arguments, args, kwargs, attempt, definition.policy.reconcile))
    try:
        answer = await within(
            definition.policy.timeout, run, definition, whole=False, clock=clock, alarms=alarms, pulse=None
        )
        if isinstance(answer, NotHappened):
            return FoundUndone()
        if isinstance(answer, Happened):
            return FoundDone(await encoded(answer.result, definition, pending, running))
        wrong = TypeError(
            f"the reconcile function of {definition.where} returns Happened(result) or NotHappened(), not {answer!r}"
        )
        return Failed(describe(_in_vain(definition, attempts, wrong)))  # it would say the same kind of thing again
    except (NotRecordable, PayloadTooLarge) as error:
        return Failed(describe(_in_vain(definition, attempts, error)))
    except BaseException as error:
        failure: Failure = failure_of(error, definition, running)
    try:
        asked = args, kwargs
        outcome = await after_failure(definition, pending, attempts, failure, asked, clock=clock, running=running)
        if isinstance(outcome, Retried):
            return AskedInVain(outcome.error, outcome.retry_at)
        return Failed(describe(_in_vain(definition, attempts, failure.error)))
    finally:
        del failure  # the error knows this frame


def _in_vain(definition: Task[..., Any], attempts: Attempts, failure: BaseException) -> TaskInterrupted:
    error = TaskInterrupted(
        f"attempt {attempts.started} of {definition.where} did not end well, and asking what became of it failed:"
        f" {type(failure).__name__}: {failure}"
    )
    error.__cause__ = failure
    return error
