"""What several tests of the language have their workflows do: tell something, wait at a gate; and what they look at."""

from __future__ import annotations

import asyncio
from typing import Any

from engine import Engine, RunHandle, task
from tests.runtime.worlds import until_async

told: list[str] = []
_gates: dict[str, asyncio.Event] = {}


def clear() -> None:
    told.clear()
    _gates.clear()


def gate(name: str) -> asyncio.Event:
    return _gates.setdefault(name, asyncio.Event())


@task
async def tell(what: str) -> str:
    told.append(what)
    return what


@task
async def held(name: str) -> str:
    """Goes on when the test opens its gate."""
    told.append(f"{name} began")
    try:
        await gate(name).wait()
    except asyncio.CancelledError:
        told.append(f"{name} cut off")
        raise
    told.append(f"{name} done")
    return name


async def statuses(engine: Engine, parent: str) -> dict[str, str]:
    """The children of a run by their ids, with their statuses."""
    page = await engine.runs(parent=parent, limit=500)
    assert page.next is None
    return {summary.id: summary.status for summary in page.items}


async def becomes(run: RunHandle[Any], status: str) -> None:
    """Wait until the run has that status."""

    async def has_it() -> bool:
        return await run.status() == status

    await until_async(has_it)


async def exists(engine: Engine, run_id: str) -> RunHandle[Any]:
    """Wait until there is such a run."""

    async def is_there() -> bool:
        try:
            await engine.run(run_id).status()
        except LookupError:
            return False
        return True

    await until_async(is_there)
    return engine.run(run_id)


async def rests(engine: Engine, run_id: str) -> None:
    """Wait until there is such a run, which has begun, and nobody has anything to do for it."""
    await exists(engine, run_id)

    async def at_rest() -> bool:
        head = await engine.store.head(f"run:{run_id}")
        return head.version > 0 and head.owner is None and not head.messages

    await until_async(at_rest)


def causes(error: BaseException) -> list[BaseException]:
    """The error and what caused it, the last one last."""
    chain: list[BaseException] = []
    found: BaseException | None = error
    while found is not None:
        chain.append(found)
        found = found.__cause__
    return chain
