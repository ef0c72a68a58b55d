"""Taking away what need not stay of a run that has ended: its payloads, or all of its history but the digests.

Each is an event in the run's own history, with who, when and why, durable before anything is taken away; so a crash
leaves either nothing taken away, or a removal that is finished by asking again. Both are refused for a run that has not
ended, and pruning for one whose history somebody may still have to read.

How a store takes something away is its own business: `eventstore.keeping`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from hashlib import sha256
from typing import Final

from msgspec import Struct

from engine.core.events import PayloadsDestroyed, RunPruned, decode_header
from engine.core.fold import FINAL_STATUSES
from engine.errors import DoesNotVerify, HistoryError, HoldfastError, KeepingRefused
from engine.runtime.histories import check_whole, head_of, head_or_none, moment_behind
from engine.runtime.streams import (
    ENDED,
    ORIGIN,
    PARENT,
    PAYLOADS,
    RUN_CATEGORY,
    STATUS,
    WORKFLOW,
    new_event,
    own_attribute,
    own_attributes,
    run_id_of,
    set_attributes,
    status_of,
    stream_of,
)
from eventstore import (
    Clock,
    Commit,
    EventStore,
    Keeping,
    LeaseLost,
    RecordedEvent,
    StoreDamaged,
    StreamHead,
    StreamQuery,
    VersionConflict,
    find_all,
    keeps,
    pruned_leaf,
)
from eventstore.digest import chain_start, event_digest
from eventstore.port import Scalar

__all__ = ["check_keeps", "children_of", "destroy_payloads", "last_written", "prune_run", "why_it_stays"]

_OF_RUN: Final = b'{"type":"Run'
_OF_ATTRIBUTES: Final = b'{"type":"Attributes'


class _Read(Struct):
    """What is said of the events that are to go."""

    digest: bytes
    events: int = 0
    first: int = 0
    last: int = 0
    started_at: int = 0
    ended_at: int = 0


def check_keeps(store: EventStore) -> Keeping:
    """The store as one that can take something away. Raises `KeepingRefused`."""
    if not keeps(store):
        raise KeepingRefused(f"{type(store).__name__} has no capability 'keeping': it can neither forget nor prune")
    return store


def last_written(head: StreamHead) -> int:
    """When the run itself was last written to, in microseconds since the epoch."""
    ended = head.attributes.get(ENDED)
    return ended if isinstance(ended, int) else head.updated_at


async def why_it_stays(store: EventStore, head: StreamHead) -> str | None:
    """Why a run is not to be pruned; None: nobody needs its history any more."""
    run_id = run_id_of(head.stream)
    if not head.closed:
        return f"run {run_id!r} has not ended: cancel it, or wait until it has"
    parent = head.attributes.get(PARENT)
    if isinstance(parent, str) and parent:
        above = await head_or_none(store, stream_of(parent))
        if above is not None and not above.closed:
            return f"run {run_id!r} is a child of run {parent!r}, which has not ended"
    forks = StreamQuery(category=RUN_CATEGORY, attributes={ORIGIN: run_id, WORKFLOW: None}, closed=False, limit=1)
    for fork in (await store.find(forks)).items:
        half = run_id_of(fork.stream)
        return f"run {half!r}, a fork of run {run_id!r}, is not made to its end: fork it once more, or cancel it"
    return None


async def prune_run(
    store: EventStore, run_id: str, *, by: str, reason: str, clock: Clock, next_id: Callable[[], str]
) -> int:
    """Prune a run: how many events were taken away. See `Engine.prune`."""
    keeping = check_keeps(store)
    while True:
        head = await head_of(store, run_id)
        if head.pruned:
            return 0
        if head.attributes.get(STATUS) == "pruned":  # it was begun, by somebody who may be dead
            return await _taken_away(keeping, head)
        if (why := await why_it_stays(store, head)) is not None:
            raise KeepingRefused(why)
        try:
            note = await _note(store, head, by=by, reason=reason, clock=clock)
        except (DoesNotVerify, StoreDamaged):
            if (await head_of(store, run_id)).version != head.version:
                continue  # somebody else took it away while we read
            raise
        cleared: dict[str, Scalar] = dict.fromkeys(head.attributes)
        try:
            after = await store.commit(
                Commit(
                    id=next_id(),
                    stream=head.stream,
                    expected_version=head.version,
                    events=(new_event(note),),
                    attributes={**cleared, STATUS: "pruned"},
                )
            )
        except VersionConflict:
            continue  # it was reopened, or pruned by somebody else
        except LeaseLost:
            raise KeepingRefused(_in_use(run_id)) from None
        return await _taken_away(keeping, after)


async def _taken_away(keeping: Keeping, head: StreamHead) -> int:
    try:
        return await keeping.prune(head.stream, until=head.version - 1)
    except LeaseLost:
        raise KeepingRefused(_in_use(run_id_of(head.stream))) from None


def _in_use(run_id: str) -> str:
    return f"a worker still has run {run_id!r} in its hands, though it has ended: ask again in a moment"


async def _note(store: EventStore, head: StreamHead, *, by: str, reason: str, clock: Clock) -> RunPruned:
    """The event that ends a history which is taken away. Raises `DoesNotVerify`: no evidence is to go."""
    run_id, read, hashed = run_id_of(head.stream), _Read(chain_start(head.stream)), sha256()
    async for event in store.read(head.stream, until=head.version):
        _check(event, read)
        hashed.update(pruned_leaf(event))
        read.first = read.first or event.position
        read.events, read.last, read.digest = event.version, event.position, event.digest
        if event.version == 1 or event.header.startswith(_OF_RUN):
            _look(event, read)
    if (read.events, read.digest) != (head.version, head.digest):
        raise DoesNotVerify(f"the history of run {run_id!r} does not end as its head says: look with holdfast verify")
    return RunPruned(
        at=await moment_behind(store, head, clock),
        run=run_id,
        workflow=str(head.attributes.get(WORKFLOW, "")),
        status=str(head.attributes.get(STATUS, "")),
        events=read.events,
        first=read.first,
        last=read.last,
        digest=read.digest.hex(),
        leaves=hashed.hexdigest(),
        started_at=read.started_at,
        ended_at=read.ended_at or last_written(head),
        by=by,
        reason=reason,
    )


def _look(event: RecordedEvent, read: _Read) -> None:
    """When the run began, and ended."""
    with suppress(HistoryError):  # of a newer version: when it was written is known
        known = decode_header(event.header)
        read.started_at = read.started_at or known.at
        if status_of(known) in FINAL_STATUSES:
            read.ended_at = known.at


def _check(event: RecordedEvent, read: _Read) -> None:
    if (
        event.version != read.events + 1
        or event_digest(read.digest, event.header, event.payload_digest) != event.digest
    ):
        raise DoesNotVerify(
            f"the history of run {run_id_of(event.stream)!r} breaks at version {event.version}, and is evidence: it is"
            " not pruned; look with holdfast verify"
        )


async def destroy_payloads(
    store: EventStore,
    run_id: str,
    *,
    versions: Collection[int] = (),
    by: str,
    reason: str,
    clock: Clock,
    next_id: Callable[[], str],
) -> int:
    """Make a run that has ended forget its payloads: how many. See `Engine.destroy_payloads`."""
    keeping = check_keeps(store)
    chosen = tuple(sorted(set(versions)))
    while True:
        head = await head_of(store, run_id)
        check_whole(head)
        if not head.closed:
            raise KeepingRefused(
                f"run {run_id!r} has not ended, and needs its payloads: cancel it, or wait for its end"
            )
        if chosen and not (chosen[0] >= 1 and chosen[-1] <= head.version):
            raise KeepingRefused(f"run {run_id!r} has versions 1 to {head.version}: {chosen!r} are not all among them")
        if await _is_done(store, head, chosen):
            return 0
        try:
            head = await _announce(store, head, chosen, by=by, reason=reason, clock=clock, next_id=next_id)
            count = await keeping.forget(head.stream, versions=chosen or None)
            if not chosen:
                done = {PAYLOADS: "gone"}
                await store.commit(
                    Commit(id=next_id(), stream=head.stream, expected_version=head.version, attributes=done)
                )
        except VersionConflict:
            continue  # it was reopened, or somebody else does the same
        except LeaseLost:
            raise KeepingRefused(_in_use(run_id)) from None
        return count


async def _announce(
    store: EventStore,
    head: StreamHead,
    versions: tuple[int, ...],
    *,
    by: str,
    reason: str,
    clock: Clock,
    next_id: Callable[[], str],
) -> StreamHead:
    """Write that it is done, unless that is written already, and what it says is not done yet."""
    if not versions and head.attributes.get(PAYLOADS) == "going" and await _is_last(store, head):
        return head
    note = PayloadsDestroyed(at=await moment_behind(store, head, clock), by=by, reason=reason, versions=versions)
    marks: dict[str, Scalar] = {ENDED: last_written(head), PAYLOADS: "some" if versions else "going"}
    if versions and head.attributes.get(PAYLOADS) is not None:
        del marks[PAYLOADS]
    marks |= dict.fromkeys(await _forgotten_attributes(store, head, versions))
    return await store.commit(
        Commit(
            id=next_id(),
            stream=head.stream,
            expected_version=head.version,
            events=(new_event(note),),
            attributes=marks,
        )
    )


async def _forgotten_attributes(store: EventStore, head: StreamHead, versions: tuple[int, ...]) -> list[str]:
    """The run's own attributes that payloads to be destroyed have given it: they stand in the clear in an index."""
    own = {own_attribute(name): value for name, value in own_attributes(head.attributes).items()}
    if not (versions and own):
        return list(own)
    said: set[tuple[str, Scalar]] = set()
    async for event in store.read(head.stream, after=versions[0] - 1, until=versions[-1]):
        if event.version in versions and event.payload is not None and event.header.startswith(_OF_ATTRIBUTES):
            with suppress(ValueError, RecursionError):  # what nobody can read has given nothing
                said.update(set_attributes(event.payload).items())
    return [name for name, value in own.items() if (name, value) in said]


