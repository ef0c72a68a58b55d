"""Memory stores with one planted bug each, and the checks of the suite that must find it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator
from itertools import islice
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from eventstore.errors import EventStoreError, MailWaiting
from eventstore.mailbox import first_page
from eventstore.memory import MemoryStore
from eventstore.port import (
    MAILBOX_PAGE,
    NEW,
    Commit,
    Lease,
    Message,
    NewEvent,
    Page,
    RecordedEvent,
    StreamHead,
    StreamQuery,
    Undelivered,
)
from eventstore.rules import Streams
from eventstore.stream import Stream
from tests.eventstore.broken import Broken


class _Unfenced(Streams):
    def _check(self, commit: Commit, stream: Stream | None) -> None:
        owner = stream.owner if stream is not None else None
        leases = dict(self._leases)
        self._leases = {}
        try:
            if stream is not None:
                stream.owner = None
            super()._check(replace(commit, lease=None), stream)
        finally:
            self._leases = leases
            if stream is not None:
                stream.owner = owner


class NoFencing(Broken):
    rules = _Unfenced


class _ChecksFreshnessOnly(Streams):
    def _check(self, commit: Commit, stream: Stream | None) -> None:
        if commit.lease is not None and stream is not None and commit.lease.token in self._leases:
            commit = replace(commit, lease=self._leases.get(stream.owner or 0))
        super()._check(commit, stream)


class FencesByTheLeaseAlone(Broken):
    """Looks whether the lease lives, not whether it owns the stream."""

    rules = _ChecksFreshnessOnly


class _FencesNewStreams(Streams):
    def _check(self, commit: Commit, stream: Stream | None) -> None:
        self._check_lease(commit, stream)
        super()._check(commit, stream)


class FencesBeforeItLooksWhetherNew(Broken):
    """Says "not yours" to whoever asks whether the name is free."""

    rules = _FencesNewStreams


class EdgeTriggeredWait(MemoryStore):
    """A waiter hears only what rings while it sleeps."""

    async def wait(self, lease: Lease, *, timeout: float) -> None:
        mine = self._leases.get(lease.token)
        if mine is not None:
            mine.seen = self._news
        await super().wait(lease, timeout=timeout)


class _ToldOfTheUnowned(Streams):
    def deliver(self, message: Message, now: int) -> Any:
        stream = self._streams.get(message.stream)
        if stream is None or stream.owner is None:
            return super().deliver(message, now)
        told, self._on_need = self._on_need, lambda: None
        try:
            return super().deliver(message, now)
        finally:
            self._on_need = told


class WakesNobodyForAnOwnedStream(Broken):
    """Takes a stream that has an owner for looked after."""

    rules = _ToldOfTheUnowned


class _Edges(Streams):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    def ready(self, token: int, query: StreamQuery, busy: Collection[str], limit: int) -> Iterator[Stream]:
        for stream in list(super().ready(token, query, busy, limit)):
            self._mail.pop(stream.name, None)
            self._due.pop(stream.name, None)
            yield stream


class EdgeTriggeredAttention(Broken):
    """Tells of each need once, whether or not it was met."""

    rules = _Edges


class SleepsThroughAlarms(MemoryStore):
    def _ripen(self) -> bool:
        self._streams.ripen()
        return False

    def notify(self) -> None:
        """Only mail rings: setting an alarm does not make the waiters look."""


class NeverPolls(MemoryStore):
    """Knows that an alarm falls due only when somebody calls."""

    def _ripen(self) -> bool:
        super()._ripen()
        return False


class WaitSpins(MemoryStore):
    async def wait(self, lease: Lease, *, timeout: float) -> None:
        self._check_open()
        await asyncio.sleep(0)


class _Forgetful(Streams):
    def apply(self, commit: Commit) -> StreamHead:
        head = super().apply(commit)
        self.existing(commit.stream).delivered.difference_update(commit.consumes)
        return head


class ForgetsTombstones(Broken):
    rules = _Forgetful


class HalfAppliesWhenCancelled(MemoryStore):
    """Awaits in the middle of a commit."""

    async def commit(self, commit: Commit) -> StreamHead:
        if commit.sends and commit.events:
            first = replace(commit, sends=(), attributes=UNSET, alarm=UNSET, id=commit.id + " first")
            head = await super().commit(first)
            rest = replace(
                commit, events=(), consumes=(), expected_version=head.version, release=False, lease=commit.lease
            )
            return await super().commit(rest)
        return await super().commit(commit)


class _Careless(Streams):
    def apply(self, commit: Commit) -> StreamHead:
        stream = self._streams.get(commit.stream)
        if stream is not None and commit.attributes is not UNSET:
            stream.merge(commit.attributes)
        return super().apply(commit)


class WritesBeforeItRefuses(Broken):
    rules = _Careless


class RefusesTheWholeBatch(MemoryStore):
    """Commits that were called together are refused together."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._batch: list[Commit] = []

    async def commit(self, commit: Commit) -> StreamHead:
        self._batch.append(commit)
        await asyncio.sleep(0)
        if len(self._batch) > 1:
            known = {one.stream for one in self._batch}
            versions = {name: len(self._streams._streams[name].events) for name in known & set(self._streams._streams)}
            for one in self._batch:
                actual = versions.get(one.stream, NEW)
                if one.expected_version > actual + len(one.events) and one.expected_version > 3:
                    await asyncio.sleep(0)
                    self._batch.clear()
                    raise EventStoreError("one of the batch was refused")
        try:
            return await super().commit(commit)
        finally:
            if commit in self._batch:
                self._batch.remove(commit)


