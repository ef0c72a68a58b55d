"""Progress on a terminal: one frame as a pure function of the runs, the time and the size of the screen.

Who shows frames, and when, is `progress`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from engine import TaskState
from engine.cli.plain import paused_lines
from engine.cli.readable import clipped, clock, duration
from engine.cli.styles import STYLES
from engine.cli.tally import Counts, NameRow, Watched, child_counts, counts, name_rows

__all__ = ["frame", "spin"]

_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_SPINNER_STEP: Final = 80_000  # microseconds
_SECOND: Final = 1_000_000
_BAR_WIDTH: Final = 32
_LINES_AROUND_ROWS: Final = 8  # of a frame that are no table rows
_TIMER_SHOWN_AFTER: Final = 2 * _SECOND  # a timer is worth a line when nothing else has happened for so long


def frame(runs: Sequence[Watched], *, now: int, height: int, stopping: str = "") -> RenderableType:
    """What the screen shows at `now` (microseconds since the epoch)."""
    parts: list[RenderableType]
    if len(runs) == 1:
        parts = _one(runs[0], now=now, rows_max=max(3, height - _LINES_AROUND_ROWS - len(paused_lines(runs[0]))))
    else:
        parts = _many(runs, now=now, rows_max=max(3, height - 4))
    if stopping:
        parts.append(Text(stopping, style="yellow"))
    return Group(*parts)


def _one(run: Watched, *, now: int, rows_max: int) -> list[RenderableType]:
    figures = counts(run)
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(spin(now), style="cyan"),
        Text(run.workflow, style="bold"),
        Text(run.run_id, style="dim"),
        Text(duration((now - run.began_at) / _SECOND), style="cyan"),
    )
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        "",
        ProgressBar(total=max(1, figures.total), completed=figures.done, width=_BAR_WIDTH),
        _done_text(figures),
    )
    parts: list[RenderableType] = [head, bar, Text(f"  {_doing(run, figures, now)}", style="dim")]
    parts += [Text(f"  {line}", style=STYLES["paused"]) for line in paused_lines(run)]
    rows = name_rows(run.state.tasks.values())
    if rows:
        parts += [Text(""), _table(rows, run, now, rows_max)]
    return parts


def spin(now: int) -> str:
    """What turns in front of a frame, at that time."""
    return _SPINNER[now // _SPINNER_STEP % len(_SPINNER)]


def _done_text(figures: Counts) -> Text:
    text = Text(f"{figures.done:,} of {figures.total:,} tasks done")
    if figures.before:
        text.append(f" ({figures.before:,} before, not run again)", style="dim")
    return text


def _doing(run: Watched, figures: Counts, now: int) -> str:
    if run.state.cancel_requested and not run.state.ended:
        return "cancelling"
    parts = [
        f"{number:,} {word}"
        for number, word in (
            (figures.running, "running"),
            (figures.retrying, "waiting for a retry"),
            (figures.scheduled, "scheduled"),
            (figures.handed_out, "handed out"),
            (figures.failed, "failed"),
        )
        if number
    ]
    children = child_counts(run.state)
    if children.total:
        parts.append(f"child runs: {children.done:,} of {children.total:,} done, {children.running:,} running")
    quiet = now - run.state.updated_at > _TIMER_SHOWN_AFTER
    if run.state.timers and quiet and not figures.running:
        rings = min(run.state.timers.values())
        parts.append(f"a timer rings in {duration((rings - now) / _SECOND)}, at {clock(rings)}")
    return " · ".join(parts) or "deciding what is next"


def _table(rows: list[NameRow], run: Watched, now: int, rows_max: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("  task", min_width=12)  # this and the last give way on a narrow screen
    table.add_column("done", justify="right", no_wrap=True)
    table.add_column("mean", justify="right", no_wrap=True)
    table.add_column("max", justify="right", no_wrap=True)
    table.add_column("now")
    by_name: dict[str, list[TaskState]] = {}
    for task in run.state.tasks.values():
        if task.status in {"running", "retrying", "handed out", "failed"}:
            by_name.setdefault(task.name, []).append(task)
    busy = [row for row in rows if row.done < row.count]
    shown = rows if len(rows) <= rows_max else busy[:rows_max]
    for row in shown:
        finished = row.done == row.count
        table.add_row(
            Text(f"  {row.name}", no_wrap=True, overflow="ellipsis"),
            Text(f"{row.done:,}/{row.count:,}", style="green" if finished else ""),
            duration(row.mean_seconds) if row.done else "",
            duration(row.max_seconds) if row.done else "",
            _now_text(by_name.get(row.name, []), now),
        )
    if len(shown) < len(rows):
        table.add_row(Text(f"  … {len(rows) - len(shown)} more", style="dim"))
    return table


def _now_text(tasks: list[TaskState], now: int) -> Text:
    """What the tasks of one name are at: how many run and for how long; the next retry and why."""
    text = Text(no_wrap=True, overflow="ellipsis")
    running = [task for task in tasks if task.status == "running"]
    if running:
        longest = (now - min(task.started_at or now for task in running)) / _SECOND
        again = max(task.attempts for task in running)
        attempt = f", attempt {again}" if again > 1 else ""
        text.append(f"{len(running):,} running, {duration(longest)}{attempt}", style="cyan")
    waiting = [task for task in tasks if task.status == "retrying"]
    if waiting:
        first = min(waiting, key=lambda task: task.retry_at or now)
        in_seconds = ((first.retry_at or now) - now) / _SECOND
        text.append("  " if text else "")
        text.append(f"{len(waiting):,} to retry, next in {duration(in_seconds)}", style="yellow")
        if first.error is not None:
            text.append(f" ({clipped(f'{first.error.type}: {first.error.message}', 60)})", style="dim")
    handed_out = sum(task.status == "handed out" for task in tasks)
    if handed_out:
        text.append("  " if text else "")
        text.append(f"{handed_out:,} handed out", style="blue")
    failed = sum(task.status == "failed" for task in tasks)
    if failed:
        text.append("  " if text else "")
        text.append(f"{failed:,} failed", style="red")
    return text


def _many(runs: Sequence[Watched], *, now: int, rows_max: int) -> list[RenderableType]:
    open_ = [run for run in runs if not run.over]
    shown = open_[:rows_max] if len(runs) > rows_max else list(runs)
    elapsed = duration((now - min(run.began_at for run in runs)) / _SECOND)
    parts: list[RenderableType] = [
        Text.assemble(
            (f"{spin(now)} ", "cyan"),
            (f"{len(runs) - len(open_):,} of {len(runs):,} runs are through", "bold"),
            (f"  {elapsed}", "cyan"),
        )
    ]
    table = Table.grid(padding=(0, 2))
    for run in shown:
        figures = counts(run)
        status = run.state.status
        held = status == "paused" or run.workflow_paused is not None
        doing = status if run.over else "paused" if held else _doing(run, figures, now)
        table.add_row(
            Text(f"  {run.run_id}", style="dim" if run.over else ""),
            _done_text(figures),
            Text(doing, style=STYLES.get(status, "") if run.over else "dim"),
        )
    parts.append(table)
    if len(shown) < len(runs):
        parts.append(Text(f"  … {len(runs) - len(shown):,} more", style="dim"))
    return parts
