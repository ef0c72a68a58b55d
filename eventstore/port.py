"""The store port: durable actors.

A **stream** is a durable actor: a history, a mailbox, an alarm, searchable attributes, and at most one lease holder.
This file, with `eventstore.limits` and `eventstore.sharing`, whose names it hands on, is the whole contract between a
store and whoever uses it. It knows nothing of workflows, of SQL, of files or of clocks; a store that keeps what is
promised here, and passes `eventstore.conformance`, is a store.

Promises every store keeps:

* **Atomic.** A `Commit` happens wholly or not at all, and is durable when `commit` returns.
* **Fenced.** A commit under a lease is refused (`LeaseLost`) unless that lease's token owns the stream *in the same
  transaction*; a commit without a lease is refused while a live lease owns the stream.
* **Ordered.** Versions of a stream are 1, 2, 3 ... without a gap; positions rise in commit order over the whole log,
  and no reader of `read_all` ever sees a gap filled later.
* **Level-triggered.** Whether a stream needs attention is computed from what is stored, never from an edge.
* **Idempotent.** A message id is delivered to a stream at most once, for ever; a repeated last commit returns its
  first outcome.
* **Cancellable.** Cancelling a caller never half-applies anything: it happened or it did not.

Times are integer microseconds since the Unix epoch (`Timestamp`). Names of streams are ``category:name``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from msgspec import UNSET, Struct, UnsetType

from eventstore.limits import (
    ATTRIBUTE_BYTES_MAX,
    CLAIM_LIMIT_MAX,
    COMMIT_EVENTS_MAX,
    COMMIT_MESSAGES_MAX,
    COMMIT_PERMITS_MAX,
    CONTROL_BYTES,
    CONTROL_PAGE,
    FIND_LIMIT_MAX,
    GRANT_SECONDS,
    HEADER_BYTES_MAX,
    MAILBOX_BYTES,
    MAILBOX_PAGE,
    NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    POOL_BYTES_MAX,
    TRANSACTION_SECONDS_MAX,
)
from eventstore.sharing import POOL_CATEGORY, Permit, pool_stream

__all__ = [
    "ATTRIBUTE_BYTES_MAX",
    "CLAIM_LIMIT_MAX",
    "COMMIT_EVENTS_MAX",
    "COMMIT_MESSAGES_MAX",
    "COMMIT_PERMITS_MAX",
    "CONTROL_BYTES",
    "CONTROL_PAGE",
    "FIND_LIMIT_MAX",
    "GRANT_SECONDS",
    "HEADER_BYTES_MAX",
    "MAILBOX_BYTES",
    "MAILBOX_PAGE",
    "NAME_BYTES_MAX",
    "NEW",
    "NO_DIGEST",
    "PAYLOAD_BYTES_MAX",
    "POOL_BYTES_MAX",
    "POOL_CATEGORY",
    "TRANSACTION_SECONDS_MAX",
    "Capability",
    "Commit",
    "CommitId",
    "EventStore",
    "Lease",
    "Message",
    "MessageId",
    "NewEvent",
    "Opening",
    "Page",
    "Permit",
    "RecordedEvent",
    "Scalar",
    "StreamHead",
    "StreamQuery",
    "Timestamp",
    "Transaction",
    "Undelivered",
    "WaitingMessage",
    "category_of",
    "pool_stream",
]

T = TypeVar("T")

Timestamp: TypeAlias = int
"""Microseconds since the Unix epoch, UTC."""
CommitId: TypeAlias = str
MessageId: TypeAlias = str
Scalar: TypeAlias = str | int | float | bool | None
Capability: TypeAlias = Literal["keeping", "moving", "permits", "transaction"]
"""Optional parts of the port. A commit that uses one the store does not declare is refused, never half-obeyed. A store
that declares "moving" keeps a second port, too: `eventstore.moving.MovingStore`; one that declares "keeping",
`eventstore.keeping.Keeping`."""

NEW: Final = -1
"""`Commit.expected_version` for a stream that must not exist yet. (0: it does, opened by a message, with no events.)"""
NO_DIGEST: Final = bytes(32)
"""Stands for the payload digest of an event that never had a payload."""


class NewEvent(Struct, frozen=True, gc=False):
    """An event to append: a header that says what happened, and the user's values, if any."""

    header: bytes  # a JSON object, UTF-8; stored and hashed as these bytes
    payload: bytes | None = None  # opaque; JSON in UTF-8 is stored as text, anything else as a blob


