"""Own SQL under kill -9, in real processes: the rows are counted in the table, and each is there exactly once."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from engine.core.events import TaskCompleted
from engine.core.lineage import idempotency_key
from eventstore.sqlite import SqliteStore
from tests.crash.bookings import booking, expected
from tests.runtime.invariants import check_history

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.002
RUNS = ("a", "b", "c")
ROUNDS = 4
BOOKINGS = len(RUNS) * ROUNDS * 3


class Ledger:
    """A file, the processes that work on it, and what is booked there."""

    def __init__(self, folder: Path) -> None:
        self.db = folder / "runs.db"
        self.processes: list[subprocess.Popen[str]] = []
        self.killed = 0

    def begin(self, kill: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.crash.bookings", str(self.db), "--kill", kill]
        process = subprocess.Popen(
            [*command, "--rounds", str(ROUNDS), "--runs", *RUNS],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def end(self, process: subprocess.Popen[str]) -> Any:
        """Wait for it; its results, or None if it was killed. Any other end fails the test."""
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        if process.returncode == -signal.SIGKILL:
            self.killed += 1
            return None
        assert process.returncode == 0, f"exit {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err, err
        return json.loads(out.splitlines()[-1])

    def rows(self) -> Counter[str]:
        """How many rows each idempotency key has; as anybody reads them, also while others write."""
        if not self.db.exists():
            return Counter()
        try:
            with closing(sqlite3.connect(f"file:{self.db}?mode=ro", uri=True)) as connection:
                return Counter(key for (key,) in connection.execute("SELECT key FROM bookings"))
        except sqlite3.OperationalError:
            return Counter()  # no table yet, or not even a database

    def kill_at(self, process: subprocess.Popen[str], rows: int) -> None:
        """Kill it as soon as so many rows are there, wherever it is just then; if it does not end before."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while sum(self.rows().values()) < rows and process.poll() is None:
            assert time.monotonic() < deadline, "it does not get on"
            time.sleep(LOOK_SECONDS)
        process.kill()

    async def check(self, *, ended: bool) -> None:
        """Rows and histories agree: two rows for each completion that is recorded, and none without one."""
        if not self.db.exists():
            return
        store = await SqliteStore.open(self.db)
        done = set()
        try:
            for run in RUNS:
                try:
                    events = await check_history(store, run, booking)
                except LookupError:  # not started yet
                    continue
                done |= {
                    idempotency_key(run, 0, event.id)
                    for event in events
                    if isinstance(event, TaskCompleted) and "/book#" in event.id
                }
        finally:
            await store.aclose()
        assert self.rows() == dict.fromkeys(done, 2)
        assert not ended or len(done) == BOOKINGS

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                stream.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("where", ["before", "inside", "behind"])
async def test_killed_around_its_commit(where: str, ledger: Ledger) -> None:
    """Before the store has it; with its rows written, in the transaction; when it is durable and nobody knows."""
    for number in (1, 2, 3, 4, 6, 9):
        assert ledger.end(ledger.begin(f"{where}:{number}")) is None
        await ledger.check(ended=False)
    assert ledger.end(ledger.begin()) == [expected(ROUNDS)] * len(RUNS)
    await ledger.check(ended=True)
    assert ledger.killed == 6


async def test_killed_at_random(ledger: Ledger) -> None:
    """By itself at a point that is drawn, or from outside, whatever it is doing just then."""
    seed = int.from_bytes(os.urandom(4), "big")
    random = Random(seed)
    print(f"seed {seed}")
    for n in range(14):
        if n % 2:
            process = ledger.begin(f"{random.choice(('before', 'inside', 'behind'))}:{random.randint(1, 5)}")
        else:
            process = ledger.begin()
            ledger.kill_at(process, sum(ledger.rows().values()) + random.randint(1, 8))
        found = ledger.end(process)
        await ledger.check(ended=found is not None)
        if found is not None:
            break
    assert ledger.end(ledger.begin()) == [expected(ROUNDS)] * len(RUNS)
    await ledger.check(ended=True)
    assert ledger.killed >= 3


async def test_killed_beside_one_that_lives(ledger: Ledger) -> None:
    """Two processes on one file, with the same runs: what the killed one had begun, the other finds as it is."""
    seed = int.from_bytes(os.urandom(4), "big")
    random = Random(seed)
    print(f"seed {seed}")
    living = ledger.begin()
    for _ in range(4):
        ledger.end(ledger.begin(f"{random.choice(('before', 'inside', 'behind'))}:{random.randint(1, 3)}"))
    assert ledger.end(living) == [expected(ROUNDS)] * len(RUNS)
    await ledger.check(ended=True)
