"""A store that fails on purpose, wrapped around a good one.

`plan` is asked at every call, with its number and the name of the method, what is to happen to it:

* ``"die before"``, ``"die after"``: the call fails, and the store is unusable from then on, as after the death of the
  process; after: what was asked for had happened. Its leases are dead.
* ``"refuse"``, ``"lose reply"``: only this call fails; the next ones work.
* ``None``: nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias

from engine import Engine
from eventstore import EventStore, Lease, StoreUnavailable

Fault: TypeAlias = Literal["die before", "die after", "refuse", "lose reply"]
Plan: TypeAlias = Callable[[int, str], Fault | None]


def at_call(number: int, fault: Fault, *, only: str | None = None) -> Plan:
    """The fault at the call of that number (of that method, if one is named)."""
    seen = 0

    def plan(_number: int, name: str) -> Fault | None:
        nonlocal seen
        if only is None or name == only:
            seen += 1
            return fault if seen == number else None
        return None

    return plan


class FaultyStore:
    """See the module."""

    def __init__(self, inner: EventStore, plan: Plan = lambda _number, _name: None) -> None:
        self.inner = inner
        self.plan = plan
        self.calls: list[str] = []
        self.dead = False
        self.faults = 0
        self.before: Callable[[str, Any], Coroutine[Any, Any, None]] | None = None  # awaited before every call
        self.after: Callable[[str, Any], Coroutine[Any, Any, None]] | None = None  # awaited behind it, before the reply
        self._leases: list[Any] = []

    @property
    def capabilities(self) -> Any:
        return self.inner.capabilities

    async def _call(self, name: str, argument: Any, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        fault = self._begin(name)
        if fault in ("die before", "refuse"):
            await asyncio.sleep(0)
            raise self._error(name)
        if self.before is not None:
            await self.before(name, argument)
        result = await call()
        if self.after is not None:
            await self.after(name, argument)
        if fault is not None:
            raise self._error(name)
        return result

    def _begin(self, name: str) -> Fault | None:
        if self.dead:
            raise self._error(name)
        self.calls.append(name)
        fault = self.plan(len(self.calls), name)
        if fault is not None:
            self.faults += 1
        if fault == "die before":
            self.die()
        elif fault == "die after":
            self._die_soon = True
        return fault

    _die_soon = False

    def _error(self, name: str) -> StoreUnavailable:
        if self._die_soon:
            self._die_soon = False
            self.die()
        return StoreUnavailable(f"planned: {name} failed" + (", the store is dead" if self.dead else ""))

    def die(self) -> None:
        """From now on nothing works; the leases given out die as they would with their process."""
        self.dead = True
        for lease in self._leases:
            end = getattr(lease, "end", None)
            if end is not None:
                end()
            else:
                self.inner.end(lease)  # type: ignore[attr-defined]
        self._leases.clear()

    async def commit(self, commit: Any) -> Any:
        return await self._call("commit", commit, lambda: self.inner.commit(commit))

    async def send(self, message: Any) -> Any:
        return await self._call("send", message, lambda: self.inner.send(message))

    async def head(self, stream: str) -> Any:
        return await self._call("head", stream, lambda: self.inner.head(stream))

    async def find(self, query: Any) -> Any:
        return await self._call("find", query, lambda: self.inner.find(query))

    async def claim(self, lease: Any, *, query: Any, limit: int, busy: Any = ()) -> Any:
        return await self._call("claim", query, lambda: self.inner.claim(lease, query=query, limit=limit, busy=busy))

    async def wait(self, lease: Any, *, timeout: float) -> None:
        if self.dead:
            raise self._error("wait")
        await self.inner.wait(lease, timeout=timeout)
        if self.dead:
            raise self._error("wait")

    async def read(
        self, stream: str, *, after: int = 0, until: int | None = None, proof: bool = True
    ) -> AsyncIterator[Any]:
        fault = self._begin("read")
        if fault in ("die before", "refuse"):
            raise self._error("read")
        async for event in self.inner.read(stream, after=after, until=until, proof=proof):
            yield event
            if self.dead:
                raise self._error("read")
        if fault is not None:
            raise self._error("read")

    async def read_all(self, *, after: int = 0, category: str | None = None) -> AsyncIterator[Any]:
        async for event in self.inner.read_all(after=after, category=category):
            yield event

    async def forget(self, stream: str, *, versions: Any = None) -> Any:
        return await self._call("forget", stream, lambda: self.inner.forget(stream, versions=versions))  # type: ignore[attr-defined]

    async def prune(self, stream: str, *, until: int) -> Any:
        return await self._call("prune", stream, lambda: self.inner.prune(stream, until=until))  # type: ignore[attr-defined]

    async def leaves(self, *, after: int = 0) -> AsyncIterator[Any]:
        async for leaf in self.inner.leaves(after=after):  # type: ignore[attr-defined]
            yield leaf

    async def kept(self, stream: str, *, after: int = 0) -> AsyncIterator[Any]:
        async for leaf in self.inner.kept(stream, after=after):  # type: ignore[attr-defined]
            yield leaf

    @asynccontextmanager
    async def lease(self, worker: str) -> AsyncIterator[Lease]:
        if self._begin("lease") in ("die before", "refuse"):
            raise self._error("lease")
        async with self.inner.lease(worker) as lease:
            self._leases.append(lease)
            if self._die_soon:
                raise self._error("lease")
            try:
                yield lease
            finally:
                if lease in self._leases:
                    self._leases.remove(lease)

    async def aclose(self) -> None:
        """The one inside is closed by whoever opened it."""


class Pause:
    """Holds back one call of a store, before it or behind it, until `go`."""

    def __init__(self, store: FaultyStore, *, behind: bool, when: Callable[[str, Any], bool]) -> None:
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()

        async def hold(name: str, argument: Any) -> None:
            if not self.reached.is_set() and when(name, argument):
                self.reached.set()
                await self.let_go.wait()

        if behind:
            store.after = hold
        else:
            store.before = hold


async def leave(engine: Engine) -> None:
    """Leave an engine whose store may be dead by then."""
    try:
        await engine.__aexit__(None, None, None)
    except Exception:  # noqa: BLE001, S110 - its store is dead, and it may say so
        pass
