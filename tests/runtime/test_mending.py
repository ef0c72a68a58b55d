"""Suspended runs go on by themselves with code that fits: once for each code, and never to and fro between two."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Signal, durable, task, workflow
from engine.core import loop as core_loop
from engine.core.compare import Diagnosis
from engine.core.events import RunResumed, RunSuspended
from engine.errors import EngineFailed, RunNotFound
from engine.runtime import mending
from engine.runtime.codes import Codes
from engine.runtime.mending import LOOK_SECONDS
from engine.runtime.recovery import suspend
from engine.runtime.streams import new_event
from eventstore import Commit, StoreUnavailable
from tests.runtime.faulty import FaultyStore, at_call
from tests.runtime.invariants import check_history, check_store
from tests.runtime.test_suspension import changed, fetch, first_version, fixed, has_status, ran, suspended_run
from tests.runtime.worlds import World, at_rest, events_of, kinds_of, settle, soon, until, until_async


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


async def suspended_by(world: World, code: Any, *, run_id: str = "a") -> None:
    async with world.engine(code) as engine:
        await until_async(lambda: has_status(engine.run(run_id), "suspended"))
        await at_rest(engine.store, run_id)


async def test_fixed_code_goes_on_by_itself(world: World) -> None:
    await suspended_run(world)
    await suspended_by(world, changed)
    async with world.engine(fixed, worker="mender") as engine:
        run = engine.run("a")
        await until_async(lambda: has_status(run, "completed"))
        assert await soon(run.result()) == "fixed"
        assert ran == ["fetch 1", "store PAGE 1"]
        (resumed,) = [event for event in await events_of(run) if isinstance(event, RunResumed)]
        assert resumed.by.startswith("engine mender, code ")
        assert (await kinds_of(run)).count("RunSuspended") == 1
        await check_history(engine.store, "a", fixed)
        assert "suspended_for" not in (await engine.store.head("run:a")).attributes


async def test_it_goes_on_at_once_though_the_clock_was_set_back(world: World) -> None:
    await suspended_run(world)
    world.clock.advance(3_600)
    await suspended_by(world, changed)
    world.clock.step(-1_800)
    async with world.engine(fixed) as engine:
        run = engine.run("a")
        await until_async(lambda: has_status(run, "completed"))
        await check_history(engine.store, "a", fixed)


async def test_the_same_code_is_not_tried_twice(world: World) -> None:
    """Each code is tried once, with its own diagnosis; restarts read nothing and write nothing."""

    @workflow(name="pipeline")
    async def also_changed() -> str:
        await asyncio.sleep(7)
        return "also"

    await suspended_run(world)
    await suspended_by(world, changed)
    for _ in range(3):
        for code in (also_changed, changed):
            async with world.engine(code) as engine:
                await until(lambda: _looked(engine))
                await until_async(lambda: _suspensions(engine, 2))
    async with world.engine() as client:
        run = client.run("a")
        diagnoses = [event for event in await events_of(run) if isinstance(event, RunSuspended)]
        assert len(diagnoses) == 2
        state = await run.state()
        assert state.status == "suspended"
        assert state.diagnosis is not None
        assert "a timer until" in state.diagnosis.differences[0].decided  # of the code that was tried last
        await check_history(client.store, "a")


def _looked(engine: Engine) -> bool:
    assert engine._worker is not None
    return engine._worker.mending._looked_at is not None and not engine._worker.mending._looking


async def _suspensions(engine: Engine, count: int) -> bool:
    return (await kinds_of(engine.run("a"))).count("RunSuspended") == count


async def test_thousands_that_were_tried_are_not_replayed_by_restarts(world: World, monkeypatch: Any) -> None:
    """As many as the page of a search holds, and more, are gone through without being read."""
    monkeypatch.setattr("eventstore.finding.FIND_LIMIT_MAX", 3)
    async with world.engine(first_version) as engine:
        for n in range(8):
            await engine.start(first_version(), id=f"r{n}")
            await at_rest(engine.store, f"r{n}")
    world.clock.advance(1_000)
    async with world.engine(changed) as engine:
        for n in range(8):
            await until_async(lambda n=n: has_status(engine.run(f"r{n}"), "suspended"))
    replays = 0
    replay = mending.Mending._replay

    async def counted(self: Any, head: Any, definition: Any) -> Any:
        nonlocal replays
        replays += 1
        return await replay(self, head, definition)

    monkeypatch.setattr(mending.Mending, "_replay", counted)
    async with world.engine(changed) as engine:
        await until(lambda: _looked(engine))
        assert replays == 0
    async with world.engine(fixed) as engine:
        for n in range(8):
            await until_async(lambda n=n: has_status(engine.run(f"r{n}"), "completed"))
        assert replays == 8
        await check_store(engine.store, fixed)


async def test_old_and_new_workers_on_one_store_do_not_bounce_a_run(world: World) -> None:
    """A rolling deployment: the new code lets the run go on, the old one leaves it alone, however long both live."""
    tick = Signal("tick", int)

    @workflow(name="long")
    async def old() -> int:
        total = 0
        while total < 30:
            total += await tick.receive()
        return total

    @workflow(name="long")
    async def new() -> int:
        total = 0
        while total < 30:
            total += await tick.receive()
            if durable.patched("fetch"):
                await fetch(total)
        return total

    async with world.engine(new, worker="new") as there:
        await there.start(new(), id="a")
        await there.run("a").signal(tick, 1)
        await until_async(lambda: _count(there, "TaskCompleted", 1))
        await at_rest(there.store, "a")
    async with world.engine(old, worker="old") as here:
        await here.run("a").signal(tick, 1)
        await until_async(lambda: has_status(here.run("a"), "suspended"))
        async with world.engine(new, worker="new") as there:
            run = there.run("a")
            await until_async(lambda: has_status(run, "running"))
            for n in range(28):  # due again and again, while both are there: only one of them takes it
                await until_async(lambda n=n: _count(there, "TaskCompleted", n + 2))
                await at_rest(there.store, "a")
                await run.signal(tick, 1)
                world.clock.advance(LOOK_SECONDS / 3)
            assert await soon(run.result()) == 30
            kinds = await kinds_of(run)
            assert (kinds.count("RunSuspended"), kinds.count("RunResumed")) == (1, 1)
            await check_history(there.store, "a", new)


async def _count(engine: Engine, kind: str, count: int) -> bool:
    return (await kinds_of(engine.run("a"))).count(kind) >= count


async def test_a_run_whose_code_is_gone_is_taken_up_by_others(world: World) -> None:
    """It is bound to code that no worker has. One that does not fit waits for a while whether anybody comes."""
    await suspended_run(world)
    await suspended_by(world, changed)
    await bound_to_nobody(world, "a", status="running")
    async with world.engine(changed) as engine:
        for _ in range(3):
            await until(lambda: _looked(engine))
            await settle()
            assert await engine.run("a").status() == "running"  # due, and left alone
            world.clock.advance(LOOK_SECONDS / 4)
            rouse(engine)
        for _ in range(2):
            world.clock.advance(LOOK_SECONDS)
            rouse(engine)
            await settle(200)
            await until(lambda: _looked(engine))
        await until_async(lambda: has_status(engine.run("a"), "suspended"))
        assert (await engine.store.head("run:a")).attributes.get("code") is None


async def test_a_run_whose_code_is_gone_is_bound_to_code_that_fits_at_once(world: World) -> None:
    await suspended_run(world)
    await suspended_by(world, changed)
    await bound_to_nobody(world, "a", status="running")
    async with world.engine(fixed) as engine:
        await until_async(lambda: has_status(engine.run("a"), "completed"))
        assert (await engine.store.head("run:a")).attributes["code"] == Codes().of(fixed)
        await check_history(engine.store, "a", fixed)


async def test_bound_runs_that_have_ended_are_not_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are on a store, nobody has to go through them."""
    await suspended_run(world)
    await suspended_by(world, changed)
    async with world.engine(fixed) as engine:
        await until_async(lambda: has_status(engine.run("a"), "completed"))
        assert (await engine.store.head("run:a")).attributes["bound"] is True
    looked_at: list[str] = []
    is_overdue = mending.Mending._is_overdue

    async def noted(self: Any, head: Any, due: Any, *, new: bool) -> bool:
        looked_at.append(head.stream)
        return await is_overdue(self, head, due, new=new)

    monkeypatch.setattr(mending.Mending, "_is_overdue", noted)
    async with world.engine(changed) as engine:
        await until(lambda: _looked(engine))
        assert looked_at == []


