"""Code and history disagree: the run waits, unharmed, with a diagnosis to act on; fixed code goes on with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Struct

from engine import Engine, RunHandle, task, workflow
from engine.core import loop as core_loop
from engine.errors import RunFailedError, RunSuspendedError
from tests.runtime.faulty import FaultyStore, Pause
from tests.runtime.invariants import check_history
from tests.runtime.worlds import MemoryWorld, World, at_rest, events_of, kinds_of, settle, soon, until, until_async

ran: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@task
async def fetch(page: int) -> str:
    ran.append(f"fetch {page}")
    return f"page {page}"


@task
async def store(text: str) -> int:
    ran.append(f"store {text}")
    return len(text)


@workflow(name="pipeline")
async def first_version() -> str:
    text = await fetch(1)
    await asyncio.sleep(1_000)
    await store(text)
    return "first"


@workflow(name="pipeline")
async def changed() -> str:
    text = await fetch(2)
    await asyncio.sleep(1_000)
    await store(text)
    return "changed"


@workflow(name="pipeline")
async def fixed() -> str:
    text = await fetch(1)
    await asyncio.sleep(1_000)
    await store(text.upper())
    return "fixed"


@workflow
async def bystander(n: int) -> int:
    await asyncio.sleep(1_000)
    await fetch(n)
    return n


async def has_status(run: RunHandle[Any], status: str) -> bool:
    return await run.status() == status


async def suspended_run(world: World) -> None:
    """A run "a" of the first version, that the changed one does not fit."""
    async with world.engine(first_version, bystander) as engine:
        await engine.start(first_version(), id="a")
        await engine.start(bystander(7), id="b")
        await at_rest(engine.store, "a")
        await at_rest(engine.store, "b")
    world.clock.advance(1_000)


async def test_changed_code_suspends_with_both_columns(world: World) -> None:
    await suspended_run(world)
    async with world.engine(changed, bystander) as engine:
        run = engine.run("a")
        with pytest.raises(RunSuspendedError) as caught:
            await soon(run.result())
        text = str(caught.value)
        assert caught.value.run_id == "a"
        for part in ("history has", "the code now asks for", "fetch(1)", "fetch(2)", "test_suspension.py:", "resume"):
            assert part in text, text
        assert await soon(engine.run("b").result()) == 7  # the other one does not care
        assert await run.status() == "suspended"
        state = await run.state()
        assert state.status == "suspended"
        assert not state.ended
        assert state.diagnosis is not None
        assert state.diagnosis.reason == "decisions"
        assert state.diagnosis.version == 1
        (difference,) = state.diagnosis.differences
        assert "fetch(1)" in difference.recorded
        assert "fetch(2)" in difference.decided
        assert difference.recorded_site.startswith("test_suspension.py:")
        assert [summary.id for summary in (await engine.runs(status="suspended")).items] == ["a"]
        assert ran == ["fetch 1", "fetch 7"]
        await check_history(engine.store, "a")


async def test_a_suspended_run_stays_so(world: World) -> None:
    """It is not tried again and again with the same code: not by time, by engines that open, or by those that look."""
    await suspended_run(world)
    async with world.engine(changed) as engine:
        await until_async(lambda: has_status(engine.run("a"), "suspended"))
    store_ = await world.store()
    head = await store_.head("run:a")
    for _ in range(2):
        async with world.engine(changed) as engine:
            world.clock.advance(10_000)
            await settle()
            with pytest.raises(RunSuspendedError):
                await soon(engine.run("a").result())
            again = await engine.start(changed(), id="a")
            with pytest.raises(RunSuspendedError):
                await soon(again.result())
            events = [item.version async for item in again.events(follow=True)]  # ends: there is nothing to come
            assert events == list(range(1, head.version + 1))
    after = await store_.head("run:a")
    assert (after.version, after.claims) == (head.version, head.claims)
    await world.release(store_)


async def test_fixed_code_goes_on_when_asked(world: World) -> None:
    await suspended_run(world)
    async with world.engine(changed) as engine:
        await until_async(lambda: has_status(engine.run("a"), "suspended"))
    async with world.engine() as client:
        await client.run("a").resume(by="carol")
    async with world.engine(fixed) as engine:  # what a person wishes goes before what the engine does by itself
        run = engine.run("a")
        assert await soon(run.result()) == "fixed"
        assert ran == ["fetch 1", "store PAGE 1"]
        kinds = await kinds_of(run)
        assert kinds.count("RunSuspended") == kinds.count("RunResumed") == 1
        (resumed,) = [event for event in await events_of(run) if type(event).__name__ == "RunResumed"]
        assert resumed.by == "carol"
        await check_history(engine.store, "a", fixed)


async def test_resumed_while_nobody_is_there(world: World) -> None:
    await suspended_run(world)
    async with world.engine(changed) as engine:
        await until_async(lambda: has_status(engine.run("a"), "suspended"))
    async with world.engine() as client:
        await client.run("a").resume()
    async with world.engine(fixed) as engine:
        assert await soon(engine.run("a").result()) == "fixed"


async def test_resumed_with_code_that_still_does_not_fit(world: World) -> None:
    await suspended_run(world)
    async with world.engine(changed) as engine:
        run = engine.run("a")
        with pytest.raises(RunSuspendedError):
            await soon(run.result())
        for n in range(2, 4):
            await run.resume()
            with pytest.raises(RunSuspendedError):
                await soon(run.result())

            async def told(n: int = n) -> bool:
                return (await kinds_of(run)).count("RunSuspended") == n

            await until_async(told)
        await check_history(engine.store, "a")
    async with world.engine(fixed) as engine:
        await engine.run("a").resume()
        assert await soon(engine.run("a").result()) == "fixed"
        await check_history(engine.store, "a", fixed)


async def test_resuming_what_is_not_suspended_changes_nothing(world: World) -> None:
    async with world.engine(first_version) as engine:
        run = await engine.start(first_version(), id="a")
        await run.resume()
        await at_rest(engine.store, "a")
        await run.resume()
        await until_async(lambda: _no_mail(engine, "a"))
        world.clock.advance(1_000)
        assert await soon(run.result()) == "first"
        await run.resume()
        await until_async(lambda: _no_mail(engine, "a"))
        assert await run.status() == "completed"
        assert "RunResumed" not in await kinds_of(run)
        await check_history(engine.store, "a", first_version)


async def _no_mail(engine: Engine, run_id: str) -> bool:
    return not (await engine.store.head(f"run:{run_id}")).messages


async def test_a_waiter_elsewhere_hears_that_it_went_on(world: World) -> None:
    """Suspended here, resumed and finished by another engine: whoever asks here again is told the result."""
    await suspended_run(world)
    async with world.engine(changed) as here:
        run = here.run("a")
        with pytest.raises(RunSuspendedError):
            await soon(run.result())
    async with world.engine(changed, only=["nothing else"]) as here:
        run = here.run("a")
        with pytest.raises(RunSuspendedError):
            await soon(run.result())
        async with world.engine(fixed) as there:
            await there.run("a").resume()
            assert await soon(there.run("a").result()) == "fixed"
        assert await soon(run.result()) == "fixed"


async def test_suspended_here_and_finished_elsewhere(world: World) -> None:
    """As above, but the engine that asks is the one that suspended it, and still holds what it told."""
    await suspended_run(world)
    async with world.engine(changed, worker="here") as here:
        run = here.run("a")
        with pytest.raises(RunSuspendedError):
            await soon(run.result())
        for attempt in range(50):  # either may take the mail: with the old code it is suspended again
            async with world.engine(fixed, worker="there") as there:
                if attempt == 10:  # who waits longest is told first, perhaps every time: the old code steps back
                    assert here._worker is not None
                    here._worker.definitions.clear()
                await there.run("a").resume()
                version = (await here.store.head("run:a")).version
                await until_async(lambda v=version: _moved(here, v))
                if await there.run("a").status() != "suspended":
                    assert await soon(there.run("a").result()) == "fixed"
                    break
        else:
            pytest.fail("the old code took the mail every time")
        assert await soon(run.result()) == "fixed", attempt


async def _moved(engine: Engine, version: int) -> bool:
    return (await engine.store.head("run:a")).version > version


async def test_a_workflow_that_spins_is_suspended_and_the_others_go_on(world: World, monkeypatch) -> None:
    monkeypatch.setattr(core_loop, "STEPS_PER_TURN_MAX", 5_000)

    @workflow
    async def spinning(at_once: bool) -> None:
        if not at_once:
            await fetch(1)
        while True:
            await asyncio.sleep(0)

    async with world.engine(spinning, bystander) as engine:
        other = await engine.start(bystander(5), id="b")
        for n, at_once in enumerate((True, False)):
            run = await engine.start(spinning(at_once), id=f"run-{n}")
            with pytest.raises(RunSuspendedError, match="without waiting"):
                await soon(run.result())
            state = await run.state()
            assert state.diagnosis is not None
            assert state.diagnosis.reason == "spinning"
            assert state.diagnosis.version == state.version - 1  # the fact behind which it spins
            await check_history(engine.store, run.id)
            await run.resume()
            with pytest.raises(RunSuspendedError):
                await soon(run.result())
        world.clock.advance(1_000)
        assert await soon(other.result()) == 5

    @workflow(name="spinning")
    async def cured(at_once: bool) -> str:
        return "cured" if at_once else await fetch(1)

    async with world.engine(cured) as engine:
        for n, expected in enumerate(("cured", "page 1")):
            run = engine.run(f"run-{n}")
            await run.resume()
            assert await soon(run.result()) == expected
            await check_history(engine.store, run.id, cured)


async def test_a_suspended_run_with_attempts_under_way(world: World, monkeypatch) -> None:
    """One branch spins while another's task runs: the attempt is asked to end, and runs again when the run goes on."""
    monkeypatch.setattr(core_loop, "STEPS_PER_TURN_MAX", 5_000)
    gate = asyncio.Event()

    @task
    async def slow() -> str:
        ran.append("slow")
        await gate.wait()
        return "slow"

    async def spin() -> None:
        await fetch(1)
        while True:
            await asyncio.sleep(0)

    @workflow(name="half")
    async def half_bad() -> str:
        done, _ = await asyncio.gather(slow(), spin())
        return done

    async def spin_no_more() -> None:
        await fetch(1)

    @workflow(name="half")
    async def good() -> str:
        branch = asyncio.ensure_future(_named(spin_no_more, "spin"))
        done = await slow()
        await branch
        return done

    async with world.engine(half_bad, grace=0) as engine:
        run = await engine.start(half_bad(), id="a")
        with pytest.raises(RunSuspendedError):
            await soon(run.result())
        await check_history(engine.store, "a")
    gate.set()

    @workflow(name="half")
    async def mended() -> str:
        done, _ = await asyncio.gather(slow(), spin_mended())
        return done

    async def spin_mended() -> None:
        await fetch(1)

    spin_mended.__qualname__ = spin.__qualname__
    async with world.engine(mended) as engine:
        await engine.run("a").resume()
        assert await soon(engine.run("a").result()) == "slow"
        assert ran.count("slow") == 2
        assert ran.count("fetch 1") == 1
        await check_history(engine.store, "a", mended)


