"""The tasks of the programs, and what they do to the outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tenacity import stop_after_attempt, wait_fixed

from engine import Happened, Memo, NotHappened, attempt, task
from tests.simulation.outside import OUTSIDE, Letter

__all__ = [
    "FRESH_SECONDS",
    "LIMITS",
    "POOL",
    "RATE",
    "TASKS",
    "answering",
    "endless",
    "fresh",
    "handed",
    "kept",
    "once",
    "outage",
]

POOL, RATE = "slots", "starts"
LIMITS = {"pooled": (POOL,), "rated": (RATE,), "both": (POOL, RATE)}
"""What the tasks are under, by name."""
FRESH_SECONDS = 3
"""For how long a result of `fresh` is used again."""


@task
async def ok(n: int, seconds: float) -> int:
    with OUTSIDE.attempt():
        if seconds:
            await asyncio.sleep(seconds)
        return n


@task(stop=stop_after_attempt(100), wait=wait_fixed(2))
async def flaky(n: int, times: int) -> int:
    with OUTSIDE.attempt() as before:
        await asyncio.sleep(0)
        if before < times:
            raise ConnectionError(n)
        return n


@task(stop=stop_after_attempt(2), wait=wait_fixed(1))
async def broken(n: int) -> int:
    with OUTSIDE.attempt():
        raise ValueError(n)


@task(stop=stop_after_attempt(100), wait=wait_fixed(1), timeout=3)
async def hangs(n: int) -> int:
    with OUTSIDE.attempt() as before:
        if not before:
            await asyncio.Event().wait()
        return n


@task(stop=stop_after_attempt(2), wait=wait_fixed(1))
async def outage(n: int) -> int:
    """What it needs is down for some runs, until somebody has mended it."""
    with OUTSIDE.attempt():
        await asyncio.sleep(n % 2)
        if attempt().run_id.partition("/")[0] in OUTSIDE.down:
            raise ConnectionError(n)
        return n


@task
async def endless(n: int) -> int:
    with OUTSIDE.attempt():
        await asyncio.Event().wait()
        return n


@task(stop=stop_after_attempt(100), wait=wait_fixed(1), pool=POOL)
async def pooled(n: int, seconds: float) -> int:
    with OUTSIDE.attempt(POOL) as before:
        await asyncio.sleep(seconds)
        if n % 3 == 0 and not before:
            raise ConnectionError(n)
        return n


@task(stop=stop_after_attempt(100), wait=wait_fixed(1), rate=RATE)
async def rated(n: int, seconds: float) -> int:
    with OUTSIDE.attempt() as before:
        await asyncio.sleep(seconds)
        if n % 3 == 0 and not before:
            raise ConnectionError(n)
        return n


@task(pool=POOL, rate=RATE)
async def both(n: int, seconds: float) -> int:
    with OUTSIDE.attempt(POOL):
        await asyncio.sleep(seconds)
        return n


@task(effect="at_most_once")
async def once(n: int, seconds: float) -> int:
    with OUTSIDE.attempt() as before:
        if before:
            OUTSIDE.broke("once", f"task {n}, at most once, ran {before + 1} times")
        await asyncio.sleep(seconds)
        return n


@task(on_cancel="wait", stop=stop_after_attempt(100), wait=wait_fixed(1))
async def charge(n: int, seconds: float) -> int:
    with OUTSIDE.attempt():
        await asyncio.sleep(seconds)
        return n


async def has_paid(n: int, _: float) -> Happened[int] | NotHappened:
    await asyncio.sleep(n % 3 * 0.5)
    return Happened(n) if attempt().idempotency_key in OUTSIDE.paid else NotHappened()


@task(reconcile=has_paid, stop=stop_after_attempt(100), wait=wait_fixed(1))
async def paid(n: int, seconds: float) -> int:
    """Its first attempt fails, sometimes before it has paid, and sometimes behind that."""
    with OUTSIDE.attempt() as before:
        await asyncio.sleep(seconds)
        if n % 3 or before:
            OUTSIDE.paid.add(attempt().idempotency_key)
        if not before and n % 2:
            raise ConnectionError(n)
        return n


@task
def plain(n: int) -> int:
    with OUTSIDE.attempt():
        return n


@task(stop=stop_after_attempt(100), wait=wait_fixed(1), heartbeat_timeout=3)
async def beating(n: int) -> int:
    """Says how far it is; the first time it gets stuck, or fails."""
    with OUTSIDE.attempt() as before:
        this = attempt()
        OUTSIDE.check_beat(this)
        for step in range(4):
            this.heartbeat([this.number, step])
            await asyncio.sleep(0.5)
            if not before and step == 2:
                if n % 2:
                    raise ConnectionError(n)
                await asyncio.Event().wait()
        return n


@task(memo=Memo(key=lambda _, key: key, version="1"))
async def kept(_: int, key: int) -> list[int]:
    """A result that no other execution has, for all calls with the key."""
    with OUTSIDE.attempt():
        await asyncio.sleep(key / 2)
        return [key, OUTSIDE.next_serial()]


@task(memo=Memo(key=lambda _, key: key, version="1", expires=FRESH_SECONDS))
async def fresh(_: int, key: int) -> list[int]:
    """Likewise, for calls that come soon enough."""
    with OUTSIDE.attempt():
        await asyncio.sleep(key / 2)
        return [key, OUTSIDE.next_serial()]


@task(stop=stop_after_attempt(100), wait=wait_fixed(1))
async def handed(n: int, seconds: float, accepts: bool) -> list[int]:
    """Somebody else ends it, maybe before its attempt has ended."""
    with OUTSIDE.attempt():
        this = attempt()
        OUTSIDE.told(Letter((this.run_id, this.idempotency_key), this.token, n, seconds, accepts))
        await asyncio.sleep(n % 2)
        this.later()


@task(stop=stop_after_attempt(100), wait=wait_fixed(1))
async def answering(value: int) -> list[int]:
    """An answer that no other execution gives."""
    with OUTSIDE.attempt() as before:
        await asyncio.sleep(value % 4 * 0.5)
        if value % 5 == 3 and not before:
            raise ConnectionError(value)
        return [value, OUTSIDE.next_serial()]


TASKS: dict[str, Callable[..., Any]] = {
    "ok": ok,
    "flaky": flaky,
    "broken": broken,
    "hangs": hangs,
    "beating": beating,
    "pooled": pooled,
    "rated": rated,
    "both": both,
    "charge": charge,
    "paid": paid,
    "plain": plain,
}
