"""Each way to ask for what cannot be: one clear message on stderr, the right exit code, no traceback, nothing harmed."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.cli.app import app
from engine.cli.problems import Exit, Problem, problem_of
from engine.errors import EngineFailed, RunNotFound
from eventstore import NotAStore, StoreUnavailable
from tests.cli.command import Command, Ended


def refused(ended: Ended, code: int, *said: str) -> None:
    assert ended.code == code, ended
    assert all(each in ended.err for each in said), ended
    assert ended.err.startswith("error: "), ended
    assert "Traceback" not in ended.out + ended.err, ended


def test_an_unknown_workflow(holdfast: Command) -> None:
    refused(holdfast("run", "work.py:nightly"), 2, "work.py has no workflow 'nightly'; its workflows: steps, thread")
    assert not (holdfast.folder / "holdfast.db").exists(), "nothing was created for it"


def test_arguments_that_do_not_fit(holdfast: Command) -> None:
    ended = holdfast("run", "work.py:steps", "n=many", "--json")
    refused(ended, 2, "n needs an int, got 'many'", "steps(n: int = 4, label: str = 'x')")
    assert ended.out == ""
    assert not (holdfast.folder / "holdfast.db").exists()


@pytest.mark.parametrize("words", [("run", "work.py:quick"), ("runs",), ("cancel", "x")])
def test_a_file_that_is_no_database(holdfast: Command, words: tuple[str, ...]) -> None:
    file = holdfast.folder / "holdfast.db"
    file.write_bytes(b"these are my notes\n" * 100)
    refused(holdfast(*words), 3, "holdfast.db is not a SQLite database")
    assert file.read_bytes() == b"these are my notes\n" * 100


def test_a_database_of_another_program(holdfast: Command) -> None:
    file = holdfast.folder / "holdfast.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE songs (name)")
    before = file.read_bytes()
    refused(holdfast("run", "work.py:quick"), 3, "is a SQLite database of another program")
    assert file.read_bytes() == before


def test_a_newer_schema(holdfast: Command) -> None:
    assert holdfast("run", "work.py:quick", "--id", "q").code == 0
    with closing(sqlite3.connect(holdfast.folder / "holdfast.db")) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute("PRAGMA user_version=999")
        refused(holdfast("run", "work.py:quick"), 3, "has schema version 999", "upgrade")
        connection.execute(f"PRAGMA user_version={version}")
    assert holdfast.inside("show", "q", "--json").json()["status"] == "completed", "the log is intact"


@pytest.mark.parametrize("words", [("runs",), ("show", "x"), ("history", "x"), ("cancel", "x")])
def test_commands_that_read_create_no_store(holdfast: Command, words: tuple[str, ...]) -> None:
    refused(holdfast.inside(*words), 3, "no store at", "there is no such file")
    assert sorted(each.name for each in holdfast.folder.iterdir()) == ["work.py"]


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("runs.db", 2, "sqlite:///"),
        ("mysql://host/db", 2, "'mysql' is no kind of store"),
        ("sqlite:///no/such/folder/runs.db", 3, "no/such/folder does not exist"),
    ],
)
def test_a_store_that_cannot_be(holdfast: Command, url: str, code: int, said: str) -> None:
    refused(holdfast("run", "work.py:quick", "--store", url), code, said)


def test_two_workflows_under_one_id(holdfast: Command) -> None:
    assert holdfast("run", "work.py:quick", "--id", "same").code == 0
    refused(holdfast("run", "work.py:printing", "--id", "same"), 2, "run 'same' exists already")
    refused(holdfast("run", "work.py:quick", "n=2", "--id", "same"), 2, "run 'same' exists already")
    assert holdfast.inside("show", "same", "--json").json()["workflow"] == "quick"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fly"], "No such command 'fly'"),
        (["run"], "Missing argument 'TARGET'"),
        (["run", "work.py", "--what"], "No such option: --what"),
        (["runs", "--status", "lost"], "'lost' is none of queued, running, paused, suspended, completed"),
        (["runs", "--limit", "0"], "--limit"),
        (["run", "x.py", "--grace", "-1"], "--grace"),
    ],
)
def test_words_the_command_does_not_know(words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert said in result.output


def test_debug_shows_the_traceback(holdfast: Command) -> None:
    ended = holdfast.inside("runs", "--debug")
    assert ended.code == 3
    assert "Traceback" in ended.err
    assert "error: no store at" in ended.err


AS_NOBODY = """
import os, sys
import engine.cli.app
sys.path.insert(0, os.getcwd())
engine.cli.app.app([*sys.argv[1:-1], "sqlite:///warm.db"], standalone_mode=False)  # loads all there is to load
os.setgid(65534); os.setuid(65534)
engine.cli.app.entry()
"""
"""The same command twice: as root on a store of its own, then as somebody who may not even read our modules."""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_no_permission() -> None:
    # Not below pytest's folders: every pytest that starts closes their root to others again.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copy(Path(__file__).parent / "work.py", folder / "work.py")
        holdfast = Command(folder)
        closed = folder / "closed"
        closed.mkdir(0o700)
        store = f"sqlite:///{closed}/runs.db"
        assert holdfast("run", "work.py:quick", "--store", store, "--id", "q").code == 0
        for words in (("run", "work.py:quick"), ("runs",)):  # in this order: the first makes warm.db
            ended = holdfast.start(*words, "--store", store, code=AS_NOBODY).end()
            assert ended.code == 3, ended
            assert "error: " in ended.err
            assert "permission" in ended.err
            assert "no such file" not in ended.err
            assert "Traceback" not in ended.err
        assert holdfast.inside("show", "q", "--store", store, "--json").json()["status"] == "completed"


def test_a_disk_that_is_full(holdfast: Command) -> None:
    """A limit on the size of files stands for it; it is raised until writing fails in the middle of the run."""
    holdfast.open_gate()
    words = ("run", "work.py:steps", "n=300", "--id", "big")
    for limit in range(200_000, 500_000, 50_000):
        limits = (limit, limit)
        ended = holdfast(*words, preexec_fn=lambda limits=limits: resource.setrlimit(resource.RLIMIT_FSIZE, limits))
        refused(ended, 3, "holdfast.db")
        if holdfast.inside("show", "big").code == 0:
            break
    again = holdfast("run", "work.py:steps", "n=300", "--json")
    assert again.code == 0, again
    assert again.json()["run"] == "big", "it went on with what was recorded"


def test_a_full_file_system(holdfast: Command, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    if shutil.which("mount") is None or os.system(f"mount -t tmpfs -o size=300k none {full} 2>/dev/null") != 0:
        pytest.skip("no file system can be mounted here")
    try:
        holdfast.open_gate()
        ended = holdfast("run", "work.py:steps", "n=2000", "--store", f"sqlite:///{full}/runs.db")
        refused(ended, 3, "no space is left for")
    finally:
        os.system(f"umount {full}")


@pytest.mark.parametrize("log", ["brought in", "beside it"])
def test_a_read_only_file_system(holdfast: Command, tmp_path: Path, log: str) -> None:
    """An archive on a medium that nobody can write is read all the same; what must write says that it cannot."""
    medium = tmp_path / "medium"
    medium.mkdir()
    if shutil.which("mount") is None or os.system(f"mount -t tmpfs -o size=9m none {medium} 2>/dev/null") != 0:
        pytest.skip("no file system can be mounted here")
    try:
        store = f"sqlite:///{medium}/runs.db"
        assert holdfast.inside("run", "work.py:quick", "--store", store, "--id", "q").code == 0
        if log == "beside it":
            (medium / "runs.db-wal").write_bytes(b"what the last writer left, which was killed")
        assert os.system(f"mount -o remount,ro {medium}") == 0
        for words in (("runs",), ("show", "q"), ("history", "q"), ("verify",)):
            ended = holdfast.inside(*words, "--store", store)
            if log == "brought in":
                assert ended.code == 0, ended
            else:
                refused(ended, 3, "copy both")
        refused(holdfast.inside("run", "work.py:quick", "--store", store), 3, "Read-only file system")
    finally:
        os.system(f"umount {medium}")


def test_problems_have_their_codes() -> None:
    failed = EngineFailed("the engine stopped")
    failed.__cause__ = StoreUnavailable("no space is left")
    assert problem_of(failed).message == "the engine stopped: no space is left"
    assert problem_of(failed).code == Exit.STORE
    assert problem_of(NotAStore("x")).code == Exit.STORE
    assert problem_of(RunNotFound("x")).code == Exit.USAGE
    assert problem_of(PermissionError(13, "Permission denied", "f")).message == "f: Permission denied"
    assert problem_of(ExceptionGroup("all", [Problem("one")])).message == "one"
    assert problem_of(ZeroDivisionError("x")).code == Exit.DEFECT
