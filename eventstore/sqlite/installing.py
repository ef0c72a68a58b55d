"""Taking in streams, in the transaction that a `Transactor` has open: checked, and written as they come, by the chunk.

What is wrong is found before the transaction ends, and then nothing of it was ever there. Memory is in proportion to
the streams that arrive, never to their events: what is not needed any more is written.

What follows from the streams being here (places in queues, who is told) is done by an ordinary `Batch` behind it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from eventstore.arrivals import Arrivals
from eventstore.digest import NO_DIGEST
from eventstore.errors import NotInstallable
from eventstore.joining import Joining
from eventstore.keeping import KeptDigest
from eventstore.moving import (
    ConsumedMessages,
    Item,
    StoredMessage,
    StoredPermit,
    StoredPool,
    StoredStream,
    StoredWaiter,
    relation,
)
from eventstore.port import RecordedEvent, Timestamp
from eventstore.sqlite.apply import Batch
from eventstore.sqlite.attributes import AttributeChanges
from eventstore.sqlite.mailboxes import payload_to_row
from eventstore.sqlite.requests import CommitRequest
from eventstore.sqlite.rows import StreamRow, load_streams, write_streams
from eventstore.sqlite.writing import (
    KEPT_COLUMNS,
    PLACED_COLUMNS,
    insert_attributes,
    insert_kept,
    insert_messages,
    insert_placed,
)

__all__ = ["Installing", "follow"]

_CHUNK_ROWS: Final = 512
_CHUNK_BYTES: Final = 4 << 20

_WAITING: Final = "FROM messages AS m WHERE m.stream = streams.id AND m.consumed_at IS NULL"
_COUNTS: Final = f"""
    UPDATE streams SET
        control = (SELECT count(*) {_WAITING} AND m.control = 1),
        data = (SELECT count(*) {_WAITING} AND m.control = 0),
        mail_at = (SELECT m.sent_at {_WAITING} ORDER BY m.arrival LIMIT 1)
    WHERE id >= ? AND EXISTS (SELECT 1 {_WAITING})
"""
_NEXT_ID: Final = "SELECT coalesce(max(id), 0) + 1 FROM streams"
_LAST_POSITION: Final = """
    SELECT max(coalesce((SELECT max(position) FROM events), 0),
               coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0))
"""
_PREFIX: Final = """
    SELECT digest FROM events WHERE stream = ?1 AND version = ?2
    UNION ALL SELECT digest FROM kept_digests WHERE stream = ?1 AND version = ?2
