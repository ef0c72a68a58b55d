"""The workflows that are measured, and one timed use of an engine for each way of running them.

The task does nothing and the values are small integers: what is measured is the engine, and every byte that a user's
code adds would be added to both sides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from engine import Engine, task, workflow

__all__ = [
    "burn",
    "burn_in_a_coroutine",
    "burn_in_a_process",
    "burn_in_a_thread",
    "fan_out",
    "fan_out_seconds",
    "many_runs_seconds",
    "steps",
    "steps_seconds",
    "url_of",
]


@task
async def echo(value: int) -> int:
    """The smallest task there is."""
    return value


@workflow
async def steps(count: int) -> int:
    """One task after the other."""
    total = 0
    for value in range(count):
        total += await echo(value)
    return total


@workflow
async def fan_out(count: int) -> int:
    """All tasks at once."""
    return sum(await asyncio.gather(*(echo(value) for value in range(count))))


def burn(microseconds: int) -> int:
    """Compute for so long."""
    end = time.perf_counter() + microseconds / 1e6
    while time.perf_counter() < end:
        pass
    return microseconds


async def _burn(microseconds: int) -> int:
    return burn(microseconds)


burn_in_a_process = task(executor="processes")(burn)
burn_in_a_thread = task(executor="threads")(burn)
burn_in_a_coroutine = task(_burn)


def url_of(path: Path, *, on_loop: bool = False) -> str:
    """The URL of the store in this file, which writes on the loop's own thread if asked to."""
    return f"sqlite:///{path}" + "?writes_on=loop" * on_loop


async def steps_seconds(path: Path, *, count: int, on_loop: bool = False) -> float:
    """From `start` to the result, of one run with `count` steps, on a new store."""
    async with Engine(url_of(path, on_loop=on_loop), workflows=[steps]) as engine:
        started = time.perf_counter()
        run = await engine.start(steps(count), id="steps")
        result = await run.result()
        seconds = time.perf_counter() - started
    assert result == count * (count - 1) // 2
    return seconds


def _at_once() -> None:
    """Nobody else is waited for."""


async def fan_out_seconds(
    path: Path,
    *,
    count: int,
    run_id: str = "fan_out",
    on_loop: bool = False,
    ready: Callable[[], object] = _at_once,
) -> float:
    """From `start` to the result, of one run with `count` tasks at once. `ready` is called before."""
    async with Engine(url_of(path, on_loop=on_loop), workflows=[fan_out]) as engine:
        ready()
        started = time.perf_counter()
        run = await engine.start(fan_out(count), id=run_id)
        result = await run.result()
        seconds = time.perf_counter() - started
    assert result == count * (count - 1) // 2
    return seconds


async def many_runs_seconds(
    path: Path, *, runs: int, tasks: int, on_loop: bool = False, ready: Callable[[], object] = _at_once
) -> float:
    """From the first `start` to the last result, of so many runs of so many steps, all started at once. `ready` is
    called before.
    """
    async with Engine(url_of(path, on_loop=on_loop), workflows=[steps]) as engine:
        ready()
        started = time.perf_counter()
        handles = await asyncio.gather(*(engine.start(steps(tasks)) for _ in range(runs)))
        results = await asyncio.gather(*(handle.result() for handle in handles))
        seconds = time.perf_counter() - started
    assert results == [tasks * (tasks - 1) // 2] * runs
    return seconds
