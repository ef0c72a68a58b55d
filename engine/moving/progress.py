"""How far moving is, for whoever looks on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from msgspec import Struct

__all__ = ["EVERY_EVENTS", "MoveProgress", "Told"]

EVERY_EVENTS: Final = 1_000
"""Between two words of progress."""


class MoveProgress(Struct, frozen=True, kw_only=True):
    """How far it is: what is done now, how many events it has come to, and of how many if that is known."""

    doing: Literal["writing", "checking", "installing"]
    events: int
    total: int | None


Told: TypeAlias = Callable[[MoveProgress], None] | None
