"""What is stored of messages: the beginning of a mailbox, and which of some messages were ever delivered.

A mailbox may hold far more than a head shows, so it is loaded from its beginning and no further than a head needs; the
control messages beyond that are loaded from an index of their own. Rows come out of SQLite as one JSON text, as streams
do (`rows`).
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from msgspec import Struct
from msgspec.json import Decoder

from eventstore.port import CONTROL_BYTES, CONTROL_PAGE, MAILBOX_BYTES, MAILBOX_PAGE, WaitingMessage
from eventstore.sqlite.statements import encode_names

__all__ = ["Known", "Mail", "load_known", "load_mailboxes", "payload_to_row"]


class Mail(Struct):
    """A waiting message and where it is stored: 0 when it came with this batch."""

    arrival: int
    message: WaitingMessage
    consumed: bool = False


class Known(Struct, array_like=True):
    """A message that was delivered to a stream once, waiting or consumed."""

    stream: int
    id: str
    arrival: int
    waiting: int
    control: int


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
_SIZE: Final = "length(CAST(n.header AS BLOB)) + coalesce(length(CAST(n.payload AS BLOB)), 0)"
_PLAIN: Final = ("", "")
_CONTROL: Final = (" INDEXED BY messages_control", " AND {0}.control = 1")
"""Which messages are walked: all, or the control messages alone, which have an index of their own."""


def _walk(index: str, condition: str) -> str:
    """SQL for the beginning of each mailbox.

    It is walked message by message, because it must not be read much further than the page that a head shows, and how
    far that is only the sizes on the way can tell.
    """
    return f"""
    FROM json_each(?1) AS j CROSS JOIN messages AS m{index}
    WHERE m.stream = j.value AND m.consumed_at IS NULL{condition.format("m")} AND m.arrival <= (
        WITH RECURSIVE walked(arrival, count, bytes) AS (
            SELECT 0, 0, 0
            UNION ALL
            SELECT n.arrival,
                   walked.count + (n.id NOT IN (SELECT value FROM json_each(?2))),
                   walked.bytes + CASE WHEN n.id IN (SELECT value FROM json_each(?2)) THEN 0 ELSE {_SIZE} END
            FROM walked CROSS JOIN messages AS n ON n.arrival = (
                SELECT min(o.arrival) FROM messages AS o{index}
                WHERE o.stream = j.value AND o.consumed_at IS NULL{condition.format("o")}
                      AND o.arrival > walked.arrival)
            WHERE walked.count < ?3 AND walked.bytes < ?4)
        SELECT max(arrival) FROM walked)
    """


def _at_once_and_by_rows(index: str, condition: str) -> tuple[str, str]:
    walk, row = _walk(index, condition), f"json_array({_MAIL_COLUMNS})"
    return f"SELECT json_group_array({row}) {walk}", f"SELECT {row} {walk}"


_MAIL: Final = _at_once_and_by_rows(*_PLAIN)
_CONTROL_MAIL: Final = _at_once_and_by_rows(*_CONTROL)
_decode_known: Final = Decoder(list[Known]).decode
_decode_mails: Final = Decoder(list[MailRow]).decode
_decode_mail: Final = Decoder(MailRow).decode


def load_mailboxes(
    connection: sqlite3.Connection, controls: Mapping[int, int], consumed: Collection[str] = ()
) -> dict[int, dict[str, Mail]]:
    """The waiting messages of streams, as far as a head shows them, whichever of the messages with the ids `consumed`
    are consumed before it is shown; and not many more. `controls` are how many control messages wait in each stream.
    """
    ids = encode_names(consumed)
    mails = _read(connection, _MAIL, (encode_names(controls), ids, MAILBOX_PAGE, MAILBOX_BYTES))
    met = Counter(mail.stream for mail in mails if mail.control)
    beyond = [stream for stream, waiting in controls.items() if met[stream] < waiting]
    if beyond:
        more = _read(connection, _CONTROL_MAIL, (encode_names(beyond), ids, CONTROL_PAGE, CONTROL_BYTES))
        mails = list({mail.arrival: mail for mail in (*mails, *more)}.values())
    mails.sort(key=_arrival)
    boxes: dict[int, dict[str, Mail]] = {stream: {} for stream in controls}
    for mail in mails:
        boxes[mail.stream][mail.id] = mail.mail()
    return boxes


def _read(
    connection: sqlite3.Connection, statements: tuple[str, str], parameters: tuple[str, str, int, int]
) -> list[MailRow]:
    at_once, by_rows = statements
    try:
        return _decode_mails(connection.execute(at_once, parameters).fetchone()[0])
    except sqlite3.DataError:  # together they are longer than any one value may be
        return [_decode_mail(row[0]) for row in connection.execute(by_rows, parameters)]


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


def payload_to_row(payload: bytes | None) -> str | bytes | None:
    """TEXT when it is UTF-8 without NUL, so that a shell can read it; else a BLOB."""
    if payload is None or 0 in payload:
        return payload
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload
