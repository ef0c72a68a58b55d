"""Sealing: again and again, by several at once, interrupted, from copies and with other keys; and the event on disk."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.audit import LogSealed, Seal, Sealed, read_seal, read_seals, seal, verify
from engine.audit.events import SealPayload, read_sealed
from engine.errors import AuditError, DoesNotVerify
from eventstore import EventStore, RecordedEvent
from eventstore.memory import MemoryStore
from eventstore.sqlite import SqliteStore
from tests.audit.logs import AT, KEY, OTHER, Editor, append, fill

STREAM = "seal:example.com/shop"


class Standing:
    """A clock that stands still."""

    def now(self) -> int:
        return AT

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventStore]:
    opened: Any = MemoryStore() if request.param == "memory" else await SqliteStore.open(tmp_path / "log.db")
    yield opened
    await opened.aclose()


async def seals_of(store: EventStore) -> list[tuple[LogSealed, Seal | None]]:
    return [read_sealed(event)[:2] async for event in store.read(STREAM)]


async def assert_verifies(store: EventStore, *seals: Seal) -> None:
    verdict = await verify(store, seals=seals, key=KEY.public)
    assert verdict.findings == ()
    assert all(each.holds and each.signed for each in verdict.seals)


# -- what it does ----------------------------------------------------------------------------------------------------------


async def test_a_seal_stands_in_the_log_with_who_when_and_why_and_outside(store: EventStore, tmp_path: Path) -> None:
    await fill(store, 1)
    out = tmp_path / "shop.seal"
    sealed = await seal(store, KEY, by="ann", reason="monthly", out=out, clock=Standing())
    events = [event async for event in store.read_all()]
    ((recorded, note),) = await seals_of(store)
    assert (recorded.by, recorded.reason, recorded.at, recorded.key) == ("ann", "monthly", AT, KEY.public.hash.hex())
    assert (recorded.size, recorded.position) == (len(events) - 1, events[-2].position)
    assert sealed == Sealed(seal=sealed.seal, new=True, read=len(events) - 1, file=out)
    assert note == sealed.seal == read_seal(out)
    assert sealed.seal.at == AT
    await assert_verifies(store, sealed.seal)


async def test_the_next_seal_reads_only_what_is_new(store: EventStore) -> None:
    made = []
    total = 0
    for seed in range(6):
        await fill(store, seed, commits=seed * 4)
        sealed = await seal(store, KEY)
        assert sealed.read == sealed.seal.size - total
        total = sealed.seal.size
        made.append(sealed.seal)
    await assert_verifies(store, *made)


async def test_with_nothing_new_there_is_no_new_seal(store: EventStore, tmp_path: Path) -> None:
    await append(store, "run:a", b"1")
    first = await seal(store, KEY)
    for name in ("one.seal", "one.seal", "two.seal"):
        again = await seal(store, KEY, out=tmp_path / name)
        assert (again.new, again.seal) == (False, first.seal)
        assert read_seal(tmp_path / name) == first.seal
    assert len(await seals_of(store)) == 1
    await append(store, "run:a", b"2")
    assert (await seal(store, KEY)).seal.size == 3


async def test_an_empty_log_can_be_sealed(store: EventStore) -> None:
    first = await seal(store, KEY)
    assert (first.seal.size, first.new) == (0, True)
    await append(store, "run:a", b"1")
    second = await seal(store, KEY)
    assert second.seal.size == 2
    await assert_verifies(store, first.seal, second.seal)


async def test_a_directory_gets_a_file_for_each(store: EventStore, tmp_path: Path) -> None:
    folder = tmp_path / "seals"
    folder.mkdir()
    for n in range(12):
        await append(store, "run:a", b"%d" % n)
        await seal(store, KEY, out=folder)
    assert {each.name for each in folder.iterdir()} == {f"{size}.seal" for size in range(1, 24, 2)}
    seals = read_seals(folder)
    assert [each.size for each in seals] == list(range(1, 24, 2))
    await assert_verifies(store, *seals)


async def test_forgetting_seals_and_other_keys_only_cost_time(store: EventStore, tmp_path: Path) -> None:
    """What the last seal left is not to be had, or another key's: the log is read from its beginning."""
    await fill(store, 1)
    first = await seal(store, OTHER)
    await append(store, "run:a", b"1")
    second = await seal(store, KEY)
    assert second.read == second.seal.size, "it does not believe what another key has signed"
    await append(store, "run:a", b"2")
    if isinstance(store, SqliteStore):
        with closing(sqlite3.connect(store.path)) as connection, connection:
            changed = connection.execute(
                "UPDATE events SET payload = NULL, salt = NULL WHERE header LIKE '%LogSealed%'"
            )
            assert changed.rowcount == 2
    third = await seal(store, KEY)
    assert third.read == (third.seal.size if isinstance(store, SqliteStore) else third.seal.size - second.seal.size)
    verdict = await verify(store, seals=(first.seal, second.seal, third.seal), key=KEY.public)
    assert [(each.holds, each.signed) for each in verdict.seals] == [(True, False), (True, True), (True, True)]


