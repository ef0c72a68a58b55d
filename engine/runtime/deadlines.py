"""Deadlines as people say them, as microseconds since the epoch."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Final

from engine.errors import HoldfastError

__all__ = ["absolute"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def absolute(deadline: float | timedelta | datetime | None, now: int) -> int:
    """Seconds or a duration from `now` (microseconds), or a time with a zone; 0 for none. Raises `HoldfastError`."""
    match deadline:
        case None:
            return 0
        case datetime():
            if deadline.tzinfo is None:
                raise HoldfastError(f"deadline={deadline!r}: a time without a zone means another one on each machine")
            return (deadline - _EPOCH) // _MICROSECOND
        case timedelta():
            return now + deadline // _MICROSECOND
        case int() | float() if math.isfinite(deadline):
            return now + round(deadline * 1_000_000)
        case _:
            raise HoldfastError(f"deadline={deadline!r}: seconds, a timedelta, or a datetime with a zone")
