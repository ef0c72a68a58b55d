"""A program whose tasks write a table in the store's own file, to be killed: ``python -m tests.crash.bookings DB ...``.

Where it kills itself is told by ``--kill``: ``before:N`` and ``behind:N`` the N-th commit with own SQL, ``inside:N`` in
the N-th call of a task's function, when its rows are written and not committed. It prints its results as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from typing import Any

from tenacity import stop_after_attempt

from engine import Engine, Transaction, attempt, task, workflow
from eventstore.sqlite import SqliteStore
from tests.runtime.worlds import result_of

PATIENCE_SECONDS = 60.0
TABLE = "CREATE TABLE IF NOT EXISTS bookings (key TEXT NOT NULL, run TEXT NOT NULL, amount INT NOT NULL)"
CALLS_UNTIL_KILLED = 0


@task(effect="transactional", stop=stop_after_attempt(50))
def book(tx: Transaction, amount: int) -> int:
    """Book an amount in two rows, now and then only at the second attempt; the run's sum so far."""
    global CALLS_UNTIL_KILLED
    now = attempt()
    tx.execute(TABLE)
    half = amount // 2
    tx.execute("INSERT INTO bookings VALUES (?, ?, ?)", (now.idempotency_key, now.run_id, half))
    CALLS_UNTIL_KILLED -= 1
    if CALLS_UNTIL_KILLED == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if amount % 5 == 0 and now.number == 1:
        raise ConnectionError("not at once")
    tx.execute("INSERT INTO bookings VALUES (?, ?, ?)", (now.idempotency_key, now.run_id, amount - half))
    ((total,),) = tx.execute("SELECT sum(amount) FROM bookings WHERE run = ?", (now.run_id,))
    return int(total)


@task
async def think(amount: int) -> int:
    return amount


@workflow
async def booking(rounds: int) -> list[int]:
    """The sums that were there after each round: each as if nothing had ever been killed."""
    sums = []
    for first in range(1, 3 * rounds, 3):
        found = await asyncio.gather(book(first), think(first), book(first + 1))
        sums.append(max(found))
        sums.append(await book(first + 2))
    return sums


def expected(rounds: int) -> list[int]:
    sums, total = [], 0
    for first in range(1, 3 * rounds, 3):
        for amounts in ((first, first + 1), (first + 2,)):
            total += sum(amounts)
            sums.append(total)
    return sums


class Killing:
    """Hands everything on to a store, and kills the process before or behind the commit with own SQL of a number."""

    def __init__(self, inner: SqliteStore, where: str, number: int) -> None:
        self._inner = inner
        self._where = where
        self._left = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def commit(self, commit: Any) -> Any:
        if self._where == "before":
            self._count(commit)
        head = await self._inner.commit(commit)  # raises for one that was refused: behind that is nothing
        if self._where == "behind":
            self._count(commit)
        return head

    def _count(self, commit: Any) -> None:
        self._left -= commit.transaction is not None
        if commit.transaction is not None and self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(arguments: argparse.Namespace) -> Any:
    global CALLS_UNTIL_KILLED
    store: Any = await SqliteStore.open(arguments.db)
    where, _, number = arguments.kill.partition(":")
    if where == "inside":
        CALLS_UNTIL_KILLED = int(number)
    elif where:
        store = Killing(store, where, int(number))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), Engine(store, workflows=[booking], grace=0) as engine:
            handles = [await engine.start(booking(arguments.rounds), id=run_id) for run_id in arguments.runs]
            return await asyncio.gather(*(result_of(handle) for handle in handles))
    finally:
        await store.aclose()


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("db")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--runs", nargs="+", default=["a"])
    parser.add_argument("--kill", default="")
    return parser.parse_args(argv)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(parse(sys.argv[1:])))), flush=True)
