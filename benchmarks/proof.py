"""How much more it costs to verify a log than to read and hash its rows by hand; and what a seal costs, and the next.

The log has four events in each stream, mixed as runs mix them, half of them with a payload. By hand is a loop over the
same rows with `sqlite3` and `hashlib`, with the chains and the tree: what `docs/verify.py` does. Each is done in turn,
in a process of its own, whose memory at its most is looked at.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

from processes import in_fresh_process, peak_bytes
from report import Aim, Option, Report, options, publish, spread

from engine.audit import PrivateKey, Tree, seal, verify
from eventstore import NEW, Commit, NewEvent
from eventstore.sqlite import SqliteStore

SIZES = (
    Option("events", 1_000_000, "events in the log; memory is also looked at with a tenth of them"),
    Option("rounds", 3, "times that all are measured, in turn"),
)
PER_STREAM = 4
TOGETHER = 200
"""Streams that are written at the same time."""
KEY = PrivateKey("example.com/benchmark", bytes(32))


def main(arguments: Sequence[str] | None = None) -> Report:
    given = options("Verifying and sealing a log, against hashing its rows by hand.", SIZES, arguments)
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        paths = {size: Path(name) / f"{size}.db" for size in (max(1, given.events // 10), given.events)}
        for size, path in paths.items():
            asyncio.run(write(path, size))
        rounds: list[dict[str, float]] = []
        for _ in range(given.rounds):
            hand = in_fresh_process(by_hand, paths[given.events])
            found = in_fresh_process(verified, paths[given.events])
            rounds.append(
                {
                    "ratio": found["seconds"] / hand["seconds"],
                    "verified_events_per_second": given.events / found["seconds"],
                    "by_hand_events_per_second": given.events / hand["seconds"],
                    "verify_peak_bytes": found["peak_bytes"],
                    "by_hand_peak_bytes": hand["peak_bytes"],
                }
            )
        small = in_fresh_process(verified, min(paths.values()))
        return publish(
            given,
            benchmark="proof",
            question="How much more does it cost to verify a log than to read and hash its rows?",
            ratio=[each["ratio"] for each in rounds],
            ratio_of="seconds to verify a log / seconds to read and hash its rows by hand; less is better",
            aim=Aim(at_most=4.0),
            directory=Path(name),
            measured={
                **{key: spread(each[key] for each in rounds) for key in rounds[0] if key != "ratio"},
                "verify_peak_bytes_of_a_tenth": small["peak_bytes"],
                **asyncio.run(sealed(paths[given.events])),
            },
        )


async def write(path: Path, size: int) -> None:
    """A log of that many events."""
    store = await SqliteStore.open(path, synchronous="NORMAL")
    header = b'{"type":"TaskCompleted","at":1767225600000001,"id":"nightly/extract#%d"}'

    async def stream(number: int, events: int) -> None:
        for version in range(events):
            event = NewEvent(header % version, b'{"rows":336776}' if version % 2 else None)
            commit = Commit(
                id=f"{number}-{version}", stream=f"run:{number}", expected_version=version or NEW, events=(event,)
            )
            await store.commit(commit)

    streams = [PER_STREAM] * (size // PER_STREAM) + ([size % PER_STREAM] if size % PER_STREAM else [])
    for start in range(0, len(streams), TOGETHER):
        some = enumerate(streams[start : start + TOGETHER], start)
        await asyncio.gather(*(stream(number, events) for number, events in some))
    await store.aclose()


def verified(path: Path) -> dict[str, float]:
    """Verify it."""

    async def work() -> float:
        store = await SqliteStore.open(path, read_only=True)
        try:
            verdict = await verify(store)
        finally:
            await store.aclose()
        assert verdict.holds
        return verdict.seconds

    return {"seconds": asyncio.run(work()), "peak_bytes": peak_bytes()}


def by_hand(path: Path) -> dict[str, float]:
    """The same rows, chains and tree, in one loop."""
    began = time.perf_counter()
    ends: dict[int, bytes] = {}
    tree = Tree()
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        starts = {id_: sha256(b"holdfast stream\x00" + name).digest() for id_, name in _streams(connection)}
        rows = connection.execute(
            "SELECT stream, header, payload, salt, payload_digest, digest FROM events ORDER BY position"
        )
        for stream, header, payload, salt, stored, digest in rows:
            of_payload = stored or bytes(32)
            if payload is not None:
                assert sha256(salt + payload).digest() == of_payload
            previous = ends.get(stream) or starts[stream]
            framed = len(header).to_bytes(8, "big") + header
            ends[stream] = sha256(b"\x00" + previous + framed + of_payload).digest()
            assert ends[stream] == digest
            tree.append(digest)
    assert tree.root()
    return {"seconds": time.perf_counter() - began, "peak_bytes": peak_bytes()}


def _streams(connection: sqlite3.Connection) -> list[tuple[int, bytes]]:
    return connection.execute("SELECT id, name FROM streams").fetchall()


async def sealed(path: Path) -> dict[str, Any]:
    """Seal it, and once more when one event has come."""
    store = await SqliteStore.open(path)
    try:
        began = time.perf_counter()
        first = await seal(store, KEY)
        between = time.perf_counter()
        await store.commit(Commit(id="new", stream="run:new", expected_version=NEW, events=(NewEvent(b"{}"),)))
        again_from = time.perf_counter()
        again = await seal(store, KEY)
        ended = time.perf_counter()
    finally:
        await store.aclose()
    assert again.read == 2
    assert first.seal.size + again.read == again.seal.size
    return {
        "first_seal_seconds": round(between - began, 4),
        "next_seal_milliseconds": round((ended - again_from) * 1000, 3),
    }


if __name__ == "__main__":
    main()
