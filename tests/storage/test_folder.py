"""A storage in a folder: crashes, other writers, full disks, and what somebody else has put there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from engine.errors import (
    NotRecordable,
    StorageDamaged,
    StorageError,
    StorageMissing,
    StorageRefused,
    StorageUnavailable,
)
from engine.storage import Storage, Stored, Swept, data_version
from engine.storage.folder import Folder
from tests.architecture.source import ROOT

HERE = Path(__file__).parent


class Order(msgspec.Struct):
    id: UUID
    day: date
    lines: tuple[int, ...] = ()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
def storage(folder: Path) -> Storage:
    return Storage(folder)


def files(folder: Path) -> list[str]:
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "type_", "format_"),
    [
        ({"a": [1, None, "x"]}, Any, "json"),
        (Order(UUID(int=1), date(2026, 1, 1), (1, 2)), Order, "json"),
        ([datetime(2026, 1, 1, tzinfo=UTC)], list[datetime], "json"),
        (b"\0\xff", bytes, "bytes"),
        (b"", Any, "bytes"),
        ("ä\n", str, "text"),
        (None, Any, "json"),
    ],
)
async def test_plain_values_come_back_as_what_they_are(storage: Storage, value: Any, type_: Any, format_: str) -> None:
    stored = await storage.write(value, type_)
    assert stored.format == format_
    assert await storage.read(stored, type_) == value
    assert stored.data_version == stored.digest == data_version(value, type_)
    assert await storage.exists(stored)
    assert hashlib.sha256(await storage.read_bytes(stored)).hexdigest() == stored.digest
    async with storage.local_path(stored) as path:
        assert path.stat().st_size == stored.size


async def test_what_does_not_fit_is_refused(storage: Storage) -> None:
    with pytest.raises(NotRecordable, match="NaN"):
        await storage.write([float("nan")])
    with pytest.raises(NotRecordable, match="annotated int"):
        await storage.write("x", int)
    stored = await storage.write(["x"], list[str])
    with pytest.raises(NotRecordable, match=f"object {stored.key}"):
        await storage.read(stored, list[int])
    with pytest.raises(StorageRefused, match="is json, not bytes"):
        await storage.read(stored, bytes, format="bytes")
    with pytest.raises(StorageRefused, match="use one of json, parquet"):
        await storage.write(1, format="pickle")  # type: ignore[arg-type]
    with pytest.raises(StorageRefused, match="takes tables"):
        await storage.write(1, format="parquet")
    with pytest.raises(StorageRefused, match="takes bytes, not str"):
        await storage.write("x", format="bytes")
    text = await storage.write("x")
    with pytest.raises(StorageRefused, match="is text, not"):
        await storage.read(text, Order)


async def test_joblib_only_when_it_is_named(storage: Storage, folder: Path) -> None:
    value = {1: {2, 3}, "fn": complex(1, 2)}
    stored = await storage.write(value, format="joblib")
    assert stored.key.endswith(".joblib")
    assert stored.writer.startswith("joblib ")
    with pytest.raises(StorageRefused, match='reading it runs what is in it. If that is meant, say format="joblib"'):
        await storage.read(stored)
    assert await storage.read(stored, format="joblib") == value
    with pytest.raises(StorageRefused, match="joblib cannot write"):
        await storage.write(lambda: 1, format="joblib")


def test_no_pickle_is_loaded_by_plain_values() -> None:
    """Nor is any of the extras: a folder and plain values need the standard library and msgspec."""
    code = (
        "import sys, tempfile; from engine.storage import Storage; s = Storage(tempfile.mkdtemp()).blocking;"
        " assert s.read(s.write({'a': 1})) == {'a': 1};"
        " print(sorted({'joblib', 'pyarrow', 'fsspec', 'polars', 'pandas', 'duckdb'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"


def test_a_moved_folder_still_works_and_nothing_in_stored_says_where_it_was(tmp_path: Path, storage: Storage) -> None:
    stored = storage.blocking.write({"a": 1})
    assert str(tmp_path) not in msgspec.json.encode(stored).decode()
    moved = Path(storage.name).rename(tmp_path / "elsewhere")
    assert Storage(moved).blocking.read(stored) == {"a": 1}
    assert Storage(moved.as_uri()).blocking.read(stored) == {"a": 1}
    with pytest.raises(StorageMissing, match=f"holds no object {stored.key}"):
        storage.blocking.read(stored)


def test_everything_is_private_and_the_folder_is_made_by_the_first_write(folder: Path, storage: Storage) -> None:
    old = os.umask(0)
    try:
        with pytest.raises(StorageMissing):
            storage.blocking.read(Stored(**SOME))
        assert not folder.exists()
        storage.blocking.write(1)
    finally:
        os.umask(old)
    for each in [folder, *folder.rglob("*")]:
        assert stat.S_IMODE(each.stat().st_mode) == (0o700 if each.is_dir() else 0o600), each


DIGEST = hashlib.sha256(b"x").hexdigest()
SOME: dict[str, Any] = {
    "key": f"{DIGEST[:2]}/{DIGEST}.bin",
    "digest": DIGEST,
    "size": 1,
    "format": "bytes",
    "data_version": DIGEST,
}


# -- crashes and other writers -----------------------------------------------------------------------------------------


def test_a_crash_at_any_step_leaves_an_object_whole_or_missing_and_only_drafts_besides(tmp_path: Path) -> None:
    out = subprocess.run(
        [sys.executable, str(HERE / "dying.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert out.returncode == 0, out.stderr
    steps = [json.loads(line) for line in out.stdout.splitlines()]
    assert [step["died"] for step in steps] == [True] * (len(steps) - 1) + [False]
    assert {step["found"] for step in steps} == {"missing", "whole"}
    assert steps[-1]["found"] == "whole"
    assert {step["drafts"] for step in steps} == {0, 1}
    order = [step["found"] for step in steps]
    assert order == sorted(order)  # once it is there it stays
    for step in steps:
        assert step["again"]
        assert len(step["left"]) == 2, step  # the object, and the lock
    assert len(steps) > 12


def test_the_draft_of_a_living_writer_is_not_swept_however_old(folder: Path, storage: Storage) -> None:
    with Folder(folder).draft() as draft:
        draft.write(b"x")
        (path,) = folder.glob("new/*.part")
        os.utime(path, (0, 0))
        assert Storage(folder).blocking.write(1)
        assert storage.blocking.sweep([], grace=0).drafts == 0
        draft.publish(SOME["key"])
    assert storage.blocking.read(Stored(**SOME)) == b"x"


def test_the_young_draft_of_a_dead_writer_is_left(folder: Path, storage: Storage) -> None:
    storage.blocking.write(1)
    young = folder / "new" / "1-0.part"
    young.write_bytes(b"x")
    Storage(folder).blocking.write(2)
    assert young.exists()
    os.utime(young, (0, 0))
    Storage(folder).blocking.write(2)
    assert not young.exists()


def test_the_same_value_from_many_writers_is_one_object(folder: Path) -> None:
    value = {"a": list(range(10_000))}
    start = threading.Barrier(8)
    found: list[Any] = []

    def write() -> None:
        start.wait()
        storage = Storage(folder).blocking
        for _ in range(10):
            stored = storage.write(value)
            found.append((stored, storage.read(stored) == value))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert all(whole for _, whole in found)
    assert len({stored.key for stored, _ in found}) == 1
    assert len(files(folder)) == 2


def test_two_processes_write_the_same_at_once(folder: Path) -> None:
    code = (
        "import sys; from engine.storage import Storage; s = Storage(sys.argv[1]).blocking\n"
        "for number in range(60): st = s.write({'a': [number % 3] * 5000}); assert s.read(st)['a'][0] == number % 3"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(folder)], env={**os.environ, "PYTHONPATH": str(ROOT)})
        for _ in range(2)
    ]
    assert [each.wait(timeout=120) for each in both] == [0, 0]
    assert len(files(folder)) == 4


# -- what the file system refuses --------------------------------------------------------------------------------------


def test_a_full_disk_is_an_error_and_leaves_nothing(storage: Storage, folder: Path, monkeypatch: Any) -> None:
    import io

    storage.blocking.write(1)
    before = files(folder)
    real = os.fdopen

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if len(data) > 100:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    def fdopen(descriptor: int, mode: str, **options: Any) -> Any:
        return Full(descriptor, "wb") if mode == "wb" else real(descriptor, mode, **options)

    monkeypatch.setattr(os, "fdopen", fdopen)
    with pytest.raises(StorageUnavailable, match="cannot be written: .*No space left on device"):
        storage.blocking.write(["x" * 1000])
    import pyarrow as pa

    with pytest.raises(StorageUnavailable, match="No space left on device"):
        storage.blocking.write(pa.table({"a": list(range(100_000))}))
    assert files(folder) == before
    monkeypatch.undo()
    assert storage.blocking.read(storage.blocking.write(["x" * 1000])) == ["x" * 1000]


@pytest.mark.parametrize("call", ["fsync", "replace", "utime"])
def test_a_step_that_fails_is_an_error_and_leaves_nothing(
    storage: Storage, folder: Path, monkeypatch: Any, call: str
) -> None:
    storage.blocking.write(1)
    before = files(folder)

    def failing(*args: Any, **options: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(StorageUnavailable, match="Input/output error"):
        storage.blocking.write(2)
    monkeypatch.undo()
    assert [each for each in files(folder) if each.endswith(".part")] == []
    assert before == [each for each in files(folder) if each in before]


@pytest.fixture
def mounted(tmp_path: Path) -> Any:
    """A file system of 256 KB, where one can be mounted; else a folder, with a limit that the kernel keeps likewise."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False
    )
    yield place if done.returncode == 0 else None
    if done.returncode == 0:
        subprocess.run(["umount", str(place)], check=True)


