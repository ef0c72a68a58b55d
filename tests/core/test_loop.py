"""The loop: its whole surface, its time, its place inside another loop, and what stops it."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
import random
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
import uvloop

import engine.core.loop as loop_module
from engine import durable, workflow
from engine.core.carriage import INLINE
from engine.core.events import RunStarted, TaskScheduled, TimerFired, TimerStarted
from engine.core.instance import Decided, Instance
from engine.core.loop import TIME_MAX, DeterministicLoop
from engine.errors import (
    DefinitionError,
    ForbiddenInWorkflow,
    HistoryError,
    HoldfastError,
    NotRecordable,
    StepLimitExceeded,
)
from tests.core.cases import work
from tests.core.harness import RUN_ID, SEED, START, World, check_crashes, ending, first, last, play, seeded

outside: contextvars.ContextVar[str] = contextvars.ContextVar("outside", default="unset")


def begin(fn: Callable[..., Any], *args: Any) -> tuple[Instance, list[Decided]]:
    """The instance of a workflow after its first turn."""
    definition = workflow(fn)
    instance = Instance(definition, RUN_ID, tables=None)
    fact = RunStarted(at=START, workflow=definition.name, seed=SEED)
    return instance, instance.deliver(fact, definition.arguments.encode(args, {}, INLINE))


def result(fn: Callable[..., Any], *args: Any) -> Any:
    """What a workflow without tasks returns in its first turn."""
    instance, decided = begin(fn, *args)
    assert instance.outcome is not None, decided
    assert type(decided[-1].event).__name__ == "RunCompleted", decided
    assert decided[-1].payload is not None
    return instance.definition.result.decode(decided[-1].payload)


# -- surface ----------------------------------------------------------------------------------------------------------

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "call_soon": (print,),
    "call_soon_threadsafe": (int,),
    "call_later": (1, print),
    "call_at": (1, print),
    "set_debug": (False,),
    "set_task_factory": (None,),
    "set_exception_handler": (None,),
    "call_exception_handler": ({},),
    "default_exception_handler": ({},),
    "run_in_executor": (None, print),
    "set_default_executor": (None,),
}
WORKS = set(ARGUMENTS) - {"run_in_executor", "set_default_executor"} | {
    "time",
    "create_future",
    "create_task",
    "get_debug",
    "get_task_factory",
    "get_exception_handler",
    "is_closed",
    "is_running",
    "shutdown_asyncgens",
    "shutdown_default_executor",
}
SURFACE = sorted(name for name in dir(asyncio.AbstractEventLoop) if not name.startswith("_"))


@pytest.mark.parametrize("name", SURFACE)
def test_every_method_of_a_loop_works_or_says_what_to_write(name: str) -> None:
    assert getattr(DeterministicLoop, name) is not getattr(asyncio.AbstractEventLoop, name), "not implemented at all"

    async def uses_it() -> str:
        loop = asyncio.get_running_loop()

        async def nothing() -> None:
            return None

        arguments = (nothing(),) if name == "create_task" else ARGUMENTS.get(name, ())
        try:
            answer = getattr(loop, name)(*arguments)
            if inspect.isawaitable(answer) and name != "create_future":
                await answer
        except ForbiddenInWorkflow as refused:
            return str(refused)
        return "works"

    said = result(uses_it)
    if name in WORKS:
        assert said == "works"
    else:
        assert "@task" in said


def test_asyncio_functions_that_leave_the_loop_are_refused() -> None:
    async def tries() -> list[str]:
        refused = []
        for attempt in (
            lambda: asyncio.to_thread(print),
            lambda: asyncio.open_connection("localhost", 1),
            lambda: asyncio.start_server(print, "localhost", 1),
            lambda: asyncio.create_subprocess_exec("true"),
        ):
            try:
                await attempt()  # type: ignore[no-untyped-call]
            except ForbiddenInWorkflow as error:
                refused.append(str(error))
        return refused

    assert len(result(tries)) == 4


def test_running_a_loop_inside_is_refused() -> None:
    async def tries() -> str:
        coro = asyncio.sleep(0)
        try:
            asyncio.run(coro)
        except RuntimeError as error:
            return str(error)
        finally:
            coro.close()
        return "ran"

    assert "cannot be called from a running event loop" in result(tries)


def another_thread() -> ThreadPoolExecutor:
    """A thread that runs already: none may be started within a workflow."""
    pool = ThreadPoolExecutor(1)
    pool.submit(int).result()
    return pool


def test_call_soon_threadsafe_from_its_own_thread_works_and_from_another_is_refused() -> None:
    seen: list[Any] = []

    async def calls() -> list[str]:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        loop.call_soon_threadsafe(order.append, "own")
        loop.call_soon(order.append, "second")

        def foreign() -> None:
            try:
                loop.call_soon_threadsafe(order.append, "foreign")
            except ForbiddenInWorkflow as error:
                seen.append(error)

        pool.submit(foreign).result()
        await asyncio.sleep(0)
        return order

    with another_thread() as pool:
        assert result(calls) == ["own", "second"]
    assert "another thread" in str(seen[0])


def test_a_loop_that_does_not_run_refuses_other_threads_too() -> None:
    async def waits() -> None:
        await work("a")

    instance, _ = begin(waits)
    with pytest.raises(ForbiddenInWorkflow):
        instance.loop.call_soon_threadsafe(print)
    assert not instance.loop.is_running()
    assert not instance.loop.is_closed()
    instance.evict()
    assert instance.loop.is_closed()


def test_run_coroutine_threadsafe_from_another_thread_does_not_hang() -> None:
    seen: list[BaseException] = []

    async def calls() -> None:
        loop = asyncio.get_running_loop()

        def foreign() -> None:
            coro = asyncio.sleep(0)
            try:
                asyncio.run_coroutine_threadsafe(coro, loop)
            except ForbiddenInWorkflow as error:
                seen.append(error)
            finally:
                coro.close()

        pool.submit(foreign).result()

    with another_thread() as pool:
        result(calls)
    assert len(seen) == 1


def test_inside_is_told_by_the_running_loop_and_not_by_a_context() -> None:
    async def looks() -> list[Any]:
        loop = asyncio.get_running_loop()
        outcomes = [isinstance(loop, DeterministicLoop), loop.is_running(), not loop.is_closed()]
        return [*outcomes, asyncio.current_task() is not None, len(asyncio.all_tasks())]

    assert result(looks) == [True, True, True, True, 1]
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
    with pytest.raises(HoldfastError, match="only inside a workflow"):
        durable.now()


def plain_factory(loop: Any, coro: Any, context: Any = None) -> Any:
    """As people write them: it knows nothing of names."""
    return asyncio.Task(coro, loop=loop, context=context)


# 3.12's create_task tells an eager task its name only after its first step: its branch cannot be called so.
FACTORIES = [plain_factory, *([asyncio.eager_task_factory] if sys.version_info >= (3, 13) else [])]


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.__name__)
def test_a_task_factory_is_used_and_its_tasks_have_an_identity(factory: Any) -> None:
    async def below(label: str) -> list[str]:
        return list(await asyncio.gather(work(label, 1), work(label, 2)))

    async def uses() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        assert loop.get_task_factory() is factory
        asyncio.create_task(work("left behind"))
        got = await asyncio.gather(below("a"), asyncio.create_task(below("b"), name="named"))
        loop.set_task_factory(None)
        return list(got)

    for pick in (first, last, seeded(1)):
        world = World(workflow(uses)(), pick)
        history = play(world)
        assert ending(history) == ("completed", b'[["a:1","a:2"],["b:1","b:2"]]')
        check_crashes(world, history)
    ids = sorted(id_.removeprefix("uses/") for id_ in executions_of(history))
    assert ids == [
        *(f"below~1/work~{n}/work#1" for n in (1, 2)),
        *(f"named~1/work~{n}/work#1" for n in (1, 2)),
        "work~1/work#1",
    ]


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.__name__)
def test_tasks_of_a_factory_end_with_the_run_and_with_the_instance(factory: Any) -> None:
    ended: list[str] = []

    async def below(label: str) -> None:
        try:
            await work(label)
        finally:
            ended.append(label)

    async def uses() -> str:
        asyncio.get_running_loop().set_task_factory(factory)
        asyncio.create_task(below("left"))
        return await work("main")

    assert ending(play(World(workflow(uses)(), last)))[0] == "completed"
    assert ended == ["left"]
    instance, _ = begin(uses)
    instance.evict()
    assert ended == ["left", "left"]


@pytest.mark.parametrize("setter", ["set_task_factory", "set_exception_handler"])
def test_what_is_not_callable_is_refused(setter: str) -> None:
    async def sets() -> str:
        try:
            getattr(asyncio.get_running_loop(), setter)(3)
        except TypeError as error:
            return str(error)
        return "taken"

    assert "callable" in result(sets)


def test_exception_handler_hears_of_callbacks_that_fail() -> None:
    async def listens() -> list[str]:
        loop = asyncio.get_running_loop()
        heard: list[str] = []

        def handler(_loop: Any, context: dict[str, Any]) -> None:
            heard.append(f"{context['message'][:21]} {context['exception']}")
            if len(heard) == 2:
                raise ValueError("the handler itself")

        def bad(text: str) -> None:
            raise ValueError(text)

        loop.set_exception_handler(handler)
        assert loop.get_exception_handler() is handler
        for text in ("one", "two", "three"):
            loop.call_soon(bad, text)
        await asyncio.sleep(0)
        return heard

    assert result(listens) == [f"Exception in callback {text}" for text in ("one", "two", "three")]


def test_without_an_exception_handler_a_failing_callback_is_silent_and_the_run_goes_on() -> None:
    async def goes_on() -> str:
        asyncio.get_running_loop().call_soon(int, "x")
        await asyncio.sleep(0)
        return "on"

    assert result(goes_on) == "on"


def test_keyboard_interrupt_leaves_the_loop() -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin(interrupted)
    assert asyncio._get_running_loop() is None


def test_system_exit_fails_the_run_and_not_the_process() -> None:
    async def exits() -> None:
        raise SystemExit(3)

    instance, decided = begin(exits)
    assert instance.outcome is not None
    assert decided[-1].event.error == "SystemExit"  # type: ignore[union-attr]


def test_debug_mode_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def debugs() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        found = list(await asyncio.gather(work("a"), work("b")))
        return [loop.get_debug(), found]

    assert ending(play(World(workflow(debugs)()))) == ("completed", b'[true,["a:0","b:0"]]')


# -- inside another loop ----------------------------------------------------------------------------------------------


async def drive_inside() -> None:
    """A workflow's turn, taken in the midst of a task of an ordinary loop, leaves that loop and task as they were."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    async def looks() -> list[Any]:
        async def branch() -> str:
            return (await asyncio.sleep(0)) or "branch"

        inner = await asyncio.gather(branch(), branch())
        return [asyncio.get_running_loop() is loop, asyncio.current_task() is task, outside.get(), inner]

    outside.set("set")
    assert result(looks) == [False, False, "unset", ["branch", "branch"]]
    assert asyncio.get_running_loop() is loop
    assert asyncio.current_task() is task
    assert outside.get() == "set"
    async with asyncio.timeout(10):
        assert await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2)) == [1, 2]

    called = loop.create_future()
    loop.call_soon(lambda: called.set_result(result(looks)))
    assert (await called)[:2] == [False, False]
    with anyio.fail_after(10):
        await anyio.sleep(0)

    source = generator()
    assert await anext(source) == 1
    assert result(looks)[2] == "unset"
    await source.aclose()


