"""The caller's own SQL inside a commit (`Commit.transaction`): what it may do, for how long, and how it is undone.

It runs on the writer's connection, between BEGIN and COMMIT of a batch, inside a savepoint: when it fails, only its own
work goes, and the rest of the batch never notices. While it runs, and only then, SQLite asks us about everything that a
statement would do (an authorizer), and every few instructions whether there is time left (a progress handler). What is
not on the list here is refused, so what a later SQLite can do is refused as well.

Nothing temporary is allowed, because it would outlive the transaction on this connection and could stand before the
store's own tables by name.

Some failures make SQLite throw away the whole transaction (a write that is interrupted, ON CONFLICT ROLLBACK, a full
disk). No savepoint survives that, so `TransactionLost` tells the caller to do the batch over without this commit.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Final, TypeAlias

from eventstore.clock import Clock
from eventstore.errors import TransactionRefused
from eventstore.port import TRANSACTION_SECONDS_MAX, Commit
from eventstore.sqlite.failures import poisons, primary_code
from eventstore.sqlite.schema import RESERVED_PREFIX, STORE_TABLES
from eventstore.validation import validate_payload

__all__ = ["NotApplied", "OwnSql", "TransactionLost"]

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]

_STEPS_BETWEEN_LOOKS: Final = 1_000  # instructions of SQLite's machine, tens of microseconds, between looks at the time

_ANYTHING: Final = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE, sqlite3.SQLITE_REINDEX})
_FIRST_IS_TABLE: Final = frozenset(
    {
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_DROP_VIEW,
    }
)
_SECOND_IS_TABLE: Final = frozenset(
    {
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_DROP_INDEX,
        sqlite3.SQLITE_DROP_TRIGGER,
        sqlite3.SQLITE_ALTER_TABLE,
    }
)
_CREATES: Final = frozenset({sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_VIEW})
_TAKES_APART: Final = frozenset({sqlite3.SQLITE_DROP_TABLE, sqlite3.SQLITE_ALTER_TABLE})
_SCHEMA_TABLES: Final = frozenset({"sqlite_master", "sqlite_schema"})  # SQLite guards them itself
_DANGEROUS_FUNCTIONS: Final = frozenset({"load_extension", "fts3_tokenizer"})


class NotApplied(Exception):
    """The function failed with `error`: its commit is refused, nothing else has happened."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error: Final = error


class TransactionLost(Exception):
    """SQLite has thrown the whole transaction away while the function of `commit` ran; `error` is that commit's."""

    def __init__(self, commit: Commit, error: Exception) -> None:
        super().__init__(str(error))
        self.commit: Final = commit
        self.error: Final = error


class _Rules:
    """What SQLite asks while a statement is prepared and runs."""

    __slots__ = ("_clock", "_deadline", "_takes_apart", "reason")

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self._deadline: Final = clock.monotonic() + TRANSACTION_SECONDS_MAX
        self._takes_apart = False  # this statement drops or alters a table, for which SQLite itself keeps its books
        self.reason = ""  # why the statement was refused

    def next_statement(self) -> None:
        self.reason = ""
        self._takes_apart = False

    def late(self) -> bool:
        """Whether the time is over: also what SQLite asks from time to time."""
        return self._clock.monotonic() >= self._deadline

    def authorize(self, action: int, first: str | None, second: str | None, database: str | None, _: str | None) -> int:
        """Allow an action, or remember why not."""
        objection = self._objection(action, first, second, database)
        if objection:
            self.reason = objection
        return sqlite3.SQLITE_DENY if objection else sqlite3.SQLITE_OK

    def _objection(self, action: int, first: str | None, second: str | None, database: str | None) -> str:
        if action == sqlite3.SQLITE_ALTER_TABLE:
            database = first
        if database not in (None, "main") and not (self._takes_apart and first == "sqlite_temp_master"):
            return f"it would touch the database {database!r}, and only the store's file is there"
        if action in _ANYTHING:
            return ""
        if action == sqlite3.SQLITE_FUNCTION:
            return f"the function {second} is not allowed" if second in _DANGEROUS_FUNCTIONS else ""
        if action in _FIRST_IS_TABLE:
            table = first
        elif action in _SECOND_IS_TABLE:
            table = second
        else:
            return "a transaction reads and writes tables of its own, and may change their schema; nothing else"
        objection = self._objection_to((table or "").lower(), action)
        self._takes_apart = self._takes_apart or (not objection and action in _TAKES_APART)
        return objection

    def _objection_to(self, table: str, action: int) -> str:
        if table in STORE_TABLES:
            return f"{table} is a table of the store's"
        if action in _CREATES and table.startswith(RESERVED_PREFIX):
            return f"names that begin with {RESERVED_PREFIX} are the store's"
        if table.startswith("sqlite_") and table not in _SCHEMA_TABLES and not self._takes_apart:
            return f"{table} is a table of SQLite's own"
        return ""


