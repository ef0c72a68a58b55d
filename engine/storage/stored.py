"""`Stored`: what a history keeps of a value that lies in a storage. JSON, and enough to read the value back years
later.

An object's key is made of the digest of its bytes and its format, ``2c/2cf24d...9824.parquet``, relative to the folder
or URL of the storage, so that a folder that was moved still works. No place, no URL, no secret is part of it.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct

from engine.errors import StorageRefused

__all__ = ["FORMATS", "KEY_BYTES_MAX", "Column", "Format", "Stored", "check_key", "key_of", "keys_in"]

Format: TypeAlias = Literal["json", "parquet", "bytes", "text", "joblib"]
"""How the bytes of an object are to be read."""
FORMATS: Final[tuple[str, ...]] = get_args(Format)

_SUFFIXES: Final = {"json": ".json", "parquet": ".parquet", "bytes": ".bin", "text": ".txt", "joblib": ".joblib"}
_KEY: Final = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})\.[a-z0-9]{1,16}")
_KEYS: Final = re.compile(rb"([0-9a-f]{2})\\?/(\1[0-9a-f]{62}\.[a-z0-9]{1,16})")  # JSON may write / as \/
KEY_BYTES_MAX: Final = 2 + 2 + 64 + 1 + 16
"""Bytes of a key, wherever it is written."""


class Column(Struct, frozen=True):
    """One column of a stored table."""

    name: str
    type: str  # as data versions call it: "int64", "timestamp[us, UTC]", "list<string>"
    nullable: bool = True


class Stored(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value in a storage: what `Storage.write` returns, and `Storage.read` takes."""

    key: str  # where, relative to the storage: "2c/2cf24d...9824.parquet"
    digest: str  # SHA-256 of the bytes, 64 hex digits
    size: int  # bytes
    format: Format
    data_version: str  # of a table: of its content (see `engine.storage.data_version`); else the digest
    rows: int | None = None  # of a table
    schema: tuple[Column, ...] | None = None
    type: str = ""  # what was written: "polars.DataFrame", or the type that the JSON was made of
    writer: str = ""  # which library made the bytes, in which version, where that may matter: "pyarrow 26.0.1"


def key_of(digest: str, format_: Format) -> str:
    """Where the object with these bytes lies."""
    return f"{digest[:2]}/{digest}{_SUFFIXES[format_]}"


def keys_in(data: bytes) -> set[str]:
    """What in some bytes reads like a key, whatever they are: more than they name, and never less."""
    return {f"{found[1].decode()}/{found[2].decode()}" for found in _KEYS.finditer(data)}


def check_key(key: str) -> str:
    """The key, and the digest in it. Raises `StorageRefused` for what is no key, before anything is looked at."""
    found = _KEY.fullmatch(key)
    if found is None:
        raise StorageRefused(
            f"{key[:200]!r} is no key of a stored object: those look like '2c/2cf2...9824.json'", key=key
        )
    return found[2]