async def bound_to_nobody(world: World, run_id: str, *, status: str) -> None:
    """As a worker leaves it that has let it go on, and is gone for good."""
    store = await world.store()
    head = await store.head(f"run:{run_id}")
    await store.commit(
        Commit(
            id=f"bound {run_id}",
            stream=f"run:{run_id}",
            expected_version=head.version,
            events=(new_event(RunResumed(at=head.updated_at, by="engine gone")),),
            attributes={"status": status, "code": "0" * 16, "bound": True, "suspended_for": None},
            alarm=world.clock.now(),
            held=False,
        )
    )
    await world.release(store)


async def test_it_is_looked_for_again_now_and_then(world: World) -> None:
    """A run that another worker suspends after this one has begun."""
    async with world.engine(fixed) as engine:
        await engine.start(fixed(), id="d")
        await at_rest(engine.store, "d")
        await until(lambda: _looked(engine))
        head = await engine.store.head("run:d")
        await suspended_elsewhere(world, head, "decisions")
        assert await engine.run("d").status() == "suspended"
        rouse(engine)
        await settle()
        assert await engine.run("d").status() == "suspended"
        world.clock.advance(LOOK_SECONDS)
        rouse(engine)
        await until_async(lambda: has_status(engine.run("d"), "running"))
        await check_history(engine.store, "d", fixed)


