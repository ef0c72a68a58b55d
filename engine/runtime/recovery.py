"""Rebuilds runs from the store: reads a history, replays it, and says what became of it.

What cannot be rebuilt is never destroyed: a mismatch becomes a suspension, which is itself a commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct, structs

from engine.core.call import Definition
from engine.core.compare import Diagnosis, Mismatch
from engine.core.decided import Decided
from engine.core.events import Note, RunResumed, RunTerminated, RunUnpaused, SignalIgnored
from engine.core.replay import Replayer
from engine.runtime.codes import suspended_with
from engine.runtime.gates import is_waiting
from engine.runtime.histories import epoch_start, moment_behind, read_known_state
from engine.runtime.keys import is_singleton
from engine.runtime.large_values import TABLES, holds_large
from engine.runtime.letters import closing_letters, end_letter
from engine.runtime.mail import (
    CancelMail,
    PermitMail,
    ResumeMail,
    SignalMail,
    TerminateMail,
    UnpauseMail,
    is_for,
    mail_or_none,
)
from engine.runtime.opened import opened_by
from engine.runtime.streams import QUEUED, SLOW, STATUS, WAITS, new_event, run_id_of, suspension
from engine.runtime.watchdog import Watchdog
from eventstore import (
    Clock,
    Commit,
    EventStore,
    EventStoreError,
    Lease,
    MailWaiting,
    NewEvent,
    Permit,
    RecordedEvent,
    StreamHead,
)
from eventstore.port import COMMIT_MESSAGES_MAX, Scalar

__all__ = [
    "Rebuilt",
    "Wishes",
    "feed",
    "feed_full_pages",
    "give_up",
    "rebuild_run",
    "settle",
    "signals_noted",
    "suspend",
    "terminate",
    "try_run",
    "wishes_of",
    "with_its_type",
]

PAGE_EVENTS: Final = 500
"""Events that are replayed in one go; between two of them the engine's other runs get their turn."""


class Rebuilt(Struct):
    """A run that can go on."""

    replayer: Replayer
    backlog: list[Decided]
    unmarked_epoch: int | None  # the version that its last epoch begins with, if its stream does not say so


async def rebuild_run(
    store: EventStore,
    head: StreamHead,
    definition: Definition[..., Any],
    watchdog: Watchdog | None = None,
    *,
    versions: Callable[[str, str], Definition[..., Any] | None] | None,
) -> Rebuilt:
    """Replay the history of a stream from the start of its last epoch. Raises `Mismatch` when the code does not fit.

    `versions`: as for a `Replayer`.
    """
    run_id = run_id_of(head.stream)
    replayer = Replayer(definition, run_id, versions=versions, tables=TABLES)
    if watchdog is not None:
        slowest = head.attributes.get(SLOW)
        replayer.instance.around = watchdog.watch(
            run_id, definition.name, slowest=slowest if isinstance(slowest, int) else 0
        )
    try:
        await feed(replayer, store, head)
        backlog = replayer.finish()
        begun = replayer.epoch_version
        return Rebuilt(replayer, backlog, begun if begun != epoch_start(head) else None)
    except BaseException:
        replayer.instance.evict()  # its coroutines must never be closed by the garbage collector, outside any loop
        raise


async def try_run(
    store: EventStore,
    head: StreamHead,
    definition: Definition[..., Any],
    watchdog: Watchdog,
    *,
    versions: Callable[[str, str], Definition[..., Any] | None],
    say: Callable[[Exception], str] = str,
) -> Rebuilt | Diagnosis:
    """As `rebuild_run`, on the side: the run, to be put away by the caller, or else how the code does not fit it.

    `say`: the words for an exception that is no mismatch. Raises what the store raises.
    """
    try:
        return await rebuild_run(store, head, definition, watchdog, versions=versions)
    except Mismatch as mismatch:
        return mismatch.diagnosis
    except EventStoreError:
        raise
    except Exception as error:  # as in a turn: ours, or the user's in a place that we call
        return Diagnosis(reason="internal", message=say(error), version=head.version)


def with_its_type(error: Exception) -> str:
    """An exception in a diagnosis, for somebody who does not see where it came from."""
    return f"{type(error).__qualname__}: {error}"


