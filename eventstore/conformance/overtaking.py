"""Checks: control messages behind a full page of data messages. A held stream must be given what ends its hold."""

from __future__ import annotations

from msgspec.structs import replace

from eventstore.conformance.harness import (
    ANY,
    StoreHarness,
    begin,
    claim,
    control,
    data,
    event,
    mail,
    step,
)
from eventstore.port import CONTROL_BYTES, CONTROL_PAGE, MAILBOX_PAGE, NEW, EventStore

_FULL = tuple(f"m{number:04}" for number in range(MAILBOX_PAGE + 200))


async def control_mail_is_shown_behind_any_number_of_data_messages(harness: StoreHarness) -> None:
    """In a head, a claim, and what a commit returns; once it is consumed nobody is woken for the held stream."""
    store = await harness.open()
    await _fill(store, "run:a")
    await store.commit(step("run:a", 1, held=True))
    async with store.lease("worker") as lease:
        assert await claim(store, lease) == []
        await store.send(control("run:a", "unpause"))
        await store.send(data("run:a", "later"))
        await store.send(control("run:a", "cancel"))
        page = _FULL[:MAILBOX_PAGE]
        assert mail(await store.head("run:a")) == [*page, "unpause", "cancel"]
        (head,) = await store.claim(lease, query=ANY, limit=10)
        assert mail(head) == [*page, "unpause", "cancel"]
        head = await store.commit(step("run:a", 1, event(), consumes=("unpause",), lease=lease))
        assert mail(head) == [*page, "cancel"]
        assert await claim(store, lease) == ["run:a"]
        head = await store.commit(step("run:a", 2, event(), consumes=("cancel",), lease=lease))
        assert mail(head) == list(page)
        assert await claim(store, lease) == []
        rest = (*_FULL, "later")
        head = await store.commit(step("run:a", 3, event(), consumes=rest, drained=True, lease=lease))
        assert mail(head) == []


async def data_messages_stay_in_order_when_control_mail_overtakes(harness: StoreHarness) -> None:
    """Among themselves data messages come in the order they were sent, and control messages do, page by page."""
    store = await harness.open()
    await begin(store, "run:a")
    sends = []
    for number, message_id in enumerate(_FULL):
        sends.append(replace(data("run:a", message_id), sender="run:s"))
        if number % 200 == 7:
            sends.append(replace(control("run:a", f"c{message_id}"), sender="run:s"))
    await store.commit(step("run:s", NEW, sends=tuple(sends)))
    order = [message.id for message in sends]
    head = await store.head("run:a")
    shown: list[str] = []
    while head.messages:
        page = mail(head)
        assert page == sorted(page, key=order.index)
        head = await store.commit(step("run:a", 1, consumes=tuple(page)))
        shown += page
    assert sorted(shown) == sorted(order)
    for kind in ("m", "c"):
        assert [one for one in shown if one.startswith(kind)] == [one for one in order if one.startswith(kind)]
    assert shown.index("cm1007") < shown.index("m1000")


async def control_mail_beyond_the_page_is_bounded(harness: StoreHarness) -> None:
    """In number and in bytes, those on the page counted; the rest follows when these are consumed."""
    store = await harness.open()
    await begin(store, "run:a")
    await store.send(control("run:a", "first"))
    await _fill(store, "run:a", new=False)
    ids = [f"c{number:04}" for number in range(CONTROL_PAGE + 5)]
    await store.commit(step("run:s", NEW, sends=tuple(control("run:a", message_id) for message_id in ids)))
    page = ["first", *_FULL[: MAILBOX_PAGE - 1]]
    assert mail(await store.head("run:a")) == [*page, *ids[: CONTROL_PAGE - 1]]
    head = await store.commit(step("run:a", 1, consumes=("first", *ids[:10])))
    assert mail(head) == [*_FULL[:MAILBOX_PAGE], *ids[10:]]
    await store.commit(step("run:a", 1, consumes=tuple(ids[10:])))
    sizes = {"x": CONTROL_BYTES - 1_000, "y": 1_000, "z": 1}
    for message_id, size in sizes.items():
        message = control("run:a", message_id)
        await store.send(replace(message, payload=b"x" * (size - len(message.header)) if size > 1 else None))
    assert mail(await store.head("run:a")) == [*_FULL[:MAILBOX_PAGE], "x", "y"]
    await store.commit(step("run:a", 1, consumes=("x", "y", "z")))
    for message_id in ("large", "small"):  # one is shown, however large
        await store.send(replace(control("run:a", message_id), payload=b"x" * (CONTROL_BYTES + 1)))
    assert mail(await store.head("run:a")) == [*_FULL[:MAILBOX_PAGE], "large"]


async def a_repeated_commit_shows_the_control_mail_that_it_showed(harness: StoreHarness) -> None:
    """The first outcome: with the control messages beyond the page that were there, without those that came since."""
    store = await harness.open()
    await _fill(store, "run:a")
    for message_id in ("c1", "c2"):
        await store.send(control("run:a", message_id))
    last = step("run:a", 1, event(), consumes=_FULL[:5])
    first = await store.commit(last)
    assert mail(first) == [*_FULL[5 : MAILBOX_PAGE + 5], "c1", "c2"]
    await store.send(data("run:a", "late"))
    await store.send(control("run:a", "c3"))
    assert await store.commit(last) == first
    last = step("run:a", 2, event(), consumes=_FULL[5:])  # the whole mailbox is shown
    first = await store.commit(last)
    assert mail(first) == ["c1", "c2", "late", "c3"]
    await _fill(store, "run:a", new=False, prefix="n")
    await store.send(control("run:a", "c4"))
    assert await store.commit(last) == first
    if harness.reopenable:
        await store.aclose()
        assert await (await harness.open()).commit(last) == first


async def _fill(store: EventStore, stream: str, *, new: bool = True, prefix: str = "") -> None:
    """Put more data messages into a mailbox than a head shows."""
    if new:
        await begin(store, stream)
    sends = tuple(data(stream, prefix + message_id) for message_id in _FULL)
    await store.commit(step(f"run:fills {stream} {prefix}", NEW, sends=sends))
