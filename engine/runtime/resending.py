"""Messages whose delivery was not recorded before a crash: they were sent, and nobody knows how that went.

Sending one again is harmless, for its id is the same, and says whether it is, or was, delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from engine.core.decided import Decided
from engine.core.events import ChildFailed, ChildStarted, SendAccepted
from engine.core.instance import Instance
from engine.runtime.letters import letter_of
from engine.runtime.steps import Arrival, rejected
from eventstore import EventStore, Message, StreamClosed, StreamNotFound

__all__ = ["send_again", "undelivered_sends"]


def undelivered_sends(instance: Instance, missing: Collection[str]) -> dict[str, Message]:
    """By the id of the decision; those in `missing` are only about to be written."""
    started = instance.started
    assert started is not None
    found: dict[str, Message] = {}
    for id_, pending in instance.outbox.sends.items():
        message = letter_of(Decided(pending.event, pending.payload), started, instance.run_id)
        if id_ not in missing and message is not None:
            found[id_] = message
    for id_, child in instance.children.items():
        # Only one whose id was chosen can have met another run; the rest are certain to have been opened.
        if child.chosen and id_ not in missing:
            event = ChildStarted(at=0, id=id_, workflow=child.definition.name, run=child.run_id)
            message = letter_of(Decided(event, b"{}"), started, instance.run_id)
            if message is not None:
                found[id_] = message
    return found


async def send_again(store: EventStore, messages: Mapping[str, Message], arrived: Callable[..., None]) -> None:
    """Send each, and hand on how that went as arrivals."""
    for id_, message in messages.items():
        arrived(*(await _deliver_again(store, id_, message)))


async def _deliver_again(store: EventStore, id_: str, message: Message) -> list[Arrival]:
    """Send it, and say as a fact how that went; nothing to say of a child that was opened."""
    is_start = message.opens is not None
    try:
        await store.send(message)
    except StreamNotFound:
        reason = "not_found"
    except StreamClosed:
        reason = "closed"
    else:
        return [] if is_start else [Arrival(SendAccepted(at=0, id=id_))]
    if is_start:
        return [Arrival(ChildFailed(at=0, id=id_, status="conflict"))]
    return [Arrival(rejected(id_, reason))]
