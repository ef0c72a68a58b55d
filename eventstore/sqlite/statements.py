"""SQL for many rows in few statements.

Every call into SQLite gives up the interpreter's lock and must win it back, which under a busy event loop costs far
more than the work itself. So rows are written by statements with many rows of parameters, cut into a few fixed sizes
(each is prepared once per connection and cached), never by `executemany`, which steps row by row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

from msgspec.json import encode

__all__ = ["encode_names", "execute_rows"]

_SIZES: Final = (512, 256, 128, 64, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1)
"""Rows in one statement. The largest stays far below SQLite's 32,766 parameters at the columns we have."""


def execute_rows(
    connection: sqlite3.Connection, head: str, columns: int, parameters: Sequence[Any], tail: str = ""
) -> None:
    """Execute ``head VALUES (?, ...), ... tail`` for all rows of the flat `parameters`, `columns` to a row."""
    left = len(parameters) // columns
    start = 0
    for size in _SIZES:
        while left >= size:
            end = start + size * columns
            whole = start == 0 and end == len(parameters)
            connection.execute(_sql(head, columns, size, tail), parameters if whole else parameters[start:end])
            start = end
            left -= size


def encode_names(values: Iterable[Any]) -> str:
    """A JSON array, as a parameter for ``json_each``."""
    return encode(list(values)).decode()


@cache
def _sql(head: str, columns: int, rows: int, tail: str) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return f"{head} VALUES {','.join([row] * rows)} {tail}".rstrip()
