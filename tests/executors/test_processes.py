"""Worker processes: used again, killed, replaced; no zombie, no orphan; what they print, raise and are asked."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from random import Random
from typing import Any, Self

import pytest

from engine import Engine, task, workflow
from engine.core.carriage import INLINE
from engine.core.events import TaskFailed, TaskStarted
from engine.errors import (
    DefinitionError,
    HoldfastError,
    NotRecordable,
    RunFailedError,
    WorkerProcessDied,
)
from engine.executors import Encoded, ProcessExecutor, ThreadExecutor, Work, WorkFailed, visits
from engine.executors.functions import name_of
from engine.tasks import Attempt, Contact, GivenNames, Task
from tests.executors import heavy
from tests.runtime.invariants import check_history
from tests.runtime.worlds import MemoryWorld, events_of, soon, until


def work(definition: Task[..., Any], *args: Any, contact: Contact | None = None) -> Work:
    attempt = Attempt(
        run_id="r", task_id="r/t#1", task=definition.name, number=1, scheduled_at=0,
        _names=GivenNames("0" * 32, ""), _contact=contact or Contact(),
    )  # fmt: skip
    return Work(definition, definition.arguments.encode(args, {}, INLINE), args, {}, attempt)


class Pool:
    """An executor, and what runs there."""

    def __init__(self, slots: int = 1) -> None:
        self.executor = ProcessExecutor(slots)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await soon(self.executor.aclose())
        assert self.executor.slots.free == self.executor.slots.total

    def begin(self, definition: Task[..., Any], *args: Any) -> asyncio.Task[Any]:
        assert self.executor.slots.try_take()
        return asyncio.ensure_future(self.executor.run(work(definition, *args)))

    async def run(self, definition: Task[..., Any], *args: Any) -> Any:
        found = await soon(self.begin(definition, *args))
        assert isinstance(found, Encoded)
        return definition.result.decode(found.payload)


def alive(pid: int) -> bool:
    """Whether there is such a process; a zombie is one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def text_of(path: Path) -> str:
    await until(path.exists)
    return path.read_text()


# -- their life -------------------------------------------------------------------------------------------------------


async def test_started_when_needed_and_used_again() -> None:
    async with Pool(2) as pool:
        assert not pool.executor._idle
        found = {await pool.run(heavy.pid) for _ in range(5)}
        assert len(found) == 1
        (pid,) = found
        assert pid != os.getpid()
        assert alive(pid)
    assert not alive(pid)  # and no zombie


async def test_one_that_died_while_it_waited_is_replaced_unnoticed() -> None:
    async with Pool() as pool:
        pid = await pool.run(heavy.pid)
        os.kill(pid, signal.SIGKILL)
        # Also when we have not heard yet that it died: the work has not begun, so another process has it.
        assert await pool.run(heavy.pid) != pid


@pytest.mark.parametrize(
    ("how", "fate"),
    [
        ("SIGKILL", r"was killed by signal 9 \(SIGKILL\); the system does that when memory runs out"),
        ("SIGSEGV", r"was killed by signal 11 \(SIGSEGV\)"),
        ("SIGTERM", "ended with exit code 143"),
        ("exit", "ended with exit code 3"),
    ],
)
async def test_one_that_dies_at_work_is_a_clear_error_and_the_pool_goes_on(how: str, fate: str) -> None:
    async with Pool() as pool:
        first = await pool.run(heavy.pid)
        with pytest.raises(WorkerProcessDied, match=f"the process that ran task 'die' {fate}$"):
            await pool.run(heavy.die, how)
        assert pool.executor.slots.free == 1
        second = await pool.run(heavy.pid)
        assert second != first
        assert not alive(first)


async def test_cancelled_work_may_clean_up(tmp_path: Path) -> None:
    async with Pool() as pool:
        running = pool.begin(heavy.clean_up, str(tmp_path))
        pid = int(await text_of(tmp_path / "inside"))
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        assert not alive(pid)  # before anybody hears that it was cancelled
        assert (tmp_path / "cleaned").read_text() == "True"
        assert pool.executor.slots.free == 1
        assert await pool.run(heavy.pid) != pid


