"""Pruning runs and making them forget: what stays, what is refused, and that a crash anywhere is finished by asking again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from engine import Engine, Retention, RunHandle, Signal, durable, task, workflow
from engine.audit import Pruning, prune, verify
from engine.core.events import PayloadsDestroyed, RunPruned
from engine.errors import (
    HoldfastError,
    KeepingRefused,
    RepairRefused,
    RunConflict,
    RunEnded,
    RunNotFound,
    RunPrunedError,
)
from eventstore import EventStore, KeptDigest, StoreUnavailable
from eventstore.memory import MemoryStore
from tests.runtime.faulty import FaultyStore, at_call
from tests.runtime.worlds import World, events_of, kinds_of, soon, until_async

DAY = 86_400.0
go = Signal("go", str)


@task
async def load(text: str) -> str:
    return text * 2


@workflow
async def nightly(text: str) -> str:
    if text == "bad":
        raise ValueError("as asked")
    return await load(await load(text))


@workflow
async def hourly(text: str) -> str:
    return await load(text)


@workflow
async def waiting(text: str) -> str:
    return text + await go.receive()


@workflow
async def family(text: str) -> str:
    await nightly.options(id=f"{durable.run_id()}-child")(text)
    return await go.receive()


async def ended(engine: Engine, run_id: str, text: str = "x", of: Any = nightly) -> RunHandle[Any]:
    run = await engine.start(of(text), id=run_id)
    if text == "bad":
        with pytest.raises(HoldfastError):
            await soon(run.result())
    else:
        await soon(run.result())
    return run


async def free(store: EventStore, run_id: str) -> None:
    """Nobody has it in hand any more."""

    async def given_up() -> bool:
        return (await store.head(f"run:{run_id}")).owner is None

    await until_async(given_up)


async def pruned(engine: Engine, run_id: str, **said: str) -> int:
    await free(engine.store, run_id)
    return await engine.prune(run_id, **said)


# -- what stays ------------------------------------------------------------------------------------------------------------


async def test_of_a_pruned_run_stays_who_when_and_why(world: World) -> None:
    async with world.engine(nightly) as engine:
        run = await ended(engine, "r")
        before = [item async for item in run.events()]
        world.clock.advance(5)
        assert await pruned(engine, "r", by="ann", reason="policy 7") == len(before)
        (note,) = await events_of(run)
        assert isinstance(note, RunPruned)
        assert (note.run, note.workflow, note.status, note.events) == ("r", "nightly", "completed", len(before))
        assert (note.by, note.reason, note.at) == ("ann", "policy 7", world.clock.now())
        assert (note.first, note.last) == (before[0].position, before[-1].position)
        assert (note.digest, note.started_at) == (before[-1].digest.hex(), before[0].event.at)
        assert note.ended_at == before[-1].event.at
        state = await run.state()
        assert (state.status, state.workflow, state.ended, state.pruned) == ("pruned", "nightly", True, note)
        assert await run.status() == "pruned"
        assert (await engine.runs()).items == ()
        (summary,) = (await engine.runs(status="pruned")).items
        assert (summary.id, summary.status) == ("r", "pruned")
        assert await engine.prune("r", by="bob") == 0, "nothing is left to take away, and nothing more is said"
        assert len(await events_of(run)) == 1
        assert (await verify(engine.store)).findings == ()


async def test_the_id_of_a_pruned_run_stays_taken(world: World) -> None:
    """It is not silently run again, and nothing reaches it, or goes on from it."""
    async with world.engine(nightly, waiting) as engine:
        run = await ended(engine, "r")
        await pruned(engine, "r")
        with pytest.raises(RunConflict, match=r"'r' was pruned.*Its id stays taken: choose another"):
            await engine.start(nightly("x"), id="r")
        for attempt in (
            engine.rerun("r"),
            engine.reopen("r"),
            engine.fork("r", at=2),
            engine.what_if("r", at=2),
            engine.diff("r", "r"),
            engine.destroy_payloads("r"),
        ):
            with pytest.raises(RunPrunedError):
                await attempt
        with pytest.raises(RunEnded):
            await run.signal(go, "x")
        for ask in (run.cancel(), run.terminate(), run.pause(), run.resume(), run.unpause()):
            await ask
        assert await kinds_of(run) == ["RunPruned"]
        again = await ended(engine, "another")
        assert await again.result() == "xxxx"
    async with world.engine() as engine:
        with pytest.raises(RunPrunedError, match="holdfast show r"):
            await soon(engine.run("r").result())


async def test_a_child_whose_id_is_a_pruned_runs_is_a_conflict(world: World) -> None:
    """As with any other run's id: its parent is told, and it is not begun."""

    @workflow
    async def parent() -> str:
        return await nightly.options(id="r")("x")

    async with world.engine(nightly, parent) as engine:
        await ended(engine, "r")
        await pruned(engine, "r")
        with pytest.raises(HoldfastError):
            await soon((await engine.start(parent(), id="p")).result())
        assert "ChildFailed" in await kinds_of(engine.run("p"))


