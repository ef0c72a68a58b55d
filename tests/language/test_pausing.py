"""Pauses: of a run and of a workflow by its name. Nothing begins; what is under way ends; what arrives is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, Request, RunHandle, Signal, State, task, workflow
from engine.errors import RunCancelledError, RunEnded, RunTerminatedError
from engine.runtime.histories import read_state
from engine.runtime.published import read_published
from eventstore.port import FIND_LIMIT_MAX, MAILBOX_PAGE
from tests.language.hands import becomes, gate, held, rests, tell, told
from tests.runtime.faulty import FaultyStore
from tests.runtime.invariants import check_store
from tests.runtime.worlds import MemoryWorld, World, events_of, kinds_of, settle, soon, unowned, until, until_async

word = Signal("word", str)
unserved = Request("unserved", int, int)


@workflow
async def two_steps() -> str:
    await held("one")
    await tell("two")
    return "over"


@workflow
async def asleep() -> str:
    await asyncio.sleep(10)
    await tell("woke")
    return "slept"


@workflow
async def listening() -> list[str]:
    return [await word.receive(), await word.receive()]


@task(stop=stop_after_attempt(9), wait=wait_fixed(10))
async def failing() -> str:
    told.append("tried")
    if told.count("tried") < 2:
        raise ConnectionError
    return "done"


@workflow
async def retrying() -> str:
    return await failing()


@workflow
async def below(name: str) -> str:
    return await held(name)


@workflow
async def above() -> str:
    return await below("child")


@workflow
async def tidy() -> None:
    try:
        await asyncio.sleep(1e6)
    finally:
        await tell("cleaned up")


async def paused(run: RunHandle[Any]) -> None:
    await run.pause(reason="wait", by="alice")
    await becomes(run, "paused")


async def test_an_attempt_under_way_is_recorded_and_nothing_follows_it(world: World) -> None:
    async with world.engine(two_steps) as engine:
        run = await engine.start(two_steps(), id="a")
        await until(lambda: told == ["one began"])
        await paused(run)
        gate("one").set()

        async def recorded() -> bool:
            return "TaskCompleted" in await kinds_of(run)

        await until_async(recorded)
        await unowned(engine.store, "a")
        assert told == ["one began", "one done"]
        assert await run.status() == "paused"
        (note,) = [event for event in await events_of(run) if type(event).__name__ == "RunPaused"]
        assert (note.by, note.reason) == ("alice", "wait")
        await run.unpause(by="bob")
        assert await soon(run.result()) == "over"
        assert told == ["one began", "one done", "two"]
        await check_store(engine.store, two_steps)


async def test_a_timer_that_falls_due_waits(world: World) -> None:
    async with world.engine(asleep) as engine:
        run = await engine.start(asleep(), id="a")
        await rests(engine, "a")
        await paused(run)
        await rests(engine, "a")
        world.clock.advance(1_000)
        await settle()
        assert (told, await run.status()) == ([], "paused")
        await run.unpause()
        assert await soon(run.result()) == "slept"
        await check_store(engine.store, asleep)


async def test_a_retry_that_falls_due_waits(world: World) -> None:
    async with world.engine(retrying) as engine:
        run = await engine.start(retrying(), id="a")
        await until(lambda: told == ["tried"])
        await rests(engine, "a")
        await paused(run)
        world.clock.advance(1_000)
        await settle()
        assert told == ["tried"]
        await run.unpause()
        assert await soon(run.result()) == "done"
        await check_store(engine.store, retrying)


async def test_signals_are_kept_and_delivered_afterwards_in_order(world: World) -> None:
    async with world.engine(listening) as engine:
        run = await engine.start(listening(), id="a")
        await paused(run)
        await run.signal(word, "one")
        await run.signal(word, "two")
        await settle()
        assert "SignalReceived" not in await kinds_of(run)
        await run.unpause()
        assert await soon(run.result()) == ["one", "two"]
        await check_store(engine.store, listening)


async def test_a_childs_result_is_kept_and_children_go_on(world: World) -> None:
    async with world.engine(above) as engine:
        run = await engine.start(above(), id="p")
        await until(lambda: told == ["child began"])
        await paused(run)
        gate("child").set()
        await becomes(engine.run("p/below#1"), "completed")
        assert await run.status() == "paused"
        await run.unpause()
        assert await soon(run.result()) == "child"
        await check_store(engine.store, above, below)


async def test_a_pause_survives_a_restart(world: World) -> None:
    async with world.engine(asleep, grace=0) as engine:
        run = await engine.start(asleep(), id="a")
        await rests(engine, "a")
        await paused(run)
    world.clock.advance(1_000)
    async with world.engine(asleep) as engine:
        run = engine.run("a")
        await settle()
        assert (told, await run.status()) == ([], "paused")
        await run.unpause()
        assert await soon(run.result()) == "slept"
        await check_store(engine.store, asleep)


async def test_an_attempt_that_a_crash_cut_off_begins_again_only_after_the_pause(world: World) -> None:
    async with world.engine(two_steps, grace=0) as engine:
        run = await engine.start(two_steps(), id="a")
        await until(lambda: told == ["one began"])
        await paused(run)
    told.clear()
    async with world.engine(two_steps) as engine:
        run = engine.run("a")
        await settle()
        assert told == []
        await run.unpause()
        await until(lambda: told == ["one began"])
        gate("one").set()
        assert await soon(run.result()) == "over"
        await check_store(engine.store, two_steps)


async def test_pausing_twice_and_unpausing_what_is_not_paused_change_nothing(world: World) -> None:
    async with world.engine(asleep) as engine:
        run = await engine.start(asleep(), id="a")
        await run.unpause()
        await paused(run)
        await run.pause()
        await rests(engine, "a")
        await run.unpause()
        await becomes(run, "running")
        await run.unpause()
        await rests(engine, "a")
        kinds = await kinds_of(run)
        assert (kinds.count("RunPaused"), kinds.count("RunUnpaused")) == (1, 1)
        world.clock.advance(11)
        assert await soon(run.result()) == "slept"
        await check_store(engine.store, asleep)


@pytest.mark.parametrize("times", [1, 2])
async def test_pause_and_unpause_that_arrive_together(times: int, world: World) -> None:
    async with world.engine(asleep) as engine:
        await engine.start(asleep(), id="a")
        await rests(engine, "a")
    async with world.engine() as client:
        for _ in range(times):
            await client.run("a").pause()
            await client.run("a").unpause()
    world.clock.advance(11)
    async with world.engine(asleep) as engine:
        assert await soon(engine.run("a").result()) == "slept"
        await check_store(engine.store, asleep)


async def test_of_unpause_and_pause_that_arrive_together_the_last_counts(world: World) -> None:
    async with world.engine(asleep) as engine:
        run = await engine.start(asleep(), id="a")
        await rests(engine, "a")
        await paused(run)
    async with world.engine() as client:
        await client.run("a").unpause()
        await client.run("a").pause()
    world.clock.advance(11)
    async with world.engine(asleep) as engine:
        run = engine.run("a")
        await until_recorded(run)
        await unowned(engine.store, "a")
        assert (told, await run.status()) == ([], "paused")
        await run.unpause()
        assert await soon(run.result()) == "slept"
        await check_store(engine.store, asleep)


async def until_recorded(run: RunHandle[Any]) -> None:
    while (await kinds_of(run)).count("RunPaused") < 2:
        await asyncio.sleep(0.001)


async def test_a_paused_run_can_be_cancelled_and_cleans_up(world: World) -> None:
    async with world.engine(tidy) as engine:
        run = await engine.start(tidy(), id="a")
        await rests(engine, "a")
        await paused(run)
        await run.cancel(reason="after all")
        with pytest.raises(RunCancelledError, match="after all"):
            await soon(run.result())
        assert told == ["cleaned up"]
        await check_store(engine.store, tidy)


async def test_a_paused_run_can_be_terminated(world: World) -> None:
    async with world.engine(tidy, two_steps) as engine:
        run = await engine.start(tidy(), id="a")
        busy = await engine.start(two_steps(), id="b")
        await until(lambda: told == ["one began"])
        for each in (run, busy):
            await paused(each)
            await each.terminate(reason="after all")
            with pytest.raises(RunTerminatedError, match="after all"):
                await soon(each.result())
        await until(lambda: "one cut off" in told)
        assert "cleaned up" not in told
        await check_store(engine.store, tidy, two_steps)


version = ["one"]


@workflow
async def changing() -> str:
    await asyncio.sleep(10 if version == ["one"] else 20)  # deterministic: it is to disagree with itself
    return "over"


async def test_a_suspended_run_stays_suspended_when_it_is_paused(world: World) -> None:
    version[:] = ["one"]
    async with world.engine(changing) as engine:
        await engine.start(changing(), id="a")
        await rests(engine, "a")
    version[:] = ["two"]
    async with world.engine(changing) as engine:
        run = engine.run("a")
        world.clock.advance(11)
        await becomes(run, "suspended")
        await run.pause()
        await settle()
        await unowned(engine.store, "a")
        assert await run.status() in ("suspended", "paused")
        version[:] = ["one"]
        await run.unpause()
        await run.resume()
        assert await soon(run.result()) == "over"


phase = State("phase", str, initial="none")


@workflow
async def publishing() -> str:
    await phase.publish("one")
    await phase.publish("two")
    said = await word.receive()
    await phase.publish("three")
    await phase.publish("four")
    await word.receive()
    return said


async def test_what_holds_since_an_event_is_written_with_that_event(
    memory: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step in chunks of one event each: a crash behind any of them finds the stream marked as the history says."""
    monkeypatch.setattr("engine.runtime.writing.COMMIT_EVENTS_MAX", 1)
    looks: list[tuple[Any, Any]] = []  # how the stream is marked, and how it should be

    async def look(name: str, commit: Any) -> None:
        if name == "commit" and commit.stream == "run:a":
            head = await memory.data.head("run:a")
            state = await read_state(memory.data, "a")
            published = phase.codec.decode(state.states[phase.name] or b"") if state.states else None
            marked = await read_published(memory.data, head, phase) if state.states else None
            looks.append(
                ((head.held, head.attributes["status"], marked), (state.status == "paused", state.status, published))
            )

    store = FaultyStore(memory.data)
    store.after = look
    async with Engine(store, workflows=[publishing], clock=memory.clock) as engine:
        run = await engine.start(publishing(), id="a")
        await rests(engine, "a")
    async with memory.engine() as client:  # all of it is there when somebody next has the run
        run = client.run("a")
        await run.signal(word, "said")
        for _ in range(3):
            await run.pause()
            await run.unpause()
        await run.pause()
    async with Engine(store, workflows=[publishing], clock=memory.clock) as engine:
        run = engine.run("a")
        await rests(engine, "a")
        assert await run.status() == "paused"
        assert await run.read(phase) == "four"
        await run.unpause()
        await run.signal(word, "over")
        assert await soon(run.result()) == "said"
        assert len(looks) > 15
        for marked, recorded in looks:
            assert marked == recorded
        await check_store(memory.data, publishing)


