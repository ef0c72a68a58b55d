"""Reading: heads, histories, the whole log, and pages of streams, over a few read-only connections.

A read transaction lasts for one page and no longer, because a log that is read cannot be cut back: a history is read by
asking again behind the last version, with a fixed end, which is exact because events are only ever appended. Nothing is
held between two pages, so a reader that is left behind costs nothing. That holds of a page that cannot be read, too: a
cursor that is left open would keep its connection in the past. What a row holds that no store has written is
`StoreDamaged`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import Final, TypeVar

from eventstore.errors import EventStoreError, StoreClosed, StoreDamaged, StoreUnavailable, StreamNotFound
from eventstore.port import NO_DIGEST, Page, RecordedEvent, StreamHead, StreamQuery
from eventstore.sqlite.failures import poisons, unavailable
from eventstore.sqlite.finding import find_page
from eventstore.sqlite.mailboxes import load_mailboxes
from eventstore.sqlite.opening import open_reader
from eventstore.sqlite.rows import StreamRow, load_streams
from eventstore.sqlite.threads import Connection, close_now, on_thread, open_connection

__all__ = ["PAGE_BYTES", "PAGE_EVENTS", "READERS_MAX", "WINDOW_POSITIONS", "Readers", "end_of_log"]

T = TypeVar("T")

READERS_MAX: Final = 3
"""Read-only connections of one store, opened when they are needed."""
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


class Readers:
    """A pool of read-only connections, each with its thread."""

    def __init__(self, path: str, *, on_failure: Callable[[StoreUnavailable], None]) -> None:
        self._path: Final = path
        self._on_failure: Final = on_failure  # told of what poisons the store
        self._free: list[Connection] = []
        self._all: set[Connection] = set()
        self._slots = asyncio.Semaphore(READERS_MAX)
        self._closed = False

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function with a connection on its thread. Raises `StoreUnavailable`, `StoreClosed`."""
        async with self._slots:
            self._check_open()
            connection = self._free.pop() if self._free else await self._open()
            try:
                return await on_thread(connection, lambda: self._guarded(work, connection._conn))
            finally:
                self._free.append(connection)  # a function that outlives its cancelled caller only delays the next

    @asynccontextmanager
    async def reserved(self) -> AsyncIterator[Connection]:
        """A connection for one reader, to whom `on` gives it as often as it likes, in a transaction of its own."""
        async with self._slots:
            self._check_open()
            connection = self._free.pop() if self._free else await self._open()
            try:
                yield connection
            finally:
                self._free.append(connection)

    async def on(self, connection: Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function with a connection that is reserved, on its thread. Raises as `run` does."""
        self._check_open()
        return await on_thread(connection, lambda: self._guarded(work, connection._conn))

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
            raise StoreDamaged(f"{self._path}: stream {stream!r} lacks events behind version {after} of {end}")

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

    async def aclose(self) -> None:
        """Close every connection and its thread, behind what they are reading."""
        self._closed = True
        while self._all:
            connection = next(iter(self._all))
            await connection.close()
            self._all.discard(connection)

    def close_now(self) -> None:
        """The same without the loop: blocks until every thread has ended."""
        self._closed = True
        while self._all:
            close_now(self._all.pop(), _nothing)

    async def _open(self) -> Connection:
        connection = await open_connection(lambda: open_reader(self._path), _nothing)
        if self._closed:
            await connection.close()
            self._check_open()
        self._all.add(connection)
        return connection

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed(f"the store at {self._path} was closed")

    def _guarded(self, work: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
        try:
            return work(connection)
        except sqlite3.Error as error:
            failure = unavailable(error, self._path)
            if poisons(error):
                self._on_failure(failure)
            raise failure from error
        except EventStoreError:
            raise
        except (TypeError, ValueError, RecursionError) as error:  # what a row holds is not what we write
            raise StoreDamaged(
                f"{self._path} holds a row that no store has written ({error}): look for it with holdfast verify"
            ) from error


def _nothing() -> None:
    """What a reader does before it is closed."""


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
