"""The store fails in the middle of things: whoever waits is told, nothing recorded is lost, nothing wrong is recorded."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import Engine, RunHandle, Signal, task, workflow
from engine.errors import EngineFailed, RunNotFound, RunTerminatedError
from eventstore import StoreUnavailable, UnknownMessage
from tests.runtime.faulty import Fault, FaultyStore, at_call
from tests.runtime.invariants import check_history, check_store
from tests.runtime.worlds import MemoryWorld, World, at_rest, settle, soon, until

ran: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@task
async def note(what: str) -> str:
    ran.append(what)
    return what


@workflow
async def noting(count: int) -> int:
    for n in range(count):
        await note(f"note {n}")
    return count


@pytest.mark.parametrize("fault", ["refuse", "lose reply", "die before", "die after"])
async def test_a_failing_store_stops_the_engine_and_loses_nothing(world: World, fault: Fault) -> None:
    handle = await world.store()
    store = FaultyStore(handle)

    def in_the_middle(_number: int, name: str) -> Fault | None:
        return fault if name == "commit" and len(ran) > 5 and not store.faults else None

    store.plan = in_the_middle
    async with Engine(store, workflows=[noting], clock=world.clock, grace=0) as engine:
        done = await engine.start(noting(1), id="done")
        assert await soon(done.result()) == 1
        store.plan = lambda _number, name: fault if name == "commit" and len(ran) > 5 and not store.faults else None
        failing = await engine.start(noting(20), id="failing")
        with pytest.raises(EngineFailed) as caught:
            await soon(failing.result())
        assert isinstance(caught.value.__cause__, StoreUnavailable)
        with pytest.raises(EngineFailed) as refused:
            await engine.start(noting(1), id="new")
        assert isinstance(refused.value.__cause__, StoreUnavailable)
        with pytest.raises(EngineFailed):
            await engine.start(noting(1), id="done")
        assert await soon(done.result()) == 1  # what was known stays known
    await world.crash(handle)
    await world.release(handle)
    async with world.engine(noting) as engine:
        assert await soon(engine.run("failing").result()) == 20
        assert await soon(engine.run("done").result()) == 1
        with pytest.raises(RunNotFound):
            await engine.run("new").status()
        await check_store(engine.store, noting)
    assert len(ran) <= 23


@pytest.mark.parametrize("fault", ["refuse", "lose reply"])
async def test_start_is_told(world: World, fault: Fault) -> None:
    handle = await world.store()
    store = FaultyStore(handle)
    async with Engine(store, workflows=[noting], clock=world.clock, grace=0) as engine:
        store.plan = at_call(1, fault, only="commit")
        starts = [engine.start(noting(2), id="a") for _ in range(3)]
        results = await soon(asyncio.gather(*starts, return_exceptions=True))
        assert isinstance(results[0], StoreUnavailable), results
        # The others may learn that it is recorded all the same; never that there is no such run.
        assert all(isinstance(result, StoreUnavailable | EngineFailed | RunHandle) for result in results), results
        assert fault == "lose reply" or not any(isinstance(result, RunHandle) for result in results), results
        with pytest.raises(EngineFailed):
            await engine.start(noting(2), id="b")
    await world.release(handle)
    async with world.engine(noting) as engine:
        run = await engine.start(noting(2), id="a")
        assert await soon(run.result()) == 2
        await check_store(engine.store, noting)


class Concert:
    """A workflow whose instance has plenty to decide on after its store failed once."""

    def __init__(self) -> None:
        self.gates = {name: asyncio.Event() for name in ("first", "stubborn")}
        self.begun: set[str] = set()
        concert = self

        @task
        async def first() -> str:
            concert.begun.add("first")
            await concert.gates["first"].wait()
            return "first"

        @task
        async def stubborn() -> str:
            concert.begun.add("stubborn")
            try:
                await concert.gates["stubborn"].wait()
            except asyncio.CancelledError:
                return "stubborn"  # ends well, although asked to end
            return "stubborn"

        @task
        async def behind(what: str) -> str:
            ran.append(what)
            return what

        async def one() -> str:
            return await behind(await first())

        async def two() -> str:
            return await behind(await stubborn())

        async def three() -> str:
            await asyncio.sleep(0.5)
            return "slept"

        @workflow
        async def concert_of_three() -> list[str]:
            return await asyncio.gather(one(), two(), three())

        self.workflow = concert_of_three


@pytest.mark.parametrize("fault", ["refuse", "lose reply"])
async def test_nothing_is_written_on_top_of_what_was_not(memory: MemoryWorld, fault: Fault) -> None:
    """One commit fails and the next would work: the instance knows more than the log, and must not write any more."""
    concert = Concert()
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[concert.workflow], clock=memory.clock, grace=0) as engine:
        run = await engine.start(concert.workflow(), id="a")
        await until(lambda: concert.begun == {"first", "stubborn"})
        store.plan = at_call(1, fault, only="commit")
        concert.gates["first"].set()
        with pytest.raises(EngineFailed):
            await soon(run.result())
        failed_at = (await memory.data.head("run:a")).version
        await settle(100)
        memory.clock.advance(1)  # the timer in memory falls due
        await settle(100)
        assert (await memory.data.head("run:a")).version == failed_at
    assert (await memory.data.head("run:a")).version == failed_at
    for gate in concert.gates.values():
        gate.set()
    async with memory.engine(concert.workflow) as engine:
        run = engine.run("a")
        assert await soon(run.result()) == ["first", "stubborn", "slept"]
        await check_history(memory.data, "a", concert.workflow)


@pytest.mark.parametrize("name", ["claim", "find", "head"])
async def test_other_calls_may_fail_too(memory: MemoryWorld, name: str) -> None:
    store = FaultyStore(memory.data)
    gate = asyncio.Event()

    @task
    async def wait_for_gate() -> None:
        ran.append("begun")
        await gate.wait()

    @workflow
    async def gated() -> str:
        await wait_for_gate()
        return "through"

    async with Engine(store, workflows=[gated], clock=memory.clock, grace=0) as engine:
        run = await engine.start(gated(), id="a")
        await until(lambda: ran)
        store.plan = lambda _number, called: "refuse" if called == name else None
        if name == "claim":
            await run.cancel()
            with pytest.raises(EngineFailed):
                await soon(run.result())
        elif name == "head":
            with pytest.raises(StoreUnavailable):
                await run.status()
            store.plan = lambda _number, _name: None
            gate.set()
            assert await soon(run.result()) == "through"
        else:
            with pytest.raises(StoreUnavailable):
                await engine.runs()
            gate.set()
            assert await soon(run.result()) == "through"
    gate.set()
    async with memory.engine(gated) as engine:
        await soon(asyncio.gather(engine.run("a").result(), return_exceptions=True))
        await check_store(memory.data, gated)


async def test_a_client_is_told_and_may_ask_again(memory: MemoryWorld) -> None:
    """Whoever only watches hears of the failure; the run itself is none the worse."""
    store = FaultyStore(memory.data)
    gate = asyncio.Event()

    @task
    async def wait_for_gate() -> None:
        ran.append("begun")
        await gate.wait()

    @workflow
    async def gated() -> str:
        await wait_for_gate()
        return "through"

    async with memory.engine(gated) as worker, Engine(store, clock=memory.clock) as client:
        await worker.start(gated(), id="a")
        watching = asyncio.create_task(client.run("a").result())
        await until(lambda: ran)
        store.plan = at_call(1, "refuse", only="find")
        with pytest.raises((StoreUnavailable, EngineFailed)):
            await soon(watching)
        gate.set()
        assert await soon(client.run("a").result()) == "through"


async def test_the_store_fails_while_closing(world: World) -> None:
    gate = asyncio.Event()

    @task
    async def wait_for_gate() -> str:
        ran.append("begun")
        await gate.wait()
        return "x"

    @workflow
    async def gated() -> str:
        return await wait_for_gate()

    handle = await world.store()
    store = FaultyStore(handle)
    async with Engine(store, workflows=[gated], clock=world.clock, grace=30) as engine:
        await engine.start(gated(), id="a")
        await until(lambda: ran)
        store.plan = lambda _number, name: "die before" if name == "commit" else None
        asyncio.get_running_loop().call_later(0.01, gate.set)
    await world.release(handle)
    async with world.engine(gated) as engine:
        assert await soon(engine.run("a").result()) == "x"
        await check_store(engine.store, gated)


@pytest.mark.parametrize("number", range(1, 4))
async def test_opening_fails(memory: MemoryWorld, number: int) -> None:
    store = FaultyStore(memory.data, at_call(number, "refuse"))
    try:
        async with Engine(store, workflows=[noting], clock=memory.clock) as engine:
            await engine.start(noting(1), id="a")
    except (StoreUnavailable, EngineFailed):
        pass
    assert store.faults or number > 2
    async with memory.engine(noting) as engine:
        run = await engine.start(noting(1), id="a")
        assert await soon(run.result()) == 1


async def test_an_engine_that_does_not_open_leaves_no_lease(memory: MemoryWorld) -> None:
    """It fails behind taking its lease; nobody but itself could end that, and the store is not its own to close."""
    store = FaultyStore(memory.data, at_call(1, "refuse", only="find"))
    with pytest.raises(StoreUnavailable):
        async with Engine(store, workflows=[noting], clock=memory.clock):
            pytest.fail("it opened")
    assert store.faults
    assert not memory.data._leases


async def test_a_slow_store_is_only_slow(memory: MemoryWorld) -> None:
    """Every call takes many turns of the loop, in an order of its own: no run is lost, mixed up, or done twice."""
    store = FaultyStore(memory.data)
    serial = 0

    async def dawdle(_name: str, _argument: Any) -> None:
        nonlocal serial
        serial += 1
        await settle(serial * 7 % 23)

    store.before = store.after = dawdle

    @workflow
    async def mixed(n: int) -> str:
        first = asyncio.gather(*(note(f"{n}/{k}") for k in range(3)))
        await asyncio.sleep(10)
        return ",".join(await first)

    async with Engine(store, workflows=[mixed, noting], clock=memory.clock) as engine:
        runs = [await engine.start(mixed(n), id=f"run-{n}") for n in range(15)]
        waiting = asyncio.gather(*(run.result() for run in runs))
        for run in runs:
            await at_rest(memory.data, run.id)
        memory.clock.advance(10)
        assert await soon(waiting) == [f"{n}/0,{n}/1,{n}/2" for n in range(15)]
        await check_store(memory.data, mixed)
    assert len(ran) == len(set(ran)) == 45


async def test_a_file_removed_under_the_engine(worlds, tmp_path) -> None:
    world = worlds("sqlite")
    with pytest.raises((StoreUnavailable, EngineFailed)):
        async with world.engine(noting) as engine:
            run = await engine.start(noting(1), id="a")
            assert await soon(run.result()) == 1
            for path in tmp_path.glob("runs-0.db*"):
                if path.is_file():
                    path.unlink()
            for n in range(3):
                await soon((await engine.start(noting(1), id=f"new-{n}")).result())


async def test_a_bug_in_one_turn_does_not_leak_into_another(memory: MemoryWorld) -> None:
    """A store that answers with something nobody plans for stops the engine loudly, and closing still works."""
    store = FaultyStore(memory.data)

    async def explode(name: str, _argument: Any) -> None:
        if name == "commit":
            raise ZeroDivisionError("a bug of the store")

    async with Engine(store, workflows=[noting], clock=memory.clock) as engine:
        run = await engine.start(noting(3), id="a")
        store.before = explode
        with pytest.raises((EngineFailed, ZeroDivisionError)):
            await soon(run.result())
        with pytest.raises((EngineFailed, ZeroDivisionError)):
            await engine.start(noting(1), id="b")
    store.before = None
    async with memory.engine(noting) as engine:
        assert await soon(engine.run("a").result()) == 3
        await check_store(memory.data, noting)


word = Signal("word", str)


@workflow
async def hearing() -> list[str]:
    await note("begun")
    heard = [await word.receive()]
    await note("heard")
    return [*heard, await word.receive()]


@pytest.mark.parametrize("written", [False, True])
async def test_a_commit_refused_for_an_unknown_message_costs_its_run_a_rebuild(written: bool, world: World) -> None:
    """The run is dropped and brought back as it is; the engine and its other runs go on. `written`: it was, after all."""
    handle = await world.store()
    store = FaultyStore(handle)
    refused: list[str] = []

    async def refuse(name: str, commit: Any) -> None:
        if name == "commit" and commit.consumes and not refused:
            refused.append(commit.stream)
            raise UnknownMessage(commit.stream, commit.consumes[0])

    if written:
        store.after = refuse
    else:
        store.before = refuse
    async with Engine(store, workflows=[hearing, noting], clock=world.clock, grace=0) as engine:
        other = await engine.start(noting(50), id="other")
        run = await engine.start(hearing(), id="a")
        await until(lambda: "begun" in ran)
        await run.signal(word, "one")
        await until(lambda: "heard" in ran)
        await run.signal(word, "two")
        assert await soon(run.result()) == ["one", "two"]
        assert await soon(other.result()) == 50
        assert await soon((await engine.start(noting(1), id="new")).result()) == 1
        assert refused == ["run:a"]
        await check_store(handle, hearing, noting)
    await world.release(handle)


async def test_a_run_that_is_put_to_rest_unread_survives_an_unknown_message(world: World) -> None:
    """The same where a run is not driven: a cancelled one that is suspended, a terminated one that rests."""
    handle = await world.store()
    store = FaultyStore(handle)
    refused: list[str] = []

    async def refuse(name: str, commit: Any) -> None:
        if name == "commit" and commit.consumes and not refused:
            refused.append(commit.stream)
            raise UnknownMessage(commit.stream, commit.consumes[0])

    async with Engine(store, workflows=[hearing, noting], clock=world.clock, grace=0) as engine:
        run = await engine.start(hearing(), id="a")
        await until(lambda: "begun" in ran)
        await at_rest(store, "a")
        store.before = refuse
        await run.terminate(reason="enough")
        with pytest.raises(RunTerminatedError, match="enough"):
            await soon(run.result())
        assert refused == ["run:a"]
        assert await soon((await engine.start(noting(1), id="new")).result()) == 1
    await world.release(handle)
