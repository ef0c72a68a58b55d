"""Things that happen in the one moment when they are awkward: made to happen then, with a store that waits to be told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, Request, RunHandle, task, workflow
from engine.errors import RunCancelledError, RunFailedError, TaskError
from tests.runtime.faulty import FaultyStore, Pause
from tests.runtime.invariants import check_history
from tests.runtime.worlds import MemoryWorld, at_rest, kinds_of, settle, soon, until, until_async

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@task
async def note(what: str) -> str:
    ran.append(what)
    return what


def releases(name: str, argument: Any) -> bool:
    return name == "commit" and argument.release and not argument.closed


@workflow
async def napping(naps: int) -> list[str]:
    found = []
    for n in range(naps):
        await asyncio.sleep(100)
        found.append(await note(f"nap {n}"))
    return found


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("cached", [0, 10])
async def test_a_timer_falls_due_while_its_run_is_given_up(memory: MemoryWorld, behind: bool, cached: int) -> None:
    """The commit that releases the run takes so long that the timer is due before its reply."""
    store = FaultyStore(memory.data)
    pause = Pause(store, behind=behind, when=releases)
    async with Engine(store, workflows=[napping], clock=memory.clock, cached=cached) as engine:
        starting = asyncio.create_task(engine.start(napping(2), id="a"))
        await soon(pause.reached.wait())
        memory.clock.advance(100)
        await settle()
        pause.let_go.set()
        run = await soon(starting)
        await until(lambda: ran == ["nap 0"])
        await at_rest(memory.data, "a")
        memory.clock.advance(100)
        assert await soon(run.result(), seconds=5) == ["nap 0", "nap 1"]
        await check_history(memory.data, "a", napping)


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("cached", [0, 10])
async def test_a_timer_of_before_falls_due_while_its_run_is_given_up(
    memory: MemoryWorld, behind: bool, cached: int
) -> None:
    """As above, with a timer that was started in an earlier step: the run's own alarm rings in the middle."""
    gate = asyncio.Event()

    @task
    async def hold() -> str:
        ran.append("held")
        await gate.wait()
        return "held"

    @workflow
    async def both() -> list[Any]:
        return await asyncio.gather(hold(), asyncio.sleep(100, "slept"))

    store = FaultyStore(memory.data)
    pause = Pause(store, behind=behind, when=releases)
    async with Engine(store, workflows=[both], clock=memory.clock, cached=cached) as engine:
        run = await engine.start(both(), id="a")
        await until(lambda: ran)
        gate.set()
        await soon(pause.reached.wait())
        memory.clock.advance(100)
        await settle()
        pause.let_go.set()
        assert await soon(run.result(), seconds=5) == ["held", "slept"]
        await check_history(memory.data, "a", both)


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
async def test_a_retry_falls_due_while_its_run_is_given_up(memory: MemoryWorld, behind: bool) -> None:
    @task(stop=stop_after_attempt(5), wait=wait_fixed(100))
    async def flaky() -> int:
        ran.append(1)
        if len(ran) < 3:
            raise ConnectionError
        return len(ran)

    @workflow
    async def trying() -> int:
        return await flaky()

    store = FaultyStore(memory.data)
    pause = Pause(store, behind=behind, when=releases)
    async with Engine(store, workflows=[trying], clock=memory.clock) as engine:
        run = await engine.start(trying(), id="a")
        await soon(pause.reached.wait())
        memory.clock.advance(100)
        await settle()
        pause.let_go.set()
        await until(lambda: len(ran) == 2)

        async def waits() -> bool:
            return any(found.status == "retrying" for found in (await run.state()).tasks.values())

        await until_async(waits)
        await at_rest(memory.data, "a")
        memory.clock.advance(100)
        assert await soon(run.result(), seconds=5) == 3
        await check_history(memory.data, "a", trying)


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
async def test_a_paused_run_goes_on_while_it_is_given_up(memory: MemoryWorld, behind: bool) -> None:
    """What waited for its retry waits again, though the run was told to go on before it had left memory."""
    gate = asyncio.Event()

    @task(stop=stop_after_attempt(5), wait=wait_fixed(100))
    async def flaky() -> int:
        ran.append(1)
        await gate.wait()
        if len(ran) < 2:
            raise ConnectionError
        return len(ran)

    @workflow
    async def trying() -> int:
        return await flaky()

    store = FaultyStore(memory.data)
    pause = Pause(store, behind=behind, when=releases)
    async with Engine(store, workflows=[trying], clock=memory.clock) as engine:
        run = await engine.start(trying(), id="a")
        await until(lambda: ran)
        await run.pause()
        await until_async(lambda: stands(run, "paused"))
        gate.set()
        await soon(pause.reached.wait())  # its attempt has failed, and nothing else is to be done for now
        await run.unpause()
        await settle(500)
        pause.let_go.set()
        await until_async(lambda: stands(run, "running"))
        await at_rest(memory.data, "a")
        memory.clock.advance(100)
        assert await soon(run.result(), seconds=5) == 2
        await check_history(memory.data, "a", trying)


