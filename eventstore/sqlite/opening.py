"""How a connection to a database file comes to be, step by step, and how the writable one ends.

Everything here blocks and runs on the thread that will own the connection. A writer is opened in this order: look
whether the file is ours and not newer than we are (nothing is changed until that is known), take the guard, create the
file private to its user, `synchronous` first (in WAL mode EXTRA costs no more than FULL, and it closes the hole at
creation), the write-ahead log, missing migrations, and an fsync of the directory that now names the files.

Whatever fails on the way leaves no connection behind, and a file that is no store as it was.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from typing import Final, Literal, TypeAlias, TypeGuard, get_args
from urllib.parse import quote

from msgspec import Struct

from eventstore.errors import InvalidArgument, NotAStore, SchemaTooNew, StoreUnavailable
from eventstore.sqlite.failures import unavailable
from eventstore.sqlite.guard import Guard, Identity
from eventstore.sqlite.schema import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION

__all__ = [
    "BUSY_SECONDS",
    "LOG_BYTES_MAX",
    "PAGE_BYTES",
    "Synchronous",
    "WritesOn",
    "Writing",
    "is_synchronous",
    "is_writes_on",
    "open_guard",
    "open_reader",
    "open_writer",
]

Synchronous: TypeAlias = Literal["EXTRA", "FULL", "NORMAL"]
WritesOn: TypeAlias = Literal["thread", "loop"]

BUSY_SECONDS: Final = 5.0
"""How long to wait for a program that locks the database without taking the guard (a shell)."""
LOG_BYTES_MAX: Final = 64 << 20
"""The size that the write-ahead log is cut back to when it starts anew."""

PAGE_BYTES: Final = 4_096
"""Of a page of the database and of its log."""

_CACHE_KIBIBYTES: Final = 8 << 10  # of the writer's page cache: SQLite's 2 MiB make many streams read pages again
_CACHED_STATEMENTS: Final = 256
# How a rollback journal begins, see https://sqlite.org/fileformat2.html: eight bytes, how many records, a number by
# chance, and how many pages the database had.
_JOURNAL_MAGIC: Final = bytes.fromhex("d9d505f920a163d7")
_JOURNAL_BYTES: Final = 20
_EMPTY: Final = bytes(4)


class Writing(Struct, frozen=True):
    """How a store writes."""

    synchronous: Synchronous = "EXTRA"
    on: WritesOn = "thread"

    def __post_init__(self) -> None:
        """Raises `InvalidArgument`."""
        if not is_synchronous(self.synchronous):
            raise InvalidArgument(f"synchronous must be EXTRA, FULL or NORMAL, not {self.synchronous!r}")
        if not is_writes_on(self.on):
            raise InvalidArgument(f"writes_on must be thread or loop, not {self.on!r}")


def is_synchronous(word: str) -> TypeGuard[Synchronous]:
    """Whether this is one of SQLite's levels that a store may have."""
    return word in get_args(Synchronous)


def is_writes_on(word: str) -> TypeGuard[WritesOn]:
    """Whether this is one of the places where transactions may run."""
    return word in get_args(WritesOn)


def open_guard(path: str) -> Guard:
    """The guard of the database at `path`, if there is one of ours or none yet.

    Raises `NotAStore` and `SchemaTooNew`, having created nothing, and `StoreUnavailable`.
    """
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        raise StoreUnavailable(f"{path} is a directory; name a file")
    try:
        if not _exists(directory) or not os.path.isdir(directory):
            raise StoreUnavailable(f"directory {directory} does not exist; create it, or choose another path")
        _look_without_touching(path)
        return Guard(path + "-guard")
    except OSError as error:
        raise StoreUnavailable(
            f"{path}-guard cannot be created or opened: this user needs permission to write the directory {directory}"
            f" and the store's files in it; change it, or run as the user who owns them ({error.strerror})"
        ) from error
    except sqlite3.Error as error:
        raise unavailable(error, path) from error


