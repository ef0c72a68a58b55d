"""Checks: forgetting payloads and pruning events (capability ``keeping``). What stays verifies, and is told apart."""

from __future__ import annotations

import asyncio
from hashlib import sha256

from msgspec.structs import replace

from eventstore.conformance.harness import (
    StoreHarness,
    all_of,
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
)
from eventstore.digest import chain_start, event_digest
from eventstore.errors import (
    InvalidArgument,
    LeaseLost,
    StreamClosed,
    StreamNotFound,
    StreamNotPrunable,
    VersionConflict,
)
from eventstore.keeping import KEEP_EVENTS_MAX, Keeping, KeptDigest
from eventstore.port import NEW, EventStore, Opening, RecordedEvent, StreamQuery

_MANY = KEEP_EVENTS_MAX + 500


class _Both(EventStore, Keeping):
    """A store with the capability."""


async def forgotten_payloads_leave_a_chain_that_verifies(harness: StoreHarness) -> None:
    """Payload and salt go, of all events or of those that are named; header, payload digest and digest stay."""
    store = await _keeping(harness)
    if store is None:
        return
    await store.commit(step("run:a", NEW, event("a", b"1"), event("b"), event("c", b"3"), event("d", b"")))
    before = await collect(store.read("run:a"))
    assert await store.forget("run:a", versions=(2, 3, 3, 9)) == 1
    assert [each.payload for each in await collect(store.read("run:a"))] == [b"1", None, None, b""]
    assert await store.forget("run:a") == 2
    assert await store.forget("run:a") == 0
    digest = chain_start("run:a")
    for old, new in zip(before, await collect(store.read("run:a")), strict=True):
        assert (new.payload, new.salt) == (None, None)
        assert (new.header, new.payload_digest, new.digest) == (old.header, old.payload_digest, old.digest)
        assert (new.version, new.position) == (old.version, old.position)
        digest = event_digest(digest, new.header, new.payload_digest)
        assert digest == new.digest
    assert await collect(store.read_all()) == await collect(store.read("run:a"))
    head = await store.commit(step("run:a", 4, event("e", b"5")))
    assert head.version == 5, "a stream that forgot goes on"
    assert (await collect(store.read("run:a", after=4)))[0].payload == b"5"


async def a_closed_stream_forgets_its_mail(harness: StoreHarness) -> None:
    """Of an open one it waits on; its ids stay known either way."""
    store = await _keeping(harness)
    if store is None:
        return
    await begin(store, "run:a")
    await store.send(data("run:a", "m"))
    await store.forget("run:a")
    assert mail(await store.head("run:a")) == ["m"]
    await store.send(control("run:a", "c"))
    await store.commit(step("run:a", 1, event("over"), closed=True))
    await store.forget("run:a", versions=(1,))
    assert mail(await store.head("run:a")) == ["m", "c"]
    await store.forget("run:a")
    assert mail(await store.head("run:a")) == []
    await store.send(data("run:a", "m"))
    async with store.lease("worker") as lease:
        assert await claim(store, lease) == []


async def a_pruned_stream_keeps_its_last_event_and_digests(harness: StoreHarness) -> None:
    """Its place in the log is kept for every event; the chain of what stays goes on from the digest before."""
    store = await _keeping(harness)
    if store is None:
        return
    await store.commit(step("run:a", NEW, event("a", b"1"), event("b"), attributes={"kind": "x"}))
    await begin(store, "run:b")
    await store.commit(step("run:a", 2, event("c", b"3"), event("pruned"), closed=True))
    before = await collect(store.read_all())
    assert await collect(store.leaves()) == before
    assert await store.prune("run:a", until=3) == 3
    gone = [each for each in before if each.stream == "run:a" and each.version <= 3]
    kept = [KeptDigest("run:a", each.version, each.position, each.digest) for each in gone]
    assert await collect(store.kept("run:a")) == kept
    assert await collect(store.kept("run:a", after=2)) == kept[2:]
    assert await collect(store.kept("run:b")) == []
    assert [(each.position, each.digest) for each in await collect(store.leaves())] == [
        (each.position, each.digest) for each in before
    ]
    assert [each for each in await collect(store.leaves()) if isinstance(each, KeptDigest)] == kept
    assert [(each.stream, each.version) for each in await collect(store.read_all())] == [("run:b", 1), ("run:a", 4)]
    assert await history(store, "run:a") == ["pruned"]
    assert await history(store, "run:a", until=3) == []
    last = (await collect(store.read("run:a")))[0]
    assert event_digest(kept[-1].digest, last.header, last.payload_digest) == last.digest
    head = await store.head("run:a")
    assert (head.version, head.digest, head.closed, head.pruned) == (4, last.digest, True, True)
    assert head.attributes == {"kind": "x"}