async def generator():  # type: ignore[no-untyped-def]
    yield 1
    yield 2


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("debug", [False, True])
def test_a_turn_inside_a_running_loop_leaves_it_intact(factory: Any, debug: bool) -> None:
    with asyncio.Runner(loop_factory=factory, debug=debug) as runner:
        runner.run(drive_inside())


def test_two_runs_whose_turns_alternate_do_not_meet() -> None:
    async def one(label: str) -> list[str]:
        return [await work(label, 1), await work(label, 2)]

    worlds = [World(workflow(one)(label)) for label in "ab"]
    assert [ending(play(world))[1] for world in worlds] == [b'["a:1","a:2"]', b'["b:1","b:2"]']


def test_the_context_is_empty_whatever_is_set_outside() -> None:
    async def looks() -> list[Any]:
        return [outside.get(), [variable.name for variable in contextvars.copy_context()]]

    token = outside.set("the caller's")
    try:
        assert result(looks) == ["unset", []]
    finally:
        outside.reset(token)


def test_a_value_set_by_the_workflow_does_not_leave_it() -> None:
    async def sets() -> str:
        outside.set("mine")
        await asyncio.create_task(asyncio.sleep(0))
        return outside.get()

    assert result(sets) == "mine"
    assert outside.get() == "unset"


