"""Singletons: of the runs with one key, at most one has begun and not ended, whatever comes in between.

`check_store` looks at that in the log itself: no run begins between another's `RunBegun` and its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from engine import Engine, Request, RunHandle, Signal, durable, task, workflow
from engine.core.events import CancelRequested, RunBegun, RunQueued
from engine.errors import (
    EngineFailed,
    HoldfastError,
    RepairRefused,
    RunCancelledError,
    RunConflict,
    RunEnded,
    RunSuspendedError,
    RunTerminatedError,
    SingletonHeld,
)
from engine.runtime.keys import pool_of
from eventstore import StoreUnavailable
from eventstore.port import NAME_BYTES_MAX, POOL_BYTES_MAX
from tests.runtime.faulty import Fault, FaultyStore, Pause, at_call, leave
from tests.runtime.invariants import check_store
from tests.runtime.worlds import MemoryWorld, World, at_rest, events_of, kinds_of, settle, soon, until, until_async

end = Signal("end", str)
question = Request("question", str, str)
told: list[str] = []
inside: set[str] = set()


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    told.clear()
    inside.clear()
    yield
    told.clear()
    inside.clear()


@task
async def tell(what: str) -> str:
    told.append(what)
    return what


@workflow
async def sync(name: str) -> str:
    """Goes on until it is told to end; says so when it is cancelled."""
    await tell(f"{name} begins")
    try:
        said = await end.receive()
    finally:
        await tell(f"{name} ends")
    return f"{name}: {said}"


@workflow
async def other(name: str) -> str:
    return await end.receive()


@workflow
async def many_lives(left: int) -> str:
    await end.receive()
    if left:
        await durable.continue_as_new(many_lives(left - 1))
    return "done"


@workflow
async def at_once(name: str) -> str:
    return await tell(name)


@workflow
async def asked() -> str:
    received = await question.receive()
    received.answer(received.value.upper())
    return received.value


async def becomes(run: RunHandle[Any], status: str) -> None:
    async def has_it() -> bool:
        return await run.status() == status

    await until_async(has_it)


async def begins(run: RunHandle[Any]) -> None:
    async def has_begun() -> bool:
        return "RunBegun" in await kinds_of(run)

    await until_async(has_begun)


async def ended(run: RunHandle[Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        await soon(run.result())


# -- what is done with whoever has the key --------------------------------------------------------------------------------


@pytest.mark.parametrize("explicit", [False, True])
async def test_reject_refuses_and_writes_nothing(world: World, explicit: bool) -> None:
    async with world.engine(sync, other) as engine:
        first = await engine.start(sync("one"), id="a", singleton="k")
        with pytest.raises(SingletonHeld, match=r"run 'a' of workflow 'sync' has the singleton key 'k'") as caught:
            await engine.start(sync("two"), id="b", singleton="k", **({"on_conflict": "reject"} if explicit else {}))
        assert (caught.value.run_id, caught.value.key) == ("a", "k")
        assert [summary.id for summary in (await engine.runs()).items] == ["a"]
        assert (await engine.runs()).items[0].singleton == "k"
        free = await engine.start(sync("three"), id="c", singleton="other key")
        of_another = await engine.start(other("four"), id="d", singleton="k")
        for run in (first, free, of_another):
            await run.signal(end, "now")
            await soon(run.result())
        again = await engine.start(sync("five"), id="e", singleton="k")
        await again.signal(end, "now")
        assert await soon(again.result()) == "five: now"
        await check_store(engine.store, sync, other)


async def test_attach_returns_who_has_it_and_tells_it_what_ours_was_to_be_told(world: World) -> None:
    async with world.engine(sync) as engine:
        first = await engine.start(sync("one"), id="a", singleton="k", on_conflict="attach")
        await begins(first)
        second = await engine.start(
            sync("two"), id="b", singleton="k", on_conflict="attach", signals=[end.message("from b")]
        )
        assert second.id == "a"
        assert await soon(second.result()) == "one: from b"
        third = await engine.start(sync("three"), id="c", singleton="k", on_conflict="attach")
        assert third.id == "c"
        await third.signal(end, "now")
        await soon(third.result())
        await check_store(engine.store, sync)


async def test_queue_begins_one_after_the_other_as_they_came(world: World) -> None:
    async with world.engine(sync) as engine:
        runs = [
            await engine.start(sync(name), id=name, singleton="k", on_conflict="queue", by="ann") for name in "abcd"
        ]
        await begins(runs[0])
        await settle()
        assert [await run.status() for run in runs] == ["running", "queued", "queued", "queued"]
        (note,) = [event for event in await events_of(runs[2]) if isinstance(event, RunQueued)]
        assert (note.key, note.behind, note.replaces) == ("k", "a", False)
        state = await runs[2].state()
        assert (state.status, state.singleton, state.queued_behind) == ("queued", "k", "a")
        await runs[3].signal(end, "early")
        for run in runs[:3]:
            await begins(run)
            await run.signal(end, "now")
            await soon(run.result())
        assert await soon(runs[3].result()) == "d: early"
        assert told == [f"{name} {what}" for name in "abcd" for what in ("begins", "ends")]
        await check_store(engine.store, sync)


async def test_replace_ends_who_has_it_and_those_in_the_queue(world: World) -> None:
    async with world.engine(sync) as engine:
        first = await engine.start(sync("one"), id="a", singleton="k")
        await begins(first)
        queued = [await engine.start(sync(n), id=n, singleton="k", on_conflict="queue") for n in ("b", "c")]
        last = await engine.start(sync("last"), id="z", singleton="k", on_conflict="replace", by="ann")
        for run in (first, *queued):
            await ended(run, RunCancelledError, "replaced by run 'z'")
        await begins(last)
        await until(lambda: len(told) == 3)
        assert told == ["one begins", "one ends", "last begins"]
        (asked,) = [event for event in await events_of(first) if isinstance(event, CancelRequested)]
        assert asked.by == "ann"
        assert "RunBegun" not in await kinds_of(queued[0])
        await last.signal(end, "now")
        assert await soon(last.result()) == "last: now"
        await check_store(engine.store, sync)


async def test_of_many_that_replace_each_other_one_is_left(world: World) -> None:
    async with world.engine(sync) as one, world.engine(sync) as two:
        runs = await asyncio.gather(
            *(
                (one, two)[n % 2].start(sync(str(n)), id=f"r{n}", singleton="k", on_conflict="replace")
                for n in range(10)
            )
        )

        async def one_is_left() -> bool:
            statuses = [await run.status() for run in runs]
            return statuses.count("cancelled") == 9 and statuses.count("running") == 1

        await until_async(one_is_left)
        for run in runs:
            if await run.status() == "running":
                await run.signal(end, "now")
                await soon(run.result())
        await check_store(one.store, sync)


@pytest.mark.parametrize("policy", ["queue", "replace", "attach", "reject"])
async def test_two_engines_that_start_the_same_key_at_once(world: World, policy: Any) -> None:
    async with world.engine(at_once) as one, world.engine(at_once) as two:

        async def start(n: int) -> str:
            try:
                run = await (one, two)[n % 2].start(at_once(str(n)), id=f"r{n}", singleton="k", on_conflict=policy)
            except SingletonHeld:
                return "held"
            try:
                return await soon(run.result())
            except RunCancelledError:
                return "replaced"

        answers = await asyncio.gather(*(start(n) for n in range(20)))
        if policy == "queue":
            assert sorted(answers) == sorted(str(n) for n in range(20))
        assert len(told) == len(set(told)) > 0
        assert set(answers) - {"held", "replaced"} <= set(told)
        await check_store(one.store, at_once)
        last = await one.start(at_once("last"), singleton="k")
        assert await soon(last.result()) == "last"


async def test_the_same_id_again_joins(world: World) -> None:
    async with world.engine(sync) as engine:
        await engine.start(sync("one"), id="a", singleton="k")
        assert (await engine.start(sync("one"), id="a", singleton="k")).id == "a"
        queued = await engine.start(sync("two"), id="b", singleton="k", on_conflict="queue")
        again = await engine.start(sync("two"), id="b", singleton="k", on_conflict="replace")
        assert again.id == "b"
        await settle()
        assert await queued.status() == "queued"
        with pytest.raises(RunConflict):
            await engine.start(sync("three"), id="b", singleton="k", on_conflict="queue")
        await engine.run("a").signal(end, "now")
        await queued.signal(end, "now")
        assert await soon(queued.result()) == "two: now"
        with pytest.raises(RunEnded):
            await engine.start(sync("two"), id="b", singleton="k", signals=[end.message("late")])
        await check_store(engine.store, sync)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"singleton": ""}, "1 to 200 printable"),
        ({"singleton": "x" * 201}, "1 to 200 printable"),
        ({"singleton": "a\nb"}, "1 to 200 printable"),
        ({"singleton": 7}, "singleton=7"),
        ({"singleton": "k", "on_conflict": "wait"}, "one of reject, attach, replace, queue"),
        ({"on_conflict": "queue"}, "without singleton="),
    ],
)
async def test_what_is_no_key_and_no_policy_is_refused(world: World, options: Any, match: str) -> None:
    async with world.engine(sync) as engine:
        with pytest.raises(HoldfastError, match=match):
            await engine.start(sync("one"), id="a", **options)
        assert (await engine.runs()).items == ()


# -- what happens to them meanwhile -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_one_that_ends_in_the_queue_leaves_it(world: World, how: str) -> None:
    async with world.engine(sync) as engine:
        runs = [await engine.start(sync(name), id=name, singleton="k", on_conflict="queue") for name in "abc"]
        await runs[1].signal(end, "unheard")
        await getattr(runs[1], how)(reason="enough")
        await ended(runs[1], RunCancelledError if how == "cancel" else RunTerminatedError, "enough")
        await runs[0].signal(end, "now")
        await runs[2].signal(end, "now")
        assert await soon(runs[2].result()) == "c: now"
        assert "RunBegun" not in await kinds_of(runs[1])
        await check_store(engine.store, sync)


async def test_one_that_is_cancelled_in_the_queue_ends_though_its_worker_dies_half_way(
    memory: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end takes several commits, and only the first is written: the mail that asked for it is gone with that."""
    monkeypatch.setattr("engine.runtime.writing.COMMIT_EVENTS_MAX", 1)
    store = FaultyStore(memory.data)
    dying = Engine(store, workflows=[sync], clock=memory.clock, only=["b"])

    async def die(name: str, argument: Any) -> None:
        if name == "commit" and any(b'"CancelRequested"' in event.header for event in argument.events):
            store.die()
            raise StoreUnavailable("planned: it died behind that commit")

    async with Engine(memory.data, workflows=[sync], clock=memory.clock, only=["a", "c"]) as engine:
        runs = [await engine.start(sync(name), id=name, singleton="k", on_conflict="queue") for name in "ac"]
        await dying.__aenter__()
        queued = await dying.start(sync("b"), id="b", singleton="k", on_conflict="queue")
        store.after = die
        await queued.cancel(reason="enough")
        await until(lambda: store.dead)
        await leave(dying)
        async with Engine(memory.data, workflows=[sync], clock=memory.clock) as other:
            await ended(other.run("b"), RunCancelledError, "enough")
        for run in runs:
            await run.signal(end, "now")
            await soon(run.result())
        assert "RunBegun" not in await kinds_of(engine.run("b"))
        await check_store(memory.data, sync)


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_the_key_is_free_however_its_run_ends(world: World, how: str) -> None:
    async with world.engine(sync) as engine:
        run = await engine.start(sync("one"), id="a", singleton="k")
        await begins(run)
        queued = await engine.start(sync("two"), id="b", singleton="k", on_conflict="queue")
        await getattr(run, how)()
        await begins(queued)
        await check_store(engine.store, sync)


