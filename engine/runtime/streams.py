"""How runs stand in the store: the names of their streams, and the attributes that lists and claims use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.core.attributes import AttributeValue, decode_attributes
from engine.core.compare import Diagnosis, encode_diagnosis
from engine.core.events import (
    Event,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunPruned,
    RunSuspended,
    RunTerminated,
    encode_header,
)
from engine.core.fold import RunStatus
from eventstore import NewEvent
from eventstore.port import Scalar

__all__ = [
    "ALONE",
    "BOUND",
    "CALL",
    "CODE",
    "ENDED",
    "EPOCH_START",
    "LET_ON",
    "MEMO_CATEGORY",
    "MEMO_OF",
    "ORIGIN",
    "PARENT",
    "PAUSED",
    "PAYLOADS",
    "QUEUED",
    "REPLY_CATEGORY",
    "ROOT",
    "RUN_CATEGORY",
    "SINGLETON",
    "SLOW",
    "STATUS",
    "SUSPENDED_FOR",
    "TRIED",
    "VERSION",
    "WAITS",
    "WORKFLOW",
    "WORKFLOW_CATEGORY",
    "is_state_attribute",
    "new_event",
    "own_attribute",
    "own_attributes",
    "run_id_of",
    "set_attributes",
    "state_attribute",
    "status_of",
    "stream_of",
    "suspension",
    "workflow_of",
]

RUN_CATEGORY: Final = "run"
WORKFLOW: Final = "workflow"
VERSION: Final = "version"
"""Attribute of a run of a workflow that has versions: the one that its last epoch is of."""
STATUS: Final = "status"
PARENT: Final = "parent"
"""Attributes of a run's stream; the last is a child's: the id of the run that started it."""
CALL: Final = "call"
"""Attribute of a child whose id does not say by which call of its parent it was started: that call (see `letters`)."""
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
SUSPENDED_FOR: Final = "suspended_for"
"""Attribute of a run that is suspended: the reason of its diagnosis."""
TRIED: Final = "tried"
"""Attribute of a run that was suspended: the codes (`codes.Codes`) that it was tried with since, and did not fit."""
CODE: Final = "code"
"""Attribute of a run that went on by itself, as other code did not fit: the one that does. Others do not claim it."""
BOUND: Final = "bound"
"""Attribute of a run that has a `CODE`: True, so that these runs can be found, whichever it is."""
WORKFLOW_CATEGORY: Final = "workflow"
"""Streams of workflows: whether one is paused, and who did that."""
PAUSED: Final = "paused"
"""Attribute of a workflow's stream while it is paused."""
WAITS: Final = "waits"
"""Attribute of a run that has not begun: not before when, in microseconds since the epoch; 0: as soon as it may."""
SINGLETON: Final = "singleton"
"""Attribute of a run that excludes others of its workflow: the key. Of the pool that this is done by: True."""
QUEUED: Final = "queued"
"""Attribute of a run that is in the queue for its key: the pool that the key is."""
LET_ON: Final = "let_on"
"""Attribute of a run that was cancelled while its workflow was paused: which pause that was (`pausing.Aside`)."""
_OWN: Final = "attribute:"
"""What the names of authors' own attributes stand behind, so that none can be one of the engine's."""
PAYLOADS: Final = "payloads"
"""Attribute of a run whose payloads are destroyed: "some" of them; all, "going" until that is done, then "gone"."""
ENDED: Final = "ended"
"""Attribute of such a run: when it was last written to before that, in microseconds since the epoch."""
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


def workflow_of(attributes: Mapping[str, Scalar]) -> tuple[str, str]:
    """The workflow of the run whose stream has these attributes, and its version; empty: it has none."""
    return str(attributes.get(WORKFLOW, "")), str(attributes.get(VERSION) or "")


def state_attribute(name: str) -> str:
    """The attribute that holds the version of the event which published this state last."""
    return f"state:{name}"


def is_state_attribute(name: str) -> bool:
    """Whether it is such an attribute."""
    return name.startswith("state:")


def own_attribute(name: str) -> str:
    """The attribute of a run's stream that holds an attribute of the run, as its author names it."""
    return f"{_OWN}{name}"


def own_attributes(attributes: Mapping[str, Scalar]) -> dict[str, AttributeValue]:
    """The attributes of the run whose stream has these, by the author's names."""
    return {
        name.removeprefix(_OWN): value
        for name, value in attributes.items()
        if name.startswith(_OWN) and value is not None
    }


def set_attributes(payload: bytes) -> dict[str, Scalar]:
    """What an event that gives or sets a run's attributes changes of its stream's."""
    return {own_attribute(name): value for name, value in decode_attributes(payload).items()}


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
        case RunPruned():
            return "pruned"
        case _:
            return None
