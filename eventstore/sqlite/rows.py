"""What is stored of a stream and its mailbox, as it travels between the tables and a transaction's memory.

`StreamRow` is a stream as one batch sees it: loaded once, changed in memory by every request of the batch in turn, and
written once. Rows come out of SQLite as one JSON text each time, whatever their number, because stepping from row to
row gives up the interpreter's lock at every step.

This module knows the columns. It does not know what a commit may do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Any, Final

from msgspec import Struct
from msgspec.json import Decoder, encode

from eventstore.port import MAILBOX_PAGE, Scalar, StreamHead, Undelivered, WaitingMessage
from eventstore.sqlite.statements import execute_rows

__all__ = [
    "Known",
    "Mail",
    "StreamRow",
    "encode_names",
    "load_known",
    "load_mailboxes",
    "load_streams",
    "payload_to_row",
    "stream_json",
    "write_streams",
]


class Mail(Struct):
    """A waiting message and where it is stored: 0 when it came with this batch."""

    arrival: int
    message: WaitingMessage
    consumed: bool = False


class StreamRow(Struct, array_like=True):
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
        return self._head(
            owner=self.owner,
            claims=self.claims,
            mail_max=MAILBOX_PAGE if mail else 0,
            undelivered=undelivered,
        )

    def first_outcome(self) -> StreamHead:
        """The head that the last commit returned, with what messages and claims have changed since put back."""
        undelivered: tuple[Undelivered, ...] = ()
        if self.commit_undelivered is not None:
            undelivered = tuple(Undelivered(*row) for row in _decode_undelivered(self.commit_undelivered))
        return self._head(
            owner=self.commit_owner,
            claims=self.commit_claims or 0,
            mail_max=self.commit_mail or 0,
            undelivered=undelivered,
        )

    def _head(
        self, *, owner: int | None, claims: int, mail_max: int, undelivered: tuple[Undelivered, ...]
    ) -> StreamHead:
        mailbox = self.mailbox
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
            messages=tuple(mail.message for mail in islice(mailbox.values(), mail_max)) if mailbox and mail_max else (),
            undelivered=undelivered,
        )


class Known(Struct, array_like=True):
    """A message that was delivered to a stream once, waiting or consumed."""

    stream: int
    id: str
    arrival: int
    waiting: int
    control: int


_decode_streams: Final = Decoder(list[StreamRow]).decode
_decode_known: Final = Decoder(list[Known]).decode
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
    "commit_undelivered",
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
    connection: sqlite3.Connection, names: Collection[str], tokens: Collection[int]
) -> tuple[dict[str, StreamRow], int, set[int]]:
    """The streams of these names, the highest stream id, and which of these leases have not ended."""
    if len(names) == 1 and len(tokens) <= 1:
        return _load_stream(connection, next(iter(names)), next(iter(tokens), None))
    found, last_id, open_tokens = connection.execute(
        _LOAD_STREAMS, (encode_names(names), encode_names(tokens))
    ).fetchone()
    rows = {row.name: row for row in decode_streams(found)}
    return rows, last_id or 0, set(_decode_tokens(open_tokens))


def _load_stream(
    connection: sqlite3.Connection, name: str, token: int | None
) -> tuple[dict[str, StreamRow], int, set[int]]:
    """The same for one stream: a lone commit is most of what a quiet store does, and JSON has its price."""
    last_id, is_open, *columns = connection.execute(_LOAD_STREAM, (name, token)).fetchone()
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


def encode_names(values: Iterable[Any]) -> str:
    """A JSON array, as a parameter for ``json_each``."""
    return encode(list(values)).decode()


class MailRow(Struct, array_like=True):
    """A waiting message, in the order of its columns."""

    stream: int
    arrival: int
    id: str
    sender: str | None
    control: int
    header: str
    payload: str | None  # in hexadecimal when `binary`
    binary: int
    sent_at: int

    def mail(self) -> Mail:
        """The message as its stream's head shows it."""
        payload = None
        if self.payload is not None:
            payload = bytes.fromhex(self.payload) if self.binary else self.payload.encode()
        return Mail(
            self.arrival,
            WaitingMessage(
                id=self.id,
                sender=self.sender,
                control=bool(self.control),
                header=self.header.encode(),
                payload=payload,
                sent_at=self.sent_at,
            ),
        )


_MAIL_COLUMNS: Final = """
    m.stream, m.arrival, m.id, m.sender, m.control, m.header,
    CASE typeof(m.payload) WHEN 'blob' THEN hex(m.payload) ELSE m.payload END, typeof(m.payload) = 'blob', m.sent_at
"""
_MAIL: Final = """
    FROM json_each(?1) AS j CROSS JOIN messages AS m
    WHERE m.stream = j.value AND m.consumed_at IS NULL AND m.arrival <= coalesce(
        (SELECT n.arrival FROM messages AS n WHERE n.stream = j.value AND n.consumed_at IS NULL
         ORDER BY n.arrival LIMIT 1 OFFSET ?2 - 1), 9223372036854775807)
"""
_MAIL_AT_ONCE: Final = f"SELECT json_group_array(json_array({_MAIL_COLUMNS})) {_MAIL}"
_MAIL_BY_ROWS: Final = f"SELECT json_array({_MAIL_COLUMNS}) {_MAIL}"
_decode_mails: Final = Decoder(list[MailRow]).decode
_decode_mail: Final = Decoder(MailRow).decode