async def stands(run: RunHandle[Any], status: str) -> bool:
    return await run.status() == status


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
async def test_mail_comes_while_a_run_is_given_up(memory: MemoryWorld, behind: bool) -> None:
    store = FaultyStore(memory.data)
    pause = Pause(store, behind=behind, when=releases)
    async with Engine(store, workflows=[napping], clock=memory.clock) as engine:
        starting = asyncio.create_task(engine.start(napping(2), id="a"))
        await soon(pause.reached.wait())
        if behind:
            await engine.run("a").cancel()
            await settle(100)
            pause.let_go.set()
            run = await soon(starting)
        else:
            pause.let_go.set()
            run = await soon(starting)
            await run.cancel()
        with pytest.raises(RunCancelledError):
            await soon(run.result(), seconds=5)
        await check_history(memory.data, "a", napping)


async def test_mail_is_claimed_while_the_commit_that_releases_waits(memory: MemoryWorld) -> None:
    """Claimed for its mail before the release is written, heard of behind it."""
    store = FaultyStore(memory.data)

    @workflow
    async def two_steps() -> str:
        await note("first")
        await asyncio.sleep(1_000)
        return "slept"

    pause = Pause(store, behind=False, when=releases)
    async with Engine(store, workflows=[two_steps], clock=memory.clock) as engine:
        run = await engine.start(two_steps(), id="a")
        await soon(pause.reached.wait())
        await run.cancel()
        await settle(100)  # the claim has taken it, for it is still owned
        pause.let_go.set()
        with pytest.raises(RunCancelledError):
            await soon(run.result(), seconds=5)
        await check_history(memory.data, "a", two_steps)


async def test_following_while_the_head_is_old(memory: MemoryWorld) -> None:
    """`events(follow=True)` reads the head, and the run ends before it hears the answer: it must not wait for more."""
    gate = asyncio.Event()

    @task
    async def hold() -> int:
        ran.append(1)
        await gate.wait()
        return 1

    @workflow
    async def holding() -> int:
        return await hold()

    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[holding], clock=memory.clock) as engine:
        run = await engine.start(holding(), id="a")
        await until(lambda: ran)
        pause = Pause(store, behind=True, when=lambda name, _argument: name == "head")

        async def follow() -> list[str]:
            return [type(item.event).__name__ async for item in run.events(follow=True)]

        following = asyncio.create_task(follow())
        await soon(pause.reached.wait())
        gate.set()
        assert await soon(run.result()) == 1
        await settle(100)
        pause.let_go.set()
        kinds = await soon(following, seconds=5)
        assert kinds[-1] == "RunCompleted"