# -- time -------------------------------------------------------------------------------------------------------------


def test_time_is_seconds_since_the_start_as_of_the_last_fact() -> None:
    async def times() -> list[float]:
        loop = asyncio.get_running_loop()
        found = [loop.time()]
        await asyncio.sleep(2.5)
        found.append(loop.time())
        await work("a")
        found.append(loop.time())
        return found

    assert ending(play(World(workflow(times)())))[1] == b"[0.0,2.5,2.501]"


def test_when_a_timer_fires_the_clock_is_at_or_after_its_deadline_and_hardly_so() -> None:
    draw = random.Random(7)
    loop = DeterministicLoop(None, seed=SEED, started_at=START, name="w")  # type: ignore[arg-type]
    whens = [draw.random() * 10 ** draw.randint(-6, 8) for _ in range(20_000)]
    whens += [n / 10 for n in range(1, 2_000)] + [n * 1e-6 for n in range(1, 2_000)]
    for when in whens:
        deadline = loop.deadline_of(when)
        loop.now = deadline
        assert loop.time() >= when
        loop.now = deadline - 1
        assert loop.time() < when, "a microsecond late"


def test_deadlines_counted_from_a_late_now_are_kept_too() -> None:
    """asyncio.timeout compares its own deadline with time(): a timer that fires a hair early would arm again for ever."""
    draw = random.Random(8)

    async def naps(delays: list[float]) -> int:
        late = 0
        for delay in delays:
            try:
                async with asyncio.timeout(delay):
                    await work("never", 1)
            except TimeoutError:
                late += 1
        return late

    delays = [draw.random() * 10 ** draw.randint(-5, 6) for _ in range(300)]
    history = play(World(workflow(naps)(delays), pick=lambda _step, options: len(options) - 1, timers="any"))
    assert ending(history) == ("completed", b"300")
    assert sum(isinstance(entry.event, TimerFired) for entry in history) == 300