async def test_work_that_does_not_end_is_killed_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "TERMINATE_SECONDS", 0.05)
    async with Pool() as pool:
        running = pool.begin(heavy.deaf, str(tmp_path))
        pid, other = map(int, (await text_of(tmp_path / "inside")).split())
        running.cancel()
        await asyncio.wait([running])
        assert not alive(pid)
        await until(lambda: not alive(other) or state_of(other) == "Z", seconds=10)  # it is init's to reap


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


async def test_closing_ends_what_runs(tmp_path: Path) -> None:
    pool = Pool(2)
    running = pool.begin(heavy.clean_up, str(tmp_path))
    pid = int(await text_of(tmp_path / "inside"))
    await soon(pool.executor.aclose())
    assert not alive(pid)
    with pytest.raises(WorkerProcessDied):
        await soon(running)
    assert pool.executor.slots.free == 2


async def test_whatever_happens_to_them_it_adds_up(tmp_path: Path) -> None:
    """Work that ends, is cancelled at any time or kills its process, and processes that are killed while they wait."""
    chance = Random(7)
    pids: set[int] = set()

    async def visit(pool: Pool, kind: str, seconds: float) -> None:
        if kind == "cancelled":
            running = pool.begin(heavy.clean_up, str(tmp_path))
            await asyncio.wait([running], timeout=seconds)
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()
        elif kind == "killed":
            with pytest.raises(WorkerProcessDied, match="SIGKILL"):
                await pool.run(heavy.die, "SIGKILL")
        else:
            pids.add(pid := await pool.run(heavy.pid))
            if kind == "killed later" and alive(pid):
                os.kill(pid, signal.SIGKILL)

    async def some(pool: Pool, number: int) -> None:
        for _ in range(number):
            kind = chance.choice(["fine", "fine", "cancelled", "killed", "killed later"])
            await visit(pool, kind, chance.random() * 0.3)
            await until(lambda: pool.executor.slots.free > 0)

    async with Pool(3) as pool:
        await asyncio.gather(*(some(pool, 10) for _ in range(3)))
        assert pool.executor.slots.free == 3
    assert [pid for pid in pids if alive(pid)] == []


async def test_what_work_prints_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    async with Pool() as pool:
        assert await pool.run(heavy.talk) == "''"  # nothing is to be read: the pipe belongs to the protocol
    out, err = capfd.readouterr()
    assert out == ""
    assert sorted(err.splitlines()) == ["from a child", "to standard error", "to standard output"]


async def test_what_cannot_be_recorded_is_refused_there() -> None:
    async with Pool() as pool:
        with pytest.raises(WorkFailed) as caught:
            await pool.run(heavy.unrecordable)
        assert isinstance(caught.value.as_itself(), NotRecordable)
        assert "heavy.py" not in caught.value.info.traceback  # the value is wrong, not the code
        assert isinstance(await pool.run(heavy.pid), int)


async def test_nothing_is_started_for_work_that_nobody_finds() -> None:
    @task(executor="processes")
    def local() -> None: ...

    async with Pool() as pool:
        with pytest.raises(DefinitionError):
            await soon(pool.begin(local))
        assert pool.executor.slots.free == 1
        assert not pool.executor._idle


# -- what can run there -----------------------------------------------------------------------------------------------


def refused(definition: Any) -> str:
    with pytest.raises(DefinitionError) as caught:
        ProcessExecutor(1).check(definition)
    return str(caught.value)


def test_a_function_must_be_found_elsewhere() -> None:
    @task(executor="processes")
    def local() -> None: ...

    assert "Define it at the top of its module" in refused(local)
    assert "Define it at the top of its module" in refused(task(executor="processes", name="x")(lambda: None))

    def main() -> None: ...

    main.__module__, main.__qualname__ = "__main__", "main"
    assert "holdfast run FILE.py" in refused(task(executor="processes")(main))

    def other() -> int:
        return 1

    other.__module__, other.__qualname__ = heavy.__name__, "pid"
    assert "tests.executors.heavy.pid is <task 'pid'> there" in refused(task(executor="processes")(other))

    @task(executor="processes")
    async def coroutine() -> None: ...

    assert "runs on executor 'loop'" in refused(coroutine)
    ProcessExecutor(1).check(heavy.pid.options(timeout=3))
    assert name_of(heavy.pid).file == heavy.__file__