def test_a_really_full_disk(mounted: Path | None) -> None:
    if mounted is None:
        return  # not allowed here: the test above injects the same error
    storage = Storage(mounted / "storage").blocking
    small = storage.write("small")
    with pytest.raises(StorageUnavailable, match="No space left on device"):
        storage.write(os.urandom(512 << 10))
    assert storage.read(small) == "small"
    again = storage.write(os.urandom(100 << 10))
    assert len(storage.read(again)) == 100 << 10


def test_a_read_only_folder_can_be_read_and_not_written(storage: Storage, folder: Path, monkeypatch: Any) -> None:
    """As its user meets it; for root, whom no mode stops, the kernel's answer is given in its place."""
    stored = storage.blocking.write("x")
    real = os.open

    def read_only(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", read_only)
    reading = Storage(folder).blocking
    assert reading.read(stored) == "x"
    assert reading.exists(stored)
    for refused in (lambda: reading.write("y"), lambda: reading.delete(stored), lambda: reading.sweep([])):
        with pytest.raises(StorageUnavailable, match="Read-only file system"):
            refused()


def test_a_storage_below_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        Storage(tmp_path / "file" / "storage").blocking.write(1)
    with pytest.raises(StorageError, match="file"):
        Storage(tmp_path / "file").blocking.write(1)


# -- what somebody has done to it --------------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[:-1],
    "emptied": lambda data: b"",
    "longer": lambda data: data + b"\0",
    "first bit": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "last bit": lambda data: data[:-1] + bytes([data[-1] ^ 0x80]),
    "other content of that size": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("format_", ["json", "parquet", "bytes", "text", "joblib"])
def test_a_damaged_object_is_never_read(storage: Storage, folder: Path, format_: Any, damage: str) -> None:
    import pyarrow as pa

    value = {"json": [1], "parquet": pa.table({"a": [1]}), "bytes": b"xy", "text": "xy", "joblib": [1]}[format_]
    stored = storage.blocking.write(value, format=format_)
    path = folder / stored.key
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(StorageDamaged) as caught:
        storage.blocking.read(stored, format=format_)
    assert caught.value.key == stored.key
    for told in (stored.key, str(folder), "is damaged", "write the value again"):
        assert told in str(caught.value)
    with pytest.raises(StorageDamaged), storage.blocking.path(stored):
        pass
    assert storage.blocking.write(value, format=format_) == stored  # as the message says
    storage.blocking.check(stored)


@pytest.mark.parametrize("what", ["link to another", "link to nothing", "folder", "pipe", "linked folder"])
def test_what_is_no_plain_file_is_damaged(storage: Storage, folder: Path, tmp_path: Path, what: str) -> None:
    stored = storage.blocking.write("x")
    path = folder / stored.key
    copy = tmp_path / "copy"
    copy.write_text("x")
    path.unlink()
    match what:
        case "link to another":
            path.symlink_to(copy)
        case "link to nothing":
            path.symlink_to(tmp_path / "gone")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "linked folder":
            path.parent.rmdir()
            (tmp_path / "outside").mkdir()
            copy.rename(tmp_path / "outside" / path.name)
            path.parent.symlink_to(tmp_path / "outside")
    with pytest.raises(StorageDamaged, match="not an object"):
        storage.blocking.read(stored)
    if what == "linked folder":
        with pytest.raises(StorageDamaged, match="is no folder"):
            storage.blocking.write("x")
    storage.blocking.sweep([], grace=0)
    assert copy.exists() or (tmp_path / "outside" / path.name).exists()  # nothing behind a link is touched


@pytest.mark.parametrize(
    "key",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "ab/../../x.json",
        "",
        "ab",
        f"{DIGEST[:2]}/{DIGEST}",
        f"00/{DIGEST}.bin",
        "a\0b",
    ]
    + [f"{DIGEST[:2]}/{DIGEST}.bin/..", f"{DIGEST[:2]}/{DIGEST}.bin\n", f"{DIGEST[:2]}/{DIGEST.upper()}.bin"],
)
async def test_a_key_that_is_none_reaches_no_file(storage: Storage, key: str) -> None:
    await storage.write("x")
    hostile = Stored(**{**SOME, "key": key})
    for refused in (storage.read(hostile), storage.exists(hostile), storage.delete(hostile), storage.sweep([key])):
        with pytest.raises(StorageRefused, match="no key of a stored object"):
            await refused


