"""Memoised tasks: a result is computed once for a key, used again by whoever asks next, and named in their histories."""

from __future__ import annotations

import asyncio
import inspect
import linecache
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from tenacity import retry_if_not_exception_type, stop_after_attempt, wait_fixed

from engine import Engine, Memo, Signal, attempt, task, workflow
from engine.core.carriage import INLINE
from engine.core.events import (
    AttemptOutcomeIgnored,
    ResultForgotten,
    ResultMemoised,
    TaskCompleted,
    TaskFailed,
    TaskStarted,
    decode_header,
)
from engine.core.pending import PendingTask
from engine.errors import DefinitionError, EngineFailed, HoldfastError, RunFailedError
from engine.runtime.memos import Lookups
from engine.runtime.steps import Arrival, Step, as_ignored
from eventstore import Commit, EventStore, NewEvent, StoreUnavailable, StreamQuery
from tests.runtime.faulty import Fault, FaultyStore
from tests.runtime.invariants import check_history, check_store
from tests.runtime.worlds import (
    MemoryWorld,
    SqliteWorld,
    World,
    at_rest,
    events_of,
    kinds_of,
    settle,
    soon,
    until,
    until_async,
)

ran: list[Any] = []
DAY = timedelta(days=1)
go_on = Signal("go_on", bool)


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@task(memo=Memo(expires=DAY))
async def square(n: int) -> int:
    ran.append(n)
    return n * n


@workflow
async def squared(n: int) -> int:
    return await square(n)


@workflow
async def squares(width: int) -> int:
    return sum(await asyncio.gather(*(square(n) for n in range(width))))


async def memos(store: EventStore) -> list[tuple[str, list[Any]]]:
    """Every memo there is, oldest first: its stream, and its events."""
    found = []
    for head in (await store.find(StreamQuery(category="memo", newest_first=False, limit=1_000))).items:
        found.append((head.stream, [decode_header(item.header) async for item in store.read(head.stream)]))
    return found


async def run_of(engine: Engine, call: Any, run_id: str) -> Any:
    """The result of a run; and all that it leads to is written."""
    result = await soon((await engine.start(call, id=run_id)).result())
    await written(engine)
    return result


async def written(engine: Engine) -> None:
    assert engine._worker is not None
    await soon(engine._worker.memos.written())


async def outcomes(engine: Engine, run_id: str) -> list[Any]:
    return [event for event in await events_of(engine.run(run_id)) if isinstance(event, TaskCompleted | TaskFailed)]


async def reused(engine: Engine, run_id: str) -> list[str]:
    """The runs that the results of this one come from; "" for those of its own."""
    return [event.reused_run for event in await outcomes(engine, run_id)]


# -- hit and miss -----------------------------------------------------------------------------------------------------


async def test_a_result_is_used_again_by_another_run_and_its_history_says_so(world: World) -> None:
    async with world.engine(squared) as engine:
        assert await run_of(engine, squared(7), "first") == 49
        assert await run_of(engine, squared(7), "second") == 49
        assert await run_of(engine, squared(8), "third") == 64
        assert ran == [7, 8]
        assert await kinds_of(engine.run("second")) == [
            "RunStarted",
            "TaskScheduled",
            "TaskCompleted",
            "RunCompleted",
        ]
        (fact,) = await outcomes(engine, "second")
        assert (fact.attempt, fact.reused_run, fact.reused_id) == (0, "first", "squared/square#1")
        assert await reused(engine, "first") == await reused(engine, "third") == [""]
        state = (await engine.run("second").state()).tasks["squared/square#1"]
        assert (state.status, state.attempts, state.reused_run, state.started_at) == ("completed", 0, "first", None)
        await check_store(engine.store, squared)


async def test_a_memo_is_a_stream_of_its_own_that_names_where_it_comes_from(world: World) -> None:
    async with world.engine(squared) as engine:
        await run_of(engine, squared(7), "first")
        await run_of(engine, squared(7), "second")
        ((stream, events),) = await memos(engine.store)
        (event,) = events
        assert stream.startswith("memo:square:")
        assert (event.task, event.run, event.id, event.key) == ("square", "first", "squared/square#1", '{"n":7}')
        assert event.expires_at == event.at + 86_400 * 1_000_000
        assert len(event.code_version) == 16
        assert [summary.id for summary in (await engine.runs()).items] == ["second", "first"]  # it is no run


async def test_in_one_run_the_next_call_finds_what_the_one_before_it_returned(world: World) -> None:
    @workflow
    async def again() -> list[int]:
        return [await square(3), await square(3), *await asyncio.gather(square(3), square(4))]

    async with world.engine(again) as engine:
        assert await run_of(engine, again(), "again") == [9, 9, 9, 16]
        assert ran == [3, 4]
        assert sorted(await reused(engine, "again")) == ["", "", "again", "again"]
        await check_history(engine.store, "again", again)


async def test_it_survives_restarts(world: World) -> None:
    async with world.engine(squared) as engine:
        await run_of(engine, squared(7), "first")
    async with world.engine(squared) as engine:
        assert await run_of(engine, squared(7), "second") == 49
    assert ran == [7]


