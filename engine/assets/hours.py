"""Hours as partitions.

Hours are those of the clocks, cut also at every change of them: an hour that comes twice is two partitions, whose keys
carry the offset from UTC (`2013-10-27T02+02:00` and `2013-10-27T02+01:00`), one that is skipped is none, and where
clocks are moved by half an hour there is a partition of half an hour.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import ClassVar, Final, NamedTuple

from engine.assets.time_keys import offset_text, split_offset
from engine.assets.time_partitions import TimePartitions
from engine.assets.zones import HOUR, naive_of, wall_of

_EPOCH: Final = date(1970, 1, 1).toordinal()
_ISO_LENGTH: Final = len("2013-01-31T05")
_LAST: Final = 1 << 40
"""A cell behind all that are ever asked for."""


class _Stretch(NamedTuple):
    """The cells of a time without a change of the clocks: `first` to `last`, whose ordinals begin with `ordinal`."""

    first: int
    last: int
    ordinal: int
    twice_until: int  # cells up to this one were there before the clocks were set back
    twice_from: int  # cells from this one on will be there again


@dataclass(frozen=True, repr=False)
class Hourly(TimePartitions):
    """A partition for each hour: `Hourly("2013-01-01", timezone="Europe/Berlin")`, keys like `2013-01-31T05`."""

    ISO: ClassVar[str] = "%Y-%m-%dT%H"
    UNIT: ClassVar[timedelta] = timedelta(hours=1)

    def cell_at(self, wall: int) -> int:
        return wall // HOUR

    def wall_at(self, cell: int) -> int:
        return cell * HOUR

    def at(self, instant: int) -> int:
        found = bisect_right(self.zone.starts, instant) - 1
        stretch = self._stretches[found]
        return stretch.ordinal + (instant + self.zone.offsets[found] - self.shift) // HOUR - stretch.first

    def edges(self, ordinal: int) -> tuple[int, int]:
        found = bisect_right(self._ordinals, ordinal) - 1
        stretch, starts = self._stretches[found], self.zone.starts
        begins = (stretch.first + ordinal - stretch.ordinal) * HOUR + self.shift - self.zone.offsets[found]
        ends = begins + HOUR
        return max(begins, starts[found]), min(ends, starts[found + 1]) if found + 1 < len(starts) else ends

    def key_at(self, ordinal: int) -> str:
        return next(iter(self.keys_between(ordinal, ordinal + 1)))

    def keys_between(self, start: int, stop: int) -> Iterable[str]:
        found = bisect_right(self._ordinals, start) - 1
        while start < stop:
            stretch = self._stretches[found]
            until = min(stop, stretch.ordinal + stretch.last - stretch.first + 1)
            cells = range(stretch.first + start - stretch.ordinal, stretch.first + until - stretch.ordinal)
            suffix = offset_text(self.zone.offsets[found])
            for cell, key in zip(cells, self._written(cells), strict=True):
                yield key + suffix if not stretch.twice_until < cell < stretch.twice_from else key
            start, found = until, found + 1

    def _written(self, cells: range) -> Iterator[str]:
        if not self.keyed.is_iso:
            yield from (self.keyed.write(naive_of(cell * HOUR)) for cell in cells)
            return
        today, text = -1, ""
        for cell in cells:
            day, hour = divmod(cell, 24)
            if day != today or not text:
                today, text = day, date.fromordinal(_EPOCH + day).isoformat()
            yield f"{text}T{hour:02}"

    def place(self, key: str) -> int | None:
        if self.keyed.is_iso and len(key) == _ISO_LENGTH:  # nearly all, and often very many
            cell = _read_iso(key)
            if cell is None:
                return None
            stretch = self._stretches[bisect_left(self._lasts, cell)]
            if stretch.first <= cell and stretch.twice_until < cell < stretch.twice_from:
                ordinal = stretch.ordinal + cell - stretch.first
                return ordinal if 0 <= ordinal < self.stop else None
            return None
        for ordinal in self._candidates(key):
            if 0 <= ordinal < self.stop and self.key_at(ordinal) == key:
                return ordinal
        return None

    def guess(self, key: str) -> int | None:
        body, offset = split_offset(key)
        cell = self._read(body)
        if cell is None:
            return None
        candidates = self._candidates(key)
        if candidates:
            return candidates[0]
        wall = cell * HOUR + self.shift
        return self.at(self.zone.first_instant(wall) if offset is None else wall - offset)

    def reason(self, key: str) -> str:
        example = self.key_at(0)
        guess = self.guess(key)
        if guess is None:
            return f"keys are like {example!r}"
        if guess < 0:
            return f"the first is {example!r}"
        if guess >= self.stop:
            return f"the last is {self.key_at(self.stop - 1)!r}"
        if self.place(key) is not None:
            return ""
        there = [self.key_at(ordinal) for ordinal in self._candidates(key) if 0 <= ordinal < self.stop]
        if not there:
            return "the clocks skipped that hour"
        if len(there) > 1:
            return f"that hour came twice: {' and '.join(map(repr, there))}"
        return f"it is written {there[0]!r}"

    def _candidates(self, key: str) -> list[int]:
        """The partitions of the hour that a key names, whatever its offset: none, one, or two."""
        cell = self._read(split_offset(key)[0])
        if cell is None:
            return []
        found = bisect_left(self._lasts, cell)
        near = self._stretches[found : found + 2]
        return [each.ordinal + cell - each.first for each in near if each.first <= cell <= each.last]

    def _read(self, body: str) -> int | None:
        if self.keyed.is_iso:
            return _read_iso(body)
        try:
            return wall_of(self.keyed.read(body)) // HOUR
        except ValueError:
            return None

    @cached_property
    def _stretches(self) -> list[_Stretch]:
        """A stretch for each entry of the zone's table; ordinal 0 is the first that begins at the start or later."""
        starts, offsets = self.zone.starts, self.zone.offsets
        walls = [offset - self.shift for offset in offsets]
        firsts = [(start + wall) // HOUR for start, wall in zip(starts, walls, strict=True)]
        lasts = [(end - 1 + wall) // HOUR for end, wall in zip(starts[1:], walls, strict=False)] + [_LAST]
        start = self.zone.first_instant(self._start_cell * HOUR + self.shift)
        here = bisect_right(starts, start) - 1
        ordinal = -sum(lasts[each] - firsts[each] + 1 for each in range(here))
        ordinal -= (start + walls[here]) // HOUR - firsts[here]
        found = []
        for number, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
            until = lasts[number - 1] if number else first - 1
            again = firsts[number + 1] if number + 1 < len(firsts) else last + 1
            found.append(_Stretch(first, last, ordinal, until, again))
            ordinal += last - first + 1
        return found

    @cached_property
    def _ordinals(self) -> list[int]:
        return [each.ordinal for each in self._stretches]

    @cached_property
    def _lasts(self) -> list[int]:
        return [each.last for each in self._stretches]


def _read_iso(body: str) -> int | None:
    day, mark, hour = body[:10], body[10:11], body[11:]
    if mark != "T" or len(hour) != 2 or not (hour.isascii() and hour.isdigit()) or hour > "23":
        return None
    if day[7:8] != "-":  # a day of a week, which Python reads, too
        return None
    try:
        return (date.fromisoformat(day).toordinal() - _EPOCH) * 24 + int(hour)
    except ValueError:
        return None