# -- workflows ------------------------------------------------------------------------------------------------------------


async def test_runs_of_a_paused_workflow_are_recorded_and_wait(world: World) -> None:
    async with world.engine(asleep, two_steps) as engine:
        await engine.pause_workflow(two_steps, reason="holidays", by="alice")
        run = await engine.start(two_steps(), id="a")
        other = await engine.start(asleep(), id="b")
        await rests(engine, "b")
        world.clock.advance(11)
        assert await soon(other.result()) == "slept"
        assert told == ["woke"]
        gate("one").set()
        await engine.unpause_workflow("two_steps", by="bob")
        assert await soon(run.result()) == "over"
        await check_store(engine.store, asleep, two_steps)


async def test_running_runs_of_a_paused_workflow_begin_nothing_more(world: World) -> None:
    async with world.engine(two_steps) as engine:
        run = await engine.start(two_steps(), id="a")
        await until(lambda: told == ["one began"])
        await engine.pause_workflow("two_steps")
        gate("one").set()
        await until(lambda: "one done" in told)
        await unowned(engine.store, "a")
        assert told == ["one began", "one done"]
        await engine.unpause_workflow(two_steps)
        assert await soon(run.result()) == "over"
        await check_store(engine.store, two_steps)


async def test_a_workflow_that_is_paused_elsewhere_pauses_here(world: World) -> None:
    async with world.engine(two_steps) as engine, world.engine() as client:
        run = await engine.start(two_steps(), id="a")
        await until(lambda: told == ["one began"])
        await client.pause_workflow("two_steps")

        async def seen() -> bool:
            world.clock.advance(1)
            return "two_steps" in engine._worker.paused  # type: ignore[union-attr]

        await until_async(seen)
        gate("one").set()
        await until(lambda: "one done" in told)
        await unowned(engine.store, "a")
        assert "two" not in told
        await client.unpause_workflow("two_steps")
        result = asyncio.ensure_future(run.result())
        while not result.done():
            world.clock.advance(1)
            await asyncio.sleep(0.005)
        assert await result == "over"
        await check_store(engine.store, two_steps)


