"""Forks: a run that has lived through another one's history up to a version, and goes its own way from there."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from engine import Engine, Request, Signal, State, attempt, durable, task, workflow
from engine.core.events import (
    ChildStarted,
    PrefixEnded,
    RunBegun,
    RunForked,
    RunStarted,
    RunTerminated,
    TaskCompleted,
    TaskStarted,
    TimerFired,
    TimerStarted,
)
from engine.errors import (
    EngineFailed,
    HoldfastError,
    NotRecordable,
    RepairRefused,
    RunCancelledError,
    RunConflict,
    RunFailedError,
    RunNotFound,
    RunTerminatedError,
    UnknownWorkflow,
)
from eventstore import EventStore, StoreUnavailable
from tests.runtime.faulty import FaultyStore, at_call
from tests.runtime.invariants import check_history, check_store
from tests.runtime.worlds import MemoryWorld, World, events_of, kinds_of, soon, until, until_async

word = Signal("word", str)
double = Request("double", int, int)
phase = State("phase", str)


class Outside:
    """What tasks do to it: how often, by task and key."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.effects: Counter[tuple[str, str]] = Counter()
        self.keys: dict[str, list[str]] = {}
        self.gate = asyncio.Event()
        self.mended = False

    def of(self, name: str) -> int:
        return sum(count for (task_, _), count in self.effects.items() if task_ == name)


outside = Outside()


@pytest.fixture(autouse=True)
def _outside() -> None:
    outside.clear()


def effect(name: str) -> None:
    key = attempt().idempotency_key
    outside.effects[name, key] += 1
    outside.keys.setdefault(name, []).append(key)


@task
async def extract(n: int) -> int:
    effect("extract")
    return n


@task
async def load(n: int) -> int:
    effect("load")
    return n * 10


@task
async def gated() -> int:
    effect("gated")
    await outside.gate.wait()
    return 7


@workflow
async def nightly(n: int) -> int:
    await phase.publish("extracting")
    found = await extract(n)
    await phase.publish("loading")
    loaded = await load(found + (1 if outside.mended else 0))
    return loaded + found


async def version_of(run: Any, wanted: Callable[[Any], bool]) -> int:
    return next(n for n, event in enumerate(await events_of(run), 1) if wanted(event))


def completed(name: str) -> Callable[[Any], bool]:
    return lambda event: isinstance(event, TaskCompleted) and event.id.endswith(f"/{name}#1")


async def test_a_turn_is_decided_anew_with_the_code_there_is_now(world: World) -> None:
    async with world.engine(nightly) as engine:
        run = await engine.start(nightly(4), id="r")
        assert await soon(run.result()) == 44
        before = await events_of(run)
        at = await version_of(run, completed("extract"))
        outside.mended = True
        fork = await engine.fork("r", at=at, id="f", by="ann", reason="load was given too little")
        assert await soon(fork.result()) == 54
        assert outside.of("extract") == 1, "what is in its prefix is not done again"
        assert outside.of("load") == 2
        assert len(set(outside.keys["load"])) == 2, "what the fork does, it does under a key of its own"
        assert await events_of(run) == before
        events = await events_of(fork)
        first = events[0]
        assert isinstance(first, RunForked)
        assert (first.origin, first.version, first.by, first.reason) == ("r", at, "ann", "load was given too little")
        digests = [item.digest.hex() async for item in run.events()]
        assert first.digest == digests[at - 1]
        assert events[1 : at + 1] == before[:at], "copied byte by byte"
        assert events[at + 1] == PrefixEnded(at=first.at, retold=True)
        assert events[1].seed == before[0].seed
        state = await fork.state()
        assert (state.origin, state.origin_version, state.status) == ("r", at, "completed")
        assert await fork.read(phase) == "loading"
    await check_history(await world.store(), "f", nightly)


