"""Time, as something handed in. The only file of the project that reads a clock.

What takes a `Clock` can be simulated: tests hand in one that is turned by hand. It stands in `eventstore` because that
is the lowest package that needs it; `engine.runtime` hands the same object on.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Where an engine or a store asks what time it is."""

    def now(self) -> int:
        """Microseconds since the Unix epoch; may step when somebody sets the machine's clock."""

    def monotonic(self) -> float:
        """Seconds that never step back, of an unknown origin, the same for all processes of one boot."""


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    def now(self) -> int:
        return time.time_ns() // 1_000

    monotonic = staticmethod(time.monotonic)  # itself: every turn of every run asks twice
