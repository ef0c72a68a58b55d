"""What the state of a run is made of: its status, its tasks and its child runs; and what is read of payloads for it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from engine.core.attributes import AttributeValue, decode_attributes
from engine.core.compare import Diagnosis, decode_diagnosis
from engine.core.events import ParentClose
from engine.core.failures import ErrorInfo, decode_error
from engine.errors import HistoryError

__all__ = [
    "FINAL_STATUSES",
    "UNFINISHED",
    "ChildState",
    "RunStatus",
    "TaskState",
    "TaskStatus",
    "attributes_of",
    "diagnosis_of",
    "error_of",
]

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


def error_of(type_: str, payload: bytes | None) -> ErrorInfo:
    """The error of a payload; one that says why it cannot be read."""
    if payload is None:
        return ErrorInfo(type=type_, message="(destroyed)")
    try:
        return decode_error(payload)
    except HistoryError:  # the fold tells what it can
        return ErrorInfo(type=type_, message="(unreadable)")


def attributes_of(payload: bytes | None) -> dict[str, AttributeValue | None]:
    """The attributes of a payload; none of one that cannot be read."""
    try:
        return {} if payload is None else decode_attributes(payload)
    except (ValueError, RecursionError):
        return {}


def diagnosis_of(payload: bytes | None) -> Diagnosis | None:
    """The diagnosis of a payload, if it can be read."""
    try:
        return decode_diagnosis(payload) if payload is not None else None
    except (ValueError, RecursionError):
        return None
