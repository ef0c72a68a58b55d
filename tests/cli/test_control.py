"""`pause`, `unpause`, `terminate` as processes, beside a process that has the run, and without one."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import Command, Started


@pytest.fixture
def holdfast(tmp_path: Path) -> Command:
    for name in ("work.py", "talk.py"):
        shutil.copy(Path(__file__).parent / name, tmp_path / name)
    return Command(tmp_path)


def gated(command: Command, run_id: str) -> Started:
    """A run that waits at its gate, in a process."""
    started = command.start("run", "talk.py:marks", "--id", run_id)
    started.until(lambda: "gated0" in command.effects(), "the gated task began")
    return started


def killed(command: Command, run_id: str) -> None:
    """A run that nobody works on."""
    started = gated(command, run_id)
    started.signal(signal.SIGKILL)
    started.end()


def status(command: Command, run_id: str) -> Any:
    return command.inside("show", run_id, "--json").json()["status"]


def test_a_paused_run_says_so_and_how_it_goes_on(holdfast: Command) -> None:
    started = gated(holdfast, "p1")
    paused = holdfast.inside("pause", "p1", "--reason", "lunch", "--by", "bob")
    assert paused.code == 0, paused
    assert paused.out == "run p1 is paused; 1 task that is under way will still end, and be recorded\n"
    started.wait_for("run p1 is paused by bob: lunch; it goes on after: holdfast unpause p1")
    holdfast.open_gate()
    started.wait_for("done 1/1  gated#1")
    again = holdfast.inside("pause", "p1", "--json")
    assert (again.code, again.json()["status"]) == (0, "paused")
    assert again.json()["message"] == "run p1 is paused already by bob: lunch"
    assert "‖ paused" in holdfast.inside("runs", "--status", "paused").out
    document = holdfast.inside("show", "p1", "--json").json()
    assert {key: document["paused"][key] for key in ("by", "reason")} == {"by": "bob", "reason": "lunch"}
    assert holdfast.effects() == ["gated0"], "nothing begins"
    gone_on = holdfast.inside("unpause", "p1")
    assert (gone_on.code, gone_on.out.startswith("run p1 ")) == (0, True), gone_on
    ended = started.end()
    assert ended.code == 0, ended
    assert holdfast.effects() == ["gated0", "mark0", "mark1", "mark2"]


def test_a_run_that_nobody_works_on_is_paused_when_somebody_next_does(holdfast: Command, nobody_works: None) -> None:
    killed(holdfast, "p2")
    holdfast.open_gate()
    asked = holdfast.inside("pause", "p2", "--by", "bob")
    assert asked.code == 0, asked
    assert "the request to pause run p2 is recorded; nobody is working on the run now" in asked.out
    assert status(holdfast, "p2") == "running"
    started = holdfast.start("resume", "talk.py", "p2", "--grace", "0.1")
    started.wait_for("run p2 is paused by bob; it goes on after: holdfast unpause p2")
    started.signal(signal.SIGINT)
    stopped = started.end()
    assert stopped.code == 130, stopped
    assert "Run p2 is paused by bob; it goes on after: holdfast unpause p2." in stopped.out
    again = holdfast.start("run", "talk.py:marks", "--grace", "0.1")
    again.wait_for("run p2, paused, ")
    again.wait_for("run p2 is paused by bob")
    assert holdfast.inside("unpause", "p2").code == 0
    ended = again.end()
    assert ended.code == 0, ended


def test_unpause_waits_for_somebody_and_follows_a_pause_on_its_way(holdfast: Command, nobody_works: None) -> None:
    killed(holdfast, "p3")
    holdfast.open_gate()
    holdfast.inside("pause", "p3")
    said = holdfast.inside("unpause", "p3")
    assert said.code == 0, said
    assert said.out.startswith("run p3 is not paused: it is running; if a request to pause it is on its way")
    ended = holdfast("resume", "talk.py", "p3", "--json")
    assert (ended.code, ended.json()["status"]) == (0, "completed"), ended


def test_terminate_runs_no_more_code(holdfast: Command) -> None:
    started = gated(holdfast, "t1")
    asked = holdfast.inside("terminate", "t1", "--reason", "enough", "--by", "bob")
    assert (asked.code, asked.out) == (0, "run t1 is terminated\n"), asked
    ended = started.end()
    assert ended.code == 1, ended
    assert "⊘ marks terminated" in ended.out
    assert "enough" in ended.out
    again = holdfast.inside("terminate", "t1", "--json")
    assert (again.code, again.json()["status"]) == (6, "terminated")
    for verb in ("pause", "unpause", "cancel"):
        late = holdfast.inside(verb, "t1")
        assert (late.code, late.out) == (6, f"run t1 has already ended: terminated; there is nothing to {verb}\n")


def test_terminate_of_a_run_that_nobody_works_on(holdfast: Command, nobody_works: None) -> None:
    killed(holdfast, "t2")
    asked = holdfast.inside("terminate", "t2")
    assert "the request to terminate run t2 is recorded; nobody is working on the run now" in asked.out
    resumed = holdfast("resume", "talk.py", "t2", "--json")
    assert (resumed.code, resumed.json()["status"]) == (1, "terminated"), resumed


def test_a_paused_workflow_holds_its_runs(holdfast: Command) -> None:
    holdfast.open_gate()
    assert holdfast("run", "talk.py:marks", "n=1", "--id", "before").code == 0
    paused = holdfast.inside("pause", "--workflow", "marks", "--reason", "no power", "--by", "ops")
    assert paused.code == 0, paused
    assert paused.out.startswith("workflow marks is paused: none of its runs begins anything")
    assert holdfast.inside("pause", "--workflow", "marks").out == "workflow marks is paused already by ops: no power\n"
    started = holdfast.start("run", "talk.py:marks", "n=2", "--id", "held")
    line = "workflow marks is paused by ops: no power; its runs go on after: holdfast unpause --workflow marks"
    started.wait_for(line)
    assert line in holdfast.inside("runs").out
    assert "workflow paused by ops: no power;" in " ".join(holdfast.inside("show", "held").out.split())
    assert holdfast.effects() == ["gated0", "mark0"], "of the run before it alone"
    assert holdfast.inside("show", "held", "--json").json()["workflow_paused"]["by"] == "ops"
    released = holdfast.inside("unpause", "--workflow", "marks", "--json")
    assert (released.code, released.json()["paused"]) == (0, False)
    ended = started.end()
    assert ended.code == 0, ended
    assert holdfast.inside("unpause", "--workflow", "marks").out == "workflow marks is not paused, nor is any other\n"


def test_a_workflow_that_nobody_knows_is_paused_with_a_word(holdfast: Command) -> None:
    assert holdfast("run", "work.py:quick", "--id", "q").code == 0
    said = holdfast.inside("pause", "--workflow", "quik")
    assert said.code == 0, said
    assert "there is no run of quik in this store so far" in said.out
    other = holdfast.inside("unpause", "--workflow", "quick")
    assert other.out == "workflow quick is not paused; paused are quik\n"


@pytest.mark.parametrize("verb", ["pause", "unpause"])
def test_a_run_or_a_workflow_must_be_named(holdfast: Command, verb: str) -> None:
    for words in ((), ("r1", "--workflow", "w"), ("--workflow", "")):
        ended = holdfast.inside(verb, *words)
        assert ended.code == 2, ended
        assert not (holdfast.folder / "holdfast.db").exists()


@pytest.mark.parametrize("verb", ["pause", "unpause", "terminate", "cancel"])
def test_nonsense_is_refused(holdfast: Command, verb: str) -> None:
    missing = holdfast.inside(verb, "x")
    assert missing.code == 3, missing
    assert "no store at" in missing.err
    assert holdfast("run", "work.py:quick", "--id", "q").code == 0
    unknown = holdfast.inside(verb, "x")
    assert (unknown.code, unknown.err) == (2, "error: no run 'x' in this store\n")
    strange = holdfast.inside(verb, "a\x00b")
    assert strange.code == 2, strange
    assert "cannot be a run's id" in strange.err


def test_children_are_counted_listed_and_shown(holdfast: Command) -> None:
    started = holdfast.start("run", "talk.py:family", "n=3", "--id", "f1")
    started.wait_for("child failed 1/3  run f1/child~3/child#1")
    holdfast.open_gate()
    ended = started.end()
    assert ended.code == 0, ended
    assert "child done 3/3  run f1/child~" in ended.out
    assert "3 child runs: 2 completed, 1 ended otherwise" in ended.out
    listed = holdfast.inside("runs", "--parent", "f1", "--json").json()
    assert {each["run"] for each in listed} == {f"f1/child~{k}/child#1" for k in (1, 2, 3)}
    assert {each["parent"] for each in listed} == {"f1"}
    assert holdfast.inside("runs").out.splitlines()[0].split()[-1] == "parent"
    children = holdfast.inside("show", "f1", "--json").json()["children"]
    assert [each["status"] for each in children] == ["completed", "completed", "failed"]
    child = holdfast.inside("show", "f1/child~1/child#1")
    assert "parent run f1, call child~1/child#1" in " ".join(child.out.split()), child
    again = holdfast("run", "talk.py:family", "n=3", "--id", "f1", "--json").json()
    assert again["children"] == {"total": 3, "running": 0, "completed": 2, "failed": 1}


def test_a_run_that_continues_as_new_counts_each_epoch(holdfast: Command) -> None:
    ended = holdfast("run", "talk.py:rounds", "--id", "r1")
    assert ended.code == 0, ended
    assert [line.partition("] ")[2].split(" in ")[0] for line in ended.out.splitlines() if line.startswith("[")] == [
        "done 1/1  mark#1",
        "goes on as new, epoch 1",
        "done 1/1  mark#1",
        "goes on as new, epoch 2",
        "done 1/1  mark#1",
    ]
    assert holdfast.inside("show", "r1", "--json").json()["epoch"] == 2
