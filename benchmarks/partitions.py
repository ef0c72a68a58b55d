"""What planning with 100,000 partitions costs, against the same with Python's sets of their keys.

Four definitions have about that many: hours of eleven years, fixed names, names that were added, and 273 names by the
days of a year. Planning one is what a planner does: all that exist, less those that are done and whose upstream has
not changed, in parts of a hundred. By hand that is sets and lists of keys, which are made before the clock runs. Done
are all but a few ranges. The ratio is seconds to plan over seconds by hand, all four together. Beside it: the same
when half are done at random, and what it takes to list all keys, to look each one up, and to read them as recorded.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from report import Aim, Option, Report, options, publish, spread

from engine.assets import Daily, Dynamic, DynamicKeys, Hourly, KeySet, Partitions, Product, SameKey, Static

SIZES = (
    Option("partitions", 100_000, "of each definition, or about that many"),
    Option("rounds", 5, "times that each is measured, in turn"),
)
NOW = datetime(2040, 1, 1, tzinfo=UTC)
T = TypeVar("T")
PART = 100
"""Partitions that are handed on together."""


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Planning with many partitions, against sets of their keys.", SIZES, arguments)
    known = DynamicKeys()
    known.add("customers", (f"customer-{number}" for number in range(given.partitions)))
    everything = {name: (each, each.keys(known, now=NOW)) for name, each in definitions(given.partitions).items()}
    rounds = [_measure(everything, known) for _ in range(given.rounds)]
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        return publish(
            given,
            benchmark="partitions",
            question="What does it cost to plan with 100,000 partitions?",
            ratio=[each["plan_milliseconds"] / each["by_hand_milliseconds"] for each in rounds],
            ratio_of="seconds to plan four assets with so many partitions / seconds with sets of their keys",
            aim=Aim(at_most=0.1),
            directory=Path(name),
            measured={
                "partitions_of_each": {name: len(keys) for name, (_, keys) in everything.items()},
                **{key: spread(each[key] for each in rounds) for key in rounds[0]},
            },
        )


def definitions(size: int) -> dict[str, Partitions]:
    """One of each kind, each with about so many partitions; eleven years of hours are nearly 100,000."""
    start = 2024 - max(1, round(size / 8766))
    days = min(365, size)
    return {
        "hourly": Hourly(str(start), "2024", timezone="Europe/Berlin"),
        "static": Static(f"name-{number}" for number in range(size)),
        "dynamic": Dynamic("customers"),
        "product": Product(Static(f"name-{number}" for number in range(max(1, size // days))), Daily("2013", "2014")),
    }


def _measure(everything: dict[str, tuple[Partitions, KeySet]], known: DynamicKeys) -> dict[str, float]:
    found = dict.fromkeys(
        (
            *("plan_milliseconds", "by_hand_milliseconds", "plan_broken_milliseconds", "by_hand_broken_milliseconds"),
            *("list_milliseconds", "look_up_milliseconds", "read_recorded_milliseconds"),
        ),
        0.0,
    )
    for partitions, keys in everything.values():
        texts = list(keys)
        chance = random.Random(1)
        for kind, done in (("", _ranges(texts)), ("_broken", [key for key in texts if chance.random() < 0.5])):
            recorded = keys.pick(done)
            by_hand = set(done)
            planned, seconds = _timed(lambda p=partitions, r=recorded: _plan(p, known, r))
            found[f"plan{kind}_milliseconds"] += seconds
            expected, seconds = _timed(lambda t=texts, d=by_hand: _plan_by_hand(t, d))
            found[f"by_hand{kind}_milliseconds"] += seconds
            assert [len(part) for part in planned] == [len(part) for part in expected]
            assert [str(part[0]) for part in planned] == [part[0] for part in expected]
        found["list_milliseconds"] += _timed(lambda k=keys: list(k))[1]
        found["look_up_milliseconds"] += _timed(lambda k=keys, t=texts: sum(key in k for key in t))[1]
        found["read_recorded_milliseconds"] += _timed(lambda k=keys, t=texts: k.read(t))[1]
    return found


def _ranges(texts: list[str]) -> list[str]:
    """All but three ranges."""
    third = len(texts) // 3
    return [*texts[third // 4 : third], *texts[third + third // 5 : 2 * third], *texts[2 * third + third // 2 :]]


def _plan(partitions: Partitions, known: DynamicKeys, done: KeySet) -> list[KeySet]:
    every = partitions.keys(known, now=NOW)
    changed = SameKey().upstream(every[: len(every) // 10], every)
    stale = every - (done - changed)
    return [stale[start : start + PART] for start in range(0, min(len(stale), 100 * PART), PART)]


def _plan_by_hand(texts: list[str], done: set[str]) -> list[list[str]]:
    """The same with the keys themselves: of all, in order, those that are not done, or whose upstream has changed."""
    every = list(texts)
    changed = set(every[: len(every) // 10])
    valid = done - changed
    stale = [key for key in every if key not in valid]
    return [stale[start : start + PART] for start in range(0, min(len(stale), 100 * PART), PART)]


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
