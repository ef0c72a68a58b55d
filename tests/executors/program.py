"""A program with an engine, to be killed: ``python -m tests.executors.program DATABASE FOLDER TASK``.

Runs the task in a worker process, writes its result into the folder, and then stays until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys

from engine import Engine
from tests.executors import heavy


async def main(database: str, folder: str, name: str) -> None:
    async with Engine(f"sqlite:///{database}", workflows=[heavy.one_of], processes=1) as engine:
        arguments = () if name == "pid" else (folder,)
        run = await engine.start(heavy.one_of(name, *arguments), id="r")
        heavy.note(folder, "result", json.dumps(await run.result()))
        await asyncio.sleep(300)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
