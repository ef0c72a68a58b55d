"""The rules of a store, in dicts: the readable specification of `eventstore.port`.

`Streams` is what is stored. Reading it is the quickest way to learn what a store does: `_check` is the order of
refusal, `apply` is a commit, `deliver` is a mailbox, `needs` is the rule of attention, `ready` is who may claim what.
Everything is synchronous: a change is atomic because nothing in it can be interrupted.

It deliberately does not know the event loop, waiting, or how a lease comes to be dead: it looks at the leases that
have not ended, and tells through `on_need` whenever something may have come to need attention.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterator, Mapping
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Final, Literal

from msgspec import UNSET

from eventstore.clock import Clock
from eventstore.digest import SALT_BYTES, event_digest, payload_digest
from eventstore.errors import LeaseLost, MailWaiting, StreamNotFound, UnknownMessage, VersionConflict
from eventstore.holding import Held, looked_after
from eventstore.keeping import Leaf
from eventstore.permits import Actions
from eventstore.pools import MemoryPools
from eventstore.port import (
    NEW,
    POOL_CATEGORY,
    Commit,
    Lease,
    Message,
    NewEvent,
    Page,
    RecordedEvent,
    Scalar,
    StreamHead,
    StreamQuery,
    Timestamp,
    Undelivered,
    WaitingMessage,
    category_of,
)
from eventstore.stream import Stream
from eventstore.validation import page_cursor, parse_cursor

__all__ = ["Streams"]

_STALE_ALARMS_MAX: Final = 64  # entries of the heap that no longer count, beyond one per stream


class Streams:
    """All streams, the log, and where attention may be."""

    actions_type: type[Actions] = Actions

    def __init__(
        self,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        leases: Mapping[int, Lease],
        on_need: Callable[[], None],
    ) -> None:
        self.log: list[Leaf] = []  # a position is an index of it, from 1
        self._clock = clock
        self._entropy = entropy
        self._leases = leases  # by token: those that have not ended
        self._on_need = on_need
        self._streams: dict[str, Stream] = {}
        self._pools = MemoryPools(attributes=self._attributes, looked_after=self._looked_after)
        self._order: list[tuple[Timestamp, str]] = []  # of creation: what `find` pages through
        # Where attention may be: supersets, so that a claim does not look at every stream there ever was.
        self._mail: dict[str, None] = {}
        self._due: dict[str, None] = {}
        self._owned: dict[int, dict[str, None]] = {}
        self._alarms: list[tuple[Timestamp, str]] = []  # a heap, with entries that no longer count

    def existing(self, name: str) -> Stream:
        """The stream of that name. Raises `StreamNotFound`."""
        stream = self._streams.get(name)
        if stream is None:
            raise StreamNotFound(name)
        return stream

    def page(self, query: StreamQuery) -> Page[StreamHead]:
        """The page of `find`: by creation time then name, from behind the cursor."""
        order, start, stop = self._order, 0, len(self._order)
        if query.cursor is not None:
            last = parse_cursor(query.cursor)
            if query.newest_first:
                stop = bisect_left(order, last)
            else:
                start = bisect_right(order, last)
        indexes = range(stop - 1, start - 1, -1) if query.newest_first else range(start, stop)
        fitting = (stream for index in indexes if (stream := self._streams[order[index][1]]).fits(query))
        found = list(islice(fitting, query.limit + 1))
        items = found[: query.limit]
        return Page(
            items=tuple(stream.head(mail=False) for stream in items),
            next=page_cursor(items[-1].created_at, items[-1].name) if len(found) > len(items) else None,
        )

    # Commits and messages.

    def apply(self, commit: Commit) -> StreamHead:
        """One commit, wholly or not at all. Raises what `Commit` lists behind the validation of its arguments."""
        stream = self._streams.get(commit.stream)
        if stream is not None and stream.outcome is not None and stream.last_commit == commit.id:
            return stream.outcome
        self._check(commit, stream)
        salts = [self._entropy(SALT_BYTES) if event.payload is not None else None for event in commit.events]
        now = self._clock.now()
        actions = self.actions_type(self._pools, commit.stream, now, commit.lease.token if commit.lease else None)
        actions.perform(commit.permits)  # from here on nothing can fail
        if stream is None:
            stream = self._create(commit.stream, now)
            if commit.lease is not None:
                stream.owner = commit.lease.token
        owner_before = stream.owner
        stream.updated_at = now
        for event, salt in zip(commit.events, salts, strict=True):
            self._append(stream, event, salt)
        for message_id in commit.consumes:
            stream.controls -= stream.mailbox.pop(message_id).control
        _set_marks(stream, commit)
        self._index(stream, owner_before)
        limit_changed = category_of(stream.name) == POOL_CATEGORY and commit.attributes is not UNSET
        actions.settle(closed=stream.closed, released=commit.release, limit_changed=limit_changed)
        for message in actions.messages():
            self.deliver(message, now)
        undelivered: list[Undelivered] = []
        for message in commit.sends:
            reason = self.deliver(message, now)
            if reason is not None:
                undelivered.append(Undelivered(message.id, message.stream, reason))
        stream.last_commit = commit.id
        stream.outcome = stream.head(tuple(undelivered))
        return stream.outcome

    def deliver(self, message: Message, now: Timestamp) -> Literal["not_found", "closed"] | None:
        """Put a message into its mailbox, or say why not. A tombstone wins over everything."""
        stream = self._streams.get(message.stream)
        if stream is None:
            if message.opens is None:
                return "not_found"
            stream = self._create(message.stream, now)
            stream.merge(message.opens.attributes)
        elif message.id in stream.delivered:
            return None
        elif stream.pruned or (stream.closed and (message.open_only or not message.control)):
            return "closed"
        stream.delivered.add(message.id)
        stream.mailbox[message.id] = WaitingMessage(
            id=message.id,
            sender=message.sender,
            control=message.control,
            header=message.header,
            payload=message.payload,
            sent_at=now,
        )
        stream.controls += message.control
        self._index(stream, stream.owner)
        return None

    def _check(self, commit: Commit, stream: Stream | None) -> None:
        actual = len(stream.events) if stream is not None else NEW
        if commit.expected_version == NEW != actual:  # the name is taken, whoever owns it
            raise VersionConflict(commit.stream, expected=NEW, actual=actual)
        self._check_lease(commit, stream)
        if commit.expected_version != actual:
            raise VersionConflict(commit.stream, expected=commit.expected_version, actual=actual)
        mailbox = stream.mailbox if stream is not None else {}
        for message_id in commit.consumes:
            if message_id not in mailbox:
                raise UnknownMessage(commit.stream, message_id)
        if commit.drained and stream is not None:
            waiting = len(mailbox) - stream.controls
            waiting -= sum(not mailbox[message_id].control for message_id in commit.consumes)
            if waiting:
                raise MailWaiting(commit.stream, waiting=waiting)

    def _check_lease(self, commit: Commit, stream: Stream | None) -> None:
        owner = stream.owner if stream is not None else None
        if commit.lease is not None:
            if commit.lease.token not in self._leases:
                raise LeaseLost(commit.stream, token=commit.lease.token, reason="the lease has ended")
            if stream is not None and owner != commit.lease.token:
                reason = "nobody owns it: claim it" if owner is None else f"token {owner} owns it"
                raise LeaseLost(commit.stream, token=commit.lease.token, reason=reason)
        elif stream is not None:
            self.check_lease_of(stream)

    def _attributes(self, name: str) -> Mapping[str, Scalar] | None:
        stream = self._streams.get(name)
        return None if stream is None else stream.attributes

    def _looked_after(self, permit: Held) -> bool:
        """Whether anybody may still want what a stream holds."""
        stream = self._streams.get(permit.stream)
        return looked_after(permit, None if stream is None else stream.owner, self._alive)

    def _create(self, name: str, now: Timestamp) -> Stream:
        stream = Stream(name, now)
        self.put(stream)
        return stream

    def put(self, stream: Stream) -> None:
        """A stream that is new here; its events are not in the log yet, and nobody has been told of what it needs."""
        self._streams[stream.name] = stream
        insort(self._order, (stream.created_at, stream.name))

    def take_away(self, stream: Stream) -> None:
        """Undo `put`."""
        del self._streams[stream.name]
        self._order.remove((stream.created_at, stream.name))

    def settle(self, stream: Stream) -> None:
        """What was `put` stays: it may need attention."""
        self._index(stream, None)

    def _append(self, stream: Stream, event: NewEvent, salt: bytes | None) -> None:
        of_payload = payload_digest(salt or b"", event.payload)
        stream.digest = event_digest(stream.digest, event.header, of_payload)
        recorded = RecordedEvent(
            stream=stream.name,
            version=len(stream.events) + 1,
            position=len(self.log) + 1,
            header=event.header,
            payload=event.payload,
            salt=salt,
            payload_digest=of_payload,
            digest=stream.digest,
        )
        stream.events.append(recorded)
        self.log.append(recorded)

    def check_lease_of(self, stream: Stream) -> None:
        """Raise `LeaseLost` when a live lease owns it."""
        if stream.owner is not None and self._alive(stream.owner):
            raise LeaseLost(stream.name, token=None, reason=f"token {stream.owner} owns it and is alive")

    # Attention.

    def _alive(self, token: int) -> bool:
        lease = self._leases.get(token)
        return lease is not None and lease.fresh()

    def needs(self, stream: Stream) -> bool:
        """The rule: level-triggered, from nothing but what is stored, which leases live, and the time."""
        if stream.controls:
            return True
        if stream.closed or stream.held:
            return False
        due = stream.alarm is not None and stream.alarm <= self._clock.now()
        orphan = stream.owner is not None and not self._alive(stream.owner)
        return bool(stream.mailbox) or due or orphan

    def ready(self, token: int, query: StreamQuery, busy: Collection[str], limit: int) -> Iterator[Stream]:
        """Streams that this token may claim now: of each need all, or `limit` of those that have had it longest."""
        orphans: dict[str, None] = {}
        for owner, names in self._owned.items():
            if not self._alive(owner):
                orphans |= names
        seen: set[str] = set()
        for candidates in (self._mail, self._due, orphans):
            free = (name for name in candidates if name not in busy and self._may_claim(self._streams[name], token))
            found = (name for name in free if self._streams[name].fits(query) and self.needs(self._streams[name]))
            seen.update(islice(found, limit))
        return (self._streams[name] for name in seen)

    def _may_claim(self, stream: Stream, token: int) -> bool:
        return stream.owner is None or stream.owner == token or not self._alive(stream.owner)

    def take(self, stream: Stream, token: int) -> StreamHead:
        """Claim it: counted before anybody touches it."""
        owner_before, stream.owner = stream.owner, token
        stream.claims += 1
        self._index(stream, owner_before, tell=False)
        return stream.head()

    def in_need_since(self, stream: Stream) -> tuple[Timestamp, str]:
        """The order of claims: roughly who has waited longest."""
        times: list[Timestamp] = []
        if stream.mailbox:
            times.append(next(iter(stream.mailbox.values())).sent_at)
        if stream.alarm is not None and stream.alarm <= self._clock.now():
            times.append(stream.alarm)
        return min(times, default=stream.updated_at), stream.name

    def ripen(self) -> bool:
        """Move what has fallen due to where a claim sees it; whether any alarm is still to come."""
        now = self._clock.now()
        while self._alarms and self._alarms[0][0] <= now:
            entry = heappop(self._alarms)
            if self._counts(entry):
                self._due[entry[1]] = None
                self._on_need()
        return bool(self._alarms)

    def _counts(self, entry: tuple[Timestamp, str]) -> bool:
        alarm, name = entry
        return self._streams[name].queued == alarm and name not in self._due

    def _queue(self, stream: Stream) -> None:
        """Keep the heap of alarms true after a change of the stream."""
        wanted = None if stream.closed else stream.alarm
        if wanted == stream.queued:
            return
        self._due.pop(stream.name, None)
        stream.queued = wanted
        if wanted is not None:
            heappush(self._alarms, (wanted, stream.name))
        if len(self._alarms) > 2 * len(self._streams) + _STALE_ALARMS_MAX:
            self._alarms = [entry for entry in self._alarms if self._counts(entry)]
            heapify(self._alarms)

    def _index(self, stream: Stream, owner_before: int | None, *, tell: bool = True) -> None:
        """Keep the supersets true after a change of the stream, and say so if it needs attention now."""
        name = stream.name
        if stream.controls or (stream.mailbox and not stream.closed):
            self._mail[name] = None
        else:
            self._mail.pop(name, None)
        if owner_before is not None and (names := self._owned.get(owner_before)) is not None:
            names.pop(name, None)
            if not names:
                del self._owned[owner_before]
        if stream.owner is not None and not stream.closed:
            self._owned.setdefault(stream.owner, {})[name] = None
        self._queue(stream)
        if tell and self.needs(stream):
            self._on_need()


def _set_marks(stream: Stream, commit: Commit) -> None:
    if commit.attributes is not UNSET:
        stream.merge(commit.attributes)
    if commit.alarm is not UNSET:
        stream.alarm = commit.alarm
    if commit.held is not UNSET:
        stream.held = commit.held
    if commit.closed is not UNSET:
        stream.closed = commit.closed
    if commit.progress:
        stream.claims = 0
    if commit.release:
        stream.owner = None
