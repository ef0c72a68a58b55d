"""What a store refuses before it looks at anything: malformed names, oversized commits, capabilities it does not have.

One module for every store, so that the same mistake is the same error with the same words everywhere. It promises that
whatever it lets pass can be stored and read back by any store (names and headers are UTF-8 without NUL, headers are
JSON objects, integers fit 64 bits, floats are finite), at a few microseconds for a commit of a few events.

It deliberately does not know what is stored: versions, leases and mailboxes are the stores' business. Page cursors are
here too, because both ends of them are arguments.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from msgspec import UNSET, Raw
from msgspec.json import Decoder, decode, encode

from eventstore.errors import CommitTooLarge, InvalidArgument, UnsupportedCapability
from eventstore.port import (
    ATTRIBUTE_BYTES_MAX,
    CLAIM_LIMIT_MAX,
    COMMIT_EVENTS_MAX,
    COMMIT_MESSAGES_MAX,
    COMMIT_PERMITS_MAX,
    FIND_LIMIT_MAX,
    HEADER_BYTES_MAX,
    NAME_BYTES_MAX,
    NEW,
    PAYLOAD_BYTES_MAX,
    POOL_BYTES_MAX,
    Capability,
    Commit,
    Message,
    NewEvent,
    Permit,
    Scalar,
    StreamQuery,
)

__all__ = [
    "page_cursor",
    "parse_cursor",
    "validate_attributes",
    "validate_claim",
    "validate_commit",
    "validate_header",
    "validate_message",
    "validate_name",
    "validate_payload",
    "validate_query",
    "validate_range",
    "validate_stream",
    "validate_timeout",
    "validate_timestamp",
]

_INT64_MAX: Final = (1 << 63) - 1
_INT64_MIN: Final = -(1 << 63)
_BOOLEANS: Final = (bool, bool, bool)
_check_json: Final = Decoder(Raw).decode  # checks the syntax of the whole text, builds nothing


def validate_commit(commit: Commit, capabilities: frozenset[Capability] = frozenset()) -> None:
    """Refuse a commit that no state of the store could take.

    Raises `InvalidArgument`, `CommitTooLarge` or `UnsupportedCapability`, each naming the stream.
    """
    stream = commit.stream
    validate_stream(stream)
    validate_name(commit.id, "commit id")
    version = commit.expected_version
    if type(version) is not int or not NEW <= version <= _INT64_MAX:
        raise InvalidArgument(f"expected_version of stream {stream!r} must be NEW, 0 or a version, not {version!r}")
    if commit.events:
        _validate_events(stream, commit.events)
    if commit.consumes:
        _validate_consumes(stream, commit.consumes)
    if commit.sends:
        _validate_sends(stream, commit.sends)
    if commit.alarm is not None and commit.alarm is not UNSET:
        validate_timestamp(commit.alarm, "alarm")
    marks = type(commit.drained), type(commit.release), type(commit.progress)
    if marks != _BOOLEANS or commit.held is not UNSET or commit.closed is not UNSET:
        _validate_marks(commit)
    if commit.attributes is not UNSET:
        validate_attributes(commit.attributes)
    if commit.permits or commit.transaction is not None:
        _validate_capabilities(commit, capabilities)


def validate_message(message: Message) -> None:
    """Refuse a message that no mailbox could take. Raises `InvalidArgument` or `CommitTooLarge`."""
    validate_stream(message.stream)
    validate_name(message.id, "message id")
    if message.sender is not None:
        validate_name(message.sender, "sender")
    validate_header(message.header, "message to", message.stream)
    if message.payload is not None:
        validate_payload(message.payload, "message to", message.stream)
    if message.opens is not None and message.opens.attributes:
        validate_attributes(message.opens.attributes)


def validate_query(query: StreamQuery) -> None:
    """Refuse a query that makes no sense. Raises `InvalidArgument`; an empty tuple is sense (nothing fits)."""
    if query.category is not None:
        _validate_category(query.category)
    if query.streams is not None:
        for stream in query.streams:
            validate_stream(stream)
    for name, wanted in query.attributes.items():
        validate_name(name, "attribute")
        for value in wanted if isinstance(wanted, tuple) else (wanted,):
            _validate_scalar(name, value)
    for bound, what in ((query.created_from, "created_from"), (query.created_until, "created_until")):
        if bound is not None:
            validate_timestamp(bound, what)
    if type(query.limit) is not int or not 1 <= query.limit <= FIND_LIMIT_MAX:
        raise InvalidArgument(f"limit of a query must be 1 to {FIND_LIMIT_MAX}, not {query.limit!r}")
    if query.cursor is not None:
        parse_cursor(query.cursor)


def validate_claim(query: StreamQuery, limit: int) -> None:
    """Refuse a claim that makes no sense. Raises `InvalidArgument`."""
    validate_query(query)
    if type(limit) is not int or not 1 <= limit <= CLAIM_LIMIT_MAX:
        raise InvalidArgument(f"limit of a claim must be 1 to {CLAIM_LIMIT_MAX}, not {limit!r}")


def validate_range(after: int, until: int | None = None, category: str | None = None) -> None:
    """Refuse a reading range that makes no sense. Raises `InvalidArgument`; a range without events is sense."""
    if type(after) is not int or not 0 <= after <= _INT64_MAX:
        raise InvalidArgument(f"after must be 0 or more, not {after!r}")
    if until is not None and (type(until) is not int or not 0 <= until <= _INT64_MAX):
        raise InvalidArgument(f"until must be 0 or more, or None, not {until!r}")
    if category is not None:
        _validate_category(category)


def validate_timeout(timeout: float) -> None:
    """Refuse a time to wait that is negative or no number (infinity is one). Raises `InvalidArgument`."""
    if not isinstance(timeout, int | float) or not timeout >= 0:
        raise InvalidArgument(f"timeout must be 0 seconds or more, not {timeout!r}")


def validate_stream(stream: str) -> None:
    """Refuse what is not ``category:name``. Raises `InvalidArgument`."""
    validate_name(stream, "stream")
    if not 0 < stream.find(":") < len(stream) - 1:
        raise InvalidArgument(f"stream {stream!r} must be named 'category:name', both parts non-empty")


def validate_name(name: str, what: str) -> None:
    """Refuse a name that is empty, too long, not UTF-8, or holds NUL. Raises `InvalidArgument`; `what` says whose."""
    if type(name) is str and name.isascii() and 0 < len(name) <= NAME_BYTES_MAX and "\x00" not in name:
        return  # nearly all names
    if type(name) is not str or not name:
        raise InvalidArgument(f"{what} must be a non-empty string, not {name!r}")
    if "\x00" in name:
        raise InvalidArgument(f"{what} {name!r} holds a NUL character")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(f"{what} {name!r} holds a lone surrogate and has no UTF-8 form") from None
    if size > NAME_BYTES_MAX:
        raise InvalidArgument(
            f"{what} {name[:40]!r}... has {size} bytes in UTF-8, at most {NAME_BYTES_MAX} are allowed"
        )


def page_cursor(created_at: int, stream: str) -> str:
    """The cursor of the page behind this stream, in whichever order the query has."""
    return urlsafe_b64encode(encode((created_at, stream))).decode()


def parse_cursor(cursor: str) -> tuple[int, str]:
    """Creation time and name of the last stream of the page before. Raises `InvalidArgument`."""
    try:
        return decode(urlsafe_b64decode(cursor.encode()), type=tuple[int, str])
    except (AttributeError, ValueError, RecursionError):
        raise InvalidArgument(f"cursor {cursor!r} is none that a page of this store gave out") from None


def _validate_capabilities(commit: Commit, capabilities: frozenset[Capability]) -> None:
    stream = commit.stream
    if commit.permits and "permits" not in capabilities:
        raise UnsupportedCapability(f"the commit of stream {stream!r} uses permits, which this store does not have")
    if commit.transaction is not None and "transaction" not in capabilities:
        raise UnsupportedCapability(
            f"the commit of stream {stream!r} brings a transaction, which this store cannot run in its own"
        )
    if commit.permits:
        _validate_permits(stream, commit.permits)
    if commit.transaction is not None:
        _validate_transaction(commit)


def _validate_events(stream: str, events: tuple[NewEvent, ...]) -> None:
    if len(events) > COMMIT_EVENTS_MAX:
        raise CommitTooLarge(
            f"the commit of stream {stream!r} has {len(events)} events, at most {COMMIT_EVENTS_MAX} fit into one:"
            " split it"
        )
    for event in events:
        header, payload = event.header, event.payload
        if not _is_header(header):
            validate_header(header, "event of", stream)
        if payload is not None and (type(payload) is not bytes or len(payload) > PAYLOAD_BYTES_MAX):
            validate_payload(payload, "event of", stream)


def _validate_consumes(stream: str, consumes: tuple[str, ...]) -> None:
    if len(consumes) > COMMIT_MESSAGES_MAX:
        raise CommitTooLarge(
            f"the commit of stream {stream!r} consumes {len(consumes)} messages, at most {COMMIT_MESSAGES_MAX} fit"
            " into one: split it"
        )
    for message_id in consumes:
        validate_name(message_id, "consumed message id")
    if len(consumes) > 1 and len(set(consumes)) != len(consumes):
        raise InvalidArgument(f"the commit of stream {stream!r} consumes the same message twice")


def _validate_sends(stream: str, sends: tuple[Message, ...]) -> None:
    if len(sends) > COMMIT_MESSAGES_MAX:
        raise CommitTooLarge(
            f"the commit of stream {stream!r} sends {len(sends)} messages, at most {COMMIT_MESSAGES_MAX} fit into one:"
            " split it"
        )
    for message in sends:
        validate_message(message)


def _validate_marks(commit: Commit) -> None:
    """Marks are booleans: what only counts as true or false may be another mark in each store."""
    for mark, name in ((commit.held, "held"), (commit.closed, "closed")):
        if mark is not UNSET and type(mark) is not bool:
            raise InvalidArgument(f"{name} of stream {commit.stream!r} must be True, False or UNSET, not {mark!r}")
    for mark, name in ((commit.drained, "drained"), (commit.release, "release"), (commit.progress, "progress")):
        if type(mark) is not bool:
            raise InvalidArgument(f"{name} of a commit of {commit.stream!r} must be True or False, not {mark!r}")


def _validate_permits(stream: str, permits: tuple[Permit, ...]) -> None:
    if len(permits) > COMMIT_PERMITS_MAX:
        raise CommitTooLarge(
            f"the commit of stream {stream!r} has {len(permits)} permits, at most {COMMIT_PERMITS_MAX} fit into one"
        )
    for permit in permits:
        validate_name(permit.pool, "pool")
        if len(permit.pool.encode()) > POOL_BYTES_MAX:
            raise CommitTooLarge(f"the name of pool {permit.pool[:40]!r}... has more than {POOL_BYTES_MAX} bytes")
        validate_name(permit.holder, "holder")
        if permit.key:
            validate_name(permit.key, "key of a permit")
        elif permit.key != "":
            raise InvalidArgument(f"the key of a permit of stream {stream!r} must be text, not {permit.key!r}")
        if permit.action not in ("take", "wait", "return"):
            raise InvalidArgument(f"a permit of stream {stream!r} must be take, wait or return, not {permit.action!r}")
        if type(permit.priority) is not int or not _INT64_MIN < permit.priority <= _INT64_MAX:
            raise InvalidArgument(
                f"the priority of a permit of stream {stream!r} must be an int of 64 bits, not {permit.priority!r}"
            )
        if type(permit.lasting) is not bool:
            raise InvalidArgument(
                f"lasting of a permit of stream {stream!r} must be True or False, not {permit.lasting!r}"
            )


def _validate_transaction(commit: Commit) -> None:
    if not callable(commit.transaction):
        raise InvalidArgument(f"transaction of stream {commit.stream!r} must be a function, not {commit.transaction!r}")
    if not commit.events or commit.events[0].payload is not None:
        raise InvalidArgument(
            f"the commit of stream {commit.stream!r} brings a transaction and needs a first event without a payload:"
            " what the transaction returns becomes that payload"
        )


def validate_header(header: bytes, what: str, stream: str) -> None:
    """Refuse what is no header. Raises `InvalidArgument` or `CommitTooLarge`; `what` names the part of `stream`."""
    if _is_header(header):
        return
    if type(header) is not bytes:
        raise InvalidArgument(f"the header of a {what} {stream!r} must be bytes, not {type(header).__name__}")
    if len(header) > HEADER_BYTES_MAX:
        raise CommitTooLarge(
            f"the header of a {what} {stream!r} has {len(header)} bytes, at most {HEADER_BYTES_MAX} are allowed:"
            " values belong into the payload"
        )
    raise InvalidArgument(f"the header of a {what} {stream!r} is no JSON object in UTF-8: {header[:60]!r}")


def _is_header(header: bytes) -> bool:
    if type(header) is not bytes or len(header) > HEADER_BYTES_MAX or header[:1] != b"{":
        return False
    try:
        str(header, "utf-8")  # the JSON check below does not look into strings
        _check_json(header)
    except (ValueError, RecursionError):
        return False
    return True


def validate_payload(payload: bytes, what: str, stream: str) -> None:
    """Refuse what is no payload. Raises `InvalidArgument` or `CommitTooLarge`; `what` names the part of `stream`."""
    if type(payload) is not bytes:
        raise InvalidArgument(f"the payload of a {what} {stream!r} must be bytes, not {type(payload).__name__}")
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise CommitTooLarge(
            f"the payload of a {what} {stream!r} has {len(payload)} bytes, at most {PAYLOAD_BYTES_MAX} are allowed:"
            " store the value elsewhere and record where"
        )


def validate_attributes(attributes: Mapping[str, Scalar]) -> None:
    """Refuse attributes that cannot be stored and searched for. Raises `InvalidArgument` or `CommitTooLarge`."""
    for name, value in attributes.items():
        validate_name(name, "attribute")
        _validate_scalar(name, value)


def _validate_scalar(name: str, value: Any) -> None:
    match value:
        case None | bool():
            return
        case str():
            if "\x00" in value:
                raise InvalidArgument(f"attribute {name!r} holds a NUL character")
            try:
                size = len(value) if value.isascii() else len(value.encode())
            except UnicodeEncodeError:
                raise InvalidArgument(f"attribute {name!r} holds a lone surrogate and has no UTF-8 form") from None
            if size > ATTRIBUTE_BYTES_MAX:
                raise CommitTooLarge(
                    f"attribute {name!r} has {size} bytes, at most {ATTRIBUTE_BYTES_MAX} are allowed: attributes are"
                    " for searching, values belong into the payload"
                )
        case int():
            if not _INT64_MIN <= value <= _INT64_MAX:
                raise InvalidArgument(f"attribute {name!r} does not fit 64 bits: {value}")
        case float():
            if not isfinite(value):
                raise InvalidArgument(
                    f"attribute {name!r} is {value}: it would equal nothing, and JSON has no such number"
                )
        case _:
            raise InvalidArgument(
                f"attribute {name!r} must be a str, int, float, bool or None, not {type(value).__name__}"
            )


def validate_timestamp(value: int, what: str) -> None:
    """Refuse what is no `Timestamp`. Raises `InvalidArgument`; `what` says of what."""
    if type(value) is not int or not _INT64_MIN <= value <= _INT64_MAX:
        raise InvalidArgument(f"{what} must be microseconds since the epoch as an int of 64 bits, not {value!r}")


def _validate_category(category: str) -> None:
    validate_name(category, "category")
    if ":" in category:
        raise InvalidArgument(
            f"category {category!r} holds a colon: it is the part of a stream's name before the first"
        )
