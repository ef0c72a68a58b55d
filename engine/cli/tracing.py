"""`why` and `lineage`: what the log answers about a partition or a version, as sentences, a tree, JSON or Mermaid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import to_builtins
from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from engine.assets import AssetRef, Lineage, LineageVersion, Why, parse_reference, why_lines
from engine.assets import mermaid as flowchart
from engine.cli.asset_desk import Desk
from engine.cli.problems import Exit, Problem
from engine.cli.readable import clock, instant, one_line_of

__all__ = ["show_lineage", "show_why", "with_partition"]

_ROWS_SHOWN = 5


def with_partition(text: str, partition: str) -> AssetRef:
    """What is named, with the partition that may stand behind it. Raises `Problem` for two of them."""
    ref = parse_reference(text)
    if ref.partition and partition and ref.partition != partition:
        raise Problem(f"{text} names partition {ref.partition!r}, and {partition!r} stands behind it")
    return AssetRef(key=ref.key, partition=ref.partition or partition, version=ref.version)


async def show_why(desk: Desk, text: str, partition: str, environment: str) -> Exit:
    """Say why it was made, or was not."""
    ref = with_partition(text, partition)
    node = desk.assets.definitions.node_of(ref.key)
    if ref.version is not None:
        found = await desk.assets.version(ref.key, ref.version, environment=environment)
        ref = AssetRef(key=ref.key, partition=found.partition)
    why = await desk.assets.why(ref.key, ref.partition, environment=environment)
    if desk.output.json:
        desk.output.document(_why_document(why))
        return Exit.COMPLETED
    for line in why_lines(why, clock):
        desk.output.line(line)
    for root in why.roots:
        for check in root.checks:
            for row in check.rows[:_ROWS_SHOWN]:
                desk.output.line(f"  row of {root.title} that {check.name} found: {one_line_of(dict(row), 160)}")
    if why.outcome == "started":
        desk.output.line("If nobody works on that run, let it go on:")
        desk.output.line(f"  {desk.command('materialize', '--id', why.run)}", style="bold")
    elif why.stale and not node.asset.external:
        words = (
            ["--select", f"+{ref.key}"]
            if any(each.endswith("made first") for each in why.stale)
            else ["--select", ref.key]
        )
        desk.output.line(f"  {desk.command('materialize', *words)}", style="bold")
    return Exit.COMPLETED


def _why_document(why: Why) -> dict[str, Any]:
    document: dict[str, Any] = to_builtins(why)
    document["at"] = instant(why.at or None)
    document["because"] = [_why_document(each) for each in why.because]
    if why.current is not None:
        document["current"]["at"] = instant(why.current.at)
    return document


async def show_lineage(
    desk: Desk,
    text: str,
    partition: str,
    environment: str,
    *,
    directions: Sequence[str],
    depth: int | None,
    mermaid: bool,
) -> Exit:
    """Show what made it, or what was made from it."""
    ref = with_partition(text, partition)
    found = [
        await desk.assets.lineage(
            ref.key,
            ref.version,
            partition=ref.partition,
            environment=environment,
            direction="up" if direction == "up" else "down",
            depth=depth,
        )
        for direction in directions
    ]
    if desk.output.json:
        documents = {each.direction: _document(each) for each in found}
        desk.output.document(documents if len(found) > 1 else documents[found[0].direction])
    elif mermaid:
        for each in found:
            desk.output.line(flowchart(each).rstrip())
    else:
        desk.output.show(Group(*(_tree(each) for each in found)))
    return Exit.COMPLETED


def _document(lineage: Lineage) -> dict[str, Any]:
    document: dict[str, Any] = to_builtins(lineage)
    for each in document["versions"]:
        each["at"] = instant(each["at"])
    return document


def _tree(lineage: Lineage) -> RenderableType:
    """A version stands in full where it comes first, and by name alone everywhere else."""
    by_id = {each.id: each for each in lineage.versions}
    near: dict[str, list[tuple[str, bool]]] = {}
    for edge in lineage.edges:
        one, other = (edge.downstream, edge.upstream) if lineage.direction == "up" else (edge.upstream, edge.downstream)
        near.setdefault(one, []).append((other, edge.exact))
    root = by_id[lineage.root]
    heading = "made from" if lineage.direction == "up" else "went into"
    tree = Tree(
        _label(root).append(f"  {heading}" if near else "  nothing" if lineage.direction == "down" else "", style="dim")
    )
    told = {lineage.root}
    waiting = [(tree, lineage.root)]
    while waiting:
        branch, id_ = waiting.pop(0)
        for other, exact in near.get(id_, ()):
            if other in told:
                branch.add(Text(by_id[other].title, style="dim").append(" (see above)" if near.get(other) else ""))
                continue
            told.add(other)
            label = _label(by_id[other])
            waiting.append((branch.add(label if exact else label.append("  (as far as the log still tells)")), other))
    parts: list[RenderableType] = [tree]
    if lineage.left_out:
        parts.append(
            Text(
                f"… and at least {lineage.left_out:,} versions more; --depth or a nearer asset shows less", style="dim"
            )
        )
    return Group(*parts)


def _label(version: LineageVersion) -> Text:
    text = Text(version.title, style="bold")
    said = [version.kind, clock(version.at)]
    said += [f"in {version.environment}"] if version.environment != "prod" else []
    said += [f"{version.rows:,} rows"] if version.rows is not None else []
    said += [f"run {version.run}"] if version.run else []
    return text.append(f"  {', '.join(said)}", style="dim")
