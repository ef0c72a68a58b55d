"""Checks: attributes, and finding streams by them. Pages by keyset, stable while others write."""

from __future__ import annotations

from msgspec.structs import replace

from eventstore.conformance.harness import StoreHarness, begin, control, data, event, refused, step
from eventstore.errors import InvalidArgument
from eventstore.port import FIND_LIMIT_MAX, NEW, EventStore, Opening, Scalar, StreamQuery


async def attributes_merge_and_none_removes(harness: StoreHarness) -> None:
    """A commit's attributes are merged into what is there; None removes, also what is not there; empty text is kept."""
    store = await harness.open()
    await store.commit(step("run:a", NEW, attributes={"a": 1, "b": "x", "none": None}))
    head = await store.commit(step("run:a", 0, attributes={"b": "", "c": 0, "never": None}))
    assert head.attributes == {"a": 1, "b": "", "c": 0}
    head = await store.commit(step("run:a", 0, attributes={"a": None}))
    assert head.attributes == {"b": "", "c": 0}
    head = await store.commit(step("run:a", 0, attributes={}))
    assert head.attributes == {"b": "", "c": 0}
    assert (await store.head("run:a")).attributes == {"b": "", "c": 0}


async def attribute_values_keep_their_type(harness: StoreHarness) -> None:
    """str, int, float and bool come back as what they were, at their extremes."""
    store = await harness.open()
    attributes: dict[str, Scalar] = {
        "text": "näh ☃ 'quoted' \"double\" \\ %_",
        "digits": "1",
        "empty": "",
        "one": 1,
        "least": -(2**63),
        "most": 2**63 - 1,
        "half": 0.5,
        "whole": 1.0,
        "tiny": 5e-324,
        "huge": 1.7976931348623157e308,
        "third": 1 / 3,
        "true": True,
        "false": False,
        "a name with spaces.and-more": "x",
    }
    await store.commit(step("run:a", NEW, attributes=attributes))
    for head in (await store.head("run:a"), (await store.find(StreamQuery())).items[0]):
        assert head.attributes == attributes
        assert {name: type(value) for name, value in head.attributes.items()} == {
            name: type(value) for name, value in attributes.items()
        }
    for name, value in attributes.items():
        assert await _found(store, StreamQuery(attributes={name: value})) == ["run:a"], name


async def returned_attributes_are_the_callers_own(harness: StoreHarness) -> None:
    """What a caller does to the mapping it was given, or gave, does not reach the store."""
    store = await harness.open()
    given: dict[str, Scalar] = {"a": 1}
    head = await store.commit(step("run:a", NEW, attributes=given))
    given["a"] = 2
    if isinstance(head.attributes, dict):
        head.attributes["a"] = 3
    assert (await store.head("run:a")).attributes == {"a": 1}
    assert await _found(store, StreamQuery(attributes={"a": 1})) == ["run:a"]


async def attributes_are_found_as_they_are_now(harness: StoreHarness) -> None:
    """An old value no longer finds the stream, the present one does, a removed one is absent."""
    store = await harness.open()
    await store.commit(step("run:a", NEW, attributes={"state": "new", "n": 1}))
    await store.commit(step("run:a", 0, attributes={"state": "done"}))
    assert await _found(store, StreamQuery(attributes={"state": "new"})) == []
    assert await _found(store, StreamQuery(attributes={"state": "done", "n": 1})) == ["run:a"]
    await store.commit(step("run:a", 0, attributes={"state": None}))
    assert await _found(store, StreamQuery(attributes={"state": "done"})) == []
    assert await _found(store, StreamQuery(attributes={"state": None})) == ["run:a"]
    await store.send(data("run:b", "m", opens=Opening(attributes={"state": "opened"})))
    assert await _found(store, StreamQuery(attributes={"state": "opened"})) == ["run:b"]


