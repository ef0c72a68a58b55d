"""Who is next, fairly: by priority, then in turn between keys, then by arrival.

Start-time fair queueing, as in the queue of a pool in the store (`eventstore.permits`): each entry's tag is one more
than that of the last served, or than the last tag of its own key if that is later. So the thousandth entry of a busy
key stands a thousand turns behind, and the first of another key one. Each priority counts its own turns.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

T = TypeVar("T")


class FairQueue(Generic[T]):
    """See the module. Entries are never compared with each other."""

    __slots__ = ("_arrivals", "_entries", "_last", "_turns")

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, int, T]] = []
        self._arrivals = 0
        self._turns: dict[int, int] = {}  # by priority: the tag of the last served
        self._last: dict[tuple[int, str], int] = {}  # the last tag of each key

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, entry: T, *, priority: int = 0, key: str = "") -> None:
        """Let it join."""
        tag = max(self._turns.get(priority, 0), self._last.get((priority, key), 0)) + 1
        self._last[priority, key] = tag
        self._arrivals += 1
        heappush(self._entries, (-priority, tag, self._arrivals, entry))

    def pop(self) -> T:
        """Take the first. Raises `IndexError` when there is none."""
        priority, tag, _, entry = heappop(self._entries)
        self._turns[-priority] = tag
        if not self._entries:
            self.clear()  # nobody is left to be fair to
        return entry

    def clear(self) -> None:
        """Nobody waits any more."""
        self._entries.clear()
        self._turns.clear()
        self._last.clear()
