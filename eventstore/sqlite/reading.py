"""Reading: heads, histories, the whole log, and pages of streams.

A read transaction lasts for one page and no longer, because a log that is read cannot be cut back: a history is read by
asking again behind the last version, with a fixed end, which is exact because events are only ever appended. Nothing is
held between two pages, so a reader that is left behind costs nothing. That holds of a page that cannot be read, too: a
cursor that is left open would keep its connection in the past. What a row holds that no store has written is
`StoreDamaged`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from functools import partial
from typing import Final

from eventstore.errors import StoreDamaged, StreamNotFound
from eventstore.port import NO_DIGEST, Page, RecordedEvent, StreamHead, StreamQuery
from eventstore.sqlite.finding import find_page
from eventstore.sqlite.mailboxes import load_mailboxes
from eventstore.sqlite.pool import ReadPool
from eventstore.sqlite.rows import StreamRow, load_streams

__all__ = ["PAGE_BYTES", "PAGE_EVENTS", "WINDOW_POSITIONS", "Readers", "end_of_log"]

PAGE_EVENTS: Final = 1_000
"""Events read in one transaction."""
PAGE_BYTES: Final = 4 << 20
"""Bytes of headers and payloads read in one transaction, but that a single event may have more."""
WINDOW_POSITIONS: Final = 50_000
"""Positions of the whole log looked at in one transaction while searching for a category."""

_EVENTS: Final = """
    SELECT version, position, header, payload, salt, payload_digest, digest
    FROM events WHERE stream = ? AND version > ? AND version <= ? ORDER BY version LIMIT ?
"""
_EVENTS_WITHOUT_PROOF: Final = """
    SELECT version, position, header, payload
    FROM events WHERE stream = ? AND version > ? AND version <= ? ORDER BY version LIMIT ?
"""
_LOG: Final = """
    SELECT s.name, e.version, e.position, e.header, e.payload, e.salt, e.payload_digest, e.digest
    FROM events AS e LEFT JOIN streams AS s ON s.id = e.stream
    WHERE e.position > ?1 AND e.position <= ?2 AND (?3 IS NULL OR s.category = ?3) ORDER BY e.position LIMIT ?4
"""


class Readers(ReadPool):
    """What is read of a store, on the connections of a pool."""

    async def head(self, stream: str) -> StreamHead:
        """Raises `StreamNotFound`."""
        row = await self.run(lambda connection: _load_head(connection, stream))
        if row is None:
            raise StreamNotFound(stream)
        return row.head()

    async def pages(
        self, stream: str, after: int, until: int | None, *, proof: bool
    ) -> AsyncIterator[list[RecordedEvent]]:
        """A stream's events, page by page. Raises `StreamNotFound`."""
        read = _read_page if proof else _read_brief_page
        found = await self.run(partial(_first_page, read, stream=stream, after=after, until=until))
        if found is None:
            raise StreamNotFound(stream)
        stream_id, end, page = found
        while page:
            yield page
            after = page[-1].version
            if after >= end:
                return
            page = await self.run(partial(read, stream=stream, stream_id=stream_id, after=after, end=end))
        if after < end and not await self.run(partial(_is_kept, stream_id=stream_id, version=end)):
            raise StoreDamaged(f"{self.path}: stream {stream!r} lacks events behind version {after} of {end}")

    async def log_pages(self, after: int, category: str | None) -> AsyncIterator[list[RecordedEvent]]:
        """Events of the whole log, or of one category, page by page, up to the end that it has now."""
        end = await self.run(end_of_log)
        while after < end:
            stop = min(end, after + WINDOW_POSITIONS)
            page, whole = await self.run(partial(_log_page, after=after, until=stop, category=category))
            yield page
            after = stop if whole else page[-1].position

    async def find(self, query: StreamQuery) -> Page[StreamHead]:
        """A page of the streams that fit."""
        return await self.run(lambda connection: find_page(connection, query))