def _named(function: Any, name: str) -> Any:
    coro = function()
    coro.__qualname__ = name
    return coro


class Old(Struct):
    a: int


class New(Struct):
    a: int
    b: int = 2


async def test_a_new_field_with_a_default_suspends_nothing(world: World) -> None:
    @task(name="take")
    async def take_old(value: Old) -> Old:
        return value

    @workflow(name="growing")
    async def growing_old(value: Old) -> int:
        taken = await take_old(value)
        await asyncio.sleep(1_000)
        return taken.a

    @task(name="take")
    async def take_new(value: New) -> New:
        return value

    @workflow(name="growing")
    async def growing_new(value: New) -> int:
        taken = await take_new(value)
        await asyncio.sleep(1_000)
        return taken.a + taken.b

    async with world.engine(growing_old) as engine:
        await engine.start(growing_old(Old(1)), id="a")
        await at_rest(engine.store, "a")
    world.clock.advance(1_000)
    async with world.engine(growing_new) as engine:
        assert await soon(engine.run("a").result()) == 3
        attached = await engine.start(growing_new(New(1)), id="a")
        assert await soon(attached.result()) == 3


async def test_recorded_values_that_the_new_types_do_not_take(world: World) -> None:
    @task(name="take")
    async def take_old() -> str:
        return "seven"

    @workflow(name="retyped")
    async def retyped_old() -> str:
        found = await take_old()
        await asyncio.sleep(1_000)
        return found

    @task(name="take")
    async def take_new() -> int:
        return 7

    @workflow(name="retyped")
    async def retyped_new() -> str:
        found = await take_new()
        await asyncio.sleep(1_000)
        return str(found)

    async with world.engine(retyped_old) as engine:
        await engine.start(retyped_old(), id="a")
        await at_rest(engine.store, "a")
    world.clock.advance(1_000)
    async with world.engine(retyped_new, bystander) as engine:
        with pytest.raises(RunSuspendedError, match="take"):
            await soon(engine.run("a").result())
        state = await engine.run("a").state()
        assert state.diagnosis is not None
        assert state.diagnosis.reason == "values"
    async with world.engine(retyped_old) as engine:
        await engine.run("a").resume()
        assert await soon(engine.run("a").result()) == "seven"
        await check_history(engine.store, "a", retyped_old)


