"""Parents and children whose lives end: what each end of the one means for the other, down the tree and up again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import RunHandle, Signal, durable, workflow
from engine.errors import RunCancelledError, RunFailedError, RunTerminatedError
from engine.runtime.mail import CancelMail, TerminateMail, is_for
from engine.runtime.streams import PARENT
from tests.language.hands import becomes, exists, gate, held, rests, statuses, tell, told
from tests.runtime.invariants import check_store
from tests.runtime.worlds import World, events_of, kinds_of, settle, soon, until, until_async

go_on = Signal("go_on", int)
ENDS = ["completed", "failed", "cancelled", "terminated", "continued"]


@workflow
async def child() -> str:
    try:
        await asyncio.sleep(1_000)
    finally:
        await tell("cleaned up")
    return "slept"


@workflow
async def leaving(policy: Any, how: str, again: int = 0) -> str:
    """Starts a child and ends before it."""
    if again:
        await asyncio.sleep(1e6)
    await durable.start(child.options(parent_close=policy, id="child")())
    await asyncio.sleep(10)
    match how:
        case "failed":
            raise ValueError("the parent")
        case "continued":
            await durable.continue_as_new(leaving(policy, how, 1))
        case "completed":
            return "done"
    await asyncio.sleep(1e6)
    return "never"


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("policy", ["cancel", "terminate", "abandon"])
async def test_every_policy_at_every_end_of_the_parent(policy: Any, how: str, world: World) -> None:
    async with world.engine(leaving) as engine:
        run = await engine.start(leaving(policy, how), id="p")
        await rests(engine, "child")
        await rests(engine, "p")
        world.clock.advance(11)
        if how in ("cancelled", "terminated"):
            await (run.cancel() if how == "cancelled" else run.terminate())
        await becomes(run, "running" if how == "continued" else how)
        if how == "continued":
            await until_epoch(run, 1)
        orphan = engine.run("child")
        if policy == "abandon":
            await rests(engine, "child")
            assert await orphan.status() == "running"
            world.clock.advance(1_000)
            assert await soon(orphan.result()) == "slept"
        else:
            await becomes(orphan, "cancelled" if policy == "cancel" else "terminated")
        assert told == ([] if policy == "terminate" else ["cleaned up"])
        await check_store(engine.store, leaving, child)


async def until_epoch(run: RunHandle[Any], epoch: int) -> None:
    while (await run.state()).epoch != epoch:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


@workflow
async def grandmother(policy: Any) -> None:
    await mother.options(parent_close=policy, id="mother")(policy)


@workflow
async def mother(policy: Any) -> None:
    await durable.start(child.options(parent_close=policy, id="child")())
    await asyncio.sleep(1e6)


@pytest.mark.parametrize(("policy", "expected"), [("cancel", "cancelled"), ("terminate", "terminated")])
async def test_terminating_the_top_ends_grandchildren_as_their_calls_said(
    policy: Any, expected: str, world: World
) -> None:
    async with world.engine(grandmother) as engine:
        run = await engine.start(grandmother(policy), id="top")
        await rests(engine, "child")
        await rests(engine, "top")
        await run.terminate()
        for run_id in ("mother", "child"):
            await becomes(engine.run(run_id), expected)
        await check_store(engine.store, grandmother, mother, child)


async def test_cancelling_the_top_cancels_the_tree_and_waits_for_those_that_are_awaited(world: World) -> None:
    async with world.engine(grandmother) as engine:
        run = await engine.start(grandmother("cancel"), id="top")
        await rests(engine, "child")
        await rests(engine, "top")
        await run.cancel(reason="all of it")
        with pytest.raises(RunCancelledError, match="all of it"):
            await soon(run.result())
        assert await engine.run("mother").status() == "cancelled"
        await becomes(engine.run("child"), "cancelled")
        assert told == ["cleaned up"]
        await check_store(engine.store, grandmother, mother, child)


# -- awaited children and a cancellation ----------------------------------------------------------------------------------


@workflow
async def awaiting(kind: str, policy: Any = "cancel") -> str:
    try:
        got = await KINDS[kind].options(id="child", parent_close=policy)()
    except asyncio.CancelledError:
        await tell("parent cancelled")
        raise
    except RunFailedError as error:
        await tell(f"parent caught {error.__cause__!r}")
        return "caught"
    await tell(f"parent got {got}")
    await asyncio.sleep(0)
    await tell("parent went on")
    return got


@workflow
async def cleaning() -> str:
    try:
        await asyncio.sleep(1e6)
    finally:
        await held("clean-up")
    return "never"


@workflow
async def swallowing() -> str:
    try:
        await asyncio.sleep(1e6)
    except asyncio.CancelledError:
        await tell("swallowed")
    return "completed all the same"


@workflow
async def failing_at_it() -> str:
    try:
        await asyncio.sleep(1e6)
    except asyncio.CancelledError:
        raise ValueError("while cleaning up") from None
    return "never"


KINDS = {"cleaning": cleaning, "swallowing": swallowing, "failing": failing_at_it}


async def test_a_cancelled_parent_waits_for_the_clean_up_of_its_child(world: World) -> None:
    async with world.engine(awaiting) as engine:
        run = await engine.start(awaiting("cleaning"), id="p")
        await rests(engine, "child")
        await run.cancel(reason="over")
        await until(lambda: told == ["clean-up began"])
        await settle()
        assert told == ["clean-up began"]
        assert await run.status() == "running"
        gate("clean-up").set()
        with pytest.raises(RunCancelledError, match="over"):
            await soon(run.result())
        assert told == ["clean-up began", "clean-up done", "parent cancelled"]
        assert await engine.run("child").status() == "cancelled"
        await check_store(engine.store, awaiting, cleaning)


async def test_a_child_that_swallows_its_cancellation_does_not_swallow_its_parents(world: World) -> None:
    """The await ends with the child's result; the run's own cancellation comes with its next await."""
    async with world.engine(awaiting) as engine:
        run = await engine.start(awaiting("swallowing"), id="p")
        await rests(engine, "child")
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await soon(run.result())
        assert await engine.run("child").result() == "completed all the same"
        assert "parent went on" not in told
        await check_store(engine.store, awaiting, swallowing)


async def test_a_child_that_fails_while_it_cleans_up_fails_the_await(world: World) -> None:
    async with world.engine(awaiting) as engine:
        run = await engine.start(awaiting("failing"), id="p")
        await rests(engine, "child")
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await soon(run.result())
        assert await engine.run("child").status() == "failed"
        await check_store(engine.store, awaiting, failing_at_it)


async def test_terminating_a_parent_that_waits_for_a_childs_clean_up(world: World) -> None:
    """The child was asked to end already; a parent that asks for no more than that leaves it to clean up."""
    async with world.engine(awaiting) as engine:
        run = await engine.start(awaiting("cleaning"), id="p")
        await rests(engine, "child")
        await run.cancel()
        await until(lambda: told == ["clean-up began"])
        await run.terminate()
        with pytest.raises(RunTerminatedError):
            await soon(run.result())
        gate("clean-up").set()
        await becomes(engine.run("child"), "cancelled")
        await check_store(engine.store, awaiting, cleaning)


async def test_a_child_to_be_terminated_is_terminated_although_it_was_asked_to_end_before(world: World) -> None:
    async with world.engine(awaiting) as engine:
        run = await engine.start(awaiting("cleaning", "terminate"), id="p")
        await rests(engine, "child")
        await run.cancel()
        await until(lambda: told == ["clean-up began"])
        await run.terminate()
        await becomes(engine.run("child"), "terminated")
        await until(lambda: "clean-up cut off" in told)


@workflow
async def giving_up_on_it() -> str:
    handle = await durable.start(cleaning.options(id="child", parent_close="terminate")())
    await asyncio.sleep(10)
    await handle.cancel()
    await asyncio.sleep(10)
    return "leaves"


async def test_a_childs_parent_that_ends_terminates_what_it_had_only_cancelled(world: World) -> None:
    async with world.engine(giving_up_on_it) as engine:
        run = await engine.start(giving_up_on_it(), id="p")
        await rests(engine, "child")
        await rests(engine, "p")
        world.clock.advance(11)
        await until(lambda: told == ["clean-up began"])
        await rests(engine, "p")
        world.clock.advance(11)
        assert await soon(run.result()) == "leaves"
        await becomes(engine.run("child"), "terminated")
        await check_store(engine.store, giving_up_on_it, cleaning)


# -- from outside ---------------------------------------------------------------------------------------------------------


@workflow
async def asking(kind: str) -> str:
    try:
        return await KINDS[kind].options(id="child")()
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(("how", "error"), [("cancel", "RunCancelledError"), ("terminate", "RunTerminatedError")])
async def test_a_child_that_somebody_else_ends_is_an_error_for_its_parent(how: str, error: str, world: World) -> None:
    async with world.engine(asking) as engine:
        run = await engine.start(asking("cleaning"), id="p")
        await rests(engine, "child")
        gate("clean-up").set()
        await getattr(engine.run("child"), how)(reason="by hand", by="alice")
        found = await soon(run.result())
        assert found.startswith(f"{error}: ")
        assert "by hand" in found
        assert "'child'" in found
        await check_store(engine.store, asking, cleaning)


@workflow
async def with_handles() -> list[str]:
    said = []
    for how in ("cancel", "terminate"):
        handle = await durable.start(child.options(id=how)())
        await asyncio.sleep(10)
        await getattr(handle, how)()
        try:
            said.append(await handle.result())
        except (RunCancelledError, RunTerminatedError) as error:
            said.append(type(error).__name__)
    return said


async def test_a_parent_ends_its_children_by_their_handles(world: World) -> None:
    async with world.engine(with_handles) as engine:
        run = await engine.start(with_handles(), id="p")
        for how in ("cancel", "terminate"):
            await rests(engine, how)
            await rests(engine, "p")
            world.clock.advance(11)
        assert await soon(run.result()) == ["RunCancelledError", "RunTerminatedError"]
        assert told == ["cleaned up"]
        await check_store(engine.store, with_handles, child)


@workflow
async def started_and_ended_at_once(how: str) -> str:
    handle = await durable.start(child.options(id="child")())
    await getattr(handle, how)()
    try:
        return await handle.result()
    except (RunCancelledError, RunTerminatedError) as error:
        return type(error).__name__


@pytest.mark.parametrize(("how", "error"), [("cancel", "RunCancelledError"), ("terminate", "RunTerminatedError")])
async def test_a_child_that_is_ended_in_the_turn_that_started_it(how: str, error: str, world: World) -> None:
    async with world.engine(started_and_ended_at_once) as engine:
        run = await engine.start(started_and_ended_at_once(how), id="p")
        assert await soon(run.result()) == error
        await check_store(engine.store, started_and_ended_at_once, child)


@workflow
async def twice(policy: Any, how: str) -> str:
    """One chosen id in two calls: the second is a conflict, which it does not hear of while the run is paused."""
    first = await durable.start(child.options(id="child", parent_close="abandon")())
    await go_on.receive()
    second = await durable.start(child.options(id="child", parent_close=policy)())
    await go_on.receive()
    if how != "end":
        await getattr(second, how)()
        await go_on.receive()
    return f"ended before {first.id}"


@pytest.mark.parametrize("how", ["cancel", "end"])
@pytest.mark.parametrize("policy", ["cancel", "terminate"])
async def test_what_one_call_asks_is_not_heard_by_the_child_of_another(policy: Any, how: str, world: World) -> None:
    async with world.engine(twice, child) as engine:
        run = await engine.start(twice(policy, how), id="p")
        mine = await exists(engine, "child")
        await rests(engine, "child")
        await mine.pause()
        await becomes(mine, "paused")
        for _ in range(2 if how == "end" else 3):
            await run.signal(go_on, 1)
        assert await soon(run.result()) == "ended before child"
        await mine.unpause()
        await rests(engine, "child")
        assert await mine.status() == "running"
        assert not {"CancelRequested", "RunTerminated"} & {type(event).__name__ for event in await events_of(mine)}
        await check_store(engine.store, twice, child)


@workflow
async def namesake(policy: Any, how: str, made_first: bool) -> str:
    """Two calls of which one's chosen id is what the other's child is called by default; the second is a conflict."""
    first, second = ({}, {"id": "p/child#1"}) if made_first else ({"id": "p/child#2"}, {})
    begun = await durable.start(child.options(parent_close="abandon", **first)())
    await go_on.receive()
    handle = await durable.start(child.options(parent_close=policy, **second)())
    await go_on.receive()
    if how != "end":
        await getattr(handle, how)()
        await go_on.receive()
    return f"ended before {begun.id}"


@pytest.mark.parametrize("made_first", [True, False])
@pytest.mark.parametrize("how", ["cancel", "end", "terminate"])
@pytest.mark.parametrize("policy", ["cancel", "terminate"])
async def test_nor_by_one_that_is_called_as_the_other_would_be(
    policy: Any, how: str, made_first: bool, world: World
) -> None:
    async with world.engine(namesake, child) as engine:
        run = await engine.start(namesake(policy, "cancel" if how == "cancel" else "end", made_first), id="p")
        name = "p/child#1" if made_first else "p/child#2"
        mine = await exists(engine, name)
        await rests(engine, name)
        await mine.pause()
        await becomes(mine, "paused")
        for _ in range({"cancel": 3, "end": 2, "terminate": 1}[how]):
            await run.signal(go_on, 1)
        if how == "terminate":
            await becomes_calls(run, 2)
            await run.terminate()
            await becomes(run, "terminated")
        else:
            assert await soon(run.result()) == f"ended before {name}"
        await mine.unpause()
        await rests(engine, name)
        assert await mine.status() == "running"
        assert not {"CancelRequested", "RunTerminated"} & {type(event).__name__ for event in await events_of(mine)}
        await check_store(engine.store, namesake, child)


@pytest.mark.parametrize(
    ("run_id", "call", "heard"),
    [("chosen", "0:p/c#1", True), ("p/page-3", "0:p/c#1", True), ("p/c#2", "", True), ("p/c#2", "0:p/c#1", False)],
)
def test_a_child_of_an_earlier_version_that_did_not_say_its_call(run_id: str, call: str, heard: bool) -> None:
    assert is_for(CancelMail(parent="p", call=call), run_id, {PARENT: "p"}) is heard
    assert is_for(TerminateMail(parent="p", call=call), run_id, {PARENT: "p"}) is heard
    assert not is_for(CancelMail(parent="p", call=call), run_id, {PARENT: "q"})
    assert is_for(CancelMail(), run_id, {PARENT: "p"})


async def becomes_calls(run: RunHandle[Any], count: int) -> None:
    """Wait until the run has made so many calls of children."""

    async def has_them() -> bool:
        return len((await run.state()).children) == count

    await until_async(has_them)


# -- the parent's epochs --------------------------------------------------------------------------------------------------


@workflow
async def again_and_again(n: int) -> list[str]:
    handle = await durable.start(child.options(parent_close="abandon", id="child")())
    if n:
        await asyncio.sleep(10)
        await durable.continue_as_new(again_and_again(n - 1))
    try:
        return ["got", await handle.result()]
    except Exception as error:  # noqa: BLE001
        return [type(error).__name__]


async def test_a_child_of_an_epoch_that_is_over_is_a_conflict_for_the_next(world: World) -> None:
    async with world.engine(again_and_again) as engine:
        run = await engine.start(again_and_again(1), id="p")
        await rests(engine, "child")
        await rests(engine, "p")
        world.clock.advance(11)
        assert await soon(run.result()) == ["RunConflict"]
        assert await engine.run("child").status() == "running"
        await check_store(engine.store, again_and_again, child)


@workflow
async def one_child_each(n: int) -> str:
    await quick(n)
    if n:
        await durable.continue_as_new(one_child_each(n - 1))
    return "over"


@workflow
async def quick(n: int) -> int:
    await tell(str(n))
    return n


async def test_the_same_call_in_the_next_epoch_is_another_child(world: World) -> None:
    async with world.engine(one_child_each) as engine:
        run = await engine.start(one_child_each(2), id="p")
        assert await soon(run.result()) == "over"
        assert told == ["2", "1", "0"]
        assert await statuses(engine, "p") == dict.fromkeys(["p/quick#1", "p/quick#1@1", "p/quick#1@2"], "completed")
        await check_store(engine.store, one_child_each, quick)


# -- told once ------------------------------------------------------------------------------------------------------------


async def test_a_late_end_of_a_child_is_a_note_that_changes_nothing(world: World) -> None:
    async with world.engine(abandoning) as engine:
        run = await engine.start(abandoning(), id="p")
        await rests(engine, "child")
        await rests(engine, "p")
        world.clock.advance(11)
        await until(lambda: "clean-up began" in told)
        await rests(engine, "p")
        gate("clean-up").set()
        await becomes(engine.run("child"), "cancelled")
        world.clock.advance(1_000)
        assert await soon(run.result()) == "slept"
        assert "ChildOutcomeIgnored" in await kinds_of(run)
        await check_store(engine.store, abandoning, cleaning)


@workflow
async def abandoning() -> str:
    try:
        async with asyncio.timeout(10):
            await cleaning.options(on_cancel="abandon", id="child")()
    except TimeoutError:
        await asyncio.sleep(500)
    return "slept"


@workflow
async def abandoning_for_good(seconds: float) -> str:
    try:
        async with asyncio.timeout(10):
            await cleaning.options(on_cancel="abandon", parent_close="terminate", id="child")()
    except TimeoutError:
        await asyncio.sleep(seconds)
    return "left"


async def test_an_abandoned_child_that_cleans_up_is_terminated_with_its_parent(world: World) -> None:
    """It was asked to end, and is still its parent's: the policy of its call holds."""
    async with world.engine(abandoning_for_good) as engine:
        run = await engine.start(abandoning_for_good(500), id="p")
        await rests(engine, "child")
        await rests(engine, "p")
        world.clock.advance(11)
        await until(lambda: "clean-up began" in told)
        assert await engine.run("child").status() == "running"
        world.clock.advance(1_000)
        assert await soon(run.result()) == "left"
        await becomes(engine.run("child"), "terminated")
        kinds = await kinds_of(run)
        assert (kinds.count("ChildCancelled"), kinds.count("ChildTerminated")) == (1, 1)
        await check_store(engine.store, abandoning_for_good, cleaning)


