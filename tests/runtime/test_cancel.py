"""Cancelling: whatever the run is doing, it ends; what it does on the way out is as durable as the rest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, RunHandle, task, workflow
from engine.core.events import CancelRequested
from engine.errors import HoldfastError, RunCancelledError, RunFailedError, RunTerminatedError, TaskError
from eventstore import Message
from tests.runtime.invariants import check_history
from tests.runtime.worlds import MemoryWorld, World, at_rest, events_of, kinds_of, settle, soon, until, until_async

told: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    told.clear()


@task
async def tell(what: str) -> str:
    told.append(what)
    return what


@task
async def endless() -> None:
    told.append("begun")
    try:
        await asyncio.Event().wait()
    finally:
        told.append("ended")


@task(stop=stop_after_attempt(9), wait=wait_fixed(1_000))
async def failing() -> None:
    told.append("tried")
    raise ConnectionError


@workflow
async def busy() -> None:
    await endless()


@workflow
async def sleeping() -> None:
    await asyncio.sleep(1e9)


@workflow
async def retrying() -> None:
    await failing()


async def ends_cancelled(run: RunHandle[Any], definition: Any, engine: Engine) -> RunCancelledError:
    with pytest.raises(RunCancelledError) as caught:
        await soon(run.result())
    assert await run.status() == "cancelled"
    state = await run.state()
    assert state.ended
    assert state.cancel_requested
    await check_history(engine.store, run.id, definition)
    return caught.value


async def retry_waits(run: RunHandle[Any]) -> bool:
    return any(found.status == "retrying" for found in (await run.state()).tasks.values())


async def test_a_running_run(world: World) -> None:
    async with world.engine(busy) as engine:
        run = await engine.start(busy(), id="a")
        await until(lambda: told == ["begun"])
        await run.cancel(reason="enough of it", by="alice")
        error = await ends_cancelled(run, busy, engine)
        assert error.run_id == "a"
        assert "enough of it" in str(error)
        await until(lambda: told == ["begun", "ended"])
        (asked,) = [event for event in await events_of(run) if isinstance(event, CancelRequested)]
        assert (asked.by, asked.reason) == ("alice", "enough of it")
        assert (await run.state()).reason == "enough of it"


async def test_everybody_hears_the_same_reason(world: World) -> None:
    async with world.engine(busy) as engine, world.engine() as client:
        run = await engine.start(busy(), id="a")
        waiting = [asyncio.create_task(handle.result()) for handle in (run, engine.run("a"), client.run("a"))]
        await until(lambda: told)
        await client.run("a").cancel(reason="told from afar")
        errors = await soon(asyncio.gather(*waiting, return_exceptions=True))
        errors += await asyncio.gather(run.result(), client.run("a").result(), return_exceptions=True)
        assert {(type(error), str(error)) for error in errors} == {
            (RunCancelledError, "run 'a' was cancelled: told from afar")
        }


async def test_a_sleeping_run(world: World) -> None:
    async with world.engine(sleeping) as engine:
        run = await engine.start(sleeping(), id="a")
        await at_rest(engine.store, "a")
        await run.cancel()
        await ends_cancelled(run, sleeping, engine)
        assert (await engine.store.head("run:a")).alarm is None


async def test_a_sleeping_run_that_left_the_cache(world: World) -> None:
    async with world.engine(sleeping, cached=0) as engine:
        run = await engine.start(sleeping(), id="a")
        await at_rest(engine.store, "a")
        await run.cancel()
        await ends_cancelled(run, sleeping, engine)


async def test_while_nobody_is_there(world: World) -> None:
    async with world.engine(busy, sleeping, grace=0) as engine:
        await engine.start(busy(), id="a")
        await engine.start(sleeping(), id="b")
        await until(lambda: told)
    async with world.engine() as client:
        for run_id in "ab":
            await client.run(run_id).cancel(reason="from afar")
        assert await client.run("a").status() == "running"
    async with world.engine(busy, sleeping) as engine:
        await ends_cancelled(engine.run("a"), busy, engine)
        await ends_cancelled(engine.run("b"), sleeping, engine)
        assert told.count("begun") <= 2


async def test_before_it_was_begun(world: World) -> None:
    """Recorded, but no worker had room for it yet."""
    async with world.engine(busy, runs=1, grace=0) as engine:
        first = await engine.start(busy(), id="first")
        await until(lambda: told)
        second = await engine.start(busy(), id="second")
        await second.cancel()
        await first.cancel()
        await ends_cancelled(first, busy, engine)
        await ends_cancelled(second, busy, engine)
        assert told.count("begun") == 1 or "TaskStarted" in await kinds_of(second)


async def test_while_it_waits_for_a_retry(world: World) -> None:
    async with world.engine(retrying) as engine:
        run = await engine.start(retrying(), id="a")
        await until_async(lambda: retry_waits(run))
        await run.cancel()
        await ends_cancelled(run, retrying, engine)
        world.clock.advance(10_000)
        await settle()
        assert told == ["tried"]


async def test_while_it_waits_for_a_retry_at_rest(world: World) -> None:
    async with world.engine(retrying) as engine:
        run = await engine.start(retrying(), id="a")
        await until_async(lambda: retry_waits(run))
        await at_rest(engine.store, "a")
        await run.cancel()
        await ends_cancelled(run, retrying, engine)


async def test_while_its_task_waits_for_a_slot(world: World) -> None:
    async with world.engine(busy, concurrency=1, grace=0) as engine:
        await engine.start(busy(), id="holder")
        await until(lambda: told == ["begun"])
        run = await engine.start(busy(), id="a")
        await settle()
        await run.cancel()
        await ends_cancelled(run, busy, engine)
        assert told == ["begun"]
        assert "TaskStarted" not in await kinds_of(run)


async def test_a_finished_run_is_left_as_it_is(world: World) -> None:
    @workflow
    async def quick() -> str:
        return await tell("done")

    async with world.engine(quick) as engine:
        run = await engine.start(quick(), id="a")
        assert await soon(run.result()) == "done"
        before = await engine.store.head("run:a")
        await run.cancel()
        await engine.run("a").cancel(reason="again")
        await settle(100)
        assert await soon(run.result()) == "done"
        assert (await engine.store.head("run:a")).version == before.version
        assert await run.status() == "completed"


async def test_a_run_that_finishes_just_then(world: World) -> None:
    """The request reaches a run that has ended meanwhile: it is taken out of the box, and nothing comes of it."""

    @workflow
    async def quick() -> str:
        return await tell("done")

    async with world.engine(quick) as engine:
        run = await engine.start(quick(), id="a")
        assert await soon(run.result()) == "done"
        await engine.store.send(Message(id="m1", stream="run:a", header=b'{"type":"cancel"}', control=True))

        async def consumed() -> bool:
            return not (await engine.store.head("run:a")).messages

        await until_async(consumed)
        assert await run.status() == "completed"
        await check_history(engine.store, "a", quick)


async def test_cleaning_up_is_durable(world: World) -> None:
    @workflow
    async def tidy() -> None:
        try:
            await endless()
        finally:
            await tell("first")
            await asyncio.sleep(1_000)
            await asyncio.gather(tell("second"), tell("third"))

    async with world.engine(tidy, grace=0) as engine:
        run = await engine.start(tidy(), id="a")
        await until(lambda: told == ["begun"])
        await run.cancel()
        await until(lambda: "first" in told)
        await at_rest(engine.store, "a")
        assert await run.status() == "running"
    world.clock.advance(1_000)
    async with world.engine(tidy) as engine:
        run = engine.run("a")
        await ends_cancelled(run, tidy, engine)
    assert sorted(told) == ["begun", "ended", "first", "second", "third"]


async def test_a_workflow_may_refuse(world: World) -> None:
    @workflow
    async def stubborn() -> str:
        try:
            await endless()
        except asyncio.CancelledError:
            return await tell("no")
        return "ended"

    async with world.engine(stubborn) as engine:
        run = await engine.start(stubborn(), id="a")
        await until(lambda: told)
        await run.cancel()
        assert await soon(run.result()) == "no"
        assert await run.status() == "completed"
        await check_history(engine.store, "a", stubborn)


async def test_a_workflow_may_fail_on_its_way_out(world: World) -> None:
    @workflow
    async def clumsy() -> None:
        try:
            await endless()
        finally:
            raise ZeroDivisionError("while cleaning up")

    async with world.engine(clumsy) as engine:
        run = await engine.start(clumsy(), id="a")
        await until(lambda: told)
        await run.cancel()
        with pytest.raises(RunFailedError, match="while cleaning up"):
            await soon(run.result())
        await check_history(engine.store, "a", clumsy)


async def test_asked_twice(world: World) -> None:
    """As with asyncio's tasks: the second request interrupts what the first one led to; the run has ended after both."""

    @workflow
    async def tidy() -> None:
        try:
            await endless()
        finally:
            await asyncio.sleep(1_000)
            await tell("cleaned")

    async with world.engine(tidy) as engine:
        run = await engine.start(tidy(), id="a")
        await until(lambda: told)
        await asyncio.gather(run.cancel(reason="one"), engine.run("a").cancel(reason="two"))
        world.clock.advance(2_000)
        await settle()
        world.clock.advance(2_000)
        await ends_cancelled(run, tidy, engine)
        await run.cancel()
        assert await run.status() == "cancelled"


