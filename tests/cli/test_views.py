"""Views as what they are: pure functions of a run's state. Nothing here runs an engine."""

from __future__ import annotations

import io
import re
from typing import Any

import msgspec
import pytest
from rich.console import Console, RenderableType

from engine import Diagnosis, ErrorInfo, HistoryEvent, RunState, RunSummary
from engine.cli import plain
from engine.cli.live import frame
from engine.cli.readable import amount, clipped, counted, duration, error_lines, instant, value_lines
from engine.cli.summary import document, summary
from engine.cli.tables import TASKS_SHOWN, history_line, runs_table, state_view
from engine.cli.tally import Watched, counts, name_rows

SECOND = 1_000_000
START = 1_800_000_000 * SECOND


def shown(view: RenderableType, *, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    console.print(view)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


class Story:
    """A history that is told event by event, one second apart unless said otherwise."""

    def __init__(self, *, workflow: str = "nightly", run_id: str = "n1") -> None:
        self.state = RunState(run_id=run_id, workflow=workflow)
        self.at = START
        self.version = 0

    def tell(self, type_: str, *, payload: Any = None, after: float = 1.0, **fields: Any) -> HistoryEvent:
        self.at += int(after * SECOND)
        self.version += 1
        header = msgspec.json.encode({"type": type_, "at": self.at, **fields})
        from engine.core.events import decode_header

        data = None if payload is None else msgspec.json.encode(payload)
        return HistoryEvent(self.version, self.version, decode_header(header), data, header, b"")

    def then(self, *events: HistoryEvent) -> Story:
        for each in events:
            self.state.apply(each.version, each.event, each.payload)
        return self


def begun(tasks: int = 3, done: int = 1) -> Story:
    """`tasks` tasks `load#k` that began together; `done` of them have completed, two seconds later."""
    story = Story()
    story.then(story.tell("RunStarted", workflow="nightly", seed="0" * 32, payload={"day": "2026-01-31"}))
    for k in range(1, tasks + 1):
        story.then(
            story.tell(
                "TaskScheduled", after=0, id=f"nightly/load#{k}", task="load", site="shop.py:4", payload={"n": k}
            )
        )
    for k in range(1, tasks + 1):
        story.then(story.tell("TaskStarted", after=0, id=f"nightly/load#{k}", attempt=1, worker="w"))
    story.at += 2 * SECOND
    for k in range(1, done + 1):
        story.then(story.tell("TaskCompleted", after=0, id=f"nightly/load#{k}", payload=k))
    return story


ERROR = {"type": "ConnectionError", "message": "refused [red]here"}


def waiting(**fields: Any) -> Story:
    story = Story()
    start = story.tell("RunStarted", workflow="nightly", seed="0" * 32, waits=True, payload={}, **fields)
    return story.then(start)


def test_a_queued_run_says_what_it_waits_for() -> None:
    late = waiting(begins_at=START + 60 * SECOND)
    assert "· queued" in shown(state_view(late.state))
    assert re.search(r"waits +until \d{4}-", shown(state_view(late.state)))
    behind = waiting(singleton="customer-7")
    note = behind.tell("RunQueued", key="customer-7", behind="n0", replaces=True)
    assert history_line(note).plain.endswith("for the singleton key 'customer-7' behind run n0, which it replaces")
    behind.then(note)
    assert "waits       behind run n0 for key 'customer-7'" in shown(state_view(behind.state))
    watched = Watched.begin(behind.state, now=behind.at)
    assert plain.first_line(watched).startswith("nightly: run n1, queued behind run n0 for key 'customer-7'")
    begins = behind.tell("RunBegun", after=60)
    assert plain.line(watched, watched.take(begins)) == "[1 m 00 s] begins"
    text = shown(state_view(behind.state))
    assert "… running" in text
    assert "waits" not in text
    assert re.search(r"singleton +customer-7\nbegun|singleton +customer-7\n +begun", text)
    assert "waits       has not begun" in shown(state_view(waiting().state))


def test_a_cancel_for_those_that_have_not_begun_says_so() -> None:
    story = waiting()
    assert "unless it has begun" in history_line(story.tell("CancelRequested", by="ann", unless_begun=True)).plain


def test_lists_say_what_queued_runs_wait_for() -> None:
    def row(run_id: str, status: Any, **fields: Any) -> RunSummary:
        return RunSummary(
            id=run_id, workflow="w", status=status, version=1, created_at=START, updated_at=START, **fields
        )

    rows = [row("a", "queued", begins_at=START), row("b", "queued", singleton="k"), row("c", "running", singleton="k")]
    lines = shown(runs_table(rows), width=140).splitlines()
    assert lines[0].split()[-1] == "waits"
    assert "until 2027-" in lines[1]
    assert lines[2].endswith("for key 'k'")
    assert not lines[3].endswith("'k'")
    assert "waits" not in shown(runs_table(rows[2:]))


def test_figures_tell_before_from_now() -> None:
    story = begun(tasks=4, done=2)
    run = Watched.begin(story.state, now=story.at)
    run.take(story.tell("TaskCompleted", id="nightly/load#3", payload=1))
    figures = counts(run)
    assert (figures.total, figures.done, figures.before, figures.now, figures.running) == (4, 3, 2, 1, 1)
    assert run.done == 3
    (row,) = name_rows(run.state.tasks.values())
    assert (row.name, row.count, row.done, row.attempts, row.retries) == ("load", 4, 3, 4, 0)
    assert (row.total_seconds, row.max_seconds) == (2 + 2 + 3, 3)


def test_attempts_that_were_cut_off_are_neither_retries_nor_failures() -> None:
    story = begun(tasks=1, done=0)
    story.then(story.tell("TaskStarted", id="nightly/load#1", attempt=2, worker="w2"))
    story.then(story.tell("AttemptFailed", id="nightly/load#1", attempt=2, error="E", retry_at=story.at, payload=ERROR))
    story.then(story.tell("TaskStarted", id="nightly/load#1", attempt=3, worker="w2"))
    story.then(story.tell("TaskCompleted", id="nightly/load#1", attempt=3, payload=1))
    run = Watched.begin(story.state, now=story.at)
    (row,) = name_rows(run.state.tasks.values())
    assert (row.attempts, row.retries, counts(run).cut_off) == (3, 1, 1)


def test_a_frame_shows_what_runs_what_waits_and_what_was_done_before() -> None:
    story = begun(tasks=4, done=2)
    run = Watched.begin(story.state, now=story.at)
    run.take(
        story.tell(
            "AttemptFailed", id="nightly/load#3", attempt=1, error="E", retry_at=story.at + 5 * SECOND, payload=ERROR
        )
    )
    text = shown(frame([run], now=story.at + SECOND, height=30), width=130)
    assert "nightly n1 2.0 s" in text
    assert "2 of 4 tasks done (2 before, not run again)" in text
    assert "1 running · 1 waiting for a retry" in text
    assert "2/4" in text
    assert "1 running, 4.0 s  1 to retry, next in 3.0 s (ConnectionError: refused [red]here)" in text


def test_a_narrow_screen_keeps_the_figures() -> None:
    story = begun(tasks=2, done=1)
    story.then(story.tell("TaskScheduled", id="nightly/x#1", task="a_name_that_is_much_too_long_for_a_narrow_screen"))
    run = Watched.begin(story.state, now=story.at)
    text = shown(frame([run], now=story.at, height=20), width=50)
    assert "1/2  2.0 s  2.0 s" in text
    assert "…   0/1" in text


def test_a_frame_fits_the_screen() -> None:
    story = begun(tasks=0, done=0)
    for n in range(50):
        story.then(story.tell("TaskScheduled", id=f"nightly/t{n}#1", task=f"t{n}"))
    run = Watched.begin(story.state, now=story.at)
    text = shown(frame([run], now=story.at, height=20, stopping="stopping"))
    assert len(text.splitlines()) < 20
    assert "… 38 more" in text
    assert text.splitlines()[-1] == "stopping"


def test_a_frame_of_several_runs() -> None:
    stories = [begun(), begun()]
    stories[1].then(stories[1].tell("RunCompleted", payload=1))
    runs = [Watched.begin(each.state, now=START) for each in stories]
    text = shown(frame(runs, now=START + SECOND, height=20))
    assert "1 of 2 runs are through" in text
    assert "completed" in text


def test_a_sleeping_run_says_what_it_waits_for() -> None:
    story = begun(tasks=1, done=1)
    story.then(story.tell("TimerStarted", id="nightly/sleep#1", deadline=story.at + 90 * SECOND))
    run = Watched.begin(story.state, now=story.at)
    assert "a timer rings in 1 m 19 s, at 2027-01-1" in shown(frame([run], now=story.at + 10 * SECOND, height=20))


@pytest.mark.parametrize(
    ("type_", "fields", "line"),
    [
        ("TaskCompleted", {"id": "nightly/load#2", "payload": 1}, "[   1.0 s] done 2/3  load#2 in 3.0 s"),
        (
            "TaskCompleted",
            {"id": "nightly/load#2", "attempt": 0, "reused_run": "n0", "reused_id": "nightly/load#9", "payload": 1},
            "[   1.0 s] done 2/3  load#2, reused from run n0",
        ),
        (
            "AttemptFailed",
            {"id": "nightly/load#2", "attempt": 1, "error": "E", "retry_at": START + 10 * SECOND, "payload": ERROR},
            "[   1.0 s] retry in 6.0 s  load#2: attempt 1 failed: ConnectionError: refused [red]here",
        ),
        (
            "TaskFailed",
            {"id": "nightly/load#2", "error": "E", "payload": ERROR},
            "[   1.0 s] failed  load#2 after 1 attempt: ConnectionError: refused [red]here",
        ),
        ("CancelRequested", {"reason": "wrong day"}, "[   1.0 s] cancel requested: wrong day"),
        ("RunSuspended", {"reason": "decisions"}, "[   1.0 s] suspended: code and history disagree"),
        ("TaskStarted", {"id": "nightly/load#2", "attempt": 2, "worker": "w"}, None),
        ("RunCompleted", {"payload": 1}, None),
    ],
)
def test_plain_lines(type_: str, fields: dict[str, Any], line: str | None) -> None:
    story = begun(tasks=3, done=1)
    run = Watched.begin(story.state, now=story.at)
    assert plain.line(run, run.take(story.tell(type_, **fields))) == line


def test_plain_lines_of_several_runs_name_theirs() -> None:
    story = begun()
    run = Watched.begin(story.state, now=story.at)
    header = run.take(story.tell("RunCompleted", payload=1))
    assert plain.line(run, header, many=True) == "[   1.0 s] n1: completed"


def test_a_diagnosis_is_two_columns_and_what_to_do() -> None:
    story = begun()
    diagnosis = {
        "reason": "decisions",
        "message": "the code decides otherwise than it did",
        "version": 7,
        "hints": ["patch 'quote-first', asked for at shop.py:40, is not in this history"],
        "differences": [
            {
                "recorded": 'charge("alice")',
                "recorded_site": "shop.py:41",
                "decided": 'quote("alice")',
                "decided_site": "shop.py:40",
            },
            {"recorded": "return 1"},
        ],
    }
    story.then(story.tell("RunSuspended", reason="decisions", payload=diagnosis))
    run = Watched.begin(story.state, now=story.at)
    lines = shown(summary(run, now=story.at)).splitlines()
    assert "‖ nightly suspended" in lines[0]
    assert "  At version 7: the code decides otherwise than it did." in lines
    assert any(line.split() == ["history", "has", "the", "code", "now", "asks", "for"] for line in lines)
    assert any(line.split() == ['charge("alice")', 'quote("alice")'] for line in lines)
    assert any(line.split() == ["shop.py:41", "shop.py:40"] for line in lines)
    assert any(line.split() == ["return", "1", "—"] for line in lines)
    assert "  Note: patch 'quote-first', asked for at shop.py:40, is not in this history." in lines
    assert Diagnosis.__struct_fields__[-1] == "advice"
    assert "The run is suspended, nothing is lost." in shown(summary(run, now=story.at))


def test_an_error_leads_with_the_users_lines() -> None:
    error = ErrorInfo(
        type="shop.Declined",
        message="no funds\nask again",
        traceback=(
            '  File "/home/u/shop.py", line 9, in nightly\n    await charge(1)\n'
            '  File "/venv/lib/python3.11/site-packages/engine/core/instance.py", line 1, in _x\n    return 1\n'
            '  File "/usr/lib/python3.11/asyncio/tasks.py", line 1, in _y\n    return 2\n'
        ),
        notes=(
            "a note",
            'Recorded traceback (most recent call last):\n  File "/home/u/shop.py", line 3, in charge\n    raise Declined\n',
        ),
        cause=ErrorInfo(type="OSError", message="", group=(ErrorInfo(type="KeyError", message="k"),)),
    )
    assert error_lines(error) == [
        "shop.Declined: no funds",
        "  ask again",
        "  a note",
        "  Traceback (most recent call last):",
        '    File "/home/u/shop.py", line 9, in nightly',
        "      await charge(1)",
        '    File "/home/u/shop.py", line 3, in charge',
        "      raise Declined",
        "caused by OSError",
        "  • KeyError: k",
    ]
    assert "engine/core/instance.py" in "\n".join(error_lines(error, every_frame=True))


def test_a_task_error_is_what_it_stands_for() -> None:
    assert error_lines(ErrorInfo(type="engine.errors.TaskError", message="shop.Declined: no")) == ["shop.Declined: no"]
    assert error_lines(ErrorInfo(type="engine.errors.TaskTimeout", message="5 s")) == ["TaskTimeout: 5 s"]


def test_an_error_only_of_the_engine_keeps_its_last_frame() -> None:
    error = ErrorInfo(type="E", traceback='  File "/x/site-packages/engine/a.py", line 1, in f\n    raise E\n')
    assert '    File "/x/site-packages/engine/a.py", line 1, in f' in error_lines(error)


def test_user_text_is_never_markup() -> None:
    story = begun(tasks=1, done=0)
    story.then(story.tell("TaskFailed", id="nightly/load#1", error="E", payload=ERROR))
    story.then(story.tell("RunFailed", error="E", payload={"type": "E", "message": "[bold]x[/nothing] :smile:"}))
    run = Watched.begin(story.state, now=story.at)
    for view in (summary(run, now=story.at), state_view(run.state)):
        text = shown(view)
        assert "E: [bold]x[/nothing] :smile:" in text
        assert "refused [red]here" in text


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (5, ["5"]),
        (None, ["none"]),
        ("a\nb", ["a", "b"]),
        ("", [""]),
        ([], ["[]"]),
        ({}, ["{}"]),
        ({"rows": 5, "ok": True}, ["rows: 5", "ok: true"]),
        ({"months": [1, 2], "none": []}, ["months: 1, 2", "none: []"]),
        ({"text": "a\nb", "in": {"x": 1}}, ["text:", "  a", "  b", "in:", "  x: 1"]),
        ([{"a": 1, "b": 2}, {"a": 3}], ["- a: 1", "  b: 2", "- a: 3"]),
        (list(range(40)), [*(f"- {n}" for n in range(30)), "… 10 more (--json shows all)"]),
    ],
)
def test_values_as_lines(value: Any, lines: list[str]) -> None:
    assert value_lines(msgspec.json.encode(value)) == lines


