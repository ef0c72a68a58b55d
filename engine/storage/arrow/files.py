"""Parquet files of plain rows: columns by the names of data versions, rows as lists of values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import StorageRefused
from engine.storage.stored import Column

__all__ = ["RowsWriter", "each_row"]

_TYPES: Final = {
    "binary": pa.binary(),
    "bool": pa.bool_(),
    "double": pa.float64(),
    "int64": pa.int64(),
    "string": pa.string(),
    "timestamp[us, UTC]": pa.timestamp("us", "UTC"),
}


class RowsWriter:
    """Writes batches to an open file; each becomes a row group. `close` writes the end."""

    def __init__(self, file: IO[bytes], columns: Sequence[Column]) -> None:
        unknown = [column.type for column in columns if column.type not in _TYPES]
        if unknown:
            raise StorageRefused(f"no column of type {unknown[0]!r}: there are {', '.join(_TYPES)}")
        self._schema = pa.schema([pa.field(c.name, _TYPES[c.type], c.nullable) for c in columns])
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, batch: Mapping[str, Sequence[Any]]) -> None:
        """Rows, a list of values for each column; times as integer microseconds."""
        arrays = [pa.array(batch[field.name], field.type) for field in self._schema]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """The file is whole."""
        self._writer.close()


def each_row(file: Any) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, a row group at a time, by the names of columns; times as integer microseconds."""
    with pq.ParquetFile(file) as parquet:
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group)
            plain = [pa.int64() if pa.types.is_timestamp(field.type) else field.type for field in table.schema]
            yield from table.cast(pa.schema(zip(table.schema.names, plain, strict=True))).to_pylist()
