"""The live instance of a run: give it facts, one at a time, and it answers with decisions.

`Instance.deliver` is the whole of the turn rule (DESIGN section 5), and the same function live and at replay. After
each fact the workflow's loop runs until nothing can run; what was decided on the way is returned, and written directly
behind that fact. The instance knows no store, no clock and no attempts: it decides, others act.
"""

from __future__ import annotations

import asyncio
import heapq
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final, NamedTuple

from engine.core.call import Call, Definition
from engine.core.events import (
    CancelRequested,
    Decision,
    Fact,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunStarted,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCancelled,
    TimerFired,
    TimerStarted,
)
from engine.core.failures import ErrorInfo, decode_error, describe, encode_error, plain_text, rebuild
from engine.core.loop import DeterministicLoop, LoopFuture, WorkflowTimer
from engine.errors import (
    DefinitionError,
    ForbiddenInWorkflow,
    HistoryError,
    NotRecordable,
    PayloadTooLarge,
    WorkflowEnded,
)

__all__ = ["Decided", "Instance", "PendingTask", "PendingTimer"]

_LIBRARIES: Final = frozenset({"asyncio", "anyio", "engine", "contextlib"})


class Decided(NamedTuple):
    """A decision and its payload."""

    event: Decision
    payload: bytes | None = None


class PendingTask:
    """A task call whose outcome the workflow has not seen yet."""

    __slots__ = ("arguments", "cancel_message", "cancelled", "definition", "future", "held", "id", "scheduled_at")

    def __init__(self, id: str, definition: Definition[..., Any], arguments: bytes, scheduled_at: int) -> None:  # noqa: A002
        self.id = id
        self.definition = definition
        self.arguments = arguments
        self.scheduled_at = scheduled_at  # microseconds; deadlines over all attempts count from here
        self.cancelled = False  # asked to end, its outcome still awaited (on_cancel="wait")
        self.held = 0  # requests to cancel its await that were held back meanwhile
        self.cancel_message: Any = None  # of the first of them that had one
        self.future: TaskFuture


class PendingTimer(NamedTuple):
    """A durable timer that has neither fired nor been cancelled. `deadline` in microseconds since the epoch."""

    deadline: int
    timer: WorkflowTimer


class TaskFuture(LoopFuture):
    """What the await of a task call waits for; cancelling it is a decision."""

    def __init__(self, instance: Instance, pending: PendingTask) -> None:
        super().__init__(loop=instance.loop)
        self._instance = instance
        self._pending = pending

    def cancel(self, msg: Any = None) -> bool:
        if self.done():
            return False
        loop = self._instance.loop
        if loop.poisoned:  # a dying coroutine cancels what it had begun: that decides nothing
            return loop.burying and super().cancel(msg)
        if self._instance.cancel_task(self._pending):
            return super().cancel(msg)
        self._pending.held += 1
        if self._pending.cancel_message is None:
            self._pending.cancel_message = msg
        return True


