"""The limits that all engines on a store share, as one worker knows them: which are full, and which somebody sweeps.

What is known here is only a hint: it saves asking the store for what it has just refused. Whether there is room is
decided by the store alone, with the commit that takes a permit.

A permit that belonged to a dead worker, or was granted and never taken, is free as soon as the store looks, and so is
a start when its rate was made shorter. It looks when a commit names the limit; when all who want a permit wait, none
does. So a worker names the limits that it knows now and then (`sweep`), and once more when its own lease has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from engine.runtime.histories import head_or_none
from engine.tasks import EVERY_TASK, Named
from eventstore import Clock, Commit, EventStore, Permit, StreamNotFound
from eventstore.errors import UnknownPool, VersionConflict
from eventstore.holding import Limit, limit_of
from eventstore.port import pool_stream

__all__ = ["FULL_SECONDS", "NO_KINDS", "SWEEP_SECONDS", "SharedLimits"]

FULL_SECONDS: Final = 1.0
"""How long a pool that was full is taken to be, when nobody says that it has room again."""
AGREE_SECONDS: Final = 0.01
"""How long to wait for a rate that should have room by now, and has none: the store's clock is behind."""
SWEEP_SECONDS: Final = 5.0
"""How often a worker lets the store look for permits that belong to nobody."""
NO_KINDS: Final[Mapping[str, bool]] = MappingProxyType({})
_NOBODY: Final = "nobody"


class SharedLimits:
    """See the module. `kinds`: limits that are known from the start, and whether they are rates."""

    def __init__(self, clock: Clock, kinds: Mapping[str, bool] = NO_KINDS) -> None:
        self._clock = clock
        self._kinds = dict(kinds)
        self._full: dict[str, int] = {}  # by limit: until when, microseconds
        self._retry: dict[str, int] = {}  # by rate: when it should have room
        self._with_every: dict[tuple[Named, ...], tuple[Named, ...]] = {}
        self._every = Named(EVERY_TASK, is_rate=False) if EVERY_TASK in self._kinds else None
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
        if retry_at is None:
            self._full[name] = self._clock.now() + round(FULL_SECONDS * 1_000_000)
            self._retry.pop(name, None)
        else:
            soon = self._clock.now() + round(AGREE_SECONDS * 1_000_000)
            self._full[name] = self._retry[name] = max(retry_at, soon)

    def has_room(self, name: str) -> None:
        """The store has granted a permit: somebody made room."""
        self._full.pop(name, None)

    def retry_at(self, name: str) -> int | None:
        """When a rate should have room, in microseconds; None for pools."""
        return self._retry.get(name)

    async def learn(self, store: EventStore, needs: Iterable[Named]) -> Named | None:
        """Find out what these are, where that is not known yet. Returns one that is not there, or of the other kind."""
        for need in needs:
            if need.name not in self._kinds:
                limit = await _limit(store, need.name)
                if limit is None:
                    return need  # and it is looked for again: somebody may declare it
                self._kinds[need.name] = limit.window is not None
            if self._kinds[need.name] != need.is_rate:
                return need
        return None

    def knows(self, name: str) -> bool:
        """Whether there is a limit of that name, of whatever kind, as far as is known here."""
        return name in self._kinds

    @property
    def sweep_seconds(self) -> float:
        """How long a worker may sleep, at most, for the sake of the limits that it knows."""
        return SWEEP_SECONDS if self._kinds else float("inf")

    async def sweep(self, store: EventStore, next_id: Callable[[], str], *, last: bool = False) -> None:
        """Let the store look for what belongs to nobody, in each limit that is known here, unless that was just done.

        `last`: whatever was done. Raises what the store raises.
        """
        now = self._clock.monotonic()
        if not self._kinds or (now - self._swept_at < SWEEP_SECONDS and not last):
            return
        self._swept_at = now
        looks = (_look(store, name, next_id()) for name in sorted(self._kinds))  # together: one transaction
        for error in await asyncio.gather(*looks, return_exceptions=True):
            if error is not None:
                raise error


async def _limit(store: EventStore, name: str) -> Limit | None:
    head = await head_or_none(store, pool_stream(name))
    return None if head is None else limit_of(head.attributes)


async def _look(store: EventStore, name: str, commit_id: str) -> None:
    """Name a limit in a commit."""
    stream, look = pool_stream(name), Permit(pool=name, holder=_NOBODY, action="return")
    try:
        head = await store.head(stream)
        await store.commit(Commit(id=commit_id, stream=stream, expected_version=head.version, permits=(look,)))
    except (StreamNotFound, UnknownPool, VersionConflict):
        return  # it is gone, or somebody else has just named it
