"""The store of a lab: the memory store, watched, so that one can tell when nothing moves, and killed where wanted.

A killed store behaves as one whose process died: nothing works any more, and its leases are dead at once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias

from eventstore import (
    Commit,
    KeptDigest,
    Lease,
    Message,
    Page,
    RecordedEvent,
    StoreUnavailable,
    StreamHead,
    StreamQuery,
    Timestamp,
)
from eventstore.memory import MemoryStore
from eventstore.moving import Installed, Item, StoredStream

__all__ = ["Fault", "Plan", "WatchedStore"]

Fault: TypeAlias = Literal["before", "after"]
"""Whether the process dies before a call of the store takes effect, or behind that and before the answer."""
Plan: TypeAlias = Callable[["WatchedStore", str, Any], Fault | None]
"""Asked at every call, with the name of the method and its argument; `calls` and `commits` count this one already."""


class WatchedStore:
    """An `EventStore` around a `MemoryStore`, for one engine."""

    def __init__(
        self,
        inner: MemoryStore,
        *,
        expect: Callable[[Timestamp], None],
        plan: Plan | None = None,
        stir: Callable[[], None] | None = None,
    ) -> None:
        self.inner = inner
        self._expect = expect  # told of the alarms of streams: of runs that rest, nobody else knows them
        self.calls = 0
        self.commits = 0
        self.moves = 0  # calls that changed something, or brought somebody work
        self.busy: frozenset[str] = frozenset()  # streams left out of the last claim: they are being worked on
        self.dead = False
        self._plan = plan
        self._stir = stir
        self._leases: list[Lease] = []
        self._nudged = asyncio.Event()

    @property
    def capabilities(self) -> frozenset[Any]:
        return self.inner.capabilities

    def nudge(self) -> None:
        """Let the worker that sleeps ask again what needs attention."""
        self._nudged.set()

    def die(self) -> None:
        """The process that holds this store dies."""
        self.dead = True
        for lease in self._leases:
            self.inner.end(lease)
        self._leases.clear()
        self.nudge()

    async def _call(self, name: str, argument: Any, call: Callable[[], Any]) -> Any:
        fault = self._begin(name, argument)
        if fault == "before":
            self.die()
            await asyncio.sleep(0)
            raise self._gone(name)
        result = await call()
        if fault == "after":
            self.die()
            raise self._gone(name)
        if self._stir is not None:
            self._stir()
        return result

    def _begin(self, name: str, argument: Any) -> Fault | None:
        if self.dead:
            raise self._gone(name)
        self.calls += 1
        if name == "commit":
            self.commits += 1
        if name in ("commit", "send", "install", "forget", "prune"):
            self.moves += 1
        return None if self._plan is None else self._plan(self, name, argument)

    def _gone(self, name: str) -> StoreUnavailable:
        return StoreUnavailable(f"{name}: this process is dead; that was planned by the test")

    async def commit(self, commit: Commit) -> StreamHead:
        if isinstance(commit.alarm, int):
            self._expect(commit.alarm)  # before: nobody hears the answer, if the process dies behind it
        head: StreamHead = await self._call("commit", commit, lambda: self.inner.commit(commit))
        return head

    async def send(self, message: Message) -> None:
        await self._call("send", message, lambda: self.inner.send(message))

    async def head(self, stream: str) -> StreamHead:
        head: StreamHead = await self._call("head", stream, lambda: self.inner.head(stream))
        return head

    async def find(self, query: StreamQuery) -> Page[StreamHead]:
        page: Page[StreamHead] = await self._call("find", query, lambda: self.inner.find(query))
        return page

    async def claim(
        self, lease: Lease, *, query: StreamQuery, limit: int, busy: Collection[str] = ()
    ) -> list[StreamHead]:
        self.busy = frozenset(busy)
        heads: list[StreamHead] = await self._call(
            "claim", query, lambda: self.inner.claim(lease, query=query, limit=limit, busy=busy)
        )
        self.moves += bool(heads)
        return heads

    async def wait(self, lease: Lease, *, timeout: float) -> None:  # noqa: ARG002 - real time means nothing here
        """Until there is news, or somebody nudges: a timeout in real time would make no two tests alike."""
        if self.dead:
            raise self._gone("wait")
        news = asyncio.ensure_future(self.inner.wait(lease, timeout=math.inf))
        nudged = asyncio.ensure_future(self._nudged.wait())
        try:
            await asyncio.wait([news, nudged], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._nudged.clear()
            for waiting in (news, nudged):
                waiting.cancel()
            await asyncio.wait([news, nudged])
        if self.dead:
            raise self._gone("wait")
        if not news.cancelled():
            news.result()

    async def read(
        self, stream: str, *, after: int = 0, until: int | None = None, proof: bool = True
    ) -> AsyncIterator[RecordedEvent]:
        if self._begin("read", stream) is not None:
            self.die()
            raise self._gone("read")
        async for event in self.inner.read(stream, after=after, until=until, proof=proof):
            yield event
            if self.dead:
                raise self._gone("read")

    async def read_all(self, *, after: int = 0, category: str | None = None) -> AsyncIterator[RecordedEvent]:
        async for event in self.inner.read_all(after=after, category=category):
            yield event

    async def forget(self, stream: str, *, versions: Collection[int] | None = None) -> int:
        count: int = await self._call("forget", stream, lambda: self.inner.forget(stream, versions=versions))
        return count

    async def prune(self, stream: str, *, until: int) -> int:
        count: int = await self._call("prune", stream, lambda: self.inner.prune(stream, until=until))
        return count

    def leaves(self, *, after: int = 0) -> AsyncIterator[RecordedEvent | KeptDigest]:
        return self.inner.leaves(after=after)

    def kept(self, stream: str, *, after: int = 0) -> AsyncIterator[KeptDigest]:
        return self.inner.kept(stream, after=after)

    def dump(self, streams: Sequence[str] | None = None) -> AsyncGenerator[Item, None]:
        return self.inner.dump(streams)

    async def install(self, items: Iterable[Item], *, behind: Commit | None = None) -> Installed:
        def seen() -> Iterator[Item]:
            for item in items:
                if isinstance(item, StoredStream) and item.alarm is not None:
                    self._expect(item.alarm)
                yield item

        installed: Installed = await self._call("install", behind, lambda: self.inner.install(seen(), behind=behind))
        return installed

    @asynccontextmanager
    async def lease(self, worker: str) -> AsyncIterator[Lease]:
        if self._begin("lease", worker) is not None:
            self.die()
            raise self._gone("lease")
        async with self.inner.lease(worker) as lease:
            self._leases.append(lease)
            try:
                yield lease
            finally:
                if lease in self._leases:
                    self._leases.remove(lease)

    async def aclose(self) -> None:
        """The one inside outlives it: that is what is left after a crash."""