def load_mailboxes(connection: sqlite3.Connection, streams: Sequence[int], most: int) -> dict[int, dict[str, Mail]]:
    """The oldest waiting messages of streams, at most so many of each."""
    parameters = (encode_names(streams), most)
    try:
        mails = _decode_mails(connection.execute(_MAIL_AT_ONCE, parameters).fetchone()[0])
    except sqlite3.DataError:  # together they are longer than any one value may be
        mails = [_decode_mail(row[0]) for row in connection.execute(_MAIL_BY_ROWS, parameters)]
    mails.sort(key=_arrival)
    boxes: dict[int, dict[str, Mail]] = {stream: {} for stream in streams}
    for mail in mails:
        boxes[mail.stream][mail.id] = mail.mail()
    return boxes


def _arrival(mail: MailRow) -> int:
    return mail.arrival


_KNOWN: Final = """
    SELECT json_group_array(json_array(m.stream, m.id, m.arrival, m.consumed_at IS NULL, m.control))
    FROM json_each(?) AS j CROSS JOIN messages AS m
    WHERE m.stream = json_extract(j.value, '$[0]') AND m.id = json_extract(j.value, '$[1]')
"""


def load_known(connection: sqlite3.Connection, wanted: Collection[tuple[int, str]]) -> dict[tuple[int, str], Known]:
    """Those of these (stream id, message id) that were ever delivered."""
    text = connection.execute(_KNOWN, (encode_names(wanted),)).fetchone()[0]
    return {(known.stream, known.id): known for known in _decode_known(text)}


_INSERT: Final = f"INSERT INTO streams ({', '.join(_COLUMNS)})"
_STEPS: Final = (
    "id", "version", "digest", "updated_at", "commit_id", "commit_owner", "commit_claims", "commit_mail",
    "commit_undelivered",
)  # fmt: skip
_CHANGES: Final = (
    *_STEPS, "alarm", "held", "closed", "owner", "claims", "control", "data", "mail_at", "attributes"
)  # fmt: skip


class _Update:
    """UPDATE of some columns of many streams; of one, which is the usual case, in its plain form."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        sets = ", ".join(f"{name} = v.column{index}" for index, name in enumerate(columns[1:], start=2))
        self._columns: Final = len(columns)
        self._head: Final = f"UPDATE streams SET {sets} FROM ("
        self._one: Final = f"UPDATE streams SET {', '.join(f'{name} = ?' for name in columns[1:])} WHERE id = ?"

    def execute(self, connection: sqlite3.Connection, parameters: list[Any]) -> None:
        if len(parameters) == self._columns:
            connection.execute(self._one, (*parameters[1:], parameters[0]))
        else:
            execute_rows(connection, self._head, self._columns, parameters, ") AS v WHERE streams.id = v.column1")


_STEP: Final = _Update(_STEPS)
_CHANGE: Final = _Update(_CHANGES)


def write_streams(connection: sqlite3.Connection, rows: Iterable[StreamRow]) -> None:
    """Write what a batch changed of its streams, in at most three kinds of statements."""
    inserts: list[Any] = []
    steps: list[Any] = []
    changes: list[Any] = []
    for row in rows:
        if row.is_new:
            inserts += (
                row.id, row.name, row.version, row.digest, row.created_at, row.updated_at, row.alarm, row.held,
                row.closed, row.owner, row.claims, row.control, row.data, row.mail_at, _attributes_text(row),
                row.commit_id, row.commit_owner, row.commit_claims, row.commit_mail, row.commit_undelivered,
            )  # fmt: skip
        elif row.changed:
            changes += (
                row.id, row.version, row.digest, row.updated_at, row.commit_id, row.commit_owner, row.commit_claims,
                row.commit_mail, row.commit_undelivered, row.alarm, row.held, row.closed, row.owner, row.claims,
                row.control, row.data, row.mail_at, _attributes_text(row),
            )  # fmt: skip
        elif row.stepped:
            steps += (
                row.id, row.version, row.digest, row.updated_at, row.commit_id, row.commit_owner, row.commit_claims,
                row.commit_mail, row.commit_undelivered,
            )  # fmt: skip
    if inserts:
        execute_rows(connection, _INSERT, len(_COLUMNS), inserts)
    if steps:
        _STEP.execute(connection, steps)
    if changes:
        _CHANGE.execute(connection, changes)


def payload_to_row(payload: bytes | None) -> str | bytes | None:
    """TEXT when it is UTF-8 without NUL, so that a shell can read it; else a BLOB."""
    if payload is None or b"\x00" in payload:
        return payload
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload


def _attributes_text(row: StreamRow) -> str:
    return encode(row.attributes).decode()