async def test_an_abandoned_child_that_has_ended_is_not_ended_again(world: World) -> None:
    async with world.engine(abandoning_for_good) as engine:
        run = await engine.start(abandoning_for_good(500), id="p")
        await rests(engine, "child")
        await rests(engine, "p")
        world.clock.advance(11)
        await until(lambda: "clean-up began" in told)
        gate("clean-up").set()
        await becomes(engine.run("child"), "cancelled")

        async def heard() -> bool:
            return "ChildFailed" in await kinds_of(run)

        await until_async(heard)
        await rests(engine, "p")
        world.clock.advance(1_000)
        assert await soon(run.result()) == "left"
        assert "ChildTerminated" not in await kinds_of(run)
        await check_store(engine.store, abandoning_for_good, cleaning)


async def test_a_run_that_is_not_its_child_is_not_terminated_with_it(world: World) -> None:
    """Its id was taken, which it hears of when it has given up the wait."""
    async with world.engine(abandoning_at_once, child) as engine:
        stranger = await engine.start(child(), id="child")
        await rests(engine, "child")
        run = await engine.start(abandoning_at_once(), id="p")
        await rests(engine, "p")
        world.clock.advance(11)
        assert await soon(run.result()) == "left"
        assert "ChildTerminated" not in await kinds_of(run)
        assert await stranger.status() != "terminated"


