"""There and back: whatever is in a store comes out of another of any kind as it went in, byte for byte."""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.audit import PrivateKey, read_seals, seal, verify
from engine.moving import export_to_file, import_from_file
from engine.moving.files import ExportReader
from eventstore import NEW, Commit, EventStore, StreamDiffers, StreamQuery
from eventstore.memory import MemoryStore
from eventstore.moving import Item, moving_store
from eventstore.sqlite import SqliteStore
from tests.moving.worlds import destroy, dumped, event, fill

KEY = PrivateKey("example.com/shop", bytes(range(32)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1_000_000), forgotten=st.integers(0, 1_000_000))
def test_memory_sqlite_memory_sqlite(seed: int, forgotten: int) -> None:
    """Four stores of two kinds, through files; the files of the second half are made of what the first gave out."""

    async def play(folder: Path) -> None:
        first = MemoryStore()
        await fill(first, seed)
        chance = random.Random(forgotten)
        log = [(each.stream, each.version) async for each in first.read_all()]
        destroy(first, {each for each in log if chance.random() < 0.3})
        before = await dumped(first)
        store: EventStore = first
        for number in range(3):
            file = folder / f"{number}.holdfast"
            await export_to_file(store, file, record=False)
            await store.aclose()
            target = folder / f"{number}.db"
            store = MemoryStore() if number == 1 else await SqliteStore.open(target, synchronous="NORMAL")
            await moving_store(store).install(await _read(file))
            assert await dumped(store) == before
            verdict = await verify(store)
            assert verdict.findings == ()
        await store.aclose()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))


async def _read(file: Path) -> list[Item]:
    return list(ExportReader(file, stop=threading.Event()))


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventStore]:
    opened: EventStore = MemoryStore() if request.param == "memory" else await SqliteStore.open(tmp_path / "there.db")
    yield opened
    await opened.aclose()


async def test_seals_hold_behind_an_import_into_an_empty_store(store: EventStore, tmp_path: Path) -> None:
    origin = await SqliteStore.open(tmp_path / "here.db", synchronous="NORMAL")
    await fill(origin, 1)
    await seal(origin, KEY, out=tmp_path / "first.seal")
    await fill_more(origin)
    await seal(origin, KEY, out=tmp_path / "second.seal")
    exported = await export_to_file(origin, tmp_path / "all.holdfast", by="ann", reason="moving house")
    imported = await import_from_file(store, exported.file, by="bob", reason="moved in")
    assert (imported.streams, imported.events, imported.same) == (exported.streams, exported.events, 0)
    seals = (*read_seals(tmp_path / "first.seal"), *read_seals(tmp_path / "second.seal"))
    verdict = await verify(store, seals=seals, key=KEY.public)
    assert verdict.findings == ()
    assert all(each.holds and each.signed for each in verdict.seals)
    assert verdict.sealed == 2
    log = [(each.stream, each.version, each.digest) async for each in store.read_all()]
    there = [(each.stream, each.version, each.digest) async for each in origin.read_all()]
    assert log[:-1] == there[:-1]  # but for the last event of each: ExportWritten there, FileImported here
    await seal(store, KEY, out=tmp_path / "second.seal")
    await origin.aclose()


async def fill_more(store: EventStore) -> None:
    await store.commit(Commit(id="x", stream="run:more", expected_version=NEW, events=(event(1, b"more"),)))


async def test_the_same_file_again_is_nothing_new(store: EventStore, tmp_path: Path) -> None:
    origin = MemoryStore()
    await fill(origin, 2)
    exported = await export_to_file(origin, tmp_path / "all.holdfast")
    first = await import_from_file(store, exported.file)
    before = await dumped(store)
    again = await import_from_file(store, exported.file)
    assert (again.streams, again.events, again.same) == (0, 0, first.streams)
    assert await dumped(store) == before
    await origin.aclose()


async def test_a_stream_that_has_gone_on_is_not_overwritten(store: EventStore, tmp_path: Path) -> None:
    origin = MemoryStore()
    await fill(origin, 3)
    await export_to_file(origin, tmp_path / "all.holdfast")
    await import_from_file(store, tmp_path / "all.holdfast")
    head = next(iter((await store.find(_runs())).items))
    await store.commit(Commit(id="on", stream=head.stream, expected_version=head.version, events=(event(1),)))
    before = await dumped(store)
    with pytest.raises(StreamDiffers, match="has gone on|has other events"):
        await import_from_file(store, tmp_path / "all.holdfast")
    assert await dumped(store) == before
    await origin.aclose()


def _runs() -> StreamQuery:
    return StreamQuery(category="run", limit=1)
