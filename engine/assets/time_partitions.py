"""Partitions by time: what hours, days, weeks and months of a time zone's clocks have in common.

A partition is a window: from the first instant at which the clocks have reached its beginning up to that of the next.
They tile time, without a gap and without an overlap, whatever is done to the clocks. Ordinals are arithmetic on the
zone's table of changes, never walked: the partition of an instant, and the instants of a partition, cost the same in
the first year and in the hundredth. `now` is handed in.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import ClassVar, Final

from engine.assets import zones
from engine.assets.axes import Line
from engine.assets.key_text import check_key, shown
from engine.assets.ordinals import Ordinals
from engine.assets.partitions import DynamicKeys, Partitions, Window
from engine.assets.time_keys import TimeFormat
from engine.assets.zones import YEAR_MAX, YEAR_MIN, Zone, instant_of, naive_of, read_wall, wall_of
from engine.errors import DefinitionError, PartitionError

_SAMPLES: Final = 64
"""Partitions whose keys are written and read again to see whether a format tells them apart."""


@dataclass(frozen=True, repr=False)
class TimePartitions(Partitions, Line):
    """What the four kinds take. A partition exists when its window has ended; with `current`, when it has begun.

    `start` and `end` (exclusive; without one there is always a next) are what a clock of `timezone` shows: a text
    (`"2013"`, `"2013-01-31"`, `"2013-01-31T05"`), a date, or a naive datetime. Both must be beginnings of partitions.
    `format` (of `strftime`) writes keys otherwise than in ISO form. `offset` moves every beginning: days from 06:00 to
    06:00 have `offset=timedelta(hours=6)`, and the keys of the days on which they begin. A `DefinitionError` says what
    is wrong with any of it.
    """

    start: str | date
    end: str | date | None = None
    timezone: str = "UTC"
    format: str | None = None
    offset: timedelta = timedelta()
    current: bool = False

    ISO: ClassVar[str]
    """The format of keys when none is given, and of `start` and `end`."""
    alike: ClassVar[bool] = False
    UNIT: ClassVar[timedelta] = timedelta(days=1)
    """What an offset stays below."""

    def __post_init__(self) -> None:
        zones.check(self.timezone)
        if not timedelta() <= self.offset < self.UNIT or self.offset % timedelta(seconds=1):
            raise DefinitionError(f"{self}: the offset is whole seconds, from 0 up to {self.UNIT}")
        object.__setattr__(self, "start", self._beginning("start", self.start))
        if self.end is not None:
            object.__setattr__(self, "end", self._beginning("end", self.end))
            if self._end_cell <= self._start_cell:
                raise DefinitionError(f"{self} ends before anything has begun: end must lie after start")
        if self.format is not None:
            self._check_format()

    def _beginning(self, name: str, given: str | date) -> str:
        """One text for each moment, so that definitions that say the same are equal."""
        wall = _naive(f"{name} of {type(self).__name__}", given)
        iso = TimeFormat(self.ISO, None)
        cell = self.cell_at(wall_of(wall))
        around = [naive_of(self.wall_at(each)) for each in (cell, cell + 1)]
        if around[0] != wall:
            raise DefinitionError(
                f"{name}={str(given)!r} is not where a partition of {type(self).__name__} begins: "
                f"{' and '.join(map(iso.write, around))} are (without the offset)"
            )
        return iso.write(wall)

    def _check_format(self) -> None:
        """Keys must be read as what they were written for, or two partitions would have one key."""
        count = self.stop
        some = {*range(min(count, _SAMPLES)), *range(0, count, -(-count // _SAMPLES)), count - 1}
        for ordinal in sorted(some):
            key = self.key_at(ordinal)
            try:
                check_key(key)
            except PartitionError as error:
                raise DefinitionError(f"format={self.format!r} of {type(self).__name__}: {error}") from error
            if not self.keyed.tells_years or self.place(key) != ordinal:
                raise DefinitionError(
                    f"format={self.format!r} of {type(self).__name__} does not tell all partitions apart: "
                    f"{shown(key)} could be another"
                )

    # ------------------------------------------------------------------ what each kind says

    @abstractmethod
    def cell_at(self, wall: int) -> int:
        """The cell of the calendar (its hours, days, weeks, months are numbered) that those wall seconds lie in."""

    @abstractmethod
    def wall_at(self, cell: int) -> int:
        """The wall seconds at which a cell begins, without the offset: its key is made of them."""

    @abstractmethod
    def at(self, instant: int) -> int:
        """The ordinal of the window that an instant lies in; below 0 before the start, and it goes on after the end."""

    @abstractmethod
    def edges(self, ordinal: int) -> tuple[int, int]:
        """The instants at which a window begins and ends."""

    # ------------------------------------------------------------------ a definition

    def there(self, known: DynamicKeys | None, now: datetime | None) -> tuple[Line, Ordinals]:  # noqa: ARG002 - by time
        if now is None:
            return self, Ordinals.span(0, self.stop)
        return self, Ordinals.span(0, min(self.at(instant_of(now)) + self.current, self.stop))

    def to_come(self, content: Ordinals) -> Ordinals:
        return Ordinals.span(content.stop, self.stop)

    def window(self, key: str) -> Window:
        """The window of a partition. A `PartitionError` says why a key is none."""
        place = self.place(key)
        if place is None:
            self.check(key)
        assert place is not None
        start, end = self.edges(place)
        return Window(self.zone.moment(start), self.zone.moment(end))

    @property
    def stop(self) -> int:
        """How many partitions there can ever be."""
        return self._stop

    @cached_property
    def _stop(self) -> int:
        return self.at(self.zone.first_instant(self.wall_at(self._end_cell) + self.shift))

    @cached_property
    def keyed(self) -> TimeFormat:
        """How keys are written."""
        return TimeFormat(self.ISO, self.format)

    @cached_property
    def zone(self) -> Zone:
        """The clocks, from the first year on."""
        return zones.zone(self.timezone, read_wall(str(self.start)).year // 10 * 10)  # few tables for many definitions

    @property
    def shift(self) -> int:
        """The offset in seconds."""
        return self.offset // timedelta(seconds=1)

    @cached_property
    def _start_cell(self) -> int:
        return self.cell_at(wall_of(read_wall(str(self.start))))

    @cached_property
    def _end_cell(self) -> int:
        return self.cell_at(wall_of(read_wall(str(YEAR_MAX if self.end is None else self.end))))

    def __repr__(self) -> str:
        given = [
            (each.name, getattr(self, each.name)) for each in fields(self) if getattr(self, each.name) != each.default
        ]
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given)})"


def _naive(what: str, given: object) -> datetime:
    """What a clock shows, of all that can be given for it."""
    if isinstance(given, datetime):
        wall = given
    elif isinstance(given, date):
        wall = datetime(given.year, given.month, given.day)  # noqa: DTZ001 - what a wall clock shows
    else:
        try:
            wall = read_wall(str(given))
        except ValueError as error:
            raise DefinitionError(f"{what}: {given!r} is no date; write '2013-01-31', or '2013-01-31T05'") from error
    if wall.tzinfo is not None:
        raise DefinitionError(
            f"{what}: {given} has a zone of its own; give what the clocks of `timezone` show, without one"
        )
    if not YEAR_MIN <= wall.year < YEAR_MAX and wall != datetime(YEAR_MAX, 1, 1):  # noqa: DTZ001 - as above
        raise DefinitionError(f"{what}: {given} does not lie in the years from {YEAR_MIN} up to {YEAR_MAX}")
    return wall
