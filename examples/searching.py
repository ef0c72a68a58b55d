"""Runs that are found by what their author gave them, and one of them looked at where it stands.

    .venv/bin/python examples/searching.py [searching.db]

Parcels are under way. Which of them are large, and still on the road? Where exactly does the code of one stand?
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryDirectory

from engine import Engine, RunHandle, Signal, durable, replay_run, task, workflow

arrived = Signal("arrived", str)


@task
async def weigh(parcel: str) -> float:
    """Put it on the scales."""
    return len(parcel) * 1.5


@workflow
async def deliver(parcel: str, region: str) -> str:
    """Take a parcel to its customer."""
    kilograms = await weigh(parcel)
    durable.set_attributes(region=region, kilograms=kilograms, stage="on the road")
    place = await arrived.receive()
    durable.set_attributes(stage=None, delivered=True)
    return f"{parcel} is in {place}"


async def on_the_road(run: RunHandle[str]) -> None:
    """Wait until it is."""
    async for _ in run.events(follow=True):
        if (await run.state()).attributes.get("stage"):
            return


async def main(file: str) -> None:
    """Send some, search, look."""
    async with Engine(f"sqlite:///{file}", workflows=[deliver]) as engine:
        begun = datetime.now(UTC)
        parcels = [("lamp", "eu"), ("wardrobe", "eu"), ("bookshelf", "us"), ("bed", "eu")]
        runs = {
            parcel: await engine.start(deliver(parcel, region), attributes={"customer": f"customer of the {parcel}"})
            for parcel, region in parcels
        }
        for run in runs.values():
            await on_the_road(run)
        await runs["bed"].signal(arrived, "Oslo")
        print(await runs["bed"].result())

        wanted = {"region": "eu", "stage": "on the road"}
        page = await engine.runs(attributes=wanted, since=begun, limit=1)
        while True:
            for each in page.items:
                print("on the road:", each.attributes["customer"], each.attributes["kilograms"], "kg")
            if page.next is None:
                break
            page = await engine.runs(attributes=wanted, since=begun, limit=1, cursor=page.next)
        done = await engine.runs(attributes={"delivered": True}, since=begun, until=begun + timedelta(hours=1))
        print("delivered:", len(done.items))

        replayed = await replay_run(engine.store, runs["lamp"].id, [deliver])
        for branch in replayed.branches:
            frame = branch.stack[0]
            print(branch.name, "awaits", branch.awaits, "in", frame.source, frame.locals)

        for run in runs.values():
            await run.terminate(reason="the example is over")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db"))
