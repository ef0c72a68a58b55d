"""Between keys and ordinals: a line is where the keys of one dimension stand in order, a plane is two lines.

A place on a line is an ordinal, and a set of them `Ordinals`; on a plane it is a pair, and a set of them a `Grid`.
Places of a line never change while a program runs, so a set that was made once means the same keys for good.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, ClassVar, Final, Protocol, Self

from engine.assets import key_text
from engine.assets.grids import NONE, Grid
from engine.assets.key_text import Span, shown
from engine.assets.ordinals import EMPTY, Ordinals
from engine.errors import PartitionError

_CLOSE: Final = 500
"""Keys on either side, in alphabetical order, among which one that is spelled alike is looked for."""


class Content(Protocol):
    """What `Ordinals` and `Grid` have in common; two that meet are of one kind."""

    def __or__(self, other: Any, /) -> Self: ...
    def __and__(self, other: Any, /) -> Self: ...
    def __sub__(self, other: Any, /) -> Self: ...
    def __len__(self) -> int: ...
    def __contains__(self, place: Any, /) -> bool: ...
    def cut(self, start: int, stop: int) -> Self: ...


class Axis(ABC):
    """A line or a plane."""

    none: Content

    @abstractmethod
    def place(self, key: str) -> Any:
        """Where a key stands; None when it is no key of this axis."""

    @abstractmethod
    def keys_of(self, content: Any) -> Iterator[str]:
        """The keys at those places, in order."""

    @abstractmethod
    def collect(self, places: Iterable[Any]) -> Any:
        """The set of those places."""

    @abstractmethod
    def without_removed(self, content: Any) -> Any:
        """Those of the places whose keys were not removed."""

    @abstractmethod
    def to_come(self, content: Any) -> Any:
        """Places behind those that will be there in time."""

    @abstractmethod
    def text(self, content: Any) -> str:
        """The compact text of a set: `key_text` has the grammar."""

    @abstractmethod
    def select(self, text: str, among: Any) -> Any:
        """Those of `among` that the text names. A `PartitionError` names a key that is not there, and one that is."""

    @abstractmethod
    def refusal(self, key: str, among: Any) -> str:
        """Why a key is not among those, and which is nearest: the end of a message."""


class Line(Axis):
    """The keys of one dimension."""

    none = EMPTY
    alike: ClassVar[bool] = True
    """Whether a key that is not there may be another one that was misspelled."""

    @abstractmethod
    def place(self, key: str) -> int | None: ...

    @abstractmethod
    def key_at(self, ordinal: int) -> str:
        """The key that stands there."""

    def keys_between(self, start: int, stop: int) -> Iterable[str]:
        """The keys from `start` up to, not including, `stop`."""
        return map(self.key_at, range(start, stop))

    def removed(self) -> Ordinals:
        """Where keys stood that are no more."""
        return EMPTY

    def reason(self, key: str) -> str:  # noqa: ARG002 - for those who can tell
        """Why there is no such key, when more can be said than that."""
        return ""

    def guess(self, key: str) -> int | None:  # noqa: ARG002 - for those who can tell
        """About where a key would stand that is not there, when the line can tell."""
        return None

    def keys_of(self, content: Ordinals) -> Iterator[str]:
        return chain.from_iterable(self.keys_between(start, stop) for start, stop in content.runs())

    def collect(self, places: Iterable[int]) -> Ordinals:
        return Ordinals.of(places)

    def without_removed(self, content: Ordinals) -> Ordinals:
        return content - self.removed()

    def to_come(self, content: Ordinals) -> Ordinals:  # noqa: ARG002 - names do not come by themselves
        return EMPTY

    def text(self, content: Ordinals) -> str:
        return ",".join(self._spans(content))

    def _spans(self, content: Ordinals) -> Iterator[str]:
        return (key_text.write_span(self.key_at(start), self.key_at(stop - 1)) for start, stop in content.runs())

    def select(self, text: str, among: Ordinals) -> Ordinals:
        spans = (self.span(item[0], among) for item in key_text.read_items(text, 1))
        return among & Ordinals.from_runs(spans)

    def span(self, span: Span, among: Ordinals) -> tuple[int, int]:
        """From where up to, not including, where an item goes."""
        first, last = (None if key is None else self._there(key, among) for key in span)
        if first is not None and last is not None and last < first:
            raise PartitionError(
                f"the range {key_text.write_span(str(span[0]), str(span[1]))} goes backwards: turn it around"
            )
        return first or 0, among.stop if last is None else last + 1

    def _there(self, key: str, among: Ordinals) -> int:
        place = self.place(key)
        if place is None or place not in among:
            raise PartitionError(f"there is no partition {shown(key)}{self.refusal(key, among)}")
        return place

    def refusal(self, key: str, among: Ordinals) -> str:
        reason = self.reason(key)
        said = f": {reason}" if reason else ""
        if not among:
            return f"{said}; there are none"
        near = self._nearest(key, among)
        return said if near is None else f"{said}; nearest: {shown(near)}"

    def _nearest(self, key: str, among: Ordinals) -> str | None:
        place = self.place(key)
        closest = among.closest(guess) if (guess := self.guess(key) if place is None else place) is not None else None
        if closest is not None or not self.alike:
            return None if closest is None else self.key_at(closest)
        there = sorted(self.keys_of(among))
        at = bisect_left(there, key)
        around = there[max(0, at - _CLOSE) : at + _CLOSE]
        close = difflib.get_close_matches(key, around, n=1) or there[at : at + 1] or there[-1:]
        return close[0] if close else None


class Plane(Axis):
    """The keys of two dimensions."""

    none = NONE

    def __init__(self, first: Line, second: Line) -> None:
        self.first = first
        self.second = second

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plane) and self.first == other.first and self.second == other.second

    def __hash__(self) -> int:
        return hash((self.first, self.second))

    def place(self, key: str) -> tuple[int, int] | None:
        both = key_text.split(key)
        if both is None:
            return None
        row, column = self.first.place(both[0]), self.second.place(both[1])
        return None if row is None or column is None else (row, column)

    def keys_of(self, content: Grid) -> Iterator[str]:
        ends: dict[Ordinals, list[str]] = {}  # few different columns come again and again, and a full row is long
        for band in content.bands:
            if band.columns not in ends:
                ends[band.columns] = [key_text.join("", key) for key in self.second.keys_of(band.columns)]
            for first in self.first.keys_between(band.start, band.stop):
                begin = key_text.join(first, "")[:-1]
                yield from (begin + end for end in ends[band.columns])

    def collect(self, places: Iterable[tuple[int, int]]) -> Grid:
        return Grid.of(places)

    def without_removed(self, content: Grid) -> Grid:
        rows, columns = self.first.removed(), self.second.removed()
        if not rows and not columns:
            return content
        return content & Grid.product(content.rows() - rows, content.columns() - columns)

    def to_come(self, content: Grid) -> Grid:
        rows, columns = content.rows(), content.columns()
        return Grid.product(rows | self.first.to_come(rows), columns | self.second.to_come(columns)) - content

    def text(self, content: Grid) -> str:
        return ",".join(
            f"{key_text.write_span(self.first.key_at(band.start), self.first.key_at(band.stop - 1))}|{columns}"
            for band in content.bands
            for columns in self.second._spans(band.columns)
        )

    def select(self, text: str, among: Grid) -> Grid:
        if not among and text.strip() in {"*", "*|*"}:
            return among
        rows, columns = among.rows(), among.columns()
        alike: dict[tuple[int, int], list[tuple[int, int]]] = {}  # a text has many items with the same rows
        for first, second in key_text.read_items(text, 2):
            alike.setdefault(self.first.span(first, rows), []).append(self.second.span(second, columns))
        return Grid.union(self._block(Ordinals.span(*run) & rows, runs, among) for run, runs in alike.items())

    def _block(self, rows: Ordinals, runs: list[tuple[int, int]], among: Grid) -> Grid:
        """Those of `among` in the rows and the runs of columns; in each of these there must be one."""
        found = Grid.product(rows, Ordinals.from_runs(runs)) & among
        columns = found.columns()
        for run in (Ordinals.span(*each) for each in runs):
            if not run & columns:
                item = self.text(Grid.product(rows, run & among.columns()))
                raise PartitionError(f"there is no partition in {item}: both parts are there, but not together")
        return found

    def refusal(self, key: str, among: Grid) -> str:
        both = key_text.split(key)
        if both is None:
            return ": a key of two dimensions is FIRST|SECOND"
        for dimension, part, there in ((self.first, both[0], among.rows()), (self.second, both[1], among.columns())):
            place = dimension.place(part)
            if place is None or place not in there:
                return f": {shown(part)} is not among the keys of its dimension{dimension.refusal(part, there)}"
        return ": both of its parts are there, but not together"