@pytest.mark.parametrize("granted_first", [False, True])
async def test_one_that_is_paused_in_the_queue_begins_when_it_is_its_turn_and_unpaused(
    world: World, granted_first: bool
) -> None:
    async with world.engine(sync) as engine:
        first = await engine.start(sync("one"), id="a", singleton="k")
        queued = await engine.start(sync("two"), id="b", singleton="k", on_conflict="queue")
        await queued.pause(reason="not yet")
        await becomes(queued, "paused")
        if granted_first:
            await first.signal(end, "now")
            await soon(first.result())
            await at_rest(engine.store, "b")
            await settle(100)
            assert (await kinds_of(queued))[-1] == "RunPaused"
            with pytest.raises(SingletonHeld, match="run 'b'"):
                await engine.start(sync("three"), singleton="k")
            await queued.unpause()
        else:
            await queued.unpause()
            await becomes(queued, "queued")
            await first.signal(end, "now")
        await begins(queued)
        await queued.signal(end, "now")
        assert await soon(queued.result()) == "two: now"
        await check_store(engine.store, sync)


async def test_mail_for_one_in_the_queue_waits_with_it_and_not_in_memory(world: World) -> None:
    async with world.engine(asked) as engine:
        first = await engine.start(asked(), id="a", singleton="k")
        queued = await engine.start(asked(), id="b", singleton="k", on_conflict="queue")
        asking = asyncio.ensure_future(queued.ask(question, "why"))
        await settle()
        await queued.pause()
        await becomes(queued, "paused")
        await at_rest(engine.store, "b")
        await queued.unpause()
        await becomes(queued, "queued")
        await at_rest(engine.store, "b")
        assert await first.ask(question, "me") == "ME"
        assert await soon(asking) == "WHY"
        await check_store(engine.store, asked)


