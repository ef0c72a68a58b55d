"""The file that runs and stores travel in: gzip of JSON lines. `docs/moving.md` describes every field.

The first line says what this is, the last has counts and a digest of all lines before it; between them stands one line
for each item of `eventstore.moving`. Bytes that a store keeps (headers, payloads) come back as they were. A form is
never changed: what cannot be said in it needs another number, which this version refuses.

This module turns items into lines and back; it deliberately does not know files.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from engine.moving.objects import ObjectBytes, ObjectHead, ObjectPart
from eventstore import KeptDigest, RecordedEvent
from eventstore.digest import NO_DIGEST
from eventstore.moving import (
    ConsumedMessages,
    Item,
    StoredMessage,
    StoredPermit,
    StoredPool,
    StoredStream,
    StoredWaiter,
)

__all__ = ["FORM", "End", "Heading", "Line", "decode_line", "encode", "item_of", "line_of"]

FORM: Final = 1
_PLAIN: Final = bytes(range(32)).translate(None, b"\t\n\r")
"""Bytes that no text holds which is written as it is."""
_Scalar: TypeAlias = str | int | float | bool | None


class Heading(Struct, frozen=True, kw_only=True):
    """The first line."""

    holdfast: str  # "export"
    form: int
    version: str  # of the library that wrote it
    at: int  # when, in microseconds since the epoch
    store: str  # the kind of store that it comes from
    runs: tuple[str, ...] | None = None  # the ids of the runs that it holds; None: a whole store
    parents: dict[str, str] = {}  # of runs whose parents are not in it: the ids of these


class _Line(Struct, frozen=True, kw_only=True, tag_field="line", omit_defaults=True, forbid_unknown_fields=True):
    """A line between the first and the last."""


class StreamLine(_Line, frozen=True, tag="stream", kw_only=True):
    """A stream but for its events and its mailbox, which follow."""

    stream: str
    version: int
    digest: str
    created_at: int
    updated_at: int
    alarm: int | None = None
    held: bool = False
    closed: bool = False
    attributes: dict[str, _Scalar] = {}
    pruned: bool = False


class MessageLine(_Line, frozen=True, tag="message", kw_only=True):
    """A message that waits."""

    stream: str
    id: str
    header: str
    payload: str | None = None
    payload64: str | None = None
    sender: str | None = None
    control: bool = False
    sent_at: int


class ConsumedLine(_Line, frozen=True, tag="consumed", kw_only=True):
    """Ids of messages that were consumed."""

    stream: str
    ids: tuple[str, ...]


class PoolLine(_Line, frozen=True, tag="pool", kw_only=True):
    """A pool that streams take part in."""

    pool: str
    arrivals: int
    turns: dict[int, int] = {}
    attributes: dict[str, _Scalar] = {}


class PermitLine(_Line, frozen=True, tag="permit", kw_only=True):
    """A lasting permit."""

    stream: str
    pool: str
    holder: str
    priority: int = 0
    key: str = ""
    taken_at: int


class WaiterLine(_Line, frozen=True, tag="waiter", kw_only=True):
    """A place in a queue."""

    stream: str
    pool: str
    holder: str
    priority: int = 0
    key: str = ""
    tag: int
    arrival: int
    lasting: bool = False


class KeptLine(_Line, frozen=True, tag="kept", kw_only=True):
    """What is left of an event that was pruned."""

    stream: str
    version: int
    position: int  # that it had where it was pruned
    digest: str


class EventLine(_Line, frozen=True, tag="event", kw_only=True):
    """An event."""

    stream: str
    version: int
    header: str
    payload: str | None = None
    payload64: str | None = None
    salt: str | None = None
    payload_digest: str | None = None
    digest: str


class ObjectLine(_Line, frozen=True, tag="object", kw_only=True):
    """A large value, whose bytes follow."""

    key: str
    size: int


class BytesLine(_Line, frozen=True, tag="bytes", kw_only=True):
    """The next bytes of it."""

    data64: bytes


class End(_Line, frozen=True, tag="end", kw_only=True):
    """The last line."""

    streams: int
    events: int
    sha256: str  # over all lines before it, each with its line feed


Line: TypeAlias = (
    StreamLine
    | MessageLine
    | ConsumedLine
    | PoolLine
    | PermitLine
    | WaiterLine
    | KeptLine
    | EventLine
    | ObjectLine
    | BytesLine
    | End
)

encode: Final[Callable[[Any], bytes]] = msgspec.json.Encoder().encode
decode_line: Final[Callable[[bytes], Line]] = msgspec.json.Decoder(Line).decode


def line_of(item: Item | ObjectPart) -> Line:
    """What stands in the file for an item, or for a part of an object."""
    if isinstance(item, ObjectHead | ObjectBytes):
        return _object_line(item)
    match item:
        case RecordedEvent():
            return _event_line(item)
        case KeptDigest():
            digest = item.digest.hex()
            return KeptLine(stream=item.stream, version=item.version, position=item.pruned_at, digest=digest)
        case StoredStream():
            fields = msgspec.structs.asdict(item)
            return StreamLine(**{**fields, "digest": item.digest.hex(), "attributes": dict(item.attributes)})
        case StoredMessage():
            fields = msgspec.structs.asdict(item)
            fields |= {"header": item.header.decode(), "payload": None} | _payload_fields(item.payload)
            return MessageLine(**fields)
        case ConsumedMessages():
            return ConsumedLine(stream=item.stream, ids=item.ids)
        case StoredPool():
            return PoolLine(**msgspec.structs.asdict(item))
        case StoredPermit():
            return PermitLine(**msgspec.structs.asdict(item))
        case StoredWaiter():
            return WaiterLine(**msgspec.structs.asdict(item))


def item_of(line: Line) -> Item | ObjectPart | End:
    """What a line stands for. Raises `ValueError` for what stands for nothing."""
    if isinstance(line, ObjectLine | BytesLine):
        return _object_part(line)
    match line:
        case EventLine():
            return _event(line)
        case KeptLine():
            return KeptDigest(line.stream, line.version, 0, bytes.fromhex(line.digest), line.position)
        case StreamLine():
            return StoredStream(**{**msgspec.structs.asdict(line), "digest": bytes.fromhex(line.digest)})
        case MessageLine():
            fields = msgspec.structs.asdict(line)
            del fields["payload64"]
            fields |= {"header": line.header.encode(), "payload": _payload(line)}
            return StoredMessage(**fields)
        case ConsumedLine():
            return ConsumedMessages(stream=line.stream, ids=line.ids)
        case PoolLine():
            return StoredPool(**msgspec.structs.asdict(line))
        case PermitLine() | WaiterLine():
            of_pool = StoredPermit if isinstance(line, PermitLine) else StoredWaiter
            return of_pool(**msgspec.structs.asdict(line))
        case End():
            return line


def _object_line(part: ObjectPart) -> Line:
    if isinstance(part, ObjectHead):
        return ObjectLine(key=part.key, size=part.size)
    return BytesLine(data64=part.data)


def _object_part(line: ObjectLine | BytesLine) -> ObjectPart:
    if isinstance(line, ObjectLine):
        return ObjectHead(key=line.key, size=line.size)
    return ObjectBytes(data=line.data64)


def _event_line(event: RecordedEvent) -> EventLine:
    return EventLine(
        stream=event.stream,
        version=event.version,
        header=event.header.decode(),
        salt=None if event.salt is None else event.salt.hex(),
        payload_digest=None if event.payload_digest == NO_DIGEST else event.payload_digest.hex(),
        digest=event.digest.hex(),
        **_payload_fields(event.payload),
    )


def _event(line: EventLine) -> RecordedEvent:
    return RecordedEvent(
        stream=line.stream,
        version=line.version,
        position=0,
        header=line.header.encode(),
        payload=_payload(line),
        salt=None if line.salt is None else bytes.fromhex(line.salt),
        payload_digest=NO_DIGEST if line.payload_digest is None else bytes.fromhex(line.payload_digest),
        digest=bytes.fromhex(line.digest),
    )


def _payload_fields(payload: bytes | None) -> dict[str, str]:
    """As text if it is text that JSON writes in at most twice its bytes; else in base64."""
    if payload is None:
        return {}
    if payload.translate(None, _PLAIN) != payload:
        return {"payload64": b64encode(payload).decode()}
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload64": b64encode(payload).decode()}


def _payload(line: EventLine | MessageLine) -> bytes | None:
    if line.payload64 is None:
        return None if line.payload is None else line.payload.encode()
    if line.payload is not None:
        raise ValueError("it has both payload and payload64")
    return b64decode(line.payload64, validate=True)
