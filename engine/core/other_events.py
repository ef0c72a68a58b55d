"""Events in streams that are no runs': of workflows, limits, memos and debounced keys. All of them are notes."""

from __future__ import annotations

from engine.core.event_kinds import Note

__all__ = ["CallDebounced", "LimitSet", "ResultForgotten", "ResultMemoised", "WorkflowPaused", "WorkflowUnpaused"]


class WorkflowPaused(Note, frozen=True, tag="WorkflowPaused", kw_only=True):
    """In the stream of a workflow: nothing of its runs begins."""

    workflow: str
    by: str = ""
    reason: str = ""


class WorkflowUnpaused(Note, frozen=True, tag="WorkflowUnpaused", kw_only=True):
    """In the stream of a workflow: its runs go on."""

    workflow: str
    by: str = ""
    reason: str = ""


class LimitSet(Note, frozen=True, tag="LimitSet", kw_only=True):
    """In the stream of a pool or a rate: what it gives from here on. `window`: microseconds; 0: a pool of slots."""

    name: str
    limit: int
    window: int = 0
    by: str = ""
    reason: str = ""


class ResultMemoised(Note, frozen=True, tag="ResultMemoised", kw_only=True):
    """In the stream of a memo: what a task returned, for later calls under its key. Payload: the result."""

    task: str
    code_version: str
    run: str  # where it comes from: the id of the run,
    id: str  # and of the task call in it
    key: str = ""  # as JSON, if it is short
    expires_at: int = 0  # microseconds since the epoch; 0: never


class ResultForgotten(Note, frozen=True, tag="ResultForgotten", kw_only=True):
    """In the stream of a memo: nothing before this is used any more."""

    task: str
    by: str = ""
    reason: str = ""


class CallDebounced(Note, frozen=True, tag="CallDebounced", kw_only=True):
    """In the stream of a debounced key: this call's run is the one that is to begin, and the one before is not."""

    workflow: str
    key: str
    run: str  # id of this call's run
    since: int  # microseconds since the epoch: of the first call since there was quiet
    begins_at: int
    instead_of: str = ""  # id of the run of the call before
    by: str = ""
