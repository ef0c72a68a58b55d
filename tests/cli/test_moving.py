"""`holdfast export --out` and `holdfast import` as processes, and the reader that stands alone."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import ROOT
from tests.cli.command import Command, Ended

STORE = ("--store", "sqlite:///there.db")


@pytest.fixture
def worked(holdfast: Command) -> Command:
    """A store with two runs that have ended."""
    holdfast.open_gate()
    for id_ in ("n-1", "n-2"):
        ended = holdfast("run", "work.py:steps", "n=1", "--id", id_, "--json")
        assert ended.code == 0, ended
    return holdfast


def read_alone(holdfast: Command, file: str) -> Ended:
    done = subprocess.run(
        [sys.executable, "-I", str(ROOT / "docs" / "read_export.py"), file],
        cwd=holdfast.folder,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def test_a_whole_store_goes_and_verifies(worked: Command) -> None:
    ended = worked("export", "--all", "--out", "all.holdfast", "--by", "ann", "--reason", "moving")
    assert ended.code == 0, ended
    assert ended.out.startswith("wrote all.holdfast: a whole store, ")
    checked = worked("import", "all.holdfast", "--check", "--json")
    assert checked.json()["runs"] is None
    assert not (worked.folder / "there.db").exists()
    ended = worked("import", "all.holdfast", *STORE, "--by", "bob", "--reason", "moved")
    assert ended.code == 0, ended
    assert ended.out.startswith("imported a whole store, ")
    shown = worked("history", "n-1", "--json"), worked("history", "n-1", "--json", *STORE)
    assert [_without_position(each) for each in shown[0].out.splitlines()] == [
        _without_position(each) for each in shown[1].out.splitlines()
    ]
    assert worked("verify", *STORE).code == 0
    again = worked("import", "all.holdfast", *STORE)
    assert (again.code, again.out) == (0, "nothing new in all.holdfast: all of it is here already\n")


def _without_position(line: str) -> dict[str, object]:
    return {name: value for name, value in json.loads(line).items() if name != "position"}


def test_runs_go_one_by_one_and_the_store_is_made(worked: Command) -> None:
    ended = worked("export", "n-1", "--out", "one.holdfast", "--json")
    assert ended.code == 0, ended
    said = ended.json()
    assert (said["runs"], said["streams"], said["unfinished"]) == (["n-1"], 1, 0)
    imported = worked("import", "one.holdfast", *STORE, "--json").json()
    assert (imported["sha256"], imported["new_streams"], imported["same"]) == (said["sha256"], 1, 0)
    listed = worked("runs", "--json", *STORE).out
    assert "n-1" in listed
    assert "n-2" not in listed
    seen = read_alone(worked, "one.holdfast")
    assert seen.code == 0, seen
    assert len(seen.out.splitlines()) == said["events"]
    assert "run:n-1 1  RunStarted" in seen.out


def test_a_read_only_export_writes_nothing(worked: Command) -> None:
    before = worked("export", "--all", "--read-only", "--out", "a.holdfast", "--json").json()
    after = worked("export", "--all", "--read-only", "--out", "b.holdfast", "--json").json()
    assert before["events"] == after["events"]
    recorded = worked("export", "--all", "--out", "c.holdfast", "--json").json()
    assert recorded["events"] == before["events"] + 1


def test_a_run_that_has_not_ended_is_paused_first(holdfast: Command) -> None:
    started = holdfast.start("run", "work.py:steps", "n=1", "--id", "w-1")
    started.until(lambda: "gated1" in holdfast.effects(), "an attempt that waits")
    ended = holdfast("export", "w-1", "--pause", "--out", "w.holdfast", "--json")
    assert ended.code == 0, ended
    assert (ended.json()["unfinished"], ended.json()["not_paused"]) == (1, [])
    assert holdfast("import", "w.holdfast", *STORE).code == 0
    shown = holdfast("show", "w-1", "--json", *STORE).json()
    assert shown["status"] == "paused"
    started.process.kill()
    started.end()


@pytest.mark.parametrize(
    "words",
    [
        ("export", "--out", "x"),
        ("export", "n-1", "--all", "--out", "x"),
        ("export", "--all"),
        ("export", "n-1", "n-2"),
        ("export", "n-1", "--pause"),
        ("export", "n-1", "--redact", "--out", "x"),
        ("export", "--all", "--pause", "--out", "x"),
        ("export", "nobody", "--out", "x"),
    ],
    ids=" ".join,
)
def test_wrong_usage_writes_nothing(worked: Command, words: tuple[str, ...]) -> None:
    ended = worked.inside(*words)
    assert ended.code == 2, ended
    assert not (worked.folder / "x").exists()


def test_what_is_damaged_is_refused_and_makes_no_store(worked: Command) -> None:
    assert worked("export", "--all", "--out", "all.holdfast").code == 0
    data = (worked.folder / "all.holdfast").read_bytes()
    (worked.folder / "cut.holdfast").write_bytes(data[: len(data) // 2])
    ended = worked("import", "cut.holdfast", *STORE)
    assert ended.code == 8, ended
    assert "cut.holdfast, line" in ended.err
    assert "cut off" in ended.err
    assert worked("import", "work.py", *STORE).code == 3
    assert worked("import", "nowhere", *STORE).code == 3
    assert worked("export", "--all", "--out", "all.holdfast").code == 3
    assert not (worked.folder / "there.db").exists()


def test_another_run_of_that_id_is_refused(worked: Command) -> None:
    assert worked("export", "n-1", "--out", "one.holdfast").code == 0
    assert worked("run", "work.py:steps", "n=1", "--id", "n-1", *STORE).code == 0
    ended = worked("import", "one.holdfast", *STORE)
    assert ended.code == 5, ended
    assert "run:n-1" in ended.err
    assert "has other events" in ended.err


def test_the_reader_that_stands_alone_finds_a_change(worked: Command) -> None:
    assert worked("export", "n-1", "--out", "one.holdfast").code == 0
    lines = gzip.decompress((worked.folder / "one.holdfast").read_bytes())
    changed = lines.replace(b"RunStarted", b"RunStartet")
    assert changed != lines
    (worked.folder / "changed.holdfast").write_bytes(gzip.compress(changed))
    seen = read_alone(worked, "changed.holdfast")
    assert seen.code == 1
    assert "run:n-1 1  RunStartet  WRONG: its digest does not follow" in seen.out
    assert "the file    WRONG: the file was cut off or changed" in seen.out
    assert Path(worked.folder / "one.holdfast").stat().st_mode & 0o777 == 0o600
