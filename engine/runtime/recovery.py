"""Rebuilds runs from the store: reads a history, replays it, and says what became of it.

What cannot be rebuilt is never destroyed: a mismatch becomes a suspension, which is itself a commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final

from msgspec import Struct, structs

from engine.core.call import Definition
from engine.core.compare import Diagnosis, Mismatch
from engine.core.events import AnyEvent, RunTerminated, decode_header
from engine.core.instance import Decided
from engine.core.replay import Replayer
from engine.errors import HistoryError
from engine.runtime.mail import CancelMail, ResumeMail, mail_or_none
from engine.runtime.streams import SLOW, STATUS, new_event, run_id_of, suspension
from engine.runtime.watchdog import Watchdog
from eventstore import Clock, Commit, EventStore, Lease, NewEvent, RecordedEvent, StreamHead

__all__ = ["Rebuilt", "mail_of", "rebuild_run", "settle_closed", "suspend", "terminate"]

PAGE_EVENTS: Final = 500
"""Events that are replayed in one go; between two of them the engine's other runs get their turn."""


class Rebuilt(Struct):
    """A run that can go on."""

    replayer: Replayer
    backlog: list[Decided]


async def rebuild_run(
    store: EventStore, head: StreamHead, definition: Definition[..., Any], watchdog: Watchdog
) -> Rebuilt:
    """Replay the whole history of a stream. Raises `Mismatch` when the code does not fit it."""
    run_id = run_id_of(head.stream)
    replayer = Replayer(definition, run_id)
    slowest = head.attributes.get(SLOW)
    replayer.instance.around = watchdog.watch(
        run_id, definition.name, slowest=slowest if isinstance(slowest, int) else 0
    )
    page: list[RecordedEvent] = []
    try:
        async for recorded in store.read(head.stream, until=head.version):
            page.append(recorded)
            if len(page) >= PAGE_EVENTS:
                replayer.feed_all(_decoded(page, run_id))
                page.clear()
                await asyncio.sleep(0)
        replayer.feed_all(_decoded(page, run_id))
        return Rebuilt(replayer, replayer.finish())
    except BaseException:
        replayer.instance.evict()  # its coroutines must never be closed by the garbage collector, outside any loop
        raise


def _decoded(page: list[RecordedEvent], run_id: str) -> Iterator[tuple[int, AnyEvent, bytes | None]]:
    for recorded in page:
        try:
            event = decode_header(recorded.header)
        except HistoryError as error:
            message = f"version {recorded.version} of run {run_id!r}: {error}"
            raise Mismatch(Diagnosis(reason="history", message=message, version=recorded.version)) from error
        yield recorded.version, event, recorded.payload


def mail_of(head: StreamHead) -> tuple[CancelMail | None, ResumeMail | None]:
    """The first cancellation, and the first wish to resume, that wait in the mailbox."""
    cancel: CancelMail | None = None
    resume: ResumeMail | None = None
    for message in head.messages:
        if not message.control:
            continue
        match mail_or_none(message):
            case CancelMail() as mail:
                cancel = cancel or mail
            case ResumeMail() as mail:
                resume = resume or mail
            case None:
                continue
    return cancel, resume


async def suspend(
    store: EventStore, lease: Lease, head: StreamHead, diagnosis: Diagnosis, *, clock: Clock, commit_id: str
) -> None:
    """Record that the run waits for code that fits, and give it up.

    A wish to resume is answered by that; a wish to cancel stays in the box, and is the next thing to be looked at.
    """
    note = suspension(diagnosis, at=max(clock.now(), head.updated_at))
    answered = [message for message in head.messages if isinstance(mail_or_none(message), ResumeMail)]
    rest = structs.replace(head, messages=tuple(answered))
    await store.commit(_rest(rest, lease, commit_id, [note], {STATUS: "suspended"}, held=True))


async def terminate(
    store: EventStore, lease: Lease, head: StreamHead, mail: CancelMail, *, clock: Clock, commit_id: str
) -> None:
    """End a suspended run without its code: cancel always works."""
    reason = mail.reason or "cancelled while suspended"
    note = new_event(RunTerminated(at=max(clock.now(), head.updated_at), by=mail.by, reason=reason))
    await store.commit(_rest(head, lease, commit_id, [note], {STATUS: "terminated"}, held=False, closed=True))


async def settle_closed(store: EventStore, lease: Lease, head: StreamHead, *, commit_id: str) -> None:
    """Control mail that reached a finished run: nothing to do but to take it out of the box."""
    await store.commit(_rest(head, lease, commit_id, [], {}, held=head.held))


def _rest(
    head: StreamHead,
    lease: Lease,
    commit_id: str,
    events: Sequence[NewEvent],
    attributes: dict[str, str],
    *,
    held: bool,
    closed: bool = False,
) -> Commit:
    return Commit(
        id=commit_id,
        stream=head.stream,
        expected_version=head.version,
        events=tuple(events),
        consumes=tuple(message.id for message in head.messages if message.control),
        attributes=attributes,
        alarm=None,
        held=held,
        closed=closed or head.closed,
        lease=lease,
        release=True,
    )
