"""What holds values is for its user alone, whatever the umask says: stores, their logs, leases, exports, archives, keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine, task, workflow
from engine.audit import archive
from engine.audit.keys import generate_key, write_key_pair
from engine.moving import export_to_file
from engine.storage import Storage
from eventstore.urls import open_store


@task
async def give(size: int) -> str:
    return "x" * size


@workflow
async def giving(size: int) -> str:
    return await give(size)


@pytest.fixture(autouse=True)
def _no_umask() -> Iterator[None]:
    old = os.umask(0)
    yield
    os.umask(old)


async def test_everything_that_is_written_is_private(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    async with Engine(url, workflows=[giving], storage=Storage(tmp_path / "values")) as engine:
        run = await engine.start(giving(300_000))
        assert len(await run.result()) == 300_000
        live = modes(tmp_path)
    store = await open_store(url)
    try:
        await export_to_file(store, tmp_path / "all.holdfast", values=False)
        await archive(store, tmp_path / "archive")
    finally:
        await store.aclose()
    public = write_key_pair(tmp_path / "key", generate_key("x", entropy=bytes))
    after = modes(tmp_path)
    del after[public.name]
    assert {"store.db", "store.db-wal", "store.db-shm", "values"} <= live.keys()
    assert any("lease" in name for name in live)
    assert {"all.holdfast", "archive", "archive/events", "archive/runs", "archive/archive.json", "key"} <= after.keys()
    assert [name for name, mode in {**live, **after}.items() if mode & 0o077] == []


def modes(folder: Path) -> dict[str, int]:
    return {str(each.relative_to(folder)): stat.S_IMODE(each.stat().st_mode) for each in folder.rglob("*")}
