"""Runs that were pruned, or have forgotten, move like any other: what is left of them verifies, and their ids stay taken."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import Engine
from engine.audit import PrivateKey, read_seals, seal, verify, verify_streams
from engine.errors import DamagedExport, ExportError, RunConflict, RunPrunedError
from engine.moving import export_to_file, import_from_file
from eventstore import NEW, Commit, EventStore, KeptDigest, StreamDiffers, StreamNotFound, StreamQuery
from eventstore.memory import MemoryStore
from eventstore.moving import StoredStream
from eventstore.sqlite import SqliteStore
from tests.audit.test_tampering import SCRIPT
from tests.moving.journeys import go, part
from tests.moving.test_files import lines_of, packed, signed
from tests.moving.worlds import dumped, event, fill

KEY = PrivateKey("example.com/shop", bytes(range(32)))
KINDS = ("memory", "sqlite")


async def opened(kind: str, path: Path) -> EventStore:
    return MemoryStore() if kind == "memory" else await SqliteStore.open(path, synchronous="NORMAL")


async def close_some(store: EventStore, chance: random.Random) -> list[str]:
    """The names of streams of runs that have ended: each has two events at least."""
    names = [head.stream for head in (await store.find(StreamQuery(category="run", limit=100))).items]
    ended = [name for name in names if chance.random() < 0.7]
    for name in ended:
        version = (await store.head(name)).version
        events = (event(1, b"1"), event(2, b"2"))
        await store.commit(Commit(id="end", stream=name, expected_version=version or 0, events=events, closed=True))
    return ended


async def take_away(store: Any, ended: list[str], chance: random.Random) -> None:
    """Of some runs their values, of some all but what must stay, and of some a part of that, as a crash leaves it."""
    prune = store.prune
    async with Engine(store) as engine:
        for name in ended:
            run = name.partition(":")[2]
            match chance.randrange(4):
                case 0:
                    await engine.destroy_payloads(run, by="ann", reason="request 7")
                case 1:
                    await engine.prune(run, by="ann", reason="policy 7")
                case 2:
                    store.prune = _nothing
                    await engine.prune(run, by="ann", reason="policy 7")
                    store.prune = prune
                case _:
                    pass


async def _nothing(stream: str, *, until: int) -> int:
    return 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1_000_000), there=st.booleans())
def test_there_and_back(seed: int, there: bool) -> None:
    """Through files, between both kinds, into stores that are empty and that are not: it verifies everywhere, by both
    verifiers, and comes out of the last as it came out of the second.
    """

    async def play(folder: Path) -> None:
        chance = random.Random(seed)
        store: EventStore = await opened(KINDS[there], folder / "first.db")
        await fill(store, seed)
        await take_away(store, await close_some(store, chance), chance)
        seen: list[Any] = []
        for number in range(3):
            file = folder / f"{number}.holdfast"
            await export_to_file(store, file, record=False)
            await store.aclose()
            store = await opened(KINDS[(number + there) % 2], folder / f"{number}.db")
            if number == 1:
                await store.commit(Commit(id="x", stream="run:mine", expected_version=NEW, events=(event(1),)))
            await import_from_file(store, file)
            verdict = await verify(store)
            assert verdict.findings == ()
            if isinstance(store, SqliteStore):
                problems, tree = SCRIPT.verify(folder / f"{number}.db")
                assert (problems, tree.root()) == ([], verdict.root)
            seen.append([item for item in await dumped(store) if not _is_ours(item)])
        await store.aclose()
        assert seen[0] == seen[1] == seen[2]

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))


def _is_ours(item: Any) -> bool:
    """Of what the imports and the test have put there."""
    return str(getattr(item, "stream", "")).startswith(("import:", "run:mine"))


# -- a store with runs that were pruned --------------------------------------------------------------------------------


@pytest.fixture(params=KINDS)
async def origin(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventStore]:
    """Three runs that have ended: one is whole, one has forgotten, one is pruned."""
    store = await opened(request.param, tmp_path / "here.db")
    async with Engine(store, workflows=[part]) as engine:
        for run_id in ("whole", "forgotten", "gone"):
            run = await engine.start(part(run_id), id=run_id)
            await run.signal(go, "on")
            assert await run.result() == f"on part {run_id}"
    await seal(store, KEY, out=tmp_path / "before.seal")
    async with Engine(store) as engine:
        await engine.destroy_payloads("forgotten", by="ann", reason="request 7")
        await engine.prune("gone", by="ann", reason="policy 7")
    await seal(store, KEY, out=tmp_path / "behind.seal")
    yield store
    await store.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_seals_hold_and_the_id_stays_taken(origin: EventStore, kind: str, tmp_path: Path) -> None:
    exported = await export_to_file(origin, tmp_path / "all.holdfast")
    target = await opened(kind, tmp_path / "there.db")
    imported = await import_from_file(target, exported.file)
    assert (imported.streams, imported.events) == (exported.streams, exported.events)
    seals = [each for name in ("before", "behind") for each in read_seals(tmp_path / f"{name}.seal")]
    verdict = await verify(target, seals=seals, key=KEY.public)
    assert verdict.findings == ()
    assert [(each.holds, each.signed) for each in verdict.seals] == [(True, True)] * 2
    assert verdict.pruned > 2
    if kind == "sqlite":
        problems, tree = SCRIPT.verify(tmp_path / "there.db", [tmp_path / "before.seal", tmp_path / "behind.seal"])
        assert (problems, tree.root()) == ([], verdict.root)
    assert (await verify_streams(target, ["run:gone", "run:forgotten"])).findings == ()
    async with Engine(target, workflows=[part]) as engine:
        assert await engine.run("gone").status() == "pruned"
        with pytest.raises(RunConflict, match="Its id stays taken"):
            await engine.start(part("gone"), id="gone")
        with pytest.raises(RunPrunedError, match="'gone' was pruned"):
            await engine.run("gone").result()
        assert await engine.run("whole").result() == "on part whole"
        assert await engine.prune("gone") == 0
        await engine.prune("whole")
    assert (await verify(target, seals=seals, key=KEY.public)).findings == ()
    await target.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_one_pruned_run_goes_alone_behind_others(origin: EventStore, kind: str, tmp_path: Path) -> None:
    """Where every position is another: what was said of it holds, for the positions of then go along."""
    await export_to_file(origin, tmp_path / "one.holdfast", runs=["gone"])
    target = await opened(kind, tmp_path / "there.db")
    await fill(target, 3)
    await import_from_file(target, tmp_path / "one.holdfast")
    assert (await verify(target)).findings == ()
    if kind == "sqlite":
        assert SCRIPT.verify(tmp_path / "there.db")[0] == []
    assert (await target.head("run:gone")).pruned
    again = await import_from_file(target, tmp_path / "one.holdfast")
    assert (again.streams, again.same) == (0, 1)
    await export_to_file(target, tmp_path / "again.holdfast", runs=["gone"], record=False)
    third = MemoryStore()
    await import_from_file(third, tmp_path / "again.holdfast")
    assert (await verify(third)).findings == ()
    await target.aclose()


async def test_a_run_that_is_whole_here_is_not_taken_away_by_a_file_nor_brought_back(
    origin: EventStore, tmp_path: Path
) -> None:
    await export_to_file(origin, tmp_path / "whole.holdfast", runs=["whole"])
    target = MemoryStore()
    await import_from_file(target, tmp_path / "whole.holdfast")
    async with Engine(origin) as engine:
        await engine.prune("whole")
    await export_to_file(origin, tmp_path / "pruned.holdfast", runs=["whole"])
    with pytest.raises(StreamDiffers, match="was pruned there: prune it here, too"):
        await import_from_file(target, tmp_path / "pruned.holdfast")
    with pytest.raises(StreamDiffers, match="was pruned here since"):
        await import_from_file(origin, tmp_path / "whole.holdfast")
    async with Engine(target, workflows=[part]) as engine:
        assert await engine.run("whole").result() == "on part whole"


async def test_a_removal_that_was_cut_off_is_finished_in_the_file(tmp_path: Path) -> None:
    """At every event: the run travels as it is to be, and its mail does not travel."""
    path = tmp_path / "here.db"
    store: Any = await SqliteStore.open(path, synchronous="NORMAL")
    await fill(store, 5)
    version = (await store.head("run:a")).version
    await store.commit(Commit(id="e", stream="run:a", expected_version=version, events=(event(1, b"1"),), closed=True))
    store.prune = _nothing
    async with Engine(store) as engine:
        await engine.prune("a", by="ann", reason="policy 7")
    for until in range(version + 2):
        if until:
            with closing(sqlite3.connect(path)) as file, file:
                of = f"FROM events WHERE stream = (SELECT id FROM streams WHERE name = 'run:a') AND version = {until}"
                file.execute(
                    f"INSERT INTO kept_digests (position, stream, version, digest) SELECT position, stream, version, digest {of}"
                )
                file.execute(f"DELETE {of}")
        for everything in (True, False):
            target = MemoryStore()
            exported = await export_to_file(
                store, tmp_path / f"{until}-{everything}", runs=None if everything else ["a"], record=False
            )
            await import_from_file(target, exported.file)
            assert (await target.head("run:a")).pruned
            assert (await target.head("run:a")).messages == ()
            assert [each.version async for each in target.kept("run:a")] == list(range(1, version + 2))
            assert (await verify(target)).findings == ()
    await store.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_run_that_is_pruned_while_the_store_is_given_out(kind: str, tmp_path: Path) -> None:
    """It is in the file as it was, or as it is then: at whatever item the pruning begins."""
    for at in range(0, 40, 5):
        store: Any = await opened(kind, tmp_path / f"{at}.db")
        await fill(store, 5)
        await close_some(store, random.Random("all 1"))
        dump, tries = store.dump, 0

        async def dumping(streams: Any = None, *, store: Any = store, dump: Any = dump, at: int = at) -> Any:
            nonlocal tries
            tries += 1
            number = 0
            async for item in dump(streams):
                yield item
                number += 1
                if number == at and tries == 1:
                    async with Engine(store) as engine:
                        for head in (await store.find(StreamQuery(category="run", closed=True))).items:
                            await engine.prune(head.stream.partition(":")[2])

        store.dump = dumping
        await export_to_file(store, tmp_path / f"{at}.holdfast", record=False)
        assert tries <= 2
        target = MemoryStore()
        await import_from_file(target, tmp_path / f"{at}.holdfast")
        assert (await verify(target)).findings == ()
        await store.aclose()


async def test_who_prunes_all_the_while_is_said(origin: Any, tmp_path: Path) -> None:
    """What is left shows in place of an event that was announced."""
    dump = origin.dump

    async def dumping(streams: Any = None) -> Any:
        async for item in dump(streams):
            yield replace(item, pruned=False, attributes={}) if isinstance(item, StoredStream) else item

    origin.dump = dumping
    with pytest.raises(ExportError, match="runs are pruned all the while"):
        await export_to_file(origin, tmp_path / "f")
    assert not (tmp_path / "f").exists()


# -- files that were changed -------------------------------------------------------------------------------------------


def _changed(said: dict[str, Any]) -> list[dict[str, Any]]:
    flipped = ("0" if said["digest"][0] != "0" else "1") + said["digest"][1:]
    return [
        said | {"digest": flipped},
        said | {"position": said["position"] + 1},
        said | {"position": 0},
        said | {"position": -1},
        said | {"position": 1 << 64},
        said | {"version": said["version"] + 1},
        said | {"stream": "run:whole"},
        said | {"digest": "zz"},
        said | {"header": "{}"},
    ]


async def test_what_is_left_cannot_be_changed_whoever_wrote_the_last_line(tmp_path: Path) -> None:
    store = MemoryStore()
    await fill(store, 3)
    await close_some(store, random.Random("all 1"))
    async with Engine(store) as engine:
        for head in (await store.find(StreamQuery(category="run", closed=True))).items:
            await engine.prune(head.stream.partition(":")[2], by="ann")
    await export_to_file(store, tmp_path / "good.holdfast", record=False)
    lines = lines_of((tmp_path / "good.holdfast").read_bytes())
    kept = [
        index for index, line in enumerate(lines) if json.loads(line)["line" if b'"line"' in line else "form"] == "kept"
    ]
    assert len(kept) > 10

    async def refuses(changed: list[bytes]) -> None:
        (tmp_path / "taken").write_bytes(signed(changed))
        target = MemoryStore()
        with pytest.raises(DamagedExport):
            await import_from_file(target, tmp_path / "taken")
        assert (await target.find(StreamQuery(pruned=None))).items == ()

    for index in kept:
        said = json.loads(lines[index])
        for other in _changed(said):
            await refuses([*lines[:index], json.dumps(other).encode() + b"\n", *lines[index + 1 :]])
        await refuses(lines[:index] + lines[index + 1 :])
        await refuses(lines[: index + 1] + lines[index:])
    for name, index in (("the mark", 1), ("the event", len(lines) - 2)):
        line = lines[index]
        changed = line.replace(b',"pruned":true', b"") if name == "the mark" else line.replace(b'"leaves', b'"lewaes')
        if changed != line:
            await refuses([*lines[:index], changed, *lines[index + 1 :]])
    (tmp_path / "taken").write_bytes(packed(lines))
    await import_from_file(MemoryStore(), tmp_path / "taken")


async def test_another_who_says_it_was_pruned_is_refused(tmp_path: Path) -> None:
    """A file by hand, whose chain is right: a stream of digests that nobody has pruned says so by no event."""
    header = '{"type":"RunCompleted","at":1}'
    leaf = sha256(b"anything").digest()
    last = sha256(b"\x00" + leaf + len(header).to_bytes(8, "big") + header.encode() + bytes(32)).hexdigest()
    lines: list[dict[str, Any]] = [
        {"holdfast": "export", "form": 1, "version": "", "at": 1, "store": "x"},
        {"line": "stream", "stream": "run:a", "version": 2, "digest": last, "created_at": 1, "updated_at": 1}
        | {"closed": True, "pruned": True},
        {"line": "kept", "stream": "run:a", "version": 1, "position": 1, "digest": leaf.hex()},
        {"line": "event", "stream": "run:a", "version": 2, "header": header, "digest": last},
        {"line": "end", "streams": 1, "events": 1, "sha256": ""},
    ]
    data = [json.dumps(line).encode() + b"\n" for line in lines]
    (tmp_path / "f").write_bytes(signed(data))
    target = MemoryStore()
    with pytest.raises(DamagedExport, match="were pruned, and it does not say so"):
        await import_from_file(target, tmp_path / "f")
    with pytest.raises(StreamNotFound):
        await target.head("run:a")


def _damage_position(file: Any) -> None:
    file.execute("UPDATE kept_digests SET position = position + 1000 WHERE version = 1")


def _damage_digest(file: Any) -> None:
    file.execute("UPDATE kept_digests SET digest = zeroblob(32) WHERE version = 1")


def _damage_missing(file: Any) -> None:
    file.execute("DELETE FROM kept_digests WHERE version = 1")


@pytest.mark.parametrize("damage", [_damage_position, _damage_digest, _damage_missing])
async def test_what_does_not_verify_is_not_exported(damage: Callable[[Any], None], tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "here.db", synchronous="NORMAL")
    await fill(store, 3)
    await close_some(store, random.Random("all 1"))
    async with Engine(store) as engine:
        await engine.prune((await store.find(StreamQuery(closed=True, limit=1))).items[0].stream.partition(":")[2])
    with closing(sqlite3.connect(tmp_path / "here.db")) as file, file:
        damage(file)
    assert not (await verify(store)).holds
    with pytest.raises(ExportError, match="look with holdfast verify"):
        await export_to_file(store, tmp_path / "f")
    assert not (tmp_path / "f").exists()
    await store.aclose()


def test_the_lines_of_a_pruned_run_never_change(tmp_path: Path) -> None:
    async def play() -> list[bytes]:
        store = MemoryStore()
        first = Commit(id="a", stream="run:a", expected_version=NEW, events=(event(1),), closed=True)
        await store.commit(first)
        async with Engine(store) as engine:
            await engine.prune("a")
        await export_to_file(store, tmp_path / "f", record=False)
        kept = [each async for each in store.leaves() if isinstance(each, KeptDigest)]
        assert len(kept) == 1
        return gzip.decompress((tmp_path / "f").read_bytes()).splitlines()

    lines = [json.loads(line) for line in asyncio.run(play())]
    (kept,) = [line for line in lines if line.get("line") == "kept"]
    start = sha256(b"holdfast stream\x00run:a").digest()
    header = event(1).header
    digest = sha256(b"\x00" + start + len(header).to_bytes(8, "big") + header + bytes(32)).hexdigest()
    assert kept == {"line": "kept", "stream": "run:a", "version": 1, "position": 1, "digest": digest}
    (stream,) = [line for line in lines if line.get("line") == "stream"]
    assert (stream["pruned"], stream["closed"], stream["attributes"]) == (True, True, {"status": "pruned"})
