"""The arguments that every store refuses: limits on the byte, cursors, and that what passes can be stored."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from eventstore import NEW, Commit, CommitTooLarge, InvalidArgument, Message, NewEvent, Permit, UnsupportedCapability
from eventstore.port import (
    ATTRIBUTE_BYTES_MAX,
    COMMIT_EVENTS_MAX,
    COMMIT_MESSAGES_MAX,
    HEADER_BYTES_MAX,
    NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    category_of,
)
from eventstore.validation import (
    page_cursor,
    parse_cursor,
    validate_commit,
    validate_message,
    validate_name,
    validate_stream,
)

GOOD = Commit(id="c", stream="run:a", expected_version=NEW)
MAIL = Message(id="m", stream="run:b", header=b"{}")


def header_of(size: int) -> bytes:
    return b'{"a":"' + b"x" * (size - 8) + b'"}'


@pytest.mark.parametrize(
    ("fits", "too_large"),
    [
        ({"events": (NewEvent(b"{}"),) * COMMIT_EVENTS_MAX}, {"events": (NewEvent(b"{}"),) * (COMMIT_EVENTS_MAX + 1)}),
        ({"sends": (MAIL,) * COMMIT_MESSAGES_MAX}, {"sends": (MAIL,) * (COMMIT_MESSAGES_MAX + 1)}),
        (
            {"consumes": tuple(map(str, range(COMMIT_MESSAGES_MAX)))},
            {"consumes": tuple(map(str, range(COMMIT_MESSAGES_MAX + 1)))},
        ),
        (
            {"events": (NewEvent(header_of(HEADER_BYTES_MAX)),)},
            {"events": (NewEvent(header_of(HEADER_BYTES_MAX + 1)),)},
        ),
        (
            {"events": (NewEvent(b"{}", bytes(PAYLOAD_BYTES_MAX)),)},
            {"events": (NewEvent(b"{}", bytes(PAYLOAD_BYTES_MAX + 1)),)},
        ),
        (
            {"attributes": {"x": "é" * (ATTRIBUTE_BYTES_MAX // 2)}},
            {"attributes": {"x": "é" * (ATTRIBUTE_BYTES_MAX // 2) + "x"}},
        ),
    ],
    ids=["events", "sends", "consumes", "header", "payload", "attribute"],
)
def test_limits_hold_on_the_byte(fits: dict[str, object], too_large: dict[str, object]) -> None:
    validate_commit(replace(GOOD, **fits))
    with pytest.raises(CommitTooLarge, match=r"\d"):
        validate_commit(replace(GOOD, **too_large))


def test_names_are_counted_in_bytes() -> None:
    validate_name("é" * (NAME_BYTES_MAX // 2), "name")
    with pytest.raises(InvalidArgument, match=str(NAME_BYTES_MAX)):
        validate_name("é" * (NAME_BYTES_MAX // 2) + "x", "name")


@settings(deadline=None)
@given(st.one_of(st.text(max_size=20), st.text(min_size=120, max_size=180)))
def test_a_name_that_passes_is_utf8_without_nul_within_the_limit(name: str) -> None:
    try:
        validate_name(name, "name")
    except InvalidArgument:
        assert not name or "\x00" in name or not _encodes(name) or len(name.encode()) > NAME_BYTES_MAX
    else:
        assert 0 < len(name.encode()) <= NAME_BYTES_MAX
        assert "\x00" not in name


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_a_stream_that_passes_has_a_category_and_a_name(left: str, right: str) -> None:
    stream = f"{left}:{right}"
    try:
        validate_stream(stream)
    except InvalidArgument:
        return
    category = category_of(stream)
    assert category
    assert ":" not in category
    assert len(stream) > len(category) + 1


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace"))))
def test_a_header_that_passes_is_a_json_object(header: bytes) -> None:
    try:
        validate_message(replace(MAIL, header=header))
    except InvalidArgument:
        return
    assert isinstance(json.loads(header.decode()), dict)


@settings(deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.integers(), st.floats(allow_nan=False)), max_size=3)
)
def test_any_json_object_passes(value: dict[str, object]) -> None:
    if all(item not in (float("inf"), float("-inf")) for item in value.values()):
        validate_message(replace(MAIL, header=json.dumps(value).encode()))


@settings(deadline=None)
@given(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_cursors_come_back(created_at: int, stream: str) -> None:
    assert parse_cursor(page_cursor(created_at, stream)) == (created_at, stream)


@settings(deadline=None)
@given(st.text(max_size=40))
def test_other_cursors_are_refused_or_harmless(cursor: str) -> None:
    try:
        created_at, stream = parse_cursor(cursor)
    except InvalidArgument as error:
        assert "cursor" in str(error)
    else:
        assert isinstance(created_at, int)
        assert isinstance(stream, str)


def test_capabilities_are_asked_one_by_one() -> None:
    permit = Permit(pool="p", holder="h", action="take")
    with_permit = replace(GOOD, permits=(permit,))
    with_transaction = replace(GOOD, events=(NewEvent(b"{}"),), transaction=lambda _: b"")
    validate_commit(with_permit, frozenset({"permits"}))
    validate_commit(with_transaction, frozenset({"transaction"}))
    with pytest.raises(UnsupportedCapability, match="permits"):
        validate_commit(with_permit, frozenset({"transaction"}))
    with pytest.raises(UnsupportedCapability, match="transaction"):
        validate_commit(with_transaction, frozenset({"permits"}))


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
