"""The digest form is what `docs/history.md` says: its vectors and its code are run, and so is the implementation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import NEW, Commit, NewEvent
from eventstore.digest import SALT_BYTES, chain_start, event_digest, payload_digest
from eventstore.memory import MemoryStore
from eventstore.port import NO_DIGEST

Event = tuple[bytes, bytes | None, bytes | None, bytes, bytes]

PAGE = (Path(__file__).parents[2] / "docs" / "history.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"docs/history.md has {len(found)} blocks of {language}"
    return found[0]


def unhex(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def documented_verify() -> Callable[[str, list[Event]], bytes]:
    names: dict[str, Any] = {}
    exec(block("python"), names)
    return names["verify"]


VECTORS = json.loads(block("json"))
VERIFY = documented_verify()


def events_of(vector: dict[str, Any]) -> list[Event]:
    return [
        (
            event["header"].encode(),
            unhex(event["salt"]),
            unhex(event["payload"]),
            bytes.fromhex(event["payload_digest"]),
            bytes.fromhex(event["digest"]),
        )
        for event in vector["events"]
    ]


def test_the_vectors_hold_what_they_should() -> None:
    events = [event for vector in VECTORS for event in vector["events"]]
    assert {event["payload"] is None for event in events} == {True, False}
    assert "" in [event["payload"] for event in events]
    assert not all(event["header"].isascii() for event in events)
    assert all(event["salt"] is None or len(event["salt"]) == 2 * SALT_BYTES for event in events)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["stream"])
def test_the_implementation_keeps_the_documented_vectors(vector: dict[str, Any]) -> None:
    digest = chain_start(vector["stream"])
    assert digest.hex() == vector["start"]
    for header, salt, payload, of_payload, expected in events_of(vector):
        assert payload_digest(salt or b"", payload) == of_payload
        assert (of_payload == NO_DIGEST) == (payload is None)
        digest = event_digest(digest, header, of_payload)
        assert digest == expected


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["stream"])
def test_the_documented_code_verifies_the_vectors_and_nothing_else(vector: dict[str, Any]) -> None:
    stream, events = vector["stream"], events_of(vector)
    assert VERIFY(stream, events) == events[-1][4]
    with pytest.raises(ValueError, match="version 1"):
        VERIFY(stream + "x", events)
    for index, (header, salt, payload, of_payload, digest) in enumerate(events):
        for changed in (
            (header + b" ", salt, payload, of_payload, digest),
            (header, salt, payload, bytes(31) + b"\x01", digest),
            (header, salt, payload, of_payload, digest[::-1]),
        ):
            with pytest.raises(ValueError, match=f"version {index + 1}"):
                VERIFY(stream, [*events[:index], changed, *events[index + 1 :]])
        if payload is not None:
            with pytest.raises(ValueError, match=f"payload of version {index + 1}"):
                VERIFY(
                    stream, [*events[:index], (header, salt, payload + b"x", of_payload, digest), *events[index + 1 :]]
                )
        forgotten = (header, None, None, of_payload, digest)
        assert VERIFY(stream, [*events[:index], forgotten, *events[index + 1 :]]) == events[-1][4]
    if len(events) > 1:
        with pytest.raises(ValueError, match="version 1"):
            VERIFY(stream, [events[1], events[0], *events[2:]])
        with pytest.raises(ValueError, match="version 1"):
            VERIFY(stream, events[1:])


@settings(max_examples=60, deadline=None)
@given(
    first=st.tuples(st.binary(max_size=40), st.binary(min_size=32, max_size=32)),
    second=st.tuples(st.binary(max_size=40), st.binary(min_size=32, max_size=32)),
)
def test_different_events_have_different_digests(first: tuple[bytes, bytes], second: tuple[bytes, bytes]) -> None:
    """The length before the header keeps bytes from moving between the header and what follows it."""
    start = chain_start("run:a")
    assert (event_digest(start, *first) == event_digest(start, *second)) == (first == second)


async def test_what_a_store_writes_verifies_with_the_documented_code() -> None:
    store = MemoryStore()
    events = (NewEvent(b'{"n":1}'), NewEvent(b'{"n":2}', b""), NewEvent(b'{"n" : 3}', b"\x00\xff"))
    head = await store.commit(Commit(id="c", stream="run:a", expected_version=NEW, events=events))
    recorded = [
        (event.header, event.salt, event.payload, event.payload_digest, event.digest)
        async for event in store.read("run:a")
    ]
    assert VERIFY("run:a", recorded) == head.digest
    await store.aclose()
