"""`BlockingStorage`: what a storage does, for callers that are in a thread and may wait there.

Everything that is read is checked against the digest that names it, before anything is made of it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Final

from msgspec import Struct

from engine.core.tabular import table_kind
from engine.errors import StorageDamaged, StorageMissing, StorageRefused
from engine.storage.extras import needing
from engine.storage.formats import VALUE_BYTES_MAX, codec_for, format_for, kind_for, type_text
from engine.storage.places import CHUNK_BYTES, Draft, Place
from engine.storage.stored import KEY_BYTES_MAX, Format, Stored, check_key, key_of, keys_in

__all__ = ["GRACE_SECONDS", "BlockingStorage", "Swept"]

GRACE_SECONDS: Final = 86_400.0
"""How old an object must be before a sweep may take it: what was written and is not named yet is younger."""


class Swept(Struct, frozen=True):
    """What a sweep took away, and what it left."""

    objects: int
    bytes: int
    drafts: int  # left by crashes
    kept: int  # objects that were named, or young


class BlockingStorage:
    """Immutable objects by their content. Every method blocks; may be called from any number of threads at once."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @property
    def name(self) -> str:
        """Where it is, without secrets."""
        return self._place.name

    # -- writing -------------------------------------------------------------------------------------------------------

    def write(self, value: Any, type: Any = Any, *, format: Format | None = None) -> Stored:  # noqa: A002
        """See `Storage.write`."""
        format_ = format_for(value, type, format)
        with self._place.draft() as draft:
            match format_:
                case "parquet":
                    return self._write_table(draft, value)
                case "joblib":
                    with needing("format='joblib' needs"):
                        from engine.storage import with_joblib  # noqa: PLC0415 - only who asks for it

                    with_joblib.dump(value, draft)
                    return self._publish(draft, "joblib", type_=_name_of(value), writer=with_joblib.WRITER)
                case "json":
                    draft.write(codec_for(type, f"the value for storage {self.name}").encode_checked(value))
                    return self._publish(draft, "json", type_=type_text(type))
                case "bytes" | "text":
                    data = value.encode() if isinstance(value, str) else value
                    if len(data) > VALUE_BYTES_MAX:
                        raise StorageRefused(f"a value of {len(data):,} bytes: at most {VALUE_BYTES_MAX:,} are stored")
                    draft.write(data)
                    return self._publish(draft, format_)

    def write_bytes(self, data: bytes, format: Format) -> Stored:  # noqa: A002
        """See `Storage.write_bytes`."""
        written = None
        if format == "parquet":
            with needing("tables need"):
                from engine.storage.arrow import tables  # noqa: PLC0415 - only who has it

            written = tables.describe(data)
        with self._place.draft() as draft:
            draft.write(data)
            return self._publish(draft, format, written=written)

    @staticmethod
    def digest_in(key: str) -> str:
        """The digest of the bytes of an object, which its key has. Raises `StorageRefused` for what is no key."""
        return check_key(key)

    def put(self, key: str, chunks: Iterable[bytes]) -> None:
        """Write an object that is known by its key, from elsewhere. What `chunks` raises leaves nothing.

        Raises `StorageDamaged` when its bytes are not those that the key says, `StorageRefused` for what is no key.
        """
        digest = check_key(key)
        with self._place.draft() as draft:
            for chunk in chunks:
                draft.write(chunk)
            if draft.digest != digest:
                raise StorageDamaged(f"what comes as object {key} is another: it was changed on the way", key=key)
            draft.publish(key)

    def _write_table(self, draft: Draft, value: Any) -> Stored:
        with needing("tables need"):
            from engine.storage.arrow import tables  # noqa: PLC0415 - only who has it

        kind = table_kind(value.__class__) or ""
        written = tables.write(value, kind, draft)
        return self._publish(draft, "parquet", type_=kind, writer=tables.WRITER, written=written)

    def _publish(
        self, draft: Draft, format_: Format, *, type_: str = "", writer: str = "", written: Any = None
    ) -> Stored:
        digest = draft.digest
        stored = Stored(
            key=key_of(digest, format_),
            digest=digest,
            size=draft.size,
            format=format_,
            data_version=digest if written is None else written.data_version,
            rows=None if written is None else written.rows,
            schema=None if written is None else written.columns,
            type=type_,
            writer=writer,
        )
        draft.publish(stored.key)
        return stored

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, stored: Stored, type: Any = Any, *, format: Format | None = None) -> Any:  # noqa: A002
        """See `Storage.read`."""
        if format is not None and format != stored.format:
            raise StorageRefused(f"object {stored.key} is {stored.format}, not {format}", key=stored.key)
        match stored.format:
            case "parquet":
                return self._read_table(stored, kind_for(stored, type))
            case "joblib":
                if format != "joblib":
                    raise StorageRefused(
                        f"object {stored.key} was written by joblib: reading it runs what is in it. If that is meant,"
                        ' say format="joblib"',
                        key=stored.key,
                    )
                with needing("format='joblib' needs"):
                    from engine.storage import with_joblib  # noqa: PLC0415 - only who asks for it

                return with_joblib.load(io.BytesIO(self.read_bytes(stored)))
            case "json":
                return codec_for(type, f"object {stored.key}").decode(self.read_bytes(stored))
            case "bytes" | "text":
                needed = bytes if stored.format == "bytes" else str
                if type not in {Any, needed}:
                    raise StorageRefused(
                        f"object {stored.key} is {stored.format}, not {type_text(type)}", key=stored.key
                    )
                data = self.read_bytes(stored)
                return data if stored.format == "bytes" else data.decode()

    def read_joined(self, stored: Sequence[Stored], type: Any = Any) -> Any:  # noqa: A002
        """Tables one behind the other, as one table of that type. Raises `StorageRefused` for what is no table, or has
        other columns than the first.
        """
        from engine.storage.arrow import tables  # noqa: PLC0415 - only who has it

        if not stored:
            raise StorageRefused("there is nothing to read: of no objects no table can be made", key="")
        kinds = [kind_for(each, type) for each in stored]
        parts = (self._read_table(each, "pyarrow.Table") for each in stored)
        return tables.joined(parts, kinds[0], stored[0].key)

    def read_bytes(self, stored: Stored) -> bytes:
        """The object's bytes, whole. Raises `StorageMissing`, `StorageDamaged`, `StorageRefused` for too many."""
        if stored.size > VALUE_BYTES_MAX:
            raise StorageRefused(
                f"object {stored.key} has {stored.size:,} bytes, more than {VALUE_BYTES_MAX:,}: ask for its file",
                key=stored.key,
            )
        with self._opened(stored) as file:
            return file.read()

    def _read_table(self, stored: Stored, kind: str) -> Any:
        with needing("tables need"):
            from engine.storage.arrow import tables  # noqa: PLC0415 - only who has it

        with self._opened(stored) as file:
            if kind == "pyarrow.RecordBatchReader":  # which reads on
                return tables.read(_Kept(os.dup(file.fileno())), kind, stored.key)
            return tables.read(file, kind, stored.key)

    @contextmanager
    def path(self, stored: Stored) -> Iterator[Path]:
        """A local file with the object's bytes, for engines that read files. See `Storage.local_path`."""
        check_key(stored.key)
        with self._place.path(stored.key) as path:
            self._verified(stored, path.open("rb")).close()
            yield path

    @contextmanager
    def _opened(self, stored: Stored) -> Iterator[IO[bytes]]:
        with self._verified(stored, self._place.open(stored.key)) as file:
            yield file

    def _verified(self, stored: Stored, file: IO[bytes]) -> IO[bytes]:
        """The file, at its beginning, if its bytes are those that were stored; else it is closed."""
        try:
            self._verify(stored, file)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def _verify(self, stored: Stored, file: IO[bytes]) -> None:
        if check_key(stored.key) != stored.digest:
            raise StorageRefused(f"{stored.key} is not the key of an object with digest {stored.digest[:80]!r}")
        size, found = 0, sha256()
        while size <= stored.size and (chunk := file.read(CHUNK_BYTES)):
            found.update(chunk)
            size += len(chunk)
        if size != stored.size or found.hexdigest() != stored.digest:
            what = "its bytes have another digest" if size == stored.size else f"it has not {stored.size:,} bytes"
            raise StorageDamaged(
                f"object {stored.key} in the storage {self.name} is damaged ({what}): put back a copy of that file, or"
                " write the value again, which replaces it",
                key=stored.key,
            )

    # -- what is there -------------------------------------------------------------------------------------------------

    def exists(self, stored: Stored) -> bool:
        """Whether an object of that key and size is there. Whether its bytes are right is seen when it is read."""
        return self._place.size(stored.key) == stored.size

    def delete(self, stored: Stored) -> bool:
        """Take one object away, whoever names it. Whether it was there."""
        return self._place.delete(stored.key)

    def keys_within(self, key: str) -> set[str]:
        """What in an object reads like a key of another, by the chunk; of one that is not there nothing."""
        found: set[str] = set()
        tail = b""
        try:
            with self._place.open(key) as file:
                while chunk := file.read(CHUNK_BYTES):
                    found |= keys_in(tail + chunk)
                    tail = (tail + chunk)[-KEY_BYTES_MAX:]
        except StorageMissing:
            return set()
        return found

    def sweep(self, keep: Iterable[Stored | str], *, grace: float = GRACE_SECONDS, look: bool = False) -> Swept:
        """See `Storage.sweep`."""
        named = {check_key(each if isinstance(each, str) else each.key) for each in keep}
        limit = self._place.now() - max(0.0, grace)
        objects = size = kept = 0
        for found in self._place.found():
            stays = check_key(found.key) in named or found.modified >= limit
            if stays or not (look or self._place.delete(found.key, older_than=limit)):
                kept += 1
                continue
            objects += 1
            size += found.size
        return Swept(objects, size, 0 if look else self._place.sweep_drafts(older_than=limit), kept)

    def check(self, stored: Stored) -> None:
        """Raise `StorageMissing` or `StorageDamaged` unless the object is there and whole."""
        if self._place.size(stored.key) is None:
            raise StorageMissing(f"the storage {self.name} holds no object {stored.key}", key=stored.key)
        with self._opened(stored):
            pass


class _Kept(io.FileIO):
    """A file that is closed when nobody has it any more; a reader of batches may be left at any row, or never begun."""

    def __del__(self) -> None:
        self.close()


def _name_of(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
