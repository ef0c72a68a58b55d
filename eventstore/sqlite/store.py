"""`SqliteStore`: the port, on one SQLite file shared by any number of processes.

It joins the writer's queue, the readers, the leases and the waiting; each knows nothing of the others. Waiters are
woken by a number that rises with every batch that may have made a stream need attention; other processes' commits are
noticed by SQLite's data version, polled seldom when nothing happens, and their deaths by looking at their lease files
once in a while. Every promise about attention is kept by `claim` alone: waking only shortens a wait.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from eventstore.clock import Clock, SystemClock
from eventstore.errors import InvalidArgument, LeaseLost, StoreClosed, StoreUnavailable
from eventstore.port import Capability, Commit, Lease, Message, Page, RecordedEvent, StreamHead, StreamQuery
from eventstore.sqlite.claiming import dead_owners, find_candidates
from eventstore.sqlite.keeping import SqliteKeeping
from eventstore.sqlite.leases import LeaseFiles, SqliteLease
from eventstore.sqlite.moving import Moving
from eventstore.sqlite.opening import Synchronous, WritesOn, Writing
from eventstore.sqlite.reading import Readers
from eventstore.sqlite.requests import (
    BatchOutcome,
    ClaimRequest,
    LeaseEnding,
    LeaseRequest,
    SendRequest,
    commit_request,
)
from eventstore.sqlite.transaction import Transactor
from eventstore.sqlite.writer import Writer
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

__all__ = [
    "DEATH_CHECK_SECONDS",
    "LEASE_TTL_SECONDS",
    "LOOK_SECONDS",
    "POLL_GROWTH",
    "POLL_SECONDS_MAX",
    "POLL_SECONDS_MIN",
    "SqliteStore",
]

LEASE_TTL_SECONDS: Final = 10.0
"""How long after its last beat a lease is believed alive, by default."""
POLL_SECONDS_MIN: Final = 0.02
"""Between two looks for commits of other processes, when there was one lately."""
POLL_SECONDS_MAX: Final = 0.1
"""Between two looks when nothing has happened for a while.

