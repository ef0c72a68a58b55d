"""DuckDB relations: the one place that imports `duckdb`.

DuckDB keeps no zone with a timestamp: it shows that of its session, another one on each machine. So zoned timestamps of
a relation are written as UTC.
"""

from __future__ import annotations

from typing import Any, Final

import duckdb
import pyarrow as pa

from engine.errors import StorageRefused

__all__ = ["from_table", "to_reader"]

_BATCH_ROWS: Final = 65_536


def to_reader(value: Any) -> pa.RecordBatchReader:
    """The rows of a relation, computed as they are read."""
    read = value.to_arrow_reader if hasattr(value, "to_arrow_reader") else value.fetch_record_batch  # of old
    reader = read(_BATCH_ROWS)
    schema = pa.schema([field.with_type(_in_utc(field.type)) for field in reader.schema])
    if schema.equals(reader.schema):
        return reader
    tables = (pa.Table.from_batches([batch]).cast(schema) for batch in reader)
    return pa.RecordBatchReader.from_batches(schema, (batch for table in tables for batch in table.to_batches()))


def from_table(table: pa.Table) -> Any:
    """A relation over the table, on a connection of its own. Raises `StorageRefused` for types that DuckDB lacks."""
    try:
        relation = duckdb.connect().from_arrow(table)
        relation.limit(0).fetchall()
    except duckdb.Error as error:
        raise StorageRefused(f"DuckDB cannot hold this table ({error}): read it as a pyarrow.Table") from error
    return relation


def _in_utc(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(type_) and type_.tz is not None:
        return pa.timestamp(type_.unit, "UTC")
    if pa.types.is_list(type_):
        return pa.list_(type_.value_field.with_type(_in_utc(type_.value_type)))
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_in_utc(field.type)) for field in type_])
    return type_
