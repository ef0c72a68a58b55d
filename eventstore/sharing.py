"""Limits that all who use a store share, and what a commit says about them: a part of `eventstore.port`.

What follows from it (who is next, what comes back by itself) is in `eventstore.permits`; this module knows nothing of
that, nor of what is stored.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

__all__ = ["POOL_CATEGORY", "Permit", "pool_stream"]

POOL_CATEGORY: Final = "pool"


class Permit(Struct, frozen=True, kw_only=True):
    """What a commit does with a limit that all share (capability ``permits``).

    The limit is the stream ``pool:<pool>`` with the attributes `limit` (an int, 0 or more) and, for a rate, `window`
    (an int, microseconds). Without a window it is a pool of slots: at most `limit` are held at once. With one, at most
    `limit` starts are taken in any such window of time.

    * *take*: the holder has the permit if it has it already (which confirms a grant, and makes the permit one of this
      commit's lease), or if there is room when all who wait have been served; else the commit is refused with
      `LimitReached`.
    * *wait*: never refused; the holder joins the queue, unless it holds or waits already, which nothing then changes.
      What it held under an older lease of the stream, or under none, it gives up for a place in the queue.
    * *return*: gives up the permit, or the place in the queue. A start of a rate cannot be given back.

    A permit belongs to the commit's stream, and commits of others may not touch its holder. Whoever of the queue there
    is room for is granted a permit by the next accepted commit that names the pool: its stream gets a control message
    ``{"type": "PermitGranted", "pool": ..., "holder": ...}``, and confirms by taking it within `GRANT_SECONDS`, or else
    waits again at the end. The queue goes by priority, then in turn between keys, then by arrival.

    A permit is held as long as the lease that it was taken under owns its stream. When that lease has ended, or the
    stream is another's or nobody's, it is free: not at once, but as soon as the pool looks full to anybody. Taken again
    under the stream's next lease before that, it goes on. What was taken without a lease is free as soon as the pool
    looks full. What was granted and not taken is free when its stream's owner is dead.

    At once, so that others are let in by the same commit: giving the stream up (`release`) returns what it holds.
    Closing it returns what it waits for, what it was granted, what is lasting, and what it does not hold under the
    closing commit's lease; what it does hold under that it keeps until a *return*, the release, with the closing commit
    or later, or the end of the lease.

    `lasting` (of take and wait) is a permit of the stream itself, whoever owns it, or nobody: it is kept until it is
    returned or the stream is closed. Who waits for one and is granted it has it at once, told by the same message, so
    it never goes to the next. Taking makes a permit that is held lasting, if it says so, and never the reverse. Stamps
    of a rate leave its window, lasting or not.
    """

    pool: str
    holder: str  # unique within the pool
    action: Literal["take", "wait", "return"]
    priority: int = 0  # of wait: higher first
    key: str = ""  # of wait: who shares its turns
    lasting: bool = False  # of take and wait: the stream's own, not its owner's


def pool_stream(pool: str) -> str:
    """The stream whose attributes are the limit of that pool."""
    return f"{POOL_CATEGORY}:{pool}"