It sets how late a worker hears of a message from another process. Measured on two busy cores, from the return of the
`send` there to the return of the owner's claim here, which takes a commit of its own: 27 ms (95 %: 31 ms) when there
was news within the last moments, 71 ms (95 %: 110 ms) after three quiet seconds; of the same process it hears at once.
Looking costs a worker with nothing to do 0.4 % of a processor.
"""
LOOK_SECONDS: Final = 1.0
"""What a look may take beyond the time that `wait` was given."""
POLL_GROWTH: Final = 1.5
"""By how much the pause grows when there was none."""
DEATH_CHECK_SECONDS: Final = 1.0
"""Between two looks whether other workers have died, while waiting."""


class SqliteStore(SqliteKeeping, Moving):
    """An `EventStore` in a SQLite file. Made by `open`; used by the event loop that opened it."""

    capabilities: frozenset[Capability] = frozenset({"keeping", "moving", "permits", "transaction"})

    def __init__(
        self,
        path: str,
        *,
        clock: Clock,
        files: LeaseFiles,
        leases: dict[int, SqliteLease],
        transactor: Transactor | None,
    ) -> None:
        super().__init__(Readers(path, on_failure=self._poison))
        self.path: Final = path
        self._clock: Final = clock
        self._files: Final = files
        self._leases: Final = leases  # given out by this object, not yet ended
        self._transactor: Final = transactor
        self._writer: Final = None if transactor is None else Writer(transactor, on_outcome=self._take_in)
        self._closing: asyncio.Future[None] | None = None
        self._news = 0  # rises whenever a stream may have come to need attention
        self._bell = asyncio.Event()  # a new one after each ring
        self._data_version = 0
        self._poll_seconds = POLL_SECONDS_MIN

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        synchronous: Synchronous = "EXTRA",
        writes_on: WritesOn = "thread",
        lease_ttl: float = LEASE_TTL_SECONDS,
        read_only: bool = False,
    ) -> SqliteStore:
        """Open the store at `path`, creating it if there is no file, and bring an older schema up to date.

        `synchronous` "NORMAL" loses acknowledged commits when the power fails (never when the process dies).
        `writes_on` "loop" has the event loop's own thread write, which stands still for it: see docs/store.md.
        `lease_ttl` is in seconds, of the leases given out here. Read-only, a store must exist, and commits, messages
        and leases are refused. Raises `NotAStore`, `SchemaTooNew`, `StoreUnavailable`, `InvalidArgument`.
        """
        writing = Writing(synchronous, writes_on)
        if not lease_ttl > 0:
            raise InvalidArgument(f"lease_ttl must be more than 0 seconds, not {lease_ttl!r}")
        real = os.path.realpath(path)  # noqa: ASYNC240 - once; the files beside it are named after the true name
        clock = SystemClock() if clock is None else clock
        files = LeaseFiles(real + "-leases", ttl_seconds=lease_ttl, clock=clock)
        leases: dict[int, SqliteLease] = {}
        transactor = None
        if not read_only:
            transactor = Transactor(real, writing=writing, clock=clock, entropy=entropy, files=files, leases=leases)
        store = cls(real, clock=clock, files=files, leases=leases, transactor=transactor)
        try:
            if store._writer is None:
                await store._readers.run(lambda _: None)
            else:
                await store._writer.open()
                store._data_version = await store._writer.data_version()
        except BaseException:
            await asyncio.shield(store.aclose())
            raise
        return store

    async def commit(self, commit: Commit) -> StreamHead:
        writer = self._open_writer()
        validate_commit(commit, self.capabilities)
        future: asyncio.Future[StreamHead] = asyncio.get_running_loop().create_future()
        writer.submit(commit_request(commit, future))
        try:
            return await future  # the caller's own: cancelling it cancels no batch
        finally:
            del future  # an error of it knows this frame

    async def send(self, message: Message) -> None:
        writer = self._open_writer()
        validate_message(message)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        writer.submit(SendRequest(future, message))
        try:
            await future
        finally:
            del future  # as above

    async def head(self, stream: str) -> StreamHead:
        self._check_open()
        validate_stream(stream)
        return await self._readers.head(stream)

    async def read(
        self, stream: str, *, after: int = 0, until: int | None = None, proof: bool = True
    ) -> AsyncIterator[RecordedEvent]:
        self._check_open()
        validate_stream(stream)
        validate_range(after, until)
        async for page in self._readers.pages(stream, after, until, proof=proof):
            for event in page:
                if self._closing is not None:  # asked here, for a call at every event would be most of what it costs
                    self._check_open()
                yield event

    async def read_all(self, *, after: int = 0, category: str | None = None) -> AsyncIterator[RecordedEvent]:
        self._check_open()
        validate_range(after, None, category)
        async for page in self._readers.log_pages(after, category):
            for event in page:
                self._check_open()
                yield event

    async def find(self, query: StreamQuery) -> Page[StreamHead]:
        self._check_open()
        validate_query(query)
        return await self._readers.find(query)

    @asynccontextmanager
    async def lease(self, worker: str) -> AsyncIterator[Lease]:
        writer = self._open_writer()
        validate_name(worker, "worker")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[SqliteLease] = loop.create_future()
        writer.submit(LeaseRequest(future, worker))
        try:
            lease = await future
            self._leases[lease.token] = lease
            lease.start(loop)
            yield lease
        finally:
            if future.done() and not future.cancelled() and future.exception() is None:  # also if nobody took it
                await self._end(future.result())

    async def claim(
        self, lease: Lease, *, query: StreamQuery, limit: int, busy: Collection[str] = ()
    ) -> list[StreamHead]:
        writer = self._open_writer()
        validate_claim(query, limit)
        mine = self._mine(lease)
        if mine.waited:
            mine.waited, mine.seen = False, self._news
        mine.due_at = None  # what commits meanwhile brings its alarms with it
        try:
            found = await self._readers.run(
                lambda connection: find_candidates(
                    connection,
                    token=mine.token,
                    query=query,
                    limit=limit + 1,
                    busy=busy,
                    now=self._clock.now,
                    judge=self._alive,
                )
            )
        except BaseException:
            mine.seen = -1  # nothing was seen after all
            raise
        mine.hint(found.due_at)
        mine.dead_seen = found.dead
        if not found.names:
            return []
        if len(found.names) > limit:
            mine.seen = -1  # the rest waits for the next claim: do not sleep on it
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open_writer()
        writer.submit(ClaimRequest(future, mine.token, query, limit, found.names, found.dead))
        try:
            heads: list[StreamHead] = (await future)[0]
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                writer.give_back(mine.token, future.result()[1])  # claimed, and nobody was told
            raise
        return heads

    async def wait(self, lease: Lease, *, timeout: float) -> None:
        self._open_writer()
        validate_timeout(timeout)
        mine = self._leases.get(lease.token)
        if mine is None:
            return
        try:
            await asyncio.sleep(0)  # a loop of claims and waits lets others run, whatever there is to claim
            with suppress(TimeoutError):  # of a look that takes long: another process has the guard
                async with asyncio.timeout(timeout + LOOK_SECONDS):
                    await self._wait(mine, timeout)
        finally:
            mine.waited = True

    async def aclose(self) -> None:
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close())
            self._closing.add_done_callback(self._close_now)
            self._ring()
        await asyncio.shield(self._closing)

    # Waiting.

    async def _wait(self, mine: SqliteLease, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        look_at = loop.time()  # for other processes' commits: at once, they may have come since the last claim
        deadline = look_at + timeout
        look_for_dead_at = look_at + DEATH_CHECK_SECONDS
        while True:
            self._open_writer()
            bell = self._bell
            now = loop.time()
            if mine.seen != self._news or not mine.fresh():
                return
            if now >= look_at:
                await self._look_outside()
                look_at = now + self._poll_seconds
                continue
            if now >= look_for_dead_at:
                look_for_dead_at = now + DEATH_CHECK_SECONDS
                dead = await self._readers.run(lambda connection: dead_owners(connection, self._alive))
                if not dead <= mine.dead_seen:
                    return
                continue
            until = min(deadline, look_at, look_for_dead_at) - now
            if mine.due_at is not None:
                until = min(until, (mine.due_at - self._clock.now()) / 1e6)
            if until <= 0:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(until):
                    await bell.wait()

    async def _look_outside(self) -> None:
        """Notice commits of other connections to the file."""
        version = await self._open_writer().data_version()
        if version != self._data_version:
            self._data_version = version
            self._poll_seconds = POLL_SECONDS_MIN
            self._tell()
        else:
            self._poll_seconds = min(self._poll_seconds * POLL_GROWTH, POLL_SECONDS_MAX)

    def _take_in(self, outcome: BatchOutcome) -> None:
        """A batch was committed: what it means for waiters."""
        if outcome.alarm is not None:
            for lease in self._leases.values():
                if lease.hint(outcome.alarm):
                    self._ring()
        if outcome.needy:
            self._tell()

    def _tell(self) -> None:
        self._news += 1
        self._ring()

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()

    # Leases.

    def _mine(self, lease: Lease) -> SqliteLease:
        mine = self._leases.get(lease.token)
        if mine is None or mine.ended:
            raise LeaseLost(None, token=lease.token, reason="it has ended")
        if not mine.fresh():
            raise LeaseLost(
                None, token=lease.token, reason="it did not beat for longer than its time to live; take a new one"
            )
        return mine

    def _alive(self, token: int) -> bool:
        lease = self._leases.get(token)
        return self._files.alive(token) if lease is None else lease.fresh()

    async def _end(self, lease: SqliteLease) -> None:
        """End a lease in the database, then in the file; whatever fails or is cancelled, it beats no more."""
        try:
            if self._writer is not None and self._closing is None and not lease.ended:
                ending = self._writer.submit_unattended(lambda future: LeaseEnding(future, (lease.token,)))
                with suppress(StoreUnavailable):  # then it dies with its file
                    await asyncio.shield(ending)
        finally:
            self._leases.pop(lease.token, None)
            lease.end()
            self._tell()

    # Open, closed, unusable.

    async def _close(self) -> None:
        if self._writer is not None:
            if tokens := tuple(self._leases):
                self._writer.submit_unattended(lambda future: LeaseEnding(future, tokens))
            await self._writer.finish()
        _end_all(self._leases)
        await self._readers.aclose()  # before the writer: whoever closes last brings the log in
        if self._writer is not None:
            await self._writer.aclose()

    def _close_now(self, closing: asyncio.Future[None]) -> None:
        """Closing failed, or was cancelled at the loop's end, perhaps before it began: no thread is to outlive that."""
        if closing.cancelled() or closing.exception() is not None:
            _end_all(self._leases)
            self._readers.close_now()
            if self._writer is not None:
                self._writer.close_now()

    def _open_writer(self) -> Writer:
        self._check_open()
        if self._writer is None or self._transactor is None:
            raise StoreUnavailable(f"{self.path} was opened read-only: open it for writing to change it")
        return self._writer

    def _check_open(self) -> None:
        if self._closing is not None:
            raise StoreClosed(f"the store at {self.path} was closed")
        if self._transactor is not None and self._transactor.poison is not None:
            raise StoreUnavailable(str(self._transactor.poison)) from self._transactor.poison

    def _poison(self, failure: StoreUnavailable) -> None:
        if self._transactor is not None:
            self._transactor.poison = failure


def _end_all(leases: dict[int, SqliteLease]) -> None:
    for lease in leases.values():
        lease.end()
    leases.clear()
