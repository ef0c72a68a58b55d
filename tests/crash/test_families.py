"""A family of runs under kill -9 at random moments: one run per child, and nothing done twice that was recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from engine.core.events import ChildStarted, TaskCompleted, TaskStarted, decode_header
from eventstore import StreamQuery
from eventstore.sqlite import SqliteStore
from tests.crash.families import CHILDREN, EXPECTED, GRANDCHILDREN, tree
from tests.crash.test_processes import until
from tests.runtime.invariants import check_history

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0
KILLS_MAX = 6
"""Afterwards it is let live: what five deaths in a row would show is parking, and that has tests of its own."""


def killed_until_done(folder: Path, dice: Random) -> tuple[str, int]:
    """What it prints in the end, and how often it was killed: first when its tasks have begun, then at any moment."""
    kills = 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.families"],
            cwd=ROOT,
            env={**os.environ, "FAMILY_FOLDER": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            if not kills:
                until(lambda: (folder / "effects").exists())
            patience = dice.uniform(0.2, 0.5) if kills < KILLS_MAX else PATIENCE_SECONDS
            patience = patience if kills else 0.01
            out, err = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            assert kills <= KILLS_MAX, "it does not end"
            continue
        assert process.returncode == 0, err
        return out.strip(), kills


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_family_survives_kill_9(seed: int, tmp_path: Path) -> None:
    out, kills = killed_until_done(tmp_path, Random(seed))
    assert out == str(EXPECTED)
    assert kills
    store = await SqliteStore.open(tmp_path / "runs.db")
    try:
        page = await store.find(StreamQuery(category="run", limit=100))
        streams = [head.stream for head in page.items]
        assert len(streams) == 1 + CHILDREN + CHILDREN * GRANDCHILDREN
        assert all(head.closed for head in page.items)
        for stream in streams:
            events = [decode_header(item.header) async for item in store.read(stream)]
            done: set[str] = set()
            for event in events:
                if isinstance(event, TaskCompleted):
                    done.add(event.id)
                assert not (isinstance(event, TaskStarted) and event.id in done), "it ran again"
            started = Counter(event.run for event in events if isinstance(event, ChildStarted))
            assert set(started.values()) <= {1}
        await check_history(store, "tree", tree)
    finally:
        await store.aclose()
    lines = (tmp_path / "effects").read_text().split("\n")
    keys = {line.partition(" ")[0] for line in lines if line}
    assert len(keys) == CHILDREN * GRANDCHILDREN, "one key for each call, however often it was tried"
