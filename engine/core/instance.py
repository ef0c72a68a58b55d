"""The live instance of a run: give it facts, one at a time, and it answers with decisions.

`Instance.deliver` is the whole of the turn rule (DESIGN section 5), and the same function live and at replay. After
each fact the workflow's loop runs until nothing can run; what was decided on the way is returned, and written directly
behind that fact. The instance knows no store, no clock and no attempts: it decides, others act.

What is asked for, and what arrives, is kept by its parts: `calls`, `clocks` (timers), `inbox`, `outbox`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import structs

from engine.core.attributes import Attributes
from engine.core.call import Definition
from engine.core.calls import Calls
from engine.core.cancelling import Cancelling
from engine.core.carriage import INLINE, PAYLOAD_LARGE_BYTES, Carriage, TableCodec
from engine.core.decided import Codec, Decided
from engine.core.endings import Ending, ending_of
from engine.core.events import (
    CancelRequested,
    ChildCompleted,
    ChildFailed,
    ChildStarted,
    ContinuedAsNew,
    Decision,
    Fact,
    RequestReceived,
    RunBegun,
    RunCompleted,
    RunStarted,
    SendAccepted,
    SendRejected,
    SignalReceived,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerFired,
    TimerStarted,
)
from engine.core.identity import by_run, cancel_id
from engine.core.inbox import Inbox, LeftOver
from engine.core.loop import DeterministicLoop, WorkflowTimer
from engine.core.nesting import outside
from engine.core.outbox import Outbox
from engine.core.patches import Patches
from engine.core.pending import PendingTask, PendingTimer
from engine.core.timers import Timers
from engine.core.values import present
from engine.core.waiting import Waiting
from engine.errors import ForbiddenInWorkflow, HistoryError, WorkflowEnded

__all__ = ["Decided", "Instance", "PendingTask", "PendingTimer"]

_STARTS = (RunStarted, RunBegun)
_BEGINNINGS = (TaskScheduled, TimerStarted, ChildStarted)
_NOTHING: Mapping[str, Decided] = {}


class Instance:
    """One epoch of a run, in memory. Discard it (`evict`) after any exception out of `deliver`."""

    def __init__(self, definition: Definition[..., Any], run_id: str, *, tables: TableCodec | None) -> None:
        self.definition = definition
        self.tables = tables  # who writes and reads tables, in a run whose large values lie in a storage
        self.carriage = INLINE
        self.run_id = run_id
        self.calls = Calls(self)
        self.begin = self.calls.begin  # what awaiting a call runs, without a call of our own between
        self.pending = self.calls.tasks
        self.clocks = Timers(self)
        self.timers = self.clocks.running
        self.children = self.calls.children
        self.inbox = Inbox(self)
        self.outbox = Outbox(self)
        self.cancelling = Cancelling()
        self.patches = Patches(self)
        self.attributes = Attributes(self)
        self.outcome: Ending | None = None
        self.over = False  # whether the run has ended, and not merely this epoch of it
        self.left_over: list[LeftOver] = []  # for the next epoch
        self.continuation: bytes | None = None  # its arguments
        self.started: RunStarted | None = None
        self.epoch = 0
        self.seed = ""
        self.deadline = 0  # microseconds since the epoch; 0: none
        self.turns = 0  # facts delivered since it began
        self.waiting: Waiting | None = None  # while it is recorded, and nothing of its code has run
        self._early: deque[tuple[SignalReceived, bytes | None]] | None = None  # came while some were still to come
        self.untold = 0  # facts of the last epoch that are still to come, before the code begins
        self.around: Callable[[Callable[[], None]], None] | None = None  # set by who watches: calls what runs the code
        self.replaying = False  # set by who feeds it a history: what the code says meanwhile was said before
        self._loop: DeterministicLoop | None = None
        self.main: asyncio.Task[Any] | None = None  # the branch of the workflow function itself, once that has begun
        self.decided: dict[str, Decided] = {}  # by this turn, so far
        self.continuing = False  # the workflow has asked to continue as new, and is on its way out
        self.ending = False  # the workflow function has returned: what still runs of it is being cancelled
        self.asking = False  # a validator or a query
        self._suspension: Exception | None = None

    @property
    def loop(self) -> DeterministicLoop:
        """The run's loop. Raises `HistoryError` before the run has begun."""
        if self._loop is None:
            missing = "does not begin with RunStarted" if self.started is None else "has no RunBegun yet"
            raise HistoryError(f"the history of run {self.run_id!r} {missing}")
        return self._loop

    @property
    def now(self) -> int:
        """Microseconds since the epoch: the time of the last delivered fact."""
        return self.loop.now

    @property
    def begun(self) -> bool:
        """Whether it has a loop, which its code runs in."""
        return self._loop is not None

    def together(self, work: Callable[[], None]) -> None:
        """Call what delivers several facts, with no await between them: stepping into the loop once saves time."""
        if self._loop is None:
            work()
        else:
            self._loop.run_inside(work)

    # -- facts --------------------------------------------------------------------------------------------------------

    def deliver(self, fact: Fact, payload: bytes | None = None) -> list[Decided]:
        """Run one turn: deliver the fact, run until quiet, return what was decided, each id once.

        Raises what `turn` raises.
        """
        return list(self.turn(fact, payload).values())

    def turn(self, fact: Fact, payload: bytes | None) -> Mapping[str, Decided]:
        """The same, with what was decided by its id.

        Raises `HistoryError` for a fact that does not fit (nobody waits for it), `ArgumentsError` or `NotRecordable`
        for recorded values that the present types do not take, `StepLimitExceeded` for a workflow that spins.
        """
        if self.outcome is not None or (self.waiting is not None and type(fact) is not RunBegun):
            return {item.event.id: item for item in self._deliver_outside(fact, payload)}
        self.outbox.codecs.clear()
        self.turns += 1
        if type(fact) is not TaskCompleted and isinstance(fact, _STARTS):
            self._start(fact, payload)
        else:
            begun = self._loop or self.loop
            if fact.at > begun.now:  # noqa: PLR1730 - as in `Replayer.feed`
                begun.now = fact.at
            self._accept(fact, payload)
        loop = self._loop
        if self.untold or loop is None or self.main is None:
            return _NOTHING
        while self._early:
            self.inbox.accept_signal(*self._early.popleft())
        loop.run_until_quiet()
        if self.cancelling.carried is not None and self.cancelling.ask_as_carried():
            loop.run_until_quiet()
        if self.main.done():
            self._end(self.main)
        if self._suspension is not None:
            raise self._suspension
        if not self.decided:
            return _NOTHING
        decided, self.decided = self.decided, {}
        return decided

    def _deliver_outside(self, fact: Fact, payload: bytes | None) -> list[Decided]:
        """Before the code begins, or when it has ended."""
        if self.waiting is not None:
            return self.waiting.take(fact, payload)
        if isinstance(self.outcome, ContinuedAsNew) and isinstance(fact, SignalReceived):
            self.left_over.append((fact, payload))  # it came before the next epoch began
            return []
        raise HistoryError(f"run {self.run_id!r} has ended; {fact!r} cannot be delivered")

    def _start(self, fact: RunStarted | RunBegun, payload: bytes | None) -> None:
        if isinstance(fact, RunBegun):
            if self.waiting is None:
                raise HistoryError(f"run {self.run_id!r} has not been waiting to begin")
            self._begin(*self.waiting.arguments, at=fact.at)
            return
        if self.started is not None:
            raise HistoryError(f"the history of run {self.run_id!r} starts twice")
        if fact.large:
            self.carriage = Carriage(PAYLOAD_LARGE_BYTES, self.tables)
        args, kwargs = self.definition.arguments.decode(present(payload, "the arguments of the run"), self.carriage)
        if not _is_seed(fact.seed):
            raise HistoryError(f"the seed of run {self.run_id!r} is not hexadecimal: {fact.seed!r}")
        self.started = fact
        self.seed, self.epoch, self.deadline = fact.seed, fact.epoch, fact.deadline
        self.attributes.begin(fact.attributes)
        self.cancelling.parent = by_run(fact.parent)
        if fact.waits:
            self.turns = 0  # it is no turn: nothing runs
            self.waiting, self.clocks.begins_at = Waiting(self, args, kwargs), fact.begins_at
        else:
            self.untold = fact.carried
            self._begin(args, kwargs, at=fact.at)

    def _begin(self, args: Sequence[Any], kwargs: Mapping[str, Any], *, at: int) -> None:
        self.waiting = self.clocks.begins_at = None
        self._loop = DeterministicLoop(self, seed=self.seed, started_at=at, name=self.definition.name)
        coro = self.definition.fn(*args, **kwargs)
        if self.deadline:
            coro = self.cancelling.await_within(coro, (self.deadline - at) / 1_000_000, self.run_id)
        self.main = self.cancelling.main = self._loop.start_main(coro)

    def _accept(self, fact: Fact, payload: bytes | None) -> None:
        if self.untold and not self._is_carried(fact, payload):
            return
        if type(fact) is TaskCompleted:  # nearly all there are
            self.calls.accept_task(fact, payload)
            return
        match fact:
            case TaskCompleted() | TaskFailed():
                self.calls.accept_task(fact, payload)
            case TimerFired():
                self.clocks.fired(fact)
            case SignalReceived():
                self.inbox.accept_signal(fact, payload)
            case ChildCompleted() | ChildFailed():
                self.calls.accept_child(fact, payload)
            case RequestReceived():
                self.inbox.accept_request(fact, payload)
            case SendAccepted() | SendRejected():
                self.outbox.settle(fact)
            case CancelRequested():
                self.cancelling.ask(fact)
            case _:
                raise HistoryError(f"{fact!r} is not a fact that a run takes")

    def _is_carried(self, fact: Fact, payload: bytes | None) -> bool:
        """Whether what comes before the epoch's code begins is among what it carries on; signals may come too."""
        if isinstance(fact, SignalReceived) and not fact.carried:
            self._early = self._early or deque()
            self._early.append((fact, payload))  # it counts as come behind them, and before the code begins
            return False
        self.untold -= 1
        if not getattr(fact, "carried", False):
            raise HistoryError(f"{fact!r} stands before what the run has carried on from its last epoch")
        return True

    def postpone(self, by: int) -> None:
        """Let that many microseconds not count: the run stood still."""
        self.clocks.postpone(by)
        for pending in self.pending.values():
            pending.scheduled_at += by
        if self.deadline and self.started is not None:
            self.deadline += by
            self.started = structs.replace(self.started, deadline=self.started.deadline + by)  # for epochs to come

    # -- decisions ----------------------------------------------------------------------------------------------------

    def start_timer(self, timer: WorkflowTimer) -> None:
        """A durable timer is wanted: see `LoopHost`."""
        self.clocks.start(timer)

    def cancel_timer(self, timer: WorkflowTimer) -> None:
        """A durable timer is no longer wanted: see `LoopHost`."""
        self.clocks.cancel(timer)

    def decide(self, event: Decision, payload: bytes | None = None) -> None:
        """The workflow has decided something; it is written when this turn is."""
        self.decided[event.id] = Decided(event, payload)

    def undecide(self, id_: str) -> bool:
        """Take back the beginning of something, if it was decided in this very turn: then it never happened."""
        decided = self.decided.get(id_)
        if decided is None or not isinstance(decided.event, _BEGINNINGS):
            return False
        del self.decided[id_]
        if isinstance(decided.event, ChildStarted):
            self.decided.pop(cancel_id(id_), None)  # nor was it asked to end
        return True

    def codec_of(self, event: Decision) -> Codec | None:
        """What knows the type of the payload of a decision of the last turn."""
        match event:
            case TaskScheduled(id=id_):
                task = self.pending.get(id_)
                return None if task is None else task.definition.arguments
            case ChildStarted(id=id_):
                child = self.children.get(id_)
                return None if child is None else child.definition.arguments
            case RunCompleted():
                return self.definition.result
            case ContinuedAsNew():
                return self.definition.arguments
            case _:
                return self.outbox.codec_of(event)

    def check_open(self, what: object) -> None:
        """Raise if nothing can be decided: the instance is being put away, the workflow has returned, or is asked."""
        loop = self._loop or self.loop
        if loop.poisoned:
            loop.check_alive()
        if self.asking:
            raise ForbiddenInWorkflow(f"{what} was begun by a validator or a query: they read, and decide nothing")
        if self.ending:
            raise WorkflowEnded(f"{what} was begun after workflow {self.definition.name!r} had returned")

    def suspend(self, error: Exception) -> None:
        """Let this turn end in an error, out of sight of the workflow."""
        self._suspension = self._suspension or error

    def ask(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call user code that may read the workflow's objects and decide nothing. Raises what it raises.

        Code that wakes a branch all the same did what no replay will do: that is `ForbiddenInWorkflow`, and the run is
        suspended with its next turn.
        """
        answer: list[Any] = []
        self.asking = True
        ready = len(self.loop.ready)
        try:
            self.loop.run_inside(lambda: answer.append(fn(*args)))
        finally:
            self.asking = False
            woken = len(self.loop.ready) > ready
            error = ForbiddenInWorkflow("a validator or a query changed what the workflow waits for")
            if woken:
                self.suspend(error)
        if woken:
            raise error
        return answer[0]

    # -- the end ------------------------------------------------------------------------------------------------------

    def _end(self, main: asyncio.Task[Any]) -> None:
        """The workflow function has ended: cancel what it left, as `asyncio.run` does, and decide the outcome."""
        self.ending = True
        reason = self.cancelling.reason
        event, payload = outside(
            ending_of, main, self.definition, at=self.now, cancel_reason=reason, carriage=self.carriage
        )
        loop = self.loop
        for branch in list(loop.tasks.values()):
            branch.cancel()
        if loop.ready or loop.parked:  # most leave nothing, and stepping into a loop costs as much as a small turn
            loop.run_until_quiet()
        for generator in loop.live_generators():
            loop.start_main(_finish_generator(generator))
        if loop.ready or loop.parked:
            loop.run_until_quiet()
        self.clocks.cancel_all()
        self.calls.close()
        self.outbox.sends.clear()
        self.left_over = [*self.inbox.left_over()]
        if (unheard := self.cancelling.unheard()) is not None:
            self.left_over.append((unheard, None))
        self.decide(event, payload)
        self.outcome, self.over = event, not isinstance(event, ContinuedAsNew)
        if not self.over:
            self.continuation = payload
        self.evict()

    def evict(self) -> None:
        """Put the instance away: its coroutines are closed silently and can decide nothing. Doing it twice is fine."""
        if self._loop is not None:
            self._loop.poison()
            self._loop.put_away()

    def let_go(self) -> None:
        """Evict it, and forget its parts, which know it: only how it ended may be asked of it from now on.

        What stands in a circle would stay in memory until the garbage collector comes by, and goes through it.
        """
        self.evict()
        del self.begin, self.calls, self.clocks, self.inbox, self.outbox, self.patches, self.attributes
        self.waiting = self.main = self.cancelling.main = None
        if self._loop is not None:
            self._loop.let_go()

    def __del__(self) -> None:
        # Whoever lets an instance go has evicted it. If it was forgotten, its coroutines must not be closed by the
        # garbage collector outside their loop: there, a task call in a `finally` would simply be the function.
        if self._loop is not None and not self._loop.poisoned:
            self.evict()


def _is_seed(text: str) -> bool:
    return set(text) <= set("0123456789abcdefABCDEF")


async def _finish_generator(generator: Any) -> None:
    await generator.aclose()
