"""Eviction: an instance may be put away at any event. Its code hears of it, decides nothing, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import types
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import anyio
import pytest

from engine import durable, task, workflow
from engine.core.events import RunCompleted, RunStarted
from engine.core.instance import Instance
from engine.core.replay import Replayer
from engine.errors import Evicted
from tests.core import cases_all  # noqa: F401 - they register
from tests.core.cases import CASES, Case, undo, work
from tests.core.harness import RUN_ID, SEED, START, World, play, rebuild, seeded

heard: list[str] = []
"""What workflow code says while it is put away."""


@pytest.fixture(autouse=True)
def _nothing_heard() -> None:
    heard.clear()


@contextmanager
def silence() -> Iterator[None]:
    """Fails for any warning, any unraisable exception, and anything asyncio logs, garbage collection included."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    ear, hook, logger = Ear(), sys.unraisablehook, logging.getLogger("asyncio")
    sys.unraisablehook = lambda args: said.append(f"{args.exc_value!r} in {args.object!r}")
    logger.addHandler(ear)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
            gc.collect()
    finally:
        sys.unraisablehook = hook
        logger.removeHandler(ear)
    assert not said


def begun(fn: Callable[..., Any]) -> Instance:
    definition = workflow(fn)
    instance = Instance(definition, RUN_ID, tables=None)
    instance.deliver(RunStarted(at=START, workflow=definition.name, seed=SEED), b"{}")
    return instance


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_put_away_at_every_event_nothing_is_said_and_nothing_is_left(case: Case) -> None:
    world = case.world(seeded(5))
    history = play(world)
    left: list[weakref.ref[Any]] = []
    with silence():
        for length in range(1, len(history) + 1):
            replayer = Replayer(world.definition, RUN_ID, versions=None, tables=None)
            for version, entry in enumerate(history[:length], 1):
                replayer.feed(version, entry.event, entry.payload)
            replayer.finish()
            instance = replayer.instance
            tasks = list(instance.loop.tasks.values())
            left += [weakref.ref(instance), weakref.ref(instance.loop), *map(weakref.ref, tasks)]
            left += [weakref.ref(pending) for pending in instance.pending.values()]
            waiting = dict(instance.pending), dict(instance.timers), instance.outcome
            instance.evict()
            assert (instance.pending, instance.timers, instance.outcome) == waiting, "it decided something"
            assert not instance.decided
            instance.evict()
            assert not [task for task in tasks if task.get_coro().cr_frame is not None], "not closed"
            del replayer, instance, tasks, waiting
    assert not [ref() for ref in left if ref() is not None]


def test_an_instance_that_is_dropped_without_being_put_away_is_silent_too() -> None:
    """A worker that dies by an exception drops its instances: no coroutine may complain, none may decide."""
    for case in (CASES["group_nested"], CASES["anyio_group_nested"], CASES["generators_in_branches"]):
        world = case.world(seeded(5))
        history = play(world)
        for length in range(1, len(history)):
            rebuild(world, history[:length])
    with silence():
        gc.collect()


@pytest.mark.parametrize("collected", ["by count", "by the collector"])
def test_what_a_dropped_instance_was_doing_does_not_go_on_as_plain_code(collected: str) -> None:
    async def below(label: str) -> None:
        try:
            await work(label)
        finally:
            await remembers(label)

    async def above() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for label in "ab":
                    group.create_task(below(label))
        finally:
            await remembers("above")

    with silence():
        instance = begun(above)
        if collected == "by the collector":
            holder: list[Any] = [instance]
            holder.append(holder)
            del holder
        del instance
        gc.collect()
    assert heard == []


def test_finally_blocks_run_and_decide_nothing() -> None:
    async def raw() -> str:
        return await work("raw")

    async def branch(label: str) -> None:
        try:
            await work(label)
        finally:
            heard.append(label)
            for attempt in (
                lambda: undo(label),
                lambda: asyncio.wait_for(undo(label), 1),
                lambda: asyncio.wait_for(raw(), 1),
                lambda: asyncio.gather(work("x"), raw(), raw()),
                lambda: asyncio.sleep(1),
                lambda: anyio.sleep(1),
            ):
                try:
                    await attempt()  # type: ignore[no-untyped-call]
                except BaseException as error:
                    heard.append(type(error).__name__)
                else:
                    heard.append("answered")

    async def tidies() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(branch("a"))
            group.create_task(branch("b"))

    instance = begun(tidies)
    with silence():
        instance.evict()
        assert heard[:2] == ["a", "Evicted"]
        assert "b" in heard
        assert "answered" not in heard
        assert set(instance.pending) == {"tidies/branch~1/work#1", "tidies/branch~2/work#1"}
        assert not instance.timers
        assert not instance.decided
    assert not instance.loop.unburied


