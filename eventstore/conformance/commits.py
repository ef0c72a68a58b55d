"""Checks: one commit. Versions, what a head says, what a refusal leaves, and the same commit again."""

from __future__ import annotations

from msgspec.structs import replace

from eventstore.conformance.harness import (
    ANY,
    StoreHarness,
    begin,
    control,
    data,
    event,
    history,
    mail,
    refused,
    step,
)
from eventstore.errors import StreamNotFound, UnknownMessage, VersionConflict
from eventstore.port import NEW, Commit, EventStore, StreamHead, Undelivered


async def a_first_commit_creates_the_stream(harness: StoreHarness) -> None:
    """A commit of a NEW stream creates it; the head says what it is."""
    store = await harness.open()
    head = await store.commit(step("run:a", NEW, event("one"), event("two"), attributes={"state": "new"}))
    assert head == StreamHead(
        stream="run:a",
        version=2,
        digest=head.digest,
        created_at=harness.now(),
        updated_at=harness.now(),
        alarm=None,
        held=False,
        closed=False,
        owner=None,
        claims=0,
        attributes={"state": "new"},
    )
    assert await store.head("run:a") == head
    assert await history(store, "run:a") == ["one", "two"]


async def new_must_not_exist(harness: StoreHarness) -> None:
    """NEW is refused when the stream exists, and the error says at which version it is."""
    store = await harness.open()
    await begin(store, "run:a")
    with refused(VersionConflict) as refusal:
        await store.commit(step("run:a", NEW, event()))
    assert (refusal.error.stream, refusal.error.expected, refusal.error.actual) == ("run:a", NEW, 1)
    with refused(VersionConflict) as refusal:
        await store.commit(step("run:b", 3, event()))
    assert (refusal.error.stream, refusal.error.expected, refusal.error.actual) == ("run:b", 3, NEW)
    with refused(StreamNotFound):
        await store.head("run:b")


async def zero_is_a_stream_without_events(harness: StoreHarness) -> None:
    """0 is expected of a stream that exists without events, and is not NEW."""
    store = await harness.open()
    with refused(VersionConflict):
        await store.commit(step("run:a", 0, event()))
    assert (await store.commit(step("run:a", NEW))).version == 0
    with refused(VersionConflict) as refusal:
        await store.commit(step("run:a", NEW, event()))
    assert refusal.error.actual == 0
    assert (await store.commit(step("run:a", 0, event()))).version == 1


async def versions_have_no_gap(harness: StoreHarness) -> None:
    """Versions are 1, 2, 3 ...; neither an older nor a later version than the present one is accepted."""
    store = await harness.open()
    version = NEW
    for size in (1, 3, 2):
        version = (await store.commit(step("run:a", version, *(event() for _ in range(size))))).version
    assert version == 6
    for wrong in (5, 7):
        with refused(VersionConflict) as refusal:
            await store.commit(step("run:a", wrong, event()))
        assert (refusal.error.expected, refusal.error.actual) == (wrong, 6)
    assert [recorded.version async for recorded in store.read("run:a")] == [1, 2, 3, 4, 5, 6]


async def a_commit_may_write_no_events(harness: StoreHarness) -> None:
    """Marks alone can change; version and digest then stay, the time of the last commit does not."""
    store = await harness.open()
    before = await store.commit(step("run:a", NEW, event()))
    await harness.turn(1)
    after = await store.commit(step("run:a", 1, held=True))
    assert (after.version, after.digest, after.held) == (1, before.digest, True)
    assert after.created_at == before.created_at
    assert after.updated_at > before.updated_at


async def everything_in_a_commit_happens(harness: StoreHarness) -> None:
    """Events, consumed and sent messages, alarm, marks and attributes of one commit all happen."""
    store = await harness.open()
    await begin(store, "run:a", "run:b")
    await store.send(data("run:a", "in"))
    head = await store.commit(_rich_commit())
    assert (head.version, head.alarm, head.held, head.closed) == (2, 77, True, True)
    assert head.attributes == {"state": "done"}
    assert mail(head) == []
    assert head.undelivered == (Undelivered("lost", "run:nobody", "not_found"),)
    assert replace(head, undelivered=()) == await store.head("run:a")
    assert mail(await store.head("run:b")) == ["out"]


async def parts_left_out_stay(harness: StoreHarness) -> None:
    """What a commit does not name keeps its value; None clears an alarm."""
    store = await harness.open()
    await store.commit(step("run:a", NEW, alarm=77, held=True, closed=True, attributes={"state": "new"}))
    head = await store.commit(step("run:a", 0, event()))
    assert (head.alarm, head.held, head.closed, head.attributes) == (77, True, True, {"state": "new"})
    head = await store.commit(step("run:a", 1, alarm=None, held=False, closed=False))
    assert (head.alarm, head.held, head.closed, head.attributes) == (None, False, False, {"state": "new"})


async def a_closed_stream_can_be_written_and_reopened(harness: StoreHarness) -> None:
    """Closed is about mail: its owner may still write, and may open it again."""
    store = await harness.open()
    await store.commit(step("run:a", NEW, event(), closed=True))
    assert (await store.commit(step("run:a", 1, event()))).closed
    assert not (await store.commit(step("run:a", 2, closed=False))).closed
    await store.send(data("run:a", "m"))
    assert mail(await store.head("run:a")) == ["m"]


