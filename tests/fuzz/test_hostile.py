"""What is fuzzed at length by ``python -m tests.fuzz``, in short: every seed, every crasher so far, every hostile shape."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import threading
import tracemalloc
from pathlib import Path

import pytest

from engine import Engine, Signal, workflow
from engine.errors import DamagedExport, StorageRefused
from engine.moving.files import ExportReader
from engine.moving.limits import LINE_BYTES_MAX
from engine.storage import Storage
from eventstore import InvalidArgument, Message
from eventstore.memory import MemoryStore
from eventstore.urls import open_store
from tests.fuzz.check import kept, problem
from tests.fuzz.targets import TARGETS, hostile
from tests.runtime.slices import some

MUTANTS = len(some(range(150)))
HOSTILE = tuple(hostile())


@pytest.mark.parametrize("name", TARGETS)
def test_only_documented_errors_come_out(name: str) -> None:
    seeds = TARGETS[name].seeds
    crashers = [data for _, data in kept(name)]
    wrong = {problem(name, data) for data in (*seeds, *crashers, *HOSTILE, *_mutants(name, seeds))}
    assert wrong == {None}


def _mutants(name: str, seeds: tuple[bytes, ...]) -> list[bytes]:
    chance = random.Random(name)
    found = []
    for _ in range(MUTANTS):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data) + 1)
            data[at : at + chance.randint(0, 3)] = chance.choice(
                (b"", b"\xff", b"[", b'"', b"{", b"0", b"\n", b"-", b"\0")
            )
        found.append(bytes(data))
    return found


ask = Signal("ask", int)


@workflow
async def asks() -> int:
    return await ask.receive()


@pytest.mark.parametrize("depth", [900, 10_000])
async def test_mail_that_nests_too_deep_is_refused_or_left_lying(depth: int) -> None:
    """Refused by the store as what it is; what passes the check harms nobody."""
    header = b'{"type":"signal","name":"ask","x":' + b"[" * depth + b"]" * depth + b"}"
    store = MemoryStore()
    async with Engine(store, workflows=[asks]) as engine:
        run = await engine.start(asks(), id="x")
        with contextlib.suppress(InvalidArgument):
            await store.send(Message(id="deep", stream="run:x", header=header, payload=b"1"))
        await run.signal(ask, 7)
        assert await asyncio.wait_for(run.result(), 30) in (1, 7)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://bob:hunter2@host/db",
        "postgresql://bob:hunt/hunter2@host/db",
        "postgresql://bob:hunter2@[/db",
        "sqlite://bob:hunter2@x",
        "sqlite:///x.db?storage=s3://k:hunter2@b",
        "memory:x?token=hunter2",
        "sqlite:///x.db?a=hunter2&a=hunter2",
    ],
)
async def test_a_store_url_is_shown_without_its_secrets(url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await open_store(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_storage_url_that_cannot_be_read_is_not_quoted() -> None:
    with pytest.raises(StorageRefused) as caught:
        Storage("s3://key:hunter2[@bucket")
    assert "hunter2" not in str(caught.value)


def test_a_gzip_bomb_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb"
    with gzip.open(bomb, "wb", 1) as file:
        for _ in range(256):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(DamagedExport, match=f"bomb, line 1: it is longer than {LINE_BYTES_MAX:,} bytes"):
            list(ExportReader(bomb, stop=threading.Event()))
        assert tracemalloc.get_traced_memory()[1] < 4 * LINE_BYTES_MAX
    finally:
        tracemalloc.stop()