async def test_an_engine_refuses_tasks_for_which_it_has_no_place(memory: MemoryWorld) -> None:
    @task(executor="gpu")
    def train() -> str:
        return "trained"

    @task(executor="threads")
    async def misplaced() -> None: ...

    @task(executor="loop")
    def blocking() -> None: ...

    @workflow
    async def training() -> str:
        return await train()

    @workflow
    async def wrong() -> None:
        await misplaced()

    @workflow
    async def wrong_too() -> None:
        await blocking()

    with pytest.raises(DefinitionError, match=r"'train' is for executor 'gpu', and this engine has 'loop', 'threads'"):
        Engine(memory.data, workflows=[training])
    with pytest.raises(DefinitionError, match="it runs on executor 'loop', not in 'threads'"):
        Engine(memory.data, workflows=[wrong])
    with pytest.raises(DefinitionError, match="executor 'loop' is for `async def`"):
        Engine(memory.data, workflows=[wrong_too])
    with pytest.raises(HoldfastError, match="two executors are named 'threads'"):
        Engine(memory.data, executors=[ThreadExecutor(1)])
    with pytest.raises(HoldfastError, match="processes=0"):
        Engine(memory.data, processes=0)
    gpu = ThreadExecutor(1)
    gpu.name = "gpu"
    async with memory.engine(training, executors=[gpu]) as engine:
        run = await engine.start(training())
        assert await soon(run.result()) == "trained"
        assert [event.executor for event in await events_of(run) if isinstance(event, TaskStarted)] == ["gpu"]


async def test_a_task_for_no_place_that_is_made_while_it_runs_fails(memory: MemoryWorld) -> None:
    @task
    def train() -> str:
        return "trained"

    @workflow
    async def training(where: str) -> str:
        return await train.options(executor=where)()

    async with memory.engine(training) as engine:
        run = await engine.start(training("gpu"), id="gpu")
        with pytest.raises(RunFailedError, match="is for executor 'gpu'") as caught:
            await soon(run.result())
        assert isinstance(caught.value.__cause__, DefinitionError)
        await check_history(engine.store, "gpu", training)
        assert await soon((await engine.start(training("threads"))).result()) == "trained"


@pytest.mark.parametrize("name", ["", 7, ThreadExecutor])
def test_an_executor_is_a_name(name: Any) -> None:
    with pytest.raises(DefinitionError, match="executor is the name of one"):

        @task(executor=name)
        def train() -> None: ...


# -- in an engine -----------------------------------------------------------------------------------------------------


async def test_a_killed_process_is_an_attempt_that_failed(memory: MemoryWorld, tmp_path: Path) -> None:
    async with memory.engine(heavy.one_of, processes=1) as engine:
        run = await engine.start(heavy.one_of("killed_once", str(tmp_path)), id="r")
        number, details, type_, message = await soon(run.result())
        assert (number, details, type_) == (2, {"row": 7}, "engine.errors.WorkerProcessDied")
        assert "signal 9 (SIGKILL)" in message
        await check_history(engine.store, "r", heavy.one_of)


async def test_without_a_policy_it_fails_the_task(memory: MemoryWorld) -> None:
    async with memory.engine(heavy.one_of) as engine:
        run = await engine.start(heavy.one_of("die", "SIGKILL"))
        with pytest.raises(RunFailedError, match="SIGKILL") as caught:
            await soon(run.result())
        assert isinstance(caught.value.__cause__, WorkerProcessDied)


@pytest.mark.parametrize("kind", ["ConnectionError", "Unlisted"])
async def test_policies_see_the_types_that_were_raised(memory: MemoryWorld, kind: str) -> None:
    async with memory.engine(heavy.one_of) as engine:
        run = await engine.start(heavy.one_of("raises", kind))
        assert str(await soon(run.result())).endswith(kind)


@pytest.mark.parametrize(("kind", "type_"), [("Odd", heavy.Odd), ("TimeoutError", TimeoutError)])
async def test_and_workflows_see_those_that_come_back(memory: MemoryWorld, kind: str, type_: type[Exception]) -> None:
    async with memory.engine(heavy.one_of) as engine:
        run = await engine.start(heavy.one_of("raises", kind))
        with pytest.raises(RunFailedError):
            await soon(run.result())
        (failed,) = [item async for item in run.events() if isinstance(item.event, TaskFailed)]
        from engine.core.failures import decode_error, rebuild

        info = decode_error(failed.payload)
        assert "in raises\n" in info.traceback  # of the process, not of ours
        assert "processes.py" not in info.traceback
        assert type(rebuild(info, heavy.raises.raises)) is type_


