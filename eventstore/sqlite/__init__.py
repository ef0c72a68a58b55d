"""A store in one SQLite file: `SqliteStore`. `eventstore.port` says what it promises, `store` how it is joined."""

from eventstore.sqlite.guard import SqliteVersion, sqlite_version
from eventstore.sqlite.opening import Synchronous, WritesOn, is_synchronous, is_writes_on
from eventstore.sqlite.store import SqliteStore

__all__ = [
    "SqliteStore",
    "SqliteVersion",
    "Synchronous",
    "WritesOn",
    "is_synchronous",
    "is_writes_on",
    "sqlite_version",
]
