"""From the partitions of one asset to those of another that it is made from, and back.

A mapping answers for whole sets at once, range by range: which partitions some are made from, which are made from some,
and which of them wait for one that is yet to come. What it answers is a part of a set that is handed in: the partitions
that there are. It knows definitions and key sets, and nothing of assets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from engine.assets.key_sets import KeySet
from engine.assets.key_text import shown
from engine.assets.ordinals import Ordinals
from engine.assets.time_partitions import TimePartitions
from engine.errors import DefinitionError, PartitionError, PartitionMismatch

OFFSET_MAX: Final = 10_000
"""Partitions that a window is moved by at most."""


class Mapping(ABC):
    """How the partitions of a downstream asset are made from those of an upstream one."""

    @abstractmethod
    def upstream(self, keys: KeySet, there: KeySet) -> KeySet:
        """Those of `there`, all partitions of the upstream asset, that `keys` of the downstream one are made from."""

    @abstractmethod
    def downstream(self, keys: KeySet, there: KeySet, upstream: KeySet) -> KeySet:
        """Those of `there`, all of the downstream asset, that are made from `keys` of the upstream one.

        `upstream` are all of the upstream asset.
        """

    def waiting(self, keys: KeySet, there: KeySet) -> KeySet:
        """Those of `keys` of the downstream asset that are made from one, too, whose time has not come.

        `there` are all partitions of the upstream asset that exist; those that its definition never has are not waited
        for.
        """
        return self.downstream(there.to_come(), keys, there)


@dataclass(frozen=True)
class SameKey(Mapping):
    """Each from the one with the same key; one without such a counterpart is made from none."""

    def upstream(self, keys: KeySet, there: KeySet) -> KeySet:
        return _same(keys, there)

    def downstream(self, keys: KeySet, there: KeySet, upstream: KeySet) -> KeySet:  # noqa: ARG002 - keys say it all
        return _same(keys, there)

    def waiting(self, keys: KeySet, there: KeySet) -> KeySet:
        return _same(_same(keys, there.to_come()), keys)


@dataclass(frozen=True)
class TimeWindow(Mapping):
    """Each from all whose windows overlap its own: a day from its hours, a month from its days, a week from its days.

    Both offsets count partitions of the upstream asset: the first that overlaps is moved by `start_offset`, the last
    by `end_offset`. A day from the day before is `TimeWindow(-1, -1)`, from the last seven `TimeWindow(-6)`. Those
    that lie before the start of the upstream partitions, or behind their end, are none. A `DefinitionError` for
    offsets that cannot be.
    """

    start_offset: int = 0
    end_offset: int = 0

    def __post_init__(self) -> None:
        if max(abs(self.start_offset), abs(self.end_offset)) > OFFSET_MAX:
            raise DefinitionError(f"{self}: an offset is at most {OFFSET_MAX} partitions")
        if self.start_offset > self.end_offset:
            raise DefinitionError(f"{self} ends before it starts: start_offset is at most end_offset")

    def upstream(self, keys: KeySet, there: KeySet) -> KeySet:
        down, up = self._by_time(keys, there), self._by_time(there, keys)
        runs = [
            (up.at(down.edges(start)[0]) + self.start_offset, up.at(down.edges(stop - 1)[1] - 1) + self.end_offset + 1)
            for start, stop in keys.ordinals().runs()
        ]
        return there.at(Ordinals.from_runs(runs))

    def downstream(self, keys: KeySet, there: KeySet, upstream: KeySet) -> KeySet:  # noqa: ARG002 - as above
        """Windows tile time, and are in order: a range of one side is a range of the other, in this direction too."""
        up, down = self._by_time(keys, there), self._by_time(there, keys)
        runs = [
            (
                down.at(up.edges(start - self.end_offset)[0]),
                down.at(up.edges(stop - 1 - self.start_offset)[1] - 1) + 1,
            )
            for start, stop in keys.ordinals().runs()
        ]
        return there.at(Ordinals.from_runs(runs))

    def _by_time(self, keys: KeySet, other: KeySet) -> TimePartitions:
        if isinstance(keys.partitions, TimePartitions):
            return keys.partitions
        raise PartitionMismatch(
            f"{self} leads between partitions by time, not between {keys.partitions} and {other.partitions}"
        )


@dataclass(frozen=True)
class AllPartitions(Mapping):
    """Each from all that there are. It waits for none: all that there are is all."""

    def upstream(self, keys: KeySet, there: KeySet) -> KeySet:
        return there if keys else there[:0]

    def downstream(self, keys: KeySet, there: KeySet, upstream: KeySet) -> KeySet:  # noqa: ARG002 - as above
        return there if keys else there[:0]

    def waiting(self, keys: KeySet, there: KeySet) -> KeySet:  # noqa: ARG002 - as above
        return keys[:0]


@dataclass(frozen=True)
class LastPartition(Mapping):
    """Each from the last that there is, whichever that is. It waits for none."""

    def upstream(self, keys: KeySet, there: KeySet) -> KeySet:
        return there[-1:] if keys else there[:0]

    def downstream(self, keys: KeySet, there: KeySet, upstream: KeySet) -> KeySet:
        return there if keys & upstream[-1:] else there[:0]

    def waiting(self, keys: KeySet, there: KeySet) -> KeySet:  # noqa: ARG002 - as above
        return keys[:0]


@dataclass(frozen=True)
class Custom(Mapping):
    """Each from the partitions that a function names: `Custom(lambda day: [day, "all"])`.

    `up` takes a key of the downstream asset and returns those of the upstream one (or one of them); `down`, the other
    way round, spares asking `up` for all partitions. A key that exists never is a `PartitionError`; one that does not
    exist yet is left out. It waits for none.
    """

    up: Callable[[str], Iterable[str]]
    down: Callable[[str], Iterable[str]] | None = None

    def upstream(self, keys: KeySet, there: KeySet) -> KeySet:
        return self._asked(self.up, keys, there)

    def downstream(self, keys: KeySet, there: KeySet, upstream: KeySet) -> KeySet:
        if self.down is not None:
            return self._asked(self.down, keys, there)
        wanted = set(keys)
        found = [key for key in there if not wanted.isdisjoint(self._named(self.up, key, upstream))]
        return there.pick(found)

    def waiting(self, keys: KeySet, there: KeySet) -> KeySet:  # noqa: ARG002 - as above
        return keys[:0]

    def _asked(self, function: Callable[[str], Iterable[str]], keys: KeySet, there: KeySet) -> KeySet:
        found: dict[str, None] = {}
        for key in keys:
            found.update(dict.fromkeys(self._named(function, key, there)))
        return there.read(found).keys

    def _named(self, function: Callable[[str], Iterable[str]], key: str, there: KeySet) -> tuple[str, ...]:
        answer = function(key)
        named = (answer,) if isinstance(answer, str) else tuple(answer)
        for each in named:
            if not isinstance(each, str) or not there.has_place(each):
                what = shown(each) if isinstance(each, str) else repr(each)
                name = getattr(function, "__qualname__", repr(function))
                raise PartitionError(f"{name}({shown(key)}) names {what}, which is no partition of {there.partitions}")
        return named


def _same(keys: KeySet, there: KeySet) -> KeySet:
    """Those of `there` that have the same keys."""
    return there & keys if keys.partitions == there.partitions else there.read(keys).keys
