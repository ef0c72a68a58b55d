"""Runs that move while they are under way go on where they come to; imports that are killed, cancelled, or not alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine import Engine, RunHandle, testing
from engine.audit import verify
from engine.errors import ExportError, RunNotFound
from engine.moving import MoveProgress, export_to_file, import_from_file
from engine.moving.events import ExportBegun, ExportWritten, FileImported, MovingEvent, new_event
from eventstore import NEW, Commit, EventStore, LimitReached, StreamQuery
from eventstore.memory import MemoryStore
from eventstore.sqlite import SqliteStore
from tests.architecture.source import ROOT
from tests.moving.journeys import DONE, TRIES, go, journey, part
from tests.moving.worlds import dumped, event

WIRE = json.loads((Path(__file__).parent / "wire.json").read_text())
DEADLINE_SECONDS = 60
KINDS = ("memory", "sqlite")


async def opened(kind: str, path: Path) -> EventStore:
    return MemoryStore() if kind == "memory" else await SqliteStore.open(path, synchronous="NORMAL")


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await condition():
            await asyncio.sleep(0.01)


async def types(run: RunHandle[object]) -> list[str]:
    return [type(each.event).__name__ async for each in run.events()]


@pytest.fixture(autouse=True)
def _forget() -> None:
    TRIES.clear()
    DONE.clear()


async def depart(store: EventStore) -> None:
    """A run up to where it has a timer, a task that failed once, a child run, and waits for a signal."""
    async with Engine(store, workflows=[journey, part]) as engine:
        run = await engine.start(journey("fish"), id="j-1")

        async def is_there() -> bool:
            return {"TimerStarted", "AttemptFailed", "ChildStarted"} <= set(await types(run))

        await until(is_there)


@pytest.mark.parametrize(
    ("here", "there", "everything"),
    [("memory", "memory", False), ("memory", "sqlite", True), ("sqlite", "memory", False), ("sqlite", "sqlite", True)],
)
async def test_a_run_goes_on_where_it_comes_to(here: str, there: str, everything: bool, tmp_path: Path) -> None:
    """With its timer, its retry, its child run and its signals; what was done is not done again."""
    origin, target = await opened(here, tmp_path / "here.db"), await opened(there, tmp_path / "there.db")
    await depart(origin)
    async with Engine(origin) as client:
        await client.run("j-1").signal(go, "on", id="s-1")  # it waits in the mailbox, and moves
    file = tmp_path / "run.holdfast"
    exported = await export_to_file(origin, file, runs=None if everything else ["j-1"], by="ann", reason="moving")
    assert exported.unfinished == 2
    assert exported.runs is None if everything else len(exported.runs or ()) == 2
    await import_from_file(target, file, by="bob")
    async with Engine(target, workflows=[journey, part]) as engine:
        run = engine.run("j-1")
        await run.signal(go, "on", id="s-1")  # again: it is delivered once
        (child,) = (await engine.runs(parent="j-1")).items
        await engine.run(child.id).signal(go, "child")
        async with asyncio.timeout(DEADLINE_SECONDS):
            first, slept, tries, signalled, of_child = await run.result()
    assert (first, tries, signalled, of_child) == ("fish", 2, "on", "child part fish")
    assert slept >= 0.6
    assert TRIES == [1, 2]
    assert DONE.count("fish") == 1
    verdict = await verify(target)
    assert verdict.findings == ()
    await origin.aclose()
    await target.aclose()


async def test_both_leave_an_event_with_who_when_and_why(tmp_path: Path) -> None:
    origin, target = MemoryStore(), MemoryStore()
    async with Engine(origin, workflows=[part]) as engine:
        await engine.start(part("x"), id="p-1")
    exported = await export_to_file(origin, tmp_path / "f", runs=["p-1"], by="ann", reason="audit")
    (stream,) = (await origin.find(StreamQuery(category="export"))).items
    begun, written = [json.loads(each.header) async for each in origin.read(stream.stream)]
    assert (begun["type"], begun["by"], begun["reason"], begun["runs"]) == ("ExportBegun", "ann", "audit", ["p-1"])
    assert (written["type"], written["sha256"], written["events"]) == (
        "ExportWritten",
        exported.sha256,
        exported.events,
    )
    await import_from_file(target, tmp_path / "f", by="bob", reason="asked")
    (event_,) = [json.loads(each.header) async for each in target.read(f"import:{exported.sha256}")]
    assert (event_["type"], event_["by"], event_["reason"], event_["file"]) == ("FileImported", "bob", "asked", "f")
    before = await dumped(origin)
    await export_to_file(origin, tmp_path / "g", record=False)
    assert await dumped(origin) == before


async def test_a_child_goes_alone_and_says_whose_it_is(tmp_path: Path) -> None:
    origin, target = MemoryStore(), MemoryStore()
    await depart(origin)
    async with Engine(origin) as client:
        (child,) = (await client.runs(parent="j-1")).items
    exported = await export_to_file(origin, tmp_path / "f", runs=[child.id])
    assert exported.parents == {child.id: "j-1"}
    await import_from_file(target, tmp_path / "f")
    async with Engine(target, workflows=[part]) as engine:
        await engine.run(child.id).signal(go, "alone")
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await engine.run(child.id).result() == "alone part fish"


async def test_a_run_that_is_not_there_writes_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    with pytest.raises(RunNotFound):
        await export_to_file(store, tmp_path / "f", runs=["nobody"])
    assert list(tmp_path.iterdir()) == []
    assert await dumped(store) == []


async def test_a_run_that_is_paused_first_goes_on_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is unpaused where it came to; also if nobody was there to take the pause up."""
    for worked_on in (True, False):
        origin, target = MemoryStore(), MemoryStore()
        file = tmp_path / f"paused-{worked_on}"
        engine = Engine(origin, workflows=[part])
        async with engine:
            await engine.start(part("x"), id="p-1")
            await until(lambda engine=engine: _is(engine, "running"))
            if worked_on:
                exported = await export_to_file(origin, file, runs=["p-1"], pause=True, by="ann")
        if not worked_on:
            monkeypatch.setattr("engine.moving.families._WITHIN_SECONDS", 0.2)  # nobody will take it up
            exported = await export_to_file(origin, file, runs=["p-1"], pause=True, by="ann")
        assert exported.not_paused == (() if worked_on else ("p-1",))
        await import_from_file(target, file)
        async with Engine(target, workflows=[part]) as there:
            await until(lambda there=there: _is(there, "paused"))
            await there.run("p-1").signal(go, "on")
            await there.run("p-1").unpause()
            async with asyncio.timeout(DEADLINE_SECONDS):
                assert await there.run("p-1").result() == "on part x"