async def test_two_engines_on_one_file_share_what_they_know(sqlite: SqliteWorld) -> None:
    async with sqlite.engine(squared) as one, sqlite.engine(squared, only=["second"]) as other:
        await run_of(one, squared(7), "first")
        assert await run_of(other, squared(7), "second") == 49
        assert await reused(other, "second") == ["first"]
        assert await one.forget(square(7)) == 1
    assert ran == [7]


async def test_a_fan_out_is_looked_up_together(memory: MemoryWorld) -> None:
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[squares], clock=memory.clock) as engine:
        assert await run_of(engine, squares(1_200), "first") == sum(n * n for n in range(1_200))
        before = store.calls.count("find")
        assert before <= 6  # two pages of the port's limit; and who is paused
        assert await run_of(engine, squares(1_200), "second") == sum(n * n for n in range(1_200))
        assert store.calls.count("find") - before <= 6
    assert len(ran) == 1_200


async def test_two_at_once_both_compute_and_one_is_kept(world: World) -> None:
    gate = asyncio.Event()

    @task(memo=Memo())
    async def slow() -> int:
        ran.append(attempt().run_id)
        await gate.wait()
        return 1

    @workflow
    async def waiting() -> int:
        return await slow()

    async with world.engine(waiting) as engine:
        runs = [await engine.start(waiting(), id=name) for name in ("a", "b")]
        await until(lambda: len(ran) == 2)
        gate.set()
        assert [await soon(run.result()) for run in runs] == [1, 1]
        await written(engine)
        ((_, events),) = await memos(engine.store)
        assert len(events) == 1
        assert await run_of(engine, waiting(), "c") == 1
        assert await reused(engine, "c") == [events[0].run]
    assert len(ran) == 2


# -- until when, for whom ---------------------------------------------------------------------------------------------


async def test_it_expires_by_the_engines_clock(world: World) -> None:
    async with world.engine(squared) as engine:
        await run_of(engine, squared(7), "first")
        world.clock.advance(86_399)
        await run_of(engine, squared(7), "second")
        assert ran == [7]
        world.clock.advance(1)
        await run_of(engine, squared(7), "third")
        assert ran == [7, 7]
        await run_of(engine, squared(7), "fourth")  # the newer one counts
        assert await reused(engine, "fourth") == ["third"]
        ((_, events),) = await memos(engine.store)
        assert [event.run for event in events] == ["first", "third"]
        await check_store(engine.store, squared)


async def test_who_asks_may_want_it_fresher_and_who_has_written_it_said_how_long(memory: MemoryWorld) -> None:
    @workflow
    async def fresh(seconds: float | None) -> int:
        return await square.options(memo=Memo(expires=seconds))(5)

    async with memory.engine(fresh) as engine:
        await run_of(engine, fresh(100), "first")
        memory.clock.advance(50)
        await run_of(engine, fresh(49), "fresher")
        assert ran == [5, 5]
        memory.clock.advance(48)
        await run_of(engine, fresh(None), "whatever")
        assert await reused(engine, "whatever") == ["fresher"]
        memory.clock.advance(1)
        await run_of(engine, fresh(None), "too late")  # its 49 seconds are over, whoever asks
        assert ran == [5, 5, 5]


@pytest.mark.parametrize("expires", [None, 1.5, timedelta(seconds=1.5)])
async def test_how_long_is_said_in_seconds_or_as_a_timedelta_or_is_for_ever(memory: MemoryWorld, expires: Any) -> None:
    @task(memo=Memo(expires=expires))
    async def one() -> int:
        ran.append(1)
        return 1

    @workflow
    async def ones() -> int:
        return await one()

    async with memory.engine(ones) as engine:
        await run_of(engine, ones(), "first")
        memory.clock.advance(1.4)
        await run_of(engine, ones(), "second")
        assert len(ran) == 1
        memory.clock.advance(10_000_000)
        await run_of(engine, ones(), "third")
        assert len(ran) == (1 if expires is None else 2)


def versions(first: str | None, second: str | None) -> tuple[Any, Any]:
    """One task, and a workflow, as they stand in two releases."""

    def release(version: str | None, source: str) -> Any:
        namespace: dict[str, Any] = {"task": task, "Memo": Memo, "workflow": workflow, "ran": ran, "version": version}
        filename = f"<release {source!r}>"
        text = (
            "@task(timeout=60,\n      memo=Memo(version=version))\nasync def measured() -> str:\n"
            f"    ran.append({source!r})\n    return {source!r}\n\n"
            "@workflow\nasync def measuring() -> str:\n    return await measured()\n"
        )
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
        exec(compile(text, filename, "exec", dont_inherit=True), namespace)
        return namespace["measuring"]

    return release(first, "a"), release(second, "b")


@pytest.mark.parametrize(
    ("first", "second", "computed"),
    [(None, None, ["a", "b"]), ("1", "1", ["a"]), ("1", "2", ["a", "b"]), ("1", None, ["a", "b"])],
)
async def test_other_code_computes_anew(
    memory: MemoryWorld, first: str | None, second: str | None, computed: list[str]
) -> None:
    before, after = versions(first, second)
    async with memory.engine(before) as engine:
        assert await run_of(engine, before(), "first") == "a"
    async with memory.engine(after) as engine:
        await run_of(engine, after(), "second")
    async with memory.engine(before) as engine:  # rolled back: what it knew is still known
        assert await run_of(engine, before(), "third") == "a"
    assert ran == computed


