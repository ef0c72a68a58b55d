"""Checks that need no writing: ``checks=[not_null("id"), unique("id"), in_range("price", min=0)]``.

They are of tables, whatever library made them, and look at whole columns at once. A null is neither right nor wrong to
all but `not_null`, which says that there is none.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Final

from engine.assets.checks import HISTORY_VERSIONS_MAX, Check, CheckContext, CheckResult, check_name
from engine.assets.definition import Asset, In
from engine.assets.history_checks import against_history, count_within, same_schema
from engine.assets.mappings import Mapping
from engine.errors import AssetDefinitionError

__all__ = [
    "accepted_values",
    "check_of",
    "in_range",
    "matches",
    "not_null",
    "references",
    "row_count",
    "row_count_against_history",
    "schema_unchanged",
    "unique",
    "where_called",
]

_NAME_CHARACTERS: Final = 80
_ODD: Final = re.compile(r"[^A-Za-z0-9_-]+")


def not_null(
    *columns: str, nan_is_null: bool = False, blocking: bool = True, name: str | None = None
) -> Check[..., CheckResult]:
    """No value of these columns is missing. A NaN is there, unless `nan_is_null`."""
    where = where_called()
    names = _columns(columns, "not_null", where)

    def holds(table: Any) -> CheckResult:
        from engine.assets import table_checks  # noqa: PLC0415 - only who has pyarrow

        return table_checks.not_null(table, names, nan_is_null=nan_is_null)

    said = f"no {_or(names)} is missing"
    return check_of(
        "not_null", names, holds, about=(names, nan_is_null), says=said, where=where, blocking=blocking, name=name
    )


def unique(*columns: str, blocking: bool = True, name: str | None = None) -> Check[..., CheckResult]:
    """No two rows have the same in all of these columns. Rows with a null in one of them count as different from all
    others; all NaNs are the same.
    """
    where = where_called()
    names = _columns(columns, "unique", where)

    def holds(table: Any) -> CheckResult:
        from engine.assets import table_checks  # noqa: PLC0415 - likewise

        return table_checks.unique(table, names)

    said = f"no two rows have the same {_and(names)}"
    return check_of("unique", names, holds, about=names, says=said, where=where, blocking=blocking, name=name)


def accepted_values(
    column: str, values: Collection[Any], *, blocking: bool = True, name: str | None = None
) -> Check[..., CheckResult]:
    """Each value of the column is one of `values`; nulls are not looked at."""
    where = where_called()
    names = _columns((column,), "accepted_values", where)
    if isinstance(values, str) or not values:
        raise AssetDefinitionError(f"{where}: accepted_values takes a list of values, not {values!r}")
    accepted = tuple(values)

    def holds(table: Any) -> CheckResult:
        from engine.assets import table_checks  # noqa: PLC0415 - likewise

        return table_checks.accepted_values(table, column, accepted)

    said = f"each {column} is one of {_few(accepted)}"
    return check_of(
        "accepted_values", names, holds, about=(column, accepted), says=said, where=where, blocking=blocking, name=name
    )


def in_range(
    column: str,
    min: Any = None,  # noqa: A002 - as authors would say it
    max: Any = None,  # noqa: A002 - likewise
    *,
    blocking: bool = True,
    name: str | None = None,
) -> Check[..., CheckResult]:
    """Each value of the column is `min` at least, and `max` at most: numbers, dates, times, or texts. Nulls are not
    looked at; a NaN is in no range.
    """
    where = where_called()
    names = _columns((column,), "in_range", where)
    _bounds(min, max, "in_range", where)

    def holds(table: Any) -> CheckResult:
        from engine.assets import table_checks  # noqa: PLC0415 - likewise

        return table_checks.in_range(table, column, min, max)

    said = f"each {column} is {_within(min, max)}"
    return check_of(
        "in_range", names, holds, about=(column, min, max), says=said, where=where, blocking=blocking, name=name
    )


def matches(column: str, pattern: str, *, blocking: bool = True, name: str | None = None) -> Check[..., CheckResult]:
    """Each text of the column fits the regular expression, as a whole: begin and end with ``.*`` to look for something
    within. Nulls are not looked at. The syntax is that of RE2: what Python has, without looking around and back.
    """
    where = where_called()
    names = _columns((column,), "matches", where)
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise AssetDefinitionError(f"{where}: {pattern!r} is no regular expression: {error}") from None

    def holds(table: Any) -> CheckResult:
        from engine.assets import table_checks  # noqa: PLC0415 - likewise

        return table_checks.matches(table, column, pattern)

    said = f"each {column} fits {pattern}"
    return check_of(
        "matches", names, holds, about=(column, pattern), says=said, where=where, blocking=blocking, name=name
    )


def references(
    other: str | Asset[..., Any],
    column: str,
    their_column: str | None = None,
    *,
    mapping: Mapping | None = None,
    blocking: bool = True,
    name: str | None = None,
) -> Check[..., CheckResult]:
    """Each value of the column is in `their_column` (of the same name, if not given) of another asset, as that is when
    this one is made; it is made before. Nulls are not looked at. `mapping`: which partitions of it are meant.
    """
    where = where_called()
    names = _columns((column, *(() if their_column is None else (their_column,))), "references", where)
    key = other if isinstance(other, str) else getattr(other, "key", None)
    if not isinstance(key, str):
        raise AssetDefinitionError(f"{where}: references takes an asset or its key, not {other!r}")
    theirs = names[-1]

    def holds(table: Any, others: Any) -> CheckResult:
        from engine.assets import table_checks  # noqa: PLC0415 - likewise

        return table_checks.references(table, column, others, theirs, key)

    holds.__annotations__ = {"table": Any, "others": Annotated[Any, In(key, mapping)], "return": CheckResult}
    said = f"each {column} is a {theirs} of {key}"
    parts = (column, *key.split("/"))
    return check_of(
        "references", parts, holds, about=(key, column, theirs), says=said, where=where, blocking=blocking, name=name
    )


def row_count(
    min: int | None = None,  # noqa: A002 - likewise
    max: int | None = None,  # noqa: A002 - likewise
    *,
    blocking: bool = True,
    name: str | None = None,
) -> Check[..., CheckResult]:
    """There are `min` rows at least, and `max` at most. The value is not read for it."""
    where = where_called()
    _bounds(min, max, "row_count", where)

    def holds(context: CheckContext) -> CheckResult:
        return count_within(context, min, max)

    said = f"the number of rows is {_within(min, max)}"
    return check_of("row_count", (), holds, about=(min, max), says=said, where=where, blocking=blocking, name=name)


def row_count_against_history(
    tolerance: float, *, versions: int = 10, blocking: bool = True, name: str | None = None
) -> Check[..., CheckResult]:
    """There are about as many rows as there were: not more than `tolerance` (0.2 is a fifth) away from the median of
    the last `versions` versions of the asset, of whichever partitions. It holds while there is none. The value is not
    read.
    """
    where = where_called()
    if not isinstance(tolerance, int | float) or isinstance(tolerance, bool) or not 0 <= tolerance < float("inf"):
        raise AssetDefinitionError(f"{where}: tolerance is a part of the median, such as 0.2, not {tolerance!r}")
    if not isinstance(versions, int) or not 1 <= versions <= HISTORY_VERSIONS_MAX:
        raise AssetDefinitionError(f"{where}: versions is from 1 to {HISTORY_VERSIONS_MAX}, not {versions!r}")

    def holds(context: CheckContext) -> CheckResult:
        return against_history(context, tolerance, versions)

    said = f"the number of rows is within {tolerance:.0%} of the median of the last {versions} versions"
    about = (tolerance, versions)
    return check_of(
        "row_count_against_history", (), holds, about=about, says=said, where=where, blocking=blocking, name=name
    )


def schema_unchanged(*, blocking: bool = True, name: str | None = None) -> Check[..., CheckResult]:
    """The columns have the names, types and order that they had in the version before. It holds while there is none.
    The value is not read.
    """
    said = "the columns are those of the version before"
    return check_of(
        "schema_unchanged", (), same_schema, about=(), says=said, where=where_called(), blocking=blocking, name=name
    )


# ------------------------------------------------------------------------------------------------ how they are made


def check_of(
    kind: str,
    parts: Collection[str],
    fn: Callable[..., CheckResult],
    *,
    about: Any,
    says: str,
    where: str,
    blocking: bool,
    name: str | None,
) -> Check[..., CheckResult]:
    """A check named after its kind and `parts`, unless it has a name. `about`: what makes it another; None: it cannot
    be told.
    """
    made = "_".join([kind, *(_ODD.sub("_", each) for each in parts)])[:_NAME_CHARACTERS]
    return Check(
        name=check_name(made if name is None else name, where),
        fn=fn,
        severity="blocking" if blocking else "warning",
        description=says,
        code_version=None if about is None else f"{kind} 1 {about!r}",
        where=where,
    )


def where_called() -> str:
    """File and line where the author called the function that asks."""
    frame = sys._getframe(2)
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _columns(given: tuple[str, ...], what: str, where: str) -> tuple[str, ...]:
    for each in given:
        if not isinstance(each, str) or not each:
            raise AssetDefinitionError(f"{where}: {what} takes names of columns, as in {what}('id'), not {each!r}")
    if not given:
        raise AssetDefinitionError(f"{where}: {what} names no column, as in {what}('id')")
    return given


def _bounds(low: Any, high: Any, what: str, where: str) -> None:
    if low is None and high is None:
        raise AssetDefinitionError(f"{where}: {what} has neither min nor max: give one, or both")
    try:
        turned = low is not None and high is not None and bool(high < low)
    except TypeError as error:
        raise AssetDefinitionError(f"{where}: {what}: min and max do not go together: {error}") from None
    if turned:
        raise AssetDefinitionError(f"{where}: {what}: min {low!r} is above max {high!r}")


def _within(low: Any, high: Any) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"from {low} to {high}"


def _and(names: Collection[str]) -> str:
    return " and ".join(names)


def _or(names: Collection[str]) -> str:
    return " and no ".join(names)


def _few(values: tuple[Any, ...]) -> str:
    return ", ".join(map(repr, values[:5])) + (f", ... ({len(values)})" if len(values) > 5 else "")