def test_cleaning_up_after_other_branches_decides_nothing_and_ends() -> None:
    async def below(label: str) -> None:
        try:
            await work(label)
        finally:
            heard.append(label)

    async def above() -> None:
        branch = asyncio.create_task(below("below"))
        lock = asyncio.Lock()
        try:
            async with lock, asyncio.timeout(5):
                await work("above")
        finally:
            branch.cancel()
            with suppress(asyncio.CancelledError):
                await branch
            heard.append("above")

    instance = begun(above)
    waiting = dict(instance.pending), dict(instance.timers)
    with silence():
        instance.evict()
        assert sorted(heard) == ["above", "below"]
        assert (instance.pending, instance.timers) == waiting
        assert not instance.decided
        assert not instance.loop.unburied
        del instance, waiting


def test_every_durable_call_is_refused_and_the_loop_does_nothing() -> None:
    async def asks() -> None:
        loop = asyncio.get_running_loop()
        try:
            await work("a")
        finally:
            for ask in (durable.now, durable.random, durable.uuid4, durable.run_id, undo("x").__await__().__next__):
                try:
                    ask()
                except Evicted:
                    heard.append("refused")
                else:
                    heard.append(f"answered {ask}")
            loop.call_later(1, heard.append, "never")
            loop.call_later(0, heard.append, "never")
            loop.create_task(asyncio.sleep(0)).add_done_callback(lambda task: heard.append(str(task.done())))
            assert not loop.create_future().done()

    instance = begun(asks)
    with silence():
        instance.evict()
        assert heard == ["refused"] * 5 + ["True"]
        assert not instance.timers
        assert not instance.decided
        instance.loop.call_soon(heard.append, "never")
        instance.loop.run_until_quiet()
        assert len(heard) == 6


def test_code_that_swallows_everything_cannot_hold_an_eviction_up() -> None:
    """A bare `except` around the await of a loop that never ends: alive it waits, put away it must not spin."""

    async def stubborn() -> None:
        async def call() -> None:
            await work("poll")

        async def nap() -> None:
            await asyncio.sleep(1)

        async def group() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(work("x"))

        async def both() -> None:
            await asyncio.gather(work("x"), nap())

        async def hold(ask: Callable[[], Any]) -> None:
            while True:
                try:
                    await ask()
                except BaseException:
                    heard.append("swallowed")
                    if released:
                        raise

        async with asyncio.TaskGroup() as tasks:
            for ask in (call, nap, group, both, asyncio.Event().wait):
                tasks.create_task(hold(ask))

    released: list[bool] = []
    instance = begun(stubborn)
    with silence():
        instance.evict()
        assert len(heard) > 4
        assert not instance.decided
        unburied = instance.loop.unburied
        assert len(unburied) == 5, "kept: collected later, their calls of tasks would have effects"
        del instance
        gc.collect()
    released.append(True)
    with silence():
        unburied.clear()


def test_async_generators_are_closed_silently() -> None:
    async def pages(label: str) -> AsyncIterator[str]:
        try:
            while True:
                yield await work(label)
        finally:
            heard.append(label)
            await undo(label)

    @asynccontextmanager
    async def opened(label: str) -> AsyncIterator[str]:
        try:
            yield label
        finally:
            heard.append(f"{label} closed")
            await undo(label)

    async def reads() -> None:
        held = pages("held")
        await anext(held)
        async with opened("file"):
            async for _ in pages("inner"):
                await work("use")

    definition = workflow(reads)
    world = World(definition())
    replayer, recorder = rebuild(world, play_some(world, 3))
    with silence():
        replayer.instance.evict()
    # One that is suspended in its own await cannot be closed from outside before Python 3.13; it stays silent as well.
    assert set(heard) - {"inner"} == {"file closed", "held"}
    assert not replayer.instance.decided
    assert len(recorder.history) > 5


def play_some(world: World, facts: int) -> Any:
    """The first facts of a run that does not end by itself."""
    from tests.core.harness import Recorder, choose, started

    instance = Instance(world.definition, RUN_ID, tables=None)
    recorder = Recorder()
    recorder.turn(instance, *started(world))
    for _ in range(facts):
        recorder.turn(instance, *choose(world, instance, recorder))
    with silence():
        instance.evict()
    heard.clear()
    return recorder.history