def quick() -> Any:
    @task(timeout=5, memo=Memo(expires=1))
    async def code() -> int:
        return 1

    return code


def quick_with_other_options() -> Any:
    @task(
        timeout=6,
        memo=Memo(expires=2),
    )
    async def code() -> int:
        return 1

    return code


def quick_with_other_code() -> Any:
    @task(timeout=5, memo=Memo(expires=1))
    async def code() -> int:
        return 2

    return code


def test_what_decorates_a_function_is_not_its_code() -> None:
    made = [each().source.get("here") for each in (quick, quick_with_other_options, quick_with_other_code)]
    assert made[0] == made[1] != made[2]


async def test_a_key_function_says_what_a_result_depends_on(world: World) -> None:
    @task(memo=Memo(key=lambda page, trace="": {"page": page.lower(), "v": 1}))
    async def fetch(page: str, trace: str = "") -> str:
        ran.append(trace)
        return page

    @workflow
    async def fetching(page: str, trace: str) -> str:
        return await fetch(page, trace=trace)

    async with world.engine(fetching) as engine:
        assert await run_of(engine, fetching("Home", "one"), "first") == "Home"
        assert await run_of(engine, fetching("HOME", "two"), "second") == "Home"
        assert await run_of(engine, fetching("about", "three"), "third") == "about"
        assert [events[0].key for _, events in await memos(engine.store)] == [
            '{"page":"home","v":1}',
            '{"page":"about","v":1}',
        ]
    assert ran == ["one", "three"]


async def test_a_long_key_is_a_key_and_is_not_shown(memory: MemoryWorld) -> None:
    @task(memo=Memo())
    async def length(text: str) -> int:
        ran.append(len(text))
        return len(text)

    @workflow
    async def lengths(text: str) -> int:
        return await length(text)

    async with memory.engine(lengths) as engine:
        for name, text in (("first", "x" * 5_000), ("second", "x" * 5_000), ("third", "x" * 5_001)):
            assert await run_of(engine, lengths(text), name) == len(text)
        assert [events[0].key for _, events in await memos(engine.store)] == ["", ""]
    assert ran == [5_000, 5_001]


def raising(n: int) -> Any:
    raise LookupError(f"no key for {n}")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (raising, r"LookupError.*no key for 7(.|\n)*key function of the memo of task 'keyless'"),
        (lambda n: object(), "the memo key of task 'keyless' cannot be written as typed JSON"),
        (lambda: 1, "takes 0 positional arguments"),
    ],
)
async def test_a_key_function_that_fails_fails_the_task_and_says_so(world: World, key: Any, said: str) -> None:
    @task(memo=Memo(key=key), stop=stop_after_attempt(3))
    async def keyless(n: int) -> int:
        ran.append(n)
        return n

    @workflow
    async def keying() -> int:
        return await keyless(7)

    async with world.engine(keying, squared) as engine:
        run = await engine.start(keying(), id="keying")
        with pytest.raises(RunFailedError):
            await soon(run.result())
        info = (await run.state()).tasks["keying/keyless#1"].error
        assert info is not None
        assert re.search(said, "\n".join([f"{info.type}: {info.message}", *info.notes]))
        assert await run_of(engine, squared(2), "fine") == 4
        await check_history(engine.store, "keying", keying)
    assert ran == [2]


async def test_options_of_one_call(world: World) -> None:
    @task
    async def plain(n: int) -> int:
        ran.append(n)
        return n

    @workflow
    async def mixed(n: int) -> list[int]:
        # Twice the source is asked for, inside a workflow, where no file can be read.
        kept = plain.options(memo=Memo(expires=60))
        return [await kept(n), await kept(n), await plain(n), await square.options(memo=None)(n)]

    async with world.engine(mixed) as engine:
        assert await run_of(engine, mixed(3), "first") == [3, 3, 3, 9]
        assert ran == [3, 3, 3]  # kept once, plain, square
        assert await run_of(engine, mixed(3), "second") == [3, 3, 3, 9]
        assert ran == [3, 3, 3, 3, 3]
        assert await reused(engine, "second") == ["first", "first", "", ""]
        await check_store(engine.store, mixed)


# -- what is kept -----------------------------------------------------------------------------------------------------


async def test_only_success_is_kept_and_a_retried_attempt_is_not_looked_up(memory: MemoryWorld) -> None:
    @task(memo=Memo(), stop=stop_after_attempt(3), wait=wait_fixed(60), retry=retry_if_not_exception_type(TypeError))
    async def flaky(n: int) -> int:
        ran.append(n)
        if n == 2:
            raise TypeError("never")
        if len(ran) < 3:
            raise ConnectionError("down")
        return n

    @workflow
    async def trying(n: int) -> int:
        return await flaky(n)

    async with memory.engine(trying) as engine:
        run = await engine.start(trying(1), id="first")
        for count in (1, 2):
            await until(lambda: len(ran) == count)
            await settle()
            assert await memos(engine.store) == []
            memory.clock.advance(61)
        assert await soon(run.result()) == 1
        await written(engine)
        assert len(await memos(engine.store)) == 1
        for name in ("failing", "failing again"):
            with pytest.raises(RunFailedError):
                await soon((await engine.start(trying(2), id=name)).result())
        assert ran == [1, 1, 1, 2, 2]
        assert len(await memos(engine.store)) == 1
        await check_store(engine.store, trying)


