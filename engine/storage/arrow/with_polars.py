"""Polars frames: the one place that imports `polars`."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa

from engine.errors import StorageRefused

__all__ = ["from_table", "to_table"]


def to_table(value: Any) -> pa.Table:
    """A DataFrame, or a LazyFrame, which is computed. Raises `StorageRefused` for columns of Python objects."""
    frame = value.collect() if isinstance(value, pl.LazyFrame) else value
    if pl.Object in frame.dtypes:
        raise StorageRefused("this polars frame has a column of Python objects, which cannot be stored as Parquet")
    try:
        return frame.to_arrow()
    except pl.exceptions.PolarsError as error:
        raise StorageRefused(f"this polars frame cannot be stored as Parquet: {error}") from error


def from_table(table: pa.Table, *, lazy: bool) -> Any:
    """A DataFrame, or a LazyFrame of it. Raises `StorageRefused` for columns that polars has no type for."""
    try:
        frame = pl.DataFrame(pl.from_arrow(table))
    except (pl.exceptions.PolarsError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise StorageRefused(f"polars cannot hold this table ({error}): read it as a pyarrow.Table") from error
    return frame.lazy() if lazy else frame