async def test_destroyed_payloads_leave_what_happened(world: World) -> None:
    async with world.engine(nightly) as engine:
        run = await ended(engine, "r", "secret")
        before = [item async for item in run.events()]
        had = sum(item.payload is not None for item in before)
        await free(engine.store, "r")
        assert await engine.destroy_payloads("r", versions=[1], by="ann", reason="too much") == 1
        assert await engine.destroy_payloads("r", versions=[1]) == 0
        assert await engine.destroy_payloads("r", by="ann", reason="request 7") == had - 1
        assert await engine.destroy_payloads("r") == 0
        after = [item async for item in run.events()]
        assert [(item.header, item.digest) for item in after[: len(before)]] == [
            (item.header, item.digest) for item in before
        ]
        assert {item.payload for item in after} == {None}
        notes = [item.event for item in after[len(before) :]]
        assert [(note.by, note.reason, note.versions) for note in notes if isinstance(note, PayloadsDestroyed)] == [
            ("ann", "too much", (1,)),
            ("ann", "request 7", ()),
        ]
        state = await run.state()
        assert (state.status, state.result, state.destroyed) == ("completed", None, notes[-1])
        verdict = await verify(engine.store)
        assert (verdict.findings, verdict.destroyed) == ((), had)
        for attempt in (engine.rerun("r"), engine.fork("r", at=2), engine.what_if("r", at=2)):
            with pytest.raises(RepairRefused, match="destroyed"):
                await attempt
    async with world.engine() as engine:
        with pytest.raises(HoldfastError, match="destroyed"):
            await engine.run("r").result()
        assert await pruned(engine, "r") == len(after)


async def test_a_run_that_failed_and_forgot_is_not_reopened(world: World) -> None:
    async with world.engine(nightly) as engine:
        run = await ended(engine, "r", "bad")
        await free(engine.store, "r")
        await engine.destroy_payloads("r", versions=[1])
        with pytest.raises(RepairRefused, match="payloads of run 'r' were destroyed"):
            await engine.reopen("r")
        assert (await run.state()).status == "failed"


async def test_children_forget_with_their_parent_if_asked(world: World) -> None:
    async with world.engine(nightly, family) as engine:
        run = await engine.start(family("secret"), id="f", signals=[go.message("secret")])
        await soon(run.result())
        for each in ("f", "f-child"):
            await free(engine.store, each)
        assert await engine.destroy_payloads("f") > 0
        assert any([item.payload async for item in engine.run("f-child").events()])
        assert await engine.destroy_payloads("f", children=True, by="ann") > 0
        assert not any([item.payload async for item in engine.run("f-child").events()])
        (note,) = [each for each in await events_of(engine.run("f-child")) if isinstance(each, PayloadsDestroyed)]
        assert note.by == "ann"


@workflow
async def marked(text: str) -> str:
    durable.set_attributes(customer=text, stage="first")
    await load(text)
    durable.set_attributes(stage="last", weight=7)
    return text


@pytest.mark.parametrize("text", ["x", "bad"])
async def test_a_fork_is_not_told_what_a_child_has_forgotten(world: World, text: str) -> None:
    """It would be suspended for that, and no code could mend it."""
    async with world.engine(family, nightly) as engine:
        run = await engine.start(family(text), id="f")
        if text == "x":
            await run.signal(go, "on")
            await soon(run.result())
        else:
            with pytest.raises(HoldfastError):
                await soon(run.result())
        assert await engine.destroy_payloads("f-child") > 0
        with pytest.raises(RepairRefused, match="child run 'f-child' was made to forget what came of it"):
            await engine.fork("f", at=2)
        assert await soon((await engine.rerun("f", id="again")).status()) == "running"