@pytest.mark.parametrize("delay", [0, -1, -math.inf, 1e-9])
def test_short_delays(delay: float) -> None:
    async def naps() -> str:
        woken = asyncio.Event()
        asyncio.get_running_loop().call_later(delay, woken.set)
        await woken.wait()
        return "woken"

    history = play(World(workflow(naps)()))
    assert ending(history) == ("completed", b'"woken"')
    assert [entry.event.deadline for entry in history if isinstance(entry.event, TimerStarted)] == (
        [START + 1] if delay > 0 else []
    )


def test_an_infinite_delay_starts_no_timer() -> None:
    async def waits() -> list[Any]:
        handle = asyncio.get_running_loop().call_later(math.inf, print)
        with anyio.move_on_after(math.inf):
            got = await work("a")
        handle.cancel()
        return [got, handle.cancelled()]

    history = play(World(workflow(waits)()))
    assert ending(history) == ("completed", b'["a:0",true]')
    assert not [entry for entry in history if isinstance(entry.event, TimerStarted)]


@pytest.mark.parametrize("method", ["call_later", "call_at"])
def test_nan_is_refused(method: str) -> None:
    async def waits() -> str:
        try:
            getattr(asyncio.get_running_loop(), method)(math.nan, print)
        except ValueError as error:
            return str(error)
        return "taken"

    assert "NaN" in result(waits)


def test_a_delay_beyond_every_calendar_is_recorded_and_never_fires() -> None:
    """What a calendar cannot write is infinite."""

    async def waits(seconds: float) -> str:
        async with asyncio.timeout(seconds):
            return await work("a")

    long = play(World(workflow(waits)(3.2e11)))
    assert ending(long) == ("completed", b'"a:0"')
    longest = play(World(workflow(waits)(1e300)))
    assert ending(longest) == ("completed", b'"a:0"')
    assert not [entry for entry in longest if isinstance(entry.event, TimerStarted)], "a store holds 64-bit integers"
    loop = DeterministicLoop(None, seed=SEED, started_at=START, name="w")  # type: ignore[arg-type]
    draw = random.Random(9)
    for _ in range(200):
        when = TIME_MAX / 1e6 * draw.random()
        loop.now = loop.deadline_of(when)
        assert loop.time() >= when or loop.now == TIME_MAX


