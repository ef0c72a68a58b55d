"""Rings the watches of runs that another process works on, or that rest.

Runs in this process tell their watchers themselves; for the others somebody must look. One query for all of them,
while anybody waits, and nothing when nobody does.
"""

from __future__ import annotations

import asyncio
from typing import Final

from engine.runtime.dispatch import Spawn
from engine.runtime.streams import stream_of
from engine.runtime.watches import Watch
from eventstore import EventStore, EventStoreError, StreamQuery
from eventstore.port import FIND_LIMIT_MAX

__all__ = ["LOOK_SECONDS", "Observer"]

LOOK_SECONDS: Final = (0.05, 1.0)
"""The shortest and the longest pause between two looks; it doubles while nothing moves."""


class Observer:
    """Looks at what its watchers wait for."""

    def __init__(self, store: EventStore, spawn: Spawn) -> None:
        self._store = store
        self._spawn = spawn
        # Version and time of the last commit, as last seen: one without events may answer mail (a refused request).
        self._watches: dict[Watch, tuple[int, int]] = {}
        self._looking = False
        self._stopped = False

    def add(self, watch: Watch) -> None:
        """Ring this watch when its run moves."""
        if self._stopped or watch in self._watches:
            return
        self._watches[watch] = (-1, -1)
        if not self._looking:
            self._looking = True
            self._spawn(self._look_while_awaited())

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        self._watches.clear()

    async def _look_while_awaited(self) -> None:
        shortest, longest = LOOK_SECONDS
        pause = shortest
        try:
            while True:
                await asyncio.sleep(pause)
                self._watches = {watch: seen for watch, seen in self._watches.items() if watch.awaited}
                if not self._watches:
                    return
                moved = await self._look()
                pause = shortest if moved else min(longest, pause * 2)
        except EventStoreError as error:
            for watch in self._watches:
                watch.tell(error)
            self._watches.clear()
        finally:
            self._looking = False

    async def _look(self) -> bool:
        moved = False
        distant = [watch for watch in self._watches if not watch.resident]
        for start in range(0, len(distant), FIND_LIMIT_MAX):
            by_stream = {stream_of(watch.run_id): watch for watch in distant[start : start + FIND_LIMIT_MAX]}
            # Also one that was pruned since we looked: it has ended meanwhile.
            query = StreamQuery(streams=tuple(by_stream), pruned=None, limit=FIND_LIMIT_MAX)
            page = await self._store.find(query)
            for head in page.items:
                watch = by_stream[head.stream]
                seen = (head.version, head.updated_at)
                if self._watches.get(watch) != seen:
                    self._watches[watch] = seen
                    moved = True
                    watch.ring()
        return moved