def test_a_key_of_one_object_with_the_digest_of_another_is_refused(storage: Storage) -> None:
    stored = storage.blocking.write("x")
    with pytest.raises(StorageRefused, match="is not the key of an object with digest"):
        storage.blocking.read(msgspec.structs.replace(stored, digest="0" * 64))


def test_sizes_have_limits(storage: Storage, monkeypatch: Any) -> None:
    from engine.storage import blocking, formats, places

    monkeypatch.setattr(places, "OBJECT_BYTES_MAX", 10)
    with pytest.raises(StorageRefused, match="more than 10 bytes is not stored"):
        storage.blocking.write("x" * 11)
    monkeypatch.undo()
    monkeypatch.setattr(blocking, "VALUE_BYTES_MAX", 10)
    monkeypatch.setattr(formats, "VALUE_BYTES_MAX", 10)
    with pytest.raises(StorageRefused, match="at most 10 are stored"):
        storage.blocking.write("x" * 11)
    with pytest.raises(Exception, match="10 of one value"):
        storage.blocking.write(["x" * 11])
    with pytest.raises(StorageRefused, match="ask for its file"):
        storage.blocking.read(Stored(**{**SOME, "size": 11}))


# -- sweeping ----------------------------------------------------------------------------------------------------------


def test_sweeping_takes_what_is_old_and_not_named(storage: Storage, folder: Path) -> None:
    kept, named_by_key, old, young = (storage.blocking.write(each) for each in "abcd")
    for each in (kept, named_by_key, old):
        os.utime(folder / each.key, (0, 0))
    (folder / "notes.txt").write_text("not ours")
    (folder / old.key[:2] / "README").write_text("nor this")
    swept = storage.blocking.sweep([kept, named_by_key.key], grace=3600)
    assert swept == Swept(objects=1, bytes=1, drafts=0, kept=3)
    assert [storage.blocking.exists(each) for each in (kept, named_by_key, old, young)] == [True, True, False, True]
    assert (folder / "notes.txt").exists()
    assert (folder / old.key[:2] / "README").exists()


