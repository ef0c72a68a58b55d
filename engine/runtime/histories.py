"""Reads runs from a store, without their code: events, folded state, outcome."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from msgspec import Struct

from engine.core.carriage import readable
from engine.core.events import AnyEvent, PrefixEnded, RunForked, RunPruned, RunStarted, decode_header
from engine.core.fold import RunState, RunStatus
from engine.errors import EngineClosed, HistoryError, RepairRefused, RunNotFound, RunPrunedError
from engine.runtime.streams import EPOCH_START, PAYLOADS, STATUS, run_id_of, status_of, stream_of
from eventstore import Clock, EventStore, StoreClosed, StreamHead, StreamNotFound

__all__ = [
    "HistoryEvent",
    "Outcome",
    "check_remembers",
    "check_whole",
    "epoch_start",
    "head_of",
    "head_or_none",
    "moment_behind",
    "outcome_of",
    "read_beginning",
    "read_epoch",
    "read_events",
    "read_known_state",
    "read_state",
]

TAIL = 64
"""Events read first, from the end, when looking for a run's outcome: only late outcomes of attempts stand behind it."""


class HistoryEvent(Struct, frozen=True):
    """One event of a history: `version` is its index in it, `position` its index in the whole log."""

    version: int
    position: int
    event: AnyEvent
    payload: bytes | None  # the user's values as JSON (tables beside it: see `json`); None: none, or destroyed
    header: bytes  # as stored
    digest: bytes  # of the chain, 32 bytes

    @property
    def json(self) -> bytes | None:
        """The payload as JSON, for people: tables by their data versions, and what is away by where it is."""
        return None if self.payload is None else readable(self.payload)

    @classmethod
    def from_stored(cls, version: int, header: bytes, payload: bytes | None) -> HistoryEvent:
        """One that was kept elsewhere, with no place in a log. Raises `HistoryError` for what is no event."""
        return cls(version, version, decode_header(header), payload, header, b"")


class Outcome(Struct, frozen=True):
    """How a run came to rest: its status and the payload of the event that says so."""

    status: RunStatus
    payload: bytes | None
    reason: str = ""
    error: str = ""  # the exception's qualified type


async def head_of(store: EventStore, run_id: str) -> StreamHead:
    """The head of a run's stream. Raises `RunNotFound`."""
    try:
        return await store.head(stream_of(run_id))
    except StreamNotFound:
        raise RunNotFound(f"no run {run_id!r} in this store") from None
    except StoreClosed:
        raise EngineClosed("the engine was closed") from None


async def moment_behind(store: EventStore, head: StreamHead, clock: Clock) -> int:
    """Now, in microseconds, and never before the last event of a run: who wrote that may have had another clock."""
    last = head.updated_at
    async for item in store.read(head.stream, after=max(head.version - 1, 0), until=head.version):
        with suppress(HistoryError):  # of another version, or damaged: then it says nothing that we could go by
            last = max(last, decode_header(item.header).at)
    return max(clock.now(), last)


def check_whole(head: StreamHead) -> None:
    """Raise `RunPrunedError` for a run whose history was taken away, or is about to be."""
    if head.attributes.get(STATUS) == "pruned":
        raise RunPrunedError(run_id_of(head.stream))


def check_remembers(head: StreamHead) -> None:
    """Raise `RunPrunedError`, or `RepairRefused` for a run that was made to forget payloads, or is about to be."""
    check_whole(head)
    if head.attributes.get(PAYLOADS) is not None:
        raise RepairRefused(
            f"payloads of run {run_id_of(head.stream)!r} were destroyed (PayloadsDestroyed in its history says by"
            " whom, and why): it cannot be replayed, so nothing can go on from it"
        )


async def head_or_none(store: EventStore, stream: str) -> StreamHead | None:
    """The head of any stream, if there is one."""
    try:
        return await store.head(stream)
    except StreamNotFound:
        return None


def epoch_start(head: StreamHead) -> int:
    """The version of the `RunStarted` that the run's last epoch begins with."""
    start = head.attributes.get(EPOCH_START, 1)
    assert isinstance(start, int)
    return start


async def read_events(
    store: EventStore, run_id: str, *, after: int = 0, until: int | None = None
) -> AsyncIterator[HistoryEvent]:
    """A run's events in order, in bounded memory. Raises `RunNotFound`, `HistoryError` for an unknown event."""
    try:
        async for recorded in store.read(stream_of(run_id), after=after, until=until):
            event = decode_header(recorded.header, where=f", version {recorded.version} of run {run_id!r},")
            yield HistoryEvent(
                recorded.version, recorded.position, event, recorded.payload, recorded.header, recorded.digest
            )
    except StreamNotFound:
        raise RunNotFound(f"no run {run_id!r} in this store") from None
    except StoreClosed:
        raise EngineClosed("the engine was closed") from None


async def read_beginning(store: EventStore, run_id: str, *, start: int = 1) -> tuple[RunStarted, bytes | None] | None:
    """The `RunStarted` that an epoch begins with which begins at version `start`, and its arguments; of a fork, the one
    that it has copied. None: its parent has asked for it, and it has not begun.

    Raises `RunNotFound`, `RunPrunedError`, `HistoryError`.
    """
    async for item in read_events(store, run_id, after=start - 1):
        if isinstance(item.event, RunStarted):
            return item.event, item.payload
        if isinstance(item.event, RunPruned):
            raise RunPrunedError(run_id)
        if not isinstance(item.event, RunForked):
            raise HistoryError(f"the history of run {run_id!r} does not begin with RunStarted")
    return None


async def read_epoch(store: EventStore, head: StreamHead) -> RunStarted | None:
    """The `RunStarted` of the epoch that a run is in. That of a fork may stand anywhere in what it has copied: it is
    replayed from its first event on, whatever its origin had lived through. None, and what it raises, as
    `read_beginning`.
    """
    start, forks = epoch_start(head), 0
    began: RunStarted | None = None
    async for item in read_events(store, run_id_of(head.stream), after=start - 1):
        match item.event:
            case RunForked():
                forks += 1
            case RunPruned():
                raise RunPrunedError(run_id_of(head.stream))
            case RunStarted():
                began = item.event
            case PrefixEnded():
                forks -= 1
        if not forks:
            return began
    return began


async def read_known_state(store: EventStore, head: StreamHead) -> RunState:
    """The fold of a run's last epoch, leaving out events that this version does not know."""
    state = RunState(run_id=run_id_of(head.stream))
    async for recorded in store.read(head.stream, after=epoch_start(head) - 1, until=head.version):
        with suppress(HistoryError):
            state.apply(recorded.version, decode_header(recorded.header), recorded.payload)
    return state


async def read_state(store: EventStore, run_id: str, *, at: int | None = None) -> RunState:
    """The fold of a run's history, up to a version."""
    state = RunState(run_id=run_id)
    async for item in read_events(store, run_id, until=at):
        state.apply(item.version, item.event, item.payload)
    return state


async def outcome_of(store: EventStore, head: StreamHead, run_id: str) -> Outcome | None:
    """How the run came to rest, if it did."""
    end, size = head.version, TAIL
    while end > 0:
        start = max(0, end - size)
        found: Outcome | None = None
        async for item in read_events(store, run_id, after=start, until=end):
            status = status_of(item.event)
            if status is not None:
                event = item.event
                found = Outcome(status, item.payload, getattr(event, "reason", ""), getattr(event, "error", ""))
        if found is not None:
            return found
        end, size = start, size * 4
    return None
