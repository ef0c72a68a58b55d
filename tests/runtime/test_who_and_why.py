"""Everything that a person does to a run, or to what runs share, is an event with who, when and why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from engine import Attempt, Engine, Memo, Request, Signal, attempt, durable, task, workflow
from engine.core.events import decode_header
from engine.errors import HoldfastError
from tests.runtime.worlds import World, events_of, kinds_of, soon, until_async

WHO = {"by": "ann", "reason": "the customer asked"}
go = Signal("go", str)
review = Request("review", str, str)
tokens: list[str] = []


@task
async def by_hand() -> str:
    now: Attempt = attempt()
    tokens.append(now.token)
    now.later()
    return ""


@task(memo=Memo())
async def load(n: int) -> int:
    return n


@workflow
async def listens() -> str:
    async def answer(text: str) -> str:
        return text

    async with review.serve(answer):
        return await go.receive()


@workflow
async def hands_out() -> str:
    return await by_hand()


@workflow
async def fails() -> None:
    raise ValueError("as asked")


@workflow
async def loads() -> int:
    return await load(1)


@pytest.fixture(autouse=True)
def _tokens() -> None:
    tokens.clear()


async def noted(engine: Engine, run_id: str, kind: str) -> Any:
    """The last event of that kind, once it is there."""

    async def there() -> bool:
        return kind in await kinds_of(engine.run(run_id))

    await until_async(there)
    return [event for event in await events_of(engine.run(run_id)) if type(event).__name__ == kind][-1]


def said(world: World, event: Any) -> None:
    assert (event.by, event.reason) == ("ann", "the customer asked"), event
    assert 0 < event.at <= world.clock.now()


Ask = Callable[[Any], Awaitable[Any]]


@pytest.mark.parametrize(
    ("ask", "kind"),
    [
        (lambda run: run.cancel(**WHO), "CancelRequested"),
        (lambda run: run.terminate(**WHO), "RunTerminated"),
        (lambda run: run.pause(**WHO), "RunPaused"),
        (lambda run: run.signal(go, "x", **WHO), "SignalReceived"),
        (lambda run: run.ask(review, "x", **WHO), "RequestReceived"),
    ],
    ids=["cancel", "terminate", "pause", "signal", "request"],
)
async def test_what_is_asked_of_a_run(world: World, ask: Ask, kind: str) -> None:
    async with world.engine(listens) as engine:
        run = await engine.start(listens(), id="r", by="ann")
        await noted(engine, "r", "RunStarted")
        await soon(ask(run))
        said(world, await noted(engine, "r", kind))


async def test_unpause_and_cancel_of_a_paused_run(world: World) -> None:
    async with world.engine(listens) as engine:
        for run_id, goes_on in (("one", lambda run: run.unpause(**WHO)), ("other", lambda run: run.cancel(**WHO))):
            run = await engine.start(listens(), id=run_id)
            await run.pause()
            await noted(engine, run_id, "RunPaused")
            await goes_on(run)
            said(world, await noted(engine, run_id, "RunUnpaused"))


@pytest.mark.parametrize("how", ["unpause", "cancel"])
async def test_of_a_paused_run_that_nobody_has_in_memory(world: World, how: str) -> None:
    async with world.engine(listens) as engine:
        run = await engine.start(listens(), id="r")
        await run.pause()
        await noted(engine, "r", "RunPaused")
    async with world.engine() as client:
        await getattr(client.run("r"), how)(**WHO)
    async with world.engine(listens) as engine:
        said(world, await noted(engine, "r", "RunUnpaused"))


async def test_resume(world: World) -> None:
    fits = [True]

    @workflow
    async def changing() -> None:
        if not fits[0]:
            await load(1)
        await asyncio.sleep(3600)

    async with world.engine(changing) as engine:
        await engine.start(changing(), id="r")
        await noted(engine, "r", "TimerStarted")
    fits[0] = False
    world.clock.advance(3600)
    async with world.engine(changing) as engine:
        await noted(engine, "r", "RunSuspended")
        fits[0] = True
        await engine.run("r").resume(**WHO)
        said(world, await noted(engine, "r", "RunResumed"))


@pytest.mark.parametrize("how", ["complete", "reject"])
async def test_who_ended_a_task_with_its_token(world: World, how: str) -> None:
    """The fact itself says so, and the second that comes too late does, too."""
    async with world.engine(hands_out) as engine:
        run = await engine.start(hands_out(), id="r")
        await noted(engine, "r", "TaskHandedOut")
        await getattr(engine, how)(tokens[0], "done", **WHO)
        said(world, await noted(engine, "r", "TaskCompleted" if how == "complete" else "TaskFailed"))
        if how == "complete":
            assert await soon(run.result()) == "done"
        else:
            with pytest.raises(HoldfastError):
                await soon(run.result())


async def test_a_completion_that_comes_too_late(world: World) -> None:
    @workflow
    async def gives_up() -> str:
        try:
            async with asyncio.timeout(5):
                return await by_hand()
        except TimeoutError:
            return await go.receive()

    async with world.engine(gives_up) as engine:
        await engine.start(gives_up(), id="r")
        await noted(engine, "r", "TaskHandedOut")
        world.clock.advance(6)
        await noted(engine, "r", "TaskCancelled")
        await engine.complete(tokens[0], "late", **WHO)
        said(world, await noted(engine, "r", "AttemptOutcomeIgnored"))


async def test_repairs_say_so_in_the_first_event_or_behind_the_end(world: World) -> None:
    async with world.engine(fails, loads) as engine:
        with pytest.raises(HoldfastError):
            await soon((await engine.start(fails(), id="r")).result())
        await soon((await engine.start(loads(), id="l")).result())
    async with world.engine(fails, loads, only=()) as engine:
        again = await engine.rerun("r", id="again", **WHO)
        said(world, (await events_of(again))[0])
        forked = await engine.fork("l", at=3, id="forked", **WHO)
        said(world, (await events_of(forked))[0])
        await engine.prune("l", **WHO)
        said(world, (await events_of(engine.run("l")))[-1])
        await engine.destroy_payloads("r", **WHO)
        said(world, (await events_of(engine.run("r")))[-1])


async def test_what_is_done_to_what_runs_share(world: World) -> None:
    """Pauses of workflows, limits and memos: each in its own stream."""
    async with world.engine(loads, pools={"warehouse": 4}, rates={"mail": "10/s"}) as engine:
        await soon((await engine.start(loads(), id="r")).result())
        await engine.pause_workflow("loads", **WHO)
        await engine.unpause_workflow("loads", **WHO)
        await engine.set_pool("warehouse", 2, **WHO)
        await engine.set_rate("mail", "1/s", **WHO)
        assert await engine.forget(load, **WHO) == 1
        found: dict[str, list[Any]] = {}
        async for recorded in engine.store.read_all():
            event = decode_header(recorded.header)
            found.setdefault(type(event).__name__, []).append(event)
        said(world, found["WorkflowPaused"][-1])
        said(world, found["WorkflowUnpaused"][-1])
        said(world, found["ResultForgotten"][-1])
        assert [each.name for each in found["LimitSet"] if each.by == "ann"] == ["warehouse", "mail"]
        for each in found["LimitSet"][-2:]:
            said(world, each)


async def test_who_is_kept_across_epochs(world: World) -> None:
    """A signal that is carried on says who sent it, and why."""

    @workflow
    async def renews(n: int) -> str:
        if n == 0:
            await asyncio.sleep(5)
            await durable.continue_as_new(renews(1))
        return await go.receive()

    async with world.engine(renews) as engine:
        run = await engine.start(renews(0), id="r")
        await run.signal(go, "x", **WHO)
        await noted(engine, "r", "SignalReceived")
        world.clock.advance(6)
        assert await soon(run.result()) == "x"
        received = [each for each in await events_of(run) if type(each).__name__ == "SignalReceived"]
        assert [each.carried for each in received] == [False, True]
        for each in received:
            said(world, each)
