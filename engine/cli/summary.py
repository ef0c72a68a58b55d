"""What is said at the end of a session about each run: how it ended, its result or its error, its tasks in figures.

Pure: renderables from a `Watched` run, or a JSON document of it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import to_builtins
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engine import Diagnosis, RunState
from engine.cli.phrases import short_id
from engine.cli.readable import clipped, counted, duration, error_lines, error_text, instant, value_lines
from engine.cli.styles import MARKS, STYLES
from engine.cli.tally import Watched, child_counts, counts, failed_tasks, name_rows

__all__ = ["diagnosis_view", "document", "error_view", "headline", "summary", "tasks_table", "value_view"]

_SECOND: Final = 1_000_000
_INDENT: Final = (0, 0, 0, 2)
_FAILED_TASKS_SHOWN: Final = 10


def summary(
    run: Watched, *, now: int, interrupted: bool = False, every_frame: bool = False, brief: bool = False
) -> RenderableType:
    """The final words about a run. `interrupted`: the session was stopped before the run was through.

    `brief`: one of many; without its result and its tasks in figures.
    """
    parts: list[RenderableType] = [headline(run, now, interrupted=interrupted)]
    notes = _notes(run)
    parts += [Text(f"  {note}") for note in notes]
    state = run.state
    match state.status:
        case "completed" if not brief:
            parts += [Text(""), value_view(state.result)]
        case "failed":
            parts += [Text(""), error_view(state, every_frame=every_frame)]
        case "suspended" if state.diagnosis is not None:
            parts += [Text(""), diagnosis_view(state.diagnosis)]
        case _:
            pass
    if state.tasks and not brief:
        parts += [Text(""), tasks_table(run)]
    return Group(*parts)


def headline(run: Watched, now: int, *, interrupted: bool) -> Text:
    """How the run ended, or did not, and how long the session took."""
    status = run.state.status
    session = max(0, (run.state.ended_at or now) - run.began_at) / _SECOND
    text = Text()
    if interrupted and not run.over:
        text.append(f"{MARKS['suspended']} {run.workflow} interrupted", style="bold yellow")
    else:
        text.append(f"{MARKS[status]} {run.workflow} {status}", style=f"bold {STYLES[status]}")
    if run.state.ended and run.version_before == run.state.version:
        text.append(" before; nothing was left to do")
    elif status in {"completed", "failed"}:
        text.append(f" {'in' if status == 'completed' else 'after'} {duration(session)}")
    else:
        text.append(f" after {duration(session)}")
    if run.state.ended_at is not None and run.version_before and run.version_before < run.state.version:
        text.append(f", {duration((run.state.ended_at - run.state.started_at) / _SECOND)} since it began")
    if run.state.reason:
        text.append(f": {run.state.reason}")
    text.append(f"   run {run.run_id}", style="dim")
    return text


def _notes(run: Watched) -> list[str]:
    figures = counts(run)
    notes = []
    if not run.over:
        notes.append(f"{figures.done:,} of the {figures.total:,} tasks so far are done, and will not be run again")
    elif figures.before:
        notes.append(f"{figures.before:,} of {figures.total:,} tasks were already done, not run again")
    if figures.cut_off:
        one = figures.cut_off == 1
        notes.append(
            f"{figures.cut_off:,} attempt{' was' if one else 's were'} cut off by a stop or a crash and begun again"
        )
    children = child_counts(run.state)
    if children.total:
        ends = [f"{children.completed:,} completed"]
        ends += [f"{children.failed:,} ended otherwise"] if children.failed else []
        ends += [f"{children.running:,} running"] if children.running else []
        notes.append(f"{counted(children.total, 'child run')}: {', '.join(ends)}")
    if figures.handed_out and not run.over:
        one = figures.handed_out == 1
        notes.append(f"{figures.handed_out:,} handed out, {'waits for its token' if one else 'wait for their tokens'}")
    return notes


def value_view(payload: bytes | None) -> RenderableType:
    """A recorded value, indented; the keys of its first level stand out."""
    text = Text()
    for index, line in enumerate(value_lines(payload)):
        text.append("\n" if index else "")
        key, colon, rest = line.partition(": ")
        if colon and key.isidentifier():
            text.append(f"{key}:", style="bold").append(f" {rest}")
        else:
            text.append(line)
    return Padding(text, _INDENT, expand=False)


def error_view(state: RunState, *, every_frame: bool = False) -> RenderableType:
    """The error that a run failed with, and the tasks that had failed by then."""
    text = Text()
    if state.error is None:
        text.append("(no error recorded)")
    else:
        for index, line in enumerate(error_lines(state.error, every_frame=every_frame)):
            headline = index == 0 or line.startswith("caused by ")
            text.append("\n" if index else "").append(
                line, style="red" if headline else "dim" if "  File" in line else ""
            )
    failed = failed_tasks(state)
    if failed:
        text.append("\n")
    for task in failed[:_FAILED_TASKS_SHOWN]:
        times = "1 attempt" if task.attempts == 1 else f"{task.attempts} attempts"
        why = "" if task.error is None else ": " + clipped(error_text(task.error), 160)
        text.append(f"\ntask {short_id(task.id)} failed after {times}{why}")
        if task.site:
            text.append(f"  (called at {task.site})", style="dim")
    if len(failed) > _FAILED_TASKS_SHOWN:
        text.append(f"\n… and {len(failed) - _FAILED_TASKS_SHOWN:,} more failed tasks", style="dim")
    return Padding(text, _INDENT, expand=False)


def diagnosis_view(diagnosis: Diagnosis) -> RenderableType:
    """Why a run is suspended: the message, what history has beside what the code asks for, what to do."""
    parts: list[RenderableType] = [Text(f"At version {diagnosis.version}: {diagnosis.message}.", style="bold")]
    if diagnosis.differences:
        table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="bold")
        table.add_column("history has", overflow="fold")
        table.add_column("the code now asks for", overflow="fold")
        for each in diagnosis.differences:
            table.add_row(_side(each.recorded, each.recorded_site), _side(each.decided, each.decided_site))
        parts += [Text(""), table]
    parts += [Text(f"Note: {hint}.") for hint in diagnosis.hints]
    parts += [Text(""), Text(diagnosis.advice)]
    return Padding(Group(*parts), _INDENT, expand=False)


def _side(text: str, site: str) -> Text:
    side = Text(text or "—", style="" if text else "dim")
    if site:
        side.append(f"\n  {site}", style="dim")
    return side


def tasks_table(run: Watched) -> RenderableType:
    """Tasks by name: how many, how often tried, how long they took."""
    rows = name_rows(run.state.tasks.values())
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("task")
    for column in ("count", "done", "attempts", "retries", "total", "max"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row.name, no_wrap=True, overflow="ellipsis"),
            f"{row.count:,}",
            Text(f"{row.done:,}", style="red" if row.failed else ""),
            f"{row.attempts:,}",
            Text(f"{row.retries:,}", style="yellow" if row.retries else ""),
            duration(row.total_seconds) if row.done else "",
            duration(row.max_seconds) if row.done else "",
        )
    return Padding(table, _INDENT, expand=False)


def document(run: Watched, *, now: int, interrupted: bool = False) -> dict[str, Any]:
    """The same as JSON: what `--json` prints."""
    figures = counts(run)
    state = run.state
    return {
        "run": run.run_id,
        "workflow": run.workflow,
        "status": state.status,
        "interrupted": interrupted and not run.over,
        "result": None if state.result is None else msgspec.Raw(state.result),
        "error": None if state.error is None else to_builtins(state.error),
        "reason": state.reason,
        "diagnosis": None if state.diagnosis is None else to_builtins(state.diagnosis),
        "version": state.version,
        "started_at": instant(state.started_at or None),
        "ended_at": instant(state.ended_at),
        "elapsed_seconds": round(max(0, (state.ended_at or now) - run.began_at) / _SECOND, 6),
        "tasks": {
            "total": figures.total,
            "done": figures.done,
            "done_before": figures.before,
            "done_now": figures.now,
            "handed_out": figures.handed_out,
            "failed": figures.failed,
            "cancelled": figures.cancelled,
            "attempts_cut_off": figures.cut_off,
            "by_name": [to_builtins(row) for row in name_rows(state.tasks.values())],
        },
        "children": to_builtins(child_counts(state)),
    }
