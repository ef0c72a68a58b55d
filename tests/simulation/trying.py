"""Tries seeds, in this process or in several, and says what was found: see the package for the command."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

import msgspec
from msgspec import Struct, field

from tests.simulation.playing import Outcome, forget, play
from tests.simulation.scenarios import Scenario, scenario_of, text_of
from tests.simulation.shrinking import shrunk

__all__ = ["Found", "Tried", "report_of", "try_seeds", "try_these"]

CHUNK = 20


class Found(Struct):
    """A seed that failed."""

    seed: int
    broken: list[tuple[str, str]]


class Tried(Struct):
    """What came of some seeds."""

    seeds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    found: list[Found] = field(default_factory=list)
    seconds: float = 0  # simulated
    steps: int = 0
    commits: int = 0

    def add(self, other: Tried) -> None:
        self.seeds += other.seeds
        self.faults += other.faults
        self.checks += other.checks
        self.found += other.found
        self.seconds += other.seconds
        self.steps += other.steps
        self.commits += other.commits


def try_these(first: int, count: int) -> Tried:
    """Those seeds, here."""
    tried = Tried()
    for seed in range(first, first + count):
        outcome = play(scenario_of(seed))
        tried.add(_one(seed, outcome))
    forget()
    return tried


def _one(seed: int, outcome: Outcome) -> Tried:
    return Tried(
        seeds=1,
        faults=outcome.faults,
        checks=outcome.checks,
        found=[Found(seed, outcome.broken)] if outcome.broken else [],
        seconds=outcome.seconds,
        steps=outcome.steps,
        commits=outcome.commits,
    )


def try_seeds(
    first: int, count: int, *, jobs: int, go_on: Callable[[], bool], progress: Callable[[Tried], object]
) -> Tried:
    """Those seeds, in so many processes, for as long as `go_on` says so."""
    tried = Tried()
    chunks: Iterator[int] = iter(range(first, first + count, CHUNK))
    under_way: set[Future[Any]] = set()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        while True:
            while len(under_way) < 2 * jobs and go_on() and (start := next(chunks, None)) is not None:
                under_way.add(pool.submit(try_these, start, min(CHUNK, first + count - start)))
            if not under_way:
                return tried
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for each in done:
                tried.add(each.result())
            progress(tried)


def report_of(scenario: Scenario, *, small: bool = True) -> str:
    """Plays it and says how it fails; with `small`, makes it as small as it gets, and says how to play that again."""
    outcome = play(scenario)
    lines = [text_of(scenario), *_broken(outcome)]
    if outcome.broken and small:
        what = outcome.broken[0][0]
        least = shrunk(scenario, lambda smaller: any(kind == what for kind, _ in play(smaller).broken))
        again = play(least)
        lines += ["", "shrunk to:", text_of(least), *_broken(again)]
        lines.append(f"again: python -m tests.simulation --scenario '{msgspec.json.encode(least).decode()}'")
    forget()
    return "\n".join(lines)


def _broken(outcome: Outcome) -> list[str]:
    return [f"BROKEN: {what}: {text}" for what, text in outcome.broken] or ["nothing is broken"]
