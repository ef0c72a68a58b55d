"""Workflow code that reaches outside is stopped, live and at replay alike; what the interpreter does for it is not."""

from __future__ import annotations

# ruff: noqa: PTH101, PTH102, PTH104, PTH107, PTH123, PTH207, PTH208
import asyncio
import glob
import linecache
import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
import warnings
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from engine import Engine, RunHandle, Signal, task, workflow
from engine.errors import ForbiddenInWorkflow, RunFailedError
from engine.runtime.guard import install_guard
from tests.runtime.invariants import check_history
from tests.runtime.worlds import MemoryWorld, at_rest, forget, kinds_of, soon, until_async

# Handed to workflows through this table, where the check at registration does not see them.
ACTIONS: dict[str, Callable[[], Any]] = {
    "open": lambda: open(os.devnull),
    "open to write": lambda: Path("guard-was-here").write_text("x"),
    "os.open": lambda: os.open(os.devnull, os.O_RDONLY),
    "listdir": lambda: os.listdir(),
    "scandir": lambda: os.scandir(),
    "walk": lambda: list(os.walk(".")),
    "mkdir": lambda: os.mkdir("guard-was-here"),
    "remove": lambda: os.remove("guard-was-here"),
    "rename": lambda: os.rename("guard-was-here", "guard-was-there"),
    "chmod": lambda: os.chmod("guard-was-here", 0o600),
    "chdir": lambda: os.chdir("/"),
    "setenv": lambda: os.environ.__setitem__("GUARD_WAS_HERE", "1"),
    "system": lambda: os.system("true"),
    "fork": lambda: os.fork(),
    "exec": lambda: os.execv(sys.executable, [sys.executable]),
    "spawn": lambda: os.posix_spawn(sys.executable, [sys.executable], {}),
    "kill": lambda: os.kill(os.getpid(), 0),
    "subprocess": lambda: subprocess.run(["true"], check=False),
    "socket": lambda: socket.socket(),
    "resolve": lambda: socket.getaddrinfo("localhost", 80),
    "hostname": lambda: socket.gethostname(),
    "thread": lambda: threading.Thread(target=print).start(),
    "sqlite": lambda: sqlite3.connect(":memory:"),
    "copy": lambda: shutil.copyfile("guard-was-here", "guard-was-there"),
    "rmtree": lambda: shutil.rmtree("guard-was-here"),
    "mkdtemp": lambda: tempfile.mkdtemp(),
    "temporary file": lambda: tempfile.TemporaryFile(),
    "glob": lambda: glob.glob("*"),
    "iterdir": lambda: list(Path().iterdir()),
    "urlopen": lambda: urllib.request.urlopen("http://localhost:9/"),
}


if sys.version_info >= (3, 13):
    ACTIONS["sleep"] = lambda: time.sleep(0.001)


@task
async def note(text: str) -> str:
    return text


@workflow
async def caught(name: str) -> list[str]:
    """Goes on after the error: what it says goes into the history, and must be the same at a replay."""
    said = []
    for _ in range(2):
        try:
            ACTIONS[name]()
        except ForbiddenInWorkflow as error:
            said.append(await note(str(error)))
        await asyncio.sleep(1_000)
    return said


async def result_over_a_replay(world: MemoryWorld, definition: Any, *args: Any) -> Any:
    """The result of a run whose instance is forgotten whenever it rests, so that it is replayed again and again."""
    async with world.engine(definition, cached=0) as engine:
        run = await engine.start(definition(*args), id="a")

        async def ended() -> bool:
            if (await engine.store.head("run:a")).owner is None:
                world.clock.advance(1_000)
            return (await run.status()) != "running"

        await until_async(ended)
        found = await run.result()
        await check_history(engine.store, "a", definition)
    return found