async def a_pruned_stream_is_found_only_if_asked_for(harness: StoreHarness) -> None:
    """By category, attribute, name, and page by page."""
    store = await _keeping(harness)
    if store is None:
        return
    for number in range(6):
        name = f"run:{number}"
        await store.commit(step(name, NEW, event(), event(), closed=True, attributes={"n": number % 2}))
    for number in (1, 2, 5):
        await store.prune(f"run:{number}", until=1)
    for base in (StreamQuery(), StreamQuery(category="run"), StreamQuery(streams=tuple(f"run:{n}" for n in range(6)))):
        for pruned, expected in ((False, [0, 3, 4]), (True, [1, 2, 5]), (None, [0, 1, 2, 3, 4, 5])):
            assert await _numbers(store, base, pruned=pruned) == expected
    odd = StreamQuery(attributes={"n": 1})
    assert await _numbers(store, odd, pruned=False) == [3]
    assert await _numbers(store, odd, pruned=None) == [1, 3, 5]


async def the_name_of_a_pruned_stream_stays_taken(harness: StoreHarness) -> None:
    """Nobody makes it anew, by a commit or by mail; and no mail reaches it, whatever was known of it before."""
    store = await _keeping(harness)
    if store is None:
        return
    await store.commit(step("run:a", NEW, event(), event()))
    await store.send(data("run:a", "known"))
    await store.commit(step("run:a", 2, consumes=("known",), closed=True))
    await store.send(control("run:a", "waits"))
    await store.prune("run:a", until=1)
    with refused(VersionConflict):
        await store.commit(step("run:a", NEW, event()))
    for message in (
        data("run:a", "m"),
        control("run:a", "c"),
        data("run:a", "o", opens=Opening()),
        data("run:a", "known"),
    ):
        with refused(StreamClosed):
            await store.send(message)
    head = await store.commit(step("run:b", NEW, event(), sends=(control("run:a", "d"),)))
    assert [each.reason for each in head.undelivered] == ["closed"]
    assert (await store.head("run:a")).messages == ()
    async with store.lease("worker") as lease:
        assert await claim(store, lease) == []


async def only_what_is_closed_and_nobodys_is_pruned(harness: StoreHarness) -> None:
    """And never the last event. What is refused has changed nothing."""
    store = await _keeping(harness)
    if store is None:
        return
    with refused(StreamNotFound):
        await store.prune("run:a", until=1)
    with refused(StreamNotFound):
        await store.forget("run:a")
    with refused(StreamNotFound):
        await collect(store.kept("run:a"))
    await store.commit(step("run:a", NEW, event(payload=b"1"), event()))
    with refused(StreamNotPrunable):
        await store.prune("run:a", until=1)
    async with store.lease("worker") as lease:
        await store.send(control("run:a", "m"))
        await claim(store, lease)
        await store.commit(step("run:a", 2, closed=True, lease=lease))
        with refused(LeaseLost):
            await store.prune("run:a", until=1)
    for until in (0, 2, 3):
        with refused(StreamNotPrunable):
            await store.prune("run:a", until=until)
    with refused(InvalidArgument):
        await store.forget("run:a", versions=(0,))
    assert [each.payload for each in await collect(store.read("run:a"))] == [b"1", None]
    assert await store.prune("run:a", until=1) == 1
    assert await store.prune("run:a", until=1) == 0
    await store.commit(step("run:a", 2, event("more"), event("last")))
    assert await store.prune("run:a", until=3) == 0, "once"


