"""Streams against their chains and heads, one event after the other, in bounded memory.

A stream is known by where its chain stands: version and digest. What is known of many streams is kept for the ones that
were met last; of any other the event before is read again, so memory does not grow with the number of streams.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final, TypeAlias, cast

from engine.audit.findings import AuditFinding, What, is_destroyed, wrong_with
from engine.audit.pruned import Leaf, history, is_prune, look_at_pruned
from eventstore import (
    EventStore,
    KeptDigest,
    RecordedEvent,
    StoreDamaged,
    StreamHead,
    StreamNotFound,
    StreamQuery,
    find_all,
)
from eventstore.digest import chain_start

__all__ = ["FINDINGS_MAX", "KNOWN_MAX", "Chains", "LastEvent", "event_at", "heads"]

KNOWN_MAX: Final = 100_000
"""Streams whose place in their chain is kept, about 30 MB; of others the event before is read again."""
FINDINGS_MAX: Final = 1_000
"""Findings that are listed; more are only said to be there."""
_PAGE: Final = 1_000

_Leaves: TypeAlias = AsyncGenerator[Leaf, None]
_Place: TypeAlias = tuple[int, bytes]
LastEvent: TypeAlias = tuple[int, int, bytes]
"""Version, position and digest: of the events themselves too many would be held."""


async def heads(store: EventStore, *, category: str | None = None) -> AsyncIterator[StreamHead]:
    """The heads of all streams, or of a category, oldest first; those that were pruned are among them."""
    async for head in find_all(store, StreamQuery(category=category, newest_first=False, pruned=None)):
        yield head


async def event_at(store: EventStore, stream: str, version: int) -> RecordedEvent | None:
    """One event of a stream, if it is there, and was not pruned."""
    leaf = await _leaf_at(store, stream, version)
    return leaf if isinstance(leaf, RecordedEvent) else None


async def _leaf_at(store: EventStore, stream: str, version: int) -> Leaf | None:
    """One event of a stream, or what is left of it."""
    try:
        async with aclosing(cast("_Leaves", history(store, stream, after=version - 1, until=version))) as leaves:
            async for leaf in leaves:
                return leaf if leaf.version == version else None
    except StoreDamaged:  # it is missing, though the head says that it is there
        return None
    return None


class Chains:
    """What is known of the streams, and what was found wrong with them."""

    def __init__(self, store: EventStore) -> None:
        self._store: Final = store
        self._known: OrderedDict[str, _Place] = OrderedDict()
        self._forgot = False  # whether a stream was left out of these, for there were too many
        self._broken: set[str] = set()
        self.findings: list[AuditFinding] = []
        self.more = False
        self.destroyed = 0
        self.kept = 0  # digests of events that were pruned
        self.pruned = 0  # streams that were, wholly, and of which that is in order
        self._covered = 0  # of the digests: those that an event says was pruned

    def find(
        self,
        what: What,
        message: str,
        *,
        stream: str | None = None,
        version: int | None = None,
        position: int | None = None,
    ) -> None:
        """Note what is wrong. Of a stream only the first is, and nothing more is looked for in it."""
        if len(self.findings) >= FINDINGS_MAX:
            self.more = True
            return
        if stream is not None:
            self._broken.add(stream)
        self.findings.append(
            AuditFinding(what=what, message=message, stream=stream, version=version, position=position)
        )

    def is_broken(self, stream: str) -> bool:
        """Whether something was found in it."""
        return stream in self._broken

    async def take(self, event: RecordedEvent) -> None:
        """The next event of a stream, in the order of the log."""
        if event.payload is None and is_destroyed(event):
            self.destroyed += 1
        stream = event.stream
        if stream in self._broken:
            return
        place = self._known.get(stream)
        if place is None:
            place = await self._place_before(event)
        version, digest = place
        if event.version != version + 1:
            await self._out_of_order(event, version)
        elif (wrong := wrong_with(event, digest)) is not None:
            what, message = wrong
            self.find(what, message, stream=stream, version=event.version, position=event.position)
        elif is_prune(event):
            await self._hold_against(event)
        self._keep(stream, (event.version, event.digest))

    async def take_kept(self, kept: KeptDigest) -> None:
        """What is left of the next event of a stream, in the order of the log."""
        self.kept += 1
        if kept.stream in self._broken:
            return
        place = self._known.get(kept.stream)
        version, _ = await self._place_before(kept) if place is None else place
        if kept.version != version + 1:
            await self._out_of_order(kept, version)
        self._keep(kept.stream, (kept.version, kept.digest))

    async def _hold_against(self, prune: RecordedEvent) -> None:
        """What is left of a stream, against what its last event says was taken away."""
        remains = await look_at_pruned(self._store, prune)
        self._covered += remains.kept
        self.pruned += remains.finished
        if remains.wrong is not None:
            what, message = remains.wrong
            self.find(what, message, stream=prune.stream, version=prune.version, position=prune.position)

    def accounts_for(self, pruned: int) -> bool:
        """Whether every digest that was met belongs to a stream that says so, and every stream that is marked does."""
        return self.kept == self._covered and self.pruned == pruned

    async def account_for(self, head: StreamHead) -> None:
        """Look whether a stream was pruned, and says so in its last event."""
        if self.is_broken(head.stream):
            return
        first = await _leaf_at(self._store, head.stream, 1)
        if not (head.pruned or isinstance(first, KeptDigest)):
            return
        last = await event_at(self._store, head.stream, head.version)
        if last is None or not is_prune(last):
            message = "its events were taken away, and no event of it says so"
            self.find("removed", message, stream=head.stream, version=head.version)
        elif (wrong := (await look_at_pruned(self._store, last)).wrong) is not None:
            self.find(*wrong, stream=last.stream, version=last.version, position=last.position)

    def _keep(self, stream: str, place: _Place) -> None:
        known = self._known
        known[stream] = place
        known.move_to_end(stream)
        if len(known) > KNOWN_MAX:
            known.popitem(last=False)
            self._forgot = True

    async def _place_before(self, event: Leaf) -> _Place:
        """Where the chain of its stream stands, which is not known (any more)."""
        if event.version <= 1 or not self._forgot:
            return 0, chain_start(event.stream)
        before = await _leaf_at(self._store, event.stream, event.version - 1)
        if before is None or before.position > event.position:
            return event.version - 2, b""  # the next to be expected is the one that is not there
        return before.version, before.digest

    async def _out_of_order(self, event: Leaf, version: int) -> None:
        expected = version + 1
        what: What
        if event.version > expected:
            missing = await _leaf_at(self._store, event.stream, expected)
            if missing is None:
                what, message = "removed", f"version {expected} is missing before it"
            else:
                what = "reordered"
                message = f"version {expected} stands behind it in the log, at position {missing.position}"
        elif event.version < 1:
            what, message = "inserted", "versions begin with 1"
        else:
            what, message = "reordered", f"it stands behind version {version} in the log"
        self.find(what, message, stream=event.stream, version=event.version, position=event.position)

    async def compare(self, last: dict[str, LastEvent]) -> int:
        """Hold the latest events of some streams against their heads. How many of these streams end with them."""
        ended = 0
        names = tuple(name for name in last if name not in self._broken)
        found = {head.stream: head for start in range(0, len(names), _PAGE) for head in await self._some(names, start)}
        for name in names:
            (version, position, digest), head = last[name], found.get(name)
            if head is None:
                self.find("head", "the stream has no head", stream=name, version=version, position=position)
            elif version > head.version:
                message = f"it stands behind the end of its stream, which is at version {head.version}"
                self.find("inserted", message, stream=name, version=version, position=position)
            elif version == head.version:
                ended += 1
                self._same(head, position, digest)
        return ended

    async def _some(self, names: tuple[str, ...], start: int) -> tuple[StreamHead, ...]:
        page = await self._store.find(StreamQuery(streams=names[start : start + _PAGE], limit=_PAGE, pruned=None))
        return page.items

    def _same(self, head: StreamHead, position: int | None, digest: bytes) -> None:
        if head.digest != digest:
            message = "the digest of the stream's head is not that of its last event"
            self.find("head", message, stream=head.stream, version=head.version, position=position)

    def without_events(self, head: StreamHead) -> None:
        """A stream of version 0 has the digest that its chain begins with."""
        if head.digest != chain_start(head.stream) and not self.is_broken(head.stream):
            self.find("head", "the stream has no events, and its head has a digest", stream=head.stream, version=0)

    async def end_of(self, head: StreamHead) -> int:
        """Hold a stream's end against its head, from where its chain is known. How many events that took."""
        place = self._known.get(head.stream)
        if head.version == 0 or self.is_broken(head.stream) or place == (head.version, head.digest):
            return 0
        if place is None:
            last = await event_at(self._store, head.stream, head.version)
            if last is None:
                self.find("removed", "the end of the stream is missing", stream=head.stream, version=head.version)
            else:
                self._same(head, last.position, last.digest)
            return 0
        return await self.whole(head, *place)

    async def whole(self, head: StreamHead, version: int = 0, digest: bytes | None = None) -> int:
        """Verify a stream from a place in its chain, or from its beginning, up to its head. How many events it has."""
        stream, count, position = head.stream, 0, 0
        digest = chain_start(stream) if digest is None else digest
        last = version
        try:
            every = history(self._store, stream, after=version, until=head.version)
            async with aclosing(cast("_Leaves", every)) as events:
                async for event in events:
                    count += 1
                    if count == 1:
                        self._known[stream] = (version, digest)
                    if event.position <= position and not self.is_broken(stream):
                        self.find(
                            "reordered",
                            f"it stands before version {last} in the log, which is at position {position}",
                            stream=stream,
                            version=event.version,
                            position=event.position,
                        )
                    await (self.take_kept(event) if isinstance(event, KeptDigest) else self.take(event))
                    last, position, digest = event.version, event.position, event.digest
        except (StoreDamaged, StreamNotFound) as error:
            if last >= head.version or self.is_broken(stream):
                return count
            self.find("removed", f"version {last + 1} cannot be read: {error}", stream=stream, version=last + 1)
        if not self.is_broken(stream) and last != head.version:
            self.find("removed", f"version {last + 1} of {head.version} is missing", stream=stream, version=last + 1)
        elif not self.is_broken(stream):
            self._same(head, position or None, digest)
            await self.account_for(head)
        self._known.pop(stream, None)
        return count
