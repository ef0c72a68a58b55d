"""`gather`, `wait`, `as_completed`, `create_task`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from typing import Any

from tests.core.cases import Declined, case, fail, work


async def two(label: str) -> str:
    one = await work(label, 1)
    return f"{one} {await work(label, 2)}"


async def failing(label: str, times: int = 0) -> str:
    for n in range(times):
        await work(label, n)
    return await fail(label)


@case()
async def gather_calls() -> list[str]:
    return list(await asyncio.gather(*(work(label) for label in "abc")))


@case(limit=90)
async def gather_branches() -> list[str]:
    return list(await asyncio.gather(*(two(label) for label in "abc")))


@case()
async def mapped_in_order() -> list[str]:
    return [found async for found in work.map("abcd", concurrency=2)]


@case(limit=90)
async def mapped_as_they_come() -> list[str]:
    return [found async for found in work.map("abcd", concurrency=3, ordered=False)]


@case()
async def mapped_and_failing() -> list[str]:
    found = []
    try:
        async for each in fail.map("ab", concurrency=2):
            found.append(each)
    except Declined as error:
        found.append(str(error))
    return [*found, await work("behind it")]


@case()
async def mapped_and_left() -> list[str]:
    async with aclosing(work.map(iter("abcdef"), concurrency=2)) as results:
        async for each in results:
            break
    return [each, await work("behind it")]


@case()
async def gather_same_arguments() -> list[str]:
    return list(await asyncio.gather(work("a"), work("a"), work("a")))


@case()
async def gather_same_call_twice() -> list[str]:
    call = asyncio.ensure_future(work("a"))
    return list(await asyncio.gather(call, call, work("b")))


@case(limit=60)
async def gather_nested() -> list[Any]:
    inner = asyncio.gather(two("a"), work("b"))
    return list(await asyncio.gather(inner, asyncio.gather(two("c"), work("d"))))


@case()
async def gather_return_exceptions() -> list[str]:
    found = await asyncio.gather(work("a"), failing("b", 1), fail("c"), return_exceptions=True)
    return [repr(value) for value in found]


@case()
async def gather_failing_leaves_the_others() -> list[Any]:
    others = [asyncio.create_task(two("a")), asyncio.create_task(two("b"))]
    try:
        await asyncio.gather(*others, fail("c"))
    except Declined as error:
        return [str(error), *(await asyncio.gather(*others))]
    return ["never"]


@case()
async def gather_failing_ends_the_run() -> None:
    await asyncio.gather(two("a"), failing("b"), two("c"))


@case()
async def gather_cancelled() -> list[str]:
    gathering = asyncio.gather(two("a"), two("b"))
    got = await work("first")
    gathering.cancel()
    try:
        await gathering
    except asyncio.CancelledError:
        got += " cancelled"
    return [got]


@case()
async def wait_first_completed() -> list[Any]:
    branches = [asyncio.create_task(two(label), name=f"branch-{label}") for label in "abc"]
    done, pending = await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
    first = [branch.result() for branch in done]
    for branch in pending:
        branch.cancel()
    await asyncio.wait(pending)
    return [first, sorted(branch.get_name() for branch in pending)]


@case()
async def wait_until_none_is_left() -> list[Any]:
    pending = {asyncio.ensure_future(work(label)) for label in "abcd"}
    order = []
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        order.append(sorted(branch.result() for branch in done))
        await work("next", len(order))
    return order


@case()
async def wait_first_exception() -> list[Any]:
    branches = [asyncio.create_task(coro) for coro in (two("a"), failing("b"), two("c"))]
    done, pending = await asyncio.wait(branches, return_when=asyncio.FIRST_EXCEPTION)
    return [
        sorted(repr(branch.exception() or branch.result()) for branch in done),
        await asyncio.gather(*[branch for branch in branches if branch in pending]),
    ]


@case()
async def wait_all_completed() -> list[Any]:
    done, pending = await asyncio.wait([asyncio.create_task(coro) for coro in (two("a"), failing("b"))])
    assert not pending
    return sorted(repr(branch.exception() or branch.result()) for branch in done)


@case(timers="any", limit=60)
async def wait_timeout() -> list[Any]:
    branches = [asyncio.create_task(two(label)) for label in "ab"]
    done, pending = await asyncio.wait(branches, timeout=5)
    late = [await branch for branch in branches if branch in pending]
    return [sorted(branch.result() for branch in done), late]


@case(plain="never")  # plain asyncio hands the set over in the order of addresses
async def wait_many_done_at_once() -> list[Any]:
    """All end in one turn: `done` is a set of several, whose order then decides what is called."""
    gate = asyncio.Event()

    async def behind(label: str) -> str:
        await gate.wait()
        return label

    branches = [asyncio.create_task(behind(label)) for label in "abcdef"]
    await work("gate")
    gate.set()
    done, _ = await asyncio.wait(branches)
    return [await work(branch.result()) for branch in done]


@case(plain="never")
async def wait_then_call_in_order_of_the_set() -> list[Any]:
    branches = [asyncio.create_task(two(label)) for label in "abcd"]
    _, pending = await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
    for n, branch in enumerate(pending):
        branch.cancel()
        await work("cancelled", n)
    return [branch.cancelled() for branch in branches]


@case()
async def as_completed_plain() -> list[str]:
    return [await earliest for earliest in asyncio.as_completed([two("a"), work("b"), work("c")])]


@case(plain="never")  # plain asyncio makes its tasks in the order of the coroutines' addresses
async def as_completed_raw_coroutines() -> list[str]:
    return [await earliest for earliest in asyncio.as_completed([two(label) for label in "abcdef"])]


@case(plain="never")
async def as_completed_raw_coroutines_of_many_kinds() -> list[str]:
    """Nothing is waited for: the order is that in which the tasks were made."""

    async def at_once(label: str) -> str:
        return label

    await work("before")
    order = [await earliest for earliest in asyncio.as_completed([at_once(label) for label in "abcdef"])]
    return [await work(label) for label in order]


@case()
async def as_completed_tasks_and_calls() -> list[str]:
    order = []
    for earliest in asyncio.as_completed([asyncio.create_task(two("a")), work("b"), work("c")]):
        order.append(await earliest)
        order.append(await work("after", len(order)))
    return order


@case(timers="any")
async def as_completed_timeout() -> list[str]:
    order = []
    try:
        for earliest in asyncio.as_completed([two("a"), work("b")], timeout=3):
            order.append(await earliest)
    except TimeoutError:
        order.append("late")
    return order


@case()
async def as_completed_fails() -> list[str]:
    order = []
    for earliest in asyncio.as_completed([two("a"), failing("b"), work("c")]):
        try:
            order.append(await earliest)
        except Declined as error:
            order.append(f"declined {error}")
    return order


if sys.version_info >= (
    3,
    13,
):  # elsewhere it runs in the subprocesses of test_processes.py, where such a Python is found

    @case()
    async def as_completed_async_for() -> list[str]:
        order = []
        mine = [asyncio.create_task(two("a"), name="mine"), work("b"), work("c")]
        async for earliest in asyncio.as_completed(mine):
            order.append(f"{await earliest} {earliest is mine[0]}")
            order.append(await work("after", len(order)))
        return order


@case()
async def create_task_names() -> list[str]:
    named = [asyncio.create_task(work(label), name="same") for label in "ab"]
    late = asyncio.create_task(two("c"))
    late.set_name("late")
    odd = asyncio.create_task(two("d"), name="a/b~c#d e")
    return [await branch for branch in (*named, late, odd)]


@case()
async def branches_that_nobody_awaits() -> str:
    kept = [asyncio.create_task(two(label)) for label in "ab"]
    got = await work("main")
    return f"{got} {[branch.done() for branch in kept]}"


@case(limit=40)
async def branches_of_branches() -> list[Any]:
    async def below(label: str) -> list[str]:
        return list(await asyncio.gather(*(work(label, n) for n in range(2))))

    return list(await asyncio.gather(*(below(label) for label in "abc")))
