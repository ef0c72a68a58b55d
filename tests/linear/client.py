"""One client of a store: random operations, each recorded with when it began, when it ended, and what was seen.

``python -m tests.linear.client URL FILE NAME SEED SECONDS OPS``: as a process of its own, two clients at once in it.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from eventstore import (
    NEW,
    Commit,
    EventStore,
    Lease,
    LeaseLost,
    LimitReached,
    Message,
    NewEvent,
    Opening,
    Permit,
    StreamQuery,
    UnknownMessage,
    VersionConflict,
)
from eventstore.port import pool_stream
from eventstore.urls import open_store
from tests.linear.checker import SLOTS, Op

__all__ = ["client", "set_up"]

STREAMS = ("s:a", "s:b")
OWNED = ("owned:a", "owned:b")
POOL = "slots"


async def set_up(store: EventStore) -> None:
    """The streams that clients work on: they are there, those to be claimed are always due, the pool has its slots."""
    for stream in STREAMS:
        await store.send(_message("begin", stream, opens=True))
        await store.commit(Commit(id="begin", stream=stream, expected_version=0, consumes=("begin",)))
    for stream in OWNED:
        await store.commit(Commit(id="begin", stream=stream, expected_version=NEW, alarm=1))
    limits = {"limit": SLOTS}
    await store.commit(Commit(id="begin", stream=pool_stream(POOL), expected_version=NEW, attributes=limits))


def _message(id_: str, stream: str, *, opens: bool = False) -> Message:
    return Message(id=id_, stream=stream, header=b"{}", opens=Opening() if opens else None)


class Client:
    """One after the other; of its operations one is under way at a time."""

    def __init__(self, store: EventStore, lease: Lease, name: str, seed: int, record: Callable[[Op], None]) -> None:
        self.store, self.lease, self.name, self.record = store, lease, name, record
        self.chance = random.Random(f"{seed} {name}")
        self.number = 0
        self.versions = dict.fromkeys(STREAMS, 0)
        self.mail: dict[str, list[str]] = {stream: [] for stream in STREAMS}
        self.owned: set[str] = set()
        self.own = NEW  # version of the stream that it takes permits for

    async def step(self) -> None:
        """One operation."""
        self.number += 1
        do = self.chance.choice(
            (self.commit, self.commit, self.head, self.read, self.send, self.claim, self.write, self.permit)
        )
        await do(self.chance.choice(STREAMS))

    async def timed(
        self, object_: str, kind: str, given: Any, call: Awaitable[Any], *refusals: tuple[type, str]
    ) -> Any:
        """The operation, recorded; what it saw."""
        start = time.monotonic_ns()
        try:
            seen = await call
        except tuple(type_ for type_, _ in refusals) as error:
            seen = next(word for type_, word in refusals if isinstance(error, type_))
        except BaseException:
            self.record(Op(start, None, self.name, object_, kind, given))
            raise
        self.record(Op(start, time.monotonic_ns(), self.name, object_, kind, given, seen))
        return seen

    async def commit(self, stream: str) -> None:
        id_ = f"{self.name}.{self.number}"
        consumes = self.chance.choice(("", *self.mail[stream][:1]))
        version = max(0, self.versions[stream] - self.chance.choice((0, 0, 0, 0, 1)))
        commit = Commit(
            id=id_, stream=stream, expected_version=version, events=(NewEvent(b"{}", id_.encode()),),
            consumes=(consumes,) if consumes else (),
        )  # fmt: skip

        async def call() -> int:
            return (await self.store.commit(commit)).version

        refusals = ((VersionConflict, "conflict"), (UnknownMessage, "unknown message"))
        seen = await self.timed(stream, "commit", [version, id_, consumes], call(), *refusals)
        if isinstance(seen, int):
            self.versions[stream] = seen
        elif seen == "conflict" or consumes:
            await self.head(stream)

    async def head(self, stream: str) -> None:
        async def call() -> list[Any]:
            head = await self.store.head(stream)
            return [head.version, [message.id for message in head.messages]]

        seen = await self.timed(stream, "head", None, call())
        self.versions[stream], self.mail[stream] = seen

    async def read(self, stream: str) -> None:
        async def call() -> list[str]:
            return [(event.payload or b"").decode() async for event in self.store.read(stream)]

        await self.timed(stream, "read", None, call())

    async def send(self, stream: str) -> None:
        if len(self.mail[stream]) > 5:
            return await self.commit(stream)
        id_ = f"m{self.chance.randrange(self.number + 1)}.{self.name}"
        return await self.timed(stream, "send", id_, self.store.send(_message(id_, stream)))

    async def claim(self, _stream: str) -> None:
        start = time.monotonic_ns()
        heads = await self.store.claim(self.lease, query=StreamQuery(category="owned"), limit=1, busy=tuple(self.owned))
        end = time.monotonic_ns()
        for head in heads:
            self.owned.add(head.stream)
            self.record(Op(start, end, self.name, head.stream, "claim"))

    async def write(self, _stream: str) -> None:
        stream = self.chance.choice(OWNED)
        release = self.chance.random() < 0.6
        commit = Commit(
            id=f"{self.name}.{self.number}", stream=stream, expected_version=0, lease=self.lease, release=release
        )  # without events: the version stays

        async def call() -> str:
            await self.store.commit(commit)
            return "done"

        seen = await self.timed(stream, "write", "release" if release else None, call(), (LeaseLost, "lost"))
        if release or seen == "lost":
            self.owned.discard(stream)

    async def permit(self, _stream: str) -> None:
        take = self.chance.random() < 0.6
        permit = Permit(pool=POOL, holder=self.name, action="take" if take else "return", lasting=take)
        commit = Commit(
            id=f"{self.name}.{self.number}", stream=f"own:{self.name}", expected_version=self.own, permits=(permit,)
        )

        async def call() -> str:
            await self.store.commit(commit)
            self.own = 0
            return "done"

        await self.timed(f"pool:{POOL}", permit.action, self.name, call(), (LimitReached, "full"))


async def client(
    store: EventStore, name: str, seed: int, record: Callable[[Op], None], *, seconds: float, operations: int
) -> None:
    """Operations until either is used up."""
    until = time.monotonic() + seconds
    async with _lease(store, name) as lease:
        one = Client(store, lease, name, seed, record)
        while one.number < operations and time.monotonic() < until:
            await one.step()
        for stream in sorted(one.owned):  # when the lease ends they are nobody's, which no operation would tell
            commit = Commit(id=f"{name}.end", stream=stream, expected_version=0, lease=lease, release=True)
            await one.timed(stream, "write", "release", _done(store, commit), (LeaseLost, "lost"))


async def _done(store: EventStore, commit: Commit) -> str:
    await store.commit(commit)
    return "done"


@asynccontextmanager
async def _lease(store: EventStore, name: str) -> AsyncIterator[Lease]:
    async with store.lease(name) as lease:
        yield lease


async def main(url: str, file: str, name: str, seed: str, seconds: str, operations: str) -> None:
    """Two clients at once, on one handle."""
    ops: list[Op] = []
    store = await open_store(url)
    try:
        limits = {"seconds": float(seconds), "operations": int(operations)}
        await asyncio.gather(*(client(store, f"{name}{n}", int(seed), ops.append, **limits) for n in range(2)))  # type: ignore[arg-type]
    finally:
        await store.aclose()
        Path(file).write_bytes(msgspec.json.encode(ops))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
