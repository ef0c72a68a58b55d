"""What is fuzzed at length by ``python -m tests.fuzz``, in short: every seed, every crasher so far, every hostile shape."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.check import kept, problem
from tests.fuzz.targets import TARGETS, hostile

MUTANTS = 150
HOSTILE = tuple(hostile())


@pytest.mark.parametrize("name", TARGETS)
def test_only_documented_errors_come_out(name: str) -> None:
    seeds = TARGETS[name].seeds
    crashers = [data for _, data in kept(name)]
    wrong = {problem(name, data) for data in (*seeds, *crashers, *HOSTILE, *_mutants(name, seeds))}
    assert wrong == {None}


def _mutants(name: str, seeds: tuple[bytes, ...]) -> list[bytes]:
    chance = random.Random(name)
    found = []
    for _ in range(MUTANTS):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data) + 1)
            data[at : at + chance.randint(0, 3)] = chance.choice(
                (b"", b"\xff", b"[", b'"', b"{", b"0", b"\n", b"-", b"\0")
            )
        found.append(bytes(data))
    return found