async def test_what_was_completed_by_its_token_is_kept(memory: MemoryWorld) -> None:
    @task(memo=Memo())
    async def asked() -> str:
        ran.append(attempt().token)
        attempt().later()

    @workflow
    async def asking() -> str:
        return await asked()

    async with memory.engine(asking) as engine:
        run = await engine.start(asking(), id="first")
        await until(lambda: ran)
        await until(lambda: engine._worker is not None and not engine._worker.dispatcher.running)
        await engine.complete(ran[0], "yes", task=asked)
        assert await soon(run.result()) == "yes"
        await written(engine)
        assert await run_of(engine, asking(), "second") == "yes"
    assert len(ran) == 1


async def test_a_result_that_nobody_waited_for_any_more_is_not_kept(memory: MemoryWorld) -> None:
    gate = asyncio.Event()

    @task(memo=Memo())
    async def stubborn() -> str:
        ran.append("begun")
        try:
            await gate.wait()
        except asyncio.CancelledError:
            pass
        return "done"

    @workflow
    async def leaving() -> str:
        try:
            async with asyncio.timeout(5):
                return await stubborn()
        except TimeoutError:
            return "left"

    async with memory.engine(leaving) as engine:
        run = await engine.start(leaving(), id="first")
        await until(lambda: ran)
        memory.clock.advance(6)
        assert await soon(run.result()) == "left"

        async def noted() -> bool:
            return "AttemptOutcomeIgnored" in await kinds_of(run)

        await until_async(noted)
        await written(engine)
        assert await memos(engine.store) == []


# -- crashes ----------------------------------------------------------------------------------------------------------


def memo_commits(store: FaultyStore, fault: Fault) -> Callable[[str, Any], Awaitable[None]]:
    """Die at the first commit of a memo."""

    async def before(name: str, argument: Any) -> None:
        if name == "commit" and argument.stream.startswith("memo:") and not store.dead:
            if fault == "die after":
                await store.inner.commit(argument)
            store.die()
            raise store._error(name)

    return before


@pytest.mark.parametrize("fault", ["die before", "die after"])
async def test_a_crash_between_a_completion_and_its_memo_is_a_miss_and_nothing_else(world: World, fault: Fault) -> None:
    @workflow
    async def twice() -> list[int]:
        first = await square(6)
        await go_on.receive()
        return [first, await square(6)]

    handle = await world.store()
    store = FaultyStore(handle)
    store.before = memo_commits(store, fault)
    async with Engine(store, workflows=[twice], clock=world.clock, grace=0) as engine:
        run = await engine.start(twice(), id="twice")
        await until(lambda: store.dead)
        with pytest.raises((EngineFailed, StoreUnavailable)):
            await soon(run.result())
    await world.release(handle)
    async with world.engine(twice) as engine:
        completed = [event for event in await events_of(engine.run("twice")) if isinstance(event, TaskCompleted)]
        assert len(completed) == 1  # it was durable before there was any memo
        await engine.run("twice").signal(go_on, True)
        assert await soon(engine.run("twice").result()) == [36, 36]
        assert ran == ([6] if fault == "die after" else [6, 6])
        await written(engine)
        assert len(await memos(engine.store)) == 1
        await check_store(engine.store, twice)


async def test_an_attempt_that_a_crash_cut_off_is_made_again_and_kept(world: World) -> None:
    """It has begun, under its key: it is not looked up any more, though others know the result by then."""
    gate = asyncio.Event()

    @task(memo=Memo(version="1"))
    async def slow() -> str:
        ran.append(attempt().run_id)
        if attempt().run_id == "first" and attempt().number == 1:
            await gate.wait()
        return f"by {attempt().run_id}"

    @workflow
    async def waiting() -> str:
        return await slow()

    handle = await world.store()
    store = FaultyStore(handle)
    async with Engine(store, workflows=[waiting], clock=world.clock, grace=0) as engine:
        await engine.start(waiting(), id="first")
        await until(lambda: ran)
        assert await run_of(engine, waiting(), "second") == "by second"
        store.die()
    await world.release(handle)
    async with world.engine(waiting) as engine:
        assert await soon(engine.run("first").result()) == "by first"
        await written(engine)
        assert ran == ["first", "second", "first"]
        ((_, events),) = await memos(engine.store)
        assert [event.run for event in events] == ["second", "first"]  # the newest counts
        assert await run_of(engine, waiting(), "third") == "by first"
        await check_store(engine.store, waiting)