class _Unrepeatable(Streams):
    def apply(self, commit: Commit) -> StreamHead:
        stream = self._streams.get(commit.stream)
        if stream is not None:
            stream.last_commit = None
        return super().apply(commit)


class ForgetsTheLastCommit(Broken):
    rules = _Unrepeatable


class _Uncounted(Streams):
    def take(self, stream: Stream, token: int) -> StreamHead:
        head = super().take(stream, token)
        stream.claims -= 1
        return head


class CountsNoClaims(Broken):
    rules = _Uncounted


class _AnyEventIsProgress(Streams):
    def apply(self, commit: Commit) -> StreamHead:
        return super().apply(replace(commit, progress=commit.progress or bool(commit.events)))


class TakesAnyEventForProgress(Broken):
    rules = _AnyEventIsProgress


class _NoOrphans(Streams):
    def _alive(self, token: int) -> bool:
        return True


class KeepsTheStreamsOfTheDead(Broken):
    rules = _NoOrphans


class _WakesTheHeld(Streams):
    def needs(self, stream: Stream) -> bool:
        held, stream.held = stream.held, False
        try:
            return super().needs(stream)
        finally:
            stream.held = held


class WakesHeldStreams(Broken):
    rules = _WakesTheHeld


class FillsGapsLater(MemoryStore):
    """Gives out positions before it commits: a reader behind a gap never sees what fills it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._hidden: dict[int, int] = {}  # position -> looks until it shows

    async def read_all(self, *, after: int = 0, category: str | None = None) -> AsyncIterator[RecordedEvent]:
        async for event in super().read_all(after=after, category=category):
            looks = self._hidden.setdefault(event.position, 1 if event.position % 7 == 0 else 0)
            if looks:
                self._hidden[event.position] = looks - 1
                continue
            yield event


class ReadsOnePage(MemoryStore):
    async def read(
        self, stream: str, *, after: int = 0, until: int | None = None, proof: bool = True
    ) -> AsyncIterator[RecordedEvent]:
        count = 0
        async for event in super().read(stream, after=after, until=until, proof=proof):
            count += 1
            if count > 1_000:
                return
            yield event


class _Offsets(Streams):
    def page(self, query: StreamQuery) -> Page[StreamHead]:
        offset = int(query.cursor) if query.cursor else 0
        whole = super().page(replace(query, cursor=None, limit=1_000)).items
        more = len(whole) > offset + query.limit
        return Page(whole[offset : offset + query.limit], str(offset + query.limit) if more else None)


class PagesByOffset(Broken):
    rules = _Offsets

    async def find(self, query: StreamQuery) -> Page[StreamHead]:
        return self._streams.page(query)


class _Replaces(Streams):
    def apply(self, commit: Commit) -> StreamHead:
        stream = self._streams.get(commit.stream)
        if stream is not None and commit.attributes is not UNSET and stream.last_commit != commit.id:
            stream.attributes = {}
        return super().apply(commit)


class ReplacesAttributes(Broken):
    rules = _Replaces


class OneSaltForAll(MemoryStore):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options, entropy=bytes)


class _NoChain(Streams):
    def _append(self, stream: Stream, event: NewEvent, salt: bytes | None) -> None:
        last = stream.digest
        super()._append(stream, replace(event, header=event.header + b" "), salt)
        assert stream.digest != last
        stream.events[-1] = self.log[-1] = replace(stream.events[-1], header=event.header)


class HashesOtherBytesThanItStores(Broken):
    rules = _NoChain


class _TakesMailWhenClosed(Streams):
    def deliver(self, message: Message, now: int) -> Any:
        return super().deliver(replace(message, control=True), now)


class TakesMailWhenClosed(Broken):
    rules = _TakesMailWhenClosed


class _NeverDrained(Streams):
    def _check(self, commit: Commit, stream: Stream | None) -> None:
        super()._check(replace(commit, drained=False), stream)


class ClosesOverMail(Broken):
    rules = _NeverDrained


class _DrainsTheFirstPage(Streams):
    def _check(self, commit: Commit, stream: Stream | None) -> None:
        super()._check(replace(commit, drained=False), stream)
        if commit.drained and stream is not None:
            page = stream.head().messages
            waiting = [one for one in page if not one.control and one.id not in commit.consumes]
            if waiting:
                raise MailWaiting(commit.stream, waiting=len(waiting))


class DrainsWhatTheHeadShows(Broken):
    """Looks at the page that a head carries, not at the mailbox."""

    rules = _DrainsTheFirstPage


class _DrainsControl(Streams):
    def _check(self, commit: Commit, stream: Stream | None) -> None:
        super()._check(replace(commit, drained=False), stream)
        if commit.drained and stream is not None:
            waiting = len(stream.mailbox) - len(commit.consumes)
            if waiting:
                raise MailWaiting(commit.stream, waiting=waiting)


class CountsControlAsMail(Broken):
    rules = _DrainsControl


class DrainsBeforeItWrites(MemoryStore):
    """Looks whether the mailbox is empty, and writes a moment later."""

    async def commit(self, commit: Commit) -> StreamHead:
        if commit.drained:
            await super().commit(replace(commit, id=commit.id + " look", closed=UNSET, events=(), consumes=()))
        return await super().commit(replace(commit, drained=False))


class _ByCount(Stream):
    __slots__ = ()

    def head(self, undelivered: tuple[Undelivered, ...] = (), *, mail: bool = True) -> StreamHead:
        head = super().head(undelivered, mail=False)
        return replace(head, messages=tuple(islice(self.mailbox.values(), MAILBOX_PAGE))) if mail else head


class _PagesByCount(Streams):
    def _create(self, name: str, now: int) -> Stream:
        stream = super()._create(name, now)
        stream.__class__ = _ByCount
        return stream


class PagesOfMailWithoutABoundInBytes(Broken):
    rules = _PagesByCount


class _OldestOnly(Stream):
    __slots__ = ()

    def head(self, undelivered: tuple[Undelivered, ...] = (), *, mail: bool = True) -> StreamHead:
        head = super().head(undelivered, mail=False)
        return replace(head, messages=first_page(self.mailbox.values(), 0)) if mail else head


class _PagesOfTheOldest(Streams):
    def _create(self, name: str, now: int) -> Stream:
        stream = super()._create(name, now)
        stream.__class__ = _OldestOnly
        return stream


class HidesControlMailBehindData(Broken):
    """Shows the oldest messages and nothing else, as if any of them would be consumed."""

    rules = _PagesOfTheOldest


class _LastInFirstOut(Streams):
    def deliver(self, message: Message, now: int) -> Any:
        reason = super().deliver(message, now)
        stream = self._streams.get(message.stream)
        if stream is not None:
            stream.mailbox = dict(sorted(stream.mailbox.items(), reverse=True))
        return reason


class DeliversLastInFirstOut(Broken):
    rules = _LastInFirstOut


class _RefusesUndeliverable(Streams):
    def apply(self, commit: Commit) -> StreamHead:
        known = {commit.stream, *self._streams}
        if any(message.opens is None and message.stream not in known for message in commit.sends):
            raise EventStoreError("somebody is not at home")
        return super().apply(commit)


class RefusesUndeliverableSends(Broken):
    rules = _RefusesUndeliverable


class ClosesOnPendingCommits(MemoryStore):
    """Closing forgets who is waiting."""

    async def aclose(self) -> None:
        self._closed = True

    async def commit(self, commit: Commit) -> StreamHead:
        head = await super().commit(commit)
        if self._closed:
            await asyncio.get_running_loop().create_future()
        return head


CANARIES: dict[type[MemoryStore], tuple[str, ...]] = {
    NoFencing: ("fencing.a_stale_token_cannot_write", "fencing.a_lease_cannot_write_what_it_does_not_own"),
    FencesByTheLeaseAlone: ("fencing.a_stale_token_cannot_write", "fencing.a_lease_cannot_write_what_it_does_not_own"),
    FencesBeforeItLooksWhetherNew: ("fencing.new_is_refused_for_the_version_whoever_owns_the_stream",),
    EdgeTriggeredWait: (
        "waiting.a_commit_between_claim_and_wait_is_not_missed",
        "waiting.need_that_was_there_before_anybody_waited_is_seen",
        "waiting.two_workers_play_ball_without_a_pause",
    ),
    WakesNobodyForAnOwnedStream: ("waiting.mail_to_a_stream_wakes_its_living_owner",),
    EdgeTriggeredAttention: ("attention.attention_does_not_depend_on_when_it_arose",),
    SleepsThroughAlarms: ("waiting.a_sleeper_wakes_for_whatever_makes_a_stream_need_attention",),
    NeverPolls: ("waiting.a_sleeper_wakes_for_whatever_makes_a_stream_need_attention",),
    WaitSpins: ("waiting.a_wait_for_nothing_sleeps",),
    ForgetsTombstones: (
        "messages.a_tombstone_lasts",
        "working.workers_that_come_and_go_lose_nothing_and_repeat_nothing",
    ),
    HalfAppliesWhenCancelled: ("cancelling.a_cancelled_commit_happens_wholly_or_not_at_all",),
    WritesBeforeItRefuses: ("commits.a_refused_commit_leaves_everything_as_it_was",),
    RefusesTheWholeBatch: ("groups.a_refused_commit_harms_no_other",),
    ForgetsTheLastCommit: (
        "commits.a_repeated_commit_returns_the_first_outcome",
        "cancelling.a_cancelled_commit_can_be_tried_again",
        "fencing.a_repeated_commit_is_known_after_its_lease_ended",
    ),
    CountsNoClaims: ("attention.a_claim_counts_and_only_progress_resets", "attention.every_row_of_the_rule"),
    TakesAnyEventForProgress: ("attention.a_claim_counts_and_only_progress_resets",),
    KeepsTheStreamsOfTheDead: (
        "working.workers_that_come_and_go_lose_nothing_and_repeat_nothing",
        "attention.every_row_of_the_rule",
        "leases.a_crashed_holder_frees_its_streams_at_once",
        "leases.leaving_a_lease_frees_its_streams_at_once",
    ),
    WakesHeldStreams: ("attention.every_row_of_the_rule",),
    FillsGapsLater: ("reading.no_gap_of_the_log_is_ever_filled_later",),
    ReadsOnePage: ("reading.large_streams_are_read_whole",),
    PagesByOffset: ("finding.pages_neither_repeat_nor_skip_while_others_write",),
    ReplacesAttributes: ("finding.attributes_merge_and_none_removes",),
    OneSaltForAll: ("digests.salts_differ",),
    HashesOtherBytesThanItStores: ("digests.every_chain_verifies",),
    TakesMailWhenClosed: ("messages.a_data_message_to_a_closed_stream_is_refused",),
    ClosesOverMail: (
        "draining.a_stream_is_not_closed_over_its_mail",
        "draining.a_refused_drain_harms_no_other",
        "draining.of_a_closing_and_a_message_sent_meanwhile_one_is_refused",
        "draining.of_a_closing_and_a_message_committed_meanwhile_one_is_refused",
    ),
    DrainsWhatTheHeadShows: ("draining.mail_beyond_the_page_counts",),
    CountsControlAsMail: ("draining.control_messages_do_not_count",),
    DrainsBeforeItWrites: ("draining.of_a_closing_and_a_message_sent_meanwhile_one_is_refused",),
    PagesOfMailWithoutABoundInBytes: (
        "messages.a_page_of_the_mailbox_is_bounded_in_bytes",
        "messages.a_page_of_the_mailbox_follows_the_group",
    ),
    HidesControlMailBehindData: (
        "overtaking.control_mail_is_shown_behind_any_number_of_data_messages",
        "overtaking.data_messages_stay_in_order_when_control_mail_overtakes",
        "overtaking.control_mail_beyond_the_page_is_bounded",
        "overtaking.a_repeated_commit_shows_the_control_mail_that_it_showed",
    ),
    DeliversLastInFirstOut: (
        "messages.mail_of_a_sender_arrives_in_order",
        "working.workers_that_come_and_go_lose_nothing_and_repeat_nothing",
    ),
    RefusesUndeliverableSends: ("messages.undeliverable_sends_are_reported_and_never_refuse",),
    ClosesOnPendingCommits: ("closing.closing_waits_for_commits_under_way",),
}
"""Each broken store, and the checks that must fail on it."""
