"""What `runs`, `show` and `history` print. Pure: renderables from what was read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec import Struct, to_builtins
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engine import HistoryEvent, PausedWorkflow, RunState, RunSummary, TaskState
from engine.cli.exchange import Exchange
from engine.cli.phrases import about, detail, short_id
from engine.cli.readable import (
    attributes_text,
    by_and_why,
    clipped,
    clock,
    counted,
    duration,
    error_text,
    one_line,
    waiting_for,
)
from engine.cli.styles import MARKS, STYLES
from engine.cli.summary import diagnosis_view, error_view, value_view
from engine.cli.words import FINAL

__all__ = ["TASKS_SHOWN", "Published", "history_line", "published_table", "runs_table", "state_view", "table_of"]

TASKS_SHOWN: Final = 100
"""Rows of tasks that `show` prints; `--json` has all of them."""
_SECOND: Final = 1_000_000
_DETAIL_WIDTH: Final = 100
_NEVER_WRAPPED: Final = frozenset({"run", "status", "started", "state"})
_INDENT: Final = (0, 0, 0, 2)


class Published(Struct, frozen=True):
    """A state of a run as `state` lists it."""

    name: str
    payload: bytes | None
    remark: str


def runs_table(runs: Sequence[RunSummary]) -> RenderableType:
    """One row per run. The duration of a run that goes on is that until it last moved."""
    table = _table("run", "workflow", "status", ">events", "started", ">duration")
    children = any(run.parent for run in runs)
    if children:
        table.add_column("parent", no_wrap=True)
    waits = {run.id: waiting_for(begins_at=run.begins_at, singleton=run.singleton) for run in runs if _is_queued(run)}
    if any(waits.values()):
        table.add_column("waits", no_wrap=True)
    found_by = any(run.attributes for run in runs)
    if found_by:
        table.add_column("attributes")
    slow = any(run.slow for run in runs)
    if slow:
        table.add_column("slowest turn", justify="right", no_wrap=True)
    for run in runs:
        spent = duration((run.updated_at - run.created_at) / _SECOND)
        table.add_row(
            Text(run.id, style="bold"),
            Text(run.workflow, no_wrap=True, overflow="ellipsis"),
            Text(f"{MARKS[run.status]} {run.status}", style=STYLES[run.status]),
            f"{run.version:,}",
            clock(run.created_at),
            "" if run.status == "pruned" else spent if run.status in FINAL else Text(f"{spent} +", style="dim"),
            *([Text(run.parent, style="dim")] if children else []),
            *([Text(waits.get(run.id, ""), style="dim")] if any(waits.values()) else []),
            *([Text(attributes_text(run.attributes), style="dim")] if found_by else []),
            *([Text(duration(run.slow / _SECOND) if run.slow else "", style="yellow")] if slow else []),
        )
    return table


def _is_queued(run: RunSummary) -> bool:
    return run.status == "queued"


def table_of(*columns: str, wrapped: bool = False) -> Table:
    """A table as this command prints them; a column whose name begins with ``>`` is of figures. `wrapped`: what is not,
    and may be long, goes on in the next line.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for column in columns:
        name = column.removeprefix(">")
        whole = not wrapped or name != column or name in _NEVER_WRAPPED
        table.add_column(name, justify="right" if name != column else "left", no_wrap=whole)
    return table


def _table(*columns: str) -> Table:
    return table_of(*columns, wrapped=True)


def state_view(
    state: RunState,
    exchange: Exchange | None = None,
    *,
    workflow_paused: PausedWorkflow | None = None,
    every_frame: bool = False,
) -> RenderableType:
    """A run as it stands: what it is, what it was given, what came of it, its tasks and children, what was said."""
    if state.version == 0:
        return Text(f"{state.run_id}  was asked for, and no worker has taken it up yet")
    head = Text.assemble(
        (state.run_id, "bold"),
        f"  {state.workflow}  ",
        (f"{MARKS[state.status]} {state.status}", STYLES[state.status]),
    )
    parts: list[RenderableType] = [head, Padding(_facts(state, workflow_paused), _INDENT)]
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
        parts += _section("timers", Padding(Text("\n".join(lines)), _INDENT))
    parts += _section("children", _children_table(state) if state.children else None)
    parts += _talk_sections(state, exchange or Exchange())
    return Group(*parts)


