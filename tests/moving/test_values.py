"""Large values go along in the file, each once, checked on the way; or are left where they lie, and that is said."""

from __future__ import annotations

import base64
import json
import os
import tracemalloc
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from engine import Engine, LargeValues, task, workflow
from engine.audit import verify
from engine.errors import DamagedExport, ExportError, StorageUnavailable
from engine.moving import check_export, export_to_file, import_from_file
from engine.moving.objects import CHUNK_BYTES
from engine.storage import Storage, Stored
from eventstore import NEW, Commit, Message, NewEvent, Opening, StreamQuery
from eventstore.memory import MemoryStore
from eventstore.sqlite import SqliteStore
from tests.moving.test_files import lines_of, signed
from tests.moving.worlds import dumped

LONG = 3 * CHUNK_BYTES


@task
async def read(length: int) -> str:
    return "xy" * (length // 2)


@task
def table(rows: int) -> pl.DataFrame:
    return pl.DataFrame({"n": list(range(rows))})


@workflow
async def large(length: int) -> dict[str, int | str]:
    text = await read(length)
    again = await read(length)
    frame = await table(3)
    return {"length": len(text) + len(again), "rows": len(frame), "text": text[:10]}


WANT = {"length": 2 * LONG, "rows": 3, "text": "xyxyxyxyxy"}


@pytest.fixture
async def origin(tmp_path: Path) -> AsyncIterator[LargeValues]:
    """A store with one run that has large values, and one that has none."""
    store = await SqliteStore.open(tmp_path / "here.db", synchronous="NORMAL")
    async with Engine(store, workflows=[large], storage=Storage(tmp_path / "values")) as engine:
        run = await engine.start(large(LONG), id="r")
        assert await run.result() == WANT
        small = await engine.start(large(2), id="small")
        await small.result()
    yield LargeValues(store, Storage(tmp_path / "values"))
    await store.aclose()


def objects(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("??/*")}


async def test_a_file_holds_the_large_values_and_the_run_is_whole_where_it_comes_to(
    origin: LargeValues, tmp_path: Path
) -> None:
    exported = await export_to_file(origin, tmp_path / "f", by="ann")
    assert (exported.values, exported.values_elsewhere) == (2, 0), "one text, and one table, whoever names them"
    assert exported.values_bytes == sum(map(len, objects(tmp_path / "values").values()))
    checked = await check_export(tmp_path / "f")
    assert (checked.values, checked.values_bytes, checked.values_elsewhere) == (2, exported.values_bytes, 0)
    target = LargeValues(MemoryStore(), Storage(tmp_path / "there"))
    await import_from_file(target, tmp_path / "f", by="bob")
    assert objects(tmp_path / "there") == objects(tmp_path / "values")
    assert (await verify(target)).findings == ()
    async with Engine(target.inner, workflows=[large], storage=target.storage) as engine:
        assert await engine.run("r").result() == WANT
        fork = await engine.fork("r", at=4, id="f")
        assert await fork.result() == WANT
    make_old(tmp_path / "there")
    assert (await target.sweep()).objects == 0


async def test_of_one_run_only_its_own_go(origin: LargeValues, tmp_path: Path) -> None:
    exported = await export_to_file(origin, tmp_path / "f", runs=["small"])
    assert exported.values == 1


async def test_runs_that_have_forgotten_or_are_pruned_take_none_along(origin: LargeValues, tmp_path: Path) -> None:
    async with Engine(origin) as engine:
        await engine.destroy_payloads("small")
        await engine.prune("r")
    exported = await export_to_file(origin, tmp_path / "f")
    assert (exported.values, exported.values_elsewhere) == (0, 0)
    await import_from_file(MemoryStore(), tmp_path / "f")


async def test_values_can_be_left_out_and_that_is_said(origin: LargeValues, tmp_path: Path) -> None:
    """For who has the same storage, or a copy of it."""
    for store in (origin, origin.inner):
        exported = await export_to_file(store, tmp_path / f"f{store is origin}", values=False, record=False)
        assert (exported.values, exported.values_elsewhere) == (0, 2)
    checked = await check_export(tmp_path / "fTrue")
    assert (checked.values, checked.values_elsewhere) == (0, 2)
    target = MemoryStore()
    await import_from_file(target, tmp_path / "fTrue")
    async with Engine(target, workflows=[large], storage=origin.storage) as engine:
        assert await engine.run("r").result() == WANT


async def test_a_store_that_does_not_say_where_they_lie_is_not_exported_in_part(
    origin: LargeValues, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"2 large values, which lie in a storage: say which, with \?storage=PLACE"):
        await export_to_file(origin.inner, tmp_path / "f")
    assert not (tmp_path / "f").exists()


async def test_a_target_without_a_storage_refuses_and_takes_nothing_in(origin: LargeValues, tmp_path: Path) -> None:
    await export_to_file(origin, tmp_path / "f")
    target = MemoryStore()
    with pytest.raises(ExportError, match=r"holds 2 large values, and nothing says where they are to lie"):
        await import_from_file(target, tmp_path / "f")
    assert await dumped(target) == []


@pytest.mark.parametrize("how", ["gone", "damaged"])
async def test_a_value_that_cannot_be_had_is_named(origin: LargeValues, tmp_path: Path, how: str) -> None:
    path = max((tmp_path / "values").glob("??/*.json"), key=lambda each: each.stat().st_size)
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ExportError, match=path.name):
        await export_to_file(origin, tmp_path / "f")
    assert not (tmp_path / "f").exists()
    await export_to_file(origin, tmp_path / "f", values=False)


