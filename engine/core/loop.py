"""The deterministic loop: an `asyncio` event loop that runs until nothing can run, and then stands still.

It has no clock, no selector and no threads. Time is the time of the last delivered fact; `call_later` and `call_at` are
handed to the host as durable timers; everything ready runs in the order in which it became ready. The same facts in
the same order therefore lead to the same steps in every process, which is what replay rests on.

The loop is run *inside* another one (the engine's), from ordinary code: `run_until_quiet` steps aside for whatever loop
and task were current, and puts them back. Whether code is inside a workflow is decided by the running loop being one of
these, never by a context variable.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import re
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from threading import get_ident
from types import BuiltinMethodType, MethodType
from typing import Any, ClassVar, Final, cast

from engine.core.burial import bury, is_level_cancellation
from engine.core.call import Call
from engine.core.generators import GeneratorKeeper
from engine.core.handles import STEP, WAKE_UP, BranchTask, LoopFuture, ReadyHandle, WorkflowTimer
from engine.core.hosts import NOBODY, LoopHost
from engine.core.lineage import Branch, branch_name, cleaned
from engine.core.nesting import run_nested
from engine.core.ordered import install_asyncio
from engine.core.surface import ForbiddenCallbacks, ForbiddenSurface, LoopSettings
from engine.core.wrappers import ENSURE_FUTURE, WAIT_FOR_WRAPS, made_by_wait_for
from engine.errors import Evicted, ForbiddenInWorkflow, StepLimitExceeded

__all__ = [
    "STEPS_PER_TURN_MAX",
    "TIME_MAX",
    "BranchTask",
    "DeterministicLoop",
    "LoopFuture",
    "WorkflowTimer",
]

STEPS_PER_TURN_MAX: Final = 2_000_000
"""Callbacks that one turn may run before the run is held to be spinning (a gather of 100,000 needs some 300,000)."""

TIME_MAX: Final = 253_402_300_800_000_000
"""Microseconds since the epoch of the year 10000: a timer for then or later, `inf` above all, never fires."""

_HASH_STEP: Final = 0x9E3779B97F4A7C15  # Knuth's multiplicative constant: spreads consecutive serials over the bits
_HASH_MASK: Final = (1 << 61) - 1
_REFUSALS_MAX: Final = 100  # by a coroutine that is being closed
_NOBODYS: Final = cast("asyncio.Handle", None)  # a handle that asyncio's own code asked for, and does not look at
_MADE_UP: Final = re.compile(r"Task-\d+")  # asyncio's own name of a task that nobody named

install_asyncio()


class DeterministicLoop(GeneratorKeeper, LoopSettings, ForbiddenSurface, ForbiddenCallbacks):
    """One run's event loop. `seed` gives hashes, `started_at` (microseconds) the zero of `time()`."""

    holds_workflow: Final = True  # what WorkflowSet looks for, without importing this module
    unburied: ClassVar[list[Any]] = []  # coroutines that swallow everything, kept for ever: see `burial`

    def __init__(self, host: LoopHost, *, seed: str, started_at: int, name: str) -> None:
        self.host = host
        self._task_factory = None  # as the class has it; an object's own is found sooner
        self.root = Branch(name)
        self.now = started_at  # microseconds: the time of the last delivered fact
        self._started_at = started_at
        # Handles, whose callback, context and args are asyncio's own attributes; of steps just these three.
        self.ready: deque[Any] = deque()
        self.parked: Sequence[Any] = ()  # anyio's level cancellation, waiting for somebody else to move; last first
        self._unnamed: list[tuple[BranchTask, Branch, str | None]] = []  # made by which branch, and what they run
        self._hash = int(seed[:15] or "0", 16)
        self._running: Any = None  # the callback that runs
        self._stepping: BranchTask | None = None  # and the branch, where that is a step of one
        self._making: tuple[Branch, str | None] | None = None  # who is calling the user's task factory, and a name
        self._retried = False  # the running callback is anyio's level cancellation, and called itself again
        self.thread = 0
        self.poisoned = False  # for good, once `poison` was called
        self._dying = False  # poisoned for good
        self.refusals = 0  # how often the coroutine that is being closed has been refused
        self.burying = False  # the last act: what is closed is done with
        # Unfinished ones, oldest first: ours by their stable hash, which saves asking for it; others by themselves.
        self.tasks: dict[Any, asyncio.Task[Any]] = {}

    # -- running ------------------------------------------------------------------------------------------------------

    def run_until_quiet(self) -> None:
        """Run every callback that can run, and those that they make ready, until none is left.

        Raises `StepLimitExceeded` when that does not end, and whatever `BaseException` (not `Exception`) a callback let
        out, `KeyboardInterrupt` above all. After either, the instance is to be discarded.
        """
        around = getattr(self.host, "around", None)
        if around is not None:
            if self.thread:
                around(self._drain)
            else:
                run_nested(self, around, self._drain)
        elif self.thread:
            self._drain()
        else:
            run_nested(self, self._drain)

    def run_inside(self, work: Callable[..., Any], *args: Any) -> None:
        """Call `work(*args)` with this loop as the thread's running one; at once, where it is that already."""
        if self.thread:
            work(*args)
        else:
            run_nested(self, work, *args)

    def _drain(self) -> None:
        ready, unnamed, tasks = self.ready, self._unnamed, self.tasks
        steps = 0
        ready.extendleft(self.parked)
        self.parked = ()
        retries = 0  # of anyio's level cancellation, one directly after the other
        # Else whatever is ready is a retry, and each has run since anybody else did.
        while len(ready) > retries and steps <= STEPS_PER_TURN_MAX:
            entry = ready.popleft()
            branch: Any
            if type(entry) is tuple:
                callback, args, context = entry
                branch = callback.__self__  # both the steps of a branch and its wake-ups know whose they are
            elif entry._cancelled:
                continue
            else:
                callback, args, context = entry._callback, entry._args, entry._context
                branch = getattr(callback, "__self__", None)  # as do those of asyncio's tasks written in Python
            if unnamed:
                self.name_branches()
            self._running = callback
            self._stepping = branch if type(branch) is BranchTask else None
            try:
                # By far the most have none or one, and a call with a list of them takes twice as long.
                if not args:
                    context.run(callback)
                elif len(args) == 1:
                    context.run(callback, args[0])
                else:
                    context.run(callback, *args)
            except BaseException as error:
                self._let_out(callback, error)
            # A branch ends in a step of its own. A callback of its end would tell the same, for the price of one more
            # handle to every branch.
            if self._stepping is not None and branch.done():
                tasks.pop(branch.stable_hash, None)
            # It must not outlive its last step here: what it failed with is reported when it goes.
            branch = self._stepping = None
            steps += 1
            retries = retries + 1 if self._retried else 0
            self._retried = False
        self._running = None
        if retries or steps > STEPS_PER_TURN_MAX:
            self._park(steps)

    def _let_out(self, callback: Any, error: BaseException) -> None:
        """What a callback let out; SystemExit leaves asyncio's own steps, too: the task holds it as its outcome."""
        if isinstance(error, KeyboardInterrupt | Evicted):
            raise error
        self.call_exception_handler({"message": f"Exception in callback {callback!r}", "exception": error})

    def _park(self, steps: int) -> None:
        """What is ready waits for a fact. Raises `StepLimitExceeded` where that many steps have led nowhere."""
        if steps > STEPS_PER_TURN_MAX:
            raise StepLimitExceeded(
                f"the workflow ran {steps:,} callbacks without waiting for anything durable: look for a loop"
                " around `await asyncio.sleep(0)`, or one that swallows CancelledError"
            )
        self.parked = tuple(reversed(self.ready))
        self.ready.clear()

    # -- branches and hashes ------------------------------------------------------------------------------------------

    def next_hash(self) -> int:
        """The next stable hash: from the run's seed and a counter, so other runs' objects do not collide with it."""
        self._hash = (self._hash + _HASH_STEP) & _HASH_MASK
        return self._hash

    def current_branch(self) -> Branch:
        """The branch that is running; the run itself in a callback that belongs to no task."""
        stepping = self._stepping
        if stepping is not None and stepping.branch is not None and self._task_factory is None and not self.poisoned:
            return stepping.branch  # nobody has stepped another one from within its step
        task = asyncio.current_task(self)
        if task is None:
            return self.root
        if self._unnamed:
            self.name_branches()
        branch = getattr(task, "branch", None)
        return self._foreign_branch(task) if branch is None else branch

    def name_branches(self) -> None:
        """Settle the identity of the branches made since the last step, in the order they were made."""
        for task, parent, label in self._unnamed:
            if label is not None and task.explicit_name is None:  # as in `branch_name`: nearly all of a fan-out
                task.branch = parent.child(cleaned(label))
            else:
                coro: Any = task.get_coro()
                task.branch = parent.child(branch_name(task.explicit_name, coro, label))
        self._unnamed.clear()

    def _foreign_branch(self, task: asyncio.Task[Any]) -> Branch:
        """A task made by the user's own task factory (an eager one, say) gets its identity when it first asks."""
        coro: Any = task.get_coro()
        parent, name = getattr(task, "made_by", None) or self._making or (self.root, None)
        given = name or task.get_name()  # 3.11's create_task names a task only after it was made
        branch = parent.child(branch_name(None if _MADE_UP.fullmatch(given) else given, coro))
        task.branch = branch  # type: ignore[attr-defined]
        return branch

    def _make_task(self, coro: Any, name: str | None, context: Any, **kwargs: Any) -> asyncio.Task[Any]:
        """A task from the user's own factory, called as asyncio calls it."""
        maker = self.current_branch(), name
        before, self._making = self._making, maker  # an eager task runs, and asks, before there is anything to hold
        if context is not None:
            kwargs["context"] = context
        try:
            task: Any = self._task_factory(self, coro, **kwargs)
        finally:
            self._making = before
        task.made_by = maker
        if name is not None:
            task.set_name(name)
        if not task.done():
            self.tasks[task] = task
            task.add_done_callback(self._foreign_task_done)
        return task  # type: ignore[no-any-return]

    def _foreign_task_done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Any = None, **kwargs: Any
    ) -> asyncio.Task[Any]:
        if self.poisoned:
            self.close_silently(coro)  # what waits for the task hears of its end when the run is buried
            return BranchTask(coro, loop=self, name=name, context=context)
        if self._task_factory is not None:
            return self._make_task(coro, name, context, **kwargs)
        parent = self.current_branch()
        label: str | None = None
        if type(coro) is Call:  # it says what it is; stepping what it runs saves a call at each step
            label, coro = coro.definition.name, coro.for_branch(self)
        task = BranchTask(coro, loop=self, name=name, context=context)
        if WAIT_FOR_WRAPS and sys._getframe(2).f_code is ENSURE_FUTURE and made_by_wait_for():
            task.branch = parent  # 3.11's wait_for wraps what it waits for in a task; later versions do not
        else:
            self._unnamed.append((task, parent, label))
        self.tasks[task.stable_hash] = task
        return task

    def start_main(self, coro: Coroutine[Any, Any, Any]) -> BranchTask:
        """Make the run's main branch (or one of the engine's own) in the run's own, empty context."""
        task = BranchTask(coro, loop=self, name=None, context=contextvars.Context())
        task.branch = self.root
        self.tasks[task.stable_hash] = task
        return task

    def create_future(self) -> LoopFuture:
        return LoopFuture(loop=self)

    # -- callbacks and time -------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Seconds since the run started, as of the last delivered fact."""
        return (self.now - self._started_at) / 1_000_000

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        kind = type(callback)
        if context is not None and (kind is STEP or (kind is BuiltinMethodType and callback.__name__ == WAKE_UP)):
            self.ready.append((callback, args, context))
            return _NOBODYS
        handle = ReadyHandle(callback, args, self, context)
        # anyio's callback is a bound method; asyncio's own steps, nearly all there are, are not.
        if kind is MethodType and self._running == callback and is_level_cancellation(callback):
            self._retried = True
        self.ready.append(handle)
        return handle

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        if self.thread != get_ident():
            raise ForbiddenInWorkflow(
                "another thread called into a workflow's loop: what it knows must arrive as a task's result"
            )
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        if math.isnan(when):
            raise ValueError("a timer's time is not a number (NaN)")
        timer = WorkflowTimer(when, callback, args, self, context)
        if self.poisoned:
            return timer
        if when <= self.time():
            self.ready.append(timer)
        elif self.deadline_of(when) < TIME_MAX:
            self.host.start_timer(timer)
        return timer

    def deadline_of(self, when: float) -> int:
        """Microseconds since the epoch at which `time()` is at, or just after, `when`."""
        if when * 1_000_000 >= TIME_MAX:
            return TIME_MAX
        ticks = math.ceil(when * 1_000_000)
        while ticks / 1_000_000 < when:  # the product was rounded down
            ticks += 1
        while (ticks - 1) / 1_000_000 >= when:  # or up: 8.3 seconds are not 8.300001
            ticks -= 1
        return self._started_at + ticks

    def fire(self, timer: WorkflowTimer) -> None:
        """Make a due timer's callback ready."""
        timer.id = ""
        if not timer.cancelled():
            self.ready.append(timer)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio's own bookkeeping; ours is in `WorkflowTimer.cancel`."""

    # -- the end ------------------------------------------------------------------------------------------------------

    def poison(self) -> None:
        """From now on every durable call raises `Evicted`, timers never fire, new tasks never begin. For good.

        The rest of the loop still answers, so that what a `finally` block does with locks, events and futures neither
        fails half-way nor warns; it is no use to anybody.
        """
        self.poisoned = self._dying = True

    @property
    def replaying(self) -> bool:
        """Whether the code repeats what it did before, or is being put away: what it says now is not for anybody."""
        return self._dying or bool(getattr(self.host, "replaying", False))

    def close_silently(self, awaitable: Any) -> None:
        """Close a coroutine or async generator so that its `finally` blocks run, but can decide nothing."""
        before, self.poisoned = self.poisoned, True
        with suppress(BaseException):  # whatever a dying coroutine raises has nobody left to hear it
            if hasattr(awaitable, "aclose"):
                awaitable.aclose().send(None)
            else:
                awaitable.close()
        self.poisoned = before

    def put_away(self) -> None:
        """Close everything that still lives (see `burial`). The loop must be poisoned."""
        if self.tasks or self._generators:
            run_nested(self, bury, self)
        self.tasks.clear()
        self.ready = deque(maxlen=0)  # nothing becomes ready any more
        self.parked = ()
        self._unnamed.clear()

    def let_go(self) -> None:
        """Forget whom it worked for, who has left memory. The loop must be put away."""
        self.host = NOBODY

    def check_alive(self) -> None:
        """Raise `Evicted` once the instance is being put away.

        Not for ever: code that swallows it in an endless loop is left waiting for what never comes; nothing else ends
        that loop. Who goes on after this must decide nothing while `poisoned`.
        """
        if self.poisoned:
            self.refusals += 1
            if self.refusals <= _REFUSALS_MAX:
                raise Evicted

    # -- the rest of the surface --------------------------------------------------------------------------------------

    def is_running(self) -> bool:
        return self.thread != 0

    def is_closed(self) -> bool:
        return self.poisoned

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.poisoned or self.thread == 0 or self._exception_handler is None:
            return  # garbage collection of a future may get here at any time; it must not run user code
        try:
            if asyncio.current_task(self) is None:  # told of by nobody in particular: the context is nobody's either
                contextvars.Context().run(self._exception_handler, self, context)
            else:
                self._exception_handler(self, context)
        except (KeyboardInterrupt, Evicted):
            raise
        except BaseException as error:
            self.default_exception_handler({"message": "the exception handler failed", "exception": error})
