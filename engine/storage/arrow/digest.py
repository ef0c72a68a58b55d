"""The data version of a table: a SHA-256 over its content, streamed over record batches in bounded memory.

It is the same for equal tables, however they are chunked, sliced or dictionary encoded, and whichever library made
them; Parquet is not part of it. Different tables have different ones, as sure as SHA-256 is. What counts, and what does
not:

* the columns, in order: name, type, whether nulls are allowed; and the same of the fields of structs;
* the rows, in order;
* a null is not a NaN, and -0.0 is not 0.0. All NaNs are one;
* the unit and the zone of a timestamp count ("UTC" and its other names are one zone), and so do the digits of a
  decimal;
* one type each: string, large_string and string_view; the same of binary and of lists; a dictionary and what it holds;
  what Parquet does not tell apart, that is date64 and date32, seconds and milliseconds;
* no metadata, and not how a list calls its elements.

How. Each column is taken apart into flat parts, a hash for each, so that a part is one stream of bytes wherever the
batches are cut: which values are there (one byte each); of those that are, the values, little-endian, or the lengths
and the bytes; of lists the lengths, and the elements as a column; of structs the fields as columns. The version is the
hash over the schema as JSON, the number of rows, and the hashes of the parts in the order of the schema.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from engine.errors import StorageRefused

__all__ = ["BATCH_ROWS", "TableDigest", "cut", "type_text"]

BATCH_ROWS: Final = 65_536
"""Rows that are looked at together."""

_FORM: Final = b"holdfast table 1\n"
_UTC: Final = frozenset({"UTC", "Etc/UTC", "Etc/UCT", "UCT", "Zulu", "Etc/Zulu", "Z", "GMT", "Etc/GMT", "+00:00"})
_STRINGS: Final = (kinds.is_string, kinds.is_large_string, kinds.is_string_view)
_BINARIES: Final = (kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view)
_LISTS: Final = (kinds.is_list, kinds.is_large_list, kinds.is_list_view, kinds.is_large_list_view)
_DIGITS_128: Final = 38


class TableDigest:
    """Takes record batches of one schema, and says what the data version of all of them is."""

    def __init__(self, schema: pa.Schema) -> None:
        names = schema.names
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise StorageRefused(f"a table has several columns of one name ({', '.join(twice)}): rename them")
        self.schema = schema
        self.rows = 0
        self._columns = [_Part(field.type) for field in schema]

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next rows."""
        for piece in cut(batch):
            self.rows += piece.num_rows
            for part, column in zip(self._columns, piece.columns, strict=True):
                part.add(column)

    def hexdigest(self) -> str:
        """The data version of the rows so far, 64 hex digits."""
        columns = [[field.name, type_text(field.type), field.nullable] for field in self.schema]
        total = sha256(_FORM + msgspec.json.encode(columns) + b"\n" + self.rows.to_bytes(8, "little"))
        for part in self._columns:
            for digest in part.digests():
                total.update(digest)
        return total.hexdigest()


def cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in pieces of at most BATCH_ROWS rows."""
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(start, BATCH_ROWS)


def type_text(type_: pa.DataType) -> str:
    """What a type is called, the same for all that count as one. Raises `StorageRefused` for what is not stored."""
    if kinds.is_dictionary(type_) or kinds.is_run_end_encoded(type_):
        return type_text(type_.value_type)
    if isinstance(type_, pa.BaseExtensionType):
        return f"{type_.extension_name}<{type_text(type_.storage_type)}>"
    for name, tests in (("string", _STRINGS), ("binary", _BINARIES)):
        if any(test(type_) for test in tests):
            return name
    if any(test(type_) for test in _LISTS):
        return f"list<{_field_text(type_.value_field)}>"
    if kinds.is_fixed_size_list(type_):
        return f"list[{type_.list_size}]<{_field_text(type_.value_field)}>"
    if kinds.is_map(type_):
        return f"map<{type_text(type_.key_type)}, {_field_text(type_.item_field)}>"
    if kinds.is_struct(type_):
        return "struct<" + ", ".join(f"{_quoted(f.name)}: {_field_text(f)}" for f in type_) + ">"
    return _flat_text(type_)


def _field_text(field: pa.Field) -> str:
    return type_text(field.type) + ("" if field.nullable else " not null")


def _quoted(name: str) -> str:
    return msgspec.json.encode(name).decode()


def _flat_text(type_: pa.DataType) -> str:
    if kinds.is_date(type_):
        return "date"
    if kinds.is_timestamp(type_):
        zone = "" if type_.tz is None else f", {'UTC' if type_.tz in _UTC else type_.tz}"
        return f"timestamp[{_unit(type_.unit)}{zone}]"
    if kinds.is_time(type_):
        return f"time[{_unit(type_.unit)}]"
    if kinds.is_decimal(type_):
        return f"decimal({type_.precision}, {type_.scale})"
    if kinds.is_union(type_) or kinds.is_interval(type_):
        raise StorageRefused(f"a column of type {type_} cannot be stored as Parquet: cast it to another type")
    return str(type_)  # null, bool, int8 .. uint64, halffloat, float, double, duration[..], fixed_size_binary[..]


def _unit(unit: str) -> str:
    return "ms" if unit == "s" else unit


class _Part:
    """One column, or what is inside one: hashes of which values are there and of those that are, and its parts."""

    def __init__(self, type_: pa.DataType) -> None:
        self.type = _plain(type_)
        self.there = sha256()
        self.lengths = sha256()
        self.values = sha256()
        self.inside = [_Part(field.type) for field in _fields(self.type)]

    def digests(self) -> Iterator[bytes]:
        yield from (self.there.digest(), self.lengths.digest(), self.values.digest())
        for part in self.inside:
            yield from part.digests()

    def add(self, column: pa.Array) -> None:
        column = _decoded(column)
        self.there.update(_bytes(pc.cast(pc.is_valid(column), pa.uint8()), 1))
        if column.null_count:
            column = column.drop_null()
        if kinds.is_null(self.type) or not len(column):
            return
        if self.inside:
            self._add_nested(column)
        elif any(test(self.type) for test in (*_STRINGS, *_BINARIES)):
            self._add_texts(column)
        else:
            self.values.update(_fixed(column))

    def _add_nested(self, column: pa.Array) -> None:
        if kinds.is_struct(self.type):
            for part, field in zip(self.inside, column.flatten(), strict=True):
                part.add(field)
            return
        if not kinds.is_fixed_size_list(self.type):
            self.lengths.update(_bytes(pc.cast(pc.list_value_length(column), pa.int64()), 8))
        self.inside[0].add(column.flatten())

    def _add_texts(self, column: pa.Array) -> None:
        self.lengths.update(_bytes(pc.cast(pc.binary_length(column), pa.int64()), 8))
        column = pc.cast(column, pa.large_binary())
        _, offsets, data = column.buffers()
        if data is not None:
            ends = memoryview(offsets).cast("q")
            self.values.update(memoryview(data)[ends[column.offset] : ends[column.offset + len(column)]])


def _fields(type_: pa.DataType) -> Iterable[pa.Field]:
    if kinds.is_struct(type_):
        return list(type_)
    if kinds.is_fixed_size_list(type_) or any(test(type_) for test in _LISTS):
        return [type_.value_field]
    return ()


def _plain(type_: pa.DataType) -> pa.DataType:
    """The type whose values are hashed: what counts as one type is one here."""
    if kinds.is_dictionary(type_) or kinds.is_run_end_encoded(type_):
        return _plain(type_.value_type)
    if isinstance(type_, pa.BaseExtensionType):
        return _plain(type_.storage_type)
    if kinds.is_map(type_):
        entry = [pa.field("key", type_.key_type, nullable=False), pa.field("value", type_.item_type)]
        return pa.large_list(pa.struct(entry))
    if kinds.is_date64(type_):
        return pa.date32()
    if kinds.is_timestamp(type_) and type_.unit == "s":
        return pa.timestamp("ms", type_.tz)
    if kinds.is_time32(type_):
        return pa.time32("ms")
    if kinds.is_decimal(type_):
        wide = pa.decimal128 if type_.precision <= _DIGITS_128 else pa.decimal256
        return wide(type_.precision, type_.scale)
    return type_


def _decoded(column: pa.Array) -> pa.Array:
    if kinds.is_run_end_encoded(column.type):
        return _decoded(pc.run_end_decode(column))
    if kinds.is_dictionary(column.type):
        return _decoded(column.dictionary_decode())
    if isinstance(column.type, pa.BaseExtensionType):
        return _decoded(column.storage)
    wanted = _plain(column.type)
    return column if wanted.equals(column.type) else pc.cast(column, wanted)


def _fixed(column: pa.Array) -> Any:
    if kinds.is_boolean(column.type):
        return _bytes(pc.cast(column, pa.uint8()), 1)
    if kinds.is_floating(column.type):
        # A library may have any of the many NaNs; whoever reads them cannot tell.
        column = pc.if_else(pc.is_nan(column), pa.scalar(float("nan"), column.type), column)
    return _bytes(column, column.type.bit_width // 8)


def _bytes(column: pa.Array, width: int) -> Any:
    """The values of an array without nulls, as they lie in memory. Arrow's order of bytes is the machine's."""
    data = column.buffers()[1]
    if data is None:
        return b""
    if sys.byteorder != "little":
        raise StorageRefused("data versions are made on little-endian machines only")
    return memoryview(data)[column.offset * width : (column.offset + len(column)) * width]
