"""Plays a scenario: workers are opened, killed, frozen and opened again, clients do what they have to, and the end is
judged. The same scenario is played the same way each time: nothing here comes from the machine but the code.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import anyio.to_thread
from msgspec import Struct

from engine import Engine, Rate
from engine.errors import EngineClosed, EngineFailed
from engine.runtime.watchdog import Watchdog
from eventstore import EventStoreError, StreamHead
from tests.simulation.callers import callers_of
from tests.simulation.checks import allowed_of, judge
from tests.simulation.clients import Client
from tests.simulation.given import number_of
from tests.simulation.loops import Actor, Clock, OutOfBounds, SimulatedLoop
from tests.simulation.materials import RUN_ID, materialized, offered
from tests.simulation.outside import OUTSIDE
from tests.simulation.people import People
from tests.simulation.programs import WORKFLOWS
from tests.simulation.scenarios import TTL_SECONDS, Fault, Run, Scenario
from tests.simulation.stores import DELAYS, Handle, Ledger, watched_store
from tests.simulation.sweeping import Sweeper
from tests.simulation.taken import Remembered
from tests.simulation.tasks import LIMITS, POOL, RATE

__all__ = ["Outcome", "Play", "forget", "play"]

STEPS_MAX = 60_000
SECONDS_MAX = 3_000.0
"""Of simulated time: a program's own times and all retries are far below."""
SLOW_SECONDS = 2 * TTL_SECONDS
"""From a worker's look at anything until what it makes of that is on record: it may be frozen, and calls take their time."""
FOLLOWING_SECONDS = 0.5
"""Between two looks of a worker's program at its engine."""


class Outcome(Struct):
    """What came of a play."""

    broken: list[tuple[str, str]]  # what was broken, and how it showed
    faults: Counter[str]  # that came to pass, by kind
    checks: Counter[str]
    seconds: float  # simulated
    steps: int
    commits: int
    trace: str  # the same for the same play


