"""What is fuzzed: for each place that bytes come in, what decodes them, and the errors that its documentation names.

Any other exception is a defect. The seeds are what the fuzzer begins with; `hostile` are the shapes that broke such
decoders elsewhere, tried on every target: depth, size of numbers, text that is no UTF-8, keys that come twice.
"""

from __future__ import annotations

import gzip
import tempfile
import threading
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from uuid import UUID

import msgspec
from msgspec import Struct

import eventstore.sqlite
from engine.assets import events as asset_events
from engine.assets.key_text import read_items
from engine.audit.events import read_sealed
from engine.audit.keys import PrivateKey, PublicKey
from engine.audit.notes import Seal
from engine.audit.proving import decode_proof
from engine.cli.arguments import decode_text
from engine.cli.phrases import about, detail
from engine.cli.readable import clock, instant, value_lines
from engine.core.carriage import INLINE, away_of, plain, readable, unpack
from engine.core.events import decode_header
from engine.core.failures import decode_error, rebuild
from engine.core.fold import RunState
from engine.core.values import ArgumentsCodec, ValueCodec
from engine.errors import (
    ArgumentsError,
    AssetError,
    AuditError,
    DoesNotVerify,
    ExportError,
    HistoryError,
    HoldfastError,
    NotRecordable,
    StorageRefused,
    TokenError,
)
from engine.moving.files import ExportReader
from engine.moving.looking import Looked
from engine.moving.objects import ObjectBytes, ObjectHead
from engine.runtime.large_values import LARGE, LargeValues
from engine.runtime.mail import mail_or_none
from engine.runtime.tokens import parse_token
from engine.storage.stored import check_key, keys_in
from engine.storage.urls import place_at
from engine.testing.recorded import load_history
from eventstore import CommitTooLarge, EventStoreError, InvalidArgument, NotInstallable, RecordedEvent
from eventstore.urls import open_store
from eventstore.validation import parse_cursor, validate_header

__all__ = ["TARGETS", "Target", "hostile"]

SCRATCH = tempfile.TemporaryDirectory(prefix="fuzz-")  # of this process; each input overwrites the one before


class Target(Struct, frozen=True):
    """One place that bytes come in."""

    run: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]  # that are documented; whatever else comes out is a defect
    seeds: tuple[bytes, ...]


class Row(Struct):
    """A value as users have them."""

    name: str
    at: datetime
    amounts: list[Decimal] = []
    below: Row | None = None


def fn(day: int, rows: list[Row], *rest: str, **more: float) -> None:
    """What is called with hostile arguments."""


TYPES: tuple[Any, ...] = (Any, int, float, str, bytes, bool, datetime, UUID, Decimal, Literal["a", 1], Row, list[Row],
                          dict[str, Row], set[int], tuple[int, str], int | None, str | list[int])  # fmt: skip
CODECS = [ValueCodec(type_, "a value") for type_ in TYPES]
ARGUMENTS = ArgumentsCodec(fn, "fn")


def _of(choices: list[Any] | tuple[Any, ...], data: bytes) -> tuple[Any, bytes]:
    """One of these by the first byte, and the bytes behind it."""
    return choices[(data[0] if data else 0) % len(choices)], data[1:]


def _recorded(header: bytes, payload: bytes | None) -> RecordedEvent:
    return RecordedEvent("run:x", 1, 1, header, payload, None, bytes(32), bytes(32))


def _two(data: bytes) -> tuple[bytes, bytes]:
    header, _, payload = data.partition(b"\n")
    return header, payload


def _event(data: bytes) -> None:
    header, payload = _two(data)
    event = decode_header(header)
    state = RunState(run_id="x")
    state.apply(1, event, payload)
    validate_header(header, "event", "run:x")  # of what no store takes nothing is shown
    said = msgspec.json.decode(header)
    about(said)
    clock(event.at)
    instant(event.at)
    detail(said, payload)


def _value(data: bytes) -> None:
    codec, data = _of(CODECS, data)
    codec.decode(data, LARGE)


def _away(data: bytes) -> None:
    list(LargeValues.names(data))  # never fails: an event's payload may only begin as if
    readable(data)
    plain(data)
    keys_in(data)
    value_lines(data)
    away_of(data)
    unpack(data)


def _validated(data: bytes) -> None:
    validate_header(data, "event", "run:x")