async def guarded_page() -> AsyncIterator[str]:
    try:
        yield "one"
    finally:
        heard.append("closed")
        await remembers("page")


@task
async def remembers(what: str) -> None:
    heard.append(f"ran {what}")


def kinds(history: Any) -> list[str]:
    return [type(entry.event).__name__ for entry in history]


def test_a_generator_that_is_dropped_is_closed_in_its_turn_and_decides_nothing() -> None:
    async def drops() -> list[str]:
        source = guarded_page()
        got = [await anext(source)]
        del source
        assert not heard, "not in the midst of other code"
        await asyncio.sleep(0)
        assert heard
        got.append(await work("after"))
        return got

    with silence():
        history = play(World(workflow(drops)()))
    assert kinds(history) == ["RunStarted", "TaskScheduled", "TaskStarted", "TaskCompleted", "RunCompleted"]
    assert heard == ["closed"]


def test_a_generator_that_garbage_collection_finds_runs_no_code() -> None:
    """Between turns its calls of tasks would be plain calls, with effects."""

    async def drops() -> list[str]:
        source = guarded_page()
        holder: list[Any] = [source]
        holder.append(holder)
        got = [await anext(source)]
        del source, holder
        return [*got, await work("after")]

    instance = begun(drops)
    with silence():
        gc.collect()
        assert heard == []
        instance.evict()
        assert heard == []


def test_garbage_of_others_is_not_collected_within_a_turn() -> None:
    """Its finally blocks would run with this run's loop as the running one, and decide in its name."""

    @types.coroutine
    def suspends():  # type: ignore[no-untyped-def]
        yield

    async def foreign() -> None:
        try:
            await suspends()
        finally:
            heard.append("foreign")
            await remembers("foreign")

    def litter() -> None:
        for _ in range(50):
            coro = foreign()
            coro.send(None)
            holder: list[Any] = [coro]
            holder.append(holder)

    async def allocates() -> int:
        litter()
        rows = [[n] for n in range(20_000)]
        assert not heard, "it was collected"
        return len(rows)

    before = gc.get_threshold()
    gc.set_threshold(10, 2, 2)
    try:
        instance = begun(allocates)
    finally:
        gc.set_threshold(*before)
    assert gc.isenabled()
    assert isinstance(instance.outcome, RunCompleted)
    gc.collect()
    assert heard.count("foreign") == 50
    gc.disable()
    try:
        begun(allocates_nothing)
        assert not gc.isenabled(), "whoever turned it off keeps it off"
    finally:
        gc.enable()


async def allocates_nothing() -> None:
    return None


def test_a_branch_made_and_never_run_is_closed_silently() -> None:
    async def never() -> None:
        heard.append("ran")

    async def makes() -> None:
        asyncio.create_task(never())
        asyncio.create_task(work("unborn"))
        raise KeyboardInterrupt

    definition = workflow(makes)
    instance = Instance(definition, RUN_ID, tables=None)
    with silence():
        with pytest.raises(KeyboardInterrupt):
            instance.deliver(RunStarted(at=START, workflow="makes", seed=SEED), b"{}")
        instance.evict()
        del instance
    assert heard == []


def test_calls_that_nobody_awaited_are_reported_while_alive_and_not_when_put_away() -> None:
    async def forgets() -> None:
        call = work("forgotten")
        await work("a")
        await call

    instance = begun(forgets)
    with silence():
        instance.evict()
        del instance

    async def drops() -> None:
        work("dropped")

    with pytest.warns(RuntimeWarning, match=r"call of task 'work' at test_eviction.py:\d+> was never awaited"):
        begun(drops)


def test_the_end_of_a_run_leaves_nothing_either() -> None:
    async def leaves() -> str:
        for label in "ab":
            asyncio.create_task(work(label))
        asyncio.get_running_loop().call_later(5, print)
        return await work("main")

    left: list[weakref.ref[Any]] = []
    with silence():
        for _ in range(5):
            instance = begun(leaves)
            left += [weakref.ref(instance), weakref.ref(instance.loop), *map(weakref.ref, instance.loop.tasks.values())]
            from engine.core.events import TaskCompleted

            instance.deliver(TaskCompleted(at=START, id="leaves/work#1"), b'"x"')
            assert instance.outcome is not None
            assert not instance.pending
            assert not instance.timers
            del instance
    assert not [ref() for ref in left if ref() is not None]