async def test_behind_a_turn_it_goes_on_with_what_was_decided(world: World) -> None:
    async with world.engine(nightly) as engine:
        run = await engine.start(nightly(4), id="r")
        await soon(run.result())
        at = await version_of(run, lambda event: isinstance(event, TaskStarted) and "load" in event.id)
        fork = await engine.fork("r", at=at)
        assert fork.id.startswith("r~")
        assert await soon(fork.result()) == 44
        assert (outside.of("extract"), outside.of("load")) == (1, 2)
        started = [event for event in await events_of(fork) if isinstance(event, TaskStarted)]
        assert [event.attempt for event in started if "load" in event.id] == [1, 2]
        assert not any(event.retold for event in await events_of(fork) if isinstance(event, PrefixEnded))
        assert await fork.read(phase) == "loading"
    await check_store(await world.store(), nightly)


async def test_from_every_version_it_comes_to_the_same_end(world: World) -> None:
    async with world.engine(nightly) as engine:
        run = await engine.start(nightly(4), id="r")
        await soon(run.result())
        versions = len(await events_of(run))
        for at in range(1, versions + 1):
            fork = await engine.fork("r", at=at, id=f"f{at}")
            assert await soon(fork.result()) == 44, f"forked at {at}"
        for again in (1, versions):  # and forks of forks
            own = await version_of(engine.run(f"f{again}"), lambda event: isinstance(event, PrefixEnded))
            with pytest.raises(RepairRefused, match="stands in what it has copied as a fork"):
                await engine.fork(f"f{again}", at=own - 1)
            for at in range(own, len(await events_of(engine.run(f"f{again}"))) + 1):
                fork = await engine.fork(f"f{again}", at=at, id=f"ff{again}-{at}")
                assert await soon(fork.result()) == 44, f"a fork of the fork at {again}, at {at}"
    await check_store(await world.store(), nightly)


async def test_a_fork_of_a_fork_of_a_fork_is_cut_in_its_own_history(world: World) -> None:
    """What it has copied ends where its own prefix does, not where one ends that is copied; and it says whose it is."""
    async with world.engine(nightly) as engine:
        await soon((await engine.start(nightly(4), id="r")).result())
        origin = "r"
        for new_id in ("f", "ff"):
            last = len(await events_of(engine.run(origin)))
            assert await soon((await engine.fork(origin, at=last, id=new_id)).result()) == 44
            state = await engine.run(new_id).state()
            assert (state.origin, state.origin_version) == (origin, last - 1)
            origin = new_id
        events = await events_of(engine.run("ff"))
        inner, own = (n for n, event in enumerate(events, 1) if isinstance(event, PrefixEnded))
        for at in range(inner - 1, own):
            with pytest.raises(RepairRefused, match="stands in what it has copied as a fork"):
                await engine.fork("ff", at=at)
            with pytest.raises(RepairRefused, match="stands in what it has copied as a fork"):
                await engine.what_if("ff", at=at)
        assert await soon((await engine.fork("ff", at=own, id="fff")).result()) == 44
    await check_store(await world.store(), nightly)


async def test_with_the_result_of_a_task_given(world: World) -> None:
    async with world.engine(nightly) as engine:
        run = await engine.start(nightly(4), id="r")
        await soon(run.result())
        at = await version_of(run, completed("extract"))
        task_id = "nightly/extract#1"
        fork = await engine.fork("r", at=at, id="f", substitute={task_id: 5}, by="ann")
        assert await soon(fork.result()) == 55
        assert (outside.of("extract"), outside.of("load")) == (1, 2)
        assert (await events_of(fork))[0].substituted == (task_id,)
        # As well where the task was under way, and where its turn had come to its end.
        for version in (at - 1, at + 2):
            other = await engine.fork("r", at=version, substitute={task_id: 6})
            assert await soon(other.result()) == 66, version
        assert outside.of("extract") == 1, "what is given is not done"
        with pytest.raises(RepairRefused, match="does not wait for task 'nightly/extract#1' at version"):
            await engine.fork("r", at=len(await events_of(run)), substitute={task_id: 5})
        with pytest.raises(RepairRefused, match="does not wait for task 'nightly/nobody#1'"):
            await engine.fork("r", at=at, substitute={"nightly/nobody#1": 5})
        with pytest.raises(NotRecordable):
            await engine.fork("r", at=at, substitute={task_id: "five"})
        assert len((await engine.runs()).items) == 4
    await check_store(await world.store(), nightly)


