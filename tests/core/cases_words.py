"""Signals, requests, sends, states and feeds, deadlines, shielded sections. No oracle but for the crash: plain asyncio
has no such words (`test_random` holds signals against plain queues)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import anyio
from msgspec import Struct

from engine import Feed, Query, Request, Signal, State, durable
from engine.errors import RunEnded, RunNotFound
from tests.core.cases import case, fail, undo, work
from tests.core.harness import request, signal

word = Signal("word", str)
number = Signal("number", int)
stop = Signal("stop", type(None))
double = Request("double", int, int)
greet = Request("greet", None, str)
phase = State("phase", str, initial="new")
lines = Feed("lines", str)
progress = Query("progress", None, int)


class Order(Struct):
    """A value with fields of its own."""

    item: str
    count: int = 1


orders = Signal("orders", Order)


@case(mail=signal("word", '"a"', '"b"', '"c"'), plain="never")
async def signal_in_order() -> list[str]:
    return [await word.receive() for _ in range(3)]


@case(mail=signal("word", '"a"', '"b"') + signal("number", "1", "2"), plain="never")
async def signal_gather_of_two_names() -> list[Any]:
    words, numbers = await asyncio.gather(_two(word), _two(number))
    return [*words, *numbers]


async def _two(of: Signal[Any]) -> list[Any]:
    return [await of.receive(), await of.receive()]


@case(mail=signal("word", '"a"', '"b"', '"c"'), plain="never")
async def signal_gather_of_one_name() -> list[str]:
    return list(await asyncio.gather(*(word.receive() for _ in range(3))))


@case(mail=signal("word", '"a"') + signal("number", "1"), plain="never")
async def signal_wait_first() -> list[str]:
    branches = [asyncio.create_task(word.receive(), name="word"), asyncio.create_task(number.receive(), name="number")]
    done, pending = await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
    first = [branch.get_name() for branch in branches if branch in done]
    for branch in pending:
        branch.cancel()
    await asyncio.wait(pending)
    second = await (number if "word" in first else word).receive()
    return [*first, str(second), await work("end")]


@case(mail=signal("word", '"a"', '"b"'), timers="any", plain="never")
async def signal_in_timeouts() -> list[str]:
    """However often the wait is given up, nothing is lost."""
    found: list[str] = []
    while len(found) < 2:
        try:
            async with asyncio.timeout(60):
                found.append(await word.receive())
        except TimeoutError:
            await work("late", len(found))
    return found


@case(mail=signal("word", '"a"', '"b"'), timers="any", plain="never")
async def signal_wait_for() -> list[str]:
    found: list[str] = []
    for _ in range(8):
        try:
            found.append(await asyncio.wait_for(word.receive(), 60))
        except TimeoutError:
            found.append("late")
    return [*found, str(word.waiting())]


@case(mail=signal("word", '"a"', '"b"', '"c"'), plain="never")
async def signal_waits_for_its_receiver() -> list[Any]:
    """Those that come early wait, and are counted."""
    await asyncio.gather(work("a"), work("b"))
    early = word.waiting()
    rest = [await word.receive() for _ in range(3)]
    return [early, *rest, word.waiting()]


@case(mail=signal("word", '"a"', '"b"') + signal("stop", "null"), plain="never")
async def signal_async_for_until_stopped() -> list[str]:
    found: list[str] = []

    async def collect() -> None:
        async for value in word:
            found.append(await work(value))

    collector = asyncio.create_task(collect())
    await stop.receive()
    collector.cancel()
    await asyncio.wait([collector])
    return [*found, str(word.waiting())]


@case(mail=signal("word", '"a"', '"b"', '"c"'), plain="never")
async def signal_cancelled_getter_passes_it_on() -> list[str]:
    one, other = asyncio.create_task(word.receive()), asyncio.create_task(word.receive())
    await work("x")
    one.cancel()
    await asyncio.wait([one])
    found = [] if one.cancelled() else [one.result()]
    found.append(await other)
    while len(found) < 3:
        found.append(await word.receive())
    return sorted(found)


@case(mail=signal("orders", '{"item":"tea"}', '{"item":"cup","count":3}'), plain="never")
async def signal_of_structs() -> list[str]:
    async with asyncio.TaskGroup() as group:
        branches = [group.create_task(_order()) for _ in range(2)]
    return [branch.result() for branch in branches]


async def _order() -> str:
    order = await orders.receive()
    return await work(order.item, order.count)


@case(mail=signal("word", '"a"'), plain="never")
async def signal_under_an_anyio_scope() -> list[str]:
    found: list[str] = []
    for _ in range(4):
        with anyio.move_on_after(5):
            found.append(await word.receive())
    async with anyio.create_task_group() as group:
        group.start_soon(work, "b")
        found.append(str(word.waiting()))
    return found


@case(mail=signal("number", "30", "-1"), timers="any", plain="never")
async def updatable_timer_by_reschedule() -> list[str]:
    """A deadline that signals move: `timeout.reschedule`."""
    said: list[str] = []
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(10) as limit:
            async for seconds in number:
                if seconds < 0:
                    limit.reschedule(None)
                    break
                limit.reschedule(loop.time() + seconds)
                said.append(f"moved to {seconds}")
    except TimeoutError:
        said.append("rang")
    return said


@case(mail=signal("number", "30", "5"), timers="any", plain="never")
async def updatable_timer_by_an_event() -> list[str]:
    """The same with an `Event` and `wait_for`."""
    moved, seconds, said = asyncio.Event(), [10.0], ["set"]

    async def listen() -> None:
        async for value in number:
            seconds[0] = value
            moved.set()

    listener = asyncio.create_task(listen())
    while True:
        moved.clear()
        try:
            await asyncio.wait_for(moved.wait(), seconds[0])
            said.append(f"moved to {seconds[0]}")
        except TimeoutError:
            break
    listener.cancel()
    return [*said, "rang"]


@case(timers="any", plain="never")
async def sleeps_until() -> list[str]:
    await durable.sleep_until(datetime(2025, 1, 1, tzinfo=UTC))  # long past
    await asyncio.gather(durable.sleep_until(datetime(2026, 2, 1, tzinfo=UTC)), work("a"))
    await durable.sleep_until(datetime(2027, 1, 1, tzinfo=UTC))
    return [str(durable.now() >= datetime(2027, 1, 1, tzinfo=UTC)), str(durable.turns())]


# -- requests ---------------------------------------------------------------------------------------------------------


async def _doubled(value: int) -> int:
    if value < 0:
        raise ValueError("negative")
    return int((await work("double", 2 * value)).partition(":")[2])


def _small(value: int) -> None:
    if value > 100:
        raise ValueError("too much")


@case(mail=request("double", "1", "2", "101", "-1") + signal("stop", "null"), plain="never")
async def request_served_in_branches() -> list[str]:
    async with double.serve(_doubled, validator=_small):
        await work("beside")
        await stop.receive()
    return ["served"]


@case(mail=request("double", "4", "5"), plain="never")
async def request_received_one_by_one() -> list[str]:
    first = await double.receive()
    answer = await work("double", first.value)
    first.answer(first.value * 2)
    second = await double.receive()
    second.reject("not today")
    return [answer, str(second.value)]


@case(mail=request("greet", "null", "null") + signal("word", '"a"'), plain="never")
async def request_by_a_plain_function() -> list[str]:
    said: list[str] = []

    def answer(_nothing: None) -> str:
        said.append("greeted")
        return f"hello {len(said)}"

    async with greet.serve(answer):
        said.append(await word.receive())
    return said


@case(mail=request("double", "1", "2") + signal("stop", "null"), plain="never")
async def request_left_by_an_exception() -> list[str]:
    try:
        async with double.serve(_doubled):
            await stop.receive()
            await fail("while it served")
    except Exception as error:
        return [type(error).__name__]
    return []


@case(mail=request("double", "1", "2", "3"), timers="any", plain="never")
async def request_race_with_time() -> list[str]:
    served: list[str] = []
    try:
        async with asyncio.timeout(30), double.serve(_doubled):
            while len(served) < 2:
                served.append(await work("round", len(served)))
            await asyncio.sleep(100)
    except TimeoutError:
        served.append("late")
    return served


# -- what others see, and are sent ------------------------------------------------------------------------------------


@case(plain="never")
async def state_and_feed() -> list[str]:
    progress.provide(lambda: durable.turns())
    await phase.publish("loading")
    found = await asyncio.gather(_says("a"), _says("b"))
    await phase.publish("done")
    await phase.publish("really done")
    return list(found)


async def _says(label: str) -> str:
    for n in range(2):
        await lines.publish(await work(label, n))
    return label


@case(plain="never")
async def send_in_branches() -> list[str]:
    async with asyncio.TaskGroup() as group:
        for name in ("one", "two"):
            group.create_task(durable.run(name).signal(word, name))
    await durable.run("one").cancel("enough")
    await durable.run("two").terminate("enough")
    return [await work("sent")]


@case(plain="never")
async def send_refused() -> list[str]:
    said: list[str] = []
    for name, error in (("missing-1", RunNotFound), ("ended-1", RunEnded)):
        try:
            await durable.run(name).signal(number, 1)
        except error as refused:
            said.append(type(refused).__name__)
    found = await asyncio.gather(
        durable.run("ended-2").signal(number, 2), durable.run("there").signal(number, 3), return_exceptions=True
    )
    return [*said, *(type(each).__name__ for each in found)]


@case(timers="any", plain="never")
async def send_given_up() -> list[str]:
    """Who stops waiting for the delivery has sent it all the same."""
    try:
        async with asyncio.timeout(1):
            await durable.run("slow").signal(word, "hello")
    except TimeoutError:
        return [await work("gave up")]
    return ["delivered"]


# -- deadlines, shields -----------------------------------------------------------------------------------------------


@case(deadline=60, timers="any", plain="never")
async def deadline_of_the_run() -> list[str]:
    assert durable.deadline() is not None
    try:
        for n in range(3):
            await work("a", n)
            await asyncio.sleep(30)
    finally:
        await undo("too late or not")
    return ["in time"]


@case(deadline=60, mail=signal("word", '"a"'), timers="any", plain="never")
async def deadline_caught() -> str:
    try:
        return await word.receive()
    except asyncio.CancelledError:
        return "swallowed"


@case(timers="any", plain="never")
async def shielded_sections() -> list[str]:
    said: list[str] = []
    try:
        async with durable.shielded():
            said.append(await work("in", 1))
            async with durable.shielded():
                said.append(await work("in", 2))
            await asyncio.sleep(5)
            said.append(await work("in", 3))
        said.append(await work("out", 1))
    finally:
        async with durable.shielded():
            said.append(await undo("always"))
    return said


@case(mail=signal("word", '"a"'), plain="never")
async def shielded_saga() -> list[str]:
    async with AsyncExitStack() as stack:
        await work("book")
        stack.push_async_callback(_undo_in_peace)
        await word.receive()
    return ["done"]


async def _undo_in_peace() -> None:
    async with durable.shielded():
        await asyncio.gather(undo("a"), undo("b"))
