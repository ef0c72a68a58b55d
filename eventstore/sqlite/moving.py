"""Giving out streams: what stands beside the events, as it is at one moment, and then the events.

All but the events is read in one read transaction, by the page; it is short, because events are most of a store. They
are read behind it by the page, as for any reader: they do not change, and where each stream ends is known by then. One
that is pruned meanwhile comes as what is left of it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.json import Decoder

from eventstore.errors import StreamNotFound
from eventstore.moving import (
    CONSUMED_PAGE,
    GRANT_PREFIX,
    ConsumedMessages,
    Installed,
    Item,
    StoredMessage,
    StoredPermit,
    StoredPool,
    StoredStream,
    StoredWaiter,
)
from eventstore.port import Commit, Scalar
from eventstore.sqlite.keeping import leaf_pages, stream_leaves
from eventstore.sqlite.reading import Readers, end_of_log
from eventstore.sqlite.requests import install_request
from eventstore.sqlite.statements import encode_names
from eventstore.sqlite.threads import Connection
from eventstore.sqlite.writer import Writer
from eventstore.validation import validate_stream

__all__ = ["Moving", "dump"]

T = TypeVar("T")
_Row: TypeAlias = tuple[Any, ...]

_PAGE_ROWS: Final = 1_000
_PAGE_BYTES: Final = 4 << 20  # of one page, but that a single row may have more

_CHOSEN: Final = (
    "(?1 IS NULL OR s.id IN (SELECT t.id FROM json_each(?1) AS j CROSS JOIN streams AS t ON t.name = j.value))"
)
_STREAMS: Final = f"""
    SELECT s.name, s.version, s.digest, s.created_at, s.updated_at, s.alarm, s.held, s.closed, s.attributes, s.pruned
    FROM streams AS s WHERE {_CHOSEN} ORDER BY s.id
"""
_MESSAGES: Final = f"""
    SELECT s.name, m.id, m.sender, m.control, m.header, m.payload, m.sent_at
    FROM streams AS s CROSS JOIN messages AS m ON m.stream = s.id
    WHERE {_CHOSEN} AND m.consumed_at IS NULL ORDER BY s.id, m.arrival
"""
_CONSUMED: Final = f"""
    SELECT name, json_group_array(message) FROM (
        SELECT s.id AS stream, s.name AS name, m.id AS message,
               (row_number() OVER (PARTITION BY s.id ORDER BY m.id) - 1) / {CONSUMED_PAGE} AS page
        FROM streams AS s CROSS JOIN messages AS m ON m.stream = s.id
        WHERE {_CHOSEN} AND m.consumed_at IS NOT NULL AND substr(m.id, 1, {len(GRANT_PREFIX)}) <> '{GRANT_PREFIX}')
    GROUP BY stream, page ORDER BY stream, page
"""
_MINE: Final = "(?1 IS NULL OR {0}.stream IN (SELECT value FROM json_each(?1)))"
_POOLS: Final = f"""
    SELECT p.pool, p.arrivals, p.turns, s.attributes FROM permit_pools AS p
    CROSS JOIN streams AS s ON s.name = 'pool:' || p.pool
    WHERE (?1 IS NULL AND p.arrivals > 0)
       OR EXISTS (SELECT 1 FROM permits AS h
                  WHERE h.pool = p.pool AND {_MINE.format("h")} AND (?1 IS NOT NULL OR h.lasting))
       OR EXISTS (SELECT 1 FROM permit_waiters AS w WHERE w.pool = p.pool AND {_MINE.format("w")})
    ORDER BY p.pool
"""
_PERMITS: Final = f"""
    SELECT p.stream, p.pool, p.holder, p.priority, p.key, p.taken_at FROM permits AS p
    WHERE p.lasting = 1 AND {_MINE.format("p")} ORDER BY p.pool, p.holder
"""
_WAITERS: Final = f"""
    SELECT p.stream, p.pool, p.holder, p.priority, p.key, p.tag, p.arrival, p.lasting FROM permit_waiters AS p
    WHERE {_MINE.format("p")} ORDER BY p.pool, p.priority DESC, p.tag, p.arrival
