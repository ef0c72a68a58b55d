"""Checks: reading one stream and the whole log. In order, in pages, and with no gap that is filled later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from eventstore.conformance.harness import StoreHarness, begin, collect, data, event, history, refused, step
from eventstore.errors import InvalidArgument, StreamNotFound
from eventstore.port import NEW, NO_DIGEST, NewEvent, Opening, RecordedEvent


async def a_stream_is_read_as_it_was_written(harness: StoreHarness) -> None:
    """Headers and payloads are the same bytes; absent, empty, text and binary payloads stay apart."""
    store = await harness.open()
    headers = (b"{}", b'{ "spaced" :\t1 }\n', '{"näh":"☃"}'.encode(), b'{"a":1,"a":1.0,"b":1e400}', b'{"u":"\\u00e9"}')
    payloads = (None, b"", b"null", b"\x00", b"a\x00b", b"\xff\xfe", "☃".encode(), b'{"b":1, "a":2}', b"\xed\xa0\x80")
    expected = [(header, payload) for header in headers for payload in payloads]
    events = tuple(NewEvent(header, payload) for header, payload in expected)
    await store.commit(step("run:a", NEW, *events[:20]))
    await store.commit(step("run:a", 20, *events[20:]))
    recorded = await collect(store.read("run:a"))
    assert [(one.header, one.payload) for one in recorded] == expected
    assert {one.stream for one in recorded} == {"run:a"}
    assert await collect(store.read_all()) == recorded


async def a_reading_without_proof_tells_the_same(harness: StoreHarness) -> None:
    """Whoever looks at no salts and digests reads the same events, from page to page; theirs are right or left out."""
    store = await harness.open()
    await store.commit(step("run:a", NEW, *(NewEvent(b"{}", None if n % 3 else b"%d" % n) for n in range(2_100))))
    for after, until in ((0, None), (999, 2_050)):
        whole = await collect(store.read("run:a", after=after, until=until))
        brief = await collect(store.read("run:a", after=after, until=until, proof=False))
        assert [_told(one) for one in brief] == [_told(one) for one in whole]
        for one, proven in zip(brief, whole, strict=True):
            assert one.digest in (NO_DIGEST, proven.digest)
            assert one.payload_digest in (NO_DIGEST, proven.payload_digest)
            assert one.salt in (None, proven.salt)


def _told(one: RecordedEvent) -> tuple[str, int, int, bytes, bytes | None]:
    return one.stream, one.version, one.position, one.header, one.payload


async def after_and_until_bound_a_reading(harness: StoreHarness) -> None:
    """`after` is exclusive, `until` inclusive; a range with nothing in it is empty, not an error."""
    store = await harness.open()
    await store.commit(step("run:a", NEW, *(event(str(number)) for number in range(1, 8))))
    for bounds, expected in (
        ({}, "1234567"),
        ({"after": 3}, "4567"),
        ({"until": 3}, "123"),
        ({"after": 2, "until": 5}, "345"),
        ({"after": 6, "until": 100}, "7"),
        ({"after": 7}, ""),
        ({"after": 100}, ""),
        ({"after": 5, "until": 5}, ""),
        ({"after": 5, "until": 2}, ""),
        ({"until": 0}, ""),
    ):
        assert await history(store, "run:a", **bounds) == list(expected), bounds


async def large_streams_are_read_whole(harness: StoreHarness) -> None:
    """Several pages of any sensible page size join without a seam, from wherever one starts."""
    store = await harness.open()
    total = 4_100
    await store.commit(step("run:a", NEW, *(event(str(number)) for number in range(1, 2_001))))
    await begin(store, "run:between")
    await store.commit(step("run:a", 2_000, *(event(str(number)) for number in range(2_001, total + 1))))
    for after in (0, 1, 999, 1_000, 1_001, 2_500, total - 1):
        expected = list(range(after + 1, total + 1))
        assert [recorded.version async for recorded in store.read("run:a", after=after)] == expected
    log = await collect(store.read_all())
    assert len(log) == total + 1
    middle = log[1_234].position
    assert await collect(store.read_all(after=middle)) == log[1_235:]
    assert [one.version for one in await collect(store.read_all(category="run")) if one.stream == "run:a"] == [
        *range(1, total + 1)
    ]


async def readings_stop_where_the_log_ended_when_they_began(harness: StoreHarness) -> None:
    """A reading that writes what it reads comes to an end."""
    store = await harness.open()
    await store.commit(step("run:a", NEW, event(), event()))
    version = 2
    async for recorded in store.read("run:a"):
        version = (await store.commit(step("run:a", version, event(), event()))).version
        assert recorded.version <= 2
    assert version == 6
    seen = 0
    async for _ in store.read_all():
        seen += 1
        version = (await store.commit(step("run:a", version, event()))).version
    assert seen == 6
    assert version == 12


async def readings_may_be_left_early(harness: StoreHarness) -> None:
    """A reading left after one event holds nothing up: not writes, not other readings, not closing."""
    store = await harness.open()
    await store.commit(step("run:a", NEW, *(event() for _ in range(1_500))))
    for _ in range(30):
        async with aclosing(_generator(store.read("run:a"))) as reading:
            async for recorded in reading:
                assert recorded.version == 1
                break
        async with aclosing(_generator(store.read_all())) as reading:
            async for recorded in reading:
                assert recorded.version == 1
                break
    assert (await store.commit(step("run:a", 1_500, event()))).version == 1_501
    assert len(await history(store, "run:a")) == 1_501


async def readings_may_be_nested_and_interleaved(harness: StoreHarness) -> None:
    """Many readings at once, one inside another, and writes beside them do not disturb each other."""
    store = await harness.open()
    streams = [f"run:{number}" for number in range(5)]
    for stream in streams:
        await store.commit(step(stream, NEW, *(event(f"{stream} {number}") for number in range(30))))

    async def read_slowly(stream: str) -> list[str]:
        texts = []
        async for recorded in store.read(stream):
            texts.append(recorded.header)
            await asyncio.sleep(0)
            if recorded.version == 10:
                assert len(await history(store, streams[0], until=30)) == 30
        return [header.decode() for header in texts]

    readings = [read_slowly(stream) for stream in streams * 3]
    *results, _ = await asyncio.gather(*readings, store.commit(step("run:0", 30, event("more"))))
    for stream, texts in zip(streams * 3, results, strict=True):
        assert isinstance(texts, list)
        assert texts[:30] == [f'{{"type":"{stream} {number}"}}' for number in range(30)]
        assert len(texts) in (30, 31)


async def the_log_is_in_commit_order(harness: StoreHarness) -> None:
    """Positions rise, over all streams, in the order in which commits happened; `after` is exclusive."""
    store, other = await harness.open(), await harness.open()
    await begin(store, "run:a")
    await begin(other, "asset:b")
    await store.commit(step("run:a", 1, event("second"), event("third")))
    await other.commit(step("asset:b", 1, event("second")))
    log = await collect(store.read_all())
    assert [(one.stream, one.version) for one in log] == [
        ("run:a", 1),
        ("asset:b", 1),
        ("run:a", 2),
        ("run:a", 3),
        ("asset:b", 2),
    ]
    assert await collect(other.read_all()) == log
    positions = [one.position for one in log]
    assert positions == sorted(set(positions))
    assert positions[0] > 0
    for number, position in enumerate(positions):
        assert await collect(store.read_all(after=position)) == log[number + 1 :]
    assert await collect(store.read("run:a")) == [one for one in log if one.stream == "run:a"]


async def the_log_is_read_by_category(harness: StoreHarness) -> None:
    """Only streams of that category, by the part before the first colon, not by what it begins with."""
    store = await harness.open()
    for stream in ("run:a", "runs:a", "asset:run:a", "run:asset:b", "Run:a"):
        await begin(store, stream)
    assert [one.stream async for one in store.read_all(category="run")] == ["run:a", "run:asset:b"]
    assert [one.stream async for one in store.read_all(category="asset")] == ["asset:run:a"]
    assert await collect(store.read_all(category="ru")) == []
    log = await collect(store.read_all())
    assert [one.stream async for one in store.read_all(after=log[0].position, category="run")] == ["run:asset:b"]


async def no_gap_of_the_log_is_ever_filled_later(harness: StoreHarness) -> None:
    """A reader that follows the log by position while others write, from two handles, misses and repeats nothing."""
    stores = [await harness.open(), await harness.open()]
    writers = 8
    commits = 15
    running = writers
    seen: list[tuple[str, int]] = []
    position = 0

    async def write(number: int) -> None:
        nonlocal running
        store, stream, version = stores[number % 2], f"run:{number}", NEW
        try:
            for _ in range(commits):
                version = (await store.commit(step(stream, version, event(), event(payload=b"1")))).version
        finally:
            running -= 1

    async def follow() -> None:
        nonlocal position
        last_round = False
        while not last_round:
            last_round = not running
            async for recorded in stores[0].read_all(after=position):
                assert recorded.position > position
                position = recorded.position
                seen.append((recorded.stream, recorded.version))
            await asyncio.sleep(0)

    await asyncio.gather(follow(), *(write(number) for number in range(writers)))
    assert seen == [(one.stream, one.version) for one in await collect(stores[1].read_all())]
    assert len(seen) == writers * commits * 2


async def unknown_streams_cannot_be_read(harness: StoreHarness) -> None:
    """A stream that is not there is an error; one that is there without events is empty."""
    store = await harness.open()
    with refused(StreamNotFound) as refusal:
        await collect(store.read("run:a"))
    assert refusal.error.stream == "run:a"
    await store.send(data("run:b", "m", opens=Opening()))
    await store.commit(step("run:c", NEW))
    assert await history(store, "run:b") == []
    assert await history(store, "run:c") == []
    assert await collect(store.read_all()) == []


async def nonsense_bounds_are_refused(harness: StoreHarness) -> None:
    """Negative bounds and names that cannot be are refused."""
    store = await harness.open()
    await begin(store, "run:a")
    for reading in (
        store.read("run:a", after=-1),
        store.read("run:a", until=-1),
        store.read("no category"),
        store.read_all(after=-1),
        store.read_all(category=""),
        store.read_all(category="run:a"),
    ):
        with refused(InvalidArgument):
            await collect(reading)


async def _generator(reading: AsyncIterator[RecordedEvent]) -> AsyncGenerator[RecordedEvent, None]:
    """The reading as something that can be closed; leaving it closes what it reads from."""
    async for recorded in reading:
        yield recorded
