"""`prune`: does what is due by policies of retention, run by run. A task can call it, so a workflow can do it daily.

It stops nowhere half-way: each run is dealt with by itself, and what was cut off is finished the next time. Several may
work at once, beside engines that run.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final, TypeAlias, cast

from msgspec import Struct

from engine import Due, Engine, Retention
from engine.errors import DoesNotVerify, KeepingRefused, RunNotFound, RunPrunedError
from eventstore import Clock, EventStore, SystemClock

__all__ = ["LEFT_MAX", "LeftAsItIs", "Pruning", "prune"]

LEFT_MAX: Final = 1_000
"""Runs that are listed with the reason why they were left; more are only counted."""
_Dues: TypeAlias = AsyncGenerator[Due, None]


class LeftAsItIs(Struct, frozen=True):
    """A run of which something was due, and that was left as it is, and why."""

    id: str
    reason: str


class Pruning(Struct, kw_only=True):
    """What `prune` did."""

    runs: int = 0  # whose history was taken away
    events: int = 0  # that were
    forgetful: int = 0  # runs whose payloads were destroyed
    payloads: int = 0  # that were
    left: int = 0  # runs that were left as they are
    reasons: tuple[LeftAsItIs, ...] = ()  # why, of the first of them
    tampered: int = 0  # of these, those whose history does not verify
    more: bool = False  # there was more than the limit


async def prune(
    store: EventStore,
    policies: Sequence[Retention],
    *,
    by: str = "",
    reason: str = "",
    limit: int | None = None,
    clock: Clock | None = None,
    progress: Callable[[Due, str | None], None] | None = None,
) -> Pruning:
    """Take away what is due by these policies: the first that a run fits decides. At most `limit` runs.

    `by` and `reason` stand in the history of each. `progress` is told of each run when it is done, and why if it was
    left as it is: its history is still needed, or does not verify. Memory does not grow with the number of runs.

    Raises `KeepingRefused` for a store that can take nothing away, and what the store raises.
    """
    done = Pruning()
    async with Engine(store, clock=SystemClock() if clock is None else clock) as engine:
        if "keeping" not in store.capabilities:
            raise KeepingRefused(f"{type(store).__name__} has no capability 'keeping': it can neither forget nor prune")
        async with aclosing(cast("_Dues", engine.due(policies))) as dues:
            async for due in dues:
                if limit is not None and done.runs + done.forgetful >= limit:
                    done.more = True
                    break
                why = await _deal_with(engine, due, done, by=by, reason=reason)
                if progress is not None:
                    progress(due, why)
    return done


async def _deal_with(engine: Engine, due: Due, done: Pruning, *, by: str, reason: str) -> str | None:
    try:
        if due.due == "prune":
            done.events += await engine.prune(due.id, by=by, reason=reason)
            done.runs += 1
        else:
            done.payloads += await engine.destroy_payloads(due.id, by=by, reason=reason)
            done.forgetful += 1
    except (KeepingRefused, DoesNotVerify) as refused:
        done.left += 1
        done.tampered += isinstance(refused, DoesNotVerify)
        if len(done.reasons) < LEFT_MAX:
            done.reasons = (*done.reasons, LeftAsItIs(due.id, str(refused)))
        return str(refused)
    except (RunNotFound, RunPrunedError):
        pass  # somebody else has done it
    return None