class Instance:
    """One run, in memory. Discard it (`evict`) after any exception out of `deliver`."""

    def __init__(self, definition: Definition[..., Any], run_id: str) -> None:
        self.definition = definition
        self.run_id = run_id
        self.pending: dict[str, PendingTask] = {}
        self.timers: dict[str, PendingTimer] = {}
        self.outcome: RunCompleted | RunFailed | RunCancelled | None = None
        self.epoch = 0
        self.seed = ""
        self.around: Callable[[Callable[[], None]], None] | None = None  # set by who watches: calls what runs the code
        self.replaying = False  # set by who feeds it a history: what the code says meanwhile was said before
        self._loop: DeterministicLoop | None = None
        self._main: asyncio.Task[Any] | None = None
        self._decided: dict[str, Decided] = {}
        self._deadlines: list[tuple[int, int, str]] = []  # a heap; timers that are gone leave it when they come up
        self._timer_serial = 0
        self._ending = False
        self._cancel_reason = ""

    @property
    def loop(self) -> DeterministicLoop:
        """The run's loop. Raises `HistoryError` before the run has started."""
        if self._loop is None:
            raise HistoryError(f"the history of run {self.run_id!r} does not begin with RunStarted")
        return self._loop

    @property
    def now(self) -> int:
        """Microseconds since the epoch: the time of the last delivered fact."""
        return self.loop.now

    def together(self, work: Callable[[], None]) -> None:
        """Call what delivers several facts, with no await between them: stepping into the loop once saves time."""
        if self._loop is None:
            work()
        else:
            self._loop.run_inside(work)

    # -- facts --------------------------------------------------------------------------------------------------------

    def deliver(self, fact: Fact, payload: bytes | None = None) -> list[Decided]:
        """Run one turn: deliver the fact, run until quiet, return what was decided, each id once.

        Raises `HistoryError` for a fact that does not fit (nobody waits for it), `ArgumentsError` or `NotRecordable`
        for recorded values that the present types do not take, `StepLimitExceeded` for a workflow that spins.
        """
        if self.outcome is not None:
            raise HistoryError(f"run {self.run_id!r} has ended; {fact!r} cannot be delivered")
        self._decided = {}
        if isinstance(fact, RunStarted):
            self._start(fact, payload)
        else:
            self.loop.now = max(self.loop.now, fact.at)
            self._accept(fact, payload)
        self.loop.run_until_quiet()
        assert self._main is not None
        if self._main.done():
            self._end(self._main)
        decided, self._decided = list(self._decided.values()), {}
        return decided

    def _start(self, fact: RunStarted, payload: bytes | None) -> None:
        if self._loop is not None:
            raise HistoryError(f"the history of run {self.run_id!r} starts twice")
        args, kwargs = self.definition.arguments.decode(_present(payload, "the arguments of the run"))
        self.seed = fact.seed
        self._loop = DeterministicLoop(self, seed=fact.seed, started_at=fact.at, name=self.definition.name)
        self._main = self._loop.start_main(self.definition.fn(*args, **kwargs))

    def _accept(self, fact: Fact, payload: bytes | None) -> None:
        match fact:
            case TaskCompleted(id=id_):
                pending = self._take(id_, fact)
                value = pending.definition.result.decode(payload if payload is not None else _present(None, id_))
                self.pending.pop(id_)
                if not pending.future.done():
                    pending.future.set_result(value)
            case TaskFailed(id=id_):
                pending = self._take(id_, fact)
                info = (
                    decode_error(payload) if payload is not None else ErrorInfo(type=fact.error, message="(destroyed)")
                )
                self.pending.pop(id_)
                if not pending.future.done():
                    pending.future.set_exception(rebuild(info, pending.definition.raises))
            case TimerFired(id=id_):
                found = self.timers.pop(id_, None)
                if found is None:
                    raise HistoryError(f"{fact!r}: no such timer is running")
                self.loop.fire(found.timer)
            case CancelRequested(reason=reason):
                assert self._main is not None
                self._cancel_reason = self._cancel_reason or reason
                self._main.cancel(reason or None)
            case _:
                raise HistoryError(f"{fact!r} is not a fact that a run takes")

    def _take(self, id_: str, fact: Fact) -> PendingTask:
        pending = self.pending.get(id_)
        if pending is None:
            raise HistoryError(f"{fact!r}: the workflow does not wait for such a task")
        return pending

    # -- decisions ----------------------------------------------------------------------------------------------------

    def begin(self, call: Call[Any]) -> Coroutine[Any, Any, Any]:
        """What awaiting `call` inside this workflow runs."""
        if call.definition.kind != "task":
            raise ForbiddenInWorkflow(
                f"{call!r} was awaited inside a workflow: this version has no child runs yet."
                " Await its tasks here, or start it beside this run with engine.start"
            )
        return self._await_task(call)

    async def _await_task(self, call: Call[Any]) -> Any:
        if self.loop.poisoned:
            self.loop.check_alive()
            await self.loop.create_future()
        pending = self._schedule(call)
        try:
            return await pending.future
        finally:
            if pending.held and not self.loop.poisoned:
                _cancel_at_next_await(self.loop, pending)

    def _schedule(self, call: Call[Any]) -> PendingTask:
        self._check_open(call)
        definition = call.definition
        arguments = definition.arguments.encode(call.args, call.kwargs)
        # The result's codec is made here, so that an annotation which cannot be recorded fails before the task runs.
        _ = definition.result
        loop = self.loop
        id_ = loop.current_branch().next_id(definition.name)
        pending = PendingTask(id_, definition, arguments, loop.now)
        pending.future = TaskFuture(self, pending)
        self.pending[id_] = pending
        self._decided[id_] = Decided(
            TaskScheduled(at=loop.now, id=id_, site=call.site, task=definition.name), arguments
        )
        return pending

    def cancel_task(self, pending: PendingTask) -> bool:
        """The await of a task is cancelled. Returns whether the await ends now."""
        decided = self._decided.get(pending.id)
        made_now = decided is not None and isinstance(decided.event, TaskScheduled)
        if made_now:  # asked for and cancelled within one turn: it never happened
            del self._decided[pending.id]
        elif not pending.cancelled:
            self._decide(TaskCancelled(at=self.now, id=pending.id, site=_site()))
        if pending.definition.on_cancel == "wait" and not made_now:
            pending.cancelled = True
            return False
        self.pending.pop(pending.id, None)
        return True

    def next_deadline(self) -> int | None:
        """Microseconds since the epoch at which the earliest running timer is due."""
        heap = self._deadlines
        while heap and heap[0][2] not in self.timers:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def take_due(self, now: int) -> list[TimerFired]:
        """The facts of all timers due at `now`, earliest first, each handed out once."""
        due: list[TimerFired] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            due.append(TimerFired(at=deadline, id=heapq.heappop(self._deadlines)[2]))
        return due

    def start_timer(self, timer: WorkflowTimer) -> None:
        """A durable timer is wanted: see `LoopHost`."""
        self._check_open("a timer")
        timer.id = self.loop.current_branch().next_id("timer")
        deadline = self.loop.deadline_of(timer.when())
        self.timers[timer.id] = PendingTimer(deadline, timer)
        heapq.heappush(self._deadlines, (deadline, self._timer_serial, timer.id))
        self._timer_serial += 1
        self._decide(TimerStarted(at=self.now, id=timer.id, site=_site(), deadline=deadline))

    def cancel_timer(self, timer: WorkflowTimer) -> None:
        """A durable timer is no longer wanted: see `LoopHost`."""
        if self.loop.poisoned or self.timers.pop(timer.id, None) is None:
            return
        if timer.id in self._decided:
            del self._decided[timer.id]
        else:
            self._decide(TimerCancelled(at=self.now, id=timer.id))

    def _decide(self, event: Decision, payload: bytes | None = None) -> None:
        self._decided[event.id] = Decided(event, payload)

    def _check_open(self, what: object) -> None:
        self.loop.check_alive()
        if self._ending:
            raise WorkflowEnded(f"{what} was begun after workflow {self.definition.name!r} had returned")

    # -- the end ------------------------------------------------------------------------------------------------------

    def _end(self, main: asyncio.Task[Any]) -> None:
        """The workflow function has ended: cancel what it left, as `asyncio.run` does, and decide the outcome."""
        self._ending = True
        event, payload = self._outcome_of(main)
        loop = self.loop
        for branch in list(loop.tasks):
            branch.cancel()
        loop.run_until_quiet()
        for generator in loop.live_generators():
            loop.start_main(_finish_generator(generator))
        loop.run_until_quiet()
        for timer in list(self.timers.values()):
            timer.timer.cancel()
        for pending in list(self.pending.values()):
            if pending.id in self._decided and isinstance(self._decided[pending.id].event, TaskScheduled):
                del self._decided[pending.id]
            elif not pending.cancelled:
                self._decide(TaskCancelled(at=self.now, id=pending.id))
        self.pending.clear()
        self._decide(event, payload)
        self.outcome = event
        self.evict()

    def _outcome_of(self, main: asyncio.Task[Any]) -> tuple[RunCompleted | RunFailed | RunCancelled, bytes | None]:
        if main.cancelled():
            return RunCancelled(at=self.now, reason=self._cancel_reason or _message_of(main)), None
        error = main.exception()
        if error is None:
            try:
                return RunCompleted(at=self.now), self.definition.result.encode_checked(main.result())
            except (DefinitionError, NotRecordable, PayloadTooLarge) as refused:
                error = refused
        info = describe(error)
        return RunFailed(at=self.now, error=info.type), encode_error(info)

    def evict(self) -> None:
        """Put the instance away: its coroutines are closed silently and can decide nothing. Doing it twice is fine."""
        if self._loop is not None:
            self._loop.poison()
            self._loop.put_away()

    def __del__(self) -> None:
        # Whoever lets an instance go has evicted it. If it was forgotten, its coroutines must not be closed by the
        # garbage collector outside their loop: there, a task call in a `finally` would simply be the function.
        if self._loop is not None and not self._loop.poisoned:
            self.evict()