def _talk_sections(state: RunState, exchange: Exchange) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if state.states:
        rows = [Published(name, payload, "") for name, payload in state.states.items()]
        parts += _section("published states", Padding(published_table(rows), _INDENT))
    if exchange.feeds:
        lines = [f"{name}: {counted(number, 'value')}" for name, number in exchange.feeds.items()]
        parts += _section("feeds", Padding(Text("\n".join(lines)), _INDENT))
    parts += _section("signals received", _signals_table(exchange) if exchange.signals else None)
    parts += _section("requests", _requests_table(exchange) if exchange.requests else None)
    return parts


def published_table(rows: Iterable[Published]) -> RenderableType:
    """One row per state."""
    table = _table("state", "value", "")
    for row in rows:
        table.add_row(
            Text(row.name, style="bold"), Text(one_line(row.payload, _DETAIL_WIDTH)), Text(row.remark, style="dim")
        )
    return table


def _children_table(state: RunState) -> RenderableType:
    table = _table("run", "workflow", ">took", "status")
    children = list(state.children.values())
    if len(children) > TASKS_SHOWN:
        children.sort(key=lambda child: child.status == "completed")
    for child in children[:TASKS_SHOWN]:
        took = "" if child.ended_at is None else duration((child.ended_at - child.started_at) / _SECOND)
        remark = ", asked to end" if child.asked_to_end and child.ended_at is None else ""
        status = Text(f"{child.status}{remark}", style=STYLES.get(child.status, ""))
        table.add_row(Text(child.run), Text(child.workflow), took, status)
    return _shown(table, len(children))


def _signals_table(exchange: Exchange) -> RenderableType:
    table = _table("signal", "at", "by", "value")
    for row in exchange.signals[-TASKS_SHOWN:]:
        table.add_row(
            Text(row.name), clock(row.at), Text(row.by), Text(one_line(row.value, _DETAIL_WIDTH), style="dim")
        )
    return _shown(table, len(exchange.signals), "earlier")


def _requests_table(exchange: Exchange) -> RenderableType:
    table = _table("request", "id", "by", "status", "argument, answer or error")
    rows = list(exchange.requests.values())
    if len(rows) > TASKS_SHOWN:
        rows.sort(key=lambda row: row.status != "accepted")
    for row in rows[:TASKS_SHOWN]:
        said = {"answered": one_line(row.answer, _DETAIL_WIDTH), "failed": clipped(row.error, _DETAIL_WIDTH)}
        text = said.get(row.status, one_line(row.argument, _DETAIL_WIDTH))
        table.add_row(
            Text(row.name),
            Text(row.id),
            Text(row.by),
            row.status,
            Text(text, style="red" if row.status == "failed" else "dim"),
        )
    return _shown(table, len(rows))


def _shown(table: Table, number: int, word: str = "more") -> RenderableType:
    parts: list[RenderableType] = [table]
    if number > TASKS_SHOWN:
        parts.append(Text(f"… {number - TASKS_SHOWN:,} {word} (--json shows all)", style="dim"))
    return Padding(Group(*parts), _INDENT, expand=False)


def _section(title: str, content: RenderableType | None) -> list[RenderableType]:
    return [] if content is None else [Text(""), Text(title, style="bold"), content]


def _facts(state: RunState, workflow_paused: PausedWorkflow | None) -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_row("started", clock(state.started_at))
    if state.ended_at is not None:
        facts.add_row(
            "ended", f"{clock(state.ended_at)}, after {duration((state.ended_at - state.started_at) / _SECOND)}"
        )
    else:
        facts.add_row("last event", clock(state.updated_at))
    facts.add_row("events", f"{state.version:,}")
    for name, text in (*_beginning(state), *_beginnings(state).items()):
        facts.add_row(name, Text(text))
    if state.attributes:
        facts.add_row("attributes", Text(attributes_text(state.attributes)))
    if state.deadline:
        facts.add_row("deadline", clock(state.deadline))
    for name, pause in _pauses(state, workflow_paused):
        facts.add_row(name, pause)
    if state.cancel_requested and not state.ended:
        facts.add_row("cancel", "requested")
    if state.slow_turns:
        facts.add_row("slow turns", Text(_slow(state), style="yellow"))
    if state.reason:
        facts.add_row("reason", Text(state.reason))
    for name, text in _taken_away(state):
        facts.add_row(name, Text(text))
    return facts


def _taken_away(state: RunState) -> Iterable[tuple[str, str]]:
    """What is not there any more, who has taken it away, and why."""
    if (gone := state.destroyed) is not None:
        what = f"of versions {', '.join(map(str, gone.versions))}" if gone.versions else "of all events before that"
        yield "values", f"{what} destroyed {clock(gone.at)}{by_and_why(gone.by, gone.reason)}"
    if (pruned := state.pruned) is not None:
        yield "pruned", f"{clock(pruned.at)}{by_and_why(pruned.by, pruned.reason)}"
        yield "before", f"it had {pruned.status}, with {pruned.events:,} events, whose digests stay"