async def equal_is_one_of_and_absent_is_none(harness: StoreHarness) -> None:
    """A value must be equal (numbers as numbers, never text), a tuple is one of, None is absent, () is nothing."""
    store = await harness.open()
    values: dict[str, Scalar] = {"run:one": 1, "run:two": 2, "run:text": "1", "run:big": 2**53 + 1, "run:none": None}
    for stream, value in values.items():
        await store.commit(step(stream, NEW, attributes={"x": value}))
    wanted: list[tuple[Scalar | tuple[Scalar, ...], list[str]]] = [
        (1, ["run:one"]),
        (1.0, ["run:one"]),
        (True, ["run:one"]),
        ("1", ["run:text"]),
        ("one", []),
        (2**53 + 1, ["run:big"]),
        (2**53, []),
        (None, ["run:none"]),
        ((1, 2, 3), ["run:one", "run:two"]),
        ((1, "1", 1), ["run:one", "run:text"]),
        ((2, None), ["run:none", "run:two"]),
        ((None,), ["run:none"]),
        ((), []),
    ]
    for sought, expected in wanted:
        assert sorted(await _found(store, StreamQuery(attributes={"x": sought}))) == expected, sought
        oldest_first = StreamQuery(attributes={"x": sought}, newest_first=False)
        assert sorted(await _found(store, oldest_first)) == expected, sought


async def every_condition_must_hold(harness: StoreHarness) -> None:
    """Category, names, attributes, closed, held and waiting control mail narrow each other."""
    store = await harness.open()
    await store.commit(step("run:a", NEW, attributes={"w": "etl", "n": 1}))
    await store.commit(step("run:b", NEW, attributes={"w": "etl", "n": 2}, closed=True))
    await store.commit(step("run:c", NEW, attributes={"w": "train", "n": 1}, held=True))
    await store.commit(step("runs:a", NEW, attributes={"w": "etl"}))
    await store.commit(step("run:a:b", NEW, attributes={"w": "sub"}))
    for message in (control("run:b", "m"), control("runs:a", "m"), data("run:a", "m")):
        await store.send(message)
    for query, expected in (
        (StreamQuery(), ["run:a", "run:a:b", "run:b", "run:c", "runs:a"]),
        (StreamQuery(category="run"), ["run:a", "run:a:b", "run:b", "run:c"]),
        (StreamQuery(category="ru"), []),
        (StreamQuery(category="runs"), ["runs:a"]),
        (StreamQuery(category="run", attributes={"w": "etl"}), ["run:a", "run:b"]),
        (StreamQuery(attributes={"w": "etl", "n": 1}), ["run:a"]),
        (StreamQuery(attributes={"w": ("etl", "sub"), "n": None}), ["run:a:b", "runs:a"]),
        (StreamQuery(closed=True), ["run:b"]),
        (StreamQuery(closed=False, category="run", attributes={"w": "etl"}), ["run:a"]),
        (StreamQuery(held=True), ["run:c"]),
        (StreamQuery(held=True, closed=True), []),
        (StreamQuery(control=True), ["run:b", "runs:a"]),
        (StreamQuery(control=True, held=False, category="run"), ["run:b"]),
        (StreamQuery(control=False), ["run:a", "run:a:b", "run:c"]),
        (StreamQuery(held=False, closed=False), ["run:a", "run:a:b", "runs:a"]),
        (StreamQuery(streams=("run:c", "run:b", "run:x", "run:b"), held=False), ["run:b"]),
        (StreamQuery(streams=()), []),
    ):
        assert sorted(await _found(store, query)) == expected, query


async def creation_time_bounds_are_from_inclusive_until_exclusive(harness: StoreHarness) -> None:
    """`created_from` is the first instant that fits, `created_until` the first that does not."""
    store = await harness.open()
    times = []
    for stream in ("run:a", "run:b", "run:c"):
        times.append((await store.commit(step(stream, NEW))).created_at)
        await harness.turn(1)
    await store.commit(step("run:a", 0, event()))  # created is not updated
    for query, expected in (
        (StreamQuery(created_from=times[1]), ["run:c", "run:b"]),
        (StreamQuery(created_from=times[1] + 1), ["run:c"]),
        (StreamQuery(created_until=times[1]), ["run:a"]),
        (StreamQuery(created_until=times[1] + 1), ["run:b", "run:a"]),
        (StreamQuery(created_from=times[1], created_until=times[2]), ["run:b"]),
        (StreamQuery(created_from=times[2] + 1), []),
    ):
        assert await _found(store, query) == expected, query


async def order_is_creation_time_then_name(harness: StoreHarness) -> None:
    """Newest first or oldest first, ties by name, one order being the reverse of the other; writing changes nothing."""
    store = await harness.open()
    expected = []
    for batch in (("run:m", "run:b", "run:ä", "run:B"), ("run:z", "run:a")):
        await begin(store, *batch)
        expected += sorted(batch, key=str.encode)
        await harness.turn(1)
    await store.commit(step("run:b", 1, event()))
    heads = (await store.find(StreamQuery(newest_first=False))).items
    if len({head.created_at for head in heads}) == 2:  # a clock that moves by itself may have parted a batch
        assert [head.stream for head in heads] == expected
    assert [(head.created_at, head.stream.encode()) for head in heads] == sorted(
        (head.created_at, head.stream.encode()) for head in heads
    )
    assert await _found(store, StreamQuery()) == [head.stream for head in reversed(heads)]


