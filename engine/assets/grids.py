"""A set of pairs of ordinals, kept as bands of rows that have the same columns: a key set of two dimensions.

All of 300 by 365 is one band. Like `Ordinals`, each set has exactly one form, and it knows nothing of keys.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from engine.assets.ordinals import EMPTY, Ordinals


class Band(NamedTuple):
    """Rows from `start` up to, not including, `stop`, each with those columns."""

    start: int
    stop: int
    columns: Ordinals


class Grid:
    """An immutable set of `(row, column)`."""

    __slots__ = ("_starts", "bands")

    def __init__(self, bands: tuple[Band, ...]) -> None:
        """Not called from elsewhere: bands are in order, none is empty, and neighbours that touch differ."""
        self.bands = bands
        self._starts: list[int] | None = None

    @staticmethod
    def product(rows: Ordinals, columns: Ordinals) -> Grid:
        """All pairs of the two."""
        return Grid(tuple(Band(start, stop, columns) for start, stop in rows.runs())) if columns else NONE

    @staticmethod
    def of(pairs: Iterable[tuple[int, int]]) -> Grid:
        """Those pairs, in any order, repeated or not."""
        rows: dict[int, list[int]] = {}
        for row, column in pairs:
            rows.setdefault(row, []).append(column)
        return _joined(Band(row, row + 1, Ordinals.of(rows[row])) for row in sorted(rows))

    @staticmethod
    def union(grids: Iterable[Grid]) -> Grid:
        """All that is in any of them: halves first, so that many small ones are not added to a growing one."""
        left = list(grids)
        while len(left) > 1:
            odd = left[-1:] if len(left) % 2 else []
            left = [one | two for one, two in zip(left[::2], left[1::2], strict=False)] + odd
        return left[0] if left else NONE

    def rows(self) -> Ordinals:
        """The rows that have a column."""
        return Ordinals.from_runs((band.start, band.stop) for band in self.bands)

    def columns(self) -> Ordinals:
        """The columns that have a row."""
        found = EMPTY
        for columns in {band.columns for band in self.bands}:
            found |= columns
        return found

    def __or__(self, other: Grid) -> Grid:
        return self._with(other, lambda one, two: one | two)

    def __and__(self, other: Grid) -> Grid:
        return self._with(other, lambda one, two: one & two)

    def __sub__(self, other: Grid) -> Grid:
        return self._with(other, lambda one, two: one - two)

    def _with(self, other: Grid, meet: Callable[[Ordinals, Ordinals], Ordinals]) -> Grid:
        done: dict[tuple[Ordinals, Ordinals], Ordinals] = {}  # few different columns meet again and again

        def met(one: Ordinals, two: Ordinals) -> Ordinals:
            if (one, two) not in done:
                done[one, two] = meet(one, two)
            return done[one, two]

        return _joined(Band(start, stop, met(one, two)) for start, stop, one, two in _swept(self.bands, other.bands))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((row, column) for band in self.bands for row in range(band.start, band.stop) for column in band.columns)

    def __len__(self) -> int:
        return sum((band.stop - band.start) * len(band.columns) for band in self.bands)

    def __bool__(self) -> bool:
        return bool(self.bands)

    def __contains__(self, pair: tuple[int, int]) -> bool:
        if self._starts is None:
            self._starts = [band.start for band in self.bands]
        at = bisect_right(self._starts, pair[0]) - 1
        return at >= 0 and pair[0] < self.bands[at].stop and pair[1] in self.bands[at].columns

    def cut(self, start: int, stop: int) -> Grid:
        """Those that stand at the places `start` up to, not including, `stop`, counted from 0 in order."""
        found: list[Band] = []
        passed = 0
        for band in self.bands:
            width = len(band.columns)
            low, high = max(start - passed, 0), min(stop - passed, (band.stop - band.start) * width)
            if low < high:
                found += _piece(band, width, low, high)
            passed += (band.stop - band.start) * width
        return _joined(found)

    def __eq__(self, other: object) -> bool:
        return self.bands == other.bands if isinstance(other, Grid) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.bands)

    def __repr__(self) -> str:
        return f"Grid({', '.join(f'{band.start}..{band.stop - 1}: {band.columns}' for band in self.bands)})"


NONE: Final = Grid(())


def _piece(band: Band, width: int, low: int, high: int) -> Iterator[Band]:
    """The places `low` up to `high` of one band: what is left of a first row, whole rows, a part of the last."""
    first, skipped = divmod(low, width)
    last, taken = divmod(high, width)
    if first == last:
        yield Band(band.start + first, band.start + first + 1, band.columns.cut(skipped, taken))
        return
    if skipped:
        yield Band(band.start + first, band.start + first + 1, band.columns.cut(skipped, width))
        first += 1
    yield Band(band.start + first, band.start + last, band.columns)
    yield Band(band.start + last, band.start + last + 1, band.columns.cut(0, taken))


def _joined(bands: Iterable[Band]) -> Grid:
    """The one form of bands that are in order: no empty ones, and neighbours with the same columns are one."""
    found: list[Band] = []
    for band in bands:
        if band.start >= band.stop or not band.columns:
            continue
        if found and found[-1].stop == band.start and found[-1].columns == band.columns:
            found[-1] = Band(found[-1].start, band.stop, band.columns)
        else:
            found.append(band)
    return Grid(tuple(found))


def _swept(one: tuple[Band, ...], two: tuple[Band, ...]) -> Iterator[tuple[int, int, Ordinals, Ordinals]]:
    """Rows between any two neighbouring edges of either, with the columns that they have in each."""
    edges = sorted({edge for band in (*one, *two) for edge in band[:2]})
    at_one = at_two = 0
    for start, stop in pairwise(edges):
        while at_one < len(one) and one[at_one].stop <= start:
            at_one += 1
        while at_two < len(two) and two[at_two].stop <= start:
            at_two += 1
        yield start, stop, _at(one, at_one, start), _at(two, at_two, start)


def _at(bands: tuple[Band, ...], at: int, row: int) -> Ordinals:
    return bands[at].columns if at < len(bands) and bands[at].start <= row else EMPTY