async def _finish_generator(generator: Any) -> None:
    await generator.aclose()


def _message_of(cancelled: asyncio.Task[Any]) -> str:
    """What a workflow said that cancelled itself.

    One that was asked to by a fact ends with that fact's reason: the message of a CancelledError gets lost on the way
    in some Python versions, and in anyio's there are addresses.
    """
    try:
        cancelled.result()
    except asyncio.CancelledError as error:
        return plain_text(error.args[0] or "") if error.args else ""
    return ""


def _cancel_at_next_await(loop: DeterministicLoop, pending: PendingTask) -> None:
    """Repeat a cancellation that `on_cancel="wait"` held back, once the branch waits for something else.

    Not with `task.cancel()` here and now: before Python 3.13 a task keeps that even when the timeout or group that
    asked for it takes it back (`uncancel`) on the way to its next await, and would be cancelled by nobody.
    """
    task = asyncio.current_task(loop)
    if task is not None:
        loop.call_soon(_cancel_again, task, task.cancelling() - pending.held, pending.cancel_message)


def _cancel_again(task: asyncio.Task[Any], requests_before: int, message: Any) -> None:
    if not task.done() and task.cancelling() > requests_before:  # not all of those held back were taken back
        task.uncancel()  # it was counted when it was asked for
        task.cancel(message)


def _present(payload: bytes | None, what: str) -> bytes:
    if payload is None:
        raise HistoryError(f"{what} was destroyed: the history still verifies, but it cannot be replayed")
    return payload


def _site() -> str:
    """File and line of the nearest caller that is neither this library nor asyncio nor anyio."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] not in _LIBRARIES:
            return f"{frame.f_code.co_filename.replace(chr(92), '/').rpartition('/')[2]}:{frame.f_lineno}"
        if frame.f_code.co_name in ("run_until_quiet", "deliver"):
            return ""
        frame = frame.f_back
    return ""
