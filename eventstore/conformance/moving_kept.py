"""Checks: streams that were pruned, or have forgotten, move like any other (capabilities ``moving``, ``keeping``)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from msgspec.structs import replace

from eventstore.conformance.harness import StoreHarness, begin, collect, control, data, event, mail, refused, step
from eventstore.errors import NotInstallable, StreamClosed, StreamDiffers, VersionConflict
from eventstore.keeping import Keeping, KeptDigest, keeps
from eventstore.memory import MemoryStore
from eventstore.moving import ConsumedMessages, Item, StoredMessage, StoredStream, moving_store
from eventstore.port import NEW, EventStore, RecordedEvent, StreamQuery


class _All(EventStore, Keeping):
    """A store with both capabilities."""


async def a_pruned_stream_moves_with_what_is_left_of_it(harness: StoreHarness) -> None:
    """Into a memory store and back: the leaves of the log are what they were, and the stream is pruned there."""
    async with _both(harness) as (store, other):
        if store is None:
            return
        await _fill(store)
        before = await _dump(store)
        assert len([item for item in before if isinstance(item, KeptDigest)]) == 4
        assert not [item for item in before if isinstance(item, StoredMessage | ConsumedMessages)]
        installed = await moving_store(other).install(before)
        assert (installed.streams, installed.events) == (3, 4)
        assert await _dump(other) == before, "in an empty store the log begins as it did there, positions and all"
        assert await collect(other.leaves()) == await collect(store.leaves())
        assert [(each.stream, each.version) async for each in other.read_all()] == [
            (each.stream, each.version) async for each in store.read_all()
        ]


async def what_is_pruned_elsewhere_is_so_here(harness: StoreHarness) -> None:
    """It is found only if asked for, its name stays taken, no mail reaches it; a position that it had is known."""
    async with _both(harness) as (store, other):
        if store is None:
            return
        await _fill(other)
        items = await _dump(other)
        await begin(store, "run:mine")  # so every position is another
        behind = step("import:1", NEW, event("imported"))
        await moving_store(store).install(items, behind=behind)
        await begin(store, "run:later")
        there, here = await collect(other.leaves()), await collect(store.leaves())
        assert [each.digest for each in here][1:-2] == [each.digest for each in there]
        assert [each.position for each in here] == list(range(1, len(there) + 4))
        kept = await collect(store.kept("run:a"))
        assert [(each.was, each.pruned_at) for each in kept] == [(each.position, each.position) for each in _of(there)]
        assert [each.position for each in kept] == [each.position + 1 for each in _of(there)]
        assert await store.head("run:a") == replace(await other.head("run:a"), owner=None, claims=0)
        assert {head.stream for head in (await store.find(StreamQuery(pruned=True))).items} == {"run:a", "run:c"}
        with refused(VersionConflict):
            await store.commit(step("run:a", NEW, event()))
        for message in (data("run:a", "known"), control("run:a", "c")):
            with refused(StreamClosed):
                await store.send(message)
        assert mail(await store.head("run:a")) == []
        assert await store.prune("run:a", until=1) == 0


async def it_moves_on_to_a_third(harness: StoreHarness) -> None:
    """By name, to where nothing else is, and from there back: the positions of when it was pruned go along."""
    async with _both(harness) as (store, other):
        if store is None:
            return
        await begin(other, "run:first")
        await _fill(other)
        want = [each.pruned_at for each in await collect(other.kept("run:a"))]
        assert want == [2, 3, 5]
        await moving_store(store).install(await _dump(other, "run:a"))
        assert [each.pruned_at for each in await collect(store.kept("run:a"))] == want
        third = MemoryStore()
        await begin(third, "run:x")
        await moving_store(third).install(await _dump(store, "run:a"))
        assert [(each.position, each.pruned_at) for each in await collect(third.kept("run:a"))] == [
            (2, 2),
            (3, 3),
            (4, 5),
        ]
        await third.aclose()
        installed = await moving_store(store).install(await _dump(other, "run:a"))
        assert (installed.streams, installed.same) == (0, 1)


async def what_was_forgotten_stays_so(harness: StoreHarness) -> None:
    """Payloads that were destroyed do not come back, and the mail of a closed stream does not either."""
    async with _both(harness) as (store, other):
        if store is None:
            return
        await store.commit(step("run:a", NEW, event(payload=b"1"), event(payload=b"2")))
        await store.send(data("run:a", "m"))
        await store.commit(step("run:a", 2, event(), closed=True))
        await store.forget("run:a")
        items = await _dump(store)
        await moving_store(other).install(items)
        assert [each.payload for each in await collect(other.read("run:a"))] == [None, None, None]
        assert await _dump(other) == items
        assert mail(await other.head("run:a")) == []


async def one_that_is_here_is_neither_brought_back_nor_taken_away(harness: StoreHarness) -> None:
    """Whole here and pruned there, or the other way: refused, and said."""
    async with _both(harness) as (store, other):
        if store is None:
            return
        await other.commit(step("run:a", NEW, event(payload=b"1"), event(payload=b"2"), closed=True))
        whole = await _dump(other)
        await moving_store(store).install(whole)
        await other.commit(step("run:a", 2, event("pruned")))
        await other.prune("run:a", until=2)
        with refused(StreamDiffers) as refusal:
            await moving_store(store).install(await _dump(other))
        assert "was pruned there" in str(refusal.error)
        assert len(await collect(store.read("run:a"))) == 2
        with refused(StreamDiffers) as refusal:
            await moving_store(other).install(whole)
        assert "was pruned here" in str(refusal.error)
        assert len(await collect(other.read("run:a"))) == 1


async def what_is_left_of_it_cannot_be_changed_on_the_way(harness: StoreHarness) -> None:
    """A digest that is missing, twice, another, or too many; a removal that is not finished. Nothing is installed."""
    async with _both(harness) as (store, other):
        if store is None:
            return
        await _fill(other)
        items = await _dump(other)
        for broken in _broken(items):
            with refused(NotInstallable):
                await moving_store(store).install(broken)
            assert await _dump(store) == []
        await moving_store(store).install(items)


# -- what they use -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _both(harness: StoreHarness) -> AsyncIterator[tuple[_All | None, Any]]:
    """The store, if it has both capabilities, and another one."""
    store = await harness.open()
    other = MemoryStore()
    try:
        yield store if "moving" in store.capabilities and keeps(store) else None, other  # type: ignore[misc]
    finally:
        await other.aclose()


async def _fill(store: Any) -> None:
    """Streams whose events are mixed in the log; two of them pruned, one of these with mail before."""
    await store.commit(step("run:a", NEW, event("a", b"1"), event("b")))
    await store.commit(step("run:b", NEW, event("x", b"2"), attributes={"n": 1}))
    await store.send(data("run:a", "known"))
    await store.commit(step("run:a", 2, event("c", b"3"), consumes=("known",)))
    await store.commit(step("run:c", NEW, event("d", b"4"), event("pruned"), closed=True))
    await store.commit(step("run:a", 3, event("pruned"), closed=True, attributes={"s": "x"}))
    await store.commit(step("run:b", 1, event("y")))
    await store.prune("run:a", until=3)
    await store.prune("run:c", until=1)


async def _dump(store: EventStore, *names: str) -> list[Item]:
    async with aclosing(moving_store(store).dump(names or None)) as items:
        return await collect(items)


def _of(leaves: list[Any]) -> list[KeptDigest]:
    return [each for each in leaves if isinstance(each, KeptDigest) and each.stream == "run:a"]


def _with(items: list[Item], item: Item, **changes: Any) -> list[Item]:
    return [replace(each, **changes) if each is item else each for each in items]


def _broken(items: list[Item]) -> Iterator[list[Item]]:
    """What nobody may take in."""
    stream = next(item for item in items if isinstance(item, StoredStream) and item.stream == "run:a")
    kept = _of(items)
    last = next(item for item in items if isinstance(item, RecordedEvent) and item.stream == "run:a")
    other = next(item for item in items if isinstance(item, RecordedEvent) and item.stream == "run:b")
    for each in kept:
        yield [item for item in items if item is not each]
        yield [again for item in items for again in ([item, item] if item is each else [item])]
    yield _with(items, kept[-1], digest=bytes(32))
    yield _with(items, kept[0], digest=b"short")
    yield _with(items, kept[0], was=-1)
    yield _with(items, stream, pruned=False)
    yield _with(items, stream, pruned="yes")
    yield [item for item in items if item is not last]
    yield [KeptDigest("run:a", 4, 9, last.digest) if item is last else item for item in items]
    yield [KeptDigest("run:b", 1, 3, other.digest) if item is other else item for item in items]
    yield [replace(item, pruned=True) if isinstance(item, StoredStream) else item for item in items]
    at = items.index(kept[0])
    yield [kept[0], *items[:at], *items[at + 1 :]]
    for mail_ in (
        StoredMessage(stream="run:a", id="m", sender=None, control=True, header=b"{}", payload=None, sent_at=1),
        ConsumedMessages(stream="run:a", ids=("m",)),
    ):
        yield [*items[:at], mail_, *items[at:]]
