"""Checks: slots are taken and given back as promised, whatever happens in them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

from engine.executors.conformance.harness import ExecutorHarness, all_free, begin, decoded, result_of, soon, until
from engine.executors.port import WorkFailed
from engine.tasks import CompletedLater


async def a_slot_is_given_back_once_in_every_path(harness: ExecutorHarness) -> None:
    """Result, exception, handed out; who waits for a slot is told each time."""
    executor = harness.open(2)
    told: list[int] = []
    executor.slots.when_free(lambda: told.append(executor.slots.free))
    for number, guest in enumerate(
        (harness.guest("echo", 1), harness.guest("fail", "ValueError"), harness.guest("hand_out")), 1
    ):
        with suppress(CompletedLater, WorkFailed, ValueError):
            await soon(begin(executor, guest))
        await until(partial(_are, told, number))
        await asyncio.sleep(0)
        assert executor.slots.free == 2
    assert told == [2, 2, 2]


async def as_many_run_at_once_as_there_are_slots(harness: ExecutorHarness) -> None:
    """All of them are inside before the first may go."""
    executor = harness.open(3)
    guests = [harness.guest("wait_released") for _ in range(3)]
    running = [begin(executor, guest) for guest in guests]
    for guest in guests:
        await guest.inside()
    assert not executor.slots.try_take()
    for guest in guests:
        guest.release()
    for guest, task in zip(guests, running, strict=True):
        assert decoded(guest, await soon(task)) is True
    await all_free(executor)


async def one_that_waits_does_not_keep_the_others(harness: ExecutorHarness) -> None:
    """Many pass through one slot while another attempt holds the second."""
    executor = harness.open(2)
    patient = harness.guest("wait_released")
    waiting = begin(executor, patient)
    await patient.inside()
    for number in range(20):
        assert await result_of(executor, harness.guest("echo", number)) == number
        await until(lambda: executor.slots.free == 1)
    patient.release()
    assert decoded(patient, await soon(waiting)) is True
    await all_free(executor)


async def a_slot_comes_back_when_the_caller_leaves_at_once(harness: ExecutorHarness) -> None:
    """Cancelled in its first steps, before or after the work has begun."""
    executor = harness.open(1)
    for steps in (1, 2, 3, 5):
        guest = harness.guest("linger")
        running = begin(executor, guest)
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        await all_free(executor)
    assert await result_of(executor, harness.guest("echo", "still there")) == "still there"


def _are(found: list[Any], number: int) -> bool:
    return len(found) == number
