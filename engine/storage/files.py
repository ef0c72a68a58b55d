"""Files by name, outside of any storage, and Parquet ones: for archives and the like that other tools are to read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from uuid import uuid4

from engine.errors import StorageDamaged, StorageUnavailable
from engine.storage.durable import sync_folder
from engine.storage.extras import needing
from engine.storage.stored import Column

__all__ = ["ParquetRows", "each_parquet_row", "parquet_file", "whole_file"]


class ParquetRows(Protocol):
    """Takes the rows of a file that is being written."""

    def write(self, batch: Mapping[str, Sequence[Any]]) -> None:
        """Rows, a list of values for each column; they become a row group. Times are integer microseconds."""


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file, which is there, whole and durable, when the context is left; after an error it is as it was. It is
    for its user alone, for there are values in it.

    What a crash leaves is beside it, as ``.NAME.…``. Blocks. Raises `StorageUnavailable` when it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageUnavailable(f"{path} cannot be written: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def parquet_file(path: Path, columns: Sequence[Column]) -> Iterator[ParquetRows]:
    """Write a Parquet file, as `whole_file` does.

    Types of columns: "int64", "double", "bool", "string", "binary", "timestamp[us, UTC]". Blocks. Raises
    `StorageRefused` for other types and without pyarrow, `StorageUnavailable` when it cannot be written.
    """
    with needing("Parquet files need"):
        from engine.storage.arrow.files import RowsWriter  # noqa: PLC0415 - only who has it

    with whole_file(path) as file:
        rows = RowsWriter(file, columns)
        try:
            yield rows
        except BaseException:
            with suppress(Exception):  # else it would try when it is collected, on a file that is closed by then
                rows.close()
            raise
        rows.close()


def each_parquet_row(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that `parquet_file` has written, as it was told them, a batch of those at a time in memory.

    Blocks. Raises `StorageDamaged` for what is none.
    """
    with needing("Parquet files need"):
        from engine.storage.arrow.files import each_row  # noqa: PLC0415 - only who has it

    try:
        yield from each_row(path)
    except (OSError, ValueError) as error:
        raise StorageDamaged(f"{path} is no Parquet file that can be read: {error}") from error
