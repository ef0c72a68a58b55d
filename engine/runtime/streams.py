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
from engine.errors import HoldfastError
from eventstore import NewEvent

__all__ = [
    "RUN_CATEGORY",
    "RUN_ID_MAX",
    "SLOW",
    "STATUS",
    "WORKFLOW",
    "check_run_id",
    "new_event",
    "run_id_of",
    "status_of",
    "stream_of",
    "suspension",
]

RUN_CATEGORY: Final = "run"
RUN_ID_MAX: Final = 200
"""Characters of a run's id."""
WORKFLOW: Final = "workflow"
STATUS: Final = "status"
SLOW: Final = "slow"
"""Attributes of a run's stream; the last, if there is one: microseconds of its slowest turn that others waited for."""


def stream_of(run_id: str) -> str:
    """The name of a run's stream."""
    return f"{RUN_CATEGORY}:{run_id}"


def run_id_of(stream: str) -> str:
    """The id of the run whose stream this is."""
    return stream.partition(":")[2]


def check_run_id(run_id: str) -> str:
    """The id, if it can be one. Raises `HoldfastError` saying why not."""
    if not isinstance(run_id, str) or not run_id or len(run_id) > RUN_ID_MAX or not run_id.isprintable():
        raise HoldfastError(f"{run_id!r} cannot be a run's id: 1 to {RUN_ID_MAX} printable characters")
    if len(run_id.encode()) > 2 * RUN_ID_MAX:
        raise HoldfastError(f"{run_id!r} cannot be a run's id: more than {2 * RUN_ID_MAX} bytes in UTF-8")
    return run_id


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
