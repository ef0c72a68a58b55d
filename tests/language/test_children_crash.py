"""Trees of runs, crashed before and after every call of the store: the same end, and no child twice."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from engine import Engine, Signal, durable, workflow
from engine.errors import RunCancelledError, RunEnded, RunFailedError, RunTerminatedError
from tests.language.hands import causes
from tests.runtime.faulty import Fault, at_call
from tests.runtime.invariants import check_store
from tests.runtime.plays import Play, add, awaiting, cancelling, flaky, never, refuse, stage, undo
from tests.runtime.slices import numbers
from tests.runtime.test_crash_everywhere import CALLS_MAX, _empty_stage, crash_and_go_on, perform, undisturbed

__all__ = ["_empty_stage"]

number = Signal("number", int)


@workflow
async def leaf(n: int) -> int:
    return await add(n)


@workflow
async def branching(n: int) -> int:
    return sum(await asyncio.gather(*(leaf(index) for index in range(n)))) + await leaf(100)


@workflow
async def family() -> int:
    """Three generations, side by side and one after the other."""
    handle = await durable.start(branching(2), id="named")
    first = await branching(1)
    return first + await handle.result()


@workflow
async def broken() -> None:
    await refuse("below")


@workflow
async def mending() -> str:
    try:
        await broken()
    except RunFailedError as error:
        return f"{error.__cause__!r}, {await undo('it')}"
    return "whole"


@workflow
async def failing_tree() -> None:
    await asyncio.gather(leaf(1), broken(), waiting())


@workflow
async def waiting() -> None:
    try:
        await never()
    finally:
        await undo("waiting")


@workflow
async def impatient() -> str:
    try:
        async with asyncio.timeout(20):
            await waiting()
    except TimeoutError:
        return await flaky("late", 1)
    return "in time"


@workflow
async def cancelled_tree() -> None:
    try:
        await asyncio.gather(waiting(), asyncio.sleep(1e9))
    finally:
        await leaf(1)


@workflow
async def receiving(n: int) -> list[int]:
    return [await number.receive() for _ in range(n)]


@workflow
async def talking() -> list[Any]:
    """Tells its child something, itself something, and one that has ended something in vain."""
    handle = await durable.start(receiving(2))
    await handle.signal(number, 1)
    await durable.run(durable.run_id()).signal(number, 5)
    await add(1)
    await handle.signal(number, 2)
    said: list[Any] = [await handle.result(), await number.receive()]
    try:
        await handle.signal(number, 3)
    except RunEnded:
        said.append("ended")
    return said


@workflow
async def ending_others() -> list[str]:
    said = []
    for how in ("cancel", "terminate"):
        handle = await durable.start(waiting.options(id=how)())
        await asyncio.sleep(5)
        await getattr(handle, how)()
        try:
            await handle.result()
        except (RunCancelledError, RunTerminatedError) as error:
            said.append(type(error).__name__)
    return said


@workflow
async def saga() -> str:
    try:
        async with AsyncExitStack() as stack:
            for label in ("flight", "hotel", "car"):
                await leaf(len(label))
                stack.push_async_callback(_undo, label)
            await broken()
    except RunFailedError:
        return "undone"
    return "booked"


async def _undo(label: str) -> None:
    await undo(label)
    await leaf(len(label))


@workflow
async def shielding() -> str:
    try:
        async with durable.shielded():
            await asyncio.sleep(5)
            await add(1)
            await leaf(2)
        await asyncio.sleep(1e9)
    finally:
        await undo("everything")
    return "never"


@workflow
async def hurried() -> str:
    try:
        await asyncio.gather(leaf(1), waiting())
    finally:
        await undo("in a hurry")
    return "never"


def by_deadline() -> Play:
    async def act(engine: Engine) -> str:
        run = await engine.start(hurried(), id="play", deadline=30)
        try:
            return repr(await run.result())
        except RunFailedError as error:
            # The child has the same deadline: whose failure is seen first is a matter of who is faster.
            return f"late: {'RunDeadlineExceeded' in error.type + str(error.__cause__) + str(causes(error))}"

    return Play(hurried, act, (leaf, waiting))


def pausing() -> Play:
    async def act(engine: Engine) -> str:
        run = await engine.start(family(), id="play")
        await run.pause(reason="look")
        await run.unpause()
        return repr(await run.result())

    return Play(family, act, (branching, leaf))


PLAYS = [
    awaiting(family, others=(branching, leaf)),
    awaiting(mending, others=(broken,)),
    awaiting(failing_tree, others=(leaf, broken, waiting)),
    awaiting(impatient, others=(waiting,)),
    awaiting(talking, others=(receiving,)),
    awaiting(ending_others, others=(waiting,)),
    awaiting(saga, others=(leaf, broken)),
    cancelling(cancelled_tree, others=(waiting, leaf)),
    cancelling(shielding, others=(leaf,)),
    by_deadline(),
    pausing(),
]
IDS = [f"{play.name}-{index}" for index, play in enumerate(PLAYS)]


@pytest.mark.parametrize("fault", ["die before", "die after", "lose reply", "refuse"])
@pytest.mark.parametrize("play", PLAYS, ids=IDS)
async def test_a_crash_at_every_call_changes_nothing(play: Play, fault: Fault, worlds) -> None:
    expected, calls, _ = await undisturbed(worlds(), play)
    for number_ in numbers(CALLS_MAX, offset=len(fault) + PLAYS.index(play)):
        if not await crash_and_go_on(worlds(), play, number_, fault, expected=expected):
            break
    else:
        pytest.fail(f"{play.name} makes more than {CALLS_MAX} calls")
    assert number_ > len(calls) // 2, f"only {number_ - 1} crashes: {calls}"


@pytest.mark.parametrize("play", PLAYS, ids=IDS)
async def test_a_crash_at_some_calls_on_sqlite(play: Play, worlds) -> None:
    expected, calls, _ = await undisturbed(worlds("sqlite"), play)
    commits = [number_ for number_, name in enumerate(calls, 1) if name == "commit"]
    for number_ in commits[1::5]:
        fault: Fault = "die after" if number_ % 2 else "die before"
        await crash_and_go_on(worlds("sqlite"), play, number_, fault, expected=expected)


@pytest.mark.parametrize("play", PLAYS, ids=IDS)
async def test_crashes_one_after_the_other(play: Play, worlds) -> None:
    expected, _, _ = await undisturbed(worlds(), play)
    stage.clear()
    world = worlds()
    for number_ in range(6, 150):
        crashed = await perform(world, play, at_call(number_, "die after" if number_ % 2 else "die before"))
        if crashed.ended:
            break
    assert crashed.ended == expected
    await check_store(world.data, *play.definitions)


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("play", PLAYS, ids=IDS)
async def test_a_crash_between_any_two_chunks(play: Play, chunk: int, worlds, monkeypatch) -> None:
    """Every step is written in commits of few events: a child's start, or a message, may stand in any of them."""
    monkeypatch.setattr("engine.runtime.writing.COMMIT_EVENTS_MAX", chunk)
    expected, _, _ = await undisturbed(worlds(), play)
    for number_ in numbers(CALLS_MAX, offset=chunk + PLAYS.index(play)):
        fault: Fault = "die before" if number_ % 2 else "die after"
        if not await crash_and_go_on(worlds(), play, number_, fault, expected=expected):
            break
