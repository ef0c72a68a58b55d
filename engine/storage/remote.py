"""Objects under any URL that fsspec knows: the one place that imports `fsspec`.

Where a put is all or nothing (object stores) an object is put under its key. Elsewhere it is uploaded under another
name first (``new/``) and then moved; a place whose move is no rename lets a reader see half an object for a moment, who
then finds that its digest is wrong. Sweeping knows no locks here: it looks at an object's age again right before it
deletes it, and writers always put, so that what is written is young.

Errors of file systems are shown without the secrets that the URL and the options hold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final
from uuid import uuid4

import fsspec

from engine.errors import StorageDamaged, StorageError, StorageMissing, StorageRefused, StorageUnavailable
from engine.storage.places import CHUNK_BYTES, Draft, Found
from engine.storage.stored import check_key

__all__ = ["Remote"]

_NEW: Final = "new"
_ALL_OR_NOTHING: Final = frozenset(
    {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "cos", "tos", "hf"}
)
"""Protocols whose put of one object is seen whole, or not at all."""
_TIMES: Final = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")


class Remote:
    """A place under a URL. Making one opens the file system, which connects when it is used."""

    def __init__(self, url: str, options: Mapping[str, Any], *, name: str, secrets: frozenset[str]) -> None:
        self.name = name
        self._secrets = sorted(secrets, key=len, reverse=True)
        with self._failing():
            try:
                self._fs, root = fsspec.core.url_to_fs(url, **options)
            except (ValueError, ImportError, TypeError) as error:
                raise StorageRefused(f"fsspec takes no storage {name!r}: {self._shown(error)}") from None
        self._root = root.rstrip("/")
        protocol = self._fs.protocol
        self._put_whole = not _ALL_OR_NOTHING.isdisjoint((protocol,) if isinstance(protocol, str) else protocol)

    # -- reading -------------------------------------------------------------------------------------------------------

    def open(self, key: str) -> IO[bytes]:
        """See `Place`: a copy of it, in a file without a name."""
        check_key(key)
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        try:
            self._fetch(key, file)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    @contextmanager
    def path(self, key: str) -> Iterator[Path]:
        """See `Place`: a copy of it."""
        check_key(key)
        with tempfile.NamedTemporaryFile(prefix="holdfast-", suffix=f"-{key.partition('/')[2][-20:]}") as file:
            self._fetch(key, file)
            file.flush()
            yield Path(file.name)

    def _fetch(self, key: str, file: Any) -> None:
        with self._failing(key), self._fs.open(self._at(key), "rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                file.write(chunk)

    def size(self, key: str) -> int | None:
        """See `Place`."""
        check_key(key)
        try:
            with self._failing(key):
                return int(self._fs.info(self._at(key))["size"])
        except StorageMissing:
            return None

    def found(self) -> Iterator[Found]:
        """See `Place`."""
        with self._failing():
            self._fs.invalidate_cache()
            try:
                folders = self._fs.ls(self._root, detail=True)
            except FileNotFoundError:
                return
        for folder in folders:
            name = folder["name"].rstrip("/").rpartition("/")[2]
            if len(name) != 2:
                continue
            with self._failing():
                entries = self._fs.ls(folder["name"], detail=True)
            for entry in entries:
                key = f"{name}/{entry['name'].rpartition('/')[2]}"
                with suppress(StorageRefused):
                    check_key(key)
                    yield Found(key, int(entry["size"] or 0), self._modified(entry))

    def now(self) -> float:
        """See `Place`: when an object made just now was made."""
        path = self._at(f"{_NEW}/{uuid4().hex}.now")
        with self._failing():
            self._fs.makedirs(self._at(_NEW), exist_ok=True)
            self._fs.pipe_file(path, b"now")
            try:
                self._fs.invalidate_cache()
                return self._modified(self._fs.info(path))
            finally:
                self._fs.rm_file(path)

    # -- writing -------------------------------------------------------------------------------------------------------

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """See `Place`: a local file, uploaded when it is published."""
        with tempfile.NamedTemporaryFile(prefix="holdfast-") as file:
            yield Draft(file.file, lambda draft, key: self._publish(draft, file.name, key), self.name)

    def _publish(self, draft: Draft, path: str, key: str) -> None:
        check_key(key)
        draft.flush()
        target = self._at(key)
        with self._failing(key):
            if self._put_whole:
                self._fs.put_file(path, target)
            else:
                self._put_and_move(path, target)
            self._fs.invalidate_cache()
            size = int(self._fs.info(target)["size"])
        if size != draft.size:
            raise StorageUnavailable(f"the storage {self.name} took {size:,} of {draft.size:,} bytes", key=key)

    def _put_and_move(self, path: str, target: str) -> None:
        beside = self._at(f"{_NEW}/{uuid4().hex}.part")
        self._fs.makedirs(self._at(_NEW), exist_ok=True)
        self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        try:
            self._fs.put_file(path, beside)
            self._fs.mv(beside, target)
        except BaseException:
            with suppress(Exception):  # whoever sweeps takes it
                self._fs.rm_file(beside)
            raise

    def delete(self, key: str, *, older_than: float | None = None) -> bool:
        """See `Place`."""
        check_key(key)
        try:
            with self._failing(key):
                self._fs.invalidate_cache()
                if older_than is not None and self._modified(self._fs.info(self._at(key))) >= older_than:
                    return False
                self._fs.rm_file(self._at(key))
        except StorageMissing:
            return False
        return True

    def sweep_drafts(self, *, older_than: float) -> int:
        """See `Place`."""
        count = 0
        with self._failing():
            try:
                entries = self._fs.ls(self._at(_NEW), detail=True)
            except FileNotFoundError:
                return 0
            for entry in entries:
                if entry["name"].endswith((".part", ".now")) and self._modified(entry) < older_than:
                    self._fs.rm_file(entry["name"])
                    count += 1
        return count

    # -- the file system -----------------------------------------------------------------------------------------------

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _modified(self, entry: Mapping[str, Any]) -> float:
        found = next((entry[name] for name in _TIMES if entry.get(name) is not None), None)
        if isinstance(found, str):
            found = datetime.fromisoformat(found)
        if isinstance(found, datetime):
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        if isinstance(found, int | float):
            return float(found)
        raise StorageRefused(f"the storage {self.name} does not say when objects were modified: it cannot be swept")

    @contextmanager
    def _failing(self, key: str = "") -> Iterator[None]:
        try:
            yield
        except StorageError:
            raise
        except FileNotFoundError:
            if not key:
                raise
            raise StorageMissing(
                f"the storage {self.name} holds no object {key}: it was swept, or it lies in another storage", key=key
            ) from None
        except IsADirectoryError:
            raise StorageDamaged(f"{self.name}/{key} is a folder, not an object: take it away", key=key) from None
        except Exception as error:
            # From None: what it was raised from may say what must not be shown.
            raise StorageUnavailable(f"the storage {self.name} cannot be used: {self._shown(error)}", key=key) from None

    def _shown(self, error: BaseException) -> str:
        text = f"{type(error).__name__}: {error}"
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text
