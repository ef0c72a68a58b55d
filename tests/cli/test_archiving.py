"""`holdfast archive` as a process."""

from __future__ import annotations

import json

import duckdb

from tests.cli.command import Command


def test_archive(holdfast: Command) -> None:
    for n in ("1", "2"):
        assert holdfast("run", "work.py:quick", f"n={n}", "--id", f"r{n}").code == 0
    first = holdfast("archive", "--out", "kept", "--json")
    assert first.code == 0, first
    document = json.loads(first.out)
    assert document == {
        "folder": "kept",
        "events": document["events"],
        "new_events": document["events"],
        "parts": 1,
        "written": 1,
        "runs": 2,
    }
    found = duckdb.sql(f"SELECT id, status FROM '{holdfast.folder}/kept/runs/*.parquet' ORDER BY id").fetchall()
    assert found == [("r1", "completed"), ("r2", "completed")]
    again = holdfast("archive", "--out", "kept")
    assert again.code == 0, again
    assert again.out == f"kept holds {document['events']:,} events in 1 files, none of them new, and 2 runs\n"
    assert holdfast("run", "work.py:quick", "n=3", "--store", "sqlite:///other.db").code == 0
    other = holdfast("archive", "--out", "kept", "--store", "sqlite:///other.db")
    assert (other.code, other.out) == (2, "")
    assert "archive of another log" in other.err
    missing = holdfast("archive", "--out", "x", "--store", "sqlite:///gone.db")
    assert missing.code == 3, missing
    assert not (holdfast.folder / "x").exists()