@workflow
async def abandoning_at_once() -> str:
    waiting = asyncio.ensure_future(child.options(on_cancel="abandon", parent_close="terminate", id="child")())
    await tell("started")
    waiting.cancel()
    await asyncio.sleep(10)
    return "left"


async def test_who_asked_a_child_to_end_stands_in_its_history(world: World) -> None:
    async with world.engine(grandmother) as engine:
        run = await engine.start(grandmother("cancel"), id="top")
        await rests(engine, "child")
        await run.cancel()
        await becomes(engine.run("child"), "cancelled")
        (asked,) = [
            event for event in await events_of(engine.run("child")) if type(event).__name__ == "CancelRequested"
        ]
        assert asked.by == "run mother"


@workflow
async def starting_and_cancelling(policy: Any, then: str) -> str:
    """All of it in one turn."""
    handle = await durable.start(child.options(parent_close=policy, id="child")())
    await handle.cancel()
    match then:
        case "continues":
            await asyncio.sleep(10)
        case "epoch":
            await durable.continue_as_new(starting_and_cancelling(policy, "nothing"))
        case "fails":
            raise ValueError(then)
        case "cancels the wait":
            waiting = asyncio.ensure_future(handle.result())
            await asyncio.sleep(0)
            waiting.cancel()
    return then


