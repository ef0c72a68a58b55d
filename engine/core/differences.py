"""Two histories side by side: where they part, and what stands on either side from there on. Pure, and without code.

What differs between any two runs that do the same is left out: times, places, seeds, who asked, numbers of attempts,
the run's own id in those of its children. The order of decisions behind one fact says nothing either, and notes are the
engine's own business.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct, to_builtins

from engine.core.events import (
    AnyEvent,
    Decision,
    Fact,
    Note,
    PayloadsDestroyed,
    PrefixEnded,
    RequestReceived,
    RunForked,
    RunReopened,
    RunStarted,
    SignalReceived,
    TimerStarted,
)
from engine.core.standing import standing

__all__ = ["Differences", "SideBySide", "differences"]

ALIGNED_MAX: Final = 1_000
"""Events on either side, behind where they part, that are set beside those they are like; the rest as they come."""
_NOT_COMPARED: Final = frozenset(
    {
        "at",
        "site",
        "seed",
        "python",
        "anyio",
        "by",
        "reason",
        "rerun_of",
        "singleton",
        "attempt",
        "reconciled",
        "deadline",
        "root",
        "reused_run",
        "reused_id",
    }
)
_ERRORS: Final = frozenset({"TaskFailed", "ChildFailed", "RunFailed", "RequestFailed"})


class Recorded(Protocol):
    """An event as a history has it."""

    @property
    def version(self) -> int: ...
    @property
    def event(self) -> AnyEvent: ...
    @property
    def payload(self) -> bytes | None: ...


T = TypeVar("T", bound=Recorded)


class SideBySide(Struct, Generic[T], frozen=True):
    """One line of the two columns: two events that are alike, or that are not, or one with nothing beside it."""

    left: T | None
    right: T | None
    alike: bool


class Differences(Struct, Generic[T], frozen=True):
    """`alike`: so many facts and decisions are, from the first on. `rows`: what stands behind; none: nothing does.

    `without_values`: one of the two was made to forget some, so that of neither values are compared.
    """

    alike: int
    rows: tuple[SideBySide[T], ...]
    without_values: bool = False


def differences(left: Sequence[T], right: Sequence[T], *, ids: tuple[str, str]) -> Differences[T]:
    """Set two histories, of runs with these ids, side by side."""
    lefts, rights = _ordered(left), _ordered(right)
    forgot = any(isinstance(item.event, PayloadsDestroyed) for side in (left, right) for item in side)
    left_keys = _keys(lefts, left, ids[0], values=not forgot)
    right_keys = _keys(rights, right, ids[1], values=not forgot)
    pairs = zip(left_keys, right_keys, strict=False)
    alike = next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(lefts), len(rights)))
    rows = _rows(lefts[alike:], rights[alike:], left_keys[alike:], right_keys[alike:])
    return Differences(alike, tuple(rows), forgot)


def _rows(lefts: list[T], rights: list[T], left_keys: list[bytes], right_keys: list[bytes]) -> list[SideBySide[T]]:
    matcher = SequenceMatcher(None, left_keys[:ALIGNED_MAX], right_keys[:ALIGNED_MAX], autojunk=False)
    rows: list[SideBySide[T]] = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        rows += _beside(lefts[i1:i2], rights[j1:j2], alike=tag == "equal")
    rows += _beside(lefts[ALIGNED_MAX:], rights[ALIGNED_MAX:], alike=False)
    return rows


def _beside(lefts: list[T], rights: list[T], *, alike: bool) -> list[SideBySide[T]]:
    longest = max(len(lefts), len(rights))
    return [
        SideBySide(lefts[index] if index < len(lefts) else None, rights[index] if index < len(rights) else None, alike)
        for index in range(longest)
    ]


def _ordered(history: Sequence[T]) -> list[T]:
    """The facts and decisions that count; the decisions of a turn by their ids."""
    found: list[T] = []
    turn: list[T] = []
    for item in standing(history):
        if isinstance(item.event, Note):
            continue
        if isinstance(item.event, Fact):
            found += sorted(turn, key=_id)
            turn.clear()
            found.append(item)
        else:
            turn.append(item)
    return found + sorted(turn, key=_id)


def _id(item: Recorded) -> tuple[bool, str]:
    """A run's end, which has no id, stands behind the rest."""
    id_ = item.event.id if isinstance(item.event, Decision) else ""
    return not id_, id_


def _keys(ordered: list[T], history: Sequence[T], run_id: str, *, values: bool) -> list[bytes]:
    """What is compared. The ids of children begin with that of their parent: a fork's own, or one of its origins'."""
    own = [run_id, *(item.event.origin for item in history if isinstance(item.event, RunForked))]
    own.sort(key=len, reverse=True)
    lengths = _lengths(history)
    return [_key(item, own, lengths, values=values) for item in ordered]


def _lengths(history: Sequence[Recorded]) -> dict[int, int]:
    """How long each timer runs, by version: from the run's own time then, whenever it was that it was recorded.

    The one of the run's own deadline, which no code has asked for, runs for as long as is left: that says how quick
    the epochs before were.
    """
    lengths: dict[int, int] = {}
    now, within = 0, False
    for item in history:
        event = item.event
        if isinstance(event, RunStarted):
            within = event.deadline > 0
        if isinstance(event, Fact | RunReopened | PrefixEnded):
            now = max(now, event.at)
        elif isinstance(event, TimerStarted) and (event.site or not within):
            lengths[item.version] = event.deadline - now
    return lengths


def _key(item: Recorded, own: list[str], lengths: dict[int, int], *, values: bool) -> bytes:
    event = item.event
    # Field by field: whether one that has its default is written out depends on which object it is, not on its value.
    names = (name for name in event.__struct_fields__ if name not in _NOT_COMPARED)
    fields: dict[str, Any] = {name: to_builtins(getattr(event, name)) for name in names}
    fields["type"] = type(event).__name__
    if isinstance(event, TimerStarted):
        fields["after"] = lengths.get(item.version)
    if isinstance(event, SignalReceived | RequestReceived):
        del fields["id"]  # of the message
    if "request" in fields:
        del fields["request"], fields["id"]
    if isinstance(run := fields.get("run"), str):
        fields["run"] = next((run.removeprefix(each) for each in own if run.startswith(f"{each}/")), run)
    value = _error(item.payload, own) if fields["type"] in _ERRORS else item.payload
    if not values:
        value = None
    return msgspec.json.encode([fields, None if value is None else value.hex()])


def _error(payload: bytes | None, own: list[str]) -> bytes | None:
    """What an error says, without its traceback, which names lines, and the run's own id, in quotes or in that of
    a child.
    """
    try:
        found = None if payload is None else msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        return payload
    if not isinstance(found, dict):
        return payload
    message = found.get("message")
    if isinstance(message, str):
        ids = "|".join(map(re.escape, own))
        message = re.sub(rf"(?<=['\"])(?:{ids})(?=['\"/])", "", message)
    return msgspec.json.encode([found.get("type"), message])
