"""A small log with everything in it, in a SQLite file, and somebody who edits that file with plain `sqlite3`."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

from engine.audit import PrivateKey, Seal, seal
from eventstore import NEW, Commit, EventStore, Message, NewEvent, VersionConflict
from eventstore.sqlite import SqliteStore

KEY = PrivateKey("example.com/shop", bytes(range(32)))
OTHER = PrivateKey("example.com/shop", bytes(32))
AT = 1_767_225_600_000_001
PAYLOADS: list[bytes | None] = [
    None,
    b"",
    b"7",
    b'{"rows":336776}',
    b"\x00\xff",
    "näh ☃".encode(),
    b"0123456789abcdef" * 4,
]


async def append(store: EventStore, stream: str, *payloads: bytes | None, **options: Any) -> int:
    """Some events to a stream's end; the version it has then."""
    try:
        version = (await store.head(stream)).version
    except LookupError:
        version = NEW
    events = tuple(
        NewEvent(b'{"type":"TaskCompleted","at":%d,"id":"shop/%s#%d"}' % (AT, stream.encode(), index), payload)
        for index, payload in enumerate(payloads)
    )
    id_ = f"{stream}@{version}"
    head = await store.commit(Commit(id=id_, stream=stream, expected_version=version, events=events, **options))
    return head.version


async def fill(store: EventStore, seed: int, *, commits: int = 24) -> None:
    """Five streams whose events are mixed, and one that was only opened."""
    chance = random.Random(seed)
    for _ in range(commits):
        stream = f"run:{chance.choice('abcde')}"
        try:
            await append(store, stream, *(chance.choice(PAYLOADS) for _ in range(chance.randint(1, 3))))
        except VersionConflict:  # pragma: no cover - nobody else writes
            raise
    opening = Message(id="m", stream="run:opened", header=b"{}", opens=_opening())
    await store.send(opening)


def _opening() -> Any:
    from eventstore import Opening

    return Opening()


async def make_log(path: Path, seed: int = 1) -> tuple[Seal, Seal]:
    """A log that was sealed twice, and has grown since; what the two seals are."""
    store = await SqliteStore.open(path, synchronous="NORMAL")
    await fill(store, seed)
    first = await seal(store, KEY, by="ann", reason="monthly")
    await fill(store, seed + 1, commits=12)
    second = await seal(store, KEY)
    await append(store, "run:a", b"after")
    await append(store, "run:new", b"after", None)
    await store.aclose()
    return first.seal, second.seal


async def make_plain_log(path: Path, seed: int = 1) -> None:
    """A log without any seal: nothing but its chains and heads."""
    store = await SqliteStore.open(path, synchronous="NORMAL")
    await fill(store, seed, commits=36)
    await store.aclose()


def chain(previous: bytes, header: bytes, payload_digest: bytes) -> bytes:
    """As docs/history.md has it."""
    return sha256(b"\x00" + previous + len(header).to_bytes(8, "big") + header + payload_digest).digest()


class Editor:
    """Somebody who can write the file. Every edit can be taken back."""

    TABLES = ("events", "streams", "kept_digests")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.text_factory = bytes
        self.connection.execute("PRAGMA synchronous=OFF")
        for table in self.TABLES:
            self.connection.execute(f"CREATE TEMP TABLE kept_{table} AS SELECT * FROM main.{table}")

    def close(self) -> None:
        self.connection.close()

    def __call__(self, sql: str, *values: Any) -> list[Any]:
        return self.connection.execute(sql, values).fetchall()

    def edit(self, what: Callable[[Editor, random.Random], object], chance: random.Random) -> bool:
        """Do it, in one transaction; whether it changed anything."""
        before = self.content()
        self("BEGIN")
        try:
            what(self, chance)
        except BaseException:
            self("ROLLBACK")
            raise
        self("COMMIT")
        return self.content() != before

    def content(self) -> list[Any]:
        """What is history: of the events all but positions, in their order; of the streams what their heads say."""
        events = "SELECT s.name, version, CAST(header AS BLOB), CAST(payload AS BLOB), salt, payload_digest, e.digest"
        return [
            self(
                f"{events} FROM events e LEFT JOIN (SELECT id, name FROM streams) s ON s.id = e.stream ORDER BY position"
            ),
            self("SELECT name, version, digest FROM streams ORDER BY name"),
            self("SELECT stream, version, position, digest, was FROM kept_digests ORDER BY position"),
        ]

    def restore(self) -> None:
        self("BEGIN")
        for table in self.TABLES:
            names = ", ".join(
                name.decode() for _, name, *_, hidden in self(f"PRAGMA table_xinfo({table})") if not hidden
            )
            self(f"DELETE FROM main.{table}")
            self(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM kept_{table}")
        self("COMMIT")

    # -- what an attacker without the key can put in order again ---------------------------------------------------------

    def recompute(self, stream: int | None = None) -> None:
        """Renumber the events of a stream (of all) in the order of their positions, chain them anew, and fix its head."""
        ids = [stream] if stream is not None else [row[0] for row in self("SELECT id FROM streams")]
        for id_ in ids:
            name = self("SELECT name FROM streams WHERE id = ?", id_)[0][0]
            digest = sha256(b"holdfast stream\x00" + name).digest()
            rows = self(
                "SELECT position, header, payload, salt, payload_digest FROM events WHERE stream = ? ORDER BY position",
                id_,
            )
            self("UPDATE events SET version = -position - 100000 WHERE stream = ?", id_)
            for version, (position, header, payload, salt, kept) in enumerate(rows, 1):
                of_payload = kept or bytes(32)
                if payload is not None:
                    of_payload = sha256(salt + payload).digest()
                digest = chain(digest, header, of_payload)
                self(
                    "UPDATE events SET version = ?, payload_digest = ?, digest = ? WHERE position = ?",
                    version,
                    None if of_payload == bytes(32) else of_payload,
                    digest,
                    position,
                )
            self("UPDATE streams SET version = ?, digest = ? WHERE id = ?", len(rows), digest, id_)

    def drop_seals(self) -> None:
        """Take the seals out of the log."""
        for (id_,) in self("SELECT id FROM streams WHERE CAST(name AS TEXT) LIKE 'seal:%'"):
            self("DELETE FROM events WHERE stream = ?", id_)
            self("DELETE FROM streams WHERE id = ?", id_)


def scalar(path: Path, sql: str) -> Any:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchone()[0]
