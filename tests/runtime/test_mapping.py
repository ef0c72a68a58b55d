"""`task.map` and `workflow.map`: very many inputs, a window of calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from engine import task, workflow
from engine.core.loop import BranchTask
from tests.runtime.invariants import check_store
from tests.runtime.worlds import MemoryWorld, World, soon

INPUTS = 3_000
WINDOW = 7

most = {"branches": 0, "ahead": 0}


@task
async def double(value: int) -> int:
    return 2 * value


@workflow
async def half(value: int) -> int:
    return (await double(value)) // 4


def counted(taken: list[int]) -> Iterator[int]:
    for value in range(INPUTS):
        taken[0] = value + 1
        yield value


@workflow
async def sums(ordered: bool) -> list[int]:
    taken, given, total = [0], 0, 0
    async for found in double.map(counted(taken), concurrency=WINDOW, ordered=ordered):
        given += 1
        total += found
        most["ahead"] = max(most["ahead"], taken[0] - given)
        most["branches"] = max(most["branches"], sum(isinstance(each, BranchTask) for each in asyncio.all_tasks()))
    return [given, total]


@pytest.mark.parametrize("ordered", [True, False])
async def test_what_it_holds_grows_with_the_window_and_not_with_the_inputs(ordered: bool, memory: MemoryWorld) -> None:
    most.update(branches=0, ahead=0)
    async with memory.engine(sums) as engine:
        run = await engine.start(sums(ordered), id="a")
        assert await soon(run.result()) == [INPUTS, INPUTS * (INPUTS - 1)]
        assert most["branches"] <= WINDOW + 2
        assert most["ahead"] <= WINDOW


@workflow
async def family() -> list[int]:
    async def inputs() -> AsyncIterator[int]:
        for value in range(20):
            yield await double(value)

    return [found async for found in half.map(inputs(), concurrency=3)]


async def test_child_runs_and_inputs_that_come_slowly(world: World) -> None:
    async with world.engine(family) as engine:
        assert await soon((await engine.start(family(), id="a")).result()) == list(range(20))
        await check_store(engine.store, family, half)


async def test_outside_a_workflow_it_maps_the_function() -> None:
    assert [found async for found in double.map([1, 2, 3], concurrency=2)] == [2, 4, 6]
    async with aclosing(double.map(range(10), concurrency=4)) as results:
        assert await anext(results) == 0


def test_a_window_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"map\(concurrency=0\) of task 'double': at least 1"):
        double.map([1], concurrency=0)
