"""What keeps several processes from hurting one database file: a lock beside it, and a look at who it still is.

`Guard` is one `flock` on a sidecar file. SQLite 3.7.0 to 3.51.2 can corrupt a write-ahead log when a checkpoint
overlaps a commit of another connection (https://sqlite.org/wal.html#walresetbug), so every write transaction, every
checkpoint, and opening, recovering and closing a writable connection hold it. `flock` and not
`lockf`, because POSIX locks do not exclude two stores of one process. A forked child would keep a `flock` alive after
its parent died: descriptors named to `close_in_child` are closed there at once.

`Identity` notices that the database or its log was removed or replaced under an open connection, which would let
acknowledged commits go into a file that nobody can find again.

Neither ever opens the database file itself: closing any descriptor of it drops all of SQLite's POSIX locks.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from contextlib import suppress
from typing import Final, Protocol
from weakref import WeakSet

from eventstore.errors import StoreUnavailable

__all__ = ["Guard", "Identity", "SqliteVersion", "close_in_child", "sqlite_version"]

_REPAIRED: Final = frozenset({(3, 44, 6), (3, 50, 7)})  # releases inside the range that got the repair
_RETRY_SECONDS: Final = 0.0001
"""Between two tries for the guard: less than what a busy writer leaves between two transactions, so that a second
writer finds the gap (`flock` has no queue that can be left, and one without a timeout would wait for a stopped process
for ever)."""
_PATIENCE_SECONDS: Final = 0.1
"""After this long somebody holds it for long; tries become rarer."""
_RETRY_SECONDS_MAX: Final = 0.005


class _HoldsDescriptor(Protocol):
    def forget(self) -> None:
        """In a forked child: close the descriptor, touch nothing else."""


_descriptors: WeakSet[_HoldsDescriptor] = WeakSet()


def close_in_child(holder: _HoldsDescriptor) -> None:
    """Have a forked child close what `holder` has open, so that the lock on it dies with this process."""
    _descriptors.add(holder)


def _after_fork_in_child() -> None:
    for holder in list(_descriptors):
        holder.forget()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Guard:
    """The lock that every writer of one database file takes, in every process. Used by one thread at a time."""

    __slots__ = ("__weakref__", "_descriptor", "path")

    def __init__(self, path: str) -> None:
        """Open (and create) the sidecar file. Raises `OSError`."""
        self.path: Final = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        close_in_child(self)

    def held(self, timeout_seconds: float) -> _Held:
        """What holds the lock for a `with` block.

        Entering raises `StoreUnavailable` when nobody gives it up in time (a stopped process, say).
        """
        return _Held(self, timeout_seconds)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def forget(self) -> None:
        with suppress(OSError):
            self.close()

    def acquire(self, timeout_seconds: float) -> None:
        """Take the lock, to be given back with `release`: see `held`."""
        waited_seconds = 0.0  # what was asked for; a little more has passed
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waited_seconds >= timeout_seconds:
                    raise StoreUnavailable(
                        f"another process has held {self.path} for {timeout_seconds:g} seconds: a writer of this store"
                        " is stopped or very slow; continue or end it and try again"
                    ) from None
                pause = _RETRY_SECONDS if waited_seconds < _PATIENCE_SECONDS else _RETRY_SECONDS_MAX
                time.sleep(pause)
                waited_seconds += pause
            else:
                return

    def release(self) -> None:
        """Give the lock back."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)


class _Held:
    """See `Guard.held`. A class, for it is entered at every commit, and a generator would take ten times as long."""

    __slots__ = ("_guard", "_timeout_seconds")

    def __init__(self, guard: Guard, timeout_seconds: float) -> None:
        self._guard = guard
        self._timeout_seconds = timeout_seconds

    def __enter__(self) -> None:
        self._guard.acquire(self._timeout_seconds)

    def __exit__(self, *_: object) -> None:
        self._guard.release()


class Identity:
    """Which files a connection has open: the database and its write-ahead log, by device and inode."""

    __slots__ = ("_database", "_log", "log_path", "path")

    def __init__(self, path: str) -> None:
        """Take them down; the connection must have opened its log. Raises `OSError`."""
        self.path: Final = path
        self.log_path: Final = path + "-wal"
        self._database = _file_of(path)
        self._log = _file_of(self.log_path)

    def log_bytes(self) -> int:
        """The size of the log in bytes, 0 if it is gone. One `stat` call."""
        try:
            return os.stat(self.log_path).st_size
        except OSError:
            return 0

    def is_log(self, file: int) -> bool:
        """Whether this open file is the log."""
        found = os.fstat(file)
        return (found.st_dev, found.st_ino) == self._log

    def verify(self) -> int:
        """The size of the log in bytes. Raises `StoreUnavailable` when either is gone or another. Two `stat` calls."""
        try:
            log = os.stat(self.log_path)
            if (log.st_dev, log.st_ino) == self._log and _file_of(self.path) == self._database:
                return log.st_size
        except OSError:
            pass
        raise StoreUnavailable(
            f"{self.path} or its -wal file was removed or replaced while it was open: what was not acknowledged may"
            " be lost; nothing more is acknowledged until the store is opened anew"
        )


class SqliteVersion:
    """The SQLite library in use, and whether its write-ahead log has the bug that the guard is there for."""

    __slots__ = ("number", "text")

    def __init__(self, text: str) -> None:
        self.text: Final = text
        self.number: Final = tuple(int(part) for part in text.split("."))

    @property
    def in_wal_bug_range(self) -> bool:
        """3.7.0 to 3.51.2, but for two repaired releases: who writes a store without our guard can damage it."""
        return (3, 7, 0) <= self.number <= (3, 51, 2) and self.number not in _REPAIRED


def sqlite_version() -> SqliteVersion:
    """The version of the SQLite library that this Python is linked to."""
    return SqliteVersion(sqlite3.sqlite_version)


def _file_of(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