async def suspended_elsewhere(world: World, head: Any, reason: Any) -> None:
    """By a worker that does not exist, with code that nobody has."""
    store = await world.store()
    diagnosis = Diagnosis(reason=reason, message="by another", version=head.version)
    none: Any = None
    await suspend(store, none, head, diagnosis, code="f" * 16, clock=world.clock, commit_id=f"by another {head.stream}")
    await world.release(store)


def rouse(engine: Engine) -> None:
    """Let it look up from its sleep, which is timed by the machine's clock."""
    assert engine._worker is not None
    engine._worker._roused.set()


async def test_parked_and_paused_runs_are_left_to_people(world: World) -> None:
    async with world.engine(first_version) as engine:
        for run_id in ("paused", "parked"):
            await engine.start(first_version(), id=run_id)
            await at_rest(engine.store, run_id)
        await engine.run("paused").pause()
        await until_async(lambda: has_status(engine.run("paused"), "paused"))
        await at_rest(engine.store, "paused")
        await suspended_elsewhere(world, await engine.store.head("run:parked"), "crashes")
    async with world.engine(fixed) as engine:
        await until(lambda: _looked(engine))
        await settle()
        assert await engine.run("paused").status() == "paused"
        assert await engine.run("parked").status() == "suspended"
        await engine.run("parked").resume()
        await until_async(lambda: has_status(engine.run("parked"), "running"))


async def test_a_run_suspended_before_reasons_were_marked(world: World) -> None:
    """Of stores that older versions wrote: what stands in the history counts."""
    await suspended_run(world)
    await suspended_by(world, changed)
    store = await world.store()
    head = await store.head("run:a")
    unmarked = {"suspended_for": None, "tried": None, "code": None}
    await store.commit(Commit(id="old", stream="run:a", expected_version=head.version, attributes=unmarked))
    await world.release(store)
    async with world.engine(fixed) as engine:
        await until_async(lambda: has_status(engine.run("a"), "completed"))


async def test_cancelled_while_it_is_tried(world: World) -> None:
    """A wish that arrives meanwhile is answered, whichever comes first."""
    await suspended_run(world)
    await suspended_by(world, changed)
    async with world.engine(fixed) as engine:
        await engine.run("a").cancel(reason="enough")

        async def ended() -> bool:
            return await engine.run("a").status() in ("terminated", "cancelled", "completed")

        await until_async(ended)
        await check_history(engine.store, "a")


