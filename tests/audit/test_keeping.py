"""A log parts of which were forgotten and pruned: it verifies, alone and against seals, and tampering still shows."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine import Engine
from engine.audit import Seal, prove_inclusion, seal, verify, verify_streams
from engine.errors import AuditError, DoesNotVerify
from eventstore import KeptDigest
from eventstore.memory import MemoryStore
from eventstore.sqlite import SqliteStore
from tests.architecture.source import ROOT
from tests.audit.forgeries import PLAIN, Edit
from tests.audit.logs import KEY, Editor, append, fill, make_log
from tests.audit.test_tampering import SCRIPT, Bench, known
from tests.runtime.slices import some

__all__ = ["known"]  # the fixture

EDITS = len(some(range(60), of=4))
GONE = ("a", "c", "e")
COLUMNS = "position, stream, version, digest"


async def close_and_prune(store: SqliteStore | MemoryStore, *runs: str) -> None:
    async with Engine(store) as engine:
        for run in runs:
            await append(store, f"run:{run}", closed=True)
            await engine.prune(run, by="ann", reason="policy 7")


async def make_pruned(path: Path) -> tuple[Seal, Seal]:
    """A log with two seals from before; three of its streams are pruned, one has forgotten, and it has grown since."""
    seals = await make_log(path)
    store = await SqliteStore.open(path, synchronous="NORMAL")
    await store.forget("run:b")
    await close_and_prune(store, *GONE)
    await append(store, "run:d", b"since")
    await store.aclose()
    return seals


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    path = tmp_path / "log.db"
    seals = await make_pruned(path)
    store = await SqliteStore.open(path, read_only=True)
    bench = Bench(path, seals, store)
    yield bench
    bench.editor.close()
    await store.aclose()


async def test_what_was_pruned_and_forgotten_verifies(bench: Bench, known: int) -> None:
    verdict = await bench.verdict(seals=bench.seals, keyed=True)
    assert verdict.findings == ()
    assert [(each.holds, each.signed) for each in verdict.seals] == [(True, True)] * 2
    kept = bench.editor("SELECT count(*) FROM kept_digests")[0][0]
    assert (verdict.pruned, verdict.sealed) == (kept, 2)
    assert kept > 20
    assert verdict.destroyed > 3
    problems, tree = SCRIPT.verify(bench.path, bench.files)
    assert problems == []
    assert (tree.size, tree.root()) == (verdict.size, verdict.root)
    names = [name.decode() for (name,) in bench.editor("SELECT name FROM streams WHERE version > 0")]
    alone = await verify_streams(bench.store, names)
    assert (alone.findings, alone.pruned, alone.events) == ((), kept, verdict.events)


async def test_its_root_is_that_of_before(tmp_path: Path) -> None:
    """Nothing of the tree is changed by it: the same leaves, and one for each event that says what was done."""
    path = tmp_path / "log.db"
    await make_log(path)
    store = await SqliteStore.open(path, synchronous="NORMAL")
    before = [(each.position, each.digest) async for each in store.read_all()]
    await close_and_prune(store, *GONE)
    after = [(each.position, each.digest) async for each in store.leaves()]
    assert after[: len(before)] == before
    assert len(after) == len(before) + len(GONE)
    sealed = await seal(store, KEY)
    verdict = await verify(store, seals=[sealed.seal], key=KEY.public)
    assert (verdict.findings, verdict.seals[0].holds) == ((), True)
    await close_and_prune(store, "b")
    assert (await verify(store, seals=[sealed.seal], key=KEY.public)).findings == ()
    again = await seal(store, KEY)
    assert again.new
    assert again.seal.size == sealed.seal.size + 2
    await store.aclose()


# -- edits of what is left -------------------------------------------------------------------------------------------------


def some_kept(edit: Editor, chance: random.Random) -> tuple[int, int, int, bytes]:
    position, stream, version, digest = chance.choice(edit(f"SELECT {COLUMNS} FROM kept_digests ORDER BY position"))
    return position, stream, version, digest


def flip_kept(edit: Editor, chance: random.Random) -> None:
    position, stream, version, digest = some_kept(edit, chance)
    bit = 1 << chance.randrange(8)
    match chance.randrange(4):
        case 0:
            flipped = bytes([digest[0] ^ bit]) + digest[1:]
            edit("UPDATE kept_digests SET digest = ? WHERE position = ?", flipped, position)
        case 1:
            edit("UPDATE OR IGNORE kept_digests SET version = ? WHERE position = ?", version ^ bit, position)
        case 2:
            edit("UPDATE OR IGNORE kept_digests SET stream = ? WHERE position = ?", stream ^ bit, position)
        case _:
            edit("UPDATE OR IGNORE kept_digests SET position = ? WHERE position = ?", position ^ bit, position)


def drop_kept(edit: Editor, chance: random.Random) -> None:
    position, stream, version, _ = some_kept(edit, chance)
    match chance.randrange(3):
        case 0:
            edit("DELETE FROM kept_digests WHERE position = ?", position)
        case 1:
            edit("DELETE FROM kept_digests WHERE stream = ? AND version >= ?", stream, version)
        case _:
            edit("DELETE FROM kept_digests WHERE stream = ?", stream)


def add_kept(edit: Editor, chance: random.Random) -> None:
    """A digest more, of a pruned stream or of one that never was, in a gap or at an end."""
    _, _, _, digest = some_kept(edit, chance)
    (stream, version) = chance.choice(edit("SELECT id, version FROM streams ORDER BY id"))
    at = chance.choice([version, version + 1, 0, -3, 1])
    position = chance.choice([-7, 0, edit("SELECT max(position) + 1 FROM events")[0][0]])
    edit(f"INSERT OR IGNORE INTO kept_digests ({COLUMNS}) VALUES (?, ?, ?, ?)", position, stream, at, digest)


def swap_kept(edit: Editor, chance: random.Random) -> None:
    one, other = some_kept(edit, chance), some_kept(edit, chance)
    edit("UPDATE kept_digests SET digest = ? WHERE position = ?", other[3], one[0])
    edit("UPDATE kept_digests SET digest = ? WHERE position = ?", one[3], other[0])


def move_in_the_log(edit: Editor, chance: random.Random) -> None:
    """A digest to a free position: the order within its stream is kept, now and then."""
    position, *_ = some_kept(edit, chance)
    free = edit("SELECT max(position) + ? FROM events", chance.randrange(1, 5))[0][0]
    edit("UPDATE kept_digests SET position = ? WHERE position = ?", free, position)


def say_it_was_elsewhere(edit: Editor, chance: random.Random) -> None:
    """The position that it had where it was pruned, as what comes from another store has."""
    position, *_ = some_kept(edit, chance)
    was = edit("SELECT ifnull(was, position) FROM kept_digests WHERE position = ?", position)[0][0]
    new = chance.choice([was ^ (1 << chance.randrange(8)), 0, -1, (1 << 63) - 1])
    edit("UPDATE kept_digests SET was = ? WHERE position = ?", new, position)


def drop_what_was_said(edit: Editor, chance: random.Random) -> None:
    """The event that says what was pruned; with a head that knows nothing of it, or not."""
    stream, version = chance.choice(edit("SELECT id, version FROM streams WHERE pruned ORDER BY id"))
    edit("DELETE FROM events WHERE stream = ?", stream)
    if chance.random() < 0.7:
        digest = edit("SELECT digest FROM kept_digests WHERE stream = ? ORDER BY version DESC", stream)[0][0]
        edit("UPDATE streams SET version = ?, digest = ? WHERE id = ?", version - 1, digest, stream)
    if chance.random() < 0.5:
        edit("UPDATE streams SET pruned = 0 WHERE id = ?", stream)


def say_another(edit: Editor, chance: random.Random) -> None:
    """Another event there, whose digest is right: of another run, of fewer events, or of other leaves."""
    column = chance.choice(["run", "events", "leaves"])
    position, header = chance.choice(
        edit("SELECT position, CAST(header AS BLOB) FROM events WHERE header LIKE '%RunPruned%'")
    )
    new: object = {"run": "zz", "events": 3, "leaves": "00" * 32}[column]
    edit("UPDATE events SET header = json_set(header, '$.' || ?, ?) WHERE position = ?", column, new, position)
    stream, text, of_payload = edit(
        "SELECT stream, CAST(header AS BLOB), ifnull(payload_digest, zeroblob(32)) FROM events WHERE position = ?",
        position,
    )[0]
    from tests.audit.logs import chain

    before = edit("SELECT digest FROM kept_digests WHERE stream = ? ORDER BY version DESC", stream)[0][0]
    digest = chain(before, text, of_payload)
    edit("UPDATE events SET digest = ? WHERE position = ?", digest, position)
    edit("UPDATE streams SET digest = ? WHERE id = ?", digest, stream)
    assert header


def rename_pruned(edit: Editor, chance: random.Random) -> None:
    (id_,) = chance.choice(edit("SELECT id FROM streams WHERE pruned ORDER BY id"))
    edit("UPDATE streams SET name = name || 'x' WHERE id = ?", id_)


def take_away_unsaid(edit: Editor, chance: random.Random) -> None:
    """What pruning does to a stream, without the event: in part, or to its end."""
    stream, version = chance.choice(
        edit("SELECT id, version FROM streams WHERE NOT pruned AND version > 1 ORDER BY id")
    )
    until = chance.choice([version, version - 1, 1])
    edit(
        f"INSERT INTO kept_digests ({COLUMNS}) SELECT {COLUMNS} FROM events WHERE stream = ? AND version <= ?",
        stream,
        until,
    )
    edit("DELETE FROM events WHERE stream = ? AND version <= ?", stream, until)
    if chance.random() < 0.5:
        edit("UPDATE streams SET pruned = 1 WHERE id = ?", stream)


OF_KEPT: list[Edit] = [
    flip_kept, drop_kept, add_kept, swap_kept, move_in_the_log, say_it_was_elsewhere, drop_what_was_said, say_another, rename_pruned,
    take_away_unsaid,
]  # fmt: skip


@pytest.mark.parametrize("edit", [*OF_KEPT, *PLAIN], ids=lambda edit: edit.__name__)
async def test_an_edit_is_found_without_any_seal(edit: Edit, bench: Bench, known: int) -> None:
    done = 0
    for seed in range(EDITS if known > 2 else EDITS // 2):
        chance = random.Random(f"{edit.__name__} {seed}")
        if bench.editor.edit(edit, chance):
            done += 1
            verdict = await bench.verdict()
            assert not verdict.holds, (edit.__name__, seed)
            assert SCRIPT.verify(bench.path)[0], (edit.__name__, seed, verdict.findings)
            bench.editor.restore()
    assert done > EDITS // 6
    assert (await bench.verdict()).holds, "what was taken back is whole again"


@pytest.mark.parametrize("instead", [True, False], ids=["instead_of_its_digest", "beside_it"])
async def test_an_event_that_was_pruned_and_is_there_again_is_found(instead: bool, tmp_path: Path, known: int) -> None:
    """As it was, from a copy of before: its digest is right, and it was to be gone."""
    path = tmp_path / "log.db"
    await make_log(path)
    store = await SqliteStore.open(path, synchronous="NORMAL")
    editor = Editor(path)
    was = editor("SELECT e.* FROM kept_events e JOIN kept_streams s ON s.id = e.stream WHERE s.name = 'run:a'")
    await append(store, "run:a", closed=True)
    async with Engine(store) as engine:
        await engine.prune("a")
    assert (await verify(store)).holds
    columns = "position, stream, version, header, payload, salt, payload_digest, digest"
    marks = "?, ?, ?, CAST(? AS TEXT), ?, ?, ?, ?"
    for row in was:
        position = row[0] if instead else editor("SELECT max(position) + 1 FROM events")[0][0]
        if instead:
            editor("DELETE FROM kept_digests WHERE position = ?", row[0])
        editor(f"INSERT INTO events ({columns}) VALUES ({marks})", position, *row[1:])
        assert not (await verify(store)).holds, row[2]
        assert not (await verify_streams(store, ["run:a"])).holds or not instead
        assert SCRIPT.verify(path)[0], row[2]
        editor("DELETE FROM events WHERE position = ?", position)
        if instead:
            editor(f"INSERT INTO kept_digests ({COLUMNS}) VALUES (?, ?, ?, ?)", *row[:3], row[-1])
    assert (await verify(store)).holds
    editor.close()
    await store.aclose()


async def test_a_stream_removed_with_all_that_is_left_of_it_is_found_by_a_seal(bench: Bench) -> None:
    def remove(editor: Editor, _: random.Random) -> None:
        (id_,) = editor("SELECT id FROM streams WHERE name = 'run:a'")[0]
        for table in ("events", "kept_digests"):
            editor(f"DELETE FROM {table} WHERE stream = ?", id_)
        editor("DELETE FROM streams WHERE id = ?", id_)

    assert bench.editor.edit(remove, random.Random(0))
    verdict = await bench.verdict(seals=bench.seals)
    assert not verdict.holds
    assert not verdict.seals[0].holds
    assert SCRIPT.verify(bench.path, bench.files)[0]


async def test_a_digest_that_was_changed_is_named(bench: Bench) -> None:
    """Where the removal stands, and what is wrong with it."""
    edit = "UPDATE kept_digests SET digest = zeroblob(32) WHERE version = 2 AND stream = (SELECT min(stream) FROM kept_digests)"
    bench.editor.edit(lambda editor, _: editor(edit), random.Random(0))
    findings = (await bench.verdict()).findings
    (finding,) = [each for each in findings if not (each.stream or "").startswith("seal:")]
    head = await bench.store.head(finding.stream or "")
    assert (finding.what, finding.version) == ("changed", head.version)
    assert finding.message == "what is kept of the events before it is not what was pruned"


# -- half-way, and beside others -------------------------------------------------------------------------------------------


async def test_a_removal_that_is_not_through_verifies(tmp_path: Path) -> None:
    """What a crash leaves: the event, and a part of what it speaks of still there."""
    path = tmp_path / "log.db"
    await make_log(path)
    store = await SqliteStore.open(path, synchronous="NORMAL")
    await append(store, "run:a", closed=True)
    head = await store.head("run:a")
    prune, store.prune = store.prune, _nothing  # type: ignore[method-assign]
    async with Engine(store) as engine:
        await engine.prune("a", by="ann")
    editor = Editor(path)
    for until in range(1, head.version + 1):
        verdict = await verify(store)
        assert (verdict.findings, verdict.pruned) == ((), until - 1)
        assert (await verify_streams(store, ["run:a"])).findings == ()
        assert SCRIPT.verify(path)[0] == []
        move = f"FROM events WHERE stream = (SELECT id FROM streams WHERE name = 'run:a') AND version = {until}"
        editor(f"INSERT INTO kept_digests ({COLUMNS}) SELECT {COLUMNS} {move}")
        editor(f"DELETE {move}")
    editor.close()
    store.prune = prune  # type: ignore[method-assign]
    async with Engine(store) as engine:
        assert [each.id async for each in engine.due([])] == ["a"]
        assert await engine.prune("a") == 0
        assert [each.id async for each in engine.due([])] == []
    assert (await store.head("run:a")).pruned
    assert (await verify(store)).holds
    await store.aclose()


async def _nothing(stream: str, *, until: int) -> int:
    return 0


async def test_who_verifies_while_others_prune_finds_nothing() -> None:
    """At every event of the pass a stream may go."""
    for at in range(0, 60, 7):
        store = MemoryStore()
        await fill(store, at, commits=40)
        reading, seen = store.leaves, 0

        async def leaves(*, after: int = 0) -> AsyncIterator[object]:
            nonlocal seen
            async for leaf in reading(after=after):
                seen += 1
                if seen == at:
                    await close_and_prune(store, "a", "b")
                yield leaf

        store.leaves = leaves  # type: ignore[assignment, method-assign]
        assert (await verify(store)).findings == (), at


# -- proofs ----------------------------------------------------------------------------------------------------------------


async def test_proofs_of_what_was_forgotten_and_beside_what_was_pruned(bench: Bench) -> None:
    seals = bench.seals
    forgotten = await prove_inclusion(bench.store, "run:b", 2, seals[1])
    assert forgotten.check(KEY.public).size == seals[1].size
    with pytest.raises(AuditError, match="'run:a' was pruned"):
        await prove_inclusion(bench.store, "run:a", 2, seals[1])


async def test_a_proof_from_before_still_checks(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    _, second = await make_log(path)
    store = await SqliteStore.open(path, synchronous="NORMAL")
    proof = await prove_inclusion(store, "run:a", 3, second)
    await close_and_prune(store, *GONE)
    assert proof.check(KEY.public).root == second.root
    assert (await verify(store, seals=[proof.check()], key=KEY.public)).findings == ()
    await store.aclose()


# -- no evidence goes ------------------------------------------------------------------------------------------------------


async def test_a_history_that_does_not_verify_is_not_pruned(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    await make_log(path)
    store = await SqliteStore.open(path, synchronous="NORMAL")
    await append(store, "run:a", closed=True)
    editor = Editor(path)
    editor(
        "UPDATE events SET header = '{}' WHERE version = 2 AND stream = (SELECT id FROM streams WHERE name = 'run:a')"
    )
    editor.close()
    async with Engine(store) as engine:
        with pytest.raises(DoesNotVerify, match="breaks at version 2"):
            await engine.prune("a")
    assert not [leaf async for leaf in store.leaves() if isinstance(leaf, KeptDigest)]
    await store.aclose()


def test_the_script_is_short_and_needs_nothing() -> None:
    text = (ROOT / "docs" / "verify.py").read_text()
    assert len(text.splitlines()) < 150
    imports = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imports == {"base64", "json", "sqlite3", "sys", "hashlib", "pathlib"}
