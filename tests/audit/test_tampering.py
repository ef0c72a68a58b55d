"""Thousands of random edits of a log's tables: each is found, and nothing else ever is."""

from __future__ import annotations

import importlib.util
import random
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from engine.audit import AuditFinding, AuditVerdict, Seal, streams, verify, verify_streams
from eventstore import KeptDigest, RecordedEvent
from eventstore.memory import MemoryStore
from eventstore.sqlite import SqliteStore
from tests.architecture.source import ROOT
from tests.audit.forgeries import (
    COVERED,
    PLAIN,
    Edit,
    delete_and_close_the_gap,
    delete_event,
    flip_event,
    halves_of_a_payload,
    replace_payload,
    swap_in_stream,
    swap_positions,
)
from tests.audit.logs import KEY, Editor, append, fill, make_log, make_plain_log
from tests.runtime.slices import some

EDITS = len(some(range(150), of=4))
"""Of each kind: 16 + 10 kinds of them."""


def script() -> ModuleType:
    """docs/verify.py, which is independent of all of ours."""
    spec = importlib.util.spec_from_file_location("verify_script", ROOT / "docs" / "verify.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = script()


class Bench:
    """A log, the seals that were kept elsewhere, somebody who edits the file, and somebody who verifies it."""

    def __init__(self, path: Path, seals: tuple[Seal, ...], store: SqliteStore) -> None:
        self.path, self.seals, self.store = path, seals, store
        self.editor = Editor(path)
        self.files = []
        for each in seals:
            file = path.with_name(f"{each.size}.seal")
            file.write_text(each.note)
            self.files.append(file)

    async def verdict(self, *, seals: tuple[Seal, ...] = (), keyed: bool = False) -> AuditVerdict:
        return await verify(self.store, seals=seals, key=KEY.public if keyed else None)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    path = tmp_path / "log.db"
    seals = await make_log(path)
    store = await SqliteStore.open(path, read_only=True)
    bench = Bench(path, seals, store)
    yield bench
    bench.editor.close()
    await store.aclose()


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[Bench]:
    """Likewise, without a seal anywhere."""
    path = tmp_path / "plain.db"
    await make_plain_log(path)
    store = await SqliteStore.open(path, read_only=True)
    bench = Bench(path, (), store)
    yield bench
    bench.editor.close()
    await store.aclose()


@pytest.fixture(params=[100_000, 2], ids=["all_known", "few_known"])
def known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """With room for all streams, and for so few that most are read again."""
    monkeypatch.setattr(streams, "KNOWN_MAX", request.param)
    yield request.param


async def test_what_was_not_edited_verifies(bench: Bench, known: int) -> None:
    verdict = await bench.verdict(seals=bench.seals, keyed=True)
    assert verdict.findings == ()
    assert [(each.holds, each.signed) for each in verdict.seals] == [(True, True)] * 2
    assert (verdict.sealed, verdict.destroyed) == (2, 0)
    problems, tree = SCRIPT.verify(bench.path, bench.files)
    assert problems == []
    assert (tree.size, tree.root()) == (verdict.size, verdict.root)
    assert verdict.events == tree.size > 60


@pytest.mark.parametrize("edit", PLAIN, ids=lambda edit: edit.__name__)
async def test_an_edit_is_found(edit: Edit, plain: Bench, known: int) -> None:
    """Without any seal, and whether or not a part of the digests was put in order again."""
    bench = plain
    done = 0
    for seed in range(EDITS if known > 2 else EDITS // 3):
        chance = random.Random(f"{edit.__name__} {seed}")
        if bench.editor.edit(edit, chance):
            done += 1
            verdict = await bench.verdict()
            assert not verdict.holds, (edit.__name__, seed)
            assert all(isinstance(each, AuditFinding) and each.message for each in verdict.findings)
            assert SCRIPT.verify(bench.path)[0], (edit.__name__, seed, verdict.findings)
            bench.editor.restore()
    assert done > EDITS // 15
    assert (await bench.verdict()).holds, "what was taken back is whole again"


@pytest.mark.parametrize("edit", COVERED, ids=lambda edit: edit.__name__)
async def test_an_edit_behind_chains_that_were_computed_anew_is_found_by_a_seal(edit: Edit, bench: Bench) -> None:
    """Once with the seals in the log left alone, once without them, once with a seal but not its key."""
    done = 0
    for seed in range(EDITS):
        chance = random.Random(f"{edit.__name__} {seed}")

        def forge(editor: Editor, chance: random.Random) -> None:
            edit(editor, chance)
            if chance.random() < 0.5:
                editor.drop_seals()
            editor.recompute()

        if bench.editor.edit(forge, chance):
            done += 1
            verdict = await bench.verdict(seals=bench.seals, keyed=chance.random() < 0.5)
            assert not verdict.holds, (edit.__name__, seed)
            assert not verdict.seals[1].holds, (edit.__name__, seed)
            assert SCRIPT.verify(bench.path, bench.files)[0], (edit.__name__, seed)
            bench.editor.restore()
    assert done > EDITS * 2 // 3


async def test_a_forger_who_knows_no_seal_is_not_found_by_chains_alone(bench: Bench) -> None:
    """Why a seal belongs elsewhere: here all is in order, and the seals in the log are gone."""

    def forge(editor: Editor, chance: random.Random) -> None:
        COVERED[0](editor, chance)
        editor.drop_seals()
        editor.recompute()

    assert bench.editor.edit(forge, random.Random(1))
    assert (await bench.verdict()).holds
    assert (SCRIPT.verify(bench.path)[0], SCRIPT.verify(bench.path, bench.files)[0] != []) == ([], True)


@pytest.mark.parametrize("seed", some(range(20), of=4))
async def test_what_was_forgotten_verifies(seed: int, bench: Bench) -> None:
    chance = random.Random(seed)

    def forget(editor: Editor, chance: random.Random) -> None:
        for (position,) in editor("SELECT position FROM events WHERE salt IS NOT NULL"):
            if chance.random() < 0.5:
                editor("UPDATE events SET payload = NULL, salt = NULL WHERE position = ?", position)

    assert bench.editor.edit(forget, chance)
    verdict = await bench.verdict(seals=bench.seals, keyed=True)
    forgotten = bench.editor("SELECT count(*) FROM events WHERE payload_digest IS NOT NULL AND salt IS NULL")[0][0]
    assert (verdict.findings, verdict.destroyed) == ((), forgotten)
    assert forgotten > 5
    assert SCRIPT.verify(bench.path, bench.files)[0] == []


@pytest.mark.parametrize("seed", some(range(40), of=4))
async def test_of_some_streams_each_is_found(seed: int, plain: Bench) -> None:
    """By its chain and its head alone, the rest of the log not looked at."""
    edits = [flip_event, delete_event, delete_and_close_the_gap, swap_in_stream, halves_of_a_payload, replace_payload]
    names = [name.decode() for (name,) in plain.editor("SELECT name FROM streams WHERE version > 0")]
    assert (await verify_streams(plain.store, names)).findings == ()
    for edit in edits:
        if plain.editor.edit(edit, random.Random(f"{edit.__name__} {seed}")):
            verdict = await verify_streams(plain.store, names)
            assert len({each.stream for each in verdict.findings}) == len(verdict.findings) >= 1, edit.__name__
            plain.editor.restore()


# -- one of each kind, and what is said of it ------------------------------------------------------------------------------


async def test_a_finding_names_stream_version_position_and_what_is_wrong(bench: Bench) -> None:
    cases: list[tuple[str, str, int, str]] = [
        ("UPDATE events SET header = '[]' WHERE position = {p}", "changed", 2, "its digest does not follow"),
        (
            "UPDATE events SET payload = 'x', salt = zeroblob(16) WHERE position = {p}",
            "payload",
            2,
            "not the one that was",
        ),
        ("UPDATE events SET salt = NULL, payload = 'x' WHERE position = {p}", "payload", 2, "no salt of 16 bytes"),
        ("DELETE FROM events WHERE position = {p}", "removed", 3, "version 2 is missing before it"),
        ("UPDATE events SET position = 1000 WHERE position = {p}", "reordered", 3, "stands behind it in the log, at"),
        ("UPDATE events SET version = 0 WHERE position = {p}", "inserted", 0, "versions begin with 1"),
        ("UPDATE streams SET version = 1 WHERE id = {s}", "inserted", 0, "stands behind the end of its stream"),
        ("UPDATE streams SET digest = zeroblob(32) WHERE id = {s}", "head", 0, "is not that of its last event"),
        ("DELETE FROM events WHERE stream = {s} AND version > 2", "removed", 3, "version 3"),
    ]
    (name, stream), *_ = bench.editor(
        "SELECT s.name, s.id FROM streams s JOIN events e ON e.stream = s.id WHERE e.version = 2 AND e.salt IS NOT NULL"
        " AND s.version > 4 ORDER BY e.position"
    )
    position = bench.editor("SELECT position FROM events WHERE stream = ? AND version = 2", stream)[0][0]
    for sql, what, version, message in cases:
        bench.editor.edit(lambda editor, _: editor(sql.format(p=position, s=stream)), random.Random(0))
        findings = (await bench.verdict()).findings
        (finding,) = [each for each in findings if not (each.stream or "").startswith("seal:")]
        assert (finding.what, finding.stream) == (what, name.decode()), sql
        assert version in (0, finding.version), sql
        assert message in finding.message, sql
        bench.editor.restore()


async def test_only_the_first_of_a_stream_is_named_and_each_stream_is(bench: Bench) -> None:
    bench.editor.edit(lambda edit, _: edit("UPDATE events SET header = '{}' WHERE version >= 2"), random.Random(0))
    findings = (await bench.verdict()).findings
    wanted = {(name.decode(), 2) for (name,) in bench.editor("SELECT name FROM streams WHERE version >= 2")}
    assert {(each.stream, each.version) for each in findings} == wanted
    assert len(findings) == len(wanted)


async def test_findings_are_limited(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FINDINGS_MAX", 3)
    bench.editor.edit(lambda edit, _: edit("UPDATE events SET header = '{}'"), random.Random(0))
    verdict = await bench.verdict(seals=bench.seals)
    assert (len(verdict.findings), verdict.more, verdict.holds) == (3, True, False)


async def test_a_file_that_was_put_back_is_found_by_a_seal(bench: Bench, tmp_path: Path) -> None:
    older = tmp_path / "older.db"
    await make_log(older, seed=1)  # the same day again, other salts: another log
    shutil.copy(bench.path, tmp_path / "whole.db")
    cut = bench.seals[0].position
    editor = Editor(tmp_path / "whole.db")
    editor.edit(
        lambda edit, _: (edit("DELETE FROM events WHERE position > ?", cut), edit.recompute()), random.Random(0)
    )
    editor.close()
    for path, messages in (
        (older, ["not those that were sealed"] * 2),
        (tmp_path / "whole.db", ["its end was cut off"]),
    ):
        store = await SqliteStore.open(path, read_only=True)
        verdict = await verify(store, seals=bench.seals, key=KEY.public)
        await store.aclose()
        assert [each.what for each in verdict.findings] == (["seal"] * 2 if len(messages) > 1 else ["truncated"])
        assert [message in each.message for message, each in zip(messages, verdict.findings, strict=True)]
        assert [each.holds for each in verdict.seals] == [len(messages) == 1, False]
        assert [each.signed for each in verdict.seals] == [True, True]


async def test_a_seal_narrows_down_where(bench: Bench) -> None:
    between = f"position > {bench.seals[0].position} AND position < {bench.seals[1].position} AND stream < 3"

    def forge(editor: Editor, _: random.Random) -> None:
        editor(f"UPDATE events SET header = '{{}}' WHERE {between}")
        editor.recompute()

    assert bench.editor.edit(forge, random.Random(0))
    verdict = await bench.verdict(seals=bench.seals)
    assert [each.holds for each in verdict.seals] == [True, False]
    said = [each.message for each in verdict.findings if each.stream is None]
    assert f"the first {bench.seals[0].size} still are" in said[0]


async def test_a_seal_in_the_log_that_was_forged_is_found_by_the_key(bench: Bench) -> None:
    """Who rewrites all of it can make the seals in the log agree, but for their signatures."""

    def forge(editor: Editor, _: random.Random) -> None:
        note = bench.seals[1].note
        assert editor("SELECT count(*) FROM events WHERE payload LIKE '%note%'")[0][0] == 2
        line = note.splitlines()[-1]
        new = line[:-12] + ("A" if line[-12] != "A" else "B") + line[-11:]
        editor("UPDATE events SET payload = replace(payload, ?, ?)", line.encode().decode(), new)
        editor.recompute()

    assert bench.editor.edit(forge, random.Random(0))
    assert (await bench.verdict()).holds
    findings = (await bench.verdict(keyed=True)).findings
    assert [(each.what, each.stream) for each in findings] == [("signature", "seal:example.com/shop")]


async def test_a_seal_in_the_log_whose_note_is_genuine_and_whose_header_is_not(bench: Bench) -> None:
    """The note alone is signed: what stands beside it must be the same, or the key would vouch for another root."""
    forgeries = [
        "UPDATE events SET header = replace(header, '\"root\":\"', '\"root\":\"00') WHERE header LIKE '%LogSealed%'",
        "UPDATE events SET header = replace(header, '\"size\":', '\"size\":1') WHERE header LIKE '%LogSealed%'",
        "UPDATE events SET payload = json_set(payload, '$.frontier[0]', '00') WHERE header LIKE '%LogSealed%'",
        "UPDATE events SET payload = json_set(payload, '$.frontier[0]', hex(zeroblob(32))) WHERE header LIKE '%LogSeal%'",
    ]
    for sql in forgeries:
        assert bench.editor.edit(lambda edit, _: (edit(sql), edit.recompute()), random.Random(0)), sql
        findings = (await bench.verdict(keyed=True)).findings
        assert [(each.what, each.stream) for each in findings] == [("seal", "seal:example.com/shop")], sql
        bench.editor.restore()


async def test_a_root_that_was_put_beside_a_genuine_note_is_not_vouched_for(bench: Bench) -> None:
    """All is computed anew, the header of the seal too, so that it is the root of the forged log; the note is left."""

    def forge(editor: Editor, chance: random.Random) -> None:
        COVERED[0](editor, chance)
        editor.recompute()
        for position, size in editor(
            "SELECT position, json_extract(header, '$.size') FROM events WHERE header LIKE '%LogSealed%' ORDER BY 1"
        ):
            tree = SCRIPT.Tree()
            for (digest,) in editor("SELECT digest FROM events ORDER BY position LIMIT ?", size):
                tree.append(digest)
            root = tree.root().hex()
            editor("UPDATE events SET header = json_set(header, '$.root', ?) WHERE position = ?", root, position)
            editor.recompute()

    assert bench.editor.edit(forge, random.Random(1))
    assert not (await bench.verdict(keyed=True)).holds


async def test_positions_that_do_not_rise_are_found() -> None:
    """No SQLite file can hold that; another store might."""

    class Falling(MemoryStore):
        async def leaves(self, **options: int) -> AsyncIterator[RecordedEvent | KeptDigest]:
            events = [event async for event in super().leaves(**options)]
            for event in [events[1], events[0], *events[2:]]:
                yield event

    store = Falling()
    await fill(store, 1, commits=4)
    findings = (await verify(store)).findings
    assert "positions do not rise: 1 comes behind 2" in [each.message for each in findings]
    await store.aclose()


async def test_an_order_is_found_out_also_of_streams_that_are_no_longer_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two events of one stream stands one of another, and there is room for one."""
    monkeypatch.setattr(streams, "KNOWN_MAX", 1)
    store = await SqliteStore.open(tmp_path / "log.db")
    for _ in range(3):
        await append(store, "run:a", b"1")
        await append(store, "run:b", b"1")
    assert (await verify(store)).holds
    editor = Editor(tmp_path / "log.db")
    editor.edit(lambda edit, _: swap_positions(edit, 3, 5), random.Random(0))
    editor.close()
    (finding,) = (await verify(store)).findings
    assert (finding.what, finding.stream, finding.version) == ("reordered", "run:a", 3)
    assert finding.message == "version 2 stands behind it in the log, at position 5"
    await store.aclose()