@workflow
async def patient() -> list[str]:
    async with asyncio.timeout(3_600):
        value = await gated()
    return [str(value), durable.run_id()]


async def test_tasks_and_timers_at_the_cut_are_its_own_and_begin_anew(world: World) -> None:
    async with world.engine(patient) as engine:
        run = await engine.start(patient(), id="r")
        await until(lambda: outside.of("gated") == 1)
        at = len(await events_of(run))
        world.clock.advance(1_000)
        fork = await engine.fork("r", at=at, id="f")
        await until(lambda: outside.of("gated") == 2)
        assert len(set(outside.keys["gated"])) == 2
        world.clock.advance(3_000)  # the origin's hour has passed
        with pytest.raises(RunFailedError):
            await soon(run.result())
        (timer,) = (await fork.state()).timers.values()
        (begun,) = [event for event in await events_of(run) if isinstance(event, TimerStarted)]
        assert timer == begun.deadline + 1_000_000_000
        assert await fork.status() == "running"
        outside.gate.set()
        assert await soon(fork.result()) == ["7", "f"]
        assert not [event for event in await events_of(fork) if isinstance(event, TimerFired)]
    await check_store(await world.store(), patient)


@workflow
async def child(n: int) -> int:
    return await extract(n)


@workflow
async def slow_child() -> int:
    return await gated()


@workflow
async def family(n: int) -> int:
    first = await child(n)
    second = await child(first + 1)
    return first + second


async def test_children_of_the_prefix_are_the_origins_and_new_ones_its_own(world: World) -> None:
    async with world.engine(family, child) as engine:
        run = await engine.start(family(1), id="r")
        assert await soon(run.result()) == 3
        at = await version_of(run, lambda event: type(event).__name__ == "ChildCompleted")
        fork = await engine.fork("r", at=at, id="f")
        assert await soon(fork.result()) == 3
        started = [event.run for event in await events_of(fork) if isinstance(event, ChildStarted)]
        assert started == ["r/child#1", "f/child#2"]
        # Where it was under way, and has ended since, its end is told.
        told = await engine.fork("r", at=at - 1, id="g")
        assert await soon(told.result()) == 3
        assert outside.of("extract") == 4, "the first child of either is the one that there was"
    await check_store(await world.store(), family, child)


@workflow
async def waits_for_a_child() -> int:
    return await slow_child()


async def test_a_child_that_still_runs_stands_in_the_way(world: World) -> None:
    async with world.engine(waits_for_a_child, slow_child) as engine:
        run = await engine.start(waits_for_a_child(), id="r")
        await until(lambda: outside.of("gated") == 1)
        with pytest.raises(RepairRefused, match="child run 'r/slow_child#1' has not ended, and run 'f' would not hear"):
            await engine.fork("r", at=2, id="f")
        fork = await engine.fork("r", at=1, id="g")  # before it was started
        await until(lambda: outside.of("gated") == 2)
        outside.gate.set()
        assert await soon(run.result()) == await soon(fork.result()) == 7


async def test_the_fork_of_a_child_has_no_parent(world: World) -> None:
    """Nobody waits for it; and the origin's parent is told nothing of it."""
    async with world.engine(waits_for_a_child, slow_child) as engine:
        run = await engine.start(waits_for_a_child(), id="r")
        await until(lambda: outside.of("gated") == 1)
        at = len(await events_of(engine.run("r/slow_child#1")))
        fork = await engine.fork("r/slow_child#1", at=at, id="f", substitute={"slow_child/gated#1": 1})
        assert await soon(fork.result()) == 1
        state = await fork.state()
        assert (state.parent, state.root) == ("", "")
        again = await engine.fork("r/slow_child#1", at=1, id="g")
        await until(lambda: outside.of("gated") == 2)
        assert (await again.state()).parent == ""
        assert await run.status() == "running"
        outside.gate.set()
        assert await soon(run.result()) == 7
        assert await soon(again.result()) == 7
    await check_store(await world.store(), waits_for_a_child, slow_child)


@workflow
async def two_words() -> str:
    first = await word.receive()
    await extract(1)
    return first + await word.receive()


