"""How streams that were moved take part in the pools of the store that they come to: the same for every store.

A pool whose own stream is new here goes on as it was, verbatim. To any other the newcomers come as anybody does: who
held lastingly takes, and is refused if somebody else has it; who waited waits, behind those who wait here.

This module deliberately does not know how streams are made, nor how permits are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from eventstore.holding import Held, Pool, Pools, Waiting
from eventstore.moving import StoredPermit, StoredPool, StoredWaiter
from eventstore.permits import Actions
from eventstore.port import Message, Permit, Timestamp, pool_stream

__all__ = ["Joining"]


class Joining:
    """What the new streams of one `install` do with permits."""

    def __init__(
        self, pools: Pools, *, now: Timestamp, new: Collection[str], open_pool: Callable[[StoredPool], None]
    ) -> None:
        self._pools: Final = pools
        self._now: Final = now
        self._new: Final = new  # names of the streams that this install brings
        self._open_pool: Final = open_pool  # makes the pool's stream, if there is none
        self._done: Final[list[Actions]] = []

    def join(self, pools: Sequence[StoredPool], parts: Sequence[StoredPermit | StoredWaiter]) -> None:
        """All of it. Raises `LimitReached`, `UnknownPool`, `InvalidArgument`, having undone what it did to permits."""
        whole = [each for each in pools if pool_stream(each.pool) in self._new]
        names = {each.pool for each in whole}
        wanted = {part.pool for part in parts}
        try:
            for each in pools:
                if each.pool in wanted and each.pool not in names:
                    self._open_pool(each)
                    pool = self._pools.pool(each.pool)  # ids of grants are made of this number: none comes again
                    pool.arrivals = max(pool.arrivals, each.arrivals)
            for part in parts:
                if part.pool not in names:
                    self._ask(part)
        except BaseException:
            self.undo()
            raise
        for each in whole:
            pool = self._pools.pool(each.pool)
            pool.arrivals, pool.turns = each.arrivals, dict(each.turns)
        for part in parts:
            if part.pool in names:
                _put(self._pools.pool(part.pool), part)

    def undo(self) -> None:
        """Give back what was taken."""
        while self._done:
            self._done.pop().undo()

    def messages(self) -> list[Message]:
        """To those who came to a queue in which it was their turn."""
        return [message for actions in self._done for message in actions.messages()]

    def _ask(self, part: StoredPermit | StoredWaiter) -> None:
        actions = Actions(self._pools, part.stream, self._now, None)
        permit = Permit(
            pool=part.pool,
            holder=part.holder,
            action="take" if isinstance(part, StoredPermit) else "wait",
            priority=part.priority,
            key=part.key,
            lasting=isinstance(part, StoredPermit) or part.lasting,
        )
        actions.perform((permit,))
        self._done.append(actions)


def _put(pool: Pool, part: StoredPermit | StoredWaiter) -> None:
    if isinstance(part, StoredPermit):
        held = Held(part.stream, part.taken_at, True, part.priority, part.key, None, True)
        pool.set_permit(part.holder, held)
    else:
        waiting = Waiting(part.stream, part.priority, part.key, part.tag, part.arrival, part.lasting)
        pool.set_waiter(part.holder, waiting)
