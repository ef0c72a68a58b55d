"""What people and other programs do to an engine's store, beside starting runs: pauses, limits, memos, tasks that
were handed out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar, overload

from engine.core.call import Call
from engine.errors import HoldfastError
from engine.runtime.forgetting import forget
from engine.runtime.limits import LimitState, checked_limits, read_limits, set_limit
from engine.runtime.pausing import PausedWorkflow, pause_workflow, read_paused, unpause_workflow
from engine.runtime.tokens import complete_task, reject_task
from engine.tasks import RateLike, Task, rate_of
from engine.workflows import Workflow
from eventstore import Clock, EventStore

__all__ = ["Operations"]

R = TypeVar("R")


class Operations(ABC):
    """The part of an `Engine` that needs nothing but its store and its clock."""

    _clock: Clock

    @property
    @abstractmethod
    def store(self) -> EventStore:
        """The open store."""

    @abstractmethod
    def message_id(self) -> str:
        """A fresh id for a message."""

    @abstractmethod
    async def _look_at_pauses(self) -> None:
        """What is paused has changed."""

    @abstractmethod
    async def _memos_written(self) -> None:
        """Wait for the memos that this engine is about to write."""

    # -- tasks that were handed out -----------------------------------------------------------------------------------

    @overload
    async def complete(self, token: str, value: R, *, task: Task[..., R], by: str = "") -> None: ...
    @overload
    async def complete(self, token: str, value: Any, *, task: None = None, by: str = "") -> None: ...
    async def complete(self, token: str, value: Any, *, task: Task[..., Any] | None = None, by: str = "") -> None:
        """End a task that handed out this token (`Attempt.token`) with its result. Durable when this returns.

        `task`: the task, to have the value checked against its type here and now; unchecked, one that does not fit
        fails the task. A task that has its outcome already keeps it.
        Raises `TokenError`, `RunNotFound`, `RunEnded`, `NotRecordable`, `PayloadTooLarge`.
        """
        await complete_task(self.store, token, value, task=task, message_id=self.message_id(), by=by)

    async def reject(self, token: str, error: BaseException | str, *, by: str = "") -> None:
        """End a task that handed out this token with a final failure. Raises as `complete`."""
        await reject_task(self.store, token, error, message_id=self.message_id(), by=by)

    # -- results that were memoised -----------------------------------------------------------------------------------

    async def forget(self, what: Call[Any] | Task[..., Any], *, by: str = "") -> int:
        """Forget what was memoised of a task (``load``), or of one call (``load("flights")``): the next one computes.

        Durable when this returns: how many results were forgotten. Attempts under way are memoised when they end.
        Raises `HoldfastError` for a call of a task that has no memo, and what the memo's key function does.
        """
        store = self.store
        await self._memos_written()
        return await forget(store, what, clock=self._clock, message_id=self.message_id, by=by)

    # -- workflows ----------------------------------------------------------------------------------------------------

    async def pause_workflow(self, workflow: Workflow[..., Any] | str, *, reason: str = "", by: str = "") -> None:
        """Let no run of a workflow begin anything, in any worker on this store, until it is unpaused.

        Runs that are started meanwhile are recorded and wait; attempts under way end and are recorded. Other workers
        see it within a second.
        """
        name = workflow if isinstance(workflow, str) else workflow.name
        await pause_workflow(self.store, name, clock=self._clock, commit_id=self.message_id(), by=by, reason=reason)
        await self._look_at_pauses()

    async def unpause_workflow(self, workflow: Workflow[..., Any] | str, *, by: str = "") -> None:
        """Let the runs of a paused workflow go on."""
        name = workflow if isinstance(workflow, str) else workflow.name
        await unpause_workflow(self.store, name, clock=self._clock, commit_id=self.message_id(), by=by)
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
        checked_limits({name: slots}, {})
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