# -- several at once, and interrupted ---------------------------------------------------------------------------------------


async def test_several_seal_while_others_write(store: EventStore) -> None:
    async def writes(name: str) -> None:
        for n in range(20):
            await append(store, f"run:{name}", b"%d" % n, None)

    async def seals() -> list[Seal]:
        return [(await seal(store, KEY)).seal for _ in range(8)]

    *made, _, _ = await asyncio.gather(seals(), seals(), seals(), writes("a"), writes("b"))
    found = [each for some in made for each in some or []]
    recorded = [note for _, note in await seals_of(store)]
    assert {each.note for each in found} == {each.note for each in recorded if each is not None}
    assert len(recorded) == len({each.note for each in found}), "nothing was sealed twice"
    await assert_verifies(store, *sorted(found, key=lambda each: each.size))


async def test_verifying_while_others_write_and_seal(store: EventStore) -> None:
    """What is verified is the log as it was; nothing that comes meanwhile looks like tampering."""
    await fill(store, 1)
    done = False

    async def writes(name: str) -> None:
        n = 0
        while not done:
            n += 1
            await append(store, f"run:{name}{n // 3}", b"%d" % n, None)
            if n % 5 == 0:
                await seal(store, KEY)

    async def verifies() -> None:
        nonlocal done
        try:
            for _ in range(30):
                verdict = await verify(store, key=KEY.public)
                assert verdict.findings == ()
                assert verdict.events > 30
        finally:
            done = True

    await asyncio.gather(writes("x"), writes("y"), verifies())


@pytest.mark.parametrize("steps", range(0, 60, 3))
async def test_a_seal_that_is_cancelled_anywhere_harms_nothing(steps: int, tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "log.db", synchronous="NORMAL")
    await fill(store, 1, commits=6)
    before = await seal(store, KEY)
    await append(store, "run:a", b"1")
    sealing = asyncio.create_task(seal(store, KEY, out=tmp_path / "out.seal"))
    for _ in range(steps):
        await asyncio.sleep(0)
    sealing.cancel()
    await asyncio.wait([sealing])
    after = await seal(store, KEY, out=tmp_path / "out.seal")
    assert after.seal == read_seal(tmp_path / "out.seal")
    assert after.seal.size > before.seal.size
    assert {each.name for each in tmp_path.glob("*.seal*")} == {"out.seal"}
    await assert_verifies(store, before.seal, after.seal)
    await store.aclose()


async def test_when_the_place_outside_cannot_be_written_the_log_is_sealed_and_the_next_goes_on(
    store: EventStore, tmp_path: Path
) -> None:
    await append(store, "run:a", b"1")
    with pytest.raises(FileNotFoundError):
        await seal(store, KEY, out=tmp_path / "gone" / "shop.seal")
    assert len(await seals_of(store)) == 1
    (tmp_path / "gone").mkdir()
    again = await seal(store, KEY, out=tmp_path / "gone" / "shop.seal")
    assert (again.new, read_seal(tmp_path / "gone" / "shop.seal")) == (False, again.seal)


# -- what it refuses --------------------------------------------------------------------------------------------------------


