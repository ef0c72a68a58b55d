"""A store in one SQLite file: `SqliteStore`. `eventstore.port` says what it promises, `store` how it is joined."""

from eventstore.sqlite.guard import SqliteVersion, sqlite_version
from eventstore.sqlite.opening import Synchronous, is_synchronous
from eventstore.sqlite.store import SqliteStore

__all__ = ["SqliteStore", "SqliteVersion", "Synchronous", "is_synchronous", "sqlite_version"]
