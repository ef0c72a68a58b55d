"""Child runs: called like functions, named by their calls, and runs in their own right."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import durable, workflow
from engine.errors import NotRecordable, PayloadTooLarge, RunConflict, RunFailedError
from tests.language.hands import becomes, causes, exists, gate, held, rests, statuses, tell, told
from tests.runtime.invariants import check_history, check_store
from tests.runtime.worlds import MemoryWorld, World, events_of, kinds_of, settle, soon, until, until_async


@workflow
async def double(n: int) -> int:
    await tell(f"doubling {n}")
    return 2 * n


@workflow
async def sleeper(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


@workflow
async def waiter(name: str) -> str:
    return await held(name)


@workflow
async def unlucky(text: str) -> None:
    await tell("trying")
    raise ValueError(text)


@workflow
async def sequence(n: int) -> list[int]:
    return [await double(index) for index in range(n)]


@workflow
async def fan(n: int) -> list[int]:
    async with asyncio.TaskGroup() as group:
        named = group.create_task(double(100), name="named")
    return [await named, *await asyncio.gather(*(double(index) for index in range(n)))]


async def test_a_child_gives_its_result_and_is_a_run_of_its_own(world: World) -> None:
    async with world.engine(sequence) as engine:
        run = await engine.start(sequence(3), id="p")
        assert await soon(run.result()) == [0, 2, 4]
        assert await statuses(engine, "p") == dict.fromkeys(["p/double#1", "p/double#2", "p/double#3"], "completed")
        state = await engine.run("p/double#2").state()
        assert (state.workflow, state.parent, state.root) == ("double", "p", "p")
        assert state.parent_call == "sequence/double#2"
        assert await engine.run("p/double#2").result() == 2
        assert [(child.run, child.status) for child in (await run.state()).children.values()] == [
            (f"p/double#{number}", "completed") for number in (1, 2, 3)
        ]
        await check_store(engine.store, sequence, double)


async def test_ids_of_children_depend_on_nothing_but_the_call(worlds) -> None:
    found = []
    for _ in range(2):
        world = worlds()
        async with world.engine(fan) as engine:
            assert await soon((await engine.start(fan(4), id="p")).result()) == [200, 0, 2, 4, 6]
            found.append({child.run for child in (await engine.run("p").state()).children.values()})
            assert found[-1] == (await statuses(engine, "p")).keys()
    assert found[0] == found[1]
    assert len(found[0]) == 5
    assert "p/named~1/double#1" in found[0]


@workflow
async def generations(depth: int) -> int:
    return 1 + await generations(depth - 1) if depth else 0


async def test_deep_trees_have_ids_and_roots(memory: MemoryWorld) -> None:
    async with memory.engine(generations) as engine:
        run = await engine.start(generations(20), id="top")
        assert await soon(run.result()) == 20
        page = await engine.runs(limit=100)
        assert len(page.items) == 21
        for summary in page.items:
            state = await engine.run(summary.id).state()
            assert state.root == ("" if summary.id == "top" else "top")
        await check_store(engine.store, generations)


# -- ids that are taken ---------------------------------------------------------------------------------------------------


@workflow
async def choosing(id_: str) -> str:
    try:
        return str(await double.options(id=id_)(4))
    except RunConflict as error:
        return f"conflict: {error}"


@workflow
async def choosing_twice() -> list[str]:
    said = []
    for _ in range(2):
        try:
            said.append(str(await double.options(id="mine")(4)))
        except RunConflict:
            said.append("conflict")
    return said


@workflow
async def choosing_for_later(id_: str) -> str:
    handle = await durable.start(double(4), id=id_)
    assert handle.id == id_
    try:
        return str(await handle.result())
    except RunConflict:
        return "conflict"


async def test_a_child_may_have_an_id_of_its_own(world: World) -> None:
    async with world.engine(choosing) as engine:
        assert await soon((await engine.start(choosing("mine"), id="p")).result()) == "8"
        assert (await engine.run("mine").state()).parent == "p"


async def test_an_id_that_a_running_run_has_is_a_conflict(world: World) -> None:
    async with world.engine(choosing, choosing_for_later, sleeper) as engine:
        other = await engine.start(sleeper(1e6), id="taken")
        assert "taken" in await soon((await engine.start(choosing("taken"), id="p")).result())
        assert await soon((await engine.start(choosing_for_later("taken"), id="q")).result()) == "conflict"
        assert await other.status() == "running"
        assert (await other.state()).parent == ""
        await check_store(engine.store, choosing, sleeper, choosing_for_later)


async def test_an_id_that_a_finished_run_has_is_a_conflict(world: World) -> None:
    """Also when it is of the same workflow, with the same arguments: it is not this run's child."""
    async with world.engine(choosing, choosing_for_later, double) as engine:
        await soon((await engine.start(double(4), id="taken")).result())
        assert (await soon((await engine.start(choosing("taken"), id="p")).result())).startswith("conflict")
        assert await soon((await engine.start(choosing_for_later("taken"), id="q")).result()) == "conflict"
        assert told == ["doubling 4"]
        await check_store(engine.store, choosing, double, choosing_for_later)


