"""Progress where there is no terminal: one line per thing that happened, as a pure function of run and event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from engine import PausedWorkflow, TaskState
from engine.cli.phrases import short_id
from engine.cli.readable import by_and_why, clipped, duration, error_text
from engine.cli.tally import Watched, task_seconds

__all__ = ["first_line", "line", "paused_lines", "short_id", "workflow_paused_line"]

_SECOND = 1_000_000


def first_line(run: Watched) -> str:
    """What is about to happen to the run."""
    if run.version_before == 0:
        return f"{run.workflow}: new run {run.run_id}"
    status = "" if run.state.status == "running" else f", {run.state.status}"
    return (
        f"{run.workflow}: run {run.run_id}{status}, {run.before:,} of {len(run.state.tasks):,} tasks are done already"
    )


def paused_lines(run: Watched) -> list[str]:
    """Why nothing of a run begins, and how it goes on: it is paused, or its workflow is."""
    lines = []
    if run.state.status == "paused":
        said = by_and_why(run.state.paused_by, run.state.pause_reason)
        lines.append(
            f"run {run.run_id} is paused{said}; it goes on after: holdfast unpause {run.run_id}{run.store_words}"
        )
    if run.workflow_paused is not None and not run.over:
        lines.append(workflow_paused_line(run.workflow_paused, run.store_words))
    return lines


def workflow_paused_line(paused: PausedWorkflow, store_words: str = "") -> str:
    """That a workflow is paused, by whom and why, and how its runs go on."""
    said = by_and_why(paused.by, paused.reason)
    unpause = f"holdfast unpause --workflow {paused.name}{store_words}"
    return f"workflow {paused.name} is paused{said}; its runs go on after: {unpause}"


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
            if task.reused_run:
                return f"done {run.done}/{len(run.state.tasks)}  {short_id(task.id)}, reused from run {task.reused_run}"
            seconds = task_seconds(task)
            took = "" if seconds is None else f" in {duration(seconds)}"
            again = f", attempt {task.attempts}" if task.attempts > 1 else ""
            return f"done {run.done}/{len(run.state.tasks)}  {short_id(task.id)}{took}{again}"
        case "AttemptFailed" | "TaskFailed" | "TaskHandedOut" if task is not None:
            return _task_text(task, event)
        case "ChildCompleted" | "ChildFailed":
            return _child_text(run, event)
        case "ContinuedAsNew":
            return f"goes on as new, epoch {run.state.epoch + 1}"
        case "TurnSlow":
            return _slow_text(event)
        case "RunSuspended":
            parked = event.get("reason") == "crashes"
            return "parked: its worker died again and again" if parked else "suspended: code and history disagree"
        case "RunCompleted" | "RunFailed" | "RunCancelled" | "RunTerminated" if many:
            return run.state.status
        case type_ if type_ in _ASKED and not event.get("carried"):
            return _asked_text(event)
        case _:
            return None


def _task_text(task: TaskState, event: Mapping[str, Any]) -> str:
    match event["type"]:
        case "AttemptFailed":
            wait = duration((event["retry_at"] - event["at"]) / _SECOND)
            return f"retry in {wait}  {short_id(task.id)}: attempt {event['attempt']} failed: {_why(task.error)}"
        case "TaskFailed":
            return f"failed  {short_id(task.id)} after {_attempts(task.attempts)}: {_why(task.error)}"
        case _:
            return f"handed out  {short_id(task.id)}: it waits for its token"


def _slow_text(event: Mapping[str, Any]) -> str:
    site = f" at {event['site']}" if event.get("site") else ""
    return f"slow: the workflow's own code took {duration(event['took'] / _SECOND)}{site}; other runs waited"


def _asked_text(event: Mapping[str, Any]) -> str:
    reason = f": {event['reason']}" if event.get("reason") else ""
    by = f" by {event['by']}" if event.get("by") and event["type"] != "CancelRequested" else ""
    name = f" {event['name']}" if "name" in event else ""
    return f"{_ASKED[event['type']]}{name}{by}{reason}"


_ASKED: Final[Mapping[str, str]] = {
    "CancelRequested": "cancel requested",
    "RunPaused": "paused",
    "RunUnpaused": "unpaused",
    "RunResumed": "resumed",
    "RunReopened": "reopened",
    "SignalReceived": "signal",
    "RequestReceived": "request",
}
"""What others have asked of the run, in a word."""


def _child_text(run: Watched, event: Mapping[str, Any]) -> str:
    child = run.state.children.get(event["id"])
    figures = f"{run.children_done}/{len(run.state.children)}"
    name = short_id(event["id"]) if child is None else f"run {child.run}"
    took = "" if child is None or child.ended_at is None else duration((child.ended_at - child.started_at) / _SECOND)
    if event["type"] == "ChildCompleted":
        return f"child done {figures}  {name} in {took}"
    return f"child {event['status']} {figures}  {name} after {took}"


def _why(error: Any) -> str:
    return "" if error is None else clipped(error_text(error), 160)


def _attempts(number: int) -> str:
    return "1 attempt" if number == 1 else f"{number} attempts"
