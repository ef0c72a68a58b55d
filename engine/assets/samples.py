"""Failing rows as they are kept in the log: JSON, few, and short, whatever they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from math import isfinite
from typing import Any, Final

__all__ = ["SAMPLE_COLUMNS_MAX", "SAMPLE_ROWS_MAX", "SAMPLE_TEXT_MAX", "sample"]

SAMPLE_ROWS_MAX: Final = 20
"""Failing rows that are kept in the log; a check may count as many as it likes."""
SAMPLE_COLUMNS_MAX: Final = 20
"""Columns of a failing row that are kept; the first ones."""
SAMPLE_TEXT_MAX: Final = 200
"""Characters of one value."""

_INTEGER_MAX: Final = 1 << 63


def sample(rows: Iterable[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    """The first SAMPLE_ROWS_MAX rows, as JSON can say them."""
    kept: list[dict[str, Any]] = []
    for row in rows:
        if len(kept) == SAMPLE_ROWS_MAX:
            break
        kept.append({_cut(str(name)): _shown(row[name]) for name in list(row)[:SAMPLE_COLUMNS_MAX]})
    return kept


def _shown(value: Any) -> Any:
    if hasattr(value, "item") and type(value).__module__.partition(".")[0] == "numpy":
        value = value.item()
    match value:
        case None | bool():
            return value
        case int():
            return value if -_INTEGER_MAX <= value < _INTEGER_MAX else _cut(str(value))
        case float():
            return value if isfinite(value) else str(value)  # JSON has no NaN
        case str():
            return _cut(value)
        case bytes():
            return _cut(value.hex())
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            return _cut(str(value))


def _cut(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()  # half a character is no JSON
    return text if len(text) <= SAMPLE_TEXT_MAX else text[: SAMPLE_TEXT_MAX - 3] + "..."
