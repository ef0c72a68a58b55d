"""Checks: what every store refuses before it looks at anything, and what it must be able to take."""

from __future__ import annotations

from typing import Any, TypeVar

from msgspec.structs import replace

from eventstore.conformance.harness import (
    ANY,
    StoreHarness,
    collect,
    control,
    data,
    event,
    history,
    mail,
    refused,
    step,
)
from eventstore.errors import CommitTooLarge, InvalidArgument, StreamNotFound, UnsupportedCapability
from eventstore.port import (
    COMMIT_EVENTS_MAX,
    COMMIT_MESSAGES_MAX,
    HEADER_BYTES_MAX,
    NAME_BYTES_MAX,
    NEW,
    PAYLOAD_BYTES_MAX,
    Commit,
    EventStore,
    Message,
    NewEvent,
    Opening,
    Permit,
)

_S = TypeVar("_S", Commit, Message)


async def a_malformed_commit_is_refused(harness: StoreHarness) -> None:
    """Names, versions, headers and attributes that no store could keep are `InvalidArgument`."""
    store = await harness.open()
    good = step("run:a", NEW, event())
    for stream in ("", "run", "run:", ":a", "run:\x00", "run:\ud800", "run:" + "x" * NAME_BYTES_MAX):
        await _invalid(store, replace(good, stream=stream))
    for commit_id in ("", "\x00", "x" * (NAME_BYTES_MAX + 1)):
        await _invalid(store, replace(good, id=commit_id))
    for version in (-2, 2**63, 1.0, "1"):
        await _invalid(store, _replaced(good, expected_version=version))
    for header in (b"", b"[]", b"1", b"{", b'{"a":1} x', b'{"a":NaN}', b'{"a":"\xff"}', b"{'a':1}", "{}"):
        await _invalid(store, _replaced(good, events=(NewEvent(b"{}"), NewEvent(_any(header)))))
    await _invalid(store, _replaced(good, events=(NewEvent(b"{}", _any("text")),)))
    for consumes in (("",), ("same", "same"), ("x" * (NAME_BYTES_MAX + 1),)):
        await _invalid(store, replace(good, consumes=consumes))
    for alarm in (1.5, 2**63, "soon", True):
        await _invalid(store, _replaced(good, alarm=alarm))
    for value in (2**63, -(2**63) - 1, float("nan"), float("inf"), b"bytes", ("a",), "nul \x00", "\ud800"):
        await _invalid(store, _replaced(good, attributes={"x": value}))
    for name in ("", "\x00", "x" * (NAME_BYTES_MAX + 1)):
        await _invalid(store, replace(good, attributes={name: 1}))
    await _empty(store)


async def a_mark_is_true_or_false(harness: StoreHarness) -> None:
    """Not what counts as true or false: it may be another mark in each store."""
    store = await harness.open()
    for mark in ("held", "closed", "drained", "release", "progress"):
        for value in (1, "no", None):
            await _invalid(store, _replaced(step("run:a", NEW, event()), **{mark: value}))
    await _empty(store)


async def a_malformed_message_is_refused(harness: StoreHarness) -> None:
    """The same of messages, sent alone or with a commit; the commit then does not happen."""
    store = await harness.open()
    good = data("run:a", "m", opens=Opening())
    for message in (
        replace(good, stream="nowhere"),
        replace(good, id=""),
        replace(good, id="x" * (NAME_BYTES_MAX + 1)),
        replace(good, sender=""),
        replace(good, header=b"no json"),
        _replaced(good, header="{}"),
        _replaced(good, payload="text"),
        replace(good, opens=Opening(attributes={"": 1})),
        replace(good, opens=Opening(attributes={"x": float("nan")})),
    ):
        with refused(InvalidArgument):
            await store.send(message)
        await _invalid(store, step("run:b", NEW, event(), sends=(good, message)))
    for stream in ("", "nowhere"):
        with refused(InvalidArgument):
            await store.head(stream)
    await _empty(store)


