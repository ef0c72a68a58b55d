"""`diff`, `rerun`, `reopen`, `fork`, `what-if`, `show --at`, and many runs at once: as processes, on one store."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

import pytest

from engine import Engine, workflow
from tests.cli.command import Command, Ended

HERE = Path(__file__).parent


@pytest.fixture
def holdfast(tmp_path: Path) -> Command:
    shutil.copy(HERE / "mend.py", tmp_path / "mend.py")
    return Command(tmp_path)


def failed(command: Command, run_id: str, n: int = 4) -> None:
    ended = command("run", "mend.py:nightly", f"n={n}", "--id", run_id)
    assert ended.code == 1, ended


def mend(command: Command) -> None:
    (command.folder / "up").touch()


def completed(ended: Ended, result: int) -> Ended:
    assert ended.code == 0, ended
    assert (ended.json()["status"], ended.json()["result"]) == ("completed", result)
    return ended


def test_reopen_tries_the_failed_task_anew_and_watches(holdfast: Command) -> None:
    failed(holdfast, "r")
    mend(holdfast)
    ended = holdfast("reopen", "mend.py", "r", "--reason", "it is back", "--by", "ann")
    assert ended.code == 0, ended
    assert "run r goes on behind its end\n" in ended.out
    assert "✔ nightly completed" in ended.out
    assert holdfast.effects() == ["extract", "load", "load"]
    history = holdfast.inside("history", "r").out
    assert "RunReopened" in history
    assert "the turn that ended it is taken back, and with it what led to that; by ann: it is back" in history
    assert "reopened once" in " ".join(holdfast.inside("show", "r").out.split())
    assert holdfast.inside("show", "r", "--json").json()["reopened"] == 1
    again = holdfast("reopen", "mend.py", "r", "--json")
    assert (again.code, again.out) == (5, ""), again
    assert "error: run 'r' has completed: there is nothing to go on with" in again.err


def test_reopen_can_be_left_to_others(holdfast: Command) -> None:
    failed(holdfast, "r")
    mend(holdfast)
    left = holdfast("reopen", "mend.py", "r", "--leave")
    assert left.code == 0, left
    assert "or: holdfast resume mend.py r" in left.out
    assert holdfast.inside("show", "r", "--json").json()["status"] == "running"
    completed(holdfast("resume", "mend.py", "r", "--json"), 44)


def test_rerun_is_a_new_run_that_says_of_what(holdfast: Command) -> None:
    failed(holdfast, "r")
    mend(holdfast)
    completed(holdfast("rerun", "mend.py", "r", "--id", "again", "--reason", "late data", "--json"), 44)
    assert holdfast.effects() == ["extract", "load", "extract", "load"]
    assert holdfast.inside("show", "again", "--json").json()["rerun_of"] == "r"
    assert "rerun of run r" in " ".join(holdfast.inside("show", "again").out.split())
    assert "rerun of r: late data" in holdfast.inside("history", "again").out
    assert holdfast.inside("show", "r", "--json").json()["status"] == "failed"
    left = holdfast("rerun", "mend.py", "r", "--leave", "--json").json()
    assert left["run"].startswith("r~")


def test_fork_with_a_result_given(holdfast: Command) -> None:
    mend(holdfast)
    completed(holdfast("run", "mend.py:nightly", "--id", "r", "--json"), 44)
    events = [line.split() for line in holdfast.inside("history", "r").out.splitlines()]
    at = next(line[0] for line in events if line[3] == "TaskCompleted")
    words = (
        "fork",
        "mend.py",
        "r",
        "--at",
        at,
        "--set",
        'extract#1={"count": 5}',
        "--by",
        "ann",
        "--reason",
        "why not",
    )
    completed(holdfast(*words, "--id", "f", "--json"), 55)
    assert holdfast.effects() == ["extract", "load", "load"]
    history = holdfast.inside("history", "f").out
    assert "from run r at version" in history
    assert "with the result of extract#1 given; by ann: why not" in history
    assert "from here on it is a run of its own" in history
    document = holdfast.inside("show", "f", "--json").json()
    assert document["fork_of"]["run"] == "r"
    assert [each["origin"] for each in holdfast.inside("runs", "--json").json()] == ["r", None]
    text = holdfast("fork", "mend.py", "r", "--at", at)
    assert text.code == 0, text
    assert f"is a fork of r at version {at}" in text.out
    assert "fork of" in holdfast.inside("show", "f").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--at", "99"), "run 'r' has 8 events: it cannot be forked at version 99"),
        (("--at", "4", "--set", "extract"), "--set 'extract' is not of the form TASK=VALUE, as in --set 'extract#1="),
        (("--at", "4", "--set", "extract#1=five"), "task extract needs Rows as JSON, got"),
        (("--at", "4", "--set", "extract#1={}"), "task extract needs Rows as JSON, got"),
        (("--at", "4", "--set", "nobody#1=5"), "does not wait for task 'nightly/nobody#1'"),
        (
            ("--at", "4", "--set", 'extract#1={"count":1}', "--set", 'nightly/extract#1={"count":1}'),
            "gives two results",
        ),
        (("--at", "4", "--id", "r"), "run 'r' exists already, and is another one than this fork"),
    ],
)
def test_forks_that_make_no_sense(holdfast: Command, words: tuple[str, ...], said: str) -> None:
    failed(holdfast, "r")
    ended = holdfast("fork", "mend.py", "r", *words)
    assert ended.code in (2, 5), ended
    assert said in ended.err, ended
    assert len(holdfast.inside("runs", "--json").json()) == 1


@pytest.mark.parametrize("verb", ["rerun", "reopen", "fork", "what-if"])
def test_nonsense_is_refused(holdfast: Command, verb: str) -> None:
    at = ("--at", "3") if verb in ("fork", "what-if") else ()
    missing = holdfast(verb, "mend.py", "r", *at)
    assert missing.code == 3, missing
    assert "no store at" in missing.err
    failed(holdfast, "r")
    unknown = holdfast(verb, "mend.py", "nobody", *at)
    assert (unknown.code, unknown.err) == (2, "error: no run 'nobody' in this store\n")
    (holdfast.folder / "other.py").write_text(
        "from engine import workflow\n\n\n@workflow\nasync def other() -> int:\n    return 1\n"
    )
    foreign = holdfast(verb, "other.py", "r", *at)
    assert foreign.code == 2, foreign
    assert "run r is of workflow 'nightly', but other.py has other" in foreign.err
    if verb in ("rerun", "reopen"):
        neither = holdfast(verb, "mend.py")
        assert neither.code == 2, neither
        assert "name a run, or many with --workflow NAME" in neither.err
        both = holdfast(verb, "mend.py", "r", "--workflow", "nightly")
        assert both.code == 2, both
        assert "not both" in both.err


def test_many_are_shown_first_and_then_dealt_with(holdfast: Command) -> None:
    for run_id in ("a", "b", "c"):
        failed(holdfast, run_id)
    mend(holdfast)
    completed(holdfast("run", "mend.py:nightly", "--id", "good", "--json"), 44)
    shown = holdfast("reopen", "mend.py", "--workflow", "nightly", "--status", "failed", "--limit", "2")
    assert shown.code == 0, shown
    assert [line.split()[0] for line in shown.out.splitlines()[1:3]] == ["c", "b"]
    assert "nothing is done yet; with --yes reopen these 2 failed runs of nightly" in shown.out
    assert "… and there are more" in shown.out
    assert {each["status"] for each in holdfast.inside("runs", "--status", "failed", "--json").json()} == {"failed"}
    listed = holdfast("reopen", "mend.py", "--workflow", "nightly", "--json").json()
    assert (listed["done"], [each["run"] for each in listed["runs"]]) == (False, ["c", "b", "a"])
    done = holdfast("reopen", "mend.py", "--workflow", "nightly", "--yes", "--by", "ann")
    assert done.code == 0, done
    assert "run c goes on behind its end" in done.out
    assert "or: holdfast resume mend.py" in done.out
    ended = holdfast("resume", "mend.py:nightly", "--json")
    assert ended.code == 0, ended
    assert {each["result"] for each in ended.json()["runs"]} == {44}
    none = holdfast("reopen", "mend.py", "--workflow", "nightly", "--yes")
    assert "there are no failed runs of nightly in this store" in none.out
    refused = holdfast("reopen", "mend.py", "--workflow", "nightly", "--status", "completed", "--yes", "--json")
    assert refused.code == 5, refused
    assert [each["done"] for each in refused.json()["runs"]] == [False] * 4
    reruns = holdfast("rerun", "mend.py", "--workflow", "nightly", "--status", "completed", "--limit", "2", "--yes")
    assert reruns.code == 0, reruns
    assert reruns.out.count("is a rerun of") == 2


def test_many_are_cancelled(holdfast: Command, nobody_works: None) -> None:
    mend(holdfast)
    for run_id in ("w1", "w2"):
        started = holdfast.start("run", "mend.py:waiting", "--id", run_id, "--grace", "0")
        started.until(lambda run_id=run_id: _is_there(holdfast, run_id), "it has begun")
        started.process.kill()
        started.end()
    shown = holdfast.inside("cancel", "--workflow", "waiting")
    assert shown.code == 0, shown
    assert "with --yes cancel these 2 queued or running or paused or suspended runs of waiting" in shown.out
    done = holdfast.inside("cancel", "--workflow", "waiting", "--yes", "--json", "--reason", "enough")
    assert done.code == 0, done
    assert [each["run"] for each in done.json()["runs"]] == ["w2", "w1"]
    ended = holdfast("resume", "mend.py:waiting", "--json")
    assert ended.code == 1, ended
    assert {each["status"] for each in ended.json()["runs"]} == {"cancelled"}
    neither = holdfast.inside("cancel")
    assert neither.code == 2, neither


def test_those_that_have_not_begun_are_cancelled_too(holdfast: Command) -> None:
    mend(holdfast)
    asyncio.run(_start_later(holdfast.folder, "later"))
    done = holdfast.inside("cancel", "--workflow", "waiting", "--yes", "--json").json()
    assert [(each["run"], each["done"]) for each in done["runs"]] == [("later", True)]
    ended = holdfast("resume", "mend.py:waiting", "--json")
    assert (ended.code, [each["status"] for each in ended.json()["runs"]]) == (1, ["cancelled"]), ended


async def _start_later(folder: Path, run_id: str) -> None:
    @workflow
    async def waiting() -> int:
        return 1

    async with Engine(f"sqlite:///{folder}/holdfast.db", workflows=[waiting], only={run_id}) as client:
        run = await client.start(waiting(), id=run_id, delay=3600)
        assert await run.status() == "queued"


def _is_there(command: Command, run_id: str) -> bool:
    listed = command.inside("runs", "--json")
    return listed.code == 0 and run_id in [each["run"] for each in listed.json()]


def test_show_at_a_version_and_where_two_runs_part(holdfast: Command) -> None:
    failed(holdfast, "r")
    mend(holdfast)
    completed(holdfast("rerun", "mend.py", "r", "--id", "again", "--json"), 44)
    early = holdfast.inside("show", "r", "--at", "3", "--json").json()
    assert (early["status"], early["version"], [each["status"] for each in early["tasks"]]) == (
        "running",
        3,
        ["running"],
    )
    assert "… running" in holdfast.inside("show", "r", "--at", "3").out
    beyond = holdfast.inside("show", "r", "--at", "30")
    assert (beyond.code, beyond.err) == (2, "error: run r has 8 events: there is no version 30\n")
    found = holdfast.inside("diff", "r", "again")
    assert found.code == 0, found
    assert found.out.startswith("4 facts and decisions are alike; then:")
    assert "TaskFailed" in found.out
    assert "TaskCompleted" in found.out
    document = holdfast.inside("diff", "r", "again", "--json").json()
    assert (document["alike"], document["rows"][0]["left"]["header"]["type"]) == (4, "TaskFailed")
    assert "… 1 more" in holdfast.inside("diff", "r", "again", "--rows", "1").out
    completed(holdfast("rerun", "mend.py", "again", "--id", "third", "--json"), 44)
    alike = holdfast.inside("diff", "again", "third")
    assert alike.out == "runs again and third are alike: all 6 facts and decisions of either\n"
    unknown = holdfast.inside("diff", "again", "nobody")
    assert (unknown.code, unknown.err) == (2, "error: no run 'nobody' in this store\n")


def test_what_if_says_what_would_have_come_of_it(holdfast: Command) -> None:
    failed(holdfast, "r")
    before = holdfast.inside("history", "r").out
    words = ("what-if", "mend.py", "r", "--at", "4")
    found = holdfast(*words, "--set", "load#1=70")
    assert found.code == 0, found
    assert found.out.startswith(
        "it was       failed: ConnectionError: the warehouse is down\nit would be  completed: 74\n"
    )
    assert "4 facts and decisions are alike; then:" in found.out
    document = holdfast(*words, "--set", "load#1=70", "--json").json()
    assert (document["was"]["status"], document["would_be"]) == (
        "failed",
        {"status": "completed", "result": 74, "error": None},
    )
    same = holdfast(*words, "--set", "nobody#1=1")
    assert "it would be  failed: ConnectionError: the warehouse is down" in same.out
    assert "given, and never called: nobody#1" in same.out
    assert "all 6 facts and decisions are alike" in same.out
    code = (holdfast.folder / "mend.py").read_text()
    (holdfast.folder / "mend.py").write_text(code.replace("await load(rows) + rows.count", "await load(Rows(n + 1))"))
    other = holdfast(*words)
    assert other.code == 0, other
    assert "answered as recorded, though they would be asked with other arguments: load#1" in other.out
    late = holdfast("what-if", "mend.py", "r", "--at", "6")
    assert (late.code, late.out) == (5, ""), late
    assert "the present code does not fit run 'r' up to version 6" in late.err
    assert holdfast.inside("history", "r").out == before
    assert holdfast.effects() == ["extract", "load"]
    assert len(holdfast.inside("runs", "--json").json()) == 1


@pytest.mark.parametrize(
    ("words", "run_id", "loads"),
    [(("reopen", "mend.py", "r"), "r", 3), (("fork", "mend.py", "r", "--at", "4", "--id", "f"), "f", 3)],
    ids=["reopen", "fork"],
)
def test_killed_while_it_goes_on(holdfast: Command, words: tuple[str, ...], run_id: str, loads: int) -> None:
    """What was recorded is recorded: whoever comes next goes on with it, and nothing is reopened or forked twice."""
    failed(holdfast, "r")
    mend(holdfast)
    (holdfast.folder / "hold").touch()
    started = holdfast.start(*words)
    started.until(lambda: holdfast.effects().count("load") == 2, "the task is tried anew")
    started.signal(signal.SIGKILL)
    started.end()
    (holdfast.folder / "hold").unlink()
    completed(holdfast("resume", "mend.py", run_id, "--json"), 44)
    assert holdfast.effects() == ["extract", *["load"] * loads]
    history = holdfast.inside("history", run_id).out
    assert history.count("RunReopened") + history.count("RunForked") == 1
