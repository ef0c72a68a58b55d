"""What `assets` and `asset` print. Pure: renderables and JSON documents from what was read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from engine.assets import AssetSummary, Version
from engine.cli.readable import amount, clipped, clock, counted, duration, instant
from engine.cli.sparkline import sparkline
from engine.cli.tables import table_of

__all__ = ["ago", "assets_table", "summary_document", "version_document", "versions_table"]

_SECOND: Final = 1_000_000
_SPARKS: Final = 16
_DIGITS: Final = 10
"""Of digests, in a table."""


def assets_table(found: Sequence[AssetSummary], *, now: int) -> RenderableType:
    """One row per asset, upstream first."""
    if not found:
        return Text("no assets")
    grouped = any(each.group for each in found)
    columns = ["asset", *(["group"] if grouped else []), ">made", ">version", "state", ">last", ">rows", "rows were"]
    table = table_of(*columns, ">took", "durations")
    for each in found:
        current = each.current
        spent = None if current is None else _seconds(current)
        history = each.history[:_SPARKS][::-1]
        table.add_row(
            Text(each.key, style="bold"),
            *([each.group] if grouped else []),
            _made(each),
            "" if current is None else f"@{current.version}",
            _state(each),
            "" if current is None else ago(now - current.at),
            "" if current is None or current.rows is None else f"{current.rows:,}",
            Text(sparkline([version.rows for version in history]), style="cyan"),
            "" if spent is None else duration(spent),
            Text(sparkline([_seconds(version) for version in history]), style="cyan"),
        )
    stale = sum(bool(each.stale) for each in found)
    failed = sum(bool(each.failed) for each in found)
    parts = [counted(len(found), "asset")]
    parts += [f"{stale:,} stale"] if stale else []
    parts += [f"{failed:,} failed"] if failed else []
    return Group(table, Text(""), Text(", ".join(parts), style="dim"))


def _made(each: AssetSummary) -> str:
    if each.partitioned:
        return f"{each.made:,}/{each.partitions:,}"
    return "yes" if each.made or each.current is not None else "no"


def _state(each: AssetSummary) -> Text:
    if each.external:
        return Text("external" if each.current is None else "observed", style="dim")
    text = Text(no_wrap=True, overflow="ellipsis")
    if each.failed:
        text.append(f"{each.failed:,} failed" if each.partitioned else "failed", style="red")
        text.append(", ")
    if each.stale:
        number = f"{each.stale:,} stale" if each.partitioned else "stale"
        text.append(number, style="yellow").append(f": {clipped(', '.join(each.reasons), 48)}", style="dim")
    elif each.blocked:
        text.append("blocked", style="yellow").append(f": {clipped(each.blocked, 48)}", style="dim")
    else:
        text.append("up to date", style="green")
    return text


def _seconds(version: Version) -> float | None:
    return (version.at - version.started_at) / _SECOND if version.started_at else None


def ago(microseconds: int) -> str:
    """``4 h 05 m ago``."""
    return f"{duration(microseconds / _SECOND)} ago"


def summary_document(each: AssetSummary) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "asset": each.key,
        "group": each.group,
        "description": each.description,
        "owners": each.owners,
        "tags": each.tags,
        "external": each.external,
        "upstream": each.upstream,
        "checks": each.checks,
        "partitions": each.partitions if each.partitioned else None,
        "made": each.made,
        "failed": each.failed,
        "stale": each.stale,
        "reasons": each.reasons,
        "blocked": each.blocked,
        "current": None if each.current is None else version_document(each.current),
        "history": [version_document(version) for version in each.history],
    }


def version_document(version: Version) -> dict[str, Any]:
    """A version as JSON."""
    seconds = _seconds(version)
    return {
        "version": version.version,
        "environment": version.environment,
        "partition": version.partition,
        "at": instant(version.at),
        "seconds": None if seconds is None else round(seconds, 6),
        "rows": version.rows,
        "bytes": version.size,
        "data_version": version.data_version,
        "code_version": version.code_version,
        "provenance": version.provenance,
        "warnings": version.warnings,
        "run": version.run,
    }


def versions_table(found: Sequence[Version], current: Collection[int], *, more: int) -> RenderableType:
    """One row per version, the latest first. `current`: the ids of those that are read now."""
    partitioned = any(each.partition for each in found)
    shared = len({each.environment for each in found}) > 1
    columns = [">version", "", *(["partition"] if partitioned else []), *(["environment"] if shared else [])]
    table = table_of(*columns, "published", ">took", ">rows", ">bytes", "data", "code", "run")
    for each in found:
        spent = _seconds(each)
        table.add_row(
            Text(f"@{each.version}", style="bold"),
            Text("current", style="green") if id(each) in current else "",
            *([each.partition] if partitioned else []),
            *([each.environment] if shared else []),
            clock(each.at),
            "" if spent is None else duration(spent),
            "" if each.rows is None else f"{each.rows:,}",
            "" if each.size is None else amount(each.size),
            each.data_version[:_DIGITS],
            each.code_version[:_DIGITS],
            each.run,
        )
    parts: list[RenderableType] = [table]
    if more > 0:
        parts.append(Text(f"… {more:,} more (--limit)", style="dim"))
    return Group(*parts)