class Play:
    """One scenario under way."""

    def __init__(self, scenario: Scenario, folder: str = "") -> None:
        self.scenario = scenario
        self.folder = folder  # where assets lie
        self.allowed = allowed_of(scenario)
        chance = None if scenario.order == "fifo" else Random(f"order {scenario.seed}")
        self.loop = SimulatedLoop(chance, branches=scenario.order == "branches", steps_max=STEPS_MAX)
        self.loop.seconds_max = SECONDS_MAX
        self.loop.set_exception_handler(self._complained)
        self.clock = Clock(self.loop)
        self.clocks = [Clock(self.loop, scenario.skew * slot) for slot in range(scenario.slots_all)]
        self.ledger = Ledger(self.loop.time, LIMITS)
        self.ledger.keys.key_of = {f"r{number}": run.key for number, run in enumerate(scenario.runs)}
        self.ledger.keys.replacing = {f"r{n}" for n, run in enumerate(scenario.runs) if run.on_conflict == "replace"}
        steps = sum(abs(fault.much) for fault in scenario.faults if fault.kind == "step")
        self.ledger.keys.slack += steps + scenario.skew * (len(self.clocks) - 1)
        slow = scenario.faults or scenario.delays != "none"
        self.ledger.kept.slack = self.ledger.keys.slack + (SLOW_SECONDS if slow else 0)
        self.entropy = Random(f"entropy {scenario.seed}").randbytes
        self.store = watched_store(self.clock, self.entropy, lease_ttl=TTL_SECONDS, ledger=self.ledger)
        self.remembered: Any = Remembered(self.store, self.ledger.taken)
        self.faults: Counter[str] = Counter()
        self.alive: dict[int, Actor] = {}  # by slot
        self.retired = False
        self._serial: Counter[int] = Counter()
        self._calls: Counter[tuple[int, str]] = Counter()
        self._counted = {(fault.slot, fault.kind, int(fault.at)): fault for fault in scenario.faults}
        self._ended: dict[Actor, asyncio.Future[None]] = {}
        self._retire: dict[int, asyncio.Event] = {}
        self._graves: list[Actor] = []
        OUTSIDE.reset({POOL: scenario.slots})

    # -- what befalls actors -------------------------------------------------------------------------------------------

    def plan(self, slot: int) -> Callable[[str], str | None]:
        """What befalls the calls of whoever is in that slot, counted over all of its lives."""

        def fault(name: str) -> str | None:
            kinds = ["refuse", "lose reply"]
            self._calls[slot, "call"] += 1
            numbers = [self._calls[slot, "call"]] * 2
            if name == "commit":
                self._calls[slot, "commit"] += 1
                kinds += ["die before", "die after"]
                numbers += [self._calls[slot, "commit"]] * 2
            for kind, number in zip(kinds, numbers, strict=True):
                if (slot, kind, number) in self._counted:
                    self.faults[kind] += 1
                    return kind
            return None

        return fault

    def kill(self, actor: Actor, *, seen: bool = True) -> None:
        """As kill -9: its leases end at once, where the store can see that, or lapse."""
        if actor.dead:
            return
        self.loop.kill(actor)
        self._graves.append(actor)
        for lease in actor.leases:
            if seen:
                self.store.end(lease)
            elif not lease.stalled:
                lease.stall()
        if (ended := self._ended.get(actor)) is not None and not ended.done():
            ended.set_result(None)

    async def befall(self, fault: Fault) -> None:
        """A fault whose time is known."""
        await asyncio.sleep(fault.at)
        actor = self.alive.get(fault.slot)
        if fault.kind == "step":
            self.faults["step"] += 1
            for clock in (self.clock, *self.clocks):  # they are on one machine
                clock.step += fault.much
            return
        if actor is None or actor.dead or actor.frozen:
            return
        self.faults[fault.kind] += 1
        match fault.kind:
            case "kill":
                self.kill(actor, seen=not fault.much)
            case "restart":
                self._retire[fault.slot].set()
            case _:
                leases = [lease for lease in actor.leases if lease.fresh() and not lease.stalled]
                for lease in leases:
                    lease.stall()
                if fault.kind == "freeze":
                    self.loop.freeze(actor)
                await asyncio.sleep(fault.much)
                if actor.dead:
                    return
                for lease in actor.leases:
                    lease.resume()
                if fault.kind == "freeze":
                    self.loop.thaw(actor)

    # -- actors --------------------------------------------------------------------------------------------------------

    async def life(self, slot: int, coro: Callable[[Actor], Coroutine[Any, Any, None]]) -> None:
        """One life of whoever is in that slot, until it ends or is killed."""
        self._serial[slot] += 1
        actor = Actor(f"{'w' if slot < self.scenario.workers else 'c'}{slot}.{self._serial[slot]}")
        self.alive[slot] = actor
        ended = self._ended[actor] = self.loop.create_future()
        self._retire[slot] = asyncio.Event()
        task = self.loop.spawn(actor, coro(actor))
        task.add_done_callback(lambda _task: None if ended.done() else ended.set_result(None))
        await ended
        if task.done() and not task.cancelled() and (error := task.exception()) is not None:
            OUTSIDE.broke("raised", f"{actor}: {type(error).__name__}: {error}")
        self.alive.pop(slot, None)

    async def lives(
        self, slot: int, visit: Callable[[Actor], Coroutine[Any, Any, None]], over: Callable[[], bool]
    ) -> None:
        """One life after the other, until that is over, of a client whose engine may end under it."""

        async def one(actor: Actor) -> None:
            try:
                await visit(actor)
            except (EventStoreError, EngineClosed):
                return
            except EngineFailed as error:
                OUTSIDE.check_end(actor, error)

        while not over():
            await self.life(slot, one)
            await asyncio.sleep(0.3)

    def handle(self, slot: int, actor: Actor) -> Handle:
        scenario = self.scenario
        return Handle(
            self.store,
            actor,
            plan=self.plan(slot),
            kill=self.kill,
            chance=Random(f"delays {scenario.seed} {actor.name}"),
            delays=DELAYS[scenario.delays],
        )

    def engine(self, slot: int, actor: Actor, *, serves: bool = False, **options: Any) -> Engine:
        scenario, store = self.scenario, self.handle(slot, actor)
        if serves:
            actor.assets = offered(store, self.folder, self.clocks[slot]) if scenario.assets else None
            options["workflows"] = [*WORKFLOWS, *(actor.assets.workflows if actor.assets else ())]
        return Engine(
            store,
            worker=actor.name,
            clock=self.clocks[slot],
            entropy=self.entropy,
            grace=1.0,
            cached=scenario.cached,
            concurrency=scenario.concurrency,
            pools={POOL: scenario.slots},
            rates={RATE: Rate(scenario.rate[0], seconds=scenario.rate[1])},
            **options,
        )

    async def worker(self, slot: int) -> None:
        while not self.retired:
            await self.life(slot, lambda actor: self.shift(slot, actor))
            if not self.retired:
                await asyncio.sleep(0.7 + slot)

    async def shift(self, slot: int, actor: Actor) -> None:
        """A worker's program: serves until it is to end, or cannot go on."""
        retire = self._retire[slot]
        try:
            async with self.engine(slot, actor, serves=True) as engine:
                while not (retire.is_set() or self.retired):
                    await asyncio.sleep(FOLLOWING_SECONDS)
                    engine.check()
        except EventStoreError:
            return  # a planned one: that the store is there again is for the next life to find out
        except EngineFailed as error:
            OUTSIDE.check_end(actor, error)

    async def materialize(self) -> None:
        """The client that wants assets; beside it, workers make them."""
        slot, done = self.scenario.workers + len(self.scenario.runs), asyncio.Event()

        async def visit(actor: Actor) -> None:
            async with self.engine(slot, actor, serves=True, only=[RUN_ID]) as engine:
                await materialized(engine, actor.assets)
                done.set()

        await self.lives(slot, visit, done.is_set)

    async def whole(self) -> None:
        """From the first worker to the last judgement."""
        scenario = self.scenario
        timed = [self.loop.create_task(self.befall(f)) for f in scenario.faults if f.kind not in PLANNED]
        workers = [self.loop.create_task(self.worker(slot)) for slot in range(scenario.workers)]
        people = People(self)
        person = self.loop.create_task(people.help_children())
        timed.append(self.loop.create_task(people.answer_tokens()))
        timed.append(self.loop.create_task(people.tighten()))
        timed.append(self.loop.create_task(people.ask_children()))
        timed += [self.loop.create_task(people.pause_children(f"r{n}", run)) for n, run in enumerate(scenario.runs)]
        clients = [Client(self, number, run).whole() for number, run in enumerate(scenario.runs)]
        clients += callers_of(self)
        clients.append(Sweeper(self).whole())
        if scenario.assets:
            clients.append(self.materialize())
        await asyncio.gather(*clients)
        await self.children_end()
        await people.have_heard()
        self.retired = True
        await asyncio.gather(*workers)
        for task in (*timed, person):
            task.cancel()
        for task in (await asyncio.wait([*timed, person]))[0]:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        await judge(self.store, scenario, self.ledger, self.allowed)

    async def children_end(self) -> None:
        """Those that their parents have left behind are asked to end, and end too."""
        while any(not stream.closed for stream in self.runs()):
            await asyncio.sleep(1)

    def run_of(self, run_id: str) -> Run | None:
        """Whose client's it is, or its descendant, or a copy of it; None: nobody's of them."""
        number = number_of(run_id)
        return None if number is None else self.scenario.runs[number]

    def head_of(self, run_id: str) -> StreamHead | None:
        """How its stream is, without a question to the store that could fail."""
        stream = self.store._streams._streams.get(f"run:{run_id}")
        return None if stream is None else stream.head()

    def is_nobodys(self, run_id: str) -> bool:
        """Whether it has no client."""
        return "/" in run_id or (self.run_of(run_id) is None and run_id != RUN_ID)

    def runs(self) -> Iterator[Any]:
        """Their streams, as the store has them."""
        return (stream for name, stream in self.store._streams._streams.items() if name.startswith("run:"))

    def _complained(self, _loop: Any, context: dict[str, Any]) -> None:
        OUTSIDE.broke("complaint", f"{context.get('message')}: {context.get('exception')!r}")


