"""Proof that a log is what it was: it is sealed, verified, and found out when somebody edits it.

    .venv/bin/python examples/audit.py [runs.db]

A workflow books payments and has the log sealed at the end of the day. Somebody then changes an amount in a copy of the
file, and puts all digests in order again; the seal that was kept elsewhere finds that, too.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from engine import Engine, task, workflow
from engine.audit import PrivateKey, Seal, generate_key, prove_inclusion, read_seal, seal, verify
from eventstore import EventStore
from eventstore.urls import open_store


class Notary:
    """What seals: the open store, the key, and a place that those who write the log cannot reach."""

    def __init__(self, store: EventStore, key: PrivateKey, place: Path) -> None:
        self.store, self.key, self.place = store, key, place


notaries: list[Notary] = []


@task
async def book(account: str, euros: int) -> str:
    """Book a payment."""
    return f"{account}: {euros}"


@task
async def seal_the_day(reason: str) -> int:
    """Seal the log as it is now, into the log and outside it."""
    notary = notaries[-1]
    sealed = await seal(notary.store, notary.key, by="end of day", reason=reason, out=notary.place)
    return sealed.seal.size


@workflow
async def day(accounts: list[str]) -> int:
    """Book everything, then have the log sealed."""
    for account in accounts:
        await book(account, 100)
    return await seal_the_day("end of day")


def forge(copy: str) -> None:
    """Change an amount, and compute every digest behind it anew, as anybody can who can write the file."""
    with closing(sqlite3.connect(copy)) as file, file:
        file.text_factory = bytes
        (stream,) = file.execute("SELECT stream FROM events WHERE payload LIKE '%ann: 100%'").fetchone()
        file.execute("UPDATE events SET payload = replace(payload, 'ann: 100', 'ann: 900') WHERE stream = ?", (stream,))
        (name,) = file.execute("SELECT name FROM streams WHERE id = ?", (stream,)).fetchone()
        digest = sha256(b"holdfast stream\x00" + name).digest()
        rows = file.execute(
            "SELECT position, header, salt, payload FROM events WHERE stream = ? ORDER BY version", (stream,)
        )
        for position, header, salt, payload in rows.fetchall():
            of_payload = bytes(32) if payload is None else sha256(salt + payload).digest()
            digest = sha256(b"\x00" + digest + len(header).to_bytes(8, "big") + header + of_payload).digest()
            stored = None if payload is None else of_payload
            file.execute(
                "UPDATE events SET payload_digest = ?, digest = ? WHERE position = ?", (stored, digest, position)
            )
        file.execute("UPDATE streams SET digest = ? WHERE id = ?", (digest, stream))
        file.execute("DELETE FROM events WHERE header LIKE '%LogSealed%'")
        file.execute("DELETE FROM streams WHERE name LIKE 'seal:%'")


async def look(path: str, what: str, kept: Seal, key: PrivateKey) -> None:
    """Verify a file with and without the seal."""
    store = await open_store(f"sqlite:///{path}", read_only=True)
    alone = await verify(store)
    against = await verify(store, seals=[kept], key=key.public)
    print(f"{what}: by its chains {alone.holds}, against the seal {against.holds}")
    for finding in against.findings:
        print(f"    {finding.what}: {finding.message}")
    await store.aclose()


async def main(path: str, place: Path) -> None:
    """Seal, verify, forge, verify."""
    key = generate_key("example.com/payments")
    out = place / "payments.seal"
    run_id = f"day-{uuid4().hex[:12]}"
    async with Engine(f"sqlite:///{path}", workflows=[day]) as engine:
        notaries.append(Notary(engine.store, key, out))
        run = await engine.start(day(["ann", "bob"]), id=run_id)
        size = await run.result()
        kept = read_seal(out)
        print(f"sealed {size} events of {kept.origin}")
        proof = await prove_inclusion(engine.store, f"run:{run_id}", 3, kept)
        print(f"proven: version 3 of the run is in the log of {proof.check(key.public).origin}")
    await look(path, "the log", kept, key)
    copy = str(place / "copy.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    forge(copy)
    await look(copy, "the copy", kept, key)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db", Path(folder)))
