"""Checks: rates (capability ``permits``, with a window). At most so many starts in any window of time."""

from __future__ import annotations

from random import Random

from eventstore.conformance.harness import Shared, StoreHarness, begin, give_back, shared_pool, take, wait
from eventstore.errors import LimitReached
from eventstore.port import GRANT_SECONDS

_SECOND = 1_000_000
_WINDOW = 10 * _SECOND


async def starts_leave_the_window_by_themselves(harness: StoreHarness) -> None:
    """Refused with the time when there will be room, which is exact; a start that is given back counts all the same."""
    async with shared_pool(harness, limit=2, window=_WINDOW) as shared:
        if shared is None:
            return
        first = harness.now()
        await shared.does("run:a", take("1"))
        await harness.turn(4)
        second = harness.now()
        await shared.does("run:b", take("2"))
        await shared.does("run:b", give_back("2"))
        await shared.does("run:a", take("1"))  # the same start
        assert (await shared.full("run:c", take("3"))).retry_at == first + _WINDOW
        await harness.turn((first + _WINDOW - harness.now() - 1) / _SECOND)
        assert (await shared.full("run:c", take("3"))).retry_at == first + _WINDOW
        await harness.turn(0.000_001)
        await shared.does("run:c", take("3"))
        assert (await shared.full("run:d", take("4"))).retry_at == second + _WINDOW


async def closing_gives_no_start_back(harness: StoreHarness) -> None:
    """Nor does giving the stream up, or the death of who started; but what was only granted had not begun."""
    async with shared_pool(harness, limit=2, window=_WINDOW) as shared:
        if shared is None:
            return
        await shared.does("run:a", take("1"), closed=True)
        await shared.does("run:a", release=True)
        async with shared.store.lease("dead") as dead:
            await shared.does("run:b", take("2"), lease=dead)
            await harness.crash_lease(dead)
        await shared.full("run:c", take("3"))
        await harness.turn(_WINDOW / _SECOND)
        await shared.does("run:c", wait("4"), wait("5"))
        await shared.full("run:d", take("6"))
        await shared.does("run:c", give_back("4"))
        await shared.does("run:d", take("6"))
        await shared.does("run:c", closed=True)
        await shared.does("run:d", take("7"))
        await shared.full("run:d", take("8"))


async def a_start_counts_from_when_it_is_confirmed(harness: StoreHarness) -> None:
    """Within the window the stamp moves to now; behind it there is none any more, and it is taken as any other."""
    async with shared_pool(harness, limit=1, window=_WINDOW) as shared:
        if shared is None:
            return
        await shared.does("run:a", wait("1"))
        await harness.turn(6)
        confirmed = harness.now()
        await shared.does("run:a", take("1"))
        await harness.turn(6)
        assert (await shared.full("run:b", take("2"))).retry_at == confirmed + _WINDOW
        await harness.turn(4)
        await shared.does("run:b", wait("2"))
        await harness.turn(_WINDOW / _SECOND)
        await shared.does("run:c", take("3"))
        await shared.full("run:b", take("2"))
        await shared.full("run:a", take("1"))  # the start of long ago is not this one


async def who_waits_for_a_rate_learns_when_to_come_back(harness: StoreHarness) -> None:
    """The time is one's own turn, with everybody before it served as early as can be; the first to come serves all."""
    async with shared_pool(harness, limit=2, window=_WINDOW) as shared:
        if shared is None:
            return
        begun = harness.now()
        await shared.does("run:a", take("1"))
        await harness.turn(3)
        await shared.does("run:a", take("2"))
        times = []
        for number in range(5):
            times.append((await shared.full("run:b", take(f"w{number}"))).retry_at)
            await shared.does("run:b", wait(f"w{number}"))
            assert (await shared.full("run:b", take(f"w{number}"))).retry_at == times[-1]
        seconds = [((time or 0) - begun) / _SECOND for time in times]
        assert seconds == [10, 13, 20, 23, 30]
        await harness.turn(7)
        await shared.does("run:b", take("w0"))
        await harness.turn(3)
        await shared.full("run:b", take("w2"))
        await shared.does("run:b", take("w1"))
        await harness.turn(20)
        await shared.does("run:b", take("w2"))
        assert await shared.granted("run:b") == ["w3"]
        await shared.full("run:b", take("w4"))


async def grants_of_a_rate_lapse_as_any(harness: StoreHarness) -> None:
    """In a window that is longer than GRANT_SECONDS, who does not take its turn makes room for the next."""
    async with shared_pool(harness, limit=1, window=round(GRANT_SECONDS * 10 * _SECOND)) as shared:
        if shared is None:
            return
        await shared.does("run:a", wait("a"))
        await shared.does("run:b", wait("b"))
        await harness.turn(GRANT_SECONDS)
        await shared.does("run:c", wait("c"))
        assert [len(await shared.granted(f"run:{name}")) for name in "abc"] == [1, 1, 0]
        await shared.does("run:b", take("b"))
        await harness.turn(GRANT_SECONDS)
        await shared.full("run:d", take("d"))


async def no_window_has_more_starts_than_the_limit(harness: StoreHarness) -> None:
    """Starts at random times by who takes and who waits, with changing limits and a clock that is set back at times."""
    async with shared_pool(harness, limit=3, window=_WINDOW) as shared:
        if shared is None:
            return
        chance = Random(11)  # noqa: S311 - a fixed history
        starts: list[int] = []
        waiting: list[str] = []
        await begin(shared.store, "run:w", lease=shared.lease)
        for number in range(400):
            await harness.turn(chance.choice((0, 0, 0, 0.1, 1, 2.5, 4, 9, -1)))
            holder = f"h{number}"
            match chance.randrange(5):
                case 0:
                    await shared.does("run:w", wait(holder, priority=chance.randrange(2)))
                    waiting.append(holder)
                case 1 if waiting:
                    holder = chance.choice(waiting)
                    if await _took(shared, "run:w", holder):
                        waiting.remove(holder)
                        starts.append(harness.now())
                case 2 if waiting:
                    await shared.does("run:w", give_back(waiting.pop()))
                case _:
                    if await _took(shared, f"run:{number % 7}", holder):
                        starts.append(harness.now())
        assert len(starts) > 50, len(starts)
        for start in starts:
            within = [one for one in starts if start <= one < start + _WINDOW]
            assert len(within) <= 3, within


async def _took(shared: Shared, stream: str, holder: str) -> bool:
    try:
        await shared.does(stream, take(holder))
    except LimitReached as refusal:
        assert refusal.retry_at is not None
        return False
    return True