async def test_a_storage_that_cannot_be_written_leaves_the_store_as_it_was(origin: LargeValues, tmp_path: Path) -> None:
    await export_to_file(origin, tmp_path / "f")
    (tmp_path / "file").write_text("no folder")
    target = LargeValues(MemoryStore(), Storage(tmp_path / "file" / "values"))
    with pytest.raises(StorageUnavailable):
        await import_from_file(target, tmp_path / "f")
    assert await dumped(target) == []


async def test_again_it_writes_what_is_missing(origin: LargeValues, tmp_path: Path) -> None:
    """The same file mends a storage that has lost what the store names."""
    await export_to_file(origin, tmp_path / "f")
    target = LargeValues(MemoryStore(), Storage(tmp_path / "there"))
    await import_from_file(target, tmp_path / "f")
    for path in (tmp_path / "there").glob("??/*"):
        path.unlink()
    again = await import_from_file(target, tmp_path / "f")
    assert again.streams == 0
    assert objects(tmp_path / "there") == objects(tmp_path / "values")


async def test_memory_is_bounded_by_the_chunk(tmp_path: Path) -> None:
    """Out of a file and into one: an object of 40 MiB costs no tenth of that."""
    store = LargeValues(MemoryStore(), Storage(tmp_path / "values"))
    data = b'"' + b"x" * (40 << 20) + b'"'
    stored = await store.storage.write_bytes(data, "json")
    await _name(store, stored)
    del data
    tracemalloc.start()
    try:
        await export_to_file(store, tmp_path / "f")
        target = LargeValues(MemoryStore(), Storage(tmp_path / "there"))
        await import_from_file(target, tmp_path / "f")
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()
    assert len(objects(tmp_path / "there")) == 1


async def _name(store: LargeValues, stored: Stored) -> None:
    payload = b' {"stored":' + msgspec.json.encode(stored) + b"}"
    await store.inner.commit(
        Commit(id="x", stream="run:x", expected_version=NEW, events=(NewEvent(b'{"type":"Noted"}', payload),))
    )


