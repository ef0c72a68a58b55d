"""What attempts say, and how they end, as what is to be recorded of it."""

from __future__ import annotations

from engine.core.events import AttemptFailed, AttemptHeartbeat, EffectReconciled, TaskCompleted, TaskHandedOut
from engine.core.failures import encode_error
from engine.core.instance import Instance
from engine.runtime.attempts import (
    AskedInVain,
    Committed,
    Completed,
    Failed,
    FoundDone,
    FoundUndone,
    HandedOut,
    Outcome,
    Retried,
    Reused,
    Withheld,
)
from engine.runtime.steps import Arrival, ignored, task_cancelled, task_failed

__all__ = ["heartbeat", "recorded"]


def heartbeat(task_id: str, number: int, details: bytes | None) -> Arrival:
    """The arrival that an attempt's heartbeat is."""
    return Arrival(AttemptHeartbeat(at=0, id=task_id, attempt=number), details)


def recorded(
    instance: Instance, task_id: str, number: int, outcome: Outcome | None, *, stopping: bool
) -> Arrival | None:
    """The arrival that an attempt's end is. The board learns what comes next for its task when that is recorded.

    None for one that has recorded it itself, and for an attempt that was cut off while the engine stops: it counts as
    never ended, and whoever has the run next begins another.
    """
    match outcome:
        case Completed() | FoundDone() | Reused():
            return _completed(task_id, number, outcome)
        case Failed(error=error):
            return Arrival(task_failed(task_id, number, error), encode_error(error))
        case Retried():
            return _retried(instance, task_id, number, outcome)
        case HandedOut():
            return _handed_out(instance, task_id, number)
        case FoundUndone() | AskedInVain():
            return _asked(instance, task_id, number, outcome)
        case Committed() | Withheld():
            return None
        case None if stopping:
            return None
        case None if task_id in instance.pending:
            return task_cancelled(task_id, number)  # its await lasts until an outcome
        case None:
            return ignored(task_id, number, "cancelled")


def _completed(task_id: str, number: int, outcome: Completed | FoundDone | Reused) -> Arrival:
    match outcome:
        case Completed():
            fact = TaskCompleted(at=0, id=task_id, attempt=number)
        case FoundDone():
            fact = TaskCompleted(at=0, id=task_id, attempt=number, reconciled=True)
        case Reused(run=run, id=id_):
            fact = TaskCompleted(at=0, id=task_id, attempt=0, reused_run=run, reused_id=id_)
    return Arrival(fact, outcome.payload)


def _retried(instance: Instance, task_id: str, number: int, outcome: Retried) -> Arrival:
    error = encode_error(outcome.error)
    pending = instance.pending.get(task_id)
    if pending is None:
        return ignored(task_id, number, "failed", error)
    if pending.asked_to_end:  # it was asked to end, and has: its failure is its outcome
        return Arrival(task_failed(task_id, number, outcome.error), error)
    note = AttemptFailed(at=0, id=task_id, attempt=number, error=outcome.error.type, retry_at=outcome.retry_at)
    return Arrival(note, error)


def _handed_out(instance: Instance, task_id: str, number: int) -> Arrival:
    pending = instance.pending.get(task_id)
    if pending is None:
        return ignored(task_id, number, "handed out")
    if pending.asked_to_end:
        return task_cancelled(task_id, number)
    return Arrival(TaskHandedOut(at=0, id=task_id, attempt=number))


def _asked(instance: Instance, task_id: str, number: int, outcome: FoundUndone | AskedInVain) -> Arrival:
    """The outside had no result to tell."""
    pending = instance.pending.get(task_id)
    error = encode_error(outcome.error) if isinstance(outcome, AskedInVain) else None
    if pending is None:
        return ignored(task_id, number, "not happened" if error is None else "failed", error)
    if isinstance(outcome, FoundUndone):
        if pending.asked_to_end:
            return task_cancelled(task_id, number)
        return Arrival(EffectReconciled(at=0, id=task_id, attempt=number, answer="not_happened"))
    if pending.asked_to_end:  # what is to be cleaned up cannot wait for an outside that does not answer
        return Arrival(task_failed(task_id, number, outcome.error), error)
    note = EffectReconciled(at=0, id=task_id, attempt=number, answer="unknown", retry_at=outcome.retry_at)
    return Arrival(note, error)