async def a_commit_over_a_limit_is_refused(harness: StoreHarness) -> None:
    """One more event, message or byte than the port's limits is `CommitTooLarge`, and nothing happens."""
    store = await harness.open()
    good = step("run:a", NEW)
    header = b'{"a":"%s"}' % (b"x" * HEADER_BYTES_MAX)
    payload = bytes(PAYLOAD_BYTES_MAX + 1)
    message = data("run:a", "m", opens=Opening())
    for commit in (
        replace(good, events=(event(),) * (COMMIT_EVENTS_MAX + 1)),
        replace(good, consumes=tuple(map(str, range(COMMIT_MESSAGES_MAX + 1)))),
        replace(good, sends=(message,) * (COMMIT_MESSAGES_MAX + 1)),
        replace(good, events=(NewEvent(header),)),
        replace(good, events=(NewEvent(b"{}", payload),)),
        replace(good, sends=(replace(message, header=header),)),
        replace(good, sends=(replace(message, payload=payload),)),
    ):
        with refused(CommitTooLarge):
            await store.commit(commit)
    for large in (replace(message, header=header), replace(message, payload=payload)):
        with refused(CommitTooLarge):
            await store.send(large)
    await _empty(store)


async def refusals_name_their_limit(harness: StoreHarness) -> None:
    """A message that says which stream, how much there was, and how much there may be."""
    store = await harness.open()
    with refused(CommitTooLarge) as refusal:
        await store.commit(step("run:a", NEW, *(event(),) * (COMMIT_EVENTS_MAX + 1)))
    for part in ("run:a", str(COMMIT_EVENTS_MAX), str(COMMIT_EVENTS_MAX + 1)):
        assert part in str(refusal.error)
    with refused(InvalidArgument) as invalid:
        await store.commit(step("run:a", -7, event()))
    assert "run:a" in str(invalid.error)
    assert "-7" in str(invalid.error)


async def a_commit_at_its_limits_is_taken(harness: StoreHarness) -> None:
    """As many events and messages as the port allows, in one commit, and a header as long as it may be."""
    store = await harness.open()
    header = b'{"a":"%s"}' % (b"x" * (HEADER_BYTES_MAX - 8))
    assert len(header) == HEADER_BYTES_MAX
    payload = b"\xfe" * (1 << 20)
    events = (NewEvent(header, payload), *(event(),) * (COMMIT_EVENTS_MAX - 1))
    sends = tuple(data("run:b", str(number), opens=Opening()) for number in range(COMMIT_MESSAGES_MAX))
    head = await store.commit(step("run:a", NEW, *events, sends=sends))
    assert (head.version, head.undelivered) == (COMMIT_EVENTS_MAX, ())
    first, *_ = await collect(store.read("run:a", until=1))
    assert (first.header, first.payload) == (header, payload)
    assert mail(await store.commit(step("run:b", 0, consumes=tuple(message.id for message in sends)))) == []


async def names_may_be_anything_readable(harness: StoreHarness) -> None:
    """Any UTF-8 but NUL: spaces, quotes, wildcards, line ends, other scripts, and as long as the limit says."""
    store = await harness.open()
    names = (
        "a b",
        "a'b\"c",
        "%_*?[]\\",
        "näh ☃ 🙂",
        "line\nend\t",
        "a:b:c",
        "A",
        "a",
        "--; DROP",
        "x" * (NAME_BYTES_MAX - 4),
    )
    for name in names:
        stream = f"run:{name}"
        assert (await store.commit(step(stream, NEW, event(), id=name, attributes={name: name}))).stream == stream
        await store.send(replace(control(stream, name), sender=name))
        assert mail(await store.head(stream)) == [name]
        assert await history(store, stream) == ["noted"]
        found = await store.find(replace(ANY, attributes={name: name}))
        assert [head.stream for head in found.items] == [stream]
        await store.commit(step(stream, 1, event(), consumes=(name,)))
    assert len((await store.find(ANY)).items) == len(names)
    with refused(StreamNotFound):
        await store.head("run:b")


async def a_capability_that_is_not_declared_is_refused(harness: StoreHarness) -> None:
    """A commit that needs what the store does not declare is refused, never half-obeyed."""
    store = await harness.open()
    permit = Permit(pool="p", holder="h", action="take")
    for capability, commit in (
        ("permits", step("run:a", NEW, event(), permits=(permit,))),
        ("transaction", step("run:a", NEW, event(), transaction=lambda _: b"")),
    ):
        if capability not in store.capabilities:
            with refused(UnsupportedCapability):
                await store.commit(commit)
    if not store.capabilities:
        await _empty(store)


async def _invalid(store: EventStore, commit: Commit) -> None:
    with refused(InvalidArgument):
        await store.commit(commit)


async def _empty(store: EventStore) -> None:
    assert (await store.find(ANY)).items == ()
    assert await collect(store.read_all()) == []


def _replaced(struct: _S, **wrong: object) -> _S:
    """A struct with a part of the wrong type, as a caller without a type checker would make it."""
    return replace(struct, **wrong)


def _any(value: Any) -> Any:
    """A value whose type nobody checks."""
    return value