async def test_a_paused_workflow_keeps_the_queue_and_its_order(world: World) -> None:
    async with world.engine(sync) as engine:
        runs = [await engine.start(sync(name), id=name, singleton="k", on_conflict="queue") for name in "ab"]
        await begins(runs[0])
        await engine.pause_workflow(sync)
        runs.append(await engine.start(sync("c"), id="c", singleton="k", on_conflict="queue"))
        await runs[0].terminate()
        await ended(runs[0], RunTerminatedError, "terminated")
        await settle(200)
        assert [await run.status() for run in runs] == ["terminated", "queued", "queued"]
    async with world.engine(sync) as engine:
        runs = [engine.run(name) for name in "abc"]
        await settle()
        assert "RunBegun" not in await kinds_of(runs[1])
        await engine.unpause_workflow(sync)
        for run in runs[1:]:
            await begins(run)
            await run.signal(end, "now")
            await soon(run.result())
        await check_store(engine.store, sync)


async def test_the_key_is_kept_over_epochs_and_sleep_and_engines(world: World) -> None:
    async with world.engine(many_lives) as engine:
        run = await engine.start(many_lives(2), id="a", singleton="k")
        await begins(run)
        await run.signal(end, "1")
    async with world.engine(many_lives) as engine:
        run = engine.run("a")
        with pytest.raises(SingletonHeld, match="run 'a'"):
            await engine.start(many_lives(0), singleton="k")
        await run.signal(end, "2")

        async def in_its_last_life() -> bool:
            return (await run.state()).epoch == 2

        await until_async(in_its_last_life)
        await at_rest(engine.store, "a")
        world.clock.advance(1e7)
        with pytest.raises(SingletonHeld, match="run 'a'"):
            await engine.start(many_lives(0), singleton="k")
        queued = await engine.start(many_lives(0), id="b", singleton="k", on_conflict="queue")
        await run.signal(end, "3")
        await soon(run.result())
        await queued.signal(end, "now")
        assert await soon(queued.result()) == "done"
        await check_store(engine.store, many_lives)


