"""A run in figures, as a pure function of its state: what progress displays, summaries and JSON documents are made of.

`Watched` is one run as one session of the command sees it: its state now, and what was recorded before the session
began. Tasks that were done then are never run again; the figures keep the two apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct, to_builtins

from engine import HistoryEvent, PausedWorkflow, RunState, TaskState

__all__ = [
    "ChildCounts",
    "Counts",
    "NameRow",
    "Watched",
    "child_counts",
    "counts",
    "failed_tasks",
    "name_rows",
    "task_seconds",
]

_SECOND = 1_000_000


class Watched(Struct, kw_only=True):
    """A run that a session works on or looks at. Times are microseconds since the epoch."""

    run_id: str
    workflow: str
    state: RunState
    began_at: int  # when the session began
    version_before: int = 0  # of the history when the session began
    before: int = 0  # tasks completed by then
    store_words: str = ""  # what a command that is shown must say of the store
    workflow_paused: PausedWorkflow | None = None  # as last looked at
    done: int = 0  # tasks completed by now; kept by `take`, because each line of a long list of tasks shows it
    children_done: int = 0  # likewise

    @classmethod
    def begin(cls, state: RunState, *, now: int, store_words: str = "") -> Watched:
        """Watch a run from its present state on."""
        done = state.counts().get("completed", 0)
        return cls(
            run_id=state.run_id,
            workflow=state.workflow,
            state=state,
            began_at=now,
            version_before=state.version,
            before=done,
            done=done,
            children_done=child_counts(state).done,
            store_words=store_words,
        )

    @property
    def over(self) -> bool:
        """Whether there is nothing more to wait for: the run has ended, or is suspended."""
        return self.state.ended or self.state.status == "suspended"

    def take(self, recorded: HistoryEvent) -> Mapping[str, Any]:
        """Fold one more event in. Returns its header as a dict with its `type`."""
        self.state.apply(recorded.version, recorded.event, recorded.payload)
        header: dict[str, Any] = to_builtins(recorded.event)
        match header["type"]:
            case "TaskCompleted":
                self.done += 1
            case "ChildCompleted" | "ChildFailed" | "ChildOutcomeIgnored":
                self.children_done += 1
            case "RunStarted" if header.get("epoch"):
                self.before = self.done = self.children_done = 0  # of the epoch that begins, as the tasks are
        return header


class Counts(Struct, frozen=True, kw_only=True):
    """Tasks of a run by what they are doing; `before` of those done were done before the session."""

    total: int
    done: int
    before: int
    running: int
    retrying: int
    scheduled: int
    handed_out: int  # left to whoever has their token
    failed: int
    cancelled: int
    cut_off: int  # attempts that a crash or a stop ended, in all tasks

    @property
    def now(self) -> int:
        """Tasks done in this session."""
        return self.done - self.before


class ChildCounts(Struct, frozen=True, kw_only=True):
    """Child runs of a run by how they stand, as it knows them."""

    total: int
    running: int
    completed: int
    failed: int  # every other end

    @property
    def done(self) -> int:
        """Those that have ended, in whatever way."""
        return self.total - self.running


class NameRow(Struct, frozen=True, kw_only=True):
    """All tasks of one name. Times are seconds, of completed tasks: from the start of the attempt that did it."""

    name: str
    count: int
    done: int
    running: int
    waiting: int  # for a retry
    failed: int
    attempts: int
    retries: int
    total_seconds: float
    max_seconds: float

    @property
    def mean_seconds(self) -> float:
        """Of one completed task; 0 when none is."""
        return self.total_seconds / self.done if self.done else 0.0


def counts(watched: Watched) -> Counts:
    """How many tasks are where."""
    by = watched.state.counts()
    return Counts(
        total=len(watched.state.tasks),
        done=by.get("completed", 0),
        before=watched.before,
        running=by.get("running", 0),
        retrying=by.get("retrying", 0),
        scheduled=by.get("scheduled", 0),
        handed_out=by.get("handed out", 0),
        failed=by.get("failed", 0),
        cancelled=by.get("cancelled", 0),
        cut_off=sum(_cut_off(task) for task in watched.state.tasks.values()),
    )


def _cut_off(task: TaskState) -> int:
    """Attempts that began and left no outcome: their worker died, or was stopped."""
    settled = task.failures + (task.status in {"completed", "running", "handed out", "cancelled"})
    return max(0, task.attempts - settled)


def child_counts(state: RunState) -> ChildCounts:
    """How many children are where."""
    status = [child.status for child in state.children.values()]
    running, completed = status.count("running"), status.count("completed")
    return ChildCounts(
        total=len(status), running=running, completed=completed, failed=len(status) - running - completed
    )


def name_rows(tasks: Iterable[TaskState]) -> list[NameRow]:
    """The tasks by name, in the order in which the names first appear."""
    groups: dict[str, list[TaskState]] = {}
    for task in tasks:
        groups.setdefault(task.name, []).append(task)
    return [_row(name, group) for name, group in groups.items()]


def _row(name: str, tasks: list[TaskState]) -> NameRow:
    seconds = [spent for task in tasks if (spent := task_seconds(task)) is not None]
    status = [task.status for task in tasks]
    return NameRow(
        name=name,
        count=len(tasks),
        done=status.count("completed"),
        running=status.count("running"),
        waiting=status.count("retrying"),
        failed=status.count("failed"),
        attempts=sum(task.attempts for task in tasks),
        retries=sum(task.failures - (task.status == "failed") for task in tasks),
        total_seconds=sum(seconds),
        max_seconds=max(seconds, default=0.0),
    )


def task_seconds(task: TaskState) -> float | None:
    """How long a completed task's last attempt took; None for every other."""
    if task.status != "completed" or task.started_at is None or task.ended_at is None:
        return None
    return (task.ended_at - task.started_at) / _SECOND


def failed_tasks(state: RunState) -> list[TaskState]:
    """Those that failed finally, in the order they were scheduled."""
    return [task for task in state.tasks.values() if task.status == "failed"]