async def test_signals_of_the_prefix_were_received_and_others_are_not(world: World) -> None:
    async with world.engine(two_words) as engine:
        run = await engine.start(two_words(), id="r", signals=[word.message("a", id="m-1")])
        await until_async(lambda: has(run, "TaskCompleted"))
        at = len(await events_of(run))
        await run.signal(word, "b")
        assert await soon(run.result()) == "ab"
        fork = await engine.fork("r", at=at, id="f")
        await fork.signal(word, "c")
        assert await soon(fork.result()) == "ac"
        for at in (1, 2):
            with pytest.raises(RepairRefused, match="stands before it had begun: fork it behind its RunBegun"):
                await engine.fork("r", at=at)
    await check_store(await world.store(), two_words)


async def has(run: Any, kind: str) -> bool:
    return kind in await kinds_of(run)


@workflow
async def speaks() -> str:
    await durable.run("other").signal(word, "x")
    return "said"


async def test_a_message_that_is_under_way_stands_in_the_way(world: World) -> None:
    async with world.engine(speaks, two_words) as engine:
        await engine.start(two_words(), id="other")
        run = await engine.start(speaks(), id="r")
        await soon(run.result())
        with pytest.raises(RepairRefused, match="at version 2 a signal of run 'r' to run 'other' is under way"):
            await engine.fork("r", at=2)
        fork = await engine.fork("r", at=3)
        assert await soon(fork.result()) == "said"
        assert (await engine.run("other").state()).signals == {"word": 1}


@workflow
async def lives(n: int) -> int:
    if n < 2:
        await extract(n)
        await durable.continue_as_new(lives(n + 1))
    return n + await load(1)


async def test_a_run_that_has_continued_as_new(world: World) -> None:
    async with world.engine(lives) as engine:
        run = await engine.start(lives(0), id="r")
        assert await soon(run.result()) == 12
        versions = len(await events_of(run))
        for at in range(1, versions + 1):
            fork = await engine.fork("r", at=at, id=f"f{at}")
            assert await soon(fork.result()) == 12, at
    async with world.engine(lives) as engine:
        for at in range(1, versions + 1):
            assert await soon(engine.run(f"f{at}").result()) == 12
    await check_store(await world.store(), lives)


async def test_the_fork_of_a_singleton_has_no_key(world: World) -> None:
    """Neither what it has copied nor its epochs to come say that it has; it runs beside whoever has it."""
    async with world.engine(lives) as engine:
        first = await engine.start(lives(0), id="first", singleton="k")
        queued = await engine.start(lives(0), id="r", singleton="k", on_conflict="queue")
        assert await soon(first.result()) == await soon(queued.result()) == 12
        assert ((await queued.state()).singleton, (await queued.state()).queued_behind) == ("k", "first")
        head = await engine.store.head("run:r")
        begun = await version_of(queued, lambda event: isinstance(event, RunBegun))
        await engine.start(lives(0), id="holder", singleton="k", delay=3_600)  # it has the key from now on
        for at in range(begun, head.version + 1):
            fork = await engine.fork("r", at=at, id=f"f{at}")
            assert await soon(fork.result()) == 12
            events = await events_of(fork)
            own = next(n for n, event in enumerate(events, 1) if isinstance(event, PrefixEnded))
            assert not any(each.singleton for each in events[own:] if isinstance(each, RunStarted))
            for until in range(1, len(events) + 1):
                state = await fork.state(at=until)
                assert (state.singleton, state.queued_behind) == ("", "")
            summary = next(each for each in (await engine.runs()).items if each.id == fork.id)
            assert summary.singleton == ""
        assert (await engine.diff("r", f"f{head.version - 1}")).rows == ()
        assert (await engine.diff("r", f"f{begun}")).rows == (), "that it has no key is no difference of what it did"
        assert (await (await engine.rerun("r", id="again")).state()).singleton == ""
    await check_store(await world.store(), lives)


