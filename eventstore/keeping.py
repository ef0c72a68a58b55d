"""What of a history need not stay: a part of the port that a store may have (capability ``keeping``).

Two things can be taken away, and neither breaks a proof:

* **forget**: payloads and their salts. Headers, payload digests and digests stay, so every chain verifies as before.
* **prune**: whole events of a closed stream. Of each its place and its digest stay (`KeptDigest`): the leaf of the tree
  over the log. At least the stream's last event stays, so that a caller can say in the stream what was taken away and
  why, before it is; the chain goes on from the digest before it.

A store does what it is told. Who may ask, and what is to be written before, is its caller's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Final, Protocol, TypeAlias, TypeGuard, runtime_checkable

from msgspec import Struct

from eventstore.errors import InvalidArgument, StreamNotPrunable
from eventstore.port import EventStore, RecordedEvent

__all__ = [
    "KEEP_EVENTS_MAX",
    "Keeping",
    "KeptDigest",
    "Leaf",
    "check_prunable",
    "check_versions",
    "keeps",
    "pruned_leaf",
]

KEEP_EVENTS_MAX: Final = 2_000
"""Events that are taken away, or lose their payload, in one transaction: more are done in several."""


class KeptDigest(Struct, frozen=True, gc=False):
    """What is left of an event that was pruned."""

    stream: str
    version: int
    position: int
    digest: bytes
    was: int | None = None  # the position that it had where it was pruned, if it has moved to another since

    @property
    def pruned_at(self) -> int:
        """The position that it had where it was pruned: what a record of that speaks of."""
        return self.position if self.was is None else self.was


Leaf: TypeAlias = RecordedEvent | KeptDigest
"""What stands at a position of the log: an event, or what is left of one."""


def pruned_leaf(leaf: Leaf) -> bytes:
    """What a record of a removal hashes of it, before and after it is pruned: its position there (8 bytes, big-endian),
    and its digest.
    """
    at = leaf.pruned_at if isinstance(leaf, KeptDigest) else leaf.position
    return at.to_bytes(8, "big", signed=True) + leaf.digest  # signed: whoever verifies a log meets any number


@runtime_checkable
class Keeping(Protocol):
    """Four methods beside those of `EventStore`. They raise what those raise; all are safe to call concurrently."""

    async def forget(self, stream: str, *, versions: Collection[int] | None = None) -> int:
        """Destroy payload and salt of these events, or of all there are now; how many had one.

        Without `versions`, and of a closed stream, what waits in the mailbox goes, too; its ids stay known, and the
        stream's last commit is not known as repeated any more. Done in
        transactions of `KEEP_EVENTS_MAX` events: after a crash, what is not done yet is done by asking again. Raises
        `StreamNotFound`.
        """

    async def prune(self, stream: str, *, until: int) -> int:
        """Take away the events up to version `until`, the oldest first; how many there still were. Done once: a stream
        that is pruned is left as it is.

        When they are gone, so are the stream's messages, waiting or consumed, and the stream is *pruned*: it takes no
        messages, control or data, and `find` shows it only if asked. It keeps its name, version, digest and
        attributes. Done in transactions of `KEEP_EVENTS_MAX` events, as `forget`.

        Raises `StreamNotFound`; `StreamNotPrunable` for one that is not closed, and for `until` not before its last
        version; `LeaseLost` while a live lease owns it.
        """

    def leaves(self, *, after: int = 0) -> AsyncIterator[Leaf]:
        """Everything in the log with ``position > after`` in commit order, each position once, up to the log's end when
        reading began: as `EventStore.read_all`, with what is left of pruned events in their place.
        """

    def kept(self, stream: str, *, after: int = 0) -> AsyncIterator[KeptDigest]:
        """What is left of the pruned events of a stream with ``version > after``, in order. Raises `StreamNotFound`."""


def keeps(store: EventStore) -> TypeGuard[Keeping]:
    """Whether the store has the capability."""
    return "keeping" in store.capabilities and isinstance(store, Keeping)


def check_versions(versions: Collection[int] | None) -> None:
    """Refuse what are no versions. Raises `InvalidArgument`."""
    wrong = [each for each in versions or () if type(each) is not int or each < 1]
    if wrong:
        raise InvalidArgument(f"a version of an event is 1 or more, not {wrong[0]!r}")


def check_prunable(stream: str, *, closed: bool, version: int, until: int) -> None:
    """Whether a stream of this kind may lose its events up to `until`. Raises `StreamNotPrunable`."""
    if not closed:
        raise StreamNotPrunable(stream, reason="it is not closed")
    if not 1 <= until < version:
        raise StreamNotPrunable(
            stream, reason=f"it is at version {version}, its last event stays, and {until} was asked"
        )
