"""Runs that begin later than they are started, one at a time, or once for many calls.

    .venv/bin/python examples/starting.py [starting.db]

A reminder begins when its time has come, whoever is alive then. The customers' accounts are brought up to date, never
one of them by two runs at once. A document that is changed again and again is indexed when the changes have stopped.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from tempfile import TemporaryDirectory

from engine import Engine, Signal, task, workflow
from engine.errors import RunCancelledError, SingletonHeld

go_on = Signal("go_on", str)


@task
async def say(text: str) -> str:
    """Tell it to somebody."""
    print(text)
    return text


@workflow
async def remind(name: str) -> str:
    """Say what was to be said later."""
    return await say(f"{name}, your table is waiting")


@workflow
async def sync(customer: str, what: str) -> str:
    """Bring the account of a customer up to date; somebody says when it may be written."""
    return f"{what} of {customer}, {await go_on.receive()}"


@workflow
async def index(document: str, text: str) -> str:
    """Make a document findable."""
    return await say(f"{document} is indexed: {text}")


async def later(engine: Engine) -> None:
    """Start now, begin later."""
    reminder = await engine.start(remind("ann"), delay=1)
    other = await engine.start(remind("bob"), delay=timedelta(days=1))
    print("the reminders are", await reminder.status(), "and", await other.status())
    await reminder.result()
    await other.cancel(reason="bob has called")
    try:
        await other.result()
    except RunCancelledError as error:
        print(str(error).partition(" was ")[2])


async def one_at_a_time(engine: Engine) -> None:
    """Start runs that exclude each other by customer."""
    first = await engine.start(sync("customer-7", "the nightly sync"), singleton="customer-7")
    try:
        await engine.start(sync("customer-7", "another"), singleton="customer-7")
    except SingletonHeld as error:
        print("refused:", error.run_id == first.id)

    same = await engine.start(sync("customer-7", "any"), singleton="customer-7", on_conflict="attach")
    print("attached:", same.id == first.id)

    behind = await engine.start(sync("customer-7", "the repair"), singleton="customer-7", on_conflict="queue")
    state = await behind.state()
    print("queued:", state.status, state.queued_behind == first.id)

    newest = await engine.start(sync("customer-7", "the import"), singleton="customer-7", on_conflict="replace")
    for run in (first, behind):
        try:
            await run.result()
        except RunCancelledError as error:
            print(f"replaced: {newest.id in str(error)}")
    await newest.signal(go_on, "done")
    print(await newest.result())


async def when_it_is_quiet(engine: Engine) -> None:
    """Call often, run once."""
    runs = [
        await engine.debounce(index("report.txt", text), key="report.txt", seconds=1, longest=5)
        for text in ("draft", "second draft", "final")
    ]
    await runs[-1].result()
    print("the first of them:", await runs[0].status())


async def main(file: str) -> None:
    """Do all three."""
    async with Engine(f"sqlite:///{file}", workflows=[remind, sync, index]) as engine:
        await later(engine)
        await one_at_a_time(engine)
        await when_it_is_quiet(engine)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db"))
