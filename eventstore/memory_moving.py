"""How the memory store gives out and takes in streams: `eventstore.moving` in dicts, its readable specification.

`dump` looks at what is asked for at one moment, and hands it on; `Taken` builds what arrives beside what is there, and
puts it there in one go. Both belong to the rules, and look into `Streams` as they do. They deliberately do not know the
event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from eventstore.arrivals import Arrivals
from eventstore.errors import NotInstallable
from eventstore.joining import Joining
from eventstore.keeping import KeptDigest, Leaf
from eventstore.moving import (
    CONSUMED_PAGE,
    GRANT_PREFIX,
    ConsumedMessages,
    Installed,
    Item,
    StoredMessage,
    StoredPermit,
    StoredPool,
    StoredStream,
    StoredWaiter,
    relation,
)
from eventstore.port import Commit, RecordedEvent, Timestamp, WaitingMessage, pool_stream
from eventstore.rules import Streams
from eventstore.stream import Stream

__all__ = ["Taken", "dump"]


def dump(streams: Streams, names: Sequence[str] | None) -> Iterator[Item]:
    """The items of some streams, or of all, as they stand when the first is asked for. Raises `StreamNotFound`."""
    if names is None:
        chosen, log = list(streams._streams.values()), streams.log
        ends = [(log, len(log))]
    else:
        wanted = {streams.existing(name).name for name in names}
        chosen = [stream for stream in streams._streams.values() if stream.name in wanted]
        ends = [(stream.events, len(stream.events)) for stream in chosen]
    yield from list(_state(streams, chosen, everything=names is None))
    for events, end in ends:
        for index in range(end):  # a list that others append to
            yield events[index]


def _state(streams: Streams, chosen: list[Stream], *, everything: bool) -> Iterator[Item]:
    for stream in chosen:
        yield StoredStream(
            stream=stream.name,
            version=len(stream.events),
            digest=stream.digest,
            created_at=stream.created_at,
            updated_at=stream.updated_at,
            alarm=stream.alarm,
            held=stream.held,
            closed=stream.closed,
            attributes=stream.attributes,
            pruned=stream.pruned,
        )
    for stream in chosen:
        for mail in stream.mailbox.values():
            yield StoredMessage(
                stream=stream.name,
                id=mail.id,
                sender=mail.sender,
                control=mail.control,
                header=mail.header,
                payload=mail.payload,
                sent_at=mail.sent_at,
            )
    for stream in chosen:
        consumed = (each for each in stream.delivered if each not in stream.mailbox)
        kept = sorted(each for each in consumed if not each.startswith(GRANT_PREFIX))
        for start in range(0, len(kept), CONSUMED_PAGE):
            yield ConsumedMessages(stream=stream.name, ids=tuple(kept[start : start + CONSUMED_PAGE]))
    yield from _permits(streams, {stream.name for stream in chosen}, everything=everything)


def _permits(streams: Streams, names: set[str], *, everything: bool) -> Iterator[Item]:
    pools: list[Item] = []
    permits: list[Item] = []
    waiters: list[Item] = []
    for pool in streams._pools.everything():
        lasting = [(holder, held) for holder, held in pool.lasting() if held.stream in names]
        queue = [(holder, waiting) for holder, waiting in pool.queue() if waiting.stream in names]
        if not (lasting or queue or (everything and pool.arrivals)) and not any(map(pool.of_stream, names)):
            continue
        attributes = streams.existing(pool_stream(pool.name)).attributes
        pools.append(StoredPool(pool=pool.name, arrivals=pool.arrivals, turns=dict(pool.turns), attributes=attributes))
        for holder, held in lasting:
            permits.append(
                StoredPermit(
                    stream=held.stream,
                    pool=pool.name,
                    holder=holder,
                    priority=held.priority,
                    key=held.key,
                    taken_at=held.taken_at,
                )
            )
        for holder, waiting in queue:
            waiters.append(
                StoredWaiter(
                    stream=waiting.stream,
                    pool=pool.name,
                    holder=holder,
                    priority=waiting.priority,
                    key=waiting.key,
                    tag=waiting.tag,
                    arrival=waiting.arrival,
                    lasting=waiting.lasting,
                )
            )
    yield from (*pools, *permits, *waiters)


class Taken:
    """Items that were taken in, beside what is stored; `put` is the moment at which they are there."""

    def __init__(self, items: Iterable[Item], *, streams: Streams) -> None:
        """Walk all items. Raises `NotInstallable`, `StreamDiffers`, and what `items` raises."""
        self._streams: Final = streams
        self._same = 0
        self._new: Final[dict[str, Stream]] = {}
        self._log: Final[list[Leaf]] = []
        self._pools: Final[list[StoredPool]] = []
        self._parts: Final[list[StoredPermit | StoredWaiter]] = []
        arrivals = Arrivals()
        for item in items:
            arrivals.take(item)
            self._take(item)
        arrivals.finish()

    def _take(self, item: Item) -> None:
        match item:
            case StoredStream():
                if self._is_here(item):
                    self._same += 1
                else:
                    self._new[item.stream] = _made_of(item)
            case StoredPool():
                self._pools.append(item)
            case RecordedEvent() | KeptDigest():
                if (stream := self._new.get(item.stream)) is not None:
                    stream.events.append(item)
                    self._log.append(item)
            case StoredPermit() | StoredWaiter():
                if item.stream in self._new:
                    self._parts.append(item)
            case StoredMessage() | ConsumedMessages():
                if (stream := self._new.get(item.stream)) is not None:
                    _deliver(stream, item)

    def _is_here(self, item: StoredStream) -> bool:
        """Raises `StreamDiffers`."""
        here = self._streams._streams.get(item.stream)
        if here is None:
            return False
        shorter = min(len(here.events), item.version)
        prefix = here.events[shorter - 1].digest if shorter else None
        relation(item, len(here.events), here.digest, prefix=prefix, pruned=here.pruned)
        return True

    def put(self, now: Timestamp, behind: Commit | None) -> Installed:
        """All of it, or nothing. Raises `LimitReached`, and what `Commit` lists.

        The store has to be as it was when this was made.
        """
        streams = self._streams
        if not self._new:
            return Installed(streams=0, events=0, same=self._same)
        if behind is not None:
            streams._check(behind, self._new.get(behind.stream) or streams._streams.get(behind.stream))
        put = _Put(streams)
        joining = Joining(streams._pools, now=now, new=self._new, open_pool=lambda pool: put.pool(pool, now))
        try:
            for stream in self._new.values():
                put(stream)
            joining.join(self._pools, self._parts)
        except BaseException:
            put.undo()
            raise
        self._append_all()  # from here on nothing can fail
        put.settle()
        for message in joining.messages():
            streams.deliver(message, now)
        if behind is not None:
            streams.apply(behind)
        events = sum(isinstance(leaf, RecordedEvent) for leaf in self._log)
        return Installed(streams=len(self._new), events=events, same=self._same)

    def _append_all(self) -> None:
        log = self._streams.log
        for stream in self._new.values():
            stream.events.clear()
        for leaf in self._log:
            position = len(log) + 1
            placed: Leaf
            if isinstance(leaf, KeptDigest):
                placed = replace(leaf, position=position, was=None if leaf.pruned_at == position else leaf.pruned_at)
            else:
                placed = replace(leaf, position=position)
            log.append(placed)
            self._new[leaf.stream].events.append(placed)


class _Put:
    """The streams that were put into the store so far."""

    def __init__(self, streams: Streams) -> None:
        self._streams: Final = streams
        self._put: Final[list[Stream]] = []

    def __call__(self, stream: Stream) -> None:
        self._streams.put(stream)
        self._put.append(stream)

    def pool(self, pool: StoredPool, now: Timestamp) -> None:
        """The stream of a pool that streams bring along, unless it is there."""
        if self._streams._streams.get(pool_stream(pool.pool)) is None:
            opened = Stream(pool_stream(pool.pool), now)
            opened.merge(pool.attributes)
            self(opened)

    def undo(self) -> None:
        for stream in self._put:
            self._streams.take_away(stream)

    def settle(self) -> None:
        """They stay."""
        for stream in self._put:
            self._streams.settle(stream)


def _made_of(item: StoredStream) -> Stream:
    stream = Stream(item.stream, item.created_at)
    stream.updated_at, stream.digest = item.updated_at, item.digest
    stream.alarm, stream.held, stream.closed, stream.pruned = item.alarm, item.held, item.closed, item.pruned
    stream.attributes = dict(item.attributes)
    return stream


def _deliver(stream: Stream, item: StoredMessage | ConsumedMessages) -> None:
    ids = item.ids if isinstance(item, ConsumedMessages) else (item.id,)
    for message_id in ids:
        if message_id in stream.delivered:
            raise NotInstallable(stream.name, reason=f"message {message_id!r} comes twice")
        stream.delivered.add(message_id)
    if isinstance(item, StoredMessage):
        stream.mailbox[item.id] = WaitingMessage(
            id=item.id,
            sender=item.sender,
            control=item.control,
            header=item.header,
            payload=item.payload,
            sent_at=item.sent_at,
        )
        stream.controls += item.control
