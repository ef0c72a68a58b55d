"""Every public generic, with the types that both checkers must infer. Checked, never run: see `tests/test_typing.py`."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from typing import assert_type

from msgspec import Struct

import eventstore
from engine import (
    AttributeValue,
    Call,
    ChildHandle,
    Diagnosis,
    Due,
    Engine,
    Feed,
    Happened,
    Memo,
    NotHappened,
    PendingRequest,
    Query,
    Received,
    Replayed,
    Request,
    Retention,
    RunHandle,
    RunRef,
    RunSummary,
    Signal,
    SignalMessage,
    StackFrame,
    State,
    Task,
    Transaction,
    Workflow,
    diagnose,
    durable,
    replay_run,
    task,
    testing,
    workflow,
)
from engine.assets import Asset, Check, Definitions, Out, Output, asset, assets, check, not_null
from engine.audit import Pruning, prune
from engine.storage import Storage, Stored, data_version


class Draft(Struct):
    text: str


class Verdict(Struct):
    fine: bool


approve = Signal("approve", bool)
note = Signal("note", str | None)
rows = Signal("rows", list[int])
nothing = Signal("nothing", None)
either = Signal("either", Draft | Verdict)
review = Request("review", Draft, Verdict)
greet = Request("greet", None, str)
maybe = Request("maybe", int | None, list[str])
progress = Query("progress", None, dict[str, int])
count = Query("count", str, int)
phase = State("phase", str, initial="new")
last = State("last", int | None)
log = Feed("log", str)
pairs = Feed("pairs", tuple[int, str])

assert_type(approve, Signal[bool])
assert_type(note, Signal[str | None])
assert_type(rows, Signal[list[int]])
assert_type(nothing, Signal[None])
assert_type(either, Signal[Draft | Verdict])
assert_type(review, Request[Draft, Verdict])
assert_type(greet, Request[None, str])
assert_type(maybe, Request[int | None, list[str]])
assert_type(progress, Query[None, dict[str, int]])
assert_type(count, Query[str, int])
assert_type(phase, State[str])
assert_type(last, State[int | None])
assert_type(log, Feed[str])
assert_type(pairs, Feed[tuple[int, str]])


@task
async def fetch(url: str, *, tries: int = 1) -> list[int]:
    return [len(url) * tries]


@task(timeout=5)
def crunch(values: list[int]) -> float:
    return float(sum(values))


@workflow
async def part(day: date, n: int = 0) -> int:
    return n


async def decide(draft: Draft) -> Verdict:
    return Verdict(fine=bool(draft.text))


def decide_now(draft: Draft) -> Verdict:
    return Verdict(fine=bool(draft.text))


@workflow(name="nightly")
async def nightly(day: date) -> Verdict | None:
    assert_type(fetch("a", tries=2), Call[list[int]])
    assert_type(await fetch("a"), list[int])
    assert_type(await crunch([1]), float)
    assert_type(await crunch.options(timeout=3)([1]), float)
    first, second = await asyncio.gather(fetch("a"), crunch([2]))
    assert_type(first, list[int])
    assert_type(second, float)
    async with asyncio.TaskGroup() as group:
        branch = group.create_task(fetch("b"))
    assert_type(branch.result(), list[int])
    assert_type(await asyncio.wait_for(approve.receive(), 5), bool)
    assert_type(await note.receive(), str | None)
    assert_type(approve.waiting(), int)
    async for each in rows:
        assert_type(each, list[int])
        break
    assert_type(await part(day, n=1), int)
    assert_type(await part.options(parent_close="abandon")(day), int)
    handle = await durable.start(part(day))
    assert_type(handle, ChildHandle[int])
    assert_type(await handle.result(), int)
    await handle.signal(note, "x")
    other = durable.run("other")
    assert_type(other, RunRef)
    await other.signal(approve, True)
    async with review.serve(decide):
        await phase.publish("serving")
    async with review.serve(decide_now, validator=lambda draft: draft.text):
        await log.publish("served")
    received = await review.receive()
    assert_type(received, Received[Draft, Verdict])
    assert_type(received.value, Draft)
    received.answer(Verdict(fine=True))
    progress.provide(lambda: {"a": 1})
    count.provide(lambda name: len(name))
    await pairs.publish((1, "a"))
    await last.publish(None)
    durable.set_attributes(region="eu", amount=3, rate=2.5, paid=True, gone=None)
    if durable.turns() > 100:
        await durable.continue_as_new(nightly(day))
    return None


async def found(name: str) -> Happened[int] | NotHappened:
    return Happened(len(name)) if name else NotHappened()


@task(reconcile=found)
async def charged(name: str) -> int:
    return len(name)


@task(effect="at_most_once")
def posted(name: str) -> str:
    return name


@task(effect="transactional", raises=(ValueError,))
def booked(tx: Transaction, order: str, *, amount: int = 1) -> list[int]:
    ((total,),) = tx.execute("SELECT sum(amount) FROM bookings WHERE name = ?", (order,))
    tx.executemany("INSERT INTO bookings VALUES (:amount)", [{"amount": amount}])
    return [total]


def by_hand(tx: eventstore.Transaction) -> None:
    assert_type(booked.fn(tx, "o-1", amount=2), list[int])


@task(memo=Memo(expires=timedelta(days=1), key=lambda name: name.lower(), version="1"))
async def kept(name: str) -> list[int]:
    return [len(name)]


async def memoised(engine: Engine) -> None:
    assert_type(kept.policy.memo, Memo | None)
    assert_type(await kept("a"), list[int])
    assert_type(await kept.options(memo=Memo(expires=0.5))("a"), list[int])
    assert_type(await engine.forget(kept), int)
    assert_type(await engine.forget(kept("a"), by="ann"), int)


async def mapped() -> None:
    async for each in charged.map(["alice", "bob"], concurrency=2):
        assert_type(each, int)


assert_type(Happened("receipt"), Happened[str])
assert_type(charged("alice"), Call[int])
assert_type(posted("alice"), Call[str])
assert_type(booked("o-1", amount=3), Call[list[int]])
assert_type(booked.options(deadline=5)("o-1"), Call[list[int]])
is_transactional: Task[..., list[int]] = booked
assert_type(nightly(date(2026, 1, 1)), Call[Verdict | None])
is_task: Task[..., float] = crunch
is_workflow: Workflow[[date], Verdict | None] = nightly


async def client() -> None:
    async with Engine("sqlite:///runs.db", workflows=[nightly, part]) as engine:
        message = approve.message(True, id="m-1")
        assert_type(message, SignalMessage)
        run = await engine.start(nightly(date(2026, 1, 1)), id="n", signals=[message], deadline=60)
        assert_type(run, RunHandle[Verdict | None])
        assert_type(await run.result(), Verdict | None)
        named = await engine.start(part(date(2026, 1, 1)), attributes={"region": "eu", "amount": 3, "paid": False})
        assert_type(named, RunHandle[int])
        page = await engine.runs(attributes={"region": ("eu", None), "rate": 2.5, "gone": None}, cursor=None)
        assert_type(page, eventstore.Page[RunSummary])
        assert_type(page.items[0].attributes, dict[str, AttributeValue])
        replayed = await replay_run(engine.store, "n", [nightly, part], to=3)
        assert_type(replayed, Replayed)
        assert_type(replayed.branches[0].stack, tuple[StackFrame, ...])
        single = await engine.start(nightly(date(2026, 1, 2)), delay=60, singleton="k", on_conflict="queue")
        assert_type(single, RunHandle[Verdict | None])
        assert_type(await engine.debounce(part(date(2026, 1, 2)), key="k", seconds=1, longest=5), RunHandle[int])
        await run.signal(approve, False)
        await run.signal(note, None)
        pending = await run.request(review, Draft(text="a"), id="q-1")
        assert_type(pending, PendingRequest[Verdict])
        assert_type(await pending.answer(), Verdict)
        assert_type(await run.ask(review, Draft(text="b")), Verdict)
        assert_type(await run.ask(greet), str)
        assert_type(await run.ask(maybe, None), list[str])
        assert_type(await run.ask(maybe, 3), list[str])
        assert_type(await run.ask(maybe, 3, reason="to know"), list[str])
        assert_type(await run.query(progress), dict[str, int])
        assert_type(await run.query(count, "a"), int)
        assert_type(await run.read(phase), str)
        assert_type(await run.read(last), int | None)
        async for line in run.feed(log, follow=False):
            assert_type(line, str)
        await engine.complete("token", [1], task=fetch)
        await engine.reject("token", "why not", by="ann", reason="nobody is there")
        policies = [Retention(workflow="nightly", status=("completed", "failed"), keep=timedelta(days=30), newest=3)]
        assert_type(await engine.prune("nightly", by="ann"), int)
        assert_type(await engine.destroy_payloads("nightly", versions=[1], children=True), int)
        async for each in engine.due(policies):
            assert_type(each, Due)
        assert_type(await prune(engine.store, policies, limit=10), Pruning)


async def stores_values(storage: Storage) -> None:
    stored = await storage.write([1], list[int])
    assert_type(stored, Stored)
    assert_type(await storage.read(stored, Verdict), Verdict)
    assert_type(storage.blocking.write(b""), Stored)
    assert_type(data_version([1]), str)


async def tests() -> None:
    async with testing.engine(nightly) as lab:
        assert_type(lab, testing.Lab)
        assert_type(lab.fake(crunch, returns=1.0).keys, list[str])
        lab.fake(fetch, returns=[1], takes=5)
        lab.fake(fetch, raises=ValueError)
        lab.fake(fetch, outcomes=[ValueError("no"), [1]])
        lab.fake(fetch, side_effect=lambda url, *, tries=1: [tries])
        lab.fake(fetch("a"), returns=[1])
        lab.fake(booked, side_effect=lambda order, *, amount=1: [amount])
        assert_type(lab.calls(fetch("a"))[0], testing.TaskCall)
        assert_type(await lab.run(nightly(date(2026, 1, 1))), Verdict | None)
        run = await lab.start(nightly(date(2026, 1, 1)))
        assert_type(run, RunHandle[Verdict | None])
        assert_type(await lab.result(run), Verdict | None)
        assert_type(await testing.history(run), testing.History)
    kept = testing.load_history("nightly.jsonl")
    assert_type(kept, testing.RecordedHistory)
    testing.assert_replays(kept, nightly)
    assert_type(diagnose(kept.events, nightly), Diagnosis | None)
    story = testing.given(nightly(date(2026, 1, 1)))
    assert_type(story.task(crunch), testing.GivenCall[float])
    assert_type(story.task(fetch("a")), testing.GivenCall[list[int]])
    assert_type(story.task(crunch).returns(1.0).signal(approve, True).then(fetch, fetch("a")), testing.Given)
    assert_type(await testing.explore(nightly(date(2026, 1, 1))), testing.Report)


@asset
def raw(day: date) -> list[int]:
    return [day.year]


@asset(key="raw/prices", tags=["daily"], timeout=60, pool="warehouse", rate="10/s")
async def prices(raw: list[int], *, scale: float = 1.0) -> dict[str, float]:
    return {str(each): scale for each in raw}


@check(raw, blocking=False)
def sorted_rows(value: list[int], least: int = 0) -> bool:
    return sorted(value) == value and least >= 0


@assets(outs={"good": Out(), "bad": Out()})
def both(raw: list[int]) -> tuple[list[int], list[int]]:
    return raw, []


async def data() -> None:
    assert_type(raw(date(2026, 1, 1)), list[int])
    assert_type(await prices([1], scale=2.0), dict[str, float])
    assert_type(both([1]), tuple[list[int], list[int]])
    kept: Asset[..., list[int]] = raw
    assert_type(sorted_rows([1], least=3), bool)
    plain: Check[..., bool] = sorted_rows
    output: Output[list[int]] = Output([1], metadata={"rows": 1})
    assert_type(output.value, list[int])
    Definitions([raw, prices, both], checks=[plain, not_null("id", name="there")]).node_of(kept.key)