def _at_once(work: Callable[[], None]) -> None:
    work()


async def feed(replayer: Replayer, store: EventStore, head: StreamHead) -> None:
    """Tell a replayer the history of a stream from the start of its last epoch. Raises `Mismatch`."""
    after = epoch_start(head) - 1
    replayer.feed_all(await feed_full_pages(replayer, store, head.stream, after=after, until=head.version))


async def feed_full_pages(
    replayer: Replayer,
    store: EventStore,
    stream: str,
    *,
    after: int,
    until: int,
    run: Callable[[Callable[[], None]], None] = _at_once,
) -> list[RecordedEvent]:
    """Tell a replayer the events of a stream behind one version and up to another, but for the last page: that is
    returned. Raises `Mismatch`. `run`: what calls that which runs workflow code.
    """
    page: list[RecordedEvent] = []
    async for recorded in store.read(stream, after=after, until=until, proof=False):
        page.append(recorded)
        if len(page) >= PAGE_EVENTS:
            run(lambda: replayer.feed_all(page))
            page.clear()
            await asyncio.sleep(0)
    return page


class Wishes(Struct):
    """What waiting control mail asks of a run that nobody has in memory."""

    cancel: CancelMail | None = None
    terminate: TerminateMail | None = None
    resume: ResumeMail | None = None
    unpause: UnpauseMail | None = None

    def ending(self, head: StreamHead) -> TerminateMail | None:
        """Whether the run is to end without its code: cancel always works, also for one whose code does not fit."""
        if self.terminate is None and self.cancel is not None and _status(head) == "suspended":
            return TerminateMail(by=self.cancel.by, reason=self.cancel.reason or "cancelled while suspended")
        return self.terminate

    def reopening(self, head: StreamHead, at: int) -> Note | None:
        """The note with which a held run goes on; None when nobody asks for that."""
        if _status(head) == "suspended":
            wish = self.resume
            return RunResumed(at=at, by=wish.by, reason=wish.reason) if wish is not None else None
        if _status(head) == "queued":
            return None  # nobody but the key's last run lets it go on
        asker = self.unpause or self.cancel
        return RunUnpaused(at=at, by=asker.by, reason=asker.reason) if asker is not None else None


def _status(head: StreamHead) -> object:
    return head.attributes.get(STATUS)


def wishes_of(head: StreamHead) -> Wishes:
    """The first of each kind that waits in the mailbox."""
    wishes, run_id = Wishes(), run_id_of(head.stream)
    for message in head.messages:
        if not message.control:
            continue
        asked = mail_or_none(message)
        if not is_for(asked, run_id, head.attributes):
            continue
        match asked:
            case CancelMail() as mail if is_waiting(head) or not mail.unless_begun:
                wishes.cancel = wishes.cancel or mail
            case TerminateMail() as mail:
                wishes.terminate = wishes.terminate or mail
            case ResumeMail() as mail:
                wishes.resume = wishes.resume or mail
            case UnpauseMail() as mail:
                wishes.unpause = wishes.unpause or mail
            case _:
                continue
    return wishes


async def suspend(
    store: EventStore,
    lease: Lease,
    head: StreamHead,
    diagnosis: Diagnosis,
    *,
    code: str = "",
    clock: Clock,
    commit_id: str,
) -> None:
    """Record that the run waits for code that fits, and give it up. `code`: the one that does not.

    A wish to resume is answered by that; a wish to cancel stays in the box, and is the next thing to be looked at.
    One that was opened and is not recorded yet is recorded by that, and begins when it is resumed.
    """
    at = await moment_behind(store, head, clock)
    notes = [suspension(diagnosis, at=at)]
    answered = [message for message in head.messages if isinstance(mail_or_none(message), ResumeMail)]
    rest = structs.replace(head, messages=tuple(answered))
    attributes = suspended_with(head.attributes, code, diagnosis.reason)
    opened = opened_by(head) if head.version == 0 else None
    if opened is not None:
        fact = opened.fact(at=at, waits=True, large=holds_large(store))
        notes.insert(0, new_event(fact, opened.message.payload))
        attributes = {**attributes, WAITS: fact.begins_at}
    commit = _rest(rest, lease, commit_id, notes, attributes, held=True)
    if opened is not None:
        commit = structs.replace(commit, consumes=(opened.message.id, *commit.consumes))
    await store.commit(commit)