def test_an_object_that_is_written_again_while_a_sweep_looks_at_it_stays(storage: Storage, folder: Path) -> None:
    """The sweep has read how old it is; the writer comes; then the sweep wants to take it away."""
    stored = storage.blocking.write("x")
    os.utime(folder / stored.key, (0, 0))
    place = Folder(folder)
    (found,) = place.found()
    limit = place.now() - 3600
    assert found.modified < limit
    assert storage.blocking.write("x") == stored
    assert not place.delete(found.key, older_than=limit)
    assert storage.blocking.read(stored) == "x"


def test_an_object_is_as_young_as_its_publishing_however_long_it_was_written(storage: Storage, folder: Path) -> None:
    with Folder(folder).draft() as draft:
        draft.write(b"x")
        (path,) = folder.glob("new/*.part")
        os.utime(path, (0, 0))
        draft.publish(SOME["key"])
    assert storage.blocking.sweep([], grace=3600).kept == 1


def test_a_sweep_waits_for_who_is_just_publishing(storage: Storage, folder: Path) -> None:
    stored = storage.blocking.write("x")
    os.utime(folder / stored.key, (0, 0))
    done = threading.Event()
    with (folder / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        thread = threading.Thread(target=lambda: (storage.blocking.delete(stored), done.set()))
        thread.start()
        assert not done.wait(0.05)
        assert storage.blocking.exists(stored)
    thread.join(timeout=30)
    assert done.is_set()
    assert not storage.blocking.exists(stored)


def test_deleting_says_whether_it_was_there(storage: Storage) -> None:
    stored = storage.blocking.write("x")
    assert storage.blocking.delete(stored)
    assert not storage.blocking.delete(stored)
    with pytest.raises(StorageMissing):
        storage.blocking.check(stored)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "file://host/x", "file:///x?y=1", "nosuch://x", "a\0b"])
