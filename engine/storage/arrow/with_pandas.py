"""Pandas frames: the one place that imports `pandas`.

A plain float column of pandas has one missing value, NaN: it is written as null. An index that is no plain count is
written as columns, and comes back as the index. What pandas wrote it reads back as it does itself; of tables that
others wrote, integers and booleans with nulls become its nullable types, for floats could not hold them, and decimals,
dates, times, bytes, lists and structs become columns of Arrow's types, for columns of Python objects would forget
theirs.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pandas as pd
import pyarrow as pa

from engine.errors import StorageRefused

__all__ = ["from_table", "to_table"]

_NULLABLE: Final = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
}

_OWN: Final = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_timestamp,
    pa.types.is_duration,
    pa.types.is_dictionary,
    pa.types.is_null,
)
"""Types that pandas has columns of its own for."""


def to_table(value: Any) -> pa.Table:
    """A DataFrame. Raises `StorageRefused` for columns of mixed Python objects, naming one."""
    try:
        return pa.Table.from_pandas(value)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise StorageRefused(f"this pandas frame cannot be stored as Parquet: {error}") from error


def from_table(table: pa.Table) -> Any:
    """A DataFrame. Raises `StorageRefused` for columns that pandas has no type for."""
    table, objects = _without_arrow_types(table)
    kept = {field.type for field in table.schema if field.name in objects}

    def as_arrow(type_: pa.DataType) -> Any:
        return None if type_ in kept or any(test(type_) for test in _OWN) else pd.ArrowDtype(type_)

    try:
        frame = table.to_pandas(types_mapper=as_arrow)
        for field, column in zip(table.schema, table.columns, strict=True):
            if column.null_count and field.type in _NULLABLE and field.name in frame.columns:
                frame[field.name] = column.to_pandas(types_mapper=_NULLABLE.get).array
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise StorageRefused(f"pandas cannot hold this table ({error}): read it as a pyarrow.Table") from error
    return frame


def _without_arrow_types(table: pa.Table) -> tuple[pa.Table, frozenset[str]]:
    """The table without what pandas wrote of Arrow's types, but cannot read; and its columns of Python objects."""
    metadata = table.schema.pandas_metadata
    if not metadata:
        return table, frozenset()
    columns = metadata["columns"]
    # Of decimals pandas writes that they are objects, whatever they were.
    own = (each for each in columns if each["numpy_type"] == "object" and each["pandas_type"] != "decimal")
    objects = frozenset(each["field_name"] for each in own)
    for each in columns:
        if each["numpy_type"].endswith("[pyarrow]"):
            each["numpy_type"] = "object"
    return table.replace_schema_metadata({b"pandas": msgspec.json.encode(metadata)}), objects
