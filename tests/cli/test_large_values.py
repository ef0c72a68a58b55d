"""Runs whose large values lie in a storage, as processes: run, cut off, resume, history, show, export, gate, fork."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.command import Command

WORK = """
import polars as pl

from engine import task, workflow


@task
async def read(length: int) -> str:
    return "x" * length


@task
def table(rows: int) -> pl.DataFrame:
    return pl.DataFrame({"n": list(range(rows))})


@workflow
async def large(length: int) -> dict[str, int | str]:
    text = await read(length)
    frame = await table(3)
    return {"length": len(text), "rows": len(frame)}
"""
STORE = "sqlite:///runs.db?storage=values"


@pytest.fixture
def recorded(tmp_path: Path) -> Command:
    (tmp_path / "work.py").write_text(WORK)
    holdfast = Command(tmp_path)
    done = holdfast("run", "work.py", "length=600000", "--id", "r", "--store", STORE, "--json")
    assert done.code == 0, done
    assert done.json()["result"] == {"length": 600_000, "rows": 3}
    return holdfast


def test_what_is_large_lies_where_the_url_says(recorded: Command) -> None:
    assert len(list((recorded.folder / "values").glob("??/*.json"))) == 1
    assert len(list((recorded.folder / "values").glob("??/*.parquet"))) == 1
    assert recorded("keygen", "shop", "--out", "k").code == 0
    assert recorded("seal", "--key", "k", "--out", "s", "--store", STORE).code == 0
    assert recorded("verify", "--against", "s", "--store", STORE).code == 0
    for url in (STORE, "sqlite:///runs.db"):
        lines = [json.loads(line) for line in recorded("history", "r", "--store", url, "--json").out.splitlines()]
        results = [line["payload"] for line in lines if line["header"]["type"] == "TaskCompleted"]
        assert results[0]["stored"]["size"] == 600_002
        assert next(iter(results[1]["tables"].values()))["rows"] == 3
        assert recorded("history", "r", "--store", url).code == 0
        shown = recorded("show", "r", "--store", url, "--json")
        assert shown.json()["result"] == {"length": 600_000, "rows": 3}
        assert recorded("export", "r", "--store", url).code == 0
        assert "sha256" not in recorded("export", "r", "--redact", "--store", url).out


def test_the_gate_and_a_fork_read_it_there(recorded: Command) -> None:
    gate = recorded("gate", "work.py", "--closed", "5", "--store", STORE, "--processes", "2", "--json")
    assert gate.code == 0, gate
    without = recorded("gate", "work.py", "--closed", "5", "--store", "sqlite:///runs.db")
    assert without.code == 4
    assert "lies in a storage" in " ".join(without.out.split())
    fork = recorded("fork", "work.py", "r", "--at", "4", "--id", "f", "--store", STORE, "--json")
    assert fork.code == 0, fork
    assert fork.json()["result"] == {"length": 600_000, "rows": 3}
    supposed = recorded("what-if", "work.py", "r", "--at", "4", "--store", STORE, "--json")
    assert supposed.code == 0, supposed
    replayed = recorded("replay", "work.py", "r", "--store", STORE, "--json")
    assert replayed.code == 0, replayed
    rerun = recorded("rerun", "work.py", "r", "--id", "again", "--store", STORE, "--json")
    assert rerun.code == 0, rerun


def test_without_it_a_run_is_suspended_and_goes_on_with_it(recorded: Command) -> None:
    away = recorded.folder / "elsewhere"
    shutil.move(recorded.folder / "values", away)
    rerun = recorded(
        "fork", "work.py", "r", "--at", "6", "--id", "f", "--leave", "--store", f"sqlite:///runs.db?storage={away}"
    )
    assert rerun.code == 0, rerun
    cut = recorded("resume", "work.py", "f", "--store", "sqlite:///runs.db")
    assert cut.code == 4, cut
    assert "lies in a storage, and this engine has none" in " ".join(cut.out.split())
    done = recorded("resume", "work.py", "f", "--store", f"sqlite:///runs.db?storage={away}", "--json")
    assert done.code == 0, done


def test_a_url_that_says_it_twice_or_wrongly_is_refused(recorded: Command) -> None:
    assert "storage= twice" in recorded("runs", "--store", f"{STORE}&storage=x").err
    assert "unknown option" in recorded("runs", "--store", "sqlite:///runs.db?storages=x").err