async def test_a_result_of_another_type_is_final(memory: MemoryWorld) -> None:
    async with memory.engine(heavy.one_of) as engine:
        run = await engine.start(heavy.one_of("returns_nonsense"))
        with pytest.raises(RunFailedError, match="annotated int"):
            await soon(run.result())
        assert sum(isinstance(event, TaskStarted) for event in await events_of(run)) == 1


async def test_a_timeout_ends_the_process(memory: MemoryWorld, tmp_path: Path) -> None:
    async with memory.engine(heavy.one_of, processes=1) as engine:
        run = await engine.start(heavy.one_of("slow_once", str(tmp_path)), id="r")
        pid = int(await text_of(tmp_path / "inside"))
        memory.clock.advance(60)
        assert await soon(run.result()) != pid
        assert not alive(pid)
        await check_history(engine.store, "r", heavy.one_of)


async def test_so_does_silence(memory: MemoryWorld, tmp_path: Path) -> None:
    async with memory.engine(heavy.one_of, processes=1) as engine:
        run = await engine.start(heavy.one_of("silent_once", str(tmp_path)), id="r")
        pid = int(await text_of(tmp_path / "inside"))
        memory.clock.advance(61)
        assert await soon(run.result()) == ["one", "engine.errors.HeartbeatTimeout"]
        assert not alive(pid)
        await check_history(engine.store, "r", heavy.one_of)


async def test_work_hears_that_the_engine_closes(memory: MemoryWorld, tmp_path: Path) -> None:
    async with memory.engine(heavy.one_of, grace=0.5) as engine:
        await engine.start(heavy.one_of("stops_nicely", str(tmp_path)), id="r")
        pid = int(await text_of(tmp_path / "inside"))
    assert not alive(pid)
    async with memory.engine(heavy.one_of) as engine:
        assert await soon(engine.run("r").result()) == "went on from page 3"
        await check_history(engine.store, "r", heavy.one_of)


async def test_a_task_can_be_handed_out_from_there(memory: MemoryWorld, tmp_path: Path) -> None:
    async with memory.engine(heavy.one_of) as engine:
        run = await engine.start(heavy.one_of("ask_someone", str(tmp_path)), id="r")
        await engine.complete(await text_of(tmp_path / "token"), "seven", task=heavy.ask_someone)
        assert await soon(run.result()) == "seven"
        await check_history(engine.store, "r", heavy.one_of)


async def test_as_many_processes_as_slots(memory: MemoryWorld, tmp_path: Path) -> None:
    async with memory.engine(heavy.both, processes=2) as engine:
        run = await engine.start(heavy.both(str(tmp_path)))
        await text_of(tmp_path / "inside")
        (tmp_path / "go").touch()
        assert await soon(run.result()) == ["found", "found"]


async def test_a_cancelled_task_gives_its_process_up(memory: MemoryWorld, tmp_path: Path) -> None:
    async with memory.engine(heavy.one_of, processes=1) as engine:
        run = await engine.start(heavy.one_of("clean_up", str(tmp_path)), id="r")
        pid = int(await text_of(tmp_path / "inside"))
        await run.cancel()
        await until(lambda: not alive(pid))
        assert (tmp_path / "cleaned").exists()
        again = await engine.start(heavy.one_of("pid"), id="again")
        assert isinstance(await soon(again.result()), int)


def test_starting_up_is_no_silence() -> None:
    """While a process starts and imports, nobody expects heartbeats."""
    from engine.runtime.alarms import Alarms
    from engine.runtime.heartbeats import Pulse
    from tests.runtime.worlds import ManualClock

    async def check() -> None:
        clock = ManualClock()
        pulse = Pulse(clock, Alarms(clock), lambda _details: None)
        pulse.preparing = True
        clock.advance(100)
        assert pulse.silent_at(10) == clock.now() + 10_000_000
        clock.advance(5)
        pulse.begin()
        clock.advance(4)
        assert pulse.silent_at(10) == clock.now() + 6_000_000

    asyncio.run(check())


def test_importing_the_engine_loads_no_child() -> None:
    import subprocess

    code = "import sys, engine; print([m for m in ('engine.executors.child', 'engine.executors.visits', 'multiprocessing') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
