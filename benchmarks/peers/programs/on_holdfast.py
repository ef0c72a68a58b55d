"""The workloads and crash programs on Holdfast: plain asyncio in the workflows, one SQLite file, as it opens it."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import shared
from shared import effect, say

from engine import Engine, task, workflow

ROWS_OF = {"steps": "steps.db", "many": "many.db", "fan_out": "fan_out.db"}


@task
async def echo(value: int) -> int:
    return value


@task
async def echo_or_stop(value: int) -> int:
    return shared.echo_or_stop(value)


@workflow
async def steps(count: int) -> int:
    result = 0
    for value in range(count):
        result += await echo(value)
    return result


@workflow
async def stopped(count: int) -> int:
    result = 0
    for value in range(count):
        result += await echo_or_stop(value)
    return result


@workflow
async def fan_out(count: int) -> int:
    return sum(await asyncio.gather(*(echo(value) for value in range(count))))


@task
async def a1(value: str) -> str:
    return await effect("a1", value)


@task
async def a2(value: str) -> str:
    return await effect("a2", value)


@task
async def a3(value: str) -> str:
    return await effect("a3", value)


@task
async def b1(value: str) -> str:
    return await effect("b1", value)


@task
async def b2(value: str) -> str:
    return await effect("b2", value)


@task
async def b3(value: str) -> str:
    return await effect("b3", value)


@task
async def step(value: str) -> str:
    return await effect("step", value)


@task
async def race(value: str) -> str:
    return await effect("race", value, shared.RACE_SECONDS)


@task
async def follow(value: str) -> str:
    return await effect("follow", value)


@task
async def close(value: str) -> str:
    return await effect("close", value)


@task
async def join(value: str) -> str:
    return await effect("join", value)


async def branch_a(value: str) -> str:
    return await a3(await a2(await a1(value)))


async def branch_b(value: str) -> str:
    return await b3(await b2(await b1(value)))


async def three_steps(value: str) -> str:
    return await step(await step(await step(value)))


@workflow
async def different() -> str:
    x, y = await asyncio.gather(branch_a("a"), branch_b("b"))
    return await join(f"{x}|{y}")


@workflow
async def same_named() -> str:
    x, y = await asyncio.gather(three_steps("a"), three_steps("b"))
    return await join(f"{x}|{y}")


@workflow
async def first_completed() -> str:
    racers = [asyncio.ensure_future(race("x")), asyncio.ensure_future(race("y"))]
    done, pending = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
    for loser in pending:
        loser.cancel()
    winner = min(racer.result() for racer in done)
    return await close(await follow(winner))


@workflow
async def timeout() -> str:
    try:
        async with asyncio.timeout(shared.LIMIT_SECONDS):
            value = await race("v")
    except TimeoutError:
        value = "late"
    return await close(await follow(value))


PROGRAMS = {"different": different, "same_named": same_named, "first_completed": first_completed, "timeout": timeout}


def opened(path: Path) -> Engine:
    return Engine(f"sqlite:///{path}", workflows=[steps, stopped, fan_out, *PROGRAMS.values()])


def run_steps(folder: Path, *, count: int) -> None:
    async def main() -> None:
        async with opened(folder / "steps.db") as engine:
            started = time.perf_counter()
            handle = await engine.start(steps(count), id="steps")
            assert await handle.result() == shared.total(count)
            say(seconds=time.perf_counter() - started)

    asyncio.run(main())


def run_many(folder: Path, *, runs: int, count: int) -> None:
    async def main() -> None:
        async with opened(folder / "many.db") as engine:
            started = time.perf_counter()
            handles = await asyncio.gather(*(engine.start(steps(count)) for _ in range(runs)))
            assert await asyncio.gather(*(each.result() for each in handles)) == [shared.total(count)] * runs
            say(seconds=time.perf_counter() - started)

    asyncio.run(main())


def run_fan_out(folder: Path, *, count: int) -> None:
    async def main() -> None:
        async with opened(folder / "fan_out.db") as engine:
            started = time.perf_counter()
            handle = await engine.start(fan_out(count), id="fan_out")
            assert await handle.result() == shared.total(count)
            say(seconds=time.perf_counter() - started)

    asyncio.run(main())


def run_stopped(folder: Path, *, count: int) -> None:
    """Starts it, or goes on with it: the same id is the same run."""

    async def main() -> None:
        async with opened(folder / "stopped.db") as engine:
            handle = await engine.start(stopped(count), id="stopped")
            assert await handle.result() == shared.total(count)

    asyncio.run(main())


def run_program(folder: Path, *, name: str) -> None:
    """Starts it, or goes on with it: an engine that is opened goes on with every run that is not finished."""

    async def main() -> None:
        async with opened(folder / "program.db") as engine:
            say(ready=True)
            handle = await engine.start(PROGRAMS[name](), id=name)
            say(result=await handle.result())

    asyncio.run(main())


def by_hand(folder: Path, *, workload: str, count: int) -> None:
    """The same rows again, by hand: one to a commit for steps in sequence, else 500; per second, as `count` of them."""
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from raw import ROWS_PER_COMMIT, event_rows, rows_written_per_second

    rows = event_rows(folder / ROWS_OF[workload])
    if workload == "steps":
        per_second = rows_written_per_second(rows[:count], folder / "raw.db", rows_per_commit=1)
    else:
        written = rows_written_per_second(rows, folder / "raw.db", rows_per_commit=ROWS_PER_COMMIT)
        per_second = written * count / len(rows)
    say(per_second=per_second)


if __name__ == "__main__":
    shared.run(
        {
            "steps": run_steps,
            "many": run_many,
            "fan_out": run_fan_out,
            "stopped": run_stopped,
            "program": run_program,
            "by_hand": by_hand,
        }
    )
