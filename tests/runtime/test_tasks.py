"""Attempts: where they run, how many at once, what they know of themselves, and what becomes of what they return or raise."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import Struct
from tenacity import stop_after_attempt, wait_fixed

from engine import Attempt, attempt, durable, task, workflow
from engine.core.events import TaskStarted
from engine.errors import HoldfastError, RunFailedError, TaskError
from tests.runtime.invariants import check_history, check_store
from tests.runtime.worlds import MemoryWorld, World, events_of, settle, soon, until, until_async


@workflow
async def fine() -> str:
    return "fine"


async def failure_of(world: World, definition: Any, *args: Any) -> RunFailedError:
    """How the run fails; the engine, and another run, must be none the worse for it."""
    async with world.engine(definition, fine) as engine:
        run = await engine.start(definition(*args), id="failing")
        with pytest.raises(RunFailedError) as caught:
            await soon(run.result())
        assert await soon((await engine.start(fine())).result()) == "fine"
        await check_history(engine.store, "failing", definition)
    return caught.value


# -- where they run ---------------------------------------------------------------------------------------------------


async def test_coroutines_on_the_loop_and_functions_in_threads(world: World) -> None:
    @task
    async def on_the_loop() -> bool:
        return asyncio.get_running_loop() is loop and threading.current_thread() is here

    @task
    def in_a_thread() -> bool:
        return threading.current_thread() is not here and asyncio._get_running_loop() is None

    @workflow
    async def places() -> list[bool]:
        return await asyncio.gather(on_the_loop(), in_a_thread())

    loop, here = asyncio.get_running_loop(), threading.current_thread()
    async with world.engine(places) as engine:
        run = await engine.start(places())
        assert await soon(run.result()) == [True, True]
        starts = [event for event in await events_of(run) if isinstance(event, TaskStarted)]
        assert {event.executor for event in starts} == {"loop", "threads"}


async def test_a_task_awaited_outside_is_its_function() -> None:
    @task
    async def plus(a: int, b: int = 2) -> int:
        return a + b

    @task
    def minus(a: int, b: int = 2) -> int:
        return a - b

    assert await plus(1) == 3
    assert await minus(5, b=4) == 1
    with pytest.raises(HoldfastError, match="only inside a task"):
        attempt()


class Crowd:
    """Counts how many are inside at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.most = self.total = 0

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            self.total += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1


async def test_never_more_at_once_than_allowed(world: World) -> None:
    on_loop, in_threads = Crowd(), Crowd()

    @task
    async def visit(n: int) -> int:
        with on_loop:
            for _ in range(3):
                await asyncio.sleep(0)
        if n % 7 == 3:
            raise ValueError(n)
        return n

    @task
    def visit_in_thread(n: int) -> int:
        with in_threads:
            time.sleep(0.0005)
        if n % 7 == 3:
            raise ValueError(n)
        return n

    @workflow
    async def visiting(width: int) -> int:
        done = await asyncio.gather(
            *(visit(n) for n in range(width)), *(visit_in_thread(n) for n in range(width)), return_exceptions=True
        )
        return len(done)

    async with world.engine(visiting, concurrency=3, threads=2) as engine:
        runs = [await engine.start(visiting(10)) for _ in range(4)]
        assert await soon(asyncio.gather(*(run.result() for run in runs))) == [20] * 4
        await check_store(engine.store, visiting)
    assert (on_loop.most, in_threads.most) == (3, 2)
    assert on_loop.total == in_threads.total == 40


