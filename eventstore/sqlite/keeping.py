"""What of a history need not stay, on SQLite: see `eventstore.keeping`.

Each transaction of it runs between two batches of commits, on the writer's thread and under the guard, and is bounded
in rows and in bytes, so that commits wait for one of them at most. What is taken away is overwritten
(`secure_delete`), so that it does not lie in free pages; the write-ahead log has it until that is copied and cut, at
the latest when the last process closes the file. Freed pages are used again; the file does not shrink.

It deliberately does not know who asked, or what the last event of a stream says.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Collection
from contextlib import closing
from functools import partial
from typing import Final

from msgspec import Struct

from eventstore.errors import LeaseLost, StoreDamaged, StreamNotFound
from eventstore.keeping import KEEP_EVENTS_MAX, KeptDigest, Leaf, check_prunable, check_versions
from eventstore.port import NO_DIGEST, RecordedEvent
from eventstore.sqlite.leases import Judge
from eventstore.sqlite.reading import PAGE_BYTES, PAGE_EVENTS, WINDOW_POSITIONS, Readers
from eventstore.sqlite.statements import encode_names
from eventstore.sqlite.writer import Writer
from eventstore.validation import validate_range, validate_stream

__all__ = ["KEEP_BYTES_MAX", "SqliteKeeping", "leaf_pages", "stream_leaves"]

KEEP_BYTES_MAX: Final = 8 << 20
"""Bytes of headers and payloads that are taken away in one transaction, but that a single event may have more."""

_STREAM: Final = """
    SELECT s.id, s.version, s.closed, s.pruned, s.owner, l.ended_at IS NOT NULL
    FROM streams AS s LEFT JOIN leases AS l ON l.token = s.owner WHERE s.name = ?
"""
_SIZE: Final = "length(CAST(header AS BLOB)) + ifnull(length(CAST(payload AS BLOB)), 0)"
_TO_PRUNE: Final = f"SELECT version, {_SIZE} FROM events WHERE stream = ? AND version <= ? ORDER BY version LIMIT ?"
_TO_FORGET: Final = f"""
    SELECT version, {_SIZE} FROM events
    WHERE stream = ? AND version > ? AND version <= ? AND (payload IS NOT NULL OR salt IS NOT NULL) AND {{which}}
    ORDER BY version LIMIT ?
"""
_FORGET: Final = """
    UPDATE events SET payload = NULL, salt = NULL WHERE stream = ? AND version IN (SELECT value FROM json_each(?))
"""
_KEEP: Final = """
    INSERT INTO kept_digests (position, stream, version, digest)
    SELECT position, stream, version, digest FROM events WHERE stream = ? AND version <= ?
"""
_DROP_TOMBSTONES: Final = """
    DELETE FROM messages WHERE arrival IN
    (SELECT arrival FROM messages WHERE stream = ? AND consumed_at IS NOT NULL LIMIT ?)
"""
_EMPTY_MAILBOX: Final = """
    UPDATE messages SET consumed_at = ?, header = NULL, payload = NULL, sender = NULL
    WHERE stream = ? AND consumed_at IS NULL
"""
_FORGET_MAIL: Final = """
    UPDATE streams SET control = 0, data = 0, mail_at = NULL, commit_id = NULL WHERE id = ?
"""
_LEAVES: Final = """
    SELECT s.name, x.version, x.position, x.header, x.payload, x.salt, x.payload_digest, x.digest, x.was FROM (
        SELECT stream, version, position, header, payload, salt, payload_digest, digest, NULL AS was
        FROM events WHERE position > ?1 AND position <= ?2
        UNION ALL
        SELECT stream, version, position, NULL, NULL, NULL, NULL, digest, was
        FROM kept_digests WHERE position > ?1 AND position <= ?2
        ORDER BY position LIMIT ?3) AS x
    LEFT JOIN streams AS s ON s.id = x.stream ORDER BY x.position
"""
_ENDS: Final = """
    SELECT min(0, ifnull((SELECT min(position) FROM events), 1) - 1,
               ifnull((SELECT min(position) FROM kept_digests), 1) - 1),
           max(ifnull((SELECT max(position) FROM events), 0), ifnull((SELECT max(position) FROM kept_digests), 0))