async def test_result_while_the_head_is_old(memory: MemoryWorld) -> None:
    """As above, for `result` of a run at rest."""
    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[napping], clock=memory.clock) as engine:
        run = await engine.start(napping(1), id="a")
        await at_rest(memory.data, "a")
        await settle()
        pause = Pause(store, behind=True, when=lambda name, _argument: name == "head")
        waiting = asyncio.create_task(run.result())
        await soon(pause.reached.wait())
        memory.clock.advance(100)
        await until(lambda: ran)
        await settle(100)
        pause.let_go.set()
        assert await soon(waiting, seconds=5) == ["nap 0"]


@pytest.mark.parametrize("turns", range(6))
async def test_a_task_is_cancelled_by_what_it_left_behind(memory: MemoryWorld, turns: int) -> None:
    """Sloppy code cancels its own asyncio task when it has returned already. That must not hit the run's next step."""

    @task
    async def sloppy(n: int) -> int:
        loop, mine = asyncio.get_running_loop(), asyncio.current_task()
        assert mine is not None

        def later(left: int) -> None:
            if left:
                loop.call_soon(later, left - 1)
            else:
                mine.cancel()

        loop.call_soon(later, turns)
        ran.append(n)
        return n

    @workflow
    async def trusting() -> list[int]:
        first = [await sloppy(n) for n in range(3)]
        return first + list(await asyncio.gather(*(sloppy(n) for n in range(3, 6))))

    async with memory.engine(trusting) as engine:
        run = await engine.start(trusting(), id="a")
        assert await soon(run.result(), seconds=5) == list(range(6))
        await check_history(memory.data, "a", trusting)
        assert ran == list(range(6))


async def test_a_slow_rebuild_and_a_cancel(memory: MemoryWorld) -> None:
    """Mail comes while the history is being read: it was not in the head that was claimed."""
    async with memory.engine(napping) as engine:
        await engine.start(napping(2), id="a")
        await at_rest(memory.data, "a")
    memory.clock.advance(100)
    store = FaultyStore(memory.data)
    pause = Pause(store, behind=True, when=lambda name, _argument: name == "claim")
    async with Engine(store, workflows=[napping], clock=memory.clock) as engine:
        await soon(pause.reached.wait())
        run = engine.run("a")
        await run.cancel()
        pause.let_go.set()
        with pytest.raises(RunCancelledError):
            await soon(run.result(), seconds=5)
        await check_history(memory.data, "a", napping)


async def test_closing_while_a_new_run_is_written(memory: MemoryWorld) -> None:
    """The engine closes while `start` waits for its commit: the run is recorded or it is not, and nothing hangs."""
    for behind in (False, True):
        store = FaultyStore(memory.data)
        pause = Pause(store, behind=behind, when=lambda name, _argument: name == "commit")
        run_id = f"behind-{behind}"
        async with Engine(store, workflows=[napping], clock=memory.clock, grace=0) as engine:
            starting = asyncio.create_task(engine.start(napping(1), id=run_id))
            await soon(pause.reached.wait())
            asyncio.get_running_loop().call_later(0.01, pause.let_go.set)
        await soon(asyncio.wait([starting]))
        assert starting.exception() is None or not isinstance(starting.exception(), AssertionError)
        async with memory.engine(napping) as engine:
            run = await engine.start(napping(1), id=run_id)
            await at_rest(memory.data, run_id)
            memory.clock.advance(100)
            assert await soon(run.result()) == ["nap 0"]
            await check_history(memory.data, run_id, napping)


async def test_closing_while_a_history_is_read(memory: MemoryWorld) -> None:
    async with memory.engine(napping) as engine:
        for n in range(30):
            await engine.start(napping(1), id=f"run-{n}")
        for n in range(30):
            await at_rest(memory.data, f"run-{n}")
    memory.clock.advance(100)
    for turns in range(1, 12):
        async with memory.engine(napping, grace=0):
            await settle(turns)
    async with memory.engine(napping) as engine:
        results = await soon(asyncio.gather(*(engine.run(f"run-{n}").result() for n in range(30))))
        assert results == [["nap 0"]] * 30
        for n in range(30):
            await check_history(memory.data, f"run-{n}", napping)


