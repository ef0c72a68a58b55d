"""A clock that moves only when it is turned, and knows the moments that somebody waits for."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Final

from eventstore import Timestamp

__all__ = ["START", "TurnedClock", "as_datetime", "microseconds"]

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""When tests begin, unless they say otherwise."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def microseconds(time: datetime) -> Timestamp:
    """A time with a zone as microseconds since the epoch. Raises `ValueError` for one without."""
    if time.tzinfo is None:
        raise ValueError(f"{time!r} has no time zone: say which, as in datetime(2026, 1, 1, tzinfo=UTC)")
    return (time - _EPOCH) // _MICROSECOND


def as_datetime(moment: Timestamp) -> datetime:
    """Microseconds since the epoch as a time in UTC."""
    return _EPOCH + moment * _MICROSECOND


class TurnedClock:
    """An `eventstore.Clock` that a test turns. An engine tells it the moments that it waits for."""

    def __init__(self, start: datetime = START) -> None:
        self._now = microseconds(start)
        self._monotonic = 1_000.0
        self._moments: list[int] = []  # a heap; what is no longer waited for is just one more stop on the way
        self._listeners: list[Callable[[], None]] = []
        self.on_expect: Callable[[], None] | None = None  # called when there is one more moment

    def now(self) -> Timestamp:
        """Microseconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds."""
        return self._monotonic

    def expect(self, moment: Timestamp) -> None:
        """Somebody waits for this moment (microseconds since the epoch)."""
        if moment > self._now:
            heapq.heappush(self._moments, moment)
            if self.on_expect is not None:
                self.on_expect()

    def next_moment(self) -> Timestamp | None:
        """The earliest moment that somebody waits for, or waited for; None: there is none."""
        while self._moments and self._moments[0] <= self._now:
            heapq.heappop(self._moments)
        return self._moments[0] if self._moments else None

    def turn_to(self, moment: Timestamp) -> None:
        """Let it be `moment` (microseconds since the epoch), and tell everybody who listens. Never goes back."""
        if moment > self._now:
            self._monotonic += (moment - self._now) / 1_000_000
            self._now = moment
        for listener in list(self._listeners):
            listener()

    def on_turn(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call back after every turn. Returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been turned so far; for ever, for `inf`."""
        until = inf if seconds == inf else self._now + round(seconds * 1_000_000)
        if until <= self._now:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def look() -> None:
            if self._now >= until and not waiting.done():
                waiting.set_result(None)

        if until != inf:
            self.expect(int(until))
        stop = self.on_turn(look)
        try:
            await waiting
        finally:
            stop()