"""
_KEPT: Final = """
    SELECT version, position, digest, was FROM kept_digests WHERE stream = ? AND version > ? ORDER BY version LIMIT ?
"""
_OF_STREAM: Final = """
    SELECT s.name, x.* FROM (
        SELECT version, position, header, payload, salt, payload_digest, digest, NULL
        FROM events WHERE stream = ?1 AND version > ?2 AND version <= ?3
        UNION ALL
        SELECT version, position, NULL, NULL, NULL, NULL, digest, was
        FROM kept_digests WHERE stream = ?1 AND version > ?2 AND version <= ?3
        ORDER BY version LIMIT ?4) AS x
    JOIN streams AS s ON s.id = ?1 ORDER BY x.version
"""


class _Row(Struct, frozen=True):
    """What is asked of a stream."""

    id: int
    version: int
    closed: bool
    pruned: bool
    owner: int | None
    owner_ended: bool


class SqliteKeeping:
    """The part of a `SqliteStore` that keeps the capability."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    def _open_writer(self) -> Writer:
        raise NotImplementedError

    def _check_open(self) -> None:
        raise NotImplementedError

    def _alive(self, token: int) -> bool:
        raise NotImplementedError

    async def forget(self, stream: str, *, versions: Collection[int] | None = None) -> int:
        validate_stream(stream)
        check_versions(versions)
        some = None if versions is None else encode_names(versions)
        count, after = 0, 0
        while after >= 0:
            work = partial(_forget_some, stream=stream, versions=some, after=after)
            done, after = await self._open_writer().keep(work)
            count += done
        return count

    async def prune(self, stream: str, *, until: int) -> int:
        count, more = 0, True
        validate_stream(stream)
        while more:
            work = partial(_prune_some, stream=stream, until=until, judge=self._alive)
            done, more = await self._open_writer().keep(work)
            count += done
        return count

    async def leaves(self, *, after: int = 0) -> AsyncIterator[Leaf]:
        self._check_open()
        validate_range(after)
        begin, end = await self._readers.run(lambda connection: connection.execute(_ENDS).fetchone())
        after = after or begin  # what stands before the log, no store has written: whoever verifies must see it
        async for page in leaf_pages(self._readers, after, end):
            for leaf in page:
                self._check_open()
                yield leaf

    async def kept(self, stream: str, *, after: int = 0) -> AsyncIterator[KeptDigest]:
        self._check_open()
        validate_stream(stream)
        validate_range(after)
        while page := await self._readers.run(partial(_kept_page, stream=stream, after=after)):
            for leaf in page:
                self._check_open()
                yield leaf
            after = page[-1].version


async def leaf_pages(readers: Readers, after: int, end: int) -> AsyncIterator[list[Leaf]]:
    """Leaves behind one position of the log and up to another, by the page."""
    while after < end:
        until = min(end, after + WINDOW_POSITIONS)
        page, whole = await readers.run(partial(_leaves_page, after=after, until=until))
        yield page
        after = until if whole else page[-1].position


async def stream_leaves(readers: Readers, stream: str, version: int) -> AsyncIterator[list[Leaf]]:
    """Leaves of a stream up to a version, by the page; each page is of one moment."""
    after, page = 0, await readers.run(partial(_stream_page, stream=stream, after=0, end=version))
    while page:
        yield page
        after = page[-1].version
        page = await readers.run(partial(_stream_page, stream=stream, after=after, end=version))


def _row(connection: sqlite3.Connection, stream: str) -> _Row:
    found = connection.execute(_STREAM, (stream,)).fetchone()
    if found is None:
        raise StreamNotFound(stream)
    id_, version, closed, pruned, owner, ended = found
    return _Row(id_, version, bool(closed), bool(pruned), owner, bool(ended))


def _some(found: list[tuple[int, int]]) -> list[int]:
    """The first of these versions, by size: at least one, and as many as a transaction may take."""
    taken: list[int] = []
    size = 0
    for version, bytes_ in found:
        size += bytes_
        if taken and size > KEEP_BYTES_MAX:
            break
        taken.append(version)
    return taken