class RecordedEvent(Struct, frozen=True, gc=False):
    """An event as stored. `payload` and `salt` are None once destroyed (or never there: `payload_digest` tells)."""

    stream: str
    version: int  # 1-based index in its stream
    position: int  # index in the whole log; rises in commit order, may skip
    header: bytes
    payload: bytes | None
    salt: bytes | None  # 16 random bytes, only with a payload
    payload_digest: bytes  # SHA-256(salt || payload), NO_DIGEST without a payload
    digest: bytes  # the chain; see eventstore.digest


class Opening(Struct, frozen=True, kw_only=True):
    """How a message creates the stream that it goes to, if it is not there yet (at version 0, with no events)."""

    attributes: Mapping[str, Scalar] = {}


class Message(Struct, frozen=True, kw_only=True):
    """One-way mail into a stream's mailbox. The same id to the same stream is delivered once, for ever.

    A *control* message is for the engine (cancel, resume): it wakes a held stream too, and a closed stream takes it
    (as a no-op for its owner to consume) unless it is `open_only`. A *data* message is for the author's code and is
    refused by a closed stream. A message that was delivered before is never refused.

    Data messages of one sender are shown and arrive in the order they were sent, and so do its control messages; where
    more wait than a `StreamHead` shows, a control message overtakes the data messages beyond the page.
    """

    id: MessageId
    stream: str  # to
    header: bytes  # a JSON object, UTF-8
    payload: bytes | None = None
    sender: str | None = None  # from; see above for the order
    control: bool = False
    open_only: bool = False  # a closed stream refuses it though it is control mail: its sender wants to know
    opens: Opening | None = None


class WaitingMessage(Struct, frozen=True, kw_only=True):
    """A message as it waits in a mailbox, in order of arrival."""

    id: MessageId
    sender: str | None
    control: bool
    header: bytes
    payload: bytes | None
    sent_at: Timestamp


class Undelivered(Struct, frozen=True):
    """A send of a commit that found no open stream: reported in the outcome, never a refusal."""

    id: MessageId
    stream: str
    reason: Literal["not_found", "closed"]


class Transaction(Protocol):
    """What `Commit.transaction` is given: SQL on the caller's own tables, in the transaction that writes the commit.

    Usable until the function returns, on the thread that it is called on. Both methods raise `TransactionRefused` for
    what is not allowed (the store's own tables, transaction control, settings, what is temporary or attached, more time
    than there is), and the database's own errors as they are.
    """

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> list[tuple[Any, ...]]:
        """Execute one statement; all its rows."""

    def executemany(self, sql: str, rows: Iterable[Sequence[Any] | Mapping[str, Any]], /) -> None:
        """Execute one statement that writes, once for each row of parameters."""


@runtime_checkable
class Lease(Protocol):
    """One per worker: the right to own streams. `token` rises with every lease ever given (the fencing token)."""

    @property
    def token(self) -> int: ...
    @property
    def worker(self) -> str: ...
    @property
    def lag(self) -> float:
        """Seconds by which the event loop was late at the last beat, as the beating thread saw it."""

    def fresh(self) -> bool:
        """Whether nobody else can believe this lease dead yet, on a monotonic clock; asked before an effect begins.

        False after a pause longer than the lease's time to live, or once it ended. Costs no I/O.
        """