def end_of_log(connection: sqlite3.Connection) -> int:
    """The last position, 0 for none."""
    end: int = connection.execute("SELECT coalesce(max(position), 0) FROM events").fetchone()[0]
    return end


def _load_head(connection: sqlite3.Connection, stream: str) -> StreamRow | None:
    row = load_streams(connection, (stream,), ())[0].get(stream)
    if row is None or not row.control + row.data:
        return row
    connection.execute("BEGIN")  # again, the stream and its mailbox as of one moment
    try:
        row = load_streams(connection, (stream,), ())[0][stream]
        row.mailbox = load_mailboxes(connection, {row.id: row.control})[row.id]
        return row
    finally:
        connection.execute("COMMIT")


def _first_page(
    read: Callable[..., list[RecordedEvent]],
    connection: sqlite3.Connection,
    *,
    stream: str,
    after: int,
    until: int | None,
) -> tuple[int, int, list[RecordedEvent]] | None:
    """The stream's id, where the reading ends, and the first page, in one visit to the thread."""
    found = connection.execute("SELECT id, version FROM streams WHERE name = ?", (stream,)).fetchone()
    if found is None:
        return None
    stream_id, version = found
    end = version if until is None else min(until, version)
    page = read(connection, stream=stream, stream_id=stream_id, after=after, end=end) if after < end else []
    return stream_id, end, page


def _is_kept(connection: sqlite3.Connection, *, stream_id: int, version: int) -> bool:
    """Whether the event was pruned, and is not missing."""
    kept = "SELECT 1 FROM kept_digests WHERE stream = ? AND version = ?"
    return connection.execute(kept, (stream_id, version)).fetchone() is not None


def _read_page(
    connection: sqlite3.Connection, *, stream: str, stream_id: int, after: int, end: int
) -> list[RecordedEvent]:
    page: list[RecordedEvent] = []
    size = 0
    with closing(connection.execute(_EVENTS, (stream_id, after, end, PAGE_EVENTS))) as cursor:
        for version, position, header, payload, salt, hashed, digest in cursor:
            of_payload = NO_DIGEST if hashed is None else hashed  # a payload that never was has none in the table
            page.append(RecordedEvent(stream, version, position, header, payload, salt, of_payload, digest))
            size += len(header) + len(payload or b"")
            if size >= PAGE_BYTES:
                break
    return page


def _read_brief_page(
    connection: sqlite3.Connection, *, stream: str, stream_id: int, after: int, end: int
) -> list[RecordedEvent]:
    """The same without salts and digests, which are a quarter of what reading short events takes.

    A loop of its own: one for both, with NULLs for what is left out, loses most of that again.
    """
    page: list[RecordedEvent] = []
    size = 0
    with closing(connection.execute(_EVENTS_WITHOUT_PROOF, (stream_id, after, end, PAGE_EVENTS))) as cursor:
        for version, position, header, payload in cursor:
            page.append(RecordedEvent(stream, version, position, header, payload, None, NO_DIGEST, NO_DIGEST))
            size += len(header) + len(payload or b"")
            if size >= PAGE_BYTES:
                break
    return page


def _log_page(
    connection: sqlite3.Connection, *, after: int, until: int, category: str | None
) -> tuple[list[RecordedEvent], bool]:
    """Events in a window of positions, and whether that was all of it."""
    page: list[RecordedEvent] = []
    size = 0
    with closing(connection.execute(_LOG, (after, until, category, PAGE_EVENTS))) as cursor:
        for name, version, position, header, payload, salt, hashed, digest in cursor:
            of_payload = NO_DIGEST if hashed is None else hashed
            if name is None:
                raise StoreDamaged(f"the event at position {position} belongs to no stream: its stream was removed")
            page.append(RecordedEvent(name.decode(), version, position, header, payload, salt, of_payload, digest))
            size += len(header) + len(payload or b"")
            if size >= PAGE_BYTES:
                break
    return page, size < PAGE_BYTES and len(page) < PAGE_EVENTS
