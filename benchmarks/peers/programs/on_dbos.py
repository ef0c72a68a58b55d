"""The workloads and crash programs on DBOS, on its SQLite file, with asyncio as its documentation writes it.

Branches of more than one step are child workflows (`start_workflow_async`); steps begun at once in one workflow are
begun in a fixed order; `DBOS.asyncio_wait` is the durable `asyncio.wait`. The programs whose names begin with `plain_`
are the same ones in plain asyncio, which DBOS does not claim to make durable.

After a crash: `DBOS.launch()` goes on with what is pending, and the run is asked for by its id.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import shared
from dbos import DBOS, DBOSConfig, SetWorkflowID
from shared import effect, say


@DBOS.step()
async def echo(value: int) -> int:
    return value


@DBOS.step()
async def echo_or_stop(value: int) -> int:
    return shared.echo_or_stop(value)


@DBOS.workflow()
async def steps(count: int) -> int:
    result = 0
    for value in range(count):
        result += await echo(value)
    return result


@DBOS.workflow()
async def stopped(count: int) -> int:
    result = 0
    for value in range(count):
        result += await echo_or_stop(value)
    return result


@DBOS.workflow()
async def fan_out(count: int) -> int:
    return sum(await asyncio.gather(*[asyncio.create_task(echo(value)) for value in range(count)]))


@DBOS.step()
async def a1(value: str) -> str:
    return await effect("a1", value)


@DBOS.step()
async def a2(value: str) -> str:
    return await effect("a2", value)


@DBOS.step()
async def a3(value: str) -> str:
    return await effect("a3", value)


@DBOS.step()
async def b1(value: str) -> str:
    return await effect("b1", value)


@DBOS.step()
async def b2(value: str) -> str:
    return await effect("b2", value)


@DBOS.step()
async def b3(value: str) -> str:
    return await effect("b3", value)


@DBOS.step()
async def step(value: str) -> str:
    return await effect("step", value)


@DBOS.step()
async def race(value: str) -> str:
    return await effect("race", value, shared.RACE_SECONDS)


@DBOS.step()
async def follow(value: str) -> str:
    return await effect("follow", value)


@DBOS.step()
async def close(value: str) -> str:
    return await effect("close", value)


@DBOS.step()
async def join(value: str) -> str:
    return await effect("join", value)


async def plain_branch_a(value: str) -> str:
    return await a3(await a2(await a1(value)))


async def plain_branch_b(value: str) -> str:
    return await b3(await b2(await b1(value)))


async def plain_three_steps(value: str) -> str:
    return await step(await step(await step(value)))


@DBOS.workflow()
async def branch_a(value: str) -> str:
    return await plain_branch_a(value)


@DBOS.workflow()
async def branch_b(value: str) -> str:
    return await plain_branch_b(value)


@DBOS.workflow()
async def three_steps(value: str) -> str:
    return await plain_three_steps(value)


@DBOS.workflow()
async def different() -> str:
    one = await DBOS.start_workflow_async(branch_a, "a")
    two = await DBOS.start_workflow_async(branch_b, "b")
    x, y = await one.get_result(), await two.get_result()
    return await join(f"{x}|{y}")


@DBOS.workflow()
async def same_named() -> str:
    one = await DBOS.start_workflow_async(three_steps, "a")
    two = await DBOS.start_workflow_async(three_steps, "b")
    x, y = await one.get_result(), await two.get_result()
    return await join(f"{x}|{y}")


@DBOS.workflow()
async def first_completed() -> str:
    racers = [asyncio.create_task(race("x")), asyncio.create_task(race("y"))]
    done, pending = await DBOS.asyncio_wait(racers, return_when=asyncio.FIRST_COMPLETED)
    for loser in pending:
        loser.cancel()
    winner = min(racer.result() for racer in done)
    return await close(await follow(winner))


@DBOS.workflow()
async def timeout() -> str:
    racer = asyncio.create_task(race("v"))
    done, _ = await DBOS.asyncio_wait([racer], timeout=shared.LIMIT_SECONDS)
    if done:
        value = racer.result()
    else:
        racer.cancel()
        value = "late"
    return await close(await follow(value))


@DBOS.workflow()
async def plain_different() -> str:
    x, y = await asyncio.gather(plain_branch_a("a"), plain_branch_b("b"))
    return await join(f"{x}|{y}")


@DBOS.workflow()
async def plain_same_named() -> str:
    x, y = await asyncio.gather(plain_three_steps("a"), plain_three_steps("b"))
    return await join(f"{x}|{y}")


@DBOS.workflow()
async def plain_first_completed() -> str:
    racers = [asyncio.create_task(race("x")), asyncio.create_task(race("y"))]
    done, pending = await asyncio.wait(racers, return_when=asyncio.FIRST_COMPLETED)
    for loser in pending:
        loser.cancel()
    winner = min(racer.result() for racer in done)
    return await close(await follow(winner))


@DBOS.workflow()
async def plain_timeout() -> str:
    try:
        async with asyncio.timeout(shared.LIMIT_SECONDS):
            value = await race("v")
    except TimeoutError:
        value = "late"
    return await close(await follow(value))


PROGRAMS = {
    "different": different,
    "same_named": same_named,
    "first_completed": first_completed,
    "timeout": timeout,
    "plain_different": plain_different,
    "plain_same_named": plain_same_named,
    "plain_first_completed": plain_first_completed,
    "plain_timeout": plain_timeout,
}


def launch(path: Path) -> None:
    config: DBOSConfig = {
        "name": "peers",
        "system_database_url": f"sqlite:///{path}",
        "log_level": "CRITICAL",
        "console_log_level": "CRITICAL",
    }
    DBOS(config=config)
    DBOS.launch()


def with_wal(path: Path) -> None:
    """What DBOS does not do by itself: the file is told to keep a write-ahead log, which stays with the file."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def run_steps(folder: Path, *, count: int, wal: bool = False) -> None:
    async def main() -> None:
        if wal:
            with_wal(folder / "steps.db")
        launch(folder / "steps.db")
        started = time.perf_counter()
        handle = await DBOS.start_workflow_async(steps, count)
        assert await handle.get_result() == shared.total(count)
        say(seconds=time.perf_counter() - started)

    asyncio.run(main())


