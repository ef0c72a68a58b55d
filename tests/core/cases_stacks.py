"""`AsyncExitStack` as a saga, async generators, context variables, cancellation by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import Any

from engine.workflows import durable
from tests.core.cases import Declined, case, charge, fail, fail_charge, undo, work
from tests.core.cases_gather import two

colour: ContextVar[str] = ContextVar("colour", default="none")


@case()
async def saga_that_succeeds() -> list[str]:
    log: list[str] = []
    async with AsyncExitStack() as saga:
        for label in "ab":
            saga.push_async_callback(undo, label)
            log.append(await work(label))
        saga.pop_all()
    return log


@case()
async def saga_that_fails() -> list[str]:
    log: list[str] = []

    async def compensate(label: str) -> None:
        log.append(await undo(label))

    try:
        async with AsyncExitStack() as saga:
            for label in "abc":
                saga.push_async_callback(compensate, label)
                log.append(await (fail(label) if label == "c" else work(label)))
    except Declined as error:
        log.append(f"declined {error}")
    return log


@case()
async def saga_in_branches() -> list[Any]:
    async def book(label: str, ends_well: bool) -> str:
        async with AsyncExitStack() as saga:
            saga.push_async_callback(undo, label)
            got = await two(label)
            if not ends_well:
                await fail(label)
            saga.pop_all()
        return got

    found = await asyncio.gather(book("a", ends_well=True), book("b", ends_well=False), return_exceptions=True)
    return [repr(value) for value in found]


@asynccontextmanager
async def rented(label: str) -> AsyncIterator[str]:
    got = await work(f"rent {label}")
    try:
        yield got
    finally:
        await undo(f"rent {label}")


@case()
async def context_managers_entered() -> list[str]:
    async with AsyncExitStack() as stack:
        cars = [await stack.enter_async_context(rented(label)) for label in "ab"]
        cars.append(await work("drive"))
    return cars


async def pages(label: str, count: int = 3) -> AsyncIterator[str]:
    try:
        for n in range(count):
            yield await work(label, n)
    finally:
        await undo(f"close {label}")


@case()
async def generator_exhausted() -> list[str]:
    return [page async for page in pages("a")] + [await work("end")]


@case()
async def generators_in_branches() -> list[Any]:
    async def read(label: str) -> list[str]:
        return [page async for page in pages(label, 2)]

    return list(await asyncio.gather(read("a"), read("b")))


@case()
async def generator_left_early() -> list[str]:
    got: list[str] = []
    async with aclosing(pages("a")) as source:
        async for page in source:
            got.append(page)
            if len(got) == 2:
                break
    got.append(await work("after"))
    return got


@case(plain="never")  # on plain asyncio it is closed when it is collected, and that may decide
async def generator_left_open() -> list[str]:
    source = pages("a")
    got = [await anext(source)]
    got.append(await work("after"))
    return got


@case()
async def generator_dropped_while_it_holds_a_lock() -> list[str]:
    """Nobody closes it: it is collected when the branch ends, and what it held is free for the other."""
    lock = asyncio.Lock()

    async def guarded(label: str) -> AsyncIterator[str]:
        async with lock:
            while True:
                yield await work(label)

    async def one(label: str) -> str:
        async for page in guarded(label):
            return page
        return "never"

    return list(await asyncio.gather(one("a"), one("b")))


@case()
async def generator_that_fails() -> list[str]:
    async def broken() -> AsyncIterator[str]:
        yield await work("a")
        await fail("in the generator")

    got: list[str] = []
    try:
        async for page in broken():
            got.append(page)
    except Declined as error:
        got.append(str(error))
    return got


@case()
async def generator_asend_and_athrow() -> list[str]:
    got: list[str] = []

    async def talk():  # type: ignore[no-untyped-def]
        heard = yield "begin"
        while True:
            try:
                heard = yield await work(str(heard))
            except ValueError as error:
                heard = yield await work(f"caught {error}")

    source = talk()
    got.append(await anext(source))
    got.append(await source.asend("one"))
    got.append(await source.athrow(ValueError("two")))
    await source.aclose()
    return got


@case()
async def context_variables() -> list[str]:
    seen: list[str] = []

    async def paint(label: str) -> None:
        seen.append(f"{label} begins {colour.get()}")
        token = colour.set(label)
        await work(label)
        seen.append(f"{label} has {colour.get()}")
        colour.reset(token)

    colour.set("main")
    await asyncio.gather(paint("a"), paint("b"))
    seen.append(colour.get())
    return seen


@case()
async def cancelled_by_hand() -> list[Any]:
    log: list[str] = []

    async def stubborn(label: str) -> str:
        try:
            return await two(label)
        except asyncio.CancelledError:
            log.append(f"{label} told")
            return await work(f"{label} instead")

    branches = [asyncio.create_task(stubborn(label)) for label in "ab"]
    log.append(await work("main"))
    branches[0].cancel("because")
    return [await asyncio.gather(*branches), log]


@case()
async def swallows_its_own_cancellation() -> list[str]:
    log: list[str] = []
    for label in "ab":
        try:
            log.append(await work(label))
        except asyncio.CancelledError:
            log.append("told")
    return log


@case(plain="never")
async def cancel_waits_for_the_outcome() -> list[Any]:
    async def paying(label: str) -> str:
        try:
            return await charge(label)
        finally:
            await undo(label)

    branches = [asyncio.create_task(paying(label)) for label in "ab"]
    first = await work("main")
    branches[0].cancel()
    branches[1].cancel()
    return [first, [repr(value) for value in await asyncio.gather(*branches, return_exceptions=True)]]


@case(plain="never", timers="any")
async def timeout_waits_for_the_outcome() -> list[Any]:
    log: list[Any] = []
    try:
        async with asyncio.timeout(5):
            log.append(await charge("a"))
            log.append(await work("b"))
    except TimeoutError:
        log.append(await undo("late"))
    try:
        async with asyncio.timeout(5):
            log.append(await fail_charge("c"))
            log.append("never")
    except TimeoutError:
        log.append("late")
    except ValueError as error:
        log.append(str(error))
    return log


@case(plain="never", timers="any")
async def wait_for_waits_for_the_outcome() -> list[Any]:
    log: list[Any] = []
    for label in "ab":
        try:
            log.append(await asyncio.wait_for(charge(label), 5))
        except TimeoutError:
            log.append(f"{label} late")
    log.append(await work("and nobody is cancelled by it later"))
    return log


@case(plain="never")
async def group_waits_for_the_outcome() -> list[Any]:
    """A failing child cancels the body while a charge is under way: known, and no cancellation is left over."""
    log: list[Any] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail("f"))
            log.append(await charge("a"))
    except* Declined:
        log.append("declined")
    log.append(await work("after"))
    return log


@case(plain="never")
async def durable_values() -> list[Any]:
    async def draw(label: str) -> list[Any]:
        before = durable.random().random()
        await work(label)
        return [before, durable.random().random(), str(durable.uuid4()), str(durable.now())]

    found = await asyncio.gather(draw("a"), draw("b"))
    return [*found, durable.run_id(), str(durable.uuid4())]


@case()
async def spins_a_little() -> int:
    turns = 0

    async def spin() -> None:
        nonlocal turns
        while not branch.done() and turns < 9:
            turns += 1
            if turns % 3 == 0:
                await work("pause", turns)
            await asyncio.sleep(0)

    branch = asyncio.create_task(two("a"))
    await spin()
    await branch
    return turns
