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
from eventstore import EventStore, RecordedEvent, StoreDamaged, StreamHead, StreamNotFound, StreamQuery, find_all
from eventstore.digest import chain_start

__all__ = ["FINDINGS_MAX", "KNOWN_MAX", "Chains", "LastEvent", "event_at", "heads"]

KNOWN_MAX: Final = 100_000
"""Streams whose place in their chain is kept, about 30 MB; of others the event before is read again."""
FINDINGS_MAX: Final = 1_000
"""Findings that are listed; more are only said to be there."""
_PAGE: Final = 1_000

_Events: TypeAlias = AsyncGenerator[RecordedEvent, None]
_Place: TypeAlias = tuple[int, bytes]
LastEvent: TypeAlias = tuple[int, int, bytes]
"""Version, position and digest: of the events themselves too many would be held."""


async def heads(store: EventStore, *, category: str | None = None) -> AsyncIterator[StreamHead]:
    """The heads of all streams, or of a category, oldest first."""
    async for head in find_all(store, StreamQuery(category=category, newest_first=False)):
        yield head


async def event_at(store: EventStore, stream: str, version: int) -> RecordedEvent | None:
    """One event of a stream, if it is there."""
    try:
        async with aclosing(cast("_Events", store.read(stream, after=version - 1, until=version))) as events:
            async for event in events:
                return event if event.version == version else None
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
        self._keep(stream, (event.version, event.digest))

    def _keep(self, stream: str, place: _Place) -> None:
        known = self._known
        known[stream] = place
        known.move_to_end(stream)
        if len(known) > KNOWN_MAX:
            known.popitem(last=False)
            self._forgot = True

    async def _place_before(self, event: RecordedEvent) -> _Place:
        """Where the chain of its stream stands, which is not known (any more)."""
        if event.version <= 1 or not self._forgot:
            return 0, chain_start(event.stream)
        before = await event_at(self._store, event.stream, event.version - 1)
        if before is None or before.position > event.position:
            return event.version - 2, b""  # the next to be expected is the one that is not there
        return before.version, before.digest

    async def _out_of_order(self, event: RecordedEvent, version: int) -> None:
        expected = version + 1
        what: What
        if event.version > expected:
            missing = await event_at(self._store, event.stream, expected)
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
        page = await self._store.find(StreamQuery(streams=names[start : start + _PAGE], limit=_PAGE))
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
            async with aclosing(cast("_Events", self._store.read(stream, after=version, until=head.version))) as events:
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
                    await self.take(event)
                    last, position, digest = event.version, event.position, event.digest
        except (StoreDamaged, StreamNotFound) as error:
            if last >= head.version or self.is_broken(stream):
                return count
            self.find("removed", f"version {last + 1} cannot be read: {error}", stream=stream, version=last + 1)
        if not self.is_broken(stream) and last != head.version:
            self.find("removed", f"version {last + 1} of {head.version} is missing", stream=stream, version=last + 1)
        elif not self.is_broken(stream):
            self._same(head, position or None, digest)
        self._known.pop(stream, None)
        return count
