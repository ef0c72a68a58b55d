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

from engine.core.call import Definition
from engine.core.compare import Mismatch
from engine.core.events import (
    ContinuedAsNew,
    Decision,
    Fact,
    PrefixEnded,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunForked,
    RunReopened,
    StatePublished,
    TaskCompleted,
    TaskFailed,
    encode_header,
)
from engine.core.instance import Instance
from engine.core.replay import Replayer
from engine.errors import RepairRefused, RunConflict, RunPrunedError
from engine.runtime.children_told import outcome_letters
from engine.runtime.histories import HistoryEvent, check_remembers, head_of, read_events
from engine.runtime.mail import CompletionMail, data_message
from engine.runtime.streams import (
    ORIGIN,
    STATUS,
    VERSION,
    WORKFLOW,
    run_id_of,
    state_attribute,
    stream_of,
    workflow_of,
)
from eventstore import NEW, Clock, Commit, EventStore, Message, NewEvent, StreamNotFound, VersionConflict

__all__ = ["Cut", "cut_of", "fork", "forked"]

CHUNK_EVENTS: Final = 500
"""Events that are copied in one commit."""
_ENDS: Final = (RunCompleted, RunFailed, RunCancelled, ContinuedAsNew)


class Cut(Struct):
    """Where a prefix ends: behind version `until`; `retold`: the turn of the last fact in it is decided anew."""

    until: int
    retold: bool


class _Turns(Struct):
    """Which turn a history is in, event by event, as far as a cut must know."""

    fact: HistoryEvent | None = None
    base: int = 0  # the version that its decisions stand behind: its fact, or what has let it be taken anew
    ends: bool = False
    open: bool = False  # there may be decisions of it
    is_fork: bool = False
    own_from: int = 0  # of a fork: from here on its history is its own

    def take(self, item: HistoryEvent) -> None:
        match event := item.event:
            case Fact():
                self.fact, self.base, self.open, self.ends = item, item.version, True, False
            case Decision():
                self.ends = self.ends or isinstance(event, _ENDS)
            case RunReopened(takes_back="turn" | "decisions" as taken):
                self.base, self.open, self.ends = item.version, taken == "decisions", False
            case RunForked():
                self.is_fork = True
            case PrefixEnded(retold=retold):
                self.base = self.own_from = item.version
                self.open, self.ends = retold, False
            case _:
                return


async def cut_of(store: EventStore, run_id: str, at: int, substituted: Collection[str]) -> Cut:
    """Where a fork of a run at a version is cut. Raises `RepairRefused`, `RunNotFound`."""
    head = await head_of(store, run_id)
    if not 1 <= at <= head.version:
        raise RepairRefused(f"run {run_id!r} has {head.version} events: it cannot be forked at version {at}")
    turns = _Turns()
    async for item in read_events(store, run_id, until=at):
        turns.take(item)
    whole = Cut(at, retold=False)
    cut = _cut_at(turns, at, run_id, substituted)
    if cut == whole and turns.open:
        async for item in read_events(store, run_id, after=at):
            if isinstance(item.event, Fact | RunReopened):
                break
            if isinstance(item.event, Decision):
                return Cut(turns.base, retold=True)  # the cut goes through the turn
    return cut


def _cut_at(turns: _Turns, at: int, run_id: str, substituted: Collection[str]) -> Cut:
    if turns.is_fork and not turns.own_from:
        raise RepairRefused(
            f"version {at} of run {run_id!r} stands in what it has copied as a fork: fork its origin, or cut later"
        )
    fact = turns.fact
    if fact is None:
        raise RepairRefused(f"nothing has happened by version {at} of run {run_id!r}: run it again instead")
    told_here = turns.open and turns.base == fact.version
    if told_here and isinstance(fact.event, TaskCompleted | TaskFailed) and fact.event.id in substituted:
        return Cut(fact.version - 1, retold=False)  # its outcome is what is given with the fork
    if turns.open and (turns.ends or at == turns.base):
        return Cut(turns.base, retold=True)
    return Cut(at, retold=False)