async def test_slots_come_back_whatever_happens(memory: MemoryWorld) -> None:
    """One slot of each kind, and attempts that end in every way there is."""
    began: list[int] = []

    @task(timeout=10)
    async def endless() -> None:
        began.append(1)
        await asyncio.Event().wait()

    @task
    async def wrong() -> int:
        return "no int"  # type: ignore[return-value]

    @task
    async def exits() -> None:
        raise SystemExit(1)

    @task
    def thread_exits() -> None:
        raise SystemExit(1)

    @task
    async def good() -> int:
        return 1

    @task
    def thread_good() -> int:
        return 1

    @workflow
    async def all_ways() -> int:
        for call in (wrong, exits, thread_exits):
            with pytest.raises((TaskError, HoldfastError)):
                await call()
        with pytest.raises(TimeoutError):
            await endless()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await endless()
        losing = asyncio.create_task(endless())
        await asyncio.sleep(0.001)
        losing.cancel()
        return sum(await asyncio.gather(good(), thread_good()))

    async with memory.engine(all_ways, concurrency=1, threads=1) as engine:
        for round_ in range(1, 4):
            run = await engine.start(all_ways(), id=f"run-{round_}")
            await until(lambda: len(began) == 3 * round_ - 2)
            memory.clock.advance(11)
            await until(lambda: len(began) == 3 * round_ - 1)
            memory.clock.advance(6)
            await until(lambda: len(began) == 3 * round_)
            await settle()
            memory.clock.advance(1)
            assert await soon(run.result()) == 2
        await check_store(memory.data, all_ways)


# -- what an attempt knows --------------------------------------------------------------------------------------------


async def test_an_attempt_knows_itself(world: World) -> None:
    seen: list[Attempt] = []

    @task
    async def who() -> None:
        seen.append(attempt())
        await asyncio.sleep(0)
        assert attempt() is seen[-1] or len(seen) > 1

    @task
    def who_in_thread() -> None:
        seen.append(attempt())

    @workflow
    async def asking() -> None:
        await asyncio.gather(who(), who(), who_in_thread())

    async with world.engine(asking) as engine:
        await soon((await engine.start(asking(), id="one")).result())
        await soon((await engine.start(asking(), id="two")).result())
    assert len(seen) == 6
    assert len({item.idempotency_key for item in seen}) == 6
    assert all(len(item.idempotency_key) == 32 for item in seen)
    assert {item.run_id for item in seen} == {"one", "two"}
    assert {item.number for item in seen} == {1}
    assert {item.task for item in seen} == {"who", "who_in_thread"}
    assert all(item.scheduled_at == world.clock.now() for item in seen)


async def test_the_key_outlives_attempts_and_engines(world: World) -> None:
    seen: list[Attempt] = []

    @task(stop=stop_after_attempt(9), wait=wait_fixed(5))
    async def flaky() -> int:
        seen.append(attempt())
        if len(seen) == 2:
            await asyncio.Event().wait()  # until its engine closes
        if len(seen) < 4:
            raise ConnectionError
        return attempt().number

    @workflow
    async def flaking() -> int:
        return await flaky()

    async with world.engine(flaking, grace=0) as engine:
        await engine.start(flaking(), id="a")
        await until(lambda: len(seen) == 1)
        await until_async(lambda: _retrying(engine.run("a")))
        world.clock.advance(6)
        await until(lambda: len(seen) == 2)
    async with world.engine(flaking) as engine:
        run = engine.run("a")
        await until(lambda: len(seen) == 3)
        await until_async(lambda: _retrying(run))
        world.clock.advance(6)
        assert await soon(run.result()) == 4
        await check_history(engine.store, "a", flaking)
    assert [item.number for item in seen] == [1, 2, 3, 4]
    assert len({item.idempotency_key for item in seen}) == 1
    assert len({item.scheduled_at for item in seen}) == 1


async def _retrying(run: Any) -> bool:
    return any(found.status == "retrying" for found in (await run.state()).tasks.values())


