"""Mail that stays in the box, or is answered without an event; pauses that stand before anybody is there to heed them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import Engine, Request, Signal, task, workflow
from engine.errors import EngineFailed, RequestRefused, RunTerminatedError
from engine.runtime.mail import SignalMail, data_message
from engine.runtime.pen import DECIDED_ANEW_MAX
from eventstore import StoreUnavailable
from tests.runtime.faulty import FaultyStore
from tests.runtime.invariants import check_history
from tests.runtime.worlds import MemoryWorld, SqliteWorld, World, at_rest, kinds_of, settle, soon, until_async

go = Signal("go", int)
ask = Request("ask", int, int)
early = Request("early", int, int)


@workflow
async def attentive() -> int:
    def positive(n: int) -> None:
        if n < 1:
            raise ValueError("not positive")

    async with ask.serve(lambda n: n + 1, validator=positive):
        return await go.receive()


async def test_a_request_that_is_not_served_yet_keeps_no_other_mail_waiting(world: World) -> None:
    async with world.engine(attentive) as engine:
        run = await engine.start(attentive(), id="a")
        waiting = asyncio.ensure_future(run.request(early, 1, id="early"))
        await until_async(lambda: _holds(engine.store, "a", "early"))
        assert await soon(run.ask(ask, 1)) == 2
        await run.signal(go, 7)
        assert await soon(run.result()) == 7
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_request_that_is_not_served_yet_does_not_save_a_run_from_its_end(memory: MemoryWorld) -> None:
    async with memory.engine(attentive) as engine:
        run = await engine.start(attentive(), id="a")
        waiting = asyncio.ensure_future(run.request(early, 1, id="early"))
        await until_async(lambda: _holds(engine.store, "a", "early"))
        await run.terminate(reason="enough")
        with pytest.raises(RunTerminatedError, match="enough"):
            await soon(run.result())
        await asyncio.gather(waiting, return_exceptions=True)


async def _holds(store: object, run_id: str, message: str) -> bool:
    head = await store.head(f"run:{run_id}")  # type: ignore[attr-defined]
    return any(waiting.id == message for waiting in head.messages)


@pytest.mark.parametrize("paused_before", [False, True])
async def test_who_pauses_and_unpauses_before_anybody_has_the_run_lets_it_go_on(
    memory: MemoryWorld, paused_before: bool
) -> None:
    async with memory.engine(attentive) as engine:
        run = await engine.start(attentive(), id="a")
        if paused_before:
            await run.pause()
            await until_async(lambda: _is(run, "paused"))
        await at_rest(memory.data, "a")
    async with memory.engine() as client:
        run = client.run("a")
        await run.pause(by="ann")
        await run.unpause(by="bob")
        await run.signal(go, 3)
    async with memory.engine(attentive) as engine:
        run = engine.run("a")
        assert await soon(run.result()) == 3
        kinds = [kind for kind in await kinds_of(run) if "aused" in kind]
        assert kinds[-2:] == ["RunPaused", "RunUnpaused"]
        assert await run.status() == "completed"


async def _is(run: object, status: str) -> bool:
    return await run.status() == status  # type: ignore[attr-defined]


async def test_a_refusal_reaches_who_asked_in_another_engine(sqlite: SqliteWorld) -> None:
    """It leaves no event, so that a look at the run's version alone would never tell."""
    async with sqlite.engine(attentive) as worker, sqlite.engine() as client:
        await worker.start(attentive(), id="a")
        await at_rest(worker.store, "a")
        for n in range(3):
            with pytest.raises(RequestRefused, match="not positive"):
                await soon(client.run("a").request(ask, -n))
            sqlite.clock.advance(1)
        assert await soon(client.run("a").ask(ask, 1)) == 2
        await worker.run("a").signal(go, 1)
        assert await soon(worker.run("a").result()) == 1


async def test_an_engine_that_opens_on_a_paused_workflow_begins_nothing_of_it(memory: MemoryWorld) -> None:
    async with memory.engine() as client:
        await client.pause_workflow("attentive", by="ann", reason="no power")
        (paused,) = await client.paused_workflows()
        assert (paused.name, paused.by, paused.reason) == ("attentive", "ann", "no power")
    async with memory.engine(attentive) as engine:
        run = await engine.start(attentive(), id="a")
        await settle(200)
        assert await kinds_of(run) == ["RunStarted"]
        await engine.unpause_workflow("attentive")
        assert await engine.paused_workflows() == ()
        assert await soon(run.ask(ask, 1)) == 2