def test_what_names_no_storage_is_refused(url: str) -> None:
    with pytest.raises(StorageRefused):
        Storage(url)


def test_a_folder_takes_no_options(tmp_path: Path) -> None:
    with pytest.raises(StorageRefused, match="takes no options"):
        Storage(tmp_path, options={"key": "x"})
    assert repr(Storage(tmp_path)) == f"<Storage {tmp_path}>"


WITHOUT = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"pyarrow", "fsspec", "joblib"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
import tempfile
from engine.storage import Storage, data_version
import polars
storage = Storage(tempfile.mkdtemp()).blocking
for call in (
    lambda: storage.write(polars.DataFrame({"a": [1]})),
    lambda: data_version(polars.DataFrame({"a": [1]})),
    lambda: storage.write(1, format="joblib"),
    lambda: Storage("s3://key:secret@bucket/x"),
):
    try:
        call()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


def test_without_the_extra_it_is_said_what_to_install() -> None:
    said = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [
        'StorageRefused: tables need the package pyarrow: pip install "holdfast[assets]"',
        'StorageRefused: tables need the package pyarrow: pip install "holdfast[assets]"',
        "StorageRefused: format='joblib' needs the package joblib: pip install joblib",
        'StorageRefused: the storage s3://bucket/x needs the package fsspec: pip install "holdfast[assets]"',
    ]
