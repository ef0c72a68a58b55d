"""`continue_as_new`: from wherever it can be said, with what is carried on."""

from __future__ import annotations

import asyncio

from engine import Request, Signal, durable
from engine.errors import HoldfastError
from tests.core.cases import case, undo, work
from tests.core.cases_children import part
from tests.core.harness import request, signal

item = Signal("item", int)
halt = Signal("halt", type(None))
ask = Request("ask", int, int)


@case(0, [], plain="never")
async def epochs_of_tasks(n: int, seen: list[str]) -> list[str]:
    """Ids of tasks repeat in every epoch, randomness does not."""
    seen = [*seen, await work("a", n), str(durable.uuid4()), str(durable.turns())]
    if n == 2:
        return seen
    await durable.continue_as_new(epochs_of_tasks(n + 1, seen))


@case(0, mail=signal("item", "1", "2", "3", "4", "5"), limit=60, plain="never")
async def epochs_lose_no_signal(total: int) -> int:
    """One is taken in each epoch; the others are carried on, in order."""
    await work("busy", total)
    total = total * 10 + await item.receive()
    if total >= 12_345:
        return total
    await durable.continue_as_new(epochs_lose_no_signal(total))


@case(0, mail=signal("item", "1", "2", "3") + signal("halt", "null"), limit=60, plain="never")
async def epochs_in_a_group(total: int) -> int:
    async with asyncio.TaskGroup() as group:
        left = group.create_task(work("left behind", total))
        receiving = group.create_task(item.receive())
        done, _ = await asyncio.wait([left, receiving], return_when=asyncio.FIRST_COMPLETED)
        if receiving not in done:
            total = total * 10 + await receiving
        else:
            total = total * 10 + receiving.result()
        if total < 123:
            await durable.continue_as_new(epochs_in_a_group(total))
    return total


@case(0, mail=signal("item", "1", "2"), timers="any", plain="never")
async def epochs_in_a_timeout(n: int) -> list[str]:
    try:
        async with asyncio.timeout(30):
            value = await item.receive()
            await durable.continue_as_new(epochs_in_a_timeout(n + value))
    except TimeoutError:
        if n >= 3:
            return [str(n)]
    if n > 30:
        return ["many rounds"]
    await durable.continue_as_new(epochs_in_a_timeout(n + 10))


@case(0, plain="never")
async def epochs_clean_up(n: int) -> list[str]:
    """Durable calls in the `finally` blocks on the way out."""
    if n == 2:
        return [await work("end")]
    try:
        await work("a", n)
        await durable.continue_as_new(epochs_clean_up(n + 1))
    finally:
        await undo(f"round {n}")
        await asyncio.gather(undo("x"), undo("y"))


@case(0, mail=request("ask", "1", "2", "3") + signal("halt", "null", "null"), limit=60, plain="never")
async def epochs_while_serving(n: int) -> int:
    """Requests that were accepted and not answered are the next epoch's."""

    async def answer(value: int) -> int:
        await work("answer", value)
        return value * 2

    async with ask.serve(answer):
        await halt.receive()
        if n == 0:
            await durable.continue_as_new(epochs_while_serving(1))
    return n


@case(0, mail=request("ask", "1", "2"), plain="never")
async def epochs_with_a_request_in_hand(n: int) -> int:
    received = await ask.receive()
    if n == 0:
        await work("look", received.value)
        await durable.continue_as_new(epochs_with_a_request_in_hand(1))
    received.answer(received.value)
    return received.value


@case(0, plain="never")
async def epochs_of_children(n: int) -> list[str]:
    left = await durable.start(part("left", n))
    found = await part("awaited", n)
    if n == 1:
        return [left.id, found, await left.result()]
    await durable.continue_as_new(epochs_of_children(n + 1))


@case(0, mail=signal("item", "1", "2"), plain="never")
async def epochs_shielded(n: int) -> int:
    """A cancellation that a shield held back is not lost on the way."""
    async with durable.shielded():
        value = await item.receive()
        await work("keep", value)
        if n == 0:
            await durable.continue_as_new(epochs_shielded(n + value))
    await work("after", n)
    return n + value


@case(0, deadline=100, mail=signal("item", "1", "2", "3"), timers="any", plain="never")
async def epochs_within_one_deadline(n: int) -> int:
    await asyncio.sleep(25)
    n = n * 10 + await item.receive()
    if n >= 123:
        return n
    await durable.continue_as_new(epochs_within_one_deadline(n))


@case(0, mail=signal("item", "1", "2", "3", "4"), limit=60, plain="never")
async def epochs_that_drain(total: int) -> int:
    """What was carried on is there before the code begins: who looks how many wait is not told none."""
    if total == 0:
        total = await item.receive()
        await asyncio.gather(work("a"), work("b"))
        await durable.continue_as_new(epochs_that_drain(total))
    while item.waiting():
        total = total * 10 + await item.receive()
    return total


@case(0, plain="never")
async def epochs_that_do_not_fit(n: int) -> None:
    await work("a")
    await durable.continue_as_new(epochs_that_do_not_fit("three"))  # type: ignore[arg-type]


@case(0, plain="never")
async def epochs_from_a_gather(n: int) -> list[str]:
    if n == 1:
        return [await work("end")]

    async def again() -> str:
        """It cannot be said here, but be asked for."""
        await work("a")
        try:
            await durable.continue_as_new(epochs_from_a_gather(1))
        except HoldfastError as error:
            return str(error)

    said, _ = await asyncio.gather(again(), work("b"))
    if "main branch" in said:
        await durable.continue_as_new(epochs_from_a_gather(1))
    return [said]