async def test_a_run_cannot_be_its_own_child(world: World) -> None:
    async with world.engine(choosing) as engine:
        assert (await soon((await engine.start(choosing("p"), id="p")).result())).startswith("conflict")


async def test_the_same_id_twice_in_one_parent_is_a_conflict(world: World) -> None:
    async with world.engine(choosing_twice) as engine:
        assert await soon((await engine.start(choosing_twice(), id="p")).result()) == ["8", "conflict"]
        assert told == ["doubling 4"]
        await check_store(engine.store, choosing_twice, double)


@workflow
async def taken_while_it_runs() -> list[str]:
    first = asyncio.create_task(sleeper.options(id="mine")(50))
    second = asyncio.create_task(sleeper.options(id="mine")(50))
    found = await asyncio.gather(first, second, return_exceptions=True)
    return sorted(type(item).__name__ if isinstance(item, Exception) else item for item in found)


async def test_the_same_id_twice_at_the_same_time_is_a_conflict_for_one(world: World) -> None:
    async with world.engine(taken_while_it_runs) as engine:
        run = await engine.start(taken_while_it_runs(), id="p")
        await rests(engine, "mine")
        world.clock.advance(51)
        assert await soon(run.result()) == ["RunConflict", "slept"]


# -- failures -------------------------------------------------------------------------------------------------------------


@workflow
async def middle() -> None:
    await unlucky("no luck")


@workflow
async def top() -> None:
    await middle()


@workflow
async def forgiving() -> list[str]:
    try:
        await middle()
    except RunFailedError as error:
        return [f"{type(found).__name__}: {found}" for found in causes(error)]
    return []


async def test_a_failure_goes_up_the_tree_with_its_causes(world: World) -> None:
    async with world.engine(top) as engine:
        run = await engine.start(top(), id="t")
        with pytest.raises(RunFailedError) as caught:
            await soon(run.result())
        chain = causes(caught.value)
        assert [type(found) for found in chain] == [RunFailedError, RunFailedError, RunFailedError, ValueError]
        assert chain[-1].args == ("no luck",)
        texts = [str(found) for found in chain]
        assert "'t'" in texts[0]
        assert "'t/middle#1'" in texts[1]
        assert "'t/middle#1/unlucky#1'" in texts[2]
        assert len(chain) == 4
        await check_store(engine.store, top, middle, unlucky)


@workflow
async def handing_on() -> None:
    try:
        await middle()
    except RunFailedError as error:
        below = error.__cause__
        assert isinstance(below, RunFailedError)
        assert isinstance(below.__cause__, ValueError)
        await tell(f"{error.run_id} {below.run_id} {below.type} {below.message}")
        await asyncio.sleep(60)  # what is caught after it, at replay, is the same
        raise below from below.__cause__


