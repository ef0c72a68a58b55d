"""Holdfast: plain asyncio that survives a crash at any point. See README.md and docs/architecture.md."""

from __future__ import annotations

from engine.core.call import Call
from engine.core.compare import Diagnosis
from engine.core.failures import ErrorInfo
from engine.core.fold import ChildState, RunState, RunStatus, TaskState, TaskStatus
from engine.runtime import (
    CircuitState,
    Engine,
    Gate,
    HistoryEvent,
    LimitState,
    PausedWorkflow,
    PendingRequest,
    Rehearsal,
    RunHandle,
    RunSummary,
    Verdict,
    diagnose,
)
from engine.tasks import Attempt, Breaker, Happened, NotHappened, Rate, Task, TaskOptions, Transaction, attempt, task
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
    "Breaker",
    "Call",
    "ChildHandle",
    "ChildOptions",
    "ChildState",
    "CircuitState",
    "Diagnosis",
    "Engine",
    "ErrorInfo",
    "Feed",
    "Gate",
    "Happened",
    "HistoryEvent",
    "LimitState",
    "NotHappened",
    "PausedWorkflow",
    "PendingRequest",
    "Query",
    "Rate",
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
    "Transaction",
    "Verdict",
    "Workflow",
    "attempt",
    "diagnose",
    "durable",
    "task",
    "workflow",
]
