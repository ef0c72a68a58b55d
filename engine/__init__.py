"""Holdfast: plain asyncio that survives a crash at any point. See README.md and docs/architecture.md."""

from __future__ import annotations

from engine.core.call import Call
from engine.core.compare import Diagnosis
from engine.core.failures import ErrorInfo
from engine.core.fold import RunState, RunStatus, TaskState, TaskStatus
from engine.runtime import Engine, HistoryEvent, RunHandle, RunSummary
from engine.tasks import Attempt, Task, TaskOptions, attempt, task
from engine.workflows import Workflow, durable, workflow

__all__ = [
    "Attempt",
    "Call",
    "Diagnosis",
    "Engine",
    "ErrorInfo",
    "HistoryEvent",
    "RunHandle",
    "RunState",
    "RunStatus",
    "RunSummary",
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
