"""What the state of a run is made of: its status, its tasks and its child runs."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from engine.core.events import ParentClose
from engine.core.failures import ErrorInfo

__all__ = ["FINAL_STATUSES", "UNFINISHED", "ChildState", "RunStatus", "TaskState", "TaskStatus"]

RunStatus = Literal[
    "queued", "running", "paused", "suspended", "completed", "failed", "cancelled", "terminated", "pruned"
]
TaskStatus = Literal["scheduled", "running", "retrying", "handed out", "completed", "failed", "cancelled"]
UNFINISHED: tuple[RunStatus, ...] = ("queued", "running", "paused", "suspended")
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
    heartbeat_at: int | None = None  # when an attempt last said that it lives
    heartbeat: bytes | None = None  # the last details that one gave
    reused_run: str = ""  # id of the run whose result it has, of a call `reused_id` there; no attempt was made then
    reused_id: str = ""


class ChildState(Struct, kw_only=True):
    """One child run, as its parent knows it. Times are microseconds since the epoch."""

    id: str  # of the call
    run: str
    workflow: str
    parent_close: ParentClose = "cancel"
    status: str = "running"  # or how it ended
    site: str = ""
    started_at: int = 0
    ended_at: int | None = None
    asked_to_end: bool = False