@workflow
async def highest() -> str:
    try:
        await handing_on()
    except RunFailedError as error:
        kinds = [type(found).__name__ for found in causes(error)]
        assert isinstance(error.__cause__, RunFailedError)
        return f"{kinds} {error.__cause__.run_id} {error.__cause__.traceback.count('unlucky')}"
    return "no error"


async def test_a_failure_is_a_run_failed_error_at_each_level_live_and_at_replay(world: World) -> None:
    async with world.engine(highest) as engine:
        await engine.start(highest(), id="t")
        middle_run = await exists(engine, "t/handing_on#1")

        async def has_caught_it() -> bool:
            return "TimerStarted" in await kinds_of(middle_run)

        await until_async(has_caught_it)
    world.clock.advance(61)
    async with world.engine(highest) as engine:
        said = await soon(engine.run("t").result())
        assert said.startswith("['RunFailedError', 'RunFailedError', 'ValueError'] t/handing_on#1/middle#1/unlucky#1 ")
        assert told[1:] == ["t/handing_on#1/middle#1 t/handing_on#1/middle#1/unlucky#1 ValueError no luck"]
        with pytest.raises(RunFailedError) as caught:
            await soon(engine.run("t/handing_on#1").result())
        assert [type(found) for found in causes(caught.value)] == [RunFailedError, RunFailedError, ValueError]
        await check_store(engine.store, highest, handing_on, middle, unlucky)


async def test_a_parent_may_catch_what_failed_below(world: World) -> None:
    async with world.engine(forgiving) as engine:
        said = await soon((await engine.start(forgiving(), id="t")).result())
        assert said[0].startswith("RunFailedError: run 't/middle#1' failed")
        assert said[1].startswith("RunFailedError: run 't/middle#1/unlucky#1' failed")
        assert said[-1] == "ValueError: no luck"
        await check_store(engine.store, forgiving, middle, unlucky)


@workflow
async def too_much() -> str:
    return "x" * 50_000_000


@workflow
async def not_what_it_says() -> int:
    return "text"  # type: ignore[return-value]


@workflow
async def receiving(which: str) -> list[str]:
    try:
        await (too_much() if which == "large" else not_what_it_says())
    except RunFailedError as error:
        return [error.run_id, error.type.rpartition(".")[2], type(error.__cause__).__name__]
    return []


@pytest.mark.parametrize(("which", "error"), [("large", PayloadTooLarge), ("other", NotRecordable)])
async def test_a_result_that_cannot_be_recorded_fails_the_child_alone(world: World, which: str, error: Any) -> None:
    async with world.engine(receiving) as engine:
        run = await engine.start(receiving(which), id="p")
        said = await soon(run.result())
        assert said[1] == error.__name__
        assert await engine.run(said[0]).status() == "failed"


@workflow
async def one_fails() -> str:
    try:
        await asyncio.gather(waiter("slow"), unlucky("gathered"), sleeper(1e6))
    except RunFailedError as error:
        await tell(f"caught {error.__cause__!r}")
    return "over"


async def test_gather_raises_at_the_first_failing_child_and_the_rest_goes_on(world: World) -> None:
    async with world.engine(one_fails) as engine:
        run = await engine.start(one_fails(), id="p")
        assert await soon(run.result()) == "over"
        assert "caught ValueError('gathered')" in told
        for child in await statuses(engine, "p"):  # the parent's end took them with it
            await becomes(engine.run(child), "failed" if "unlucky" in child else "cancelled")
        await check_store(engine.store, one_fails, waiter, unlucky, sleeper)


@workflow
async def one_of_a_group_fails() -> str:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(cleaning("left"))
            group.create_task(unlucky("grouped"))
    except* RunFailedError as errors:
        await tell(f"{len(errors.exceptions)} failed")
    return "over"


@workflow
async def cleaning(name: str) -> str:
    try:
        await asyncio.sleep(1e6)
    finally:
        await tell(f"{name} cleaned up")
    return name


