"""The rules of pools and rates, for every store: who holds a permit, who is next, and what comes back by itself.

A limit is a stream, ``pool:<name>``, whose attributes `limit` and `window` say how much; so it is made and changed by
ordinary commits. `Actions` is what one commit does with permits. All of it is decided before the commit changes
anything else, and can be undone, because the commit may still be refused.

* A permit is held, or granted: given to the first of the queue, whose stream is told by a control message and confirms
  it by taking it. A grant that nobody confirms goes to the next.
* The queue is served by priority, then fairly between keys (start-time fair queueing), then by arrival. A waiter's tag
  is one more than that of the last granted, or than the last tag of its own key if that is later. So the thousandth
  call of a busy key stands a thousand turns behind, and the first call of another key one. Each priority counts its
  own turns.
* A held permit remembers the fencing token of the lease that it was taken under, and is free when that is not its
  stream's owner any more, or has ended. It is only looked for when the pool looks full. So an uncontended permit costs
  nothing but its row, and nobody has to clean up. A lasting one is its stream's, whoever owns that.
* What a commit gives up by releasing or closing its stream is given up at once, and goes to who waits.
* In a rate permits are stamps, which nobody gives back: they leave the window by themselves.

This module deliberately does not know how permits are stored (`eventstore.holding` says what it asks), nor which leases
live.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from msgspec.json import encode
from msgspec.structs import replace

from eventstore.errors import InvalidArgument, LimitReached, UnknownPool
from eventstore.holding import Held, Limit, Pool, Pools, Waiting, looked_after_here
from eventstore.port import (
    GRANT_SECONDS,
    Message,
    Permit,
    Timestamp,
    pool_stream,
)

__all__ = ["Actions"]

_GRANT_MICROSECONDS: Final = round(GRANT_SECONDS * 1_000_000)


class Actions:
    """What one commit does with permits."""

    def __init__(self, pools: Pools, stream: str, now: Timestamp, token: int | None) -> None:
        self._pools: Final = pools
        self._stream: Final = stream
        self._token: Final = token  # of the commit's lease
        self._now: Final = now
        self._undo: Final[list[Callable[[], None]]] = []
        self._reclaimed: Final[set[tuple[str, Limit]]] = set()  # once is enough: meanwhile nobody else does anything
        self._granted: dict[tuple[str, str], tuple[str, int]] = {}  # to which stream, and the waiter's arrival

    def perform(self, permits: Iterable[Permit]) -> None:
        """All of them in order, or none. Raises `UnknownPool`, `LimitReached` and `InvalidArgument`."""
        try:
            for permit in permits:
                self._perform(permit)
        except BaseException:
            self.undo()
            raise

    def settle(self, *, closed: bool, released: bool, limit_changed: bool) -> bool:
        """What follows from the commit itself, now that its stream is what it will be: what a closed or released stream
        has no right to any more is given up, and a changed limit may let others in.

        False: the stream has nothing in any pool.
        """
        may_have = True
        if closed or released:
            mine = [(self._pools.pool(name), holder) for name, holder in self._pools.of_stream(self._stream)]
            touched = {
                pool.name: pool
                for pool, holder in mine
                if self._ends(pool, holder, closed=closed, released=released)
                and self._give_up(pool, pool.limit, holder)
            }
            may_have = any(pool.permit(holder) or pool.waiter(holder) for pool, holder in mine)
            for pool in touched.values():
                self._pump(pool, pool.limit)
        if limit_changed:
            pool = self._pools.pool(self._stream.removeprefix(pool_stream("")))
            self._pump(pool, pool.limit)
        return may_have

    def messages(self) -> list[Message]:
        """To those who were granted a permit and did not take it with this commit."""
        return [
            Message(
                id=f"permit-granted:{pool}#{arrival}",
                stream=stream,
                header=encode({"type": "PermitGranted", "pool": pool, "holder": holder}),
                sender=pool_stream(pool),
                control=True,
            )
            for (pool, holder), (stream, arrival) in self._granted.items()
        ]

    def undo(self) -> None:
        """As if nothing had been done."""
        while self._undo:
            self._undo.pop()()
        self._granted.clear()

    # One action.

    def _perform(self, permit: Permit) -> None:
        pool = self._pools.pool(permit.pool)
        for found in (pool.permit(permit.holder), pool.waiter(permit.holder)):
            if found is not None and found.stream != self._stream:
                raise InvalidArgument(
                    f"holder {permit.holder!r} of pool {permit.pool!r} belongs to stream {found.stream!r}, not to"
                    f" {self._stream!r}: holders are unique within a pool"
                )
        limit = pool.limit
        if permit.action == "return":
            self._give_up(pool, limit, permit.holder)
            self._pump(pool, limit)
            return
        if limit is None:
            raise UnknownPool(permit.pool, exists=True)
        held = pool.permit(permit.holder)
        if held is not None and limit.window is not None and self._now - held.taken_at >= limit.window:
            self._set_permit(pool, permit.holder, None)  # a stamp of a start that has left the window
            held = None
        if permit.action == "take":
            self._take(pool, limit, permit, held)
        else:
            self._wait(pool, limit, permit, held)

    def _wait(self, pool: Pool, limit: Limit, permit: Permit, held: Held | None) -> None:
        if held is not None and limit.window is None and not looked_after_here(held, self._token):
            # Held by an earlier owner of the stream: it would be reclaimed, and nobody would be in the queue for it.
            self._set_permit(pool, permit.holder, None)
            held = None
        if held is None and pool.waiter(permit.holder) is None:
            self._enqueue(pool, permit.holder, self._stream, permit)
        self._pump(pool, limit)

    def _take(self, pool: Pool, limit: Limit, permit: Permit, held: Held | None) -> None:
        if held is None:
            self._pump(pool, limit, wanted=True)
            held = pool.permit(permit.holder)
        if held is not None:
            self._confirm(pool, permit, held)
        elif pool.held < limit.count:  # then nobody waits
            self._hold(pool, permit.holder, self._stream, permit, confirmed=True)
        else:
            raise LimitReached(
                pool.name,
                permit.holder,
                retry_at=self._retry_at(pool, limit, permit.holder),
                held_by=pool.oldest() if limit.count else None,
            )

    def _confirm(self, pool: Pool, permit: Permit, held: Held) -> None:
        """It has it already: from now on as this commit would take it."""
        self._granted.pop((pool.name, permit.holder), None)
        lasting = held.lasting or permit.lasting
        taken_at = held.taken_at if held.confirmed else self._now  # what counts of a rate is the start, and it is now
        token = None if lasting else self._token
        now = replace(held, taken_at=taken_at, confirmed=True, token=token, lasting=lasting)
        if now != held:
            self._set_permit(pool, permit.holder, now)

    def _give_up(self, pool: Pool, limit: Limit | None, holder: str) -> bool:
        """Whatever the holder has; but a stamp of a start stays. Whether that was anything."""
        waiter, held = pool.waiter(holder), pool.permit(holder)
        if waiter is not None:
            self._set_waiter(pool, holder, None)
        is_start = held is not None and held.confirmed and limit is not None and limit.window is not None
        if held is not None and not is_start:
            self._set_permit(pool, holder, None)
        return waiter is not None or (held is not None and not is_start)

    def _ends(self, pool: Pool, holder: str, *, closed: bool, released: bool) -> bool:
        """Whether what the stream has there does not outlive that it is closed, or given up."""
        held = pool.permit(holder)
        if held is None or held.lasting or not held.confirmed:
            return closed
        return released or self._token is None or held.token != self._token

    def _retry_at(self, pool: Pool, limit: Limit, holder: str) -> Timestamp | None:
        """When a rate will have room for this holder, if everybody before it starts as early as possible."""
        if limit.window is None or not limit.count:
            return None
        waiter = pool.waiter(holder)
        ahead = pool.waiting if waiter is None else pool.ahead(waiter)
        rounds, index = divmod(ahead, limit.count)
        return pool.stamp(pool.held - limit.count + index) + (rounds + 1) * limit.window

    # The queue.

    def _pump(self, pool: Pool, limit: Limit | None, *, wanted: bool = False) -> None:
        """Grant what there is room for to the first of the queue; `wanted`: somebody else wants a permit, too."""
        if limit is None:
            return
        while pool.waiting or wanted:
            if pool.held >= limit.count and (pool.name, limit) not in self._reclaimed:
                self._reclaimed.add((pool.name, limit))
                self._reclaim(pool, limit)
            if pool.held >= limit.count or not pool.waiting:
                return
            holder, waiter = pool.first()
            self._set_turns(pool, {**pool.turns, waiter.priority: waiter.tag})
            self._set_waiter(pool, holder, None)
            self._hold(pool, holder, waiter.stream, waiter, confirmed=waiter.lasting)
            self._granted[pool.name, holder] = waiter.stream, waiter.arrival

    def _reclaim(self, pool: Pool, limit: Limit) -> None:
        """Free what is held by nobody any more, and what was granted and not taken in time."""
        gone = (
            pool.abandoned(self._stream, self._token)
            if limit.window is None
            else pool.taken_until(self._now - limit.window)
        )
        for holder in gone:
            self._set_permit(pool, holder, None)
        for holder, held in pool.granted_until(self._now - _GRANT_MICROSECONDS):
            self._set_permit(pool, holder, None)
            self._enqueue(pool, holder, held.stream, held)

    def _enqueue(self, pool: Pool, holder: str, stream: str, of: Permit | Held) -> None:
        tag = max(pool.turns.get(of.priority, 0), pool.last_tag(of.priority, of.key)) + 1
        waiter = Waiting(stream, of.priority, of.key, tag, pool.arrivals + 1, of.lasting)
        self._set_waiter(pool, holder, waiter)
        self._undo.append(partial(setattr, pool, "arrivals", pool.arrivals))
        pool.arrivals += 1

    # Changes, each of which can be undone.

    def _hold(self, pool: Pool, holder: str, stream: str, of: Permit | Waiting, *, confirmed: bool) -> None:
        token = self._token if confirmed and not of.lasting else None
        self._set_permit(pool, holder, Held(stream, self._now, confirmed, of.priority, of.key, token, of.lasting))

    def _set_permit(self, pool: Pool, holder: str, permit: Held | None) -> None:
        self._undo.append(partial(pool.set_permit, holder, pool.permit(holder)))
        pool.set_permit(holder, permit)
        if permit is None:
            self._granted.pop((pool.name, holder), None)

    def _set_waiter(self, pool: Pool, holder: str, waiter: Waiting | None) -> None:
        self._undo.append(partial(pool.set_waiter, holder, pool.waiter(holder)))
        pool.set_waiter(holder, waiter)
        if not pool.waiting:
            self._set_turns(pool, {})  # nobody is left to be fair to

    def _set_turns(self, pool: Pool, turns: Mapping[int, int]) -> None:
        if turns != pool.turns:
            self._undo.append(partial(setattr, pool, "turns", pool.turns))
            pool.turns = turns
