"""Checks: mailboxes. Once per id for ever, in order per sender, and the sender learns what could not be delivered."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from eventstore.conformance.harness import (
    ANY,
    StoreHarness,
    all_of,
    begin,
    control,
    data,
    event,
    mail,
    refused,
    step,
)
from eventstore.digest import chain_start
from eventstore.errors import StreamClosed, StreamNotFound, UnknownMessage, VersionConflict
from eventstore.port import MAILBOX_BYTES, MAILBOX_PAGE, NEW, Message, Opening, StreamHead, Undelivered, WaitingMessage


async def a_message_arrives_as_it_was_sent(harness: StoreHarness) -> None:
    """Header and payload are the sender's bytes; text, binary, empty and absent payloads stay apart."""
    store = await harness.open()
    await begin(store, "run:a")
    payloads = (None, b"", b'{"a": "\xc3\xa9"}', b"\x00\xff\xfe", b"null", b"a\x00b")
    expected = []
    for number, payload in enumerate(payloads):
        message = Message(
            id=f"m{number}",
            stream="run:a",
            header=b'{"kind" : "\xe2\x82\xac"}',
            payload=payload,
            sender="run:s",
            control=number % 2 == 1,
        )
        if number % 3:
            await store.commit(step(f"run:s{number}", NEW, sends=(message,)))
        else:
            await store.send(message)
        expected.append(
            WaitingMessage(
                id=message.id,
                sender="run:s",
                control=message.control,
                header=message.header,
                payload=payload,
                sent_at=harness.now(),
            )
        )
    assert list((await store.head("run:a")).messages) == expected


async def mail_of_a_sender_arrives_in_order(harness: StoreHarness) -> None:
    """Between other senders' mail, one sender's stays in order, from commits and sends, within and across calls."""
    store, other = await harness.open(), await harness.open()
    await begin(store, "run:to")

    async def write(sender: str) -> None:
        handle = other if sender == "run:2" else store
        version = NEW
        for number in range(0, 12, 3):
            sends = tuple(data("run:to", f"{sender} {number + more:02}", sender=sender) for more in range(2))
            version = (await handle.commit(step(sender, version, event(), sends=sends))).version
            await handle.send(data("run:to", f"{sender} {number + 2:02}", sender=sender))

    await all_of(write(f"run:{number}") for number in range(4))
    arrived = mail(await store.head("run:to"))
    assert len(arrived) == 48
    for number in range(4):
        assert [m for m in arrived if m.startswith(f"run:{number} ")] == [f"run:{number} {i:02}" for i in range(12)]


async def a_duplicate_is_delivered_once(harness: StoreHarness) -> None:
    """A repeated id is accepted and changes nothing: by send, by commit, at once, in one commit, with other content."""
    store = await harness.open()
    await begin(store, "run:a")
    await all_of(store.send(data("run:a", "m")) for _ in range(5))
    before = await store.head("run:a")
    await store.send(control("run:a", "m"))
    head = await store.commit(step("run:b", NEW, sends=(data("run:a", "m"), data("run:a", "n"), data("run:a", "n"))))
    assert head.undelivered == ()
    after = await store.head("run:a")
    assert mail(after) == ["m", "n"]
    assert after.messages[0] == before.messages[0]


async def a_tombstone_lasts(harness: StoreHarness) -> None:
    """A consumed id is never delivered again: not by the same sender, not by another, not to a closed stream."""
    store = await harness.open()
    await begin(store, "run:a")
    await store.send(data("run:a", "m"))
    await store.commit(step("run:a", 1, event(), consumes=("m",)))
    await store.send(data("run:a", "m"))
    await store.send(control("run:a", "m"))
    head = await store.commit(step("run:b", NEW, sends=(data("run:a", "m"),)))
    assert head.undelivered == ()
    head = await store.commit(step("run:a", 2, closed=True))
    assert mail(head) == []
    await store.send(data("run:a", "m"))  # closed, but it was delivered: accepted, as every repetition
    head = await store.commit(step("run:b", 0, event(), sends=(data("run:a", "m"),)))
    assert head.undelivered == ()
    assert mail(await store.head("run:a")) == []
    if harness.reopenable:
        await store.aclose()
        store = await harness.open()
        await store.send(data("run:a", "m"))
        assert mail(await store.head("run:a")) == []


async def message_ids_belong_to_their_stream(harness: StoreHarness) -> None:
    """The same id to another stream is another message."""
    store = await harness.open()
    await begin(store, "run:a", "run:b")
    await store.commit(step("run:c", NEW, sends=(data("run:a", "m"), data("run:b", "m"))))
    await store.commit(step("run:a", 1, event(), consumes=("m",)))
    assert mail(await store.head("run:b")) == ["m"]


async def a_message_to_no_stream_is_refused(harness: StoreHarness) -> None:
    """Data or control: without a stream and without an opening there is no mailbox."""
    store = await harness.open()
    for message in (data("run:a", "m"), control("run:a", "m")):
        with refused(StreamNotFound) as refusal:
            await store.send(message)
        assert refusal.error.stream == "run:a"
    assert (await store.find(ANY)).items == ()


