"""What the audit says that it has written is on the disk: every byte of every file, and every name in every folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.audit import archive, seal
from engine.audit.keys import write_key_pair
from engine.audit.sealing import read_seal
from engine.moving import export_to_file
from engine.storage import Storage
from eventstore import NEW, Commit, NewEvent
from eventstore.memory import MemoryStore
from tests.audit.logs import KEY, fill


class Disk:
    """What a power cut would leave, as far as syncs say: of each file how much, of each folder which names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sizes: dict[int, int] = {}
        self._names: dict[int, set[str]] = {}
        monkeypatch.setattr(os, "fsync", self._sync)

    def _sync(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            self._names[found.st_ino] = set(os.listdir(descriptor))
        else:
            self._sizes[found.st_ino] = found.st_size

    def lost(self, root: Path) -> Iterator[str]:
        """What is below a folder now, and would not be."""
        for path in root.rglob("*"):
            if path.name not in self._names.get(path.parent.stat().st_ino, set()):
                yield f"the name {path.relative_to(root)}"
            if path.is_file() and self._sizes.get(path.stat().st_ino, 0) != path.stat().st_size:
                yield f"bytes of {path.relative_to(root)}"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


async def test_an_archive(tmp_path: Path, disk: Disk) -> None:
    """Whoever is told that it is archived may prune the log."""
    store = MemoryStore()
    happened = NewEvent(b'{"type":"Happened","at":1767225600000000}', b"{}")
    await store.commit(Commit(id="1", stream="note:1", expected_version=NEW, events=(happened, happened)))
    await archive(store, tmp_path / "of" / "2026")
    assert list(disk.lost(tmp_path)) == []
    await archive(store, tmp_path / "of" / "2026")
    assert list(disk.lost(tmp_path)) == []


async def test_a_key_pair_and_a_seal(tmp_path: Path, disk: Disk) -> None:
    store = MemoryStore()
    await fill(store, 1)
    write_key_pair(tmp_path / "key", KEY)
    assert list(disk.lost(tmp_path)) == []
    await seal(store, KEY, out=tmp_path / "seal")
    assert read_seal(tmp_path / "seal")
    assert list(disk.lost(tmp_path)) == []


async def test_a_file_that_was_exported_and_values_in_a_storage(tmp_path: Path, disk: Disk) -> None:
    """For the sake of comparison: the same is asked of others."""
    store = MemoryStore()
    await fill(store, 1)
    await export_to_file(store, tmp_path / "all.jsonl.gz")
    await Storage(tmp_path / "values").write("x" * 1_000)
    (tmp_path / "values" / "lock").unlink()  # empty, and made anew by whoever needs it
    assert list(disk.lost(tmp_path)) == []


def test_what_is_not_synced_is_found(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "a").write_text("x")
    assert list(disk.lost(tmp_path)) == ["the name a", "bytes of a"]
