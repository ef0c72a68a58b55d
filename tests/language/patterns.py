"""The workflow control-flow patterns (Russell, ter Hofstede, van der Aalst, Mulyar 2006), each as one small workflow.

docs/patterns.md shows them as they stand here; test_patterns.py plays them, and crashes them. Where it matters which of
two branches ends first, the other is `late` or `endless`.
"""

from __future__ import annotations

import asyncio
from itertools import islice

from engine import Request, Signal, State, durable, task, workflow
from tests.runtime.plays import stage

go = Signal("go", str)
stop = Signal("stop", str)
change_seat = Request("change_seat", str, str)
phase = State("phase", str, initial="")


@task
async def work(what: str) -> str:
    stage.effect()
    await asyncio.sleep(0)
    return what


@task
async def endless(what: str) -> str:
    stage.effect()
    await asyncio.Event().wait()
    return what


@task
async def count(number: int) -> int:
    stage.effect()
    return number


async def late(what: str) -> str:
    """A branch that takes its time."""
    await asyncio.sleep(1e6)
    return await work(what)


# -- basic control flow


@workflow
async def sequence() -> list[str]:  # WCP-1
    packed = await work("pack")
    return [packed, await work("send")]


@workflow
async def parallel_split() -> str:  # WCP-2
    async with asyncio.TaskGroup() as group:
        group.create_task(work("bill"))
        group.create_task(work("pack"))
    return "both"


@workflow
async def synchronization() -> str:  # WCP-3
    bill, parcel = await asyncio.gather(work("bill"), work("parcel"))
    return await work(f"send {parcel} with {bill}")


@workflow
async def exclusive_choice() -> str:  # WCP-4
    weight = await count(12)
    return await (work("by air") if weight < 10 else work("by sea"))


@workflow
async def simple_merge(express: bool) -> str:  # WCP-5
    if express:
        way = await work("by air")
    else:
        way = await work("by sea")
    return await work(f"deliver {way}")


# -- advanced branching and synchronization


@workflow
async def multi_choice() -> list[str]:  # WCP-6
    severity = await count(2)
    wanted = [who for who, least in {"police": 1, "fire": 2, "army": 9}.items() if severity >= least]
    return await asyncio.gather(*(work(who) for who in wanted))


@workflow
async def structured_synchronizing_merge(wanted: list[str]) -> str:  # WCP-7
    answers = await asyncio.gather(*(work(who) for who in wanted))  # as many as were chosen
    return await work(f"report of {', '.join(answers)}")


@workflow
async def multi_merge() -> list[str]:  # WCP-8
    async def side(name: str) -> str:
        await work(f"sand {name}")
        return await work(f"paint {name}")  # what follows, once for each branch that comes

    return await asyncio.gather(side("left"), side("right"))


@workflow
async def structured_discriminator() -> list[str]:  # WCP-9
    branches = [asyncio.create_task(work("pulse")), asyncio.create_task(late("breath"))]
    _, others = await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
    triage = await work(f"triage, {len(others)} to come")  # once, behind the first
    await asyncio.wait(branches)  # the others end, and nothing comes of it
    return [triage, *(branch.result() for branch in branches)]


@workflow
async def cancelling_discriminator() -> str:  # WCP-29
    branches = [asyncio.create_task(work("by phone")), asyncio.create_task(late("by post"))]
    (first, *_), others = await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
    for branch in others:
        branch.cancel()
    answered = await work(f"answered {first.result()}")
    return f"{answered}, {sum(branch.cancelled() for branch in others)} cancelled"


