"""The fold: what it says of a run at each event is what the run's instance knows, and it needs no code."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from engine.core.compare import Diagnosis, Difference, encode_diagnosis
from engine.core.events import (
    AttemptFailed,
    AttemptOutcomeIgnored,
    CancelRequested,
    ChildCancelled,
    ChildCompleted,
    ChildFailed,
    ChildOutcomeIgnored,
    ChildStarted,
    ChildTerminated,
    ContinuedAsNew,
    Event,
    Fact,
    FeedPublished,
    MessageSent,
    RequestAnswered,
    RequestFailed,
    RequestReceived,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunPaused,
    RunResumed,
    RunStarted,
    RunSuspended,
    RunTerminated,
    RunUnpaused,
    SendAccepted,
    SendRejected,
    SignalReceived,
    StatePublished,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskHandedOut,
    TaskScheduled,
    TaskStarted,
    TimerStarted,
)
from engine.core.failures import ErrorInfo, encode_error
from engine.core.fold import FINAL_STATUSES, RunState
from engine.core.instance import Instance
from tests.core import cases_all  # noqa: F401 - they register
from tests.core.cases import CASES, Case
from tests.core.harness import RUN_ID, START, History, play, rebuild, seeded

OPEN = ("scheduled", "running", "retrying")
ROOT = Path(__file__).parents[2]


def boundaries(history: History) -> list[int]:
    """The lengths at which a group is complete."""
    return [n for n in range(1, len(history) + 1) if n == len(history) or isinstance(history[n].event, Fact)]


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_fold_knows_what_the_instance_knows_at_every_event(case: Case) -> None:
    world = case.world(seeded(9))
    history = play(world)
    state, complete = RunState(run_id=RUN_ID), set(boundaries(history))
    for version, entry in enumerate(history, 1):
        state.apply(version, entry.event, entry.payload)
        assert state.version == version
        if version not in complete:
            continue
        replayer, recorder = rebuild(world, history[:version])
        instance = replayer.instance
        assert recorder.history == history[:version], "nothing was missing"
        wanted = {id_ for id_, pending in instance.pending.items() if not pending.asked_to_end}
        waited_for = {id_ for id_, pending in instance.pending.items() if pending.asked_to_end}
        assert {id_ for id_, task in state.tasks.items() if task.status in OPEN} == wanted
        assert all(state.tasks[id_].status == "cancelled" for id_ in waited_for)
        assert state.timers == {id_: timer.deadline for id_, timer in instance.timers.items()}
        assert state.ended == (instance.outcome is not None and not isinstance(instance.outcome, ContinuedAsNew))
        assert_same_words(state, instance, history[:version])
        for id_, pending in instance.pending.items():
            task = state.tasks[id_]
            assert (task.arguments, task.scheduled_at) == (pending.arguments, pending.scheduled_at)
            assert task.name == pending.definition.name
        if instance.outcome is None:
            assert state.updated_at == instance.now
            instance.evict()
    assert state.ended
    assert state.workflow == case.name


def assert_same_words(state: RunState, instance: Instance, history: History) -> None:
    """What the fold says of children, messages and publications, and what the instance and the history say."""
    running = {id_ for id_, child in state.children.items() if child.status == "running" and not child.asked_to_end}
    assert running >= {id_ for id_, child in instance.children.items() if not child.asked_to_end}
    if instance.outcome is None and not instance.untold:
        assert state.epoch == instance.epoch
        assert {id_ for id_, how in state.requests.items() if how == "accepted"} == set(instance.inbox.under_way)
    told = [entry for entry in history if isinstance(entry.event, SignalReceived) and not entry.event.carried]
    assert state.signals == Counter(entry.event.name for entry in told)
    states = {e.event.name: e.payload for e in history if isinstance(e.event, StatePublished)}
    assert state.states == states
    assert state.published == sum(isinstance(entry.event, FeedPublished) for entry in history)


def folded(*events: Event, payloads: dict[type, bytes] | None = None) -> RunState:
    state = RunState(run_id=RUN_ID)
    start = RunStarted(at=START, workflow="w", seed="00")
    for version, event in enumerate([start, *events], 1):
        state.apply(version, event, (payloads or {}).get(type(event)))  # type: ignore[arg-type]
    return state


SCHEDULED = TaskScheduled(at=START, id="w/load#1", site="w.py:3", task="load")
STARTED = TaskStarted(at=START + 1, id="w/load#1", attempt=1, worker="me")
FAILED = AttemptFailed(at=START + 2, id="w/load#1", attempt=1, error="ValueError", retry_at=START + 9)
AGAIN = TaskStarted(at=START + 9, id="w/load#1", attempt=2, worker="me")
ERROR = encode_error(ErrorInfo(type="ValueError", message="bad"))


def test_the_life_of_a_task() -> None:
    def task(*events: Event) -> tuple[object, ...]:
        found = folded(*events, payloads={AttemptFailed: ERROR, TaskFailed: ERROR, TaskCompleted: b"1"}).tasks[
            "w/load#1"
        ]
        return found.status, found.attempts, found.failures, found.retry_at, found.ended_at, found.result, found.error

    error = ErrorInfo(type="ValueError", message="bad")
    assert task(SCHEDULED) == ("scheduled", 0, 0, None, None, None, None)
    assert task(SCHEDULED, STARTED) == ("running", 1, 0, None, None, None, None)
    assert task(SCHEDULED, STARTED, FAILED) == ("retrying", 1, 1, START + 9, None, None, error)
    assert task(SCHEDULED, STARTED, FAILED, AGAIN) == ("running", 2, 1, None, None, None, error)
    done = TaskCompleted(at=START + 20, id="w/load#1", attempt=2)
    assert task(SCHEDULED, STARTED, FAILED, AGAIN, done) == ("completed", 2, 1, None, START + 20, b"1", error)
    final = TaskFailed(at=START + 20, id="w/load#1", error="ValueError", attempt=2)
    assert task(SCHEDULED, STARTED, FAILED, AGAIN, final) == ("failed", 2, 2, None, START + 20, None, error)
    cancelled = TaskCancelled(at=START + 3, id="w/load#1")
    assert task(SCHEDULED, STARTED, cancelled)[0] == "cancelled"
    late = AttemptOutcomeIgnored(at=START + 4, id="w/load#1", attempt=1, outcome="completed")
    assert task(SCHEDULED, STARTED, cancelled, late)[0] == "cancelled"
    assert task(SCHEDULED, STARTED, cancelled, done)[0] == "completed", "on_cancel=wait: it ended after all"


def test_a_task_that_was_handed_out_waits_for_its_token() -> None:
    handed = TaskHandedOut(at=START + 3, id="w/load#1", attempt=1)
    assert folded(SCHEDULED, STARTED, handed).tasks["w/load#1"].status == "handed out"
    done = TaskCompleted(at=START + 20, id="w/load#1")
    assert folded(SCHEDULED, STARTED, handed, done).tasks["w/load#1"].status == "completed"
    assert folded(TaskHandedOut(at=START, id="other", attempt=1)).tasks == {}


CHILD = ChildStarted(
    at=START + 1, id="w/part#1", site="w.py:4", workflow="part", run="r/part#1", parent_close="abandon"
)


@pytest.mark.parametrize(
    ("event", "status", "asked"),
    [
        (ChildCompleted(at=START + 5, id="w/part#1"), "completed", False),
        (ChildFailed(at=START + 5, id="w/part#1", status="failed", error="ValueError"), "failed", False),
        (ChildFailed(at=START + 5, id="w/part#1", status="conflict"), "conflict", False),
        (ChildOutcomeIgnored(at=START + 5, id="w/part#1", outcome="cancelled"), "cancelled", False),
        (ChildCancelled(at=START + 5, id="w/part#1!", run="r/part#1"), "running", True),
        (ChildTerminated(at=START + 5, id="w/part#1!", run="r/part#1"), "running", True),
        (ChildOutcomeIgnored(at=START + 5, id="w/part#1", outcome="completed", epoch=3), "running", False),
    ],
)
def test_the_life_of_a_child(event: Event, status: str, asked: bool) -> None:
    child = folded(CHILD, event).children["w/part#1"]
    assert (child.run, child.workflow, child.parent_close, child.site) == ("r/part#1", "part", "abandon", "w.py:4")
    assert (child.status, child.asked_to_end, child.started_at) == (status, asked, START + 1)
    assert child.ended_at == (None if status == "running" else START + 5)
    assert folded(event).children == {}, "of a child that is not known"


def test_what_arrives_and_what_is_published() -> None:
    state = folded(
        SignalReceived(at=START, id="m-1", name="go"),
        SignalReceived(at=START, id="m-2", name="go"),
        RequestReceived(at=START, id="q-1", name="ask"),
        RequestReceived(at=START, id="q-2", name="ask"),
        RequestReceived(at=START, id="q-3", name="ask"),
        RequestAnswered(at=START, id="answer:q-1", request="q-1"),
        RequestFailed(at=START, id="answer:q-2", request="q-2", error="ValueError"),
        StatePublished(at=START, id="w/state:phase#1", name="phase"),
        FeedPublished(at=START, id="w/feed:log#1", name="log"),
        FeedPublished(at=START, id="w/feed:log#2", name="log"),
        MessageSent(at=START, id="w/send:signal#1", kind="signal", run="other", name="go"),
        SendAccepted(at=START, id="w/send:signal#1"),
        SendRejected(at=START, id="w/send:signal#2", reason="closed"),
        payloads={StatePublished: b'"loading"'},
    )
    assert state.signals == {"go": 2}
    assert state.requests == {"q-1": "answered", "q-2": "failed", "q-3": "accepted"}
    assert (state.states, state.published) == ({"phase": b'"loading"'}, 2)


def test_paused_and_unpaused() -> None:
    paused = folded(SCHEDULED, RunPaused(at=START + 1, by="ann"))
    assert (paused.status, paused.ended) == ("paused", False)
    assert folded(RunPaused(at=START + 1), RunUnpaused(at=START + 2)).status == "running"


def test_an_epoch_begins_with_nothing_running_and_keeps_what_others_read() -> None:
    before = (
        SCHEDULED,
        STARTED,
        TimerStarted(at=START, id="w/timer#1", deadline=START + 9),
        CHILD,
        SignalReceived(at=START, id="m-1", name="go"),
        RequestReceived(at=START, id="q-1", name="ask"),
        StatePublished(at=START, id="w/state:phase#1", name="phase"),
        ContinuedAsNew(at=START + 3),
    )
    between = folded(*before)
    assert (between.status, between.ended, between.epoch) == ("running", False, 0)
    again = folded(
        *before,
        RunStarted(at=START + 3, workflow="w", seed="01", epoch=1, carried=2),
        SignalReceived(at=START + 3, id="m-1", name="go", carried=True),
        RequestReceived(at=START + 3, id="q-1", name="ask", carried=True),
        payloads={StatePublished: b'"loading"'},
    )
    assert (again.epoch, again.tasks, again.timers, again.children) == (1, {}, {}, {})
    assert (again.started_at, again.signals, again.requests) == (START, {"go": 1}, {"q-1": "accepted"})
    assert again.states == {"phase": b'"loading"'}
    stale = ChildOutcomeIgnored(at=START + 5, id="w/part#1", outcome="completed", epoch=0)
    state = RunState(run_id=RUN_ID, epoch=1)
    state.apply(1, RunStarted(at=START, workflow="w", seed="01", epoch=1), b"{}")
    state.apply(2, CHILD, b"{}")
    state.apply(3, stale, None)
    assert state.children["w/part#1"].status == "running", "the end of a child of the last epoch, of the same id"


def test_every_event_changes_the_fold_or_is_known_not_to() -> None:
    """A new event must be thought of here: what does a reader without code see of it?"""
    import typing

    from engine.core import events

    silent = {"AttemptOutcomeIgnored", "SignalIgnored", "MessageSent", "SendAccepted", "SendRejected", "ContinuedAsNew"}
    of_workflows = {"WorkflowPaused", "WorkflowUnpaused", "LimitSet"}
    of_memos = {"ResultMemoised", "ResultForgotten"}
    source = (ROOT / "engine" / "core" / "fold.py").read_text()
    for cls in typing.get_args(events.AnyEvent):
        known = cls.__name__ in source.partition("__all__")[2]
        assert known or cls.__name__ in silent | of_workflows | of_memos, f"the fold says nothing of {cls.__name__}"


def test_a_reused_result_had_no_attempt_and_says_where_it_comes_from() -> None:
    reused = TaskCompleted(at=START + 2, id="w/load#1", attempt=0, reused_run="other", reused_id="w/load#7")
    task = folded(SCHEDULED, reused, payloads={TaskCompleted: b"7"}).tasks["w/load#1"]
    assert (task.status, task.attempts, task.started_at, task.result) == ("completed", 0, None, b"7")
    assert (task.reused_run, task.reused_id) == ("other", "w/load#7")


def test_counts() -> None:
    other = TaskScheduled(at=START, id="w/load#2", task="load")
    assert folded(SCHEDULED, other, STARTED).counts() == {"running": 1, "scheduled": 1}
    assert folded().counts() == {}


@pytest.mark.parametrize(
    ("event", "payload", "status"),
    [
        (RunCompleted(at=START + 5), b"7", "completed"),
        (RunFailed(at=START + 5, error="ValueError"), ERROR, "failed"),
        (RunCancelled(at=START + 5, reason="asked"), None, "cancelled"),
        (RunTerminated(at=START + 5, by="ann", reason="asked"), None, "terminated"),
    ],
)
def test_the_end_of_a_run(event: Event, payload: bytes | None, status: str) -> None:
    state = folded(SCHEDULED, CancelRequested(at=START + 4), event, payloads={type(event): payload} if payload else {})
    assert (state.status, state.ended, state.ended_at) == (status, True, START + 5)
    assert state.status in FINAL_STATUSES
    assert state.cancel_requested
    assert state.result == (b"7" if status == "completed" else None)
    assert (state.error is not None) == (status == "failed")
    assert state.reason == ("asked" if status in ("cancelled", "terminated") else "")


def test_suspended_and_resumed() -> None:
    diagnosis = Diagnosis(reason="decisions", message="m", version=2, differences=(Difference(recorded="a"),))
    payloads = {RunSuspended: encode_diagnosis(diagnosis)}
    suspended = folded(SCHEDULED, RunSuspended(at=START + 1, reason="decisions"), payloads=payloads)
    assert (suspended.status, suspended.diagnosis, suspended.ended) == ("suspended", diagnosis, False)
    resumed = folded(RunSuspended(at=START + 1, reason="x"), RunResumed(at=START + 2), payloads=payloads)
    assert (resumed.status, resumed.diagnosis) == ("running", None)


@pytest.mark.parametrize("damage", [None, b"", b"{", b"[]", b"\xff"])
def test_destroyed_or_damaged_payloads_do_not_stop_it(damage: bytes | None) -> None:
    payloads = dict.fromkeys((RunFailed, TaskFailed, RunSuspended, TaskCompleted), damage)
    final = TaskFailed(at=START + 3, id="w/load#1", error="shop.Declined")
    state = folded(
        SCHEDULED,
        RunSuspended(at=START + 1, reason="x"),
        final,
        RunFailed(at=START + 5, error="shop.Declined"),
        payloads={type_: payload for type_, payload in payloads.items() if payload is not None},
    )
    message = "(destroyed)" if damage is None else "(unreadable)"
    assert state.error == ErrorInfo(type="shop.Declined", message=message)
    assert state.tasks["w/load#1"].error == ErrorInfo(type="shop.Declined", message=message)


def test_events_of_unknown_tasks_are_passed_over() -> None:
    state = folded(STARTED, FAILED, TaskCompleted(at=START + 3, id="other"))
    assert state.tasks == {}


def test_time_is_the_latest_seen() -> None:
    assert folded(TaskStarted(at=START - 50, id="x", attempt=1, worker="w")).updated_at == START


def test_no_code_of_the_workflow_is_needed() -> None:
    """In a process that has neither workflows nor tasks: a golden history folds to its end."""
    program = (
        "import json, sys; from engine.core.fold import RunState; from engine.core.events import decode_header\n"
        "state = RunState(run_id='x')\n"
        "for version, line in enumerate(open(sys.argv[1]), 1):\n"
        "    header, payload = json.loads(line)\n"
        "    state.apply(version, decode_header(header.encode()), payload and payload.encode())\n"
        "assert not any(name.startswith('tests') for name in sys.modules)\n"
        "print(state.status, len(state.tasks), state.counts())"
    )
    golden = ROOT / "tests" / "core" / "golden" / "saga_in_branches.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", program, str(golden)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "completed 6 {'completed': 5, 'failed': 1}", done.stderr