async def test_more_paused_workflows_than_a_page_of_them(memory: MemoryWorld) -> None:
    """Newest first: the one that was paused before all others is on the second page, and is paused all the same."""
    async with memory.engine(two_steps) as engine:
        await engine.pause_workflow("two_steps")
        for n in range(FIND_LIMIT_MAX):
            await engine.pause_workflow(f"other-{n}")
        assert len({each.name for each in await engine.paused_workflows()}) == FIND_LIMIT_MAX + 1
        run = await engine.start(two_steps(), id="a")
        await unowned(engine.store, "a")
        assert not told
        await engine.unpause_workflow(two_steps)
        gate("one").set()
        assert await soon(run.result()) == "over"


async def test_a_paused_workflow_stays_so_over_a_restart(world: World) -> None:
    async with world.engine(asleep) as engine:
        await engine.start(asleep(), id="a")
        await rests(engine, "a")
        await engine.pause_workflow(asleep)
    world.clock.advance(1_000)
    async with world.engine(asleep) as engine:
        await engine.start(asleep(), id="b")
        await settle()
        assert told == []
        await engine.unpause_workflow(asleep)
        assert await soon(engine.run("a").result()) == "slept"
        await until_async(lambda: sleeps(engine.run("b")))  # its time begins when it does
        world.clock.advance(1_000)
        assert await soon(engine.run("b").result()) == "slept"
        await check_store(engine.store, asleep)


