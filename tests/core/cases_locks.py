"""Queues, events, locks, semaphores, barriers."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.core.cases import case, work


@case(limit=60)
async def queue_producers_and_consumers() -> list[Any]:
    queue: asyncio.Queue[str] = asyncio.Queue(maxsize=2)
    got: list[str] = []

    async def produce(label: str) -> None:
        for n in range(2):
            await queue.put(await work(label, n))

    async def consume(name: str) -> None:
        while True:
            item = await queue.get()
            got.append(f"{name} {await work(f'use {item}')}")
            queue.task_done()

    consumers = [asyncio.create_task(consume(name)) for name in "xy"]
    await asyncio.gather(produce("a"), produce("b"))
    await queue.join()
    for consumer in consumers:
        consumer.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    return got


@case()
async def queue_full_and_cancelled() -> list[Any]:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)

    async def put(n: int) -> None:
        await queue.put(n)

    putters = [asyncio.create_task(put(n)) for n in range(3)]
    await work("a")
    putters[1].cancel()
    await work("b")
    found = [await queue.get(), await queue.get()]
    return [found, queue.qsize(), [putter.cancelled() for putter in putters]]


@case()
async def priority_queue() -> list[Any]:
    queue: asyncio.PriorityQueue[tuple[int, str]] = asyncio.PriorityQueue()

    async def produce(priority: int, label: str) -> None:
        await queue.put((priority, await work(label, priority)))

    async with asyncio.TaskGroup() as group:
        for priority, label in enumerate("cab"):
            group.create_task(produce(-priority, label))
        first = await queue.get()
    return [list(first), [list(queue.get_nowait()) for _ in range(2)]]


@case()
async def lifo_queue() -> list[str]:
    queue: asyncio.LifoQueue[str] = asyncio.LifoQueue()

    async def produce(label: str) -> None:
        queue.put_nowait(await work(label))

    await asyncio.gather(*(produce(label) for label in "abc"))
    return [queue.get_nowait() for _ in range(3)]


@case()
async def event_wakes_all() -> list[str]:
    event = asyncio.Event()
    order: list[str] = []

    async def waits(label: str) -> None:
        await work(label)
        await event.wait()
        order.append(await work(label, 1))

    async def sets() -> None:
        await work("setter")
        event.set()

    await asyncio.gather(waits("a"), waits("b"), sets())
    return order


@case()
async def condition_notifies() -> list[str]:
    condition = asyncio.Condition()
    items: list[str] = []
    order: list[str] = []

    async def consume(label: str) -> None:
        async with condition:
            await condition.wait_for(lambda: bool(items))
            order.append(f"{label} {items.pop()}")
        order.append(await work(label))

    async def produce(label: str) -> None:
        item = await work(label)
        async with condition:
            items.append(item)
            condition.notify()

    await asyncio.gather(consume("x"), consume("y"), produce("a"), produce("b"))
    return order


@case()
async def lock_excludes() -> list[str]:
    lock = asyncio.Lock()
    order: list[str] = []

    async def inside(label: str) -> None:
        await work(label)
        async with lock:
            order.append(f"{label} in")
            await work(label, 1)
            order.append(f"{label} out")

    await asyncio.gather(*(inside(label) for label in "abc"))
    return order


@case()
async def lock_waiter_cancelled() -> list[Any]:
    lock = asyncio.Lock()

    async def inside(label: str) -> str:
        async with lock:
            return await work(label)

    branches = [asyncio.create_task(inside(label)) for label in "abc"]
    first = await work("first")
    branches[1].cancel()
    return [first, [repr(x) for x in await asyncio.gather(*branches, return_exceptions=True)]]


@case(limit=60)
async def semaphore_limits() -> list[Any]:
    semaphore = asyncio.Semaphore(2)
    running = most = 0

    async def limited(label: str) -> str:
        nonlocal running, most
        async with semaphore:
            running += 1
            most = max(most, running)
            try:
                return await work(label)
            finally:
                running -= 1

    found = await asyncio.gather(*(limited(label) for label in "abcde"))
    return [found, most, running]


@case()
async def bounded_semaphore() -> list[Any]:
    semaphore = asyncio.BoundedSemaphore(1)
    order: list[str] = []

    async def limited(label: str) -> None:
        async with semaphore:
            order.append(await work(label))

    await asyncio.gather(*(limited(label) for label in "abc"))
    try:
        semaphore.release()
    except ValueError as error:
        order.append(str(error))
    return order


@case()
async def barrier_in_rounds() -> list[Any]:
    barrier = asyncio.Barrier(3)
    order: list[str] = []

    async def party(label: str) -> int:
        await work(label)
        place = await barrier.wait()
        order.append(await work(label, 1))
        return place

    return [await asyncio.gather(*(party(label) for label in "abc")), order]


@case()
async def barrier_broken() -> list[Any]:
    barrier = asyncio.Barrier(3)

    async def party(label: str) -> str:
        await work(label)
        try:
            await barrier.wait()
        except asyncio.BrokenBarrierError:
            return f"{label} broken"
        return "never"

    parties = [asyncio.create_task(party(label)) for label in "ab"]
    await work("breaker")
    await barrier.abort()
    return list(await asyncio.gather(*parties))
