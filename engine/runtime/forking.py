"""Forks: a new run that begins with what another one has lived through up to a version, and goes its own way then.

The fork's stream is a chain of its own: `RunForked`, which names the origin, the version and the origin's digest there,
the origin's events up to that, copied byte by byte, and `PrefixEnded`. Nothing is written to the origin.

What is cut is settled before it is written, by a replay with the present code:

* The turn of the last fact is copied if it was wholly recorded; if VERSION stands at its fact, within it, or at an end
  of the run, it is decided anew, by the fork, with the code there is now.
* Tasks that were under way are the fork's own to do, from their first attempt, under keys of its own: what the origin
  did is the origin's. Time between the cut and the fork does not count for timers and deadlines.
* Children that were under way are told of if they have ended since. One that still runs, or a message whose delivery
  was not recorded, stands in the way.
* What had arrived at the origin and was not in its history by then is the origin's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from engine.core.compare import Mismatch
from engine.core.events import (
    PrefixEnded,
    RunBegun,
    RunForked,
    StatePublished,
    encode_header,
)
from engine.core.fold import RunState
from engine.core.instance import Instance
from engine.core.replay import Replayer
from engine.errors import RepairRefused, RunConflict
from engine.runtime.children_told import outcome_letters
from engine.runtime.cutting import Prefix, read_prefix
from engine.runtime.histories import HistoryEvent, check_remembers, head_of, read_events
from engine.runtime.large_values import TABLES
from engine.runtime.mail import CompletionMail, data_message
from engine.runtime.serving import Served
from engine.runtime.streams import (
    ORIGIN,
    STATUS,
    VERSION,
    WORKFLOW,
    own_attribute,
    run_id_of,
    state_attribute,
    stream_of,
)
from eventstore import (
    NEW,
    Clock,
    Commit,
    EventStore,
    Message,
    NewEvent,
    StreamNotFound,
    VersionConflict,
)

__all__ = ["fork"]

CHUNK_EVENTS: Final = 500
"""Events that are copied in one commit."""


async def fork(
    store: EventStore,
    definitions: Served,
    run_id: str,
    new_id: str,
    *,
    at: int,
    substitute: Mapping[str, Any],
    by: str,
    reason: str,
    clock: Clock,
    next_id: Callable[[], str],
) -> None:
    """Make the fork; the same again is the same fork. Raises as `Engine.fork`.

    To be called within `half_forks.whole_or_ended`.
    """
    origin = await head_of(store, run_id)
    check_remembers(origin)
    prefix = await read_prefix(store, origin, at=at, substituted=substitute)
    started = prefix.cut.started
    definition = definitions.require(started.workflow, started.version)
    last = await prefix.last()
    note = RunForked(
        at=max(clock.now(), origin.updated_at, last.event.at),  # whoever wrote that may have had another clock
        origin=run_id,
        version=prefix.cut.until,
        digest=last.digest.hex(),
        by=by,
        reason=reason,
        substituted=tuple(substitute),
    )
    stream = stream_of(new_id)
    there = await _there(store, new_id, note)
    if there is not None and there.whole:
        return
    note = note if there is None else there.note
    replayer = Replayer(definition, new_id, versions=definitions.find, tables=TABLES)
    sends = await _rehearse(store, replayer, new_id, note, prefix=prefix, substitute=substitute)
    version = 0 if there is None else there.version
    events: list[NewEvent] = []
    states: dict[str, Any] = {}
    state = RunState(run_id=new_id)
    index = 0
    async for item in _forked(note, prefix):
        index += 1
        state.apply(index, item.event, item.payload)
        if isinstance(item.event, StatePublished):
            states[state_attribute(item.event.name)] = index
        if index > version:
            events.append(NewEvent(item.header, item.payload))
        if len(events) >= CHUNK_EVENTS and not isinstance(item.event, PrefixEnded):
            # No workflow is named yet: nobody claims what is not whole, whatever happens to us before it is.
            part = {STATUS: "paused", ORIGIN: run_id}  # by which its origin is known to be needed
            version = await _append(store, stream, version, events, commit_id=next_id(), attributes=part, held=True)
            events = []
    check_remembers(await head_of(store, run_id))  # that what we have copied was whole
    attributes = _attributes(state, definition.name, run_id)
    await _append(
        store,
        stream,
        version,
        events,
        commit_id=next_id(),
        attributes=attributes | states,
        held=False,
        sends=sends,
        alarm=clock.now(),  # at once, whatever its events are dated
    )


def _attributes(state: RunState, workflow: str, origin: str) -> dict[str, Any]:
    """What a fork that is whole is found by."""
    return {
        WORKFLOW: workflow,
        VERSION: state.workflow_version or None,  # of the last epoch that it has lived through
        STATUS: "running",
        ORIGIN: origin,
        **{own_attribute(name): value for name, value in state.attributes.items()},
    }


async def _forked(note: RunForked, prefix: Prefix) -> AsyncIterator[HistoryEvent]:
    """The events of a fork, as they are when it begins. Versions are those of the origin."""
    yield HistoryEvent(0, 0, note, None, encode_header(note), b"")
    async for item in prefix.events():
        yield item
    ended = PrefixEnded(at=note.at, retold=prefix.cut.retold)
    yield HistoryEvent(0, 0, ended, None, encode_header(ended), b"")


async def _append(
    store: EventStore,
    stream: str,
    version: int,
    events: list[NewEvent],
    *,
    commit_id: str,
    attributes: dict[str, Any],
    held: bool,
    sends: tuple[Message, ...] = (),
    alarm: int | None = None,
) -> int:
    try:
        head = await store.commit(
            Commit(
                id=commit_id,
                stream=stream,
                expected_version=version or NEW,
                events=tuple(events),
                sends=sends,
                alarm=alarm,
                held=held,
                attributes=attributes,
                progress=True,
            )
        )
    except VersionConflict:
        raise RunConflict(
            f"run {run_id_of(stream)!r} was made by somebody else at the same time: choose another id, or ask again"
        ) from None
    return head.version


class _There(Struct):
    """A fork that is there already; `whole`: all of it."""

    note: RunForked
    version: int
    whole: bool


async def _there(store: EventStore, run_id: str, wanted: RunForked) -> _There | None:
    """What an earlier call has made of the same fork. Raises `RunConflict` when the id belongs to anything else."""
    try:
        head = await store.head(stream_of(run_id))
    except StreamNotFound:
        return None
    async for item in read_events(store, run_id, until=1):
        event = item.event
        same = isinstance(event, RunForked) and (event.origin, event.version, event.digest, event.substituted) == (
            wanted.origin,
            wanted.version,
            wanted.digest,
            wanted.substituted,
        )
        if same and isinstance(event, RunForked):
            whole = WORKFLOW in head.attributes
            if head.closed and not whole:
                raise RunConflict(
                    f"run {run_id!r} is this fork, ended before it was made to its end: choose another id"
                )
            return _There(event, head.version, whole)
    raise RunConflict(f"run {run_id!r} exists already, and is another one than this fork: choose another id")


async def _rehearse(
    store: EventStore,
    replayer: Replayer,
    new_id: str,
    note: RunForked,
    *,
    prefix: Prefix,
    substitute: Mapping[str, Any],
) -> tuple[Message, ...]:
    """See whether the code takes the prefix, and whether it can be cut there. Returns what the fork is to be told."""
    try:
        version = 0
        async for item in _forked(note, prefix):
            version += 1
            replayer.feed(version, item.event, item.payload)
            if version % CHUNK_EVENTS == 0:
                await asyncio.sleep(0)  # the engine's other runs get their turn
        if replayer.instance.waiting is not None and not isinstance(replayer.last_turn.fact, RunBegun):
            raise _not_begun(note)  # its last fact, which is told now, may have ended a run that never began
        decided = {item.event.id for item in replayer.finish()}
        _check_cut(replayer.instance, decided, note)
        letters = await outcome_letters(store, replayer.instance, but=decided, stamp="fork", to=new_id)
        letters += _results(replayer.instance, new_id, note, substitute)
    except Mismatch as mismatch:
        raise RepairRefused(
            f"the present code does not fit run {note.origin!r} up to version {note.version}:"
            f" {mismatch.diagnosis.render()}\nIn the fork's own history, versions are one higher; fork it before that."
        ) from mismatch
    finally:
        replayer.instance.evict()
    return tuple(letters)


def _not_begun(note: RunForked) -> RepairRefused:
    return RepairRefused(
        f"version {note.version} of run {note.origin!r} stands before it had begun: fork it behind its RunBegun, or"
        " run it again"
    )


def _check_cut(instance: Instance, decided: Collection[str], note: RunForked) -> None:
    if instance.waiting is not None:
        raise _not_begun(note)
    if instance.untold:
        raise RepairRefused(
            f"version {note.version} of run {note.origin!r} stands before all that it began with was told:"
            f" fork it {instance.untold} events later"
        )
    if sends := [pending.event for id_, pending in instance.outbox.sends.items() if id_ not in decided]:
        raise RepairRefused(
            f"at version {note.version} a {sends[0].kind} of run {note.origin!r} to run {sends[0].run!r} is under way:"
            " fork it behind the event that says how that went"
        )


def _results(instance: Instance, new_id: str, note: RunForked, substitute: Mapping[str, Any]) -> Iterator[Message]:
    """What the tasks are answered whose results are given."""
    for task_id, value in substitute.items():
        pending = instance.pending.get(task_id)
        if pending is None:
            raise RepairRefused(_not_waited_for(note.origin, task_id, note.version, list(instance.pending)))
        payload = pending.definition.result.encode_checked(value, pending.carriage)
        mail = CompletionMail(task=task_id, epoch=instance.epoch, by=note.by, reason=note.reason)
        yield data_message(stream_of(new_id), f"fork:{task_id}", mail, payload)


def _not_waited_for(run_id: str, task_id: str, version: int, pending: list[str]) -> str:
    waited = f"it waits for {', '.join(pending[:5])}{' ...' if len(pending) > 5 else ''}" if pending else "for none"
    return (
        f"run {run_id!r} does not wait for task {task_id!r} at version {version} ({waited}): a result can be given for"
        " a task that is under way there, or whose outcome was told there last"
    )
