"""A program that is killed with -9 leaves no worker process behind, and the next goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.core.events import AttemptHeartbeat, decode_header
from eventstore.sqlite import SqliteStore
from tests.executors import heavy
from tests.runtime.invariants import check_history

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0


class Programs:
    """The programs of one test, on one database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "runs.db"
        self._processes: list[subprocess.Popen[bytes]] = []

    def begin(self, name: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.executors.program", str(self.database), str(self.folder), name],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )
        self._processes.append(process)
        return process

    def text(self, name: str) -> str:
        path = self.folder / name
        until(path.exists)
        return path.read_text()

    async def recorded(self) -> list[Any]:
        store = await SqliteStore.open(self.database)
        try:
            return [decode_header(item.header) async for item in store.read("run:r")]
        finally:
            await store.aclose()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    made = Programs(tmp_path)
    yield made
    made.close()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return (
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    )  # whoever has it now is to reap it


def test_a_process_that_waits_for_work_ends_with_its_program(programs: Programs) -> None:
    program = programs.begin("pid")
    pid = json.loads(programs.text("result"))
    assert not gone(pid)
    program.send_signal(signal.SIGKILL)
    program.wait()
    until(lambda: gone(pid))


async def test_so_does_one_at_work_and_the_next_program_goes_on(programs: Programs) -> None:
    program = programs.begin("goes_on")
    pid = int(programs.text("inside"))
    while not any(isinstance(event, AttemptHeartbeat) for event in await programs.recorded()):  # noqa: ASYNC110
        time.sleep(0.005)
    program.send_signal(signal.SIGKILL)
    program.wait()
    until(lambda: gone(pid))
    assert (programs.folder / "cleaned").exists()  # the work was interrupted, not cut off
    programs.begin("goes_on")
    assert json.loads(programs.text("result")) == {"row": 7}
    store = await SqliteStore.open(programs.database)
    try:
        await check_history(store, "r", heavy.one_of)
    finally:
        await store.aclose()


def test_a_process_ends_with_a_program_that_is_interrupted(programs: Programs) -> None:
    program = programs.begin("clean_up")
    pid = int(programs.text("inside"))
    program.send_signal(signal.SIGTERM)  # as a service is stopped that does nothing about it
    program.wait()
    until(lambda: gone(pid))
    assert (programs.folder / "cleaned").exists()
