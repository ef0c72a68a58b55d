"""A saga is an `AsyncExitStack`: every step pushes what undoes it. A journey that cannot be booked is unbooked.

    .venv/bin/python examples/saga.py [FILE]

The engine is closed in the middle of the undoing, as a crash would; the next one goes on with the rest of it. FILE
keeps the store (a temporary one without it), to be looked at with `holdfast runs --store sqlite:///FILE`.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from tempfile import TemporaryDirectory

from tenacity import stop_after_attempt, wait_exponential_jitter

from engine import Engine, State, durable, task, workflow
from engine.errors import RunFailedError

phase = State("phase", str, initial="booking")


@task(on_cancel="wait")  # a cancelled booking ends with its outcome: what was booked is known, and undone
async def book(what: str) -> str:
    """Where something would be booked."""
    if what == "car":
        raise LookupError("no car left")
    print(f"  booked {what}")
    return f"{what}-1"


@task(stop=stop_after_attempt(10), wait=wait_exponential_jitter(max=60))  # undoing is tried harder than doing
async def unbook(booking: str) -> None:
    """Where it would be unbooked."""
    print(f"  unbooked {booking}")


async def undo(booking: str) -> None:
    """Unbook, and leave some time before the next one."""
    async with durable.shielded():  # a cancellation meanwhile does not leave it half done
        await unbook(booking)
        await phase.publish(f"unbooked {booking}")
        await asyncio.sleep(0.3)


@workflow
async def journey(wishes: list[str]) -> list[str]:
    """All of it, or nothing."""
    bookings = []
    async with AsyncExitStack() as stack:
        for wish in wishes:
            booking = await book(wish)
            stack.push_async_callback(undo, booking)
            bookings.append(booking)
        stack.pop_all()  # everything is booked: nothing is to be undone
    return bookings


async def main(file: str) -> None:
    """Book a journey that fails, and stop in the middle of undoing it."""
    url = f"sqlite:///{file}"
    async with Engine(url, workflows=[journey], grace=0) as engine:
        run = await engine.start(journey(["flight", "hotel", "car"]))
        while await run.read(phase) != "unbooked hotel-1":
            await asyncio.sleep(0.01)

    print("-- the engine is gone, and comes back --")

    async with Engine(url, workflows=[journey]) as engine:
        try:
            await engine.run(run.id).result()
        except RunFailedError as error:
            print("not booked:", error.message)
        run = await engine.start(journey(["flight", "hotel"]))
        print(await run.result())


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db"))
