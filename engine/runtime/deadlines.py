"""Deadlines and delays as people say them, as microseconds since the epoch."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Final

from engine.errors import HoldfastError

__all__ = ["absolute", "beginning", "moment"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def moment(when: datetime, name: str) -> int:
    """A time with a zone, in microseconds since the epoch. Raises `HoldfastError`, which calls it by that name."""
    if not isinstance(when, datetime):
        raise HoldfastError(f"{name}={when!r}: a datetime with a zone")
    if when.tzinfo is None:
        raise HoldfastError(f"{name}={when!r}: a time without a zone means another one on each machine")
    return (when - _EPOCH) // _MICROSECOND


def absolute(deadline: float | timedelta | datetime | None, now: int, *, name: str = "deadline") -> int:
    """Seconds or a duration from `now` (microseconds), or a time with a zone; 0 for none. Raises `HoldfastError`, which
    calls it by that name.
    """
    match deadline:
        case None:
            return 0
        case datetime():
            return moment(deadline, name)
        case timedelta():
            return now + deadline // _MICROSECOND
        case int() | float() if math.isfinite(deadline):
            return now + round(deadline * 1_000_000)
        case _:
            raise HoldfastError(f"{name}={deadline!r}: seconds, a timedelta, or a datetime with a zone")


def beginning(delay: float | timedelta | datetime | None, now: int) -> int:
    """When a run begins that is to begin that late, a time that has passed meaning now: 0. Raises `HoldfastError`."""
    at = absolute(delay, now, name="delay")
    if not isinstance(delay, datetime) and delay is not None and at < now:
        raise HoldfastError(f"delay={delay!r}: nothing begins before it is started: 0 or more, or a time with a zone")
    return at if at > now else 0