async def test_asked_a_hundred_times(memory: MemoryWorld) -> None:
    async with memory.engine(busy) as engine:
        run = await engine.start(busy(), id="a")
        await until(lambda: told)
        await asyncio.gather(*(run.cancel(reason=str(n)) for n in range(100)))
        await ends_cancelled(run, busy, engine)

        async def consumed() -> bool:
            return not (await engine.store.head("run:a")).messages

        await until_async(consumed)


async def test_in_the_first_moment(world: World) -> None:
    """Right behind the start, at every point."""
    async with world.engine(busy) as engine:
        for steps in range(8):
            run = await engine.start(busy(), id=f"run-{steps}")
            await settle(steps)
            await run.cancel()
            await ends_cancelled(run, busy, engine)
    assert told.count("begun") == told.count("ended")


# -- tasks whose await lasts until they have ended --------------------------------------------------------------------


def careful(where: str) -> Any:
    """A workflow whose task is not to be abandoned, cancelled at a place of its life."""

    @task(on_cancel="wait", stop=stop_after_attempt(3), wait=wait_fixed(1_000))
    async def charge() -> str:
        told.append("charging")
        if where == "retry":
            raise ConnectionError
        try:
            await asyncio.Event().wait()
        finally:
            told.append("ended")
        return "charged"

    @workflow
    async def charging() -> str:
        try:
            async with asyncio.timeout(100):
                await charge()
        except (TimeoutError, ConnectionError, TaskError, HoldfastError) as error:
            return await tell(f"not charged: {type(error).__name__}")
        return "charged"

    return charging


