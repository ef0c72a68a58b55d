"""Checks: a commit that says ``drained``. Nobody closes over a message whose sender was told that it was delivered."""

from __future__ import annotations

import asyncio

from eventstore.conformance.harness import (
    StoreHarness,
    begin,
    collect,
    control,
    data,
    event,
    history,
    mail,
    refused,
    step,
)
from eventstore.errors import LeaseLost, MailWaiting, StreamClosed, UnknownMessage, VersionConflict
from eventstore.port import MAILBOX_PAGE, NEW, Opening, StreamHead, Undelivered

_ROUNDS = 25


async def a_stream_is_not_closed_over_its_mail(harness: StoreHarness) -> None:
    """Refused with how many wait while any does; nothing has changed then; accepted with what is consumed."""
    store = await harness.open()
    await begin(store, "run:a", "run:b")
    for number in range(3):
        await store.send(data("run:a", f"m{number}"))
    before = (await store.head("run:a"), await store.head("run:b"), await collect(store.read_all()))
    for consumes, waiting in (((), 3), (("m1",), 2), (("m0", "m2"), 1)):
        with refused(MailWaiting) as refusal:
            await store.commit(
                step(
                    "run:a",
                    1,
                    event("lost"),
                    consumes=consumes,
                    sends=(data("run:b", "lost"), data("run:c", "lost", opens=Opening())),
                    attributes={"state": "done"},
                    alarm=77,
                    closed=True,
                    drained=True,
                )
            )
        assert (refusal.error.stream, refusal.error.waiting) == ("run:a", waiting)
        assert (await store.head("run:a"), await store.head("run:b"), await collect(store.read_all())) == before
    head = await store.commit(step("run:a", 1, event("done"), consumes=("m2", "m0", "m1"), closed=True, drained=True))
    assert (head.version, head.closed, mail(head)) == (2, True, [])
    with refused(StreamClosed):
        await store.send(data("run:a", "late"))


async def mail_consumed_before_does_not_count(harness: StoreHarness) -> None:
    """What waits counts, not what ever arrived; a repeated send of what was consumed brings nothing back."""
    store = await harness.open()
    await begin(store, "run:a")
    await store.send(data("run:a", "m0"))
    await store.send(data("run:a", "m1"))
    await store.commit(step("run:a", 1, consumes=("m0",)))
    await store.send(data("run:a", "m0"))
    with refused(MailWaiting) as refusal:
        await store.commit(step("run:a", 1, drained=True))
    assert refusal.error.waiting == 1
    await store.commit(step("run:a", 1, consumes=("m1",)))
    assert (await store.commit(step("run:a", 1, closed=True, drained=True))).closed


async def control_messages_do_not_count(harness: StoreHarness) -> None:
    """They are for the engine, and a closed stream takes them: consumed or not, only data counts."""
    store = await harness.open()
    await begin(store, "run:a", "run:b")
    for message in (control("run:a", "c0"), data("run:a", "m0"), control("run:a", "c1"), control("run:b", "c0")):
        await store.send(message)
    with refused(MailWaiting) as refusal:
        await store.commit(step("run:a", 1, event(), consumes=("c0",), closed=True, drained=True))
    assert refusal.error.waiting == 1
    head = await store.commit(step("run:a", 1, event(), consumes=("c0", "m0"), closed=True, drained=True))
    assert (head.closed, mail(head)) == (True, ["c1"])
    assert mail(await store.commit(step("run:b", 1, event(), closed=True, drained=True))) == ["c0"]


async def mail_beyond_the_page_counts(harness: StoreHarness) -> None:
    """A head shows the first page only; whoever has consumed all of it has not consumed what came behind."""
    store = await harness.open()
    await begin(store, "run:a")
    ids = [f"m{number:04}" for number in range(MAILBOX_PAGE + 2)]
    head = await store.commit(step("run:b", NEW, sends=tuple(data("run:a", message_id) for message_id in ids)))
    assert head.undelivered == ()
    page = tuple(mail(await store.head("run:a")))
    with refused(MailWaiting) as refusal:
        await store.commit(step("run:a", 1, event(), consumes=page, closed=True, drained=True))
    assert refusal.error.waiting == len(ids) - len(page)
    head = await store.commit(step("run:a", 1, event(), consumes=tuple(ids), closed=True, drained=True))
    assert (head.closed, mail(head)) == (True, [])


