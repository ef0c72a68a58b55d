"""What arrives from another store, item by item: believed only once it was checked.

It promises that what passes is whole and unaltered as far as that can be seen (every chain is computed again, every
name and number is one that a store takes), in memory in proportion to the streams, never to their events. It
deliberately does not know what is stored here already.
"""

from __future__ import annotations

from typing import Any, Final

from eventstore.digest import NO_DIGEST, SALT_BYTES, chain_start, event_digest, payload_digest
from eventstore.errors import EventStoreError, InvalidArgument, NotInstallable
from eventstore.keeping import KeptDigest
from eventstore.limits import MOVED_STREAMS_MAX, POOL_BYTES_MAX
from eventstore.moving import (
    CONSUMED_PAGE,
    ITEM_ORDER,
    ConsumedMessages,
    Item,
    StoredMessage,
    StoredPermit,
    StoredPool,
    StoredStream,
    StoredWaiter,
)
from eventstore.port import Message, RecordedEvent, pool_stream
from eventstore.validation import (
    validate_attributes,
    validate_header,
    validate_message,
    validate_name,
    validate_payload,
    validate_stream,
    validate_timestamp,
)

__all__ = ["Arrivals"]

_INT64_MAX: Final = (1 << 63) - 1
_LEAVES: Final = ITEM_ORDER.index(KeptDigest)  # from here on items stand for events, of both kinds mixed


class _Place:
    """How far a stream has arrived."""

    __slots__ = ("digest", "item", "kept", "version")

    def __init__(self, item: StoredStream) -> None:
        self.item: Final = item
        self.version = 0
        self.kept = 0  # the last version that was pruned
        self.digest = chain_start(item.stream)


class Arrivals:
    """Items as they arrive: each is checked before anybody believes it, and at the end that nothing is missing."""

    def __init__(self) -> None:
        self._places: Final[dict[str, _Place]] = {}
        self._pools: Final[set[str]] = set()
        self._holders: Final[set[tuple[str, str]]] = set()
        self._stage = 0
        self._open = 0  # streams whose events have not all arrived
        self.events = 0

    @property
    def streams(self) -> int:
        """How many have been announced."""
        return len(self._places)

    def take(self, item: Item) -> None:
        """The next item. Raises `NotInstallable`."""
        stream = getattr(item, "stream", None)
        version = item.version if isinstance(item, RecordedEvent | KeptDigest) else None
        try:
            self._in_turn(item)
            self._take(item)
        except NotInstallable:
            raise
        except EventStoreError as error:
            raise NotInstallable(stream, version=version, reason=str(error)) from error
        except (RecursionError, TypeError, AttributeError, ValueError) as error:
            reason = f"it is malformed ({type(error).__name__}: {error})"
            raise NotInstallable(stream, version=version, reason=reason) from error

    def finish(self) -> None:
        """There are no more. Raises `NotInstallable` when something is missing."""
        if self._open:
            place = next(each for each in self._places.values() if each.version < each.item.version)
            reason = f"{place.item.version:,} events were announced, and {place.version:,} came"
            raise NotInstallable(place.item.stream, reason=reason)

    def _in_turn(self, item: Item) -> None:
        stage = min(ITEM_ORDER.index(type(item)), _LEAVES) if type(item) in ITEM_ORDER else -1
        if stage < self._stage:
            what = type(item).__name__
            raise NotInstallable(getattr(item, "stream", None), reason=f"a {what} stands where none can be")
        self._stage = stage

    def _take(self, item: Item) -> None:
        match item:
            case RecordedEvent():
                self._event(item)
            case StoredStream():
                self._stream(item)
            case KeptDigest():
                self._kept(item)
            case StoredMessage():
                self._mail(item.stream)
                _validate_waiting(item)
            case ConsumedMessages():
                self._mail(item.stream)
                _validate_consumed(item)
            case StoredPool():
                _validate_pool(item)
                if item.pool in self._pools:
                    raise InvalidArgument(f"pool {item.pool!r} comes twice")
                self._pools.add(item.pool)
            case StoredPermit() | StoredWaiter():
                self._known(item.stream)
                self._part(item)

    def _part(self, item: StoredPermit | StoredWaiter) -> None:
        if item.pool not in self._pools:
            raise InvalidArgument(f"it takes part in a pool {item.pool!r} that was not announced")
        _validate_part(item)
        if (item.pool, item.holder) in self._holders:
            raise InvalidArgument(f"holder {item.holder!r} of pool {item.pool!r} comes twice")
        self._holders.add((item.pool, item.holder))

    def _mail(self, stream: str) -> None:
        if self._known(stream).item.pruned:
            raise NotInstallable(stream, reason="it was pruned, and has no mail")

    def _known(self, stream: str) -> _Place:
        place = self._places.get(stream)
        if place is None:
            raise NotInstallable(stream, reason="it was not announced")
        return place

    def _stream(self, item: StoredStream) -> None:
        validate_stream(item.stream)
        if item.stream in self._places:
            raise NotInstallable(item.stream, reason="it comes twice")
        if len(self._places) >= MOVED_STREAMS_MAX:
            raise NotInstallable(item.stream, reason=f"more than {MOVED_STREAMS_MAX:,} streams come at once")
        _validate_count(item.version, "version")
        if type(item.digest) is not bytes or len(item.digest) != len(NO_DIGEST):
            raise InvalidArgument("its digest is not 32 bytes")
        validate_timestamp(item.created_at, "created_at")
        validate_timestamp(item.updated_at, "updated_at")
        if item.alarm is not None:
            validate_timestamp(item.alarm, "alarm")
        _validate_flags(held=item.held, closed=item.closed, pruned=item.pruned)
        validate_attributes(item.attributes)
        if None in item.attributes.values():
            raise InvalidArgument("an attribute is null: it would be absent")
        place = self._places[item.stream] = _Place(item)
        if item.version:
            self._open += 1
        elif place.digest != item.digest:
            raise NotInstallable(item.stream, reason="it has no events, and a digest")

    def _kept(self, kept: KeptDigest) -> None:
        """What is left of an event: believed as far as the chain goes on from the last of them."""
        place = self._next(kept)
        reason = None
        if not place.item.pruned:
            reason = "it was pruned, and its stream is not said to be: the removal is not finished"
        elif place.version != place.kept:
            reason = "it was pruned, and an event before it was not"
        elif kept.version == place.item.version:
            reason = "it was pruned, and is the last of its stream, which stays"
        elif type(kept.digest) is not bytes or len(kept.digest) != len(NO_DIGEST):
            reason = "its digest is not 32 bytes"
        if reason is not None:
            raise NotInstallable(kept.stream, version=kept.version, reason=reason)
        _validate_count(kept.pruned_at, "the position of what was pruned")
        place.version = place.kept = kept.version
        place.digest = kept.digest

    def _next(self, leaf: RecordedEvent | KeptDigest) -> _Place:
        place = self._known(leaf.stream)
        if leaf.version != place.version + 1 or leaf.version > place.item.version:
            reason = f"version {place.version + 1} of {place.item.version} is to come"
            raise NotInstallable(leaf.stream, version=leaf.version, reason=reason)
        return place

    def _event(self, event: RecordedEvent) -> None:
        place = self._next(event)
        if place.item.pruned and not place.kept:
            reason = "its stream is said to be pruned, and none of its events was"
            raise NotInstallable(event.stream, version=event.version, reason=reason)
        validate_header(event.header, "event of", event.stream)
        if (wrong := _wrong_with_payload(event)) is not None:
            raise NotInstallable(event.stream, version=event.version, reason=wrong)
        digest = event_digest(place.digest, event.header, event.payload_digest)
        if digest != event.digest:
            reason = "its digest does not follow from what it says and the event before it: it was changed"
            raise NotInstallable(event.stream, version=event.version, reason=reason)
        place.version, place.digest = event.version, digest
        self.events += 1
        if event.version == place.item.version:
            self._open -= 1
            if digest != place.item.digest:
                reason = "the stream was announced with another digest at its end"
                raise NotInstallable(event.stream, version=event.version, reason=reason)


