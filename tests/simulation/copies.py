"""Reruns and forks, held against the histories that they are made of."""

from __future__ import annotations

from engine.core.events import PrefixEnded, RunForked, RunStarted, decode_header
from eventstore import EventStore, RecordedEvent
from tests.simulation.outside import OUTSIDE
from tests.simulation.repaired import Copy

__all__ = ["check_copy"]


async def check_copy(store: EventStore, new_id: str, copy: Copy) -> int:
    """Whether it begins as its origin did. Returns 1."""
    origin = [item async for item in store.read(f"run:{copy.origin}")]
    items = [item async for item in store.read(f"run:{new_id}")]
    wrong = _rerun(origin, items, copy.origin) if copy.kind == "rerun" else _fork(origin, items, copy.origin)
    if wrong:
        OUTSIDE.broke("copies", f"{new_id}, {copy}: {wrong}")
    return 1


def _rerun(origin: list[RecordedEvent], items: list[RecordedEvent], origin_id: str) -> str:
    """The same call; everything else is its own."""
    started = next(item for item in origin if isinstance(decode_header(item.header), RunStarted))  # behind a prefix
    was, began = decode_header(started.header), decode_header(items[0].header)
    assert isinstance(was, RunStarted)
    if not isinstance(began, RunStarted) or (began.rerun_of, began.workflow) != (origin_id, was.workflow):
        return f"it begins with {began}"
    if items[0].payload != started.payload:
        return f"its arguments are {items[0].payload!r}, not {started.payload!r}"
    if began.seed == was.seed or began.singleton or began.waits:
        return f"{began} is not a run of its own, beside {was}"
    first, told = [_told(some, was.carried) for some in (origin, items)]
    return "" if first == told else f"it was told {told} with its start, not {first}"


def _told(items: list[RecordedEvent], count: int) -> list[bytes | None]:
    """What was there before the code began."""
    behind = [item for item in items[1:] if b'"carried":true' in item.header]
    return [item.payload for item in behind[:count]]


def _fork(origin: list[RecordedEvent], items: list[RecordedEvent], origin_id: str) -> str:
    """What it has lived through is its origin's history, byte by byte."""
    note = decode_header(items[0].header)
    if not isinstance(note, RunForked) or note.origin != origin_id:
        return f"it begins with {note}"
    if note.digest != origin[note.version - 1].digest.hex():
        return f"{note} is of another digest"
    copied = items[1 : 1 + note.version]
    if [(item.header, item.payload) for item in copied] != [(i.header, i.payload) for i in origin[: note.version]]:
        return f"of {note.version} events not all are its origin's"
    behind = decode_header(items[1 + note.version].header)
    return "" if isinstance(behind, PrefixEnded) else f"behind its prefix stands {behind}"
