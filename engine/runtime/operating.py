"""What people and other programs do to an engine's store, beside starting runs: pauses, limits, memos, tasks that
were handed out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar, overload

from engine.core.call import Call
from engine.core.identity import check_run_id
from engine.errors import HoldfastError
from engine.runtime.forgetting import forget
from engine.runtime.forking import fork
from engine.runtime.half_forks import end_half, whole_or_ended
from engine.runtime.handle import RunHandle
from engine.runtime.limits import LimitState, read_limits, set_limit, slots_of
from engine.runtime.pausing import PausedWorkflow, pause_workflow, read_paused, unpause_workflow
from engine.runtime.reopening import reopen
from engine.runtime.repairs import HistoryDiff, diff_runs, rerun
from engine.runtime.serving import Served
from engine.runtime.tokens import complete_task, reject_task
from engine.runtime.watches import Watches
from engine.runtime.what_if import WhatIf, suppose
from engine.tasks import RateLike, Task, rate_of
from engine.workflows import Workflow
from eventstore import Clock, EventStore

__all__ = ["Operations"]

R = TypeVar("R")

SHOWN_ID: Final = 100
"""Characters of a run's id that the ids of its reruns and forks begin with."""
NONE_GIVEN: Final[Mapping[str, Any]] = MappingProxyType({})