@pytest.mark.parametrize("where", ["running", "retry", "slot"])
@pytest.mark.parametrize("restart", [False, True], ids=["", "restart"])
async def test_a_task_that_is_waited_for_always_ends(world: World, where: str, restart: bool) -> None:
    charging = careful(where)
    async with world.engine(charging, busy, concurrency=1, grace=0) as engine:
        if where == "slot":
            await engine.start(busy(), id="holder")
            await until(lambda: told == ["begun"])
        run = await engine.start(charging(), id="a")
        if where == "running":
            await until(lambda: "charging" in told)
        elif where == "retry":
            await until_async(lambda: retry_waits(run))
            await at_rest(engine.store, "a")
        else:
            await settle(100)
        if not restart:
            world.clock.advance(100)
            if where == "slot":
                await settle(50)
                await engine.run("holder").cancel()
            assert (await soon(run.result(), seconds=8)).startswith("not charged")
            await check_history(engine.store, "a", charging)
    if restart:
        world.clock.advance(100)  # the timeout fell due while nobody was there
        async with world.engine(charging) as engine:
            assert (await soon(engine.run("a").result(), seconds=8)).startswith("not charged")
            await check_history(engine.store, "a", charging)


async def test_a_crash_between_the_wish_and_the_end_of_a_task_that_is_waited_for(world: World) -> None:
    """TaskCancelled is recorded, the attempt has not ended, the engine dies: it still ends."""
    stuck = asyncio.Event()

    @task(on_cancel="wait")
    async def charge() -> str:
        told.append("charging")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await stuck.wait()
            raise
        return "charged"

    @workflow
    async def charging() -> str:
        try:
            async with asyncio.timeout(100):
                await charge()
        except (TimeoutError, TaskError) as error:
            return f"not charged: {type(error).__name__}"
        return "charged"

    async with world.engine(charging, grace=0) as engine:
        run = await engine.start(charging(), id="a")
        await until(lambda: told)
        world.clock.advance(100)

        async def wished() -> bool:
            return "TaskCancelled" in await kinds_of(run)

        await until_async(wished)
        store = engine.store
        await check_history(store, "a", charging)
        stuck.set()
    async with world.engine(charging) as engine:
        run = engine.run("a")
        stuck.set()
        assert (await soon(run.result(), seconds=8)).startswith("not charged")
        await check_history(engine.store, "a", charging)


