"""Draws programs of the grammar that `programs` interprets."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.simulation.programs import RACES

__all__ = ["draw"]

RACES_MAX = 3
"""In one program: each has two or three ends, and all of them are tried on plain asyncio."""


def draw(chance: Random, size: int) -> Any:
    """A program with about so many nodes."""
    return _Drawing(chance).program(size, depth=0)


class _Drawing:
    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.serial = 0
        self.races = 0
        self.serves = 0  # one at most in one run: a request is served in one place
        self.inside = 0  # of children, whom nobody tells anything, but some ask

    def program(self, size: int, depth: int) -> Any:
        self.serial += 1
        n, chance = self.serial, self.chance
        if size <= 1 or depth > 4:
            return self.leaf(n)
        kinds = ["seq"] * 3 + ["gather"] * 3 + ["gather_all", "group", "group", "lock", "within", "shield", "deadline"]
        kinds += ["except", "finally", "child", "child", "spawn", "guide"]
        kinds += ["timeout", "first", "cancel"] if self.races < RACES_MAX else []
        kinds += ["serve"] * 2 if not self.serves else []
        kind = chance.choice(kinds)
        self.races += kind in RACES
        self.serves += kind == "serve"
        rest = max(1, size - 1)
        match kind:
            case "child" | "spawn":
                self.inside, serves, self.serves = self.inside + 1, self.serves, 0
                child = self.program(rest, depth + 1)
                self.inside, self.serves = self.inside - 1, serves
                return [kind, n, chance.choice(["cancel", "cancel", "terminate", "abandon"]), child]
            case "guide":
                return [kind, n, chance.choice(["cancel", "terminate"]), self.guided(rest, depth + 1)]
            case "within" | "shield" | "serve":
                return [kind, n, self.program(rest, depth + 1)]
            case "deadline":
                # What fails in it would end it first: with nothing that fails, it has one end.
                return [kind, n, chance.choice([1, 5]), self.safe(rest)]
            case "timeout" | "cancel":
                return [kind, n, chance.choice([0, 0.5, 3, 20]), self.program(rest, depth + 1)]
            case "except" | "finally":
                return [kind, n, self.program(rest - 1, depth + 1), self.program(1, depth + 1)]
        parts = chance.randint(2, 3)
        return [kind, n, *(self.program(rest // parts, depth + 1) for _ in range(parts))]

    def guided(self, size: int, depth: int) -> Any:
        """The program of a child that is told something now and then: not of one that may be left alone."""
        self.serial += 1
        n, parts = self.serial, list[Any]()
        self.inside, serves, self.serves = self.inside + 1, self.serves, 0
        for _ in range(self.chance.randint(1, 3)):
            self.serial += 1
            parts.append(["receive", self.serial])
            parts.append(self.program(size // 3, depth + 1))
        self.inside, self.serves = self.inside - 1, serves
        return ["seq", n, *parts]

    def safe(self, size: int) -> Any:
        self.serial += 1
        n, chance = self.serial, self.chance
        if size <= 2:
            return [chance.choice(["ok", "charge"]), n, chance.choice([0, 0.5, 4])]
        return [chance.choice(["seq", "gather"]), n, self.safe(1), self.safe(1)]

    def leaf(self, n: int) -> Any:
        chance = self.chance
        kinds = ["ok"] * 4 + [
            "flaky",
            "flaky",
            "sleep",
            "sleep",
            "hangs",
            "pooled",
            "pooled",
            "both",
            "rated",
            "charge",
        ]
        kinds += [
            "publish",
            "publish",
            "mark",
            "beating",
            "kept",
            "fresh",
            "fresh",
            "handed",
            "handed",
            "tell",
            "tell",
            "paid",
            "paid",
        ]
        kinds += ["halt"] if chance.random() < 0.2 else []
        kinds += ["plain", "broken"] + (["raise"] if chance.random() < 0.3 else [])
        kinds += ["take"] if self.inside else ["receive"] * 2 + ["take"]
        kinds += ["once", "outage", "outage"] if self.races < RACES_MAX else []
        kind = chance.choice(kinds)
        self.races += kind in RACES
        match kind:
            case "ok" | "charge" | "once" | "paid":
                return [kind, n, chance.choice([0, 0, 0.3, 2])]
            case "flaky":
                return [kind, n, chance.randint(1, 3)]
            case "kept" | "fresh":
                return [kind, n, chance.randint(0, 1)]
            case "halt":
                return [kind, n, chance.randint(0, 3), chance.choice(["cancel", "terminate"])]
            case "tell":
                return [kind, n, chance.randint(0, 3)]
            case "handed":
                return [kind, n, chance.choice([0, 0.5, 0.5, 8]), chance.random() < 0.8]
            case "sleep":
                return [kind, n, chance.choice([0.1, 1, 7, 40])]
            case "pooled" | "both" | "rated":
                return [kind, n, chance.choice([0, 0.4, 2])]
        return [kind, n]
