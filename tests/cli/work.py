"""Workflows that the tests of the command run. Tasks write down that they ran; some wait until a gate is opened."""

import asyncio
import time
from datetime import date
from pathlib import Path

import msgspec
from tenacity import stop_after_attempt, wait_fixed

from engine import task, workflow

GATE = Path("gate")


class Report(msgspec.Struct):
    total: int
    names: list[str]
    text: str


def note(what: str) -> None:
    with Path("effects").open("a") as file:
        file.write(f"{what}\n")


@task
async def step(n: int) -> int:
    note(f"step{n}")
    return n


@task
async def gated(n: int) -> int:
    note(f"gated{n}")
    while not GATE.exists():
        await asyncio.sleep(0.01)
    return n


@task
def stubborn() -> int:
    note("stubborn")
    while not GATE.exists():
        time.sleep(0.01)
    return 1


@task(stop=stop_after_attempt(3), wait=wait_fixed(0.01))
async def unlucky(times: int) -> int:
    note("unlucky")
    if Path("effects").read_text().split().count("unlucky") <= times:
        raise ConnectionError(f"refused [by] {times}")
    return times


@task
async def loud() -> int:
    print("loud on stdout", flush=True)  # noqa: T201 - that is what it is for
    import os

    os.system("echo loud from a child process")
    return 1


@workflow
async def steps(n: int = 4, label: str = "x") -> Report:
    """`n` quick tasks, then one that waits for the gate, then another quick one."""
    values = await asyncio.gather(*(step(i) for i in range(n)))
    values.append(await gated(n))
    values.append(await step(n + 1))
    return Report(total=sum(values), names=["a", "b"], text=f"{label}\nsecond line")


@workflow
async def thread() -> int:
    return await stubborn()


@workflow
async def retrying(times: int) -> int:
    return await unlucky(times)


@workflow
async def printing() -> int:
    return await loud()


@workflow
async def failing(day: date) -> int:
    await step(0)
    try:
        raise KeyError("lost")
    except KeyError as error:
        raise ValueError(f"two checks failed on {day}:\n- rows\n- keys") from error


@workflow
async def unrecordable():
    return object()


@workflow
async def quick(n: int = 1) -> int:
    return await step(n)