class Commit(Struct, frozen=True, kw_only=True):  # seen by the garbage collector, for `transaction` may be anything
    """One atomic step of one stream: all of it happens, or none.

    Order of refusal, each leaving everything as it was: `InvalidArgument` / `CommitTooLarge` /
    `UnsupportedCapability`, then (unless `id` is the stream's last commit, whose outcome is returned again)
    `VersionConflict` of a `NEW` stream that exists, `LeaseLost`, `VersionConflict`, `UnknownMessage`, `MailWaiting`,
    `UnknownPool` / `LimitReached`, what `transaction` raises.
    So who asks for a new stream learns whether the name is taken, whoever owns it, and `LeaseLost` then says that it is
    not; who writes to a stream that is another's learns that first, whatever version it believed in.

    `drained` is how a stream is closed, or given up for good, without losing mail: the commit is refused with
    `MailWaiting` while data messages wait in the stream's mailbox that it does not consume, however many there are
    and whether or not a head has shown them. It is checked with the write, so of a commit that closes a drained stream
    and a data message sent meanwhile exactly one is refused: whoever was told that a message was delivered was told
    the truth. Control messages do not count; a NEW stream's mailbox is empty; what the commit itself sends to its own
    stream arrives behind it.

    Of `permits` all are had, in order, or none; see `Permit`.

    `transaction` writes the caller's own tables together with the commit: both are durable, or neither. It is called
    in the store's transaction, on a thread of the store's, and not before everything else that could refuse the commit
    was looked at. What it returns, at most PAYLOAD_BYTES_MAX, becomes the payload of the first event, which must be
    given without one. What it raises comes out of `commit` as it is (what is no `Exception` as the cause of a
    `TransactionRefused`) and refuses this commit alone. It has `TRANSACTION_SECONDS_MAX`. A repeated last commit does
    not call it; but it may be called anew, its first effects undone, so it should do nothing but SQL.
    """

    id: CommitId  # a retry of a stream's last commit, its outcome not seen, returns the first outcome
    stream: str
    expected_version: int  # optimistic concurrency; NEW = must not exist yet
    events: tuple[NewEvent, ...] = ()
    consumes: tuple[MessageId, ...] = ()  # mailbox messages these events answer; an unknown id refuses the commit
    sends: tuple[Message, ...] = ()  # into other streams' mailboxes: the outbox, same transaction
    alarm: Timestamp | UnsetType | None = UNSET  # when somebody must look at this stream again; None: never
    held: bool | UnsetType = UNSET  # paused, suspended, parked: only control messages count as attention
    closed: bool | UnsetType = UNSET  # finished: the mailbox refuses data messages, so their sender learns it
    drained: bool = False  # refused while data messages wait that this commit does not consume
    attributes: Mapping[str, Scalar] | UnsetType = UNSET  # merged; None removes; indexed; written only when changed
    permits: tuple[Permit, ...] = ()  # capability "permits": see `Permit`
    transaction: Callable[[Transaction], bytes] | None = None  # capability "transaction"; see above
    lease: Lease | None = None  # fenced; a NEW stream committed under a lease is owned by it
    # Give the stream up: idle, may be claimed by anyone when it needs attention; what permits it holds are returned.
    release: bool = False
    progress: bool = False  # these events hold a fact: whoever claimed the stream got somewhere; its claims are reset


class StreamHead(Struct, frozen=True, kw_only=True, gc=False):
    """What a stream is now. `commit` returns the head after it."""

    stream: str
    version: int  # 0: no events yet
    digest: bytes  # of the last event; the chain's start when there is none
    created_at: Timestamp
    updated_at: Timestamp  # of the last commit
    alarm: Timestamp | None
    held: bool
    closed: bool
    owner: int | None  # token of the lease that owns it (which may have ended)
    claims: int  # claims since the last commit with progress
    attributes: Mapping[str, Scalar]
    pruned: bool = False  # its events were taken away but for the last; see `eventstore.keeping`
    # In order of arrival: the first MAILBOX_PAGE or MAILBOX_BYTES of the waiting messages, and what is not among them
    # of the first CONTROL_PAGE or CONTROL_BYTES of the control messages. Empty in what `find` returns.
    messages: tuple[WaitingMessage, ...] = ()
    undelivered: tuple[Undelivered, ...] = ()  # only in what `commit` returns


