"""Requests: messages into a run with an answer. A shopping basket that takes items until somebody checks out.

    .venv/bin/python examples/requests.py [FILE]

FILE keeps the store (a temporary one without it), to be looked at with `holdfast runs --store sqlite:///FILE`.
"""

from __future__ import annotations

import asyncio
import sys
from tempfile import TemporaryDirectory

from msgspec import Struct

from engine import Engine, Request, task, workflow
from engine.errors import RequestFailedError, RequestRefused, RunEnded


class Item(Struct):
    """So many of an article."""

    article: str
    count: int


put = Request("put", Item, int)  # answered with the total
check_out = Request("check_out", None, str)


@task
async def price_of(article: str) -> int:
    """Where a shop would be asked."""
    return {"pen": 2, "paper": 5}[article]


@workflow
async def basket() -> int:
    """The total that was checked out with."""
    total = 0

    async def add(item: Item) -> int:  # may await tasks; several requests may be under way at once
        nonlocal total
        price = await price_of(item.article)
        total += price * item.count
        return total

    def check(item: Item) -> None:  # asked before anything is recorded; raising refuses the request
        if item.count < 1:
            raise ValueError("at least one")

    async with put.serve(add, validator=check):
        leaving = await check_out.receive()
    leaving.answer(f"{total} euros, please")
    return total


async def main(file: str) -> None:
    """Put things in, some of which do not go in, and check out."""
    async with Engine(f"sqlite:///{file}", workflows=[basket]) as engine:
        run = await engine.start(basket())
        print("total:", await run.ask(put, Item("pen", 3)))

        pending = await run.request(put, Item("paper", 2), id="put-paper")  # accepted: it is in the history
        print("total:", await pending.answer())
        print("the same request again, answered once:", await run.ask(put, Item("paper", 2), id="put-paper"))

        try:
            await run.ask(put, Item("pen", 0))
        except RequestRefused as error:
            print("refused:", error.__cause__)
        try:
            await run.ask(put, Item("crown", 1))
        except RequestFailedError as error:
            print("failed:", repr(error.__cause__))

        print(await run.ask(check_out))
        print("result:", await run.result())
        try:
            await run.ask(put, Item("pen", 1))
        except RunEnded as error:
            print(error)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db"))
