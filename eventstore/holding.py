"""Who holds and who waits: what the rules of permits ask of a store, and when a permit is nobody's any more.

`Pool` and `Pools` are what a store brings; `Held`, `Waiting` and `Limit` what is said of it. `looked_after` is the one
place that says how long a permit lives.

This module deliberately does not know who is next, nor how any of this is stored: that is `eventstore.permits`, and the
stores.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from msgspec import Struct

from eventstore.port import Scalar, Timestamp

__all__ = [
    "Held",
    "Limit",
    "Pool",
    "Pools",
    "Tie",
    "Waiting",
    "limit_of",
    "looked_after",
    "looked_after_here",
]


class Limit(Struct, frozen=True):
    """How much a pool gives: slots at once, or starts in any window."""

    count: int
    window: int | None  # microseconds; None: slots


class Held(Struct, frozen=True):
    """A permit: held by its stream, or granted to it; of a rate, a stamp."""

    stream: str
    taken_at: Timestamp
    confirmed: bool  # False: granted from the queue, and not yet taken
    priority: int  # with `key`: how it waits again if the grant lapses
    key: str
    token: int | None = None  # of the lease that it was taken under; None: of none, or granted, or lasting
    lasting: bool = False  # its stream's, whoever owns that


class Tie(Protocol):
    """What ties a permit to whoever looks after its stream: of `Held`, or as a store keeps it."""

    @property
    def confirmed(self) -> int: ...
    @property
    def token(self) -> int | None: ...
    @property
    def lasting(self) -> int: ...


class Waiting(Struct, frozen=True):
    """A place in the queue."""

    stream: str
    priority: int
    key: str
    tag: int
    arrival: int
    lasting: bool = False  # what it waits for

    @property
    def place(self) -> tuple[int, int, int]:
        """What the queue is sorted by."""
        return -self.priority, self.tag, self.arrival


class Pool(Protocol):
    """What is stored of one pool."""

    name: str
    arrivals: int  # how many have ever joined the queue
    turns: Mapping[int, int]  # by priority: the tag of the last granted

    @property
    def held(self) -> int:
        """How many permits, whatever has become of those who have them."""

    @property
    def waiting(self) -> int:
        """How long the queue is."""

    @property
    def limit(self) -> Limit | None:
        """As the pool's stream says now; None if it says none that makes sense."""

    def permit(self, holder: str) -> Held | None: ...
    def waiter(self, holder: str) -> Waiting | None: ...
    def set_permit(self, holder: str, permit: Held | None) -> None: ...
    def set_waiter(self, holder: str, waiter: Waiting | None) -> None: ...
    def first(self) -> tuple[str, Waiting]:
        """The first of a queue that is not empty."""

    def last_tag(self, priority: int, key: str) -> int:
        """The highest tag in the queue of that priority and key; 0: none."""

    def ahead(self, waiter: Waiting) -> int:
        """How many of the queue stand before it."""

    def stamp(self, index: int) -> Timestamp:
        """When the permit was taken that is the index-th oldest, from 0."""

    def taken_until(self, until: Timestamp) -> list[str]:
        """Holders of permits taken until then."""

    def granted_until(self, until: Timestamp) -> list[tuple[str, Held]]:
        """Permits granted until then and not confirmed, oldest first, then by holder."""

    def oldest(self) -> str:
        """The holder of the permit taken, or granted, longest ago (of several at once the first by name); there is
        one.
        """

    def abandoned(self, stream: str, token: int | None) -> list[str]:
        """Holders of permits that are not `looked_after`, or, those of this stream, `looked_after_here`."""


class Pools(Protocol):
    """All pools of a store."""

    def pool(self, name: str) -> Pool:
        """Raises `UnknownPool` when there is no such stream."""

    def of_stream(self, stream: str) -> Collection[tuple[str, str]]:
        """Pool and holder of all that a stream holds or waits for, sorted."""


def looked_after(permit: Tie, owner: int | None, alive: Callable[[int], bool]) -> bool:
    """Whether anybody may still want a permit, given who owns its stream and which of such leases live.

    What was granted waits for whoever looks after its stream next, but not for the dead.
    """
    if permit.lasting:
        return True
    if permit.confirmed and permit.token != owner:
        return False
    return not permit.confirmed if owner is None else alive(owner)


def looked_after_here(permit: Tie, token: int | None) -> bool:
    """The same of the stream that a commit changes, under the lease of that token, or under none."""
    return bool(permit.lasting) or not permit.confirmed or permit.token == token


def limit_of(attributes: Mapping[str, Scalar]) -> Limit | None:
    """What a pool's attributes say: `limit`, 0 or more, and perhaps `window`, 1 or more; None if they say nonsense."""
    count, window = attributes.get("limit"), attributes.get("window")
    if type(count) is not int or count < 0:
        return None
    if window is None:
        return Limit(count, None)
    if type(window) is not int or window < 1:
        return None
    return Limit(count, window)