async def test_a_task_group_cancels_the_other_children_and_waits_for_their_clean_up(world: World) -> None:
    async with world.engine(one_of_a_group_fails) as engine:
        run = await engine.start(one_of_a_group_fails(), id="p")
        assert await soon(run.result()) == "over"
        assert told[-2:] == ["left cleaned up", "1 failed"]
        assert sorted((await statuses(engine, "p")).values()) == ["cancelled", "failed"]
        await check_store(engine.store, one_of_a_group_fails, unlucky, cleaning)


# -- without waiting --------------------------------------------------------------------------------------------------------


@workflow
async def never_asking(policy: Any) -> list[str]:
    started = [
        await durable.start(double.options(parent_close=policy)(1)),
        await durable.start(unlucky.options(parent_close=policy)("unheard")),
    ]
    return [handle.id for handle in started]


async def test_children_that_nobody_asks_run_all_the_same(world: World) -> None:
    async with world.engine(never_asking) as engine:
        ids = await soon((await engine.start(never_asking("abandon"), id="p")).result())
        await becomes(engine.run(ids[0]), "completed")
        await becomes(engine.run(ids[1]), "failed")
        assert await engine.run("p").status() == "completed"
        await check_store(engine.store, never_asking, double, unlucky)


@workflow
async def asking_late() -> list[str]:
    good = await durable.start(double(21))
    bad = await durable.start(unlucky("late"))
    await asyncio.sleep(3_600)
    said = [str(await good.result()), str(await good.result())]
    for _ in range(2):
        try:
            await bad.result()
        except RunFailedError as error:
            said.append(repr(error.__cause__))
    return said


async def test_a_result_waits_until_it_is_asked_for_as_often_as_one_likes(world: World) -> None:
    async with world.engine(asking_late, cached=0) as engine:
        run = await engine.start(asking_late(), id="p")
        await until(lambda: len(told) == 2)
        await rests(engine, "p")
        world.clock.advance(3_601)
        assert await soon(run.result()) == ["42", "42", "ValueError('late')", "ValueError('late')"]
        await check_store(engine.store, asking_late, double, unlucky)


@workflow
async def giving_up_the_wait() -> str:
    handle = await durable.start(sleeper(100))
    try:
        async with asyncio.timeout(10):
            await handle.result()
    except TimeoutError:
        await tell("gave up")
    return await handle.result()


async def test_giving_up_the_wait_for_a_handles_result_leaves_the_child_alone(world: World) -> None:
    async with world.engine(giving_up_the_wait) as engine:
        run = await engine.start(giving_up_the_wait(), id="p")
        await rests(engine, "p/sleeper#1")
        await rests(engine, "p")
        world.clock.advance(11)
        await until(lambda: told == ["gave up"])
        await rests(engine, "p")
        assert await engine.run("p/sleeper#1").status() == "running"
        world.clock.advance(100)
        assert await soon(run.result()) == "slept"


# -- with time around them --------------------------------------------------------------------------------------------------


@workflow
async def impatient(on_cancel: Any) -> str:
    try:
        async with asyncio.timeout(10):
            return await slow_to_end.options(on_cancel=on_cancel)()
    except TimeoutError:
        await tell("timeout")
        return "timeout"


@workflow
async def slow_to_end() -> str:
    try:
        await asyncio.sleep(1e6)
    finally:
        await held("clean-up")
    return "never"


async def test_a_timeout_around_a_child_cancels_it_and_waits_for_its_end(world: World) -> None:
    async with world.engine(impatient) as engine:
        run = await engine.start(impatient("wait"), id="p")
        await rests(engine, "p/slow_to_end#1")
        world.clock.advance(11)
        await until(lambda: told == ["clean-up began"])
        await settle()
        assert told == ["clean-up began"]
        gate("clean-up").set()
        assert await soon(run.result()) == "timeout"
        assert told == ["clean-up began", "clean-up done", "timeout"]
        assert await engine.run("p/slow_to_end#1").status() == "cancelled"
        await check_store(engine.store, impatient, slow_to_end)


