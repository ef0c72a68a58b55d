"""The tree is RFC 6962's: against its definition, against known roots, and every proof with something changed in it."""

from __future__ import annotations

from hashlib import sha256

import pytest

from engine.audit.merkle import (
    EMPTY_ROOT,
    RangeHashes,
    Tree,
    consistency_holds,
    consistency_ranges,
    inclusion_holds,
    inclusion_ranges,
)

SIZE = 40
LEAVES = [sha256(b"\x00" + bytes([n])).digest() for n in range(SIZE)]

KNOWN = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
"""Roots over the inputs that implementations of Certificate Transparency test with."""
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]


def naive(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"").digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + naive(leaves[:k]) + naive(leaves[k:])).digest()


def tree_of(size: int) -> Tree:
    tree = Tree()
    for leaf in LEAVES[:size]:
        tree.append(leaf)
    return tree


def hashes(ranges: list[tuple[int, int]], size: int) -> list[bytes]:
    found = RangeHashes(ranges)
    for index, leaf in enumerate(LEAVES[:size]):
        found.take(index, leaf)
    return list(found.hashes())


def test_a_path_is_found_while_leaves_pass_by_once_though_the_leaf_is_known_when_it_comes() -> None:
    for size in range(1, SIZE + 1):
        for index in range(size):
            ranges = inclusion_ranges(index, size)
            passed = Tree()
            for leaf in LEAVES[:index]:
                passed.append(leaf)
            found = RangeHashes(ranges, passed)
            for number in range(index, size):
                found.take(number, LEAVES[number])
            assert list(found.hashes()) == hashes(ranges, size)
            assert inclusion_holds(LEAVES[index], index, size, found.hashes(), rooted(size))
    with pytest.raises(ValueError, match=r"\[\(0, 4\)\] are not the perfect trees of 5 leaves"):
        RangeHashes([(0, 4)], Tree(5, LEAVES[:2]))


def rooted(size: int) -> bytes:
    tree = Tree()
    for leaf in LEAVES[:size]:
        tree.append(leaf)
    return tree.root()


@pytest.mark.parametrize("size", KNOWN)
def test_known_roots(size: int) -> None:
    tree = Tree()
    for text in INPUTS[:size]:
        tree.append(sha256(b"\x00" + bytes.fromhex(text)).digest())
    assert tree.root().hex() == KNOWN[size]


def test_the_root_is_that_of_the_definition_and_the_frontier_goes_on_with_it() -> None:
    tree = Tree()
    assert tree.root() == EMPTY_ROOT
    for size in range(1, SIZE + 1):
        tree.append(LEAVES[size - 1])
        assert tree.root() == naive(LEAVES[:size])
        again = Tree(tree.size, tree.frontier)
        assert (again.root(), len(again.frontier)) == (tree.root(), size.bit_count())
        if size < SIZE:
            again.append(LEAVES[size])
            assert again.root() == naive(LEAVES[: size + 1])


@pytest.mark.parametrize(
    ("size", "frontier"), [(1, []), (0, [bytes(32)]), (3, [bytes(32)]), (1, [b"x"]), (-1, [bytes(32)])]
)
def test_what_is_no_frontier(size: int, frontier: list[bytes]) -> None:
    with pytest.raises(ValueError, match="are no frontier of a tree of"):
        Tree(size, frontier)


def test_every_inclusion_proof_holds_and_no_other() -> None:
    for size in range(1, SIZE + 1):
        root = tree_of(size).root()
        for index in range(size):
            path = hashes(inclusion_ranges(index, size), size)
            assert inclusion_holds(LEAVES[index], index, size, path, root)
            assert not inclusion_holds(LEAVES[index], index, size, [*path, LEAVES[0]], root)
            assert not inclusion_holds(LEAVES[index - 1], index, size, path, root) or size == 1
            for other in range(size + 2):
                assert inclusion_holds(LEAVES[index], other, size, path, root) == (other == index)
            for place in range(len(path)):
                assert not inclusion_holds(LEAVES[index], index, size, path[:place] + path[place + 1 :], root)
                changed = [*path[:place], bytes(32), *path[place + 1 :]]
                assert not inclusion_holds(LEAVES[index], index, size, changed, root)
    assert not inclusion_holds(LEAVES[0], -1, 1, [], LEAVES[0])


def test_every_consistency_proof_holds_and_no_other() -> None:
    for second in range(1, SIZE + 1):
        root = tree_of(second).root()
        for first in range(1, second + 1):
            before = tree_of(first).root()
            path = hashes(consistency_ranges(first, second), second)
            assert consistency_holds(first, before, second, root, path)
            assert not consistency_holds(first, before, second, root, [*path, LEAVES[0]])
            assert not consistency_holds(first, bytes(32), second, root, path)
            assert not consistency_holds(first, before, second, bytes(32), path)
            for place in range(len(path)):
                assert not consistency_holds(first, before, second, root, path[:place] + path[place + 1 :])
                changed = [*path[:place], bytes(32), *path[place + 1 :]]
                assert not consistency_holds(first, before, second, root, changed)
            assert first == second or not consistency_holds(second, root, first, before, path)
        assert consistency_holds(0, EMPTY_ROOT, second, root, [])
        assert not consistency_holds(0, root, second, root, [])
