"""How runs stand in the store: the names of their streams, and the attributes that lists and claims use."""

from __future__ import annotations

from typing import Final

from engine.core.compare import Diagnosis, encode_diagnosis
from engine.core.events import (
    Event,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunSuspended,
    RunTerminated,
    encode_header,
)
from engine.core.fold import RunStatus
from eventstore import NewEvent

__all__ = [
    "ALONE",
    "EPOCH_START",
    "LET_ON",
    "MEMO_CATEGORY",
    "MEMO_OF",
    "ORIGIN",
    "PARENT",
    "PAUSED",
    "REPLY_CATEGORY",
    "ROOT",
    "RUN_CATEGORY",
    "SLOW",
    "STATUS",
    "WORKFLOW",
    "WORKFLOW_CATEGORY",
    "is_state_attribute",
    "new_event",
    "run_id_of",
    "state_attribute",
    "status_of",
    "stream_of",
    "suspension",
]

RUN_CATEGORY: Final = "run"
WORKFLOW: Final = "workflow"
STATUS: Final = "status"
PARENT: Final = "parent"
"""Attributes of a run's stream; the last is a child's: the id of the run that started it."""
ROOT: Final = "root"
"""Attribute of a child's stream: the id of the run at the top of its tree."""
EPOCH_START: Final = "epoch_start"
"""Attribute of a run that has continued as new: the version of the event that its epoch begins with."""
ORIGIN: Final = "origin"
"""Attribute of a rerun, or of a fork: the id of the run that it is one of."""
SLOW: Final = "slow"
"""Attribute of a run that kept others waiting: microseconds of its slowest turn."""
ALONE: Final = "alone"
"""Attribute of a run that may have killed its worker: how often that died while the run was the only suspect."""
WORKFLOW_CATEGORY: Final = "workflow"
"""Streams of workflows: whether one is paused, and who did that."""
PAUSED: Final = "paused"
"""Attribute of a workflow's stream while it is paused."""
LET_ON: Final = "let_on"
"""Attribute of a run that was cancelled while its workflow was paused: which pause that was (`pausing.Aside`)."""
REPLY_CATEGORY: Final = "reply"
"""Streams that hold the refusal of one request each."""
MEMO_CATEGORY: Final = "memo"
"""Streams that hold the results of a task under one key each (`memos`)."""
MEMO_OF: Final = "task"
"""Attribute of a memo's stream while there is anything in it to be used: the task's name."""


def stream_of(run_id: str) -> str:
    """The name of a run's stream."""
    return f"{RUN_CATEGORY}:{run_id}"


def run_id_of(stream: str) -> str:
    """The id of the run whose stream this is."""
    return stream.partition(":")[2]


def state_attribute(name: str) -> str:
    """The attribute that holds the version of the event which published this state last."""
    return f"state:{name}"


def is_state_attribute(name: str) -> bool:
    """Whether it is such an attribute."""
    return name.startswith("state:")


def new_event(event: Event, payload: bytes | None = None) -> NewEvent:
    """An event as the store takes it."""
    return NewEvent(encode_header(event), payload)


def suspension(diagnosis: Diagnosis, *, at: int) -> NewEvent:
    """The note that suspends a run."""
    return new_event(RunSuspended(at=at, reason=diagnosis.reason), encode_diagnosis(diagnosis))


def status_of(event: Event) -> RunStatus | None:
    """The status a run has from this event on; None when it does not change it."""
    match event:
        case RunCompleted():
            return "completed"
        case RunFailed():
            return "failed"
        case RunCancelled():
            return "cancelled"
        case RunTerminated():
            return "terminated"
        case RunSuspended():
            return "suspended"
        case _:
            return None
