"""`LargeValues` is a store like any other: the suite of the port runs against it, around the memory store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine import LargeValues
from engine.storage import Storage
from eventstore import NEW, Commit, EventStore, Message, NewEvent
from eventstore.conformance import CHECKS, Check, MemoryHarness, name_of
from eventstore.port import MAILBOX_BYTES


class Harness(MemoryHarness):
    """The memory store, with a storage for what is large."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._around = LargeValues(self._store, Storage(folder))

    async def open(self) -> EventStore:
        """The one handle."""
        return self._around


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    made = Harness(tmp_path / "values")
    yield made
    await made.aclose()


OTHERWISE = {
    "digests.every_chain_verifies": "digests are over what is stored, and large payloads are shown as what they were",
    "arguments.a_commit_over_a_limit_is_refused": "payloads of 16 MiB and more are what it is for",
    "messages.a_page_of_the_mailbox_follows_the_group": "a mailbox holds more messages that are large, stored small",
    "messages.a_page_of_the_mailbox_is_bounded_in_bytes": "likewise; what is shown is bounded below",
    "overtaking.control_mail_beyond_the_page_is_bounded": "likewise; the engine's control mail is never large",
}
"""Checks that it is not to pass, and why."""


def test_no_reason_is_kept_that_is_not_needed() -> None:
    assert OTHERWISE.keys() <= {name_of(check) for check in CHECKS}


async def test_large_mail_is_shown_by_the_page(harness: Harness) -> None:
    """A parent with large results of many children is not given all of them at once, and loses none."""
    store = await harness.open()
    await store.commit(Commit(id="1", stream="run:a", expected_version=NEW, events=(NewEvent(b"{}"),)))
    for number in range(6):
        payload = b'"' + bytes([97 + number]) * (3 << 20) + b'"'
        await store.send(Message(id=f"m{number}", stream="run:a", header=b"{}", payload=payload))
    await store.send(Message(id="c", stream="run:a", header=b"{}", control=True))
    seen: list[str] = []
    version = 1
    while True:
        head = await store.head("run:a")
        data = [message for message in head.messages if not message.control]
        assert sum(len(message.payload or b"") for message in data) <= MAILBOX_BYTES
        assert "c" in [message.id for message in head.messages]
        if not data:
            break
        seen += [message.id for message in data]
        consumed = tuple(message.id for message in data)
        events = (NewEvent(b"{}"),)
        await store.commit(
            Commit(id=f"c{version}", stream="run:a", expected_version=version, events=events, consumes=consumed)
        )
        version += 1
    assert seen == [f"m{number}" for number in range(6)]


@pytest.mark.parametrize("check", [check for check in CHECKS if name_of(check) not in OTHERWISE], ids=name_of)
async def test_conformance(check: Check, harness: Harness) -> None:
    await check(harness)
