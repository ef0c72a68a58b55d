"""What the clocks of a time zone showed, as a table: every change of its offset from UTC between two years.

Seconds are whole. An *instant* counts them since 1970 in UTC; *wall* seconds are what the clocks show, counted from
1970-01-01T00:00 of the same clocks. `zoneinfo` answers for one instant only and does not say when the next change is:
the table is made by asking it every few days and bisecting, which no rule of any zone escapes (changes that undo each
other are six days apart at least), and everything else is arithmetic on the table.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from bisect import bisect_right
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final

from engine.errors import DefinitionError

YEAR_MIN: Final = 1600
YEAR_MAX: Final = 2200
"""Time partitions lie in the years from `YEAR_MIN` up to, not including, `YEAR_MAX`."""

DAY: Final = 86_400
HOUR: Final = 3_600
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_STEP: Final = 5 * DAY
_BEFORE_ALL: Final = -(1 << 60)


class Zone:
    """The offsets of a zone: `offsets[n]` (seconds east of UTC) holds from the instant `starts[n]` on."""

    def __init__(self, starts: list[int], offsets: list[int]) -> None:
        self.starts = starts
        self.offsets = offsets
        ends = [*starts[1:], -_BEFORE_ALL]
        self._wall_ends = [end + offset for end, offset in zip(ends, offsets, strict=True)]

    def offset_at(self, instant: int) -> int:
        """Seconds east of UTC at that instant."""
        return self.offsets[bisect_right(self.starts, instant) - 1]

    def first_instant(self, wall: int) -> int:
        """When the clocks have first reached `wall`: of two instants the earlier, or the change that skips it."""
        found = bisect_right(self._wall_ends, wall)
        return max(self.starts[found], wall - self.offsets[found])

    def moment(self, instant: int) -> datetime:
        """That instant as a clock on the wall shows it.

        With the offset itself and not the zone: Python compares and subtracts two moments of one zone by what the
        clocks show, so that a day of 25 hours would have 24.
        """
        offset = self.offset_at(instant)
        return (EPOCH + timedelta(seconds=instant)).astimezone(timezone(timedelta(seconds=offset)) if offset else UTC)


def instant_of(moment: datetime) -> int:
    """Whole seconds since 1970, rounded down."""
    return (moment - EPOCH) // timedelta(seconds=1)


def wall_of(naive: datetime) -> int:
    """Wall seconds of what a clock shows."""
    return (naive.replace(tzinfo=UTC) - EPOCH) // timedelta(seconds=1)


def naive_of(wall: int) -> datetime:
    """What a clock shows, of wall seconds."""
    return (EPOCH + timedelta(seconds=wall)).replace(tzinfo=None)


def check(name: str) -> None:
    """A `DefinitionError` names a zone that is not there."""
    _found(name)


@lru_cache(maxsize=64)
def zone(name: str, year: int) -> Zone:
    """The table of that zone, from the beginning of `year` on. A `DefinitionError` names a zone that is not there."""
    info = _found(name)
    first, last = (instant_of(datetime(each, 1, 1, tzinfo=UTC)) for each in (max(year, YEAR_MIN) - 1, YEAR_MAX + 1))
    starts, offsets = [_BEFORE_ALL], [_offset(info, first)]
    if info is UTC:
        return Zone(starts, offsets)
    for instant in range(first + _STEP, last, _STEP):
        if _offset(info, instant) != offsets[-1]:
            change = _change(info, instant - _STEP, instant)
            starts.append(change)
            offsets.append(_offset(info, change))
    return Zone(starts, offsets)


def _found(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # also where the machine has no table of zones
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        there = zoneinfo.available_timezones()
        if not there:
            raise DefinitionError(
                f"the time zone {name!r} cannot be read: this machine has no time zones. "
                "Install its tzdata package, or the one of that name from PyPI"
            ) from error
        close = difflib.get_close_matches(name, there, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "names are those of the IANA, like 'Europe/Berlin'"
        raise DefinitionError(f"no time zone {name!r} on this machine: {hint}") from error


def _offset(info: tzinfo, instant: int) -> int:
    offset = (EPOCH + timedelta(seconds=instant)).astimezone(info).utcoffset()
    assert offset is not None
    return offset // timedelta(seconds=1)


def _change(info: tzinfo, before: int, behind: int) -> int:
    """The first instant with another offset than `before`."""
    offset = _offset(info, before)
    while behind - before > 1:
        middle = (before + behind) // 2
        if _offset(info, middle) == offset:
            before = middle
        else:
            behind = middle
    return behind


_START: Final = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d)?)?)?)?", re.ASCII)


def read_wall(text: str) -> datetime:
    """`2013`, `2013-01`, `2013-01-31`, `2013-01-31T05`, `2013-01-31T05:30` as a naive datetime; else a ValueError."""
    if not _START.fullmatch(text):
        raise ValueError(text)
    return datetime.fromisoformat(text + "0000-01-01"[len(text) :])  # what is left out is the first
