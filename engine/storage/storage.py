"""`Storage`: immutable values by their content, under a folder or a URL, for asyncio. See docs/storage.md.

It knows values and bytes. Which of them anybody still names, it is told when it is swept.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar, overload

import anyio.to_thread

from engine.core.tabular import table_kind
from engine.storage.blocking import GRACE_SECONDS, BlockingStorage, Swept
from engine.storage.extras import needing
from engine.storage.formats import codec_for, format_for
from engine.storage.places import Place
from engine.storage.stored import Format, Stored
from engine.storage.urls import place_at

__all__ = ["Storage", "data_version"]

T = TypeVar("T")
R = TypeVar("R")

_NO_OPTIONS: Final[Mapping[str, Any]] = MappingProxyType({})


class Storage:
    """Values in a folder (a path, or ``file:///path``) or under any URL that fsspec knows (``s3://bucket/path``).

    An object is named by the digest of its bytes, never changes, and is whole or not there. The same bytes written
    twice, or by two processes at once, are one object. Making a `Storage` touches nothing; the first write makes the
    folder. `options`: what fsspec's file system takes (keys, endpoints); they are shown to nobody. `place`: a place of
    your own.

    All methods raise `StorageUnavailable` when the place cannot be used. Blocking work is done in threads; a call that
    is cancelled ends when its thread does. `blocking` is the same for code that is in a thread already.
    """

    def __init__(self, url: str | os.PathLike[str] | Place, *, options: Mapping[str, Any] = _NO_OPTIONS) -> None:
        self.blocking = BlockingStorage(place_at(url, options) if isinstance(url, str | os.PathLike) else url)

    @property
    def name(self) -> str:
        """Where it is, as it may be shown to anybody: without user, password and query."""
        return self.blocking.name

    def __repr__(self) -> str:
        return f"<Storage {self.name}>"

    async def _in_thread(self, fn: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """Do what blocks. A test whose clock waits for everybody overrides it: threads are seen by nobody."""
        return await anyio.to_thread.run_sync(partial(fn, *args, **kwargs))

    async def write(self, value: Any, type: Any = Any, *, format: Format | None = None) -> Stored:  # noqa: A002
        """Store a value of an annotated type, durably, and say what it is and where.

        Tables (of polars, pandas, pyarrow, DuckDB) become Parquet; bytes and text stay as they are; everything else is
        typed JSON. `format` overrides that; ``"joblib"`` is used only when it is named. A reader of record batches is
        written as it is read. Raises `StorageRefused` and `NotRecordable` for values that do not fit, saying why.
        """
        return await self._in_thread(self.blocking.write, value, type, format=format)

    @overload
    async def read(self, stored: Stored, type: type[T], *, format: Format | None = None) -> T: ...
    @overload
    async def read(self, stored: Stored, type: Any = Any, *, format: Format | None = None) -> Any: ...
    async def read(self, stored: Stored, type: Any = Any, *, format: Format | None = None) -> Any:  # noqa: A002
        """The value, as that type. A table can be read as a table of any of the libraries, whichever wrote it.

        Without a type a table is a `pyarrow.Table`, JSON is builtins. ``format="joblib"`` must be said for what was
        written so. Raises `StorageMissing`, `StorageDamaged` when the bytes are not those that were written,
        `StorageRefused` for a type that does not fit the format, `NotRecordable` for JSON that does not fit the type.
        """
        return await self._in_thread(self.blocking.read, stored, type, format=format)

    async def write_bytes(self, data: bytes, format: Format) -> Stored:  # noqa: A002
        """Store bytes that are encoded in that format already. Raises `StorageDamaged` for what is no Parquet file."""
        return await self._in_thread(self.blocking.write_bytes, data, format)

    async def read_bytes(self, stored: Stored) -> bytes:
        """The object's bytes, whole in memory. Raises as `read` does."""
        return await self._in_thread(self.blocking.read_bytes, stored)

    @asynccontextmanager
    async def local_path(self, stored: Stored) -> AsyncIterator[Path]:
        """A local file with the object's bytes, checked, for engines that read files (DuckDB's ``read_parquet``).

        In a folder it is the object itself: do not write to it. Elsewhere it is a copy that is gone with the context.
        """
        context = self.blocking.path(stored)
        path = await self._in_thread(context.__enter__)
        try:
            yield path
        finally:
            await self._in_thread(context.__exit__, None, None, None)

    async def exists(self, stored: Stored) -> bool:
        """Whether the object is there, with its size. Whether its bytes are right is seen when it is read."""
        return await self._in_thread(self.blocking.exists, stored)

    async def delete(self, stored: Stored) -> bool:
        """Take one object away, whoever still names it. Whether it was there."""
        return await self._in_thread(self.blocking.delete, stored)

    async def keys_within(self, key: str) -> set[str]:
        """What in an object reads like the key of another one: what it may name. Of one that is not there nothing."""
        return await self._in_thread(self.blocking.keys_within, key)

    async def sweep(self, keep: Iterable[Stored | str], *, grace: float = GRACE_SECONDS, look: bool = False) -> Swept:
        """Take away objects that `keep` does not name (as `Stored`, or by key) and that are older than `grace` seconds.

        Writing an object that is there makes it young again, so what a writer is about to name stays, if `grace` is
        longer than a value waits between its writing and its naming. `look`: only say what would go. Raises
        `StorageRefused` for a key that is none, before anything is taken away.
        """
        return await self._in_thread(self.blocking.sweep, keep, grace=grace, look=look)


def data_version(value: Any, type: Any = Any) -> str:  # noqa: A002
    """The identity of a value's content, 64 hex digits: equal tables have the same, whichever library made them.

    It does not depend on how a table is chunked, sliced or dictionary encoded, nor on Parquet. Column names, types and
    nullability, and the order of columns and rows, are part of it; so is the difference between null and NaN, and
    between 0.0 and -0.0 (all of it: `engine.storage.arrow.digest`). Of a plain value it is the SHA-256 of its bytes as
    they would be stored. Blocks for as long as it takes to read a table once. A `RecordBatchReader` is used up by it.
    """
    match format_for(value, type, None):
        case "parquet":
            with needing("tables need"):
                from engine.storage.arrow import tables  # noqa: PLC0415 - only who has it

            return tables.data_version(value, table_kind(value.__class__) or "")
        case "json":
            return sha256(codec_for(type, "the value").encode_checked(value)).hexdigest()
        case _:
            return sha256(value.encode() if isinstance(value, str) else value).hexdigest()
