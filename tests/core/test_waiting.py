"""Runs that are recorded before they begin: they are what they would be without that, but for when their time starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from engine.core.events import (
    CancelRequested,
    RunBegun,
    RunCancelled,
    RunPaused,
    RunQueued,
    RunStarted,
    RunTerminated,
    RunUnpaused,
    SignalReceived,
    TaskCompleted,
)
from engine.core.fold import RunState
from engine.core.instance import Instance
from engine.core.replay import Replayer
from engine.errors import ArgumentsError, HistoryError
from tests.core import cases_all  # noqa: F401 - they register
from tests.core.cases import CASES, Case
from tests.core.harness import RUN_ID, SEED, START, check_crashes, groups, play, rebuild, seeded

cases = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
HOUR = 3_600


@cases
def test_it_decides_what_it_would_decide_without_waiting(case: Case) -> None:
    world = case.world(seeded(3))
    at_once, later = groups(play(world)), groups(play(replace(case.world(seeded(3)), waits=HOUR)))
    recorded, begun, *rest = later
    assert isinstance(recorded.fact.event, RunStarted)
    assert (recorded.fact.event.at, recorded.decisions) == (START - HOUR * 1_000_000, {})
    assert isinstance(begun.fact.event, RunBegun)
    assert without_sites(begun.decisions) == without_sites(at_once[0].decisions)
    assert [(group.fact, without_sites(group.decisions)) for group in rest] == [
        (group.fact, without_sites(group.decisions)) for group in at_once[1:]
    ]


def without_sites(decisions: dict[str, Any]) -> dict[str, Any]:
    """Tracebacks and sites are of how the code was reached."""
    return {
        id_: (
            structs.replace(entry.event, site=""),
            entry.payload if b"traceback" not in (entry.payload or b"") else b"",
        )
        for id_, entry in decisions.items()
    }


@cases
def test_a_crash_between_any_two_of_its_events_changes_nothing(case: Case) -> None:
    world = replace(case.world(seeded(5)), waits=HOUR)
    history = play(world)
    check_crashes(world, history, boundaries=[1, 2, 3, *range(4, len(history) + 1, 7)])


# -- before it begins -----------------------------------------------------------------------------------------------------


def waiting(name: str = "signal_in_order", arguments: bytes = b"{}", **more: Any) -> Instance:
    instance = Instance(CASES[name].definition, RUN_ID, tables=None)
    fact = RunStarted(at=START, workflow=name, seed=SEED, waits=True, **more)
    assert instance.deliver(fact, arguments) == []
    assert instance.waiting is not None
    return instance


def test_its_code_does_not_run_and_no_time_passes_for_it() -> None:
    instance = waiting(begins_at=START + 5)
    assert instance.clocks.next_deadline() == START + 5
    assert instance.clocks.take_due(START + 4) == []
    assert instance.clocks.take_due(START + 5) == [RunBegun(at=START + 5)]
    with pytest.raises(HistoryError, match="has no RunBegun yet"):
        _ = instance.now
    instance.deliver(RunBegun(at=START + 7))
    assert (instance.waiting, instance.now, instance.loop.time()) == (None, START + 7, 0.0)
    assert instance.clocks.take_due(START + 60) == []
    instance.evict()


def test_signals_are_kept_and_a_cancellation_ends_it() -> None:
    instance = waiting()
    for n, carried in enumerate((True, False)):
        signal = SignalReceived(at=START + n, id=f"m-{n}", name="item", carried=carried)
        assert instance.deliver(signal, b"1") == []
    assert instance.inbox.waiting("item") == 2
    assert instance.inbox.carried == {"m-0"}
    (decided,) = instance.deliver(CancelRequested(at=START + 9, reason="enough"))
    assert decided.event == RunCancelled(at=START + 9, reason="enough")
    assert (instance.outcome, instance.over, instance.waiting) == (decided.event, True, None)
    with pytest.raises(HistoryError, match="has ended"):
        instance.deliver(RunBegun(at=START + 10))
    instance.evict()


@pytest.mark.parametrize("fact", [TaskCompleted(at=START, id="x"), RunStarted(at=START, workflow="w", seed=SEED)])
def test_nothing_else_reaches_it(fact: Any) -> None:
    instance = waiting()
    with pytest.raises(HistoryError, match="has not begun"):
        instance.deliver(fact, b"{}")


def test_a_run_begins_once_and_only_if_it_waited() -> None:
    instance = waiting()
    instance.deliver(RunBegun(at=START))
    with pytest.raises(HistoryError, match="has not been waiting"):
        instance.deliver(RunBegun(at=START))
    instance.evict()
    with pytest.raises(HistoryError, match="has not been waiting"):
        Instance(CASES["signal_in_order"].definition, RUN_ID, tables=None).deliver(RunBegun(at=START))


def test_arguments_that_do_not_fit_are_found_before_it_begins() -> None:
    with pytest.raises(ArgumentsError):
        waiting(arguments=b"[")


def test_a_history_that_ends_before_it_begins_is_rebuilt_and_goes_on() -> None:
    world = replace(CASES["signal_in_timeouts"].world(seeded(1)), waits=HOUR)
    history = play(world)
    replayer, _ = rebuild(world, history[:1])
    assert replayer.instance.waiting is not None
    assert replayer.finish() == []
    replayer.instance.evict()
    begun, recorder = rebuild(world, history[:2])  # the decisions behind it are missing: they are made again
    assert recorder.history == history[: len(recorder.history)]
    assert len(recorder.history) > 2
    begun.instance.evict()


def test_old_histories_begin_with_their_start() -> None:
    replayer = Replayer(CASES["signal_in_order"].definition, RUN_ID, versions=None, tables=None)
    replayer.feed(1, RunStarted(at=START, workflow="signal_in_order", seed=SEED), b"{}")
    replayer.finish()
    assert (replayer.instance.waiting, replayer.instance.now) == (None, START)
    replayer.instance.evict()


# -- the fold -------------------------------------------------------------------------------------------------------------


def test_the_fold_tells_what_it_waits_for_and_when_it_began() -> None:
    state = RunState(run_id=RUN_ID)
    seen = []
    for version, event in enumerate(
        (
            RunStarted(at=START, workflow="w", seed=SEED, waits=True, begins_at=START + 9, singleton="k"),
            RunQueued(at=START, key="k", behind="other"),
            RunPaused(at=START + 1),
            RunUnpaused(at=START + 2),
            RunBegun(at=START + 9),
            RunPaused(at=START + 10),
            RunUnpaused(at=START + 11),
        ),
        1,
    ):
        state.apply(version, event, None)
        seen.append(state.status)
    assert seen == ["queued", "queued", "paused", "queued", "running", "paused", "running"]
    assert (state.started_at, state.begun_at, state.begins_at) == (START, START + 9, START + 9)
    assert (state.singleton, state.queued_behind, state.waits) == ("k", "other", False)
    ended = RunState(run_id=RUN_ID)
    ended.apply(1, RunStarted(at=START, workflow="w", seed=SEED, waits=True), b"{}")
    ended.apply(2, RunTerminated(at=START + 1), None)
    assert (ended.status, ended.begun_at) == ("terminated", 0)
    at_once = RunState(run_id=RUN_ID)
    at_once.apply(1, RunStarted(at=START, workflow="w", seed=SEED), b"{}")
    assert (at_once.status, at_once.begun_at) == ("running", START)