async def test_a_replay_looks_up_nothing(memory: MemoryWorld) -> None:
    @workflow
    async def long() -> list[int]:
        first = await square(9)
        await go_on.receive()
        return [first, await square(10)]

    async with memory.engine(long, squared) as engine:
        await run_of(engine, squared(9), "first")
        run = await engine.start(long(), id="long")
        await until_reused(engine, "long")
        await at_rest(engine.store, "long")
        assert ran == [9]
    # Another store, into which only the run was brought: nobody there knows of any memo.
    streams = memory.data._streams._streams
    for name in [name for name in streams if name.startswith("memo:")]:
        streams[name].events.clear()
        streams[name].attributes.clear()
    store = FaultyStore(memory.data)
    looked_up: list[Any] = []

    async def before(name: str, argument: Any) -> None:
        if name == "find" and argument.streams:
            looked_up.extend(argument.streams)

    store.before = before
    async with Engine(store, workflows=[long], clock=memory.clock) as engine:
        run = engine.run("long")
        await run.signal(go_on, True)
        assert await soon(run.result()) == [81, 100]
        await written(engine)
        assert ran == [9, 10]
        assert len(looked_up) == 1  # square(10)
        await check_history(engine.store, "long", long)


async def until_reused(engine: Engine, run_id: str) -> None:
    async def found() -> bool:
        return "TaskCompleted" in await kinds_of(engine.run(run_id))

    await until_async(found)


# -- memos that are no good -------------------------------------------------------------------------------------------


def releases() -> tuple[Any, Any]:
    """A task whose result has another type in its next release, under one version."""

    @task(name="shaped", memo=Memo(version="1"))
    async def before() -> str:
        ran.append("before")
        return "seven"

    @task(name="shaped", memo=Memo(version="1"))
    async def after() -> int:
        ran.append("after")
        return 7

    @workflow(name="shaping")
    async def one() -> str:
        return await before()

    @workflow(name="shaping")
    async def other() -> int:
        return await after()

    return one, other


async def test_what_does_not_fit_the_present_type_is_a_miss(world: World) -> None:
    one, other = releases()
    async with world.engine(one) as engine:
        assert await run_of(engine, one(), "first") == "seven"
    async with world.engine(other) as engine:
        assert await run_of(engine, other(), "second") == 7
        assert await run_of(engine, other(), "third") == 7
        assert await reused(engine, "third") == ["second"]
    assert ran == ["before", "after"]


@pytest.mark.parametrize(
    "damage",
    [
        NewEvent(b'{"type":"ResultMemoisedOtherwise","at":1}', b"49"),
        NewEvent(b'{"type":"ResultMemoised","at":1,"task":"square"}', b"49"),
        NewEvent(b'{"type":"TimerFired","at":1,"id":"x"}', b"49"),
        NewEvent(b'{"type":"ResultMemoised","at":1,"task":"square","code_version":"1","run":"r","id":"i"}', b"forty"),
        NewEvent(b'{"type":"ResultMemoised","at":1,"task":"square","code_version":"1","run":"r","id":"i"}', None),
    ],
)
async def test_what_cannot_be_read_is_a_miss_and_is_replaced(world: World, damage: NewEvent) -> None:
    async with world.engine(squared) as engine:
        await run_of(engine, squared(7), "first")
        ((stream, _),) = await memos(engine.store)
        await engine.store.commit(Commit(id="damage", stream=stream, expected_version=1, events=(damage,)))
        assert await run_of(engine, squared(7), "second") == 49
        assert ran == [7, 7]
        assert await run_of(engine, squared(7), "third") == 49
        assert await reused(engine, "third") == ["second"]
        assert ran == [7, 7]


# -- while it is looked up --------------------------------------------------------------------------------------------


class Held:
    """A store in which look-ups wait until they are let go."""

    def __init__(self, world: MemoryWorld) -> None:
        self.store = FaultyStore(world.data)
        self.clock = world.clock
        self.gate = asyncio.Event()
        self.looking = 0
        self.store.before = self._before

    async def _before(self, name: str, argument: Any) -> None:
        if name == "find" and argument.streams:
            self.looking += 1
            await self.gate.wait()

    @asynccontextmanager
    async def engine(self, definition: Any) -> AsyncIterator[Engine]:
        async with Engine(self.store, workflows=[definition], clock=self.clock, grace=0) as engine:
            try:
                yield engine
            finally:
                self.gate.set()  # else a test that fails would wait for ever


async def test_a_run_that_is_cancelled_during_a_look_up(memory: MemoryWorld) -> None:
    held = Held(memory)
    async with held.engine(squared) as engine:
        run = await engine.start(squared(7), id="cancelled")
        await until(lambda: held.looking)
        await run.cancel(reason="enough")
        with pytest.raises(HoldfastError, match="cancelled"):
            await soon(run.result())
        held.gate.set()
        await settle()
        assert await kinds_of(run) == [
            "RunStarted",
            "TaskScheduled",
            "CancelRequested",
            "TaskCancelled",
            "RunCancelled",
        ]
        assert await run_of(engine, squared(7), "next") == 49
        await check_store(engine.store, squared)
    assert ran == [7]


@pytest.mark.parametrize("known", [True, False])
async def test_a_call_that_is_awaited_to_its_end_is_cancelled_during_a_look_up(
    memory: MemoryWorld, known: bool
) -> None:
    @workflow
    async def careful() -> str:
        try:
            async with asyncio.timeout(5):
                return str(await square.options(on_cancel="wait")(7))
        except TimeoutError:
            return "too late"

    async with memory.engine(squared) as engine:
        if known:
            await run_of(engine, squared(7), "first")
    ran.clear()
    held = Held(memory)
    async with held.engine(careful) as engine:
        run = await engine.start(careful(), id="careful")
        await until(lambda: held.looking)
        memory.clock.advance(6)
        assert await soon(run.result()) == "too late"
        held.gate.set()
        await settle()
        assert not [event for event in await events_of(run) if isinstance(event, AttemptOutcomeIgnored | TaskStarted)]
        await check_history(engine.store, "careful", careful)
    assert ran == []