@pytest.mark.parametrize("depth", [600, 900, 100_000])
def test_values_that_nest_too_deep_are_shown_as_they_stand(depth: int) -> None:
    payload = b"[" * depth + b"]" * depth
    assert value_lines(payload) == [payload.decode()]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.34, "340 ms"),
        (0.9999, "1.0 s"),
        (59.9, "59.9 s"),
        (59.96, "1 m 00 s"),
        (187, "3 m 07 s"),
        (7500, "2 h 05 m"),
        (273600, "3 d 04 h"),
        (-1, "0 ms"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_and_numbers_of_things() -> None:
    sizes = (0, 999, 1_000, 999_949, 999_960, 10**12, 3 * 10**15)
    assert [amount(size) for size in sizes] == ["0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "1.0 TB", "3000.0 TB"]
    assert [counted(number, "run") for number in (0, 1, 1_200)] == ["0 runs", "1 run", "1,200 runs"]


def test_times_for_machines() -> None:
    assert instant(START + 5) == "2027-01-15T08:00:00.000005Z"
    assert instant(None) is None
    assert clipped("a  b\nc", 4) == "a b…"


def test_many_tasks_show_first_what_needs_somebody() -> None:
    story = begun(tasks=TASKS_SHOWN + 20, done=TASKS_SHOWN + 19)
    text = shown(state_view(story.state))
    assert f"load#{TASKS_SHOWN + 20}  running" in text
    assert "… 20 more (--json shows all)" in text


def test_runs_as_a_table() -> None:
    run = RunSummary(
        id="n1", workflow="nightly", status="running", version=1234, created_at=START, updated_at=START + SECOND
    )
    assert shown(runs_table([run])).splitlines()[1].split()[:5] == ["n1", "nightly", "…", "running", "1,234"]


def test_the_document_of_a_run() -> None:
    story = begun(tasks=2, done=1)
    run = Watched.begin(story.state, now=story.at)
    run.take(story.tell("TaskCompleted", id="nightly/load#2", payload=1))
    run.take(story.tell("RunCompleted", payload={"rows": 3}, after=0))
    told = msgspec.json.decode(msgspec.json.encode(document(run, now=story.at + 9 * SECOND)))
    assert told["result"] == {"rows": 3}
    assert told["elapsed_seconds"] == 1
    assert {key: told["tasks"][key] for key in ("total", "done", "done_before", "done_now")} == {
        "total": 2, "done": 2, "done_before": 1, "done_now": 1,
    }  # fmt: skip


def test_the_last_heartbeat_of_a_running_task_is_shown() -> None:
    story = begun(tasks=2, done=0)
    beat = story.tell("AttemptHeartbeat", id="nightly/load#1", attempt=1, payload={"rows": 7})
    story.then(beat, story.tell("AttemptHeartbeat", id="nightly/load#1", attempt=1))
    text = shown(state_view(story.state), width=140)
    assert re.search(r"load#1 +running +1 +last heartbeat at [0-9:]+.*: ..rows..7", text), text
    line = history_line(beat).plain
    assert "load#1" in line
    assert line.endswith('attempt 1 lives  {"rows":7}')


def test_a_reused_result_says_where_it_comes_from() -> None:
    story = Story().then()
    story.then(story.tell("RunStarted", workflow="nightly", seed="00", payload={}))
    story.then(story.tell("TaskScheduled", id="nightly/load#1", task="load", payload={"n": 1}))
    reused = story.tell(
        "TaskCompleted", id="nightly/load#1", attempt=0, reused_run="n0", reused_id="nightly/load#9", payload=7
    )
    story.then(reused)
    assert re.search(r"load#1 +completed +0 +reused from run n0, load#9", shown(state_view(story.state), width=140))
    assert history_line(reused).plain.endswith("load#1  reused from run n0, load#9  7")
