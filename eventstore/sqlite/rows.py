"""What is stored of a stream, as it travels between the tables and a transaction's memory.

`StreamRow` is a stream as one batch sees it: loaded once, changed in memory by every request of the batch in turn, and
written once. Rows come out of SQLite as one JSON text each time, whatever their number, because stepping from row to
row gives up the interpreter's lock at every step.

This module knows the columns. It does not know what a commit may do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

from msgspec import Struct
from msgspec.json import Decoder, encode

from eventstore.mailbox import earlier_page, first_page
from eventstore.port import Scalar, StreamHead, Undelivered, WaitingMessage
from eventstore.sqlite.mailboxes import Mail
from eventstore.sqlite.statements import NULL_FOR_0, Sql, encode_names, execute_rows

__all__ = [
    "StreamRow",
    "load_streams",
    "stream_json",
    "write_streams",
]


class StreamRow(Struct, array_like=True, gc=False):
    """A stream, in the order of `stream_json`; what follows the columns is the batch's own."""

    id: int
    name: str
    version: int
    digest_hex: str
    created_at: int
    updated_at: int
    alarm: int | None
    held: int
    closed: int
    owner: int | None
    claims: int
    control: int
    data: int
    mail_at: int | None
    attributes: dict[str, Scalar]
    commit_id: str | None
    commit_owner: int | None
    commit_claims: int | None
    commit_mail: int | None
    commit_undelivered: str | None
    permits: int  # whether it may hold permits, or wait for some
    pruned: int  # whether its events were taken away
    owner_ended: int = 0  # whether the database says so; the lease's file may say so, too
    digest: bytes = b""
    is_new: bool = False
    stepped: bool = False  # version, digest and last commit changed: no index is touched
    changed: bool = False  # anything else changed
    mailbox: dict[str, Mail] | None = None  # None: not loaded

    def settle(self) -> None:
        """The batch that changed it was committed: what is here is what is stored, but for the mailbox."""
        self.is_new = self.stepped = self.changed = False
        self.mailbox = None

    def head(self, undelivered: tuple[Undelivered, ...] = (), *, mail: bool = True) -> StreamHead:
        """The stream as it is now."""
        page = first_page(self._mail(), self.control) if mail and self.mailbox else ()
        return self._head(self.owner, self.claims, page, undelivered)

    def first_outcome(self) -> StreamHead:
        """The head that the last commit returned, with what messages and claims have changed since put back.

        Nothing was consumed since, so what it showed is still there to be shown.
        """
        undelivered: tuple[Undelivered, ...] = ()
        if self.commit_undelivered is not None:
            undelivered = tuple(Undelivered(*row) for row in _decode_undelivered(self.commit_undelivered))
        page = earlier_page(tuple(self._mail()), self.commit_mail or 0)
        return self._head(self.commit_owner, self.commit_claims or 0, page, undelivered)

    def _mail(self) -> Iterator[WaitingMessage]:
        return (mail.message for mail in self.mailbox.values()) if self.mailbox else iter(())

    def _head(
        self,
        owner: int | None,
        claims: int,
        page: tuple[WaitingMessage, ...],
        undelivered: tuple[Undelivered, ...],
    ) -> StreamHead:
        return StreamHead(
            stream=self.name,
            version=self.version,
            digest=self.digest,
            created_at=self.created_at,
            updated_at=self.updated_at,
            alarm=self.alarm,
            held=bool(self.held),
            closed=bool(self.closed),
            owner=owner,
            claims=claims,
            attributes=dict(self.attributes),
            pruned=bool(self.pruned),
            messages=page,
            undelivered=undelivered,
        )


_decode_streams: Final = Decoder(list[StreamRow]).decode
_decode_attributes: Final = Decoder(dict[str, Scalar]).decode
_decode_undelivered: Final = Decoder(list[tuple[str, str, Any]]).decode
_decode_tokens: Final = Decoder(list[int]).decode


def stream_json(alias: str, ended: str = "0") -> str:
    """SQL for a stream as a JSON array, in the order of `StreamRow`."""
    columns = ", ".join(
        f"hex({alias}.digest)"
        if name == "digest"
        else f"json({alias}.attributes)"
        if name == "attributes"
        else f"{alias}.{name}"
        for name in _COLUMNS
    )
    return f"json_array({columns}, {ended})"


_COLUMNS: Final = (
    "id", "name", "version", "digest", "created_at", "updated_at", "alarm", "held", "closed", "owner", "claims",
    "control", "data", "mail_at", "attributes", "commit_id", "commit_owner", "commit_claims", "commit_mail",
    "commit_undelivered", "permits", "pruned",
)  # fmt: skip

_LOAD_STREAMS: Final = f"""
    SELECT (SELECT json_group_array({stream_json("s", "l.ended_at IS NOT NULL")})
            FROM json_each(?1) AS j CROSS JOIN streams AS s ON s.name = j.value
            LEFT JOIN leases AS l ON l.token = s.owner),
           (SELECT max(id) FROM streams),
           (SELECT json_group_array(token) FROM leases
            WHERE token IN (SELECT value FROM json_each(?2)) AND ended_at IS NULL)
"""


