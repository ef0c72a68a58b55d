"""Checks: many commits at once. They may share a transaction; each is refused or applied on its own."""

from __future__ import annotations

import asyncio

from eventstore.conformance.harness import StoreHarness, all_of, begin, collect, data, event, history, mail, step
from eventstore.errors import InvalidArgument, UnknownMessage, VersionConflict
from eventstore.port import NEW, StreamHead


async def many_commits_at_once(harness: StoreHarness) -> None:
    """Three hundred concurrent commits of as many streams all happen."""
    store = await harness.open()
    streams = [f"run:{number}" for number in range(300)]
    heads = await all_of(store.commit(step(stream, NEW, event(stream, b"1"))) for stream in streams)
    assert [(head.stream, head.version) for head in heads] == [(stream, 1) for stream in streams]
    positions = [recorded.position for recorded in await collect(store.read_all())]
    assert positions == sorted(set(positions))
    assert len(positions) == len(streams)


async def a_refused_commit_harms_no_other(harness: StoreHarness) -> None:
    """Refused commits between others, of other streams and of the same, take nobody along and leave no trace."""
    store = await harness.open()
    await begin(store, *(f"run:{number}" for number in range(20)))
    commits = []
    for number in range(20):
        stream = f"run:{number}"
        commits += [
            step(stream, 5, event("early"), sends=(data("run:0", f"early {number}"),), held=True),
            step(stream, 1, event("good")),
            step(stream, 2, event("unknown"), consumes=("never sent",), attributes={"state": "bad"}),
            step(stream, 1, event("late"), alarm=77),
            step(stream, 2, event("better")),
        ]
    results = await asyncio.gather(*(store.commit(commit) for commit in commits), return_exceptions=True)
    expected = [VersionConflict, StreamHead, UnknownMessage, VersionConflict, StreamHead] * 20
    assert [type(result) for result in results] == expected
    for number in range(20):
        stream = f"run:{number}"
        assert await history(store, stream) == ["begun", "good", "better"]
        head = await store.head(stream)
        assert (head.version, head.held, head.alarm, head.attributes, mail(head)) == (3, False, None, {}, [])


async def a_malformed_commit_harms_no_other(harness: StoreHarness) -> None:
    """An argument that cannot be stored is the caller's alone."""
    store = await harness.open()
    commits = [
        step("run:a", NEW, event("good")),
        step("run:b", NEW, event("bad"), attributes={"x": 1 << 70}),
        step("run:c", NEW, event("good")),
    ]
    results = await asyncio.gather(*(store.commit(commit) for commit in commits), return_exceptions=True)
    assert [type(result) for result in results] == [StreamHead, InvalidArgument, StreamHead]


async def commits_of_one_stream_in_a_row_apply_in_the_order_of_the_calls(harness: StoreHarness) -> None:
    """A caller need not wait for one commit of a stream to send the next."""
    store = await harness.open()
    versions = [NEW, *range(1, 50)]
    heads = await all_of(store.commit(step("run:a", version, event(str(version)))) for version in versions)
    assert [head.version for head in heads] == list(range(1, 51))
    assert len({head.digest for head in heads}) == 50
    assert await history(store, "run:a") == [str(version) for version in versions]


async def a_commit_sees_the_ones_before_it_in_the_group(harness: StoreHarness) -> None:
    """What an earlier commit sends can be consumed by a later one that was called with it."""
    store = await harness.open()
    await begin(store, "run:b")
    sent, consumed, again = await all_of(
        store.commit(commit)
        for commit in (
            step("run:a", NEW, event(), sends=(data("run:b", "m"),)),
            step("run:b", 1, event(), consumes=("m",)),
            step("run:a", 1, event(), sends=(data("run:b", "m"),)),
        )
    )
    assert (sent.version, consumed.version, again.version) == (1, 2, 2)
    assert mail(await store.head("run:b")) == []


async def of_two_writers_one_wins(harness: StoreHarness) -> None:
    """Of concurrent commits that expect the same version exactly one is applied."""
    store = await harness.open()
    for version in (NEW, 1, 2):
        results = await asyncio.gather(
            *(store.commit(step("run:a", version, event())) for _ in range(10)), return_exceptions=True
        )
        assert [type(result) for result in results].count(StreamHead) == 1
        assert [type(result) for result in results].count(VersionConflict) == 9
    assert (await store.head("run:a")).version == 3


async def of_two_handles_one_wins(harness: StoreHarness) -> None:
    """The same between two handles that write at the same time."""
    stores = [await harness.open(), await harness.open()]
    for version in (NEW, *range(1, 20)):
        results = await asyncio.gather(
            *(store.commit(step("run:a", version, event())) for store in stores), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) == ["StreamHead", "VersionConflict"]
    heads = await all_of(store.head("run:a") for store in stores)
    assert heads[0] == heads[1]
    assert heads[0].version == 20


async def the_same_commit_twice_at_once_happens_once(harness: StoreHarness) -> None:
    """A retry that overtakes its first try is still the same commit."""
    stores = [await harness.open(), await harness.open()]
    commit = step("run:a", NEW, event("once"), sends=(data("run:nobody", "m"),))
    heads = await all_of(store.commit(commit) for store in (*stores, *stores))
    assert {head.version for head in heads} == {1}
    assert len({head.digest for head in heads}) == 1
    assert {head.undelivered for head in heads} == {heads[0].undelivered}
    assert await history(stores[0], "run:a") == ["once"]