async def test_a_task_starts_another_run(memory: MemoryWorld) -> None:
    """Tasks are outside: they may use the engine they run in."""
    engines: list[Engine] = []

    @workflow
    async def inner(n: int) -> int:
        return int(await note(str(n)))

    @task
    async def delegate(n: int) -> int:
        run = await engines[0].start(inner(n), id=f"inner-{n}")
        return await run.result()

    @workflow
    async def outer() -> int:
        return sum(await asyncio.gather(*(delegate(n) for n in range(4))))

    async with memory.engine(outer, inner) as engine:
        engines.append(engine)
        assert await soon((await engine.start(outer(), id="outer")).result()) == 6
        await check_history(memory.data, "outer", outer)
        await check_history(memory.data, "inner-0", inner)


async def test_a_workflow_that_reaches_outside_harms_only_itself(memory: MemoryWorld) -> None:
    """Awaiting what belongs to another loop, or the engine itself, is an error of that run."""
    engines: list[Engine] = []

    @workflow
    async def waits_outside() -> None:
        future = outside_loop.create_future()
        await future

    @workflow
    async def starts_inside() -> None:
        await engines[0].start(napping(1), id="from inside")

    outside_loop = asyncio.get_running_loop()
    async with memory.engine(waits_outside, starts_inside, napping) as engine:
        engines.append(engine)
        for definition in (waits_outside, starts_inside):
            run = await engine.start(definition(), id=definition.name)
            with pytest.raises(RunFailedError):
                await soon(run.result(), seconds=5)
        assert len((await engine.runs()).items) == 2  # nothing was started from inside
        run = await engine.start(napping(1), id="a")
        await at_rest(memory.data, "a")
        memory.clock.advance(100)
        assert await soon(run.result()) == ["nap 0"]


async def test_the_lease_is_lost_while_a_new_run_is_written(worlds) -> None:
    """The worker was held dead, and its lease has ended, when the first commit comes: start tries under the new one."""
    world = worlds(lease_ttl=10)
    store = FaultyStore(world.data)
    pause = Pause(store, behind=False, when=lambda name, _argument: name == "commit")
    async with Engine(store, workflows=[napping], clock=world.clock) as engine:
        starting = asyncio.create_task(engine.start(napping(1), id="a"))
        await soon(pause.reached.wait())
        (lease,) = world.data._leases.values()
        lease.stall()
        world.clock.advance(11)
        await until(lambda: lease.token not in world.data._leases)
        pause.let_go.set()
        run = await soon(starting)
        await at_rest(world.data, "a")
        world.clock.advance(100)
        assert await soon(run.result()) == ["nap 0"]
        await check_history(world.data, "a", napping)


def writes(kind: str) -> Callable[[str, Any], bool]:
    """The commit that holds an event of this kind."""
    return lambda name, argument: (
        name == "commit" and any(f'"{kind}"'.encode() in event.header for event in argument.events)
    )


@pytest.mark.parametrize("behind", [False, True], ids=["before", "behind"])
async def test_an_attempt_fails_while_the_wish_to_end_it_is_written(memory: MemoryWorld, behind: bool) -> None:
    """A task that is waited for, cancelled in a commit under way, fails meanwhile and could be tried again: it ends."""
    gate = asyncio.Event()

    @task(on_cancel="wait", stop=stop_after_attempt(9), wait=wait_fixed(1_000))
    async def charge() -> None:
        ran.append("charging")
        await gate.wait()
        raise ConnectionError

    @workflow
    async def charging() -> str:
        try:
            async with asyncio.timeout(100):
                await charge()
        except (TimeoutError, ConnectionError, TaskError) as error:
            return type(error).__name__
        return "charged"

    store = FaultyStore(memory.data)
    pause = Pause(store, behind=behind, when=writes("TaskCancelled"))
    async with Engine(store, workflows=[charging], clock=memory.clock, grace=0) as engine:
        run = await engine.start(charging(), id="a")
        await until(lambda: ran)
        memory.clock.advance(100)
        await soon(pause.reached.wait())
        gate.set()
        await settle()
        pause.let_go.set()
        assert await soon(run.result(), seconds=5) in ("TimeoutError", "TaskError", "ConnectionError")
        await check_history(memory.data, "a", charging)
    assert ran == ["charging"]