async def sleeps(run: RunHandle[Any]) -> bool:
    return "TimerStarted" in await kinds_of(run)


async def test_a_paused_workflow_costs_no_busy_claims(memory: MemoryWorld) -> None:
    """Work that may not begin is not asked for again and again."""
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[asleep, two_steps], clock=memory.clock) as engine:
        await engine.pause_workflow(asleep)
        for index in range(20):
            await engine.start(asleep(), id=f"a{index}")
        run = await engine.start(two_steps(), id="busy")
        await until(lambda: told == ["one began"])
        await settle(500)
        before = len(store.calls)
        await settle(5_000)
        assert len(store.calls) - before < 20, store.calls[before:]
        await engine.unpause_workflow(asleep)
        gate("one").set()
        assert await soon(run.result()) == "over"


async def test_a_paused_run_costs_no_busy_claims(memory: MemoryWorld) -> None:
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[listening], clock=memory.clock) as engine:
        run = await engine.start(listening(), id="a")
        await paused(run)
        for value in ("one", "two"):
            await run.signal(word, value)
        await rests_unclaimed(engine)
        await settle(500)
        before = len(store.calls)
        await settle(5_000)
        assert len(store.calls) - before < 20, store.calls[before:]
        await run.unpause()
        assert await soon(run.result()) == ["one", "two"]


@pytest.mark.parametrize("by_name", [True, False])
async def test_a_paused_run_with_a_request_that_it_does_not_serve_writes_nothing(
    by_name: bool, memory: MemoryWorld
) -> None:
    """It stays in memory, for its mail stays in the box; that is no reason to try again and again to give it up."""
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[listening], clock=memory.clock) as engine:
        run = await engine.start(listening(), id="a")
        asking = asyncio.create_task(run.request(unserved, 1, id="q"))
        await settle(200)
        if by_name:
            await engine.pause_workflow(listening)
        else:
            await paused(run)
        await settle(500)
        before = store.calls.count("commit")
        await settle(5_000)
        assert store.calls.count("commit") - before < 5
        await (engine.unpause_workflow(listening) if by_name else run.unpause())
        for value in ("one", "two"):
            await run.signal(word, value)
        assert await soon(run.result()) == ["one", "two"]
        with pytest.raises(RunEnded):
            await soon(asking)


async def rests_unclaimed(engine: Engine) -> None:
    await unowned(engine.store, "a")


@workflow
async def hearing(count: int) -> int:
    for _ in range(count):
        await word.receive()
    return count


async def test_a_mailbox_full_of_mail_hides_no_unpause(memory: MemoryWorld) -> None:
    """More data mail than a look at the mailbox shows: what lets the run go on lies behind it."""
    async with memory.engine(hearing) as engine:
        run = await engine.start(hearing(MAILBOX_PAGE + 50), id="a")
        await run.pause()
        await becomes(run, "paused")
        for number in range(MAILBOX_PAGE + 50):
            await run.signal(word, str(number))
        await run.unpause()
        assert await soon(run.result()) == MAILBOX_PAGE + 50
