"""Limits that several processes share, some of them killed: never more inside than there is room for, and all of it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from engine.core.events import TaskStarted, decode_header
from eventstore import StreamQuery
from eventstore.sqlite import SqliteStore
from tests.crash import limited
from tests.crash.limited import MAIL, PATIENCE_SECONDS, SLOTS, crowding, most_in_a_window, spread
from tests.runtime.invariants import check_history
from tests.runtime.rooms import all_free
from tests.runtime.slices import some

ROOT = Path(__file__).parents[2]
WIDTH = 8
LOOK_SECONDS = 0.005


class Stage:
    """One file, and the processes on it."""

    def __init__(self, folder: Path) -> None:
        self.db = folder / "runs.db"
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []

    def begin(self, runs: list[str], *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.crash.limited",
                str(self.db),
                "--width",
                str(WIDTH),
                *options,
                "--runs",
                *runs,
            ],
            cwd=ROOT,
            env={**os.environ, "LIMITED_OUTSIDE": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        before = time.monotonic()
        process.send_signal(signal.SIGKILL)
        process.wait()
        limited.killed(process.pid, before)

    def end(self, process: subprocess.Popen[str], runs: list[str]) -> bool:
        """Whether it came to its end; False: it was killed. Any other end fails the test."""
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        if process.returncode == -signal.SIGKILL:
            return False
        assert process.returncode == 0, f"exit {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err, err
        assert out.splitlines()[-1] == str([WIDTH + 1] * len(runs))
        return True

    @property
    def lines(self) -> list[str]:
        path = self.folder / "said"
        return path.read_text().splitlines() if path.exists() else []

    def until_said(self, count: int, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.lines) < count and process.poll() is None:
            assert time.monotonic() < deadline, "nothing happens"
            time.sleep(LOOK_SECONDS)

    async def check(self, runs: list[str]) -> None:
        """What was outside, and what is in the store."""
        most, done = crowding(self.lines)
        assert most <= SLOTS, f"{most} inside at once"
        assert most == SLOTS, "nor fewer than may be"
        assert done >= len(runs) * (WIDTH + 1)
        store = await SqliteStore.open(self.db)
        try:
            page = await store.find(StreamQuery(category="run", limit=100))
            assert sorted(head.stream for head in page.items) == sorted(f"run:{name}" for name in runs)
            assert all(head.closed for head in page.items)
            for name in runs:
                await check_history(store, name, spread)
            started = [
                (f"{name}/{event.attempt}", event.at)
                for name in runs
                async for item in store.read(f"run:{name}")
                if isinstance(event := decode_header(item.header), TaskStarted) and "/tell#" in event.id
            ]
            assert len(started) >= len(runs)
            assert most_in_a_window(started, self.lines) <= MAIL, started
            await all_free(store, "tool", SLOTS)
        finally:
            await store.aclose()

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                stream.close()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(limited, "OUTSIDE", tmp_path)
    made = Stage(tmp_path)
    yield made
    made.close()


def names(of: str, count: int = 3) -> list[str]:
    return [f"{of}{n}" for n in range(count)]


async def test_three_processes(stage: Stage) -> None:
    groups = [names(of) for of in "abc"]
    for process, runs in [(stage.begin(runs), runs) for runs in groups]:
        assert stage.end(process, runs)
    await stage.check(sum(groups, []))


@pytest.mark.parametrize(
    "where", some(["before:1", "after:6", "before:3", "after:3", "before:6", "after:1", "after:7"])
)
async def test_one_is_killed_at_a_commit(where: str, stage: Stage) -> None:
    """Before or behind the commit that takes, waits for or returns permits: the other ends what there is."""
    doomed, living = stage.begin(names("a"), "--kill", where), stage.begin(names("b"))
    assert not stage.end(doomed, names("a"))
    assert stage.end(living, names("b"))
    assert stage.end(stage.begin(names("a")), names("a"))
    await stage.check(names("a") + names("b"))


async def test_the_one_that_lives_has_the_slots_at_once(stage: Stage) -> None:
    """All slots are the doomed one's when it is killed: nobody waits for a lease to run out."""
    doomed = stage.begin(names("a", 6), "--name", "doomed")
    stage.until_said(SLOTS * 2, doomed)
    living = stage.begin(names("b", 1), "--name", "living")
    assert living.stdout is not None
    assert living.stdout.readline() == "open\n"
    stage.kill(doomed)
    at, said = time.monotonic(), len(stage.lines)
    stage.until_said(said + 1, living)
    waited = time.monotonic() - at
    assert stage.end(living, names("b", 1))
    assert waited < 8, f"{waited} s until anything began"  # leases live for 10 s
    assert stage.end(stage.begin(names("a", 6)), names("a", 6))
    await stage.check(names("a", 6) + names("b", 1))


@pytest.mark.parametrize("seed", some(range(3)))
async def test_killed_at_random(seed: int, stage: Stage) -> None:
    """One of three, again and again, at any moment; each time it is started again."""
    dice = Random(seed)
    groups = {of: names(of) for of in "abc"}
    alive = {of: stage.begin(runs) for of, runs in groups.items()}
    for _ in range(5):
        of = dice.choice("abc")
        stage.until_said(len(stage.lines) + dice.randint(1, 12), alive[of])
        if alive[of].poll() is None:
            stage.kill(alive[of])
            alive[of] = stage.begin(groups[of])
    for of, process in alive.items():
        assert stage.end(process, groups[of])
    await stage.check(sum(groups.values(), []))
