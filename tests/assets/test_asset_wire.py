"""The wire form of every event of assets, byte by byte, and a stream that must fold for ever.

`asset_wire.json` holds, per event and shape, the header, the payload and what they mean; `asset_history.jsonl` a stream,
one event per line, with how its asset then stands. They are written once (`python -m tests.assets.test_asset_wire` makes
what does not exist) and never changed: a change that breaks one breaks the catalogs that people have on disk.
"""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.assets import AssetEvent, AssetState, CheckOutcome, Details, Json, Link, Markdown, Moment, Upstream, events
from engine.assets.catalog import fold
from engine.assets.events import UpstreamVersion, details_of, new_event, read_event
from engine.errors import AssetError
from engine.storage import Column, Stored
from eventstore import RecordedEvent

HERE = Path(__file__).parent
WIRE = HERE / "asset_wire.json"
HISTORY = HERE / "asset_history.jsonl"
AT = 1_767_225_600_000_001

STORED = Stored(
    key="ab/abcd.parquet",
    digest="abcd",
    size=1_234,
    format="parquet",
    data_version="0123",
    rows=7,
    schema=(Column(name="id", type="int64", nullable=False),),
    type="polars.DataFrame",
    writer="pyarrow 1",
)
DETAILS = Details(
    stored=STORED,
    upstream=(
        Upstream(
            key="raw/orders",
            partitions="2026-01",
            count=1,
            digest="d1",
            environment="prod",
            as_of=4,
            versions=(UpstreamVersion("2026-01", 3, "v1"),),
        ),
        Upstream(key="rates", partitions="*", count=400, digest="d2"),
    ),
    checks=(
        CheckOutcome(name="not_null", passed=True, asset="orders", seconds=0.25),
        CheckOutcome(
            name="small",
            passed=False,
            asset="orders",
            severity="warning",
            description="too much",
            metadata={"found": 3},
            rows=({"id": 1, "name": None},),
        ),
        CheckOutcome(name="broken", passed=False, error="ValueError: no", where="shop.py:41"),
    ),
    metadata={
        "text": "plain",
        "number": 1,
        "share": 0.5,
        "yes": True,
        "page": Link(url="https://example.org/", text="there"),
        "note": Markdown(text="**so**"),
        "tree": Json(value={"a": [1, None]}),
        "seen": Moment(iso="2026-01-01T00:00:00+00:00"),
    },
    config={"percent": 10, "key": {"name": "FEE_KEY"}},
)
MADE: dict[str, Any] = {
    "at": AT,
    "partition": "2026-01",
    "run": "materialize-1",
    "code_version": "c1",
    "data_version": "v2",
    "provenance": "p2",
    "inputs": {"raw/orders": "d1", "raw/orders#before": "d3"},
    "config": "k1",
    "started_at": AT - 5,
    "rows": 7,
    "size": 1_234,
    "warnings": 2,
}

SAMPLES: list[tuple[AssetEvent, Details | None]] = [
    (events.AssetStarted(at=AT, run="m-1", provenance="p1"), None),
    (
        events.AssetStarted(
            at=AT, partition="2026-01", run="m-1", provenance="p1", reasons=("missing", "raw/orders is made first")
        ),
        None,
    ),
    (events.AssetUnchanged(at=AT, run="m-1", provenance="p1", reasons=("code changed",)), None),
    (events.AssetPublished(at=AT, run="m-1", code_version="c", data_version="v", provenance="p"), Details()),
    (events.AssetPublished(**MADE), DETAILS),
    (events.AssetFailed(at=AT, run="m-1"), Details(error="ValueError: no (raised at shop.py:41)")),
    (
        events.AssetFailed(at=AT, partition="eu|2026", run="m-1", provenance="p", checks=("small",), started_at=AT - 1),
        Details(checks=DETAILS.checks, error="checks did not pass"),
    ),
    (events.AssetSkipped(at=AT, run="m-1", because=("raw/orders[2026-01]", "rates")), None),
    (events.AssetObserved(at=AT, run="m-1", data_version="v9", provenance="p"), Details(metadata={"rows": 3})),
    (events.AssetObserved(at=AT, data_version=""), None),
    (events.AssetRestored(at=AT, partition="2026-01", version=3, by="ann", reason="the feed was wrong"), None),
    (events.AssetReset(at=AT, partition="2026-01", by="ann", reason="as it was"), None),
    (events.AssetReset(at=AT), None),
    (events.AssetPromoted(**MADE, environment="dev", version=5, by="ann", reason="checked, über"), DETAILS),
    (events.PartitionsAdded(at=AT, keys=("ann", "bob"), by="me", reason="new"), None),
    (events.PartitionsRemoved(at=AT, keys=("bob",)), None),
    (events.EnvironmentCreated(at=AT, base="prod", by="ann", reason="a trial"), None),
]