async def test_what_was_changed_is_refused_whoever_wrote_the_last_line(origin: LargeValues, tmp_path: Path) -> None:
    await export_to_file(origin, tmp_path / "f")
    lines = lines_of((tmp_path / "f").read_bytes())
    first = next(index for index, line in enumerate(lines) if line.startswith(b'{"line":"object"'))
    head, data = json.loads(lines[first]), json.loads(lines[first + 1])
    event = next(index for index, line in enumerate(lines) if line.startswith(b'{"line":"event"'))
    other = base64.b64encode(b"z" * len(base64.b64decode(data["data64"]))).decode()
    stranger = sha256(b"stranger").hexdigest()
    strange = [
        {"line": "object", "key": f"{stranger[:2]}/{stranger}.json", "size": 8},
        {"line": "bytes", "data64": base64.b64encode(b"stranger").decode()},
    ]

    def line(said: Any) -> bytes:
        return json.dumps(said).encode() + b"\n"

    changed = {
        "other bytes": [*lines[: first + 1], line(data | {"data64": other}), *lines[first + 2 :]],
        "missing bytes": [*lines[: first + 1], *lines[first + 2 :]],
        "bytes twice": [*lines[: first + 2], *lines[first + 1 :]],
        "no head": [*lines[:first], *lines[first + 1 :]],
        "another size": [*lines[:first], line(head | {"size": head["size"] - 1}), *lines[first + 1 :]],
        "a size below nothing": [*lines[:first], line(head | {"size": -1}), *lines[first + 1 :]],
        "another key": [*lines[:first], line(head | {"key": "../../etc/passwd"}), *lines[first + 1 :]],
        "no base64": [*lines[: first + 1], line(data | {"data64": "***"}), *lines[first + 2 :]],
        "empty bytes": [*lines[: first + 1], line(data | {"data64": ""}), *lines[first + 1 :]],
        "one that nobody names": [*lines[:-1], *map(line, strange), lines[-1]],
        "an event behind": [*lines[:event], *lines[event + 1 : -1], lines[event], lines[-1]],
        "twice": [*lines[:-1], *lines[first:-1], lines[-1]],
    }
    for name, each in changed.items():
        (tmp_path / "taken").write_bytes(signed(each))
        target = LargeValues(MemoryStore(), Storage(tmp_path / f"of {name}"))
        with pytest.raises(DamagedExport):
            await import_from_file(target, tmp_path / "taken")
        assert (await target.find(StreamQuery())).items == (), name
        assert objects(tmp_path / f"of {name}") == {}, name


async def test_objects_that_are_missing_altogether_are_said_to_be_elsewhere(
    origin: LargeValues, tmp_path: Path
) -> None:
    """As somebody would make a file who cuts them out, and writes the last line anew."""
    await export_to_file(origin, tmp_path / "f")
    lines = lines_of((tmp_path / "f").read_bytes())
    kept = [line for line in lines if not line.startswith((b'{"line":"object"', b'{"line":"bytes"'))]
    (tmp_path / "taken").write_bytes(signed(kept))
    checked = await check_export(tmp_path / "taken")
    assert (checked.values, checked.values_elsewhere) == (0, 2)


# -- sweeping ----------------------------------------------------------------------------------------------------------


def make_old(folder: Path) -> None:
    for path in folder.glob("??/*"):
        os.utime(path, (0, 0))


async def test_of_pruned_and_forgotten_runs_the_values_are_swept(origin: LargeValues, tmp_path: Path) -> None:
    make_old(tmp_path / "values")
    async with Engine(origin) as engine:
        await engine.prune("r")
    looked = await origin.sweep(look=True)
    assert looked.objects == 1, "the text; the table is also the other run's"
    assert len(objects(tmp_path / "values")) == 2
    swept = await origin.sweep()
    assert (swept.objects, swept.bytes) == (looked.objects, looked.bytes)
    async with Engine(origin) as engine:
        await engine.destroy_payloads("small")
    await origin.sweep()
    assert objects(tmp_path / "values") == {}


async def test_what_is_named_by_anything_stays(tmp_path: Path) -> None:
    """By a header, a payload that is no large value, a signal that waits, and a list that is itself a large value."""
    store = LargeValues(MemoryStore(), Storage(tmp_path / "values"))
    keys = [(await store.storage.write({"number": number})).key for number in range(6)]
    header = json.dumps({"type": "Noted", "at": keys[0].replace("/", "\\/")}).replace("\\\\/", "\\/").encode()
    of_list = await store.storage.write([keys[2], "x" * CHUNK_BYTES, {"key": keys[3]}])
    await store.inner.commit(
        Commit(
            id="x",
            stream="asset:a",
            expected_version=NEW,
            events=(NewEvent(header, json.dumps({"key": keys[1]}).encode()),),
        )
    )
    await _name(store, of_list)
    for number in range(3_000):  # more than a page of a mailbox shows
        payload = json.dumps(keys[4]).encode() if number == 2_999 else b"1"
        await store.send(Message(id=f"m{number}", stream="run:y", header=b"{}", payload=payload, opens=Opening()))
    make_old(tmp_path / "values")
    swept = await store.sweep()
    assert (swept.objects, swept.kept) == (1, 6)
    assert keys[5].partition("/")[2] not in objects(tmp_path / "values")
