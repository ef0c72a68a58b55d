"""What the built-in checks find that compare a table with what was before. They read no value, and need no library."""

from __future__ import annotations

from statistics import median
from typing import Final

from engine.assets.checks import CheckContext, CheckResult
from engine.errors import AssetError
from engine.storage import Column

__all__ = ["against_history", "count_within", "same_schema"]

_SHOWN: Final = 10
"""Columns that a description names."""


def count_within(context: CheckContext, low: int | None, high: int | None) -> CheckResult:
    """Whether the number of rows is within bounds."""
    rows = _rows(context)
    passed = (low is None or rows >= low) and (high is None or rows <= high)
    return CheckResult(passed, f"{_counted(rows)}", metadata={"rows": rows, "min": low, "max": high})


def against_history(context: CheckContext, tolerance: float, versions: int) -> CheckResult:
    """Whether the number of rows is about what it was."""
    rows = _rows(context)
    before = [each.rows for each in context.history[:versions] if each.rows is not None]
    if not before:
        return CheckResult(True, f"{_counted(rows)}; nothing before to compare with", metadata={"rows": rows})
    usual = median(before)
    away = abs(rows - usual)
    change = f", {(rows - usual) / usual:+.1%}" if usual else ""
    return CheckResult(
        away <= tolerance * usual,
        f"{_counted(rows)}, where {usual:,.10g} was the median of {_versions(len(before))}{change}",
        metadata={"rows": rows, "median": usual, "versions": len(before), "tolerance": tolerance},
    )


def same_schema(context: CheckContext) -> CheckResult:
    """Whether the columns are those of the version before."""
    if context.stored is None or context.stored.schema is None:
        raise AssetError(f"asset {context.key} is no table: it has no schema to compare")
    if context.previous is None:
        return CheckResult(True, "there is no version before")
    before = context.previous.schema
    if before is None:
        return CheckResult(True, f"of version {context.previous.version} no schema is known")
    changes = _changes(before, context.stored.schema)
    return CheckResult(
        not changes,
        "; ".join([*changes[:_SHOWN], *(["..."] if len(changes) > _SHOWN else [])]) or "as before",
        metadata={"changes": len(changes), "compared_with": context.previous.version},
    )


def _changes(before: tuple[Column, ...], now: tuple[Column, ...]) -> list[str]:
    old = {each.name: each for each in before}
    new = {each.name: each for each in now}
    changes = [f"{name} is gone" for name in old if name not in new]
    changes += [f"{name} is new ({each.type})" for name, each in new.items() if name not in old]
    for name, each in new.items():
        was = old.get(name, each)
        if was.type != each.type:
            changes.append(f"{name} was {was.type} and is {each.type}")
        elif was.nullable != each.nullable:
            changes.append(f"{name} {'may' if each.nullable else 'may not'} be null now")
    if not changes and before != now:
        changes.append(f"the order was {', '.join(each.name for each in before[:_SHOWN])}")
    return changes


def _rows(context: CheckContext) -> int:
    if context.stored is None or context.stored.rows is None:
        raise AssetError(f"asset {context.key} is no table: its rows cannot be counted")
    return context.stored.rows


def _counted(rows: int) -> str:
    return f"{rows:,} row" if rows == 1 else f"{rows:,} rows"


def _versions(count: int) -> str:
    return "the version before" if count == 1 else f"the last {count} versions"
