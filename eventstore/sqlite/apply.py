"""What each request does to the streams of a batch: the rules of the port, in memory, between one load and one write.

A `Batch` holds the streams that its requests name as they were when the transaction began. Requests are applied to it
in order, each seeing what those before it did. A request that is refused raises before it has changed anything, so it
harms no other. Nothing here touches SQLite, a clock or a file; whether an owner lives is asked of `judge`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal, TypeVar

from msgspec import UNSET
from msgspec.json import encode

from eventstore.digest import SALT_BYTES, chain_start, event_digest, payload_digest
from eventstore.errors import (
    EventStoreError,
    LeaseLost,
    StreamClosed,
    StreamNotFound,
)
from eventstore.moving import StoredPool
from eventstore.permits import Actions
from eventstore.port import (
    NO_DIGEST,
    POOL_CATEGORY,
    Commit,
    Message,
    StreamHead,
    Timestamp,
    Undelivered,
    WaitingMessage,
    category_of,
    pool_stream,
)
from eventstore.sqlite.attributes import AttributeChanges
from eventstore.sqlite.checking import check
from eventstore.sqlite.finding import fits
from eventstore.sqlite.leases import Judge
from eventstore.sqlite.mailboxes import Known, Mail, payload_to_row
from eventstore.sqlite.own_sql import NotApplied
from eventstore.sqlite.permits import SqlitePools
from eventstore.sqlite.requests import ClaimRequest, CommitRequest, Unclaim
from eventstore.sqlite.rows import StreamRow

__all__ = ["Batch", "answer"]

T = TypeVar("T")


class Batch:
    """The streams of one transaction, and what its requests add to the tables."""

    __slots__ = (
        "_judge",
        "_next_id",
        "_run_own",
        "_salts",
        "_salts_used",
        "alarm",
        "attributes",
        "consumed",
        "dead",
        "events",
        "known",
        "messages",
        "needy",
        "now",
        "open_tokens",
        "pools",
        "streams",
    )

    def __init__(
        self,
        *,
        now: Timestamp,
        streams: dict[str, StreamRow],
        known: dict[tuple[int, str], Known],
        last_id: int,
        open_tokens: set[int],
        judge: Judge,
        salts: bytes,
        run_own: Callable[[Commit], bytes],
        pools: SqlitePools,
    ) -> None:
        self.now = now
        self.streams = streams
        self.known = known
        self._next_id = last_id + 1
        self.open_tokens = open_tokens
        self._judge = judge
        self.pools = pools
        self._run_own = run_own  # what runs a commit's own transaction
        self._salts = salts
        self._salts_used = 0
        # What the requests brought about, for the tables; events as flat parameters, 0 for NULL.
        self.events: list[Any] = []
        self.messages: list[tuple[StreamRow, Message, Mail]] = []
        self.consumed: list[int] = []
        self.attributes = AttributeChanges()
        self.dead: set[int] = set()  # owners that lost streams to a claim
        # What it may mean for waiters.
        self.needy = False
        self.alarm: Timestamp | None = None

    def commit(self, request: CommitRequest) -> StreamHead:
        """Apply a commit. Raises what `Commit` lists, having changed nothing."""
        commit = request.commit
        row = self.streams.get(commit.stream)
        if row is not None and row.commit_id == commit.id:
            return row.first_outcome()
        check(commit, row, known=self.known, open_tokens=self.open_tokens, judge=self._judge)
        actions = None
        if commit.permits:
            actions = self._actions(commit)
            actions.perform(commit.permits)
        if commit.transaction is not None:
            request = self._with_own(request, actions)
            commit = request.commit
        if row is None:
            row = self._create(commit.stream)
            if commit.lease is not None:
                row.owner = commit.lease.token
        if commit.consumes:
            self._consume(row, commit)
        self._append(row, request)
        self._set_state(row, commit)
        limit_changed = commit.attributes is not UNSET and category_of(commit.stream) == POOL_CATEGORY
        if actions is not None or limit_changed or (row.permits and (row.closed or commit.release)):
            self._settle(row, commit, actions or self._actions(commit), limit_changed=limit_changed)
        undelivered: tuple[Undelivered, ...] = ()
        if commit.sends:
            undelivered = self._send_all(commit.sends)
        self._tell_waiters(row)
        head = row.head(undelivered)
        row.stepped = True
        row.commit_id = commit.id
        row.commit_owner = row.owner
        row.commit_claims = row.claims
        row.commit_mail = len(head.messages)
        row.commit_undelivered = _undelivered_text(undelivered)
        return head

    def send(self, message: Message) -> None:
        """Deliver a message. Raises `StreamNotFound` or `StreamClosed`."""
        match self._deliver(message):
            case "not_found":
                raise StreamNotFound(message.stream)
            case "closed":
                raise StreamClosed(message.stream)
            case None:
                return

    def claim(self, request: ClaimRequest) -> tuple[list[StreamHead], dict[str, int | None]]:
        """Own those of the candidates that still need attention; also says who owned them before.

        Raises `LeaseLost`.
        """
        token = request.token
        if token not in self.open_tokens:
            raise LeaseLost(None, token=token, reason="it has ended")
        heads: list[StreamHead] = []
        owners: dict[str, int | None] = {}
        for name in request.names:
            row = self.streams.get(name)
            if row is None or len(heads) == request.limit:
                continue
            orphan = row.owner is not None and (row.owner in request.dead or bool(row.owner_ended))
            if not (orphan or row.owner is None or row.owner == token):
                continue
            if not self._needs(row, orphan=orphan) or not fits(request.query, row):
                continue
            if orphan and row.owner is not None:
                self.dead.add(row.owner)
            owners[name] = row.owner
            self._own(row, token)
            self._hint_alarm(row)
            row.claims += 1
            heads.append(row.head())
        return heads, owners

    def unclaim(self, request: Unclaim) -> None:
        """Undo a claim whose caller went away."""
        for name, owner in request.owners.items():
            row = self.streams.get(name)
            if row is not None and row.owner == request.token:
                self._own(row, owner)
                row.claims -= 1
        self.needy = True

    def end(self, tokens: Collection[int]) -> None:
        """End leases: what they own is orphaned for the requests that follow."""
        self.open_tokens.difference_update(tokens)
        self.pools.end(tokens)
        for row in self.streams.values():
            if row.owner in tokens:
                row.owner_ended = 1
        self.needy = True

    def _actions(self, commit: Commit) -> Actions:
        token = None if commit.lease is None else commit.lease.token
        return Actions(self.pools, commit.stream, self.now, token)

    def _with_own(self, request: CommitRequest, actions: Actions | None) -> CommitRequest:
        """Run the commit's own transaction, the last that may refuse it; the commit with what it returned."""
        try:
            return request.with_payload(self._run_own(request.commit))
        except BaseException:
            if actions is not None:
                actions.undo()
            raise

    def _settle(self, row: StreamRow, commit: Commit, actions: Actions, *, limit_changed: bool) -> None:
        """What the commit means for permits, now that its stream is what it will be."""
        may_have = actions.settle(closed=bool(row.closed), released=commit.release, limit_changed=limit_changed)
        may_have = may_have and bool(row.permits or commit.permits)
        if may_have != row.permits:
            row.permits, row.changed = int(may_have), True
        for message in actions.messages():
            self.deliver(message)

    def deliver(self, message: Message) -> None:
        """Put a message of the store's own into a mailbox that may not have been loaded."""
        self.known |= self.pools.known(message)
        self._deliver(message)

    def open_pool(self, pool: StoredPool) -> None:
        """Make the stream of a pool that streams bring along, unless it is there."""
        name = pool_stream(pool.pool)
        if self.pools.stream(name) is None:
            self.attributes.merge(self._create(name), pool.attributes)

    def takes_part(self, stream: str) -> None:
        """Note that a stream may hold permits, or wait for some."""
        row = self.pools.stream(stream)
        assert row is not None
        row.permits, row.changed = 1, True

    def _needs(self, row: StreamRow, *, orphan: bool) -> bool:
        if row.control:
            return True
        if row.held or row.closed:
            return False
        return bool(row.data) or (row.alarm is not None and row.alarm <= self.now) or orphan

    def _tell_waiters(self, row: StreamRow) -> None:
        if row.alarm is not None:
            self._hint_alarm(row)
        if self._needs(row, orphan=False):
            self.needy = True

    def _hint_alarm(self, row: StreamRow) -> None:
        if row.alarm is None or row.held or row.closed:
            return
        if self.alarm is None or row.alarm < self.alarm:
            self.alarm = row.alarm

    def _own(self, row: StreamRow, owner: int | None) -> None:
        row.owner = owner
        row.owner_ended = 0
        row.changed = True

    def _create(self, name: str) -> StreamRow:
        row = StreamRow(
            self._next_id, name, 0, "", self.now, self.now, None, 0, 0, None, 0, 0, 0, None, {}, None, None, None,
            None, None, 0, 0, digest=chain_start(name), is_new=True, mailbox={},
        )  # fmt: skip
        self._next_id += 1
        self.streams[name] = row
        return row

    def _consume(self, row: StreamRow, commit: Commit) -> None:
        mailbox = row.mailbox if row.mailbox is not None else {}
        for message_id in commit.consumes:
            mail = mailbox.pop(message_id, None)
            known = self.known.get((row.id, message_id))
            if mail is not None:
                arrival, control = mail.arrival, mail.message.control
                mail.consumed = True
            else:
                assert known is not None
                arrival, control = known.arrival, bool(known.control)
            if arrival:
                self.consumed.append(arrival)
            if known is not None:
                known.waiting = 0
            if control:
                row.control -= 1
            else:
                row.data -= 1
        row.mail_at = next(iter(mailbox.values())).message.sent_at if mailbox else None
        row.changed = True

    def _append(self, row: StreamRow, request: CommitRequest) -> None:
        digest, version, stream = row.digest, row.version, row.id
        add, salts, used = self.events.extend, self._salts, self._salts_used
        for event, (header, payload) in zip(request.commit.events, request.texts, strict=True):
            version += 1
            if event.payload is None:
                digest = event_digest(digest, event.header, NO_DIGEST)
                add((stream, version, header, 0, 0, 0, bytearray(digest)))  # as `statements` says
            else:
                salt = salts[used : used + SALT_BYTES]
                used += SALT_BYTES
                of_payload = payload_digest(salt, event.payload)
                digest = event_digest(digest, event.header, of_payload)
                add((stream, version, header, payload, bytearray(salt), bytearray(of_payload), bytearray(digest)))
        row.digest, row.version, self._salts_used = digest, version, used

    def _set_state(self, row: StreamRow, commit: Commit) -> None:
        row.updated_at = self.now
        if commit.attributes is not UNSET:
            self.attributes.merge(row, commit.attributes)
        if commit.alarm is not UNSET and commit.alarm != row.alarm:
            row.alarm, row.changed = commit.alarm, True
        if commit.held is not UNSET and commit.held != row.held:
            row.held, row.changed = int(commit.held), True
        if commit.closed is not UNSET and commit.closed != row.closed:
            row.closed, row.changed = int(commit.closed), True
        if commit.progress and row.claims:
            row.claims, row.changed = 0, True
        if commit.release and row.owner is not None:
            self._own(row, None)

    def _send_all(self, messages: tuple[Message, ...]) -> tuple[Undelivered, ...]:
        undelivered = []
        for message in messages:
            reason = self._deliver(message)
            if reason is not None:
                undelivered.append(Undelivered(message.id, message.stream, reason))
        return tuple(undelivered)

    def _deliver(self, message: Message) -> Literal["not_found", "closed"] | None:
        """Put a message into its mailbox, or say why not. One that was delivered before wins over everything."""
        row = self.streams.get(message.stream)
        if row is None:
            if message.opens is None:
                return "not_found"
            row = self._create(message.stream)
            self.attributes.merge(row, message.opens.attributes)
        elif (row.id, message.id) in self.known:
            return None
        elif row.pruned or (row.closed and (message.open_only or not message.control)):
            return "closed"
        mail = Mail(
            0,
            WaitingMessage(
                id=message.id,
                sender=message.sender,
                control=message.control,
                header=message.header,
                payload=message.payload,
                sent_at=self.now,
            ),
        )
        self.messages.append((row, message, mail))
        self.known[row.id, message.id] = Known(row.id, message.id, 0, 1, int(message.control))
        if row.mailbox is not None:
            row.mailbox[message.id] = mail
        if row.control + row.data == 0:
            row.mail_at = self.now
        if message.control:
            row.control += 1
        else:
            row.data += 1
        row.changed = True
        self.needy = True
        return None

    def message_parameters(self) -> list[Any]:
        """Flat parameters of the messages to insert: those consumed already are tombstones from the start."""
        flat: list[Any] = []
        for row, message, mail in self.messages:
            if mail.consumed:
                flat += (row.id, message.id, message.sender, int(message.control), None, None, self.now, self.now)
            else:
                flat += (
                    row.id, message.id, message.sender, int(message.control), message.header.decode(),
                    payload_to_row(message.payload), self.now, None,
                )  # fmt: skip
        return flat


def answer(apply: Callable[[T], Any], request: T) -> Any:
    """The value of a request, or the reason why it is refused, as a value."""
    try:
        return apply(request)
    except EventStoreError as refusal:
        return refusal
    except NotApplied as refusal:
        return refusal.error


def _undelivered_text(undelivered: tuple[Undelivered, ...]) -> str | None:
    if not undelivered:
        return None
    return encode([(each.id, each.stream, each.reason) for each in undelivered]).decode()
