"""Sets of ordinals, and of pairs of them, against Python's sets: in both forms, and with exactly one form for each set."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.assets.grids import NONE, Grid
from engine.assets.ordinals import EMPTY, RANGES_MAX, Ordinals

few = st.lists(st.tuples(st.integers(-3, 300), st.integers(-3, 300)), max_size=5)
many = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 4)), min_size=30, max_size=90).map(
    lambda runs: [(start, start + length) for start, length in runs]
)
runs = few | many
pairs = st.sets(st.tuples(st.integers(0, 12), st.integers(0, 90)), max_size=200)
blocks = st.lists(st.tuples(*[st.integers(0, 12)] * 4), max_size=4).map(
    lambda found: {(row, column) for a, b, c, d in found for row in range(a, b) for column in range(c, d)}
)


def members(found: list[tuple[int, int]]) -> set[int]:
    return {each for start, stop in found for each in range(max(start, 0), stop)}


def holds(found: Any, expected: set[Any]) -> None:
    assert list(found) == sorted(expected)
    assert len(found) == len(expected)
    assert bool(found) == bool(expected)


@settings(deadline=None, max_examples=60)
@given(runs, runs)
def test_algebra_of_ordinals(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    one, two = members(first), members(second)
    left, right = Ordinals.from_runs(first), Ordinals.of(two)
    for found, expected in (
        (left, one), (right, two), (left | right, one | two), (left & right, one & two), (left - right, one - two),
        (right - left, two - one),
    ):  # fmt: skip
        holds(found, expected)
        assert found == Ordinals.of(sorted(expected, reverse=True))
        assert hash(found) == hash(Ordinals.of(expected))
        spans = list(found.runs())
        assert all(a[1] < b[0] for a, b in zip(spans, spans[1:]))
        assert (found._edges is None) == (len(spans) > RANGES_MAX)
        assert found.stop == max(expected, default=-1) + 1
        assert {each for each in range(-5, 410) if each in found} == expected
    assert (left == right) == (one == two)
    assert left != one


@settings(deadline=None, max_examples=60)
@given(runs, st.integers(0, 300), st.integers(0, 300))
def test_places_and_neighbours_of_ordinals(found: list[tuple[int, int]], start: int, stop: int) -> None:
    expected = sorted(members(found))
    ordinals = Ordinals.from_runs(found)
    assert list(ordinals.cut(start, stop)) == expected[start:stop]
    closest = min(expected, key=lambda each: abs(each - start), default=None)
    assert ordinals.closest(start) == closest


@settings(deadline=None, max_examples=60)
@given(pairs | blocks, pairs | blocks)
def test_algebra_of_grids(one: set[tuple[int, int]], two: set[tuple[int, int]]) -> None:
    left, right = Grid.of(one), Grid.of(two)
    for found, expected in (
        (left, one), (left | right, one | two), (left & right, one & two), (left - right, one - two),
        (Grid.union([left, right, left - right]), one | two),
    ):  # fmt: skip
        holds(found, expected)
        assert found == Grid.of(sorted(expected, reverse=True))
        assert hash(found) == hash(Grid.of(expected))
        assert {(r, c) for r in range(14) for c in range(92) if (r, c) in found} == expected
        assert set(found.rows()) == {row for row, _ in expected}
        assert set(found.columns()) == {column for _, column in expected}
        for before, after in zip(found.bands, found.bands[1:]):
            assert before.stop < after.start or (before.stop == after.start and before.columns != after.columns)
    assert (left == right) == (one == two)
    assert left != one


@settings(deadline=None, max_examples=60)
@given(pairs | blocks, st.integers(0, 220), st.integers(0, 220))
def test_places_of_grids(expected: set[tuple[int, int]], start: int, stop: int) -> None:
    assert list(Grid.of(expected).cut(start, stop)) == sorted(expected)[start:stop]


@settings(deadline=None, max_examples=60)
@given(few, runs)
def test_a_product_has_all_pairs(rows: list[tuple[int, int]], columns: list[tuple[int, int]]) -> None:
    left, right = Ordinals.from_runs(rows).cut(0, 30), Ordinals.from_runs(columns)
    grid = Grid.product(left, right)
    assert len(grid) == len(left) * len(right)
    assert grid == Grid.of(list(grid))


def test_nothing_is_nothing() -> None:
    assert list(Ordinals.span(5, 5)) == list(Ordinals.span(7, 3)) == list(EMPTY) == []
    assert Ordinals.span(-5, 2) == Ordinals.of([0, 1])
    assert Ordinals.of([]) == EMPTY
    assert EMPTY.closest(3) is None
    assert Grid.union([]) == NONE == Grid.product(EMPTY, Ordinals.span(0, 3))
    assert repr(Ordinals.of([1, 2, 5])) == "Ordinals(1..2, 5..5)"
    assert repr(Grid.of([(0, 1), (1, 1)])) == "Grid(0..1: Ordinals(1..1))"


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_million_that_are_broken_are_a_bit_each(step: int) -> None:
    some = Ordinals.of(range(0, 1_000_000, step))
    assert len(some) == -(-1_000_000 // step)
    everything = Ordinals.span(0, 1_000_000)
    assert (everything - some) | some == everything
    assert len((everything - some) & some) == 0