async def a_data_message_to_a_closed_stream_is_refused(harness: StoreHarness) -> None:
    """Its sender learns it; a control message is taken, for the owner to consume."""
    store = await harness.open()
    await store.commit(step("run:a", NEW, event(), closed=True))
    for message in (data("run:a", "m"), data("run:a", "m", opens=Opening())):
        with refused(StreamClosed) as refusal:
            await store.send(message)
        assert refusal.error.stream == "run:a"
    await store.send(control("run:a", "c"))
    assert mail(await store.head("run:a")) == ["c"]
    assert mail(await store.commit(step("run:a", 1, consumes=("c",)))) == []


async def a_control_message_for_open_streams_only_is_refused_by_a_closed_one(harness: StoreHarness) -> None:
    """Sent, or with a commit; what was delivered while the stream was open counts as delivered for ever."""
    store = await harness.open()
    await begin(store, "run:a", "run:b")
    early, late = replace(control("run:a", "early"), open_only=True), replace(control("run:a", "late"), open_only=True)
    await store.send(early)
    assert mail(await store.commit(step("run:a", 1, consumes=("early",), closed=True))) == []
    await store.send(early)
    with refused(StreamClosed) as refusal:
        await store.send(late)
    assert refusal.error.stream == "run:a"
    head = await store.commit(step("run:b", 1, sends=(early, late, control("run:a", "any"))))
    assert head.undelivered == (Undelivered("late", "run:a", "closed"),)
    assert mail(await store.head("run:a")) == ["any"]
    with refused(StreamNotFound):
        await store.send(replace(late, stream="run:none"))


async def a_closed_stream_keeps_what_was_waiting(harness: StoreHarness) -> None:
    """Closing throws no mail away: what was not consumed can still be, and is there when the stream opens again."""
    store = await harness.open()
    await begin(store, "run:a")
    for number in range(3):
        await store.send(data("run:a", f"m{number}"))
    assert mail(await store.commit(step("run:a", 1, event(), consumes=("m1",), closed=True))) == ["m0", "m2"]
    assert mail(await store.commit(step("run:a", 2, consumes=("m0",)))) == ["m2"]
    assert mail(await store.commit(step("run:a", 2, closed=False))) == ["m2"]


async def a_message_can_open_its_stream(harness: StoreHarness) -> None:
    """An opening creates the stream at version 0 with its attributes and the message in its mailbox."""
    store = await harness.open()
    opening = Opening(attributes={"kind": "child", "nothing": None, "n": 3})
    await store.commit(step("run:parent", NEW, event(), sends=(data("run:child", "start", opens=opening),)))
    head = await store.head("run:child")
    assert head == StreamHead(
        stream="run:child",
        version=0,
        digest=chain_start("run:child"),
        created_at=harness.now(),
        updated_at=harness.now(),
        alarm=None,
        held=False,
        closed=False,
        owner=None,
        claims=0,
        attributes={"kind": "child", "n": 3},
        messages=head.messages,
    )
    assert mail(head) == ["start"]
    assert [recorded async for recorded in store.read("run:child")] == []
    assert (await store.commit(step("run:child", 0, event(), consumes=("start",)))).version == 1
    await store.send(data("run:sent", "start", opens=Opening()))
    assert (await store.head("run:sent")).version == 0


async def an_opening_is_ignored_when_the_stream_exists(harness: StoreHarness) -> None:
    """A second opening is a message like any other."""
    store = await harness.open()
    await store.send(data("run:a", "one", opens=Opening(attributes={"kind": "first"})))
    await store.send(data("run:a", "two", opens=Opening(attributes={"kind": "second"})))
    head = await store.head("run:a")
    assert (mail(head), head.attributes, head.version) == (["one", "two"], {"kind": "first"}, 0)


async def undeliverable_sends_are_reported_and_never_refuse(harness: StoreHarness) -> None:
    """The commit happens with the sends that can; the others are named in its outcome, in order, with the reason."""
    store = await harness.open()
    await begin(store, "run:open")
    await store.commit(step("run:closed", NEW, closed=True))
    head = await store.commit(
        step(
            "run:a",
            NEW,
            event(),
            sends=(
                data("run:none", "m1"),
                data("run:open", "m2"),
                data("run:closed", "m3"),
                control("run:closed", "m4"),
                control("run:none", "m5"),
                data("run:closed", "m6", opens=Opening()),
                data("run:opened", "m7", opens=Opening()),
                data("run:opened", "m8"),
            ),
        )
    )
    assert head.undelivered == (
        Undelivered("m1", "run:none", "not_found"),
        Undelivered("m3", "run:closed", "closed"),
        Undelivered("m5", "run:none", "not_found"),
        Undelivered("m6", "run:closed", "closed"),
    )
    assert head.version == 1
    assert mail(await store.head("run:open")) == ["m2"]
    assert mail(await store.head("run:closed")) == ["m4"]
    assert mail(await store.head("run:opened")) == ["m7", "m8"]
    assert (await store.head("run:a")).undelivered == ()


