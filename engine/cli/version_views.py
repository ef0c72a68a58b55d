"""What `asset show` and `asset diff` print. Pure: renderables from what is recorded of versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engine.assets import AssetPromoted, AssetPublished, Change, Details, VersionDetails, VersionDiff
from engine.cli.asset_summary import check_lines
from engine.cli.readable import amount, by_and_why, clipped, clock, duration, one_line_of
from engine.cli.tables import table_of

__all__ = ["diff_view", "version_view"]

_SECOND: Final = 1_000_000
_INDENT: Final = (0, 0, 0, 2)
_WIDTH: Final = 100
_SHOWN: Final = 20


def version_view(found: VersionDetails) -> RenderableType:
    """All that is recorded of a version."""
    event, details = found.event, found.details
    grid = Table.grid(padding=(0, 2))
    for name, said in _facts(found):
        grid.add_row(Text(name, style="dim"), Text(said))
    parts: list[RenderableType] = [Text(found.title, style="bold"), Padding(grid, _INDENT, expand=False)]
    if details == Details() and isinstance(event, AssetPublished):
        parts.append(Text("  what else was recorded of it is not there any more", style="dim"))
    if details.upstream:
        table = table_of("made from", "partitions", "versions")
        for up in details.upstream:
            versions = ", ".join(f"@{each.version}" for each in up.versions[:_SHOWN] if each.version)
            more = ", …" if len(up.versions) > _SHOWN else ""
            table.add_row(
                up.key,
                "" if up.partitions == "*" else clipped(up.partitions, 40),
                f"{versions}{more}" or f"{up.count:,}, as of @{up.as_of}",
            )
        parts += [Text(""), Padding(table, _INDENT, expand=False)]
    if details.stored is not None and details.stored.schema:
        table = table_of("column", "type", "")
        for column in details.stored.schema:
            table.add_row(column.name, column.type, "" if column.nullable else "not null")
        parts += [Text(""), Padding(table, _INDENT, expand=False)]
    parts += _checks(details)
    if details.metadata:
        parts += [Text(""), _entries(msgspec.to_builtins(details.metadata))]
    if details.config:
        parts += [Text(""), Text("  configuration", style="dim"), _entries(details.config)]
    return Group(*parts)


def _facts(found: VersionDetails) -> Iterable[tuple[str, str]]:
    event, stored = found.event, found.details.stored
    yield "environment", found.environment
    if isinstance(event, AssetPromoted):
        yield (
            "promoted",
            f"from {event.environment}@{event.version} at {clock(event.at)}{by_and_why(event.by, event.reason)}",
        )
    else:
        yield ("published" if isinstance(event, AssetPublished) else "observed"), clock(event.at)
    yield "run", event.run
    if isinstance(event, AssetPublished):
        if event.started_at:
            yield "took", duration((event.at - event.started_at) / _SECOND)
        if event.rows is not None:
            yield "rows", f"{event.rows:,}"
        if event.size is not None:
            yield "size", amount(event.size)
        yield "code version", event.code_version
    yield "data version", event.data_version
    if stored is not None:
        yield "stored", f"{stored.key} ({stored.format}{f', {stored.type}' if stored.type else ''})"


def _checks(details: Details) -> list[RenderableType]:
    if not details.checks:
        return []
    parts: list[RenderableType] = [Text("")]
    for check in details.checks:
        if check.passed:
            said = f": {check.description}" if check.description else ""
            parts.append(Text(f"  ✔ check {check.name} passed{said}", style="green"))
        else:
            parts += [
                Text(f"  {line}", style="yellow" if index == 0 else "") for index, line in enumerate(check_lines(check))
            ]
    return parts


def _entries(entries: Mapping[str, Any]) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for name, value in entries.items():
        grid.add_row(Text(name, style="dim"), Text(_short(value)))
    return Padding(grid, _INDENT, expand=False)


def _short(value: Any) -> str:
    return clipped(value, _WIDTH) if isinstance(value, str) else one_line_of(value, _WIDTH)


def diff_view(diff: VersionDiff) -> RenderableType:
    """What tells two versions apart."""
    old, new = diff.old, diff.new
    parts: list[RenderableType] = [Text(f"{old.title} → {new.title}", style="bold")]
    parts.append(Text(f"  {'the same data' if diff.same_data else 'other data'}, {_code(diff)}"))
    first, second = _rows(old), _rows(new)
    if first is not None or second is not None:
        parts.append(Text(f"  rows: {_number(first)} → {_number(second)}"))
    for heading, changes in (
        ("columns", diff.columns),
        ("made from", diff.inputs),
        ("metadata", diff.metadata),
        ("configuration", diff.config),
        ("values", diff.values),
    ):
        parts += _changes(heading, changes)
    if diff.rows is not None:
        parts += [Text(""), Text(f"  rows added {diff.rows.added:,}, removed {diff.rows.removed:,}")]
        parts += [Text(f"    + {one_line_of(dict(row), 160)}", style="green") for row in diff.rows.added_rows]
        parts += [Text(f"    - {one_line_of(dict(row), 160)}", style="red") for row in diff.rows.removed_rows]
    if diff.not_compared:
        parts += [Text(""), Text(f"  values were not compared: {diff.not_compared}", style="dim")]
    return Group(*parts)


def _code(diff: VersionDiff) -> str:
    return "other code" if diff.code_changed else "the same code"


def _rows(version: VersionDetails) -> int | None:
    return version.event.rows if isinstance(version.event, AssetPublished) else None


def _number(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _changes(heading: str, changes: Sequence[Change]) -> list[RenderableType]:
    if not changes:
        return []
    parts: list[RenderableType] = [Text(""), Text(f"  {heading}", style="dim")]
    for change in changes[:_SHOWN]:
        old, new = ("—" if side is None else _short(side) for side in (change.old, change.new))
        parts.append(Text(f"    {change.place}: {old} → {new}"))
    if len(changes) > _SHOWN:
        parts.append(Text(f"    … {len(changes) - _SHOWN:,} more (--json shows all)", style="dim"))
    return parts