async def test_a_delayed_one_has_its_key_from_the_start(world: World) -> None:
    async with world.engine(sync) as engine:
        late = await engine.start(sync("late"), id="a", singleton="k", delay=60)
        with pytest.raises(SingletonHeld, match="run 'a'"):
            await engine.start(sync("now"), singleton="k")
        later = await engine.start(sync("later"), id="b", singleton="k", delay=90, on_conflict="replace")
        await ended(late, RunCancelledError, "replaced by run 'b'")
        world.clock.advance(60)
        await settle(100)
        assert await later.status() == "queued"
        world.clock.advance(30)
        await begins(later)
        await until(lambda: told)
        assert told == ["later begins"]
        await check_store(engine.store, sync)


async def test_one_whose_code_does_not_fit_keeps_its_place(world: World) -> None:
    """Its arguments are not what the code takes now: it is suspended in the queue, and its turn comes all the same."""

    @workflow(name="sync")
    async def changed(name: int) -> str:
        return str(name)

    async with world.engine(sync) as engine:
        first = await engine.start(sync("one"), id="a", singleton="k")
        await begins(first)
        queued = await engine.start(sync("two"), id="b", singleton="k", on_conflict="queue")
        await settle()
    async with world.engine(changed) as engine:
        queued = engine.run("b")
        await queued.pause()  # somebody has to look at it
        await ended(queued, RunSuspendedError, "suspended")
        await engine.run("a").terminate()
        await until_async(lambda: _has_no_queue(engine, "b"))
        assert await queued.status() == "suspended"
    async with world.engine(sync) as engine:
        queued = engine.run("b")
        with pytest.raises(SingletonHeld, match="run 'b'"):
            await engine.start(sync("three"), singleton="k")
        await queued.resume()

        async def goes_on() -> bool:
            if await queued.status() == "paused":
                await queued.unpause()
            return "RunBegun" in await kinds_of(queued)

        await until_async(goes_on)
        await queued.signal(end, "now")
        assert await soon(queued.result()) == "two: now"
        await check_store(engine.store, sync)


