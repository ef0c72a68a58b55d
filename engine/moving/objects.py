"""Large values on their way: the objects that histories name, from one storage into a file, and into another.

In a file an object is a line that says its key and size, and lines with its bytes, behind all events. What it is worth
is seen from its key, which has the digest of its bytes: it is computed when the object is read from the storage, and
again when the file is. Everything is done by the chunk, and blocks: for a thread.

It deliberately does not know what the values are, nor what a file looks like.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final, TypeAlias

from msgspec import Struct

from engine import LargeValues
from engine.errors import ExportError, StorageError, StorageRefused
from engine.storage import BlockingStorage, Stored
from eventstore import EventStore, RecordedEvent
from eventstore.moving import Item, StoredMessage

__all__ = [
    "CHUNK_BYTES",
    "Named",
    "ObjectBytes",
    "ObjectHead",
    "ObjectPart",
    "WrongObject",
    "bytes_of",
    "parts_of",
    "storage_of",
]

CHUNK_BYTES: Final = 1 << 20
"""Bytes of an object in one line."""


class ObjectHead(Struct, frozen=True, kw_only=True):
    """An object, whose bytes follow."""

    key: str
    size: int


class ObjectBytes(Struct, frozen=True, kw_only=True):
    """The next bytes of the object."""

    data: bytes


class WrongObject(Exception):
    """What comes is no object, or another than it should be."""


ObjectPart: TypeAlias = ObjectHead | ObjectBytes


class Named:
    """The objects that what is moved names, each once. In memory in proportion to their number."""

    def __init__(self) -> None:
        self.by_key: Final[dict[str, Stored]] = {}

    def look(self, item: Item) -> None:
        """The next item."""
        if isinstance(item, RecordedEvent | StoredMessage):
            for stored in LargeValues.names(item.payload):
                self.by_key.setdefault(stored.key, stored)

    @property
    def bytes(self) -> int:
        """How many all of them have."""
        return sum(stored.size for stored in self.by_key.values())


def storage_of(store: EventStore) -> BlockingStorage | None:
    """Where the large values of this store lie, if it is said."""
    return store.storage.blocking if isinstance(store, LargeValues) else None


def parts_of(storage: BlockingStorage, stored: Stored) -> Iterator[ObjectPart]:
    """An object, from a storage. Raises `ExportError` when it is not there, or not as it was written."""
    try:
        with storage.path(stored) as path, path.open("rb") as file:  # looked at as a whole; what is read then, again
            yield ObjectHead(key=stored.key, size=stored.size)
            yield from (ObjectBytes(data=chunk) for chunk in _checked(_chunks(file), stored.key, stored.size))
    except StorageError as error:
        raise ExportError(f"a large value cannot be put into the file: {error}. Or leave all of them out") from error
    except WrongObject as error:
        raise ExportError(f"object {stored.key} was changed while it was read: {error}") from error


def _chunks(file: object) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):  # type: ignore[attr-defined]
        yield chunk


def bytes_of(head: ObjectHead, rest: Iterator[Item | ObjectPart]) -> Iterator[bytes]:
    """The bytes of an object, from a file, by the chunk. Raises `WrongObject` when they are others, or not all."""

    def following() -> Iterator[bytes]:
        size = 0
        while size < head.size:
            part = next(rest, None)
            if not isinstance(part, ObjectBytes) or not part.data:
                raise WrongObject(f"of object {head.key} {size:,} of {head.size:,} bytes came")
            size += len(part.data)
            yield part.data

    return _checked(following(), head.key, head.size)


def _checked(chunks: Iterable[bytes], key: str, size: int) -> Iterator[bytes]:
    """These, if they are what the key says. Raises `WrongObject` behind the last if they are not."""
    try:
        digest = BlockingStorage.digest_in(key)
    except StorageRefused as error:
        raise WrongObject(str(error)) from None
    seen, found = 0, sha256()
    for chunk in chunks:
        seen += len(chunk)
        found.update(chunk)
        yield chunk
    if (seen, found.hexdigest()) != (size, digest):
        raise WrongObject(f"the bytes of object {key} are not those that were stored")
