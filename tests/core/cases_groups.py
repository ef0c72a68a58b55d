"""`TaskGroup`, `timeout`, `wait_for`, `shield`."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.core.cases import Declined, case, fail, undo, work
from tests.core.cases_gather import failing, two


@case()
async def group_of_branches() -> list[str]:
    async with asyncio.TaskGroup() as group:
        branches = [group.create_task(two(label)) for label in "abc"]
    return [branch.result() for branch in branches]


@case()
async def group_of_calls() -> list[str]:
    async with asyncio.TaskGroup() as group:
        branches = [group.create_task(work(label)) for label in "abc"]
        await work("body")
    return [branch.result() for branch in branches]


@case()
async def group_nested() -> list[Any]:
    async def inner(label: str) -> list[str]:
        async with asyncio.TaskGroup() as group:
            branches = [group.create_task(work(label, n)) for n in range(2)]
        return [branch.result() for branch in branches]

    async with asyncio.TaskGroup() as group:
        branches = [group.create_task(inner(label)) for label in "ab"]
    return [branch.result() for branch in branches]


@case(plain="sorted")
async def group_failing_child_cancels_siblings() -> list[Any]:
    seen: list[str] = []

    async def careful(label: str) -> None:
        try:
            await two(label)
        except asyncio.CancelledError:
            seen.append(await undo(label))
            raise

    try:
        async with asyncio.TaskGroup() as group:
            for label in "abc":
                group.create_task(careful(label))
            group.create_task(failing("f"))
    except* Declined as errors:
        seen += [str(error) for error in errors.exceptions]
    return seen


@case()
async def group_failing_body() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(two("a"))
        group.create_task(two("b"))
        await fail("body")


@case(limit=60)
async def group_nested_inner_fails() -> list[str]:
    log: list[str] = []
    try:
        async with asyncio.TaskGroup() as outer:
            outer.create_task(two("a"))
            try:
                async with asyncio.TaskGroup() as inner:
                    inner.create_task(failing("b", 1))
                    inner.create_task(two("c"))
            except* Declined:
                log.append(await work("inner failed"))
            outer.create_task(failing("d"))
    except* Declined as errors:
        log += [str(error) for error in errors.exceptions]
    return log


@case()
async def group_grows_while_it_runs() -> list[str]:
    done: list[str] = []

    async def spawn(label: str, depth: int) -> None:
        done.append(await work(label, depth))
        if depth:
            group.create_task(spawn(f"{label}l", depth - 1))
            group.create_task(spawn(f"{label}r", depth - 1))

    async with asyncio.TaskGroup() as group:
        group.create_task(spawn("t", 2))
    return done


@case(timers="any")
async def timeout_over_a_call() -> list[Any]:
    try:
        async with asyncio.timeout(10):
            return [await work("a")]
    except TimeoutError:
        return ["late", await work("b")]


@case(timers="any", limit=60)
async def timeout_over_a_group() -> list[Any]:
    try:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            branches = [group.create_task(two(label)) for label in "ab"]
    except TimeoutError:
        return ["late", [branch.cancelled() for branch in branches]]
    return [branch.result() for branch in branches]


@case(timers="any")
async def timeout_nested() -> list[Any]:
    log: list[Any] = []
    try:
        async with asyncio.timeout(10) as outer:
            try:
                async with asyncio.timeout(3) as inner:
                    log.append(await two("a"))
            except TimeoutError:
                log.append("inner late")
            log.append(await work("b"))
            log.append(inner.expired())
    except TimeoutError:
        log.append("outer late")
    return [*log, outer.expired()]


@case(timers="any")
async def timeout_at_and_reschedule() -> list[Any]:
    loop = asyncio.get_running_loop()
    log: list[Any] = []
    try:
        async with asyncio.timeout_at(loop.time() + 2) as limit:
            log.append(await work("a"))
            limit.reschedule(loop.time() + 7.5)
            log.append(await work("b"))
            limit.reschedule(None)
            log.append(await work("c"))
            limit.reschedule(loop.time() - 1)
            log.append(await work("never"))
    except TimeoutError:
        log.append("late")
    return log


@case(timers="any")
async def timeout_in_a_finally() -> list[Any]:
    log: list[Any] = []
    try:
        async with asyncio.timeout(5):
            try:
                await two("a")
            finally:
                log.append(await undo("a"))
    except TimeoutError:
        log.append("late")
    return log


@case(timers="any")
async def wait_for_in_time() -> list[Any]:
    try:
        return [await asyncio.wait_for(two("a"), 10), await asyncio.wait_for(work("b"), None)]
    except TimeoutError:
        return ["late", await work("c")]


@case(timers="any", limit=60)
async def wait_for_in_branches() -> list[Any]:
    async def patient(label: str, seconds: float) -> str:
        try:
            return await asyncio.wait_for(two(label), seconds)
        except TimeoutError:
            return await work(f"late {label}")

    return list(await asyncio.gather(patient("a", 3), patient("b", 4)))


@case(timers="any", plain="never")
async def wait_for_a_task_of_its_own() -> list[Any]:
    branch = asyncio.create_task(two("a"), name="kept")
    try:
        return [await asyncio.wait_for(asyncio.shield(branch), 2)]
    except TimeoutError:
        return ["late", await branch]


@case()
async def wait_for_nothing_left() -> list[Any]:
    try:
        return [await asyncio.wait_for(work("a"), 0)]
    except TimeoutError:
        return ["at once", await work("b")]


@case()
async def shield_outlives_a_cancellation() -> list[Any]:
    inner = asyncio.create_task(two("inner"))

    async def shielding() -> str:
        return await asyncio.shield(inner)

    outer = asyncio.create_task(shielding())
    got = await work("first")
    outer.cancel()
    await asyncio.wait([outer])
    return [got, outer.cancelled(), await inner]


@case(timers="any")
async def sleeps_in_branches() -> list[str]:
    order: list[str] = []

    async def nap(label: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        order.append(label)
        await work(label)

    await asyncio.gather(nap("c", 3), nap("a", 1), nap("b", 2), nap("now", 0))
    return order
