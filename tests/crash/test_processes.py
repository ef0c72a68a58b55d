"""Real processes, killed for real: SIGKILL at chosen and at random points, SIGSTOP past the lease, two on one file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, get_args

import pytest

from engine.core.events import TaskCompleted, TaskStarted, decode_header
from engine.core.lineage import idempotency_key
from eventstore.sqlite import SqliteStore, WritesOn
from tests.crash.pipeline import holding, pipeline
from tests.runtime.invariants import check_history

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.005


class Effect(NamedTuple):
    key: str
    run: str
    task: str
    attempt: int
    pid: int


class Stage:
    """A database, the files outside, and the processes of one test."""

    def __init__(self, folder: Path) -> None:
        self.db = folder / "runs.db"
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.processes: list[subprocess.Popen[str]] = []

    def begin(self, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.pipeline", str(self.db), *options],
            cwd=ROOT,
            env={**os.environ, "PIPELINE_OUTSIDE": str(self.outside)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def end(self, process: subprocess.Popen[str]) -> list[Any] | None:
        """Wait for it; its results, or None if it was killed. Any other end fails the test."""
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        if process.returncode == -signal.SIGKILL:
            return None
        assert process.returncode == 0, f"exit {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err, err
        assert "Warning" not in err, err
        found: list[Any] = json.loads(out.splitlines()[-1])
        return found

    def run(self, *options: str) -> list[Any] | None:
        return self.end(self.begin(*options))

    def effects(self) -> list[Effect]:
        path = self.outside / "effects"
        lines = path.read_text().splitlines() if path.exists() else []
        fields = (line.split(" ") for line in lines)
        return [Effect(key, run, task, int(number), int(pid)) for key, run, task, number, pid in fields]

    async def recorded(self, run_id: str = "a") -> list[Any]:
        """The events of a run, from a file that nobody need have open."""
        if not self.db.exists():
            return []
        store = await SqliteStore.open(self.db)
        try:
            return [decode_header(item.header) async for item in store.read(f"run:{run_id}")]
        except LookupError:
            return []
        finally:
            await store.aclose()

    async def check(self, run_id: str, definition: Any) -> list[Any]:
        store = await SqliteStore.open(self.db)
        try:
            return await check_history(store, run_id, definition)
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
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


def until(condition: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    """Wait for a condition; fails at the deadline, or when a process that should live has ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        if process is not None and process.poll() is not None:
            out, err = process.communicate()
            raise AssertionError(f"the process ended with {process.returncode}\n{out}\n{err}")
        time.sleep(LOOK_SECONDS)
    return found


async def lives(stage: Stage, kills: Iterator[str], expected: int) -> int:
    """Run the pipeline again and again, killed each time as told, to its end; returns how often it was killed."""
    done: dict[str, int] = {}
    killed = 0
    for writes_on in cycle(get_args(WritesOn)):
        result = stage.run("--kill", next(kills), "--writes-on", writes_on)
        counts = Counter(effect.key for effect in stage.effects())
        for key, count in done.items():
            assert counts[key] == count, "a task ran again whose completion was recorded"
        if result is not None:
            break
        killed += 1
        completed = [event.id for event in await stage.recorded() if isinstance(event, TaskCompleted)]
        done = {key: counts[key] for key in (idempotency_key("a", 0, id_) for id_ in completed)}
        assert all(done.values())
    assert result == [expected]
    assert json.loads((stage.outside / "table").read_text()) == [1, 2, 3, 4]
    events = await stage.check("a", pipeline)
    for key, count in Counter(effect.key for effect in stage.effects()).items():
        started = max(
            event.attempt
            for event in events
            if isinstance(event, TaskStarted) and idempotency_key("a", 0, event.id) == key
        )
        assert count <= started
    return killed


async def test_killed_before_and_behind_commits(stage: Stage) -> None:
    def kills() -> Iterator[str]:
        for number in (1, 2, 3, 3, 4, 4):  # few: where steps share commits, a life has not many
            yield f"{'before' if number % 2 else 'after'}:{number}"
        while True:
            yield ""

    assert await lives(stage, kills(), 10) >= 5


async def test_killed_in_the_middle_of_effects(stage: Stage) -> None:
    def kills() -> Iterator[str]:
        for number in (1, 2, 3, 3, 4):
            yield f"effect:{number}"
        while True:
            yield ""

    assert await lives(stage, kills(), 10) >= 4


