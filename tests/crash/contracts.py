"""A run whose task kills its own process, between its effect and the record of it: ``python -m tests.crash.contracts``.

The first process to come to the place named by `--kill` ends there with SIGKILL; a marker file tells the next ones not
to. Effects are lines in a file, and what the outside is asked is whether the key stands in it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from engine import Engine, Happened, NotHappened, attempt, task, workflow
from engine.errors import TaskInterrupted

FOLDER = Path(os.environ.get("CONTRACTS_FOLDER", "."))


def die_at(place: str) -> None:
    marker = FOLDER / f"killed {place}"
    if os.environ.get("CONTRACTS_KILL") == place and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def effect() -> str:
    die_at("before")
    with (FOLDER / "effects").open("a") as file:
        file.write(f"{attempt().idempotency_key}\n")
        file.flush()
        os.fsync(file.fileno())
    die_at("behind")
    return f"done by attempt {attempt().number}"


def keys() -> list[str]:
    path = FOLDER / "effects"
    return path.read_text().splitlines() if path.exists() else []


async def ask() -> Any:
    die_at("asking")
    return Happened("found") if attempt().idempotency_key in keys() else NotHappened()


@task(name="idempotent")
async def idempotent() -> str:
    return effect()


@task(name="at_most_once", effect="at_most_once")
def at_most_once() -> str:
    return effect()


@task(name="reconcile", reconcile=ask)
async def reconcile() -> str:
    return effect()


TASKS = {each.name: each for each in (idempotent, at_most_once, reconcile)}


@workflow
async def bound(contract: str) -> str:
    try:
        return str(await TASKS[contract]())
    except TaskInterrupted:
        return "interrupted"


async def main(contract: str) -> None:
    async with Engine(f"sqlite:///{FOLDER / 'runs.db'}", workflows=[bound]) as engine:
        run = await engine.start(bound(contract), id=contract)
        print(await run.result())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("contract", choices=sorted(TASKS))
    asyncio.run(main(parser.parse_args().contract))