@workflow
async def blocking_discriminator() -> list[str]:  # WCP-28
    lines: list[asyncio.Queue[str]] = [asyncio.Queue() for _ in range(2)]

    async def deliver(line: asyncio.Queue[str], name: str) -> None:
        for number in (1, 2):
            line.put_nowait(await (work if name == "a" else late)(f"{name} {number}"))

    said = []
    async with asyncio.TaskGroup() as group:
        for name, line in zip(("a", "b"), lines, strict=True):
            group.create_task(deliver(line, name))
        for number in (1, 2):
            arrivals = [asyncio.create_task(line.get()) for line in lines]
            await asyncio.wait(arrivals, return_when=asyncio.FIRST_COMPLETED)
            said.append(await work(f"assess {number}"))
            await asyncio.wait(arrivals)  # nothing of the next round comes through before
            said.append(arrivals[1].result())
    return said


@workflow
async def structured_partial_join() -> list[str]:  # WCP-30
    branches = [asyncio.create_task(each) for each in (work("cook"), work("waiter"), late("manager"))]
    for ended in islice(asyncio.as_completed(branches), 2):
        await ended
    opened = await work(f"open, {sum(not branch.done() for branch in branches)} to come")  # behind two of three
    await asyncio.wait(branches)
    return [opened, *(branch.result() for branch in branches)]


@workflow
async def blocking_partial_join() -> list[str]:  # WCP-31
    lines: list[asyncio.Queue[str]] = [asyncio.Queue() for _ in range(3)]
    for line in lines:
        line.put_nowait("first")
        line.put_nowait("second")
    said = []
    for number in (1, 2):
        arrivals = [asyncio.create_task(line.get()) for line in lines]
        for arrived in islice(asyncio.as_completed(arrivals), 2):
            await arrived
        said.append(await work(f"assess {number}"))
        await asyncio.wait(arrivals)  # the third of this round, before the next
    return said


@workflow
async def cancelling_partial_join() -> str:  # WCP-32
    branches = [asyncio.create_task(each) for each in (work("one"), work("two"), late("three"))]
    for ended in islice(asyncio.as_completed(branches), 2):
        await ended
    for branch in branches:
        branch.cancel()  # does nothing to those that have ended
    said = await work("two are enough")
    return f"{said}, {sum(branch.cancelled() for branch in branches)} cancelled"


@workflow
async def generalized_and_join() -> list[str]:  # WCP-33
    wheels: asyncio.Queue[str] = asyncio.Queue()
    frames: asyncio.Queue[str] = asyncio.Queue()

    async def make(parts: asyncio.Queue[str], name: str) -> None:
        for number in (1, 2):
            parts.put_nowait(await work(f"{name} {number}"))  # kept, however far ahead of the others

    async with asyncio.TaskGroup() as group:
        group.create_task(make(wheels, "wheel"))
        group.create_task(make(frames, "frame"))
        return [await work(f"{await wheels.get()} and {await frames.get()}") for _ in range(2)]


@workflow
async def local_synchronizing_merge(injured: bool) -> str:  # WCP-37
    begun = [asyncio.create_task(work("claim"))]
    if injured:
        begun.append(asyncio.create_task(work("doctor")))
    await asyncio.wait(begun)  # whoever begins a branch notes it
    return await work(f"settle {len(begun)}")


@workflow
async def general_synchronizing_merge() -> str:  # WCP-38, partly
    async with asyncio.TaskGroup() as group:  # left when nothing that was begun in it is left, loops included

        async def inspect(part: str, again: int) -> None:
            await work(f"inspect {part} {again}")
            if again:
                group.create_task(inspect(part, again - 1))

        group.create_task(inspect("brakes", 2))
        group.create_task(inspect("lights", 0))
    return await work("hand over")


@workflow
async def thread_merge() -> str:  # WCP-41
    pages: asyncio.Queue[str] = asyncio.Queue()
    for number in range(3):
        pages.put_nowait(await work(f"page {number}"))
    bound = [await pages.get() for _ in range(3)]  # three come in, one goes on
    return await work(f"bind {len(bound)}")


@workflow
async def thread_split() -> list[str]:  # WCP-42
    await work("reserve")
    async with asyncio.TaskGroup() as group:  # one comes in, three go on
        seats = [group.create_task(work(f"seat {number}")) for number in range(3)]
    return [seat.result() for seat in seats]