@pytest.mark.parametrize("granted", [False, True])
async def test_one_that_is_mended_in_the_queue_stays_in_it(world: World, granted: bool) -> None:
    """It goes on as soon as code fits, which is to wait for its turn: it is not claimed and given up for ever."""

    @workflow(name="sync")
    async def changed(name: int) -> str:
        return str(name)

    async with world.engine(sync) as engine:
        first = await engine.start(sync("one"), id="a", singleton="k")
        await begins(first)
        queued = await engine.start(sync("two"), id="b", singleton="k", on_conflict="queue")
        await settle()
    async with world.engine(changed) as engine:
        queued = engine.run("b")
        await queued.pause()
        await ended(queued, RunSuspendedError, "suspended")
        if granted:
            await engine.run("a").terminate()
            await until_async(lambda: _has_no_queue(engine, "b"))
        await at_rest(engine.store, "b")
    store = FaultyStore(await world.store())
    commits: list[Any] = []

    async def count(name: str, commit: Any) -> None:
        if name == "commit" and commit.stream == "run:b":
            commits.append(commit)

    store.before = count
    async with Engine(store, workflows=[sync], clock=world.clock, grace=0) as engine:
        queued = engine.run("b")
        if not granted:
            await becomes(queued, "queued")
            await at_rest(engine.store, "b")
            await settle(500)
            assert (await queued.state()).status == "queued"
            assert len(commits) == 1, "it was let go on, and nobody has touched it since"
            assert (await kinds_of(queued))[2:] == ["RunSuspended", "RunResumed"]
            with pytest.raises(SingletonHeld, match="run 'a'"):
                await engine.start(sync("three"), singleton="k")
            await engine.run("a").terminate()
        await begins(queued)
        await queued.signal(end, "now")
        assert await soon(queued.result()) == "two: now"
        await check_store(engine.store, sync)


async def _has_no_queue(engine: Engine, run_id: str) -> bool:
    return "queued" not in (await engine.store.head(f"run:{run_id}")).attributes