async def test_a_suspended_run_is_terminated(world: World) -> None:
    @task(name="tell")
    async def other_tell(what: str) -> str:
        return what

    @workflow(name="changing")
    async def old() -> str:
        await tell("old")
        await asyncio.sleep(1_000)
        return "old"

    @workflow(name="changing")
    async def new() -> str:
        return await other_tell("new")

    async with world.engine(old) as engine:
        await engine.start(old(), id="a")
        await at_rest(engine.store, "a")
    world.clock.advance(1_000)
    async with world.engine(new) as engine:
        run = engine.run("a")
        waiting = asyncio.create_task(run.result())
        await until_async(lambda: _has_status(run, "suspended"))
        await asyncio.gather(waiting, return_exceptions=True)
        await run.cancel(reason="no way on", by="bob")
        await until_async(lambda: _has_status(run, "terminated"))
        with pytest.raises(RunTerminatedError, match="no way on"):
            await soon(run.result())
        state = await run.state()
        assert (state.status, state.reason) == ("terminated", "no way on")
        assert (await events_of(run))[-1].by == "bob"
        await check_history(engine.store, "a")


async def _has_status(run: RunHandle[Any], status: str) -> bool:
    return await run.status() == status


async def test_mail_of_a_newer_version_harms_nobody(memory: MemoryWorld) -> None:
    """A control message that this version does not know stays in the box; nobody spins on it, the run goes on."""
    async with memory.engine(sleeping, busy) as engine:
        run = await engine.start(sleeping(), id="a")
        await at_rest(memory.data, "a")
        await memory.data.send(Message(id="m1", stream="run:a", header=b'{"type":"hologram"}', control=True))
        await settle(100)
        claims = (await memory.data.head("run:a")).claims
        await settle(400)
        assert (await memory.data.head("run:a")).claims - claims <= 1
        await run.cancel()
        await ends_cancelled(run, sleeping, engine)


@workflow
async def napping() -> str:
    await asyncio.sleep(100)
    return await tell("slept")


@workflow
async def calling(parent_close: Any) -> str:
    """Calls a child by an id that is somebody's already, and gives it up before it hears of that."""
    child = asyncio.create_task(napping.options(id="a", parent_close=parent_close, on_cancel="abandon")())
    await tell("called")
    child.cancel()
    await asyncio.wait([child])
    return "given up"


async def is_paused(run: RunHandle[Any]) -> bool:
    return await run.status() == "paused"


@pytest.mark.parametrize("parent_close", ["cancel", "terminate"])
@pytest.mark.parametrize("live", [False, True], ids=["at rest", "live"])
async def test_a_stranger_is_not_told_what_a_child_is(world: World, parent_close: str, live: bool) -> None:
    """That the id belongs to a stranger is known when the stranger has had its mail: not while it is paused."""
    gate = asyncio.Event()

    @task
    async def hold() -> str:
        told.append("begun")
        await gate.wait()
        return "held"

    @workflow
    async def holding() -> str:
        return await hold()

    async with world.engine(calling, napping, holding) as engine:
        run: RunHandle[str] = await engine.start(holding() if live else napping(), id="a")
        if live:
            await until(lambda: told == ["begun"])
        await run.pause()
        await until_async(lambda: is_paused(run))
        caller = await engine.start(calling(parent_close), id="caller")
        assert await soon(caller.result()) == "given up"
        await until_async(lambda: no_control_mail(engine, "a"))
        assert await run.status() == "paused"
        gate.set()
        await run.unpause()
        world.clock.advance(100)
        assert await soon(run.result()) == ("held" if live else "slept")
        await check_history(engine.store, "a", holding if live else napping)
        await check_history(engine.store, "caller", calling)


async def no_control_mail(engine: Engine, run_id: str) -> bool:
    return not any(message.control for message in (await engine.store.head(f"run:{run_id}")).messages)
