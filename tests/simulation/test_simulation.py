"""A slice of the simulation, and what shows that it finds something: planted bugs, each found within a few seeds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
import pytest

from tests.runtime.test_canaries import forget_to_write
from tests.simulation.drawing import draw
from tests.simulation.loops import Actor, OutOfBounds, SimulatedLoop
from tests.simulation.oracle import FAILED, ends_of
from tests.simulation.playing import forget, play
from tests.simulation.programs import RACES, kinds_of
from tests.simulation.scenarios import Scenario, scenario_of, text_of
from tests.simulation.trying import report_of, try_these

CHUNKS = range(0, 80, 10)


@pytest.fixture(autouse=True)
def _the_dead_are_collected() -> Iterator[None]:
    yield
    forget()


@pytest.mark.parametrize("first", CHUNKS)
def test_a_slice_of_the_seeds(first: int) -> None:
    tried = try_these(first, CHUNKS.step)
    assert tried.seeds == CHUNKS.step
    assert not tried.found, f"python -m tests.simulation --seed {tried.found[0].seed}: {tried.found[0].broken}"
    assert tried.checks["no acknowledged event lost"] > 100
    assert sum(tried.faults.values()) > 0


def test_a_play_can_be_had_again() -> None:
    for seed in (3, 7):
        scenario = scenario_of(seed)
        assert scenario == scenario_of(seed)
        one, other = play(scenario), play(msgspec.json.decode(msgspec.json.encode(scenario), type=Scenario))
        assert one.trace == other.trace
        assert one.steps > 100


def test_a_failing_seed_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_to_write(monkeypatch)
    text = report_of(scenario_of(0))
    assert "BROKEN: history" in text
    small = text.partition("shrunk to:\n")[2]
    assert "no faults" in small
    assert small.startswith("1 worker(s), order fifo, delays none")
    assert small.count("\nrun r") == 1
    scenario = msgspec.json.decode(small.partition("--scenario '")[2].rpartition("'")[0], type=Scenario)
    assert len(kinds_of(scenario.runs[0].epochs[0])) == 1
    assert any(what == "history" for what, _ in play(scenario).broken)


# -- its parts ---------------------------------------------------------------------------------------------------------


def test_the_loop_keeps_what_asyncio_guarantees_and_permutes_the_rest() -> None:
    seen: list[str] = []

    async def count_up(name: str) -> None:
        for n in range(3):
            seen.append(f"{name}{n}")
            await asyncio.sleep(0)

    orders = set()
    for seed in range(20):
        seen.clear()
        loop = SimulatedLoop(Random(seed))
        tasks = [loop.spawn(Actor(name), count_up(name)) for name in "ab"]
        loop.run_until_complete(asyncio.wait(tasks))
        loop.close()
        for name in "ab":
            assert [each for each in seen if each[0] == name] == [f"{name}{n}" for n in range(3)]
        orders.add(tuple(seen))
    assert len(orders) > 3


def test_the_dead_do_nothing_more_and_the_frozen_do_it_later() -> None:
    loop, seen = SimulatedLoop(Random(0)), []
    dead, frozen = Actor("dead"), Actor("frozen")

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(1)
            seen.append((name, loop.time()))
        finally:
            seen.append((f"{name} is over", loop.time()))

    async def befall() -> None:
        await asyncio.sleep(0.5)
        loop.kill(dead)
        loop.freeze(frozen)
        await asyncio.sleep(4.5)
        loop.thaw(frozen)
        await asyncio.sleep(1)

    for actor in (dead, frozen):
        loop.spawn(actor, work(actor.name))
    loop.run_until_complete(befall())
    assert seen == [("frozen", 5.0), ("frozen is over", 5.0)]
    seen.clear()
    for task in dead.tasks:
        task._log_destroy_pending = False
    loop.close()


def test_who_waits_for_ever_is_told() -> None:
    loop = SimulatedLoop()
    task = loop.create_task(asyncio.Event().wait())
    with pytest.raises(OutOfBounds):
        loop.run_until_complete(task)
    task._log_destroy_pending = False
    loop.close()


@pytest.mark.parametrize(
    ("program", "ends"),
    [
        (["seq", 1, ["ok", 2, 1], ["flaky", 3, 2]], {"[2, 3]"}),
        (["gather_all", 1, ["broken", 2], ["ok", 3, 0]], {'["failed", 3]'}),
        (["except", 1, ["group", 2, ["broken", 3], ["ok", 4, 9]], ["ok", 5, 0]], {'["caught", 5]'}),
        (["deadline", 1, 5, ["ok", 2, 1]], {'"timed out"'}),
        (["timeout", 1, 3, ["ok", 2, 1]], {"2", FAILED}),
        (["first", 1, ["ok", 2, 0], ["broken", 3]], {'["first", 2]', FAILED}),
        (["seq", 1, ["cancel", 2, 1, ["ok", 3, 0]], ["once", 4, 0]], {"[3, 4]", '["cancelled", 4]', FAILED}),
    ],
)
def test_what_a_program_may_result_in(program: Any, ends: set[str]) -> None:
    assert ends_of(program) == ends


def test_the_grammar_draws_everything() -> None:
    chance, drawn = Random(0), Counter[str]()
    for _ in range(300):
        drawn.update(kinds_of(draw(chance, 9)))
    assert RACES <= drawn.keys()
    assert len(drawn) == 41
    assert "run r0: started at" in text_of(scenario_of(1))
