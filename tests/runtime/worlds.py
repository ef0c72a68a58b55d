"""What the tests of the shell stand on: a clock turned by hand, stores that survive their engine, waiting with a limit.

A `World` is the part that outlives engines: the data and the clock. Engines are opened on it and crash, close, or go on.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from engine import Engine, RunHandle
from engine.errors import RunSuspendedError
from eventstore import EventStore
from eventstore.memory import MemoryStore
from eventstore.sqlite import SqliteStore

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
"""How long a test waits for what must happen before it fails. A limit, not a wait."""
LOOK_SECONDS = 0.002
"""Between two looks at a condition."""
START = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z, microseconds."""
LONG_TTL_SECONDS = 1e9
"""Of leases that must not die of a turned clock."""


class ManualClock:
    """A `Clock` that moves only by hand, and tells whoever wants to know that it moved."""

    def __init__(self, now: int = START) -> None:
        self._now = now
        self._monotonic = 1_000.0
        self._listeners: list[Callable[[], None]] = []

    def now(self) -> int:
        """Microseconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass: both clocks move."""
        self._monotonic += seconds
        self.step(seconds)

    def step(self, seconds: float) -> None:
        """Set the time of day, forwards or back, as somebody who corrects the machine's clock."""
        self._now += round(seconds * 1_000_000)
        for listener in list(self._listeners):
            listener()

    def on_turn(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after every turn. Returns what ends that."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)


class World:
    """Data that outlives engines, and the clock they share."""

    kind: str
    clock: ManualClock

    async def store(self) -> EventStore:
        """A handle on the data; opened anew for each engine where the store has handles."""
        raise NotImplementedError

    async def crash(self, store: EventStore) -> None:
        """The holder of this handle dies: its leases are dead at once."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close what the test left open."""
        raise NotImplementedError

    @asynccontextmanager
    async def engine(self, *workflows: Any, **options: Any) -> AsyncIterator[Engine]:
        """An engine on a handle of its own, on the world's clock."""
        store = await self.store()
        options.setdefault("clock", self.clock)
        options.setdefault("grace", 5.0)
        try:
            async with Engine(store, workflows=workflows, **options) as engine:
                yield engine
        finally:
            await self.release(store)

    async def release(self, store: EventStore) -> None:
        """Close a handle that `store` gave."""
        raise NotImplementedError


class MemoryWorld(World):
    """One memory store; its handles are itself."""

    kind = "memory"

    def __init__(self, *, lease_ttl: float = LONG_TTL_SECONDS) -> None:
        self.clock = ManualClock()
        self.data = MemoryStore(clock=self.clock, lease_ttl=lease_ttl)
        self._unsubscribe = self.clock.on_turn(self.data.notify)

    async def store(self) -> EventStore:
        return self.data

    async def release(self, store: EventStore) -> None:
        """The one handle stays open."""

    async def crash(self, store: EventStore) -> None:
        for lease in list(self.data._leases.values()):
            self.data.end(lease)

    async def aclose(self) -> None:
        self._unsubscribe()
        await self.data.aclose()


class SqliteWorld(World):
    """A SQLite file; every handle is a store of its own, as another process would have it."""

    kind = "sqlite"

    def __init__(self, path: Path, *, lease_ttl: float = LONG_TTL_SECONDS) -> None:
        self.clock = ManualClock()
        self.path = path
        self.lease_ttl = lease_ttl
        self._open: list[SqliteStore] = []

    async def store(self) -> SqliteStore:
        # NORMAL: these tests kill no machine, only what runs in it, and hundreds of fsyncs are slow.
        store = await SqliteStore.open(self.path, clock=self.clock, synchronous="NORMAL", lease_ttl=self.lease_ttl)
        self._open.append(store)
        return store

    async def release(self, store: EventStore) -> None:
        self._open.remove(store)  # type: ignore[arg-type]
        await store.aclose()

    async def crash(self, store: EventStore) -> None:
        # Its leases end in the file as they would with the process: the lock is gone, the database is not told.
        assert isinstance(store, SqliteStore)
        for lease in list(store._leases.values()):
            lease.end()

    async def aclose(self) -> None:
        for store in list(self._open):
            await self.release(store)


async def until(condition: Callable[[], Any], *, seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait until the condition holds, and return what it returned; fails instead of hanging."""
    async with asyncio.timeout(seconds):
        while not (found := condition()):
            await asyncio.sleep(LOOK_SECONDS)
    return found


async def until_async(condition: Callable[[], Awaitable[Any]], *, seconds: float = PATIENCE_SECONDS) -> Any:
    """Like `until`, for a condition that has to ask."""
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(LOOK_SECONDS)
    return found


async def soon(awaitable: Awaitable[T], *, seconds: float = PATIENCE_SECONDS) -> T:
    """What must happen; fails instead of hanging."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def result_of(run: RunHandle[T]) -> T:
    """The result of a run whose workers die so often in a test that it may be parked: a person lets it go on."""
    while True:
        try:
            return await run.result()
        except RunSuspendedError:
            diagnosis = (await run.state()).diagnosis
            if diagnosis is not None and diagnosis.reason != "crashes":
                raise
            await run.resume()
            await asyncio.sleep(LOOK_SECONDS)


async def at_rest(store: EventStore, run_id: str) -> None:
    """Wait until nobody owns the run and nothing is due: it was given up, and waits for time or mail."""
    clock = getattr(store, "inner", store)._clock

    async def resting() -> bool:
        head = await store.head(f"run:{run_id}")
        due = bool(head.messages) or (head.alarm is not None and head.alarm <= clock.now())
        return head.owner is None and (head.held or head.closed or not due)

    await until_async(resting)


async def unowned(store: EventStore, run_id: str) -> None:
    """Wait until nobody owns the run, though something may be due: whoever is there may not take it."""

    async def is_unowned() -> bool:
        return (await store.head(f"run:{run_id}")).owner is None

    await until_async(is_unowned)


async def settle(turns: int = 50) -> None:
    """Let everything run that can run without time passing. For saying that something does *not* happen."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def events_of(handle: RunHandle[Any]) -> list[Any]:
    """The run's events as recorded."""
    return [item.event async for item in handle.events()]


async def kinds_of(handle: RunHandle[Any]) -> list[str]:
    """The names of the run's events."""
    return [type(event).__name__ for event in await events_of(handle)]


def forget() -> None:
    """Drop what nobody holds, as time would."""
    gc.collect()
