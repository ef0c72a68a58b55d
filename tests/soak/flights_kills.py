"""The flights run under kill -9: ``python -m tests.soak.flights_kills [--rounds N] [--seed N]``.

One undisturbed run, then rounds of the same command killed at random moments until a process ends by itself. Each round
must end with the same result, the same report to the byte and the same rows in every table of the warehouse, and no task
may have begun again whose completion was recorded. Prints one line of JSON; exits with 1 when anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb

EXAMPLE = Path(__file__).parents[2] / "examples" / "flights.py"
SECONDS_MAX = 600
"""Of one process: far above what an undisturbed run takes."""


def start(folder: Path) -> subprocess.Popen[str]:
    store = f"sqlite:///{folder / 'runs.db'}"
    command = [sys.executable, "-m", "engine.cli", "run", str(EXAMPLE), "--json", "--store", store]
    return subprocess.Popen(
        [*command, f"out={folder / 'out'}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def to_the_end(folder: Path) -> dict[str, Any]:
    process = start(folder)
    printed, _ = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 0, printed
    return json.loads(printed)


def killed_until_done(folder: Path, dice: random.Random, longest: float) -> tuple[dict[str, Any], int]:
    kills = 0
    while True:
        process = start(folder)
        try:
            printed, _ = process.communicate(timeout=dice.uniform(0.5, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0, printed
        return json.loads(printed), kills


def content(folder: Path) -> dict[str, Any]:
    """The report's bytes and every table's rows, sorted, as digests."""
    found: dict[str, Any] = {"report": (folder / "out" / "report.html").read_bytes()}
    with duckdb.connect(str(folder / "out" / "flights.duckdb"), read_only=True) as database:
        for (table,) in database.execute("SELECT table_name FROM information_schema.tables ORDER BY 1").fetchall():
            rows = f"SELECT CAST(t AS VARCHAR) AS row FROM {table} AS t"
            digest = f"SELECT count(*), md5(string_agg(row, '|' ORDER BY row)) FROM ({rows})"
            found[table] = database.execute(digest).fetchone()
    return found


def begun_again(folder: Path) -> list[str]:
    """Tasks that have a TaskStarted behind their TaskCompleted."""
    query = "SELECT json_extract(header, '$.type'), json_extract(header, '$.id') FROM events ORDER BY position"
    done: set[str] = set()
    again = []
    database = sqlite3.connect(f"file:{folder / 'runs.db'}?mode=ro", uri=True)
    for type_, task in database.execute(query):
        if type_ == "TaskCompleted":
            done.add(task)
        elif type_ == "TaskStarted" and task in done:
            again.append(task)
    database.close()
    return again


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--longest", type=float, default=8.0, help="seconds that a process may live (default 8)")
    options = arguments.parse_args()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        calm = Path(scratch) / "calm"
        calm.mkdir()
        expected = to_the_end(calm)["result"]
        undisturbed = content(calm)
        kills, wrong = 0, []
        for number in range(options.rounds):
            folder = Path(scratch) / f"round-{number}"
            folder.mkdir()
            document, killed = killed_until_done(folder, dice, options.longest)
            kills += killed
            found = content(folder)
            wrong += [f"round {number}: {name} differs" for name in undisturbed if found.get(name) != undisturbed[name]]
            wrong += [f"round {number}: {task} began again" for task in begun_again(folder)]
            if document["result"] != expected:
                wrong.append(f"round {number}: the result differs")
    print(json.dumps({"rounds": options.rounds, "kills": kills, "tables": len(undisturbed) - 1, "wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
