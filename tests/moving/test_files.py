"""Files that are not as they were written, or never were: each is refused, says where, and leaves nothing behind."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from engine.errors import DamagedExport, ExportError
from engine.moving import check_export, export_to_file, import_from_file
from engine.moving.limits import LINE_BYTES_MAX
from eventstore import NEW, Commit, EventStoreError, StreamQuery
from eventstore.memory import MemoryStore
from tests.moving.worlds import dumped, event, fill

REFUSED = (ExportError, EventStoreError)


@pytest.fixture
async def good(tmp_path: Path) -> bytes:
    store = MemoryStore()
    await fill(store, 7, steps=12)
    await export_to_file(store, tmp_path / "good.holdfast", record=False)
    await store.aclose()
    return (tmp_path / "good.holdfast").read_bytes()


class Taker:
    """Takes files in, each into a store of its own; what it was is what comes of a good one."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "taken.holdfast"

    async def __call__(self, data: bytes) -> list[Any] | Exception:
        """What is in the store then; or the error, nothing being in the store."""
        self.file.write_bytes(data)
        store = MemoryStore()
        try:
            await import_from_file(store, self.file)
        except REFUSED as error:
            assert (await store.find(StreamQuery())).items == ()
            assert [each async for each in store.read_all()] == []
            return error
        else:
            return [each for each in await dumped(store) if not getattr(each, "stream", "").startswith("import:")]
        finally:
            await store.aclose()


@pytest.fixture
def take(tmp_path: Path) -> Taker:
    return Taker(tmp_path)


def lines_of(data: bytes) -> list[bytes]:
    return gzip.decompress(data).splitlines(keepends=True)


def packed(lines: list[bytes]) -> bytes:
    return gzip.compress(b"".join(lines), 1)


def signed(lines: list[bytes]) -> bytes:
    """As somebody would who can write the last line, too."""
    *rest, last = lines
    end = json.loads(last) | {"sha256": sha256(b"".join(rest)).hexdigest()}
    return packed([*rest, json.dumps(end).encode() + b"\n"])


async def test_every_flipped_byte_is_refused_or_harmless(good: bytes, take: Taker) -> None:
    right = await take(good)
    assert isinstance(right, list)
    refused = 0
    for index in range(len(good)):
        found = await take(good[:index] + bytes([good[index] ^ (1 << index % 8)]) + good[index + 1 :])
        refused += isinstance(found, Exception)
        assert isinstance(found, Exception) or found == right, index
    assert refused > len(good) - 20  # of gzip's own head: time, system, a flag


async def test_every_cut_is_refused(good: bytes, take: Taker) -> None:
    for length in range(len(good)):
        found = await take(good[:length])
        assert isinstance(found, ExportError), length


async def test_every_line_that_is_missing_or_twice_is_refused(good: bytes, take: Taker) -> None:
    lines = lines_of(good)
    for index in range(len(lines)):
        for changed in (lines[:index] + lines[index + 1 :], lines[: index + 1] + lines[index:]):
            assert isinstance(await take(packed(changed)), REFUSED), lines[index]


async def test_a_changed_event_is_refused_whoever_wrote_the_last_line(good: bytes, take: Taker) -> None:
    """With stream, version and what is wrong with it."""
    lines = lines_of(good)
    chance = random.Random(1)
    tried = 0
    for index, line in enumerate(lines):
        said = json.loads(line)
        if said.get("line") != "event":
            continue
        for name in ("header", "payload", "payload64", "salt", "payload_digest", "digest", "version", "stream"):
            if name not in said:
                continue
            changed = said | {name: _other(name, said[name], chance)}
            found = await take(signed([*lines[:index], json.dumps(changed).encode() + b"\n", *lines[index + 1 :]]))
            assert isinstance(found, DamagedExport), changed
            assert f"line {index + 1}:" in str(found)
            if name not in {"version", "stream"}:
                assert f"stream {said['stream']!r}, version {said['version']}," in str(found)
            tried += 1
    assert tried > 30


def _other(name: str, value: Any, chance: random.Random) -> Any:
    if name == "version":
        return value + 1
    if name == "stream":
        return value + "x"
    if name == "header":
        return value[:-1] + " }"
    if not value:
        return "eA==" if name == "payload64" else "x"
    if name == "payload64":
        return "AAAA" if value != "AAAA" else "BBBB"
    at = chance.randrange(len(value))
    return value[:at] + ("0" if value[at] != "0" else "1") + value[at + 1 :]


HEADING = b'{"holdfast":"export","form":1,"version":"","at":1,"store":"x"}\n'
END = '{"line":"end","streams":%d,"events":%d,"sha256":"%s"}\n'
STREAM = {"line": "stream", "stream": "run:a", "version": 0, "created_at": 1, "updated_at": 1}


def _stream(**changes: Any) -> bytes:
    start = sha256(b"holdfast stream\x00run:a").hexdigest()
    return json.dumps(STREAM | {"digest": start} | changes).encode() + b"\n"