"""


class Installing:
    """One installation, up to the moment at which all streams are there with what is their own."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: Final = connection
        self._rows: list[StreamRow] = []  # to be written
        self._attributes = AttributeChanges()
        self._messages: list[Any] = []
        self._events: list[Any] = []
        self._kept: list[Any] = []
        self._position: int = connection.execute(_LAST_POSITION).fetchone()[0]
        self._bytes = 0
        self._first_id: Final[int] = connection.execute(_NEXT_ID).fetchone()[0]
        self._next_id: int = self._first_id
        self.new: Final[dict[str, tuple[int, Timestamp]]] = {}  # id, and when it was updated
        self.same = 0
        self.events = 0
        self.alarm: Timestamp | None = None
        self.pools: Final[list[StoredPool]] = []
        self.parts: Final[list[StoredPermit | StoredWaiter]] = []  # of new streams

    @property
    def last_id(self) -> int:
        """The highest id of a stream."""
        return self._next_id - 1

    def take_all(self, items: Iterable[Item]) -> None:
        """Everything. Raises `NotInstallable`, `StreamDiffers`, and what `items` raises; then all is to be undone."""
        arrivals = Arrivals()
        for item in items:
            arrivals.take(item)
            self._take(item)
        arrivals.finish()
        self._write()
        self._connection.execute(_COUNTS, (self._first_id,))

    def _take(self, item: Item) -> None:
        if isinstance(item, StoredStream):
            self._stream(item)
        elif isinstance(item, StoredPool):
            self.pools.append(item)
        elif (new := self.new.get(item.stream)) is not None:
            self._of_new(item, *new)
        leaves = len(self._events) // PLACED_COLUMNS + len(self._kept) // KEPT_COLUMNS
        if max(len(self._rows), leaves) >= _CHUNK_ROWS or self._bytes >= _CHUNK_BYTES:
            self._write()

    def _stream(self, item: StoredStream) -> None:
        here = load_streams(self._connection, (item.stream,), ())[0].get(item.stream)
        if here is not None:
            relation(
                item, here.version, here.digest, prefix=self._digest_at(here, item.version), pruned=bool(here.pruned)
            )
            self.same += 1
            return
        row = StreamRow(
            self._next_id, item.stream, item.version, "", item.created_at, item.updated_at, item.alarm, int(item.held),
            int(item.closed), None, 0, 0, 0, None, {}, None, None, None, None, None, 0, int(item.pruned),
            digest=item.digest, is_new=True,
        )  # fmt: skip
        self._next_id += 1
        self._attributes.merge(row, item.attributes)
        self._rows.append(row)
        self.new[item.stream] = row.id, item.updated_at
        if item.alarm is not None and not (item.held or item.closed):
            self.alarm = item.alarm if self.alarm is None else min(self.alarm, item.alarm)

    def _digest_at(self, here: StreamRow, version: int) -> bytes | None:
        if version >= here.version:
            return None
        found = self._connection.execute(_PREFIX, (here.id, version)).fetchone()
        return None if found is None else found[0]

    def _of_new(
        self,
        item: StoredMessage | ConsumedMessages | StoredPermit | StoredWaiter | KeptDigest | RecordedEvent,
        id_: int,
        updated_at: Timestamp,
    ) -> None:
        match item:
            case RecordedEvent():
                self._event(item, id_)
            case KeptDigest():
                self._position += 1
                was = None if item.pruned_at == self._position else item.pruned_at
                self._kept += (self._position, id_, item.version, bytearray(item.digest), was)
            case StoredMessage():
                self._messages += (
                    id_, item.id, item.sender, int(item.control), item.header.decode(), payload_to_row(item.payload),
                    item.sent_at, None,
                )  # fmt: skip
                self._count(item.header, item.payload)
            case ConsumedMessages():
                for message_id in item.ids:  # when each was sent and consumed has not come along
                    self._messages += (id_, message_id, None, 0, None, None, updated_at, updated_at)
                    self._count(message_id.encode(), None)
            case StoredPermit() | StoredWaiter():
                self.parts.append(item)

    def _event(self, event: RecordedEvent, id_: int) -> None:
        of_payload = 0 if event.payload_digest == NO_DIGEST else bytearray(event.payload_digest)
        payload = payload_to_row(event.payload)
        self._position += 1
        self._events += (
            self._position, id_, event.version, event.header.decode(), 0 if payload is None else payload,
            0 if event.salt is None else bytearray(event.salt), of_payload, bytearray(event.digest),
        )  # fmt: skip
        self._count(event.header, event.payload)
        self.events += 1

    def _count(self, header: bytes, payload: bytes | None) -> None:
        self._bytes += len(header) + len(payload or b"")

    def _write(self) -> None:
        connection = self._connection
        write_streams(connection, self._rows)
        insert_attributes(connection, self._attributes)
        try:
            insert_messages(connection, self._messages)
        except sqlite3.IntegrityError as error:
            raise NotInstallable(None, reason="a message comes twice in one stream") from error
        insert_placed(connection, self._events)
        insert_kept(connection, self._kept)
        self._rows, self._messages, self._events, self._kept, self._bytes = [], [], [], [], 0
        self._attributes = AttributeChanges()


def follow(batch: Batch, arrived: Installing, behind: Sequence[CommitRequest]) -> None:
    """What follows from it: places in pools, those who are told, and the commit that goes with it.

    Raises `LimitReached`, and what `Commit` lists.
    """
    joining = Joining(batch.pools, now=batch.now, new=arrived.new, open_pool=batch.open_pool)
    joining.join(arrived.pools, arrived.parts)
    for part in arrived.parts:
        batch.takes_part(part.stream)
    for message in joining.messages():
        batch.deliver(message)
    for request in behind:
        batch.commit(request)
