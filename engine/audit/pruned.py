"""Streams whose events were pruned: what is left of them must be what the event says that ended them.

That event (`RunPruned`) stands in the stream itself, behind all that was taken away, and goes on with its chain. It
says how many events there were and what their positions and digests hash to, so no digest that is kept can be changed,
removed or added without a seal, either. Until a removal is through, a part of the events may still stand in the log.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from hashlib import sha256
from typing import Final, TypeAlias, cast

import msgspec
from msgspec import Struct

from engine.audit.findings import What
from eventstore import EventStore, KeptDigest, RecordedEvent, StoreDamaged, keeps, pruned_leaf

__all__ = ["Leaf", "Remains", "has_pruned", "history", "is_prune", "leaves", "look_at_pruned"]

Leaf: TypeAlias = RecordedEvent | KeptDigest
_Kept: TypeAlias = AsyncGenerator[KeptDigest, None]
_Events: TypeAlias = AsyncGenerator[RecordedEvent, None]
_TAG: Final = b'{"type":"RunPruned"'


class _Pruned(Struct, frozen=True, tag_field="type", tag="RunPruned"):
    """What is read of that event; `engine.core.events` has it whole."""

    run: str
    events: int
    leaves: str


class Remains(Struct):
    """What was found of a pruned stream."""

    kept: int = 0  # digests
    finished: bool = False  # nothing else is to stand there any more
    wrong: tuple[What, str] | None = None


_decode: Final = msgspec.json.Decoder(_Pruned).decode


def is_prune(event: RecordedEvent) -> bool:
    """Whether it is the event that ends a pruned stream."""
    return event.header.startswith(_TAG)


async def has_pruned(store: EventStore, stream: str) -> bool:
    """Whether any event of it was pruned."""
    async for _ in _kept(store, stream, after=0):
        return True
    return False


def leaves(store: EventStore, *, after: int = 0) -> AsyncIterator[Leaf]:
    """The whole log in commit order: events, and of those that were pruned the digests."""
    return store.leaves(after=after) if keeps(store) else store.read_all(after=after)


async def history(store: EventStore, stream: str, *, after: int = 0, until: int) -> AsyncIterator[Leaf]:
    """The same of one stream, up to a version, also while it is being pruned. Raises as `EventStore.read`."""
    at, began = after, -1
    while at < until:
        stuck, began = at == began, at
        async for kept in _kept(store, stream, after=at):
            if kept.version > until:
                break
            at = kept.version
            yield kept
        async with aclosing(cast("_Events", store.read(stream, after=at, until=until))) as events:
            async for event in events:
                if event.version > at + 1 and not stuck:
                    break  # taken away since we looked for digests: look again
                at = event.version
                yield event
        if stuck:
            return


async def look_at_pruned(store: EventStore, event: RecordedEvent) -> Remains:
    """Hold what is left of a stream against the event that says what was taken away."""
    found = Remains()
    try:
        said = _decode(event.header)
    except (ValueError, RecursionError) as error:
        found.wrong = "unreadable", f"it does not say what was pruned: {error}"
        return found
    if f"run:{said.run}" != event.stream:
        found.wrong = "changed", f"it says what was pruned of run {said.run!r}"
        return found
    found.finished = (await store.head(event.stream)).pruned  # asked first: nothing is put back by a store
    hashed, last = sha256(), 0
    try:
        async for leaf in history(store, event.stream, until=event.version - 1):
            if isinstance(leaf, KeptDigest):
                found.kept, last = found.kept + 1, leaf.version
            elif found.finished:
                found.wrong = "inserted", f"version {leaf.version}, which was pruned, stands in the log again"
                return found
            hashed.update(pruned_leaf(leaf))
    except StoreDamaged:
        pass  # the hash is another, then
    if event.version != said.events + 1 or hashed.hexdigest() != said.leaves:
        found.wrong = "changed", "what is kept of the events before it is not what was pruned"
    elif (again := await _first(store, event.stream, until=last)) is not None:
        found.wrong = "inserted", f"version {again}, which was pruned, stands in the log again"
    elif (more := [each.version async for each in _kept(store, event.stream, after=event.version - 1)][:1]) != []:
        found.wrong = "inserted", f"a digest of version {more[0]} is kept, which was not pruned"
    return found


async def _first(store: EventStore, stream: str, *, until: int) -> int | None:
    """The first event that stands there where only digests are to be."""
    try:
        async with aclosing(cast("_Events", store.read(stream, until=until))) as events:
            async for event in events:
                return event.version
    except StoreDamaged:
        pass
    return None


async def _kept(store: EventStore, stream: str, *, after: int) -> AsyncIterator[KeptDigest]:
    if keeps(store):
        async with aclosing(cast("_Kept", store.kept(stream, after=after))) as kept:
            async for each in kept:
                yield each