async def test_own_attributes_go_with_the_payloads_that_gave_them(world: World) -> None:
    """They are values in the clear, in an index: nobody finds the run by them any more, and no list shows them."""
    async with world.engine(marked) as engine:
        for run_id in ("all", "some", "gone"):
            run = await engine.start(marked("ann"), id=run_id, attributes={"region": "eu", "customer": "nobody"})
            await soon(run.result())
            await free(engine.store, run_id)
        kinds = [type(event).__name__ for event in await events_of(engine.run("some"))]
        first = kinds.index("AttributesSet") + 1
        last = len(kinds) - kinds[::-1].index("AttributesSet")
        assert last > first
        want = {"customer": "ann", "region": "eu", "stage": "last", "weight": 7}

        async def found(run_id: str) -> dict[str, Any]:
            page = await engine.runs(status="completed")
            (run,) = [each for each in page.items if each.id == run_id]
            return dict(run.attributes)

        assert await found("some") == want
        await engine.destroy_payloads("some", versions=[first], by="ann")
        assert await found("some") == {"region": "eu", "stage": "last", "weight": 7}
        await engine.destroy_payloads("some", versions=[last], by="ann")
        assert await found("some") == {"region": "eu"}
        await engine.destroy_payloads("all", by="ann")
        assert await found("all") == {}
        assert (await engine.run("all").state()).attributes == {}
        await engine.prune("gone", by="ann")
        head = await engine.store.head("run:gone")
        assert head.attributes == {"status": "pruned"}
        for wanted in ({"customer": "ann"}, {"region": "eu"}, {"stage": "last"}, {"weight": 7}):
            ids = [run.id for run in (await engine.runs(attributes=wanted)).items]
            assert ids == (["some"] if wanted == {"region": "eu"} else [])


async def test_a_forgetting_that_is_cut_off_has_taken_the_attributes_first(world: World) -> None:
    """They go in the commit that says so: what a crash leaves is never a run that is found by what it is to forget."""
    async with world.engine(marked) as engine:
        run = await engine.start(marked("ann"), id="r")
        await soon(run.result())
        await free(engine.store, "r")
        forget, engine.store.forget = engine.store.forget, _crash  # type: ignore[attr-defined]
        with pytest.raises(StoreUnavailable):
            await engine.destroy_payloads("r", by="ann")
        assert (await engine.runs(attributes={"customer": "ann"})).items == ()
        engine.store.forget = forget  # type: ignore[attr-defined]
        assert await engine.destroy_payloads("r", by="ann") > 0


async def _crash(stream: str, *, versions: Any = None) -> int:
    raise StoreUnavailable("the power is gone")


# -- what is refused -------------------------------------------------------------------------------------------------------


async def test_what_has_not_ended_or_is_needed_stays(world: World) -> None:
    async with world.engine(nightly, waiting, family) as engine:
        await engine.start(waiting("x"), id="open")
        for attempt in (engine.prune("open"), engine.destroy_payloads("open")):
            with pytest.raises(KeepingRefused, match="'open' has not ended"):
                await attempt
        run = await engine.start(family("x"), id="f")

        async def told() -> bool:
            return "ChildCompleted" in await kinds_of(run)

        await until_async(told)
        await free(engine.store, "f-child")
        with pytest.raises(KeepingRefused, match="'f-child' is a child of run 'f', which has not ended"):
            await engine.prune("f-child")
        await run.signal(go, "on")
        await soon(run.result())
        assert await pruned(engine, "f-child") > 0
        assert await pruned(engine, "f") > 0, "a parent may go before or behind its children"
        with pytest.raises(RunNotFound):
            await engine.prune("nobody")
        with pytest.raises(KeepingRefused, match="versions 1 to"):
            await ended(engine, "r")
            await free(engine.store, "r")
            await engine.destroy_payloads("r", versions=[99])