async def terminate(
    store: EventStore, lease: Lease, head: StreamHead, mail: TerminateMail, *, clock: Clock, next_id: Callable[[], str]
) -> None:
    """End a run without its code: its parent is told, its children are ended as their calls said.

    Signals that wait for it are noted: who sent them was told that they arrived.
    """
    state = await read_known_state(store, head)
    letters = closing_letters(state)
    to_parent = end_letter(state, state.run_id, "terminated", None, reason=mail.reason)
    if to_parent is not None:
        letters.append(to_parent)
    for letter in letters[COMMIT_MESSAGES_MAX:]:  # those that do not fit; sent once more after a crash, to no effect
        await store.send(letter)
    while True:
        at = await moment_behind(store, head, clock)
        mail_noted, seen = signals_noted(head, at), tuple(message.id for message in head.messages)
        end = new_event(RunTerminated(at=at, by=mail.by, reason=mail.reason))
        commit = _rest(head, lease, next_id(), [*mail_noted, end], {STATUS: "terminated"}, held=False, closed=True)
        sends = tuple(letters[:COMMIT_MESSAGES_MAX])
        try:
            await store.commit(structs.replace(commit, sends=sends, consumes=seen, drained=True))
        except MailWaiting:  # more has come, or there is more than a page of it: that goes first
            commit = _rest(head, lease, next_id(), mail_noted, {}, held=head.held)
            data = tuple(message.id for message in head.messages if not message.control)
            await store.commit(structs.replace(commit, consumes=data, alarm=head.alarm, release=False))
            head = await store.head(head.stream)
        else:
            return


def signals_noted(head: StreamHead, at: int) -> list[NewEvent]:
    """That the signals which a head shows come to nothing: who sent them was told that they arrived."""
    found: list[NewEvent] = []
    for message in head.messages:
        if isinstance(signal := mail_or_none(message), SignalMail):
            note = SignalIgnored(at=at, id=message.id, name=signal.name, by=signal.by, reason=signal.reason)
            found.append(new_event(note, message.payload))
    return found


async def settle(store: EventStore, lease: Lease, head: StreamHead, *, commit_id: str) -> None:
    """Control mail that changes nothing (the run has ended, or is held for another reason): take it out of the box."""
    await store.commit(_rest(head, lease, commit_id, [], {}, held=head.held))


async def give_up(store: EventStore, lease: Lease, head: StreamHead, *, clock: Clock, commit_id: str) -> None:
    """Leave a run as it is, to whoever may have it next.

    It is due at once: what made it need somebody (its worker has died, say) may be seen no more once it is given up.
    """
    await store.commit(
        Commit(
            id=commit_id,
            stream=head.stream,
            expected_version=head.version,
            alarm=clock.now(),
            lease=lease,
            release=True,
            progress=True,
        )
    )


def _rest(
    head: StreamHead,
    lease: Lease,
    commit_id: str,
    events: Sequence[NewEvent],
    attributes: Mapping[str, Scalar],
    *,
    held: bool,
    closed: bool = False,
) -> Commit:
    grants = [mail for message in head.messages if isinstance(mail := mail_or_none(message), PermitMail)]
    if any(mail.pool == head.attributes.get(QUEUED) for mail in grants):
        attributes = {**attributes, QUEUED: None}  # it has its key from here on, held as it is for another reason
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
        permits=_unwanted_permits(grants),
        lease=lease,
        release=True,
        progress=True,  # whoever gives it up in good order has not died of it
    )


def _unwanted_permits(grants: Iterable[PermitMail]) -> tuple[Permit, ...]:
    """Permits that were granted to a run that begins nothing now: they are given back, and go to others.

    The key of a singleton is the run's until it ends, whatever holds it.
    """
    unwanted = (mail for mail in grants if not is_singleton(mail.pool))
    return tuple(Permit(pool=mail.pool, holder=mail.holder, action="return") for mail in unwanted)
