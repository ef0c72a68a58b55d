"""A materializing run on a terminal: one frame as a pure function of the run, the time and the size of the screen.

Assets stand under their groups, upstream first, each with its partitions counted by where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from engine.assets import Definitions
from engine.cli.asset_tally import ENDED, Making, NodeTally, StepStatus, StepTally
from engine.cli.live import spin
from engine.cli.plain import paused_lines
from engine.cli.readable import amount, counted, duration
from engine.cli.styles import STEP_MARKS, STEP_STYLES, STYLES

__all__ = ["Tree", "asset_frame"]

_SECOND: Final = 1_000_000
_BAR_WIDTH: Final = 32
_LINES_AROUND_ROWS: Final = 7
_PARTITIONS_NAMED: Final = 3
_ENDING: Final[tuple[StepStatus, ...]] = ("checking", "publishing")
_OTHERWISE: Final[tuple[StepStatus, ...]] = ("failed", "skipped", "unchanged")


class Tree(Struct, frozen=True, kw_only=True):
    """How assets stand on the screen. By node, the group that it is in, and how many are upstream of it, one above the
    other.
    """

    groups: Mapping[str, str] = {}
    depths: Mapping[str, int] = {}

    @classmethod
    def of(cls, definitions: Definitions) -> Tree:
        """The tree of all that there is."""
        depths: dict[str, int] = {}
        for name in definitions.order:
            depths[name] = 1 + max((depths[other] for other in definitions.graph.upstream[name]), default=-1)
        return cls(groups={name: definitions.specs[name].group for name in definitions.nodes}, depths=depths)


def asset_frame(run: Making, tree: Tree, *, now: int, height: int, stopping: str = "") -> RenderableType:
    """What the screen shows at `now` (microseconds since the epoch)."""
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(spin(now), style="cyan"),
        Text("materialize", style="bold"),
        Text(run.run_id, style="dim"),
        Text(duration((now - run.began_at) / _SECOND), style="cyan"),
    )
    ended = run.count(*ENDED)
    bar = Table.grid(padding=(0, 1))
    bar.add_row("", ProgressBar(total=max(1, run.total), completed=ended, width=_BAR_WIDTH), _ended_text(run, ended))
    parts: list[RenderableType] = [head, bar, Text(f"  {_doing(run)}", style="dim")]
    held = paused_lines(run)
    parts += [Text(f"  {line}", style=STYLES["paused"]) for line in held]
    if run.nodes:
        parts += [Text(""), _table(run, tree, now, max(3, height - _LINES_AROUND_ROWS - len(held)))]
    if stopping:
        parts.append(Text(stopping, style="yellow"))
    return Group(*parts)


def _ended_text(run: Making, ended: int) -> Text:
    text = Text(f"{ended:,} of {counted(run.total, 'step')} ended")
    if run.ended_before:
        text.append(f" ({run.ended_before:,} before, not made again)", style="dim")
    return text


def _doing(run: Making) -> str:
    if run.state.cancel_requested and not run.state.ended:
        return "cancelling"
    under_way = len(run.steps)
    figures = {
        "running": run.under_way("running"),
        "checking": run.under_way("checking"),
        "publishing": run.under_way("publishing"),
        **{status: run.count(status) for status in ENDED},
        "waiting": max(0, run.total - run.count(*ENDED) - under_way),
    }
    return " · ".join(f"{number:,} {word}" for word, number in figures.items() if number) or "deciding what is next"


def _table(run: Making, tree: Tree, now: int, rows_max: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("  asset", min_width=14)  # this and the last give way on a narrow screen
    for column in ("ended", "rows", "bytes", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("now")
    shown = _shown(list(run.nodes.values()), tree, rows_max)
    group = None
    for node in shown:
        if (own := tree.groups.get(node.node, "")) != group:
            group = own
            if group or any(tree.groups.values()):
                table.add_row(Text(f"  {group or '(no group)'}", style="bold", no_wrap=True, overflow="ellipsis"))
        table.add_row(*_row(node, now, indent=4 if any(tree.groups.values()) else 2))
    if len(shown) < len(run.nodes):
        table.add_row(Text(f"  … {len(run.nodes) - len(shown):,} more", style="dim"))
    return table


def _shown(nodes: Sequence[NodeTally], tree: Tree, rows_max: int) -> list[NodeTally]:
    """Those that fit, a line for each group counted: all of them, or else what is under way, failed, or next."""
    if _lines(nodes, tree) <= rows_max:
        return _grouped(nodes, tree)
    kept: list[NodeTally] = []
    for node in sorted(nodes, key=_rank):
        if kept and _lines([*kept, node], tree) > rows_max:
            break
        kept.append(node)
    names = {each.node for each in kept}
    return _grouped([each for each in nodes if each.node in names], tree)


def _lines(nodes: Sequence[NodeTally], tree: Tree) -> int:
    return len(nodes) + len({tree.groups.get(each.node, "") for each in nodes})


def _grouped(nodes: Sequence[NodeTally], tree: Tree) -> list[NodeTally]:
    """Upstream first, and groups together: that first whose lowest asset has the least above it."""
    lowest: dict[str, int] = {}
    for node in nodes:
        group = tree.groups.get(node.node, "")
        lowest[group] = max(lowest.get(group, 0), tree.depths.get(node.node, 0))

    def place(node: NodeTally) -> tuple[int, str, int]:
        group = tree.groups.get(node.node, "")
        return lowest[group], group, tree.depths.get(node.node, 0)

    return sorted(nodes, key=place)


def _rank(node: NodeTally) -> int:
    if node.under_way:
        return 0
    if node.counts.get("failed"):
        return 1
    return 2 if node.waiting else 3


def _row(node: NodeTally, now: int, *, indent: int) -> tuple[Text | str, ...]:
    status = _status(node)
    spent = node.seconds + sum((now - each.making_at) / _SECOND for each in node.under_way.values() if _is_made(each))
    return (
        Text.assemble(
            " " * (indent - 2),
            (f"{STEP_MARKS[status]} ", STEP_STYLES[status]),
            node.node,
            no_wrap=True,
            overflow="ellipsis",
        ),
        Text(f"{node.ended:,}/{node.total:,}", style=STEP_STYLES[status]),
        "" if node.rows is None else f"{node.rows:,}",
        "" if node.size is None else amount(node.size),
        duration(spent) if node.began_at and spent else "",
        _now_text(node, now),
    )


def _is_made(step: StepTally) -> bool:
    return bool(step.making_at) and step.status == "running" and not step.seconds and not step.retrying


def _status(node: NodeTally) -> str:
    """The one status that stands for all of its steps."""
    if node.under_way:
        first = {each.status for each in node.under_way.values()}
        return "running" if "running" in first else "checking"
    if node.counts.get("failed"):
        return "failed"
    if node.ended < node.total:
        return "waiting"
    return next((each for each in ("skipped", "published", "unchanged") if node.counts.get(each)), "waiting")


def _now_text(node: NodeTally, now: int) -> Text:
    """What its steps are at: which run and for how long, what is checked, what ended otherwise than well."""
    running = [each for each in node.under_way.values() if each.status == "running"]
    parts: list[tuple[str, str]] = []
    if running:
        longest = (now - min(each.began_at for each in running)) / _SECOND
        retrying = sum(each.retrying for each in running)
        again = f", {retrying:,} to retry" if retrying else ""
        parts.append((f"{_named(running)} running, {duration(longest)}{again}".strip(), "cyan"))
    ending = {status: [each for each in node.under_way.values() if each.status == status] for status in _ENDING}
    parts += [(f"{_named(steps)} {status}".strip(), "blue") for status, steps in ending.items() if steps]
    counted = ((status, node.counts.get(status, 0)) for status in _OTHERWISE)
    parts += [
        (f"{number:,} {status}" if node.total > 1 else status, STEP_STYLES[status])
        for status, number in counted
        if number
    ]
    if node.warnings:
        parts.append((f"{node.warnings:,} warnings" if node.warnings > 1 else "1 warning", "yellow"))
    if not parts and node.waiting == node.total:
        parts.append(("waiting", "dim"))
    return Text("  ", no_wrap=True, overflow="ellipsis").join(Text(word, style=style) for word, style in parts)


def _named(steps: Sequence[StepTally]) -> str:
    """The partitions, when they are few; else how many."""
    names = [each.partition for each in steps if each.partition]
    if names and len(names) <= _PARTITIONS_NAMED:
        return ", ".join(names)
    return f"{len(steps):,}" if len(steps) > 1 or names else ""
