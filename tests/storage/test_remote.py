"""Storages under URLs that fsspec knows, on its file system in memory and on ones that fail."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import fsspec
import polars as pl
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from engine.errors import StorageDamaged, StorageError, StorageMissing, StorageRefused, StorageUnavailable
from engine.storage import Storage, Swept
from engine.storage.urls import shown

SECRET = "p%40ss-word"


class Failing(MemoryFileSystem):
    """Refuses to write, and tells everybody with which credentials."""

    protocol = "failing"
    store: dict[str, Any] = {}

    def __init__(self, secret: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.secret = secret

    def put_file(self, *args: Any, **options: Any) -> None:
        raise OSError(f"403 for key {self.secret} and p@ss-word (p%40ss-word) at token=t0ken")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.partition("?")[0].replace("failing://", "memory://"))


class Bucket(MemoryFileSystem):
    """Stands in for an object store: its put is all or nothing, and it has no moves."""

    protocol = "s3"
    store: dict[str, Any] = {}
    pseudo_dirs: list[str] = [""]

    def mv(self, *args: Any, **options: Any) -> None:
        raise AssertionError("an object store is asked to put, not to move")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("s3://", "memory://"))


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    fsspec.register_implementation("failing", Failing, clobber=True)
    fsspec.register_implementation("s3", Bucket, clobber=True)
    yield
    _registry.pop("failing", None)
    _registry.pop("s3", None)


@pytest.fixture(params=["memory", "s3"])
def storage(request: Any) -> Storage:
    return Storage(f"{request.param}://bucket-{uuid4().hex}/storage")


def store_of(storage: Storage) -> dict[str, Any]:
    store = (Bucket if storage.name.startswith("s3") else MemoryFileSystem).store
    return {path: file for path, file in store.items() if storage.name.partition("://")[2] in path}


async def test_values_go_there_and_come_back(storage: Storage) -> None:
    plain = await storage.write({"a": 1})
    table = await storage.write(pl.DataFrame({"a": [1, 2]}))
    assert await storage.read(plain) == {"a": 1}
    assert (await storage.read(table, pl.DataFrame))["a"].to_list() == [1, 2]
    assert (await storage.read(table, pa.RecordBatchReader)).read_all().num_rows == 2
    async with storage.local_path(table) as path:
        assert pl.read_parquet(path)["a"].to_list() == [1, 2]
    assert not path.exists()
    assert await storage.write({"a": 1}) == plain
    assert len(store_of(storage)) == 2
    assert await storage.exists(plain)
    assert await storage.delete(plain)
    assert not await storage.delete(plain)
    with pytest.raises(StorageMissing, match=plain.key):
        await storage.read(plain)


async def test_damage_is_seen(storage: Storage) -> None:
    stored = await storage.write("content")
    (file,) = store_of(storage).values()
    file.seek(0)
    file.write(b"C")
    with pytest.raises(StorageDamaged, match=stored.key):
        await storage.read(stored)


async def test_sweeping_goes_by_the_age_that_the_place_tells(storage: Storage) -> None:
    old, kept, young = [await storage.write(each) for each in "abc"]
    for path, file in store_of(storage).items():
        if old.key in path or kept.key in path:
            file.created = file.modified = datetime.now(tz=UTC) - timedelta(days=30)
    assert await storage.sweep([kept]) == Swept(objects=1, bytes=1, drafts=0, kept=2)
    assert [await storage.exists(each) for each in (old, kept, young)] == [False, True, True]
    assert await Storage(f"memory://empty-{uuid4().hex}").sweep([]) == Swept(0, 0, 0, 0)


def test_an_ipv6_address_is_written_in_full() -> None:
    with pytest.raises(StorageRefused, match=r"written in full, \[0:0:0:0:0:0:0:1\]") as caught:
        Storage("memory://user:secret@[::1]:9000/bucket")
    assert "secret" not in str(caught.value)
    assert Storage("memory://[0:0:0:0:0:0:0:1]:9000/bucket").name == "memory://[0:0:0:0:0:0:0:1]:9000/bucket"


def test_no_secret_is_shown() -> None:
    url = f"failing://user:{SECRET}@host/folder?token=t0ken"
    storage = Storage(url, options={"secret": "opt10n"})
    with pytest.raises(StorageUnavailable) as caught:
        storage.blocking.write("x")
    texts = [repr(storage), storage.name, "".join(traceback.format_exception(caught.value, chain=True))]
    for text in texts:
        for secret in (SECRET, "p@ss-word", "t0ken", "opt10n"):
            assert secret not in text, text
    assert "failing://host/folder" in str(caught.value)
    assert "403 for key *** and ***" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3://KEY:SECRET@bucket/path?token=x#y", "s3://bucket/path"),
        ("simplecache::s3://KEY:SECRET@bucket/path", "simplecache::s3://bucket/path"),
        ("sftp://me@host:22/x", "sftp://host:22/x"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, text: str) -> None:
    assert shown(url) == text


async def test_a_put_that_lost_bytes_is_an_error(storage: Storage, monkeypatch: Any) -> None:
    cls = Bucket if storage.name.startswith("s3") else MemoryFileSystem
    real = cls.put_file

    def short(self: Any, path: str, target: str, **options: Any) -> None:
        real(self, path, target, **options)
        self.store[self._strip_protocol(target)].truncate(1)

    monkeypatch.setattr(cls, "put_file", short)
    with pytest.raises(StorageUnavailable, match="took 1 of 7 bytes"):
        await storage.write("content")


async def test_an_upload_that_fails_leaves_nothing_under_a_key(monkeypatch: Any) -> None:
    storage = Storage(f"memory://bucket-{uuid4().hex}")

    def failing(self: Any, *args: Any, **options: Any) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(MemoryFileSystem, "mv", failing)
    with pytest.raises(StorageError, match="gone"):
        await storage.write("x")
    assert store_of(storage) == {}
