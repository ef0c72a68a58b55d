"""Forks that cannot become whole: their origin's history was taken away while they were made of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from engine import Engine, Signal, task, workflow
from engine.audit import verify
from engine.errors import EngineFailed, HoldfastError, RepairRefused, RunConflict, RunPrunedError, RunTerminatedError
from eventstore import EventStore, StoreUnavailable
from tests.runtime.faulty import FaultyStore, at_call
from tests.runtime.worlds import World, kinds_of, soon

word = Signal("word", str)


@task
async def echo(n: int) -> int:
    return n


@workflow
async def wide(n: int) -> int:
    return sum(await asyncio.gather(*(echo(number) for number in range(n))))


@workflow
async def holding() -> str:
    return await word.receive()


class TakenAway(FaultyStore):
    """Takes something of run `r` away right behind the first part of a fork of it: pruning had looked before."""

    def __init__(self, inner: EventStore, taking: Callable[[Engine], Any]) -> None:
        super().__init__(inner)
        self.taking = taking
        self.engine: Engine | None = None  # that takes it away
        self.after = self._behind_the_first_part

    async def _behind_the_first_part(self, name: str, argument: Any) -> None:
        if self.engine is not None and name == "commit" and argument.stream == "run:half":
            engine, self.engine = self.engine, None
            await self.taking(engine)


async def prune_it(engine: Engine) -> None:
    assert await engine.prune("r", by="ann") > 0


async def destroy_it(engine: Engine) -> None:
    assert await engine.destroy_payloads("r", by="ann") > 0


@pytest.fixture
async def ended_wide(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A run `r` that has ended, which nobody has in his hands; forks of it are copied in small parts."""
    monkeypatch.setattr("engine.runtime.forking.CHUNK_EVENTS", 7)

    async def nothing(*_: object) -> None:
        """Pruning has looked for forks before there was one."""

    async with world.engine(wide) as engine:
        assert await soon((await engine.start(wide(30), id="r")).result()) == 435
    monkeypatch.setattr("engine.runtime.pruning.why_it_stays", nothing)
    return world


async def leave_half(world: World) -> None:
    """A fork `half` of run `r`, whose maker dies behind its first part."""
    dying = FaultyStore(await world.store(), at_call(1, "die after", only="commit"))
    with pytest.raises((StoreUnavailable, EngineFailed)):
        async with Engine(dying, workflows=[wide], clock=world.clock, only=()) as engine:
            await engine.fork("r", at=60, id="half")


@pytest.mark.parametrize(
    ("taking", "said"), [(prune_it, "'r' was pruned"), (destroy_it, "payloads of run 'r' were destroyed")]
)
async def test_a_fork_whose_origin_is_taken_away_meanwhile_is_ended(
    ended_wide: World, taking: Callable[[Engine], Any], said: str
) -> None:
    """Nobody could ever make it whole, and nothing else would end it: it stood there as paused, for ever."""
    given = await ended_wide.store()
    store = TakenAway(given, taking)
    async with (
        Engine(await ended_wide.store(), workflows=[wide], clock=ended_wide.clock, only=()) as other,
        Engine(store, workflows=[wide], clock=ended_wide.clock, only=()) as engine,
    ):
        store.engine = other
        with pytest.raises(HoldfastError, match=said):
            await engine.fork("r", at=60, id="half", by="joe")
        assert store.engine is None
        half = engine.run("half")
        with pytest.raises(RunTerminatedError, match="the history of its origin, run 'r', was taken away before"):
            await soon(half.result())
        kinds = await kinds_of(half)
        assert (kinds[0], kinds[-1], kinds.count("RunTerminated")) == ("RunForked", "RunTerminated", 1)
        with pytest.raises(HoldfastError, match=said):  # the same again: it is as it was
            await engine.fork("r", at=60, id="half", by="joe")
        assert await kinds_of(half) == kinds
        with pytest.raises(RepairRefused, match="'half' is a fork that is not made to its end"):
            await engine.reopen("half")
        assert (await verify(given)).findings == ()
        assert await engine.prune("half") == len(kinds)