async def test_attempts_do_not_inherit_each_others_context(memory: MemoryWorld) -> None:
    """A context variable that one attempt sets is not seen by another: not of its run, and not of others."""
    tag = contextvars.ContextVar("tag", default="untouched")
    seen: list[str] = []

    @task
    async def touch(n: int) -> None:
        seen.append(tag.get())
        tag.set(f"touched by {n}")
        await asyncio.sleep(0)

    @workflow
    async def touching() -> None:
        for n in range(3):
            await touch(n)

    async with memory.engine(touching, concurrency=1) as engine:
        runs = [await engine.start(touching()) for _ in range(3)]
        await soon(asyncio.gather(*(run.result() for run in runs)))
    assert seen == ["untouched"] * 9


# -- results ----------------------------------------------------------------------------------------------------------


class Point(Struct):
    x: int
    y: int = 0


async def test_results_are_of_the_annotated_type_and_never_the_same_object(world: World) -> None:
    made: list[Any] = []

    @task
    async def make() -> list[Point]:
        made.append([Point(1), Point(2, 3)])
        return made[-1]

    @task
    def moment() -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    @workflow
    async def using() -> tuple[bool, int, int]:
        points, when = await asyncio.gather(make(), moment())
        return points is made[-1], points[1].y, when.year

    async with world.engine(using) as engine:
        assert await soon((await engine.start(using())).result()) == (False, 3, 2026)


async def test_results_that_cannot_be_recorded_fail_at_once_and_say_where(world: World) -> None:
    tries: list[int] = []

    @task(stop=stop_after_attempt(5))
    async def lock() -> Any:
        tries.append(1)
        return threading.Lock()  # deterministic: never used, it stands for what is no JSON

    @task(stop=stop_after_attempt(5))
    def huge() -> str:
        tries.append(1)
        return "x" * 2**20

    @task(stop=stop_after_attempt(5))
    async def mistyped() -> list[Point]:
        tries.append(1)
        return [{"x": "one"}]  # type: ignore[list-item]

    @task(stop=stop_after_attempt(5))
    async def not_finite() -> float:
        tries.append(1)
        return float("nan")

    @task(stop=stop_after_attempt(5))
    async def surrogate() -> str:
        tries.append(1)
        return "\ud800"

    tasks = [lock, huge, mistyped, not_finite, surrogate]

    @workflow
    async def collecting() -> list[str]:
        said = []
        for definition in tasks:
            try:
                await definition()
            except HoldfastError as error:
                said.append(f"{type(error).__name__}: {error}")
        return said

    async with world.engine(collecting) as engine:
        said = await soon((await engine.start(collecting(), id="a")).result())
        await check_history(engine.store, "a", collecting)
    assert len(tries) == len(said) == len(tasks)
    for definition, text in zip(tasks, said, strict=True):
        assert f"the result of task {definition.name!r}" in text
    assert [text.partition(":")[0] for text in said] == ["NotRecordable", "PayloadTooLarge", *["NotRecordable"] * 3]
    assert "int" in said[2]


async def test_a_result_of_the_workflow_that_cannot_be_recorded_fails_the_run(world: World) -> None:
    @workflow
    async def locking() -> Any:
        return threading.Lock()  # deterministic: never used, it stands for what is no JSON

    error = await failure_of(world, locking)
    assert "the result of workflow 'locking'" in str(error)


async def test_arguments_that_cannot_be_recorded_raise_where_they_are_given(memory: MemoryWorld) -> None:
    @task
    async def take(value: Any) -> None: ...

    @workflow
    async def giving() -> str:
        try:
            await take(threading.Lock())  # deterministic: never used, it stands for what is no JSON
        except HoldfastError as error:
            return str(error)
        return "taken"

    async with memory.engine(giving) as engine:
        said = await soon((await engine.start(giving())).result())
    assert "argument 'value' of task 'take'" in said


