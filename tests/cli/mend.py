"""A workflow that fails until the file `up` is there, and counts what its tasks do."""

import asyncio
from pathlib import Path

import msgspec

from engine import Signal, task, workflow

go = Signal("go", int)


class Rows(msgspec.Struct):
    count: int


def note(what: str) -> None:
    with Path("effects").open("a") as file:
        file.write(f"{what}\n")


@task
async def extract(n: int) -> Rows:
    note("extract")
    return Rows(n)


@task
async def load(rows: Rows) -> int:
    note("load")
    if not Path("up").exists():
        raise ConnectionError("the warehouse is down")
    while Path("hold").exists():
        await asyncio.sleep(0.01)
    return rows.count * 10


@workflow
async def nightly(n: int = 4) -> int:
    rows = await extract(n)
    return await load(rows) + rows.count


@workflow
async def waiting() -> int:
    return await go.receive()