async def test_a_reopened_run(world: World) -> None:
    async with world.engine(fragile) as engine:
        run = await engine.start(fragile(), id="r")
        with pytest.raises(RunFailedError):
            await soon(run.result())
        outside.mended = True
        await engine.reopen("r")
        assert await soon(run.result()) == 3
        for at in range(1, len(await events_of(run)) + 1):
            fork = await engine.fork("r", at=at, id=f"f{at}")
            try:
                assert await soon(fork.result()) == 3, at
            except RunFailedError:
                kinds = await kinds_of(run)
                assert kinds.index("TaskFailed") < at <= kinds.index("RunReopened"), "there it had failed"
                await engine.reopen(fork.id)
                with pytest.raises(RepairRefused, match="has not ended|has completed"):
                    await engine.reopen(fork.id)
                assert await soon(fork.result()) == 3
    await check_store(await world.store(), fragile)


@task
async def breaks() -> int:
    if not outside.mended:
        raise ConnectionError("down")
    return 2


@workflow
async def fragile() -> int:
    return await extract(1) + await breaks()


async def test_code_that_does_not_fit_the_prefix_is_refused(world: World) -> None:
    async with world.engine(nightly) as engine:
        run = await engine.start(nightly(4), id="r")
        await soon(run.result())
        at = await version_of(run, completed("extract"))

    @workflow(name="nightly")
    async def other(n: int) -> int:
        return await load(n)

    async with world.engine(other) as engine:
        with pytest.raises(RepairRefused, match="the present code does not fit run 'r' up to version") as refused:
            await engine.fork("r", at=at)
        assert "publish phase" in str(refused.value)
        fork = await engine.fork("r", at=1)
        assert await soon(fork.result()) == 40


async def test_nonsense_is_refused(world: World) -> None:
    async with world.engine(nightly) as engine:
        run = await engine.start(nightly(4), id="r")
        await soon(run.result())
        number = len(await events_of(run))
        for at in (0, -1, number + 1):
            with pytest.raises(
                RepairRefused, match=f"run 'r' has {number} events: it cannot be forked at version {at}"
            ):
                await engine.fork("r", at=at)
        with pytest.raises(RunNotFound):
            await engine.fork("nobody", at=1)
        with pytest.raises(RunConflict, match="run 'r' exists already, and is another one than this fork"):
            await engine.fork("r", at=1, id="r")
        with pytest.raises(HoldfastError, match="cannot be a run's id"):
            await engine.fork("r", at=1, id="\n")
    async with world.engine(patient) as engine:
        with pytest.raises(UnknownWorkflow):
            await engine.fork("r", at=1)


async def test_the_same_fork_asked_for_twice_is_one(world: World) -> None:
    async with world.engine(nightly) as engine:
        run = await engine.start(nightly(4), id="r")
        await soon(run.result())
        for _ in range(2):
            fork = await engine.fork("r", at=3, id="f")
            assert await soon(fork.result()) == 44
        assert len((await engine.runs()).items) == 2
        with pytest.raises(RunConflict):
            await engine.fork("r", at=4, id="f")


async def test_its_tokens_and_starts_are_its_own(world: World) -> None:
    """What is handed out by the origin is not what the fork waits for."""
    async with world.engine(handing) as engine:
        run = await engine.start(handing(), id="r")
        await until_async(lambda: has(run, "TaskHandedOut"))
        fork = await engine.fork("r", at=len(await events_of(run)), id="f")
        await until(lambda: len(tokens) == 2)
        await engine.complete(tokens[0], "origin")
        assert await soon(run.result()) == "origin"
        assert await fork.status() == "running"
        await engine.complete(tokens[1], "fork", task=ask_someone)
        assert await soon(fork.result()) == "fork"
        joined = await engine.start(handing(), id="f")
        assert await soon(joined.result()) == "fork"
    tokens.clear()
    await check_store(await world.store(), handing)


@workflow
async def handing_later(lives_left: int) -> str:
    if lives_left:
        await durable.continue_as_new(handing_later(lives_left - 1))
    return await ask_someone()


