"""`KeySet`: a set of partition keys of one definition, made for 100,000 of them and more.

It is kept as ranges and bitmaps over the ordinals of its definition, never as a list of keys: to plan with all of
eleven years of hours costs what planning with one day does. A set does not change; it is in the order of its
definition. What is recorded of a partition is recorded by its key, never by an ordinal: ordinals mean nothing when the
definition has changed. It knows no clock: which keys there are at a moment is what its definition says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, overload

from engine.assets.axes import Axis, Content
from engine.assets.grids import Grid
from engine.assets.key_text import shown
from engine.assets.ordinals import Ordinals
from engine.errors import PartitionError, PartitionMismatch

if TYPE_CHECKING:
    from engine.assets.partitions import Partitions


class KeySet:
    """An immutable, ordered set of partition keys; `partitions` is the definition that they belong to.

    `|`, `&`, `-`, `^`, `<=`, `==`, `in`, `len` and iteration are those of sets, slices (without a step) those of
    sequences. Sets of two different definitions do not meet: `PartitionMismatch`; a `Mapping` leads from one to the
    other. `str` is its compact text, `2013-01..2013-06,2013-09`, which `parse` of a set that holds it gives back; it
    is what goes into JSON (`msgspec.json.encode(..., enc_hook=str)`). The text of a range is that of a definition as
    it stands: a key that is put between the ends of one later belongs to it.
    """

    __slots__ = ("_content", "axis", "partitions")

    def __init__(self, partitions: Partitions, axis: Axis, content: Content) -> None:
        """Not called by users: `Partitions.keys`, `pick` and `read` make them."""
        self.partitions = partitions
        self.axis = axis
        self._content = content

    # ------------------------------------------------------------------ what is in it

    def parse(self, text: str) -> KeySet:
        r"""Those of this set that the text names: keys, `from..to`, `from..`, `..to`, `*`, with commas between them.

        In two dimensions each item is two of these, `eu..us|2013-01..`. Blanks around items are dropped; a `\` takes
        the character behind it as it is. A `PartitionError` names a key that is not in this set, and the nearest that
        is.
        """
        return self._new(self.axis.select(text, self._content))

    def pick(self, keys: Iterable[str]) -> KeySet:
        """Those keys, each of which must be in this set: else a `PartitionError` names it, and the nearest that is."""
        found = self.read(keys)
        for key in found.unknown:
            raise PartitionError(f"there is no partition {shown(key)}{self.axis.refusal(key, self._content)}")
        return found.keys

    def read(self, keys: Iterable[str]) -> ReadKeys:
        """Keys that were recorded, perhaps under another definition: those that are in this set, and the others."""
        asked = list(keys)
        places = list(map(self.axis.place, asked))
        return _read(asked, places, self)

    def __iter__(self) -> Iterator[str]:
        return self.axis.keys_of(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __contains__(self, key: object) -> bool:
        place = self.axis.place(key) if isinstance(key, str) else None
        return place is not None and place in self._content

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> KeySet: ...
    def __getitem__(self, place: int | slice) -> str | KeySet:
        places = range(len(self))[place]
        if isinstance(places, int):
            return next(self.axis.keys_of(self._content.cut(places, places + 1)))
        if places.step != 1:
            raise ValueError("slices of a key set have no step")
        return self._new(self._content.cut(places.start, places.stop))

    # ------------------------------------------------------------------ algebra

    def __or__(self, other: KeySet) -> KeySet:
        axis, mine, theirs = self._meet(other)
        return KeySet(self.partitions, axis, mine | theirs)

    def __and__(self, other: KeySet) -> KeySet:
        axis, mine, theirs = self._meet(other)
        return KeySet(self.partitions, axis, mine & theirs)

    def __sub__(self, other: KeySet) -> KeySet:
        axis, mine, theirs = self._meet(other)
        return KeySet(self.partitions, axis, mine - theirs)

    def __xor__(self, other: KeySet) -> KeySet:
        axis, mine, theirs = self._meet(other)
        return KeySet(self.partitions, axis, (mine - theirs) | (theirs - mine))

    def __le__(self, other: KeySet) -> bool:
        _, mine, theirs = self._meet(other)
        return not mine - theirs

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeySet):
            return NotImplemented
        if self.partitions != other.partitions or len(self) != len(other):
            return False
        try:
            _, mine, theirs = self._meet(other)
        except PartitionMismatch:  # two lists of dynamic keys, neither of which has all keys of the other
            return False
        return bool(mine == theirs)

    def __hash__(self) -> int:
        ends = (self[0], self[-1]) if self._content else ()
        return hash((self.partitions, len(self), ends))

    def __str__(self) -> str:
        return self.axis.text(self._content)

    def __repr__(self) -> str:
        return f"KeySet({shown(str(self))})"

    # ------------------------------------------------------------------ for mappings

    def ordinals(self) -> Ordinals:
        """Where its keys stand, of one dimension."""
        assert isinstance(self._content, Ordinals)
        return self._content

    def grid(self) -> Grid:
        """Where its keys stand, of two dimensions."""
        assert isinstance(self._content, Grid)
        return self._content

    def at(self, places: Ordinals | Grid) -> KeySet:
        """Those of its keys that stand there."""
        return self._new(self._content & places)

    def to_come(self) -> KeySet:
        """What its definition has behind the last of them: of all there are, partitions whose time has not come."""
        return self._new(self.axis.to_come(self._content))

    def has_place(self, key: str) -> bool:
        """Whether it is a key of the definition, in this set or not."""
        return self.axis.place(key) is not None

    def _new(self, content: Content) -> KeySet:
        return KeySet(self.partitions, self.axis, content)

    def _meet(self, other: KeySet) -> tuple[Axis, Content, Content]:
        """An axis that has the keys of both, and both on it."""
        if self.axis is other.axis or self.axis == other.axis:
            return self.axis, self._content, other._content
        if self.partitions != other.partitions:
            raise PartitionMismatch(
                f"keys of {self.partitions} and of {other.partitions} do not meet without a mapping"
            )
        # Dynamic keys, of two lists that may have them in another order.
        if (theirs := _moved(other, self.axis)) is not None:
            return self.axis, self._content, theirs
        if (mine := _moved(self, other.axis)) is not None:
            return other.axis, mine, other._content
        raise PartitionMismatch(f"two lists of the keys of {self.partitions}, each with keys that the other has not")


class ReadKeys(NamedTuple):
    """What recorded keys came to: those that there are, and those that nobody knows any more, in the order given."""

    keys: KeySet
    unknown: tuple[str, ...]


def _read(asked: list[str], places: list[object], among: KeySet) -> ReadKeys:
    content = among._content
    there = [place is not None and place in content for place in places]
    keys = among._new(among.axis.collect(place for place, known in zip(places, there, strict=True) if known))
    return ReadKeys(keys, tuple(key for key, known in zip(asked, there, strict=True) if not known))


def _moved(keys: KeySet, axis: Axis) -> Content | None:
    """The same keys on another axis of the same definition; None when it has not all of them."""
    places = [axis.place(key) for key in keys]
    return None if None in places else axis.collect(places)