async def test_a_run_that_is_paused_during_a_look_up_begins_nothing_and_looks_again(memory: MemoryWorld) -> None:
    held = Held(memory)
    async with held.engine(squared) as engine:
        run = await engine.start(squared(7), id="paused")
        await until(lambda: held.looking)
        await run.pause(reason="lunch")
        await at_rest(engine.store, "paused")  # the look-up keeps it no longer
        assert await run.status() == "paused"
        held.gate.set()
        await settle()
        assert ran == []
        await engine.start(squared(7), id="meanwhile")
        assert await soon(engine.run("meanwhile").result()) == 49
        await written(engine)
        await run.unpause()
        assert await soon(run.result()) == 49
        assert await reused(engine, "paused") == ["meanwhile"]
        await check_store(engine.store, squared)
    assert ran == [7]


async def test_an_engine_that_closes_during_a_look_up(memory: MemoryWorld) -> None:
    held = Held(memory)
    async with held.engine(squared) as engine:
        await engine.start(squared(7), id="closing")
        await until(lambda: held.looking)
        asyncio.get_running_loop().call_later(0.01, held.gate.set)
    assert ran == []
    async with memory.engine(squared) as engine:
        assert await soon(engine.run("closing").result()) == 49
        await check_store(engine.store, squared)
    assert ran == [7]


@pytest.mark.parametrize("call", ["find", "read", "memo commit"])
async def test_a_store_that_fails_there_stops_the_engine_and_loses_nothing(world: World, call: str) -> None:
    handle = await world.store()
    store = FaultyStore(handle)
    async with Engine(store, workflows=[squared], clock=world.clock, grace=0) as engine:
        await run_of(engine, squared(7), "first")

        async def before(name: str, argument: Any) -> None:
            if (name == "find" and argument.streams and call == "find") or (
                name == "commit" and argument.stream.startswith("memo:") and call == "memo commit"
            ):
                raise store._error(name)

        store.before = before
        store.plan = lambda _number, name: "refuse" if name == call == "read" else None
        n = 8 if call == "memo commit" else 7
        starts = (engine.start(squared(n), id=f"failing-{number}") for number in range(3))
        for run in await soon(asyncio.gather(*starts)):
            try:
                assert await soon(run.result()) == 64
            except EngineFailed:
                continue
            assert call == "memo commit"
        if call == "memo commit":
            await until(lambda: engine._worker is not None and engine._worker.failure is not None)
        with pytest.raises(EngineFailed):
            await engine.start(squared(1), id="new")
    await world.crash(handle)
    await world.release(handle)
    async with world.engine(squared) as engine:
        for n in range(3):
            assert await soon(engine.run(f"failing-{n}").result()) in (49, 64)
        await check_store(engine.store, squared)


# -- limits that all share ---------------------------------------------------------------------------------------------


async def test_what_is_found_needs_no_permit_and_what_is_not_waits_for_one(world: World) -> None:
    gate = asyncio.Event()

    @task(pool="bank")
    async def hold() -> None:
        ran.append("held")
        await gate.wait()

    @workflow
    async def holding() -> None:
        await hold()

    @task(pool="bank", memo=Memo())
    async def ask(n: int) -> int:
        ran.append(n)
        return n

    @workflow
    async def asking(n: int) -> int:
        return await ask(n)

    @workflow
    async def asking_later(n: int) -> int:
        await asyncio.sleep(60)
        return await ask(n)

    async with world.engine(holding, asking, asking_later, pools={"bank": 1}) as engine:
        assert await run_of(engine, asking(1), "first") == 1
        held = await engine.start(holding(), id="held")
        await until(lambda: "held" in ran)
        assert await run_of(engine, asking(1), "second") == 1  # though the pool is full
        waiting = await engine.start(asking(2), id="waiting")
        await at_rest(engine.store, "waiting")  # for a permit it waits out of memory
        later = await engine.start(asking_later(2), id="later")
        assert ran == [1, "held"]
        gate.set()
        await soon(held.result())
        assert await soon(waiting.result()) == 2
        await written(engine)
        world.clock.advance(61)
        assert await soon(later.result()) == 2
        assert ran == [1, "held", 2]
        assert await reused(engine, "later") == ["waiting"]
        await check_store(engine.store, holding, asking, asking_later)


