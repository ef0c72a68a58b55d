"""Wakes the runs that are in memory when their time has come.

One heap, one callback of the event loop. A clock that can be turned by hand tells us when it was (`on_turn`), so that
tests need not wait; it is told of every moment that somebody waits for (`expect`), so that whoever turns it knows how
far. A wall clock that was set is noticed within `LOOK_AGAIN_SECONDS`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from eventstore.clock import Clock

__all__ = ["LOOK_AGAIN_SECONDS", "Alarm", "Alarms", "OneAlarm"]

LOOK_AGAIN_SECONDS: Final = 10.0
"""The longest that a sleep trusts the wall clock not to be set."""


class Alarm:
    """One pending wake-up, at `at` microseconds since the epoch. `cancel` it when it is no longer wanted."""

    __slots__ = ("at", "callback")

    def __init__(self, at: int, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never call back. The heap forgets it when it comes to the top."""
        self.callback = None


class OneAlarm:
    """At most one pending alarm, for what is earliest of many things."""

    __slots__ = ("_alarm", "_alarms", "_callback")

    def __init__(self, alarms: Alarms, callback: Callable[[], None]) -> None:
        self._alarms = alarms
        self._callback: Callable[[], None] | None = callback
        self._alarm: Alarm | None = None

    def set(self, at: int | None) -> None:
        """Call back at `at` microseconds and not at what was set before; None: not at all."""
        if self._alarm is not None:
            if self._alarm.at == at and self._alarm.callback is not None:
                return
            self._alarm.cancel()
        self._alarm = None if at is None or self._callback is None else self._alarms.at(at, self._callback)

    def close(self) -> None:
        """Never call back any more, and forget whom."""
        self.set(None)
        self._callback = None


class Alarms:
    """Alarms on one event loop and one clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[int, int, Alarm]] = []
        self._serial = count()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._expect: Callable[[int], None] | None = getattr(clock, "expect", None)
        on_turn: Any = getattr(clock, "on_turn", None)
        self._stop_listening: Callable[[], None] | None = on_turn(self._ring) if on_turn is not None else None

    def at(self, moment: int, callback: Callable[[], None]) -> Alarm:
        """Call back once, on the loop, when the clock is at `moment` microseconds or later."""
        alarm = Alarm(moment, callback)
        if self._expect is not None:
            self._expect(moment)
        heapq.heappush(self._heap, (moment, next(self._serial), alarm))
        if self._heap[0][2] is alarm:
            self._set()
        return alarm

    def close(self) -> None:
        """Call nobody back any more."""
        self._closed = True
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._stop_listening is not None:
            self._stop_listening()

    def _ring(self) -> None:
        now = self._clock.now()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].callback is None):
            alarm = heapq.heappop(self._heap)[2]
            callback, alarm.callback = alarm.callback, None
            if callback is not None:
                callback()
        self._set()

    def _set(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap and not self._closed:
            delay = max(0.0, (self._heap[0][0] - self._clock.now()) / 1_000_000)
            self._timer = asyncio.get_running_loop().call_later(min(delay, LOOK_AGAIN_SECONDS), self._ring)
