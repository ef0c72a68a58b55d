"""`signal`, `request`, `query`, `state`, `feed`, `complete`, `reject` as processes, beside a process that has the run."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import Command, Ended, Started

HERE = Path(__file__).parent


def refused(ended: Ended, code: int, *said: str) -> None:
    assert ended.code == code, ended
    assert all(each in ended.err for each in said), ended
    assert ended.err.startswith("error: "), ended
    assert "Traceback" not in ended.out + ended.err, ended


def command_in(folder: Path) -> Command:
    for name in ("work.py", "talk.py"):
        shutil.copy(HERE / name, folder / name)
    return Command(folder)


def working(command: Command, *words: str) -> Started:
    """A process that works on a run, whose output goes to a file: nobody reads it."""
    with (command.folder / "worker.out").open("ab") as out:
        return command.start("run", *words, stdout=out, stderr=out)


def shown(command: Command, run_id: str) -> Any:
    ended = command.inside("show", run_id, "--json")
    return ended.json() if ended.code == 0 else {"version": 0, "status": "", "requests": [], "signals": [], "tasks": []}


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """A run `o1` that somebody works on. Tests talk with it, and do not end it."""
    command = command_in(tmp_path_factory.mktemp("talking"))
    worker = working(command, "talk.py:order", "--id", "o1")
    worker.until(lambda: shown(command, "o1")["version"] >= 2, "the run began")
    yield command
    worker.signal(signal.SIGINT)
    worker.end()


def test_a_signal_is_heard_once_by_its_id(talking: Command) -> None:
    for _ in range(2):
        ended = talking("signal", "talk.py", "o1", "note", "hello you", "--id", "once", "--by", "ann", "--json")
        assert ended.code == 0, ended
        assert {key: ended.json()[key] for key in ("run", "signal", "id", "status")} == {
            "run": "o1", "signal": "note", "id": "once", "status": "running",
        }  # fmt: skip
    said = given(talking, b"and you\n", "signal", "talk.py:order", "o1", "note_down", "-", "--id", "twice")
    assert (said.code, said.out) == (0, "signal note is in the mailbox of run o1 (id twice)\n"), said
    answer = talking("query", "talk.py", "o1", "plus", "1")
    assert answer.code == 0, answer
    heard = [each for each in shown(talking, "o1")["signals"] if each["name"] == "note"]
    assert [(each["id"], each["by"], each["value"]) for each in heard if each["id"] == "once"] == [
        ("once", "ann", "hello you")
    ]


def given(command: Command, data: bytes, *words: str) -> Ended:
    """The command with this on its standard input."""
    file = command.folder / "given"
    file.write_bytes(data)
    with file.open("rb") as stream:
        return command(*words, stdin=stream)


def test_standard_input_may_be_too_large_or_no_text(talking: Command) -> None:
    words = ("signal", "talk.py", "o1", "note", "-")
    refused(given(talking, b"x" * 300_000, *words), 2, "a history holds at most 262,144 of one value")
    refused(given(talking, b"\xff\xfe", *words), 2, "standard input is not UTF-8 text")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ("signal", "talk.py", "o1", "aprove", "true"),
            2,
            "its signals: approve (bool), note (str), go (None), day (date)",
        ),
        (("signal", "talk.py", "o1", "approve", "yes"), 2, "signal approve needs a bool (true, false), got 'yes'"),
        (("signal", "talk.py", "o1", "approve"), 2, "signal approve needs a bool (true, false): give it as VALUE"),
        (("signal", "talk.py", "o1", "go", "5"), 2, "signal go takes no value, got '5'"),
        (("signal", "talk.py", "nobody", "go"), 2, "no run 'nobody' in this store"),
        (("signal", "talk.py", "a\nb", "go"), 2, "cannot be a run's id"),
        (("signal", "talk.py", "o1", "go", "--id", "x" * 600), 2, "message"),
        (("signal", "work.py", "o1", "go"), 2, "work.py has no signal 'go', nor any other"),
        (("signal", "tlk.py", "o1", "go"), 2, "no such file: tlk.py; did you mean talk.py?"),
        (("request", "talk.py", "o1", "reviw", "{}"), 2, "Did you mean review?"),
        (("request", "talk.py", "o1", "review", '{"pages": 2}'), 2, "Object missing required field `text`"),
        (("query", "talk.py", "o1", "plus", "x"), 2, "query plus needs an int, got 'x'"),
        (("query", "talk.py", "nobody", "progress"), 2, "no run 'nobody' in this store"),
        (("state", "talk.py", "o1", "phas"), 2, "Did you mean phase? Run o1 has published"),
        (("state", "talk.py", "o1", "unset"), 1, "has published no state 'unset' yet"),
        (("feed", "talk.py", "o1", "lag"), 2, "Did you mean log?"),
    ],
)
def test_what_cannot_be_said_is_refused_here(talking: Command, words: tuple[str, ...], code: int, said: str) -> None:
    refused(talking(*words), code, said)


def test_a_run_of_another_workflow_is_not_talked_with(talking: Command) -> None:
    (talking.folder / "other.py").write_text(
        "from engine import Signal, workflow\ngo = Signal('go', None)\n@workflow\nasync def other() -> int:\n    return 1\n"
    )
    refused(talking("signal", "other.py", "o1", "go"), 2, "run o1 is of workflow 'order', but other.py has other")


def test_nothing_is_made_where_no_store_is(tmp_path: Path) -> None:
    command = command_in(tmp_path)
    for verb in ("signal", "state"):
        refused(command(verb, "talk.py", "o1", "go" if verb == "signal" else "phase"), 3, "no store at")
    assert not (tmp_path / "holdfast.db").exists()


def test_a_request_is_answered_and_the_same_id_is_the_same_request(talking: Command) -> None:
    words = ("request", "talk.py", "o1", "review", '{"text": "abc"}', "--id", "r1")
    ended = talking(*words)
    assert (ended.code, ended.out, ended.err) == (0, "  ABC\n", ""), ended
    again = talking(*words, "--json")
    assert again.json() == {
        "run": "o1", "request": "review", "id": "r1", "status": "answered", "answer": "ABC", "error": None,
    }  # fmt: skip
    assert [each["status"] for each in shown(talking, "o1")["requests"] if each["id"] == "r1"] == ["answered"]


def test_a_request_is_refused_or_fails_each_in_its_way(talking: Command) -> None:
    ended = talking("request", "talk.py", "o1", "review", '{"text": "abc", "pages": 0}', "--json")
    refused(ended, 5, "('review') was refused: a draft has a page at least")
    assert ended.json()["status"] == "refused"
    assert ended.json()["error"] == {"type": "ValueError", "message": "a draft has a page at least"}
    failed = talking("request", "talk.py", "o1", "review", '{"text": "abc", "pages": 13}', "--json")
    refused(failed, 1, "('review') failed with ValueError: unlucky")
    assert (failed.json()["status"], failed.json()["error"]["message"]) == ("failed", "unlucky")


def test_a_wait_that_is_over_takes_nothing_back(talking: Command) -> None:
    words = ("request", "talk.py", "o1", "review", '{"text": "a b", "pages": 1000}', "--id", "long")
    accepted = talking(*words, "--no-wait")
    assert accepted.code == 0, accepted
    assert accepted.out.splitlines() == [
        "request review is accepted by run o1 (id long); its answer:",
        """  holdfast request talk.py o1 review --id long '{"text": "a b", "pages": 1000}'""",
    ]
    ended = talking(*words, "--timeout", "0.5", "--json")
    refused(ended, 7, "request 'long' ('review') was not answered by run 'o1' within 0.5 s; it is not taken back")
    assert "To ask again, for the same answer: holdfast request talk.py o1 review --id long" in ended.err
    assert ended.json()["status"] == "accepted"


def test_a_request_that_nobody_serves_says_why_it_takes_long(talking: Command) -> None:
    started = talking.start("request", "talk.py", "o1", "never-served", "3", "--id", "u1")
    started.wait_for("not accepted yet: run o1 does not serve 'never-served' now, or nobody is working on it")
    started.signal(signal.SIGINT)
    ended = started.end()
    assert ended.code == 130, ended
    assert "to ask again: holdfast request talk.py o1 never-served --id u1 3" in ended.err
    refused(
        talking("request", "talk.py", "o1", "never-served", "3", "--id", "u1", "--timeout", "0.5"), 7, "not accepted"
    )
    heard = talking("request", "talk.py", "o1", "review", '{"text": "still"}')
    assert heard.out == "  STILL\n", "the run hears other mail all the same"


def test_queries_are_answered_by_a_replay(talking: Command) -> None:
    version = shown(talking, "o1")["version"]
    ended = talking("query", "talk.py", "o1", "progress", "--json")
    assert ended.code == 0, ended
    assert set(ended.json()["answer"]) == {"heard"}
    assert shown(talking, "o1")["version"] >= version
    (talking.folder / "asks.py").write_text(
        "from talk import order\nfrom engine import Query\nnone = Query('nothing', None, int)\n"
    )
    refused(talking("query", "asks.py", "o1", "nothing"), 1, "provides no answer to query 'nothing' now")


def test_states_and_feeds_are_read_without_anybody_who_works(tmp_path: Path) -> None:
    command = command_in(tmp_path)
    worker = working(command, "talk.py:order", "--id", "s1")
    worker.until(lambda: shown(command, "s1")["version"] >= 2, "the run began")
    for text in ("one", "two"):
        assert command("signal", "talk.py", "s1", "note", text).code == 0
    worker.until(lambda: len(shown(command, "s1")["signals"]) == 2, "the signals are heard")
    worker.signal(signal.SIGKILL)
    worker.end()
    everything = command("state", "talk.py", "s1", "--json")
    assert everything.json() == {"run": "s1", "states": {"phase": "open", "count": 2}, "initial": {}}, everything
    lines = command("state", "talk.py", "s1").out.splitlines()
    assert [line.split() for line in lines] == [["state", "value"], ["phase", '"open"', "str"], ["count", "2", "int"]]
    assert command("state", "talk.py", "s1", "count", "--json").json() == {"run": "s1", "state": "count", "value": 2}
    assert command("feed", "talk.py", "s1", "log", "--json").out == '"one"\n"two"\n'
    (tmp_path / "talk.py").write_text(
        (tmp_path / "talk.py").read_text().replace('State("count", int)', 'State("count", str)')
    )
    refused(command("state", "talk.py", "s1", "count"), 2, "recorded as something that str does not take")
    assert "recorded as something else than str" in command("state", "talk.py", "s1").out
    (tmp_path / "bare.py").write_text(
        "from engine import workflow\n@workflow\nasync def order() -> list[str]:\n    return []\n"
    )
    assert command("state", "bare.py", "s1", "phase").out == "  open\n", "as it stands in the log"
    assert command("feed", "bare.py", "s1", "log").out == "one\ntwo\n"


def test_a_feed_is_followed_to_the_end_of_the_run(tmp_path: Path) -> None:
    command = command_in(tmp_path)
    worker = working(command, "talk.py:order", "--id", "f1")
    worker.until(lambda: shown(command, "f1")["version"] >= 2, "the run began")
    following = command.start("feed", "talk.py", "f1", "log", "--follow")
    for words in (("note", "first"), ("note", "second"), ("approve", "true"), ("go",)):
        assert command("signal", "talk.py", "f1", *words).code == 0
    ended = following.end()
    assert (ended.code, ended.out) == (0, "first\nsecond\n"), ended
    assert worker.end().code == 0
    gone = command("signal", "talk.py", "f1", "go")
    refused(gone, 6, "run 'f1' has ended: it takes no more messages")
    refused(command("request", "talk.py", "f1", "review", '{"text": "x"}', "--json"), 6, "has ended")
    assert command("state", "talk.py", "f1", "phase").out == "  approved\n"


def test_a_task_that_was_handed_out_is_ended_by_its_token(tmp_path: Path) -> None:
    command = command_in(tmp_path)
    for run_id, end in (("h1", ("complete", "5")), ("h2", ("reject", "nobody is there"))):
        started = command.start("run", "talk.py:handed", "--id", run_id)
        started.wait_for("handed out  approval#1: it waits for its token")
        token = (tmp_path / "token").read_text()
        assert re.search(r"approval#1 +handed out +1 +waits for its token", command.inside("show", run_id).out)
        refused(command("complete", token, "x", "--task", "talk.py:approval"), 2, "task approval needs an int, got 'x'")
        refused(command("complete", token, '"x"', "--task", "talk.py:mark"), 2, "is for task", "not for task 'mark'")
        ended = command(end[0], token, end[1], "--by", "ann", "--json")
        assert ended.code == 0, ended
        assert ended.json()["outcome"] == ("completed" if end[0] == "complete" else "rejected")
        result = started.end()
        assert result.code == (0 if end[0] == "complete" else 1), result
        assert ("\n  5\n" if end[0] == "complete" else "nobody is there") in result.out
        refused(command(end[0], token, end[1]), 6, "has ended")
    refused(command("complete", "nonsense", "5"), 2, "'nonsense' is not a completion token")
    refused(command("reject", "", "why"), 2, "is not a completion token")


def test_json_stays_one_document_also_when_the_target_prints(talking: Command) -> None:
    (talking.folder / "loud.py").write_text("print('loud')\nfrom talk import *\nfrom talk import order\n")
    ended = talking("state", "loud.py", "o1", "--json")
    assert ended.code == 0, ended
    assert json.loads(ended.out)["run"] == "o1"
    assert "loud" in ended.err