class _Handle:
    """The `Transaction` that the function is given."""

    __slots__ = ("_connection", "_rules", "_stream", "_thread", "failure", "lost")

    def __init__(self, connection: sqlite3.Connection, rules: _Rules, stream: str) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._rules: Final = rules
        self._stream: Final = stream
        self._thread: Final = threading.get_ident()
        self.failure: sqlite3.Error | None = None  # an error that poisons the store, whoever catches it
        self.lost = False  # SQLite has ended the transaction

    def execute(self, sql: str, parameters: Parameters = (), /) -> list[tuple[Any, ...]]:
        def rows(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
            with closing(connection.execute(sql, parameters)) as cursor:
                return cursor.fetchall()

        found: list[tuple[Any, ...]] = self._checked(sql, rows)
        return found

    def executemany(self, sql: str, rows: Iterable[Parameters], /) -> None:
        self._checked(sql, lambda connection: connection.executemany(sql, rows).close())

    def end(self) -> None:
        self._connection = None

    def _checked(self, sql: str, work: Callable[[sqlite3.Connection], Any]) -> Any:
        if threading.get_ident() != self._thread:
            raise self._refusal(sql, "it is for the thread that the function runs on")
        connection = self._connection
        if connection is None:
            raise self._refusal(sql, "the transaction is over: it ends when the function returns")
        if self.lost:
            raise self._refusal(sql, "a statement before it has ended the transaction")
        if self._rules.late():
            raise self._refusal(sql, _TOO_LONG)
        self._rules.next_statement()
        try:
            result = work(connection)
        except sqlite3.Error as error:
            self.lost = not connection.in_transaction
            if poisons(error):
                self.failure = error
            if self._rules.reason:
                raise self._refusal(sql, self._rules.reason) from error
            if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
                raise self._refusal(sql, _TOO_LONG) from error
            raise
        if not connection.in_transaction:
            self.lost = True
            raise self._refusal(sql, "it has ended the transaction")
        return result

    def _refusal(self, sql: str | None, reason: str) -> TransactionRefused:
        return TransactionRefused(self._stream, statement=sql, reason=reason)


_TOO_LONG: Final = f"it took longer than {TRANSACTION_SECONDS_MAX:g} seconds, while every other commit waited"


class OwnSql:
    """Runs the functions of commits on the writer's connection, in a transaction that is open."""

    __slots__ = ("_clock", "_connection")

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self._connection: Final = connection
        self._clock: Final = clock

    def run(self, commit: Commit) -> bytes:
        """The payload that the commit's function returns.

        Raises `NotApplied` when it failed and its work was undone, `TransactionLost`, and SQLite's errors that mean
        that nothing may be acknowledged any more.
        """
        connection = self._connection
        connection.execute("SAVEPOINT own")
        rules = _Rules(self._clock)
        handle = _Handle(connection, rules, commit.stream)
        try:
            payload = self._call(commit, handle, rules)
        except Exception as error:
            if handle.failure is not None:
                raise handle.failure from error
            if handle.lost:
                raise TransactionLost(commit, error) from error
            connection.execute("ROLLBACK TO own")
            connection.execute("RELEASE own")
            raise NotApplied(error) from error
        connection.execute("RELEASE own")
        return payload

    def _call(self, commit: Commit, handle: _Handle, rules: _Rules) -> bytes:
        connection, function, stream = self._connection, commit.transaction, commit.stream
        assert function is not None
        connection.set_authorizer(rules.authorize)
        connection.set_progress_handler(rules.late, _STEPS_BETWEEN_LOOKS)
        try:
            payload = function(handle)
        except StopIteration as error:  # no future can hold it
            raise TransactionRefused(stream, statement=None, reason=f"it raised {error!r}") from error
        except Exception:
            raise
        except BaseException as error:  # what ends a thread or a task is not to end the store's, nor its caller's
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # a Ctrl-C, where the store writes on the loop
            raise TransactionRefused(stream, statement=None, reason=f"it raised {error!r}") from error
        finally:
            handle.end()
            connection.set_authorizer(None)
            connection.set_progress_handler(None, 0)
        if handle.lost or handle.failure is not None:
            raise TransactionRefused(stream, statement=None, reason="a statement of it has ended the transaction")
        if rules.late():
            raise TransactionRefused(stream, statement=None, reason=_TOO_LONG)
        validate_payload(payload, "transaction of", stream)
        return payload
