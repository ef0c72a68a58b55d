"""P1: plain asyncio is correct under crash and replay, construct by construct.

Each workflow is run under every schedule (or as many as its limit says), crashed after every single event, replayed and
taken to its end. Every schedule is also held against plain asyncio, which must end alike and make the same calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.core import cases_all  # noqa: F401 - they register
from tests.core.cases import CASES, Case
from tests.core.harness import (
    History,
    World,
    check_crashes,
    ending,
    executions,
    explore,
    groups,
    option_of,
    play,
    seeded,
)
from tests.core.oracle import on_plain_asyncio
from tests.runtime.slices import some

CRASHED = len(some(range(6), of=2))
"""Schedules of a case that are crashed after every event; the others are held against plain asyncio only."""

cases = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


@cases
def test_a_crash_between_any_two_events_changes_nothing(case: Case) -> None:
    for world, history in sampled(case, CRASHED):
        check_crashes(world, history)


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.plain != "never"], ids=lambda case: case.name)
def test_it_means_what_it_means_on_plain_asyncio(case: Case) -> None:
    count = 0
    for world, history in explore(case.world(), limit=case.limit):
        assert_plain(case, world, history)
        count += 1
    if count == case.limit:  # there are more: sample them
        for seed in some(range(20), of=4):
            world = case.world(seeded(seed))
            assert_plain(case, world, play(world))


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.cancels], ids=lambda case: case.name)
def test_cancelled_at_any_point(case: Case) -> None:
    undisturbed = play(case.world(seeded(0)))
    for step in range(len(groups(undisturbed)) - 1):
        world = case.world(seeded(0), cancel_at=(step,))
        history = play(world)
        check_crashes(world, history, boundaries=range(1, len(history) + 1, 1 + len(history) // 8))
        if case.plain != "never":
            assert_plain(case, world, history)


def assert_plain(case: Case, world: World, history: History) -> None:
    plain = on_plain_asyncio(replace(world, widths=[]))
    if case.plain == "sorted" and plain.ending[0] == "completed":
        assert ending(history)[0] == "completed"
        assert sorted(json.loads(ending(history)[1])) == sorted(json.loads(plain.ending[1]))
    else:
        assert ending(history) == plain.ending
    calls = [
        option_of(id_.rpartition("/")[2].partition("#")[0], args or b"") for id_, args in executions(history).items()
    ]
    assert sorted(calls) == plain.calls


def sampled(case: Case, count: int) -> Iterator[tuple[World, History]]:
    """The first and last schedules and some between: seeds find orders that depth first meets late."""
    for index, (world, history) in enumerate(explore(case.world(), limit=count)):
        yield world, history
        if index + 1 == count:
            for seed in range(count):
                other = case.world(seeded(seed))
                yield other, play(other)
