"""A run that moves: begun on one machine, it waits; as a file it goes to another, and ends there.

.venv/bin/python examples/moving.py [runs.db]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from engine import Engine, Signal, task, workflow
from engine.moving import check_export, export_to_file, import_from_file
from eventstore.urls import open_store

approve = Signal("approve", bool)


@task
async def reserve(amount: int) -> str:
    """Take the money out of the budget, once."""
    print(f"  reserved {amount} euros")
    return f"reservation of {amount} euros"


@workflow
async def travel(amount: int) -> str:
    """Reserve, and wait for somebody."""
    reserved = await reserve(amount)
    return f"{reserved}, {'approved' if await approve.receive() else 'refused'}"


async def main(path: str, folder: Path) -> None:
    """Begin here, go on there."""
    run_id = f"travel-{uuid4().hex[:12]}"
    file = folder / "travel.holdfast"
    async with Engine(f"sqlite:///{path}", workflows=[travel]) as engine:
        run = await engine.start(travel(120), id=run_id)
        exported = await export_to_file(engine.store, file, runs=[run_id], pause=True, by="ann", reason="new machine")
        print(f"here: {await run.status()}, {len(exported.runs or ())} run in {file.name}")

    checked = await check_export(file)
    print(f"the file is whole: {checked.sha256 == exported.sha256}")

    there = await open_store(f"sqlite:///{folder}/there.db")
    imported = await import_from_file(there, file, by="bob", reason="new machine")
    again = await import_from_file(there, file, by="bob", reason="new machine")
    print(f"imported {imported.streams} run; again: {again.streams}")
    async with Engine(there, workflows=[travel]) as engine:
        run = engine.run(run_id)
        await run.signal(approve, True)
        await run.unpause()
        print(f"there: {await run.result()}")
    await there.aclose()


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{temporary}/runs.db", Path(temporary)))
