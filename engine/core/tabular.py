"""Which annotated types are tables of other libraries, by their names alone: nothing of theirs is imported here."""

from __future__ import annotations

import typing
from typing import Annotated, Any, Final

__all__ = ["TABLES", "table_kind"]

TABLES: Final = frozenset(
    {
        "duckdb.DuckDBPyRelation",
        "pandas.DataFrame",
        "polars.DataFrame",
        "polars.LazyFrame",
        "pyarrow.RecordBatch",
        "pyarrow.RecordBatchReader",
        "pyarrow.Table",
    }
)
"""The types that travel as Parquet: the library, and what it calls the class."""


def table_kind(type_: Any) -> str | None:
    """Which of TABLES a type is, or is a subclass of; None for any other.

    ``Annotated[...]`` and brackets are seen through.
    """
    while typing.get_origin(type_) is not None:
        type_ = typing.get_args(type_)[0] if typing.get_origin(type_) is Annotated else typing.get_origin(type_)
    if not isinstance(type_, type):
        return None
    for cls in type_.__mro__:
        library = cls.__module__.partition(".")[0].lstrip("_")
        if (name := f"{library}.{cls.__name__}") in TABLES:
            return name
    return None
