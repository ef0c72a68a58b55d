"""The heartbeats of one attempt, from whichever thread they come to its run's history, seldom enough to be cheap.

The first is recorded at once, after that at most one in `HEARTBEAT_SECONDS`: the last there was. When the attempt ends
without a result, what is not recorded yet is, so that the next attempt finds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Final

from engine.runtime.alarms import Alarm, Alarms
from engine.tasks import Contact
from eventstore.clock import Clock

__all__ = ["HEARTBEAT_SECONDS", "Pulse"]

HEARTBEAT_SECONDS: Final = 5.0
"""At most one heartbeat of an attempt is recorded in so long. A crash loses what was said since; see docs/tasks.md."""
_beating: Final = Lock()
"""One for all: it is held for a moment, and one for each would be made for each attempt."""


class Pulse(Contact):
    """See the module. Made on the loop, one for each attempt; `record` writes a heartbeat, on the loop."""

    __slots__ = (
        "_alarm",
        "_alarms",
        "_beaten_at",
        "_clock",
        "_details",
        "_finished",
        "_loop",
        "_next_at",
        "_record",
        "_unwritten",
    )

    def __init__(self, clock: Clock, alarms: Alarms, record: Callable[[bytes | None], None]) -> None:
        super().__init__()
        self._beaten_at = 0  # microseconds; 0: it has said nothing, and nobody has asked how long
        self._clock = clock
        self._alarms = alarms
        self._record = record
        self._loop = asyncio.get_running_loop()
        self._unwritten = False
        self._details: bytes | None = None  # those that are not written
        self._next_at = 0  # microseconds; not before this is another recorded
        self._alarm: Alarm | None = None
        self._finished = False

    def beat(self, details: bytes | None) -> None:
        with _beating:
            self._beaten_at = self._clock.now()
            if details is not None:
                self._details = details
            if self._unwritten:
                return
            self._unwritten = True
        with suppress(RuntimeError):  # a thread that nobody could stop has outlived the program's loop
            self._loop.call_soon_threadsafe(self._look)

    def begin(self) -> None:
        super().begin()
        self._beaten_at = self._clock.now()

    def silent_at(self, seconds: float) -> int:
        """Microseconds at which it will have said nothing for so long, if it says nothing until then."""
        if self.preparing:
            return self._clock.now() + round(seconds * 1_000_000)
        if not self._beaten_at:
            self._beaten_at = self._clock.now()
        return self._beaten_at + round(seconds * 1_000_000)

    def finish(self, *, write: bool) -> None:
        """The attempt has ended; what its code still says is not heard. `write`: what is not recorded yet is, now."""
        if write and self._unwritten and not self._finished:
            self._write()
        self._finished = True
        self._record = _heard_by_nobody  # it may be of whoever holds this: nothing is left for the collector
        if self._alarm is not None:
            self._alarm.cancel()

    def _look(self) -> None:
        if self._finished or self._alarm is not None:
            return
        if self._clock.now() >= self._next_at:
            self._write()
        else:
            self._alarm = self._alarms.at(self._next_at, self._due)

    def _due(self) -> None:
        self._alarm = None
        if not self._finished:
            self._write()

    def _write(self) -> None:
        self._next_at = self._clock.now() + round(HEARTBEAT_SECONDS * 1_000_000)
        with _beating:
            self._unwritten = False
            details, self._details = self._details, None
        self._record(details)


def _heard_by_nobody(_details: bytes | None) -> None:
    """The attempt has ended."""
