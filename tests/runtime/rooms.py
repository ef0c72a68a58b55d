"""What the tests of shared limits stand on: a room that counts who is inside, and looks into stores from the outside.

A `Room` is what a limit protects. It is counted here, not in the engine: what the engine believes is not asked.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable
from typing import Any

from msgspec import structs

from engine.core.events import TaskStarted, decode_header
from eventstore import NEW, Commit, EventStore, LimitReached, Permit, StreamNotFound
from eventstore.memory import MemoryStore
from eventstore.sqlite import SqliteStore
from tests.runtime.worlds import World, until, until_async

__all__ = ["Room", "all_free", "held_in", "most_in_a_window", "nothing_held", "permits_in", "started_at", "waiting_in"]


class Room:
    """Who is inside, in which order they came, and how many there were at most. They stay until they are let go."""

    def __init__(self, *, open_: bool = False) -> None:
        self.inside: list[Any] = []
        self.order: list[Any] = []
        self.most = 0
        self.open = open_
        self._doors: dict[Any, asyncio.Event] = {}

    async def visit(self, who: Any) -> Any:
        """Stay until let go, or, when the room is open, for a moment."""
        self.inside.append(who)
        self.order.append(who)
        self.most = max(self.most, len(self.inside))
        try:
            if self.open:
                await asyncio.sleep(0)
            else:
                await self._door(who).wait()
        finally:
            self.inside.remove(who)
        return who

    def _door(self, who: Any) -> asyncio.Event:
        return self._doors.setdefault(who, asyncio.Event())

    def let_go(self, *who: Any) -> None:
        """Those leave now, or as soon as they come."""
        for each in who:
            self._door(each).set()

    def let_all_go(self) -> None:
        """From now on nobody is kept."""
        self.open = True
        for door in self._doors.values():
            door.set()

    async def holds(self, count: int) -> list[Any]:
        """Wait until so many are inside."""
        await until(lambda: len(self.inside) == count)
        return list(self.inside)


def held_in(store: EventStore) -> Counter[str]:
    """Permits held and granted now, by pool: what is in the store, not what it says about itself."""
    return _rows(store, "permits", "_permits")


def waiting_in(store: EventStore) -> Counter[str]:
    """Places in queues now, by pool."""
    return _rows(store, "permit_waiters", "_waiters")


def _rows(store: Any, table: str, attribute: str) -> Counter[str]:
    store = getattr(store, "inner", store)
    if isinstance(store, MemoryStore):
        pools = store._streams._pools._pools
        return +Counter({name: len(getattr(pool, attribute)) for name, pool in pools.items()})
    assert isinstance(store, SqliteStore)
    database = sqlite3.connect(f"file:{store.path}?mode=ro", uri=True)
    try:
        return Counter(dict(database.execute(f"SELECT pool, count(*) FROM {table} GROUP BY pool")))  # noqa: S608
    finally:
        database.close()


async def permits_in(world: World) -> tuple[Counter[str], Counter[str]]:
    """What is held and what waits, in a world whose engines may be gone."""
    store = await world.store()
    try:
        return held_in(store), waiting_in(store)
    finally:
        await world.release(store)


async def nothing_held(store: EventStore, *, but: Iterable[str] = ()) -> None:
    """Wait until nobody has a permit or waits for one; but for rates, whose stamps leave by themselves."""

    async def empty() -> bool:
        return not any(
            count for found in (held_in(store), waiting_in(store)) for pool, count in found.items() if pool not in but
        )

    await until_async(empty)


async def all_free(store: EventStore, pool: str, slots: int) -> None:
    """Wait until nobody waits, and all slots of a pool are to be had: what the dead held is there, and is nobody's."""
    taken = tuple(Permit(pool=pool, holder=f"probe-{n}", action="take") for n in range(slots))

    async def free() -> bool:
        try:
            head = await store.head("probe:slots")
        except StreamNotFound:
            head = None
        try:
            await store.commit(
                Commit(
                    id=os.urandom(8).hex(),
                    stream="probe:slots",
                    expected_version=NEW if head is None else head.version,
                    permits=(*taken, *(structs.replace(permit, action="return") for permit in taken)),
                )
            )
        except LimitReached:
            return False
        return not waiting_in(store)[pool]

    await until_async(free)


async def started_at(store: EventStore, *, task: str = "") -> list[int]:
    """When attempts began, as recorded in all runs: microseconds, in order. `task`: only what its ids contain."""
    found = []
    async for item in store.read_all(category="run"):
        event = decode_header(item.header)
        if isinstance(event, TaskStarted) and task in event.id:
            found.append(event.at)
    return sorted(found)


def most_in_a_window(times: list[int], window_seconds: float) -> int:
    """The most of them that any window of that length holds; a window is open at its end."""
    window = round(window_seconds * 1_000_000)
    most, first = 0, 0
    for index, time in enumerate(times):
        while times[first] <= time - window:
            first += 1
        most = max(most, index - first + 1)
    return most
