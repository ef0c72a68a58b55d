"""Checks: streams that move to another store and back (capability ``moving``), with all that they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

from msgspec.structs import replace

from eventstore.conformance.harness import (
    ANY,
    StoreHarness,
    begin,
    claim,
    collect,
    control,
    data,
    event,
    history,
    mail,
    refused,
    step,
    take,
    wait,
)
from eventstore.errors import (
    LimitReached,
    NotInstallable,
    StreamDiffers,
    StreamNotFound,
    UnsupportedCapability,
    VersionConflict,
)
from eventstore.memory import MemoryStore
from eventstore.moving import (
    CONSUMED_PAGE,
    ConsumedMessages,
    Item,
    MovingStore,
    StoredMessage,
    StoredPermit,
    StoredStream,
    StoredWaiter,
    moving_store,
)
from eventstore.port import NEW, NO_DIGEST, EventStore, Opening, RecordedEvent, Timestamp, pool_stream


async def what_moves_is_all_that_a_stream_is(harness: StoreHarness) -> None:
    """Into a memory store and back: events, mail, tombstones, marks, attributes and times; the order of the log."""
    store = await harness.open()
    if "moving" not in store.capabilities:
        return
    await _fill(store, harness.now())
    before = await _dump(store)
    assert {type(item) for item in before} >= {StoredStream, StoredMessage, ConsumedMessages, RecordedEvent}
    async with _elsewhere() as other:
        installed = await moving_store(other).install(before)
        assert (installed.streams, installed.same) == (4, 0)
        assert await _dump(other) == before
        assert [(each.stream, each.version) async for each in other.read_all()] == [
            (each.stream, each.version) async for each in store.read_all()
        ]


async def a_store_that_cannot_says_so(harness: StoreHarness) -> None:
    """Whether it can is declared, and the second port is there or is not."""
    store = await harness.open()
    if "moving" in store.capabilities:
        assert isinstance(store, MovingStore)
        return
    with refused(UnsupportedCapability):
        moving_store(store)


async def many_consumed_messages_come_along(harness: StoreHarness) -> None:
    """More than one item lists, of several streams: cut the same by every store."""
    store = await harness.open()
    if "moving" not in store.capabilities:
        return
    for stream, count in (("run:a", CONSUMED_PAGE + 3), ("run:b", 5)):
        ids = tuple(f"m-{number:05}" for number in range(count))
        sends = tuple(data(stream, message_id, opens=_OPENING) for message_id in ids)
        await store.commit(step(f"run:sends-to-{stream[-1]}", NEW, event("sent"), sends=sends))
        await store.commit(step(stream, 0, event("consumed"), consumes=ids))
    items = await _dump(store)
    lists = [(item.stream, len(item.ids)) for item in items if isinstance(item, ConsumedMessages)]
    assert lists == [("run:a", CONSUMED_PAGE), ("run:a", 3), ("run:b", 5)]
    async with _elsewhere() as other:
        await moving_store(other).install(items)
        assert await _dump(other) == items


async def what_comes_from_elsewhere_is_what_it_was(harness: StoreHarness) -> None:
    """From a memory store into this one: it stands as it stood there, and can be gone on with."""
    async with _elsewhere() as other:
        await _fill(other, harness.now())
        items = await _dump(other)
        heads = {name: await other.head(name) for name in ("run:a", "run:b", "run:c", "run:opened")}
    store = await harness.open()
    if "moving" not in store.capabilities:
        return
    await moving_store(store).install(items)
    assert _without_positions(await _dump(store)) == _without_positions(items)
    for name, head in heads.items():
        assert await store.head(name) == replace(head, owner=None, claims=0)
    head = await store.head("run:a")
    await store.commit(step("run:a", head.version, event("on"), consumes=("m-2",)))
    assert (await history(store, "run:a"))[-1] == "on"


async def a_consumed_message_is_not_delivered_again(harness: StoreHarness) -> None:
    """Its id came along; one that still waited is there once."""
    async with _from_elsewhere(harness) as store:
        if store is None:
            return
        await store.send(data("run:a", "m-1"))
        await store.send(data("run:a", "m-2"))
        assert mail(await store.head("run:a")) == ["m-2", "c-1"]


async def an_alarm_that_came_along_wakes(harness: StoreHarness) -> None:
    """And so does mail; what is held is left alone."""
    async with _from_elsewhere(harness) as store:
        if store is None:
            return
        async with store.lease("worker") as lease:
            assert await claim(store, lease) == ["run:a"]
            await harness.turn(_ALARM_SECONDS + 1)
            assert await claim(store, lease, busy={"run:a"}) == ["run:c"]


async def the_same_again_does_nothing(harness: StoreHarness) -> None:
    """And leaves alone what has become of the streams since, apart from their events."""
    async with _from_elsewhere(harness) as store:
        if store is None:
            return
        items = await _dump(store)
        await store.send(data("run:b", "later"))
        behind = step("import:1", NEW, event("imported"))
        installed = await moving_store(store).install(items, behind=behind)
        assert (installed.streams, installed.events, installed.same) == (0, 0, 4)
        assert "later" in mail(await store.head("run:b"))
        with refused(StreamNotFound):
            await store.head("import:1")


async def other_events_are_refused_and_nothing_is_installed(harness: StoreHarness) -> None:
    """Others, fewer or more of the same; also the streams beside it stay out."""
    store = await harness.open()
    if "moving" not in store.capabilities:
        return
    await begin(store, "run:b")
    await begin(store, "run:a")
    async with _elsewhere() as other:
        await moving_store(other).install(await _dump(store))
        await other.commit(step("run:new", NEW, event("new")))
        await other.commit(step("run:a", 1, event("longer")))
        longer = await _dump(other)
        with refused(StreamDiffers) as refusal:
            await moving_store(store).install(longer)
        assert (refusal.error.stream, refusal.error.here, refusal.error.there) == ("run:a", 1, 2)
        with refused(StreamDiffers) as refusal:
            await moving_store(other).install(await _dump(store))
        assert "has gone on" in str(refusal.error)
        await store.commit(step("run:a", 1, event("other")))
        with refused(StreamDiffers) as refusal:
            await moving_store(store).install(longer)
        assert "has other events" in str(refusal.error)
    assert not [each async for each in store.read_all() if each.stream == "run:new"]
    with refused(StreamNotFound):
        await store.head("run:new")


async def what_was_changed_is_refused(harness: StoreHarness) -> None:
    """Each with stream and version; nothing of it is there."""
    async with _elsewhere() as other:
        await _fill(other, harness.now())
        items = await _dump(other)
    store = await harness.open()
    if "moving" not in store.capabilities:
        return
    for broken in _broken(items):
        with refused(NotInstallable):
            await moving_store(store).install(broken)
        assert await _dump(store) == []
    first = next(item for item in items if isinstance(item, RecordedEvent))
    with refused(NotInstallable) as refusal:
        await moving_store(store).install(_with(items, first, header=b'{"type":"other"}'))
    assert (refusal.error.stream, refusal.error.version) == (first.stream, 1)
    await moving_store(store).install(items)


async def an_error_on_the_way_undoes_all(harness: StoreHarness) -> None:
    """What the items raise comes out, and nothing was installed; nor if the commit behind it is refused."""
    async with _elsewhere() as other:
        await _fill(other, harness.now())
        items = await _dump(other)
    store = await harness.open()
    if "moving" not in store.capabilities:
        return

    def torn() -> Iterator[Item]:
        yield from items[:-1]
        raise OSError("the disk is gone")

    with refused(OSError):
        await moving_store(store).install(torn())
    with refused(VersionConflict):
        await moving_store(store).install(items, behind=step("import:1", 7, event("imported")))
    assert await _dump(store) == []
    await moving_store(store).install(items, behind=step("import:1", NEW, event("imported")))
    assert [each.stream async for each in store.read_all()][-1] == "import:1"


async def a_lasting_permit_moves_and_others_wait_behind(harness: StoreHarness) -> None:
    """The whole pool moves: who held lastingly holds, who waited waits, and is granted the permit when it is free."""
    async with _elsewhere() as other:
        await _share(other)
        items = await _dump(other)
    store = await harness.open()
    if not {"moving", "permits"} <= store.capabilities:
        return
    assert {type(item) for item in items} >= {StoredPermit, StoredWaiter}
    await moving_store(store).install(items)
    assert _without_positions(await _dump(store)) == _without_positions(items)
    await store.commit(step("run:a", 1, event("ended"), closed=True))
    (granted,) = (await store.head("run:b")).messages
    assert granted.sender == pool_stream("p")


async def one_who_holds_joins_the_pool_that_is_there(harness: StoreHarness) -> None:
    """Without its pool: it opens one, or is refused if somebody else has the permit; who waits comes last."""
    async with _elsewhere() as other:
        await _share(other)
        holder, waiter = await _dump(other, "run:a"), await _dump(other, "run:b")
    store = await harness.open()
    if not {"moving", "permits"} <= store.capabilities:
        return
    await moving_store(store).install(holder)
    assert (await store.head(pool_stream("p"))).attributes == {"limit": 1}
    await moving_store(store).install(waiter)
    assert mail(await store.head("run:b")) == []
    await store.commit(step("run:a", 1, event("ended"), closed=True))
    assert len((await store.head("run:b")).messages) == 1  # its turn
    async with _elsewhere() as other:
        await _share(other, first="run:z")
        renamed = await _dump(other, "run:z")
    with refused(LimitReached):
        await moving_store(store).install(renamed)
    with refused(StreamNotFound):
        await store.head("run:z")


async def some_streams_are_given_out_alone(harness: StoreHarness) -> None:
    """Those that were named, one after the other; one that is not there is an error."""
    async with _from_elsewhere(harness) as store:
        if store is None:
            return
        some = await _dump(store, "run:c", "run:a")
        assert {item.stream for item in some if not isinstance(item, StoredPermit)} == {"run:a", "run:c"}  # type: ignore[union-attr]
        with refused(StreamNotFound):
            await _dump(store, "run:a", "run:nobody")


async def others_write_meanwhile(harness: StoreHarness) -> None:
    """What is given out is one moment; what is taken in stands in the log in one piece."""
    async with _elsewhere() as other:
        await _fill(other, harness.now())
        items = await _dump(other)
    store = await harness.open()
    if "moving" not in store.capabilities:
        return
    await begin(store, "run:mine")
    moving = moving_store(store)
    seen: list[Item] = []
    async with aclosing(moving.dump()) as dumped:
        async for item in dumped:
            if not seen:
                await store.commit(step("run:mine", 1, event("later")))
                await moving.install(items)
            seen.append(item)
    assert [item.version for item in seen if isinstance(item, RecordedEvent)] == [1]
    log = [each.stream async for each in store.read_all()]
    assert log[:2] == ["run:mine", "run:mine"]
    assert log[2:] == [item.stream for item in items if isinstance(item, RecordedEvent)]


_ALARM_SECONDS: Final = 3
_OPENING: Final = Opening(attributes={"by": "mail"})

# -- what they use -----------------------------------------------------------------------------------------------------


async def _dump(store: EventStore, *names: str) -> list[Item]:
    async with aclosing(moving_store(store).dump(names or None)) as items:
        return await collect(items)


@asynccontextmanager
async def _elsewhere() -> AsyncIterator[EventStore]:
    store = MemoryStore()
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def _from_elsewhere(harness: StoreHarness) -> AsyncIterator[EventStore | None]:
    """The store, with what was filled elsewhere; None if it cannot take that in."""
    store = await harness.open()
    if "moving" not in store.capabilities:
        yield None
        return
    async with _elsewhere() as other:
        await _fill(other, harness.now())
        await moving_store(store).install(await _dump(other))
    yield store


async def _fill(store: EventStore, now: Timestamp) -> None:
    """Three streams whose events are mixed in the log, with all that a stream can have, and one that was opened."""
    await store.commit(step("run:b", NEW, event("begun", b"\x00\xff"), held=True, attributes={"n": 1, "f": 1.5}))
    await store.commit(step("run:a", NEW, event("begun"), event("more", "näh".encode()), attributes={"on": True}))
    await store.commit(step("run:b", 1, event("more"), attributes={"s": "x"}))
    await store.commit(step("run:c", NEW, event("begun", b""), alarm=now + _ALARM_SECONDS * 1_000_000))
    for message in (data("run:a", "m-1", sender="run:b"), data("run:a", "m-2"), control("run:a", "c-1")):
        await store.send(message)
    await store.commit(step("run:a", 2, event("consumed"), consumes=("m-1",)))
    await store.send(data("run:opened", "m-1", opens=_OPENING))
    async with store.lease("worker") as lease:
        await claim(store, lease, query=replace(ANY, streams=("run:opened",)))
        await store.commit(step("run:opened", 0, consumes=("m-1",), lease=lease, closed=True, release=True))


async def _share(store: EventStore, first: str = "run:a") -> None:
    await store.commit(step(pool_stream("p"), NEW, event("limit"), attributes={"limit": 1}))
    await store.commit(step(first, NEW, event("begun"), permits=(take(first, lasting=True),)))
    await store.commit(step("run:b", NEW, event("begun"), permits=(wait("run:b", key="k"),), held=True))


def _without_positions(items: list[Item]) -> list[Any]:
    return [replace(item, position=0) if isinstance(item, RecordedEvent) else item for item in items]


def _with(items: list[Item], item: Item, **changes: Any) -> list[Item]:
    return [replace(each, **changes) if each is item else each for each in items]


def _broken(items: list[Item]) -> Iterator[list[Item]]:
    """What nobody may take in."""
    events = [item for item in items if isinstance(item, RecordedEvent)]
    with_payload = next(item for item in events if item.payload)
    stream = next(item for item in items if isinstance(item, StoredStream))
    message = next(item for item in items if isinstance(item, StoredMessage))
    yield items[:-1]
    yield [item for item in items if item is not events[0]]
    yield [*items, events[-1]]
    yield [stream, *items]
    yield [item for item in items if item is not stream]
    yield list(reversed(items))
    yield _with(items, with_payload, payload=b"other")
    yield _with(items, with_payload, payload=None)
    yield _with(items, with_payload, salt=with_payload.salt[:-1] if with_payload.salt else None)
    yield _with(items, with_payload, payload_digest=NO_DIGEST)
    yield _with(items, events[0], digest=bytes(32))
    yield _with(items, events[0], header=b"no object")
    yield _with(items, events[0], header=b"[" * 100_000)
    yield _with(items, stream, digest=bytes(32))
    yield _with(items, stream, version=stream.version + 1)
    yield _with(items, stream, attributes={"x": [1]})
    yield _with(items, stream, stream="no-colon")
    yield _with(items, stream, created_at="today")
    yield _with(items, message, id="")
    yield _with(items, message, stream="run:nobody")
    yield [each for item in items for each in ([item, item] if item is message else [item])]