async def held_at(memory: MemoryWorld, flow: Any, marker: bytes, meanwhile: Any) -> Any:
    """Run it; while the first commit with that in a header is being written, its workflow is paused and let go on."""
    store = FaultyStore(memory.data)
    seen = False

    async def before(name: str, argument: Any) -> None:
        nonlocal seen
        if name != "commit" or seen or not any(marker in event.header for event in argument.events):
            return
        seen = True
        await meanwhile()
        assert engine._worker is not None
        driver = engine._worker.residents.drivers["r"]
        driver.hold(pause="a pause")
        driver.hold(pause="")
        await settle()

    async with Engine(store, workflows=[flow], clock=memory.clock) as engine:
        run = await engine.start(flow(), id="r")
        store.before = before
        await run.signal(go, 7)
        result = await soon(run.result())
    assert seen
    return result


async def test_an_attempt_whose_start_is_being_written_is_not_made_twice(memory: MemoryWorld) -> None:
    ran: list[int] = []

    @task
    async def once(n: int) -> int:
        ran.append(n)
        return n

    @workflow
    async def flow() -> int:
        return await once(await go.receive())

    async def nothing() -> None:
        await settle()

    assert await held_at(memory, flow, b"TaskStarted", nothing) == 7
    assert ran == [7]


async def test_an_attempt_that_has_just_ended_was_not_cut_off(memory: MemoryWorld) -> None:
    ran: list[int] = []
    last = asyncio.Event()

    @task(effect="at_most_once")
    async def once(n: int) -> int:
        ran.append(n)
        if n == 2:
            await last.wait()
        return n

    @workflow
    async def flow() -> int:
        await go.receive()
        return sum(await asyncio.gather(once(1), once(2)))

    async def the_other_ends() -> None:
        last.set()
        await settle()

    assert await held_at(memory, flow, b"TaskCompleted", the_other_ends) == 3
    assert sorted(ran) == [1, 2]
    async with Engine(memory.data, clock=memory.clock) as engine:
        assert "AttemptOutcomeIgnored" not in await kinds_of(engine.run("r"))


async def test_a_timer_that_is_due_while_the_pause_is_written_waits_for_its_end(memory: MemoryWorld) -> None:
    gone = asyncio.Event()

    @task
    async def lasting() -> None:
        await gone.wait()

    @workflow
    async def both() -> int:
        await asyncio.gather(lasting(), asyncio.sleep(10))
        return 1

    store, written, let_go = FaultyStore(memory.data), asyncio.Event(), asyncio.Event()

    async def hold(name: str, argument: Any) -> None:
        if name == "commit" and any(b"RunPaused" in event.header for event in argument.events):
            written.set()
            await let_go.wait()

    store.before = hold
    async with Engine(store, workflows=[both], clock=memory.clock, grace=0) as engine:
        run = await engine.start(both(), id="a")
        await settle()
        await run.pause()
        await soon(written.wait())
        memory.clock.advance(11)
        let_go.set()
        await until_async(lambda: _is(run, "paused"))
        await settle()
        assert (await kinds_of(run))[-1] == "RunPaused"
        await run.unpause()
        gone.set()
        assert await soon(run.result()) == 1
        kinds = await kinds_of(run)
        assert kinds.index("TimerFired") > kinds.index("RunUnpaused")
        await check_history(memory.data, "a", both)


async def test_an_engine_that_fails_while_an_end_waits_for_mail_can_be_closed(memory: MemoryWorld) -> None:
    """The run takes in no mail any more: its end would be refused for ever, and the engine would wait for that."""

    @workflow
    async def flow() -> int:
        return await go.receive()

    store = FaultyStore(memory.data)
    ends = 0  # how often it was tried to write the end

    async def before(name: str, argument: Any) -> None:
        nonlocal ends
        if name != "commit" or argument.closed is not True:
            return
        ends += 1
        if ends > 100:
            raise StoreUnavailable("it is tried for ever")
        if ends <= DECIDED_ANEW_MAX + 1:
            await memory.data.send(data_message("run:r", f"more-{ends}", SignalMail(name="go"), b"1"))
        if ends == DECIDED_ANEW_MAX + 1:
            assert engine._worker is not None
            engine._worker.failed(StoreUnavailable("planned"))

    engine = Engine(store, workflows=[flow], clock=memory.clock)
    with pytest.raises(EngineFailed):
        async with engine:
            run = await engine.start(flow(), id="r")
            store.before = before
            await run.signal(go, 7)
            await soon(run.result())
    assert ends == DECIDED_ANEW_MAX + 1
    async with memory.engine(flow) as another:
        assert await soon(another.run("r").result()) == 7
    await check_history(memory.data, "r", flow)