@pytest.mark.parametrize("name", ACTIONS)
async def test_what_reaches_outside_is_stopped_live_and_at_replay(
    memory: MemoryWorld, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    threads = threading.active_count()
    said = await result_over_a_replay(memory, caught, name)
    assert len(said) == 2
    assert said[0] == said[1]
    assert "cannot reach outside (" in said[0]
    assert "@task" in said[0] or "asyncio.sleep" in said[0]
    assert list(tmp_path.iterdir()) == []
    assert "GUARD_WAS_HERE" not in os.environ
    assert threading.active_count() == threads


async def test_uncaught_it_fails_the_run_and_names_the_place(memory: MemoryWorld) -> None:
    @workflow
    async def careless() -> None:
        await note("first")
        ACTIONS["open"]()

    async with memory.engine(careless) as engine:
        run = await engine.start(careless())
        with pytest.raises(RunFailedError, match=r"\(open\).*@task") as failed:
            await soon(run.result())
        assert isinstance(failed.value.__cause__, ForbiddenInWorkflow)
        assert 'ACTIONS["open"]()' in failed.value.traceback


async def test_a_thread_of_anyio_never_exists(memory: MemoryWorld) -> None:
    ran: list[str] = []

    @workflow
    async def threaded() -> str:
        try:
            await anyio.to_thread.run_sync(ran.append, "x")  # deterministic: it is refused
        except ForbiddenInWorkflow as error:
            return await note(str(error))
        return ""

    async with memory.engine(threaded) as engine:
        before = set(threading.enumerate())
        run = await engine.start(threaded(), id="a")
        assert "_thread" in await soon(run.result())
        assert set(threading.enumerate()) - before == set()
        await check_history(engine.store, "a", threaded)
    assert ran == []


async def test_a_dying_coroutine_reaches_nothing(memory: MemoryWorld, tmp_path: Path) -> None:
    target = tmp_path / "last words"
    write: list[Callable[[], Any]] = [lambda: target.write_text("x")]

    @workflow
    async def dying() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            write[0]()

    async with memory.engine(dying, cached=0) as engine:
        await engine.start(dying(), id="a")
        await at_rest(engine.store, "a")
        forget()
    assert not target.exists()


# -- what is not touched ----------------------------------------------------------------------------------------------


async def test_the_interpreters_own_work_is_let_through(memory: MemoryWorld, tmp_path: Path) -> None:
    (tmp_path / "guard_fresh.py").write_text(
        "import threading\nfrom pathlib import Path\nTEXT = Path(__file__).read_text()\n"
        "thread = threading.Thread(target=len, args=('',))\nthread.start()\nthread.join()\n"
    )
    handler = logging.FileHandler(tmp_path / "log", delay=True)
    logger = logging.getLogger("tests.guard")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    parts: list[Callable[[], Any]] = [
        lambda: __import__("guard_fresh").TEXT,
        lambda: traceback.format_stack(),
        lambda: linecache.getline(traceback.__file__, 1),
        lambda: logger.info("said"),
        lambda: warnings.warn("mind the gap", stacklevel=1),
        lambda: zoneinfo.ZoneInfo.no_cache("Europe/Berlin").key,
    ]
    done: list[str] = []

    @workflow
    async def ordinary() -> int:
        for part in parts:
            linecache.clearcache()
            part()
        await note("done")
        linecache.clearcache()
        raise ValueError("its traceback is recorded, with the lines of this file")

    sys.path.insert(0, str(tmp_path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda *args, **kwargs: done.append(warnings.formatwarning(*args[:4]))
            async with memory.engine(ordinary) as engine:
                run = await engine.start(ordinary(), id="a")
                with pytest.raises(RunFailedError, match="its traceback") as failed:
                    await soon(run.result())
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("guard_fresh", None)
        logger.removeHandler(handler)
        handler.close()
    assert "raise ValueError(" in failed.value.traceback
    assert "mind the gap" in done[0]
    assert (tmp_path / "log").read_text() == "said\n"


async def test_tasks_and_the_program_around_are_not_touched(memory: MemoryWorld, tmp_path: Path) -> None:
    @task
    async def effects() -> str:
        (tmp_path / "a").write_text("x")
        await asyncio.to_thread(time.sleep, 0)
        await anyio.to_thread.run_sync(len, "")
        return (tmp_path / "a").read_text()

    @task
    def in_a_thread() -> list[str]:
        return os.listdir(tmp_path)

    @workflow
    async def working() -> list[str]:
        return [await effects(), *await in_a_thread()]

    async with memory.engine(working) as engine:
        run = await engine.start(working())
        assert await soon(run.result()) == ["x", "a"]
        assert os.listdir(tmp_path) == ["a"]


@dataclass
class Checked:
    """A type whose making looks at a file, as libraries do that read their data, or their settings."""

    n: int

    def __post_init__(self) -> None:
        with open(os.devnull) as file:
            file.read()


word = Signal("word", Checked)


async def test_reading_and_writing_values_is_not_the_workflows_own_doing(memory: MemoryWorld) -> None:
    """Whether they come one by one or together, live or at replay, and when the run ends."""

    @task
    async def load(n: Checked) -> Checked:
        return n

    @workflow
    async def loading(values: list[Checked]) -> Checked:
        found = await asyncio.gather(*(load(value) for value in values))
        await word.receive()
        return found[-1]

    async with memory.engine(loading) as engine:
        run = await engine.start(loading([Checked(n) for n in range(20)]), id="r")
        await until_async(lambda: waits_for_word(run))
    async with memory.engine(loading) as engine:
        run = engine.run("r")
        await run.signal(word, Checked(0))
        assert await soon(run.result()) == {"n": 19}
        assert "RunSuspended" not in await kinds_of(run)
    await check_history(memory.data, "r", loading)


async def waits_for_word(run: RunHandle[Any]) -> bool:
    return (await kinds_of(run)).count("TaskCompleted") == 20


async def test_other_threads_are_not_touched_while_a_turn_is_under_way(memory: MemoryWorld) -> None:
    opened: list[Any] = []
    begun = threading.Event()
    ended = threading.Event()

    def elsewhere() -> None:
        begun.wait(30)
        try:
            with open(os.devnull) as file:
                opened.append(file)
        except BaseException as error:
            opened.append(error)
        finally:
            ended.set()

    @workflow
    async def long_turn() -> bool:
        begun.set()  # deterministic: the threads of this test only
        return ended.wait(30)  # deterministic: the threads of this test only

    thread = threading.Thread(target=elsewhere)
    thread.start()
    async with memory.engine(long_turn) as engine:
        assert await soon((await engine.start(long_turn())).result())
    thread.join()
    assert not isinstance(opened[0], BaseException)


def test_the_hook_is_installed_once_and_only_by_an_open_engine() -> None:
    code = """
import asyncio, sys
hooks = []
sys.addaudithook(lambda event, args: hooks.append(event) if event == "sys.addaudithook" else None)
import engine
from eventstore.memory import MemoryStore

async def main():
    store = MemoryStore()
    assert hooks == []
    for _ in range(3):
        async with engine.Engine(store):
            pass
    await store.aclose()

asyncio.run(main())
print(len(hooks))
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True).stdout
    assert said == "1\n"


def test_installing_again_changes_nothing() -> None:
    install_guard()
    install_guard()
    assert Engine.__aenter__  # what installs it
