"""Tables as bytes and back: what a workflow's values need of this room."""

from __future__ import annotations

import io
from typing import Any

from engine.storage.extras import needing

__all__ = ["ParquetTables"]


class ParquetTables:
    """Writes and reads tables of polars, pandas, pyarrow and DuckDB as Parquet.

    Loads pyarrow when the first one comes.
    """

    def dump(self, table: Any, kind: str) -> tuple[str, bytes]:
        """The data version of a table, and the table as a Parquet file. Raises `StorageRefused`."""
        with needing("tables need"):
            from engine.storage.arrow import tables  # noqa: PLC0415 - only who has it

        file = io.BytesIO()
        written = tables.write(table, kind, file)
        return written.data_version, file.getvalue()

    def load(self, data: bytes, kind: str) -> Any:
        """The table, as a kind (`engine.core.tabular.TABLES`). Raises `StorageDamaged`, `StorageRefused`."""
        with needing("tables need"):
            from engine.storage.arrow import tables  # noqa: PLC0415 - only who has it

        return tables.read(io.BytesIO(data), kind, "of a recorded table")