async def test_an_abandoned_await_ends_at_once_and_the_child_is_asked_to_end(world: World) -> None:
    async with world.engine(impatient) as engine:
        run = await engine.start(impatient("abandon"), id="p")
        await rests(engine, "p/slow_to_end#1")
        world.clock.advance(11)
        assert await soon(run.result()) == "timeout"
        await until(lambda: "clean-up began" in told)
        gate("clean-up").set()
        await becomes(engine.run("p/slow_to_end#1"), "cancelled")
        await check_store(engine.store, impatient, slow_to_end)


# -- in the record ----------------------------------------------------------------------------------------------------------


async def test_a_child_costs_its_parent_a_decision_and_a_fact(memory: MemoryWorld) -> None:
    async with memory.engine(sequence) as engine:
        run = await engine.start(sequence(2), id="p")
        await soon(run.result())
        assert await kinds_of(run) == [
            "RunStarted", "ChildStarted", "ChildCompleted", "ChildStarted", "ChildCompleted", "RunCompleted",
        ]  # fmt: skip
        started = (await events_of(run))[1]
        assert (started.workflow, started.run, started.parent_close) == ("double", "p/double#1", "cancel")
        assert "test_children.py" in started.site


async def test_a_client_and_another_engine_may_wait_for_a_child(world: World) -> None:
    async with world.engine(waiting_for_one) as engine, world.engine() as client:
        run = await engine.start(waiting_for_one(), id="p")
        await exists(client, "p/waiter#1")
        results = asyncio.gather(run.result(), client.run("p/waiter#1").result(), engine.run("p/waiter#1").result())
        gate("x").set()
        assert await soon(results) == ["x", "x", "x"]
        await check_history(client.store, "p/waiter#1", waiter)


@workflow
async def waiting_for_one() -> str:
    return await waiter("x")


# -- workflows that the engine was not given --------------------------------------------------------------------------------


@workflow
async def waiting_for_a_sleeper() -> str:
    return await sleeper(86_400)


async def test_a_child_goes_on_after_a_restart_although_nothing_wakes_its_parent(world: World) -> None:
    """The engine was given the parent's workflow alone, and the parent rests until its child has ended."""
    async with world.engine(waiting_for_a_sleeper) as engine:
        await engine.start(waiting_for_a_sleeper(), id="p")
        await rests(engine, "p")
        await rests(engine, "p/sleeper#1")
    world.clock.advance(86_401)
    async with world.engine(waiting_for_a_sleeper) as engine:
        assert await soon(engine.run("p").result()) == "slept"
        await check_store(engine.store, waiting_for_a_sleeper, sleeper)


@workflow
async def leaving_one_behind() -> str:
    handle = await durable.start(sleeper.options(parent_close="abandon")(86_400))
    return handle.id


async def test_an_abandoned_child_goes_on_after_a_restart(world: World) -> None:
    async with world.engine(leaving_one_behind) as engine:
        child = await soon((await engine.start(leaving_one_behind(), id="p")).result())
        await rests(engine, child)
    world.clock.advance(86_401)
    async with world.engine(leaving_one_behind) as engine:
        assert await soon(engine.run(child).result()) == "slept"


async def test_an_engine_for_some_runs_runs_their_children_and_no_others(world: World) -> None:
    async with world.engine(generations, grace=0) as engine:
        await engine.pause_workflow(generations)
        await engine.start(generations(3), id="mine")
        await engine.start(generations(3), id="other")
    async with world.engine() as client:
        await client.unpause_workflow("generations")
    async with world.engine(generations, only=["mine"]) as engine:
        assert await soon(engine.run("mine").result()) == 3
        await settle()
        assert [e for e in await kinds_of(engine.run("other")) if e == "ChildStarted"] == []
        await check_store(engine.store, generations)