async def test_the_origin_of_a_fork_that_is_not_whole_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.runtime.forking.CHUNK_EVENTS", 3)
    async with world.engine(nightly) as engine:
        await ended(engine, "r")
        await free(engine.store, "r")
    given = await world.store()
    store = FaultyStore(given, at_call(2, "refuse", only="commit"))
    async with Engine(store, workflows=[nightly], clock=world.clock, only=()) as engine:
        with pytest.raises(StoreUnavailable):
            await engine.fork("r", at=6, id="half")
        with pytest.raises(KeepingRefused, match="'half', a fork of run 'r', is not made to its end"):
            await engine.prune("r")
        await engine.fork("r", at=6, id="half")
        assert await engine.prune("r") > 0
    await world.release(given)
    async with world.engine(nightly) as engine:
        assert await soon(engine.run("half").result()) == "xxxx", "a fork that is whole needs its origin no more"
        assert (await verify(engine.store)).findings == ()


async def test_a_store_that_can_take_nothing_away_says_so() -> None:
    class Plain(MemoryStore):
        capabilities = frozenset()

    async with Engine(Plain(), workflows=[hourly]) as engine:
        await ended(engine, "r", of=hourly)
        await free(engine.store, "r")
        for attempt in (
            engine.prune("r"),
            engine.destroy_payloads("r"),
            prune(engine.store, [Retention(keep=timedelta(0))]),
        ):
            with pytest.raises(KeepingRefused, match="no capability 'keeping'"):
                await attempt


def test_a_policy_that_means_nothing_is_refused() -> None:
    for wrong in (
        {},
        {"keep": timedelta(days=-1)},
        {"keep": timedelta(1), "newest": -1},
        {"keep": timedelta(1), "status": "running"},
        {"keep": timedelta(1), "status": ("completed", "pruned")},
    ):
        with pytest.raises(HoldfastError, match="Retention"):
            Retention(**wrong)


# -- policies --------------------------------------------------------------------------------------------------------------


async def test_policies_say_what_goes_and_the_first_that_fits_decides(world: World) -> None:
    async with world.engine(nightly, hourly, waiting) as engine:
        for n in range(3):
            await ended(engine, f"n{n}")
            await ended(engine, f"h{n}", of=hourly)
            await ended(engine, f"bad{n}", "bad")
            world.clock.advance(10 * DAY)
        await engine.start(waiting("x"), id="open")
        policies = [
            Retention(workflow="hourly", keep=timedelta(days=25), payloads=timedelta(days=15)),
            Retention(status="failed", keep=timedelta(days=365)),
            Retention(keep=timedelta(days=15)),
        ]
        due = {each.id: each.due async for each in engine.due(policies)}
        assert due == {"h0": "prune", "h1": "payloads", "n0": "prune", "n1": "prune"}
        for each in due:
            await free(engine.store, each)
        told: list[tuple[str, str | None]] = []
        said = Pruning(runs=3, events=sum([(await engine.run(r).state()).version for r in ("h0", "n0", "n1")]))
        done = await prune(
            engine.store,
            policies,
            by="ann",
            reason="p",
            clock=world.clock,
            progress=lambda d, w: told.append((d.id, w)),
        )
        assert (done.runs, done.events, done.forgetful, done.left) == (said.runs, said.events, 1, 0)
        assert done.payloads > 0
        assert sorted(told) == sorted((each, None) for each in due)
        left = {each.id for each in (await engine.runs()).items}
        assert left == {"n2", "h1", "h2", "bad0", "bad1", "bad2", "open"}
        assert [each async for each in engine.due(policies)] == []
        world.clock.advance(5 * DAY)
        assert {each.id: each.due async for each in engine.due(policies)} == {
            "n2": "prune",
            "h1": "prune",  # its age is that of its end, not of when it was made to forget
            "h2": "payloads",
        }
        assert (await verify(engine.store)).findings == ()


async def test_the_newest_of_each_workflow_stay(world: World) -> None:
    async with world.engine(nightly, hourly) as engine:
        for n in range(4):
            await ended(engine, f"n{n}")
            await ended(engine, f"h{n}", of=hourly)
            world.clock.advance(DAY)
        policy = Retention(keep=timedelta(0), newest=2)
        assert sorted([each.id async for each in engine.due([policy])]) == ["h0", "h1", "n0", "n1"]
        for each in ("h0", "h1", "n0", "n1"):
            await free(engine.store, each)
        assert (await prune(engine.store, [policy], clock=world.clock, limit=3)).more
        assert (await prune(engine.store, [policy], clock=world.clock)).runs == 1
        assert sorted(each.id for each in (await engine.runs()).items) == ["h2", "h3", "n2", "n3"]