async def test_a_run_that_comes_back_with_a_permit_looks_first_and_gives_it_back(world: World) -> None:
    """It waited for a limit out of memory; meanwhile somebody has kept the result, under another limit."""
    gate = asyncio.Event()

    @task(name="ask", pool="bank", memo=Memo(version="1"))
    async def ask(n: int) -> int:
        ran.append(f"ask {n}")
        if n == 0:
            await gate.wait()
        return n

    @workflow
    async def asking(n: int) -> int:
        return await ask(n)

    @workflow
    async def asking_elsewhere(n: int) -> int:
        return await ask.options(pool=None)(n)

    async with world.engine(asking, asking_elsewhere, pools={"bank": 1}) as engine:
        holding = await engine.start(asking(0), id="holding")
        await until(lambda: ran)
        waiting = await engine.start(asking(5), id="waiting")
        await at_rest(engine.store, "waiting")  # for a permit it waits out of memory
        assert await run_of(engine, asking_elsewhere(5), "elsewhere") == 5
        gate.set()
        assert await soon(holding.result()) == 0
        assert await soon(waiting.result()) == 5
        # Whether it looked once more depends on whether it was rebuilt; it has one outcome, and the permit is free.
        assert await run_of(engine, asking(6), "next") == 6
        assert ran.count("ask 5") in (1, 2)
        await check_store(engine.store, asking, asking_elsewhere)


# -- forgetting -------------------------------------------------------------------------------------------------------


async def test_what_is_forgotten_is_computed_anew(world: World) -> None:
    async with world.engine(squared) as engine:
        for n in (7, 8, 9):
            await soon((await engine.start(squared(n), id=f"first-{n}")).result())
        assert await engine.forget(square(7), by="ann") == 1  # also what was just about to be kept
        assert await engine.forget(square(7)) == 0
        assert await engine.forget(square(1_000)) == 0
        await run_of(engine, squared(7), "second")
        await run_of(engine, squared(8), "third")
        assert ran == [7, 8, 9, 7]
        assert await engine.forget(square) == 3
        assert await engine.forget(square) == 0
        for n in (7, 8, 9):
            await run_of(engine, squared(n), f"last-{n}")
        assert ran == [7, 8, 9, 7, 7, 8, 9]
        of_seven = dict(await memos(engine.store))
        (events,) = [events for events in of_seven.values() if getattr(events[0], "key", "") == '{"n":7}']
        assert [type(event) for event in events] == [ResultMemoised, ResultForgotten] * 2 + [ResultMemoised]
        assert events[1].by == "ann"
        await check_store(engine.store, squared)


async def test_what_is_just_being_written_is_forgotten_too(memory: MemoryWorld) -> None:
    store = FaultyStore(memory.data)
    gate = asyncio.Event()

    async def before(name: str, argument: Any) -> None:
        if name == "commit" and argument.stream.startswith("memo:"):
            await gate.wait()

    store.before = before
    async with Engine(store, workflows=[squared], clock=memory.clock) as engine:
        assert await soon((await engine.start(squared(7), id="first")).result()) == 49
        forgetting = asyncio.ensure_future(engine.forget(square(7)))
        await settle()
        gate.set()
        assert await soon(forgetting) == 1
        await run_of(engine, squared(7), "second")
    assert ran == [7, 7]


async def test_a_client_can_forget(sqlite: SqliteWorld) -> None:
    async with sqlite.engine(squared) as engine:
        await run_of(engine, squared(7), "first")
        async with sqlite.engine() as client:
            assert await client.forget(square) == 1
        await run_of(engine, squared(7), "second")
    assert ran == [7, 7]


async def test_what_cannot_be_forgotten(memory: MemoryWorld) -> None:
    @task
    async def plain() -> int:
        return 1

    async with memory.engine(squared) as engine:
        with pytest.raises(HoldfastError, match="task 'plain' has no memo"):
            await engine.forget(plain())
        for wrong in (squared(1), "square", squared):
            with pytest.raises(HoldfastError, match="forgets results of a task"):
                await engine.forget(wrong)  # type: ignore[arg-type]
        assert await engine.forget(plain) == 0


# -- what cannot be memoised ------------------------------------------------------------------------------------------


async def no_key(n: int) -> int:
    return n


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"memo": 60}, "memo takes a Memo, as in"),
        ({"memo": Memo(), "effect": "at_most_once"}, "an effect which must happen for each call would not"),
        ({"memo": Memo(), "reconcile": no_key}, "effect='reconcile' exclude each other"),
        ({"memo": Memo(expires=0)}, r"Memo\(expires=...\) is a timedelta or a number of seconds, above 0, not 0"),
        ({"memo": Memo(expires=timedelta(days=-1))}, "above 0"),
        ({"memo": Memo(expires="1d")}, "not '1d'"),  # type: ignore[arg-type]
        ({"memo": Memo(expires=float("inf"))}, "leave it out for what never expires"),
        ({"memo": Memo(expires=True)}, "above 0, not True"),
        ({"memo": Memo(key="n")}, "a plain function of the task's arguments"),  # type: ignore[arg-type]
        ({"memo": Memo(key=no_key)}, "a plain function of the task's arguments"),
        ({"memo": Memo(version="")}, r"Memo\(version=...\) is a text"),
        ({"memo": Memo(version=2)}, "not 2"),  # type: ignore[arg-type]
    ],
)
def test_bad_memos_are_refused_where_they_are_declared(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError, match=said) as caught:

        @task(**options)
        async def wrong(n: int) -> int:
            return n

    assert "task 'wrong'" in str(caught.value)
    if "reconcile" not in options:
        with pytest.raises(DefinitionError, match=said):
            square.options(**options)


