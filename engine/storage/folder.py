"""Objects in a local folder, with the standard library alone.

::

    storage/
        2c/2cf24d...9824.parquet    objects, by the first two digits of their digest
        new/4711-6f1c...part        drafts: what is being written
        lock                        held shared while a draft becomes an object, exclusively while one is swept

What is promised: an object is whole, or not there (written as a draft, fsynced, renamed, the folder fsynced), and is on
disk when `publish` returns; writing what is there already replaces it by the same bytes, which mends a damaged object
and makes it young again for whoever sweeps. A crash leaves drafts. The first write of whoever opens the folder next
takes away those that are old and that nobody holds a lock on. Files are private to the user; no symbolic link below the
folder is followed. It knows nothing of what is in an object.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final
from uuid import uuid4

from engine.errors import StorageDamaged, StorageMissing, StorageRefused, StorageUnavailable
from engine.storage.durable import OPEN_FOLDER, sync_folder
from engine.storage.places import Draft, Found
from engine.storage.stored import check_key

__all__ = ["DRAFT_AGE_SECONDS", "Folder"]

DRAFT_AGE_SECONDS: Final = 3_600.0
"""How old a draft must be before it may be swept: between making one and locking it nothing tells that it is alive."""

_NEW: Final = "new"
_DRAFT: Final = ".part"
_LOCK: Final = "lock"
_PRIVATE_FOLDER: Final = 0o700
_PRIVATE_FILE: Final = 0o600
_NOT_OURS: Final = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO})


class Folder:
    """A place in a local folder, which is made by the first write. Making a `Folder` does nothing on disk."""

    def __init__(self, path: Path) -> None:
        self._root = path.absolute()
        self.name = str(self._root)
        self._used = False  # somebody has written here, through this object

    # -- reading -------------------------------------------------------------------------------------------------------

    def open(self, key: str) -> IO[bytes]:
        """See `Place`."""
        check_key(key)
        with self._failing(key):
            descriptor = self._opened(key)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise self._not_ours(key)
            return os.fdopen(descriptor, "rb")

    @contextmanager
    def path(self, key: str) -> Iterator[Path]:
        """See `Place`."""
        self.open(key).close()  # a symbolic link would lead elsewhere
        yield self._root / key

    def size(self, key: str) -> int | None:
        """See `Place`."""
        try:
            with self.open(key) as file:
                return os.fstat(file.fileno()).st_size
        except StorageMissing:
            return None

    def found(self) -> Iterator[Found]:
        """See `Place`."""
        for folder in self._listed(self._root):
            if len(folder.name) != 2 or not folder.is_dir(follow_symlinks=False):
                continue
            for entry in self._listed(Path(folder.path)):
                key = f"{folder.name}/{entry.name}"
                with suppress(StorageRefused, FileNotFoundError):
                    check_key(key)
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        yield Found(key, found.st_size, found.st_mtime)

    def now(self) -> float:
        """See `Place`: the file system's own time, which is that of another machine on a shared one."""
        with self.draft() as draft:
            return os.fstat(draft.file.fileno()).st_mtime

    # -- writing -------------------------------------------------------------------------------------------------------

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """See `Place`."""
        if not self._used:
            self._used = True
            self._begin()
        with self._failing():
            path = self._made(_NEW) / f"{os.getpid()}-{uuid4().hex}{_DRAFT}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.fdopen(os.open(path, flags, _PRIVATE_FILE), "wb", buffering=0)
        try:
            with file:
                with self._failing():
                    fcntl.flock(file, fcntl.LOCK_SH)  # says that its writer lives, until the file is closed
                yield Draft(file, lambda draft, key: self._publish(draft, path, key), self.name)
        finally:
            with suppress(OSError):  # whoever sweeps takes it
                path.unlink(missing_ok=True)

    def _begin(self) -> None:
        """Before the first write: the folder is there for good, and what a crash left is taken away."""
        with self._failing():
            self._made(_NEW)
            sync_folder(self._root)
            sync_folder(self._root.parent)
        if any(True for _ in self._listed(self._root / _NEW)):
            self.sweep_drafts(older_than=self.now() - DRAFT_AGE_SECONDS)

    def _publish(self, draft: Draft, path: Path, key: str) -> None:
        check_key(key)
        with self._failing(key):
            os.fsync(draft.file.fileno())
            folder = self._made(key.partition("/")[0])
            with self._locked(fcntl.LOCK_SH):
                os.utime(path)  # writing it may have taken longer than a sweep's grace period
                path.replace(self._root / key)
            sync_folder(folder)
            sync_folder(self._root)  # another process may have made the folder just now, and not have synced that yet

    def delete(self, key: str, *, older_than: float | None = None) -> bool:
        """See `Place`."""
        check_key(key)
        path = self._root / key
        with self._failing(key):
            try:
                # A writer of the same bytes may be about to rely on the object: it has the lock, or comes later.
                with self._locked(fcntl.LOCK_EX):
                    found = path.lstat()
                    if older_than is not None and found.st_mtime >= older_than:
                        return False
                    path.unlink()
            except FileNotFoundError:
                return False
            sync_folder(path.parent)
            return True

    def sweep_drafts(self, *, older_than: float) -> int:
        """See `Place`."""
        count = 0
        for entry in self._listed(self._root / _NEW):
            with self._failing(), suppress(FileNotFoundError, BlockingIOError):
                found = entry.stat(follow_symlinks=False)
                if not entry.name.endswith(_DRAFT) or not stat.S_ISREG(found.st_mode) or found.st_mtime >= older_than:
                    continue
                with _opened_to_lock(entry.path) as descriptor:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)  # noqa: PTH108
                count += 1
        return count

    # -- the file system -----------------------------------------------------------------------------------------------

    def _opened(self, key: str) -> int:
        above, name = key.split("/")
        folder = os.open(self._root, OPEN_FOLDER)
        try:
            inner = os.open(above, OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            # O_NONBLOCK: a named pipe that somebody put here is not waited for.
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inner)
        finally:
            os.close(inner)

    def _made(self, name: str) -> Path:
        """A folder of this one, which is made if need be, durably; and so is what is above."""
        path = self._root / name
        missing = [each for each in (path, *path.parents) if not each.exists()]
        for each in reversed(missing):
            each.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
            sync_folder(each.parent)
        if path.is_symlink() or not path.is_dir():
            raise StorageDamaged(f"{path} is no folder, but a link or a file that somebody put there: take it away")
        return path

    def _listed(self, path: Path) -> Iterator[os.DirEntry[str]]:
        with self._failing():
            try:
                with os.scandir(path) as entries:
                    yield from list(entries)
            except FileNotFoundError:
                return

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with _opened_to_lock(self._root / _LOCK, create=True) as descriptor:
            fcntl.flock(descriptor, how)
            yield

    @contextmanager
    def _failing(self, key: str = "") -> Iterator[None]:
        """Errors of the file system, as ours."""
        try:
            yield
        except FileNotFoundError as error:
            if not key:
                raise
            raise StorageMissing(
                f"the storage {self.name} holds no object {key}: it was swept, or it lies in another storage", key=key
            ) from error
        except OSError as error:
            if key and error.errno in _NOT_OURS:
                raise self._not_ours(key) from error
            raise StorageUnavailable(f"the storage {self.name} cannot be used: {error}", key=key) from error

    def _not_ours(self, key: str) -> StorageDamaged:
        return StorageDamaged(
            f"{self._root / key} is a link, a folder or a pipe, not an object: take it away, and write the value again",
            key=key,
        )


@contextmanager
def _opened_to_lock(path: str | Path, *, create: bool = False) -> Iterator[int]:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags, _PRIVATE_FILE)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