async def test_what_is_left_is_said_with_its_reason(world: World) -> None:
    async with world.engine(nightly, family) as engine:
        run = await engine.start(family("x"), id="f")

        async def told() -> bool:
            return "ChildCompleted" in await kinds_of(run)

        await until_async(told)
        await free(engine.store, "f-child")
        world.clock.advance(DAY)
        done = await prune(engine.store, [Retention(keep=timedelta(0))], clock=world.clock)
        assert (done.runs, done.left) == (0, 1)
        assert "is a child of run 'f'" in done.reasons[0].reason


# -- crashes, and others at work -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["die before", "die after"])
async def test_a_crash_at_any_call_is_finished_by_asking_again(world: World, fault: Any) -> None:
    """Nothing is taken away that no event speaks of, and what verifies before verifies behind it."""
    policies = [
        Retention(workflow="hourly", payloads=timedelta(0)),
        Retention(workflow="nightly", keep=timedelta(0)),
    ]
    number = 0
    while True:
        number += 1
        runs = [f"n{number}", f"m{number}", f"h{number}"]
        async with world.engine(nightly, hourly) as engine:
            for each in runs:
                await ended(engine, each, of=hourly if each[0] == "h" else nightly)
                await free(engine.store, each)
        given = await world.store()
        store = FaultyStore(given, at_call(number, fault))
        try:
            await prune(store, policies, by="ann", clock=world.clock)
            crashed = False
        except StoreUnavailable:
            crashed = True
        await world.release(given)
        async with world.engine() as engine:
            assert (await verify(engine.store)).findings == (), number
            for each in runs:
                await _is_as_it_says(engine, each)
            await prune(engine.store, policies, by="bob", clock=world.clock)
            assert [each async for each in engine.due(policies)] == []
            for each in runs[:2]:
                assert await kinds_of(engine.run(each)) == ["RunPruned"], number
                assert (await engine.store.head(f"run:{each}")).pruned
            kinds = await kinds_of(engine.run(runs[2]))
            assert kinds.count("PayloadsDestroyed") == 1, (number, "said once, also if it was finished by another")
            assert not any([item.payload async for item in engine.run(runs[2]).events()])
            assert (await verify(engine.store)).findings == ()
        if not crashed:
            assert number > 8
            return


async def _is_as_it_says(engine: Engine, run_id: str) -> None:
    """What is gone is gone behind an event that says so."""
    kinds = await kinds_of(engine.run(run_id))
    kept = [each async for each in engine.store.kept(f"run:{run_id}")]  # type: ignore[attr-defined]
    assert not kept or kinds[-1] == "RunPruned"
    payloads = [item.payload async for item in engine.run(run_id).events()]
    assert any(payloads) or kinds[-1] in {"RunPruned", "PayloadsDestroyed"}


async def test_two_at_once_take_everything_away_once(world: World) -> None:
    async with world.engine(nightly) as engine:
        for n in range(12):
            await ended(engine, f"r{n}")
            await free(engine.store, f"r{n}")
    stores = [await world.store(), await world.store()]
    policy = [Retention(keep=timedelta(0))]
    both = await asyncio.gather(
        *(prune(store, policy, by=f"p{n}", clock=world.clock) for n, store in enumerate(stores))
    )
    assert sum(each.left for each in both) == 0
    async with world.engine() as engine:
        for n in range(12):
            assert await kinds_of(engine.run(f"r{n}")) == ["RunPruned"]
        assert (await verify(engine.store)).findings == ()
        kept = [each async for each in engine.store.leaves() if isinstance(each, KeptDigest)]  # type: ignore[attr-defined]
        assert sum(each.events for each in both) == len(kept)
    for store in stores:
        await world.release(store)


