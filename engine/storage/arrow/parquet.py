"""Record batches to Parquet and back, in bounded memory.

Row groups are cut at ROW_GROUP_ROWS rows wherever the batches end, or before, at ROW_GROUP_BYTES. The Arrow schema goes
into the file, so that types that Parquet does not know come back as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import StorageDamaged, StorageRefused
from engine.storage.arrow.digest import BATCH_ROWS, TableDigest, cut, type_text
from engine.storage.stored import Column

__all__ = ["COLUMNS_MAX", "ROW_GROUP_BYTES", "ROW_GROUP_ROWS", "Written", "open_parquet", "read_table", "write_parquet"]

ROW_GROUP_ROWS: Final = 131_072
"""Rows of a row group: what a reader of a part of the file has to read, and a writer to hold."""
ROW_GROUP_BYTES: Final = 128 << 20
"""Bytes in memory that end a row group before it has that many rows."""
COLUMNS_MAX: Final = 10_000
"""Columns of one table."""
_COMPRESSION: Final = "zstd"


class Written:
    """What was written: rows, columns and the data version."""

    __slots__ = ("columns", "data_version", "rows")

    def __init__(self, digest: TableDigest) -> None:
        self.rows = digest.rows
        self.columns = columns_of(digest.schema)
        self.data_version = digest.hexdigest()


def columns_of(schema: pa.Schema) -> tuple[Column, ...]:
    """Names and types, as `Stored` keeps them."""
    return tuple(Column(field.name, type_text(field.type), field.nullable) for field in schema)


def write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], file: IO[bytes]) -> Written:
    """Write a Parquet file. Raises `StorageRefused` for columns that it cannot hold, naming them."""
    if len(schema) > COLUMNS_MAX:
        raise StorageRefused(f"a table of {len(schema):,} columns: at most {COLUMNS_MAX:,} are stored")
    plain = pa.schema([_without_runs(field) for field in schema], metadata=schema.metadata)
    digest = TableDigest(plain)
    columns_of(plain)  # before a byte is written: refuses types that are not stored
    try:
        with pq.ParquetWriter(file, plain, compression=_COMPRESSION) as writer:
            for group in _groups(plain, batches):
                for batch in group.to_batches():
                    digest.add(batch)
                writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise StorageRefused(f"this table cannot be stored as Parquet: {error}") from error
    return Written(digest)


def _without_runs(field: pa.Field) -> pa.Field:
    """Parquet has its own encoding of runs, and refuses Arrow's."""
    type_ = field.type
    return field.with_type(type_.value_type) if pa.types.is_run_end_encoded(type_) else field


def _groups(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        for piece in cut(batch):
            left = piece
            while left.num_rows:
                part = left.slice(0, ROW_GROUP_ROWS - rows)
                left = left.slice(part.num_rows)
                held.append(part)
                rows += part.num_rows
                size += part.nbytes
                if rows == ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
                    yield _as(schema, pa.Table.from_batches(held))
                    held, rows, size = [], 0, 0
    if rows:
        yield _as(schema, pa.Table.from_batches(held))


def _as(schema: pa.Schema, table: pa.Table) -> pa.Table:
    if table.schema.equals(schema):
        return table
    return table.cast(schema)


def open_parquet(source: Any, key: str) -> pq.ParquetFile:
    """The Parquet file at a path or in an open file. Raises `StorageDamaged` when it is none."""
    try:
        return pq.ParquetFile(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageDamaged(f"object {key} is no Parquet file that can be read: {error}", key=key) from error


def read_table(source: Any, key: str) -> pa.Table:
    """The whole table. Raises `StorageDamaged`."""
    file = open_parquet(source, key)
    try:
        return file.read()
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageDamaged(f"object {key} is no Parquet file that can be read: {error}", key=key) from error
    finally:
        file.close()


def batches_of(file: pq.ParquetFile) -> pa.RecordBatchReader:
    """The rows of an open file, as they are asked for; the file is closed behind the last."""

    def rows() -> Iterator[pa.RecordBatch]:
        try:
            yield from file.iter_batches(BATCH_ROWS)
        finally:
            file.close(force=True)

    return pa.RecordBatchReader.from_batches(file.schema_arrow, rows())