_LOAD_STREAM: Final = f"""
    SELECT (SELECT max(id) FROM streams),
           (SELECT count(*) FROM leases WHERE token = ?2 AND ended_at IS NULL),
           {", ".join(f"s.{name}" for name in _COLUMNS)}, l.ended_at IS NOT NULL
    FROM (SELECT 1) LEFT JOIN streams AS s ON s.name = ?1 LEFT JOIN leases AS l ON l.token = s.owner
"""


def load_streams(
    sql: Sql, names: Collection[str], tokens: Collection[int]
) -> tuple[dict[str, StreamRow], int, set[int]]:
    """The streams of these names, the highest stream id, and which of these leases have not ended."""
    if len(names) == 1 and len(tokens) <= 1:
        return _load_stream(sql, next(iter(names)), next(iter(tokens), None))
    found, last_id, open_tokens = sql.execute(_LOAD_STREAMS, (encode_names(names), encode_names(tokens))).fetchone()
    rows = {row.name: row for row in decode_streams(found)}
    return rows, last_id or 0, set(_decode_tokens(open_tokens))


def _load_stream(sql: Sql, name: str, token: int | None) -> tuple[dict[str, StreamRow], int, set[int]]:
    """The same for one stream: a lone commit is most of what a quiet store does, and JSON has its price."""
    last_id, is_open, *columns = sql.execute(_LOAD_STREAM, (name, token)).fetchone()
    open_tokens = {token} if token is not None and is_open else set()
    if columns[0] is None:
        return {}, last_id or 0, open_tokens
    row = StreamRow(*columns)
    row.name, row.digest, row.attributes = name, columns[3], _decode_attributes(columns[14])
    return {name: row}, last_id, open_tokens


def decode_streams(text: str | bytes) -> list[StreamRow]:
    """Rows out of a JSON array of `stream_json`."""
    rows = _decode_streams(text)
    for row in rows:
        row.digest = bytes.fromhex(row.digest_hex)
    return rows


_INSERT: Final = f"INSERT INTO streams ({', '.join(_COLUMNS)})"
_STEPS: Final = (
    "id", "version", "digest", "updated_at", "commit_id", "commit_owner", "commit_claims", "commit_mail",
    "commit_undelivered",
)  # fmt: skip
_CHANGES: Final = (
    *_STEPS, "alarm", "held", "closed", "owner", "claims", "control", "data", "mail_at", "attributes",
    "permits",
)  # fmt: skip
_SELDOM: Final = frozenset({"commit_undelivered"})


def _parameter(column: str) -> str:
    return NULL_FOR_0 if column in _SELDOM else "?"


class _Update:
    """UPDATE of some columns of many streams; of one, which is the usual case, in its plain form.

    Columns that are hardly ever set (`_SELDOM`) are 0 for NULL.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._row: Final = ", ".join(map(_parameter, columns))
        sets = ", ".join(f"{name} = v.column{index}" for index, name in enumerate(columns[1:], start=2))
        self._columns: Final = len(columns)
        self._head: Final = f"UPDATE streams SET {sets} FROM ("
        self._one: Final = (
            f"UPDATE streams SET {', '.join(f'{name} = {_parameter(name)}' for name in columns[1:])} WHERE id = ?"
        )

    def execute(self, sql: Sql, parameters: list[Any]) -> None:
        if len(parameters) == self._columns:
            sql.execute(self._one, (*parameters[1:], parameters[0]))
        else:
            tail = ") AS v WHERE streams.id = v.column1"
            execute_rows(sql, self._head, self._columns, parameters, tail, row=self._row)


_STEP: Final = _Update(_STEPS)
_CHANGE: Final = _Update(_CHANGES)


def write_streams(sql: Sql, rows: Iterable[StreamRow]) -> None:
    """Write what a batch changed of its streams, in at most three kinds of statements."""
    inserts: list[Any] = []
    steps: list[Any] = []
    changes: list[Any] = []
    for row in rows:
        if row.is_new:
            inserts += (
                row.id, row.name, row.version, bytearray(row.digest), row.created_at, row.updated_at, row.alarm,
                row.held, row.closed, row.owner, row.claims, row.control, row.data, row.mail_at, _attributes_text(row),
                row.commit_id, row.commit_owner, row.commit_claims, row.commit_mail, row.commit_undelivered,
                row.permits, row.pruned,
            )  # fmt: skip
        elif row.changed:
            changes += (
                row.id, row.version, bytearray(row.digest), row.updated_at, row.commit_id, row.commit_owner,
                row.commit_claims, row.commit_mail, row.commit_undelivered or 0, row.alarm, row.held, row.closed,
                row.owner, row.claims, row.control, row.data, row.mail_at, _attributes_text(row), row.permits,
            )  # fmt: skip
        elif row.stepped:
            steps += (
                row.id, row.version, bytearray(row.digest), row.updated_at, row.commit_id, row.commit_owner,
                row.commit_claims, row.commit_mail, row.commit_undelivered or 0,
            )  # fmt: skip
    if inserts:
        execute_rows(sql, _INSERT, len(_COLUMNS), inserts)
    if steps:
        _STEP.execute(sql, steps)
    if changes:
        _CHANGE.execute(sql, changes)


def _attributes_text(row: StreamRow) -> str:
    return encode(row.attributes).decode()