# -- multiple instances


@workflow
async def inspection(car: int) -> int:
    return await count(car)


@workflow
async def instances_without_synchronization() -> str:  # WCP-12
    for car in range(3):
        await durable.start(inspection.options(parent_close="abandon")(car))
    return "inspections go on without us"


@workflow
async def instances_known_at_design_time() -> list[str]:  # WCP-13
    return await asyncio.gather(*(work(f"signature {director}") for director in range(3)))


@workflow
async def instances_known_at_run_time() -> list[str]:  # WCP-14
    witnesses = await count(4)
    return await asyncio.gather(*(work(f"witness {number}") for number in range(witnesses)))


@workflow
async def instances_not_known_before() -> list[str]:  # WCP-15
    async with asyncio.TaskGroup() as group:
        visits = []
        while (place := await go.receive()) != "home":
            visits.append(group.create_task(work(place)))
    return [visit.result() for visit in visits]


@workflow
async def static_partial_join() -> list[str]:  # WCP-34
    reviews = [asyncio.create_task(review(number)) for number in range(5)]
    for ended in islice(asyncio.as_completed(reviews), 3):
        await ended
    said = await work(f"three of five are in, {sum(not each.done() for each in reviews)} to come")
    return [said, *await asyncio.gather(*reviews)]  # the others end, and nothing waits for them but the run


async def review(number: int) -> str:
    return await (work(f"review {number}") if number < 3 else late(f"review {number}"))


@workflow
async def cancelling_partial_join_of_instances() -> str:  # WCP-35
    samples = [asyncio.create_task(review(number)) for number in range(5)]
    for ended in islice(asyncio.as_completed(samples), 3):
        await ended
    for sample in samples:
        sample.cancel()
    said = await work("three samples are enough")
    return f"{said}, {sum(sample.cancelled() for sample in samples)} cancelled"


@workflow
async def dynamic_partial_join() -> str:  # WCP-36
    asking = [asyncio.create_task(count(number)) for number in range(2)]
    votes = 0
    while votes < 10:  # looked at whenever one ends
        done, others = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        votes += sum(vote.result() for vote in done)
        asking = [*others, asyncio.create_task(count(4))]  # and more are begun meanwhile
    return await work("enough votes")


@workflow
async def cancel_instances() -> str:  # WCP-26
    searches = [asyncio.create_task(endless(f"shelf {number}")) for number in range(3)]
    await stop.receive()
    for search in searches:
        search.cancel()
    said = await work("found elsewhere")
    return f"{said}, {sum(search.cancelled() for search in searches)} cancelled"


@workflow
async def complete_instances() -> list[str]:  # WCP-27
    surveys = [asyncio.create_task(each) for each in (work("one"), work("two"), endless("three"))]
    await stop.receive()  # "that will do"
    answers = [survey.result() for survey in surveys if survey.done()]
    for survey in surveys:
        survey.cancel()
    return [await work("evaluate"), *answers]


# -- what depends on the state


@workflow
async def deferred_choice() -> str:  # WCP-16
    answer, reminder = asyncio.create_task(go.receive()), asyncio.create_task(asyncio.sleep(86_400 * 365))
    (chosen, *_), others = await asyncio.wait((answer, reminder), return_when=asyncio.FIRST_COMPLETED)
    for other in others:
        other.cancel()  # whatever comes first withdraws the rest; a signal that comes later waits, and is not lost
    return await work("thank" if chosen is answer else "remind")


@workflow
async def interleaved_parallel_routing() -> list[str]:  # WCP-17
    one_at_a_time = asyncio.Lock()
    order: list[str] = []

    async def test(kind: str) -> None:
        async with one_at_a_time:
            order.append(f"{kind} begins")
            await work(kind)
            order.append(f"{kind} ends")

    async def blood() -> None:
        await test("draw")
        await test("analyse")  # behind "draw"; "x-ray" may come before, between or after

    await asyncio.gather(blood(), test("x-ray"))
    return order