def open_writer(path: str, writing: Writing) -> tuple[sqlite3.Connection, Identity]:
    """A writable connection with the newest schema. The caller holds the guard.

    Only one that writes on the loop may be used by other threads than this one, by one at a time.

    Raises `NotAStore`, `SchemaTooNew` or `StoreUnavailable`.
    """
    try:
        _create_private(path)
        connection = _connect(path, "rw", moves=writing.on == "loop")
        try:
            connection.execute(f"PRAGMA synchronous={writing.synchronous}")
            _harden(connection)
            _check_is_ours(connection, path)
            _switch_to_log(connection, path)
            _migrate(connection, path)
            _sync_directory(path)
            return connection, Identity(path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise unavailable(error, path) from error
    except OSError as error:
        raise StoreUnavailable(
            f"{path} cannot be created or opened: {error.strerror}; check the directory, its free space and this"
            " user's permissions"
        ) from error


def open_reader(path: str) -> sqlite3.Connection:
    """A connection that cannot write. TEXT comes back as bytes, exactly as stored.

    Raises `NotAStore`, `SchemaTooNew` or `StoreUnavailable`.
    """
    try:
        if not _exists(path):
            raise StoreUnavailable(f"no store at {path}: there is no such file")
        if _was_empty(path):
            raise StoreUnavailable(
                f"no store at {path}: whoever was making it was interrupted; open it for writing once to have it made"
            )
        _look_without_touching(path)
        mode = "ro&immutable=1" if _cannot_change(path) else "ro"
        connection = _connect(path, mode)
        try:
            _harden(connection)
            _check_is_ours(connection, path, empty_is_ours=False)
            _check_is_current(connection, path)
            connection.text_factory = bytes
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise unavailable(error, path) from error
    except OSError as error:
        raise StoreUnavailable(
            f"{path} cannot be looked at: this user needs permission to enter every directory on the way to it; change"
            f" it, or run as the user who owns them ({error.strerror})"
        ) from error
    return connection


def _exists(path: str) -> bool:
    """Whether there is anything at `path`. Raises `OSError` when this user may not know: that is no "no"."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _cannot_change(path: str) -> bool:
    """Whether nobody writes the file, and SQLite needs neither locks nor the index of a log to read it.

    That is so on a read-only file system, unless an index says that somebody who may write there has it open.
    Raises `StoreUnavailable` for a log that somebody left there, which cannot be brought in.
    """
    if not os.statvfs(path).f_flag & os.ST_RDONLY or _exists(f"{path}-shm"):
        return False
    if _exists(f"{path}-wal") and os.path.getsize(f"{path}-wal") > 0:
        raise StoreUnavailable(
            f"{path} lies on a read-only file system, with a log beside it ({path}-wal) that was not brought in: copy"
            " both to where this user can write, and read the copy"
        )
    return True


def _connect(path: str, mode: str, *, moves: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(path)}?mode={mode}",
        uri=True,
        isolation_level=None,  # transactions begin where we say
        timeout=BUSY_SECONDS,
        cached_statements=_CACHED_STATEMENTS,
        check_same_thread=not moves,
    )


def _look_without_touching(path: str) -> None:
    """Refuse what is plainly not ours before a lock, a log or a byte of it could change.

    It looks past locks and the log, so it may meet a checkpoint that has written the first page, and with it the new
    size, before the rest: to SQLite that is a damaged file, unless the connection says that it can do with one.
    """
    if not _exists(path) or os.path.getsize(path) == 0 or _was_empty(path):
        return
    with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        _check_is_ours(connection, path)


def _was_empty(path: str) -> bool:
    """Whether the file was empty before a transaction that was interrupted: whatever the disk has of it now, perhaps
    not even its first sector, whoever opens the file next has SQLite make it empty again.

    The journal of that transaction says so, and SQLite has no lock on it that closing it could drop.
    """
    try:
        with open(path + "-journal", "rb") as journal:
            start = journal.read(_JOURNAL_BYTES)
    except OSError:
        return False
    return start.startswith(_JOURNAL_MAGIC) and start.endswith(_EMPTY)


def _check_is_ours(connection: sqlite3.Connection, path: str, *, empty_is_ours: bool = True) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    schema = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID:
        if schema > SCHEMA_VERSION:
            raise SchemaTooNew(
                f"{path} has schema version {schema}, this library knows versions up to {SCHEMA_VERSION}: upgrade it"
                " to read the file, which is left untouched"
            )
        return
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application or schema or tables or not empty_is_ours:
        raise NotAStore(f"{path} is a SQLite database of another program: it is left untouched; choose another path")


def _check_is_current(connection: sqlite3.Connection, path: str) -> None:
    schema = connection.execute("PRAGMA user_version").fetchone()[0]
    if schema < SCHEMA_VERSION:
        raise StoreUnavailable(
            f"{path} has schema version {schema}, older than {SCHEMA_VERSION}: it was opened for reading only; open it"
            " for writing once to bring it up to date"
        )


def _create_private(path: str) -> None:
    """An empty file for its user alone; SQLite gives its log and index the same mode.

    Closing a descriptor of a database drops SQLite's locks on it in this process: this one was created here, under the
    guard, so nobody can have it open.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _harden(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    connection.execute("PRAGMA temp_store=MEMORY")


def _switch_to_log(connection: sqlite3.Connection, path: str) -> None:
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")  # of a file that is empty yet
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise StoreUnavailable(
            f"{path} cannot use a write-ahead log (journal mode stays {mode!r}): is it on a network file system? Put it"
            " on a local disk"
        )
    connection.execute("PRAGMA wal_autocheckpoint=0")  # checkpoints are explicit, under the guard
    connection.execute(f"PRAGMA journal_size_limit={LOG_BYTES_MAX}")
    connection.execute(f"PRAGMA cache_size=-{_CACHE_KIBIBYTES}")


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the schema up to date in one transaction; also makes SQLite open the log, so that its inode is known."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        _check_is_ours(connection, path)  # again, now that nobody else can write
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        if version < SCHEMA_VERSION:
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _sync_directory(path: str) -> None:
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
