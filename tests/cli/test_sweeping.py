"""Large values on the command line: a file that holds them, one that does not, and sweeping; as processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.cli.test_large_values import STORE, recorded

__all__ = ["recorded"]  # the fixture

THERE = ("--store", "sqlite:///there.db?storage=elsewhere")
BARE = ("--store", "sqlite:///runs.db")


def objects(command: Command, folder: str = "values") -> list[Path]:
    return sorted((command.folder / folder).glob("??/*"))


def make_old(command: Command, folder: str = "values") -> None:
    for path in objects(command, folder):
        os.utime(path, (0, 0))


def test_one_file_holds_all_of_it(recorded: Command) -> None:
    ended = recorded("export", "--all", "--out", "all.holdfast", "--store", STORE)
    assert ended.code == 0, ended
    assert "with 2 large values, " in ended.out
    read_only = recorded("export", "r", "--read-only", "--out", "ro.holdfast", "--store", STORE, "--json").json()
    assert (read_only["values"], read_only["values_elsewhere"]) == (2, 0)
    assert recorded("import", "all.holdfast", "--check", "--json").json()["values"] == 2
    refused = recorded("import", "all.holdfast", "--store", "sqlite:///there.db")
    assert refused.code == 3, refused
    assert "holds 2 large values, and nothing says where they are to lie" in " ".join(refused.err.split())
    imported = recorded("import", "all.holdfast", *THERE)
    assert imported.code == 0, imported
    assert [path.name for path in objects(recorded, "elsewhere")] == [path.name for path in objects(recorded)]
    assert recorded("gate", "work.py", "--closed", "5", *THERE).code == 0
    rerun = recorded("rerun", "work.py", "r", "--id", "again", *THERE, "--json")
    assert rerun.json()["result"] == {"length": 600_000, "rows": 3}


def test_a_file_without_them_says_so(recorded: Command) -> None:
    refused = recorded("export", "--all", "--out", "x", *BARE)
    assert refused.code == 3, refused
    assert "it would name 2 large values" in " ".join(refused.err.split())
    assert not (recorded.folder / "x").exists()
    ended = recorded("export", "--all", "--no-values", "--out", "x", *BARE)
    assert ended.code == 0, ended
    assert "2 large values that it names are not in it" in ended.out
    imported = recorded("import", "x", "--store", "sqlite:///there.db")
    assert imported.code == 0, imported
    assert "2 large values that it names are not in it" in imported.out
    rerun = recorded("rerun", "work.py", "r", "--id", "again", "--store", "sqlite:///there.db?storage=values", "--json")
    assert rerun.json()["result"] == {"length": 600_000, "rows": 3}
    assert recorded("export", "r", "--no-values", *BARE).code == 2


def test_what_a_pruned_run_had_is_swept(recorded: Command) -> None:
    make_old(recorded)
    looked = recorded("sweep", "--store", STORE)
    assert (looked.code, "0 objects" in looked.out, "2 stay" in looked.out) == (0, True, True), looked
    assert recorded("prune", "--older-than", "0s", "--yes", "--store", STORE).code == 0
    assert len(objects(recorded)) == 2, "they stay until they are swept"
    looked = recorded("sweep", "--store", STORE)
    assert "2 objects, " in looked.out
    assert "nothing was taken away; --yes does it" in looked.out
    assert len(objects(recorded)) == 2
    document = recorded("sweep", "--store", STORE, "--json").json()
    assert (document["objects"], document["done"], document["objects_swept"]) == (2, False, 0)
    done = recorded("sweep", "--store", STORE, "--yes")
    assert (done.code, "2 objects taken away" in done.out) == (0, True), done
    assert objects(recorded) == []


def test_what_a_run_forgot_is_swept_and_what_another_store_names_stays(recorded: Command) -> None:
    assert recorded("export", "r", "--no-values", "--out", "x", "--store", STORE).code == 0
    assert recorded("import", "x", "--store", "sqlite:///there.db").code == 0
    assert recorded("forget", "r", "--yes", "--store", STORE).code == 0
    make_old(recorded)
    words = ("sweep", "--store", STORE, "--yes", "--json")
    kept = recorded(*words, "--also", "sqlite:///there.db").json()
    assert (kept["objects"], kept["kept"]) == (0, 2)
    missing = recorded(*words, "--also", "sqlite:///nowhere.db")
    assert missing.code == 3, missing
    assert len(objects(recorded)) == 2
    gone = recorded(*words).json()
    assert (gone["objects_swept"], gone["kept"]) == (2, 0)


def test_what_is_young_stays(recorded: Command) -> None:
    assert recorded("prune", "--older-than", "0s", "--yes", "--store", STORE).code == 0
    document = recorded("sweep", "--store", STORE, "--yes", "--json").json()
    assert (document["objects"], document["objects_swept"], document["kept"]) == (0, 0, 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sweep", *BARE), "which storage is to be swept?"),
        (("sweep", "--store", STORE, "--older-than", "1h"), "1d or more"),
        (("sweep", "--store", STORE, "--older-than", "soon"), "'soon' is no age"),
    ],
)
def test_bad_words_are_refused(recorded: Command, words: tuple[str, ...], said: str) -> None:
    ended = recorded(*words)
    assert ended.code == 2, ended
    assert said in " ".join(ended.err.replace("│", " ").split())
