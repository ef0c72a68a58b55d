"""Runs whose histories, or values, somebody has taken away: how they were, and that nothing was taken which is needed.

What is judged at the end is judged by what was there before (`Remembered`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.audit import verify
from engine.core.events import PayloadsDestroyed, RunPruned, decode_header
from eventstore import KeptDigest, Page, RecordedEvent, StreamHead, StreamQuery
from eventstore.memory import MemoryStore
from tests.simulation.books import Wishes
from tests.simulation.outside import OUTSIDE

__all__ = ["Remembered", "Taken"]


class _Before(Struct, frozen=True):
    """A stream, as it was."""

    head: StreamHead
    events: list[RecordedEvent]


_REASONS: dict[str, Callable[[Taken, str], bool]] = {
    "has not ended": lambda taken, run_id: run_id not in taken.over or run_id in taken.wishes.reopened,
    "is a child of run": lambda taken, run_id: "/" in run_id,
    "is not made to its end": lambda taken, run_id: run_id in taken.forked,
    "a worker still has run": lambda _taken, _run_id: True,
}
"""Why something may be left as it is, by what is said, and when that can be so."""


class Taken:
    """What was taken away."""

    def __init__(self, checks: Counter[str], wishes: Wishes) -> None:
        self.checks = checks
        self.wishes = wishes
        self.before: dict[str, _Before] = {}  # by run
        self.pruned: set[str] = set()
        self.forgotten: set[str] = set()
        self.over: set[str] = set()  # who had ended when somebody asked for it to be taken away
        self.forked: set[str] = set()  # of which forks were begun

    def noted(self, run_id: str, header: bytes, head: StreamHead, events: list[Any]) -> None:
        """A commit says that a run's history, or its values, will be taken away; it was so until now."""
        event = decode_header(header)
        self.checks["only what has ended is taken away"] += 1
        if run_id not in self.wishes.ended:
            OUTSIDE.broke("taken", f"{run_id} has not ended: {event}")
        self.before.setdefault(run_id, _Before(head, events))
        if isinstance(event, PayloadsDestroyed):
            self.forgotten.add(run_id)
            return
        self.pruned.add(run_id)
        for parent, children in self.wishes.children.items():
            if any(child.run == run_id for child in children.values()):
                if parent not in self.wishes.ended and parent not in self.wishes.reopened:
                    OUTSIDE.broke("taken", f"{run_id} is pruned, and its parent {parent} has not ended")

    def asked(self, run_id: str) -> None:
        """Somebody asks for it to be taken away."""
        if run_id in self.wishes.ended:
            self.over.add(run_id)

    def has(self, run_id: str) -> bool:
        """Whether something of it was taken away."""
        return run_id in self.before

    def refused(self, run_id: str, text: str) -> None:
        """It stays, and this is why."""
        self.checks["who is refused is told why"] += 1
        if not any(said in text and holds(self, run_id) for said, holds in _REASONS.items()):
            OUTSIDE.broke("refused", f"{run_id} is to be pruned: {text}")

    def missed(self, run_id: str, error: Exception) -> None:
        """Somebody has heard that a run is not there any more as it was."""
        self.checks["who misses something misses what was taken"] += 1
        if not self.has(run_id):
            OUTSIDE.broke("taken", f"nobody has taken {run_id} away: {type(error).__name__}: {error}")

    async def judge(self, store: MemoryStore, headers: Mapping[str, list[bytes]]) -> None:
        """At the end: what was to go has gone, and what is left verifies."""
        if not self.before:
            return
        for run_id in self.pruned:
            stream = f"run:{run_id}"
            self.checks["of what was pruned the digests are left"] += 1
            kept = [item async for item in store.kept(stream)]
            left = [item async for item in store.read(stream)]
            were = {item.version: item.digest for item in self.before[run_id].events}
            whole = {item.version for item in kept} == set(range(1, len(headers[stream])))
            if not whole or any(were.get(item.version, item.digest) != item.digest for item in kept):
                OUTSIDE.broke("taken", f"of {run_id} with {len(headers[stream])} events there are {kept} and {left}")
            if [type(decode_header(item.header)) for item in left] != [RunPruned]:
                OUTSIDE.broke("taken", f"of {run_id} there is {left}")
        for run_id in self.forgotten - self.pruned:
            self.checks["what was forgotten is gone"] += 1
            known = len(self.before[run_id].events)
            if any([item.payload is not None async for item in store.read(f"run:{run_id}", until=known)]):
                OUTSIDE.broke("taken", f"{run_id} has values that were destroyed")
        self.checks["the log verifies"] += 1
        verdict = await verify(store)
        if not verdict.holds:
            OUTSIDE.broke("taken", f"the log does not verify: {verdict.findings}")


class Remembered:
    """The store as it would be, had nothing been taken away: for those who read."""

    def __init__(self, inner: MemoryStore, taken: Taken) -> None:
        self.inner = inner
        self.taken = taken

    def _before(self, stream: str) -> _Before | None:
        return self.taken.before.get(stream.removeprefix("run:"))

    async def head(self, stream: str) -> StreamHead:
        before = self._before(stream)
        return await self.inner.head(stream) if before is None else before.head

    async def read(
        self, stream: str, *, after: int = 0, until: int | None = None, proof: bool = True
    ) -> AsyncIterator[RecordedEvent]:
        if (before := self._before(stream)) is None:
            async for item in self.inner.read(stream, after=after, until=until, proof=proof):
                yield item
            return
        for item in before.events[after:until]:
            yield item

    async def find(self, query: StreamQuery) -> Page[StreamHead]:
        page = await self.inner.find(query)
        gone = self.taken.before if query.cursor is None else {}
        there = [head for head in page.items if self._before(head.stream) is None]
        return replace(page, items=(*(before.head for before in gone.values()), *there))

    async def kept(self, stream: str) -> AsyncIterator[KeptDigest]:
        async for item in self.inner.kept(stream):
            yield item