async def test_arguments_of_the_run_that_do_not_fit_any_more(world: World) -> None:
    @workflow(name="argued")
    async def argued_old(value: str) -> str:
        await asyncio.sleep(1_000)
        return value

    @workflow(name="argued")
    async def argued_new(value: int) -> str:
        await asyncio.sleep(1_000)
        return str(value)

    async with world.engine(argued_old) as engine:
        await engine.start(argued_old("seven"), id="a")
        await at_rest(engine.store, "a")
    world.clock.advance(1_000)
    async with world.engine(argued_new, bystander) as engine:
        with pytest.raises(RunSuspendedError):
            await soon(engine.run("a").result())
        assert await soon((await engine.start(bystander(1), id="c")).status()) == "running"
    async with world.engine(argued_old) as engine:
        await engine.run("a").resume()
        assert await soon(engine.run("a").result()) == "seven"


async def test_a_mismatch_with_times_beyond_every_calendar(world: World) -> None:
    """The diagnosis itself must be sayable."""

    @workflow(name="dated")
    async def dated_old() -> str:
        await fetch(1)
        await asyncio.sleep(1e12)
        return "old"

    @workflow(name="dated")
    async def dated_new() -> str:
        await fetch(1)
        await store("x")
        return "new"

    async with world.engine(dated_old) as engine:
        await engine.start(dated_old(), id="a")
        await at_rest(engine.store, "a")
    async with world.engine(dated_new, bystander) as engine:
        await engine.run("a").cancel()  # wakes it
        run = engine.run("a")
        await until_async(lambda: _rests_somehow(run))
        other = await engine.start(bystander(1), id="b")
        world.clock.advance(1_000)
        assert await soon(other.result()) == 1


