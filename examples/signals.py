"""Signals: one-way messages into a run. An expense waits for somebody's decision, for a week at most.

    .venv/bin/python examples/signals.py [FILE]

FILE keeps the store (a temporary one without it), to be looked at with `holdfast runs --store sqlite:///FILE`.
"""

from __future__ import annotations

import asyncio
import sys
from tempfile import TemporaryDirectory
from typing import Any

from engine import Engine, Signal, task, workflow
from engine.errors import NotRecordable, RunEnded

decision = Signal("decision", bool)
remark = Signal("remark", str)


@task
async def pay(amount: int) -> str:
    """Where the money would move."""
    return f"paid {amount} euros"


@workflow
async def expense(amount: int) -> str:
    """Paid when it is approved."""
    try:
        async with asyncio.timeout(7 * 86_400):  # a week, whatever restarts meanwhile
            approved = await decision.receive()
    except TimeoutError:
        return "nobody decided"
    remarks = [await remark.receive() for _ in range(remark.waiting())]  # what has come by now, in order
    outcome = await pay(amount) if approved else "not paid"
    return f"{outcome}; remarks: {', '.join(remarks)}"


async def main(file: str) -> None:
    """Start it, restart the engine, decide."""
    async with Engine(f"sqlite:///{file}", workflows=[expense]) as engine:
        # The first remark is delivered before anything else, in the commit that starts the run.
        run = await engine.start(expense(120), signals=[remark.message("train to Hamburg")])
        await run.signal(remark, "and back")
        yes: Any = "yes"  # without `Any`, mypy and pyright say so before
        try:
            await run.signal(decision, yes)
        except NotRecordable as error:
            print(f"refused here and now: {error}")

    print("the engine is closed, the run waits")

    async with Engine(f"sqlite:///{file}", workflows=[expense]) as engine:
        same = engine.run(run.id)
        for _ in range(2):  # somebody clicks twice: the same id is delivered once
            await same.signal(decision, True, id="decision-of-alice", by="alice")
        print(await same.result())
        try:
            await same.signal(remark, "too late")
        except RunEnded as error:
            print(error)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db"))
