"""Stores with everything in them, made by chance; and what of a store can be compared."""

from __future__ import annotations

import random
import sqlite3
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from eventstore import (
    NEW,
    Commit,
    EventStore,
    KeptDigest,
    Message,
    NewEvent,
    Opening,
    Permit,
    RecordedEvent,
    StreamQuery,
)
from eventstore.memory import MemoryStore
from eventstore.moving import Item, moving_store
from eventstore.port import pool_stream

PAYLOADS = [None, b"", b"7", b'{"a":"\\u0000 \\" \\\\"}', b"\x00\xff", b"a\x07b", "näh ☃\n\t".encode(), b"x" * 500]
VALUES: list[Any] = ["text", "", "näh ☃", 7, -(1 << 63), 1.0, 1.5e300, True, False, 0]


async def dumped(store: EventStore, *names: str) -> list[Item]:
    """All that a store gives out, without positions, which are each log's own."""
    async with aclosing(moving_store(store).dump(names or None)) as items:
        return [placeless(item) async for item in items]


def placeless(item: Item) -> Item:
    """Without its position in the log; of what was pruned the one that it had then is part of it."""
    if isinstance(item, KeptDigest):
        return replace(item, position=0, was=item.pruned_at)
    return replace(item, position=0) if isinstance(item, RecordedEvent) else item


async def fill(store: EventStore, seed: int, *, steps: int = 30) -> None:
    """Streams whose events are mixed, with mail, tombstones, alarms, marks, attributes, pools and queues."""
    chance = random.Random(seed)
    commits = iter(range(10_000))
    await store.commit(
        Commit(id="limit", stream=pool_stream("p"), expected_version=NEW, events=(event(0),), attributes={"limit": 1})
    )
    versions: dict[str, int] = {}
    for number in range(steps):
        stream = f"{chance.choice(('run', 'memo'))}:{chance.choice('abcdé')}"
        if chance.random() < 0.4:
            await _send(store, chance, stream, number)
            versions.setdefault(stream, 0) if await _exists(store, stream) else None
            continue
        parts: dict[str, Any] = {}
        if stream in versions and chance.random() < 0.5:
            waiting = (await store.head(stream)).messages
            parts["consumes"] = tuple(each.id for each in waiting if chance.random() < 0.5)
        if chance.random() < 0.3:
            parts["alarm"] = chance.choice([None, 5, 1_800_000_000_000_000])
        if chance.random() < 0.2:
            parts["held"] = chance.random() < 0.7
        if chance.random() < 0.1:
            parts["closed"] = True
        if chance.random() < 0.4:
            parts["attributes"] = {chance.choice("xyz"): chance.choice([*VALUES, None])}
        if chance.random() < 0.2:
            parts["permits"] = (
                Permit(
                    pool="p",
                    holder=stream,
                    action="wait",
                    priority=chance.choice((0, 0, 7, -1)),
                    key=chance.choice(("", "k", "é")),
                    lasting=chance.random() < 0.7,
                ),
            )
        events = tuple(event(number, chance.choice(PAYLOADS)) for _ in range(chance.randint(0, 3)))
        head = await store.commit(
            Commit(
                id=f"c{next(commits)}",
                stream=stream,
                expected_version=versions.get(stream, NEW),
                events=events,
                **parts,
            )
        )
        versions[stream] = head.version


async def _send(store: EventStore, chance: random.Random, stream: str, number: int) -> None:
    message = Message(
        id=f"m-{chance.randint(0, 40)}",
        stream=stream,
        header=b'{"type":"Mail","n":%d}' % number,
        payload=chance.choice(PAYLOADS),
        sender=chance.choice((None, "run:a")),
        control=chance.random() < 0.3,
        opens=Opening(attributes={"opened": True}),
    )
    try:
        await store.send(message)
    except Exception as error:
        assert type(error).__name__ == "StreamClosed", error


async def _exists(store: EventStore, stream: str) -> bool:
    return bool((await store.find(StreamQuery(streams=(stream,)))).items)


def event(number: int, payload: bytes | None = None) -> NewEvent:
    return NewEvent('{"type":"Noted","é":"\\u0007","n":%d}'.replace("%d", str(number)).encode(), payload)


def destroy(store: EventStore | Path, versions: set[tuple[str, int]]) -> None:
    """Forget payloads, as a store would that is asked to: payload and salt go, the digest stays."""
    if isinstance(store, MemoryStore):
        streams = store._streams
        for log in (streams.log, *(each.events for each in streams._streams.values())):
            for index, each in enumerate(log):
                if (each.stream, each.version) in versions and each.payload is not None:
                    log[index] = replace(each, payload=None, salt=None)
        return
    assert isinstance(store, Path)
    with closing(sqlite3.connect(store)) as connection, connection:
        for stream, version in versions:
            connection.execute(
                "UPDATE events SET payload = NULL, salt = NULL WHERE version = ? AND stream ="
                " (SELECT id FROM streams WHERE name = ?)",
                (version, stream),
            )
