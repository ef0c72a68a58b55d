"""What `runs`, `show` and `history` print. Pure: renderables from what was read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import to_builtins
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engine import HistoryEvent, RunState, RunSummary, TaskState
from engine.cli.plain import short_id
from engine.cli.readable import clipped, clock, duration, error_text, one_line
from engine.cli.styles import MARKS, STYLES
from engine.cli.summary import diagnosis_view, error_view, value_view

__all__ = ["TASKS_SHOWN", "history_line", "runs_table", "state_view"]

TASKS_SHOWN: Final = 100
"""Rows of tasks that `show` prints; `--json` has all of them."""
_SECOND: Final = 1_000_000
_ENDED: Final = frozenset({"completed", "failed", "cancelled", "terminated"})
_DETAIL_WIDTH: Final = 100


def runs_table(runs: Iterable[RunSummary]) -> RenderableType:
    """One row per run. The duration of a run that goes on is that until it last moved."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("run", no_wrap=True)
    table.add_column("workflow")
    table.add_column("status", no_wrap=True)
    table.add_column("events", justify="right", no_wrap=True)
    table.add_column("started", no_wrap=True)
    table.add_column("duration", justify="right", no_wrap=True)
    listed = list(runs)
    slow = any(run.slow for run in listed)
    if slow:
        table.add_column("slowest turn", justify="right", no_wrap=True)
    for run in listed:
        spent = duration((run.updated_at - run.created_at) / _SECOND)
        table.add_row(
            Text(run.id, style="bold"),
            Text(run.workflow, no_wrap=True, overflow="ellipsis"),
            Text(f"{MARKS[run.status]} {run.status}", style=STYLES[run.status]),
            f"{run.version:,}",
            clock(run.created_at),
            spent if run.status in _ENDED else Text(f"{spent} +", style="dim"),
            *([Text(duration(run.slow / _SECOND) if run.slow else "", style="yellow")] if slow else []),
        )
    return table


def state_view(state: RunState, *, every_frame: bool = False) -> RenderableType:
    """A run as it stands: what it is, what it was given, what came of it, its tasks."""
    head = Text.assemble(
        (state.run_id, "bold"),
        f"  {state.workflow}  ",
        (f"{MARKS[state.status]} {state.status}", STYLES[state.status]),
    )
    parts: list[RenderableType] = [head, Padding(_facts(state), (0, 0, 0, 2))]
    parts += _section("arguments", value_view(state.arguments) if state.arguments not in {None, b"{}"} else None)
    match state.status:
        case "completed":
            parts += _section("result", value_view(state.result))
        case "failed":
            parts += _section("error", error_view(state, every_frame=every_frame))
        case "suspended" if state.diagnosis is not None:
            parts += _section("diagnosis", diagnosis_view(state.diagnosis))
        case _:
            pass
    parts += _section("tasks", _tasks_table(state) if state.tasks else None)
    if state.timers:
        lines = [f"{clock(deadline)}  {short_id(id_)}" for id_, deadline in state.timers.items()]
        parts += _section("timers", Padding(Text("\n".join(lines)), (0, 0, 0, 2)))
    return Group(*parts)


def _section(title: str, content: RenderableType | None) -> list[RenderableType]:
    return [] if content is None else [Text(""), Text(title, style="bold"), content]


def _facts(state: RunState) -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_row("started", clock(state.started_at))
    if state.ended_at is not None:
        facts.add_row(
            "ended", f"{clock(state.ended_at)}, after {duration((state.ended_at - state.started_at) / _SECOND)}"
        )
    else:
        facts.add_row("last event", clock(state.updated_at))
    facts.add_row("events", f"{state.version:,}")
    if state.cancel_requested and not state.ended:
        facts.add_row("cancel", "requested")
    if state.slow_turns:
        facts.add_row("slow turns", Text(_slow(state), style="yellow"))
    if state.reason:
        facts.add_row("reason", Text(state.reason))
    return facts


def _slow(state: RunState) -> str:
    """Turns in which the workflow's own code kept every other run of its engine waiting."""
    last = f", the last at {state.slow_site}" if state.slow_site else ""
    return f"{state.slow_turns:,}, the slowest {duration(state.slowest_turn / _SECOND)}{last}"


def _tasks_table(state: RunState) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("task")
    table.add_column("status", no_wrap=True)
    table.add_column("attempts", justify="right", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("arguments, or what went wrong")
    tasks = list(state.tasks.values())
    if len(tasks) > TASKS_SHOWN:  # then those first that somebody may have to do something about
        tasks.sort(key=lambda task: task.status == "completed")
    for task in tasks[:TASKS_SHOWN]:
        table.add_row(
            Text(short_id(task.id), no_wrap=True, overflow="ellipsis"),
            Text(task.status, style=STYLES[task.status]),
            str(task.attempts),
            _took(task),
            _task_detail(task),
        )
    parts: list[RenderableType] = [table]
    if len(tasks) > TASKS_SHOWN:
        parts.append(Text(f"… {len(tasks) - TASKS_SHOWN:,} more (--json shows all)", style="dim"))
    return Padding(Group(*parts), (0, 0, 0, 2), expand=False)


def _took(task: TaskState) -> str:
    if task.started_at is None or task.ended_at is None:
        return ""
    return duration((task.ended_at - task.started_at) / _SECOND)


def _task_detail(task: TaskState) -> Text:
    if task.error is not None and task.status != "completed":
        retry = f"retry at {clock(task.retry_at, day=False)}: " if task.retry_at is not None else ""
        said, style = clipped(f"{retry}{error_text(task.error)}", _DETAIL_WIDTH), "red"
    else:
        said, style = "" if task.arguments in {None, b"{}"} else one_line(task.arguments, _DETAIL_WIDTH), "dim"
    return Text(said, style=style, no_wrap=True, overflow="ellipsis")


def history_line(recorded: HistoryEvent) -> Text:
    """Version, time, type, id and detail of one event."""
    header: dict[str, Any] = to_builtins(recorded.event)
    type_, at = header.pop("type"), header.pop("at")
    return Text.assemble(
        (f"{recorded.version:>6}", "dim"),
        f"  {clock(at)[:10]} {clock(at, day=False)}  ",
        (f"{type_:<16}", _event_style(type_)),
        f"  {short_id(header.pop('id', ''))}" if header.get("id") else "",
        ("  " + _detail(type_, header, recorded.payload)).rstrip(),
    )


def _event_style(type_: str) -> str:
    word = type_.removeprefix("Task").removeprefix("Run").removeprefix("Timer").removeprefix("Attempt").lower()
    return STYLES.get(word, "" if type_.startswith(("Task", "Run")) else "cyan") or "bold"


def _detail(type_: str, header: Mapping[str, Any], payload: bytes | None) -> str:
    """The fields that say something to a person, then the start of the payload."""
    said = []
    for key, value in header.items():
        if key in {"seed", "rule", "python", "anyio"} or value == "":
            continue
        shown = clock(value) if key in {"deadline", "retry_at"} else value
        if key == "took":
            shown = duration(value / _SECOND)
        said.append(f"{key}={shown}")
    if payload is not None and type_ not in {"RunSuspended", "TaskFailed", "AttemptFailed", "RunFailed"}:
        said.append(one_line(payload, _DETAIL_WIDTH))
    elif payload is not None:
        said.append(_error_detail(payload))
    return " ".join(said)


def _error_detail(payload: bytes) -> str:
    value = msgspec.json.decode(payload)
    return clipped(str(value.get("message", "")), _DETAIL_WIDTH) if isinstance(value, dict) else ""
