"""`verify`: one pass over the log in commit order, in bounded memory.

Each event is held against the one before it in its stream, each stream against its head, and the tree over all of them
against the seals. Others may write meanwhile: what is verified is the log as it was when the pass began, and each
stream up to the head that was looked at.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final, TypeAlias, cast

from engine.audit.expected import Expected
from engine.audit.findings import AuditProgress, AuditVerdict
from engine.audit.keys import PublicKey
from engine.audit.merkle import Tree
from engine.audit.notes import Seal
from engine.audit.pruned import Leaf, leaves
from engine.audit.streams import Chains, LastEvent, heads
from eventstore import Clock, EventStore, KeptDigest, StoreDamaged, SystemClock

__all__ = ["verify", "verify_streams"]

_PAGE: Final = 1_000
_Leaves: TypeAlias = AsyncGenerator[Leaf, None]
_Told: TypeAlias = Callable[[AuditProgress], None] | None


async def verify(
    store: EventStore,
    *,
    seals: Sequence[Seal] = (),
    key: PublicKey | None = None,
    progress: Callable[[AuditProgress], None] | None = None,
    clock: Clock | None = None,
) -> AuditVerdict:
    """Verify the whole log: chains, heads, payload digests, the order of positions, the seals in it, and those given.

    `key`: signatures of the seals are checked, too. `progress` is called every thousand events. The verdict lists the
    first thing wrong of each stream. Raises `AuditError` for a key without the extra, and what the store raises when it
    cannot be read at all; what is damaged in it is a finding.
    """
    clock = SystemClock() if clock is None else clock
    began = clock.monotonic()
    walk = _Walk(store, seals=seals, key=key, progress=progress)
    if progress is not None:
        await walk.count()
    await walk.go()
    return AuditVerdict(
        events=walk.events,
        streams=walk.streams,
        destroyed=walk.chains.destroyed,
        pruned=walk.chains.kept,
        position=walk.position,
        seconds=clock.monotonic() - began,
        findings=tuple(walk.chains.findings),
        more=walk.chains.more,
        seals=walk.expected.checks(),
        sealed=walk.expected.checked,
        size=walk.tree.size if walk.whole else None,
        root=walk.tree.root() if walk.whole else None,
    )


async def verify_streams(
    store: EventStore,
    streams: Sequence[str],
    *,
    progress: Callable[[AuditProgress], None] | None = None,
    clock: Clock | None = None,
) -> AuditVerdict:
    """Verify some streams, each by its chain and its head; seals are over the whole log, and not looked at.

    Raises `StreamNotFound`, and what the store raises when it cannot be read at all.
    """
    clock = SystemClock() if clock is None else clock
    began = clock.monotonic()
    chains, events = Chains(store), 0
    for stream in streams:
        events += await chains.whole(await store.head(stream))
        _tell(progress, chains, events, None)
    return AuditVerdict(
        events=events,
        streams=len(streams),
        destroyed=chains.destroyed,
        pruned=chains.kept,
        position=0,
        seconds=clock.monotonic() - began,
        findings=tuple(chains.findings),
        more=chains.more,
    )


class _Walk:
    """The pass, and how far it is."""

    def __init__(self, store: EventStore, *, seals: Sequence[Seal], key: PublicKey | None, progress: _Told) -> None:
        self._store: Final = store
        self._progress: Final = progress
        self.chains: Final = Chains(store)
        self.expected: Final = Expected(store, self.chains, seals=seals, key=key)
        self.tree: Final = Tree()
        self.events = 0
        self.streams = 0
        self.position = 0
        self.whole = True  # the log could be read to its end
        self._ended = 0  # streams whose last event was seen, and is that of their head
        self._total: int | None = None

    async def count(self) -> None:
        """Learn how much there is to do."""
        try:
            self._total = sum([head.version async for head in heads(self._store)])
        except StoreDamaged:
            self._total = None  # it will be found, and said

    async def go(self) -> None:
        """Verify everything."""
        try:
            await self.expected.begin()
            await self.expected.compare(self.tree)  # an empty log can be sealed, too
            await self._log()
        except StoreDamaged as error:
            self.whole = False
            self.chains.find("unreadable", f"the log cannot be read behind position {self.position}: {error}")
            self.events = self.chains.destroyed = self.chains.kept = 0  # what is left is looked at stream by stream
        else:
            self.expected.end(self.tree)
        finally:
            await self.expected.aclose()
        try:
            await self._ends()
        except StoreDamaged as error:
            self.chains.find("unreadable", f"the streams cannot be listed: {error}")

    async def _log(self) -> None:
        chains, tree, expected = self.chains, self.tree, self.expected
        last: dict[str, LastEvent] = {}
        async with aclosing(cast("_Leaves", leaves(self._store))) as events:
            async for event in events:
                if event.position <= self.position:
                    chains.find(
                        "reordered",
                        f"positions do not rise: {event.position} comes behind {self.position}",
                        position=event.position,
                    )
                self.position = event.position
                await (chains.take_kept(event) if isinstance(event, KeptDigest) else chains.take(event))
                tree.append(event.digest)
                if tree.size == expected.size:
                    await expected.compare(tree)
                last[event.stream] = (event.version, event.position, event.digest)
                self.events += 1
                if not self.events % _PAGE:
                    self._ended += await chains.compare(last)
                    last.clear()
                    _tell(self._progress, chains, self.events, self._total)
        self._ended += await chains.compare(last)
        _tell(self._progress, chains, self.events, self._total)

    async def _ends(self) -> None:
        """Every stream ends where its head says. Usually all were seen to; else each is looked at."""
        streams = pruned = 0
        async for head in heads(self._store):
            pruned += head.pruned
            if head.version:
                streams += 1
            else:
                self.chains.without_events(head)
        self.streams = streams
        if self.whole and not self.chains.accounts_for(pruned):
            async for head in heads(self._store):
                await self.chains.account_for(head)
        if streams == self._ended and self.whole:
            return
        async for head in heads(self._store):
            if self.whole:
                await self.chains.end_of(head)
            elif not self.chains.is_broken(head.stream):
                self.events += await self.chains.whole(head)


def _tell(progress: _Told, chains: Chains, events: int, total: int | None) -> None:
    if progress is not None:
        progress(AuditProgress(events=events, total=total, findings=len(chains.findings)))
