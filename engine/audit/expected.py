"""What the log's tree must be at which size: the seals that are given, and those that stand in the log.

Seals in the log are read beside it, one at a time for each stream of them, so memory does not grow with their number. A
seal in the log proves little by itself: who can write the log can write that, too, unless it is signed by the key.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final, TypeAlias, cast

from msgspec import Struct

from engine.audit.events import SEAL_CATEGORY, LogSealed, read_sealed
from engine.audit.findings import SealCheck, What
from engine.audit.keys import PublicKey
from engine.audit.merkle import Tree
from engine.audit.notes import Seal
from engine.audit.streams import Chains, heads
from engine.errors import AuditError, DoesNotVerify
from eventstore import EventStore, RecordedEvent, StoreDamaged

__all__ = ["Expected"]

_Events: TypeAlias = AsyncGenerator[RecordedEvent, None]


class _Point(Struct):
    """A root that the tree must have at a size; of a seal that was given, or else of the next in a stream of seals."""

    size: int
    root: bytes
    given: Seal | None = None
    recorded: RecordedEvent | None = None
    rest: _Events | None = None


class Expected:
    """The seals, smallest first. `size` is the next size at which something is expected; -1: there is none."""

    def __init__(self, store: EventStore, chains: Chains, *, seals: Sequence[Seal], key: PublicKey | None) -> None:
        self._store: Final = store
        self._chains: Final = chains
        self._key: Final = key
        self._points = [_Point(size=each.size, root=each.root, given=each) for each in seals]
        self._signed = {id(each): self._is_signed(each) for each in seals}
        self._holds: dict[int, bool] = {}
        self._agreed = 0  # the largest size at which a seal that was given agreed
        self._given: Final = tuple(seals)
        self.checked = 0  # seals in the log
        self.size = -1

    async def begin(self) -> None:
        """Read the first seal of each stream of them, before the log: so the log has all that they speak of."""
        streams = [head.stream async for head in heads(self._store, category=SEAL_CATEGORY) if head.version]
        for stream in streams:
            await self._next(cast("_Events", self._store.read(stream)))
        self._sort()

    async def compare(self, tree: Tree) -> None:
        """Hold the tree, which has the size that is expected next, against every seal of that size."""
        while self._points and self._points[0].size <= tree.size:
            point = self._points.pop(0)
            if point.size < tree.size:
                self._wrong(point, "it covers fewer events than the one before it")
            elif tree.root() == point.root:
                self._agrees(point)
            else:
                behind = f"; the first {self._agreed:,} still are" if self._agreed else ""
                self._wrong(point, f"the first {point.size:,} events of the log are not those that were sealed{behind}")
            if point.rest is not None:
                if self._chains.is_broken(point.recorded.stream if point.recorded is not None else ""):
                    await point.rest.aclose()
                else:
                    await self._next(point.rest)
            self._sort()

    def end(self, tree: Tree) -> None:
        """The log has ended: whatever is still expected is beyond its end."""
        for point in self._points:
            self._wrong(
                point,
                f"the log has {tree.size:,} events and {point.size:,} were sealed: its end was cut off, streams were"
                " removed, or an older copy was put in its place",
                truncated=True,
            )

    async def aclose(self) -> None:
        """Read no more of the seals in the log."""
        for point in self._points:
            if point.rest is not None:
                await point.rest.aclose()
        self._points = []

    def checks(self) -> tuple[SealCheck, ...]:
        """What became of the seals that were given."""
        return tuple(
            SealCheck(seal=each, holds=self._holds.get(id(each), False), signed=self._signed[id(each)])
            for each in self._given
        )

    async def _next(self, events: _Events) -> None:
        try:
            event = await anext(events, None)
        except StoreDamaged:
            event = None  # the pass over the log finds that, and names it
        if event is None:
            await events.aclose()
            return
        try:
            sealed, seal, _ = read_sealed(event)
            if self._key is not None and seal is not None and self._is_of_key(sealed):
                seal.check(self._key)
        except AuditError as error:
            await events.aclose()
            what: What = "signature" if isinstance(error, DoesNotVerify) else "seal"
            self._chains.find(what, str(error), stream=event.stream, version=event.version, position=event.position)
            return
        self._points.append(_Point(size=sealed.size, root=bytes.fromhex(sealed.root), recorded=event, rest=events))

    def _sort(self) -> None:
        self._points.sort(key=lambda point: point.size)
        self.size = self._points[0].size if self._points else -1

    def _agrees(self, point: _Point) -> None:
        if point.given is None:
            self.checked += 1
        else:
            self._holds[id(point.given)] = True
            self._agreed = max(self._agreed, point.size)

    def _wrong(self, point: _Point, message: str, *, truncated: bool = False) -> None:
        what: What = "truncated" if truncated else "seal"
        if point.given is not None:
            of = f"against the seal of {point.given.origin} at size {point.size:,}: "
            self._chains.find(what, of + message, position=point.given.position)
        elif (event := point.recorded) is not None and not self._chains.is_broken(event.stream):
            self._chains.find(what, message, stream=event.stream, version=event.version, position=event.position)

    def _is_of_key(self, sealed: LogSealed) -> bool:
        """Others may have sealed the log, too, or this one's key may have been another before."""
        return self._key is not None and (sealed.origin, sealed.key) == (self._key.name, self._key.hash.hex())

    def _is_signed(self, seal: Seal) -> bool | None:
        if self._key is None:
            return None
        try:
            seal.check(self._key)
        except DoesNotVerify as error:
            self._chains.find("signature", str(error))
            return False
        return True
