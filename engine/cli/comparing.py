"""`diff`: two histories side by side."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw, to_builtins
from rich.table import Table
from rich.text import Text

from engine import Engine, HistoryDiff, HistoryEvent
from engine.cli.output import Output
from engine.cli.phrases import about, detail
from engine.cli.problems import Exit
from eventstore import EventStore

__all__ = ["diff", "diff_document", "event_text", "show_rows"]

_WIDTH: Final = 60


async def diff(store: EventStore, output: Output, left: str, right: str, *, rows: int) -> Exit:
    """Where they part, and what stands on either side from there on."""
    async with Engine(store) as client:
        found = await client.diff(left, right)
    if output.json:
        output.document({"left": left, "right": right, **diff_document(found)})
        return Exit.COMPLETED
    if found.without_values:
        output.line("values were destroyed: what happened is compared, and no values are")
    if not found.rows:
        output.line(f"runs {left} and {right} are alike: all {found.alike:,} facts and decisions of either")
    else:
        show_rows(output, found, (left, right), rows=rows)
    return Exit.COMPLETED


def diff_document(found: HistoryDiff) -> dict[str, Any]:
    """Two histories side by side, as JSON."""
    rows = [{"alike": row.alike, "left": _document(row.left), "right": _document(row.right)} for row in found.rows]
    return {"alike": found.alike, "without_values": found.without_values, "rows": rows}


def show_rows(output: Output, found: HistoryDiff, titles: tuple[str, str], *, rows: int) -> None:
    """The two columns, from where they part."""
    output.line(f"{found.alike:,} facts and decisions are alike; then:")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("")
    for title in titles:
        table.add_column(Text(title), overflow="fold")
    for row in found.rows[:rows]:
        style = "dim" if row.alike else ""
        mark = "" if row.alike else "≠"
        table.add_row(mark, *(Text(event_text(side), style=style) for side in (row.left, row.right)))
    output.show(table)
    if (more := len(found.rows) - rows) > 0:
        output.line(f"… {more:,} more (--rows {rows * 5}, or --json, shows them)")


def event_text(item: HistoryEvent | None) -> str:
    """One event in its column."""
    if item is None:
        return "—"
    header: dict[str, Any] = to_builtins(item.event)
    said = detail({key: value for key, value in header.items() if key not in {"site", "task"}}, item.json)
    words = [f"{item.version:>5}", str(header["type"]), about(header), said[:_WIDTH]]
    return "  ".join(word for word in words if word)


def _document(item: HistoryEvent | None) -> dict[str, Any] | None:
    if item is None:
        return None
    payload = None if item.json is None else Raw(item.json)
    return {"version": item.version, "header": Raw(item.header), "payload": payload}