def test_timer_handles_cancelled_before_and_after_they_fire() -> None:
    async def handles() -> list[Any]:
        loop = asyncio.get_running_loop()
        fired: list[str] = []
        unwanted = loop.call_later(1, fired.append, "unwanted")
        wanted = loop.call_later(2, fired.append, "wanted")
        unwanted.cancel()
        unwanted.cancel()
        await asyncio.sleep(3)
        wanted.cancel()
        soon = loop.call_at(loop.time(), fired.append, "soon")
        soon.cancel()
        await asyncio.sleep(0)
        return [fired, wanted.cancelled(), wanted.when()]

    history = play(World(workflow(handles)()))
    assert ending(history) == ("completed", b'[["wanted"],true,2.0]')
    started = [entry.event.id for entry in history if isinstance(entry.event, TimerStarted)]
    assert started == ["handles/timer#2", "handles/timer#3"], "started and cancelled in one turn: no trace"


# -- limits -----------------------------------------------------------------------------------------------------------


def test_a_spinning_run_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "STEPS_PER_TURN_MAX", 1_000)

    async def spins() -> None:
        while True:
            await asyncio.sleep(0)

    definition = workflow(spins)
    instance = Instance(definition, RUN_ID, tables=None)
    with pytest.raises(StepLimitExceeded, match="without waiting for anything durable"):
        instance.deliver(RunStarted(at=START, workflow="spins", seed=SEED), b"{}")
    instance.evict()
    assert asyncio._get_running_loop() is None


def test_the_limit_is_per_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "STEPS_PER_TURN_MAX", 50)

    async def long() -> int:
        for n in range(100):
            await work("step", n)
        return 1

    assert ending(play(World(workflow(long)()))) == ("completed", b"1")


def test_anyio_cancellation_of_a_branch_that_never_ends_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "STEPS_PER_TURN_MAX", 500)

    async def stubborn() -> list[str]:
        log = []
        async with anyio.create_task_group() as group:
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                for n in range(5):
                    log.append(await work("shielded", n))
        return log

    history = play(World(workflow(stubborn)()))
    assert len(executions_of(history)) == 5


def executions_of(history: Any) -> list[str]:
    return [entry.event.id for entry in history if isinstance(entry.event, TaskScheduled)]


# -- the run ----------------------------------------------------------------------------------------------------------


def test_an_instance_that_has_not_started_says_so() -> None:
    async def empty() -> None:
        return None

    instance = Instance(workflow(empty), RUN_ID, tables=None)
    with pytest.raises(HistoryError, match="does not begin with RunStarted"):
        _ = instance.now
    instance.evict()


def test_a_run_starts_once_and_takes_nothing_after_its_end() -> None:
    async def waits() -> None:
        await work("a")

    instance, decided = begin(waits)
    with pytest.raises(HistoryError, match="starts twice"):
        instance.deliver(RunStarted(at=START, workflow="waits", seed=SEED), b"{}")
    instance.evict()

    async def ends() -> None:
        return None

    ended, _ = begin(ends)
    with pytest.raises(HistoryError, match="has ended"):
        ended.deliver(TimerFired(at=START, id="x"))
    assert decided[0].event.id == "waits/work#1"


def test_a_result_that_cannot_be_recorded_fails_the_run_and_says_where() -> None:
    async def returns():  # type: ignore[no-untyped-def]
        return object()

    async def annotated() -> int:
        return "no number"  # type: ignore[return-value]

    async def nothing_fits() -> object:
        return 1

    for fn, error in ((returns, NotRecordable), (annotated, NotRecordable), (nothing_fits, DefinitionError)):
        status, (type_, message) = ending(play(World(workflow(fn)())))
        assert status == "failed"
        assert type_ == f"engine.errors.{error.__name__}"
        assert f"the result of workflow {fn.__name__!r}" in message


def test_no_warnings_from_an_ordinary_run() -> None:
    async def ordinary() -> list[str]:
        return list(await asyncio.gather(work("a"), work("b")))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(World(workflow(ordinary)()))
