"""Completion tokens: a task ends its attempt, and somebody else, somewhere else, ends the task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import attempt, durable, task, workflow
from engine.core.events import AttemptFailed, AttemptOutcomeIgnored, TaskCompleted, TaskFailed, TaskHandedOut
from engine.errors import (
    HoldfastError,
    NotRecordable,
    RunCancelledError,
    RunEnded,
    RunFailedError,
    TaskTimeout,
    TokenError,
)
from tests.language.talk import client, crashing, has, is_status
from tests.runtime.invariants import check_history
from tests.runtime.worlds import MemoryWorld, World, at_rest, events_of, settle, soon, until

tokens: list[str] = []


@pytest.fixture(autouse=True)
def _no_tokens() -> None:
    tokens.clear()


@task
async def ask_someone(what: str) -> int:
    tokens.append(attempt().token)
    attempt().later()


@task
def ask_from_a_thread(what: str) -> int:
    tokens.append(attempt().token)
    attempt().later()


@task(deadline=60)
async def ask_in_time(what: str) -> int:
    tokens.append(attempt().token)
    attempt().later()


@task
async def other_task() -> int:
    return 1


@workflow
async def asking() -> int:
    return await ask_someone("how many?")


@workflow
async def asking_from_a_thread() -> int:
    return await ask_from_a_thread("how many?")


@workflow
async def asking_in_time() -> str:
    try:
        return str(await ask_in_time("how many?"))
    except TaskTimeout:
        return "too late"


@workflow
async def asking_many(count: int) -> list[int]:
    return await asyncio.gather(*(ask_someone(f"{n}") for n in range(count)))


@pytest.mark.parametrize("workflow_", [asking, asking_from_a_thread], ids=lambda found: found.name)
async def test_a_task_is_completed_by_somebody_else(world: World, workflow_: Any) -> None:
    async with world.engine(workflow_) as engine, client(world) as other:
        run = await engine.start(workflow_(), id="a")
        await has(run, TaskHandedOut)
        await at_rest(engine.store, "a")
        assert (await run.state()).tasks[next(iter((await run.state()).tasks))].status == "handed out"
        await other.complete(tokens[0], 7)
        assert await soon(run.result()) == 7
        await check_history(engine.store, "a", workflow_)
        assert len(tokens) == 1


async def test_a_task_is_rejected_by_somebody_else(world: World) -> None:
    @workflow
    async def rejected() -> list[str]:
        said = []
        for _ in range(2):
            try:
                await ask_someone("what?")
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
        return said

    async with world.engine(rejected) as engine:
        run = await engine.start(rejected(), id="a")
        await has(run, TaskHandedOut)
        await engine.reject(tokens[0], ValueError("no"))
        await has(run, TaskHandedOut, 2)
        await engine.reject(tokens[1], "nobody is there")
        first, second = await soon(run.result())
        assert first == "ValueError: no"
        assert "nobody is there" in second
        await check_history(engine.store, "a", rejected)


async def test_a_task_stays_open_across_restarts(world: World) -> None:
    async with crashing(world, asking) as (engine, _):
        await has(await engine.start(asking(), id="a"), TaskHandedOut)
    async with world.engine(asking) as engine:
        await settle(200)
        assert len(tokens) == 1, "no attempt begins for a task that was handed out"
    async with client(world) as other:
        await other.complete(tokens[0], 7, task=ask_someone)  # nobody is there to take it
    async with world.engine(asking) as engine:
        assert await soon(engine.run("a").result()) == 7
        assert len(tokens) == 1
        await check_history(engine.store, "a", asking)


async def test_an_attempt_that_crashed_before_it_was_handed_out_runs_again_with_the_same_token(world: World) -> None:
    @task
    async def ask_slowly() -> int:
        tokens.append(attempt().token)
        if len(tokens) == 1:
            await asyncio.Event().wait()
        attempt().later()

    @workflow
    async def slowly() -> int:
        return await ask_slowly()

    async with crashing(world, slowly) as (engine, _):
        await engine.start(slowly(), id="a")
        await until(lambda: tokens)
    async with world.engine(slowly) as engine:
        run = engine.run("a")
        await has(run, TaskHandedOut)
        assert tokens[0] == tokens[1]
        await engine.complete(tokens[0], 7)
        assert await soon(run.result()) == 7
        await check_history(engine.store, "a", slowly)


async def test_the_second_completion_is_ignored(world: World) -> None:
    @workflow
    async def two() -> list[int]:
        return [await ask_someone("one"), await ask_someone("two")]

    async with world.engine(two) as engine, client(world) as other:
        run = await engine.start(two(), id="a")
        await has(run, TaskHandedOut)
        await engine.complete(tokens[0], 1)
        await other.complete(tokens[0], 2)
        await has(run, TaskHandedOut, 2)
        await other.complete(tokens[0], 3)
        await other.reject(tokens[0], "no")
        await other.complete(tokens[1], 4)
        assert await soon(run.result()) == [1, 4]
        await check_history(engine.store, "a", two)
        with pytest.raises(RunEnded):
            await engine.complete(tokens[0], 5)


async def test_completions_that_race_have_one_winner(world: World) -> None:
    async with world.engine(asking_many) as engine, client(world) as other:
        run = await engine.start(asking_many(6), id="a")
        await has(run, TaskHandedOut, 6)
        sends = [asker.complete(token, value) for token in tokens for value, asker in ((1, engine), (2, other))]
        for found in await soon(asyncio.gather(*sends, return_exceptions=True)):
            assert found is None or isinstance(found, RunEnded)
        found = await soon(run.result())
        assert set(found) <= {1, 2}
        assert sum(isinstance(event, TaskCompleted) for event in await events_of(run)) == 6
        await check_history(engine.store, "a", asking_many)


async def test_a_task_that_is_completed_before_it_hands_itself_out(world: World) -> None:
    go_on = asyncio.Event()

    @task
    async def ask_and_wait() -> int:
        tokens.append(attempt().token)
        await go_on.wait()
        attempt().later()

    @workflow
    async def quick() -> int:
        found = await ask_and_wait()
        await asyncio.sleep(100)
        return found

    async with world.engine(quick) as engine:
        run = await engine.start(quick(), id="a")
        await until(lambda: tokens)
        await engine.complete(tokens[0], 7)
        await has(run, TaskCompleted)
        go_on.set()
        await at_rest(engine.store, "a")
        world.clock.advance(100)
        assert await soon(run.result()) == 7
        await check_history(engine.store, "a", quick)


async def test_a_task_that_returns_though_it_was_completed_by_its_token_keeps_the_first_outcome(world: World) -> None:
    go_on = asyncio.Event()

    @task
    async def answer_all_the_same() -> int:
        tokens.append(attempt().token)
        await go_on.wait()
        return 1

    @workflow
    async def quick() -> int:
        found = await answer_all_the_same()
        await asyncio.sleep(100)
        return found

    async with world.engine(quick) as engine:
        run = await engine.start(quick(), id="a")
        await until(lambda: tokens)
        await engine.complete(tokens[0], 7)
        await has(run, TaskCompleted)
        go_on.set()
        await at_rest(engine.store, "a")
        world.clock.advance(100)
        assert await soon(run.result()) == 7
        await check_history(engine.store, "a", quick)


async def test_a_later_attempt_may_hand_the_task_out(world: World) -> None:
    @task(stop=stop_after_attempt(3), wait=wait_fixed(5))
    async def ask_at_last() -> int:
        tokens.append(attempt().token)
        if len(tokens) < 3:
            raise ConnectionError("nobody listens")
        attempt().later()

    @workflow
    async def trying() -> int:
        return await ask_at_last()

    async with world.engine(trying) as engine:
        run = await engine.start(trying(), id="a")
        for failures in (1, 2):
            await has(run, AttemptFailed, failures)
            world.clock.advance(5)
        await has(run, TaskHandedOut)
        assert len(set(tokens)) == 1, "one token for all attempts"
        await engine.complete(tokens[0], 7)
        assert await soon(run.result()) == 7
        completed = [event for event in await events_of(run) if isinstance(event, TaskCompleted)]
        assert [event.attempt for event in completed] == [3]
        await check_history(engine.store, "a", trying)


# -- what is refused ------------------------------------------------------------------------------------------------------


async def test_what_is_no_token_is_refused(memory: MemoryWorld) -> None:
    async with memory.engine(asking, asking_many) as engine:
        run = await engine.start(asking(), id="a")
        await engine.start(asking_many(1), id="b")
        await until(lambda: len(tokens) == 2)
        mine = tokens[0]
        flipped = [mine[:at] + ("A" if mine[at] != "A" else "B") + mine[at + 1 :] for at in range(0, len(mine), 7)]
        for forged in ("", "nonsense", "é", mine[:-4], mine + "AAAA", mine.lower(), None, 5, *flipped):
            with pytest.raises(TokenError):
                await engine.complete(forged, 7)  # type: ignore[arg-type]
            with pytest.raises(TokenError):
                await engine.reject(forged, "no")  # type: ignore[arg-type]
        await engine.complete(mine, 7)
        assert await soon(run.result()) == 7


async def test_a_token_of_another_store_is_refused(worlds) -> None:
    here, there = worlds(), worlds()
    async with here.engine(asking) as engine, there.engine(asking) as other:
        await engine.start(asking(), id="a")
        await until(lambda: tokens)
        with pytest.raises(TokenError):  # no such run
            await other.complete(tokens[0], 7)
        await other.start(asking(), id="a")
        await until(lambda: len(tokens) == 2)
        with pytest.raises(TokenError):  # a run of the same name
            await other.complete(tokens[0], 7)
        assert tokens[0] != tokens[1]


async def test_a_value_or_task_that_does_not_fit_is_refused_where_the_task_is_named(memory: MemoryWorld) -> None:
    async with memory.engine(asking) as engine:
        run = await engine.start(asking(), id="a")
        await has(run, TaskHandedOut)
        with pytest.raises(NotRecordable):
            await engine.complete(tokens[0], "seven", task=ask_someone)
        with pytest.raises(TokenError):
            await engine.complete(tokens[0], 7, task=other_task)
        with pytest.raises(NotRecordable):
            await engine.complete(tokens[0], object())
        await engine.complete(tokens[0], 7, task=ask_someone)
        assert await soon(run.result()) == 7


async def test_a_value_of_another_type_fails_the_task_and_not_the_run(memory: MemoryWorld) -> None:
    @workflow
    async def careful() -> str:
        try:
            return str(await ask_someone("how many?"))
        except Exception as error:
            return f"refused: {type(error).__name__}"

    async with memory.engine(careful) as engine:
        run = await engine.start(careful(), id="a")
        await has(run, TaskHandedOut)
        await engine.complete(tokens[0], {"seven": 7})
        assert (await soon(run.result())).startswith("refused")
        await check_history(memory.data, "a", careful)


async def test_the_deadline_of_a_task_holds_while_it_is_handed_out(world: World) -> None:
    async with world.engine(asking_in_time) as engine:
        run = await engine.start(asking_in_time(), id="a")
        await has(run, TaskHandedOut)
        await at_rest(engine.store, "a")
        world.clock.advance(59)
        await settle()
        assert await run.status() == "running"
        world.clock.advance(2)
        assert await soon(run.result()) == "too late"
        with pytest.raises(RunEnded):
            await engine.complete(tokens[0], 7)
        await check_history(engine.store, "a", asking_in_time)


async def test_the_deadline_of_a_task_holds_across_a_restart_and_is_not_renewed(world: World) -> None:
    async with crashing(world, asking_in_time) as (engine, _):
        await has(await engine.start(asking_in_time(), id="a"), TaskHandedOut)
    world.clock.advance(30)
    async with world.engine(asking_in_time) as engine:
        run = engine.run("a")
        await settle()
        world.clock.advance(31)
        assert await soon(run.result()) == "too late"
        assert len(tokens) == 1
        await check_history(engine.store, "a", asking_in_time)


async def test_a_completion_in_time_beats_the_deadline(memory: MemoryWorld) -> None:
    async with memory.engine(asking_in_time) as engine:
        run = await engine.start(asking_in_time(), id="a")
        await has(run, TaskHandedOut)
        memory.clock.advance(59)
        await engine.complete(tokens[0], 7)
        assert await soon(run.result()) == "7"


async def test_a_completion_after_the_run_was_cancelled_is_noted_or_refused(world: World) -> None:
    @workflow
    async def cleaning() -> None:
        try:
            await ask_someone("how many?")
        finally:
            await asyncio.sleep(100)

    async with world.engine(cleaning) as engine:
        run = await engine.start(cleaning(), id="a")
        await has(run, TaskHandedOut)
        await run.cancel()
        from engine.core.events import TaskCancelled

        await has(run, TaskCancelled)
        await engine.complete(tokens[0], 7)
        await has(run, AttemptOutcomeIgnored)
        await at_rest(engine.store, "a")
        world.clock.advance(100)
        with pytest.raises(RunCancelledError):
            await soon(run.result())
        with pytest.raises(RunEnded):
            await engine.complete(tokens[0], 7)
        assert not [event for event in await events_of(run) if isinstance(event, TaskCompleted | TaskFailed)]


async def test_a_token_of_an_earlier_epoch_is_refused_and_the_new_one_is_another(world: World) -> None:
    @workflow
    async def epochs(n: int) -> int:
        if n:
            return await ask_someone("again")
        asking = asyncio.ensure_future(ask_someone("first"))
        await asyncio.sleep(10)
        asking.cancel()
        await durable.continue_as_new(epochs(1))

    async with world.engine(epochs) as engine:
        run = await engine.start(epochs(0), id="a")
        await has(run, TaskHandedOut)
        await at_rest(engine.store, "a")
        world.clock.advance(10)
        await has(run, TaskHandedOut, 2)
        assert tokens[0] != tokens[1]
        try:
            await engine.complete(tokens[0], 1)
        except (TokenError, RunEnded):
            pass
        await settle(200)
        assert await run.status() == "running", "the token of an old epoch ends no task of the new one"
        await engine.complete(tokens[1], 2)
        assert await soon(run.result()) == 2
        await check_history(engine.store, "a", epochs)


async def test_a_completion_for_a_run_that_has_ended_is_an_error(memory: MemoryWorld) -> None:
    async with memory.engine(asking) as engine:
        run = await engine.start(asking(), id="a")
        await has(run, TaskHandedOut)
        await run.terminate()
        await is_status(run, "terminated")
        with pytest.raises(RunEnded):
            await engine.complete(tokens[0], 7)
        with pytest.raises(RunEnded):
            await engine.reject(tokens[0], "no")


async def test_tasks_that_were_handed_out_take_no_slot(memory: MemoryWorld) -> None:
    async with memory.engine(asking_many, concurrency=2) as engine:
        run = await engine.start(asking_many(20), id="a")
        await until(lambda: len(tokens) == 20)
        for value, token in enumerate(tokens):
            await engine.complete(token, value)
        assert sorted(await soon(run.result())) == list(range(20))


def test_later_says_so_outside_an_attempt() -> None:
    with pytest.raises(HoldfastError):
        attempt().later()


async def test_a_rejection_that_nobody_catches_fails_the_run(memory: MemoryWorld) -> None:
    async with memory.engine(asking) as engine:
        run = await engine.start(asking(), id="a")
        await has(run, TaskHandedOut)
        await engine.reject(tokens[0], LookupError("nobody"))
        with pytest.raises(RunFailedError, match="nobody") as caught:
            await soon(run.result())
        assert isinstance(caught.value.__cause__, LookupError)