class StreamQuery(Struct, frozen=True, kw_only=True):
    """Which streams: every condition given must hold. `find` returns newest created first (or oldest)."""

    category: str | None = None
    streams: tuple[str, ...] | None = None  # only these names
    attributes: Mapping[str, Scalar | tuple[Scalar, ...]] = {}  # equal, or one of; an absent attribute equals None
    closed: bool | None = None
    held: bool | None = None
    control: bool | None = None  # whether control messages wait
    pruned: bool | None = False  # None: whether or not it was
    created_from: Timestamp | None = None  # inclusive
    created_until: Timestamp | None = None  # exclusive
    newest_first: bool = True
    limit: int = 100  # 1 .. FIND_LIMIT_MAX
    cursor: str | None = None  # `Page.next` of the page before; opaque


class Page(Struct, Generic[T], frozen=True):
    """One page by keyset: `next` is the cursor of the following page, None on the last."""

    items: tuple[T, ...]
    next: str | None = None


class EventStore(Protocol):
    """Ten methods. All are safe to call concurrently; all raise `StoreClosed` after `aclose`, `StoreUnavailable` when
    the medium fails, `InvalidArgument` on malformed arguments.
    """

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The optional parts of the port that this store keeps."""

    async def commit(self, commit: Commit) -> StreamHead:
        """Apply one step, durably. Concurrent commits share one transaction; a refused one harms no other.

        Raises what `Commit` lists. A caller cancelled while waiting leaves the commit applied or not, never half; the
        same `Commit` may be sent again and returns the first outcome if it was the stream's last.
        An undeliverable send is reported in the head, not raised.
        """

    async def send(self, message: Message) -> None:
        """Put a message into a mailbox, durably. A repeated id is accepted and does nothing, also once consumed.

        Raises `StreamNotFound` (and `message.opens` is None), `StreamClosed` (a closed stream, and a data message or
        one that is `open_only`).
        """

    async def head(self, stream: str) -> StreamHead:
        """The stream now, with its waiting messages. Raises `StreamNotFound`."""

    def read(
        self, stream: str, *, after: int = 0, until: int | None = None, proof: bool = True
    ) -> AsyncIterator[RecordedEvent]:
        """Events with ``after < version <= until``, in order, in bounded memory. Raises `StreamNotFound`.

        Without `until`: up to the version the stream had when the reading began. May be left early. `proof`: whether
        anybody will look at salts and digests; else a store may save itself reading them: no salt, and `NO_DIGEST`.
        """

    def read_all(self, *, after: int = 0, category: str | None = None) -> AsyncIterator[RecordedEvent]:
        """Events of all streams with ``position > after`` in commit order, up to the log's end when reading began."""

    async def find(self, query: StreamQuery) -> Page[StreamHead]:
        """A page of the streams that fit, by creation time then name; concurrent writes never repeat or skip one
        that was there throughout.
        """

    def lease(self, worker: str) -> AbstractAsyncContextManager[Lease]:
        """A new lease with a token higher than any before. On leaving it ends: its streams are orphans at once."""

    async def claim(
        self, lease: Lease, *, query: StreamQuery, limit: int, busy: Collection[str] = ()
    ) -> list[StreamHead]:
        """Own and return up to `limit` streams that fit `query`, need attention, and are unowned, orphaned (their
        owner's lease has ended or died) or already this lease's; never one named in `busy` (the caller's in flight).

        A stream needs attention when it is not closed and has a control message; or is not closed, not held, and has
        a data message, or an alarm due, or an owner whose lease has ended; or is closed and has a control message
        (its owner consumes it as a no-op). Each returned stream's `claims` was raised by one, durably, before this
        returns. Longest in need first, roughly. `query.limit`, `cursor` and `newest_first` do not matter here.
        Raises `LeaseLost` when the lease has ended.
        """

    async def wait(self, lease: Lease, *, timeout: float) -> None:
        """Sleep until there may be something for this worker to claim, at most `timeout` seconds.

        Returns early on any commit or message by anyone that may have made a stream need attention, when an alarm
        falls due, when another lease ends; spurious returns are allowed, a missed wake-up costs at most `timeout`.
        Never misses one that happened between the caller's last `claim` and this call.
        """

    async def aclose(self) -> None:
        """Close; waits for commits under way, refuses new ones. Closing twice does nothing."""


def category_of(stream: str) -> str:
    """The part of a stream's name before its first colon: ``run`` of ``run:nightly-1``."""
    return stream.partition(":")[0]
