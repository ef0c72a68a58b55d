"""Days, weeks and months as partitions.

A day has 23 or 25 hours when the clocks are changed, and begins at 01:00 where midnight was skipped. A day that a
country skipped to get over the date line is no partition; one that it had twice is one partition of two days' length.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import ClassVar, Final

from engine.assets.time_partitions import TimePartitions
from engine.assets.zones import DAY, naive_of, wall_of
from engine.errors import DefinitionError

DAYS_OF_WEEK: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_EPOCH: Final = date(1970, 1, 1).toordinal()


class _Calendar(TimePartitions):
    """Cells of the calendar, of which those that the zone's clocks skipped wholly are none."""

    def boundary(self, cell: int) -> int:
        """The instant at which a cell begins; that of the next, when it was skipped."""
        return self.zone.first_instant(self.wall_at(cell) + self.shift)

    def at(self, instant: int) -> int:
        cell = self.cell_at(instant + self.zone.offset_at(instant) - self.shift)
        while instant < self.boundary(cell):  # clocks that were set back to the day before, after its end
            cell -= 1
        while instant >= self.boundary(cell + 1):
            cell += 1
        return self._ordinal(cell)

    def edges(self, ordinal: int) -> tuple[int, int]:
        cell = self._cell(ordinal)
        return self.boundary(cell), self.boundary(cell + 1)

    def key_at(self, ordinal: int) -> str:
        return self.keyed.write(naive_of(self.wall_at(self._cell(ordinal))))

    def place(self, key: str) -> int | None:
        ordinal = self.guess(key)
        if ordinal is None or not 0 <= ordinal < self.stop or self.key_at(ordinal) != key:
            return None
        return ordinal

    def guess(self, key: str) -> int | None:
        cell = self._read(key)
        return None if cell is None else self._ordinal(cell)

    def reason(self, key: str) -> str:
        cell, example = self._read(key), self.key_at(0)
        if cell is None:
            return f"keys are like {example!r}"
        ordinal = self._ordinal(cell)
        if ordinal < 0:
            return f"the first is {example!r}"
        if ordinal >= self.stop:
            return f"the last is {self.key_at(self.stop - 1)!r}"
        if cell in self._skipped:
            return "the clocks skipped it"
        written = self.key_at(ordinal)
        return "" if written == key else f"it is written {written!r}"

    def _read(self, key: str) -> int | None:
        """The cell that a key lies in, in whatever form; None when it is nothing of the kind."""
        try:
            return self.cell_at(wall_of(self.keyed.read(key)))
        except ValueError:
            return None

    def _ordinal(self, cell: int) -> int:
        return cell - self._start_cell - bisect_left(self._skipped, cell)

    def _cell(self, ordinal: int) -> int:
        return self._start_cell + ordinal + bisect_right(self._before_skipped, ordinal)

    @cached_property
    def _skipped(self) -> list[int]:
        """Cells without an instant: only a change by a day or more has room for one."""
        found = []
        zone = self.zone
        for start, before, after in zip(zone.starts[1:], zone.offsets, zone.offsets[1:], strict=False):
            if after - before >= DAY:
                cells = range(self.cell_at(start + before - DAY), self.cell_at(start + after + DAY))
                found += [cell for cell in cells if self.boundary(cell) == self.boundary(cell + 1)]
        return [cell for cell in found if cell >= self._start_cell]

    @cached_property
    def _before_skipped(self) -> list[int]:
        """The ordinal that each skipped cell would have had, without those before it."""
        return [cell - self._start_cell - passed for passed, cell in enumerate(self._skipped)]


@dataclass(frozen=True, repr=False)
class Daily(_Calendar):
    """A partition for each day: `Daily("2013-01-01", timezone="Europe/Berlin")`, keys like `2013-01-31`."""

    ISO: ClassVar[str] = "%Y-%m-%d"

    def cell_at(self, wall: int) -> int:
        return wall // DAY

    def wall_at(self, cell: int) -> int:
        return cell * DAY

    def _read(self, key: str) -> int | None:
        if not self.keyed.is_iso:
            return super()._read(key)
        try:
            return date.fromisoformat(key).toordinal() - _EPOCH
        except ValueError:
            return None

    def key_at(self, ordinal: int) -> str:
        if not self.keyed.is_iso:
            return super().key_at(ordinal)
        return date.fromordinal(_EPOCH + self._cell(ordinal)).isoformat()


@dataclass(frozen=True, repr=False)
class Weekly(_Calendar):
    """A partition for each week, whose key is the day on which it begins: `2013-01-28`.

    Weeks begin on Monday, or the day that `begins` names. Of weeks that begin on Monday, `format="%G-W%V"` makes keys
    like `2013-W05`.
    """

    begins: str = field(default="monday", kw_only=True)

    ISO: ClassVar[str] = "%Y-%m-%d"

    def __post_init__(self) -> None:
        if self.begins not in DAYS_OF_WEEK:
            raise DefinitionError(f"begins={self.begins!r} of Weekly is none of {', '.join(DAYS_OF_WEEK)}")
        super().__post_init__()

    @cached_property
    def _first(self) -> int:
        """Days from 1970-01-01, a Thursday, to the next beginning of a week."""
        return (DAYS_OF_WEEK.index(self.begins) - 3) % 7

    def cell_at(self, wall: int) -> int:
        return (wall // DAY - self._first) // 7

    def wall_at(self, cell: int) -> int:
        return (7 * cell + self._first) * DAY


@dataclass(frozen=True, repr=False)
class Monthly(_Calendar):
    """A partition for each month: `Monthly("2013")`, keys like `2013-01`."""

    ISO: ClassVar[str] = "%Y-%m"

    def cell_at(self, wall: int) -> int:
        day = date.fromordinal(_EPOCH + wall // DAY)
        return 12 * (day.year - 1970) + day.month - 1

    def wall_at(self, cell: int) -> int:
        years, month = divmod(cell, 12)
        return (date(1970 + years, month + 1, 1).toordinal() - _EPOCH) * DAY
