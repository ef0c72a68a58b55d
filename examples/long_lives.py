"""Runs that live long: one that continues as new, and one that sleeps for a year and is told to sleep longer.

    .venv/bin/python examples/long_lives.py [FILE]

Time is turned by hand here: each engine opens at a later date. FILE keeps the store (a temporary one without it), to be
looked at with `holdfast runs --store sqlite:///FILE`.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryDirectory

from engine import Engine, Signal, State, durable, workflow
from eventstore import SystemClock

reading = Signal("reading", int)
total = State("total", int, initial=0)
renew = Signal("renew", datetime)
expiry = State("expiry", datetime)


@workflow
async def meter(so_far: int) -> None:
    """Adds up readings, for ever. What it has read is in its argument, so its history may begin anew."""
    async for value in reading:
        so_far += value
        await total.publish(so_far)
        if durable.turns() >= 100:  # facts since this epoch began
            await durable.continue_as_new(meter(so_far))  # readings that wait are carried over


@workflow
async def licence(until: datetime) -> str:
    """Ends when it expires, and expires later when somebody renews it."""
    while True:
        await expiry.publish(until)
        try:
            async with asyncio.timeout((until - durable.now()).total_seconds()):
                until = await renew.receive()
        except TimeoutError:
            return f"expired on {until:%d %B %Y}"


class Calendar(SystemClock):
    """The machine's clock, set to a date."""

    def __init__(self, today: datetime) -> None:
        self.ahead = round(today.timestamp() * 1_000_000) - super().now()

    def now(self) -> int:
        """Microseconds since the epoch."""
        return super().now() + self.ahead


async def main(file: str) -> None:
    """Let a meter run through three epochs, and two years pass."""
    url = f"sqlite:///{file}"
    year_2026, year_2027, year_2028 = (datetime(year, 1, 1, tzinfo=UTC) for year in (2026, 2027, 2028))

    async with Engine(url, workflows=[meter, licence], clock=Calendar(year_2026)) as engine:
        metering = await engine.start(meter(0))
        for value in range(250):
            await metering.signal(reading, value)
        while await metering.read(total) != sum(range(250)):
            await asyncio.sleep(0.01)
        print(f"total {await metering.read(total)}, in epoch {(await metering.state()).epoch}")

        run = await engine.start(licence(year_2027))
        while not (await run.state()).timers:
            await asyncio.sleep(0.01)

    print("most of a year passes; nothing waits in memory, there is no process")

    async with Engine(url, workflows=[meter, licence], clock=Calendar(year_2027 - timedelta(days=1))) as engine:
        same = engine.run(run.id)
        await same.signal(renew, year_2028)
        while await same.read(expiry) != year_2028:
            await asyncio.sleep(0.01)
        print(f"renewed until {await same.read(expiry):%d %B %Y}")

    async with Engine(url, workflows=[meter, licence], clock=Calendar(year_2028)) as engine:
        print(await engine.run(run.id).result())
        print("and the meter is still there:", await engine.run(metering.id).status())


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db"))
