"""Tables of any library as Arrow, and back, by the names of `engine.core.tabular.TABLES`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa

from engine.errors import StorageRefused
from engine.storage.arrow.digest import BATCH_ROWS, TableDigest
from engine.storage.arrow.parquet import Written, batches_of, open_parquet, read_table, write_parquet
from engine.storage.extras import needing

__all__ = ["WRITER", "data_version", "describe", "read", "to_arrow", "write"]

WRITER: Final = f"pyarrow {pa.__version__}"


def to_arrow(value: Any, kind: str) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    """The schema and the rows of a table. Raises `StorageRefused` for what Arrow does not hold."""
    match kind.partition(".")[0]:
        case "polars":
            with needing("a table of polars needs"):
                from engine.storage.arrow import with_polars  # noqa: PLC0415 - only who has it

            value = with_polars.to_table(value)
        case "pandas":
            with needing("a table of pandas needs"):
                from engine.storage.arrow import with_pandas  # noqa: PLC0415 - only who has it

            value = with_pandas.to_table(value)
        case "duckdb":
            with needing("a table of duckdb needs"):
                from engine.storage.arrow import with_duckdb  # noqa: PLC0415 - only who has it

            value = with_duckdb.to_reader(value)
    match value:
        case pa.Table():
            return value.schema, value.to_batches(max_chunksize=BATCH_ROWS)
        case pa.RecordBatch():
            return value.schema, [value]
        case _:
            return value.schema, value


def write(value: Any, kind: str, file: Any) -> Written:
    """The table as a Parquet file."""
    schema, batches = to_arrow(value, kind)
    return write_parquet(schema, batches, file)


def describe(data: bytes) -> Written:
    """What a Parquet file holds."""
    with open_parquet(pa.BufferReader(data), "to be written") as file:
        digest = TableDigest(file.schema_arrow)
        for batch in file.iter_batches(BATCH_ROWS):
            digest.add(batch)
        return Written(digest)


def data_version(value: Any, kind: str) -> str:
    """See `engine.storage.data_version`."""
    schema, batches = to_arrow(value, kind)
    digest = TableDigest(schema)
    digest.hexdigest()  # before the rows are read: refuses types that are not stored
    for batch in batches:
        digest.add(batch)
    return digest.hexdigest()


def read(source: Path | IO[bytes], kind: str, key: str) -> Any:
    """The table as that type. Raises `StorageDamaged`, or `StorageRefused` for what the library cannot hold."""
    if kind == "pyarrow.RecordBatchReader":
        return batches_of(open_parquet(source, key))
    return converted(read_table(source, key), kind)


def joined(parts: Iterable[pa.Table], kind: str, key: str) -> Any:
    """Tables one behind the other, as that type. Raises `StorageRefused` when their columns are not the same."""
    try:
        table = pa.concat_tables(parts, promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StorageRefused(
            f"{key} and others have different columns, and cannot be one table: {error}", key=key
        ) from None
    return table.to_reader() if kind == "pyarrow.RecordBatchReader" else converted(table, kind)


def converted(table: pa.Table, kind: str) -> Any:
    """A table as that type."""
    match kind:
        case "pyarrow.Table":
            return table
        case "pyarrow.RecordBatch":
            return _one_batch(table)
        case "polars.DataFrame" | "polars.LazyFrame":
            with needing("a table of polars needs"):
                from engine.storage.arrow import with_polars  # noqa: PLC0415 - only who has it

            return with_polars.from_table(table, lazy=kind == "polars.LazyFrame")
        case "pandas.DataFrame":
            with needing("a table of pandas needs"):
                from engine.storage.arrow import with_pandas  # noqa: PLC0415 - only who has it

            return with_pandas.from_table(table)
        case _:
            with needing("a table of duckdb needs"):
                from engine.storage.arrow import with_duckdb  # noqa: PLC0415 - only who has it

            return with_duckdb.from_table(table)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches: list[pa.RecordBatch] = table.combine_chunks().to_batches()
    if len(batches) > 1:
        raise StorageRefused("this table is too large for one pyarrow.RecordBatch: read it as a pyarrow.Table")
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
