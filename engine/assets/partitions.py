"""Definitions of partition sets: of what is not partitioned, of names that are fixed, of names that are added, of two.

A definition is a value: it says which keys there are at a moment that is handed in (`now`), and given the names that
were added so far (`known`). It reads no clock and no store. Partitions by time are in `time_partitions`.

What is not partitioned is a set with one element, whose key is the empty text: whoever plans needs no special case.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

from engine.assets import key_text
from engine.assets.axes import Axis, Line, Plane
from engine.assets.grids import Grid
from engine.assets.key_sets import KeySet, ReadKeys
from engine.assets.key_text import KEY_MAX, check_key, shown
from engine.assets.ordinals import EMPTY, Ordinals
from engine.errors import DefinitionError, PartitionError

_SHOWN: Final = 3
"""Names of a list that its `repr` shows."""


class Window(NamedTuple):
    """The time that a partition is about: from `start` up to, not including, `end`.

    Both are aware, with the offset that the clocks of the definition's zone had; differences and comparisons are those
    of real time, so the day on which clocks go back lasts 25 hours.
    """

    start: datetime
    end: datetime

    def __contains__(self, moment: object) -> bool:
        return isinstance(moment, datetime) and self.start <= moment < self.end


class Partitions(ABC):
    """A definition of a partition set. Definitions that say the same are equal, and can be keys of a dict."""

    def keys(self, known: DynamicKeys | None = None, *, now: datetime) -> KeySet:
        """All partitions that exist at `now` (aware, else a ValueError); `known` are the keys of dynamic ones."""
        if now.tzinfo is None:
            raise ValueError("now must be an aware datetime, as datetime.now(UTC) is: without a zone it is no moment")
        return self._at(known, now)

    def defined(self, known: DynamicKeys | None = None) -> KeySet:
        """All partitions that there can ever be, as far as is known: also those whose time has not come."""
        return self._at(known, None)

    def _at(self, known: DynamicKeys | None, now: datetime | None) -> KeySet:
        axis, content = self.there(known, now)
        return KeySet(self, axis, axis.without_removed(content))

    def pick(self, keys: Iterable[str], known: DynamicKeys | None = None) -> KeySet:
        """Those keys. A `PartitionError` names one that the definition does not have."""
        return self.defined(known).pick(keys)

    def read(self, keys: Iterable[str], known: DynamicKeys | None = None) -> ReadKeys:
        """Keys that were recorded, perhaps under another definition: those of this one, and those it has not."""
        return self.defined(known).read(keys)

    def check(self, key: str) -> None:
        """A `PartitionError` says why `key` is none of these, and what would do. Dynamic: any that can be a key."""
        self.pick([key])

    def window(self, key: str) -> Window | None:  # noqa: ARG002 - for those who have one
        """The time that the partition is about; None where that is not what tells it from others."""
        return None

    @abstractmethod
    def there(self, known: DynamicKeys | None, now: datetime | None) -> tuple[Axis, Any]:
        """Where keys stand, and the places that exist at `now`, or, with None, ever. For key sets, not for users."""


class Unpartitioned(Partitions):
    """What is not partitioned: one partition, the whole, whose key is the empty text."""

    def there(self, known: DynamicKeys | None, now: datetime | None) -> tuple[Line, Ordinals]:  # noqa: ARG002 - always
        return _WHOLE, Ordinals.span(0, 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unpartitioned)

    def __hash__(self) -> int:
        return hash(Unpartitioned)

    def __repr__(self) -> str:
        return "Unpartitioned()"


class Static(Partitions):
    """Names that the code fixes, in their order: `Static(["eu", "us"])`.

    A name that is inserted, moved or taken out later makes another definition; what is recorded is found again by key
    (`read`).
    """

    def __init__(self, names: Iterable[str]) -> None:
        """A `DefinitionError` for a name that cannot be a key, one that comes twice, and no names at all."""
        if isinstance(names, str):
            raise DefinitionError(f"Static takes several names, not the characters of one: Static([{names!r}])")
        self._line = _Names(names)

    @property
    def names(self) -> tuple[str, ...]:
        """The keys, in their order."""
        return self._line.names

    def there(self, known: DynamicKeys | None, now: datetime | None) -> tuple[Line, Ordinals]:  # noqa: ARG002 - always
        return self._line, Ordinals.span(0, len(self._line.names))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and self._line == other._line

    def __hash__(self) -> int:
        return hash(self._line)

    def __repr__(self) -> str:
        names = self._line.names
        more = f", ... {len(names)} in all" if len(names) > _SHOWN else ""
        return f"Static([{', '.join(map(shown, names[:_SHOWN]))}{more}])"


class Dynamic(Partitions):
    """Names that are added while everything runs: `Dynamic("customers")`. They are handed in, as `DynamicKeys`."""

    def __init__(self, name: str) -> None:
        """`name` says which of the lists in `DynamicKeys` it is; definitions with one name share one list."""
        try:
            self.name = check_key(name)
        except PartitionError as error:
            raise DefinitionError(
                f"Dynamic needs the name of its list of keys, as in Dynamic('customers'): {error}"
            ) from error

    def check(self, key: str) -> None:
        check_key(key)

    def there(self, known: DynamicKeys | None, now: datetime | None) -> tuple[Line, Ordinals]:  # noqa: ARG002 - always
        if known is None:
            raise PartitionError(f"the keys of {self} are handed in: keys(known, now=...), with a DynamicKeys")
        line = known.line(self.name)
        return line, Ordinals.span(0, len(line))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dynamic) and self.name == other.name

    def __hash__(self) -> int:
        return hash((Dynamic, self.name))

    def __repr__(self) -> str:
        return f"Dynamic({self.name!r})"


class Product(Partitions):
    """All pairs of two others, `Product(Static(["eu", "us"]), Daily("2013-01-01"))`; keys are `first|second`."""

    def __init__(self, first: Partitions, second: Partitions) -> None:
        """A `DefinitionError` for a dimension that has dimensions itself, or none, and for keys that get too long."""
        for dimension in (first, second):
            if isinstance(dimension, Product | Unpartitioned) or not isinstance(dimension, Partitions):
                raise DefinitionError(f"a dimension of a Product is partitioned by time or by names, not {dimension!r}")
        self.first = first
        self.second = second
        longest = [max(map(len, dimension.names)) for dimension in (first, second) if isinstance(dimension, Static)]
        if sum(longest) >= KEY_MAX:
            raise DefinitionError(
                f"keys of {self} get longer than {KEY_MAX} characters: the longest names have {longest}; shorten them"
            )

    def check(self, key: str) -> None:
        parts = key_text.split(check_key(key))
        if parts is None:
            raise PartitionError(
                f"{shown(key)} is no key of {self}: those are FIRST|SECOND, with '\\' before a '|' or '\\' of a part"
            )
        self.first.check(parts[0])
        self.second.check(parts[1])

    def window(self, key: str) -> Window | None:
        """That of the dimension that goes by time, if exactly one does."""
        self.check(key)
        parts = key_text.split(key) or ("", "")
        found = (self.first.window(parts[0]), self.second.window(parts[1]))
        return (found[0] or found[1]) if None in found else None

    def there(self, known: DynamicKeys | None, now: datetime | None) -> tuple[Plane, Grid]:
        (first, rows), (second, columns) = self.first.there(known, now), self.second.there(known, now)
        assert isinstance(first, Line)
        assert isinstance(second, Line)
        return Plane(first, second), Grid.product(rows, columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Product) and (self.first, self.second) == (other.first, other.second)

    def __hash__(self) -> int:
        return hash((Product, self.first, self.second))

    def __repr__(self) -> str:
        return f"Product({self.first}, {self.second})"


class DynamicKeys:
    """The keys that dynamic partitions have now, by the name of their definition: what a catalog builds and hands in.

    Keys are in the order in which they were first added. One that is removed leaves its place empty, and has it again
    when it is added again: sets made before stay what they were.
    """

    def __init__(self) -> None:
        self._lines: dict[str, _Added] = {}

    def add(self, name: str, keys: Iterable[str]) -> None:
        """More keys for `Dynamic(name)`; those that are there already stay. A `PartitionError` adds none of them."""
        self.line(name).add([check_key(key) for key in keys])

    def remove(self, name: str, keys: Iterable[str]) -> None:
        """No longer those keys of `Dynamic(name)`; one that is not there is no error: removing twice is the same."""
        self.line(name).remove(keys)

    def names(self) -> dict[str, tuple[str, ...]]:
        """The keys that there are, by the name of their definition."""
        return {name: line.present() for name, line in self._lines.items()}

    def line(self, name: str) -> _Added:
        """Where the keys of that definition stand. For key sets; not for users."""
        return self._lines.setdefault(name, _Added(name))


class _Whole(Line):
    """The one place of what is not partitioned."""

    def place(self, key: str) -> int | None:
        return None if key else 0

    def key_at(self, ordinal: int) -> str:  # noqa: ARG002 - there is one
        return ""

    def reason(self, key: str) -> str:
        return "it is not partitioned, and its one key is ''" if key else ""


_WHOLE: Final = _Whole()


class _Names(Line):
    """Names that do not change."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names: tuple[str, ...] = tuple(names)
        if not self.names:
            raise DefinitionError("Static needs at least one name; what gets its names later is Dynamic('a name')")
        self._places: dict[str, int] = {}
        for place, name in enumerate(self.names):
            try:
                earlier = self._places.setdefault(check_key(name), place)
            except PartitionError as error:
                raise DefinitionError(f"name {place + 1} of Static: {error}") from error
            if earlier != place:
                raise DefinitionError(f"Static has {shown(name)} twice, as names {earlier + 1} and {place + 1}")
        self._hash: int | None = None

    def place(self, key: str) -> int | None:
        return self._places.get(key)

    def key_at(self, ordinal: int) -> str:
        return self.names[ordinal]

    def keys_between(self, start: int, stop: int) -> Iterable[str]:
        return self.names[start:stop]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Names) and (self is other or self.names == other.names)

    def __hash__(self) -> int:
        if self._hash is None:  # once: it goes through all names
            self._hash = hash(self.names)
        return self._hash