@pytest.mark.parametrize("then", ["ends", "fails", "epoch", "cancels the wait"])
@pytest.mark.parametrize("policy", ["cancel", "terminate"])
async def test_a_child_that_is_started_cancelled_and_left_in_one_turn_leaves_no_trace(
    policy: Any, then: str, world: World
) -> None:
    async with world.engine(starting_and_cancelling) as engine:
        run = await engine.start(starting_and_cancelling(policy, then), id="p")
        await becomes(run, "failed" if then == "fails" else "completed")
        assert not [kind for kind in await kinds_of(run) if kind.startswith("Child")]
        assert await statuses(engine, "p") == {}
        await check_store(engine.store, starting_and_cancelling)


@pytest.mark.parametrize("then", ["ends", "continues"])
async def test_a_child_that_is_started_and_cancelled_in_one_turn_and_wanted_ends_cancelled(
    then: str, world: World
) -> None:
    """By whoever goes on, or by a parent that leaves it to itself: history and mail both say that it was started."""
    policy = "abandon" if then == "ends" else "cancel"
    async with world.engine(starting_and_cancelling) as engine:
        run = await engine.start(starting_and_cancelling(policy, then), id="p")
        await becomes(await exists(engine, "child"), "cancelled")
        kinds = await kinds_of(run)
        assert (kinds.count("ChildStarted"), kinds.count("ChildCancelled")) == (1, 1)
        world.clock.advance(11)
        assert await soon(run.result()) == then
        await check_store(engine.store, starting_and_cancelling, child)
