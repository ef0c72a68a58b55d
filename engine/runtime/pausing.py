"""Workflows that are paused by name: none of their runs begins anything, in any worker on the store.

A workflow's pause stands in a stream of its own, as events with who and why, and as an attribute that workers look at.
It takes effect in other workers within `LOOK_SECONDS`.

Control mail reaches these runs all the same. A cancel lets its run pass that one pause, as it lets a paused run go on:
it may clean up. A later pause of the workflow holds it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from engine.core.events import CancelRequested, WorkflowPaused, WorkflowUnpaused, decode_header
from engine.runtime.histories import head_or_none
from engine.runtime.steps import Step
from engine.runtime.streams import LET_ON, PAUSED, WORKFLOW_CATEGORY, new_event
from eventstore import NEW, Clock, Commit, EventStore, StreamQuery, VersionConflict, find_all

__all__ = [
    "LOOK_SECONDS",
    "Aside",
    "PausedWorkflow",
    "PausedWorkflows",
    "pause_workflow",
    "read_paused",
    "unpause_workflow",
]

LOOK_SECONDS: Final = 1.0
"""How soon a worker with anything in memory sees that a workflow was paused, or no longer is."""
_PAUSED: Final = StreamQuery(category=WORKFLOW_CATEGORY, attributes={PAUSED: True})


class PausedWorkflow(Struct, frozen=True, kw_only=True):
    """A workflow that is paused by name: since when (microseconds since the epoch), by whom and why."""

    name: str
    at: int
    by: str = ""
    reason: str = ""


class Aside(Struct):
    """Whether a run is put aside, for its workflow is paused. True while it is."""

    pause: str = ""  # the pause that its workflow is under; empty: none
    let_on: str = ""  # the pause that a cancel has let the run pass

    def __bool__(self) -> bool:
        return bool(self.pause) and self.pause != self.let_on

    def heed(self, step: Step) -> None:
        """Let the run pass the pause if this step has told it to end. It is marked with that event, for any crash."""
        cancels = (
            {
                arrival.message
                for arrival in step.taken
                if isinstance(arrival.event, CancelRequested) and not arrival.event.unless_begun
            }
            if self
            else ()
        )
        for index, message in step.consumes:
            if message in cancels:
                step.let_on = self.pause
                step.mark(LET_ON, self.pause, behind=index)

    def change(self, *, pause: str | None, let_on: str | None) -> None:
        """Take in what has changed; None: nothing."""
        self.pause = self.pause if pause is None else pause
        self.let_on = self.let_on if let_on is None else let_on


class PausedWorkflows(Collection[str]):
    """The names that are paused, as last seen."""

    look_seconds: Final = LOOK_SECONDS

    def __init__(self, store: EventStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._pauses: dict[str, str] = {}  # by name
        self._looked_at = -LOOK_SECONDS
        self._begun = 0  # looks
        self._seen = 0  # the latest of them that has answered

    def __contains__(self, name: object) -> bool:
        return name in self._pauses

    def __iter__(self) -> Iterator[str]:
        return iter(self._pauses)

    def __len__(self) -> int:
        return len(self._pauses)

    def pause_of(self, name: str) -> str:
        """Which pause the workflow is under, as a text that no other pause has; empty: none."""
        return self._pauses.get(name, "")

    def aside(self, name: str, attributes: Mapping[str, Any]) -> Aside:
        """How a run of that workflow stands whose stream has these attributes."""
        return Aside(self.pause_of(name), str(attributes.get(LET_ON, "")))

    def forget(self) -> None:
        """Look again at the next occasion, however soon that is."""
        self._looked_at = -LOOK_SECONDS

    async def look(self) -> bool:
        """Look, unless that was just done. Whether anything has changed."""
        now = self._clock.monotonic()
        if self._looked_at >= 0 and now - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = now
        self._begun += 1
        this = self._begun
        heads = [head async for head in find_all(self._store, _PAUSED)]
        if this < self._seen:
            return False  # one that began later has answered: what this one saw is older
        self._seen = this
        # A workflow's stream has an event for each pause, so its version tells this one from those before.
        pauses = {(name := head.stream.partition(":")[2]): f"{name}@{head.version}" for head in heads}
        changed, self._pauses = pauses != self._pauses, pauses
        return changed


async def pause_workflow(store: EventStore, name: str, *, clock: Clock, commit_id: str, by: str, reason: str) -> None:
    """Record that a workflow is paused; nothing to record when it is already."""
    event = WorkflowPaused(at=clock.now(), workflow=name, by=by, reason=reason)
    await _mark(store, name, event, paused=True, commit_id=commit_id)


async def unpause_workflow(store: EventStore, name: str, *, clock: Clock, commit_id: str, by: str, reason: str) -> None:
    """Record that a workflow goes on; nothing to record when it does."""
    event = WorkflowUnpaused(at=clock.now(), workflow=name, by=by, reason=reason)
    await _mark(store, name, event, paused=False, commit_id=commit_id)


async def read_paused(store: EventStore) -> tuple[PausedWorkflow, ...]:
    """The workflows that are paused now, with who and why."""
    found: list[PausedWorkflow] = []
    async for head in find_all(store, _PAUSED):
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
        head = await head_or_none(store, stream)
        if bool(head is not None and head.attributes.get(PAUSED)) == paused:
            return
        try:
            await store.commit(
                Commit(
                    id=commit_id,
                    stream=stream,
                    expected_version=NEW if head is None else head.version,
                    events=(new_event(event),),
                    attributes={PAUSED: True if paused else None},
                )
            )
        except VersionConflict:
            continue  # somebody else was quicker: look again at how it stands
        return