async def _is(engine: Engine, status: str) -> bool:
    return await engine.run("p-1").status() == status


async def test_a_singleton_that_another_has_here_is_refused(tmp_path: Path) -> None:
    origin, target = MemoryStore(), MemoryStore()
    for store, id_ in ((origin, "p-1"), (target, "p-2")):
        async with Engine(store, workflows=[part]) as engine:
            await engine.start(part("x"), id=id_, singleton="key")
    await export_to_file(origin, tmp_path / "f", runs=["p-1"])
    before = await dumped(target)
    with pytest.raises(LimitReached, match="p-2"):
        await import_from_file(target, tmp_path / "f")
    assert await dumped(target) == before
    empty = MemoryStore()
    await import_from_file(empty, tmp_path / "f")
    async with Engine(empty, workflows=[part]) as engine:
        again = await engine.start(part("x"), id="p-3", singleton="key", on_conflict="attach")
        assert again.id == "p-1"


async def test_an_export_is_one_moment_while_runs_start_children(tmp_path: Path) -> None:
    """Every child run whose start is in the file is in the file."""
    origin = await SqliteStore.open(tmp_path / "here.db", synchronous="NORMAL")
    async with Engine(origin, workflows=[journey, part]) as engine:
        runs = [await engine.start(journey("x"), id=f"j-{number}") for number in range(12)]
        file = tmp_path / "f"
        await export_to_file(origin, file, runs=[run.id for run in runs])
    target = MemoryStore()
    await import_from_file(target, file)
    async with Engine(target) as client:
        for run in runs:
            async for each in client.run(run.id).events():
                if type(each.event).__name__ == "ChildStarted":
                    await client.run(each.event.run).status()
    await origin.aclose()


