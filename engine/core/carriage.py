"""How values travel that a history does not hold itself: large ones, and tables of other libraries.

Pure. What a workflow is given, and what it decides, are bytes; where they lie in between is the shell's business:

* a value is JSON; one that holds tables is a *bundle* (it begins with a zero byte and our name): JSON in which each
  table is named by its data version, and the tables themselves, as Parquet;
* what a history keeps of a value that lies in a storage is *away* (it begins with a space, which no value does): JSON
  that says where. The shell brings such a value before it is told to anybody. One that it cannot bring stays away, with
  the reason, and whoever reads it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final, Protocol

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from engine.core.tabular import table_kind
from engine.errors import NotRecordable

__all__ = [
    "INLINE",
    "PAYLOAD_INLINE_BYTES",
    "PAYLOAD_LARGE_BYTES",
    "Away",
    "Carriage",
    "TableCodec",
    "away_of",
    "is_away",
    "is_bundle",
    "pack",
    "plain",
    "readable",
    "refuse_away",
    "same_away",
    "unpack",
]

PAYLOAD_INLINE_BYTES: Final = 256 * 1024
"""Bytes of one encoded result, or of one call's arguments, that a history holds."""

PAYLOAD_LARGE_BYTES: Final = 256 << 20
"""Bytes of one encoded result, or of one call's arguments, where a storage holds what a history does not."""

_BUNDLE: Final = b"\0holdfast\0"
_AWAY: Final = b" {"


class TableCodec(Protocol):
    """Writes and reads tables of other libraries."""

    def dump(self, table: Any, kind: str) -> tuple[str, bytes]:
        """The data version of a table, and the table as Parquet. Raises `HoldfastError` for one that cannot be."""

    def load(self, data: bytes, kind: str) -> Any:
        """The table of a kind (`tabular.TABLES`)."""


class Carriage(Struct, frozen=True):
    """What may travel: values of so many bytes, and tables, if there is something that writes them."""

    bytes_max: int
    tables: TableCodec | None = None

    def attaching(self, attached: dict[str, bytes], where: str) -> Callable[[Any], Any]:
        """What msgspec is to ask about unknown values: tables are put aside, and named by their version."""

        def hook(value: Any) -> Any:
            kind = table_kind(type(value))
            if kind is None:
                raise NotImplementedError(f"Encoding objects of type {type(value).__qualname__} is unsupported")
            version, data = self.table_codec(where).dump(value, kind)
            attached[version] = data
            return {"table": version}

        return hook

    def detaching(self, attached: Mapping[str, bytes], where: str) -> Callable[[Any, Any], Any]:
        """What msgspec is to ask for values of types that it does not know."""

        def hook(type_: Any, found: Any) -> Any:
            kind = table_kind(type_)
            if kind is None:
                raise NotImplementedError(f"Decoding objects of type {type_!r} is unsupported")
            return self.table_codec(where).load(attached[found["table"]], kind)

        return hook

    def table_codec(self, where: str) -> TableCodec:
        """Raises `NotRecordable` when tables do not travel."""
        if self.tables is None:
            raise NotRecordable(
                f"{where} is a table, and tables travel through a storage: give the engine one, as in"
                " Engine(..., storage=Storage('values')), or hand on a path"
            )
        return self.tables


INLINE: Final = Carriage(PAYLOAD_INLINE_BYTES)
"""Without a storage: everything stands in the history."""


def pack(data: bytes, tables: Mapping[str, bytes]) -> bytes:
    """A value's JSON and the tables that it names; JSON alone if it names none."""
    return data if not tables else _BUNDLE + msgspec.msgpack.encode((data, dict(tables)))


def is_bundle(payload: bytes) -> bool:
    """Whether a value has tables in it."""
    return payload.startswith(_BUNDLE)


def unpack(payload: bytes) -> tuple[bytes, dict[str, bytes]]:
    """The JSON of a value, and its tables by their data versions. Raises `NotRecordable` for what only begins so."""
    if not is_bundle(payload):
        return payload, {}
    try:
        return msgspec.msgpack.decode(memoryview(payload)[len(_BUNDLE) :], type=tuple[bytes, dict[str, bytes]])
    except (ValueError, RecursionError) as error:
        raise NotRecordable(f"a payload begins like a value with tables in it, and is none: {error}") from error


# -- values that are somewhere else ------------------------------------------------------------------------------------


class Away(Struct, frozen=True, kw_only=True):
    """What a history keeps of a value in a storage. Each of `stored` and `tables` is an `engine.storage.Stored`."""

    stored: Raw | UnsetType = UNSET  # of the JSON, if that is large
    value: Raw | UnsetType = UNSET  # else the JSON itself
    tables: dict[str, Raw] | UnsetType = UNSET  # by data version
    problem: str | UnsetType = UNSET  # never on disk: why it could not be brought

    def encoded(self) -> bytes:
        """As it stands in a history."""
        return b" " + msgspec.json.encode(self)


class _Digest(Struct):
    digest: str


def is_away(payload: bytes | None) -> bool:
    """Whether a value lies elsewhere."""
    return payload is not None and payload.startswith(_AWAY)


def away_of(payload: bytes) -> Away:
    """Where it lies. Raises `NotRecordable` for what says nothing of the kind."""
    try:
        return msgspec.json.decode(payload, type=Away)
    except (ValueError, RecursionError) as error:
        raise NotRecordable(
            f"a payload begins like one that lies in a storage, but does not say where: {error}"
        ) from error


def readable(payload: bytes) -> bytes:
    """A value as JSON, for people: tables by their data versions, what is away by where it is; else as it stands."""
    try:
        if is_away(payload):
            away = away_of(payload)
            return payload.lstrip() if away.value is UNSET else bytes(away.value)
        return unpack(payload)[0]
    except NotRecordable:  # it only begins as if; a history is shown whatever stands in it
        return payload


def plain(payload: bytes | None) -> bytes | None:
    """A payload, in which tables are named by their data versions and are not; else as it stands."""
    try:
        return payload if payload is None or not is_bundle(payload) else unpack(payload)[0]
    except NotRecordable:  # it only begins as if
        return payload


def refuse_away(payload: bytes, where: str) -> None:
    """Raise `NotRecordable`, saying why and what to do, for a value that could not be brought."""
    if not payload.startswith(_AWAY):
        return
    problem = away_of(payload).problem
    why = "this engine has none: give it Engine(..., storage=...)" if problem is UNSET else problem
    raise NotRecordable(
        f"{where} lies in a storage, and {why}. The history is unharmed; once that is mended, resume the run"
    )


def same_away(one: bytes, other: bytes) -> bool:
    """Whether two values are the same, of which the one, or the other, or both are away: told by their digests."""
    return _identity(one) == _identity(other)


def _identity(payload: bytes) -> tuple[str, frozenset[str]]:
    if not is_away(payload):
        data, tables = unpack(payload)
        return sha256(data).hexdigest(), frozenset(tables)
    away = away_of(payload)
    versions = frozenset() if away.tables is UNSET else frozenset(away.tables)
    if away.value is not UNSET:
        return sha256(bytes(away.value)).hexdigest(), versions
    return ("" if away.stored is UNSET else msgspec.json.decode(away.stored, type=_Digest).digest), versions
