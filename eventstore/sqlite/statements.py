"""SQL for many rows in few statements.

Every call into SQLite gives up the interpreter's lock and must win it back, which under a busy event loop costs far
more than the work itself. So rows are written by statements with many rows of parameters, cut into a few fixed sizes
(each is prepared once per connection and cached), never by `executemany`, which steps row by row.

Of what is bound, the sqlite3 module takes ``int``, ``float``, ``str`` and ``bytearray`` as they are. For each ``bytes``
or None it first looks for an adapter, in four places, which takes longer than the rest of the binding: what goes with
every event goes as a `bytearray`, and as 0 where SQL makes a NULL of that (`NULL_FOR_0`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

from msgspec.json import encode

__all__ = ["NULL_FOR_0", "Sql", "encode_names", "execute_rows"]

Sql: TypeAlias = sqlite3.Connection | sqlite3.Cursor
"""What executes statements. A connection makes a cursor for each, so who executes many in turn keeps one."""
NULL_FOR_0: Final = "nullif(?, 0)"
"""A parameter that is never a number: 0 stands for NULL."""

_SIZES: Final = (512, 256, 128, 64, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1)
"""Rows in one statement. The largest stays far below SQLite's 32,766 parameters at the columns we have."""


def execute_rows(
    sql: Sql, head: str, columns: int, parameters: Sequence[Any], tail: str = "", *, row: str = ""
) -> None:
    """Execute ``head VALUES (?, ...), ... tail`` for all rows of the flat `parameters`, `columns` to a row.

    `row`: what stands for one row, if that is not a plain ``?`` for each of its columns.
    """
    row = row or "?" + ",?" * (columns - 1)
    left = len(parameters) // columns
    start = 0
    for size in _SIZES:
        while left >= size:
            end = start + size * columns
            whole = start == 0 and end == len(parameters)
            sql.execute(_statement(head, row, size, tail), parameters if whole else parameters[start:end])
            start = end
            left -= size


def encode_names(values: Iterable[Any]) -> str:
    """A JSON array, as a parameter for ``json_each``."""
    return encode(list(values)).decode()


@cache
def _statement(head: str, row: str, rows: int, tail: str) -> str:
    return f"{head} VALUES {','.join([f'({row})'] * rows)} {tail}".rstrip()
