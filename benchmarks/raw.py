"""The raw limit: the rows that the engine has just written, written and read again by hand.

By hand means the sqlite3 module on the calling thread, and nothing between it and SQLite: no lease, no guard, no digest
to compute, no checkpoint. The file is made by the store's own opening, so tables, indexes and pragmas are the same, and
the rows are read back from the store, so their bytes are the same. What is timed is only the writing, or the reading.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import msgspec

from engine.core.events import decode_header
from eventstore.sqlite.opening import Writing, open_reader, open_writer

__all__ = ["ROWS_PER_COMMIT", "Row", "event_rows", "read_and_decode", "rows_written_per_second"]

ROWS_PER_COMMIT = 500
"""How many rows share a commit where the engine may share commits, too."""

Row: TypeAlias = tuple[Any, ...]
"""stream, version, header, payload, salt, payload_digest, digest: all of an event but the position it is given."""

_TIMES = 3

_COLUMNS = "stream, version, header, payload, salt, payload_digest, digest"
_INSERT = f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"


def event_rows(path: Path) -> list[Row]:
    """Every event of the store in the file, in the order of the log."""
    with closing(open_reader(str(path))) as connection:
        connection.text_factory = str
        return connection.execute(f"SELECT {_COLUMNS} FROM events ORDER BY position").fetchall()


def rows_written_per_second(rows: list[Row], path: Path, *, rows_per_commit: int) -> float:
    """Write the rows into a new file, so many to a commit; one is a plain INSERT, more are an `executemany`.

    The median of a few times, each into a file of its own: one alone is over so soon that it mostly measures what else
    the disk had to do.
    """
    return median(
        _written_per_second(rows, path.with_name(f"{path.stem}-{index}{path.suffix}"), rows_per_commit)
        for index in range(_TIMES)
    )


def _written_per_second(rows: list[Row], path: Path, rows_per_commit: int) -> float:
    connection, _ = open_writer(str(path), Writing())
    with closing(connection):
        started = time.perf_counter()
        if rows_per_commit == 1:
            _write_singly(connection, rows)
        else:
            for first in range(0, len(rows), rows_per_commit):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(_INSERT, rows[first : first + rows_per_commit])
                connection.execute("COMMIT")
        seconds = time.perf_counter() - started
        (written,) = connection.execute("SELECT count(*) FROM events").fetchone()
        assert written == len(rows), f"{written} of {len(rows)} rows were written"
    return len(rows) / seconds


def _write_singly(connection: sqlite3.Connection, rows: list[Row]) -> None:
    execute = connection.execute
    for row in rows:
        execute("BEGIN IMMEDIATE")
        execute(_INSERT, row)
        execute("COMMIT")


def read_and_decode(path: Path, stream: str) -> list[tuple[Any, Any]]:
    """Read all rows of a stream with all their columns, and decode every header and payload.

    The header becomes its event, the payload a JSON value of no particular type. Everything is kept, as a replay keeps
    what it needs.
    """
    decode_payload = msgspec.json.Decoder().decode
    with closing(open_reader(str(path))) as connection:
        rows = connection.execute(
            f"SELECT position, {_COLUMNS} FROM events"
            " WHERE stream = (SELECT id FROM streams WHERE name = ?) ORDER BY version",
            (stream,),
        )
        return [(decode_header(row[3]), None if row[4] is None else decode_payload(row[4])) for row in rows]
