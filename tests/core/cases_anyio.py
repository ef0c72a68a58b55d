"""anyio's task groups, scopes, streams and limiters."""

from __future__ import annotations

import math
from typing import Any

import anyio
from anyio.abc import TaskStatus

from tests.core.cases import Declined, case, charge, fail, undo, work
from tests.core.cases_gather import failing, two


@case()
async def anyio_group() -> list[str]:
    got: list[str] = []

    async def step(label: str) -> None:
        got.append(await two(label))

    async with anyio.create_task_group() as group:
        for label in "abc":
            group.start_soon(step, label)
        group.start_soon(step, "d", name="named")
    return got


@case()
async def anyio_group_of_calls() -> list[str]:
    async with anyio.create_task_group() as group:
        for label in "abc":
            group.start_soon(work, label)
    return [await work("after")]


@case()
async def anyio_group_nested() -> list[str]:
    got: list[str] = []

    async def inner(label: str) -> None:
        async with anyio.create_task_group() as group:
            for n in range(2):
                group.start_soon(leaf, label, n)

    async def leaf(label: str, n: int) -> None:
        got.append(await work(label, n))

    async with anyio.create_task_group() as group:
        group.start_soon(inner, "a")
        group.start_soon(inner, "b")
    return got


@case()
async def anyio_group_start() -> list[Any]:
    async def service(label: str, *, task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED) -> None:
        task_status.started(await work(f"start {label}"))
        await work(f"serve {label}")

    async with anyio.create_task_group() as group:
        ready = [await group.start(service, label) for label in "ab"]
        ready.append(await work("body"))
    return ready


@case()
async def anyio_group_start_fails() -> list[Any]:
    async def service(*, task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED) -> None:
        await fail("before it was ready")

    log: list[Any] = []
    async with anyio.create_task_group() as group:
        group.start_soon(two, "a")
        try:
            await group.start(service)
        except Declined as error:
            log.append(str(error))
    return log


@case(plain="sorted")
async def anyio_group_failing_child() -> list[Any]:
    log: list[str] = []

    async def careful(label: str) -> None:
        try:
            await two(label)
        except anyio.get_cancelled_exc_class():
            log.append(f"{label} told")
            with anyio.CancelScope(shield=True):
                log.append(await undo(label))
            raise

    try:
        async with anyio.create_task_group() as group:
            for label in "abc":
                group.start_soon(careful, label)
            group.start_soon(failing, "f")
    except* Declined as errors:
        log += [str(error) for error in errors.exceptions]
    return log


@case(plain="sorted")
async def anyio_level_cancellation() -> list[Any]:
    """A cancelled scope cancels every await until it is left: without spinning, without losing one."""
    log: list[str] = []

    async def stubborn(label: str) -> None:
        for n in range(3):
            try:
                log.append(await work(label, n))
            except anyio.get_cancelled_exc_class():
                log.append(f"{label} told at {n}")

    async with anyio.create_task_group() as group:
        group.start_soon(stubborn, "a")
        group.start_soon(stubborn, "b")
        log.append(await work("main"))
        group.cancel_scope.cancel()
    return [*log, await work("after")]


@case(plain="sorted")
async def anyio_cancelled_group_with_a_shielded_child() -> list[Any]:
    """While the child may work on, the cancelled scope must not spin."""
    log: list[str] = []

    async def shielded(label: str) -> None:
        with anyio.CancelScope(shield=True):
            log.append(await two(label))
        log.append(await work("not reached"))

    async with anyio.create_task_group() as group:
        group.start_soon(shielded, "a")
        group.start_soon(two, "b")
        log.append(await work("main"))
        group.cancel_scope.cancel()
    return [*log, await work("after")]


@case(timers="any")
async def anyio_move_on_after() -> list[Any]:
    log: list[Any] = []
    with anyio.move_on_after(3) as scope:
        log.append(await two("a"))
    log.append(scope.cancelled_caught)
    with anyio.move_on_after(0) as scope:
        log.append(await work("b"))
    return [*log, scope.cancelled_caught, await work("c")]


@case(timers="any")
async def anyio_fail_after() -> list[Any]:
    try:
        with anyio.fail_after(3):
            return [await two("a")]
    except TimeoutError:
        return ["late", await work("b")]


@case(timers="any", limit=60)
async def anyio_nested_deadlines() -> list[Any]:
    log: list[Any] = []
    with anyio.move_on_after(5) as outer:
        with anyio.move_on_after(2) as inner:
            log.append(await work("a"))
        log.append(await work("b"))
        outer.deadline += 10
        log.append(await work("c"))
    return [*log, inner.cancelled_caught, outer.cancelled_caught]


