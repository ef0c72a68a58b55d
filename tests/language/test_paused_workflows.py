"""What reaches runs of a workflow that is paused by name: control mail, and what a cancel lets them do. No more."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from engine import Engine, RunHandle, Signal, durable, workflow
from engine.errors import EngineFailed, RunCancelledError, RunTerminatedError
from eventstore import StoreUnavailable
from tests.language.hands import becomes, exists, gate, held, rests, tell, told
from tests.runtime.faulty import FaultyStore, Pause, at_call
from tests.runtime.invariants import check_store
from tests.runtime.worlds import MemoryWorld, World, kinds_of, settle, soon, unowned, until, until_async

word = Signal("word", str)


@workflow
async def tidy() -> None:
    try:
        await asyncio.sleep(1e6)
    finally:
        await tell("cleaned up")


@workflow
async def tidy_slowly() -> None:
    try:
        await asyncio.sleep(1e6)
    finally:
        await tell("cleaning")
        await asyncio.sleep(60)
        await tell("cleaned up")


@workflow
async def busy() -> None:
    try:
        await held("one")
        await tell("two")
    finally:
        await tell("cleaned up")


@workflow
async def listening() -> list[str]:
    return [await word.receive(), await word.receive()]


@workflow
async def above(child: str) -> str:
    handle = await durable.start(tidy(), id=child)
    try:
        await handle.result()
    except (RunTerminatedError, RunCancelledError) as error:
        return type(error).__name__
    return "no error"


async def cancelled(run: RunHandle[Any], match: str = "cancelled") -> None:
    with pytest.raises(RunCancelledError, match=match):
        await soon(run.result())


async def terminated(run: RunHandle[Any], match: str = "terminated") -> None:
    with pytest.raises(RunTerminatedError, match=match):
        await soon(run.result())


async def pauses_seen(world: World, *engines: Engine, paused: bool = True) -> None:
    """Wait until the workers of these engines have looked who is paused."""

    async def seen() -> bool:
        world.clock.advance(1)
        return all(bool(engine._worker.paused) == paused for engine in engines)  # type: ignore[union-attr]

    await until_async(seen)


@pytest.mark.parametrize("cached", [0, 500])
async def test_resting_runs_end_when_they_are_told_to(cached: int, world: World) -> None:
    async with world.engine(tidy, cached=cached) as engine:
        runs = [await engine.start(tidy(), id=name) for name in ("a", "b", "c")]
        for name in ("a", "b", "c"):
            await rests(engine, name)
        await engine.pause_workflow(tidy)
        await runs[0].terminate(reason="enough")
        await terminated(runs[0], "enough")
        assert told == []
        await runs[1].cancel(reason="after all")
        await cancelled(runs[1], "after all")
        assert told == ["cleaned up"]
        world.clock.advance(2e6)
        await settle()
        assert await runs[2].status() == "running"
        assert told == ["cleaned up"]
        await engine.unpause_workflow(tidy)
        assert await soon(runs[2].result()) is None
        await check_store(engine.store, tidy)


async def test_runs_with_an_attempt_under_way_end_when_they_are_told_to(world: World) -> None:
    async with world.engine(busy) as engine:
        run = await engine.start(busy(), id="a")
        await until(lambda: told == ["one began"])
        await engine.pause_workflow(busy)
        await run.cancel()
        await cancelled(run)
        assert sorted(told) == ["cleaned up", "one began", "one cut off"]
        other = await engine.start(busy(), id="b")
        await settle()
        assert await kinds_of(other) == ["RunStarted"]
        await other.terminate()
        await terminated(other)
        assert told.count("one began") == 1
        await check_store(engine.store, busy)


async def test_of_two_engines_one_ends_them(world: World) -> None:
    """The run belongs to nobody, or to an engine that has it in memory; who asks, and who paused, is elsewhere."""
    async with world.engine(tidy, busy) as one, world.engine(tidy, busy) as two, world.engine() as client:
        await one.start(tidy(), id="a")
        await two.start(tidy(), id="b")
        await two.start(busy(), id="c")
        for name in ("a", "b"):
            await rests(two, name)
        await until(lambda: told == ["one began"])
        for name in ("tidy", "busy"):
            await client.pause_workflow(name)
        await pauses_seen(world, two)  # the other has nothing in memory, and looks before it claims
        await client.run("a").cancel()
        await client.run("b").terminate()
        await client.run("c").cancel()
        await cancelled(client.run("a"))
        await terminated(client.run("b"))
        await cancelled(client.run("c"))
        assert told.count("cleaned up") == 2
        await check_store(one.store, tidy, busy)


async def test_cleaning_up_goes_on_although_it_takes_time_and_its_engine_is_closed(world: World) -> None:
    async with world.engine(tidy_slowly) as engine:
        run = await engine.start(tidy_slowly(), id="a")
        await rests(engine, "a")
        await engine.pause_workflow(tidy_slowly)
        await run.cancel()
        await until(lambda: told == ["cleaning"])
        await rests(engine, "a")
    async with world.engine(tidy_slowly) as engine:
        run = engine.run("a")
        await settle()
        assert told == ["cleaning"]
        world.clock.advance(61)
        await cancelled(run)
        assert told == ["cleaning", "cleaned up"]
        await check_store(engine.store, tidy_slowly)


async def test_a_later_pause_holds_it_again_and_a_later_cancel_lets_it_go_on(world: World) -> None:
    """As for a run that is paused itself."""
    async with world.engine(tidy_slowly) as engine:
        run = await engine.start(tidy_slowly(), id="a")
        await rests(engine, "a")
        await engine.pause_workflow(tidy_slowly)
        await run.cancel()
        await until(lambda: told == ["cleaning"])
        await rests(engine, "a")
        await engine.unpause_workflow(tidy_slowly)
        await engine.pause_workflow(tidy_slowly)
        world.clock.advance(61)
        await settle()
        assert told == ["cleaning"]
        await run.cancel()  # while it cleans up: that is cut short, as of any run
        await cancelled(run)
        assert told == ["cleaning"]
        await check_store(engine.store, tidy_slowly)


async def test_a_crash_between_the_cancel_and_its_end_loses_neither(world: World) -> None:
    store = await world.store()
    faulty = FaultyStore(store)

    async def crash(name: str, commit: Any) -> None:
        if name == "commit" and commit.stream == "run:a" and commit.consumes:
            faulty.die()

    async with world.engine(tidy) as engine:
        await engine.start(tidy(), id="a")
        await rests(engine, "a")
        await engine.pause_workflow(tidy)
    faulty.after = crash
    async with Engine(faulty, workflows=[tidy], clock=world.clock, grace=0) as engine:
        async with world.engine() as client:
            await client.run("a").cancel(reason="after all")
        await until(lambda: faulty.dead)
    await world.release(store)
    async with world.engine(tidy) as engine:
        await cancelled(engine.run("a"), "after all")
        assert told == ["cleaned up"]
        await check_store(engine.store, tidy)


@pytest.mark.parametrize("only", [None, ["a"]])
async def test_a_cancel_lets_a_run_pass_its_own_pause_and_its_workflows(only: Any, world: World) -> None:
    async with world.engine(tidy, only=only) as engine:
        run = await engine.start(tidy(), id="a")
        await rests(engine, "a")
        await run.pause()
        await becomes(run, "paused")
        await engine.pause_workflow(tidy)
        await run.cancel()
        await cancelled(run)
        assert told == ["cleaned up"]
        kinds = await kinds_of(run)
        assert kinds.index("RunUnpaused") == kinds.index("CancelRequested") - 1
        await check_store(engine.store, tidy)


@pytest.mark.parametrize("how", ["terminate", "cancel"])
async def test_a_child_that_has_not_begun_ends_and_its_parent_is_told(how: str, world: World) -> None:
    async with world.engine(above, tidy) as engine:
        await engine.pause_workflow(tidy)
        run = await engine.start(above("c"), id="p")
        child = await exists(engine, "c")
        await rests_of_parent(run)
        assert await kinds_of(child) == []
        if how == "terminate":
            await child.terminate(reason="enough")
            await terminated(child, "enough")
        else:
            await child.cancel()
            await cancelled(child)
        assert await soon(run.result()) == ("RunTerminatedError" if how == "terminate" else "RunCancelledError")
        await check_store(engine.store, above, tidy)


async def test_a_child_that_is_claimed_before_its_workflow_is_seen_to_be_paused(memory: MemoryWorld) -> None:
    """The claim was under way: the child is given up again, and who has asked for it meanwhile hears of its end."""
    store = FaultyStore(memory.data)
    claiming = Pause(store, behind=False, when=lambda name, _argument: name == "claim")
    async with Engine(store, workflows=[above, tidy], clock=memory.clock) as engine:
        await soon(claiming.reached.wait())
        await engine.pause_workflow(tidy)
        run = await engine.start(above("c"), id="p")
        giving_up = Pause(store, behind=False, when=lambda name, commit: name == "commit" and commit.stream == "run:c")
        claiming.let_go.set()
        await soon(giving_up.reached.wait())
        child = engine.run("c")
        giving_up.let_go.set()
        await unowned(memory.data, "c")
        assert await kinds_of(child) == []
        await child.terminate(reason="enough")
        await terminated(child, "enough")
        assert await soon(run.result()) == "RunTerminatedError"
        await check_store(engine.store, above, tidy)


async def rests_of_parent(run: RunHandle[Any]) -> None:
    async def started() -> bool:
        return "ChildStarted" in await kinds_of(run)

    await until_async(started)


async def test_other_control_mail_is_taken_and_nothing_else_happens(world: World) -> None:
    async with world.engine(listening) as engine:
        run = await engine.start(listening(), id="a")
        await rests(engine, "a")
        await engine.pause_workflow(listening)
        await run.signal(word, "one")
        await run.signal(word, "two")
        await run.pause(by="alice")
        await becomes(run, "paused")
        await run.unpause()
        await becomes(run, "running")
        await unowned(engine.store, "a")
        await settle()
        assert "SignalReceived" not in await kinds_of(run)
        await engine.unpause_workflow(listening)
        assert await soon(run.result()) == ["one", "two"]
        await check_store(engine.store, listening)


async def test_a_cancel_lets_what_was_kept_reach_the_run(world: World) -> None:
    """As it does of a run that is paused itself: it may want that to clean up."""

    @workflow
    async def asking() -> str:
        try:
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            return await word.receive()
        return "not cancelled"

    async with world.engine(asking) as engine:
        run = await engine.start(asking(), id="a")
        await rests(engine, "a")
        await engine.pause_workflow(asking)
        await run.signal(word, "one")
        await settle()
        assert "SignalReceived" not in await kinds_of(run)
        await run.cancel()
        assert await soon(run.result()) == "one"
        await check_store(engine.store, asking)


@pytest.mark.parametrize("what", ["run", "workflow"])
async def test_what_ends_while_it_is_paused_does_not_end_over_mail(what: str, world: World) -> None:
    """The last attempt was under way: its run ends, behind the signal that was kept for it."""

    @workflow
    async def leaving() -> int:
        await held("one")
        return word.waiting()

    async with world.engine(leaving) as engine:
        run = await engine.start(leaving(), id="a")
        await until(lambda: told == ["one began"])
        if what == "run":
            await run.pause()
            await becomes(run, "paused")
        else:
            await engine.pause_workflow(leaving)
        await run.signal(word, "one")
        gate("one").set()
        assert await soon(run.result()) == 1
        await check_store(engine.store, leaving)


async def test_runs_that_only_wait_cost_no_claims_when_others_are_told_to_end(memory: MemoryWorld) -> None:
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[tidy, listening], clock=memory.clock) as engine:
        runs = [await engine.start(tidy(), id=f"a{index}") for index in range(10)]
        for run in runs:
            await rests(engine, run.id)
        other = await engine.start(listening(), id="b")
        await rests(engine, "b")
        await engine.pause_workflow(tidy)
        await engine.pause_workflow(listening)
        await other.signal(word, "one")  # data mail: it waits
        memory.clock.advance(2e6)
        for run in runs[:5]:
            await run.cancel()
            await cancelled(run)
        await settle(500)
        before = len(store.calls)
        await settle(5_000)
        assert len(store.calls) - before < 30, store.calls[before:]
        assert [await run.status() for run in runs[5:]] == ["running"] * 5


async def test_an_engine_whose_memory_is_full_gives_control_mail_to_the_runs_in_it(world: World) -> None:
    async with world.engine(busy, listening, runs=2) as engine:
        runs = [await engine.start(busy(), id=name) for name in ("a", "b")]
        await until(lambda: told.count("one began") == 2)
        await engine.pause_workflow(busy)
        await runs[0].cancel()
        await cancelled(runs[0])
        await runs[1].terminate()
        await terminated(runs[1])
        await check_store(engine.store, busy)


async def test_a_cancel_lets_its_run_pass_the_pause_whatever_crashes(worlds: Any, monkeypatch: Any) -> None:
    """Steps in chunks of one event, a crash behind any commit: the cancel and the passing of the pause are one."""
    monkeypatch.setattr("engine.runtime.writing.COMMIT_EVENTS_MAX", 1)
    for number in range(1, 20):
        told.clear()
        world: World = worlds()
        async with world.engine(tidy) as engine:
            await engine.start(tidy(), id="a")
            await rests(engine, "a")
            await engine.pause_workflow(tidy)
        store = await world.store()
        faulty = FaultyStore(store, at_call(number, "die after", only="commit"))
        with suppress(EngineFailed, StoreUnavailable):
            async with Engine(faulty, workflows=[tidy], clock=world.clock, grace=0) as engine:
                await world_cancel(world)
                await cancelled(engine.run("a"))
        await world.release(store)
        async with world.engine(tidy) as engine:
            await cancelled(engine.run("a"))
            assert "cleaned up" in told
            await check_store(engine.store, tidy)
        if not faulty.faults:
            break
    assert not faulty.faults
    assert number > 3


async def world_cancel(world: World) -> None:
    async with world.engine() as client:
        await client.run("a").cancel()
