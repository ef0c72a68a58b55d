"""The ways in which a run is stopped: cancelled, held by a shield, out of time, terminated, paused.

    .venv/bin/python examples/cancellation.py [FILE]

FILE keeps the store (a temporary one without it), to be looked at with `holdfast runs --store sqlite:///FILE`.
"""

from __future__ import annotations

import asyncio
import sys
from tempfile import TemporaryDirectory

from engine import Engine, RunHandle, State, durable, task, workflow
from engine.errors import RunCancelledError, RunDeadlineExceeded, RunFailedError, RunTerminatedError

phase = State("phase", str, initial="not begun")


@task
async def say(text: str) -> None:
    """What can be seen of it from outside."""
    print(f"    {text}")


@workflow
async def move(boxes: int) -> str:
    """Carries boxes for a day each; what has begun to be unloaded is unloaded to the end."""
    try:
        await phase.publish("on the road")
        await asyncio.sleep(boxes * 86_400)
    except asyncio.CancelledError:
        await say("cancelled: turning back")  # cleaning up may await tasks, timers, children
        raise
    finally:
        await say("the van is parked")
    return "moved"


@workflow
async def unload(boxes: int) -> str:
    """No cancellation of the run enters a shielded section."""
    async with durable.shielded():
        await phase.publish("unloading")
        for box in range(boxes):
            await asyncio.sleep(0.5)
            await say(f"box {box + 1} of {boxes}")
    await say("nobody gets here when it was cancelled meanwhile")
    return "unloaded"


async def reached(run: RunHandle[str], name: str) -> None:
    """Wait until the run has published this phase."""
    while await run.read(phase) != name:
        await asyncio.sleep(0.01)


async def main(file: str) -> None:
    """Stop runs in every way."""
    async with Engine(f"sqlite:///{file}", workflows=[move, unload]) as engine:
        print("cancel: the workflow may clean up")
        run = await engine.start(move(3))
        await reached(run, "on the road")
        await run.cancel(reason="wrong address", by="alice")
        try:
            await run.result()
        except RunCancelledError as error:
            print("   ", error.__class__.__name__, "-", str(error).replace(run.id, "..."))

        print("cancel during a shielded section: it takes effect behind it")
        run = await engine.start(unload(2))
        await reached(run, "unloading")
        await run.cancel()
        try:
            await run.result()
        except RunCancelledError as error:
            print("   ", error.__class__.__name__)

        print("deadline: absolute, whatever restarts meanwhile")
        run = await engine.start(move(3), deadline=0.2)
        try:
            await run.result()
        except RunFailedError as error:
            print("   ", "run out of time" if isinstance(error.__cause__, RunDeadlineExceeded) else error)

        print("pause: nothing begins, what arrives is kept")
        run = await engine.start(unload(1))
        await reached(run, "unloading")
        await run.pause(reason="lunch")
        while await run.status() != "paused":
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.6)  # the timer of the box is due, and nothing comes of it
        print("   ", await run.status())
        await run.unpause()
        print("   ", await run.result())

        print("terminate: ended without its code")
        run = await engine.start(move(3))
        await run.terminate(reason="the van is gone", by="bob")
        try:
            await run.result()
        except RunTerminatedError as error:
            print("   ", error.__class__.__name__, "-", str(error).replace(run.id, "..."))


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db"))