# -- what may happen on the way ----------------------------------------------------------------------------------------


@pytest.fixture
async def large(tmp_path: Path) -> AsyncIterator[Path]:
    """A file of some thousand events."""
    store = MemoryStore()
    for number in range(60):
        events = tuple(event(number, b'{"n":1}') for _ in range(100))
        await store.commit(Commit(id="x", stream=f"run:r{number % 20}-{number}", expected_version=NEW, events=events))
    await export_to_file(store, tmp_path / "large.holdfast", record=False)
    await store.aclose()
    yield tmp_path / "large.holdfast"


async def test_killed_on_the_way_nothing_is_there_and_again_all_of_it(large: Path, tmp_path: Path) -> None:
    path = tmp_path / "there.db"
    for stop_at in (1_000, 3_000, 6_000):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.moving.journeys", str(path), str(large), str(stop_at)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "installing\n"
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        process.stdout.close()
        store = await SqliteStore.open(path)
        assert await dumped(store) == []
        await store.aclose()
    store = await SqliteStore.open(path)
    imported = await import_from_file(store, large)
    assert (imported.streams, imported.events) == (60, 6_000)
    again = await import_from_file(store, large)
    assert (again.streams, again.same) == (0, 60)
    verdict = await verify(store)
    assert (verdict.findings, verdict.events) == ((), 6_001)
    await store.aclose()


async def test_cancelled_on_the_way_nothing_is_there(large: Path, tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "there.db", synchronous="NORMAL")
    loop = asyncio.get_running_loop()
    for doing in ("checking", "installing"):

        def progress(told: MoveProgress, doing: str = doing) -> None:
            if told.doing == doing and told.events == 1_000:
                loop.call_soon_threadsafe(task.cancel)
                while not task.done():  # the thread is held up until the loop has cancelled it
                    pass

        task = asyncio.ensure_future(import_from_file(store, large, progress=progress))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await dumped(store) == []
        await store.commit(Commit(id=doing, stream=f"run:{doing}", expected_version=NEW, events=(event(1),)))
        assert [each.stream async for each in store.read_all()][-1] == f"run:{doing}"
        if doing == "checking":
            await store.aclose()
            store = await SqliteStore.open(tmp_path / "again.db", synchronous="NORMAL")
    await store.aclose()


async def test_others_write_meanwhile(large: Path, tmp_path: Path) -> None:
    """All that they write is there, and what was imported stands in the log in one piece."""
    path = tmp_path / "there.db"
    store, other = (
        await SqliteStore.open(path, synchronous="NORMAL"),
        await SqliteStore.open(path, synchronous="NORMAL"),
    )
    written = 0
    ended = asyncio.Event()

    async def write(to: EventStore, name: str) -> None:
        nonlocal written
        version = NEW
        while not ended.is_set():
            head = await to.commit(
                Commit(id=f"{version}", stream=name, expected_version=version, events=(event(1, b"x"),))
            )
            version = head.version
            written += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(write(store, "run:mine"))
        group.create_task(write(other, "run:theirs"))

        async def wrote(count: int) -> None:
            wanted = written + count

            async def enough() -> bool:
                return written >= wanted

            await until(enough)

        await wrote(20)
        await import_from_file(store, large)
        await wrote(20)
        ended.set()
    log = [each.stream async for each in other.read_all()]
    moved = [index for index, name in enumerate(log) if name.startswith("run:r")]
    assert moved == list(range(moved[0], moved[0] + 6_000))
    assert log[moved[-1] + 1].startswith("import:")
    assert len(log) == 6_001 + written
    assert (await verify(other)).findings == ()
    await store.aclose()
    await other.aclose()