def _forget_some(
    connection: sqlite3.Connection, now: int, *, stream: str, versions: str | None, after: int
) -> tuple[int, int]:
    """How many lost their payload, and the version from which to go on; -1: nowhere."""
    row = _row(connection, stream)
    which = "1" if versions is None else "version IN (SELECT value FROM json_each(?))"
    named = () if versions is None else (versions,)
    parameters = (row.id, after, row.version, *named, KEEP_EVENTS_MAX)
    found = connection.execute(_TO_FORGET.format(which=which), parameters).fetchall()
    taken = _some(found)
    if taken:
        connection.execute(_FORGET, (row.id, encode_names(taken)))
    if len(taken) < len(found) or len(found) == KEEP_EVENTS_MAX:
        return len(taken), taken[-1]
    if versions is None and row.closed:
        connection.execute(_EMPTY_MAILBOX, (now, row.id))
        connection.execute(_FORGET_MAIL, (row.id,))
    return len(taken), -1


def _prune_some(
    connection: sqlite3.Connection, _now: int, *, stream: str, until: int, judge: Judge
) -> tuple[int, bool]:
    """How many events were taken away, and whether there is more to do."""
    row = _row(connection, stream)
    check_prunable(stream, closed=row.closed, version=row.version, until=until)
    if row.owner is not None and not row.owner_ended and judge(row.owner):
        raise LeaseLost(stream, token=None, reason=f"token {row.owner} owns it and is alive")
    if row.pruned:
        return 0, False
    found = connection.execute(_TO_PRUNE, (row.id, until, KEEP_EVENTS_MAX)).fetchall()
    taken = _some(found)
    if taken:
        connection.execute(_KEEP, (row.id, taken[-1]))
        connection.execute("DELETE FROM events WHERE stream = ? AND version <= ?", (row.id, taken[-1]))
    if len(taken) < len(found) or len(found) == KEEP_EVENTS_MAX:
        return len(taken), True
    if connection.execute(_DROP_TOMBSTONES, (row.id, KEEP_EVENTS_MAX)).rowcount == KEEP_EVENTS_MAX:
        return len(taken), True
    connection.execute(_FORGET_MAIL, (row.id,))
    connection.execute("DELETE FROM messages WHERE stream = ?", (row.id,))
    connection.execute("UPDATE streams SET pruned = 1, owner = NULL, alarm = NULL WHERE id = ?", (row.id,))
    return len(taken), False


def _leaves_page(connection: sqlite3.Connection, *, after: int, until: int) -> tuple[list[Leaf], bool]:
    """Leaves in a window of positions, as of one moment, and whether that was all of it."""
    page, size = _page(connection, _LEAVES, (after, until, PAGE_EVENTS))
    return page, size < PAGE_BYTES and len(page) < PAGE_EVENTS


def _stream_page(connection: sqlite3.Connection, *, stream: str, after: int, end: int) -> list[Leaf]:
    """Leaves of a stream, as of one moment."""
    found = connection.execute("SELECT id FROM streams WHERE name = ?", (stream,)).fetchone()
    return [] if found is None else _page(connection, _OF_STREAM, (found[0], after, end, PAGE_EVENTS))[0]


def _page(connection: sqlite3.Connection, sql: str, parameters: tuple[int, ...]) -> tuple[list[Leaf], int]:
    page: list[Leaf] = []
    size = 0
    with closing(connection.execute(sql, parameters)) as cursor:
        for name, version, position, header, payload, salt, hashed, digest, was in cursor:
            if name is None:
                raise StoreDamaged(f"the event at position {position} belongs to no stream: its stream was removed")
            if header is None:
                page.append(KeptDigest(name.decode(), version, position, digest, was))
                continue
            of_payload = NO_DIGEST if hashed is None else hashed
            page.append(RecordedEvent(name.decode(), version, position, header, payload, salt, of_payload, digest))
            size += len(header) + len(payload or b"")
            if size >= PAGE_BYTES:
                break
    return page, size


def _kept_page(connection: sqlite3.Connection, *, stream: str, after: int) -> list[KeptDigest]:
    found = connection.execute("SELECT id FROM streams WHERE name = ?", (stream,)).fetchone()
    if found is None:
        raise StreamNotFound(stream)
    rows = connection.execute(_KEPT, (found[0], after, PAGE_EVENTS)).fetchall()
    return [KeptDigest(stream, *row) for row in rows]
