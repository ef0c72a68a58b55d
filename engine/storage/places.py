"""What a place is: where objects lie, by key. Two keep it, a local folder (`folder.py`) and any URL that fsspec knows
(`remote.py`).

A place knows keys and bytes, nothing of values. All of it blocks; `Storage` runs it in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Final, Protocol

from msgspec import Struct

from engine.errors import StorageRefused, StorageUnavailable

__all__ = ["CHUNK_BYTES", "OBJECT_BYTES_MAX", "Draft", "Found", "Place"]

CHUNK_BYTES: Final = 1 << 20
"""Bytes that are copied and hashed at once."""
OBJECT_BYTES_MAX: Final = 1 << 40
"""Bytes of one object."""


class Found(Struct, frozen=True):
    """An object that lies in a place."""

    key: str
    size: int  # bytes
    modified: float  # seconds since the epoch, as the place's own clock had it


class Place(Protocol):
    """Where objects lie. Every method raises `StorageUnavailable` when the place cannot be used."""

    name: str  # as messages call it, without secrets

    def draft(self) -> AbstractContextManager[Draft]:
        """A new object, to be written and published; what is not published is gone when this is left."""

    def open(self, key: str) -> IO[bytes]:
        """The object, for reading. Raises `StorageMissing`, or `StorageDamaged` for what is no plain file."""

    def path(self, key: str) -> AbstractContextManager[Path]:
        """A local file with these bytes, for as long as the context is open. Raises as `open` does."""

    def size(self, key: str) -> int | None:
        """Its bytes; None when there is none."""

    def delete(self, key: str, *, older_than: float | None = None) -> bool:
        """Take it away, if it is there and was modified before that. Whether it did."""

    def found(self) -> Iterator[Found]:
        """All objects. What has no key of ours is passed over."""

    def now(self) -> float:
        """What the clock says that `Found.modified` is of."""

    def sweep_drafts(self, *, older_than: float) -> int:
        """Take away drafts modified before that whose writer is dead. How many."""


class Draft:
    """A file that hashes and counts what is written to it. It can be told (`tell`), not sought."""

    def __init__(self, file: IO[bytes], publish: Callable[[Draft, str], None], place: str) -> None:
        self.file = file
        self.place = place
        self.size = 0
        self.closed = False
        self._hash = sha256()
        self._publish = publish

    @property
    def digest(self) -> str:
        """SHA-256 of what was written, 64 hex digits."""
        return self._hash.hexdigest()

    def write(self, data: Any) -> int:
        """Append bytes. Raises `StorageRefused` over OBJECT_BYTES_MAX, `StorageUnavailable` when there is no space."""
        view = memoryview(data).cast("B")
        if self.size + len(view) > OBJECT_BYTES_MAX:
            raise StorageRefused(f"an object of more than {OBJECT_BYTES_MAX:,} bytes is not stored: write it in parts")
        self._hash.update(view)
        self.size += len(view)
        rest = view
        try:
            while len(rest):
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            raise StorageUnavailable(f"the storage {self.place} cannot be written: {error}") from error
        return len(view)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self.file.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """What writers that close their file call; the draft stays open until it is published, or left."""

    def publish(self, key: str) -> None:
        """Let readers see it, whole and durable, under this key."""
        self._publish(self, key)
