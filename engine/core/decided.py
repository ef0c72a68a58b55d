"""A decision as the instance makes it, and what knows the type of its payload."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from engine.core.events import Decision

__all__ = ["Codec", "Decided"]


class Codec(Protocol):
    """Knows the type of a payload."""

    def same(self, one: bytes, other: bytes) -> bool:
        """Whether two recorded payloads are equal as values of the present type."""


class Decided(Struct, frozen=True, gc=False):
    """A decision and its payload."""

    event: Decision
    payload: bytes | None = None