def _pauses(state: RunState, workflow_paused: PausedWorkflow | None) -> Iterable[tuple[str, Text]]:
    """Who paused it, or its workflow, and what lets it go on."""
    if state.paused_at is not None and state.status == "paused":
        said = by_and_why(state.paused_by, state.pause_reason)
        yield "paused", Text(f"{clock(state.paused_at)}{said}; holdfast unpause {state.run_id}")
    if workflow_paused is not None and not state.ended:
        said = by_and_why(workflow_paused.by, workflow_paused.reason)
        yield "workflow", Text(f"paused{said}; holdfast unpause --workflow {workflow_paused.name}", style="blue")


def _beginning(state: RunState) -> Iterable[tuple[str, str]]:
    """What a run waits for before it begins, or when it began after all."""
    if state.waits and not state.ended:
        behind = state.queued_behind
        waits = waiting_for(begins_at=state.begins_at, singleton=state.singleton, behind=behind)
        yield "waits", waits or "has not begun"
        return
    if state.singleton:
        yield "singleton", state.singleton
    if state.begun_at > state.started_at:
        yield "begun", clock(state.begun_at)


def _beginnings(state: RunState) -> dict[str, str]:
    """What it comes from, and how often it began again."""
    found: dict[str, str] = {}
    if state.parent:
        found["parent"] = f"run {state.parent}, call {short_id(state.parent_call)}"
    if state.rerun_of:
        found["rerun of"] = f"run {state.rerun_of}"
    if state.origin:
        found["fork of"] = f"run {state.origin} at version {state.origin_version:,}"
    if state.reopened:
        found["reopened"] = "once" if state.reopened == 1 else f"{state.reopened:,} times"
    if state.epoch:
        found["epoch"] = f"{state.epoch:,}: so often it has continued as new"
    return found


def _slow(state: RunState) -> str:
    """Turns in which the workflow's own code kept every other run of its engine waiting."""
    last = f", the last at {state.slow_site}" if state.slow_site else ""
    return f"{state.slow_turns:,}, the slowest {duration(state.slowest_turn / _SECOND)}{last}"


def _tasks_table(state: RunState) -> RenderableType:
    table = _table("task", "status", ">attempts", ">took", "arguments, or what went wrong")
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
    return _shown(table, len(tasks))


def _took(task: TaskState) -> str:
    if task.started_at is None or task.ended_at is None:
        return ""
    return duration((task.ended_at - task.started_at) / _SECOND)


def _task_detail(task: TaskState) -> Text:
    if task.status == "handed out":
        said, style = "waits for its token", "blue"
    elif task.status == "running" and task.heartbeat_at is not None:
        details = "" if task.heartbeat is None else f": {one_line(task.heartbeat, _DETAIL_WIDTH)}"
        said, style = clipped(f"last heartbeat at {clock(task.heartbeat_at, day=False)}{details}", _DETAIL_WIDTH), "dim"
    elif task.error is not None and task.status != "completed":
        retry = f"retry at {clock(task.retry_at, day=False)}: " if task.retry_at is not None else ""
        said, style = clipped(f"{retry}{error_text(task.error)}", _DETAIL_WIDTH), "red"
    elif task.reused_run:
        said, style = clipped(f"reused from run {task.reused_run}, {short_id(task.reused_id)}", _DETAIL_WIDTH), "dim"
    else:
        said, style = "" if task.arguments in {None, b"{}"} else one_line(task.arguments, _DETAIL_WIDTH), "dim"
    return Text(said, style=style, no_wrap=True, overflow="ellipsis")


def history_line(recorded: HistoryEvent) -> Text:
    """Version, time, type, id and detail of one event."""
    header: dict[str, Any] = to_builtins(recorded.event)
    type_, at = header["type"], header["at"]
    of = about(header)
    return Text.assemble(
        (f"{recorded.version:>6}", "dim"),
        f"  {clock(at)[:10]} {clock(at, day=False)}  ",
        (f"{type_:<16}", _event_style(type_)),
        f"  {of}" if of else "",
        ("  " + detail(header, recorded.payload)).rstrip(),
    )


def _event_style(type_: str) -> str:
    word = type_.removeprefix("Task").removeprefix("Run").removeprefix("Timer").removeprefix("Attempt").lower()
    return STYLES.get(word, "" if type_.startswith(("Task", "Run")) else "cyan") or "bold"
