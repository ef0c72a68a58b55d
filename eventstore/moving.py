"""Moving streams between stores: a second port beside `eventstore.port`, for stores that declare "moving".

`dump` gives out streams as they stand, item by item; `install` takes such items in. What moves is everything that
a stream is: its events byte for byte (payloads that were destroyed stay so; of events that were pruned what is left),
the messages that wait, the ids of those that were consumed (so that a duplicate is delivered nowhere twice), alarm,
held, closed, pruned, attributes, times, what it holds lastingly of pools, and its places in their queues. What belongs
to a worker stays: owner, leases, claims, and permits that a lease holds. Positions are the log's own, so they are new
ones where streams are installed; of an event that was pruned the one that it had then goes along (`KeptDigest.was`),
for what was said of it speaks of that.

Items come in the order of `ITEM_ORDER`: first what all streams are, last their events, and what is left of such, so
that whoever takes them in knows from the beginning where each chain must end.

This module is the contract; what stores check of what arrives is in `eventstore.arrivals`. It deliberately does not
know how anything is stored, nor how items travel: `engine.moving` writes them into files.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias, cast, runtime_checkable

from msgspec import Struct

from eventstore.errors import StreamDiffers, UnsupportedCapability
from eventstore.keeping import KeptDigest
from eventstore.port import Commit, EventStore, MessageId, RecordedEvent, Scalar, Timestamp

__all__ = [
    "CONSUMED_PAGE",
    "GRANT_PREFIX",
    "ITEM_ORDER",
    "ConsumedMessages",
    "Installed",
    "Item",
    "MovingStore",
    "StoredMessage",
    "StoredPermit",
    "StoredPool",
    "StoredStream",
    "StoredWaiter",
    "moving_store",
    "relation",
]

CONSUMED_PAGE: Final = 1_000
"""Ids in one `ConsumedMessages`."""
GRANT_PREFIX: Final = "permit-granted:"
"""Begins the ids of the messages by which a store grants permits. It counts them itself, and sends none of them twice:
consumed ones do not move, as they would stand in the way of those that the other store counts.
"""


class StoredStream(Struct, frozen=True, kw_only=True):
    """A stream but for its events and its mailbox, which follow."""

    stream: str
    version: int  # how many events follow, or what is left of them
    digest: bytes  # of the last
    created_at: Timestamp
    updated_at: Timestamp
    alarm: Timestamp | None
    held: bool
    closed: bool
    attributes: Mapping[str, Scalar]
    pruned: bool = False  # of its oldest events digests follow; it has no mail


class StoredMessage(Struct, frozen=True, kw_only=True):
    """A message that waits, in order of arrival in its stream."""

    stream: str
    id: MessageId
    sender: str | None
    control: bool
    header: bytes
    payload: bytes | None
    sent_at: Timestamp


class ConsumedMessages(Struct, frozen=True, kw_only=True):
    """Ids of messages that a stream has consumed, sorted; at most `CONSUMED_PAGE` of them."""

    stream: str
    ids: tuple[MessageId, ...]


class StoredPool(Struct, frozen=True, kw_only=True):
    """What is counted of a pool that the streams take part in, and what makes it one.

    Where its stream ``pool:<pool>`` moves along, the pool goes on as it was. Else those who hold or wait join the pool
    that is there; if there is none, its stream is opened with these attributes.
    """

    pool: str
    arrivals: int  # how many have ever joined its queue
    turns: Mapping[int, int]  # by priority: the tag of the last granted
    attributes: Mapping[str, Scalar]


class StoredPermit(Struct, frozen=True, kw_only=True):
    """A lasting permit that a stream holds."""

    stream: str
    pool: str
    holder: str
    priority: int
    key: str
    taken_at: Timestamp


class StoredWaiter(Struct, frozen=True, kw_only=True):
    """A stream's place in the queue of a pool, lasting or not."""

    stream: str
    pool: str
    holder: str
    priority: int
    key: str
    tag: int
    arrival: int
    lasting: bool


Item: TypeAlias = (
    StoredStream
    | StoredMessage
    | ConsumedMessages
    | StoredPool
    | StoredPermit
    | StoredWaiter
    | KeptDigest
    | RecordedEvent
)
ITEM_ORDER: Final[tuple[type[Item], ...]] = (
    StoredStream,
    StoredMessage,
    ConsumedMessages,
    StoredPool,
    StoredPermit,
    StoredWaiter,
    KeptDigest,
    RecordedEvent,
)
"""All of one kind come before the first of the next; but the last two stand for events, and come in the order of those.
"""


class Installed(Struct, frozen=True, kw_only=True):
    """What `install` did: how many streams and events are new, and how many streams were there already."""

    streams: int
    events: int
    same: int


@runtime_checkable
class MovingStore(Protocol):
    """What a store that declares "moving" can do beside the port."""

    def dump(self, streams: Sequence[str] | None = None) -> AsyncGenerator[Item, None]:
        """Streams as they stand at one moment, whoever writes meanwhile; None: all of them, events in commit order.

        Of some, events come stream by stream, streams in the order they were made. In bounded memory. Of a stream that
        is being pruned, or is pruned before its events were given out, digests come in place of events, and it is not
        said to be pruned: `install` refuses it. Raises `StreamNotFound`. Close the generator (`contextlib.aclosing`) if
        it is left early.
        """

    async def install(self, items: Iterable[Item], *, behind: Commit | None = None) -> Installed:
        """Take in what `dump` gave out: all of it or nothing, in one transaction, durably when this returns.

        Events go to the log's end, in their order. A stream that is here with the same events stays as it is, whatever
        else has become of it. `behind` is a commit (without a lease, messages, permits or a transaction of its own)
        that is part of it, unless there is nothing new: who did this, and why. `items` is walked on a thread of the
        store's, while nobody else can write, and in bounded memory; what it raises undoes all and comes out.

        Raises `NotInstallable` for what was changed or is incomplete, `StreamDiffers` for a stream that is here with
        other events, with fewer or with more; `LimitReached` where a lasting permit is held by somebody else here, and
        what `Commit` lists for `behind`. Cancelling the caller does not stop it.
        """


def moving_store(store: EventStore) -> MovingStore:
    """The store's second port. Raises `UnsupportedCapability` if it does not have it."""
    if "moving" not in store.capabilities or not isinstance(store, MovingStore):
        raise UnsupportedCapability(
            f"{type(store).__name__} cannot give out or take in streams: its capabilities are"
            f" {sorted(store.capabilities)}"
        )
    return cast("MovingStore", store)


def relation(item: StoredStream, version: int, digest: bytes, *, prefix: bytes | None, pruned: bool = False) -> None:
    """Nothing if the stream that is here, with that version and digest, is the one to install.

    `prefix`: the digest at the shorter one's end of the longer one, if that can be known. `pruned`: whether the one
    that is here is. Raises `StreamDiffers`.
    """
    if (item.version, item.digest) == (version, digest):
        return
    reason = f"has other events ({version:,} here, {item.version:,} there)"
    if pruned and not item.pruned and version > item.version and prefix == item.digest:
        reason = f"was pruned here since: its {item.version:,} events are not brought back"
    elif item.pruned and not pruned and version < item.version:
        reason = f"has its {version:,} events here, and was pruned there: prune it here, too"
    elif version > item.version and prefix == item.digest:
        reason = f"has gone on: it has {version:,} events, the first {item.version:,} of which are those to install"
    elif version < item.version and version == 0:
        reason = f"has no events yet, and {item.version:,} are to be installed"
    raise StreamDiffers(item.stream, here=version, there=item.version, reason=reason)
