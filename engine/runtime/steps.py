"""One step of a run: what arrives, and what is decided, before it is written.

Plain data and the small functions that make events of it; `driver` fills a `Step`, writes it, and acts on it.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType, field

from engine.core.events import (
    AttemptOutcomeIgnored,
    Fact,
    Note,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerFired,
)
from engine.core.failures import ErrorInfo, encode_error
from engine.core.instance import Decided, Instance, PendingTask
from engine.executors import Executor
from engine.runtime.streams import STATUS, new_event, status_of
from eventstore import NewEvent

__all__ = ["Arrival", "Step", "as_ignored", "ignored", "task_cancelled", "task_failed", "wanted"]


class Arrival(Struct, frozen=True):
    """What is to be recorded next, not yet stamped: a fact on its way to the instance, or a note.

    `message` is the mailbox message it came by; without an event, the message is just taken out of the box.
    """

    event: Fact | Note | None
    payload: bytes | None = None
    message: str | None = None


class Step(Struct):
    """What one step decided: written as a whole, then acted on."""

    events: list[NewEvent] = field(default_factory=list)
    consumes: list[tuple[int, str]] = field(default_factory=list)  # behind how many events of this step, which message
    cancelled: list[str] = field(default_factory=list)  # tasks whose outcome is no longer wanted
    scheduled: list[str] = field(default_factory=list)
    starting: list[tuple[PendingTask, Executor]] = field(default_factory=list)
    progress: bool = False
    suspended: bool = False
    resumed: bool = False
    release: bool = False
    alarm: int | UnsetType | None = UNSET
    attributes: dict[str, str | int] = field(default_factory=dict)
    ended: Decided | None = None

    def add(self, decided: list[Decided]) -> None:
        """Write decisions behind the fact that led to them, and note what follows from them."""
        for item in decided:
            event = item.event
            self.events.append(new_event(event, item.payload))
            if isinstance(event, TaskScheduled):
                self.scheduled.append(event.id)
            elif isinstance(event, TaskCancelled):
                self.cancelled.append(event.id)
            elif (status := status_of(event)) is not None:
                self.ended = item
                self.attributes[STATUS] = status

    def give_back(self) -> None:
        """Its attempts will not begin: their slots are free again."""
        for _, executor in self.starting:
            executor.slots.give_back()


def task_cancelled(task_id: str, number: int) -> Arrival:
    """The outcome of a task that was asked to end, and did, or never began."""
    error = ErrorInfo(type="asyncio.exceptions.CancelledError", message="the task was cancelled")
    return Arrival(task_failed(task_id, number, error), encode_error(error))


def wanted(fact: Fact, instance: Instance) -> bool:
    """Whether the run still waits for this fact."""
    match fact:
        case TaskCompleted(id=id_) | TaskFailed(id=id_):
            return id_ in instance.pending
        case TimerFired(id=id_):
            return id_ in instance.timers
        case _:
            return instance.outcome is None


def task_failed(task_id: str, number: int, error: ErrorInfo) -> TaskFailed:
    """The final failure of a task, not yet stamped."""
    return TaskFailed(at=0, id=task_id, error=error.type, attempt=number)


def ignored(task_id: str, number: int, outcome: str, payload: bytes | None = None) -> Arrival:
    """The note of an outcome that nobody waits for."""
    return Arrival(AttemptOutcomeIgnored(at=0, id=task_id, attempt=number, outcome=outcome), payload)


def as_ignored(arrival: Arrival) -> Arrival | None:
    """A fact for a cancelled or finished task becomes a note, never delivered; other stale facts leave no trace."""
    match arrival.event:
        case TaskCompleted(id=id_, attempt=number):
            return ignored(id_, number, "completed", arrival.payload)
        case TaskFailed(id=id_, attempt=number):
            return ignored(id_, number, "failed", arrival.payload)
        case _:
            return None