def test_code_without_source_needs_a_version() -> None:
    namespace: dict[str, Any] = {}
    exec("async def made(n: int) -> int:\n    return n\n", namespace)
    with pytest.raises(DefinitionError, match=r"task 'made'.*source text cannot be read.*Memo\(version='1'\)"):
        task(memo=Memo())(namespace["made"])
    assert task(memo=Memo(version="1"))(namespace["made"]).policy.memo == Memo(version="1")


async def test_code_without_source_in_options_of_a_call_fails_that_task(memory: MemoryWorld) -> None:
    namespace: dict[str, Any] = {}
    exec("async def made(n: int) -> int:\n    return n\n", namespace)
    made = task(namespace["made"])

    @workflow
    async def making() -> str:
        try:
            await made.options(memo=Memo())(1)
        except DefinitionError as error:
            return str(error)
        return "made"

    async with memory.engine(making) as engine:
        assert "Memo(version='1')" in await run_of(engine, making(), "making")


def test_the_source_is_read_once_for_a_task_and_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    real = inspect.getsourcelines
    monkeypatch.setattr(inspect, "getsourcelines", lambda fn: (read.append(fn), real(fn))[1])

    @task(memo=Memo())
    async def once() -> int:
        return 1

    for seconds in range(1, 5):
        once.options(timeout=seconds).options(memo=Memo(expires=seconds))
    assert len(read) == 1


@pytest.mark.parametrize("let_go", ["at once", "later"])
async def test_a_run_that_is_held_while_its_step_is_written_looks_up_nothing_and_makes_one_attempt(
    memory: MemoryWorld, let_go: str
) -> None:
    looked_up: list[Any] = []
    before_it_was_given_up: list[list[Any]] = []
    store = FaultyStore(memory.data)
    gate = asyncio.Event()

    @task(memo=Memo())
    async def slow() -> int:
        ran.append(attempt().number)
        await gate.wait()
        return 1

    @workflow
    async def slowly() -> int:
        await go_on.receive()
        return await slow()

    async def before(name: str, argument: Any) -> None:
        if name == "commit" and any(b"TaskScheduled" in event.header for event in argument.events):
            assert engine._worker is not None
            driver = engine._worker.residents.drivers["held"]
            driver.hold(pause="a pause")
            await settle()
            if let_go == "at once":
                driver.hold(pause="")
                await settle()  # what was taken up is looked up by now, and waits for the commit
        elif name == "commit" and argument.release:
            before_it_was_given_up.append(list(looked_up))  # and claimed again, for no worker knows of any pause
        if name == "find" and argument.streams:
            looked_up.extend(argument.streams)

    async with Engine(store, workflows=[slowly], clock=memory.clock) as engine:
        store.before = before
        run = await engine.start(slowly(), id="held")
        await run.signal(go_on, True)
        await until(lambda: ran)
        await settle()
        gate.set()
        assert await soon(run.result()) == 1
        await check_history(engine.store, "held", slowly)
    assert ran == [1]
    if let_go == "later":
        assert [] in before_it_was_given_up[1:]  # the first time it had waited for the signal


def pending_square(n: int) -> Any:
    made = PendingTask.__new__(PendingTask)
    made.id, made.definition, made.arguments = "x/square#1", square, square.arguments.encode((n,), {}, INLINE)
    return made


async def test_an_id_that_means_another_call_now_is_not_looked_up_as_the_one_before(memory: MemoryWorld) -> None:
    """A step that was refused is decided anew: what was planned for its calls must not be found by those of the next."""
    async with memory.engine(squared) as engine:
        await run_of(engine, squared(7), "first")
        assert engine._worker is not None
        ended: list[Any] = []
        missed: list[str] = []
        lookups = Lookups(
            engine._worker.memos, "x", missed=missed.append, ended=lambda id_, number, out: ended.append((number, out))
        )

        assert lookups.plan(pending_square(7))
        assert lookups.plan(pending_square(8))
        lookups.begin("x/square#1")
        assert lookups
        await until(lambda: missed)
        assert lookups.plan(pending_square(7))
        lookups.begin("x/square#1")
        lookups.begin("x/square#1")
        await until(lambda: ended)
        assert not lookups
        assert [(number, out.payload, out.run) for number, out in ended] == [(0, b"49", "first")]


async def test_what_reaches_a_call_that_was_cancelled_in_that_very_step(memory: MemoryWorld) -> None:
    """A result is noted and not kept, for no history has it; what was found leaves no trace."""
    completed = Arrival(TaskCompleted(at=0, id="x/square#1"), b"49")
    found = Arrival(TaskCompleted(at=0, id="x/square#1", attempt=0, reused_run="r", reused_id="i"), b"49")
    assert isinstance(as_ignored(completed, epoch=0), AttemptOutcomeIgnored)
    assert as_ignored(found, epoch=0) is None
    for cancelled, suspended, kept in ((["x/square#1"], False, 0), ([], True, 0), ([], False, 1)):
        async with memory.engine(squared) as engine:
            assert engine._worker is not None
            lookups = Lookups(engine._worker.memos, "x", missed=lambda _: None, ended=lambda *_: None)
            lookups.plan(pending_square(7))
            lookups.keep(Step(taken=[completed], cancelled=cancelled, suspended=suspended))
            await written(engine)
            assert len(await memos(engine.store)) == kept