async def edited(tmp_path: Path, *sql: str, recompute: bool = True) -> SqliteStore:
    editor = Editor(tmp_path / "log.db")
    for each in sql:
        editor(each)
    if recompute:
        editor.recompute()
    editor.close()
    return await SqliteStore.open(tmp_path / "log.db")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("DELETE FROM events WHERE position > 8", "it has 8 events only"),
        ("UPDATE events SET header = '{}' WHERE position = 3", "its first 12 events are not those that were sealed"),
    ],
)
async def test_a_log_that_is_not_what_the_seal_outside_covers_is_not_sealed(
    sql: str, message: str, tmp_path: Path
) -> None:
    """Whoever did that has taken the seals out of the log, so that only the one outside knows."""
    store = await SqliteStore.open(tmp_path / "log.db")
    for n in range(12):
        await append(store, f"run:{n % 3}", b"%d" % n)
    out = tmp_path / "shop.seal"
    await seal(store, KEY, out=out)
    kept = out.read_text()
    await store.aclose()
    store = await edited(tmp_path, "DELETE FROM events WHERE stream = 4", "DELETE FROM streams WHERE id = 4", sql)
    with pytest.raises(DoesNotVerify, match=f"covers: {message}; it was not sealed again"):
        await seal(store, KEY, out=out)
    with pytest.raises(DoesNotVerify):
        await seal(store, KEY, out=tmp_path / "." / "shop.seal")
    assert out.read_text() == kept
    assert [head async for head in _seal_heads(store)] == []
    await store.aclose()


async def _seal_heads(store: EventStore) -> AsyncIterator[Any]:
    from engine.audit.streams import heads

    async for head in heads(store, category="seal"):
        yield head


async def test_a_seal_in_the_log_that_the_key_has_not_signed_is_not_gone_on_from(tmp_path: Path) -> None:
    """A forged frontier would have the key sign whatever log it belongs to."""
    store = await SqliteStore.open(tmp_path / "log.db")
    await fill(store, 1, commits=5)
    await seal(store, KEY)
    await append(store, "run:a", b"1")
    await store.aclose()
    forgeries = [
        "UPDATE events SET payload = replace(payload, '\"frontier\":[\"', '\"frontier\":[\"0') WHERE header LIKE '%LogSealed%'",
        "UPDATE events SET payload = replace(payload, 'position', 'Position') WHERE header LIKE '%LogSealed%'",
        "UPDATE events SET header = replace(header, '\"size\":', '\"size\":1') WHERE header LIKE '%LogSealed%'",
        "UPDATE events SET header = '{}' WHERE header LIKE '%LogSealed%'",
    ]
    forgeries.append(
        "UPDATE events SET payload = json_set(payload, '$.frontier[0]', hex(zeroblob(32))) WHERE header LIKE '%LogSeal%'"
    )
    for sql in forgeries:
        editor = Editor(tmp_path / "log.db")
        editor(sql)
        editor.recompute()
        store = await SqliteStore.open(tmp_path / "log.db")
        with pytest.raises(DoesNotVerify):
            await seal(store, KEY)
        assert not (await verify(store, key=KEY.public)).holds, sql
        await store.aclose()
        editor.restore()
        editor.close()


async def test_another_logs_seal_is_not_written_over(store: EventStore, tmp_path: Path) -> None:
    out = tmp_path / "shop.seal"
    out.write_text(Seal.make(KEY, size=1, root=bytes(32), position=1, at=AT).note.replace("shop", "mail"))
    with pytest.raises(AuditError, match=r"shop.seal is a seal of log 'example.com/mail', not of 'example.com/shop'"):
        await seal(store, KEY, out=out)
    out.write_bytes(b"\xff\xfe")
    with pytest.raises(AuditError, match="this is no seal, which is text"):
        await seal(store, KEY, out=out)
    with pytest.raises(AuditError, match="is a directory without seals"):
        read_seals(tmp_path / "..")


# -- on disk ----------------------------------------------------------------------------------------------------------------

WIRE = json.loads((Path(__file__).parent / "seal_wire.json").read_text())


@pytest.mark.parametrize(("type_", "index"), [(LogSealed, 0), (LogSealed, 1), (SealPayload, 0)])
def test_the_wire_form_never_changes(type_: Any, index: int) -> None:
    golden, meaning = WIRE[type_.__name__][index]
    found = msgspec.json.decode(golden, type=type_)
    assert json.loads(json.dumps(msgspec.structs.asdict(found))) == meaning
    assert msgspec.json.encode(found).decode() == golden
    newer = golden[:-1] + ',"invented":{"later":[1]}}'
    assert msgspec.json.decode(newer, type=type_) == found


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"note":"","frontier":[]}', b"\xff"])
def test_what_is_no_seal_event(payload: bytes) -> None:
    header = WIRE["LogSealed"][0][0].encode()
    event = RecordedEvent(STREAM, 3, 9, header, payload, bytes(16), bytes(32), bytes(32))
    with pytest.raises(AuditError, match=f"version 3 of stream '{STREAM}'"):
        read_sealed(event)
