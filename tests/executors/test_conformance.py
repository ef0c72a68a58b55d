"""The places that ship keep every promise of the port; the suite itself is complete, and finds executors that do not."""

from __future__ import annotations

import ast
import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

import engine.executors.conformance
from engine.executors import LoopExecutor, ProcessExecutor, ThreadExecutor
from engine.executors.conformance import CHECKS, Check, ExecutorHarness, name_of
from engine.executors.port import Work
from engine.tasks import Contact

FOLDER = Path(engine.executors.conformance.__file__).parent
PLACES: dict[str, Any] = {
    "loop": lambda: ExecutorHarness(LoopExecutor, coroutines=True),
    "threads": lambda: ExecutorHarness(ThreadExecutor),
    "processes": lambda: ExecutorHarness(ProcessExecutor, ends_work=True),
}


@pytest.fixture(params=PLACES)
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[ExecutorHarness]:
    harness = PLACES[request.param]()
    yield harness
    await harness.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_conformance(check: Check, harness: ExecutorHarness) -> None:
    await check(harness)


@pytest.mark.parametrize("place", PLACES)
def test_under_uvloop(place: str) -> None:
    async def run() -> None:
        for check in CHECKS:
            if place == "processes" and not name_of(check).startswith(("ending", "contacts")):
                continue  # each starts processes anew, and these are the themes in which a loop has its say
            harness = PLACES[place]()
            try:
                await check(harness)
            finally:
                await harness.aclose()

    uvloop.run(run())


def test_it_needs_nothing_that_a_user_does_not_have() -> None:
    allowed = {"msgspec", "engine", *sys.stdlib_module_names}
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert all(name.partition(".")[0] in allowed for name in names), f"{path.name} imports {names}"


def test_every_function_that_could_be_a_check_is_one() -> None:
    names = {name_of(check) for check in CHECKS}
    for path in FOLDER.glob("*.py"):
        if path.stem in ("__init__", "harness", "checks", "works"):
            continue
        module = ast.parse(path.read_text(encoding="utf-8"))
        found = {node.name for node in module.body if isinstance(node, ast.AsyncFunctionDef)}
        public = {f"{path.stem}.{name}" for name in found if not name.startswith("_")}
        assert public, path.name
        assert public <= names


# -- executors that break a promise, and the check that must find it ---------------------------------------------------


class Forgetful(ThreadExecutor):
    """A failure costs a slot."""

    async def run(self, work: Work) -> Any:
        try:
            return await super().run(work)
        except ValueError:
            self.slots.free -= 1
            raise


class Hasty(ThreadExecutor):
    """A thread that was given up is forgotten at once."""

    async def run(self, work: Work) -> Any:
        slots, self.slots = self.slots, type(self.slots)(99)
        self.slots.free = 0
        try:
            return await super().run(work)
        finally:
            self.slots = slots
            slots.give_back()


class Secretive(ThreadExecutor):
    """Nobody is told that it is no longer wanted."""

    async def run(self, work: Work) -> Any:
        inner = asyncio.ensure_future(super().run(work))
        try:
            return await asyncio.shield(inner)
        except asyncio.CancelledError:
            inner.add_done_callback(lambda task: task.exception())
            raise


class Deaf(ThreadExecutor):
    """Heartbeats are lost."""

    async def run(self, work: Work) -> Any:
        attempt = msgspec.structs.replace(work.attempt, _contact=Contact())
        return await super().run(msgspec.structs.replace(work, attempt=attempt))


class Serial(ThreadExecutor):
    """One at a time, whatever its slots say."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self._one = asyncio.Lock()

    async def run(self, work: Work) -> Any:
        async with self._one:
            return await super().run(work)


@pytest.mark.parametrize(
    ("broken", "theme"),
    [
        (Forgetful, "places.a_slot_is_given_back_once_in_every_path"),
        (Hasty, "ending.work_that_does_not_look_is_ended_or_keeps_its_slot"),
        (Secretive, "ending.work_hears_that_it_is_asked_to_end"),
        (Deaf, "contacts.heartbeats_are_heard_while_it_runs"),
        (Serial, "places.as_many_run_at_once_as_there_are_slots"),
    ],
)
async def test_a_broken_executor_is_found(broken: Any, theme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.executors.conformance import harness as words
    from engine.executors.conformance import works

    monkeypatch.setattr(words, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(works, "LIMIT_SECONDS", 0.6)
    (check,) = (each for each in CHECKS if name_of(each) == theme)
    harness = ExecutorHarness(broken)
    with pytest.raises((AssertionError, TimeoutError)):
        await check(harness)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:  # what it left behind
        task.cancel()
        await asyncio.wait([task])
    await harness.aclose()