async def _rests_somehow(run: RunHandle[Any]) -> bool:
    return await run.status() in ("suspended", "terminated", "cancelled")


async def test_cancelling_a_run_that_its_code_does_not_fit(world: World) -> None:
    """Cancel always works: also when the code has changed and nobody knew yet."""
    await suspended_run(world)
    async with world.engine() as client:
        await client.run("a").cancel(reason="stop")
    async with world.engine(changed) as engine:
        run = engine.run("a")
        await until_async(lambda: _rests_somehow(run))
        if await run.status() == "suspended":  # the mail was answered by the suspension: ask again
            await run.cancel(reason="stop")
            await until_async(lambda: has_status(run, "terminated"))
        assert await run.status() in ("terminated", "cancelled")
        await check_history(engine.store, "a")


async def test_mail_that_changes_nothing_is_heard_of_when_the_clock_stands(memory: MemoryWorld) -> None:
    """It is taken out of the box with no event, so nothing that others look at shows it: who has taken it tells."""
    await suspended_run(memory)
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[changed], clock=memory.clock) as engine:
        run = engine.run("a")
        with pytest.raises(RunSuspendedError):
            await soon(run.result())
        pause = Pause(store, behind=False, when=lambda name, _argument: name == "commit")
        await run.unpause()
        await soon(pause.reached.wait())
        looks = store.calls.count("find")
        waiting = asyncio.create_task(run.result())  # there is mail: it may be a wish to go on
        await until(lambda: store.calls.count("find") >= looks + 2)
        pause.let_go.set()
        with pytest.raises(RunSuspendedError):
            await soon(waiting, seconds=5)


async def test_the_wish_to_cancel_survives_a_suspension(world: World) -> None:
    """Who asked for the end before anybody knew of the mismatch need not ask again."""
    await suspended_run(world)
    async with world.engine() as client:
        await client.run("a").cancel(reason="stop")
    async with world.engine(changed) as engine:
        run = engine.run("a")
        await until_async(lambda: has_status(run, "terminated"), seconds=5)
        await check_history(engine.store, "a")


async def test_damaged_history_harms_only_its_run(memory: MemoryWorld) -> None:
    """Events nobody knows, written by a newer version: suspended, readable by the store, the engine goes on."""
    from eventstore import Commit, NewEvent

    async with memory.engine(bystander) as engine:
        await engine.start(bystander(1), id="a")
        await at_rest(memory.data, "a")
        head = await memory.data.head("run:a")
        await memory.data.commit(
            Commit(
                id="x", stream="run:a", expected_version=head.version, events=(NewEvent(b'{"type":"Hologram","at":1}'),)
            )
        )
        await engine.run("a").cancel()
        await until_async(lambda: _rests_somehow(engine.run("a")), seconds=5)
        other = await engine.start(bystander(2), id="b")
        memory.clock.advance(1_000)
        assert await soon(other.result()) == 2


async def test_an_unfinished_workflow_may_fail_by_its_own_bug(world: World) -> None:
    """An exception of the workflow is its failure, not a suspension."""

    @workflow
    async def buggy() -> None:
        await fetch(1)
        raise AttributeError("my own bug")

    async with world.engine(buggy) as engine:
        with pytest.raises(RunFailedError, match="my own bug"):
            await soon((await engine.start(buggy(), id="a")).result())
        await settle()
        await until(lambda: ran == ["fetch 1"])
        await check_history(engine.store, "a", buggy)