class Operations(ABC):
    """The part of an `Engine` that starts no call: it needs its store and its clock, and sometimes its workflows."""

    _clock: Clock
    _entropy: Any
    _watches: Watches

    @property
    @abstractmethod
    def store(self) -> EventStore:
        """The open store."""

    @abstractmethod
    def message_id(self) -> str:
        """A fresh id for a message."""

    @abstractmethod
    def run(self, id: str) -> RunHandle[Any]:  # noqa: A002 - the word for it
        """A handle on a run."""

    @property
    @abstractmethod
    def definitions(self) -> Served:
        """The workflows that this engine has."""

    @abstractmethod
    async def _look_at_pauses(self) -> None:
        """What is paused has changed."""

    @abstractmethod
    async def _memos_written(self) -> None:
        """Wait for the memos that this engine is about to write."""

    # -- tasks that were handed out -----------------------------------------------------------------------------------

    @overload
    async def complete(self, token: str, value: R, *, task: Task[..., R], by: str = "", reason: str = "") -> None: ...
    @overload
    async def complete(self, token: str, value: Any, *, task: None = None, by: str = "", reason: str = "") -> None: ...
    async def complete(
        self, token: str, value: Any, *, task: Task[..., Any] | None = None, by: str = "", reason: str = ""
    ) -> None:
        """End a task that handed out this token (`Attempt.token`) with its result. Durable when this returns.

        `task`: the task, to have the value checked against its type here and now; unchecked, one that does not fit
        fails the task. A task that has its outcome already keeps it.
        Raises `TokenError`, `RunNotFound`, `RunEnded`, `NotRecordable`, `PayloadTooLarge`.
        """
        message = self.message_id()
        await complete_task(self.store, token, value, task=task, message_id=message, by=by, reason=reason)

    async def reject(self, token: str, error: BaseException | str, *, by: str = "", reason: str = "") -> None:
        """End a task that handed out this token with a final failure. Raises as `complete`."""
        await reject_task(self.store, token, error, message_id=self.message_id(), by=by, reason=reason)

    # -- results that were memoised -----------------------------------------------------------------------------------

    async def forget(self, what: Call[Any] | Task[..., Any], *, by: str = "", reason: str = "") -> int:
        """Forget what was memoised of a task (``load``), or of one call (``load("flights")``): the next one computes.

        Durable when this returns: how many results were forgotten. Attempts under way are memoised when they end.
        Raises `HoldfastError` for a call of a task that has no memo, and what the memo's key function does.
        """
        store = self.store
        await self._memos_written()
        return await forget(store, what, clock=self._clock, message_id=self.message_id, by=by, reason=reason)

    # -- workflows ----------------------------------------------------------------------------------------------------

    async def pause_workflow(self, workflow: Workflow[..., Any] | str, *, reason: str = "", by: str = "") -> None:
        """Let no run of a workflow begin anything, in any worker on this store, until it is unpaused.

        Runs that are started meanwhile are recorded and wait; attempts under way end and are recorded. Other workers
        see it within a second.
        """
        name = workflow if isinstance(workflow, str) else workflow.name
        await pause_workflow(self.store, name, clock=self._clock, commit_id=self.message_id(), by=by, reason=reason)
        await self._look_at_pauses()

    async def unpause_workflow(self, workflow: Workflow[..., Any] | str, *, reason: str = "", by: str = "") -> None:
        """Let the runs of a paused workflow go on."""
        name = workflow if isinstance(workflow, str) else workflow.name
        await unpause_workflow(self.store, name, clock=self._clock, commit_id=self.message_id(), by=by, reason=reason)
        await self._look_at_pauses()

    async def paused_workflows(self) -> tuple[PausedWorkflow, ...]:
        """The workflows that are paused by name now, on this store, with who paused them and why."""
        return await read_paused(self.store)

    # -- limits -------------------------------------------------------------------------------------------------------

    async def set_pool(self, name: str, slots: int, *, by: str = "", reason: str = "") -> None:
        """Let a pool have that many slots from now on, in all engines on this store: more, fewer, or none.

        With fewer, what runs goes on, and nothing begins until there is room. It stays so until it is set again, or an
        engine declares another number than was declared before. Raises `HoldfastError` when there is no such pool.
        """
        try:
            slots_of(slots)
        except ValueError as error:
            raise HoldfastError(f"set_pool({name!r}): {error}") from None
        await set_limit(self.store, name, slots, clock=self._clock, next_id=self.message_id, by=by, reason=reason)

    async def set_rate(self, name: str, rate: RateLike, *, by: str = "", reason: str = "") -> None:
        """Let a rate be that from now on, as `set_pool`. A task's own rate is named ``task/<the task's name>``."""
        try:
            value = rate_of(rate)
        except ValueError as error:
            raise HoldfastError(f"set_rate({name!r}): {error}") from None
        await set_limit(self.store, name, value, clock=self._clock, next_id=self.message_id, by=by, reason=reason)

    async def limits(self) -> tuple[LimitState, ...]:
        """The pools and rates of this store, with who set them and why."""
        return await read_limits(self.store)

    # -- repair -------------------------------------------------------------------------------------------------------

    async def diff(self, left: str, right: str) -> HistoryDiff:
        """Two runs side by side, by their ids: where their histories part, and what stands there from then on.

        Facts, decisions and values are compared, without times and places. Raises `RunNotFound`, `HistoryError`.
        """
        return await diff_runs(self.store, left, right)

    async def rerun(
        self,
        run_id: str,
        *,
        id: str | None = None,  # noqa: A002
        by: str = "",
        reason: str = "",
    ) -> RunHandle[Any]:
        """Run a run again: a new one from the start, with the same workflow, arguments and first signals.

        Its first event says who asked, when, why, and of what it is the rerun (`RunStarted.rerun_of`); the other run is
        left as it is, whether it has ended or not. The same `id` again is the same rerun. Needs no code; whoever has
        the workflow works on it. Raises `RunNotFound`, `RunConflict`, `RepairRefused`.
        """
        new_id = check_run_id(self._new_id(run_id) if id is None else id)
        await rerun(
            self.store, check_run_id(run_id), new_id, by=by, reason=reason, clock=self._clock, entropy=self._entropy
        )
        return self.run(new_id)

    async def reopen(self, run_id: str, *, by: str = "", reason: str = "") -> RunHandle[Any]:
        """Let a run that failed, or was cancelled or terminated, go on behind its end; see docs/repair.md.

        The task whose failure ended it is tried anew, under the same idempotency key; what was completed stays. Of a
        cancelled run the cancellation counts as never asked for. The note `RunReopened` says who asked, when and why.
        A parent that has heard of the end is not told again.

        Raises `RepairRefused` when that would lead nowhere, and says what would; `RunNotFound`; `UnknownWorkflow`, for
        the run is tried with the engine's code before anything is written.
        """
        await reopen(
            self.store,
            self.definitions,
            check_run_id(run_id),
            by=by,
            reason=reason,
            clock=self._clock,
            next_id=self.message_id,
        )
        self._watches.goes_on(run_id)
        return self.run(run_id)

    async def fork(
        self,
        run_id: str,
        *,
        at: int,
        id: str | None = None,  # noqa: A002
        substitute: Mapping[str, Any] = NONE_GIVEN,
        by: str = "",
        reason: str = "",
    ) -> RunHandle[Any]:
        """Make a new run that has lived through another one's history up to version `at`; see docs/repair.md.

        It goes on with the code there is now. If `at` is a fact, or stands within its turn, that turn is decided anew.
        `substitute`: results by task id, for tasks that are under way there, or whose outcome stands at `at`. The
        fork's first event says who asked, when and why; the origin is left as it is. The same `id` again is the same
        fork.

        Raises `RepairRefused` when it cannot be cut there, or the code does not fit what comes before; `RunNotFound`,
        `RunConflict`, `UnknownWorkflow`; `NotRecordable` for a result that is not of its task's type.
        """
        new_id = check_run_id(self._new_id(run_id) if id is None else id)
        async with whole_or_ended(
            self.store, check_run_id(run_id), new_id, by=by, clock=self._clock, next_id=self.message_id
        ):
            await fork(
                self.store,
                self.definitions,
                run_id,
                new_id,
                at=at,
                substitute=substitute,
                by=by,
                reason=reason,
                clock=self._clock,
                next_id=self.message_id,
            )
        return self.run(new_id)

    async def end_half_fork(self, run_id: str, *, by: str, reason: str) -> None:
        """See `handle.Desk`."""
        await end_half(self.store, run_id, by=by, reason=reason, clock=self._clock, next_id=self.message_id)

    async def what_if(self, run_id: str, *, at: int, substitute: Mapping[str, Any] = NONE_GIVEN) -> WhatIf:
        """What would have come of a run, had it been forked at a version: told all that happened to it behind that.

        With the code there is now, and with `substitute`: results by task id, whenever these tasks are called. Nothing
        runs but the workflow's own code, and nothing is written. Raises `RepairRefused` when it cannot be cut there or
        the code does not fit what comes before, `RunNotFound`, `UnknownWorkflow`, `NotRecordable`.
        """
        return await suppose(self.store, self.definitions, check_run_id(run_id), at=at, substitute=substitute)

    def _new_id(self, run_id: str) -> str:
        """A fresh id that shows whose rerun, or fork, the run is."""
        return f"{run_id[:SHOWN_ID]}~{self._entropy(4).hex()}"