async def test_the_tokens_of_a_fork_that_begins_in_a_later_epoch(world: World) -> None:
    async with world.engine(handing_later) as engine:
        run = await engine.start(handing_later(1), id="r")
        await until_async(lambda: has(run, "TaskHandedOut"))
        forks = [await engine.fork("r", at=len(await events_of(run)), id="f")]
        await until(lambda: len(tokens) == 2)
        await until_async(lambda: has(forks[0], "TaskHandedOut"))
        forks.append(await engine.fork("f", at=len(await events_of(forks[0])), id="fork-of-f"))
        await until(lambda: len(tokens) == 3)
        for token, of in zip(tokens, (run, *forks), strict=True):
            await engine.complete(token, of.id, task=ask_someone)
            assert await soon(of.result()) == of.id
    tokens.clear()
    await check_store(await world.store(), handing_later)


tokens: list[str] = []


@task
async def ask_someone() -> str:
    tokens.append(attempt().token)
    attempt().later()


@workflow
async def handing() -> str:
    return await ask_someone()


@pytest.mark.parametrize("fault", ["die before", "die after", "lose reply", "refuse"])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_crash_at_every_commit(worlds, fault: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copied by twos: what is not whole is nobody's; asking again completes it, unless it was cancelled."""
    monkeypatch.setattr("engine.runtime.forking.CHUNK_EVENTS", 2)
    for number in range(1, 60):
        outside.clear()
        world = worlds(kind)
        async with world.engine(nightly) as engine:
            run = await engine.start(nightly(4), id="r")
            await soon(run.result())
            at = await version_of(run, completed("load"))
        handle = await world.store()
        store = FaultyStore(handle, at_call(number, fault, only="commit"))
        try:
            async with Engine(store, workflows=[nightly], clock=world.clock, grace=0) as engine:
                assert await soon((await engine.fork("r", at=at - 1, id="f")).result()) == 44
        except (StoreUnavailable, HoldfastError):
            assert store.faults
        if not store.dead:
            store.die()
        await world.release(handle)
        async with world.engine(nightly) as engine:
            left = [run.id for run in (await engine.runs()).items if not run.workflow]
            assert left in ([], ["f"])
            cancelled = bool(left) and number % 2 == 0
            if cancelled:
                await engine.run("f").cancel()
                with pytest.raises(RunConflict, match="ended before it was made to its end: choose another id"):
                    await engine.fork("r", at=at - 1, id="f")
                with pytest.raises(RunTerminatedError):
                    await soon(engine.run("f").result())
            fork = await engine.fork("r", at=at - 1, id="g" if cancelled else "f")
            assert await soon(fork.result()) == 44
        assert outside.of("extract") == 1
        await check_store(await world.store(), nightly)
        if not store.faults:
            return
    pytest.fail("it makes more than 60 commits")


async def test_a_long_prefix_is_copied_in_parts(worlds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.runtime.forking.CHUNK_EVENTS", 7)
    world = worlds()
    async with world.engine(wide) as engine:
        run = await engine.start(wide(30), id="r")
        assert await soon(run.result()) == 435
        at = len(await events_of(run)) // 2
        fork = await engine.fork("r", at=at)
        assert await soon(fork.result()) == 435
        assert isinstance((await events_of(fork))[1], RunStarted)
    await check_store(world.data, wide)


class Watched(FaultyStore):
    """Which heads and streams were read."""

    def __init__(self, inner: EventStore) -> None:
        super().__init__(inner)
        self.looks: Counter[tuple[str, str]] = Counter()

    async def head(self, stream: str) -> Any:
        self.looks["head", stream] += 1
        return await super().head(stream)

    async def read(
        self, stream: str, *, after: int = 0, until: int | None = None, proof: bool = True
    ) -> AsyncIterator[Any]:
        self.looks["read", stream] += 1
        async for event in super().read(stream, after=after, until=until, proof=proof):
            yield event


async def test_the_origin_is_read_once(world: World) -> None:
    """So all of a fork, and all that is supposed, is of one look at it; a fork looks again that nothing was taken away."""
    handle = await world.store()
    store = Watched(handle)
    async with Engine(store, workflows=[nightly], clock=world.clock, grace=0) as engine:
        run = await engine.start(nightly(4), id="r")
        await soon(run.result())
        for at in range(1, len(await events_of(run)) + 1):
            store.looks.clear()
            fork = await engine.fork("r", at=at, id=f"f{at}")
            assert {look: count for look, count in store.looks.items() if look[1] == "run:r"} == {
                ("head", "run:r"): 2,
                ("read", "run:r"): 1,
            }
            assert await soon(fork.result()) == 44
            store.looks.clear()
            assert (await engine.what_if("r", at=at)).would_be.result == b"44"
            assert store.looks == {("head", "run:r"): 1, ("read", "run:r"): 1}
    await world.release(handle)


async def test_a_prefix_that_is_too_large_to_keep_is_copied_all_the_same(
    worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = worlds()
    async with world.engine(nightly) as engine:
        run = await engine.start(nightly(4), id="r")
        await soon(run.result())
        last = len(await events_of(run))
        digests = [item.digest.hex() async for item in run.events()]
        for at in range(1, last + 1):
            kept = await engine.fork("r", at=at, id=f"kept{at}")
            with monkeypatch.context() as patched:
                patched.setattr("engine.runtime.cutting.KEPT_BYTES_MAX", 0)
                read = await engine.fork("r", at=at, id=f"read{at}")
            assert await soon(kept.result()) == await soon(read.result()) == 44
            whole, again = await events_of(kept), await events_of(read)
            first = again[0]
            assert isinstance(first, RunForked)
            assert first.digest == digests[first.version - 1]
            assert whole[: first.version + 1] == again[: first.version + 1]
    await check_store(world.data, nightly)


@workflow
async def wide(n: int) -> int:
    return sum(await asyncio.gather(*(extract(index) for index in range(n))))


@workflow
async def families(n: int) -> str:
    found = await child(n)
    if n < 1:
        await durable.continue_as_new(families(n + 1))
    return f"{found} {await word.receive()} {await child(n)}"


async def test_a_fork_within_an_epoch_is_rebuilt_under_its_origins_identity(world: World) -> None:
    """From wherever it is read: whoever rebuilds the fork must know by which id its prefix went."""
    async with world.engine(families, child) as engine:
        run = await engine.start(families(0), id="r")
        await until_async(lambda: waits_in_epoch(run, 1))
        at = len(await events_of(run))
        fork = await engine.fork("r", at=at, id="f")
        await until_async(lambda: was_taken_up(engine, "f"))
    async with world.engine(families, child) as engine:
        fork = engine.run("f")
        await fork.signal(word, "x")
        assert await soon(fork.result()) == "1 x 1"
        runs = [event.run for event in await events_of(fork) if isinstance(event, ChildStarted)]
        assert runs == ["r/child#1", "r/child#1@1", "f/child#2@1"]
    await check_history(await world.store(), "f", families)


async def was_taken_up(engine: Engine, run_id: str) -> bool:
    head = await engine.store.head(f"run:{run_id}")
    return head.alarm is None and head.owner is None


async def waits_in_epoch(run: Any, epoch: int) -> bool:
    state = await run.state()
    return state.epoch == epoch and any(each.status == "completed" for each in state.children.values())


@workflow
async def impatient() -> str:
    try:
        async with asyncio.timeout(10):
            await waits_for_word.options(parent_close="terminate", on_cancel="abandon")()
    except TimeoutError:
        return await word.receive()
    return "too soon"


@workflow
async def waits_for_word() -> str:
    try:
        return await word.receive()
    except asyncio.CancelledError:
        return await word.receive()  # it takes its time


async def test_the_end_of_a_fork_ends_no_child_of_its_origin(world: World) -> None:
    async with world.engine(impatient, waits_for_word) as engine:
        run = await engine.start(impatient(), id="r")
        await until_async(lambda: has(run, "ChildStarted"))
        world.clock.advance(10)
        await until_async(lambda: has(run, "ChildCancelled"))
        fork = await engine.fork("r", at=len(await events_of(run)), id="f")
        await fork.signal(word, "done")
        assert await soon(fork.result()) == "done"
        assert "ChildTerminated" not in await kinds_of(fork)
        (started,) = [event.run for event in await events_of(run) if isinstance(event, ChildStarted)]
        assert await engine.run(started).status() == "running"
        await run.signal(word, "done, too")
        assert await soon(run.result()) == "done, too"
        assert "ChildTerminated" in await kinds_of(run)
    await check_history(await world.store(), "f", impatient)


@workflow
async def gated_load() -> int:
    return await gated() + await load(1)


async def test_it_is_dated_behind_its_origin_though_the_clock_was_set_back(world: World) -> None:
    async with world.engine(gated_load) as engine:
        run = await engine.start(gated_load(), id="r")
        await until(lambda: outside.of("gated") == 1)
        world.clock.step(-3_600)
        outside.gate.set()
        assert await soon(run.result()) == 17
        fork = await engine.fork("r", at=await version_of(run, completed("gated")), id="f")
        assert await soon(fork.result()) == 17
    await check_history(await world.store(), "f", gated_load)


async def test_a_terminated_run_is_forked_before_its_end(world: World) -> None:
    async with world.engine(gated_load) as engine:
        run = await engine.start(gated_load(), id="r")
        await until(lambda: outside.of("gated") == 1)
        await run.terminate(reason="too slow")
        with pytest.raises(RunTerminatedError):
            await soon(run.result())
        outside.gate.set()
        last = len(await events_of(run))
        for at in range(await version_of(run, lambda event: isinstance(event, RunTerminated)), last + 1):
            fork = await engine.fork("r", at=at, id=f"f{at}")
            assert await soon(fork.result()) == 17
            assert "RunTerminated" not in await kinds_of(fork)
        await engine.reopen("r")
        assert await soon(engine.run("r").result()) == 17
        fork = await engine.fork("r", at=await version_of(run, completed("gated")), id="f")
        assert await soon(fork.result()) == 17
        assert "RunReopened" in await kinds_of(fork)
    await check_store(await world.store(), gated_load)


@workflow
async def side_by_side() -> list[int]:
    return list(await asyncio.gather(extract(1), extract(2), extract(3)))


async def test_a_run_that_was_terminated_in_the_middle_of_a_turn(
    memory: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker died between two commits of the turn, and nobody has written the rest of it."""
    monkeypatch.setattr("engine.runtime.writing.COMMIT_EVENTS_MAX", 2)
    store = FaultyStore(memory.data)
    commits = 0

    async def after(name: str, argument: Any) -> None:
        nonlocal commits
        if name == "commit" and argument.stream == "run:r" and argument.events:
            commits += 1
            if commits == 1:
                store.die()

    store.after = after
    with contextlib.suppress(EngineFailed, StoreUnavailable):
        async with Engine(store, workflows=[side_by_side], clock=memory.clock) as engine:
            await engine.start(side_by_side(), id="r")
    async with memory.engine() as client:
        await client.run("r").terminate(reason="too wide")
    async with memory.engine(side_by_side) as engine:
        run = engine.run("r")
        with pytest.raises(RunTerminatedError):
            await soon(run.result())
        assert (await kinds_of(run))[1:] == ["TaskScheduled", "RunTerminated"]
        fork = await engine.fork("r", at=3, id="f")
        assert await soon(fork.result()) == [1, 2, 3]
        await engine.reopen("r")
        assert await soon(engine.run("r").result()) == [1, 2, 3]
        assert (await kinds_of(run))[1:5] == ["TaskScheduled", "RunTerminated", "RunReopened", "TaskScheduled"]
        # That it was terminated once is taken back: a fork of what came since is cut where it was asked for.
        at = (await kinds_of(run)).index("TaskStarted") + 1
        fork = await engine.fork("r", at=at, id="g")
        assert await soon(fork.result()) == [1, 2, 3]
        begun = [event for event in await events_of(fork) if isinstance(event, RunForked)]
        assert [event.version for event in begun] == [at]
    for run_id in "frg":
        await check_history(memory.data, run_id, side_by_side)


async def test_one_that_was_cancelled_before_it_had_begun_is_refused(world: World) -> None:
    async with world.engine(nightly) as engine:
        run = await engine.start(nightly(3), id="r", delay=3_600)
        await run.cancel(reason="never mind")
        with pytest.raises(RunCancelledError):
            await soon(run.result())
        for at in range(1, len(await events_of(run)) + 1):
            with pytest.raises(RepairRefused, match="stands before it had begun"):
                await engine.fork("r", at=at)