async def _is_done(store: EventStore, head: StreamHead, versions: tuple[int, ...]) -> bool:
    """Whether there is nothing to destroy any more."""
    if not versions:
        return head.attributes.get(PAYLOADS) == "gone"
    async for event in store.read(head.stream, after=versions[0] - 1, until=versions[-1]):
        if event.version in versions and event.payload is not None:
            return False
    return True


async def _is_last(store: EventStore, head: StreamHead) -> bool:
    """Whether the last event of a stream says that all payloads before it go."""
    async for recorded in store.read(head.stream, after=head.version - 1):
        event = decode_header(recorded.header)
        return isinstance(event, PayloadsDestroyed) and not event.versions
    return False


async def children_of(store: EventStore, run_id: str, *, depth: int = 100) -> list[str]:
    """The ids of a run's children that are not pruned, and of theirs, the run itself left out."""
    found: list[str] = []
    level = [run_id]
    for _ in range(depth):
        below: list[str] = []
        for parent in level:
            query = StreamQuery(category=RUN_CATEGORY, attributes={PARENT: parent})
            below += [run_id_of(head.stream) async for head in find_all(store, query)]
        if not below:
            return found
        found += below
        level = below
    raise HoldfastError(f"run {run_id!r} has children more than {depth} deep: name them one by one")
