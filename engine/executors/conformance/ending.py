"""Checks: cancelling reaches the work, or its slot stays taken until it has really ended; and what may not begin."""

from __future__ import annotations

import asyncio

from msgspec import structs

from engine.executors.conformance.harness import ExecutorHarness, all_free, begin, failure_of, result_of, soon
from engine.executors.port import NotBegun


async def work_hears_that_it_is_asked_to_end(harness: ExecutorHarness) -> None:
    """By an exception at its await, by its process ending, or by what its attempt tells: it does not wait in vain."""
    executor = harness.open()
    guest = harness.guest("linger")
    running = begin(executor, guest)
    await guest.inside()
    assert executor.slots.free == 0
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    await all_free(executor)
    if not harness.coroutines:
        assert guest.contact.cancelled.given
    assert await result_of(executor, harness.guest("echo", 1)) == 1


async def work_that_does_not_look_is_ended_or_keeps_its_slot(harness: ExecutorHarness) -> None:
    """No second attempt begins beside one that nobody could stop."""
    executor = harness.open()
    guest = harness.guest("compute")
    running = begin(executor, guest)
    await guest.inside()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    if not (harness.ends_work or harness.coroutines):
        assert executor.slots.free == 0
        assert not executor.slots.try_take()
        guest.release()
    await all_free(executor)
    assert await result_of(executor, harness.guest("echo", 1)) == 1


async def work_that_may_not_begin_does_not(harness: ExecutorHarness) -> None:
    """Its engine stood still for too long on the way there, say."""
    executor = harness.open()
    guest = harness.guest("echo", 1)
    guest.work = structs.replace(guest.work, may_begin=lambda: False)
    assert isinstance(await failure_of(executor, guest), NotBegun)
    await all_free(executor)
    assert await result_of(executor, harness.guest("echo", 1)) == 1


async def being_cancelled_twice_gives_one_slot_back(harness: ExecutorHarness) -> None:
    """An impatient caller does not have two slots for one."""
    executor = harness.open()
    guest = harness.guest("linger")
    running = begin(executor, guest)
    await guest.inside()
    running.cancel()
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    await all_free(executor)
    assert await result_of(executor, harness.guest("echo", 1)) == 1
    await all_free(executor)


async def closing_waits_for_what_it_can_end(harness: ExecutorHarness) -> None:
    """And may be asked for twice."""
    executor = harness.open()
    assert await result_of(executor, harness.guest("echo", 1)) == 1
    await soon(executor.aclose())
    await soon(executor.aclose())
