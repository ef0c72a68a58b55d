"""The limits that all engines on a store share, as one worker knows them: which are full, and which somebody sweeps.

What is known here is only a hint: it saves asking the store for what it has just refused. Whether there is room is
decided by the store alone, with the commit that takes a permit.

A permit that belonged to a dead worker, or was granted and never taken, is free as soon as the store looks. It looks
when a commit names the pool; when all who want a permit wait, none does. So a worker names the pools that it knows now
and then (`sweep`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from engine.tasks import EVERY_TASK, Named
from eventstore import Clock, Commit, EventStore, Permit, StreamNotFound
from eventstore.errors import UnknownPool, VersionConflict
from eventstore.port import pool_stream

__all__ = ["FULL_SECONDS", "SWEEP_SECONDS", "SharedLimits"]

FULL_SECONDS: Final = 1.0
"""How long a pool that was full is taken to be, when nobody says that it has room again."""
SWEEP_SECONDS: Final = 20.0
"""How often a worker lets the store look for permits that belong to nobody."""
_NOBODY: Final = "nobody"


class SharedLimits:
    """See the module. `names`: limits that are known from the start."""

    def __init__(self, clock: Clock, names: Iterable[str] = ()) -> None:
        self._clock = clock
        self._names = set(names)
        self._full: dict[str, int] = {}  # by limit: until when, microseconds
        self._retry: dict[str, int] = {}  # by rate: when it should have room
        self._with_every: dict[tuple[Named, ...], tuple[Named, ...]] = {}
        self._every = Named(EVERY_TASK, is_rate=False) if EVERY_TASK in self._names else None
        self._swept_at = clock.monotonic()

    def with_every(self, limits: tuple[Named, ...]) -> tuple[Named, ...]:
        """These, and the pool that every task is under, if there is one: slots first, in one order for all."""
        if self._every is None:
            return limits
        found = self._with_every.get(limits)
        if found is None:
            slots = [limit for limit in limits if not limit.is_rate]
            rates = [limit for limit in limits if limit.is_rate]
            found = self._with_every[limits] = (*slots, self._every, *rates)
        return found

    def is_full(self, name: str) -> bool:
        """Whether there was no room just now."""
        until = self._full.get(name)
        if until is None:
            return False
        if until > self._clock.now():
            return True
        del self._full[name]
        return False

    def found_full(self, name: str, retry_at: int | None) -> None:
        """The store has refused a permit. `retry_at`: when a rate should have room, in microseconds."""
        self._names.add(name)
        if retry_at is None:
            self._full[name] = self._clock.now() + round(FULL_SECONDS * 1_000_000)
            self._retry.pop(name, None)
        else:
            self._full[name] = self._retry[name] = retry_at

    def has_room(self, name: str) -> None:
        """The store has granted a permit: somebody made room."""
        self._full.pop(name, None)

    def retry_at(self, name: str) -> int | None:
        """When a rate should have room, in microseconds; None for pools."""
        return self._retry.get(name)

    async def sweep(self, store: EventStore, next_id: Callable[[], str]) -> None:
        """Let the store look for what belongs to nobody, in each limit that is known here, unless that was just done.

        Raises what the store raises.
        """
        now = self._clock.monotonic()
        if not self._names or now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        for name in sorted(self._names):
            stream = pool_stream(name)
            try:
                head = await store.head(stream)
                look = Permit(pool=name, holder=_NOBODY, action="return")
                await store.commit(Commit(id=next_id(), stream=stream, expected_version=head.version, permits=(look,)))
            except (StreamNotFound, UnknownPool, VersionConflict):
                continue  # it is gone, or somebody else has just named it