async def a_new_stream_is_drained(harness: StoreHarness) -> None:
    """Its mailbox is empty; what the commit sends to itself arrives behind it; an opened one has mail."""
    store = await harness.open()
    head = await store.commit(step("run:a", NEW, event(), closed=True, drained=True, sends=(data("run:a", "m"),)))
    assert (head.version, head.undelivered) == (1, (Undelivered("m", "run:a", "closed"),))
    head = await store.commit(step("run:b", NEW, event(), drained=True, sends=(data("run:b", "m"),)))
    assert (head.version, mail(head)) == (1, ["m"])
    await store.send(data("run:c", "start", opens=Opening()))
    with refused(MailWaiting):
        await store.commit(step("run:c", 0, event(), drained=True))
    assert (await store.commit(step("run:c", 0, event(), consumes=("start",), drained=True))).version == 1


async def it_is_refused_last(harness: StoreHarness) -> None:
    """The lease, the version and the messages come first; a repeated last commit returns its outcome all the same."""
    store = await harness.open()
    async with store.lease("owner") as owner, store.lease("other") as other:
        await begin(store, "run:a", lease=owner)
        await store.send(data("run:a", "m"))
        with refused(LeaseLost):
            await store.commit(step("run:a", 7, event(), drained=True, lease=other))
        with refused(VersionConflict):
            await store.commit(step("run:a", 7, event(), consumes=("unknown",), drained=True, lease=owner))
        with refused(UnknownMessage):
            await store.commit(step("run:a", 1, event(), consumes=("unknown",), drained=True, lease=owner))
        with refused(MailWaiting):
            await store.commit(step("run:a", 1, event(), drained=True, lease=owner))
        last = step("run:a", 1, event(), consumes=("m",), drained=True, lease=owner)
        first = await store.commit(last)
        await store.send(data("run:a", "later"))
        assert (await store.commit(last)).digest == first.digest


async def a_refused_drain_harms_no_other(harness: StoreHarness) -> None:
    """Between others of its batch, of other streams and of its own; it sees what the ones before it have done."""
    store = await harness.open()
    streams = [f"run:{number}" for number in range(20)]
    await begin(store, *streams)
    commits = []
    for stream in streams:
        commits += [
            step(stream, 1, event("good"), sends=(data(stream, "m"),)),
            step(stream, 2, event("lost"), sends=(data("run:0", f"lost {stream}"),), closed=True, drained=True),
            step(stream, 2, event("better"), consumes=("m",)),
            step(stream, 3, event("last"), closed=True, drained=True),
        ]
    results = await asyncio.gather(*(store.commit(commit) for commit in commits), return_exceptions=True)
    expected = [StreamHead, MailWaiting, StreamHead, StreamHead] * len(streams)
    assert [type(result) for result in results] == expected
    for stream in streams:
        head = await store.head(stream)
        assert (head.version, head.closed, mail(head)) == (4, True, [])
        assert await history(store, stream) == ["begun", "good", "better", "last"]


async def of_a_closing_and_a_message_sent_meanwhile_one_is_refused(harness: StoreHarness) -> None:
    """From the same handle and from another: the sender learns that the stream closed, or the closer of the mail."""
    store, other = await harness.open(), await harness.open()
    for number in range(_ROUNDS):
        stream = f"run:{number}"
        await begin(store, stream)
        closing = store.commit(step(stream, 1, event("closed"), closed=True, drained=True))
        sending = (other if number % 2 else store).send(data(stream, "m"))
        calls = (closing, sending) if number % 3 else (sending, closing)
        results = await asyncio.gather(*calls, return_exceptions=True)
        closed, sent = results if number % 3 else reversed(results)
        head = await store.head(stream)
        if sent is None:
            assert isinstance(closed, MailWaiting), closed
            assert (mail(head), head.closed, head.version) == (["m"], False, 1)
        else:
            assert isinstance(sent, StreamClosed), sent
            assert isinstance(closed, StreamHead), closed
            assert (mail(head), head.closed) == ([], True)


async def of_a_closing_and_a_message_committed_meanwhile_one_is_refused(harness: StoreHarness) -> None:
    """The same of a message that comes with a commit: undelivered because closed, or waiting and not closed over."""
    store, other = await harness.open(), await harness.open()
    for number in range(_ROUNDS):
        stream, sender = f"run:{number}", f"run:sender {number}"
        await begin(store, stream)
        closing = store.commit(step(stream, 1, event("closed"), closed=True, drained=True))
        sending = (other if number % 2 else store).commit(step(sender, NEW, sends=(data(stream, "m"),)))
        calls = (closing, sending) if number % 3 else (sending, closing)
        results = await asyncio.gather(*calls, return_exceptions=True)
        closed, sent = results if number % 3 else reversed(results)
        assert isinstance(sent, StreamHead), sent
        head = await store.head(stream)
        if sent.undelivered:
            assert sent.undelivered == (Undelivered("m", stream, "closed"),)
            assert isinstance(closed, StreamHead), closed
            assert (mail(head), head.closed) == ([], True)
        else:
            assert isinstance(closed, MailWaiting), closed
            assert (mail(head), head.closed, head.version) == (["m"], False, 1)
