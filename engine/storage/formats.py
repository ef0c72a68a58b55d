"""Which format a value is written in, and what reads it back: by its annotated type, or by what it is."""

from __future__ import annotations

from typing import Any, Final, cast

from engine.core.tabular import table_kind
from engine.core.values import ValueCodec
from engine.errors import StorageRefused
from engine.storage.stored import FORMATS, Format, Stored

__all__ = ["VALUE_BYTES_MAX", "codec_for", "format_for", "kind_for", "type_text"]

VALUE_BYTES_MAX: Final = 1 << 30
"""Bytes of one value that is no table: it is encoded, and decoded, as a whole in memory."""


def format_for(value: Any, type_: Any, asked: str | None) -> Format:
    """The format that a value is to be written in. Raises `StorageRefused` for one that does not fit it."""
    if asked is not None and asked not in FORMATS:
        raise StorageRefused(f"format={asked!r}: use one of {', '.join(FORMATS)}, or leave it to the type")
    kind, wanted = table_kind(type(value)), table_kind(type_)
    if wanted is not None and wanted != kind:
        raise StorageRefused(f"the value is annotated {wanted}, but is a {type(value).__qualname__}")
    format_ = cast("Format", asked) if asked is not None else _format_of(value, type_, kind)
    needed = {"bytes": bytes, "text": str}.get(format_)
    if needed is not None and not isinstance(value, needed):
        raise StorageRefused(f"format={format_!r} takes {needed.__name__}, not {type(value).__qualname__}")
    if format_ == "parquet" and kind is None:
        raise StorageRefused(f"format='parquet' takes tables (polars, pandas, pyarrow, DuckDB), not {type(value)}")
    if format_ == "json" and kind is not None:
        raise StorageRefused(f"a {kind} is no plain value: leave format= out, and it is written as Parquet")
    return format_


def _format_of(value: Any, type_: Any, kind: str | None) -> Format:
    if kind is not None:
        return "parquet"
    if type_ is Any or type_ is type(value):
        if type(value) is bytes:
            return "bytes"
        if type(value) is str:
            return "text"
    return "json"


def kind_for(stored: Stored, type_: Any) -> str:
    """What kind of table to read. Raises `StorageRefused` for a type that is none."""
    kind = "pyarrow.Table" if type_ is Any else table_kind(type_)
    if kind is None:
        raise StorageRefused(
            f"object {stored.key} is a table, which cannot be read as {type_text(type_)}: ask for a table of polars,"
            " pandas, pyarrow or DuckDB",
            key=stored.key,
        )
    return kind


def codec_for(type_: Any, what: str) -> ValueCodec:
    """What writes and reads plain values of a type as JSON."""
    return ValueCodec(type_, what, bytes_max=VALUE_BYTES_MAX)


def type_text(type_: Any) -> str:
    """What a type is called in `Stored.type`."""
    if type_ is Any:
        return ""
    return table_kind(type_) or (f"{type_.__module__}.{type_.__qualname__}" if type(type_) is type else str(type_))