def whole(*lines: bytes, streams: int = 1, events: int = 0, heading: bytes = HEADING) -> bytes:
    before = b"".join((heading, *lines))
    return gzip.compress(before + (END % (streams, events, sha256(before).hexdigest())).encode(), 1)


async def test_the_smallest_file_by_hand(take: Taker) -> None:
    assert isinstance(await take(whole(_stream())), list)
    assert await take(whole(streams=0)) == []


MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "no gzip": b"{}",
    "a history for tests": gzip.compress(b'{"holdfast":"history","form":1,"run":"x","redacted":false}\n'),
    "another program's": gzip.compress(b'{"hello":1}\n'),
    "an empty archive": gzip.compress(b""),
    "no json": gzip.compress(b"hello\n"),
    "a newer form": whole(heading=b'{"holdfast":"export","form":2,"more":[]}\n', streams=0),
    "an unknown line": whole(b'{"line":"wormhole"}\n'),
    "an unknown field": whole(_stream(wormhole=1)),
    "a wrong type": whole(_stream(version="0")),
    "a negative version": whole(_stream(version=-1)),
    "a version that is too large": whole(_stream(version=1 << 64)),
    "a name without a category": whole(_stream(stream="a")),
    "a stream twice": whole(_stream(), _stream(), streams=2),
    "a digest that is none": whole(_stream(digest="zz")),
    "an attribute that is none": whole(_stream(attributes={"a": [1]})),
    "an attribute that is too long": whole(_stream(attributes={"a": "x" * 5_000})),
    "a null attribute": whole(_stream(attributes={"a": None})),
    "a number that is infinite": whole(_stream().replace(b'"created_at": 1,', b'"created_at": 1e999,')),
    "a time of day": whole(_stream(created_at=1.5)),
    "deep json in a line": whole(b'{"line":"stream","x":' + b"[" * 200_000 + b"\n"),
    "deep json in a header": whole(
        _stream(version=1, digest="00" * 32),
        json.dumps(
            {"line": "event", "stream": "run:a", "version": 1, "header": '{"a":' + "[" * 200_000, "digest": "00" * 32}
        ).encode()
        + b"\n",
        events=1,
    ),
    "deep json in the first line": gzip.compress(b'{"holdfast":' + b"[" * 200_000 + b"\n"),
    "no line feed": gzip.compress(HEADING.rstrip()),
    "something behind the end": gzip.compress(gzip.decompress(whole(streams=0)) + b"{}\n"),
    "mail to nobody": whole(b'{"line":"message","stream":"run:b","id":"m","header":"{}","sent_at":1}\n', streams=0),
    "a message twice": whole(
        _stream(),
        b'{"line":"message","stream":"run:a","id":"m","header":"{}","sent_at":1}\n',
        b'{"line":"consumed","stream":"run:a","ids":["m"]}\n',
    ),
    "two payloads": whole(
        _stream(),
        b'{"line":"message","stream":"run:a","id":"m","header":"{}","sent_at":1,"payload":"","payload64":""}\n',
    ),
    "a permit of no pool": whole(
        _stream(), b'{"line":"permit","stream":"run:a","pool":"p","holder":"h","taken_at":1}\n'
    ),
    "lone surrogates": whole(_stream(attributes={"a": "\ud800"})),
    "a count that is wrong": whole(_stream(), streams=2),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_what_never_was_one_is_refused(name: str, take: Taker) -> None:
    found = await take(MALFORMED[name])
    assert isinstance(found, REFUSED), found
    assert str(found)
    if name == "a newer form":
        assert "form 2" in str(found)


async def test_a_bomb_costs_no_more_than_a_line(take: Taker, tmp_path: Path) -> None:
    """A gigabyte of one letter, in a file of a megabyte."""
    bomb = tmp_path / "bomb.holdfast"
    with gzip.open(bomb, "wb", 1) as file:
        file.write(HEADING)
        for _ in range(20):
            file.write(b"a" * (8 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(DamagedExport, match="longer than"):
            await check_export(bomb)
        assert tracemalloc.get_traced_memory()[1] < 3 * LINE_BYTES_MAX
    finally:
        tracemalloc.stop()


async def test_a_file_is_never_overwritten_and_none_is_left_half(tmp_path: Path) -> None:
    store = MemoryStore()
    await fill(store, 1)
    (tmp_path / "there").write_text("mine")
    with pytest.raises(ExportError, match="is there already"):
        await export_to_file(store, tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"
    with pytest.raises(OSError):
        await export_to_file(store, tmp_path / "no" / "folder")

    def fails(_: object) -> None:
        raise RuntimeError("no more")

    for number in range(1_100):
        await store.commit(Commit(id="x", stream=f"run:n{number}", expected_version=NEW, events=(event(1),)))
    with pytest.raises(RuntimeError):
        await export_to_file(store, tmp_path / "torn", progress=fails)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    await store.aclose()
