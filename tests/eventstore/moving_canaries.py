"""Memory stores with one planted bug each in how they give out and take in streams, and the checks that must find it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

from msgspec.structs import replace

from eventstore import memory_moving
from eventstore.keeping import KeptDigest
from eventstore.memory import MemoryStore
from eventstore.moving import ConsumedMessages, Installed, Item, StoredMessage, StoredPermit, StoredStream, StoredWaiter
from eventstore.port import Commit, RecordedEvent


class _Alters(MemoryStore):
    """Takes in something else than arrives."""

    def alter(self, item: Item) -> Item | None:
        return item

    async def install(self, items: Iterable[Item], *, behind: Commit | None = None) -> Installed:
        kept = (altered for item in items if (altered := self.alter(item)) is not None)
        return await super().install(kept, behind=behind)


class ForgetsWhatWasConsumed(_Alters):
    def alter(self, item: Item) -> Item | None:
        return None if isinstance(item, ConsumedMessages) else item


class LosesMail(_Alters):
    def alter(self, item: Item) -> Item | None:
        return None if isinstance(item, StoredMessage) else item


class SetsNoAlarm(_Alters):
    def alter(self, item: Item) -> Item | None:
        return replace(item, alarm=None) if isinstance(item, StoredStream) else item


class LetsGoWhatWasHeld(_Alters):
    def alter(self, item: Item) -> Item | None:
        return replace(item, held=False) if isinstance(item, StoredStream) else item


class LosesAttributes(_Alters):
    def alter(self, item: Item) -> Item | None:
        return replace(item, attributes={}) if isinstance(item, StoredStream) else item


class LosesLastingPermits(_Alters):
    def alter(self, item: Item) -> Item | None:
        return None if isinstance(item, StoredPermit) else item


class LosesQueues(_Alters):
    def alter(self, item: Item) -> Item | None:
        return None if isinstance(item, StoredWaiter) else item


class ForgetsWhereItWasPruned(_Alters):
    def alter(self, item: Item) -> Item | None:
        return replace(item, position=0, was=None) if isinstance(item, KeptDigest) else item


class LeavesOutWhatWasPruned(MemoryStore):
    async def dump(self, streams: Sequence[str] | None = None) -> AsyncGenerator[Item, None]:
        async with aclosing(super().dump(streams)) as items:
            found = [item async for item in items]
        gone = {item.stream for item in found if isinstance(item, StoredStream) and item.pruned}
        for item in found:
            if getattr(item, "stream", None) not in gone:
                yield item


class TakesWhatCameBeforeAnError(MemoryStore):
    async def install(self, items: Iterable[Item], *, behind: Commit | None = None) -> Installed:
        def whole() -> Iterator[Item]:
            try:
                yield from items
            except OSError:
                return

        with _patched("Arrivals", _Trusting):
            return await super().install(whole(), behind=behind)


class BelievesEverything(MemoryStore):
    async def install(self, items: Iterable[Item], *, behind: Commit | None = None) -> Installed:
        with _patched("Arrivals", _Trusting):
            return await super().install(items, behind=behind)


class TakesOthersForTheSame(MemoryStore):
    async def install(self, items: Iterable[Item], *, behind: Commit | None = None) -> Installed:
        with _patched("relation", lambda *_, **__: None):
            return await super().install(items, behind=behind)


class AlwaysWritesTheCommitBehind(MemoryStore):
    async def install(self, items: Iterable[Item], *, behind: Commit | None = None) -> Installed:
        installed = await super().install(items)
        if behind is not None:
            await self.commit(behind)
        return installed


class GivesOutStreamByStream(MemoryStore):
    async def dump(self, streams: Sequence[str] | None = None) -> AsyncGenerator[Item, None]:
        async with aclosing(super().dump(streams)) as items:
            found = [item async for item in items]
        found.sort(key=lambda item: item.stream if isinstance(item, RecordedEvent) else "")
        for item in found:
            yield item


class GivesOutSeveralMoments(MemoryStore):
    async def dump(self, streams: Sequence[str] | None = None) -> AsyncGenerator[Item, None]:
        async with aclosing(super().dump(streams)) as items:
            async for item in items:
                if not isinstance(item, RecordedEvent):
                    yield item
        async for event in self.read_all():
            if streams is None or event.stream in streams:
                yield event


class _Trusting:
    def take(self, item: Item) -> None:
        pass

    def finish(self) -> None:
        pass


@contextmanager
def _patched(name: str, value: Any) -> Iterator[None]:
    kept = getattr(memory_moving, name)
    setattr(memory_moving, name, value)
    try:
        yield
    finally:
        setattr(memory_moving, name, kept)


MOVING_CANARIES: dict[type[MemoryStore], tuple[str, ...]] = {
    ForgetsWhatWasConsumed: ("moving.a_consumed_message_is_not_delivered_again",),
    LosesMail: ("moving.what_comes_from_elsewhere_is_what_it_was", "moving.an_alarm_that_came_along_wakes"),
    SetsNoAlarm: ("moving.an_alarm_that_came_along_wakes",),
    LetsGoWhatWasHeld: ("moving.what_comes_from_elsewhere_is_what_it_was",),
    LosesAttributes: ("moving.what_comes_from_elsewhere_is_what_it_was",),
    LosesLastingPermits: (
        "moving.a_lasting_permit_moves_and_others_wait_behind",
        "moving.one_who_holds_joins_the_pool_that_is_there",
    ),
    LosesQueues: ("moving.a_lasting_permit_moves_and_others_wait_behind",),
    ForgetsWhereItWasPruned: ("moving_kept.what_is_pruned_elsewhere_is_so_here", "moving_kept.it_moves_on_to_a_third"),
    LeavesOutWhatWasPruned: ("moving_kept.a_pruned_stream_moves_with_what_is_left_of_it",),
    TakesWhatCameBeforeAnError: ("moving.an_error_on_the_way_undoes_all",),
    BelievesEverything: (
        "moving.what_was_changed_is_refused",
        "moving_kept.what_is_left_of_it_cannot_be_changed_on_the_way",
    ),
    TakesOthersForTheSame: (
        "moving.other_events_are_refused_and_nothing_is_installed",
        "moving_kept.one_that_is_here_is_neither_brought_back_nor_taken_away",
    ),
    AlwaysWritesTheCommitBehind: ("moving.the_same_again_does_nothing",),
    GivesOutStreamByStream: ("moving.what_moves_is_all_that_a_stream_is",),
    GivesOutSeveralMoments: ("moving.others_write_meanwhile",),
}
"""Each broken store, and the checks that must fail on it."""
