"""What one engine takes on at once, of its own; what all engines on a store share is in `limits`."""

from __future__ import annotations

from msgspec import Struct

from engine.runtime.watchdog import TURN_SECONDS_MAX, TURN_WARN_SECONDS

__all__ = ["Capacity"]


class Capacity(Struct, frozen=True, kw_only=True):
    """What one engine takes on at once."""

    concurrency: int = 1_000  # attempts of coroutine tasks
    threads: int = 32  # attempts of plain functions
    processes: int = 1  # attempts of plain functions that ask for a process
    runs: int = 2_000  # runs in memory with something to do
    cached: int = 500  # live instances kept for runs that rest
    grace: float = 30.0  # seconds that attempts may go on when the engine closes
    turn_seconds: tuple[float, float] = (TURN_WARN_SECONDS, TURN_SECONDS_MAX)  # warned about, broken off