@pytest.mark.parametrize("cancel", [False, True], ids=["run over", "task cancelled"])
async def test_an_attempt_fails_in_the_step_that_ends_the_wait_for_it(memory: MemoryWorld, cancel: bool) -> None:
    """Two outcomes of one step: with the first the run, or the await of the other task, ends. No retry is recorded."""

    @task(stop=stop_after_attempt(9), wait=wait_fixed(1))
    async def flaky() -> None:
        ran.append("flaky")
        raise ConnectionError

    @workflow
    async def racing() -> str:
        branches = [asyncio.create_task(note("quick")), asyncio.create_task(flaky())]
        done, _ = await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
        if cancel:
            branches[1].cancel()
        found = done.pop().result()
        if cancel:
            await asyncio.sleep(100)
        return found

    async with memory.engine(racing) as engine:
        run = await engine.start(racing(), id="a")
        await until(lambda: len(ran) == 2)
        await settle()
        memory.clock.advance(100)
        assert await soon(run.result()) == "quick"
        await settle()
        events = await check_history(memory.data, "a", racing)
    assert ran == ["quick", "flaky"]
    kinds = [type(event).__name__ for event in events]
    assert "AttemptFailed" not in kinds
    assert "AttemptOutcomeIgnored" in kinds


async def test_one_step_asks_for_a_task_and_cancels_it(memory: MemoryWorld) -> None:
    """Two facts of one step: the first asks for a task that is waited for, the second cancels it. It must not begin."""
    gates = {name: asyncio.Event() for name in ("other", "before")}

    @task
    async def wait_for(name: str) -> str:
        ran.append(name)
        await gates[name].wait()
        return name

    @task(on_cancel="wait")
    async def charge() -> str:
        ran.append("charging")
        return "charged"

    async def chain() -> str:
        await wait_for("before")
        try:
            async with asyncio.timeout(100):
                await charge()
        except (TimeoutError, TaskError) as error:
            return f"not charged {type(error).__name__}"
        return "charged"

    @workflow
    async def charging() -> list[Any]:
        return await asyncio.gather(chain(), wait_for("other"), return_exceptions=True)

    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[charging], clock=memory.clock, grace=0) as engine:
        run = await engine.start(charging(), id="a")
        await until(lambda: len(ran) == 2)
        pause = Pause(store, behind=False, when=lambda name, _argument: name == "commit")
        gates["other"].set()
        await soon(pause.reached.wait())  # the outcome of "other" is being written
        gates["before"].set()  # its turn will ask for the charge ...
        await settle()
        await run.cancel()  # ... and this one's, in the same step, cancels it
        await settle(100)
        pause.let_go.set()
        await soon(asyncio.gather(run.result(), return_exceptions=True), seconds=5)
        events = await check_history(memory.data, "a", charging)
        await settle(100)
    kinds = [type(event).__name__ for event in events]
    asked = [event.id for event in events if type(event).__name__ == "TaskScheduled" and event.task == "charge"]
    assert asked, "the two facts did not share a step"
    started = [event for event in events if type(event).__name__ == "TaskStarted" and event.id == asked[0]]
    assert "TaskCancelled" in kinds
    assert not started, "it began although it had been cancelled before anything was written"
    assert "charging" not in ran


