"""Child runs: in gathers, groups and timeouts, started without waiting, failing, asked to end."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio

from engine import Signal, durable, workflow
from engine.errors import RunCancelledError, RunFailedError
from tests.core.cases import case, fail, undo, work
from tests.core.harness import signal

go = Signal("go", type(None))


@workflow
async def part(label: str, n: int = 0) -> str:
    return f"part {await work(label, n)}"


@workflow
async def broken(label: str) -> str:
    return await fail(label)


@workflow
async def stubborn(label: str) -> str:
    """Asked to end, it completes all the same (see the harness)."""
    return await work(label)


@workflow
async def gives_up(label: str) -> str:
    raise asyncio.CancelledError(label)


@case(plain="never")
async def child_gather() -> list[str]:
    return list(await asyncio.gather(part("a"), work("b"), part("c", 2)))


@case(plain="never", limit=60)
async def child_branches() -> list[str]:
    return list(await asyncio.gather(*(_two_parts(label) for label in "ab")))


async def _two_parts(label: str) -> str:
    return f"{await part(label, 1)}, {await part(label, 2)}"


@case(plain="never")
async def child_as_completed() -> list[str]:
    found = [await done for done in asyncio.as_completed([part(label) for label in "abc"])]
    return found


@case(plain="never")
async def child_wait_first() -> list[str]:
    branches = [asyncio.create_task(part(label), name=label) for label in "abc"]
    done, pending = await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
    for branch in pending:
        branch.cancel()
    await asyncio.wait(pending)
    return [*(b.get_name() for b in branches if b in done), *(str(b.cancelled()) for b in branches)]


@case(plain="never")
async def child_failing_in_a_group() -> list[str]:
    said: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(part("a"))
            group.create_task(broken("b"))
            group.create_task(work("c"))
    except* RunFailedError as errors:
        said += [
            f"{error.run_id} {type(error.__cause__).__name__}"
            for error in errors.exceptions
            if isinstance(error, RunFailedError)
        ]
    return said


@case(plain="never")
async def child_failure_unhandled() -> str:
    return await broken("a")


@case(timers="any", plain="never")
async def child_in_a_timeout_that_waits() -> list[str]:
    """`on_cancel="wait"`: the await ends with the child's own end."""
    said: list[str] = []
    for child in (part, stubborn):
        try:
            async with asyncio.timeout(10):
                said.append(await child("a"))
        except TimeoutError:
            said.append("late")
    return [*said, await work("after")]


@case(timers="any", plain="never")
async def child_in_a_timeout_that_abandons() -> list[str]:
    said: list[str] = []
    for label in "ab":
        try:
            async with asyncio.timeout(10):
                said.append(await part.options(on_cancel="abandon")(label))
        except TimeoutError:
            said.append("late")
    return [*said, await work("after")]


@case(timers="any", plain="never")
async def child_under_an_anyio_scope() -> list[str]:
    said: list[str] = []
    with anyio.move_on_after(5) as scope:
        said.append(await part("a"))
    async with anyio.create_task_group() as group:
        group.start_soon(part, "b")
        group.start_soon(part, "c")
    return [*said, str(scope.cancelled_caught)]


@case(mail=signal("go", "null"), plain="never")
async def child_started_without_waiting() -> list[str]:
    one = await durable.start(part("a"))
    two = await durable.start(broken("b"), id="chosen")
    await go.receive()
    said = [one.id, two.id]
    try:
        said.append(await two.result())
    except RunFailedError as error:
        said.append(type(error.__cause__).__name__)
    return [*said, await one.result(), await one.result()]


@case(plain="never")
async def child_asked_to_end() -> list[str]:
    said: list[str] = []
    for child in (part, stubborn):
        handle = await durable.start(child("a"))
        await work("meanwhile", len(said))
        await handle.cancel()
        await handle.cancel()
        try:
            said.append(await handle.result())
        except RunCancelledError as error:
            said.append(str(error))
    return said


@case(mail=signal("go", "null"), plain="never")
async def child_signalled_and_left() -> list[str]:
    """Ends while children run: each is ended, or left, as its call said."""
    handle = await durable.start(part("a"))
    await durable.start(part.options(parent_close="terminate")("b"))
    await durable.start(part.options(parent_close="abandon")("c"))
    await handle.signal(go, None)
    await go.receive()
    return ["left"]


@case(plain="never")
async def child_that_cancels_itself() -> str:
    try:
        return await gives_up("enough")
    except RunCancelledError as error:
        return f"{error} {await undo('a')}"


@case(limit=30, plain="never")
async def child_window() -> list[str]:
    """Many children, few at once."""
    window = asyncio.Semaphore(2)

    async def one(n: int) -> str:
        async with window:
            return await part("a", n)

    return list(await asyncio.gather(*(one(n) for n in range(5))))


@case(deadline=60, plain="never")
async def child_with_a_deadline() -> list[Any]:
    return list(await asyncio.gather(part.options(deadline=5)("a"), part.options(deadline=500)("b"), part("c")))
