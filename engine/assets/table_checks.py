"""What the built-in checks find in a table: whole columns at once, by Arrow, and a few of the rows that fail, in order.

The only module here that imports `pyarrow`; loaded when such a check runs.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import reduce
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from engine.assets.checks import CheckResult
from engine.assets.samples import SAMPLE_COLUMNS_MAX, SAMPLE_ROWS_MAX
from engine.errors import AssetError

__all__ = ["accepted_values", "in_range", "matches", "not_null", "references", "unique"]

_ROW: Final = "(row)"
"""What the number of a failing row, from 0, is called in a sample."""


def not_null(value: Any, columns: Sequence[str], *, nan_is_null: bool) -> CheckResult:
    """Whether no value is missing."""
    table = _table(value)
    missing = {name: pc.is_null(_column(table, name), nan_is_null=nan_is_null) for name in columns}
    counts = {f"missing in {name}": _count(mask) for name, mask in missing.items()}
    return _found(table, reduce(pc.or_, missing.values()), columns, "with a null", counts)


def unique(value: Any, columns: Sequence[str]) -> CheckResult:
    """Whether no two rows have the same."""
    table = _table(value)
    keys = {str(place): _key(_column(table, name), name) for place, name in enumerate(columns)}
    rows = pa.table({**keys, _ROW: _numbers(table.num_rows)})
    rows = rows.filter(reduce(pc.and_, map(pc.is_valid, rows.columns[:-1])))
    groups = rows.group_by(list(keys)).aggregate([(_ROW, "list"), (_ROW, "count")])
    several = groups.filter(pc.greater(groups[f"{_ROW}_count"], 1))
    failing = pc.list_flatten(several[f"{_ROW}_list"])
    failing = failing.take(pc.sort_indices(failing))
    counts = {"values that are there more than once": several.num_rows}
    return _result(table, failing, columns, "with the same as another", counts)


def accepted_values(value: Any, column: str, accepted: Sequence[Any]) -> CheckResult:
    """Whether each value is one of those."""
    table = _table(value)
    there = _column(table, column)
    try:
        known = pa.array(accepted, type=there.type, from_pandas=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise AssetError(f"accepted_values: what is accepted does not fit column {column!r}: {error}") from None
    return _among(table, column, there, known, "with a value that is not accepted")


def in_range(value: Any, column: str, low: Any, high: Any) -> CheckResult:
    """Whether each value is within bounds."""
    table = _table(value)
    there = _column(table, column)
    try:
        comparable = there.cast(pa.decimal128(20, 0)) if pa.types.is_uint64(there.type) else there
        within = [
            test(comparable, pa.scalar(bound))
            for test, bound in ((pc.greater_equal, low), (pc.less_equal, high))
            if bound is not None
        ]
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise AssetError(f"in_range: the bounds do not fit column {column!r}, which is {there.type}: {error}") from None
    return _found(table, pc.invert(reduce(pc.and_, within)), (column,), "out of range", _ends(there))


def matches(value: Any, column: str, pattern: str) -> CheckResult:
    """Whether each text fits."""
    table = _table(value)
    there = _column(table, column)
    try:
        fits = pc.match_substring_regex(there, rf"\A(?:{pattern})\z")
    except pa.ArrowNotImplementedError:
        raise AssetError(f"matches: column {column!r} is {there.type}, and not text") from None
    except pa.ArrowInvalid as error:
        raise AssetError(f"matches: {pattern!r} is no regular expression of RE2: {error}") from None
    return _found(table, pc.invert(fits), (column,), "that do not fit", {})


def references(value: Any, column: str, others: Any, their_column: str, key: str) -> CheckResult:
    """Whether each value is there in another table."""
    table, theirs = _table(value), _table(others)
    there, known = _column(table, column), _column(theirs, their_column)
    if known.type != there.type:
        try:
            known = known.cast(there.type)
        except pa.ArrowException as error:
            raise AssetError(
                f"references: column {column!r} is {there.type}, and {their_column!r} of {key} is {known.type}: {error}"
            ) from None
    return _among(table, column, there, known, f"without a counterpart in {key}")


# ------------------------------------------------------------------------------------------------ shared


def _table(value: Any) -> pa.Table:
    if isinstance(value, pa.Table):
        table = value
    elif hasattr(value, "__arrow_c_stream__"):  # a frame of another library, in a test
        table = pa.table(value)
    else:
        raise AssetError(f"this check is of tables, and the value is {type(value).__name__}")
    return table


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    names = table.column_names
    if names.count(name) != 1:
        close = difflib.get_close_matches(name, names, n=1) or names[:5]
        many = "more than one column" if name in names else "no column"
        raise AssetError(f"there is {many} {name!r}; there are {', '.join(close)}{', ...' if len(names) > 1 else ''}")
    return _decoded(table[name])


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values themselves: not every function takes dictionaries (and each chunk may have its own) and views."""
    if pa.types.is_dictionary(column.type):
        type_ = column.type.value_type
        return _decoded(pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], type_))
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    if pa.types.is_float16(column.type):
        return column.cast(pa.float32())
    return column.cast(pa.large_binary()) if pa.types.is_binary_view(column.type) else column


