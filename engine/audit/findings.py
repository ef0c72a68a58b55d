"""What verifying comes to: the findings, and the verdict. Also what can be said of one event alone. Pure."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal, TypeAlias

from msgspec import Struct

from engine.audit.notes import Seal
from eventstore import RecordedEvent
from eventstore.digest import NO_DIGEST, SALT_BYTES, event_digest

__all__ = ["AuditFinding", "AuditProgress", "AuditVerdict", "SealCheck", "What", "is_destroyed", "wrong_with"]

What: TypeAlias = Literal[
    "changed", "payload", "removed", "inserted", "reordered", "head", "unreadable", "seal", "truncated", "signature"
]
"""changed: the digest does not follow from the event and the one before it. payload: payload, salt and payload digest
do not fit each other. head: the stream's head is not its last event. seal: the log is not what was sealed. truncated:
it is shorter than what was sealed. signature: the seal is not signed by the key."""


class AuditFinding(Struct, frozen=True, kw_only=True):
    """The first that is wrong with a stream, with the log as a whole, or with a seal."""

    what: What
    message: str
    stream: str | None = None
    version: int | None = None
    position: int | None = None


class AuditProgress(Struct, frozen=True, kw_only=True):
    """How far verifying is; `total` events when that is known."""

    events: int
    total: int | None
    findings: int


class SealCheck(Struct, frozen=True, kw_only=True):
    """What became of a seal that the log was held against. `signed`: by the key given; None: no key was given."""

    seal: Seal
    holds: bool
    signed: bool | None


class AuditVerdict(Struct, frozen=True, kw_only=True):
    """What was looked at, and what is wrong with it. `size` and `root` are those of the whole log, if it was read."""

    events: int
    streams: int
    destroyed: int  # payloads that were destroyed, which is no finding
    pruned: int = 0  # of the events: those that were pruned, of which the digests are there, which is none either
    position: int  # of the last event that was looked at
    seconds: float
    findings: tuple[AuditFinding, ...] = ()
    more: bool = False  # there is more than is listed
    seals: tuple[SealCheck, ...] = ()  # those that were given
    sealed: int = 0  # seals in the log that were checked, too
    size: int | None = None
    root: bytes | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def is_destroyed(event: RecordedEvent) -> bool:
    """Whether it had a payload, and was made to forget it."""
    return event.payload is None and event.salt is None and event.payload_digest != NO_DIGEST


def wrong_with(event: RecordedEvent, previous: bytes) -> tuple[What, str] | None:
    """What is wrong with an event that should follow on that digest; None when nothing is."""
    payload, salt = event.payload, event.salt
    if event_digest(previous, event.header, event.payload_digest) != event.digest:
        return "changed", "its digest does not follow from what it says and the event before it"
    if payload is None:
        if salt is not None:
            return "payload", "it has a salt and no payload: only both together can be destroyed"
    elif salt is None or len(salt) != SALT_BYTES:  # a byte moved between them would not change the digest
        return "payload", f"its payload has no salt of {SALT_BYTES} bytes"
    elif sha256(salt + payload).digest() != event.payload_digest:
        return "payload", "its payload is not the one that was recorded"
    return None