def _exported(data: bytes) -> None:
    path = Path(SCRATCH.name, "export")
    path.write_bytes(data)
    looked = Looked()
    for item in ExportReader(path, stop=threading.Event()):
        if not isinstance(item, ObjectHead | ObjectBytes):
            looked.take(item)
    looked.finish()


def _history(data: bytes) -> None:
    path = Path(SCRATCH.name, "history")
    path.write_bytes(data)
    load_history(path)


def _proof(data: bytes) -> None:
    decode_proof(data).check()


def _key(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    (PrivateKey if text.startswith("PRIVATE") else PublicKey).parse(text)


def _asset(data: bytes) -> None:
    recorded = _recorded(*_two(data))
    asset_events.read_event(recorded)
    asset_events.details_of(recorded)


def _done(coroutine: Coroutine[Any, Any, object]) -> None:
    """Drive what never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    finally:
        coroutine.close()


@contextmanager
def _no_files() -> Iterator[None]:
    """URLs are read, and nothing is opened."""

    async def opened(path: str, **_options: object) -> None:
        assert path
        assert "\0" not in path

    real = eventstore.sqlite.SqliteStore
    eventstore.sqlite.SqliteStore = SimpleNamespace(open=opened)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        eventstore.sqlite.SqliteStore = real  # type: ignore[misc]


def _store_url(data: bytes) -> None:
    with _no_files():
        _done(open_store(data.decode("utf-8", "surrogateescape")))


def _storage_url(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    if "://" not in text or text.startswith("file://") or "[" in text:  # else another library's
        place_at(text, {})


def _argument(data: bytes) -> None:
    type_, data = _of(TYPES, data)
    decode_text(data.decode("utf-8", "surrogateescape"), type_)


def _keys(data: bytes) -> None:
    read_items(data[1:].decode("utf-8", "replace"), 1 + (data[0] if data else 0) % 2)


def text_of(decode: Callable[[str], object]) -> Callable[[bytes], object]:
    """A decoder of text, given bytes."""
    return lambda data: decode(data.decode("utf-8", "replace"))


_SEAL = f"example.com/x\n3\n{b64encode(bytes(32)).decode()}\nposition 3\nat 5\n\n— example.com/x {b64encode(bytes(68)).decode()}\n"
_END = b'{"line":"end","streams":0,"events":0,"sha256":""}\n'
_HEADING = b'{"holdfast":"export","form":1,"version":"0","at":1,"store":"memory"}\n'
_PROOF = msgspec.json.encode({"proves": "consistency", "path": [], "first": _SEAL, "second": _SEAL})

TARGETS: dict[str, Target] = {
    "event": Target(
        _event,
        (HistoryError, InvalidArgument, CommitTooLarge),
        (b'{"type":"TaskFailed","at":1,"id":"x","error":"E"}\n{"type":"E"}', b'{"type":"RunPaused","at":1,"by":"x"}\n'),
    ),
    "error": Target(
        lambda data: rebuild(decode_error(data)),
        (HistoryError,),
        (b'{"type":"ValueError","args":["x"],"cause":{"type":"OSError","args":[2,"n","f"]}}',),
    ),
    "value": Target(_value, (NotRecordable,), (b"\x0a" + b'{"name":"x","at":"2026-01-01T00:00:00Z","amounts":["1"]}',)),
    "arguments": Target(
        lambda data: ARGUMENTS.decode(data, INLINE),
        (ArgumentsError,),
        (b'{"day":1,"rows":[],"rest":["x"],"more":{"y":1.5}}', b" {}", b"\0holdfast\0"),
    ),
    "away": Target(
        _away,
        (NotRecordable,),
        (
            b' {"stored":{"key":"x","digest":"","size":1,"format":"json","data_version":""}}',
            b"\0holdfast\0\x92\xc4\x00\x80",
        ),
    ),
    "mail": Target(
        lambda data: mail_or_none(SimpleNamespace(header=data)),  # type: ignore[arg-type]
        (),
        (b'{"type":"signal","name":"x"}', b'{"type":"start","workflow":"w","seed":"00"}'),
    ),
    "header": Target(_validated, (InvalidArgument, CommitTooLarge), (b'{"type":"x"}',)),
    "cursor": Target(text_of(parse_cursor), (InvalidArgument,), (b"WzEsIngiXQ==",)),
    "token": Target(text_of(parse_token), (TokenError,), (b64encode(b'["r",0,"t","c"]').rstrip(b"="),)),
    "export": Target(_exported, (ExportError, NotInstallable), (gzip.compress(_HEADING + _END, mtime=0),)),
    "export-lines": Target(  # as one would write it who does not stop at the compression
        lambda data: _exported(gzip.compress(data, 1, mtime=0)),
        (ExportError, NotInstallable),
        (
            _HEADING + _END,
            _HEADING + b'{"line":"event","stream":"run:x","version":1,"header":"{}","digest":"00"}\n' + _END,
            _HEADING + b'{"line":"object","key":"x","size":99999999999}\n{"line":"bytes","data64":"AA=="}\n' + _END,
        ),
    ),
    "history": Target(
        _history,
        (HoldfastError,),
        (b'{"holdfast":"history","form":1,"run":"x"}\n{"version":1,"header":{"type":"RunPaused","at":1}}\n',),
    ),
    "seal": Target(text_of(lambda text: Seal.parse(text)), (AuditError,), (_SEAL.encode(),)),
    "proof": Target(_proof, (AuditError, DoesNotVerify), (_PROOF,)),
    "key": Target(
        _key,
        (AuditError,),
        (PublicKey("x", bytes(32)).text.encode(), b"PRIVATE+KEY+x+00000000+" + b64encode(bytes(33))),
    ),
    "sealed": Target(
        lambda data: read_sealed(_recorded(*_two(data))),
        (AuditError,),
        (
            b'{"type":"LogSealed","at":1,"origin":"x","size":0,"root":"","position":0,"key":""}\n{"note":"","frontier":[]}',
        ),
    ),
    "asset": Target(
        _asset,
        (AssetError,),
        (b'{"type":"PartitionsAdded","at":1,"keys":["x"]}\n{}', b'{"type":"Observed","at":1}\n{}'),
    ),
    "store-url": Target(
        _store_url,
        (InvalidArgument, EventStoreError),
        (b"sqlite:///x.db?synchronous=NORMAL", b"memory:", b"postgresql://u:p@[::1]/x"),
    ),
    "storage-url": Target(_storage_url, (StorageRefused,), (b"file:///x", b"x/y", b"s3://[")),
    "object-key": Target(text_of(check_key), (StorageRefused,), (b"2c/2c" + b"0" * 62 + b".json",)),
    "argument": Target(
        _argument, (ValueError, RecursionError), (b"\x00[1]", b"\x06" + b"2026-01-01T00:00:00Z", b'\x0b[{"name":"x"}]')
    ),
    "keys": Target(_keys, (HoldfastError,), (b"\x002013-01..2013-06,2013-09", b'\x01a|b,"c"|d..e')),
}


def hostile() -> Iterator[bytes]:
    """Shapes that decoders break on, whatever they decode."""
    for deep in (b"[" * 500_000, b'{"x":' * 200_000, b"[" * 20_000 + b"]" * 20_000, b'{"type":"x","cause":' * 5_000):
        yield deep
        yield b'{"type":"RunPaused","at":1,"by":' + deep
        yield b'{"type":"RunPaused","at":1,"surplus":' + deep
        yield b' {"stored":' + deep
    for number in (
        b"9" * 500_000,
        b"1e999999999",
        b"-1e-999999999",
        b"NaN",
        b"Infinity",
        b"-0",
        b"1" + b"0" * 400 + b".5",
    ):
        yield number
        yield b'{"type":"TurnSlow","at":%b,"took":%b}' % (number, number)
        yield b"\x01" + number
        yield b"\x08" + number
    for text in (b'"\xff\xfe"', b'"\\ud800"', b'"\x00"', b'"\xed\xa0\x80"', b'"' + b"a" * 1_000_000, b"\xef\xbb\xbf{}"):
        yield text
        yield b'{"type":"RunPaused","at":1,"by":' + text + b"}"
        yield b'{"type":"signal","name":' + text + b"}"
        yield b'{"holdfast":"history","form":1,"run":' + text + b"}\n"
    yield b'{"type":"RunPaused","type":"RunUnpaused","at":1,"at":2}'
    yield b'{"day":1,"day":2,"rows":[],"rows":[]}'
    yield b"{" + b",".join(b'"%d":0' % number for number in range(50_000)) + b"}"
    yield b"\0holdfast\0" + b"\x91" * 100_000
    yield b"\0holdfast\0\xdd\xff\xff\xff\xff"
    yield b"\xdf\xff\xff\xff\xff"
    yield gzip.compress(bytes(60 << 20), 9, mtime=0)  # 60 kB that are one line of 60 MB
    yield b"://@[?#" * 1_000