async def test_killed_at_random(stage: Stage) -> None:
    seed = int.from_bytes(os.urandom(4), "big") if os.environ.get("HOLDFAST_TEST_EVERY") else 1
    random = Random(seed)
    print(f"seed {seed}")

    def kills() -> Iterator[str]:
        for _ in range(5):
            yield f"{random.choice(('before', 'after', 'effect'))}:{random.randint(1, 8)}"
        while True:
            yield ""

    assert await lives(stage, kills(), 10) >= 1


async def test_killed_from_outside(stage: Stage) -> None:
    """By its parent, whatever it is doing just then."""
    for effects in (1, 4, 8):
        process = stage.begin()
        until(lambda effects=effects, process=process: len(stage.effects()) >= effects or process.poll() is not None)
        process.kill()
        stage.end(process)
    assert stage.run() == [10]
    await stage.check("a", pipeline)
    assert not list(stage.outside.glob("*.part")) or len(stage.effects()) > 13


async def test_a_dead_workers_runs_go_to_the_one_that_lives(stage: Stage) -> None:
    """kill -9 of one of two: the other goes on at once, for the operating system frees the lease."""
    runs = [f"run-{n}" for n in range(6)]
    doomed = stage.begin("--workflow", "holding", "--runs", *runs, "--name", "doomed", "--ttl", "3600")
    until(lambda: len(stage.effects()) == 6, doomed)
    client = stage.begin("--client", "--workflow", "holding", "--runs", *runs)
    assert client.stdout is not None
    assert client.stdout.readline() == "open\n"
    living = stage.begin("--workflow", "holding", "--runs", *runs, "--name", "living")
    assert living.stdout is not None
    assert living.stdout.readline() == "open\n"
    assert {effect.pid for effect in stage.effects()} == {doomed.pid}  # the doomed one holds them all
    doomed.kill()
    until(lambda: len(stage.effects()) >= 7, living)
    (stage.outside / "go").touch()
    assert stage.end(living) == [5] * 6
    assert stage.end(client) == [5] * 6
    for run_id in runs:
        events = await stage.check(run_id, holding)
        assert [event.worker for event in events if isinstance(event, TaskStarted)] == ["doomed", "living", "living"]


async def test_a_paused_worker_writes_nothing_when_it_goes_on(stage: Stage) -> None:
    """SIGSTOP for longer than the lease; another takes over and ends the run; SIGCONT: the first changes nothing."""
    paused = stage.begin("--workflow", "holding", "--name", "paused", "--ttl", "0.6")
    until(lambda: len(stage.effects()) == 1, paused)
    paused.send_signal(signal.SIGSTOP)
    heir = stage.begin("--workflow", "holding", "--name", "heir", "--ttl", "0.6")
    until(lambda: len(stage.effects()) == 2, heir)
    (stage.outside / "go").touch()
    assert stage.end(heir) == [5]
    before = await stage.recorded()
    effects = stage.effects()
    paused.send_signal(signal.SIGCONT)
    assert stage.end(paused) == [5]  # it hears of the end, and ends well
    assert await stage.recorded() == before
    assert stage.effects() == effects  # nor did it begin anything
    events = await stage.check("a", holding)
    starts = [(event.worker, event.attempt) for event in events if isinstance(event, TaskStarted)]
    assert starts == [("paused", 1), ("heir", 2), ("heir", 1)]


async def test_two_processes_start_the_same_runs(stage: Stage) -> None:
    """Both start all of them, under the same ids, at the same time: each is one run, each effect happens once."""
    runs = [f"run-{n}" for n in range(20)]
    (stage.outside / "go").touch()
    both = [stage.begin("--workflow", "holding", "--runs", *runs, "--name", name) for name in ("one", "two")]
    assert [stage.end(process) for process in both] == [[5] * 20] * 2
    effects = stage.effects()
    assert len(effects) == 40
    assert set(Counter(effect.key for effect in effects).values()) == {1}
    for run_id in runs:
        events = await stage.check(run_id, holding)
        assert len({event.worker for event in events if isinstance(event, TaskStarted)}) == 1


async def test_interrupted_by_the_terminal(stage: Stage) -> None:
    """SIGINT: the program ends by KeyboardInterrupt, its run goes on in the next."""
    process = stage.begin("--workflow", "holding")
    until(lambda: len(stage.effects()) == 1, process)
    process.send_signal(signal.SIGINT)
    (stage.outside / "go").touch()  # a thread cannot be stopped: it ends by itself
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in err
    assert stage.run("--workflow", "holding") == [5]
    await stage.check("a", holding)
