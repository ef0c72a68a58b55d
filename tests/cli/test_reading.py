"""`runs`, `show`, `history`, `cancel` as processes, on one store with one run of each kind."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.cli.command import Command


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A store with a completed run, a failed one, and one that was killed in the middle. Tests only read it."""
    folder = tmp_path_factory.mktemp("recorded")
    shutil.copy(Path(__file__).parent / "work.py", folder / "work.py")
    command = Command(folder)
    assert command("run", "work.py:quick", "n=7", "--id", "good").code == 0
    assert command("run", "work.py:failing", "day=2026-01-31", "--id", "bad").code == 1
    started = command.start("run", "work.py:steps", "n=1", "--id", "open")
    started.until(lambda: "gated1" in command.effects(), "the gated task began")
    started.signal(signal.SIGKILL)
    started.end()
    return command


def test_runs_lists_newest_first(recorded: Command) -> None:
    ended = recorded.inside("runs")
    assert ended.code == 0, ended
    assert [line.split()[0] for line in ended.out.splitlines()] == ["run", "open", "bad", "good"]
    assert "✔ completed" in ended.out
    assert "✘ failed" in ended.out


def test_runs_by_status_workflow_and_limit(recorded: Command) -> None:
    some = recorded.inside("runs", "--status", "failed", "--status", "running", "--json").json()
    assert [(each["run"], each["status"]) for each in some] == [("open", "running"), ("bad", "failed")]
    assert some[0]["created_at"].endswith("Z")
    assert [each["run"] for each in recorded.inside("runs", "--workflow", "quick", "--json").json()] == ["good"]
    assert [each["run"] for each in recorded.inside("runs", "--limit", "1", "--json").json()] == ["open"]
    assert "and more; --limit" in recorded.inside("runs", "--limit", "1").out
    none = recorded.inside("runs", "--workflow", "other", "--status", "failed")
    assert (none.code, none.out) == (0, "no runs of workflow other, status failed in this store\n")


def test_show_a_completed_run(recorded: Command) -> None:
    ended = recorded.inside("show", "good")
    assert ended.code == 0, ended
    assert ended.out.startswith("good  quick  ✔ completed\n")
    assert "arguments\n  n: 7\n\nresult\n  7\n\ntasks\n" in ended.out
    assert '{"n":7}' in ended.out
    document = recorded.inside("show", "good", "--json").json()
    assert (document["arguments"], document["result"], document["tasks"][0]["status"]) == ({"n": 7}, 7, "completed")


def test_show_a_failed_run_without_its_code(recorded: Command) -> None:
    ended = recorded.inside("show", "bad")
    assert ended.code == 0, ended
    assert "ValueError: two checks failed" in ended.out
    assert "caused by KeyError: 'lost'" in ended.out


def test_show_an_unfinished_run(recorded: Command) -> None:
    ended = recorded.inside("show", "open")
    assert "… running" in ended.out
    assert [line.split()[:2] for line in ended.out.splitlines() if "#1" in line] == [
        ["step~1/step#1", "completed"],
        ["gated#1", "running"],
    ]


def test_history_line_by_line_and_as_json_lines(recorded: Command) -> None:
    lines = recorded.inside("history", "good").out.splitlines()
    assert [line.split()[0] for line in lines] == [str(n) for n in range(1, len(lines) + 1)]
    assert [line.split()[3] for line in lines] == [
        "RunStarted",
        "TaskScheduled",
        "TaskStarted",
        "TaskCompleted",
        "RunCompleted",
    ]
    events = [
        json.loads(line) for line in recorded.inside("history", "good", "--json", "--after", "3").out.splitlines()
    ]
    assert [each["version"] for each in events] == [4, 5]
    assert events[0]["header"]["type"] == "TaskCompleted"
    assert events[0]["payload"] == 7
    assert len(events[0]["digest"]) == 64


def test_history_follows_until_the_end(holdfast: Command) -> None:
    started = holdfast.start("run", "work.py:steps", "n=1", "--id", "f1")
    started.until(lambda: "gated1" in holdfast.effects(), "the gated task began")
    following = holdfast.start("history", "f1", "--follow")
    following.wait_for("TaskStarted       gated#1")
    holdfast.open_gate()
    ended = following.end()
    assert ended.code == started.end().code == 0, ended
    assert "RunCompleted" in ended.out.splitlines()[-1]


def test_a_reader_that_goes_away_is_no_error(recorded: Command) -> None:
    ended = recorded.start(code=PIPED).end()
    assert ended.code == 0, ended
    assert ended.err == ""


PIPED = """
import subprocess, sys
first = subprocess.Popen([sys.executable, "-m", "engine.cli", "history", "good"], stdout=subprocess.PIPE)
first.stdout.close()
sys.exit(first.wait())
"""


@pytest.mark.parametrize("words", [("show", "x"), ("history", "x"), ("cancel", "x"), ("resume", "work.py", "x")])
def test_a_wrong_id(recorded: Command, words: tuple[str, ...]) -> None:
    ended = (recorded if words[0] == "resume" else recorded.inside)(*words)
    assert (ended.code, ended.out, ended.err) == (2, "", "error: no run 'x' in this store\n")


def test_cancel_of_an_ended_run(recorded: Command) -> None:
    ended = recorded.inside("cancel", "good")
    assert ended.code == 6
    assert ended.out == "run good has already ended: completed; there is nothing to cancel\n"


def test_a_run_of_another_workflow_is_not_resumed(recorded: Command) -> None:
    (recorded.folder / "other.py").write_text(
        "from engine import workflow\n@workflow\nasync def other() -> int:\n    return 1\n"
    )
    ended = recorded("resume", "other.py", "open")
    assert ended.code == 2, ended
    assert ended.err == "error: run open is of workflow 'steps', but other.py has other\n"


def test_cancel_while_somebody_works_on_it(holdfast: Command) -> None:
    started = holdfast.start("run", "work.py:steps", "n=1", "--id", "c1")
    started.until(lambda: "gated1" in holdfast.effects(), "the gated task began")
    asked = holdfast.inside("cancel", "c1", "--reason", "wrong day")
    assert asked.code == 0, asked
    assert asked.out == "run c1 is cancelled\n"
    ended = started.end()
    assert ended.code == 1, ended
    assert "cancel requested: wrong day" in ended.out
    assert "⊘ steps cancelled" in ended.out


def test_cancel_while_nobody_works_on_it(holdfast: Command, nobody_works: None) -> None:
    started = holdfast.start("run", "work.py:steps", "n=1", "--id", "c2")
    started.until(lambda: "gated1" in holdfast.effects(), "the gated task began")
    started.signal(signal.SIGKILL)
    started.end()
    asked = holdfast.inside("cancel", "c2")
    assert asked.code == 0, asked
    assert "recorded; nobody is working on the run now, so it takes effect when somebody next does" in asked.out
    resumed = holdfast("resume", "work.py", "c2", "--json")
    assert resumed.code == 1, resumed
    assert resumed.json()["status"] == "cancelled"
