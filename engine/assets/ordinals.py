"""A set of ordinals, kept as few ranges or as one bitmap: what a key set is made of.

A set of up to `RANGES_MAX` ranges is its boundaries, whatever the number of ordinals in it; one that is more broken is
one integer, a bit for each ordinal, so that algebra is done by the machine and not by a loop. Each set has exactly one
form, which makes equality cheap. It knows nothing of keys.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Final

RANGES_MAX: Final = 32
"""Ranges of a set that is kept as ranges."""

_ONES: Final = re.compile("1+")


class Ordinals:
    """An immutable set of whole numbers from 0 on."""

    __slots__ = ("_bits", "_bytes", "_edges")

    _edges: tuple[int, ...] | None  # first, behind the last, first, behind the last, ...: strictly increasing
    _bits: int  # when there are no edges
    _bytes: bytes | None  # the same, made when somebody asks for single ordinals

    def __init__(self, edges: tuple[int, ...] | None, bits: int = 0) -> None:
        """Not called from elsewhere: `span`, `of` and `from_runs` keep to the one form."""
        self._edges, self._bits, self._bytes = edges, bits, None

    @staticmethod
    def span(start: int, stop: int) -> Ordinals:
        """All from `start` up to, not including, `stop`; what lies below 0 is left out."""
        start = max(start, 0)
        return Ordinals((start, stop)) if start < stop else EMPTY

    @staticmethod
    def of(ordinals: Iterable[int]) -> Ordinals:
        """Those ordinals, in any order, repeated or not."""
        bits = bytearray()
        for ordinal in ordinals:
            place = ordinal >> 3
            if place >= len(bits):
                bits.extend(bytes(place + 1 - len(bits) + (len(bits) >> 1)))
            bits[place] |= 1 << (ordinal & 7)
        return _from_bits(int.from_bytes(bits, "little"))

    @staticmethod
    def from_runs(runs: Iterable[tuple[int, int]]) -> Ordinals:
        """The union of `(start, stop)`, in any order; they may overlap, be empty, or begin below 0 (where none is)."""
        edges: list[int] = []
        for start, stop in sorted((max(start, 0), stop) for start, stop in runs):
            if start >= stop:
                continue
            if edges and start <= edges[-1]:
                edges[-1] = max(edges[-1], stop)
            else:
                edges += (start, stop)
        if len(edges) <= 2 * RANGES_MAX:
            return Ordinals(tuple(edges))
        digits = bytearray(b"0" * edges[-1])
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            digits[start:stop] = b"1" * (stop - start)
        return Ordinals(None, int(digits[::-1], 2))

    def runs(self) -> Iterator[tuple[int, int]]:
        """Its ranges as `(start, stop)`, in order, none touching the next."""
        if self._edges is not None:
            return zip(self._edges[::2], self._edges[1::2], strict=True)
        return (found.span() for found in _ONES.finditer(_digits(self._bits)))

    @property
    def stop(self) -> int:
        """One more than the last of them; 0 of an empty set."""
        return self._bits.bit_length() if self._edges is None else self._edges[-1] if self._edges else 0

    def __or__(self, other: Ordinals) -> Ordinals:
        if self._edges is not None and other._edges is not None:
            return _from_edges(_swept(self._edges, other._edges, lambda one, two: one or two))
        return _from_bits(self._as_bits() | other._as_bits())

    def __and__(self, other: Ordinals) -> Ordinals:
        if self._edges is not None and other._edges is not None:
            return _from_edges(_swept(self._edges, other._edges, lambda one, two: one and two))
        return _from_bits(self._as_bits() & other._as_bits())

    def __sub__(self, other: Ordinals) -> Ordinals:
        if not (self and other):  # planning takes nothing away ten times as often as something
            return self
        if self._edges is not None and other._edges is not None:
            return _from_edges(_swept(self._edges, other._edges, lambda one, two: one and not two))
        return _from_bits(self._as_bits() & ~other._as_bits())

    def __iter__(self) -> Iterator[int]:
        return (ordinal for start, stop in self.runs() for ordinal in range(start, stop))

    def __len__(self) -> int:
        if self._edges is not None:
            return sum(self._edges[1::2]) - sum(self._edges[::2])
        return self._bits.bit_count()

    def __bool__(self) -> bool:
        return bool(self._edges) or self._bits != 0

    def __contains__(self, ordinal: int) -> bool:
        if self._edges is not None:
            return bisect_right(self._edges, ordinal) % 2 == 1
        if self._bytes is None:
            self._bytes = self._bits.to_bytes((self._bits.bit_length() + 7) // 8, "little")
        place = ordinal >> 3
        return 0 <= place < len(self._bytes) and bool(self._bytes[place] >> (ordinal & 7) & 1)

    def cut(self, start: int, stop: int) -> Ordinals:
        """Those that stand at the places `start` up to, not including, `stop`, counted from 0 in order."""
        found, passed = [], 0
        for first, behind in self.runs():
            if passed >= stop:
                break
            low, high = max(start - passed, 0), min(stop - passed, behind - first)
            if low < high:
                found.append((first + low, first + high))
            passed += behind - first
        return Ordinals.from_runs(found)

    def closest(self, ordinal: int) -> int | None:
        """The one of them that is nearest to `ordinal`; of two the lower; None of an empty set."""
        near = (min(max(ordinal, start), stop - 1) for start, stop in self.runs())
        return min(near, key=lambda each: abs(each - ordinal), default=None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ordinals):
            return NotImplemented
        return self._edges == other._edges and self._bits == other._bits

    def __hash__(self) -> int:
        return hash((self._edges, self._bits))

    def __repr__(self) -> str:
        return f"Ordinals({', '.join(f'{start}..{stop - 1}' for start, stop in self.runs())})"

    def _as_bits(self) -> int:
        if self._edges is None:
            return self._bits
        bits = 0
        for start, stop in zip(self._edges[::2], self._edges[1::2], strict=True):
            bits |= (1 << stop) - (1 << start)
        return bits


EMPTY: Final = Ordinals(())


def _swept(one: tuple[int, ...], two: tuple[int, ...], keep: Callable[[bool, bool], bool]) -> list[int]:
    """The edges of what is kept: behind an odd number of edges of a set one is in it."""
    edges: list[int] = []
    at_one = at_two = 0
    within = False
    while at_one < len(one) or at_two < len(two):
        heads = one[at_one : at_one + 1] + two[at_two : at_two + 1]
        edge = min(heads)
        at_one += at_one < len(one) and one[at_one] == edge
        at_two += at_two < len(two) and two[at_two] == edge
        if keep(at_one % 2 == 1, at_two % 2 == 1) != within:
            edges.append(edge)
            within = not within
    return edges


def _from_edges(edges: list[int]) -> Ordinals:
    if len(edges) <= 2 * RANGES_MAX:
        return Ordinals(tuple(edges))
    return Ordinals.from_runs(zip(edges[::2], edges[1::2], strict=True))


def _from_bits(bits: int) -> Ordinals:
    """The one form of that set: a run begins at a bit that has none below it."""
    if (bits & ~(bits << 1)).bit_count() > RANGES_MAX:
        return Ordinals(None, bits)
    digits = _digits(bits)
    return Ordinals(tuple(edge for found in _ONES.finditer(digits) for edge in found.span()))


def _digits(bits: int) -> str:
    """Bit after bit as text, from the lowest on."""
    return bin(bits)[:1:-1]