PLANNED = frozenset({"die before", "die after", "refuse", "lose reply"})


async def _inline(fn: Callable[..., Any], *args: Any, **_options: Any) -> Any:
    """In place of a thread: what it would do happens between two callbacks."""
    await asyncio.sleep(0.01)
    return fn(*args)


@contextmanager
def _machine(seed: int, chunk: int = 1_000) -> Iterator[None]:
    """What would come from the machine: chance, threads, the collector; and how many events a commit takes."""
    state, enabled = random.getstate(), gc.isenabled()
    random.seed(seed)
    gc.disable()
    try:
        with (
            mock.patch.object(Watchdog, "open", lambda _self: None),
            mock.patch.object(anyio.to_thread, "run_sync", _inline),
            mock.patch("eventstore.memory.POLL_SECONDS", 0.25),
            mock.patch("engine.runtime.writing.COMMIT_EVENTS_MAX", chunk),
            mock.patch("engine.runtime.forking.CHUNK_EVENTS", chunk),
            mock.patch.object(sys, "unraisablehook", lambda _unraisable: None),  # of coroutines of the dead
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(state)
        if enabled:
            gc.enable()


def play(scenario: Scenario) -> Outcome:
    """Play it once."""
    with _machine(scenario.seed, scenario.chunk):
        with TemporaryDirectory() if scenario.assets else nullcontext("") as folder:
            _kept.append(it := Play(scenario, folder))
            outcome = _played(it)
        if len(_kept) >= KEPT:
            _kept.clear()
            gc.collect()  # here, where nobody complains about the coroutines of the dead
        return outcome


KEPT = 20
"""Plays whose dead are kept until they are collected: doing that after each would take as long as the play."""
_kept: list[Play] = []


def forget() -> None:
    """Collect the dead now, quietly: at the end of a test."""
    with _machine(0):
        _kept.clear()
        gc.collect()


def _played(it: Play) -> Outcome:
    loop = it.loop
    main = loop.create_task(it.whole())
    try:
        loop.run_until_complete(main)
    except OutOfBounds as error:
        OUTSIDE.broke("stuck", f"{error}; " + _how_it_stands(it))
    except Exception as error:
        OUTSIDE.broke("broken", f"{type(error).__name__}: {error}")
    broken = list(OUTSIDE.broken)
    outcome = Outcome(
        broken=broken,
        faults=it.faults,
        checks=it.ledger.checks + OUTSIDE.checks,
        seconds=loop.time(),
        steps=loop.steps,
        commits=it.ledger.commits,
        trace=f"{loop.steps} {loop.time():.6f} {it.ledger.commits} {sorted(it.ledger.kinds.items())}",
    )
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.set_exception_handler(lambda _loop, _context: None)
    loop.close()
    return outcome


def _how_it_stands(it: Play) -> str:
    found = []
    for stream in it.runs():
        if not stream.closed:
            head = stream.head()
            found.append(
                f"{stream.name} at {head.version}: {dict(head.attributes)}, alarm {head.alarm}, owner {head.owner}"
            )
    return "; ".join(found)
