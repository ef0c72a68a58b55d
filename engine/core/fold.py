"""The state of a run as a pure fold of its history: no code of the workflow is needed, or run.

Good for every reader who wants to know how things stand, now or at any version: status pages, progress, audits.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct, field

from engine.core.compare import Diagnosis, decode_diagnosis
from engine.core.events import (
    AnyEvent,
    AttemptFailed,
    AttemptOutcomeIgnored,
    CancelRequested,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunResumed,
    RunStarted,
    RunSuspended,
    RunTerminated,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TimerCancelled,
    TimerFired,
    TimerStarted,
    TurnSlow,
)
from engine.core.failures import ErrorInfo, decode_error
from engine.errors import HistoryError

__all__ = ["FINAL_STATUSES", "RunState", "RunStatus", "TaskState", "TaskStatus"]

RunStatus = Literal["running", "suspended", "completed", "failed", "cancelled", "terminated"]
TaskStatus = Literal["scheduled", "running", "retrying", "completed", "failed", "cancelled"]
FINAL_STATUSES: frozenset[RunStatus] = frozenset({"completed", "failed", "cancelled", "terminated"})


class TaskState(Struct, kw_only=True):
    """One task call. Times are microseconds since the epoch; `attempts` counts those begun, cut-off ones included."""

    id: str
    name: str
    status: TaskStatus = "scheduled"
    site: str = ""
    arguments: bytes | None = None
    result: bytes | None = None
    error: ErrorInfo | None = None  # of the last failed attempt
    attempts: int = 0
    failures: int = 0
    scheduled_at: int = 0
    started_at: int | None = None  # of the last attempt
    ended_at: int | None = None
    retry_at: int | None = None


class RunState(Struct, kw_only=True):
    """A run after `version` events. `apply` moves it on by one."""

    run_id: str
    workflow: str = ""
    status: RunStatus = "running"
    version: int = 0
    arguments: bytes | None = None
    result: bytes | None = None
    error: ErrorInfo | None = None
    reason: str = ""  # of a cancellation or termination
    diagnosis: Diagnosis | None = None  # while suspended
    started_at: int = 0
    updated_at: int = 0
    ended_at: int | None = None
    cancel_requested: bool = False
    slow_turns: int = 0  # that kept other runs waiting
    slowest_turn: int = 0  # microseconds
    slow_site: str = ""  # file and line where the last of them was seen
    tasks: dict[str, TaskState] = field(default_factory=dict)  # by id, in the order they were scheduled
    timers: dict[str, int] = field(default_factory=dict)  # those running: id to deadline

    @property
    def ended(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.status in FINAL_STATUSES

    def counts(self) -> dict[TaskStatus, int]:
        """How many tasks are in each status; absent ones are not listed."""
        counts: dict[TaskStatus, int] = {}
        for task in self.tasks.values():
            counts[task.status] = counts.get(task.status, 0) + 1
        return counts

    def apply(self, version: int, event: AnyEvent, payload: bytes | None) -> None:
        """Fold one event in. Events of a run are applied in order, each once."""
        self.version = version
        self.updated_at = max(self.updated_at, event.at)
        match event:
            case TaskScheduled() | TaskStarted() | TaskCompleted() | TaskFailed() | TaskCancelled() | AttemptFailed():
                self._apply_to_task(event, payload)
            case TimerStarted(id=id_, deadline=deadline):
                self.timers[id_] = deadline
            case TimerFired(id=id_) | TimerCancelled(id=id_):
                self.timers.pop(id_, None)
            case AttemptOutcomeIgnored():
                return
            case _:
                self._apply_to_run(event, payload)

    def _apply_to_task(
        self,
        event: TaskScheduled | TaskStarted | TaskCompleted | TaskFailed | TaskCancelled | AttemptFailed,
        payload: bytes | None,
    ) -> None:
        if isinstance(event, TaskScheduled):
            self.tasks[event.id] = TaskState(
                id=event.id, name=event.task, site=event.site, arguments=payload, scheduled_at=event.at
            )
            return
        task = self.tasks.get(event.id)
        if task is None:
            return  # a damaged or partial history; the fold tells what it can
        match event:
            case TaskStarted(attempt=attempt, at=at):
                task.status, task.attempts, task.started_at, task.retry_at = "running", attempt, at, None
            case AttemptFailed(retry_at=retry_at):
                task.status, task.retry_at, task.error = "retrying", retry_at, _error(event.error, payload)
                task.failures += 1
            case TaskCompleted(at=at):
                task.status, task.result, task.ended_at = "completed", payload, at
            case TaskFailed(at=at):
                task.status, task.error, task.ended_at = "failed", _error(event.error, payload), at
                task.failures += 1
            case TaskCancelled(at=at):
                task.status, task.ended_at = "cancelled", at

    def _apply_to_run(self, event: AnyEvent, payload: bytes | None) -> None:
        match event:
            case TurnSlow(took=took, site=site):
                self.slow_turns, self.slowest_turn = self.slow_turns + 1, max(self.slowest_turn, took)
                self.slow_site = site or self.slow_site
            case RunStarted(workflow=workflow, at=at):
                self.workflow, self.started_at, self.arguments = workflow, at, payload
            case CancelRequested():
                self.cancel_requested = True
            case RunSuspended():
                self.status = "suspended"
                self.diagnosis = _diagnosis(payload)
            case RunResumed():
                self.status, self.diagnosis = "running", None
            case RunCompleted(at=at):
                self.status, self.result, self.ended_at = "completed", payload, at
            case RunFailed(at=at, error=error):
                self.status, self.error, self.ended_at = "failed", _error(error, payload), at
            case RunCancelled(at=at, reason=reason):
                self.status, self.reason, self.ended_at = "cancelled", reason, at
            case RunTerminated(at=at, reason=reason):
                self.status, self.reason, self.ended_at = "terminated", reason, at
            case _:
                return


def _error(type_: str, payload: bytes | None) -> ErrorInfo:
    if payload is None:
        return ErrorInfo(type=type_, message="(destroyed)")
    try:
        return decode_error(payload)
    except HistoryError:  # the fold tells what it can
        return ErrorInfo(type=type_, message="(unreadable)")


def _diagnosis(payload: bytes | None) -> Diagnosis | None:
    try:
        return decode_diagnosis(payload) if payload is not None else None
    except msgspec.MsgspecError:
        return None
