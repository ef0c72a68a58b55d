"""A program whose tasks are under shared limits, to be killed: ``python -m tests.crash.limited DB OUTSIDE ...``.

Each attempt says outside, in a file that everybody appends to, when it began and when it ended, on the machine's
monotonic clock. `crowding` reads that file: how many were inside at once, whatever any engine believes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tenacity import stop_after_attempt, wait_fixed

from engine import Engine, attempt, task, workflow
from eventstore.sqlite import SqliteStore
from tests.runtime.worlds import result_of

PATIENCE_SECONDS = 90.0
SLOTS, MAIL, MAIL_SECONDS = 3, 6, 1.5
OUTSIDE = Path(os.environ.get("LIMITED_OUTSIDE", "."))
STAY_SECONDS = 0.03


def say(what: str, *more: object) -> None:
    """One line, in one write."""
    line = " ".join(map(str, (what, os.getpid(), time.monotonic(), *more))) + "\n"
    descriptor = os.open(OUTSIDE / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def killed(pid: int, at: float) -> None:
    """Whoever kills a process from outside says so for it: what it had begun is over then."""
    with (OUTSIDE / "said").open("a") as file:
        file.write(f"dead {pid} {at}\n")


def crowding(lines: Iterable[str]) -> tuple[int, int]:
    """The most attempts that were inside at once, and how many ended well."""
    inside: set[tuple[str, str]] = set()
    most = done = 0
    moments = sorted((line.split() for line in lines), key=lambda words: float(words[2]))
    for what, pid, _at, *who in moments:
        if what == "begin":
            inside.add((pid, who[0]))
            most = max(most, len(inside))
        elif what == "end":
            inside.discard((pid, who[0]))
            done += 1
        else:
            inside = {each for each in inside if each[0] != pid}
    return most, done


def most_in_a_window(recorded: Iterable[tuple[str, int]], lines: Iterable[str]) -> int:
    """The most attempts that were certainly taken within one window of the rate.

    When an attempt was taken is written nowhere: not before the time of its event, `recorded` by name, in microseconds,
    and not after it began. On a machine with other things to do any time may lie between the two.
    """
    begun = {more[0]: int(more[1]) for what, _, _, *more in map(str.split, lines) if what == "begin"}
    taken = [(at, begun[name]) for name, at in recorded if name in begun]  # others were killed in between
    window = round(MAIL_SECONDS * 1_000_000)
    return max(sum(at >= first and by < first + window for at, by in taken) for first, _ in taken)


async def stay(who: str) -> None:
    name = f"{who}/{attempt().number}"
    say("begin", name, time.time_ns() // 1_000)
    try:
        await asyncio.sleep(STAY_SECONDS)
    finally:
        say("end", name)


@task(pool="tool", stop=stop_after_attempt(50), wait=wait_fixed(0.01))
async def use(who: str, fails: bool) -> str:
    await stay(who)
    if fails and attempt().number == 1:
        raise ConnectionError(who)
    return who


@task(pool="tool", rate="mail", priority=1)
async def tell(who: str) -> str:
    await stay(who)
    return who


@workflow
async def spread(name: str, width: int) -> int:
    used = await asyncio.gather(*(use(f"{name}-{n}", n % 4 == 1) for n in range(width)), tell(name))
    return len(used)


class Killing:
    """Hands everything on to a store, and kills the process at the commit of a number, of those that name limits."""

    def __init__(self, inner: SqliteStore, where: str) -> None:
        self._inner = inner
        self._when, _, number = where.partition(":")
        self._left = int(number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def commit(self, commit: Any) -> Any:
        if not commit.permits:
            return await self._inner.commit(commit)
        if self._when == "before":
            self._count()
        head = await self._inner.commit(commit)
        if self._when == "after":  # a refused one does not count
            self._count()
        return head

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._die()

    def _die(self) -> None:
        say("dead")
        os.kill(os.getpid(), signal.SIGKILL)


async def main(arguments: argparse.Namespace) -> list[int]:
    store: Any = await SqliteStore.open(arguments.db, synchronous="NORMAL")
    if arguments.kill:
        store = Killing(store, arguments.kill)
    limits = {"pools": {"tool": SLOTS}, "rates": {"mail": f"{MAIL}/{MAIL_SECONDS}s"}}
    try:
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            Engine(store, workflows=[spread], worker=arguments.name, grace=0, **limits) as engine,
        ):
            print("open", flush=True)
            runs = [await engine.start(spread(name, arguments.width), id=name) for name in arguments.runs]
            return list(await asyncio.gather(*(result_of(run) for run in runs)))
    finally:
        await store.aclose()


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("db")
    parser.add_argument("--runs", nargs="+", required=True)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--name", default=None)
    parser.add_argument("--kill", default="", help="before:N, after:N (commits that name limits)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    print(asyncio.run(main(parse(sys.argv[1:]))), flush=True)