async def an_unknown_message_refuses_the_commit(harness: StoreHarness) -> None:
    """Consuming what is not waiting is refused, also when other messages are, and on a NEW stream."""
    store = await harness.open()
    await begin(store, "run:a", "run:b")
    await store.send(data("run:a", "known"))
    await store.send(data("run:b", "elsewhere"))
    for consumes in (("known", "unknown"), ("elsewhere",)):
        with refused(UnknownMessage) as refusal:
            await store.commit(step("run:a", 1, event(), consumes=consumes))
        assert (refusal.error.stream, refusal.error.message_id) == ("run:a", consumes[-1])
    with refused(UnknownMessage):
        await store.commit(step("run:c", NEW, event(), consumes=("known",)))
    assert mail(await store.head("run:a")) == ["known"]


async def a_consumed_message_cannot_be_consumed_again(harness: StoreHarness) -> None:
    """Consumed is consumed."""
    store = await harness.open()
    await begin(store, "run:a")
    await store.send(data("run:a", "m"))
    assert mail(await store.commit(step("run:a", 1, event(), consumes=("m",)))) == []
    with refused(UnknownMessage):
        await store.commit(step("run:a", 2, event(), consumes=("m",)))


async def a_refused_commit_leaves_everything_as_it_was(harness: StoreHarness) -> None:
    """Whatever the reason for a refusal, no part of the commit happened."""
    store = await harness.open()
    await begin(store, "run:a", "run:b")
    await store.send(data("run:a", "in"))
    before = await _everything(store)
    with refused(VersionConflict):
        await store.commit(_rich_commit(expected_version=7))
    with refused(VersionConflict):
        await store.commit(_rich_commit(expected_version=NEW))
    with refused(UnknownMessage):
        await store.commit(_rich_commit(consumes=("in", "never sent")))
    assert await _everything(store) == before


async def a_repeated_commit_returns_the_first_outcome(harness: StoreHarness) -> None:
    """The stream's last commit, sent again, returns what it returned and does nothing, whatever came in between."""
    store = await harness.open()
    await begin(store, "run:a", "run:b")
    await store.send(data("run:a", "in"))
    commit = _rich_commit()
    first = await store.commit(commit)
    await store.send(control("run:a", "later"))
    await store.commit(step("run:b", 1, event(), consumes=("out",)))
    await harness.turn(5)
    for _ in range(2):
        again = await store.commit(commit)
        assert _outcome(again) == _outcome(first)
    assert await history(store, "run:a") == ["begun", "rich"]
    assert mail(await store.head("run:b")) == []
    created = step("run:c", NEW, event())
    assert _outcome(await store.commit(created)) == _outcome(await store.commit(created))


async def a_repeated_commit_repeats_its_undelivered(harness: StoreHarness) -> None:
    """What could not be delivered is part of the outcome, also when it could be by now."""
    store = await harness.open()
    commit = step("run:a", NEW, event(), sends=(data("run:b", "m"),))
    first = await store.commit(commit)
    assert first.undelivered == (Undelivered("m", "run:b", "not_found"),)
    await begin(store, "run:b")
    assert (await store.commit(commit)).undelivered == first.undelivered
    assert mail(await store.head("run:b")) == []


async def an_earlier_commit_is_not_repeated(harness: StoreHarness) -> None:
    """Only the last commit is known again; an earlier one conflicts like any other and writes nothing."""
    store = await harness.open()
    earlier = step("run:a", NEW, event("one"))
    await store.commit(earlier)
    await store.commit(step("run:a", 1, event("two")))
    with refused(VersionConflict):
        await store.commit(earlier)
    assert await history(store, "run:a") == ["one", "two"]


async def commit_ids_belong_to_their_stream(harness: StoreHarness) -> None:
    """The same id on another stream is another commit."""
    store = await harness.open()
    for stream in ("run:a", "run:b"):
        await store.commit(step(stream, NEW, event(), id="same"))
    assert (await store.head("run:b")).version == 1


def _rich_commit(*, expected_version: int = 1, consumes: tuple[str, ...] = ("in",)) -> Commit:
    return step(
        "run:a",
        expected_version,
        event("rich", b"[1]"),
        consumes=consumes,
        sends=(data("run:b", "out"), data("run:nobody", "lost")),
        alarm=77,
        held=True,
        closed=True,
        attributes={"state": "done"},
    )


def _outcome(head: StreamHead) -> tuple[object, ...]:
    """What a commit did; who owns the stream and what waits in its mailbox may have changed since."""
    return (
        head.stream,
        head.version,
        head.digest,
        head.created_at,
        head.updated_at,
        head.alarm,
        head.held,
        head.closed,
        head.attributes,
        head.undelivered,
    )


async def _everything(store: EventStore) -> list[object]:
    heads = (await store.find(ANY)).items
    recorded = [recorded async for recorded in store.read_all()]
    return [heads, recorded, [await store.head(head.stream) for head in heads]]