def _key(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The column as rows are grouped by it."""
    if pa.types.is_nested(column.type):
        raise AssetError(f"unique: column {name!r} is {column.type}, which is not compared: name plain columns")
    if pa.types.is_floating(column.type):  # -0.0 is 0.0, and all NaNs are one
        column = pc.add(column.cast(pa.float64()), 0.0)
        nan = pa.scalar(float("nan"), pa.float64())
        column = pc.if_else(pc.is_nan(column), nan, column)
    return column


def _numbers(count: int) -> pa.Array:
    """0, 1, 2, ..."""
    return pc.subtract(pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int64()), count)), 1)


def _among(table: pa.Table, column: str, there: pa.ChunkedArray, known: Any, how: str) -> CheckResult:
    try:
        strange = pc.and_(pc.invert(pc.is_in(there, value_set=known)), pc.is_valid(there))
    except pa.ArrowNotImplementedError:
        raise AssetError(f"column {column!r} is {there.type}, which is not compared") from None
    kinds = len(pc.unique(there.filter(strange))) if pc.any(strange).as_py() else 0
    return _found(table, strange, (column,), how, {"different values that fail": kinds})


def _found(table: pa.Table, failing: Any, columns: Sequence[str], how: str, counts: dict[str, Any]) -> CheckResult:
    """`failing`: for each row whether it fails; a null does not."""
    places = pc.indices_nonzero(pc.fill_null(failing, False))
    return _result(table, places, columns, how, counts)


def _result(table: pa.Table, places: Any, columns: Sequence[str], how: str, counts: dict[str, Any]) -> CheckResult:
    rows, failing = table.num_rows, len(places)
    return CheckResult(
        not failing,
        f"{failing:,} of {rows:,} rows {how}" if failing else f"{rows:,} rows",
        metadata={"rows": rows, "failing": failing, **counts},
        rows=_sample(table, places[:SAMPLE_ROWS_MAX], columns) if failing else (),
    )


def _sample(table: pa.Table, places: Any, columns: Sequence[str]) -> list[dict[str, Any]]:
    """These rows, with the columns that were looked at first."""
    names = table.column_names
    others = [name for name in names if name not in columns and names.count(name) == 1]
    kept = [*columns, *others][: SAMPLE_COLUMNS_MAX - 1]
    return [{_ROW: at, **{name: _scalar(table[name][at]) for name in kept}} for at in places.to_pylist()]


def _scalar(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException):  # a time that Python does not have: in the year 12000
        return repr(scalar)


def _ends(column: pa.ChunkedArray) -> dict[str, Any]:
    """The least and the greatest value, where they can be said in metadata."""
    ends = pc.min_max(column)
    low, high = _scalar(ends["min"]), _scalar(ends["max"])
    return {"min": low, "max": high} if isinstance(low, int | float | str) else {}


def _count(mask: Any) -> int:
    return pc.sum(mask).as_py() or 0