async def what_was_undeliverable_can_be_sent_later(harness: StoreHarness) -> None:
    """An id that was never delivered leaves no tombstone."""
    store = await harness.open()
    await store.commit(step("run:a", NEW, sends=(data("run:b", "m"),)))
    await store.commit(step("run:b", NEW, closed=True))
    with refused(StreamClosed):
        await store.send(data("run:b", "m"))
    await store.commit(step("run:b", 0, closed=False))
    await store.send(data("run:b", "m"))
    assert mail(await store.head("run:b")) == ["m"]


async def a_commit_may_send_to_its_own_stream(harness: StoreHarness) -> None:
    """Its mail arrives behind what it did to the stream: delivered to a new one, undelivered when it closed."""
    store = await harness.open()
    head = await store.commit(step("run:a", NEW, event(), sends=(data("run:a", "m"),)))
    assert mail(head) == ["m"]
    assert head == await store.head("run:a")
    head = await store.commit(step("run:a", 1, consumes=("m",), closed=True, sends=(data("run:a", "n"),)))
    assert head.undelivered == (Undelivered("n", "run:a", "closed"),)
    assert mail(head) == []


async def the_mailbox_comes_in_pages(harness: StoreHarness) -> None:
    """A head carries the oldest messages; the rest follow when these are consumed."""
    store = await harness.open()
    await begin(store, "run:a")
    ids = [f"m{number:04}" for number in range(MAILBOX_PAGE + 200)]
    await store.commit(step("run:b", NEW, sends=tuple(data("run:a", message_id) for message_id in ids)))
    assert mail(await store.head("run:a")) == ids[:MAILBOX_PAGE]
    head = await store.commit(step("run:a", 1, consumes=(*ids[:150], ids[-1])))
    assert mail(head) == ids[150 : 150 + MAILBOX_PAGE]
    head = await store.commit(step("run:a", 1, consumes=tuple(ids[150:-1])))
    assert mail(head) == []


async def a_page_of_the_mailbox_is_bounded_in_bytes(harness: StoreHarness) -> None:
    """It ends before the message that would be too much, to the byte; one message is always on it, however large."""
    store = await harness.open()
    sizes = {
        "a": 1_000,
        "b": MAILBOX_BYTES - 1_000,
        "c": 1_000,
        "d": MAILBOX_BYTES + 1,
        "e": 1_000,
        "f": MAILBOX_BYTES - 999,
    }
    await begin(store, "run:a")
    for message_id, size in sizes.items():
        await store.send(_of_size(data("run:a", message_id), size, "é".encode()))
    assert mail(await store.head("run:a")) == ["a", "b"]
    for consumed, expected in (("a", ["b", "c"]), ("b", ["c"]), ("c", ["d"]), ("d", ["e"]), ("e", ["f"])):
        assert mail(await store.commit(step("run:a", 1, consumes=(consumed,)))) == expected
    await begin(store, "run:b")
    for message_id, size in (("a", 1_000), ("b", MAILBOX_BYTES - 1_000), ("c", 1_000)):
        await store.send(_of_size(data("run:b", message_id), size, b"\x00\xff"))
    await store.send(_of_size(data("run:a", "g"), 1_000, b"xx"))
    async with store.lease("worker") as lease:
        heads = await store.claim(lease, query=ANY, limit=10)
    assert {head.stream: mail(head) for head in heads} == {"run:a": ["f"], "run:b": ["a", "b"]}


async def a_page_of_the_mailbox_follows_the_group(harness: StoreHarness) -> None:
    """Of commits called together each shows the page as the ones before it left it, refused ones leaving it alone."""
    store = await harness.open()
    await begin(store, "run:a")
    for message_id in ("a", "b", "c", "d"):
        await store.send(_of_size(data("run:a", message_id), MAILBOX_BYTES // 2, b"xx"))
    commits = (
        step("run:a", 1, event()),
        step("run:a", 1, event(), consumes=("a", "b")),
        step("run:a", 2, event(), consumes=("a", "never sent")),
        step("run:a", 2, event(), consumes=("b",)),
        step("run:a", 3, event(), consumes=("c",), sends=(data("run:a", "e"),)),
        step("run:a", 4, event(), consumes=("a", "d")),
    )
    results = await asyncio.gather(*(store.commit(commit) for commit in commits), return_exceptions=True)
    shown = [mail(result) if isinstance(result, StreamHead) else type(result) for result in results]
    assert shown == [["a", "b"], VersionConflict, UnknownMessage, ["a", "c"], ["a", "d"], ["e"]]


def _of_size(message: Message, size: int, unit: bytes) -> Message:
    """The message with a payload of units of two bytes that makes header and payload together so large."""
    left = size - len(message.header)
    return replace(message, payload=unit * (left // 2) + b"x" * (left % 2))
