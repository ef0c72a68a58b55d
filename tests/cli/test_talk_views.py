"""What is shown of signals, requests, children, pauses and tokens: pure functions of a history. Nothing runs an engine."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine import PausedWorkflow, RunSummary
from engine.cli import plain
from engine.cli.exchange import Exchange
from engine.cli.live import frame
from engine.cli.phrases import about, detail
from engine.cli.summary import document, summary
from engine.cli.tables import history_line, runs_table, state_view
from engine.cli.tally import Watched, child_counts, counts
from tests.cli.test_views import SECOND, START, Story, begun, shown

ERROR = {"type": "ValueError", "message": "no [red]funds"}


@pytest.mark.parametrize(
    ("type_", "fields", "payload", "text"),
    [
        ("TaskCompleted", {"id": "w/load#1", "attempt": 2}, 7, "load#1  attempt=2 7"),
        (
            "TaskCompleted",
            {"id": "w/load#1", "attempt": 0, "reused_run": "n0/part", "reused_id": "w/part/load#3"},
            {"rows": 7},
            'load#1  reused from run n0/part, part/load#3  {"rows":7}',
        ),
        ("SignalReceived", {"id": "a/b", "name": "approve", "by": "ann"}, True, "approve  true by ann (id a/b)"),
        (
            "SignalReceived",
            {"id": "m", "name": "go", "carried": True},
            None,
            "go  (none) (id m, carried over from the epoch before)",
        ),
        ("RequestReceived", {"id": "q", "name": "review"}, {"n": 1}, 'review  {"n":1} (id q)'),
        ("RequestAnswered", {"id": "answer:q", "request": "q"}, 5, "q  5"),
        (
            "RequestFailed",
            {"id": "answer:q", "request": "q", "error": "ValueError"},
            ERROR,
            "q  ValueError: no [red]funds",
        ),
        ("StatePublished", {"id": "w/state:phase#1", "name": "phase"}, "new", 'phase  "new"'),
        ("FeedPublished", {"id": "w/feed:log#1", "name": "log"}, "line", 'log  "line"'),
        ("ContinuedAsNew", {"id": "w/end"}, {"n": 2}, 'end  goes on from its beginning with {"n":2}'),
        ("ChildStarted", {"id": "w/c#1", "workflow": "c", "run": "r/c#1"}, {"n": 1}, 'c#1  run r/c#1 of c  {"n":1}'),
        (
            "ChildStarted",
            {"id": "w/c#1", "workflow": "c", "run": "x", "parent_close": "terminate"},
            {},
            "c#1  run x of c, terminate it at our end  {}",
        ),
        ("ChildCompleted", {"id": "w/c#1"}, 7, "c#1  7"),
        (
            "ChildFailed",
            {"id": "w/c#1", "status": "failed", "error": "ValueError"},
            ERROR,
            "c#1  failed: ValueError: no [red]funds",
        ),
        ("ChildFailed", {"id": "w/c#1", "status": "terminated", "reason": "enough"}, None, "c#1  terminated: enough"),
        ("ChildFailed", {"id": "w/c#1", "status": "cancelled"}, None, "c#1  cancelled"),
        ("ChildFailed", {"id": "w/c#1", "status": "conflict"}, None, "c#1  its id belongs to another run"),
        ("ChildCancelled", {"id": "w/c#1!", "run": "x"}, None, "c#1!  run x is asked to end"),
        ("ChildTerminated", {"id": "w/c#1!", "run": "x"}, None, "c#1!  run x is to end without its code"),
        (
            "ChildOutcomeIgnored",
            {"id": "w/c#1", "outcome": "completed"},
            None,
            "c#1  completed, when nobody waited for it any more",
        ),
        (
            "MessageSent",
            {"id": "w/send:signal#1", "kind": "signal", "run": "x", "name": "go"},
            1,
            "send:signal#1  signal go to run x  1",
        ),
        (
            "MessageSent",
            {"id": "w/send:cancel#1", "kind": "cancel", "run": "x", "reason": "late"},
            None,
            "send:cancel#1  cancel to run x: late",
        ),
        ("SendAccepted", {"id": "w/send:signal#1"}, None, "send:signal#1  delivered"),
        (
            "SendRejected",
            {"id": "w/send:signal#1", "reason": "not_found"},
            None,
            "send:signal#1  not delivered: no such run",
        ),
        (
            "SendRejected",
            {"id": "w/send:signal#1", "reason": "closed"},
            None,
            "send:signal#1  not delivered: the run has ended",
        ),
        (
            "TaskHandedOut",
            {"id": "w/t#1", "attempt": 2},
            None,
            "t#1  attempt 2 has handed it out; it waits for its token",
        ),
        ("RunPaused", {"by": "ann", "reason": "lunch"}, None, "by ann: lunch"),
        ("RunUnpaused", {"by": "ann"}, None, "by ann"),
        ("RunTerminated", {"reason": "enough"}, None, "enough"),
        (
            "RunStarted",
            {"workflow": "w", "seed": "0" * 32, "epoch": 2, "parent": "p"},
            {},
            "workflow=w parent=p epoch=2 {}",
        ),
    ],
)
def test_every_event_in_one_line(type_: str, fields: dict[str, Any], payload: Any, text: str) -> None:
    told = Story().tell(type_, payload=payload, **fields)
    header = msgspec.to_builtins(told.event)
    assert "  ".join(each for each in (about(header), detail(header, told.payload)) if each) == text
    assert text in history_line(told).plain
    assert type_ in history_line(told).plain


def talked() -> tuple[Story, Exchange]:
    """A run that was told and asked things."""
    story, exchange = begun(tasks=1, done=0), Exchange()
    for event in (
        story.tell("TaskHandedOut", id="nightly/load#1", attempt=1),
        story.tell("SignalReceived", id="m1", name="approve", by="ann", payload=True),
        story.tell("SignalReceived", id="m1", name="approve", by="ann", carried=True, payload=True),
        story.tell("RequestReceived", id="q1", name="review", by="bob", payload={"n": 1}),
        story.tell("RequestAnswered", id="answer:q1", request="q1", payload="fine"),
        story.tell("RequestReceived", id="q2", name="review", payload={"n": 2}),
        story.tell("RequestFailed", id="answer:q2", request="q2", error="ValueError", payload=ERROR),
        story.tell("RequestReceived", id="q3", name="review", payload={"n": 3}),
        story.tell("StatePublished", id="nightly/state:phase#1", name="phase", payload="[red]"),
        story.tell("FeedPublished", id="nightly/feed:log#1", name="log", payload="one"),
        story.tell("ChildStarted", id="nightly/c#1", workflow="c", run="n1/c#1", payload={}),
        story.tell("ChildStarted", id="nightly/c#2", workflow="c", run="n1/c#2", payload={}),
        story.tell("ChildCompleted", id="nightly/c#1", payload=1),
        story.tell("RunPaused", by="ann", reason="lunch"),
    ):
        story.then(event)
        exchange.take(event)
    return story, exchange


def test_an_exchange_is_a_fold_of_the_history() -> None:
    _, exchange = talked()
    assert [(row.id, row.name, row.by, row.value) for row in exchange.signals] == [("m1", "approve", "ann", b"true")]
    assert [(row.id, row.status, row.answer, row.error) for row in exchange.requests.values()] == [
        ("q1", "answered", b'"fine"', ""),
        ("q2", "failed", None, "ValueError: no [red]funds"),
        ("q3", "accepted", None, ""),
    ]
    assert exchange.feeds == {"log": 1}


def test_show_tells_what_was_said_and_who_paused_it() -> None:
    story, exchange = talked()
    text = shown(state_view(story.state, exchange), width=140)
    flat = "\n".join(" ".join(line.split()) for line in text.splitlines())
    assert "‖ paused" in flat
    assert "by ann: lunch; holdfast unpause n1" in flat
    assert "load#1 handed out 1 waits for its token" in flat
    assert 'phase "[red]"' in flat
    assert "log: 1 value" in flat
    assert "n1/c#1 c 2.0 s completed" in flat
    assert "n1/c#2 c running" in flat
    assert "ann true" in flat
    assert 'review q1 bob answered "fine"' in flat
    assert "review q2 failed ValueError: no [red]funds" in flat
    assert 'review q3 accepted {"n":3}' in flat


def test_show_tells_of_parent_epoch_deadline_and_a_paused_workflow() -> None:
    story = Story()
    story.then(
        story.tell(
            "RunStarted", workflow="nightly", seed="0" * 32, parent="p", parent_call="w/c#1", root="p",
            deadline=START + 100 * SECOND, epoch=3, payload={},
        )
    )  # fmt: skip
    paused = PausedWorkflow(name="nightly", at=START, by="ops")
    text = " ".join(shown(state_view(story.state, workflow_paused=paused)).split())
    assert "parent run p, call c#1" in text
    assert "epoch 3: so often it has continued as new" in text
    assert "deadline 2027-01-1" in text
    assert "workflow paused by ops; holdfast unpause --workflow nightly" in text


def test_a_child_that_has_not_begun_is_shown_as_such() -> None:
    assert shown(state_view(Story().state)) == "n1  was asked for by its parent, and has not begun yet"


def test_handed_out_tasks_and_children_are_counted() -> None:
    story, _ = talked()
    run = Watched.begin(story.state, now=story.at)
    assert (counts(run).handed_out, counts(run).cut_off, run.children_done) == (1, 0, 1)
    figures = child_counts(story.state)
    assert (figures.total, figures.running, figures.completed, figures.done) == (2, 1, 1, 1)
    text = shown(frame([run], now=story.at, height=30), width=140)
    assert "1 handed out · child runs: 1 of 2 done, 1 running" in text
    assert "run n1 is paused by ann: lunch; it goes on after: holdfast unpause n1" in text
    told = document(run, now=story.at)
    assert (told["status"], told["tasks"]["handed_out"], told["children"]["running"]) == ("paused", 1, 1)
    assert "2 child runs: 1 completed, 1 running" in shown(summary(run, now=story.at, interrupted=True))


def test_a_frame_of_several_runs_says_which_are_paused() -> None:
    story, _ = talked()
    held = Watched.begin(begun().state, now=START)
    held.workflow_paused = PausedWorkflow(name="nightly", at=START)
    text = shown(frame([Watched.begin(story.state, now=story.at), held], now=story.at, height=20))
    assert text.count("paused") == 2


@pytest.mark.parametrize(
    ("type_", "fields", "line"),
    [
        ("TaskHandedOut", {"id": "nightly/load#1", "attempt": 1}, "handed out  load#1: it waits for its token"),
        ("ChildCompleted", {"id": "nightly/c#2", "payload": 1}, "child done 2/2  run n1/c#2 in 3.0 s"),
        ("ChildFailed", {"id": "nightly/c#2", "status": "cancelled"}, "child cancelled 2/2  run n1/c#2 after 3.0 s"),
        ("ChildStarted", {"id": "nightly/c#3", "workflow": "c", "run": "n1/c#3"}, None),
        ("SignalReceived", {"id": "m", "name": "approve", "by": "ann", "payload": True}, "signal approve by ann"),
        ("SignalReceived", {"id": "m", "name": "approve", "carried": True, "payload": True}, None),
        ("RequestReceived", {"id": "q", "name": "review", "payload": True}, "request review"),
        ("RunPaused", {"by": "ann", "reason": "lunch"}, "paused by ann: lunch"),
        ("RunUnpaused", {}, "unpaused"),
        ("ContinuedAsNew", {"id": "nightly/end", "payload": {}}, "goes on as new, epoch 1"),
        ("StatePublished", {"id": "nightly/s", "name": "phase", "payload": 1}, None),
    ],
)
def test_plain_lines(type_: str, fields: dict[str, Any], line: str | None) -> None:
    story, _ = talked()
    run = Watched.begin(story.state, now=story.at)
    said = plain.line(run, run.take(story.tell(type_, **fields)))
    assert said == (None if line is None else f"[   1.0 s] {line}")


def test_how_a_paused_run_goes_on_names_its_store() -> None:
    story, _ = talked()
    run = Watched.begin(story.state, now=story.at, store_words=" --store sqlite:///x.db")
    run.workflow_paused = PausedWorkflow(name="nightly", at=START, by="ops", reason="no power")
    assert plain.paused_lines(run) == [
        "run n1 is paused by ann: lunch; it goes on after: holdfast unpause n1 --store sqlite:///x.db",
        "workflow nightly is paused by ops: no power; its runs go on after: holdfast unpause --workflow nightly --store sqlite:///x.db",
    ]


def test_an_epoch_begins_with_figures_of_its_own() -> None:
    story = begun(tasks=3, done=3)
    run = Watched.begin(story.state, now=story.at)
    run.take(story.tell("ContinuedAsNew", id="nightly/end", payload={}))
    run.take(story.tell("RunStarted", workflow="nightly", seed="0" * 32, epoch=1, payload={}))
    assert (run.done, run.before, counts(run).total) == (0, 0, 0)


def test_runs_name_their_parents_when_there_are_any() -> None:
    one = RunSummary(id="n1", workflow="w", status="paused", version=1, created_at=START, updated_at=START)
    child = msgspec.structs.replace(one, id="n1/c#1", parent="n1")
    assert shown(runs_table([one])).splitlines()[0].split()[-1] == "duration"
    lines = shown(runs_table([child, one]), width=140).splitlines()
    assert lines[0].split()[-1] == "parent"
    assert lines[1].split()[-1] == "n1"
    assert "‖ paused" in lines[2]