def run_many(folder: Path, *, runs: int, count: int, wal: bool = False) -> None:
    async def main() -> None:
        if wal:
            with_wal(folder / "many.db")
        launch(folder / "many.db")
        started = time.perf_counter()
        handles = await asyncio.gather(*(DBOS.start_workflow_async(steps, count) for _ in range(runs)))
        assert await asyncio.gather(*(each.get_result() for each in handles)) == [shared.total(count)] * runs
        say(seconds=time.perf_counter() - started)

    asyncio.run(main())


def run_fan_out(folder: Path, *, count: int, wal: bool = False) -> None:
    async def main() -> None:
        if wal:
            with_wal(folder / "fan_out.db")
        launch(folder / "fan_out.db")
        started = time.perf_counter()
        handle = await DBOS.start_workflow_async(fan_out, count)
        assert await handle.get_result() == shared.total(count)
        say(seconds=time.perf_counter() - started)

    asyncio.run(main())


async def start_or_find(workflow: object, identity: str, *arguments: object) -> object:
    """The run of that id: found if it is recorded, else started."""
    if await DBOS.get_workflow_status_async(identity) is not None:
        return await (await DBOS.retrieve_workflow_async(identity)).get_result()
    with SetWorkflowID(identity):
        handle = await DBOS.start_workflow_async(workflow, *arguments)
    return await handle.get_result()


def run_stopped(folder: Path, *, count: int, wal: bool = False) -> None:
    async def main() -> None:
        if wal and not (folder / "stopped.db").exists():
            with_wal(folder / "stopped.db")
        launch(folder / "stopped.db")
        assert await start_or_find(stopped, "stopped", count) == shared.total(count)

    asyncio.run(main())


def run_program(folder: Path, *, name: str) -> None:

    async def main() -> None:
        launch(folder / "program.db")
        say(ready=True)
        say(result=await start_or_find(PROGRAMS[name], name))

    asyncio.run(main())


if __name__ == "__main__":
    shared.run(
        {"steps": run_steps, "many": run_many, "fan_out": run_fan_out, "stopped": run_stopped, "program": run_program}
    )