# -- reopened ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_one_that_ended_in_the_queue_and_is_reopened_begins_once_it_has_the_key(world: World, how: str) -> None:
    async with world.engine(sync) as engine:
        first = await engine.start(sync("one"), id="a", singleton="k")
        queued = await engine.start(sync("two"), id="b", singleton="k", on_conflict="queue")
        await begins(first)
        await getattr(queued, how)(reason="by mistake")
        await ended(queued, RunCancelledError if how == "cancel" else RunTerminatedError, "by mistake")
        before = await events_of(queued)
        with pytest.raises(RepairRefused, match="run 'a' has its singleton key 'k'"):
            await engine.reopen("b")
        assert await events_of(queued) == before
        assert await queued.status() == before[-1].__class__.__name__.removeprefix("Run").lower()
        await first.signal(end, "now")
        await soon(first.result())
        queued = await engine.reopen("b", by="ann")
        assert await queued.status() in ("queued", "running")
        await begins(queued)
        await at_rest(engine.store, "b")
        assert "queued" not in (await engine.store.head("run:b")).attributes
        with pytest.raises(SingletonHeld, match="run 'b'"):
            await engine.start(sync("three"), singleton="k")
        await queued.signal(end, "now")
        assert await soon(queued.result()) == "two: now"
        assert (await kinds_of(queued)).count("RunBegun") == 1
        await check_store(engine.store, sync)


async def test_one_that_is_reopened_takes_its_key_again_or_is_refused(world: World) -> None:
    """Two with one key never run at once, whoever lets them go on."""
    async with world.engine(sync) as engine:
        first = await engine.start(sync("one"), id="a", singleton="k")
        await begins(first)
        await first.terminate()
        await ended(first, RunTerminatedError, "terminated")
        second = await engine.start(sync("two"), id="b", singleton="k")
        third = await engine.start(sync("three"), id="c", singleton="k", on_conflict="queue")
        for holder in (second, third):
            await begins(holder)
            with pytest.raises(RepairRefused, match=f"run {holder.id!r} has its singleton key 'k'.* has ended, or end"):
                await engine.reopen("a")
            assert await first.status() == "terminated"
            await holder.signal(end, "now")
            await soon(holder.result())
        first = await engine.reopen("a", by="ann")
        with pytest.raises(SingletonHeld, match="run 'a'"):
            await engine.start(sync("four"), singleton="k")
        last = await engine.start(sync("five"), id="e", singleton="k", on_conflict="queue")
        await settle()
        assert [await run.status() for run in (first, last)] == ["running", "queued"]
        await first.signal(end, "now")
        assert await soon(first.result()) == "one: now"
        await begins(last)
        await last.signal(end, "now")
        assert await soon(last.result()) == "five: now"
        await check_store(engine.store, sync)


# -- races ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["attach", "queue", "replace"])
@pytest.mark.parametrize("successor", [False, True])
async def test_the_holder_ends_just_then(world: World, policy: Any, successor: bool) -> None:
    """Between the refusal that names it, and what is done about that; another may even have come instead."""
    inner = await world.store()
    store = FaultyStore(inner)
    async with (
        world.engine(sync) as away,
        Engine(store, workflows=[sync], clock=world.clock, grace=0) as engine,
    ):
        first = await away.start(sync("one"), id="a", singleton="k")
        await begins(first)
        queues = (
            Pause(store, behind=False, when=lambda name, _: name == "send")
            if policy == "attach"
            else Pause(
                store, behind=False, when=lambda name, c: name == "commit" and c.stream == "run:z" and c.held is True
            )
        )
        told_first = [end.message("from z")] if policy == "attach" else []
        starting = asyncio.ensure_future(
            engine.start(sync("last"), id="z", singleton="k", on_conflict=policy, signals=told_first)
        )
        await soon(queues.reached.wait())
        await first.signal(end, "now")
        await soon(first.result())
        between = await away.start(sync("between"), id="m", singleton="k") if successor else None
        if between is not None:
            await begins(between)
        queues.let_go.set()
        last = await soon(starting)
        if policy == "attach" and successor:
            assert last.id == "m"
            assert await soon(last.result()) == "between: from z"
        elif policy == "attach":
            assert await soon(last.result()) == "last: from z"
        else:
            if between is not None and policy == "replace":
                await ended(between, RunCancelledError, "replaced by run 'z'")
            elif between is not None:
                assert await last.status() == "queued"
                await between.signal(end, "now")
            await begins(last)
            await last.signal(end, "now")
            assert await soon(last.result()) == "last: now"
        await check_store(away.store, sync)
    await world.release(inner)