STREAM: list[AssetEvent] = [
    events.AssetStarted(at=1, partition="a", run="m-1", provenance="p1", reasons=("missing",)),
    events.AssetStarted(at=2, partition="b", run="m-1", provenance="p2"),
    events.AssetPublished(at=3, partition="a", run="m-1", code_version="c", data_version="v1", provenance="p1"),
    events.AssetFailed(at=4, partition="b", run="m-1", provenance="p2", checks=("small",)),
    events.AssetUnchanged(at=5, partition="a", run="m-2", provenance="p1"),
    events.AssetStarted(at=6, partition="a", run="m-3", provenance="p3"),
    events.AssetPublished(
        at=7, partition="a", run="m-3", code_version="d", data_version="v2", provenance="p3", inputs={"x": "d"}
    ),
    events.AssetRestored(at=8, partition="a", version=3, by="ann"),
    events.AssetSkipped(at=9, partition="c", run="m-3", because=("x",)),
    events.AssetObserved(at=10, partition="d", data_version="v3", provenance="p4"),
    events.AssetPromoted(
        at=11,
        partition="e",
        run="m-4",
        code_version="c",
        data_version="v4",
        provenance="p5",
        environment="dev",
        version=2,
    ),
    events.AssetStarted(at=12, partition="e", run="m-5", provenance="p6"),
    events.AssetSkipped(at=13, partition="e", run="m-6", because=("y",)),
    events.AssetReset(at=14, partition="d"),
]


def recorded(number: int, header: bytes, payload: bytes | None = None) -> RecordedEvent:
    """As a store gives it."""
    return RecordedEvent(
        stream="asset:prod/orders",
        version=number,
        position=number,
        header=header,
        payload=payload,
        salt=None,
        payload_digest=b"",
        digest=b"",
    )


def folded(headers: list[bytes]) -> Any:
    """How the asset stands after these, as JSON has it."""
    state = AssetState(key="orders", environment="prod", partitions={}, published={})
    for number, header in enumerate(headers, start=1):
        fold(state, read_event(recorded(number, header)), number)
    return json.loads(msgspec.json.encode(state))


def test_every_event_and_shape_is_as_it_was_written() -> None:
    wire = json.loads(WIRE.read_text())
    assert len(wire) == len(SAMPLES)
    for (event, details), (header, payload) in zip(SAMPLES, wire, strict=True):
        written = new_event(event, details)
        assert written.header.decode() == header
        assert (None if written.payload is None else written.payload.decode()) == payload
        back = recorded(1, header.encode(), None if payload is None else payload.encode())
        assert read_event(back) == event
        assert details_of(back) == (details or Details())


def test_there_is_a_sample_of_every_event() -> None:
    assert {type(event) for event, _ in SAMPLES} == set(typing.get_args(AssetEvent))


def test_a_stream_folds_to_what_it_folded_to() -> None:
    *lines, state = HISTORY.read_text().splitlines()
    assert [new_event(event).header.decode() for event in STREAM] == lines
    now, then = folded([line.encode() for line in lines]), json.loads(state)
    assert _held(now, then) == then


def _held(now: Any, then: Any) -> Any:
    """Of how it stands now what it said then: a field that is added later is no change."""
    if isinstance(then, dict) and isinstance(now, dict):
        return {name: _held(now[name], then[name]) for name in now if name in then}
    return now


@pytest.mark.parametrize("header", [b'{"type":"AssetVanished","at":1}', b"no JSON", b'{"type":"AssetStarted"}'])
def test_what_no_version_writes_is_refused_with_its_place(header: bytes) -> None:
    with pytest.raises(AssetError, match="version 3 of stream 'asset:prod/orders' is no event of an asset"):
        read_event(recorded(3, header))


def test_what_a_later_version_adds_is_read_over() -> None:
    header = b'{"type":"AssetSkipped","at":1,"because":["x"],"later":{"a":1}}'
    assert read_event(recorded(1, header)) == events.AssetSkipped(at=1, because=("x",))


def main() -> None:
    """Write what does not exist."""
    if not WIRE.exists():
        wire = []
        for event, details in SAMPLES:
            written = new_event(event, details)
            wire.append([written.header.decode(), None if written.payload is None else written.payload.decode()])
        WIRE.write_text(json.dumps(wire, indent=1, ensure_ascii=False) + "\n")
    if not HISTORY.exists():
        headers = [new_event(event).header for event in STREAM]
        state = json.dumps(folded(headers), sort_keys=True)
        HISTORY.write_text("".join(f"{header.decode()}\n" for header in headers) + state + "\n")


if __name__ == "__main__":
    main()
