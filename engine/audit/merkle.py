"""The Merkle tree of RFC 6962 over digests that are leaf hashes already, and proofs about it. Pure.

A tree is kept as its **frontier**: the roots of the perfect trees that its size, written in binary, is made of. That is
all that is needed to add a leaf and to know the root, so a tree over a million leaves is twenty hashes at most, and one
that was put away can be gone on with.

Sources: RFC 6962 section 2.1 (the tree, paths, consistency); RFC 9162 sections 2.1.3.2 and 2.1.4.2 (how both are
checked).
This module does not know what a leaf stands for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final, TypeAlias

__all__ = [
    "EMPTY_ROOT",
    "RangeHashes",
    "Tree",
    "consistency_holds",
    "consistency_ranges",
    "inclusion_holds",
    "inclusion_ranges",
]

EMPTY_ROOT: Final = sha256(b"").digest()
"""The root of a tree without leaves."""
_NODE: Final = b"\x01"

Range: TypeAlias = tuple[int, int]
"""Leaves from the first number up to, and without, the second."""


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"".join((_NODE, left, right))).digest()


class Tree:
    """A tree as its frontier. Raises `ValueError` for a frontier that is none of that size."""

    __slots__ = ("_nodes", "size")

    def __init__(self, size: int = 0, frontier: Iterable[bytes] = ()) -> None:
        self.size = size
        self._nodes = list(frontier)
        if size < 0 or len(self._nodes) != size.bit_count() or any(len(each) != 32 for each in self._nodes):
            raise ValueError(f"{len(self._nodes)} hashes are no frontier of a tree of {size} leaves")

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash, 32 bytes."""
        nodes, full = self._nodes, self.size
        while full & 1:
            leaf = _node(nodes.pop(), leaf)
            full >>= 1
        nodes.append(leaf)
        self.size += 1

    @property
    def frontier(self) -> tuple[bytes, ...]:
        """The roots of its perfect trees, the largest first."""
        return tuple(self._nodes)

    def root(self) -> bytes:
        """The root hash, 32 bytes."""
        if not self._nodes:
            return EMPTY_ROOT
        *others, root = self._nodes
        for left in reversed(others):
            root = _node(left, root)
        return root


class RangeHashes:
    """The roots of some ranges of leaves, found while all leaves pass by once. The ranges do not overlap.

    `passed`: the tree over leaves that have passed by already; ranges in it must be the perfect trees that it is made
    of, as those of an audit path are that lie before its leaf. Raises `ValueError` for others.
    """

    def __init__(self, ranges: Sequence[Range], passed: Tree | None = None) -> None:
        passed = passed or Tree()
        before = sorted(each for each in ranges if each[0] < passed.size)
        if before != _perfect(passed.size):
            raise ValueError(f"{before} are not the perfect trees of {passed.size} leaves")
        self._wanted: Final = tuple(ranges)
        self._waiting = sorted(set(ranges) - set(before), reverse=True)
        self._found: dict[Range, bytes] = dict(zip(before, passed.frontier, strict=True))
        self._tree = Tree()

    def take(self, index: int, leaf: bytes) -> None:
        """The next leaf hash; indexes rise by one."""
        if not self._waiting:
            return
        start, end = self._waiting[-1]
        if index < start:
            return
        self._tree.append(leaf)
        if index == end - 1:
            self._found[self._waiting.pop()] = self._tree.root()
            self._tree = Tree()

    def hashes(self) -> tuple[bytes, ...]:
        """The roots, in the order in which the ranges were given, once every leaf of theirs has passed."""
        return tuple(self._found[each] for each in self._wanted)


def _perfect(size: int) -> list[Range]:
    """The perfect trees that a tree of that size is made of, in order."""
    found, start = [], 0
    for bit in range(size.bit_length() - 1, -1, -1):
        if size >> bit & 1:
            found.append((start, start + (1 << bit)))
            start += 1 << bit
    return found


def _split(length: int) -> int:
    """The largest power of two below the length, which is 2 or more."""
    return 1 << (length - 1).bit_length() - 1


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The ranges whose roots prove that a leaf is in a tree of that size, in the order of RFC 6962's audit path."""
    start, end, found = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((start, middle))
            start = middle
    return found[::-1]


def consistency_ranges(first: int, second: int) -> list[Range]:
    """The ranges whose roots prove that a tree begins with the leaves of an earlier one; 0 < first <= second."""
    start, end, wanted, whole, found = 0, second, first, True, []
    while wanted != end - start:
        middle = _split(end - start)
        if wanted <= middle:
            found.append((start + middle, end))
            end = start + middle
        else:
            found.append((start, start + middle))
            start, wanted, whole = start + middle, wanted - middle, False
    if not whole:
        found.append((start, end))
    return found[::-1]


def inclusion_holds(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether the path leads from the leaf at that index to the root of the tree of that size."""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = _node(sibling, found)
            at, last = _up_to_a_left(at, last)
        else:
            found = _node(found, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def consistency_holds(first: int, first_root: bytes, second: int, second_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the path proves that the first tree is the beginning of the second."""
    if first == second:
        return not path and first_root == second_root
    if first == 0:
        return not path and first_root == EMPTY_ROOT  # what has no leaves is the beginning of everything
    if not 0 < first < second:
        return False
    nodes = [first_root, *path] if first.bit_count() == 1 else list(path)
    if not nodes:
        return False
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = _node(node, old), _node(node, new)
            at, last = _up_to_a_left(at, last)
        else:
            new = _node(new, node)
        at, last = at >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root


def _up_to_a_left(at: int, last: int) -> tuple[int, int]:
    """Past the levels where the node is the last and has no sibling."""
    while at and not at & 1:
        at, last = at >> 1, last >> 1
    return at, last