async def pages_hold_everything_once(harness: StoreHarness) -> None:
    """Pages of every size, in both orders, join to the whole; the last has no cursor, and full ones are full."""
    store = await harness.open()
    streams = [f"run:{number:02}" for number in range(24)]
    for start in (0, 10, 20):
        await begin(store, *streams[start : start + 10], attributes={"x": 1})
        await begin(store, f"other:{start}", attributes={"x": 2})
        await harness.turn(1)
    for newest_first in (True, False):
        for limit in (1, 7, 8, 12, 24, 25):
            for query in (StreamQuery(category="run"), StreamQuery(attributes={"x": 1})):
                found: list[str] = []
                cursor = None
                while True:
                    page = await store.find(_page_of(query, limit, newest_first=newest_first, cursor=cursor))
                    found += [head.stream for head in page.items]
                    cursor = page.next
                    if cursor is None:
                        break
                    assert len(page.items) == limit
                whole = (await store.find(replace(query, newest_first=newest_first))).items
                assert found == [head.stream for head in whole]
                assert sorted(found) == streams


async def pages_neither_repeat_nor_skip_while_others_write(harness: StoreHarness) -> None:
    """Streams that were there throughout come once each, in order, though others come and change between the pages."""
    store, other = await harness.open(), await harness.open()
    streams = [f"run:{number:02}" for number in range(20)]
    for start in (0, 10):
        await begin(store, *streams[start : start + 10])
        await harness.turn(1)
    for newest_first in (True, False):
        found: list[str] = []
        cursor = None
        for number in range(40):
            page = await store.find(_page_of(StreamQuery(), 3, newest_first=newest_first, cursor=cursor))
            found += [head.stream for head in page.items]
            cursor = page.next
            if cursor is None:
                break
            await harness.turn(0.001)
            await begin(other, f"run:new {newest_first} {number}")
            touched = await store.head(streams[number])
            await store.commit(step(touched.stream, touched.version, event(), attributes={"n": number}))
        assert cursor is None
        assert len(found) == len(set(found))
        there_throughout = [stream for stream in found if stream in streams]
        assert sorted(there_throughout) == streams
        heads = {head.stream: head.created_at for head in (await store.find(StreamQuery(limit=1_000))).items}
        order = sorted(streams, key=lambda stream: (heads[stream], stream), reverse=newest_first)
        assert there_throughout == order


async def found_heads_carry_no_mail(harness: StoreHarness) -> None:
    """What `find` returns is the head, but for the messages."""
    store = await harness.open()
    async with store.lease("worker") as lease:
        await begin(store, "run:a", lease=lease, attributes={"x": 1}, alarm=5)
        before = await store.head("run:a")
        await store.send(data("run:a", "m"))
        assert (await store.find(StreamQuery())).items == (before,)


async def a_nonsense_query_is_refused(harness: StoreHarness) -> None:
    """Limits, cursors, names and values that make no sense are refused; the largest page is not."""
    store = await harness.open()
    for query in (
        StreamQuery(limit=0),
        StreamQuery(limit=-1),
        StreamQuery(limit=FIND_LIMIT_MAX + 1),
        StreamQuery(cursor="no cursor of ours"),
        StreamQuery(cursor=""),
        StreamQuery(category=""),
        StreamQuery(category="run:a"),
        StreamQuery(streams=("no category",)),
        StreamQuery(attributes={"": 1}),
        StreamQuery(attributes={"x": float("nan")}),
        StreamQuery(attributes={"x": (1, 2**64)}),
    ):
        with refused(InvalidArgument):
            await store.find(query)
    assert (await store.find(StreamQuery(limit=FIND_LIMIT_MAX))).items == ()


async def _found(store: EventStore, query: StreamQuery) -> list[str]:
    page = await store.find(query)
    assert page.next is None
    return [head.stream for head in page.items]


def _page_of(query: StreamQuery, limit: int, *, newest_first: bool, cursor: str | None) -> StreamQuery:
    return replace(query, limit=limit, newest_first=newest_first, cursor=cursor)
