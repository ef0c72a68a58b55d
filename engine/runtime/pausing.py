"""Workflows that are paused by name: none of their runs begins anything, in any worker on the store.

A workflow's pause stands in a stream of its own, as events with who and why, and as an attribute that workers look at.
It takes effect in other workers within `LOOK_SECONDS`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from msgspec import Struct

from engine.core.events import WorkflowPaused, WorkflowUnpaused, decode_header
from engine.runtime.streams import PAUSED, WORKFLOW_CATEGORY, new_event
from eventstore import NEW, Clock, Commit, EventStore, StreamNotFound, StreamQuery, VersionConflict
from eventstore.port import FIND_LIMIT_MAX

__all__ = [
    "LOOK_SECONDS",
    "PausedWorkflow",
    "PausedWorkflows",
    "pause_workflow",
    "read_paused",
    "unpause_workflow",
]

LOOK_SECONDS: Final = 1.0
"""How soon a worker with anything in memory sees that a workflow was paused, or no longer is."""


class PausedWorkflow(Struct, frozen=True, kw_only=True):
    """A workflow that is paused by name: since when (microseconds since the epoch), by whom and why."""

    name: str
    at: int
    by: str = ""
    reason: str = ""


class PausedWorkflows(Collection[str]):
    """The names that are paused, as last seen."""

    look_seconds: Final = LOOK_SECONDS

    def __init__(self, store: EventStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._names: frozenset[str] = frozenset()
        self._looked_at = -LOOK_SECONDS
        self._begun = 0  # looks
        self._seen = 0  # the latest of them that has answered

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def forget(self) -> None:
        """Look again at the next occasion, however soon that is."""
        self._looked_at = -LOOK_SECONDS

    async def look(self) -> bool:
        """Look, unless that was just done. Whether anything has changed."""
        now = self._clock.monotonic()
        if self._looked_at >= 0 and now - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = now
        query = StreamQuery(category=WORKFLOW_CATEGORY, attributes={PAUSED: True}, limit=FIND_LIMIT_MAX)
        self._begun += 1
        this = self._begun
        page = await self._store.find(query)
        if this < self._seen:
            return False  # one that began later has answered: what this one saw is older
        self._seen = this
        names = frozenset(head.stream.partition(":")[2] for head in page.items)
        changed, self._names = names != self._names, names
        return changed


async def pause_workflow(store: EventStore, name: str, *, clock: Clock, commit_id: str, by: str, reason: str) -> None:
    """Record that a workflow is paused; nothing to record when it is already."""
    event = WorkflowPaused(at=clock.now(), workflow=name, by=by, reason=reason)
    await _mark(store, name, event, paused=True, commit_id=commit_id)


async def unpause_workflow(store: EventStore, name: str, *, clock: Clock, commit_id: str, by: str) -> None:
    """Record that a workflow goes on; nothing to record when it does."""
    event = WorkflowUnpaused(at=clock.now(), workflow=name, by=by)
    await _mark(store, name, event, paused=False, commit_id=commit_id)


async def read_paused(store: EventStore) -> tuple[PausedWorkflow, ...]:
    """The workflows that are paused now, with who and why."""
    query = StreamQuery(category=WORKFLOW_CATEGORY, attributes={PAUSED: True}, limit=FIND_LIMIT_MAX)
    found: list[PausedWorkflow] = []
    for head in (await store.find(query)).items:
        async for recorded in store.read(head.stream, after=head.version - 1, until=head.version):
            event = decode_header(recorded.header, where=f", version {recorded.version} of {head.stream!r},")
            if isinstance(event, WorkflowPaused):
                found.append(PausedWorkflow(name=event.workflow, at=event.at, by=event.by, reason=event.reason))
    return tuple(found)


async def _mark(
    store: EventStore, name: str, event: WorkflowPaused | WorkflowUnpaused, *, paused: bool, commit_id: str
) -> None:
    stream = f"{WORKFLOW_CATEGORY}:{name}"
    while True:
        try:
            head = await store.head(stream)
            version, now_paused = head.version, head.attributes.get(PAUSED) is True or head.attributes.get(PAUSED) == 1
        except StreamNotFound:
            version, now_paused = NEW, False
        if now_paused == paused:
            return
        try:
            await store.commit(
                Commit(
                    id=commit_id,
                    stream=stream,
                    expected_version=version,
                    events=(new_event(event),),
                    attributes={PAUSED: True if paused else None},
                )
            )
        except VersionConflict:
            continue  # somebody else was quicker: look again at how it stands
        return
