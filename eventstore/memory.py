"""The store port without I/O: the double that users test with. Its rules are in `eventstore.rules`.

It promises everything that `eventstore.port` promises, except that anything outlives the object. `commit` and `send`
await once before the change and once behind it, so that users of the double meet real interleavings: a caller
cancelled at the first finds nothing written, one cancelled at the second finds everything written.

It deliberately has no threads and no heartbeat: a lease lives until it ends, however the clock is turned, unless
`MemoryLease.stall` stops its beat as a paused process would. A clock that is turned by hand tells nobody, so a waiter
looks at it every `POLL_SECONDS` while anything depends on it; `notify` makes it look at once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from heapq import nsmallest
from math import isinf
from typing import Final

from msgspec import UNSET

from eventstore.clock import Clock, SystemClock
from eventstore.errors import LeaseLost, StoreClosed, StreamClosed, StreamNotFound
from eventstore.keeping import KeptDigest, Leaf, check_versions
from eventstore.memory_keeping import forget, prune
from eventstore.memory_moving import Taken, dump
from eventstore.moving import Installed, Item
from eventstore.port import (
    Capability,
    Commit,
    Lease,
    Message,
    Page,
    RecordedEvent,
    StreamHead,
    StreamQuery,
    category_of,
)
from eventstore.rules import Streams
from eventstore.validation import (
    validate_claim,
    validate_commit,
    validate_message,
    validate_name,
    validate_query,
    validate_range,
    validate_stream,
    validate_timeout,
)

__all__ = ["LEASE_TTL_SECONDS", "POLL_SECONDS", "MemoryLease", "MemoryStore"]

LEASE_TTL_SECONDS: Final = 10.0
"""How long after its last beat a lease is believed alive, by default."""
POLL_SECONDS: Final = 0.02
"""How often a waiter looks at the clock while an alarm is set or a lease has stopped beating."""
_READ_CHUNK: Final = 500  # events read between two visits to the event loop


class MemoryLease:
    """A lease of a `MemoryStore`. It beats by itself until it is stalled; a lapse is final: it may have been seen."""

    __slots__ = ("_clock", "_lapsed", "_stalled_at", "_ttl", "_watch", "ended", "seen", "token", "waited", "worker")

    def __init__(
        self, token: int, worker: str, *, ttl: float, clock: Clock, watch: Callable[[MemoryLease], None]
    ) -> None:
        self.token: Final = token
        self.worker: Final = worker
        self.ended = False
        self.seen = -1  # the store's news that the first claim since the last wait has taken in
        self.waited = True
        self._stalled_at: float | None = None  # on the monotonic clock, in seconds
        self._lapsed = False
        self._ttl = ttl
        self._clock = clock
        self._watch = watch

    @property
    def lag(self) -> float:
        """Seconds; nothing beats here, so nothing is late."""
        return 0.0

    @property
    def stalled(self) -> bool:
        """Whether it has stopped beating."""
        return self._stalled_at is not None

    def fresh(self) -> bool:
        """Whether it lives: not ended, and beating or within its time to live since it stalled."""
        if self._stalled_at is not None and self._clock.monotonic() >= self._stalled_at + self._ttl:
            self._lapsed = True
        return not self.ended and not self._lapsed

    def stall(self) -> None:
        """Stop beating, as a paused process does: stale once the time to live has passed on the monotonic clock."""
        self._stalled_at = self._clock.monotonic()
        self._watch(self)

    def resume(self) -> None:
        """Beat again, if it is not too late."""
        if self.fresh():
            self._stalled_at = None


class MemoryStore:
    """An `EventStore` that lives and dies with this object. Not thread-safe: one event loop uses it."""

    capabilities: frozenset[Capability] = frozenset({"keeping", "moving", "permits"})

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        lease_ttl: float = LEASE_TTL_SECONDS,
    ) -> None:
        self._clock = clock if clock is not None else SystemClock()
        self._lease_ttl = lease_ttl
        self._leases: dict[int, MemoryLease] = {}  # those that have not ended
        self._last_token = 0
        self._stalled: list[MemoryLease] = []  # not yet seen to be stale
        self._streams = Streams(clock=self._clock, entropy=entropy, leases=self._leases, on_need=self._tell)
        self._news = 0  # rises whenever something may have come to need attention
        self._bell = asyncio.Event()  # a new one after each ring
        self._under_way = 0
        self._idle = asyncio.Event()
        self._closed = False

    async def commit(self, commit: Commit) -> StreamHead:
        """See `EventStore.commit`; the whole of it happens between the two awaits."""
        with self._call():
            validate_commit(commit, self.capabilities)
            await asyncio.sleep(0)
            head = self._streams.apply(commit)
            if commit.alarm is not UNSET:
                self.notify()  # it may be due before what the waiters sleep for
            await asyncio.sleep(0)
        return head

    async def send(self, message: Message) -> None:
        """See `EventStore.send`; the whole of it happens between the two awaits."""
        with self._call():
            validate_message(message)
            await asyncio.sleep(0)
            refused = self._streams.deliver(message, self._clock.now())
            await asyncio.sleep(0)
        match refused:
            case "not_found":
                raise StreamNotFound(message.stream)
            case "closed":
                raise StreamClosed(message.stream)
            case None:
                return

    async def head(self, stream: str) -> StreamHead:
        """See `EventStore.head`."""
        with self._call():
            validate_stream(stream)
            await asyncio.sleep(0)
            return self._streams.existing(stream).head()

    async def read(
        self,
        stream: str,
        *,
        after: int = 0,
        until: int | None = None,
        proof: bool = True,  # noqa: ARG002 - it has them at hand
    ) -> AsyncIterator[RecordedEvent]:
        """See `EventStore.read`."""
        self._check_open()
        validate_stream(stream)
        validate_range(after, until)
        events = self._streams.existing(stream).events
        end = len(events) if until is None else min(until, len(events))
        async for event in self._chunks(events, after, end):
            if isinstance(event, RecordedEvent):
                yield event

    async def read_all(self, *, after: int = 0, category: str | None = None) -> AsyncIterator[RecordedEvent]:
        """See `EventStore.read_all`; a position is an index of the log."""
        self._check_open()
        validate_range(after, None, category)
        log = self._streams.log
        async for event in self._chunks(log, after, len(log)):
            if isinstance(event, RecordedEvent) and category in (None, category_of(event.stream)):
                yield event

    async def forget(self, stream: str, *, versions: Collection[int] | None = None) -> int:
        """See `Keeping.forget`."""
        with self._call():
            validate_stream(stream)
            check_versions(versions)
            await asyncio.sleep(0)
            count = forget(self._streams, stream, versions)
            await asyncio.sleep(0)
        return count

    async def prune(self, stream: str, *, until: int) -> int:
        """See `Keeping.prune`."""
        with self._call():
            validate_stream(stream)
            await asyncio.sleep(0)
            count = prune(self._streams, stream, until)
            await asyncio.sleep(0)
        return count

    async def leaves(self, *, after: int = 0) -> AsyncIterator[Leaf]:
        """See `Keeping.leaves`."""
        self._check_open()
        validate_range(after, None)
        log = self._streams.log
        async for leaf in self._chunks(log, after, len(log)):
            yield leaf

    async def kept(self, stream: str, *, after: int = 0) -> AsyncIterator[KeptDigest]:
        """See `Keeping.kept`."""
        self._check_open()
        validate_stream(stream)
        validate_range(after, None)
        events = self._streams.existing(stream).events
        async for leaf in self._chunks(events, after, len(events)):
            if isinstance(leaf, KeptDigest):
                yield leaf

    async def find(self, query: StreamQuery) -> Page[StreamHead]:
        """See `EventStore.find`; it looks at every stream behind the cursor."""
        with self._call():
            validate_query(query)
            await asyncio.sleep(0)
            return self._streams.page(query)

    @asynccontextmanager
    async def lease(self, worker: str) -> AsyncIterator[Lease]:
        """See `EventStore.lease`."""
        self._check_open()
        validate_name(worker, "worker")
        self._last_token += 1
        lease = MemoryLease(self._last_token, worker, ttl=self._lease_ttl, clock=self._clock, watch=self._watch)
        self._leases[lease.token] = lease
        try:
            yield lease
        finally:
            self.end(lease)

    async def claim(
        self, lease: Lease, *, query: StreamQuery, limit: int, busy: Collection[str] = ()
    ) -> list[StreamHead]:
        """See `EventStore.claim`."""
        with self._call():
            validate_claim(query, limit)
            await asyncio.sleep(0)
            mine = self._leases.get(lease.token)
            if mine is None or not mine.fresh():
                raise LeaseLost(None, token=lease.token, reason="it has ended" if mine is None else "it has lapsed")
            self._ripen()
            if mine.waited:
                mine.waited, mine.seen = False, self._news
            ready = self._streams.ready(mine.token, query, frozenset(busy), limit + 1)
            chosen = nsmallest(limit + 1, ready, key=self._streams.in_need_since)
            if len(chosen) > limit:
                mine.seen = -1  # the rest waits for the next claim: do not sleep on it
            return [self._streams.take(stream, mine.token) for stream in chosen[:limit]]

    async def wait(self, lease: Lease, *, timeout: float) -> None:
        """See `EventStore.wait`: news since the last claim is a number, so none can be missed."""
        self._check_open()
        validate_timeout(timeout)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        await asyncio.sleep(0)
        while (mine := self._leases.get(lease.token)) is not None:
            bell = self._bell
            depends_on_time = self._ripen()
            left = deadline - loop.time()
            if mine.seen != self._news or left <= 0:
                mine.waited = True
                break
            if depends_on_time:
                left = min(left, POLL_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if isinf(left) else left):
                    await bell.wait()
        self._check_open()

    async def dump(self, streams: Sequence[str] | None = None) -> AsyncGenerator[Item, None]:
        """See `MovingStore.dump`."""
        self._check_open()
        for name in streams or ():
            validate_stream(name)
        for number, item in enumerate(dump(self._streams, streams), 1):
            self._check_open()
            yield item
            if number % _READ_CHUNK == 0:
                await asyncio.sleep(0)

    async def install(self, items: Iterable[Item], *, behind: Commit | None = None) -> Installed:
        """See `MovingStore.install`; the whole of it happens between two awaits, and `items` is walked here."""
        with self._call():
            if behind is not None:
                validate_commit(behind)
            await asyncio.sleep(0)
            installed = Taken(items, streams=self._streams).put(self._clock.now(), behind)
            self._tell()
            await asyncio.sleep(0)
        return installed

    async def aclose(self) -> None:
        """See `EventStore.aclose`; its leases end."""
        self._closed = True
        if self._under_way:
            await self._idle.wait()
        for lease in list(self._leases.values()):
            self.end(lease)

    # What a test may use beyond the port.

    def notify(self) -> None:
        """Make every waiter look again, now: the clock was turned."""
        self._bell.set()
        self._bell = asyncio.Event()

    def end(self, lease: Lease) -> None:
        """End a lease, as leaving its context or the death of its holder does. Ending it twice does nothing."""
        mine = self._leases.pop(lease.token, None)
        if mine is not None:
            mine.ended = True
            self._tell()

    # News.

    def _tell(self) -> None:
        self._news += 1
        self.notify()

    def _watch(self, stalled: MemoryLease) -> None:
        self._stalled.append(stalled)
        self.notify()

    def _ripen(self) -> bool:
        """Take in what time alone has brought about; whether time can bring about more."""
        watched, self._stalled = self._stalled, []
        for lease in watched:
            if lease.fresh() and lease.stalled:
                self._stalled.append(lease)
            elif lease.stalled:
                self._tell()
        return self._streams.ripen() or bool(self._stalled)

    # Calls.

    async def _chunks(self, events: list[Leaf], after: int, end: int) -> AsyncIterator[Leaf]:
        for start in range(after, end, _READ_CHUNK):
            await asyncio.sleep(0)
            self._check_open()
            for event in events[start : min(start + _READ_CHUNK, end)]:
                yield event

    @contextmanager
    def _call(self) -> Iterator[None]:
        """A call that closing waits for."""
        self._check_open()
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("this memory store was closed: it held everything in memory, open a new one")
