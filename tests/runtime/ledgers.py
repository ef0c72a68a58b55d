"""What the tests of transactional tasks stand on: a table in the store's own file, and tasks that write it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from engine import Transaction, attempt
from engine.runtime.transacting import Transacting
from tests.runtime.worlds import SqliteWorld

TABLE = "CREATE TABLE IF NOT EXISTS ledger (name TEXT NOT NULL, attempt INT NOT NULL, key TEXT NOT NULL)"


def write(tx: Transaction, name: str) -> str:
    """An effect that shows how often it happened."""
    now = attempt()
    tx.execute(TABLE)
    tx.execute("INSERT INTO ledger VALUES (?, ?, ?)", (name, now.number, now.idempotency_key))
    return f"{name} by attempt {now.number}"


def ledger(world: SqliteWorld) -> list[tuple[str, int]]:
    """Names and attempts, in order of name."""
    return [(name, number) for name, number, _ in entries(world)]


def entries(world: SqliteWorld) -> list[tuple[str, int, str]]:
    """All of it, as anybody reads it who opens the file."""
    with closing(sqlite3.connect(f"file:{world.path}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute("SELECT * FROM ledger ORDER BY name, attempt").fetchall()
        except sqlite3.OperationalError as error:
            assert "no such table" in str(error), error
            return []


def is_own_sql(name: str, argument: Any) -> bool:
    """Whether a call of the store is the commit of a transactional attempt."""
    return name == "commit" and argument.transaction is not None


def own_sql_of(task_id: str) -> Any:
    """The same, of one task call."""

    def is_it(name: str, argument: Any) -> bool:
        if not is_own_sql(name, argument):
            return False
        waiting: Transacting = argument.transaction.__self__
        return waiting.task_id == task_id

    return is_it