async def test_arguments_that_do_not_decode_any_more(memory: MemoryWorld) -> None:
    """Recorded by older code, begun by newer code."""
    gate = asyncio.Event()

    @task(name="take")
    async def take_old(value: str) -> str:
        await gate.wait()
        return value

    @workflow(name="giving")
    async def giving_old() -> str:
        return await take_old("seven")

    @task(name="take")
    async def take_new(value: int) -> str:
        raise AssertionError("begun")

    @workflow(name="giving")
    async def giving_new() -> str:
        try:
            return await take_new("seven")  # type: ignore[arg-type]
        except HoldfastError as error:
            return f"{type(error).__name__} {error}"

    async with memory.engine(giving_old, grace=0) as engine:
        await engine.start(giving_old(), id="a")
        await settle()
    async with memory.engine(giving_new) as engine:
        said = await soon(engine.run("a").result())
        await check_history(memory.data, "a", giving_new)
    assert said.startswith("ArgumentsError")
    assert "take" in said


@dataclass
class Touchy:
    """Data whose class has opinions, and states them as something else than a ValueError."""

    n: int

    def __post_init__(self) -> None:
        if self.n > 1:
            raise LookupError(f"{self.n} is too much")


async def test_a_class_that_raises_while_it_is_decoded(memory: MemoryWorld, worlds) -> None:
    Touchy_made = Touchy(1)
    Touchy_made.n = 5

    @task
    async def take(value: Touchy) -> int:
        return value.n

    @task
    async def make() -> Touchy:
        return Touchy_made

    @workflow
    async def taking() -> int:
        return await take(Touchy_made)

    @workflow
    async def making() -> int:
        return (await make()).n

    assert "too much" in str(await failure_of(memory, taking))
    assert "too much" in str(await failure_of(worlds(), making))


# -- exceptions -------------------------------------------------------------------------------------------------------


class Declined(Exception):
    """Declared by the task that raises it."""


class Undeclared(Exception):
    """Known to nobody but the task's author."""


