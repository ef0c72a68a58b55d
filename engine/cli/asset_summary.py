"""What is said at the end of a session about a materializing run: a table of assets, what failed, what was skipped.

Pure: renderables from a `Making`, or a JSON document of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec import to_builtins
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engine.assets import CheckOutcome
from engine.cli.asset_tally import ENDED, Making, NodeTally, StepTally, summed
from engine.cli.readable import amount, clipped, counted, duration, instant, one_line_of
from engine.cli.styles import STEP_STYLES
from engine.cli.summary import diagnosis_view, error_view, headline

__all__ = ["asset_document", "asset_summary", "check_lines"]

_INDENT: Final = (0, 0, 0, 2)
_NODES_SHOWN: Final = 60
"""Assets in the table; of more, those that failed and those that took longest, and the sum of all."""
_WORST_SHOWN: Final = 20
_NAMED: Final = 10
"""Steps of one kind that are told one by one."""
_ROWS_SHOWN: Final = 5
_OURS: Final = "engine.errors.MaterializationFailed"


def asset_summary(run: Making, *, now: int, interrupted: bool = False, every_frame: bool = False) -> RenderableType:
    """The final words about the run."""
    parts: list[RenderableType] = [headline(run, now, interrupted=interrupted)]
    if run.ended_before:
        parts.append(
            Text(f"  {run.ended_before:,} of {counted(run.total, 'step')} had ended before, and were not made again")
        )
    state = run.state
    if state.status == "suspended" and state.diagnosis is not None:
        parts += [Text(""), diagnosis_view(state.diagnosis)]
    if state.status == "failed" and (state.error is None or state.error.type != _OURS):
        parts += [Text(""), error_view(state, every_frame=every_frame)]
    if any(each.counts for each in run.nodes.values()):
        parts += [Text(""), _table(list(run.nodes.values()))]
    parts += _failures(run.failed, run.count("failed"))
    parts += _skips(run.skipped, run.count("skipped"))
    parts += _warnings(run.warned)
    return Group(*parts)


def _table(nodes: Sequence[NodeTally]) -> RenderableType:
    begun = [each for each in nodes if each.counts]
    many = len(nodes) > _NODES_SHOWN
    worst = sorted(begun, key=lambda each: (not each.counts.get("failed"), -each.seconds))[:_WORST_SHOWN]
    shown = [*worst, _all_of(nodes)] if many else begun
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("asset" if not many else "failed, and slowest")
    columns: list[str] = [status for status in ENDED if any(each.counts.get(status) for each in nodes)]
    columns += ["unfinished"] if any(each.ended < each.total for each in nodes) else []
    for column in (*columns, "rows", "bytes", "time", "longest", "checks"):
        table.add_column(column, justify="right", no_wrap=True)
    for node in shown:
        table.add_row(
            Text(node.node, no_wrap=True, overflow="ellipsis"),
            *(_counted(node, status) for status in columns),
            "" if node.rows is None else f"{node.rows:,}",
            "" if node.size is None else amount(node.size),
            duration(node.seconds) if node.seconds else "",
            duration(node.longest) if node.seconds and node.total > 1 else "",
            _checks(node),
        )
    return Padding(table, _INDENT, expand=False)


def _all_of(nodes: Sequence[NodeTally]) -> NodeTally:
    """The sum of them."""
    total = NodeTally(node=f"all {len(nodes):,} assets", total=sum(each.total for each in nodes))
    for each in nodes:
        for status, number in each.counts.items():
            total.counts[status] = total.counts.get(status, 0) + number
        total.rows, total.size = summed(total.rows, each.rows), summed(total.size, each.size)
        total.seconds += each.seconds
        total.longest = max(total.longest, each.longest)
        total.checks += each.checks
        total.warnings += each.warnings
    return total


def _counted(node: NodeTally, status: str) -> Text:
    number = node.total - node.ended if status == "unfinished" else node.counts.get(status, 0)  # type: ignore[call-overload]
    return Text(f"{number:,}" if number else "", style=STEP_STYLES.get(status, "yellow"))


def _checks(node: NodeTally) -> Text:
    if not node.checks:
        return Text("")
    if node.warnings:
        return Text(f"{node.checks:,}, {node.warnings:,} warned", style="yellow")
    return Text(f"{node.checks:,}")


def _failures(failed: Sequence[StepTally], number: int) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for step in failed[:_NAMED]:
        text = Text(f"✘ {step.title} failed: ", style="red").append(clipped(step.why, 500), style="default")
        parts += [Text(""), Padding(text, _INDENT, expand=False)]
        parts += _lines_of(line for each in step.wrong for line in check_lines(each))
    return [*parts, *_more(number - len(failed[:_NAMED]), "failed")]


def _skips(skipped: Sequence[StepTally], number: int) -> list[RenderableType]:
    """By what they were skipped for in the end: one failure may stop thousands."""
    if not number:
        return []
    roots: dict[str, tuple[str, ...]] = {}
    because: dict[tuple[str, ...], list[str]] = {}
    for step in skipped:  # upstream first, as they ended
        found = dict.fromkeys(root for each in step.because for root in roots.get(each, (each,)))
        roots[step.title] = tuple(found)
        because.setdefault(tuple(found), []).append(step.title)
    parts: list[RenderableType] = [Text("")]
    for reasons, titles in list(because.items())[:_NAMED]:
        text = Text(f"⊘ {_some(titles)} skipped because of ", style="yellow").append(_some(reasons), style="default")
        parts.append(Padding(text, _INDENT, expand=False))
    told = sum(len(titles) for titles in list(because.values())[:_NAMED])
    return [*parts, *_more(number - told, "skipped")]


def _warnings(warned: Sequence[StepTally]) -> list[RenderableType]:
    parts: list[RenderableType] = [Text("")] if warned else []
    for step in warned[:_NAMED]:
        parts.append(Padding(Text(f"! {step.title}: published with warnings", style="yellow"), _INDENT, expand=False))
        parts += _lines_of(line for each in step.wrong for line in check_lines(each))
    return [*parts, *_more(len(warned) - len(warned[:_NAMED]), "with warnings")]


def check_lines(outcome: CheckOutcome) -> list[str]:
    """What a check that did not pass has found, with rows that fail."""
    said = outcome.error or outcome.description or "did not pass"
    lines = [f"check {outcome.name} ({outcome.severity}): {clipped(said, 300)}"]
    lines += [f"  {one_line_of(dict(row), 160)}" for row in outcome.rows[:_ROWS_SHOWN]]
    if len(outcome.rows) > _ROWS_SHOWN:
        lines.append(f"  … {len(outcome.rows) - _ROWS_SHOWN:,} more rows in the sample (--json shows all)")
    return lines


def _lines_of(lines: Iterable[str]) -> list[RenderableType]:
    return [Padding(Text(line), (0, 0, 0, 4), expand=False) for line in lines]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3:,} more"


def _more(number: int, what: str) -> list[RenderableType]:
    return [Padding(Text(f"… and {number:,} more {what}", style="dim"), _INDENT, expand=False)] if number > 0 else []


def asset_document(run: Making, *, now: int, interrupted: bool = False) -> dict[str, Any]:
    """The same as JSON: what `--json` prints."""
    state = run.state
    counts = {status: run.count(status) for status in ENDED}
    return {
        "run": run.run_id,
        "status": state.status,
        "interrupted": interrupted and not run.over,
        "request": None if run.plan is None else to_builtins(run.plan.request),
        "steps": {
            "total": run.total,
            **counts,
            "unfinished": max(0, run.total - sum(counts.values())),
            "ended_before": run.ended_before,
        },
        "assets": {each.node: _node_document(each) for each in run.nodes.values()},
        "failed": [_failed_document(each) for each in run.failed],
        "skipped": [{"asset": each.node, "partition": each.partition, "because": each.because} for each in run.skipped],
        "warnings": [
            {"asset": each.node, "partition": each.partition, "checks": to_builtins(each.wrong)} for each in run.warned
        ],
        "error": None if state.error is None else to_builtins(state.error),
        "diagnosis": None if state.diagnosis is None else to_builtins(state.diagnosis),
        "started_at": instant(state.started_at or None),
        "ended_at": instant(state.ended_at),
        "elapsed_seconds": round(max(0, (state.ended_at or now) - run.began_at) / 1_000_000, 6),
    }


def _node_document(node: NodeTally) -> dict[str, Any]:
    return {
        "steps": node.total,
        **{status: node.counts.get(status, 0) for status in ENDED},
        "rows": node.rows,
        "bytes": node.size,
        "seconds": round(node.seconds, 6),
        "checks": node.checks,
        "warnings": node.warnings,
    }


def _failed_document(step: StepTally) -> dict[str, Any]:
    return {
        "asset": step.node,
        "partition": step.partition,
        "why": step.why,
        "checks": [each for each in to_builtins(step.wrong) if each.get("severity", "blocking") == "blocking"],
    }