async def test_beside_a_running_engine(world: World) -> None:
    """Runs begin, end, and are told things, while all that has ended is taken away again and again."""
    async with world.engine(nightly, waiting) as engine:
        store = await world.store()
        over = asyncio.Event()

        async def tidy() -> int:
            count = 0
            while not over.is_set():
                count += (await prune(store, [Retention(keep=timedelta(0))], clock=world.clock)).runs
                await asyncio.sleep(0)
            return count

        tidying = asyncio.ensure_future(tidy())
        runs = [await engine.start(waiting(str(n)), id=f"w{n}") for n in range(5)]
        for n in range(10):
            run = await engine.start(nightly(str(n)), id=f"n{n}")
            try:
                assert await soon(run.result()) == str(n) * 4
            except RunPrunedError:
                pass  # it had ended, and was gone before we asked
        for run in runs:
            await run.signal(go, "!")

        async def all_gone() -> bool:
            return not (await engine.runs()).items

        await until_async(all_gone)
        over.set()
        assert await soon(tidying) == 15
        await world.release(store)
        assert (await verify(engine.store)).findings == ()
        assert await soon((await engine.start(nightly("z"), id="last")).result()) == "zzzz"


async def test_who_awaits_a_run_that_is_pruned_as_soon_as_it_has_ended_is_told(world: World) -> None:
    """Whoever awaits it elsewhere looks now and then; the end, and that it was pruned, may come between two looks."""
    looked, look = asyncio.Event(), asyncio.Event()

    async def stand_still(name: str, _: Any) -> None:
        if name == "find":
            looked.set()
            await look.wait()

    async with world.engine(waiting) as engine, Engine(FaultyStore(engine.store), clock=world.clock) as elsewhere:
        run = await engine.start(waiting("x"), id="r")
        elsewhere.store.before = stand_still  # type: ignore[attr-defined]
        result = asyncio.create_task(elsewhere.run("r").result())
        await soon(looked.wait())
        await run.signal(go, "on")
        assert await soon(run.result()) == "xon"
        await pruned(engine, "r")
        look.set()
        with pytest.raises(RunPrunedError):
            await soon(result)


class ReadLate(FaultyStore):
    """Something happens between a look at the head of a run and the first event that is read."""

    first: Callable[[], Coroutine[Any, Any, Any]] | None = None

    async def read(self, stream: str, **what: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        if stream == "run:r" and what.get("after", 0) == 0 and (first := self.first) is not None:
            self.first = None
            await first()
        async for event in super().read(stream, **what):
            yield event


@pytest.mark.parametrize("what", ["reopen", "fork", "what_if"])
async def test_who_repairs_a_run_that_is_pruned_as_its_history_is_read_is_told(world: World, what: str) -> None:
    async with world.engine(nightly) as engine:
        await ended(engine, "r", "bad")
        await free(engine.store, "r")
        late = ReadLate(engine.store)
        async with Engine(late, workflows=[nightly], only=["nobody"], clock=world.clock) as elsewhere:
            late.first = lambda: engine.prune("r")
            with pytest.raises(RunPrunedError):
                await (elsewhere.reopen("r") if what == "reopen" else getattr(elsewhere, what)("r", at=1))
            assert late.first is None


async def test_who_prunes_and_who_reopens_at_once_do_not_both(world: World) -> None:
    """One of them is refused; a run that goes on has all of its history."""
    for number in range(8):
        run_id = f"r{number}"
        async with world.engine(nightly) as engine:
            await ended(engine, run_id, "bad")
            await free(engine.store, run_id)
        async with world.engine(nightly, only=()) as engine:
            results = await asyncio.gather(engine.prune(run_id), engine.reopen(run_id), return_exceptions=True)
            kinds = await kinds_of(engine.run(run_id))
            assert (kinds == ["RunPruned"]) == isinstance(results[0], int), results
            assert isinstance(results[0], int) != (not isinstance(results[1], Exception)), (results, kinds)
            assert (await verify(engine.store)).findings == ()


async def test_who_reads_a_history_while_another_takes_it_away_does_not_call_it_tampered_with() -> None:
    """What is missing then is not missing: somebody was quicker."""

    class Raced(MemoryStore):
        raced = False

        async def read(self, stream: str, *, after: int = 0, until: int | None = None, proof: bool = True) -> Any:
            async for event in super().read(stream, after=after, until=until, proof=proof):
                yield event
                if not self.raced and stream == "run:r" and event.version == 3:
                    self.raced = True
                    async with Engine(self) as other:
                        await other.prune("r", by="other")

    store = Raced()
    async with Engine(store, workflows=[nightly]) as engine:
        store.raced = True
        run = await ended(engine, "r")
        await free(store, "r")
        store.raced = False
        assert await engine.prune("r", by="ann") == 0
        (note,) = await events_of(run)
        assert (store.raced, note.by) == (True, "other")
