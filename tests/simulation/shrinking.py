"""Makes a failing scenario as small as it gets: parts are left out as long as the same thing is still broken.

Every try is a play of its own, and a play is deterministic, so what is left is what it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace

from tests.simulation.programs import children_of
from tests.simulation.scenarios import Fault, Run, Scenario, count_of

__all__ = ["shrunk"]

TRIES_MAX = 400
PLAIN = {
    "assets": False,
    "burst": None,
    "sweeps": (),
    "tight": None,
    "rate": (5, 1),
    "order": "fifo",
    "delays": "none",
    "skew": 0,
    "cached": 100,
    "concurrency": 100,
    "chunk": 1_000,
}
PLAIN_RUN: dict[str, Any] = {
    "cancel_at": None,
    "terminate_at": None,
    "pause": None,
    "children": None,
    "asks": (),
    "child_asks": (),
    "reads": (),
    "delay": None,
    "key": "",
    "repairs": (),
}
LISTS = frozenset({"seq", "gather", "gather_all", "group", "lock", "first"})


def shrunk(scenario: Scenario, fails: Callable[[Scenario], bool], *, tries: int = TRIES_MAX) -> Scenario:
    """The smallest that still fails, of those that were tried."""
    left = tries
    found = True
    while found and left > 0:
        found = False
        for smaller in _smaller(scenario):
            left -= 1
            if fails(smaller):
                scenario, found = smaller, True
                break
            if left <= 0:
                break
    return scenario


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """The biggest steps first."""
    faults = scenario.faults
    if len(faults) > 2:
        yield replace(scenario, faults=())
        yield replace(scenario, faults=faults[: len(faults) // 2])
        yield replace(scenario, faults=faults[len(faults) // 2 :])
    for number in range(len(scenario.runs)):
        if len(scenario.runs) > 1:
            runs = scenario.runs[:number] + scenario.runs[number + 1 :]
            yield replace(scenario, runs=runs, faults=_without(faults, scenario.workers + number))
    if scenario.workers > 1:
        yield replace(scenario, workers=scenario.workers - 1, faults=_without(faults, scenario.workers - 1))
    for number in range(len(faults)):
        yield replace(scenario, faults=faults[:number] + faults[number + 1 :])
    for field, plain in PLAIN.items():
        if getattr(scenario, field) != plain:
            yield replace(scenario, **{field: plain})
    for number, run in enumerate(scenario.runs):
        for smaller in _smaller_runs(run):
            yield replace(scenario, runs=(*scenario.runs[:number], smaller, *scenario.runs[number + 1 :]))


def _without(faults: tuple[Fault, ...], slot: int) -> tuple[Fault, ...]:
    """Those of a scenario that lacks a slot."""
    return tuple(replace(f, slot=f.slot - (f.slot > slot)) for f in faults if f.slot != slot)


def _smaller_runs(run: Run) -> Iterator[Run]:
    for field, plain in PLAIN_RUN.items():
        if getattr(run, field) != plain:
            yield replace(run, **{field: plain})
    if len(run.asks) > 1:
        for number in range(len(run.asks)):
            yield replace(run, asks=run.asks[:number] + run.asks[number + 1 :])
    for number, program in enumerate(run.epochs):
        before, behind = run.epochs[:number], run.epochs[number + 1 :]
        if before or behind:
            yield _with(run, before + behind)
        for smaller in _smaller_programs(program):
            yield _with(run, (*before, smaller, *behind))


def _with(run: Run, epochs: tuple[Any, ...]) -> Run:
    signals, takes = count_of("receive", epochs), count_of("take", epochs)
    return replace(run, epochs=epochs, signals=run.signals[:signals], takes=run.takes[:takes])


def _smaller_programs(program: Any) -> Iterator[Any]:
    children = children_of(program)
    yield from children
    head = [part for part in program if not isinstance(part, list)]
    if program[0] in LISTS and len(children) > 1:
        for number in range(len(children)):
            yield [*head, *children[:number], *children[number + 1 :]]
    for number, child in enumerate(children):
        for smaller in _smaller_programs(child):
            yield [*head, *children[:number], smaller, *children[number + 1 :]]