"""

_decode_attributes: Final = Decoder(dict[str, Scalar]).decode
_decode_ids: Final = Decoder(list[str]).decode
_decode_turns: Final = Decoder(dict[int, int]).decode


class Moving(ABC):
    """`MovingStore`, as a part of `SqliteStore`."""

    _readers: Readers

    @abstractmethod
    def _open_writer(self) -> Writer: ...

    def dump(self, streams: Sequence[str] | None = None) -> AsyncGenerator[Item, None]:
        return dump(self._readers, streams)

    async def install(self, items: Iterable[Item], *, behind: Commit | None = None) -> Installed:
        writer = self._open_writer()
        future: asyncio.Future[Installed] = asyncio.get_running_loop().create_future()
        writer.submit(install_request(items, behind, future))
        return await future


class _Seen(Struct):
    """Where the events end that belong to what was given out."""

    log: int = 0
    streams: dict[str, int] = {}


async def dump(readers: Readers, names: Sequence[str] | None) -> AsyncGenerator[Item, None]:
    """The items of some streams, or of all. Raises `StreamNotFound`."""
    for name in names or ():
        validate_stream(name)
    seen = _Seen()
    async with aclosing(_state(readers, names, seen)) as items:
        async for item in items:
            yield item
    if names is None:
        sources = [leaf_pages(readers, 0, seen.log)]
    else:
        sources = [stream_leaves(readers, name, version) for name, version in seen.streams.items()]
    for pages in sources:
        async for page in pages:
            for leaf in page:
                yield leaf


async def _state(readers: Readers, names: Sequence[str] | None, seen: _Seen) -> AsyncGenerator[Item, None]:
    """All but the events, of one moment."""
    chosen = None if names is None else encode_names(names)
    async with _moment(readers) as connection:
        seen.log = await readers.on(connection, end_of_log)
        async for page in _pages(readers, connection, _STREAMS, chosen, _stream):
            for item in page:
                if names is not None:
                    seen.streams[item.stream] = item.version
                yield item
        if missing := set(names or ()) - seen.streams.keys():
            raise StreamNotFound(min(missing))
        for sql, part_of in _PARTS:
            async for parts in _pages(readers, connection, sql, chosen, part_of):
                for part in parts:
                    yield part


@asynccontextmanager
async def _moment(readers: Readers) -> AsyncIterator[Connection]:
    """A connection that sees one moment of the store."""
    async with readers.reserved() as connection:
        try:
            await readers.on(connection, _begin)  # begins also when this is cancelled meanwhile
            yield connection
        finally:
            await readers.on(connection, _rollback)


async def _pages(
    readers: Readers, connection: Connection, sql: str, chosen: str | None, item_of: Callable[[_Row], T]
) -> AsyncGenerator[list[T], None]:
    cursor = await readers.on(connection, lambda database: database.execute(sql, (chosen,)))

    def page(_: sqlite3.Connection) -> list[T]:
        items: list[T] = []
        size = 0
        for row in cursor:
            items.append(item_of(row))
            size += sum(len(value) for value in row if isinstance(value, bytes))
            if len(items) >= _PAGE_ROWS or size >= _PAGE_BYTES:
                break
        return items

    while items := await readers.on(connection, page):
        yield items


def _begin(database: sqlite3.Connection) -> None:
    database.execute("BEGIN")


def _rollback(database: sqlite3.Connection) -> None:
    if database.in_transaction:
        database.execute("ROLLBACK")


def _stream(row: _Row) -> StoredStream:
    name, version, digest, created_at, updated_at, alarm, held, closed, attributes, pruned = row
    return StoredStream(
        stream=name.decode(),
        version=version,
        digest=digest,
        created_at=created_at,
        updated_at=updated_at,
        alarm=alarm,
        held=bool(held),
        closed=bool(closed),
        attributes=_decode_attributes(attributes),
        pruned=bool(pruned),
    )


def _message(row: _Row) -> Item:
    name, id_, sender, control, header, payload, sent_at = row
    return StoredMessage(
        stream=name.decode(),
        id=id_.decode(),
        sender=None if sender is None else sender.decode(),
        control=bool(control),
        header=header,
        payload=payload,
        sent_at=sent_at,
    )


def _consumed(row: _Row) -> Item:
    name, ids = row
    return ConsumedMessages(stream=name.decode(), ids=tuple(sorted(_decode_ids(ids))))


def _pool(row: _Row) -> Item:
    name, arrivals, turns, attributes = row
    return StoredPool(
        pool=name.decode(),
        arrivals=arrivals,
        turns=_decode_turns(turns),
        attributes=_decode_attributes(attributes),
    )


def _permit(row: _Row) -> Item:
    name, pool, holder, priority, key, taken_at = row
    return StoredPermit(
        stream=name.decode(),
        pool=pool.decode(),
        holder=holder.decode(),
        priority=priority,
        key=key.decode(),
        taken_at=taken_at,
    )


def _waiter(row: _Row) -> Item:
    name, pool, holder, priority, key, tag, arrival, lasting = row
    return StoredWaiter(
        stream=name.decode(),
        pool=pool.decode(),
        holder=holder.decode(),
        priority=priority,
        key=key.decode(),
        tag=tag,
        arrival=arrival,
        lasting=bool(lasting),
    )


_PARTS: Final[tuple[tuple[str, Callable[[_Row], Item]], ...]] = (
    (_MESSAGES, _message),
    (_CONSUMED, _consumed),
    (_POOLS, _pool),
    (_PERMITS, _permit),
    (_WAITERS, _waiter),
)
