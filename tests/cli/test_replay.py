"""`holdfast replay` as a process: where the code of a run stands, in every state that a run can be in; pdb in it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, StackFrame, replay_run
from engine.errors import HoldfastError, RunFailedError, RunNotFound, UnknownWorkflow
from eventstore.urls import open_store
from tests.cli.command import DEADLINE_SECONDS, Command, Ended, environment

FILE = Path(__file__).parent / "standing.py"


def load(folder: Path, name: str = "standing") -> Any:
    spec = importlib.util.spec_from_file_location(f"replayed_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with runs in all states."""
    folder = tmp_path_factory.mktemp("replay")
    shutil.copy(FILE, folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        asyncio.run(fill(folder, load(folder)))
    finally:
        os.chdir(here)
    (folder / "effects").unlink()
    return folder


async def fill(folder: Path, code: Any) -> None:
    url = f"sqlite:///{folder}/holdfast.db?synchronous=NORMAL"
    workflows = [code.order, code.part, code.fails, code.shaky, code.ends, code.epochs, code.old]
    async with Engine(url, workflows=workflows, grace=0) as engine, asyncio.timeout(60):
        await engine.start(code.order("ann"), id="order")
        await engine.start(code.ends(7), id="later", delay=1_000_000)
        await engine.start(code.epochs(0), id="epochs")
        await engine.start(code.old(1), id="versioned")
        await engine.start(code.order("bob"), id="paused")
        failed = await engine.start(code.fails(3), id="failed")
        done = await engine.start(code.ends(4), id="done")
        with pytest.raises(RunFailedError):
            await failed.result()
        assert await done.result() == 4
        for run_id in ("order", "paused"):
            await waits(engine, run_id, lambda state: state.timers)
        await waits(engine, "epochs", lambda state: state.epoch == 2 and state.counts() == {"completed": 1})
        await waits(engine, "versioned", lambda state: state.counts() == {"completed": 1})
        await engine.run("paused").pause(by="ann")
        await waits(engine, "paused", lambda state: state.status == "paused")
        await engine.fork("order", at=5, id="forked")
        await waits(engine, "forked", lambda state: state.timers)
        for again in (False, True):
            shaky = await (engine.reopen("reopened") if again else engine.start(code.shaky(5), id="reopened"))
            with pytest.raises(RunFailedError):
                await shaky.result()
        gone = await engine.start(code.order("cid"), id="terminated")
        await waits(engine, "terminated", lambda state: state.timers)
        await gone.terminate()
        await waits(engine, "terminated", lambda state: state.ended)


async def waits(engine: Engine, run_id: str, condition: Any) -> None:
    while not condition(await engine.run(run_id).state()):
        await asyncio.sleep(0.01)


@pytest.fixture
def shop(recorded: Path, tmp_path: Path) -> Command:
    shutil.copytree(recorded, tmp_path, dirs_exist_ok=True)
    return Command(tmp_path)


def digest(folder: Path) -> tuple[str, list[Any]]:
    """The file, byte for byte, and every row of it, for what a journal beside the file may hold."""
    with contextlib.closing(sqlite3.connect(f"file:{folder}/holdfast.db?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for name in sorted(tables) for row in connection.execute(f"SELECT * FROM {name}")]
    return hashlib.sha256((folder / "holdfast.db").read_bytes()).hexdigest(), rows


def change(shop: Command, before: str, after: str, *, file: str = "standing.py") -> None:
    text = FILE.read_text()
    assert text.count(before) == 1
    (shop.folder / file).write_text(text.replace(before, after))


def by_name(document: Any) -> dict[str, Any]:
    return {branch["name"].removeprefix("order/"): branch for branch in document["branches"]}


def own(branch: Any) -> list[Any]:
    return [frame for frame in branch["stack"] if not frame["library"]]


def piped(shop: Command, typed: str, *words: str) -> Ended:
    """pdb driven through a pipe, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", *words],
        cwd=shop.folder,
        env=environment(),
        input=typed,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_SECONDS,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def test_every_branch_says_what_it_awaits_and_where(shop: Command) -> None:
    before = digest(shop.folder)
    ended = shop("replay", "standing.py", "order", "--json")
    assert ended.code == 0, ended
    document = ended.json()
    branches = by_name(document)
    assert set(branches) == {"order", "deep~1", "kid~1", "never~1", "listen~1", "queue~1", "ask~1"}
    assert branches["order"]["awaits"] == "asyncio.taskgroups.TaskGroup.__aexit__"
    assert branches["deep~1"]["awaits"].startswith("a timer until ")
    assert branches["kid~1"]["awaits"].startswith("child run order/kid~1/part#1")
    assert branches["never~1"]["awaits"] == "task never [order/never~1/never#1]"
    assert branches["listen~1"]["awaits"] == "signal go"
    assert branches["ask~1"]["awaits"] == "request ask"
    assert branches["queue~1"]["awaits"] == "asyncio.queues.Queue.get"
    (frame,) = own(branches["deep~1"])
    assert (frame["function"], frame["source"]) == ("deep", "await asyncio.sleep(3_600)  # here")
    assert frame["file"] == str(shop.folder / "standing.py")
    assert FILE.read_text().splitlines()[frame["line"] - 1].strip() == frame["source"]
    assert frame["locals"]["rows"] == "2"
    assert frame["locals"]["hostile"] == "<Hostile, whose repr raised RuntimeError>"
    assert len(frame["locals"]["large"]) <= 200
    assert [each["function"] for each in own(branches["listen~1"])] == ["listen", "words"]
    assert own(branches["order"])[0]["locals"]["first"] == "1"
    texts = [each["text"] for each in document["decisions"]]
    assert texts[0] == "load(1)  [order/load#1]"
    assert 'set attributes {"first":1,"stage":"loaded","who":"ann"}' in texts[1]
    assert document["decisions"][0]["site"].startswith("standing.py:")
    assert (document["status"], document["ahead"], document["diagnosis"]) == ("running", [], None)
    assert document["version"] == document["versions"] == document["stands_at"]
    assert digest(shop.folder) == before, "nothing was written"
    assert shop.effects() == [], "no task ran"


def test_it_is_shown_to_a_person(shop: Command) -> None:
    ended = shop("replay", "standing.py", "order")
    assert ended.code == 0, ended
    assert "order  order  … running  replayed to version" in ended.out
    assert "7 branches, where it stands" in ended.out
    assert "  order/never~1  awaits task never [order/never~1/never#1]\n" in ended.out
    assert f'    File "{shop.folder}/standing.py", line' in ended.out
    assert "        hostile = <Hostile, whose repr raised RuntimeError>\n" in ended.out
    assert "\ndecisions so far\n     2  load(1)  [order/load#1]  standing.py:" in ended.out


def test_to_any_event(shop: Command) -> None:
    """At each one it fits, and says how it stood there; the log is as it was."""
    before = digest(shop.folder)
    last = shop("replay", "standing.py", "order", "--json").json()["versions"]
    seen = []
    for version in (1, 2, 3, 4, 5, last):
        ended = shop("replay", "standing.py", "order", "--to", str(version), "--json")
        assert ended.code == 0, ended
        document = ended.json()
        assert (document["version"], document["stands_at"]) == (version, version)
        assert all(each["version"] <= version for each in document["decisions"])
        seen.append((len(document["branches"]), len(document["decisions"]), len(document["ahead"])))
    assert seen[0] == (1, 0, 1), "the first turn has decided what is not recorded at version 1"
    assert seen[1] == seen[2] == (1, 1, 0)
    assert seen[3][0] == 7, "the turn was taken"
    assert seen[3][2] > 0
    assert seen[-1][2] == 0
    assert digest(shop.folder) == before


@pytest.mark.parametrize("version", ["0", "-1", "x"])
def test_a_version_is_a_number(shop: Command, version: str) -> None:
    assert shop("replay", "standing.py", "order", "--to", version).code == 2


def test_what_is_wrong_is_named(shop: Command) -> None:
    ended = shop("replay", "standing.py", "order", "--to", "9999")
    assert ended.code == 2
    assert "events: there is no version 9,999 to replay it to" in ended.err
    assert "no run 'nobody'" in shop("replay", "standing.py", "nobody").err
    ended = shop("replay", "standing.py:ends", "order")
    assert (ended.code, ended.out) == (2, "")
    assert "is of workflow 'order', which is not among those given: ends" in ended.err
    for place, said in (
        ("standing.py", "is not FILE:LINE"),
        ("standing.py:9999", "is not there"),
        ("standing.py:2", "is blank"),
        ("gone.py:3", "no such file"),
    ):
        ended = shop("replay", "standing.py", "order", "--break", place)
        assert (ended.code, ended.out) == (2, ""), ended
        assert said in ended.err
    assert shop("replay", "standing.py", "order", "--store", "sqlite:///gone.db").code == 3
    assert not (shop.folder / "gone.db").exists()


def test_a_queued_run_has_no_branch_yet(shop: Command) -> None:
    ended = shop("replay", "standing.py", "later")
    assert ended.code == 0, ended
    assert "queued" in ended.out
    assert "no branch: its code has not begun" in ended.out


def test_an_ended_run_is_shown_as_it_stood_before(shop: Command) -> None:
    document = shop("replay", "standing.py", "done", "--json").json()
    assert (document["status"], document["ended"]) == ("completed", "RunCompleted")
    assert document["stands_at"] == document["version"] - 2, "before the fact of the last turn"
    ((branch,), (frame,)) = document["branches"], own(document["branches"][0])
    assert branch["awaits"] == "task load [ends/load#1]"
    assert frame["source"] == "got = await load(n)"


def test_of_a_failed_run_it_says_where_the_error_came_from(shop: Command) -> None:
    ended = shop("replay", "standing.py", "failed")
    assert ended.code == 0, ended
    assert "its code ended it in the last turn (RunFailed)" in ended.out
    assert "      raise ValueError(reason)\n" in ended.out
    assert "        reason = 'because of 3'\n" in ended.out
    assert "1 branch, as it stood at" in ended.out


def test_a_reopened_run_stands_before_its_last_end(shop: Command) -> None:
    document = shop("replay", "standing.py", "reopened", "--json").json()
    assert (document["status"], document["ended"]) == ("failed", "RunFailed")
    assert own({"stack": document["raised"]})[0]["source"] == "await refuse()"
    assert own(document["branches"][0])[0]["locals"] == {"n": "5", "tries": "5"}
    counting = [each["text"] for each in document["decisions"]]
    assert len(counting) == 2, "what was taken back does not count"


def test_a_suspended_run_fits_the_code_that_wrote_it(shop: Command) -> None:
    change(shop, 'durable.set_attributes(who=who, stage="loaded", first=first)', "await load(9)")
    assert shop("resume", "standing.py", "order").code == 4
    assert shop("replay", "standing.py", "order").code == 4
    shutil.copy(FILE, shop.folder)
    ended = shop("replay", "standing.py", "order", "--json")
    assert ended.code == 0, ended
    assert ended.json()["status"] == "suspended"
    assert len(ended.json()["branches"]) == 7


def test_no_state_of_a_run_is_changed_by_looking(shop: Command) -> None:
    before = digest(shop.folder)
    for run_id in ("later", "epochs", "versioned", "paused", "failed", "reopened", "forked", "terminated", "done"):
        assert shop("replay", "standing.py", run_id).code == 0
    assert digest(shop.folder) == before
    assert shop.effects() == []


@pytest.mark.parametrize("run_id", ["paused", "forked", "terminated"])
def test_paused_forked_and_terminated_runs_stand_too(shop: Command, run_id: str) -> None:
    document = shop("replay", "standing.py", run_id, "--json").json()
    assert document["status"] == {"forked": "running"}.get(run_id, run_id)
    assert len(document["branches"]) == 7
    assert document["stands_at"] == document["version"]


def test_epochs_are_replayed_each_from_its_own_beginning(shop: Command) -> None:
    document = shop("replay", "standing.py", "epochs", "--json").json()
    assert document["epoch"] == 2
    assert own(document["branches"][0])[0]["locals"] == {"n": "2", "here": "2"}
    assert [each["text"].partition(" ")[0] for each in document["decisions"]] == ["load(2)"]
    epochs = []
    for version in range(1, document["versions"] + 1):
        at = shop("replay", "standing.py", "epochs", "--to", str(version), "--json")
        assert at.code == 0, at
        epochs.append(at.json()["epoch"])
    assert epochs == sorted(epochs)
    assert set(epochs) == {0, 1, 2}
    ended = [shop("replay", "standing.py", "epochs", "--to", str(n), "--json").json()["ended"] for n in (4, 5)]
    assert ended == ["ContinuedAsNew", "ContinuedAsNew"]


def test_a_run_is_replayed_as_the_version_that_it_is_on(shop: Command) -> None:
    document = shop("replay", "standing.py", "versioned", "--json").json()
    assert document["workflow_version"] == "1"
    assert own(document["branches"][0])[0]["function"] == "old"


def test_code_that_does_not_fit_stops_it_there(shop: Command) -> None:
    change(shop, 'durable.set_attributes(who=who, stage="loaded", first=first)', "await load(9)")
    before = digest(shop.folder)
    ended = shop("replay", "standing.py", "order")
    assert ended.code == 4, ended
    assert "code and history do not fit" in ended.out
    assert "history has" in ended.out
    assert "the code now asks for" in ended.out
    assert "load(9)" in ended.out
    assert "1 branch, as it stood at 3" in ended.out
    document = shop("replay", "standing.py", "order", "--json")
    assert document.code == 4
    assert document.json()["diagnosis"]["version"] == 4
    assert own(document.json()["branches"][0])[0]["source"] == "first = await load(1)"
    fits = shop("replay", "standing.py", "order", "--to", "3")
    assert fits.code == 0, "up to there it fits"
    assert digest(shop.folder) == before


def test_code_that_decides_more_than_an_ended_run_did_does_not_fit(shop: Command) -> None:
    """As the gate finds, too: a run that has ended has all that its last turn decided."""
    change(
        shop,
        "    got = await load(n)\n    return got",
        "    got = await load(n)\n    durable.set_attributes(n=n)\n    return got",
    )
    ended = shop("replay", "standing.py", "done", "--json")
    assert ended.code == 4, ended
    ((difference,), document) = ended.json()["diagnosis"]["differences"], ended.json()
    assert difference["decided"].startswith('set attributes {"n":4}')
    assert document["stands_at"] == document["diagnosis"]["version"] - 1
    assert shop("replay", "standing.py", "done", "--to", "4").code == 0, "at its fact it is only ahead"
    assert shop("gate", "standing.py:ends", "--closed", "9").code == 4


def test_workers_may_go_on_meanwhile(shop: Command) -> None:
    """A run that somebody works on is replayed all the same."""
    worker = shop.start("resume", "standing.py", "order")
    worker.wait_for("order")
    ended = shop("replay", "standing.py", "order", "--json")
    assert ended.code == 0, ended
    assert len(ended.json()["branches"]) == 7
    worker.process.kill()
    worker.end()


# -- pdb ---------------------------------------------------------------------------------------------------------------


def test_debug_opens_pdb_where_it_stands(shop: Command) -> None:
    typed = "p who\nbranch 2\np rows, n\nn\nup\nbranch nobody\nbranch order/listen~1\nw\nup\np 1/0\nhelp branch\nc\n"
    before = digest(shop.folder)
    ended = piped(shop, typed, "replay", "standing.py", "order", "--debug")
    assert ended.code == 0, ended
    assert "  2  order/deep~1  awaits a timer until " in ended.out
    assert "(replay) 'ann'\n" in ended.out
    assert "-> await asyncio.sleep(3_600)  # here\n(replay) (2, 2)\n" in ended.out
    assert "*** Nothing runs further here" in ended.out
    assert "there is no branch 'nobody'" in ended.out
    assert "async for word in words():\n" in ended.out
    assert "-> yield await go.receive()\n" in ended.out
    assert "*** ZeroDivisionError" in ended.out
    assert "branch N: look at the stack of another branch" in ended.out
    assert "7 branches, where it stands" in ended.out
    assert digest(shop.folder) == before
    assert ended.err == ""


def test_debug_opens_pdb_where_an_error_was_raised(shop: Command) -> None:
    ended = piped(shop, "p got\nbranches\nbranch 1\np n\nq\n", "replay", "standing.py", "failed", "--debug")
    assert ended.code == 0, ended
    assert "-> raise ValueError(reason)\n(replay) 3\n" in ended.out
    assert "  1  fails  awaits task load [fails/load#1]\n" in ended.out
    assert "-> got = await load(n)\n(replay) 3\n" in ended.out


def test_debug_opens_pdb_before_the_turn_that_does_not_fit(shop: Command) -> None:
    change(shop, 'durable.set_attributes(who=who, stage="loaded", first=first)', "await load(9)")
    ended = piped(shop, "p who\nq\n", "replay", "standing.py", "order", "--debug")
    assert ended.code == 4, ended
    assert "-> first = await load(1)\n(replay) 'ann'\n" in ended.out
    assert "the code now asks for" in ended.out


def test_debug_where_no_code_stands(shop: Command) -> None:
    ended = piped(shop, "", "replay", "standing.py", "later", "--debug")
    assert ended.code == 0, ended
    assert "there is nothing to look at" in ended.out


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(FILE.read_text().splitlines(), 1) if text in line)


def test_a_breakpoint_stops_where_the_code_runs_and_goes_on_over_awaits(shop: Command) -> None:
    place = f"standing.py:{line_of('first = await load(1)')}"
    before = digest(shop.folder)
    typed = "p who\nn\np first\nn\nn\nw\nc\n"
    ended = piped(shop, typed, "replay", "standing.py", "order", "--break", place)
    assert ended.code == 0, ended
    assert "-> first = await load(1)\n(Pdb) 'ann'\n" in ended.out
    assert "-> durable.set_attributes(who=who" in ended.out
    assert "(Pdb) 1\n" in ended.out
    assert "engine/core" not in ended.out.partition("order  order")[0], "only the author's own code is stepped through"
    assert "7 branches, where it stands" in ended.out
    assert digest(shop.folder) == before
    assert shop.effects() == [], "over an await goes the history, not the task"


def test_what_is_typed_may_reach_outside(shop: Command) -> None:
    place = f"standing.py:{line_of('rows = await load(n)')}"
    typed = "open('typed', 'w').write('yes')\nimport subprocess\nc\n"
    ended = piped(shop, typed, "replay", "standing.py", "order", "--break", place)
    assert ended.code == 0, ended
    assert "ForbiddenInWorkflow" not in ended.out + ended.err
    assert (shop.folder / "typed").read_text() == "yes"


def test_workflow_code_still_may_not(shop: Command) -> None:
    """The debugger is let through, the code that it looks at is not."""
    change(shop, "    first = await load(1)\n", "    first = await load(1)\n    touched = touch()\n")
    with (shop.folder / "standing.py").open("a") as file:
        file.write("\n\ndef touch():\n    return list(map(open, ['touched'], ['w']))  # deterministic: for this test\n")
    place = f"standing.py:{line_of('first = await load(1)')}"
    ended = piped(shop, "c\n", "replay", "standing.py", "order", "--break", place)
    assert ended.code == 4, ended
    assert not (shop.folder / "touched").exists()
    assert "raise engine.errors.ForbiddenInWorkflow" in ended.out


def test_quitting_at_a_breakpoint_ends_the_replay(shop: Command) -> None:
    place = f"{shop.folder}/standing.py:{line_of('first = await load(1)')}"
    for typed in ("q\n", ""):  # an end of input is one, too
        ended = piped(shop, typed, "replay", "standing.py", "order", "--break", place, "--json")
        assert (ended.code, ended.out) == (0, ""), ended
        assert "left at a breakpoint; nothing was changed" in ended.err
        assert "Traceback" not in ended.err
        assert "Warning" not in ended.err


def test_a_breakpoint_that_is_not_reached_is_said(shop: Command) -> None:
    place = f"standing.py:{line_of('reason = f')}"
    ended = piped(shop, "", "replay", "standing.py", "order", "--break", place)
    assert ended.code == 0, ended
    assert f"the replay came to no breakpoint ({place})" in ended.err


def test_breakpoint_in_workflow_code_opens_pdb(shop: Command) -> None:
    change(shop, "    first = await load(1)\n", "    first = await load(1)\n    breakpoint()\n")
    ended = piped(shop, "p first\nn\nc\n", "replay", "standing.py", "order", "--json")
    assert ended.code == 0, ended
    assert len(ended.json()["branches"]) == 7, "stdout is the document's alone"
    assert "-> durable.set_attributes" in ended.err
    assert "(Pdb) 1\n" in ended.err
    assert "(Pdb) > " in ended.err


def test_breakpoint_of_a_run_that_ended_stops_once(shop: Command) -> None:
    change(shop, "    got = await load(n)\n    return got", "    breakpoint()\n    got = await load(n)\n    return got")
    ended = piped(shop, "p n\nc\n", "replay", "standing.py", "done")
    assert ended.code == 0, ended
    assert ended.out.count("(Pdb)") == 2
    assert "1 branch, as it stood at" in ended.out


def test_a_terminal_drives_it_too(shop: Command) -> None:
    """As a person does: through a terminal, answer by answer."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "replay", "standing.py", "order", "--debug"],
        cwd=shop.folder,
        env=environment() | {"TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
    )
    os.close(theirs)
    said = ""

    def until(text: str) -> None:
        nonlocal said
        deadline = time.monotonic() + 2 * DEADLINE_SECONDS
        while text not in said:
            assert time.monotonic() < deadline, said
            try:
                said += os.read(ours, 10_000).decode()
            except OSError:
                break
        assert text in said, said
        said = said.partition(text)[2]

    try:
        until("(replay) ")
        for typed, answer in (
            ("p who", "'ann'"),
            ("branch 2", "sleep(3_600)"),
            ("p rows", "2"),
            ("q", "decisions so far"),
        ):
            os.write(ours, f"{typed}\n".encode())
            until(answer)
        assert process.wait(DEADLINE_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


# -- from a program ----------------------------------------------------------------------------------------------------


async def test_a_program_asks_the_same(recorded: Path) -> None:
    code = load(recorded)
    store = await open_store(f"sqlite:///{recorded}/holdfast.db", read_only=True)
    try:
        replayed = await replay_run(store, "order", [code.order])
        assert {branch.name for branch in replayed.branches} >= {"order", "order/deep~1"}
        assert all(isinstance(frame, StackFrame) for branch in replayed.branches for frame in branch.stack)
        assert replayed.diagnosis is None
        earlier = await replay_run(store, "order", [code.order], to=2)
        assert (len(earlier.branches), earlier.version, earlier.status) == (1, 2, "running")
        with pytest.raises(RunNotFound):
            await replay_run(store, "nobody", [code.order])
        with pytest.raises(UnknownWorkflow):
            await replay_run(store, "order", [code.ends])
        with pytest.raises(HoldfastError, match="no version 0"):
            await replay_run(store, "order", [code.order], to=0)
        seen: list[Any] = []

        class Looking:
            def run(self, work: Any, *, again: bool, opened: Any) -> None:
                seen.append(again)
                work()

            def look(self, branches: Any, raised: Any) -> None:
                seen.append((len(branches), branches[0].frames[0].frame.f_locals["n"], raised.tb_lineno > 0))

        await replay_run(store, "failed", [code.fails], debugger=Looking())
        assert seen == [False, True, (1, 3, True)]
    finally:
        await store.aclose()


async def test_a_turn_that_does_not_end_is_broken_off(recorded: Path, tmp_path: Path) -> None:
    text = FILE.read_text().replace(
        "    first = await load(1)\n", "    first = await load(1)\n    while True:\n        pass\n"
    )
    (tmp_path / "spinning.py").write_text(text)
    code = load(tmp_path, "spinning")
    store = await open_store(f"sqlite:///{recorded}/holdfast.db", read_only=True)
    try:
        replayed = await replay_run(store, "order", [code.order], turn_seconds=0.2)
        assert replayed.diagnosis is not None
        assert replayed.diagnosis.reason == "spinning"
        assert replayed.stands_at == 3
    finally:
        await store.aclose()
