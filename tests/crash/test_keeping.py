"""Pruning under kill -9, in real processes: what is gone is gone behind an event, and asking again finishes it."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from engine import Engine
from engine.audit import PrivateKey, seal, verify
from eventstore.sqlite import SqliteStore
from tests.audit.test_tampering import SCRIPT
from tests.crash.keeping import RUNS

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120.0
KEY = PrivateKey("example.com/shop", bytes(range(32)))


def begin(db: Path, command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash.keeping", str(db), command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> int | None:
    """What it did; None if it was killed."""
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    if process.returncode == -signal.SIGKILL:
        return None
    assert process.returncode == 0, f"exit {process.returncode}\n{out}\n{err}"
    return int(json.loads(out.splitlines()[-1]))


def kept(db: Path) -> int:
    with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM kept_digests").fetchone()[0])


async def test_a_prune_that_is_killed_again_and_again(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    assert end(begin(db, "fill")) == RUNS
    store = await SqliteStore.open(db)
    sealed = (await seal(store, KEY)).seal
    before = [(leaf.position, leaf.digest) async for leaf in store.leaves()]
    await store.aclose()
    chance = random.Random(7)
    killed = 0
    while True:
        process = begin(db, "prune")
        target = kept(db) + chance.randrange(1, 200)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None and kept(db) < target:
            assert time.monotonic() < deadline
        process.kill()
        done = end(process)
        killed += done is None
        store = await SqliteStore.open(db)
        assert [(leaf.position, leaf.digest) async for leaf in store.leaves()][: len(before)] == before
        assert (await verify(store, seals=[sealed], key=KEY.public)).findings == ()
        assert SCRIPT.verify(db)[0] == []
        async with Engine(store) as engine:
            for n in range(RUNS):
                kinds = [type(item.event).__name__ async for item in engine.run(f"r{n}").events()]
                gone = [each async for each in store.kept(f"run:r{n}")]
                assert not gone or kinds[-1] == "RunPruned"
                assert kinds.count("RunPruned") <= 1
            left = len((await engine.runs()).items)
        await store.aclose()
        if done is not None:
            break
    assert killed >= 2
    assert left == 0


async def test_two_processes_prune_at_once(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    assert end(begin(db, "fill")) == RUNS
    both = [begin(db, "prune") for _ in range(2)]
    done = [end(process) for process in both]
    assert sum(each or 0 for each in done) >= RUNS
    store = await SqliteStore.open(db)
    async with Engine(store) as engine:
        for n in range(RUNS):
            (item,) = [item async for item in engine.run(f"r{n}").events()]
            assert type(item.event).__name__ == "RunPruned"
    assert (await verify(store)).findings == ()
    await store.aclose()
