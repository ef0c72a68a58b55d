"""Checks: closing a store, and finding everything again."""

from __future__ import annotations

import asyncio
from typing import Final

from eventstore.conformance.harness import (
    ANY,
    StoreHarness,
    all_of,
    begin,
    claim,
    collect,
    data,
    event,
    history,
    mail,
    refused,
    soon,
    step,
)
from eventstore.errors import StoreClosed
from eventstore.port import NEW, StreamHead

_LONG: Final = 3_600.0


async def a_closed_store_refuses_everything(harness: StoreHarness) -> None:
    """Every method raises `StoreClosed`, also with a lease from before."""
    store = await harness.open()
    async with store.lease("worker") as lease:
        await begin(store, "run:a")
        await store.aclose()
        for call in (
            store.commit(step("run:b", NEW, event())),
            store.commit(step("run:a", 1, event(), lease=lease)),
            store.send(data("run:a", "m")),
            store.head("run:a"),
            store.find(ANY),
            store.claim(lease, query=ANY, limit=10),
            store.wait(lease, timeout=0),
            history(store, "run:a"),
            collect(store.read_all()),
        ):
            with refused(StoreClosed):
                await call
        with refused(StoreClosed):
            async with store.lease("another"):
                raise AssertionError("a lease of a closed store")


async def closing_twice_does_nothing(harness: StoreHarness) -> None:
    """Closing again, or from several places at once, is no error."""
    store = await harness.open()
    await begin(store, "run:a")
    await soon(all_of(store.aclose() for _ in range(3)))
    await store.aclose()
    fresh = await harness.open() if harness.reopenable else None
    if fresh is not None:
        await fresh.aclose()
        await fresh.aclose()


async def closing_waits_for_commits_under_way(harness: StoreHarness) -> None:
    """A commit called before the closing ends, well or refused as closed; nobody is left waiting."""
    store = await harness.open()
    streams = [f"run:{number}" for number in range(30)]
    calls = [asyncio.create_task(store.commit(step(stream, NEW, event()))) for stream in streams]
    await asyncio.sleep(0)
    await soon(store.aclose())
    results = await soon(asyncio.gather(*calls, return_exceptions=True))
    assert {type(result) for result in results} <= {StreamHead, StoreClosed}
    assert StreamHead in {type(result) for result in results}
    if harness.reopenable:
        store = await harness.open()
        acknowledged = {result.stream for result in results if isinstance(result, StreamHead)}
        assert {head.stream for head in (await store.find(ANY)).items} == acknowledged


async def closing_ends_leases_and_waits(harness: StoreHarness) -> None:
    """A waiter learns that the store closed; a lease's block can be left afterwards, and is not fresh any more."""
    store = await harness.open()
    async with store.lease("worker") as lease:
        assert await claim(store, lease) == []
        await store.wait(lease, timeout=0)
        assert await claim(store, lease) == []
        sleeper = asyncio.create_task(store.wait(lease, timeout=_LONG))
        await asyncio.sleep(0)
        await soon(store.aclose())
        with refused(StoreClosed):
            await soon(sleeper)
        assert not lease.fresh()
    if harness.reopenable:
        other = await harness.open()
        async with other.lease("heir") as heir:
            assert heir.token > lease.token


async def closing_one_handle_leaves_the_other(harness: StoreHarness) -> None:
    """Where a second handle is another one, it goes on, and inherits what the first one's leases owned."""
    store, other = await harness.open(), await harness.open()
    if store is other:
        return
    async with store.lease("worker") as lease:
        await begin(store, "run:a", lease=lease)
        await store.aclose()
    async with other.lease("heir") as heir:
        assert await claim(other, heir) == ["run:a"]
        assert (await other.commit(step("run:a", 1, event(), lease=heir))).version == 2


async def what_was_acknowledged_is_there_again(harness: StoreHarness) -> None:
    """Heads, history, mail, tombstones, attributes, alarms and the last commit's outcome survive closing."""
    if not harness.reopenable:
        return
    store = await harness.open()
    last = step("run:a", 1, event("last", b"2"), alarm=harness.now() + 10**9, held=True, attributes={"x": 1.5})
    await begin(store, "run:a", "run:b")
    outcome = await store.commit(last)
    await store.send(data("run:a", "consumed"))
    await store.send(data("run:a", "waiting"))
    await store.commit(step("run:b", 1, event(), consumes=(), closed=True))
    before = [await store.head(stream) for stream in ("run:a", "run:b")]
    log = await collect(store.read_all())
    found = await store.find(ANY)
    await store.aclose()
    store = await harness.open()
    assert [await store.head(stream) for stream in ("run:a", "run:b")] == before
    assert await collect(store.read_all()) == log
    assert await store.find(ANY) == found
    again = await store.commit(last)
    assert (again.version, again.digest) == (outcome.version, outcome.digest)
    head = await store.commit(step("run:a", 2, event(), consumes=("consumed",)))
    assert mail(head) == ["waiting"]
    await store.send(data("run:a", "consumed"))
    assert mail(await store.head("run:a")) == ["waiting"]
    positions = [recorded.position for recorded in await collect(store.read_all())]
    assert positions[:-1] == [recorded.position for recorded in log]
    assert positions[-1] > positions[-2]
