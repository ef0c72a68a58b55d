"""What a seal leaves in the log: one event in the stream ``seal:ORIGIN``. Additive change only, as for every event.

The header says who sealed what, when and why. The payload holds the signed note, which is the same that stands outside,
and the frontier, from which the next seal goes on without reading what is sealed already. `tests/audit/seal_wire.json`
has the bytes.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from engine.audit.merkle import Tree
from engine.audit.notes import Seal
from engine.errors import AuditError
from eventstore import NewEvent, RecordedEvent

__all__ = ["SEAL_CATEGORY", "LogSealed", "SealPayload", "read_sealed", "seal_stream", "sealed_event"]

SEAL_CATEGORY: Final = "seal"


class LogSealed(Struct, frozen=True, tag_field="type", tag="LogSealed", kw_only=True, omit_defaults=True):
    """The log was sealed. Payload: `SealPayload`."""

    at: int  # microseconds since the epoch
    origin: str
    size: int
    root: str  # in hexadecimal
    position: int  # of the last event that is sealed; 0: there was none
    key: str  # hash of the key that signed, in hexadecimal
    by: str = ""
    reason: str = ""


class SealPayload(Struct, frozen=True, kw_only=True):
    """The seal as a signed note, and the frontier of the tree in hexadecimal, the largest first."""

    note: str
    frontier: tuple[str, ...]


_encoder: Final = msgspec.json.Encoder()
_header: Final = msgspec.json.Decoder(LogSealed)
_payload: Final = msgspec.json.Decoder(SealPayload)


def seal_stream(origin: str) -> str:
    """The stream that holds the seals of this origin."""
    return f"{SEAL_CATEGORY}:{origin}"


def sealed_event(sealed: LogSealed, seal: Seal, tree: Tree) -> NewEvent:
    """The event as the store takes it."""
    payload = SealPayload(note=seal.note, frontier=tuple(each.hex() for each in tree.frontier))
    return NewEvent(_encoder.encode(sealed), _encoder.encode(payload))


def read_sealed(event: RecordedEvent) -> tuple[LogSealed, Seal | None, Tree | None]:
    """What an event of a seal stream says; without a payload, which can be destroyed, there is no seal and no tree.

    Raises `AuditError` for what is no such event, or does not agree with itself.
    """
    where = f"version {event.version} of stream {event.stream!r}"
    try:
        sealed = _header.decode(event.header)
        if event.payload is None:
            return sealed, None, None
        payload = _payload.decode(event.payload)
        tree = Tree(sealed.size, [bytes.fromhex(each) for each in payload.frontier])
    except (ValueError, RecursionError) as error:
        raise AuditError(f"{where} is no seal of this version of holdfast: {error}") from None
    seal = Seal.parse(payload.note, where=where)
    said = (sealed.origin, sealed.size, sealed.root)
    if said != (seal.origin, seal.size, seal.root.hex()) or tree.root() != seal.root:
        raise AuditError(f"{where}: its header, its note and its frontier do not agree")
    return sealed, seal, tree
