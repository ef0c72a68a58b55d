"""The calls of a run: tasks and child runs that its workflow awaits, from the asking to the outcome.

An await is one decision (scheduled, started) and ends with one fact (completed, failed). What cancelling it means is
decided here too: see `OnCancel`.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from engine.core.call import Call, Definition
from engine.core.carriage import Carriage
from engine.core.events import (
    ChildCancelled,
    ChildCompleted,
    ChildFailed,
    ChildStarted,
    ChildTerminated,
    Decision,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
)
from engine.core.failures import ErrorInfo, decode_error, rebuild
from engine.core.identity import cancel_id, child_run_id, terminate_id
from engine.core.loop import DeterministicLoop
from engine.core.pending import PendingCall, PendingChild, PendingTask
from engine.core.sites import site
from engine.core.values import present
from engine.errors import HistoryError, RunCancelledError, RunConflict, RunFailedError, RunTerminatedError

__all__ = ["CANCELLED", "Calls"]

CANCELLED: Final = "asyncio.exceptions.CancelledError"
"""The error of a task that was asked to end, and did."""


class CallHost(Protocol):
    """What calls need of their instance."""

    run_id: str
    epoch: int
    deadline: int
    carriage: Carriage
    asking: bool
    ending: bool

    @property
    def loop(self) -> DeterministicLoop: ...
    @property
    def now(self) -> int: ...
    def check_open(self, what: object) -> None: ...
    def decide(self, event: Decision, payload: bytes | None = None) -> None: ...
    def undecide(self, id_: str) -> bool: ...


class Calls:
    """See the module. `tasks` and `children` are by id: those whose outcome is still awaited."""

    def __init__(self, host: CallHost) -> None:
        self.tasks: dict[str, PendingTask] = {}
        self.children: dict[str, PendingChild] = {}
        self.definitions: dict[str, Definition[..., Any]] = {}  # of child runs, by name and version
        self.abandoned: dict[str, str] = {}  # run ids of children whose await was given up, and that our end terminates
        self._host = host

    @property
    def carriage(self) -> Carriage:
        """How arguments and results travel."""
        return self._host.carriage

    # -- awaiting -----------------------------------------------------------------------------------------------------

    async def begin(self, call: Call[Any], loop: DeterministicLoop) -> Any:
        """What awaiting `call` inside this workflow runs; `loop` is the workflow's."""
        if loop.poisoned:
            loop.check_alive()
            await loop.create_future()
        pending = self._schedule(call, loop) if call.definition.kind == "task" else self.start_child(call)
        del call  # while this waits nobody needs it: of a fan-out there may be 100,000
        try:
            return await pending
        finally:
            if pending.held and not loop.poisoned:
                _cancel_at_next_await(loop, pending)
            del pending  # an error that came out of it knows this frame

    def _schedule(self, call: Call[Any], loop: DeterministicLoop) -> PendingTask:
        host = self._host
        if host.asking or host.ending:  # `begin` has looked at the rest of what `check_open` does
            host.check_open(call)
        definition = call.definition
        arguments = definition.arguments.encode(call.args, call.kwargs, host.carriage)
        # The result's codec is made here, so that an annotation which cannot be recorded fails before the task runs.
        result = definition.result
        if result.tabular:
            host.carriage.table_codec(result.where)
        id_ = loop.current_branch().next_id(definition.name)
        pending = self.tasks[id_] = PendingTask(loop, self, id_, definition, arguments=arguments, result=result)
        event = TaskScheduled(at=loop.now, id=id_, site=call.site, task=definition.name)
        host.decide(event, arguments)
        return pending

    def start_child(self, call: Call[Any]) -> PendingChild:
        """Decide that a child run is wanted, and do not wait for it."""
        host = self._host
        host.check_open(call)
        definition: Any = call.definition
        options = definition.policy
        arguments = definition.arguments.encode(call.args, call.kwargs, host.carriage)
        definition.arguments.decode(
            arguments, host.carriage
        )  # what does not come back must fail here, not in the child
        _ = definition.result
        loop = host.loop
        id_ = loop.current_branch().next_id(definition.name)
        run_id = options.id or child_run_id(host.run_id, host.epoch, id_)
        pending = self.children[id_] = PendingChild(
            loop,
            self,
            id_,
            definition,
            run_id=run_id,
            parent_close=options.parent_close,
            chosen=bool(options.id),
        )
        self.definitions.setdefault(f"{definition.name} {definition.version}", definition)
        event = ChildStarted(
            at=loop.now,
            id=id_,
            site=call.site,
            workflow=definition.name,
            run=run_id,
            parent_close=options.parent_close,
            deadline=self._deadline(options.deadline),
            version=definition.version,
        )
        host.decide(event, arguments)
        return pending

    def _deadline(self, seconds: float | None) -> int:
        """The child's deadline: its own, or the parent's if that is earlier; 0 for none."""
        host = self._host
        if seconds is None:
            return host.deadline
        own = host.now + round(seconds * 1_000_000)
        return min(own, host.deadline) if host.deadline else own

    # -- cancelling ---------------------------------------------------------------------------------------------------

    def cancel(self, pending: PendingCall) -> bool:
        """The await of a call is cancelled. Returns whether the await ends now."""
        made_now = self._host.undecide(pending.id)  # asked for and cancelled within one turn: it never happened
        if not made_now and not pending.asked_to_end:
            self._decide_cancelled(pending)
        if pending.on_cancel == "wait" and not made_now:
            pending.asked_to_end = True
            return False
        self.tasks.pop(pending.id, None)
        child = self.children.pop(pending.id, None)
        if child is not None and child.parent_close == "terminate" and not made_now:
            self.abandoned[child.id] = child.run_id
        return True

    def cancel_child(self, pending: PendingChild) -> None:
        """Ask a child run to end, and go on waiting for its outcome."""
        if not pending.asked_to_end and pending.id in self.children:
            pending.asked_to_end = True
            self._decide_cancelled(pending)

    def _decide_cancelled(self, pending: PendingCall) -> None:
        host = self._host
        event: Decision
        if isinstance(pending, PendingChild):
            event = ChildCancelled(at=host.now, id=cancel_id(pending.id), site=site(), run=pending.run_id)
        else:
            event = TaskCancelled(at=host.now, id=pending.id, site=site())
        host.decide(event)

    def close(self) -> None:
        """The workflow function has ended: what it left is not wanted any more."""
        host = self._host
        for pending in list(self.tasks.values()):
            if not host.undecide(pending.id) and not pending.asked_to_end:
                host.decide(TaskCancelled(at=host.now, id=pending.id))
        self.tasks.clear()
        for child in list(self.children.values()):
            if child.parent_close == "abandon":  # also one that was asked for in this very turn: it is to outlive us
                continue
            if host.undecide(child.id):
                continue
            if child.parent_close == "terminate":  # also one that was only asked to end: it may take its time
                self.abandoned[child.id] = child.run_id
            elif not child.asked_to_end:
                host.decide(ChildCancelled(at=host.now, id=cancel_id(child.id), run=child.run_id))
        self.children.clear()
        for id_, run_id in self.abandoned.items():
            host.decide(ChildTerminated(at=host.now, id=terminate_id(id_), run=run_id))

    # -- outcomes -----------------------------------------------------------------------------------------------------

    def accept_task(self, fact: TaskCompleted | TaskFailed, payload: bytes | None) -> None:
        """A task has its outcome. Raises `HistoryError` when nobody waits for it."""
        pending = self.tasks.get(fact.id)
        if pending is None:
            raise HistoryError(f"{fact!r}: the workflow does not wait for such a task")
        if isinstance(fact, TaskCompleted):
            payload = payload if payload is not None else present(None, fact.id)
            value = pending.result_codec.decode(payload, self._host.carriage)
            del self.tasks[fact.id]
            if not pending.done():
                pending.set_result(value)
            return
        info = decode_error(payload) if payload is not None else ErrorInfo(type=fact.error, message="(destroyed)")
        self.tasks.pop(fact.id)
        if pending.done():
            return
        if fact.error == CANCELLED and pending.asked_to_end and pending.held:
            pending.end_cancelled()
        else:
            pending.set_exception(rebuild(info, pending.definition.raises))

    def accept_child(self, fact: ChildCompleted | ChildFailed, payload: bytes | None) -> None:
        """A child run has its outcome. Raises `HistoryError` when nobody waits for it."""
        if self.abandoned.pop(fact.id, None) is not None:
            return
        pending = self.children.get(fact.id)
        if pending is None:
            raise HistoryError(f"{fact!r}: the workflow does not wait for such a child run")
        if isinstance(fact, ChildCompleted):
            payload = payload if payload is not None else present(None, fact.id)
            value = pending.definition.result.decode(payload, self._host.carriage)
            self.children.pop(fact.id)
            if not pending.done():
                pending.set_result(value)
            return
        self.children.pop(fact.id)
        if pending.done():
            return
        if fact.status == "cancelled" and pending.asked_to_end and pending.held:
            pending.end_cancelled()
        else:
            pending.set_exception(_child_error(pending, fact, payload))


