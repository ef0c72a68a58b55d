"""Cancel, terminate and shielded sections, in one run: who ends it, what it may still do, and what it cannot help."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, RunHandle, durable, task, workflow
from engine.errors import RunCancelledError, RunNotFound, RunTerminatedError
from tests.language.hands import becomes, gate, held, rests, tell, told
from tests.runtime.faulty import FaultyStore
from tests.runtime.invariants import check_history, check_store
from tests.runtime.worlds import MemoryWorld, World, events_of, kinds_of, settle, soon, until


async def ends(run: RunHandle[Any], error: type[Exception], *definitions: Any) -> Exception:
    with pytest.raises(error) as caught:
        await soon(run.result())
    await check_store(run._desk.store, *definitions)
    return caught.value


# -- cancel ---------------------------------------------------------------------------------------------------------------


@workflow
async def stubborn() -> str:
    for _ in range(3):
        try:
            await asyncio.sleep(1e6)
        except Exception as error:  # noqa: BLE001
            await tell(f"swallowed {error!r}")
    return "stayed"


async def test_a_cancel_is_not_swallowed_by_except_exception(world: World) -> None:
    async with world.engine(stubborn) as engine:
        run = await engine.start(stubborn(), id="a")
        await rests(engine, "a")
        await run.cancel(reason="enough")
        assert "enough" in str(await ends(run, RunCancelledError, stubborn))
        assert told == []


@workflow
async def obliging() -> str:
    try:
        await asyncio.sleep(1e6)
    except asyncio.CancelledError:
        return f"cancelled, {await tell('and well')}"
    return "slept"


async def test_a_workflow_that_catches_the_cancellation_itself_completes(world: World) -> None:
    async with world.engine(obliging) as engine:
        run = await engine.start(obliging(), id="a")
        await rests(engine, "a")
        await run.cancel()
        assert await soon(run.result()) == "cancelled, and well"
        await check_history(engine.store, "a", obliging)


@workflow
async def last_task() -> str:
    return await held("last")


async def test_a_cancel_behind_the_last_task_does_not_turn_success_into_cancellation(memory: MemoryWorld) -> None:
    """The cancel is in the mailbox before the step that ends the run is written, and was not seen by it."""
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[last_task], clock=memory.clock, grace=5.0) as engine:
        run = await engine.start(last_task(), id="a")
        await until(lambda: told == ["last began"])
        sent = False

        async def cancel_first(name: str, commit: Any) -> None:
            nonlocal sent
            ending = name == "commit" and any(b'"RunCompleted"' in event.header for event in commit.events)
            if ending and not sent:
                sent = True
                await memory_cancel(memory, "a")

        store.before = cancel_first
        gate("last").set()
        assert await soon(run.result()) == "last"
        assert sent
        kinds = await kinds_of(run)
        assert kinds[-1] == "RunCompleted"
        assert "RunCancelled" not in kinds
        await check_history(memory.data, "a", last_task)


async def memory_cancel(world: MemoryWorld, run_id: str) -> None:
    """From another process."""
    async with world.engine() as client:
        await client.run(run_id).cancel(reason="too late")


async def test_a_cancel_of_a_finished_run_leaves_it_as_it_is(world: World) -> None:
    async with world.engine(last_task) as engine:
        gate("last").set()
        run = await engine.start(last_task(), id="a")
        assert await soon(run.result()) == "last"
        await run.cancel()
        await run.terminate()
        await run.pause()
        assert await run.status() == "completed"
        with pytest.raises(RunNotFound):
            await engine.run("nobody").terminate()


@workflow
async def tidy() -> None:
    try:
        await asyncio.sleep(1e6)
    finally:
        await tell("first")
        await held("cleaning")
        await asyncio.sleep(60)
        await tell("last")


async def test_clean_up_may_take_time_and_tasks_and_survives_a_restart(world: World) -> None:
    async with world.engine(tidy, grace=0) as engine:
        run = await engine.start(tidy(), id="a")
        await rests(engine, "a")
        await run.cancel()
        await until(lambda: "cleaning began" in told)
    async with world.engine(tidy) as engine:
        await until(lambda: told.count("cleaning began") == 2)
        gate("cleaning").set()
        await rests(engine, "a")
        world.clock.advance(61)
        await ends(engine.run("a"), RunCancelledError, tidy)
        assert told.count("first") == told.count("last") == 1


async def test_a_second_cancel_cuts_the_clean_up_short(world: World) -> None:
    async with world.engine(tidy) as engine:
        run = await engine.start(tidy(), id="a")
        await rests(engine, "a")
        await run.cancel(reason="once")
        await until(lambda: "cleaning began" in told)
        await run.cancel(reason="twice")
        await ends(run, RunCancelledError, tidy)
        assert "last" not in told


async def test_two_cancels_before_the_run_begins_are_one_cancellation(world: World) -> None:
    async with world.engine(tidy, grace=0) as engine:
        run = await engine.start(tidy(), id="a")
        await rests(engine, "a")
    async with world.engine() as client:
        await client.run("a").cancel()
        await client.run("a").cancel()
    async with world.engine(tidy) as engine:
        run = engine.run("a")
        await ends(run, RunCancelledError, tidy)


# -- terminate ------------------------------------------------------------------------------------------------------------


@workflow
async def with_finally(how: str) -> None:
    try:
        match how:
            case "sleeping":
                await asyncio.sleep(1e6)
            case "running":
                await held("attempt")
            case "retrying":
                await hopeless()
            case _:
                async with durable.shielded():
                    await held("attempt")
    finally:
        await tell("finally")


@task(stop=stop_after_attempt(5), wait=wait_fixed(1_000))
async def hopeless() -> None:
    told.append("tried")
    raise ConnectionError


@pytest.mark.parametrize("how", ["sleeping", "running", "retrying", "shielded"])
async def test_terminate_runs_no_code_of_the_workflow(world: World, how: str) -> None:
    async with world.engine(with_finally) as engine:
        run = await engine.start(with_finally(how), id="a")
        if how in ("running", "shielded"):
            await until(lambda: told == ["attempt began"])
        else:
            await rests(engine, "a")
        await run.terminate(reason="no more", by="alice")
        assert "no more" in str(await ends(run, RunTerminatedError))
        assert await run.status() == "terminated"
        (last,) = [event for event in await events_of(run) if type(event).__name__ == "RunTerminated"]
        assert (last.by, last.reason) == ("alice", "no more")
        if how in ("running", "shielded"):
            await until(lambda: "attempt cut off" in told)
        await settle()
        assert "finally" not in told


async def test_terminate_while_it_cleans_up(world: World) -> None:
    async with world.engine(tidy) as engine:
        run = await engine.start(tidy(), id="a")
        await rests(engine, "a")
        await run.cancel()
        await until(lambda: "cleaning began" in told)
        await run.terminate()
        await ends(run, RunTerminatedError)
        await until(lambda: "cleaning cut off" in told)
        assert "last" not in told


async def test_terminate_while_nobody_is_there(world: World) -> None:
    async with world.engine(with_finally, grace=0) as engine:
        await engine.start(with_finally("running"), id="a")
        await until(lambda: told)
    async with world.engine() as client:
        await client.run("a").terminate(reason="from afar")
    async with world.engine(with_finally) as engine:
        await ends(engine.run("a"), RunTerminatedError)
        assert told.count("attempt began") == 1
        assert "finally" not in told


version = ["one"]


@workflow
async def changing() -> None:
    await asyncio.sleep(10 if version == ["one"] else 20)  # deterministic: it is to disagree with itself
    await tell("on")


async def test_terminate_of_a_suspended_run(world: World) -> None:
    version[:] = ["one"]
    async with world.engine(changing) as engine:
        await engine.start(changing(), id="a")
        await rests(engine, "a")
    version[:] = ["two"]
    world.clock.advance(11)
    async with world.engine(changing) as engine:
        run = engine.run("a")
        await becomes(run, "suspended")
        await run.terminate(reason="hopeless")
        await ends(run, RunTerminatedError)
        assert told == []


# -- shielded -------------------------------------------------------------------------------------------------------------


@workflow
async def careful(depth: int) -> None:
    try:
        async with durable.shielded():
            for _ in range(depth):
                async with durable.shielded():
                    await held("inner")
            await held("outer")
        await tell("behind the block")
        await asyncio.sleep(1e6)
    finally:
        await tell("finally")


@pytest.mark.parametrize("depth", [0, 1])
async def test_a_cancellation_waits_until_the_outermost_shield_is_left(world: World, depth: int) -> None:
    async with world.engine(careful) as engine:
        run = await engine.start(careful(depth), id="a")
        await until(lambda: told)
        await run.cancel(reason="waits")
        await until_recorded(run, "CancelRequested")
        for name in ["inner"] * depth + ["outer"]:
            await until(lambda name=name: f"{name} began" in told)
            await settle()
            assert f"{name} cut off" not in told
            gate(name).set()
        assert "waits" in str(await ends(run, RunCancelledError, careful))
        assert told[-2:] == ["outer done", "finally"]


async def test_a_shielded_section_survives_a_crash_with_the_cancellation_still_waiting(world: World) -> None:
    async with world.engine(careful, grace=0) as engine:
        run = await engine.start(careful(0), id="a")
        await until(lambda: told)
        await run.cancel()
        await until_recorded(run, "CancelRequested")
    told.clear()
    async with world.engine(careful) as engine:
        await until(lambda: told == ["outer began"])
        gate("outer").set()
        await ends(engine.run("a"), RunCancelledError, careful)
        assert told == ["outer began", "outer done", "finally"]


async def until_recorded(run: RunHandle[Any], kind: str) -> None:
    while kind not in await kinds_of(run):  # noqa: ASYNC110
        await asyncio.sleep(0.001)


@workflow
async def raising_inside() -> str:
    try:
        async with durable.shielded():
            await held("work")
            raise ValueError("inside")
    except ValueError:
        await tell("mended")
    await tell("not reached")
    return "over"


async def test_a_shielded_block_left_by_an_error_gives_way_to_the_cancellation(world: World) -> None:
    """Both want out. The error is on its way; the cancellation comes at the next wait behind the block."""
    async with world.engine(raising_inside) as engine:
        run = await engine.start(raising_inside(), id="a")
        await until(lambda: told)
        await run.cancel()
        await until_recorded(run, "CancelRequested")
        gate("work").set()
        await ends(run, RunCancelledError, raising_inside)
        assert "not reached" not in told


@workflow
async def shielded_to_the_end() -> str:
    async with durable.shielded():
        return await held("work")


async def test_a_cancellation_that_waited_takes_effect_also_when_the_block_is_left_by_a_return(world: World) -> None:
    async with world.engine(shielded_to_the_end) as engine:
        run = await engine.start(shielded_to_the_end(), id="a")
        await until(lambda: told)
        await run.cancel()
        await until_recorded(run, "CancelRequested")
        gate("work").set()
        await ends(run, RunCancelledError, shielded_to_the_end)
        assert told == ["work began", "work done"]


@workflow
async def block_after_block() -> None:
    for name in ("one", "two"):
        async with durable.shielded():
            await held(name)


async def test_a_cancellation_comes_between_two_blocks_and_nothing_of_the_second_happens(world: World) -> None:
    async with world.engine(block_after_block) as engine:
        run = await engine.start(block_after_block(), id="a")
        await until(lambda: told)
        await run.cancel()
        await until_recorded(run, "CancelRequested")
        gate("one").set()
        await ends(run, RunCancelledError, block_after_block)
        assert told == ["one began", "one done"]


@workflow
async def timed_inside() -> str:
    try:
        async with durable.shielded():
            async with asyncio.timeout(10):
                await asyncio.sleep(1e6)
    except TimeoutError:
        return "timeout"
    return "slept"


async def test_a_shield_is_against_the_runs_cancellation_alone(world: World) -> None:
    async with world.engine(timed_inside) as engine:
        run = await engine.start(timed_inside(), id="a")
        await rests(engine, "a")
        world.clock.advance(11)
        assert await soon(run.result()) == "timeout"


@workflow
async def shielding_branch() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_shielded_branch())
        group.create_task(_open_branch())


async def _shielded_branch() -> None:
    async with durable.shielded():
        await held("shielded")


async def _open_branch() -> None:
    await asyncio.sleep(1e6)


async def test_a_shield_in_any_branch_holds_the_cancellation_of_the_run(world: World) -> None:
    async with world.engine(shielding_branch) as engine:
        run = await engine.start(shielding_branch(), id="a")
        await until(lambda: told)
        await run.cancel()
        await until_recorded(run, "CancelRequested")
        await settle()
        assert told == ["shielded began"]
        gate("shielded").set()
        await ends(run, RunCancelledError, shielding_branch)
        assert told == ["shielded began", "shielded done"]
