"""What an error of SQLite means to a caller, and which of them end the store's work.

An I/O error or corruption **poisons**: after a failed fsync the next one lies, so nothing more may be acknowledged by
this store object. A full disk, a lock that is not given up, a missing permission do not: the transaction was rolled
back, and the next may succeed.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from eventstore.errors import NotAStore, StoreUnavailable

__all__ = ["poisons", "primary_code", "unavailable"]

_POISON: Final = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def primary_code(error: BaseException) -> int | None:
    """SQLite's primary result code of an error, None when it is none of SQLite's."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def poisons(error: BaseException) -> bool:
    """Whether nothing may be acknowledged any more after this error."""
    return primary_code(error) in _POISON


def unavailable(error: sqlite3.Error, path: str) -> StoreUnavailable:
    """The error of the port for one of SQLite, with what to do about it."""
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    detail = f"({name}: {error})"
    match primary_code(error):
        case sqlite3.SQLITE_NOTADB:
            return NotAStore(f"{path} is not a SQLite database, or is encrypted; choose another path {detail}")
        case sqlite3.SQLITE_FULL:
            return StoreUnavailable(
                f"no space is left for {path}: nothing of this transaction was written; free some and try again"
                f" {detail}"
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreUnavailable(f"another program keeps {path} locked; end its transaction and try again {detail}")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return StoreUnavailable(
                f"{path} cannot be opened or written: this user needs permission to read and write the file and its"
                f" directory {detail}"
            )
        case sqlite3.SQLITE_IOERR:
            return StoreUnavailable(
                f"reading or writing {path} failed, and nothing more is acknowledged until it is opened anew; look at"
                f" the disk {detail}"
            )
        case sqlite3.SQLITE_CORRUPT:
            return StoreUnavailable(
                f"{path} is damaged, and nothing more is acknowledged; restore a copy, or look at it with"
                f" `sqlite3 -readonly {path} 'PRAGMA integrity_check'` {detail}"
            )
        case _:
            return StoreUnavailable(f"SQLite refused to work on {path} {detail}")