async def test_a_fork_whose_maker_died_is_ended_when_it_is_asked_for_again(ended_wide: World) -> None:
    await leave_half(ended_wide)
    async with Engine(await ended_wide.store(), workflows=[wide], clock=ended_wide.clock, only=()) as engine:
        half = engine.run("half")
        assert await half.status() == "paused"
        await half.pause(reason="it takes so long")  # what waits for it goes with it
        await prune_it(engine)
        with pytest.raises(RunPrunedError):
            await engine.fork("r", at=60, id="half")
        assert await half.status() == "terminated"
        head = await engine.store.head("run:half")
        assert (head.closed, head.messages) == (True, ())


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_one_whose_maker_died_is_ended_by_who_cancels_it(ended_wide: World, how: str) -> None:
    """Nobody works on it, who would take the request up: it stood there as paused, for ever."""
    await leave_half(ended_wide)
    async with Engine(await ended_wide.store(), workflows=[wide], clock=ended_wide.clock, only=()) as engine:
        half = engine.run("half")
        await half.signal(word, "lost")
        await getattr(half, how)(by="ann", reason="a slip")
        with pytest.raises(RunTerminatedError, match="'half' was terminated: a slip"):
            await soon(half.result())
        kinds = await kinds_of(half)
        assert (kinds[0], kinds[-2:]) == ("RunForked", ["SignalIgnored", "RunTerminated"])
        head = await engine.store.head("run:half")
        assert (head.closed, head.messages, head.attributes["status"]) == (True, (), "terminated")
        await getattr(half, how)()  # it has ended: it is left as it is
        assert await kinds_of(half) == kinds
        with pytest.raises(RunConflict, match="another one than this fork"):
            await engine.fork("r", at=59, id="half")
        with pytest.raises(RunConflict, match="ended before it was made to its end: choose another id"):
            await engine.fork("r", at=60, id="half")
        assert await kinds_of(half) == kinds
        assert (await verify(engine.store)).findings == ()


async def test_one_that_is_cancelled_while_it_is_made_is_ended_and_its_maker_told(ended_wide: World) -> None:
    async def cancel_it(engine: Engine) -> None:
        await engine.run("half").cancel()

    store = TakenAway(await ended_wide.store(), cancel_it)
    async with (
        Engine(await ended_wide.store(), workflows=[wide], clock=ended_wide.clock, only=()) as other,
        Engine(store, workflows=[wide], clock=ended_wide.clock, only=()) as engine,
    ):
        store.engine = other
        with pytest.raises(RunConflict, match="at the same time"):
            await engine.fork("r", at=60, id="half")
        with pytest.raises(RunTerminatedError, match="it had not been made to its end"):
            await soon(engine.run("half").result())


async def test_one_that_becomes_whole_as_it_is_cancelled_is_cancelled_as_any_run(ended_wide: World) -> None:
    """Between the look and the end its maker was quicker."""
    await leave_half(ended_wide)

    async def make_it_whole(_name: str, argument: Any) -> None:
        if any(event.header.startswith(b'{"type":"RunTerminated"') for event in getattr(argument, "events", ())):
            store.before = None
            await other.fork("r", at=60, id="half")

    store = FaultyStore(await ended_wide.store())
    async with (
        ended_wide.engine(wide) as other,
        Engine(store, workflows=[wide], clock=ended_wide.clock, only=()) as engine,
    ):
        store.before = make_it_whole
        half = engine.run("half")
        await half.cancel(reason="too late")
        assert store.before is None
        assert (await kinds_of(half)).count("PrefixEnded") == 1
        assert await half.status() != "terminated"


async def test_what_waits_for_it_is_noted_however_much_it_is(
    ended_wide: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a head shows: who sent them was told that they arrived."""
    monkeypatch.setattr("eventstore.mailbox.MAILBOX_PAGE", 10)
    monkeypatch.setattr("eventstore.sqlite.mailboxes.MAILBOX_PAGE", 10)
    await leave_half(ended_wide)
    async with Engine(await ended_wide.store(), workflows=[wide], clock=ended_wide.clock, only=()) as engine:
        half = engine.run("half")
        for number in range(25):
            await half.signal(word, str(number))
        await prune_it(engine)
        with pytest.raises(RunPrunedError):
            await soon(engine.fork("r", at=60, id="half"))
        kinds = await kinds_of(half)
        assert (kinds.count("SignalIgnored"), kinds[-1]) == (25, "RunTerminated")
        assert (await engine.store.head("run:half")).closed


async def test_a_run_that_is_no_fork_of_it_is_left_alone(ended_wide: World) -> None:
    async with ended_wide.engine(wide, holding) as engine:
        await engine.start(holding(), id="mine")
        await prune_it(engine)
        before = (await engine.store.head("run:mine")).version
        with pytest.raises(RunPrunedError):
            await engine.fork("r", at=60, id="mine")
        assert not (await engine.store.head("run:mine")).closed
        assert (await engine.store.head("run:mine")).version >= before
