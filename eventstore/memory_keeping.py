"""What need not stay, in the memory store: see `eventstore.keeping`."""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from eventstore.keeping import KeptDigest, check_prunable
from eventstore.port import RecordedEvent
from eventstore.rules import Streams
from eventstore.stream import Stream

__all__ = ["forget", "prune"]


def forget(streams: Streams, name: str, versions: Collection[int] | None) -> int:
    """Destroy payloads; see `Keeping.forget`."""
    stream = streams.existing(name)
    count = 0
    for leaf in [*stream.events]:
        meant = versions is None or leaf.version in versions
        if meant and isinstance(leaf, RecordedEvent) and leaf.payload is not None:
            forgotten = replace(leaf, payload=None, salt=None)
            streams.log[leaf.position - 1] = stream.events[leaf.version - 1] = forgotten
            count += 1
    if versions is None and stream.closed:
        _empty_mailbox(streams, stream)
    return count


def prune(streams: Streams, name: str, until: int) -> int:
    """Take events away; see `Keeping.prune`."""
    stream = streams.existing(name)
    check_prunable(name, closed=stream.closed, version=len(stream.events), until=until)
    streams.check_lease_of(stream)
    if stream.pruned:
        return 0  # once
    going = [leaf for leaf in stream.events[:until] if isinstance(leaf, RecordedEvent)]
    for event in going:
        kept = KeptDigest(name, event.version, event.position, event.digest)
        streams.log[event.position - 1] = stream.events[event.version - 1] = kept
    stream.pruned = True
    owner_before, stream.owner, stream.alarm = stream.owner, None, None
    streams._index(stream, owner_before)
    _empty_mailbox(streams, stream)
    stream.delivered.clear()
    return len(going)


def _empty_mailbox(streams: Streams, stream: Stream) -> None:
    stream.mailbox.clear()
    stream.controls = 0
    stream.last_commit = stream.outcome = None  # it showed what is not there any more
    streams._index(stream, stream.owner)