async def test_a_spinning_run_goes_on_with_cured_code(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Suspended in a live turn: the code that was live is the one that was tried."""
    monkeypatch.setattr(core_loop, "STEPS_PER_TURN_MAX", 5_000)

    @workflow(name="spins")
    async def spinning() -> str:
        await asyncio.sleep(10)
        while True:
            await asyncio.sleep(0)

    @workflow(name="spins")
    async def cured() -> str:
        await asyncio.sleep(10)
        return "cured"

    async with world.engine(spinning) as engine:
        await engine.start(spinning(), id="a")
        await at_rest(engine.store, "a")
        world.clock.advance(10)
        await until_async(lambda: has_status(engine.run("a"), "suspended"))
    for code, kinds in ((spinning, 1), (cured, 1)):
        async with world.engine(code) as engine:
            await until(lambda: _looked(engine))
            await until_async(
                lambda code=code: has_status(engine.run("a"), "completed" if code is cured else "suspended")
            )
            assert (await kinds_of(engine.run("a"))).count("RunSuspended") == kinds


async def test_a_child_that_its_engine_learns_of(world: World) -> None:
    """A workflow that is made while its parent runs: suspended runs of it are looked for once it is known."""
    gate = Signal("gate", int)

    def parent_of(page: int) -> Any:
        def make() -> Any:
            @workflow(name="made")
            async def made() -> str:
                text = await fetch(page)
                await asyncio.sleep(1_000)
                return text

            return made

        @workflow(name="parent")
        async def parent() -> str:
            child = await durable.start(make()(), id="child")
            await gate.receive()
            await gate.receive()
            return await child.result()

        return parent

    wrong, right = parent_of(2), parent_of(1)
    async with world.engine(right) as engine:
        await engine.start(right(), id="parent")
        await until_async(lambda: _timer(engine, "child"))
        await at_rest(engine.store, "child")
        await at_rest(engine.store, "parent")
    world.clock.advance(1_000)
    async with world.engine(wrong) as engine:
        await engine.run("parent").signal(gate, 1)
        await until_async(lambda: has_status(engine.run("child"), "suspended"))
        await at_rest(engine.store, "parent")
    async with world.engine(right) as engine:
        await until(lambda: _looked(engine))
        await settle()
        assert await engine.run("child").status() == "suspended"  # nobody has told it of such a workflow yet
        await engine.run("parent").signal(gate, 1)
        assert await soon(engine.run("parent").result()) == "page 1"
        await check_history(engine.store, "child")


async def _timer(engine: Engine, run_id: str) -> bool:
    try:
        return "TimerStarted" in await kinds_of(engine.run(run_id))
    except RunNotFound:
        return False


async def test_a_crash_at_any_call_while_it_is_tried(worlds: Any) -> None:
    for number in range(1, 30):
        for fault in ("die before", "die after"):
            world: World = worlds()
            await suspended_run(world)
            await suspended_by(world, changed)
            faulty = FaultyStore(await world.store(), at_call(number, fault))
            try:
                async with Engine(faulty, workflows=[fixed], clock=world.clock, grace=0) as engine:
                    await until_async(lambda: has_status(engine.run("a"), "completed"))
            except (StoreUnavailable, EngineFailed):
                pass
            if not faulty.dead:
                faulty.die()
            async with world.engine(fixed) as engine:
                await until_async(lambda: has_status(engine.run("a"), "completed"))
                kinds = await kinds_of(engine.run("a"))
                assert kinds.count("RunResumed") == 1
                await check_history(engine.store, "a", fixed)


# -- codes -----------------------------------------------------------------------------------------------------------------


def test_a_code_is_the_same_in_every_process() -> None:
    program = (
        "from engine.runtime.codes import Codes; from tests.runtime import test_suspension as t;"
        "print(Codes().of(t.fixed))"
    )
    root = Path(__file__).parents[2]
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            env={"PYTHONPATH": str(root), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert said == {Codes().of(fixed)}


def test_codes_differ_by_what_is_reached() -> None:
    def helper_one() -> int:
        return 1

    def helper_two() -> int:
        return 2

    @task
    async def take(value: int) -> int:
        return value

    @task(name="take")
    async def take_text(value: str) -> str:
        return value

    def made(helper: Any, taking: Any) -> Any:
        @workflow(name="made")
        async def made_() -> int:
            await taking(helper())
            return helper()

        return made_

    codes = [Codes().of(made(*each)) for each in ((helper_one, take), (helper_two, take), (helper_one, take_text))]
    assert len(set(codes)) == 3
    assert Codes().of(made(helper_one, take)) == codes[0]


def test_a_changed_module_is_another_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only a comment has changed, or a method that is not followed."""
    file = tmp_path / "mod_of_codes.py"
    monkeypatch.syspath_prepend(tmp_path)
    text = "from engine import workflow\n\n@workflow\nasync def one() -> int:\n    return 1\n"
    file.write_text(text)
    import mod_of_codes

    before = Codes().of(mod_of_codes.one)
    file.write_text(text + "\n\nclass Other:\n    pass\n")
    assert Codes().of(mod_of_codes.one) != before
    file.unlink()
    assert Codes().of(mod_of_codes.one) != before  # and one without a file is what its functions are
    sys.modules.pop("mod_of_codes")
