"""What a store's author writes to have the suite run against it, and the words that the checks are written in.

A `StoreHarness` opens handles on one set of data, turns its time, and makes lease holders die or stall. The harness of
the memory store is here as the example. The rest are small builders, so that a check says only what it is about.

It deliberately does not know a test runner.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar
from uuid import uuid4

from msgspec.json import decode, encode

from eventstore.errors import LimitReached
from eventstore.memory import MemoryLease, MemoryStore
from eventstore.port import (
    NEW,
    Commit,
    EventStore,
    Lease,
    Message,
    NewEvent,
    Opening,
    Permit,
    RecordedEvent,
    StreamHead,
    StreamQuery,
    Timestamp,
    pool_stream,
)

__all__ = [
    "ANY",
    "PATIENCE_SECONDS",
    "Check",
    "MemoryHarness",
    "Refusal",
    "Shared",
    "StoreHarness",
    "TurnedClock",
    "all_of",
    "begin",
    "claim",
    "collect",
    "control",
    "data",
    "event",
    "give_back",
    "history",
    "mail",
    "refused",
    "shared_pool",
    "soon",
    "step",
    "take",
    "wait",
]

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

PATIENCE_SECONDS: Final = 20.0
"""How long a check waits for what must happen before it fails. A limit, not a wait."""
ANY: Final = StreamQuery()


class StoreHarness(Protocol):
    """What the suite needs to know of a store beyond the port. Each check is given one with nothing stored yet."""

    @property
    def reopenable(self) -> bool:
        """Whether what was acknowledged is there again when every handle was closed and a new one is opened."""

    async def open(self) -> EventStore:
        """A handle on the data; opened again while one is open: a second, as another process would have it.

        A store with only one handle (memory) returns it again. The harness closes what the check left open.
        """

    def now(self) -> Timestamp:
        """The time as the store sees it."""

    async def turn(self, seconds: float) -> None:
        """Let that much time pass for alarms and stamps (sleeping, if the store's clock cannot be turned).

        No lease dies of it.
        """

    async def crash_lease(self, lease: Lease) -> None:
        """Let the lease's holder die without a word, as by kill -9, before this returns."""

    async def stall_lease(self, lease: Lease) -> None:
        """Let the lease's holder be paused for longer than the lease's time to live, and then go on.

        When this returns the lease is not fresh and others may take its streams over; other leases live.
        """


Check: TypeAlias = Callable[[StoreHarness], Coroutine[Any, Any, None]]


class TurnedClock:
    """A `Clock` that moves only by hand."""

    def __init__(self, now: Timestamp = 1_767_225_600_000_000) -> None:  # 2026-01-01T00:00:00Z
        self._now = now
        self._monotonic = 1_000.0

    def now(self) -> Timestamp:
        """Microseconds since the epoch, as turned."""
        return self._now

    def monotonic(self) -> float:
        """Seconds, as let pass."""
        return self._monotonic

    def turn(self, seconds: float) -> None:
        """Move the time of day, forwards or back, as somebody who sets the machine's clock."""
        self._now += round(seconds * 1_000_000)

    def let_pass(self, seconds: float) -> None:
        """Move both clocks forwards."""
        self._monotonic += seconds
        self.turn(seconds)


class MemoryHarness:
    """The memory store's harness, also for what is made of it; the example for others."""

    def __init__(self, store_type: type[MemoryStore] = MemoryStore) -> None:
        self._clock = TurnedClock()
        self._store = store_type(clock=self._clock)

    @property
    def reopenable(self) -> bool:
        """Nothing survives in memory."""
        return False

    async def open(self) -> EventStore:
        """The one handle."""
        return self._store

    def now(self) -> Timestamp:
        """The turned clock's time."""
        return self._clock.now()

    async def turn(self, seconds: float) -> None:
        """Turn the clock. Nobody is told: the store has to find out."""
        self._clock.turn(seconds)

    async def crash_lease(self, lease: Lease) -> None:
        """The death of a holder and its goodbye are the same in one process."""
        self._store.end(lease)

    async def stall_lease(self, lease: Lease) -> None:
        """Stop its beat, let its time to live pass, and let it go on unaware."""
        assert isinstance(lease, MemoryLease)
        lease.stall()
        self._clock.let_pass(3_600)

    async def aclose(self) -> None:
        """Close what the check left open."""
        await self._store.aclose()


def event(text: str = "noted", payload: bytes | None = None) -> NewEvent:
    """An event whose header says `text`."""
    return NewEvent(encode({"type": text}), payload)


def step(stream: str, expected_version: int, *events: NewEvent, **parts: Any) -> Commit:
    """A commit with an id of its own."""
    parts.setdefault("id", uuid4().hex)
    return Commit(stream=stream, expected_version=expected_version, events=events, **parts)


async def begin(store: EventStore, *streams: str, **parts: Any) -> None:
    """Create streams with one event each, all at once."""
    await all_of(store.commit(step(stream, NEW, event("begun"), **parts)) for stream in streams)


def data(stream: str, message_id: str, *, opens: Opening | None = None, sender: str | None = None) -> Message:
    """A data message."""
    return Message(id=message_id, stream=stream, header=encode({"mail": message_id}), opens=opens, sender=sender)


def control(stream: str, message_id: str) -> Message:
    """A control message."""
    return Message(id=message_id, stream=stream, header=encode({"mail": message_id}), control=True)


async def history(store: EventStore, stream: str, **bounds: Any) -> list[str]:
    """The texts of a stream's events."""
    return [_text(recorded) async for recorded in store.read(stream, **bounds)]


def mail(head: StreamHead) -> list[str]:
    """The ids of the waiting messages."""
    return [message.id for message in head.messages]


async def claim(
    store: EventStore, lease: Lease, *, query: StreamQuery = ANY, limit: int = 1_000, busy: Iterable[str] = ()
) -> list[str]:
    """The names of the streams that a claim returns, sorted."""
    heads = await store.claim(lease, query=query, limit=limit, busy=frozenset(busy))
    return sorted(head.stream for head in heads)


async def collect(items: AsyncIterator[T]) -> list[T]:
    """Everything that an iterator yields."""
    return [item async for item in items]


async def all_of(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run concurrently; the results in order."""
    return list(await asyncio.gather(*coroutines))


async def soon(awaitable: Awaitable[T]) -> T:
    """What must happen; fails instead of hanging."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await awaitable


def take(holder: str, pool: str = "p", *, lasting: bool = False) -> Permit:
    """A permit to take."""
    return Permit(pool=pool, holder=holder, action="take", lasting=lasting)


def wait(holder: str, pool: str = "p", *, priority: int = 0, key: str = "", lasting: bool = False) -> Permit:
    """A place in the queue."""
    return Permit(pool=pool, holder=holder, action="wait", priority=priority, key=key, lasting=lasting)


def give_back(holder: str, pool: str = "p") -> Permit:
    """A permit, or a place in the queue, to give up."""
    return Permit(pool=pool, holder=holder, action="return")


class Shared:
    """A store with a limit, and streams that are owned by one lease and take part in it."""

    def __init__(self, store: EventStore, lease: Lease | None) -> None:
        self.store = store
        self.lease = lease

    async def limit(self, limit: Any, window: Any = None, pool: str = "p") -> None:
        """Make the limit, or change it."""
        try:
            version = (await self.store.head(pool_stream(pool))).version
        except LookupError:
            version = NEW
        await self.store.commit(
            step(pool_stream(pool), version, event("limit"), attributes={"limit": limit, "window": window})
        )

    async def does(self, stream: str, *permits: Permit, **parts: Any) -> StreamHead:
        """Commit permits to a stream, which is made if it is not there."""
        found = await self.store.find(StreamQuery(streams=(stream,)))
        version = found.items[0].version if found.items else NEW
        parts.setdefault("lease", self.lease)
        return await self.store.commit(step(stream, version, event(), permits=permits, **parts))

    async def full(self, stream: str, *permits: Permit, **parts: Any) -> LimitReached:
        """The same, which must be refused."""
        with refused(LimitReached) as refusal:
            await self.does(stream, *permits, **parts)
        return refusal.error

    async def granted(self, stream: str) -> list[str]:
        """What a stream's mailbox says that it was granted: holders, in order."""
        headers = [decode(message.header) for message in (await self.store.head(stream)).messages]
        return [header["holder"] for header in headers if header.get("type") == "PermitGranted"]


@asynccontextmanager
async def shared_pool(harness: StoreHarness, *, limit: int, window: int | None = None) -> AsyncIterator[Shared | None]:
    """A pool ``p``, or a rate; None if the store has no such capability."""
    store = await harness.open()
    if "permits" not in store.capabilities:
        yield None
        return
    async with store.lease("worker") as lease:
        shared = Shared(store, lease)
        await shared.limit(limit, window)
        yield shared


class Refusal(Generic[E]):
    """The error that a `refused` block met."""

    error: E


@contextmanager
def refused(error_type: type[E]) -> Iterator[Refusal[E]]:
    """A block that must raise exactly this type of error, with a message."""
    refusal: Refusal[E] = Refusal()
    try:
        yield refusal
    except error_type as error:
        assert type(error) is error_type, f"{type(error).__name__} instead of {error_type.__name__}: {error}"
        assert str(error), f"{error_type.__name__} without a message"
        refusal.error = error
    else:
        raise AssertionError(f"not refused with {error_type.__name__}")


def _text(recorded: RecordedEvent) -> str:
    return recorded.header.decode().removeprefix('{"type":"').removesuffix('"}')
