"""Holdfast: plain asyncio that survives a crash at any point. See README.md and docs/architecture.md."""

from __future__ import annotations

from engine.core.call import Call
from engine.core.compare import Diagnosis
from engine.core.failures import ErrorInfo
from engine.core.fold import ChildState, RunState, RunStatus, TaskState, TaskStatus
from engine.runtime import Engine, HistoryEvent, PausedWorkflow, PendingRequest, Rehearsal, RunHandle, RunSummary
from engine.tasks import Attempt, Happened, Memo, NotHappened, Task, TaskOptions, attempt, task
from engine.workflows import (
    ChildHandle,
    ChildOptions,
    Feed,
    Query,
    Received,
    Request,
    RunRef,
    Signal,
    SignalMessage,
    State,
    Workflow,
    durable,
    workflow,
)

__all__ = [
    "Attempt",
    "Call",
    "ChildHandle",
    "ChildOptions",
    "ChildState",
    "Diagnosis",
    "Engine",
    "ErrorInfo",
    "Feed",
    "Happened",
    "HistoryEvent",
    "Memo",
    "NotHappened",
    "PausedWorkflow",
    "PendingRequest",
    "Query",
    "Received",
    "Rehearsal",
    "Request",
    "RunHandle",
    "RunRef",
    "RunState",
    "RunStatus",
    "RunSummary",
    "Signal",
    "SignalMessage",
    "State",
    "Task",
    "TaskOptions",
    "TaskState",
    "TaskStatus",
    "Workflow",
    "attempt",
    "durable",
    "task",
    "workflow",
]
