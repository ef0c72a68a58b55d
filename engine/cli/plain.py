"""Progress where there is no terminal: one line per thing that happened, as a pure function of run and event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.cli.readable import clipped, duration, error_text
from engine.cli.tally import Watched, task_seconds

__all__ = ["first_line", "line", "short_id"]

_SECOND = 1_000_000


def first_line(run: Watched) -> str:
    """What is about to happen to the run."""
    if run.version_before == 0:
        return f"{run.workflow}: new run {run.run_id}"
    status = "" if run.state.status == "running" else f", {run.state.status}"
    return (
        f"{run.workflow}: run {run.run_id}{status}, {run.before:,} of {len(run.state.tasks):,} tasks are done already"
    )


def line(run: Watched, event: Mapping[str, Any], *, many: bool = False) -> str | None:
    """The line for an event that `run` has already taken in; None for events that are worth none."""
    text = _text(run, event, many=many)
    if text is None:
        return None
    elapsed = f"[{duration((event['at'] - run.began_at) / _SECOND):>8}]"
    return f"{elapsed} {run.run_id}: {text}" if many else f"{elapsed} {text}"


def _text(run: Watched, event: Mapping[str, Any], *, many: bool) -> str | None:
    task = run.state.tasks.get(event.get("id", ""))
    match event["type"]:
        case "TaskCompleted" if task is not None:
            seconds = task_seconds(task)
            took = "" if seconds is None else f" in {duration(seconds)}"
            again = f", attempt {task.attempts}" if task.attempts > 1 else ""
            return f"done {run.done}/{len(run.state.tasks)}  {short_id(task.id)}{took}{again}"
        case "AttemptFailed" if task is not None:
            wait = duration((event["retry_at"] - event["at"]) / _SECOND)
            return f"retry in {wait}  {short_id(task.id)}: attempt {event['attempt']} failed: {_why(task.error)}"
        case "TaskFailed" if task is not None:
            return f"failed  {short_id(task.id)} after {_attempts(task.attempts)}: {_why(task.error)}"
        case "CancelRequested":
            reason = f": {event['reason']}" if event.get("reason") else ""
            return f"cancel requested{reason}"
        case "TurnSlow":
            site = f" at {event['site']}" if event.get("site") else ""
            return f"slow: the workflow's own code took {duration(event['took'] / _SECOND)}{site}; other runs waited"
        case "RunResumed":
            return "resumed"
        case "RunSuspended":
            return "suspended: code and history disagree"
        case "RunCompleted" | "RunFailed" | "RunCancelled" | "RunTerminated" if many:
            return run.state.status
        case _:
            return None


def _why(error: Any) -> str:
    return "" if error is None else clipped(error_text(error), 160)


def _attempts(number: int) -> str:
    return "1 attempt" if number == 1 else f"{number} attempts"


def short_id(task_id: str) -> str:
    """A task's id without the name of the workflow that all of them begin with."""
    return task_id.partition("/")[2] or task_id
