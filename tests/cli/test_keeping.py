"""`prune` and `forget`: shown first, asked about, recorded, and only then done; as processes, on one store."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import Command


def ran(command: Command, run_id: str, *, name: str = "quick") -> None:
    ended = command("run", f"work.py:{name}", "--id", run_id)
    assert ended.code == 0, ended


@pytest.fixture
def three(holdfast: Command) -> Command:
    for run_id in ("a", "b", "c"):
        ran(holdfast, run_id)
    return holdfast


def ids(command: Command) -> list[str]:
    return sorted(each["run"] for each in command.inside("runs", "--json").json())


def test_what_would_go_is_shown_and_nothing_goes(three: Command) -> None:
    """Without a terminal there is nobody to ask."""
    shown = three("prune", "--keep", "1")
    assert shown.code == 0, shown
    assert "nothing was taken away; --yes does it" in shown.out
    row = next(line for line in shown.out.splitlines() if line.startswith("quick")).split()
    assert row[:4] == ["quick", "completed", "history", "2"]
    document = three("prune", "--keep", "1", "--json").json()
    assert (document["done"], document["runs_pruned"], document["left"]) == (False, 0, [])
    (group,) = document["groups"]
    assert (group["workflow"], group["status"], group["due"], group["runs"]) == ("quick", "completed", "prune", 2)
    assert group["bytes_about"] > 100
    assert ids(three) == ["a", "b", "c"]


def test_it_is_done_with_yes_and_says_by_whom_and_why(three: Command) -> None:
    ended = three("prune", "--keep", "1", "--yes", "--by", "ann", "--reason", "policy 7")
    assert ended.code == 0, ended
    assert "2 runs pruned: " in ended.out
    assert ids(three) == ["c"]
    shown = " ".join(three.inside("show", "a").out.split())
    assert "✂ pruned" in shown
    assert "by ann: policy 7" in shown
    assert "it had completed, with" in shown
    document = three.inside("show", "a", "--json").json()
    assert (document["status"], document["workflow"]) == ("pruned", "quick")
    assert (document["pruned"]["by"], document["pruned"]["reason"]) == ("ann", "policy 7")
    assert "RunPruned" in three.inside("history", "a").out
    listed = three.inside("runs", "--status", "pruned", "--json").json()
    assert sorted(each["run"] for each in listed) == ["a", "b"]
    verified = three.inside("verify", "--json").json()
    assert (verified["verifies"], verified["findings"]) == (True, [])
    assert verified["pruned_events"] > 5
    assert "which is no damage" in three.inside("verify").out
    assert three.inside("verify", "a").code == 0
    again = three("run", "work.py:quick", "--id", "a")
    assert again.code != 0
    for words in (("rerun", "work.py", "a"), ("fork", "work.py", "a", "--at", "2"), ("reopen", "work.py", "a")):
        refused = three(*words)
        assert refused.code == 6, refused
        assert "error: run 'a' was pruned: its history was taken away" in refused.err
    nothing = three("prune", "--keep", "1", "--yes")
    assert (nothing.code, nothing.out) == (0, "nothing is due: no run that has ended fits\n")


def test_values_alone_can_go(three: Command) -> None:
    ended = three("prune", "--older-than", "0s", "--payloads-only", "--limit", "2", "--yes", "--json", "--reason", "r")
    document = ended.json()
    assert (document["done"], document["runs_forgetful"], document["runs_pruned"]) == (True, 2, 0)
    assert document["payloads_destroyed"] > 2
    assert ids(three) == ["a", "b", "c"]
    assert three.inside("verify", "--json").json()["destroyed_payloads"] == document["payloads_destroyed"]
    assert "all values before this are made to be forgotten" in three.inside("history", "a").out


def test_forget_destroys_the_values_of_one_run(three: Command) -> None:
    shown = three("forget", "a")
    assert (shown.code, "nothing was destroyed; --yes does it" in shown.out) == (0, True), shown
    assert three.inside("show", "a", "--json").json()["result"] is not None
    one = three("forget", "a", "--version", "1", "--yes", "--json", "--by", "ann", "--reason", "request 7").json()
    assert (one["run"], one["done"], one["destroyed"]) == ("a", True, 1)
    ended = three("forget", "a", "--yes", "--by", "ann", "--reason", "request 7")
    assert "destroyed; the digests stay, and what remains verifies" in ended.out
    document = three.inside("show", "a", "--json").json()
    assert document["result"] is None
    assert (document["payloads_destroyed"]["by"], document["payloads_destroyed"]["reason"]) == ("ann", "request 7")
    shown_again = " ".join(three.inside("show", "a").out.split())
    assert "values of all events before that destroyed" in shown_again
    assert three.inside("show", "b", "--json").json()["result"] is not None
    nobody = three("forget", "nobody", "--yes")
    assert (nobody.code, "no run 'nobody'" in nobody.err) == (2, True), nobody


def test_bad_words_are_refused_before_anything(three: Command) -> None:
    for words, said in (
        (("prune", "--yes"), "say how old they must be, how many are to be kept, or both"),
        (("prune", "--older-than", "soon"), "'soon' is no age"),
        (("prune", "--older-than", "1d", "--status", "running"), "a run that is running has not ended"),
        (("prune", "--older-than", "1d", "--status", "gone"), "'gone' is none of"),
        (("forget", "a", "--version", "1", "--children"), "leave --children out"),
    ):
        ended = three(*words)
        assert ended.code == 2, ended
        assert said in " ".join(ended.err.replace("│", " ").split()), ended
    assert ids(three) == ["a", "b", "c"]


def asked(command: Command, answer: str, *words: str) -> tuple[int, str]:
    """The command at a terminal, and what somebody types there."""
    pid, terminal = pty.fork()
    if not pid:  # pragma: no cover - the other process
        os.chdir(command.folder)
        os.execve(
            sys.executable,
            [sys.executable, "-m", "engine.cli", *words],
            {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"},
        )
    said, typed = "", False
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # it has ended
            break
        if not data:
            break
        said += data.decode("utf-8", "replace")
        if "[y/N]" in said and not typed:
            typed = True
            os.write(terminal, f"{answer}\n".encode())
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), said


@pytest.mark.parametrize(("answer", "left"), [("n", ["a", "b", "c"]), ("y", ["c"])])
def test_at_a_terminal_it_asks(three: Command, answer: str, left: Any) -> None:
    code, said = asked(three, answer, "prune", "--keep", "1")
    assert "take 2 runs away for good?" in said
    assert code == 0, said
    assert ids(three) == left
