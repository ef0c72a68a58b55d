"""What the new words decide and answer, exactly: each in a scripted world, without a store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from engine import Request, Signal, durable, workflow
from engine.core.events import (
    CancelRequested,
    ChildCancelled,
    ChildStarted,
    ChildTerminated,
    ContinuedAsNew,
    Event,
    FeedPublished,
    MessageSent,
    RequestAnswered,
    RequestFailed,
    RequestReceived,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunStarted,
    SignalReceived,
    StatePublished,
    TaskCancelled,
    TaskScheduled,
    TimerStarted,
)
from engine.core.failures import decode_error
from engine.core.instance import Instance
from engine.core.lineage import idempotency_key
from engine.core.replay import Replayer
from engine.errors import HistoryError
from tests.core import cases_all  # noqa: F401 - they register
from tests.core.cases import CASES, work
from tests.core.cases_words import _small, double, number, stop, word
from tests.core.harness import (
    RUN_ID,
    START,
    History,
    World,
    check_crashes,
    ending,
    first,
    last,
    listed,
    play,
    rebuild,
    request,
    seeded,
    signal,
    started,
)


def of(history: History, *kinds: type[Event]) -> list[Any]:
    return [entry.event for entry in history if isinstance(entry.event, kinds)]


def result(history: History) -> Any:
    status, payload = ending(history)
    assert status == "completed", (status, payload)
    return json.loads(payload)


def preferring(*starts: str) -> Callable[[int, Any], int]:
    """What begins with the first of these, if it can happen, else with the second, ...; else the first there is."""

    def pick(_step: int, options: Any) -> int:
        for start in starts:
            for index, option in enumerate(options):
                if option.startswith(start):
                    return index
        return 0

    return pick


def played(name: str, *starts: str, **more: Any) -> History:
    return play(CASES[name].world(preferring(*starts) if starts else first, **more))


# -- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pick", [first, last, seeded(1), seeded(2)])
def test_signals_of_one_name_come_in_order_and_names_do_not_wait_for_each_other(pick: Any) -> None:
    assert result(play(CASES["signal_in_order"].world(pick))) == ["a", "b", "c"]
    assert result(play(CASES["signal_gather_of_two_names"].world(pick))) == ["a", "b", 1, 2]
    assert result(play(CASES["signal_gather_of_one_name"].world(pick))) == ["a", "b", "c"]


def test_the_first_of_two_signals_is_the_first_that_came() -> None:
    assert result(played("signal_wait_first", "~signal word")) == ["word", "1", "end:0"]
    assert result(played("signal_wait_first", "~signal number")) == ["number", "a", "end:0"]


def test_signals_that_come_early_wait() -> None:
    assert result(played("signal_waits_for_its_receiver", "~signal")) == [3, "a", "b", "c", 0]
    assert result(played("signal_waits_for_its_receiver", "work")) == [0, "a", "b", "c", 0]


@pytest.mark.parametrize("seed", range(12))
def test_no_wait_that_is_given_up_loses_a_signal(seed: int) -> None:
    assert result(play(CASES["signal_in_timeouts"].world(seeded(seed)))) == ["a", "b"]
    *found, left = result(play(CASES["signal_wait_for"].world(seeded(seed))))
    assert [each for each in found if each != "late"] == ["a", "b"][: 2 - int(left)]
    assert result(play(CASES["signal_cancelled_getter_passes_it_on"].world(seeded(seed)))) == ["a", "b", "c"]


def test_a_signal_that_nobody_receives_is_no_obstacle_to_the_end() -> None:
    for pick in (first, last):
        assert result(play(World(_returns(), pick, mail=signal("word", '"a"')))) == "work:0"


@workflow
async def _returns() -> str:
    return await work("work")


def test_a_signal_of_another_type_suspends_and_fixed_code_takes_it() -> None:
    instance = Instance(CASES["signal_in_order"].definition, RUN_ID, tables=None)
    instance.deliver(RunStarted(at=START, workflow="signal_in_order", seed="00"), b"{}")
    with pytest.raises(Exception, match="signal 'word'"):
        instance.deliver(SignalReceived(at=START, id="m", name="word"), b"7")
    instance.evict()


def test_a_timer_is_moved_by_signals() -> None:
    moved = "~signal"
    assert result(played("updatable_timer_by_reschedule", moved)) == ["moved to 30"]
    assert result(played("updatable_timer_by_reschedule", "~timer")) == ["rang"]
    one_then_ring = CASES["updatable_timer_by_reschedule"].world(listed([0, 1]))
    history = play(one_then_ring)
    assert result(history) == ["moved to 30", "rang"]
    deadlines = [event.deadline - START for event in of(history, TimerStarted)]
    assert deadlines[0] == 10_000_000
    assert deadlines[1] == 30_000_000 + 1_000, "from when the signal came"
    assert result(played("updatable_timer_by_an_event", moved)) == ["set", "moved to 30", "moved to 5", "rang"]
    assert result(played("updatable_timer_by_an_event", "~timer")) == ["set", "rang"]


# -- requests ---------------------------------------------------------------------------------------------------------


def test_requests_are_answered_once_each_by_what_their_handler_says() -> None:
    history = played("request_served_in_branches", "double", "~request", "work", "~signal")
    assert {event.request for event in of(history, RequestAnswered)} == {"double-0", "double-1"}
    assert {event.request for event in of(history, RequestFailed)} == {"double-3"}, "the handler raised"
    assert "double-2" not in {event.id for event in of(history, RequestReceived)}, "refused: it leaves no trace"
    payloads = {e.event.request: e.payload for e in history if isinstance(e.event, RequestAnswered)}
    assert payloads == {"double-0": b"2", "double-1": b"4"} or set(payloads) == {"double-0", "double-1"}


def test_leaving_the_block_waits_for_what_is_under_way() -> None:
    world = World(
        _serves_until_stopped(),
        preferring("~request", "~signal"),
        mail=request("double", "1", "2") + signal("stop", "null"),
    )
    history = play(world)
    answered = [n for n, e in enumerate(history) if isinstance(e.event, RequestAnswered)]
    stopped = next(n for n, e in enumerate(history) if isinstance(e.event, SignalReceived))
    assert len(answered) == 2
    assert min(answered) > stopped
    check_crashes(world, history)


async def _slowly(value: int) -> int:
    await work("slow", value)
    return value


@workflow
async def _serves_until_stopped() -> str:
    async with double.serve(_slowly):
        await stop.receive()
    return "left"


def test_leaving_the_block_by_an_exception_answers_what_was_accepted() -> None:
    """Whoever was accepted hears of it: nobody may wait for an answer that will never come."""
    for seed in range(10):
        history = play(CASES["request_left_by_an_exception"].world(seeded(seed)))
        accepted = {event.id for event in of(history, RequestReceived)}
        told = {event.request for event in of(history, RequestAnswered, RequestFailed)}
        assert accepted == told, f"seed {seed}: never answered {accepted - told}"


def test_requests_whose_branch_had_not_begun_when_the_block_was_left_are_answered() -> None:
    world = World(
        _leaves_at_once(0), preferring("~request", "~signal"), mail=request("double", "1", "2") + signal("stop", "null")
    )
    history = play(world)
    carried = {event.id for event in of(history, RequestReceived) if event.carried}
    assert carried == {"double-0", "double-1"}
    assert {event.request for event in of(history, RequestFailed)} == carried
    check_crashes(world, history)


@workflow
async def _leaves_at_once(n: int) -> str:
    if n == 0:
        async with double.serve(_slowly):
            await stop.receive()
            await durable.continue_as_new(_leaves_at_once(1))
    try:
        async with double.serve(_slowly):
            await asyncio.sleep(0)  # the branches are made, and have not begun
            raise KeyError("left")
    except KeyError:
        return await work("after")


def test_validators_run_live_only_and_may_decide_nothing() -> None:
    asked: list[int] = []

    def validator(value: int) -> None:
        asked.append(value)

    @workflow
    async def validates() -> str:
        async with double.serve(_slowly, validator=validator):
            await stop.receive()
        return "done"

    world = World(validates(), preferring("~request"), mail=request("double", "1") + signal("stop", "null"))
    history = play(world)
    assert asked
    asked.clear()
    replayer, _ = rebuild(world, history)
    assert replayer.instance.outcome is not None
    assert asked == [], "a replay asked the validator"


def test_a_refused_argument_and_a_wrong_type_are_told_apart_from_a_name_that_nobody_serves() -> None:
    instance = Instance(CASES["request_served_in_branches"].definition, RUN_ID, tables=None)
    instance.deliver(RunStarted(at=START, workflow="request_served_in_branches", seed="00"), b"{}")
    assert instance.inbox.refusal("double", b"3") is None
    refused = instance.inbox.refusal("double", b"101")
    assert refused is not None
    assert refused != "later"
    assert (refused.type, refused.message) == ("ValueError", "too much")
    mistyped = instance.inbox.refusal("double", b'"three"')
    assert mistyped not in (None, "later")
    assert instance.inbox.refusal("unheard", b"3") == "later"
    instance.evict()


# -- children ---------------------------------------------------------------------------------------------------------


def test_children_have_ids_made_of_their_place() -> None:
    history = played("child_branches")
    runs = [event.run for event in of(history, ChildStarted)]
    assert sorted(runs) == sorted(f"{RUN_ID}/_two_parts~{n}/part#{k}" for n in (1, 2) for k in (1, 2))
    assert len(set(runs)) == 4


def test_children_that_are_left_are_ended_as_their_call_said() -> None:
    history = played("child_signalled_and_left", "send", "~signal")
    assert [event.run for event in of(history, ChildCancelled)] == [f"{RUN_ID}/part#1"]
    assert [event.run for event in of(history, ChildTerminated)] == [f"{RUN_ID}/part#2"]


def test_a_child_that_is_waited_for_is_asked_once_and_decides_the_await() -> None:
    history = played("child_in_a_timeout_that_waits", "~timer")
    assert len(of(history, ChildCancelled)) == 2
    assert result(history) == ["late", "a:0", "after:0"], "the second has completed all the same"
    abandoned = played("child_in_a_timeout_that_abandons", "~timer")
    assert len(of(abandoned, ChildCancelled)) == 2
    assert result(abandoned) == ["late", "late", "after:0"]


def test_failures_of_children_carry_their_cause_up() -> None:
    assert result(played("child_failing_in_a_group", "broken")) == [f"{RUN_ID}/broken~1/broken#1 TaskError"]
    history = played("child_failure_unhandled")
    error = next(e.payload for e in history if isinstance(e.event, RunFailed))
    assert error is not None
    info = decode_error(error)
    assert info.type.endswith("RunFailedError")
    assert info.cause is not None
    assert "Declined: a" in info.cause.message


def test_a_childs_deadline_never_outlasts_its_parents() -> None:
    found = [event.deadline - START for event in of(played("child_with_a_deadline"), ChildStarted)]
    assert found == [5_000_000, 60_000_000, 60_000_000]


# -- what is said to others -------------------------------------------------------------------------------------------


def test_what_is_published_is_decided_with_its_value() -> None:
    history = played("state_and_feed")
    states = [e.payload for e in history if isinstance(e.event, StatePublished)]
    assert states == [b'"loading"', b'"done"', b'"really done"']
    feed = [e.payload for e in history if isinstance(e.event, FeedPublished)]
    assert sorted(feed) == [b'"a:0"', b'"a:1"', b'"b:0"', b'"b:1"']
    replayer, _ = rebuild(CASES["state_and_feed"].world(), history)
    assert replayer.instance.outcome is not None


def test_sends_are_decided_once_and_refusals_are_errors_of_the_sender() -> None:
    history = played("send_in_branches")
    assert [(e.kind, e.run) for e in of(history, MessageSent)] == [
        ("signal", "one"),
        ("signal", "two"),
        ("cancel", "one"),
        ("terminate", "two"),
    ]
    assert result(played("send_refused")) == ["RunNotFound", "RunEnded", "RunEnded", "NoneType"]


# -- deadlines and shields --------------------------------------------------------------------------------------------


def test_the_deadline_of_a_run_fails_it_and_lets_it_clean_up() -> None:
    history = played("deadline_of_the_run", "undo", "work", "~timer")
    status, (type_, message) = ending(history)
    assert (status, type_) == ("failed", "engine.errors.RunDeadlineExceeded")
    assert RUN_ID in message
    assert any(e.task == "undo" for e in of(history, TaskScheduled))
    swallowed = result(played("deadline_caught", "~timer"))
    assert swallowed.startswith("swallowed"), "as with asyncio.timeout, who swallows a cancellation goes on"
    assert result(played("deadline_caught", "~signal")) == "a"


def test_a_cancellation_waits_for_the_outermost_shield() -> None:
    for step in range(5):
        history = play(CASES["shielded_sections"].world(first, cancel_at=(step,)))
        done = [e.payload for e in history if isinstance(e.event, TaskScheduled)]
        assert ending(history)[0] == "cancelled"
        inside = [payload for payload in done if payload and b'"in"' in payload]
        assert len(inside) == 3, f"step {step}: the section was cut off"
        assert not any(payload and b'"out"' in payload for payload in done) or step > 3
        assert any(payload and b"always" in payload for payload in done)


# -- epochs -----------------------------------------------------------------------------------------------------------


def epochs(history: History) -> list[History]:
    parts: list[History] = []
    for entry in history:
        if isinstance(entry.event, RunStarted):
            parts.append([])
        parts[-1].append(entry)
    return parts


def test_each_epoch_is_a_life_of_its_own() -> None:
    history = played("epochs_of_tasks")
    parts = epochs(history)
    starts = of(history, RunStarted)
    assert [event.epoch for event in starts] == [0, 1, 2]
    assert len({event.seed for event in starts}) == 3
    ids = [[event.id for event in of(part, TaskScheduled)] for part in parts]
    assert ids[0] == ids[1] == ids[2] == ["epochs_of_tasks/work#1"], "ids repeat"
    assert len({idempotency_key(RUN_ID, epoch, ids[0][0]) for epoch in range(3)}) == 3, "keys do not"
    found = result(history)
    assert len(set(found[1::3])) == 3, "randomness does not"
    assert found[2::3] == ["2", "2", "2"], "turns are counted from the epoch's start"


@pytest.mark.parametrize("seed", range(20))
def test_no_signal_is_lost_or_doubled_over_epochs(seed: int) -> None:
    assert result(play(CASES["epochs_lose_no_signal"].world(seeded(seed)))) == 12_345
    assert result(play(CASES["epochs_in_a_group"].world(seeded(seed)))) == 123
    assert result(play(CASES["epochs_within_one_deadline"].world(preferring("~signal", "~timer")))) == 123


def test_what_is_carried_on_says_so_and_keeps_its_id() -> None:
    history = played("epochs_lose_no_signal", "~signal")
    carried = [event for event in of(history, SignalReceived) if event.carried]
    assert [event.id for event in carried[:4]] == ["item-1", "item-2", "item-3", "item-4"]
    assert [event.id for event in of(history, SignalReceived) if not event.carried] == [f"item-{n}" for n in range(5)]


def test_what_was_carried_on_waits_before_the_code_begins() -> None:
    found = {result(play(CASES["epochs_that_drain"].world(seeded(seed)))) for seed in range(20)}
    assert found <= {1, 12, 123, 1234}, found
    assert max(found) > 1, "no schedule has carried anything on"
    history = played("epochs_that_drain", "~signal")
    assert result(history) == 1234
    assert [event.carried for event in of(history, RunStarted)] == [0, 3]


def test_left_behind_tasks_and_children_are_ended_with_their_epoch() -> None:
    history = played("epochs_in_a_group", "~signal")
    assert len(of(history, TaskCancelled)) >= 2
    children = played("epochs_of_children", "part epochs_of_children/part#2")
    assert [event.run for event in of(children, ChildStarted)] == [
        f"{RUN_ID}/part#1",
        f"{RUN_ID}/part#2",
        f"{RUN_ID}/part#1@1",
        f"{RUN_ID}/part#2@1",
    ]
    assert [event.run for event in of(children, ChildCancelled)] == [f"{RUN_ID}/part#1"]


@pytest.mark.parametrize("name", ["epochs_while_serving", "epochs_with_a_request_in_hand"])
def test_requests_accepted_and_not_answered_are_carried_on_and_answered_once(name: str) -> None:
    for seed in range(10):
        history = play(CASES[name].world(seeded(seed)))
        accepted = [event.id for event in of(history, RequestReceived) if not event.carried]
        answered = [event.request for event in of(history, RequestAnswered)]
        assert len(answered) == len(set(answered))
        assert len(accepted) == len(set(accepted))
        assert of(history, RequestFailed) == []
        if name == "epochs_while_serving":
            assert set(accepted) == set(answered)


def test_on_the_way_out_durable_calls_are_made_and_recorded() -> None:
    history = played("epochs_clean_up")
    undone = [e.payload for e in history if isinstance(e.event, TaskScheduled) and e.event.task == "undo"]
    assert len(undone) == 6
    assert len(of(history, ContinuedAsNew)) == 2
    assert result(history) == ["end:0"]


def test_a_cancellation_that_a_shield_held_back_is_the_next_epochs() -> None:
    """It was asked for; the run that continues as new is the same run."""
    for step in range(3):
        world = CASES["epochs_shielded"].world(preferring("~signal"), cancel_at=(step,))
        history = play(world)
        assert ending(history)[0] == "cancelled", f"cancelled at step {step}, and nobody heard of it"
        check_crashes(world, history)


def test_arguments_that_do_not_fit_fail_the_run() -> None:
    history = played("epochs_that_do_not_fit")
    status, (type_, message) = ending(history)
    assert (status, type_) == ("failed", "engine.errors.ArgumentsError"), message
    assert of(history, ContinuedAsNew) == []


def test_not_from_a_branch_of_a_gather() -> None:
    assert result(played("epochs_from_a_gather")) == ["end:0"]


def test_an_epoch_cannot_begin_with_facts_of_the_last_one() -> None:
    instance = Instance(CASES["epochs_of_tasks"].definition, RUN_ID, tables=None)
    instance.deliver(*started(CASES["epochs_of_tasks"].world()))
    with pytest.raises(HistoryError):
        instance.deliver(RunStarted(at=START, workflow="epochs_of_tasks", seed="00", epoch=1), b'{"n":1,"seen":[]}')
    instance.evict()


def test_replay_from_an_epochs_start_is_replay_of_all() -> None:
    for name in ("epochs_lose_no_signal", "epochs_of_children", "epochs_while_serving"):
        world = CASES[name].world(seeded(4))
        history = play(world)
        starts = [n for n, e in enumerate(history) if isinstance(e.event, RunStarted)]
        replayer = Replayer(world.definition, RUN_ID, versions=None, tables=None)
        for version, entry in enumerate(history[starts[-1] :], starts[-1] + 1):
            replayer.feed(version, entry.event, entry.payload)
        assert replayer.finish() == []
        assert isinstance(replayer.instance.outcome, RunCompleted | RunCancelled | RunFailed)


def test_only_a_call_of_the_same_workflow_can_be_continued_with() -> None:
    other = CASES["epochs_clean_up"].definition

    @workflow
    async def goes_elsewhere() -> None:
        await durable.continue_as_new(other(1))

    status, (_, message) = ending(play(World(goes_elsewhere())))
    assert status == "failed"
    assert "same workflow" in message


def test_a_branch_that_swallows_the_wish_completes_the_run() -> None:
    @workflow
    async def swallows(n: int) -> str:
        try:
            await durable.continue_as_new(swallows(n + 1))
        except BaseException:
            return await work("stayed", n)

    assert result(play(World(swallows(0)))) == "stayed:0"


def test_cancel_and_continue_in_one_turn() -> None:
    """A cancellation that the workflow answers with continue_as_new is answered: the next epoch is not cancelled."""

    @workflow
    async def begins_again(n: int) -> int:
        if n == 1:
            await work("next")
            return n
        try:
            await work("a")
        except asyncio.CancelledError:
            await durable.continue_as_new(begins_again(1))
        return n

    history = play(World(begins_again(0), cancel_at=(0,)))
    assert result(history) == 1
    assert len(of(history, CancelRequested)) == 1


__all__ = ["Request", "Signal", "_small", "number", "word"]
