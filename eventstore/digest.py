"""The digest chain: what makes tampering show, and forgetting possible.

``payload_digest = SHA-256(salt || payload)`` (32 zero bytes for an event that never had a payload)
``digest = SHA-256(0x00 || previous digest || length of header, 8 bytes big-endian || header || payload_digest)``

The chain of a stream starts from ``SHA-256("holdfast stream" || 0x00 || name in UTF-8)``, so an event moved to another
stream shows. Stored bytes are hashed, never re-serialised JSON. Salt and payload can be destroyed and the chain still
verifies; the salt keeps a destroyed payload from being guessed. The leading 0x00 makes `digest` the RFC 6962 leaf hash
of the concatenation behind it, so that seals need not hash again. `docs/history.md` has test vectors.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from eventstore.port import NO_DIGEST

__all__ = ["NO_DIGEST", "SALT_BYTES", "chain_start", "event_digest", "payload_digest"]

SALT_BYTES: Final = 16
_START: Final = b"holdfast stream\x00"
_LEAF: Final = b"\x00"


def chain_start(stream: str) -> bytes:
    """The digest before a stream's first event, 32 bytes."""
    return sha256(_START + stream.encode()).digest()


def payload_digest(salt: bytes, payload: bytes | None) -> bytes:
    """The digest of a payload under its salt, 32 bytes; `NO_DIGEST` when there is no payload."""
    if payload is None:
        return NO_DIGEST
    return sha256(salt + payload).digest()


def event_digest(previous: bytes, header: bytes, payload_digest: bytes) -> bytes:
    """The next digest of the chain, 32 bytes."""
    return sha256(b"".join((_LEAF, previous, len(header).to_bytes(8, "big"), header, payload_digest))).digest()