async def fork(
    store: EventStore,
    definition_named: Callable[[str, str], Definition[..., Any]],
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
    """Make the fork; the same again is the same fork. Raises as `Engine.fork`."""
    origin = await head_of(store, run_id)
    check_remembers(origin)
    definition = definition_named(*workflow_of(origin.attributes))
    cut = await cut_of(store, run_id, at, substitute)
    note = RunForked(
        at=max(clock.now(), origin.updated_at),
        origin=run_id,
        version=cut.until,
        digest=await _digest_at(store, run_id, cut.until),
        by=by,
        reason=reason,
        substituted=tuple(substitute),
    )
    stream = stream_of(new_id)
    there = await _there(store, new_id, note)
    if there is not None and there.whole:
        return
    note = note if there is None else there.note
    sends = await _rehearse(store, definition, new_id, note, cut=cut, substitute=substitute)
    version = 0 if there is None else there.version
    events: list[NewEvent] = []
    states: dict[str, Any] = {}
    index = 0
    async for item in forked(store, note, cut):
        index += 1
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
    attributes = {
        WORKFLOW: definition.name,
        VERSION: origin.attributes.get(VERSION),
        STATUS: "running",
        ORIGIN: run_id,
        **states,
    }
    await _append(
        store,
        stream,
        version,
        events,
        commit_id=next_id(),
        attributes=attributes,
        held=False,
        sends=sends,
        alarm=note.at,
    )


async def forked(store: EventStore, note: RunForked, cut: Cut) -> AsyncIterator[HistoryEvent]:
    """The events of a fork, as they are when it begins. Versions are those of the origin."""
    yield HistoryEvent(0, 0, note, None, encode_header(note), b"")
    copied = 0
    async for item in read_events(store, note.origin, until=cut.until):
        copied = item.version
        yield item
    if copied != cut.until:
        raise RunPrunedError(note.origin)  # since we looked
    ended = PrefixEnded(at=note.at, retold=cut.retold)
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
            return _There(event, head.version, WORKFLOW in head.attributes)
    raise RunConflict(f"run {run_id!r} exists already, and is another one than this fork: choose another id")


async def _digest_at(store: EventStore, run_id: str, version: int) -> str:
    async for item in read_events(store, run_id, after=version - 1, until=version):
        return item.digest.hex()
    raise RepairRefused(f"run {run_id!r} has no version {version}")


async def _rehearse(
    store: EventStore,
    definition: Definition[..., Any],
    new_id: str,
    note: RunForked,
    *,
    cut: Cut,
    substitute: Mapping[str, Any],
) -> tuple[Message, ...]:
    """See whether the code takes the prefix, and whether it can be cut there. Returns what the fork is to be told."""
    replayer = Replayer(definition, new_id)
    try:
        version = 0
        async for item in forked(store, note, cut):
            version += 1
            replayer.feed(version, item.event, item.payload)
            if version % CHUNK_EVENTS == 0:
                await asyncio.sleep(0)  # the engine's other runs get their turn
        decided = {item.event.id for item in replayer.finish()}
        _check_cut(replayer.instance, decided, note)
        letters = await outcome_letters(store, replayer.instance, but=decided, stamp="fork", to=new_id)
        letters += _results(replayer.instance, new_id, note, substitute)
    except Mismatch as mismatch:
        raise RepairRefused(
            f"the present code does not fit run {note.origin!r} up to version {cut.until}:"
            f" {mismatch.diagnosis.render()}\nIn the fork's own history, versions are one higher; fork it before that."
        ) from mismatch
    finally:
        replayer.instance.evict()
    return tuple(letters)


def _check_cut(instance: Instance, decided: Collection[str], note: RunForked) -> None:
    if instance.waiting is not None:
        raise RepairRefused(
            f"version {note.version} of run {note.origin!r} stands before it had begun: fork it behind its RunBegun, or"
            " run it again"
        )
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
        payload = pending.definition.result.encode_checked(value)
        mail = CompletionMail(task=task_id, epoch=instance.epoch, by=note.by, reason=note.reason)
        yield data_message(stream_of(new_id), f"fork:{task_id}", mail, payload)


def _not_waited_for(run_id: str, task_id: str, version: int, pending: list[str]) -> str:
    waited = f"it waits for {', '.join(pending[:5])}{' ...' if len(pending) > 5 else ''}" if pending else "for none"
    return (
        f"run {run_id!r} does not wait for task {task_id!r} at version {version} ({waited}): a result can be given for"
        " a task that is under way there, or whose outcome was told there last"
    )