@workflow
async def milestone() -> str:  # WCP-18
    seats = []

    async def take(seat: str) -> str:
        seats.append(await work(seat))
        return seat

    async with change_seat.serve(take):  # possible only while this holds
        await go.receive()  # boarding
    return f"boarded at {seats[-1]}"


@workflow
async def critical_section() -> list[str]:  # WCP-39
    dock = asyncio.Lock()
    log: list[str] = []

    async def unload(ship: str) -> None:
        await work(f"{ship} arrives")
        async with dock:
            log.append(await work(f"moor {ship}"))
            log.append(await work(f"unload {ship}"))

    await asyncio.gather(unload("a"), unload("b"))
    return log


@workflow
async def interleaved_routing() -> list[str]:  # WCP-40
    one_at_a_time = asyncio.Lock()
    log: list[str] = []

    async def check(what: str) -> None:
        async with one_at_a_time:  # in any order, never two at once
            log.append(await work(f"open {what}"))
            log.append(await work(f"close {what}"))

    await asyncio.gather(check("hood"), check("boot"))
    return log


# -- cancellation, iteration, triggers, termination


@workflow
async def cancel_task() -> str:  # WCP-19
    assessing = asyncio.create_task(endless("assess"))
    await stop.receive()
    assessing.cancel()
    return f"{await work('withdrawn')}, {assessing.cancelled()}"


@workflow
async def cancel_case() -> None:  # WCP-20
    try:
        await asyncio.gather(endless("plan"), asyncio.sleep(1e9))
    finally:
        await work("tidy up")


@workflow
async def cancel_region() -> list[str]:  # WCP-25
    async def region() -> None:
        await work("enter")
        await asyncio.gather(endless("dig"), endless("drain"))

    inside, outside = asyncio.create_task(region()), asyncio.create_task(late("report"))
    await stop.receive()
    inside.cancel()  # all that is going on in it, wherever it is
    return [await outside, str(inside.cancelled())]


@workflow
async def arbitrary_cycles() -> list[str]:  # WCP-10, partly
    step, said = "draft", []
    while step != "print":
        said.append(await work(step))
        match step, len(said):
            case "draft" | "research", _:
                step = "review"
            case "review", 2:
                step = "research"  # into the middle of the cycle
            case _:
                step = "print"
    return said


@workflow
async def structured_loop() -> int:  # WCP-21
    stock = 0
    while stock < 10:
        stock += await count(4)
    return stock


@workflow
async def recursion(depth: int) -> int:  # WCP-22
    return 1 + await recursion(depth - 1) if depth else await count(1)


@workflow
async def transient_trigger() -> str:  # WCP-23
    await work("warm up")
    while go.waiting():
        await go.receive()  # what came before we listened counts for nothing
    await phase.publish("listening")
    return await work(await go.receive())


@workflow
async def persistent_trigger() -> str:  # WCP-24
    await work("warm up")
    return await work(await go.receive())  # kept, however early it came


@workflow
async def implicit_termination() -> list[str]:  # WCP-11
    doors = {"hall": ["kitchen", "stairs"], "stairs": ["attic"]}
    seen: list[str] = []
    async with asyncio.TaskGroup() as group:  # ends when nothing is left to do

        async def visit(room: str) -> None:
            seen.append(await work(room))
            for door in doors.get(room, []):
                group.create_task(visit(door))

        group.create_task(visit("hall"))
    return sorted(seen)


@workflow
async def explicit_termination() -> str:  # WCP-43
    searching = [asyncio.create_task(endless(f"shelf {number}")) for number in range(2)]
    if await count(1):
        return f"void, {len(searching)} searches are cancelled"  # the run ends here, whatever goes on
    return str(await asyncio.gather(*searching))