async def many_events_go_in_several_steps(harness: StoreHarness) -> None:
    """While others commit; a stream that was left half-way is finished by asking again, also by two at once."""
    store = await _keeping(harness)
    if store is None:
        return
    version = NEW
    while version < _MANY:
        events = tuple(event(payload=b"x") for _ in range(min(500, _MANY - max(version, 0))))
        version = (await store.commit(step("run:a", version, *events))).version
    await store.commit(step("run:a", version, event("last"), closed=True))
    digests = sha256(b"".join([leaf.digest async for leaf in store.leaves()])).digest()
    forgotten, _ = await asyncio.gather(store.forget("run:a"), begin(store, "run:b"))
    assert forgotten == _MANY
    pruning = asyncio.ensure_future(store.prune("run:a", until=_MANY))
    for _ in range(3):
        await asyncio.sleep(0)
    pruning.cancel()
    await asyncio.wait([pruning])
    left = [each async for each in store.kept("run:a")]
    assert [each.version for each in left] == list(range(1, len(left) + 1)), "the oldest go first"
    other = await _keeping(harness)
    assert other is not None
    await all_of(each.prune("run:a", until=_MANY) for each in (store, other))
    assert [each.version async for each in other.kept("run:a")] == list(range(1, _MANY + 1))
    assert await history(other, "run:a") == ["last"]
    leaves = [leaf async for leaf in store.leaves() if leaf.stream == "run:a"]
    assert sha256(b"".join(leaf.digest for leaf in leaves)).digest() == digests
    assert (await store.head("run:a")).pruned


async def who_reads_meanwhile_meets_each_position_once(harness: StoreHarness) -> None:
    """Whether an event was taken away before or behind a reader, its leaf is there, and only one of the two."""
    store = await _keeping(harness)
    if store is None:
        return
    for stream in ("run:a", "run:b"):
        await store.commit(step(stream, NEW, *(event() for _ in range(2_000)), closed=True))
    expected = [(leaf.position, leaf.digest) async for leaf in store.leaves()]
    seen = []
    async for leaf in store.leaves():
        seen.append((leaf.position, leaf.digest))
        if len(seen) in (500, 2_100):
            await store.prune("run:a" if len(seen) == 500 else "run:b", until=1_999)
    assert seen == expected
    assert [leaf.position async for leaf in store.leaves(after=expected[10][0])] == [each for each, _ in expected[11:]]


async def what_is_pruned_is_so_for_every_handle(harness: StoreHarness) -> None:
    """Another handle, which has seen the stream before, and one that is opened later."""
    store = await _keeping(harness)
    if store is None:
        return
    other = await harness.open()
    await other.commit(step("run:a", NEW, event(payload=b"1"), event(), closed=True))
    await store.prune("run:a", until=1)
    with refused(StreamClosed):
        await other.send(control("run:a", "m"))
    assert (await other.head("run:a")).pruned
    if harness.reopenable:
        for handle in (store, other):
            await handle.aclose()
        again = await _keeping(harness)
        assert again is not None
        assert (await again.head("run:a")).pruned
        assert [isinstance(leaf, RecordedEvent) async for leaf in again.leaves()] == [False, True]


async def _keeping(harness: StoreHarness) -> _Both | None:
    """A store, if it has the capability."""
    store = await harness.open()
    if "keeping" not in store.capabilities:
        return None
    assert isinstance(store, Keeping), "it says that it has the capability"
    return store  # type: ignore[return-value] # it is an EventStore, too


async def _numbers(store: EventStore, query: StreamQuery, *, pruned: bool | None) -> list[int]:
    """The numbers that the names of the streams end with, page by page in both directions."""
    found: list[list[int]] = []
    for newest_first in (True, False):
        names: list[int] = []
        cursor = None
        while True:
            page = await store.find(replace(query, pruned=pruned, newest_first=newest_first, limit=2, cursor=cursor))
            names += [int(head.stream.partition(":")[2]) for head in page.items]
            cursor = page.next
            if cursor is None:
                break
        found.append(sorted(names))
    assert found[0] == found[1]
    return found[0]