class _Added(Line):
    """Names that come and go; a place, once given to a name, is that name's for good."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._names: list[str] = []
        self._places: dict[str, int] = {}
        self._gone: set[int] = set()
        self._removed: Ordinals | None = EMPTY  # the same; None when it has to be made anew

    def add(self, keys: Iterable[str]) -> None:
        for key in keys:
            place = self._places.setdefault(key, len(self._names))
            if place == len(self._names):
                self._names.append(key)
            elif place in self._gone:
                self._gone.remove(place)
                self._removed = None

    def remove(self, keys: Iterable[str]) -> None:
        for key in keys:
            if (place := self._places.get(key)) is not None:
                self._gone.add(place)
                self._removed = None

    def present(self) -> tuple[str, ...]:
        return tuple(name for place, name in enumerate(self._names) if place not in self._gone)

    def place(self, key: str) -> int | None:
        return self._places.get(key)

    def key_at(self, ordinal: int) -> str:
        return self._names[ordinal]

    def keys_between(self, start: int, stop: int) -> Iterable[str]:
        return self._names[start:stop]

    def removed(self) -> Ordinals:
        if self._removed is None:
            self._removed = Ordinals.of(self._gone)
        return self._removed

    def reason(self, key: str) -> str:
        place = self._places.get(key)
        if place is None:
            return f"it was not added to {self.name!r}"
        return f"it was removed from {self.name!r}" if place in self._gone else ""

    def __len__(self) -> int:
        return len(self._names)
