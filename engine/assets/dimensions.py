"""Mappings where a side has two dimensions, and the mapping that is meant when none is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from engine.assets.axes import Plane
from engine.assets.grids import Grid
from engine.assets.key_sets import KeySet
from engine.assets.key_text import shown
from engine.assets.mappings import AllPartitions, Mapping, SameKey, TimeWindow
from engine.assets.ordinals import Ordinals
from engine.assets.partitions import Partitions, Product, Static, Unpartitioned
from engine.assets.time_partitions import TimePartitions
from engine.errors import DefinitionError, PartitionMismatch

_Name = Literal["first", "second"]


@dataclass(frozen=True)
class Dimension(Mapping):
    """Between a product and what has one of its dimensions: each with all that have that part of the key.

    `Dimension("first")` of `Product(regions, days)` upstream: a region from all its days; downstream: days of a region
    from the region. `mapping` leads between the dimension and the other side; without one it is the default.
    """

    name: _Name
    mapping: Mapping | None = None

    def __post_init__(self) -> None:
        if self.name not in ("first", "second"):
            raise DefinitionError(f"Dimension({self.name!r}): a product has the dimensions 'first' and 'second'")

    def upstream(self, keys: KeySet, there: KeySet) -> KeySet:
        if self._is_product_upstream(there, keys):
            part = self._part(there)
            return self._whole(self._inner(part, keys).upstream(keys, part), there)
        part = self._part(keys)
        return self._inner(there, part).upstream(part, there)

    def downstream(self, keys: KeySet, there: KeySet, upstream: KeySet) -> KeySet:
        if self._is_product_upstream(upstream, there):
            part = self._part(keys)
            return self._inner(part, there).downstream(part, there, self._part(upstream))
        part = self._part(there)
        return self._whole(self._inner(keys, part).downstream(keys, part, upstream), there)

    def waiting(self, keys: KeySet, there: KeySet) -> KeySet:
        if self._is_product_upstream(there, keys):
            part = self._part(there)
            return self._inner(part, keys).waiting(keys, part)
        part = self._part(keys)
        return self._whole(self._inner(there, part).waiting(part, there), keys)

    def _is_product_upstream(self, upstream: KeySet, downstream: KeySet) -> bool:
        sides = [isinstance(each.partitions, Product) for each in (upstream, downstream)]
        if sides[0] == sides[1]:
            raise PartitionMismatch(
                f"{self} leads between a product and what is none, "
                f"not from {upstream.partitions} to {downstream.partitions}"
            )
        return sides[0]

    def _inner(self, upstream: KeySet, downstream: KeySet) -> Mapping:
        return self.mapping or default_mapping(upstream.partitions, downstream.partitions)

    def _part(self, keys: KeySet) -> KeySet:
        return _dimension(keys, self.name)

    def _whole(self, part: KeySet, there: KeySet) -> KeySet:
        """All of `there` with those parts."""
        grid = there.grid()
        rows, columns = (part.ordinals(), grid.columns()) if self.name == "first" else (grid.rows(), part.ordinals())
        return there.at(Grid.product(rows, columns))


@dataclass(frozen=True)
class EachDimension(Mapping):
    """Between two products: the first dimensions by one mapping, the second by another; without one by the default."""

    first: Mapping | None = None
    second: Mapping | None = None

    def upstream(self, keys: KeySet, there: KeySet) -> KeySet:
        first, second = self._sides(there, keys)
        return _mapped(
            keys,
            there,
            lambda rows: first.mapping.upstream(first.downstream.at(rows), first.upstream),
            lambda columns: second.mapping.upstream(second.downstream.at(columns), second.upstream),
        )

    def downstream(self, keys: KeySet, there: KeySet, upstream: KeySet) -> KeySet:
        first, second = self._sides(upstream, there)
        return _mapped(
            keys,
            there,
            lambda rows: first.mapping.downstream(first.upstream.at(rows), first.downstream, first.upstream),
            lambda columns: second.mapping.downstream(second.upstream.at(columns), second.downstream, second.upstream),
        )

    def waiting(self, keys: KeySet, there: KeySet) -> KeySet:
        first, second = self._sides(there, keys)
        rows = first.mapping.waiting(first.downstream, first.upstream).ordinals()
        columns = second.mapping.waiting(second.downstream, second.upstream).ordinals()
        grid = keys.grid()
        return keys.at(Grid.product(rows, grid.columns()) | Grid.product(grid.rows(), columns))

    def _sides(self, upstream: KeySet, downstream: KeySet) -> tuple[_Side, _Side]:
        for each in (upstream, downstream):
            if not isinstance(each.partitions, Product):
                raise PartitionMismatch(
                    f"{self} leads between two products, not from {upstream.partitions} to {downstream.partitions}"
                )
        return _side(self.first, "first", upstream, downstream), _side(self.second, "second", upstream, downstream)


class _Side(NamedTuple):
    """One dimension of both sides."""

    mapping: Mapping
    upstream: KeySet
    downstream: KeySet


def _side(mapping: Mapping | None, name: _Name, upstream: KeySet, downstream: KeySet) -> _Side:
    up, down = _dimension(upstream, name), _dimension(downstream, name)
    return _Side(mapping or default_mapping(up.partitions, down.partitions), up, down)


def _dimension(keys: KeySet, name: _Name) -> KeySet:
    """The parts that keys of a product have in one dimension."""
    product, plane, grid = keys.partitions, keys.axis, keys.grid()
    assert isinstance(product, Product)
    assert isinstance(plane, Plane)
    if name == "first":
        return KeySet(product.first, plane.first, grid.rows())
    return KeySet(product.second, plane.second, grid.columns())


def _mapped(
    keys: KeySet, there: KeySet, rows: Callable[[Ordinals], KeySet], columns: Callable[[Ordinals], KeySet]
) -> KeySet:
    """What rows come to, with what their columns come to: all rows with the same columns at once."""
    alike: dict[Ordinals, list[tuple[int, int]]] = {}
    for band in keys.grid().bands:
        alike.setdefault(band.columns, []).append((band.start, band.stop))
    found = (
        Grid.product(rows(Ordinals.from_runs(runs)).ordinals(), columns(some).ordinals())
        for some, runs in alike.items()
    )
    return there.at(Grid.union(found))


def default_mapping(upstream: Partitions, downstream: Partitions) -> Mapping:
    """The mapping that is meant when none is given.

    The same key between definitions that are equal, or whose names are; windows that overlap between partitions by
    time; all partitions from or to what is not partitioned; dimension by dimension where there are two. A
    `PartitionMismatch` names both definitions where none is meant.
    """
    if Unpartitioned() in (upstream, downstream):
        return AllPartitions()
    if upstream == downstream:
        return SameKey()
    if isinstance(upstream, TimePartitions) and isinstance(downstream, TimePartitions):
        return TimeWindow()
    if isinstance(upstream, Static) and isinstance(downstream, Static):
        return _by_name(upstream, downstream)
    if isinstance(upstream, Product) and isinstance(downstream, Product):
        first = default_mapping(upstream.first, downstream.first)
        return EachDimension(first, default_mapping(upstream.second, downstream.second))
    if isinstance(upstream, Product) or isinstance(downstream, Product):
        return _by_dimension(upstream, downstream)
    raise _mismatch(upstream, downstream, "the one goes by other things than the other")


def _by_name(upstream: Static, downstream: Static) -> Mapping:
    names = set(upstream.names)
    missing = [name for name in downstream.names if name not in names]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise _mismatch(upstream, downstream, f"there is no {shown(missing[0])}{more} upstream")
    return SameKey()


def _by_dimension(upstream: Partitions, downstream: Partitions) -> Mapping:
    """By the one dimension that fits the other side."""
    product = upstream if isinstance(upstream, Product) else downstream
    assert isinstance(product, Product)
    fitting: list[_Name] = []
    for name, dimension in (("first", product.first), ("second", product.second)):
        try:
            default_mapping(*((dimension, downstream) if product is upstream else (upstream, dimension)))
        except PartitionMismatch:
            continue
        fitting.append("first" if name == "first" else "second")
    if len(fitting) != 1:
        why = "both dimensions fit the other side" if fitting else "no dimension fits the other side"
        raise _mismatch(upstream, downstream, why)
    return Dimension(fitting[0])


def _mismatch(upstream: Partitions, downstream: Partitions, why: str) -> PartitionMismatch:
    return PartitionMismatch(
        f"no mapping is meant by itself from {upstream} to {downstream}: {why}. "
        "Give one: SameKey, TimeWindow, AllPartitions, LastPartition, Dimension, EachDimension or Custom"
    )
