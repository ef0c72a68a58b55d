"""The workloads and crash programs on Prefect, against a server of its own on this machine, with its SQLite database.

Tasks are coroutines and run at once with asyncio, as its guide to concurrent work shows. Results are kept
(`PREFECT_RESULTS_PERSIST_BY_DEFAULT`), under its default cache policy (inputs, source of the task, id of the run),
which is what its documentation gives for not running completed tasks again.

After a crash the run is marked as crashed (what its automation for runs without heartbeats does) and retried under its
id, with the calls that `prefect flow-run retry --entrypoint` makes.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from uuid import UUID

import shared
from prefect import flow, get_client, task
from prefect.flow_engine import run_flow_async
from prefect.runtime import flow_run as this_run
from prefect.states import Crashed, Scheduled
from shared import effect, say


@task
async def echo(value: int) -> int:
    return value


@task
async def echo_or_stop(value: int) -> int:
    return shared.echo_or_stop(value)


@flow
async def steps(count: int) -> int:
    result = 0
    for value in range(count):
        result += await echo(value)
    return result


@flow
async def stopped(count: int) -> int:
    remember()
    result = 0
    for value in range(count):
        result += await echo_or_stop(value)
    return result


@flow
async def fan_out(count: int) -> int:
    return sum(await asyncio.gather(*[echo(value) for value in range(count)]))


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


@task(timeout_seconds=shared.LIMIT_SECONDS)
async def limited_race(value: str) -> str:
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


@flow
async def different() -> str:
    remember()
    x, y = await asyncio.gather(branch_a("a"), branch_b("b"))
    return await join(f"{x}|{y}")


@flow
async def same_named() -> str:
    remember()
    x, y = await asyncio.gather(three_steps("a"), three_steps("b"))
    return await join(f"{x}|{y}")


@flow
async def first_completed() -> str:
    remember()
    racers = [asyncio.create_task(race("x")), asyncio.create_task(race("y"))]
    done, pending = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
    for loser in pending:
        loser.cancel()
    winner = min(racer.result() for racer in done)
    return await close(await follow(winner))


@flow
async def timeout() -> str:
    remember()
    try:
        value = await limited_race("v")
    except TimeoutError:
        value = "late"
    return await close(await follow(value))


PROGRAMS = {"different": different, "same_named": same_named, "first_completed": first_completed, "timeout": timeout}
RUN_ID = Path("run-id")


def remember() -> None:
    """Its id, where a person would find it in the server's list of runs."""
    RUN_ID.write_text(this_run.get_id() or "", encoding="utf-8")


async def call_or_retry(the_flow: object, **parameters: object) -> object:
    """Begins it, or retries the run that crashed, under its id."""
    identity = RUN_ID.read_text(encoding="utf-8") if RUN_ID.exists() else ""
    if not identity:
        return await the_flow(**parameters)
    async with get_client() as client:
        for state in (Crashed(message="no heartbeat"), Scheduled(message="retried")):
            await client.set_flow_run_state(flow_run_id=UUID(identity), state=state, force=True)
        run = await client.read_flow_run(UUID(identity))
    return await run_flow_async(flow=the_flow, flow_run=run, parameters=parameters)


def run_steps(folder: Path, *, count: int) -> None:
    del folder

    async def main() -> None:
        started = time.perf_counter()
        assert await steps(count) == shared.total(count)
        say(seconds=time.perf_counter() - started)

    asyncio.run(main())


def run_many(folder: Path, *, runs: int, count: int, at_once: int) -> None:
    """So many at once as is best for it: with more, its server answers 503 (SQLite is locked) and its client waits."""
    del folder

    async def main() -> None:
        slots = asyncio.Semaphore(at_once)

        async def one() -> int:
            async with slots:
                return await steps(count)

        started = time.perf_counter()
        results = await asyncio.gather(*(one() for _ in range(runs)))
        assert results == [shared.total(count)] * runs
        say(seconds=time.perf_counter() - started)

    asyncio.run(main())


def run_fan_out(folder: Path, *, count: int) -> None:
    del folder

    async def main() -> None:
        started = time.perf_counter()
        assert await fan_out(count) == shared.total(count)
        say(seconds=time.perf_counter() - started)

    asyncio.run(main())


def run_stopped(folder: Path, *, count: int) -> None:
    global RUN_ID  # noqa: PLW0603 - one run to a process
    RUN_ID = folder / "run-id"
    assert asyncio.run(call_or_retry(stopped, count=count)) == shared.total(count)


def run_program(folder: Path, *, name: str) -> None:
    global RUN_ID  # noqa: PLW0603 - one run to a process
    RUN_ID = folder / "run-id"
    say(ready=True)
    say(result=asyncio.run(call_or_retry(PROGRAMS[name])))


if __name__ == "__main__":
    shared.run(
        {"steps": run_steps, "many": run_many, "fan_out": run_fan_out, "stopped": run_stopped, "program": run_program}
    )
