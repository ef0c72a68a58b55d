"""Workflows for the tests of `replay` and of searching; the tests write changed copies of this file."""

import asyncio
from pathlib import Path

from engine import Request, Signal, durable, task, workflow

go = Signal("go", int)
ask = Request("ask", int, int)


class Hostile:
    """Nobody can look at it."""

    def __repr__(self) -> str:
        raise RuntimeError("look away")


@task
async def load(n: int) -> int:
    with Path("effects").open("a") as file:
        file.write(f"load{n}\n")
    return n


@task
async def never() -> int:
    await asyncio.Event().wait()
    return 1


@workflow
async def part(n: int) -> int:
    durable.set_attributes(part=n)
    return await go.receive()


async def deep(n: int) -> int:
    hostile, large = Hostile(), "x" * 100_000
    rows = await load(n)
    await asyncio.sleep(3_600)  # here
    return rows + len(large) + (hostile is None)


async def words():
    while True:
        yield await go.receive()


async def listen() -> None:
    async for word in words():
        assert word


@workflow
async def order(who: str) -> str:
    first = await load(1)
    durable.set_attributes(who=who, stage="loaded", first=first)
    async with asyncio.TaskGroup() as group:
        for name, coro in (("deep", deep(2)), ("kid", part(3)), ("never", never()), ("listen", listen())):
            group.create_task(coro, name=name)
        queue: asyncio.Queue[int] = asyncio.Queue()
        group.create_task(queue.get(), name="queue")
        group.create_task(ask.receive(), name="ask")
    return who


@workflow
async def fails(n: int) -> int:
    got = await load(n)
    reason = f"because of {got}"
    raise ValueError(reason)


@task
async def refuse() -> None:
    raise ConnectionError("down")


@workflow
async def shaky(n: int) -> None:
    tries = n
    await refuse()
    raise AssertionError(tries)


@workflow
async def ends(n: int) -> int:
    got = await load(n)
    return got


@workflow
async def epochs(n: int) -> int:
    here = await load(n)
    if n < 2:
        await durable.continue_as_new(epochs(n + 1))
    return here + await go.receive()


@workflow(version="1")
async def old(n: int) -> int:
    return await load(n) + await go.receive()


@workflow(name="old", version="2")
async def new(n: int) -> int:
    return await go.receive() + n
