"""What people do about a run as it is recorded: run it again. What has ended, and what a fork is: `reopening`,
`forking`.

A rerun is a run of its own, with a history of its own whose first event says who asked, when, why, and of what it is
the rerun. Nothing is written to the run that it is a rerun of: that may be closed for long, and no event of it is new.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from msgspec import structs

from engine.core.attributes import decode_attributes
from engine.core.differences import Differences, differences
from engine.core.events import AttributesGiven, RunStarted, SignalReceived
from engine.core.identity import check_run_id
from engine.errors import RepairRefused, RunConflict, RunNotFound
from engine.runtime.anyio_seams import anyio_version
from engine.runtime.histories import HistoryEvent, check_whole, head_of, read_beginning, read_events
from engine.runtime.large_values import holds_large
from engine.runtime.streams import ORIGIN, STATUS, VERSION, WORKFLOW, new_event, set_attributes, stream_of
from engine.runtime.versions import PYTHON
from eventstore import NEW, Clock, Commit, EventStore, NewEvent, VersionConflict

__all__ = ["HistoryDiff", "diff_runs", "rerun"]

HistoryDiff: TypeAlias = Differences[HistoryEvent]
"""Two histories side by side."""


async def diff_runs(store: EventStore, left: str, right: str) -> HistoryDiff:
    """Set two histories side by side. Raises `RunNotFound`, `HistoryError`."""
    for run_id in (left, right):
        check_whole(await head_of(store, check_run_id(run_id)))
    histories = [[item async for item in read_events(store, run_id)] for run_id in (left, right)]
    return differences(histories[0], histories[1], ids=(left, right))


async def rerun(
    store: EventStore, run_id: str, new_id: str, *, by: str, reason: str, clock: Clock, entropy: Callable[[int], bytes]
) -> None:
    """Make a run with the workflow, the arguments and the first signals of another. The same again is the same run.

    Raises `RunNotFound`, `RunConflict` when the id is taken by anything else, `RepairRefused`.
    """
    began = await read_beginning(store, run_id)
    if began is None:
        raise RunNotFound(f"run {run_id!r} was asked for by its parent, and has not begun yet")
    before, arguments = began
    if arguments is None:
        raise RepairRefused(f"the arguments of run {run_id!r} were destroyed: it cannot be run again")
    told = await _first_signals(store, run_id, before.carried)
    given = await _given_attributes(store, run_id) if before.attributes else None
    now = clock.now()
    fact = RunStarted(
        at=now,
        workflow=before.workflow,
        version=before.version,
        seed=entropy(16).hex(),
        python=PYTHON,
        anyio=anyio_version(),
        by=by,
        deadline=before.deadline and now + before.deadline - before.at,  # as long as it had
        carried=before.carried,
        large=before.large or holds_large(store),
        rerun_of=run_id,
        reason=reason,
        attributes=() if given is None else tuple(decode_attributes(given)),
    )
    commit = Commit(
        id=entropy(12).hex(),
        stream=stream_of(check_run_id(new_id)),
        expected_version=NEW,
        events=(
            new_event(fact, arguments),
            *([] if given is None else [new_event(AttributesGiven(at=now), given)]),
            *(_told_now(item, now) for item in told),
        ),
        alarm=now,
        attributes={
            WORKFLOW: before.workflow,
            VERSION: before.version or None,
            STATUS: "running",
            ORIGIN: run_id,
            **set_attributes(given or b"{}"),
        },
        progress=True,
    )
    try:
        await store.commit(commit)
    except VersionConflict:
        there = await read_beginning(store, new_id)
        if there is None or there[0].rerun_of != run_id:
            raise RunConflict(
                f"run {new_id!r} exists already, and is no rerun of {run_id!r}: choose another id"
            ) from None


async def _given_attributes(store: EventStore, run_id: str) -> bytes | None:
    """What attributes a run was given with its start; None: they were destroyed."""
    async for item in read_events(store, run_id):
        if isinstance(item.event, AttributesGiven):
            return item.payload
    return None


async def _first_signals(store: EventStore, run_id: str, count: int) -> list[HistoryEvent]:
    """The signals that were there before the run's code: so many."""
    found: list[HistoryEvent] = []
    if count:
        async for item in read_events(store, run_id):
            if isinstance(item.event, SignalReceived) and item.event.carried:
                found.append(item)
            if len(found) == count:
                break
    return found


def _told_now(item: HistoryEvent, now: int) -> NewEvent:
    assert isinstance(item.event, SignalReceived)
    return new_event(structs.replace(item.event, at=now), item.payload)
