"""Forks that were not made to their end: their maker died, or their origin's history was taken away meanwhile.

Nobody works on one, for no workflow is named before it is whole. It is made whole by whoever asks for the same fork
once more, and ended by whoever cancels it, or by that same call when its origin is gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from msgspec import structs

from engine.core.events import RunTerminated
from engine.errors import HoldfastError, RepairRefused, RunPrunedError
from engine.runtime.histories import check_remembers, head_of, head_or_none, moment_behind
from engine.runtime.recovery import signals_noted
from engine.runtime.streams import ORIGIN, STATUS, WORKFLOW, new_event, stream_of
from eventstore import (
    Clock,
    Commit,
    EventStore,
    EventStoreError,
    MailWaiting,
    StreamHead,
    UnknownMessage,
    VersionConflict,
)

__all__ = ["end_half", "is_half", "is_whole", "whole_or_ended"]


def is_whole(head: StreamHead) -> bool:
    """Whether all of the run is there: it is no fork, or one that was made to its end."""
    return ORIGIN not in head.attributes or WORKFLOW in head.attributes


def is_half(head: StreamHead) -> bool:
    """Whether it is a fork that is not whole, and has not been ended."""
    return not head.closed and not is_whole(head)


@asynccontextmanager
async def whole_or_ended(
    store: EventStore, run_id: str, new_id: str, *, by: str, clock: Clock, next_id: Callable[[], str]
) -> AsyncIterator[None]:
    """Within it run `new_id` is made as a fork of another: what cannot become whole any more, because the origin's
    history was taken away, is ended, and that is the error, whatever it read as.
    """
    try:
        yield
    except (HoldfastError, EventStoreError):
        try:
            check_remembers(await head_of(store, run_id))
        except (RunPrunedError, RepairRefused):
            head = await head_or_none(store, stream_of(new_id))
            if head is not None and head.attributes.get(ORIGIN) == run_id:
                reason = f"the history of its origin, run {run_id!r}, was taken away before all of it was copied"
                await end_half(store, new_id, by=by, reason=reason, clock=clock, next_id=next_id)
            raise
        raise


async def end_half(
    store: EventStore, run_id: str, *, by: str, reason: str, clock: Clock, next_id: Callable[[], str]
) -> None:
    """End a fork that is not whole, with all that waits for it; any other run is left as it is.

    Whoever is making it meanwhile is told that somebody else was quicker (`RunConflict`).
    """
    while (head := await head_or_none(store, stream_of(run_id))) is not None and is_half(head):
        at = await moment_behind(store, head, clock)
        mail = Commit(
            id=next_id(),
            stream=head.stream,
            expected_version=head.version,
            events=tuple(signals_noted(head, at)),
            consumes=tuple(message.id for message in head.messages),
        )
        end = structs.replace(
            mail,
            events=(*mail.events, new_event(RunTerminated(at=at, by=by, reason=reason))),
            attributes={STATUS: "terminated"},
            drained=True,
            closed=True,
            held=False,
        )
        with suppress(VersionConflict, UnknownMessage):  # it has moved on: look again
            try:
                await store.commit(end)
            except MailWaiting:  # more than a head shows, or it has come meanwhile: what is known goes first
                if mail.consumes:
                    await store.commit(structs.replace(mail, id=next_id()))