async def test_followers_do_not_lag_behind(memory: MemoryWorld) -> None:
    """The run moves while a follower reads its head; then nothing moves for long. It sees all there is all the same."""
    gates = [asyncio.Event(), asyncio.Event()]

    @task
    async def hold(n: int) -> int:
        ran.append(n)
        await gates[n].wait()
        return n

    @workflow
    async def holding() -> int:
        return await hold(0) + await hold(1)

    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[holding], clock=memory.clock, grace=0) as engine:
        run = await engine.start(holding(), id="a")
        await until(lambda: ran == [0])
        pause = Pause(store, behind=True, when=lambda name, _argument: name == "head")
        seen: list[str] = []

        async def follow() -> None:
            async for item in run.events(follow=True):
                seen.append(type(item.event).__name__)

        following = asyncio.create_task(follow())
        await soon(pause.reached.wait())
        gates[0].set()
        await until(lambda: ran == [0, 1])
        await settle(100)
        pause.let_go.set()
        try:
            await until(lambda: seen.count("TaskStarted") == 2, seconds=5)
        finally:
            gates[1].set()
            await soon(following)


double = Request("double", int, int)


async def test_a_task_in_a_queue_when_the_end_of_its_run_is_decided_anew(memory: MemoryWorld) -> None:
    """The end calls it off, and is refused, for a request came first; then it gets the slot that it still waits for."""
    gate = asyncio.Event()

    @task
    async def hold() -> str:
        ran.append("held")
        await gate.wait()
        return "held"

    async def answer(value: int) -> int:
        return 2 * value + len(await note("answered"))

    @workflow
    async def leaving() -> str:
        held = asyncio.create_task(hold())
        queued = asyncio.create_task(note("queued"))
        async with double.serve(answer):
            await held
        queued.cancel()
        return "left"

    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[leaving], clock=memory.clock, grace=0, concurrency=1) as engine:
        run = await engine.start(leaving(), id="a")
        await until(lambda: ran == ["held"])
        pause = Pause(store, behind=False, when=lambda name, argument: name == "commit" and argument.closed)
        gate.set()
        await soon(pause.reached.wait())
        asking = asyncio.create_task(run.ask(double, 4))
        await settle(100)
        pause.let_go.set()
        assert await soon(asking) == 8 + len("answered")
        assert await soon(run.result()) == "left"
        await check_history(memory.data, "a", leaving)
    assert ran == ["held", "queued", "answered"]


async def test_the_clock_is_set_back_when_a_retry_is_due_and_has_not_begun(memory: MemoryWorld) -> None:
    """Its time has come while something else of the run is being written: it begins behind that, and not before its time."""
    gates = [asyncio.Event(), asyncio.Event()]

    @task
    async def hold(n: int) -> None:
        await gates[n].wait()

    @task(stop=stop_after_attempt(2), wait=wait_fixed(2))
    async def shaky() -> str:
        ran.append("shaky")
        if len(ran) == 1:
            raise ConnectionError
        return "done"

    @workflow
    async def trying() -> str:
        held = [asyncio.create_task(hold(n)) for n in range(2)]
        found = await shaky()
        await asyncio.gather(*held)
        return found

    store = FaultyStore(memory.data)
    async with Engine(store, workflows=[trying], clock=memory.clock, grace=0) as engine:
        run = await engine.start(trying(), id="a")
        await has_event(run, "AttemptFailed")
        pause = Pause(store, behind=False, when=lambda name, _argument: name == "commit")
        gates[0].set()
        await soon(pause.reached.wait())
        memory.clock.advance(2)
        await settle(100)
        memory.clock.step(-20)
        pause.let_go.set()
        await until(lambda: ran == ["shaky", "shaky"])
        gates[1].set()
        assert await soon(run.result()) == "done"
        await check_history(memory.data, "a", trying)


async def has_event(run: RunHandle[Any], kind: str) -> None:
    async def there() -> bool:
        return kind in await kinds_of(run)

    await until_async(there)