async def test_two_who_import_the_same_file_at_once(large: Path, tmp_path: Path) -> None:
    path = tmp_path / "there.db"
    stores = [await SqliteStore.open(path, synchronous="NORMAL") for _ in range(2)]
    done = await asyncio.gather(*(import_from_file(store, large) for store in stores))
    assert sorted((each.streams, each.same) for each in done) == [(0, 60), (60, 0)]
    for store in stores:
        await store.aclose()


async def test_a_file_that_is_replaced_meanwhile_installs_nothing(large: Path, tmp_path: Path) -> None:
    store, other = MemoryStore(), MemoryStore()
    await other.commit(Commit(id="x", stream="run:other", expected_version=NEW, events=(event(1),)))
    await export_to_file(other, tmp_path / "other.holdfast", record=False)

    def progress(told: MoveProgress) -> None:
        if told.doing == "checking" and told.events == 6_000:
            (tmp_path / "other.holdfast").replace(large)

    with pytest.raises(ExportError, match="was replaced"):
        await import_from_file(store, large, progress=progress)
    assert await dumped(store) == []


# -- the events on disk ------------------------------------------------------------------------------------------------

AT = 1_767_225_600_000_001
SAMPLES: list[MovingEvent] = [
    ExportBegun(at=AT, file="shop.holdfast"),
    ExportBegun(at=AT, file="shop.holdfast", runs=("n-1", "n-2"), by="ann", reason="moving"),
    ExportWritten(at=AT, sha256="00ff", streams=2, events=7),
    FileImported(at=AT, file="shop.holdfast", sha256="00ff", streams=2, events=7, exported_at=AT - 1),
    FileImported(
        at=AT,
        file="shop.holdfast",
        sha256="00ff",
        streams=2,
        events=7,
        exported_at=AT - 1,
        runs=("n-1",),
        by="ann",
        reason="moving",
    ),
]


def test_the_wire_form_never_changes() -> None:
    assert [new_event(sample).header.decode() for sample in SAMPLES] == WIRE


async def test_a_run_goes_into_a_lab_and_back(tmp_path: Path) -> None:
    """Where its timers pass at once: what came of a run is looked at without waiting for it."""
    origin = MemoryStore()
    await depart(origin)
    await export_to_file(origin, tmp_path / "f", runs=["j-1"])
    async with testing.engine(journey, part, start=datetime.now(UTC)) as lab:
        await import_from_file(lab.store, tmp_path / "f")
        run = lab.engine.run("j-1")
        await run.signal(go, "on")
        (child,) = (await lab.engine.runs(parent="j-1")).items
        await lab.engine.run(child.id).signal(go, "child")
        first, _, tries, signalled, of_child = await lab.result(run)
        assert (first, tries, signalled, of_child) == ("fish", 2, "on", "child part fish")
        await export_to_file(lab.store, tmp_path / "back", runs=["j-1"])
    target = MemoryStore()
    await import_from_file(target, tmp_path / "back")
    async with Engine(target) as client:
        assert await client.run("j-1").status() == "completed"


async def test_what_does_not_verify_is_not_exported(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "here.db", synchronous="NORMAL")
    for name in ("run:a", "run:b"):
        await store.commit(Commit(id="x", stream=name, expected_version=NEW, events=(event(1, b"1"), event(2, b"2"))))
    with closing(sqlite3.connect(tmp_path / "here.db")) as file, file:
        file.execute("UPDATE events SET payload = '3' WHERE payload = '2' AND stream = 1")
    with pytest.raises(ExportError, match="stream 'run:a', version 2.*it was changed; look with holdfast verify"):
        await export_to_file(store, tmp_path / "f")
    assert not (tmp_path / "f").exists()
    await export_to_file(store, tmp_path / "b", runs=["b"])
    await store.aclose()
