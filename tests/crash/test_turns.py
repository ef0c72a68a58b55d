"""Queued, delayed and debounced runs under kill -9 at random moments: never two with one key, and none forgotten."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from engine.core.events import RunBegun, RunStarted, decode_header
from eventstore import StreamQuery
from eventstore.sqlite import SqliteStore
from tests.crash.test_processes import until
from tests.crash.turns import LATE_SECONDS, NAMES, in_turn, last, late
from tests.runtime.invariants import check_store
from tests.runtime.slices import some

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0
KILLS_MAX = 6


def process_on(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash.turns", *words],
        cwd=ROOT,
        env={**os.environ, "TURNS_FOLDER": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed_until_done(folder: Path, dice: Random) -> str:
    """What it prints in the end; it is killed when its first task has begun, and then at any moment."""
    kills = 0
    while True:
        process = process_on(folder)
        try:
            if not kills:
                until(lambda: (folder / "effects").exists())
            patience = dice.uniform(0.3, 0.8) if kills < KILLS_MAX else PATIENCE_SECONDS
            out, err = process.communicate(timeout=patience if kills else 0.01)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            assert kills <= KILLS_MAX, "it does not end"
            continue
        assert process.returncode == 0, err
        return out.strip()


@pytest.mark.parametrize(("seed", "beside"), some([(1, False), (2, False), (3, True), (4, True)], of=2))
async def test_turns_survive_kill_9(seed: int, beside: bool, tmp_path: Path) -> None:
    """`beside`: another process is on the same file all the time, and takes over what the killed one had."""
    other = process_on(tmp_path, "beside") if beside else None
    try:
        assert killed_until_done(tmp_path, Random(seed)) == f"{list(NAMES)} late 4"
        if other is not None:
            out, err = other.communicate(timeout=PATIENCE_SECONDS)
            assert (other.returncode, out.strip()) == (0, f"{list(NAMES)} late"), err
    finally:
        if other is not None and other.poll() is None:
            other.kill()
            other.communicate()
    lines = [line.split() for line in (tmp_path / "effects").read_text().splitlines()]
    in_order = [name for name, _ in itertools.groupby(name for name, _ in lines if name in NAMES)]
    assert in_order == list(NAMES), "two had the key at once, or one began out of its turn"
    store = await SqliteStore.open(tmp_path / "runs.db")
    try:
        await check_store(store, in_turn, late, last)
        page = await store.find(StreamQuery(category="run", limit=500))
        assert all(head.closed for head in page.items if "last" not in str(head.attributes["workflow"]))
        first, begun = [
            event
            async for item in store.read("run:late")
            if isinstance(event := decode_header(item.header), RunStarted | RunBegun)
        ]
        assert begun.at - first.at >= LATE_SECONDS * 1_000_000
        assert ("last", "4") in {(name, part) for name, part in lines}, "a call was lost"
    finally:
        await store.aclose()