async def a_life(world: World, store: Any, policy: Any) -> bool:
    """Two starts with one key, and the end of both. Whether all of that was done."""
    try:
        async with Engine(store, workflows=[at_once], clock=world.clock, grace=0) as engine:
            runs = [
                await engine.start(at_once(name), id=name, singleton="k", on_conflict=policy) for name in ("a", "b")
            ]
            for run in runs:
                try:
                    await soon(run.result())
                except RunCancelledError:
                    continue
    except (StoreUnavailable, EngineFailed):
        return False
    return True


@pytest.mark.parametrize("policy", ["queue", "replace"])
@pytest.mark.parametrize("fault", ["die before", "die after"])
async def test_a_crash_at_any_call_of_the_store_leaves_one_and_a_key_that_can_be_had(
    worlds: Any, fault: Fault, policy: Any
) -> None:
    for number in range(1, 300):
        world = worlds("memory")
        store = FaultyStore(await world.store(), at_call(number, fault))
        done = await a_life(world, store, policy)
        for _ in range(3):
            if done:
                break
            done = await a_life(world, await world.store(), policy)
        async with world.engine(at_once) as engine:
            assert await soon(engine.run("b").result()) == "b"
            last = await engine.start(at_once("last"), singleton="k")
            assert await soon(last.result()) == "last"
            await check_store(engine.store, at_once)
        if not store.faults:
            assert number > 10
            return
    raise AssertionError("there is no end of it")


async def test_the_owner_of_the_holder_dies(world: World) -> None:
    """The key is the run's, not its worker's: it goes on elsewhere, and nobody begins meanwhile."""
    store = await world.store()
    async with Engine(store, workflows=[sync], clock=world.clock, grace=0) as dying:
        run = await dying.start(sync("one"), id="a", singleton="k")
        await begins(run)
        queued = await dying.start(sync("two"), id="b", singleton="k", on_conflict="queue")
        await world.crash(store)
    async with world.engine(sync) as engine:
        await settle(100)
        queued = engine.run("b")
        assert await queued.status() == "queued"
        with pytest.raises(SingletonHeld, match="run 'a'"):
            await engine.start(sync("three"), singleton="k")
        await engine.run("a").signal(end, "now")
        await queued.signal(end, "now")
        assert await soon(queued.result()) == "two: now"
        assert [type(event) for event in await events_of(queued)].count(RunBegun) == 1
        await check_store(engine.store, sync)
    await world.release(store)


# -- keys, as limits --------------------------------------------------------------------------------------------------------


async def test_keys_are_no_limits_of_anybody_else(world: World) -> None:
    async with world.engine(at_once, pools={"two": 2}) as engine:
        run = await engine.start(at_once("a"), singleton="k")
        await soon(run.result())
        assert [limit.name for limit in await engine.limits()] == ["two"]
        with pytest.raises(HoldfastError, match="key"):
            await engine.set_pool("singleton/at_once/k", 3)
    with pytest.raises(HoldfastError, match="key"):
        Engine("sqlite:///x.db", pools={"singleton/at_once/k": 3})


def test_names_of_pools_are_readable_and_never_too_long_and_never_the_same() -> None:
    assert pool_of("sync", "customer-7") == "singleton/sync/customer-7"
    long = [pool_of("w" * n, key) for n in (1, 200) for key in ("é" * 200, "é" * 199 + "e", "x" * 200)]
    assert len(set(long)) == len(long)
    assert all(len(name.encode()) <= POOL_BYTES_MAX < NAME_BYTES_MAX for name in long)


async def test_a_store_without_shared_limits_has_no_singletons(world: World) -> None:
    store = FaultyStore(await world.store())
    type(store).capabilities = property(lambda self: frozenset())  # type: ignore[misc, method-assign, assignment]
    try:
        async with Engine(store, workflows=[at_once], clock=world.clock) as engine:
            with pytest.raises(HoldfastError, match="no singletons"):
                await engine.start(at_once("a"), singleton="k")
    finally:
        type(store).capabilities = property(lambda self: self.inner.capabilities)  # type: ignore[misc, method-assign, assignment]
