"""The statements that add rows of events, messages and attributes, whoever made them.

It knows the columns, and what goes as 0 for NULL; it does not know when anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from eventstore.sqlite.attributes import AttributeChanges
from eventstore.sqlite.statements import NULL_FOR_0, Sql, execute_rows

__all__ = [
    "EVENT_COLUMNS",
    "KEPT_COLUMNS",
    "PLACED_COLUMNS",
    "insert_attributes",
    "insert_events",
    "insert_kept",
    "insert_messages",
    "insert_placed",
]

_INSERT_EVENTS: Final = "INSERT INTO events (stream, version, header, payload, salt, payload_digest, digest)"
EVENT_COLUMNS: Final = 7
_EVENT: Final = f"?, ?, ?, {NULL_FOR_0}, {NULL_FOR_0}, {NULL_FOR_0}, ?"
_INSERT_PLACED: Final = _INSERT_EVENTS.replace("(", "(position, ")
PLACED_COLUMNS: Final = EVENT_COLUMNS + 1
_INSERT_KEPT: Final = "INSERT INTO kept_digests (position, stream, version, digest, was)"
KEPT_COLUMNS: Final = 5
_INSERT_MESSAGES: Final = "INSERT INTO messages (stream, id, sender, control, header, payload, sent_at, consumed_at)"
_MESSAGE_COLUMNS: Final = 8
_INSERT_ATTRIBUTES: Final = "INSERT OR REPLACE INTO attributes (name, value, created_at, stream)"
# Each is looked up first: SQLite compares a list of row values with one row of the table after the other.
_DELETE_ATTRIBUTES: Final = (
    "DELETE FROM attributes WHERE (name, value, created_at, stream) IN"
    " (SELECT a.name, a.value, a.created_at, a.stream FROM ("
)
_DELETED_ATTRIBUTES: Final = (
    ") AS v CROSS JOIN attributes AS a ON a.name = v.column1 AND a.value = v.column2 AND a.created_at = v.column3"
    " AND a.stream = v.column4)"
)


def insert_events(sql: Sql, flat: Sequence[Any]) -> None:
    """Stream, version, header, payload, salt, payload digest and digest of each; 0 for NULL of payload and on."""
    if flat:
        execute_rows(sql, _INSERT_EVENTS, EVENT_COLUMNS, flat, row=_EVENT)


def insert_placed(sql: Sql, flat: Sequence[Any]) -> None:
    """The same, with the position of each before it: for a log in which not every leaf is an event."""
    if flat:
        execute_rows(sql, _INSERT_PLACED, PLACED_COLUMNS, flat, row=f"?, {_EVENT}")


def insert_kept(sql: Sql, flat: Sequence[Any]) -> None:
    """Position, stream, version, digest of each event that was pruned, and the position that it had then, or None."""
    if flat:
        execute_rows(sql, _INSERT_KEPT, KEPT_COLUMNS, flat)


def insert_messages(sql: Sql, flat: Sequence[Any]) -> None:
    """Stream, id, sender, control, header, payload, sent at and consumed at of each."""
    if flat:
        execute_rows(sql, _INSERT_MESSAGES, _MESSAGE_COLUMNS, flat)


def insert_attributes(sql: Sql, changes: AttributeChanges) -> None:
    """What changed of the index that searches use."""
    if not changes:
        return
    removed, added = changes.parameters()
    if removed:
        execute_rows(sql, _DELETE_ATTRIBUTES, 4, removed, _DELETED_ATTRIBUTES)
    if added:
        execute_rows(sql, _INSERT_ATTRIBUTES, 4, added)