def _wrong_with_payload(event: RecordedEvent) -> str | None:
    if type(event.payload_digest) is not bytes or len(event.payload_digest) != len(NO_DIGEST):
        return "its payload digest is not 32 bytes"
    if event.payload is None:
        return None if event.salt is None else "it has a salt and no payload: only both together can be destroyed"
    validate_payload(event.payload, "event of", event.stream)
    if type(event.salt) is not bytes or len(event.salt) != SALT_BYTES:
        return f"its payload has no salt of {SALT_BYTES} bytes"
    if payload_digest(event.salt, event.payload) != event.payload_digest:
        return "its payload is not the one that was recorded: it was changed"
    return None


def _validate_waiting(item: StoredMessage) -> None:
    validate_message(
        Message(id=item.id, stream=item.stream, header=item.header, payload=item.payload, sender=item.sender)
    )
    _validate_flags(control=item.control)
    validate_timestamp(item.sent_at, "sent_at")


def _validate_consumed(item: ConsumedMessages) -> None:
    if not 0 < len(item.ids) <= CONSUMED_PAGE:
        raise InvalidArgument(f"it lists {len(item.ids)} consumed messages, 1 to {CONSUMED_PAGE} may be")
    for message_id in item.ids:
        validate_name(message_id, "message id")


def _validate_pool(item: StoredPool) -> None:
    validate_name(item.pool, "pool")
    if len(item.pool.encode()) > POOL_BYTES_MAX:
        raise InvalidArgument(f"the name of pool {item.pool[:40]!r}... has more than {POOL_BYTES_MAX} bytes")
    validate_stream(pool_stream(item.pool))
    _validate_count(item.arrivals, "arrivals of a pool")
    for priority, tag in item.turns.items():
        validate_timestamp(priority, "priority")
        _validate_count(tag, "tag of a turn")
    validate_attributes(item.attributes)


def _validate_part(item: StoredPermit | StoredWaiter) -> None:
    validate_name(item.holder, "holder")
    if item.key != "":
        validate_name(item.key, "key of a permit")
    if type(item.priority) is not int or not -_INT64_MAX <= item.priority <= _INT64_MAX:
        raise InvalidArgument(f"a priority must be an int of 64 bits, not {item.priority!r}")
    if isinstance(item, StoredPermit):
        validate_timestamp(item.taken_at, "taken_at")
        return
    _validate_flags(lasting=item.lasting)
    _validate_count(item.tag, "tag")
    _validate_count(item.arrival, "arrival")


def _validate_flags(**flags: Any) -> None:
    for name, value in flags.items():
        if type(value) is not bool:
            raise InvalidArgument(f"{name} must be True or False, not {value!r}")


def _validate_count(value: int, what: str) -> None:
    if type(value) is not int or not 0 <= value <= _INT64_MAX:
        raise InvalidArgument(f"{what} must be 0 or more, of 64 bits, not {value!r}")
