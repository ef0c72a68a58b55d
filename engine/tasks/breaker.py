"""Circuit breakers: what tasks that depend on one thing do while that thing is down."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Breaker"]


class Breaker(Struct, frozen=True):
    """When a circuit opens, and for how long: the pattern of M. Nygard's "Release It!".

    After that many `failures` in a row, of whatever tasks name the breaker, no attempt of them begins for so many
    `seconds`; then one is let through to see. If it succeeds all go on, else the pause is doubled, up to
    `seconds_max`. `on`: the exceptions that count as failures; any other counts as an answer, and so does a result that
    cannot be recorded (`NotRecordable`, `PayloadTooLarge`): the task fails, but what it depends on is there.
    """

    failures: int = 5
    seconds: float = 30.0
    seconds_max: float = 600.0
    on: tuple[type[BaseException], ...] = (Exception,)
