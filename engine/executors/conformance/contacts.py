"""Checks: the work knows its attempt, and the two ends hear each other while it runs."""

from __future__ import annotations

from engine.executors.conformance.harness import ExecutorHarness, all_free, begin, decoded, result_of, soon

_BEATS = 100_000


async def the_attempt_is_there(harness: ExecutorHarness) -> None:
    """With all that it says."""
    executor = harness.open()
    told = await result_of(executor, harness.guest("tell"))
    assert told == {
        "run_id": "run-1",
        "task_id": "w/tell#1",
        "task": harness.guest("tell").work.task.name,
        "number": 2,
        "idempotency_key": "0123456789abcdef" * 2,
        "scheduled_at": 1_767_225_600_000_000,
        "token": "a-token",
        "last_heartbeat": {"page": 7},
        "last_failure": "last time",
        "cancelled": False,
        "stopping": False,
    }


async def context_is_not_left_behind(harness: ExecutorHarness) -> None:
    """What one attempt sets in its context the next does not find."""
    executor = harness.open()
    for word in ("one", "two", "three"):
        running = begin(executor, guest := harness.guest("leave_behind", word))
        assert decoded(guest, await soon(running)) == ""
        await all_free(executor)


async def heartbeats_are_heard_while_it_runs(harness: ExecutorHarness) -> None:
    """And the closing of the engine is heard by the code."""
    executor = harness.open()
    guest = harness.guest("wait_released")
    running = begin(executor, guest)
    await guest.inside()
    assert not running.done()
    assert not guest.contact.preparing
    guest.release()
    assert decoded(guest, await soon(running)) is True


async def the_last_of_many_heartbeats_is_heard(harness: ExecutorHarness) -> None:
    """Some of the others may be left out. All that is heard comes in order, and before the result."""
    executor = harness.open()
    guest = harness.guest("beat", _BEATS)
    running = begin(executor, guest)
    assert decoded(guest, await soon(running)) == _BEATS
    heard = [details for details in guest.heard if details is not None]
    assert heard[-1] == _BEATS
    assert heard == sorted(heard)


async def details_that_cannot_be_recorded_are_refused_at_the_call(harness: ExecutorHarness) -> None:
    """The work's own call raises."""
    assert await result_of(harness.open(), harness.guest("beat_badly")) == "refused"
