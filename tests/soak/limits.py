"""Everything at once about limits, seeded: ``python -m tests.soak.limits [--rounds N] [--seed S]``.

Several workers on one memory store that fails, dawdles, loses replies and stalls leases; pools, rates and the pool over
every task, which somebody changes, down to nothing and up again; runs that are cancelled, paused, ended. After every
commit no more may be held than there is, unless there was more before; in the end everything ends, nobody waits, and
every slot is to be had. Prints one line of JSON for each round; exits with 1 when one fails. A failing seed makes the
same choices again, not the same schedule.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import traceback
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, attempt, durable, task, workflow
from engine.errors import EngineFailed, HoldfastError, ResultError, RunSuspendedError, TaskError
from eventstore import EventStoreError
from tests.runtime.faulty import FaultyStore
from tests.runtime.invariants import check_store
from tests.runtime.rooms import all_free, held_in, waiting_in
from tests.runtime.worlds import MemoryWorld

RUNS, WORKERS = 8, 3
ROUND_SECONDS = 20.0
"""Of one round: far above what one takes."""
SLOTS = {"a": 2, "b": 3, "*": 5}
RATES = {"r": "4/20s"}


def key(n: int, turns: int) -> str:
    return f"key-{n % 3}"


async def busy(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


@task(pool="a", stop=stop_after_attempt(60), wait=wait_fixed(3), fairness_key=key)
async def shaky(n: int, turns: int) -> int:
    await busy(turns)
    if attempt().number % 3 == 1 and n % 2:
        raise ConnectionError(n)
    return n


@task(pool="b", rate="r", on_cancel="wait", stop=stop_after_attempt(60))
async def charge(n: int, turns: int) -> int:
    await busy(turns)
    return n


@task(pool="b", deadline=500)
async def hurried(n: int, turns: int) -> int:
    await busy(turns)
    if n % 3 == 0:
        await asyncio.Event().wait()
    return n


@task(rate="r")
async def tell(n: int, turns: int) -> int:
    await busy(turns)
    return n


@task
async def plain(n: int, turns: int) -> int:
    await busy(turns)
    return n


TASKS = (shaky, charge, hurried, tell, plain)


@workflow
async def working(seed: int, epochs: int) -> int:
    """So many calls in one order or another, some of them given up; it always comes to the same number."""
    chosen = [TASKS[(seed + n) % len(TASKS)].options(priority=(seed * n) % 3) for n in range(seed % 5 + 4)]
    branches = [asyncio.create_task(each(n, (seed + n) % 5)) for n, each in enumerate(chosen)]
    try:
        async with asyncio.timeout(30 + seed % 50):
            await asyncio.gather(*branches, return_exceptions=True)
    except TimeoutError:
        await asyncio.sleep(seed % 3)
    with suppress(TaskError, TimeoutError):
        await hurried(1, 1)
    if epochs:
        await durable.continue_as_new(working(seed + 1, epochs - 1))
    return await plain(seed, 0)


class Chaos:
    """One round."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.dice = Random(seed)
        self.world = MemoryWorld(lease_ttl=30)
        self.calm = False
        self.most: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.changes = self.deaths = self.commits = 0
        self._apply = self.world.data._streams.apply
        self.world.data._streams.apply = self.applied  # type: ignore[method-assign]

    def applied(self, commit: Any) -> Any:
        head = self._apply(commit)
        self.look()
        return head

    def look(self) -> None:
        """More may be held than the limit only if it was lowered: then it does not rise."""
        self.commits += 1
        pools = self.world.data._streams._pools._pools
        for name, held in held_in(self.world.data).items():
            limit = pools[name].limit
            assert limit is None or held <= max(limit.count, self.seen[name]), f"{held} of {limit} in {name}"
            self.most[name] = max(self.most[name], held)
            self.seen[name] = held
        for name in self.seen.keys() - held_in(self.world.data).keys():
            self.seen[name] = 0

    def store(self) -> FaultyStore:
        rate = self.dice.choice([0.0, 0.0, 0.01, 0.03])

        def plan(_number: int, _name: str) -> Any:
            if self.calm or self.dice.random() >= rate:
                return None
            return self.dice.choice(["die before", "die after", "refuse", "lose reply"])

        async def dawdle(_name: str, _argument: Any) -> None:
            await busy(self.dice.choice([0, 0, 0, 1, 3, 20]))

        store = FaultyStore(self.world.data, plan)
        store.before = store.after = dawdle
        return store

    def engine(self, store: Any, **options: Any) -> Engine:
        return Engine(
            store,
            workflows=[working],
            clock=self.world.clock,
            pools=SLOTS,
            rates=RATES,
            **{"grace": 0, **options},
        )

    async def worker(self, number: int) -> None:
        dice = self.dice
        while not self.calm:
            store = self.store()
            try:
                async with self.engine(
                    store,
                    worker=f"w{number}",
                    grace=dice.choice([0, 0.001]),
                    cached=dice.choice([0, 1, 100]),
                    runs=dice.choice([1, 3, 100]),
                    concurrency=dice.choice([1, 4, 100]),
                ):
                    for _ in range(dice.randrange(10, 80)):
                        await asyncio.sleep(0.0003)
                        if self.calm or store.dead:
                            break
                        if dice.random() < 0.01:
                            for lease in list(self.world.data._leases.values()):
                                if dice.random() < 0.5:
                                    lease.stall()
                    if dice.random() < 0.4:
                        self.deaths += 1
                        store.die()
            except EventStoreError:
                await asyncio.sleep(0)

    async def time(self) -> None:
        while True:
            await asyncio.sleep(0.0004)
            self.world.clock.advance(self.dice.choice([0.1, 0.5, 2, 15]))

    async def operator(self) -> None:
        """Changes limits, and what becomes of runs."""
        dice = self.dice
        while not self.calm:
            with suppress(HoldfastError, EventStoreError):
                async with Engine(FaultyStore(self.world.data), clock=self.world.clock) as engine:
                    await asyncio.sleep(dice.random() * 0.004)
                    self.changes += 1
                    run = engine.run(f"run-{dice.randrange(RUNS)}")
                    match dice.randrange(8):
                        case 0 | 1:
                            await engine.set_pool(dice.choice(list(SLOTS)), dice.choice([0, 1, 2, 5, 40]))
                        case 2 | 3:
                            await engine.set_rate("r", f"{dice.choice([0, 1, 3, 50])}/{dice.choice([1, 7, 90])}s")
                        case 4:
                            await run.pause()
                        case 5:
                            await run.unpause()
                        case 6 if run.id in ("run-0", "run-1"):
                            await run.cancel()
                        case 7 if run.id in ("run-2",):
                            await run.terminate()
                        case _:
                            await engine.pause_workflow(working)
                            await engine.unpause_workflow(working)

    async def user(self) -> None:
        for number in range(RUNS):
            while True:
                try:
                    async with self.engine(self.store(), only=[f"run-{number}"]) as engine:
                        await engine.start(working(self.seed + number, number % 3), id=f"run-{number}")
                        await asyncio.sleep(self.dice.random() * 0.003)
                    break
                except (EventStoreError, EngineFailed):
                    await asyncio.sleep(0)

    async def play(self) -> dict[str, Any]:
        """The round. Raises `AssertionError` for what must not be, `TimeoutError` for what does not come about."""
        helpers = [asyncio.create_task(self.time()), asyncio.create_task(self.operator())]
        workers = [asyncio.create_task(self.worker(number)) for number in range(WORKERS)]
        try:
            async with asyncio.timeout(ROUND_SECONDS):
                await self.user()
                await asyncio.sleep(0.3)
                self.calm = True
                await asyncio.gather(*workers, helpers[1])
                ends = await self.to_the_end()
            await check_store(self.world.data, working)
        finally:
            for each in (*helpers, *workers):
                each.cancel()
            outcomes = await asyncio.gather(*helpers, *workers, return_exceptions=True)
            await self.world.aclose()
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise outcome
        return {
            "seed": self.seed,
            "ends": dict(ends),
            "most": dict(self.most),
            "changes": self.changes,
            "deaths": self.deaths,
            "commits": self.commits,
        }

    async def to_the_end(self) -> Counter[str]:
        """Everything is let go on, and ends."""
        store = FaultyStore(self.world.data)
        ends: Counter[str] = Counter()
        async with self.engine(store) as engine:
            for name, count in SLOTS.items():
                await engine.set_pool(name, count)
            await engine.set_rate("r", "50/5s")
            for number in range(RUNS):
                try:
                    ends[await self.end_of(engine, number)] += 1
                except asyncio.CancelledError:
                    await self.report(engine, f"run-{number}")
                    raise
            for name, count in SLOTS.items():
                await all_free(self.world.data, name, count)
            assert not any(waiting_in(self.world.data).values()), waiting_in(self.world.data)
        return ends

    async def report(self, engine: Engine, run_id: str) -> None:
        """What there is to know about a run that does not end."""
        store = self.world.data
        print(await store.head(f"run:{run_id}"), file=sys.stderr)
        async for item in store.read(f"run:{run_id}"):
            print(item.version, item.header.decode()[:200], file=sys.stderr)
        for name, pool in store._streams._pools._pools.items():
            print(name, pool.limit, pool._permits, pool._waiters, pool._queue, file=sys.stderr)
        drivers = engine._worker.residents.drivers if engine._worker is not None else {}
        for id_, driver in drivers.items():
            lines = [(line.holder, line.state, line.limit, line.granted) for line in driver.flow.lines]
            print(id_, lines, driver._has_work(), driver._pumping, driver.intake.arrivals, file=sys.stderr)

    async def end_of(self, engine: Engine, number: int) -> str:
        run = engine.run(f"run-{number}")
        while True:
            with suppress(HoldfastError):
                await run.unpause()
            try:
                assert await run.result() == self.seed + number + number % 3
            except RunSuspendedError:
                state = await run.state()
                assert state.diagnosis is None or state.diagnosis.reason == "crashes", state.diagnosis
                await run.resume()
                await asyncio.sleep(0)
            except ResultError as error:
                assert number < 3, error
                return type(error).__name__
            else:
                return "completed"


def main(rounds: int, seed: int) -> int:
    failed = 0
    for number in range(seed, seed + rounds):
        chaos = Chaos(number)
        try:
            print(json.dumps(asyncio.run(chaos.play())), flush=True)
        except (Exception, TimeoutError) as error:
            failed += 1
            print(json.dumps({"seed": number, "failed": f"{type(error).__name__}: {str(error)[:2_000]}"}), flush=True)
            traceback.print_exc()
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(main(arguments.rounds, arguments.seed))
