"""Holds the conformance suite's harness against `SqliteStore`: handles on one file, and leases that die on demand."""

from __future__ import annotations

from pathlib import Path

from eventstore.conformance import TurnedClock
from eventstore.port import EventStore, Lease, Timestamp
from eventstore.sqlite import SqliteStore, WritesOn
from eventstore.sqlite.leases import SqliteLease


class SqliteHarness:
    """Each handle is a store object of its own on one file, as another process would have it."""

    reopenable = True

    def __init__(self, directory: Path, writes_on: WritesOn) -> None:
        self._writes_on: WritesOn = writes_on
        self._path = directory / "conformance.db"
        self._clock = TurnedClock()
        self._open: list[SqliteStore] = []

    async def open(self) -> EventStore:
        store = await SqliteStore.open(self._path, clock=self._clock, writes_on=self._writes_on)
        self._open.append(store)
        return store

    def now(self) -> Timestamp:
        return self._clock.now()

    async def turn(self, seconds: float) -> None:
        self._clock.turn(seconds)

    async def crash_lease(self, lease: Lease) -> None:
        """What the kernel does to the lease of a killed process, and no more: the descriptor closes, the lock is free."""
        assert isinstance(lease, SqliteLease)
        lease.forget()
        lease._stop.set()

    async def stall_lease(self, lease: Lease) -> None:
        """The last beat is made as old as it is after a pause; the beating thread goes on from there."""
        assert isinstance(lease, SqliteLease)
        with lease._lock:
            lease._beat_at -= 3_600
            lease._write(lease._beat_at)

    async def aclose(self) -> None:
        for store in self._open:
            await store.aclose()
