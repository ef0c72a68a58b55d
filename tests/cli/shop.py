"""Workflows for the tests of the gate; the tests write changed copies of this file."""

import asyncio

from engine import Signal, durable, task, workflow

go = Signal("go", int)


@task
async def check(who: str) -> str:
    return f"checked {who}"


@task
async def charge(who: str) -> str:
    return f"charged {who}"


@task
async def quote(who: str) -> str:
    return f"quoted {who}"


@workflow
async def part(who: str) -> int:
    return await go.receive()


@workflow
async def order(who: str, ends: bool = False) -> list[str]:
    found = [await check(who) + str(durable.turns() > 100)]
    found.append(await charge(who))  # here
    if not ends:
        await asyncio.gather(go.receive(), part(who))
    return found


@workflow
async def other(n: int) -> int:
    print("loaded and run")  # noqa: T201 - in a replay, too: it must not reach what programs read
    return await go.receive()
