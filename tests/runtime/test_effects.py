"""Effect contracts: what becomes of a task whose attempt was cut off."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, Happened, NotHappened, attempt, task, workflow
from engine.core.events import EffectReconciled, TaskCompleted, TaskFailed, TaskStarted
from engine.errors import DefinitionError, RunCancelledError, TaskInterrupted
from tests.runtime.faulty import FaultyStore, Pause
from tests.runtime.invariants import check_store
from tests.runtime.worlds import MemoryWorld, World, events_of, settle, soon, until


class Bank:
    """The outside: accounts by idempotency key, and what it answers when asked."""

    def __init__(self) -> None:
        self.charged: Counter[str] = Counter()
        self.asked: list[int] = []  # attempt numbers
        self.down = 0  # how often asking fails first
        self.hold = asyncio.Event()  # set: attempts end
        self.inside = 0
        self.before = False  # whether attempts are held before their effect, not behind it

    async def charge(self) -> str:
        if self.before:
            await self.wait()
        self.charged[attempt().idempotency_key] += 1
        if not self.before:
            await self.wait()
        return f"receipt of attempt {attempt().number}"

    async def wait(self) -> None:
        self.inside += 1
        await self.hold.wait()

    def ask(self) -> Happened[str] | NotHappened:
        self.asked.append(attempt().number)
        if self.down:
            self.down -= 1
            raise ConnectionError("the bank is closed")
        return Happened("receipt found") if self.charged[attempt().idempotency_key] else NotHappened()


@pytest.fixture
def bank() -> Bank:
    return Bank()


def once(bank: Bank) -> Any:
    @task(effect="at_most_once", name="charge")
    async def charge(account: str) -> str:
        return await bank.charge()

    return charge


def asking(bank: Bank, *, threads: bool = False, **options: Any) -> Any:
    def ask_in_thread(account: str) -> Any:
        assert account == "alice"
        return bank.ask()

    async def ask(account: str) -> Any:
        return ask_in_thread(account)

    @task(reconcile=ask_in_thread if threads else ask, name="charge", **options)
    async def charge(account: str) -> str:
        return await bank.charge()

    return charge


def paying(charge: Any) -> Any:
    @workflow(name="paying")
    async def paying() -> str:
        try:
            return str(await charge("alice"))
        except TaskInterrupted as error:
            return f"interrupted: {error}"

    return paying


async def cut_off(world: World, flow: Any, bank: Bank) -> None:
    """An engine that begins the run, and is gone while its attempt is inside."""
    async with world.engine(flow, grace=0) as engine:
        await engine.start(flow(), id="a")
        await until(lambda: bank.inside)
    bank.inside = 0
    bank.hold.set()


async def outcome(world: World, flow: Any) -> tuple[str, list[Any]]:
    async with world.engine(flow) as engine:
        found = await soon(engine.run("a").result())
        await check_store(engine.store, flow)
        return found, await events_of(engine.run("a"))


async def test_an_idempotent_task_is_run_again_under_its_key(world: World, bank: Bank) -> None:
    @task(name="charge")
    async def charge(account: str) -> str:
        return await bank.charge()

    flow = paying(charge)
    await cut_off(world, flow, bank)
    assert (await outcome(world, flow))[0] == "receipt of attempt 2"
    assert list(bank.charged.values()) == [2]


@pytest.mark.parametrize("before", [True, False])
async def test_at_most_once_is_never_run_again(before: bool, world: World, bank: Bank) -> None:
    bank.before = before
    flow = paying(once(bank))
    await cut_off(world, flow, bank)
    found, events = await outcome(world, flow)
    assert found.startswith("interrupted: attempt 1 of task 'charge' began")
    assert sum(bank.charged.values()) == (0 if before else 1)
    failed = [event for event in events if isinstance(event, TaskFailed)]
    assert [(event.error, event.attempt) for event in failed] == [("engine.errors.TaskInterrupted", 1)]
    assert sum(isinstance(event, TaskStarted) for event in events) == 1


async def test_at_most_once_that_ends_is_as_any_other(world: World, bank: Bank) -> None:
    bank.hold.set()
    flow = paying(once(bank))
    async with world.engine(flow) as engine:
        assert await soon((await engine.start(flow(), id="a")).result()) == "receipt of attempt 1"


async def test_one_that_had_not_begun_is_begun(world: World, bank: Bank) -> None:
    """The slot was taken by another: no TaskStarted, so nothing can have happened."""
    bank.hold.clear()
    charge = once(bank)

    @workflow(name="two")
    async def two() -> list[str]:
        return [str(each) for each in await asyncio.gather(charge("a"), charge("b"), return_exceptions=True)]

    async with world.engine(two, grace=0, concurrency=1) as engine:
        await engine.start(two(), id="a")
        await until(lambda: bank.inside)
    bank.hold.set()
    async with world.engine(two, concurrency=1) as engine:
        first, second = await soon(engine.run("a").result())
        assert second == "receipt of attempt 1"
        assert first.startswith("attempt 1 of task 'charge' began")


@pytest.mark.parametrize("threads", [True, False])
@pytest.mark.parametrize("before", [True, False])
async def test_reconcile_asks_before_it_tries_again(before: bool, threads: bool, world: World, bank: Bank) -> None:
    bank.before = before
    flow = paying(asking(bank, threads=threads))
    await cut_off(world, flow, bank)
    found, events = await outcome(world, flow)
    assert bank.asked == [1]
    assert list(bank.charged.values()) == [1]
    answers = [event.answer for event in events if isinstance(event, EffectReconciled)]
    completed = [(event.attempt, event.reconciled) for event in events if isinstance(event, TaskCompleted)]
    if before:
        assert (found, answers, completed) == ("receipt of attempt 2", ["not_happened"], [(2, False)])
    else:
        assert (found, answers, completed) == ("receipt found", [], [(1, True)])


async def test_asking_that_fails_is_retried_as_the_policy_says_and_the_wait_survives(world: World, bank: Bank) -> None:
    bank.down = 3
    flow = paying(asking(bank, stop=stop_after_attempt(9), wait=wait_fixed(60)))
    await cut_off(world, flow, bank)
    for asked in (1, 2):
        async with world.engine(flow) as engine:
            await until(lambda asked=asked: len(bank.asked) == asked)
            await until(lambda: engine.run("a"))
            await settle()
            world.clock.advance(59)
            await settle()
            assert len(bank.asked) == asked
        world.clock.advance(1)
    async with world.engine(flow) as engine:
        await until(lambda: len(bank.asked) == 3)
        await settle()
        world.clock.advance(60)
        assert await soon(engine.run("a").result()) == "receipt found"
        unknown = [event for event in await events_of(engine.run("a")) if isinstance(event, EffectReconciled)]
        assert [event.answer for event in unknown] == ["unknown"] * 3
        await check_store(engine.store, flow)
    assert list(bank.charged.values()) == [1]


async def test_asking_that_fails_for_good_fails_the_task(world: World, bank: Bank) -> None:
    bank.down = 1
    flow = paying(asking(bank))
    await cut_off(world, flow, bank)
    found, _ = await outcome(world, flow)
    assert found.startswith("interrupted: attempt 1 of task 'charge' did not end well, and asking what became of it")
    assert "the bank is closed" in found
    assert list(bank.charged.values()) == [1]


@pytest.mark.parametrize("answer", [True, None, "yes", Happened(object())])
async def test_an_answer_that_is_none_fails_the_task(answer: Any, world: World, bank: Bank) -> None:
    async def ask(account: str) -> Any:
        return answer

    @task(reconcile=ask, name="charge")
    async def charge(account: str) -> str:
        return await bank.charge()

    flow = paying(charge)
    await cut_off(world, flow, bank)
    found, _ = await outcome(world, flow)
    assert found.startswith("interrupted:")
    assert ("Happened(result) or NotHappened()" in found) != isinstance(answer, Happened)


async def test_it_asks_after_a_failure_too(world: World, bank: Bank) -> None:
    """An attempt that failed may have had its effect: the connection broke when the answer was on its way."""

    async def ask(account: str) -> Any:
        return bank.ask()

    @task(reconcile=ask, name="charge", stop=stop_after_attempt(3), wait=wait_fixed(1))
    async def charge(account: str) -> str:
        bank.charged[attempt().idempotency_key] += 1
        raise ConnectionError("no answer")

    flow = paying(charge)
    async with world.engine(flow) as engine:
        run = await engine.start(flow(), id="a")
        await until(lambda: bank.charged)
        await settle()
        world.clock.advance(1)
        assert await soon(run.result()) == "receipt found"
        await check_store(engine.store, flow)
    assert list(bank.charged.values()) == [1]


@pytest.mark.parametrize("happened", [True, False])
@pytest.mark.parametrize("restart", [True, False])
async def test_a_cancelled_one_ends_with_what_the_outside_says(
    happened: bool, restart: bool, world: World, bank: Bank
) -> None:
    bank.before = not happened
    charge = asking(bank)
    seen: list[str] = []

    @workflow(name="paying")
    async def saga() -> str:
        try:
            return str(await charge("alice"))
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            seen.append("behind it")

    async with world.engine(saga, grace=0) as engine:
        run = await engine.start(saga(), id="a")
        await until(lambda: bank.inside)
        if not restart:
            await run.cancel()
            await ends(engine, happened)
            return
    async with world.engine(saga) as engine:
        await engine.run("a").cancel()
        await ends(engine, happened)


async def ends(engine: Any, happened: bool) -> None:
    if happened:
        # The await ended with its outcome; the cancellation came behind it, and the workflow had nothing left to await.
        try:
            assert await soon(engine.run("a").result()) == "receipt found"
        except RunCancelledError:
            pass
        kinds = [event for event in await events_of(engine.run("a")) if isinstance(event, TaskCompleted)]
        assert [event.reconciled for event in kinds] == [True]
    else:
        with pytest.raises(RunCancelledError):
            await soon(engine.run("a").result())


async def test_its_outcome_does_not_depend_on_who_asks_when(world: World, bank: Bank) -> None:
    """Cut off while asking: it is asked again."""
    gate = asyncio.Event()

    async def ask(account: str) -> Any:
        bank.asked.append(attempt().number)
        await gate.wait()
        return NotHappened()

    @task(reconcile=ask, name="charge")
    async def charge(account: str) -> str:
        return await bank.charge()

    flow = paying(charge)
    bank.before = True
    await cut_off(world, flow, bank)
    async with world.engine(flow, grace=0):
        await until(lambda: bank.asked)
    gate.set()
    found, _ = await outcome(world, flow)
    assert (found, bank.asked) == ("receipt of attempt 2", [1, 1])


def test_what_cannot_be_is_refused() -> None:
    async def charge(account: str) -> str: ...

    for options, words in (
        ({"effect": "sometimes"}, "'idempotent', 'at_most_once', 'reconcile', 'transactional', not 'sometimes'"),
        ({"effect": "reconcile"}, "go together"),
        ({"effect": "idempotent", "reconcile": charge}, "go together"),
        ({"reconcile": "later"}, "takes a function"),
        ({"effect": "at_most_once", "stop": stop_after_attempt(2)}, "has one attempt"),
    ):
        with pytest.raises(DefinitionError, match=words):
            task(**options)(charge)  # type: ignore[call-overload]


def test_others_await_to_the_end_by_default() -> None:
    async def charge(account: str) -> str: ...

    assert task(charge).on_cancel == "abandon"
    assert task(effect="at_most_once")(charge).on_cancel == "wait"
    assert task(reconcile=charge)(charge).on_cancel == "wait"
    assert task(effect="at_most_once", on_cancel="abandon")(charge).on_cancel == "abandon"
    assert task(effect="at_most_once")(charge).options(timeout=3).on_cancel == "wait"


@pytest.mark.parametrize("answered", [True, False], ids=["the answer", "a failure"])
async def test_it_is_called_off_in_the_step_that_takes(answered: bool, memory: MemoryWorld) -> None:
    """Then nothing of it runs any more, and the run is not to be given up for that."""
    gates = {name: asyncio.Event() for name in ("charge", "ask", "first", "second")}
    seen: list[str] = []

    async def pass_by(name: str) -> None:
        seen.append(name)
        await gates[name].wait()

    async def ask() -> NotHappened:
        await pass_by("ask")
        return NotHappened()

    @task(reconcile=ask, stop=stop_after_attempt(9), wait=wait_fixed(0 if answered else 100))
    async def charge() -> str:
        await pass_by("charge")
        raise ConnectionError("no answer")

    @task
    async def told(name: str) -> None:
        await pass_by(name)

    @workflow
    async def giving_up() -> str:
        charging, other = asyncio.create_task(charge()), asyncio.create_task(told("first"))
        await told("second")
        charging.cancel()
        await asyncio.gather(charging, other, return_exceptions=True)
        return "done"

    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[giving_up], clock=memory.clock) as engine:
        run = await engine.start(giving_up(), id="a")
        if answered:
            gates["charge"].set()
            await until(lambda: "ask" in seen)
        else:
            gates["ask"].set()
            await until(lambda: "charge" in seen)
        await settle()
        pause = Pause(store, behind=False, when=completes)
        gates["first"].set()
        await soon(pause.reached.wait())
        gates["ask"].set()
        gates["charge"].set()
        await settle()
        gates["second"].set()
        await settle()
        pause.let_go.set()
        assert await soon(run.result()) == "done"
        await check_store(memory.data, giving_up)


def completes(name: str, argument: Any) -> bool:
    return name == "commit" and any(b'"TaskCompleted"' in event.header for event in argument.events)
