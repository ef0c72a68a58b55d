"""What people and programs do so that not everything is kept for ever: the part of an `Engine` that takes away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

from engine.core.identity import check_run_id
from engine.runtime.operating import Operations
from engine.runtime.pruning import children_of, destroy_payloads, prune_run
from engine.runtime.retention import Due, Retention, due_runs

__all__ = ["Keeper"]


class Keeper(Operations):
    """The part of an `Engine` that takes away what need not stay; it needs no workflow."""

    async def prune(self, run_id: str, *, by: str = "", reason: str = "") -> int:
        """Take away the history of a run that has ended; see docs/audit.md. How many events were taken away.

        The event `RunPruned`, with who, when and why, is durable before anything is. Places and digests of the events
        stay, so the log verifies as before, also against seals; the run's id stays taken. A removal that was begun, and
        cut off, is finished.

        Raises `KeepingRefused` for a run that has not ended, for one whose history an open run may still need (a child
        of an open parent, the origin of a fork that is not whole), and when the store cannot; `DoesNotVerify` for a
        history that was tampered with; `RunNotFound`.
        """
        return await prune_run(
            self.store, check_run_id(run_id), by=by, reason=reason, clock=self._clock, next_id=self.message_id
        )

    async def destroy_payloads(
        self,
        run_id: str,
        *,
        versions: Collection[int] = (),
        children: bool = False,
        by: str = "",
        reason: str = "",
    ) -> int:
        """Make a run that has ended forget the values in its history: how many were destroyed, for good.

        Those of some `versions`, or all, and what waits in its mailbox; with `children` those of its child runs, and of
        theirs, first. The event `PayloadsDestroyed`, with who, when and why, is durable before anything is. Headers and
        digests stay, so the log verifies as before. What is left can be read, and not be replayed.

        Raises `KeepingRefused` for a run that has not ended, `RunPrunedError`, `RunNotFound`.
        """
        count = 0
        below = await children_of(self.store, check_run_id(run_id)) if children else []
        for each in [*reversed(below), run_id]:
            count += await destroy_payloads(
                self.store,
                each,
                versions=versions if each == run_id else (),
                by=by,
                reason=reason,
                clock=self._clock,
                next_id=self.message_id,
            )
        return count

    async def due(self, policies: Sequence[Retention]) -> AsyncIterator[Due]:
        """The runs of which something is due by these policies now; nothing is done to them."""
        async for each in due_runs(self.store, policies, now=self._clock.now()):
            yield each
