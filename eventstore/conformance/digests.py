"""Checks: the digest chain, verified from what `read` returns with nothing but `eventstore.digest`."""

from __future__ import annotations

from eventstore.conformance.harness import StoreHarness, all_of, begin, collect, data, event, refused, step
from eventstore.digest import SALT_BYTES, chain_start, event_digest, payload_digest
from eventstore.errors import VersionConflict
from eventstore.port import NEW, NO_DIGEST, EventStore, NewEvent, Opening


async def every_chain_verifies(harness: StoreHarness) -> None:
    """Each event's digest follows from the one before and from its stored bytes; the head has the last."""
    store, other = await harness.open(), await harness.open()
    await store.send(data("run:opened", "m", opens=Opening()))
    assert (await store.head("run:opened")).digest == chain_start("run:opened")
    streams = ["run:opened", "run:näh", "asset:x", "run:many"]
    versions = dict.fromkeys(streams, NEW) | {"run:opened": 0}
    for handle in (store, other, store):
        for stream in streams:
            size = 700 if stream == "run:many" else 3
            events = tuple(NewEvent(b'{"n":%d}' % n, None if n % 3 == 0 else b"\x00%d" % n) for n in range(size))
            head = await handle.commit(step(stream, versions[stream], *events))
            versions[stream] = head.version
            assert head.digest == await _verify(handle, stream)
    assert [await _verify(other, stream) for stream in streams] == [
        (await store.head(stream)).digest for stream in streams
    ]


async def salts_differ(harness: StoreHarness) -> None:
    """Equal payloads have different digests: a destroyed payload cannot be guessed from another event."""
    store = await harness.open()
    await store.commit(step("run:a", NEW, *(event("same", b"same") for _ in range(50))))
    await all_of(store.commit(step(f"run:{number}", NEW, event("same", b"same"))) for number in range(50))
    recorded = await collect(store.read_all())
    assert len(recorded) == 100
    assert len({one.salt for one in recorded}) == 100
    assert len({one.payload_digest for one in recorded}) == 100
    assert all(one.salt is not None and len(one.salt) == SALT_BYTES for one in recorded)


async def an_event_without_payload_has_no_salt(harness: StoreHarness) -> None:
    """No payload: no salt, and the digest that stands for nothing. An empty payload is one."""
    store = await harness.open()
    await store.commit(step("run:a", NEW, event("without"), event("empty", b"")))
    without, empty = await collect(store.read("run:a"))
    assert (without.payload, without.salt, without.payload_digest) == (None, None, NO_DIGEST)
    assert empty.payload == b""
    assert empty.salt is not None
    assert empty.payload_digest == payload_digest(empty.salt, b"") != NO_DIGEST


async def the_same_events_in_another_stream_have_another_chain(harness: StoreHarness) -> None:
    """An event moved to another stream, or to another place, shows."""
    store = await harness.open()
    for stream in ("run:a", "run:b"):
        await store.commit(step(stream, NEW, event("same"), event("same")))
    digests = [recorded.digest async for recorded in store.read_all()]
    assert len(set(digests)) == 4


async def a_refused_commit_leaves_the_chain(harness: StoreHarness) -> None:
    """What was not recorded is not in the chain."""
    store = await harness.open()
    await begin(store, "run:a")
    before = (await store.head("run:a")).digest
    with refused(VersionConflict):
        await store.commit(step("run:a", 5, event("lost", b"1")))
    assert (await store.head("run:a")).digest == before
    head = await store.commit(step("run:a", 1, event("kept", b"1")))
    assert head.digest == await _verify(store, "run:a")


async def _verify(store: EventStore, stream: str) -> bytes:
    """Recompute the chain; the digest that it ends in."""
    digest = chain_start(stream)
    async for recorded in store.read(stream):
        if recorded.payload is not None:
            assert recorded.salt is not None
            assert recorded.payload_digest == payload_digest(recorded.salt, recorded.payload)
        digest = event_digest(digest, recorded.header, recorded.payload_digest)
        assert recorded.digest == digest, f"{stream} breaks at version {recorded.version}"
    return digest
