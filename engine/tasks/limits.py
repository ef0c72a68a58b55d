"""Limits that tasks name: pools (attempts at once) and rates (starts in a window), shared by all engines on a store.

A limit belongs to the store. Engines say how much it gives (`Engine(pools=..., rates=...)`), people change it while
everything runs (`Engine.set_pool`, `Engine.set_rate`), and a task only names it. One exception is for convenience: a
rate may be written down with its task, ``rate="10/s"``, and is then that task's own.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from msgspec import Struct

__all__ = ["EVERY_TASK", "Named", "Rate", "RateLike", "named_limits", "rate_of"]

EVERY_TASK: Final = "*"
"""The pool that every attempt takes a slot of, in engines that declare it: ``Engine(pools={"*": 100})``."""

_UNITS: Final = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3_600.0, "hour": 3_600.0, "d": 86_400.0}
_RATE: Final = re.compile(r"(\d+)\s*/\s*(\d+(?:\.\d+)?)?\s*([a-z]+)")


class Rate(Struct, frozen=True):
    """At most `count` starts in any window of `seconds`. As a text: ``10/s``, ``100/min``, ``5000/h``, ``3/10s``."""

    count: int
    seconds: float = 1.0

    @property
    def window(self) -> int:
        """The window in microseconds."""
        return round(self.seconds * 1_000_000)

    def __str__(self) -> str:
        return f"{self.count}/{self.seconds:g}s"


RateLike: TypeAlias = Rate | str
"""A rate, or its text."""


class Named(Struct, frozen=True):
    """A limit that a task names. `own`: how much it gives, when the task itself says that."""

    name: str
    is_rate: bool
    own: Rate | None = None


def rate_of(given: object) -> Rate:
    """The rate that is meant. Raises `ValueError`, saying what was expected."""
    rate = given
    if isinstance(given, str):
        match = _RATE.fullmatch(given.strip().lower())
        unit = None if match is None else _UNITS.get(match[3])
        if match is None or unit is None:
            raise ValueError(f"a rate is written as '10/s', '100/min', '5000/h' or '3/10s', not {given!r}")
        rate = Rate(int(match[1]), float(match[2] or 1) * unit)
    if not isinstance(rate, Rate):
        raise ValueError(  # noqa: TRY004 - what was written down, whatever its type
            f"a rate is a text such as '10/s', or Rate(10, seconds=1), not {given!r}"
        )
    if type(rate.count) is not int or rate.count < 0:
        raise ValueError(f"a rate gives 0 or more starts, not {rate.count!r}")
    if not rate.seconds > 0 or rate.window < 1:
        raise ValueError(f"the window of a rate is a number of seconds above 0, not {rate.seconds!r}")
    return rate


def named_limits(task: str, *, pool: str | None, rate: RateLike | None) -> tuple[Named, ...]:
    """The limits of a task, in the order in which they are taken: slots first, so that no start is spent on waiting.

    Raises `ValueError` for what names none.
    """
    found: list[Named] = []
    if pool is not None:
        found.append(Named(_checked(pool, "pool"), is_rate=False))
    if isinstance(rate, Rate) or (isinstance(rate, str) and "/" in rate):
        found.append(Named(f"task/{task}", is_rate=True, own=rate_of(rate)))
    elif rate is not None:
        found.append(Named(_checked(rate, "rate"), is_rate=True))
    if pool is not None and pool == rate:
        raise ValueError(f"{pool!r} cannot be its pool and its rate: they are limits by one name")
    return tuple(found)


def _checked(name: object, what: str) -> str:
    if not isinstance(name, str) or not name or name == EVERY_TASK or len(name.encode()) > 200:
        raise ValueError(f"{what} is the name of one, a text of at most 200 bytes other than '*', not {name!r}")
    return name