class Picky(Exception):
    """Cannot be made from its args."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raiser(error: Any) -> Any:
    @task(raises=(Declined,))
    async def raising() -> int:
        raise error

    @workflow
    async def workflow_of_it() -> str:
        try:
            await raising()
        except BaseException as caught:
            return f"{type(caught).__name__}|{caught}"
        return "nothing"

    return workflow_of_it


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("plain", 3), "ValueError|('plain', 3)"),
        (KeyError("key"), "KeyError|'key'"),
        (FileNotFoundError(2, "No such file", "x.csv"), "FileNotFoundError|[Errno 2] No such file: 'x.csv'"),
        (Declined("no money"), "Declined|no money"),
        (Undeclared("what"), "TaskError|tests.runtime.test_tasks.Undeclared: what"),
        (Picky(7, "seven"), "TaskError|tests.runtime.test_tasks.Picky: 7: seven"),
        (
            ExceptionGroup("many", [ValueError("one"), KeyError("two")]),
            "TaskError|ExceptionGroup: many (2 sub-exceptions)",
        ),
        (SystemExit(3), "TaskError|SystemExit: 3"),
        (GeneratorExit("bye"), "TaskError|GeneratorExit: bye"),
        (asyncio.CancelledError("mine"), "TaskError|asyncio.exceptions.CancelledError: mine"),
        (StopAsyncIteration(1), None),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), None),
        (Mute(), None),
        (ValueError(2**70), None),
        (ValueError(float("inf")), None),
        (ValueError("\ud800"), None),
        (ValueError("x" * 20_000_000), None),
        (ValueError(*["x" * 1_000] * 20_000), None),
        (OSError("nul \x00 inside"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
async def test_exceptions_come_back(memory: MemoryWorld, error: BaseException, expected: str | None) -> None:
    definition = raiser(error)
    async with memory.engine(definition, fine) as engine:
        said = await soon((await engine.start(definition(), id="a")).result())
        assert expected is None or said == expected
        assert said != "nothing"
        assert await soon((await engine.start(fine())).result()) == "fine"
        await check_history(memory.data, "a", definition)


@pytest.mark.parametrize(
    "error",
    [StopIteration(3), SystemExit(3), asyncio.CancelledError("mine"), GeneratorExit(), ValueError("plain")],
    ids=lambda error: type(error).__name__,
)
async def test_exceptions_come_back_from_threads(memory: MemoryWorld, error: BaseException) -> None:
    @task
    def raising() -> int:
        raise error

    @workflow
    async def catching() -> str:
        try:
            await raising()
        except Exception as caught:
            return f"{type(caught).__name__}|{caught}"
        return "nothing"

    async with memory.engine(catching, threads=1) as engine:
        for n in range(2):
            said = await soon((await engine.start(catching(), id=f"run-{n}")).result(), seconds=5)
            assert said != "nothing"


@pytest.mark.parametrize(
    "error",
    [
        ValueError(2**70),
        ValueError("\ud800"),
        ValueError("x" * 20_000_000),
        SystemExit(4),
        Mute(),
        GeneratorExit(),
        BaseExceptionGroup("g", [SystemExit(1), ValueError("x")]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_workflow_may_raise_anything(memory: MemoryWorld, error: BaseException) -> None:
    @workflow
    async def raising() -> None:
        raise error

    await failure_of(memory, raising)


async def test_a_task_that_cancels_itself_has_failed(world: World) -> None:
    @task
    async def giving_up() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel("I give up")
        await asyncio.sleep(0)

    @workflow
    async def hoping() -> None:
        await giving_up()

    error = await failure_of(world, hoping)
    assert "CancelledError" in error.type or "CancelledError" in str(error)


async def test_causes_notes_and_tracebacks_come_along(world: World) -> None:
    @task
    async def deep() -> None:
        try:
            try:
                raise KeyError("root")
            except KeyError as error:
                raise Undeclared("middle") from error
        except Undeclared as error:
            error.add_note("a note of the task's author")
            raise ValueError("top") from error

    @workflow
    async def digging() -> None:
        await deep()

    error = await failure_of(world, digging)
    top = error.__cause__
    assert type(top) is ValueError
    assert str(top) == "top"
    middle = top.__cause__
    assert type(middle) is TaskError
    assert middle.type.endswith("Undeclared")
    assert "a note of the task's author" in middle.__notes__
    assert isinstance(middle.__cause__, KeyError)
    assert "in deep" in "".join(top.__notes__)
    assert "test_tasks.py" in error.traceback or "test_tasks.py" in "".join(top.__notes__)


async def test_a_task_may_catch_and_go_on(world: World) -> None:
    @task
    async def odd(n: int) -> int:
        if n % 2:
            raise ArithmeticError(n)
        return n

    @workflow
    async def sifting() -> list[Any]:
        results = await asyncio.gather(*(odd(n) for n in range(6)), return_exceptions=True)
        return [type(item).__name__ if isinstance(item, BaseException) else item for item in results]

    async with world.engine(sifting) as engine:
        run = await engine.start(sifting(), id="a")
        assert await soon(run.result()) == [0, "ArithmeticError", 2, "ArithmeticError", 4, "ArithmeticError"]
        await check_history(engine.store, "a", sifting)


async def test_durable_values_are_the_same_after_replay(world: World) -> None:
    gate, begun = asyncio.Event(), []

    @task
    async def wait_for_it() -> None:
        begun.append(1)
        await gate.wait()

    @workflow
    async def drawing() -> list[str]:
        drawn = [durable.run_id(), str(durable.uuid4()), str(durable.random().random()), durable.now().isoformat()]
        await wait_for_it()
        return drawn

    async with world.engine(drawing, grace=0) as engine:
        await engine.start(drawing(), id="a")
        await until(lambda: begun)
    world.clock.advance(1_000)
    gate.set()
    async with world.engine(drawing) as engine:
        drawn = await soon(engine.run("a").result())
        assert drawn[0] == "a"
        assert drawn[3] == "2026-01-01T00:00:00+00:00"
        await check_history(engine.store, "a", drawing)