def _child_error(pending: PendingChild, fact: ChildFailed, payload: bytes | None) -> Exception:
    run_id = pending.run_id
    match fact.status:
        case "failed":
            info = decode_error(payload) if payload is not None else ErrorInfo(type=fact.error, message="(destroyed)")
            failed = RunFailedError(run_id, type=info.type, message=info.message, traceback=info.traceback)
            failed.__cause__ = rebuild(info)
            return failed
        case "cancelled":
            return RunCancelledError(run_id, _with_reason(f"run {run_id!r} was cancelled", fact.reason))
        case "terminated":
            return RunTerminatedError(run_id, _with_reason(f"run {run_id!r} was terminated", fact.reason))
        case "conflict":
            return RunConflict(
                f"run {run_id!r} exists already, and is no child of this call of {pending.definition.where}:"
                " choose another id with options(id=...), or leave it out"
            )


def _with_reason(text: str, reason: str) -> str:
    return f"{text}: {reason}" if reason else text


def _cancel_at_next_await(loop: DeterministicLoop, pending: PendingCall) -> None:
    """Repeat a cancellation that `on_cancel="wait"` held back, once the branch waits for something else.

    Not with `task.cancel()` here and now: before Python 3.13 a task keeps that even when the timeout or group that
    asked for it takes it back (`uncancel`) on the way to its next await, and would be cancelled by nobody.
    """
    task = asyncio.current_task(loop)
    if task is not None:
        loop.call_soon(_cancel_again, task, task.cancelling() - pending.held, pending.cancel_message)


def _cancel_again(task: asyncio.Task[Any], requests_before: int, message: Any) -> None:
    if task.cancelling() <= requests_before:
        return  # all of those held back were taken back
    if task.done():
        loop: Any = task.get_loop()
        loop.host.cancelling.missed(task)
    else:
        asyncio.Task.uncancel(task)  # it was counted when it was asked for; nobody takes it back
        task.cancel(message)