@case(timers="any", limit=60)
async def anyio_shield_under_a_deadline() -> list[Any]:
    log: list[Any] = []
    with anyio.move_on_after(3) as outer:
        try:
            log.append(await work("a"))
        finally:
            with anyio.CancelScope(shield=True):
                log.append(await undo("a"))
        log.append(await work("b"))
    return [*log, outer.cancelled_caught]


@case(timers="any")
async def anyio_no_deadline() -> list[Any]:
    with anyio.move_on_after(None) as scope:
        got = await work("a")
    assert scope.deadline == math.inf
    await anyio.sleep(1)
    return [got, anyio.current_effective_deadline() == math.inf]


@case(limit=60)
async def anyio_streams() -> list[Any]:
    send, receive = anyio.create_memory_object_stream[str](1)
    got: list[str] = []

    async def produce(label: str, stream: Any) -> None:
        async with stream:
            for n in range(2):
                await stream.send(await work(label, n))

    async def consume(name: str, stream: Any) -> None:
        async with stream:
            async for item in stream:
                got.append(f"{name} {await work(f'use {item}')}")

    async with anyio.create_task_group() as group, send, receive:
        for name in "xy":
            group.start_soon(consume, name, receive.clone())
        for label in "ab":
            group.start_soon(produce, label, send.clone())
    return got


@case()
async def anyio_stream_left_early() -> list[Any]:
    send, receive = anyio.create_memory_object_stream[str](0)
    got: list[str] = []

    async def produce() -> None:
        async with send:
            try:
                for n in range(5):
                    await send.send(await work("p", n))
            except anyio.BrokenResourceError:
                got.append("broken")

    async with anyio.create_task_group() as group:
        group.start_soon(produce)
        async with receive:
            got.append(await receive.receive())
    return got


@case(limit=60)
async def anyio_capacity_limiter() -> list[Any]:
    limiter = anyio.CapacityLimiter(2)
    most = 0
    order: list[str] = []

    async def limited(label: str) -> None:
        nonlocal most
        async with limiter:
            most = max(most, limiter.borrowed_tokens)
            order.append(await work(label))

    async with anyio.create_task_group() as group:
        for label in "abcd":
            group.start_soon(limited, label)
        await work("body")
        limiter.total_tokens = 3
    return [most, order]


@case()
async def anyio_event_and_lock() -> list[str]:
    event, lock = anyio.Event(), anyio.Lock()
    order: list[str] = []

    async def waits(label: str) -> None:
        await event.wait()
        async with lock:
            order.append(await work(label))

    async with anyio.create_task_group() as group:
        for label in "abc":
            group.start_soon(waits, label)
        await work("setter")
        event.set()
    return order


@case()
async def anyio_semaphore() -> list[Any]:
    semaphore = anyio.Semaphore(1)
    order: list[str] = []

    async def limited(label: str) -> None:
        async with semaphore:
            order.append(await work(label))

    async with anyio.create_task_group() as group:
        for label in "abc":
            group.start_soon(limited, label)
    return [*order, semaphore.value]


@case()
async def anyio_condition() -> list[str]:
    condition = anyio.Condition()
    items: list[str] = []
    order: list[str] = []

    async def consume(label: str) -> None:
        async with condition:
            while not items:
                await condition.wait()
            order.append(f"{label} {items.pop()}")
        await work(label)

    async def produce(label: str) -> None:
        item = await work(label)
        async with condition:
            items.append(item)
            condition.notify()

    async with anyio.create_task_group() as group:
        for name in "xy":
            group.start_soon(consume, name)
        for label in "ab":
            group.start_soon(produce, label)
    return order


@case(plain="never", timers="any")
async def anyio_scope_waits_for_the_outcome() -> list[Any]:
    log: list[Any] = []
    with anyio.move_on_after(3) as scope:
        log.append(await charge("a"))
        log.append(await work("b"))
    log.append(scope.cancelled_caught)
    with anyio.move_on_after(3) as scope:
        log.append(await charge("c"))
    log.append(await work("after"))
    return [*log, scope.cancelled_caught]


@case(plain="sorted")
async def anyio_child_scopes_are_cancelled_in_order() -> list[Any]:
    log: list[str] = []

    async def scoped(label: str) -> None:
        with anyio.CancelScope():
            try:
                await two(label)
            finally:
                log.append(label)

    async with anyio.create_task_group() as group:
        for label in "abcdefgh":
            group.start_soon(scoped, label)
        await work("main")
        group.cancel_scope.cancel()
    return log


@case()
async def anyio_scope_of_another_branch() -> list[Any]:
    scopes: list[anyio.CancelScope] = []
    log: list[str] = []

    async def scoped(label: str) -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            log.append(await two(label))
        log.append(f"{label} {scope.cancelled_caught}")

    async with anyio.create_task_group() as group:
        for label in "ab":
            group.start_soon(scoped, label)
        await work("main")
        scopes[0].cancel()
    return log
