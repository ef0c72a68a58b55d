"""Workflows that the tests of the command talk with. Beside `work.py` in the folder of the command."""

import asyncio
from datetime import date
from pathlib import Path

import msgspec
from work import gated, note

from engine import Feed, Query, Request, Signal, State, attempt, durable, task, workflow


class Draft(msgspec.Struct):
    text: str
    pages: int = 1


approve = Signal("approve", bool)
note_down = Signal("note", str)
go = Signal("go", None)
day_of = Signal("day", date)
review = Request("review", Draft, str)
never_served = Request("never-served", int, int)
left = Request("left", None, int)
progress = Query("progress", None, dict[str, int])
plus = Query("plus", int, int)
phase = State("phase", str, initial="new")
count = State("count", int)
unset = State("unset", int)
log = Feed("log", str)


@task
async def approval() -> int:
    Path("token").write_text(attempt().token)
    attempt().later()


@task
async def mark(text: str) -> str:
    note(text)
    return text


@workflow
async def order() -> list[str]:
    """Publishes, answers, and goes on until it is told to go."""
    heard: list[str] = []
    progress.provide(lambda: {"heard": len(heard)})
    plus.provide(lambda n: n + len(heard))

    async def listen() -> None:
        async for text in note_down:
            heard.append(text)
            await count.publish(len(heard))
            await log.publish(text)

    async def judge(draft: Draft) -> str:
        if draft.pages == 13:
            raise ValueError("unlucky")
        if draft.pages == 1_000:
            await asyncio.Event().wait()
        return draft.text.upper()

    def check(draft: Draft) -> None:
        if draft.pages < 1:
            raise ValueError("a draft has a page at least")

    listening = asyncio.create_task(listen())
    await phase.publish("open")
    async with review.serve(judge, validator=check):
        await approve.receive()
        await phase.publish("approved")
    await go.receive()
    listening.cancel()
    return heard


@workflow
async def handed() -> int:
    return await approval()


@workflow
async def child(n: int) -> int:
    if n == 2:
        raise ValueError("two")
    return await gated(n)


@workflow
async def family(n: int = 3) -> int:
    outcomes = await asyncio.gather(*(child(k) for k in range(n)), return_exceptions=True)
    return sum(each for each in outcomes if isinstance(each, int))


@workflow
async def marks(n: int = 3) -> int:
    """One gated task, then quick ones, one after the other."""
    await gated(0)
    for k in range(n):
        await mark(f"mark{k}")
    return n


@workflow
async def rounds(n: int = 0) -> int:
    await mark(f"round{n}")
    if n < 2:
        await durable.continue_as_new(rounds(n + 1))
    return n
