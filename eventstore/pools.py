"""The permits of the memory store, in dicts. What they mean is in `eventstore.holding`."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Mapping
from typing import Final

from eventstore.errors import UnknownPool
from eventstore.holding import Held, Limit, Pool, Waiting, limit_of, looked_after_here
from eventstore.port import Scalar, Timestamp, pool_stream

__all__ = ["MemoryPool", "MemoryPools"]


class MemoryPool:
    """One pool. Its queue is a sorted list; the tags of each key rise, so the last is the highest."""

    def __init__(
        self,
        name: str,
        *,
        attributes: Callable[[], Mapping[str, Scalar]],
        looked_after: Callable[[Held], bool],
        on_change: Callable[[str], None],
    ) -> None:
        self.name = name
        self.arrivals = 0
        self.turns: Mapping[int, int] = {}
        self._attributes: Final = attributes
        self._looked_after: Final = looked_after
        self._on_change: Final = on_change  # told of each stream that may have won or lost something here
        self._permits: Final[dict[str, Held]] = {}
        self._waiters: Final[dict[str, Waiting]] = {}
        self._queue: Final[list[tuple[tuple[int, int, int], str]]] = []
        self._tags: Final[dict[tuple[int, str], list[int]]] = {}

    @property
    def limit(self) -> Limit | None:
        return limit_of(self._attributes())

    @property
    def held(self) -> int:
        return len(self._permits)

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    def permit(self, holder: str) -> Held | None:
        return self._permits.get(holder)

    def waiter(self, holder: str) -> Waiting | None:
        return self._waiters.get(holder)

    def set_permit(self, holder: str, permit: Held | None) -> None:
        before = self._permits.pop(holder, None)
        if permit is not None:
            self._permits[holder] = permit
        for either in (before, permit):
            if either is not None:
                self._on_change(either.stream)

    def set_waiter(self, holder: str, waiter: Waiting | None) -> None:
        before = self._waiters.pop(holder, None)
        if before is not None:
            self._queue.remove((before.place, holder))
            self._tags[before.priority, before.key].remove(before.tag)
            self._on_change(before.stream)
        if waiter is not None:
            self._waiters[holder] = waiter
            insort(self._queue, (waiter.place, holder))
            insort(self._tags.setdefault((waiter.priority, waiter.key), []), waiter.tag)
            self._on_change(waiter.stream)

    def lasting(self) -> list[tuple[str, Held]]:
        """What is held lastingly, by holder."""
        found = ((holder, permit) for holder, permit in self._permits.items() if permit.lasting)
        return sorted(found, key=lambda item: item[0])

    def queue(self) -> list[tuple[str, Waiting]]:
        """Who waits, first to last."""
        return [(holder, self._waiters[holder]) for _, holder in self._queue]

    def first(self) -> tuple[str, Waiting]:
        holder = self._queue[0][1]
        return holder, self._waiters[holder]

    def last_tag(self, priority: int, key: str) -> int:
        tags = self._tags.get((priority, key))
        return tags[-1] if tags else 0

    def ahead(self, waiter: Waiting) -> int:
        return bisect_left(self._queue, (waiter.place, ""))

    def stamp(self, index: int) -> Timestamp:
        return self._oldest_first()[index][1].taken_at

    def taken_until(self, until: Timestamp) -> list[str]:
        return [holder for holder, permit in self._oldest_first() if permit.taken_at <= until]

    def granted_until(self, until: Timestamp) -> list[tuple[str, Held]]:
        return [
            (holder, permit)
            for holder, permit in self._oldest_first()
            if not permit.confirmed and permit.taken_at <= until
        ]

    def oldest(self) -> str:
        return self._oldest_first()[0][0]

    def abandoned(self, stream: str, token: int | None) -> list[str]:
        return [
            holder
            for holder, permit in self._permits.items()
            if not (looked_after_here(permit, token) if permit.stream == stream else self._looked_after(permit))
        ]

    def of_stream(self, stream: str) -> list[tuple[str, str]]:
        """Pool and holder of all that a stream has here."""
        everything: list[tuple[str, Held | Waiting]] = [*self._permits.items(), *self._waiters.items()]
        return [(self.name, holder) for holder, one in everything if one.stream == stream]

    def _oldest_first(self) -> list[tuple[str, Held]]:
        return sorted(self._permits.items(), key=lambda item: (item[1].taken_at, item[0]))


class MemoryPools:
    """All pools of a memory store."""

    def __init__(
        self,
        *,
        attributes: Callable[[str], Mapping[str, Scalar] | None],
        looked_after: Callable[[Held], bool],
    ) -> None:
        self._attributes: Final = attributes  # of a stream by its name; None: there is none
        self._looked_after: Final = looked_after
        self._pools: Final[dict[str, MemoryPool]] = {}
        self._of_stream: Final[dict[str, set[str]]] = {}  # where a stream may have something: a superset

    def pool(self, name: str) -> Pool:
        if self._attributes(pool_stream(name)) is None:
            raise UnknownPool(name, exists=False)
        pool = self._pools.get(name)
        if pool is None:
            pool = self._pools[name] = MemoryPool(
                name,
                attributes=lambda: self._attributes(pool_stream(name)) or {},
                looked_after=self._looked_after,
                on_change=lambda stream: self._of_stream.setdefault(stream, set()).add(name),
            )
        return pool

    def everything(self) -> list[MemoryPool]:
        """All pools that were ever named, by name."""
        return [self._pools[name] for name in sorted(self._pools)]

    def of_stream(self, stream: str) -> Collection[tuple[str, str]]:
        names = self._of_stream.pop(stream, set())
        found = sorted(one for name in names for one in self._pools[name].of_stream(stream))
        if found:
            self._of_stream[stream] = {name for name, _ in found}
        return found
