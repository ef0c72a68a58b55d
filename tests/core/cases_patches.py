"""`durable.patched`: asked in branches, in loops, on the way out, in every epoch."""

from __future__ import annotations

import asyncio

from engine import durable
from tests.core.cases import case, undo, work


@case(3, plain="never")
async def patches_in_branches(n: int) -> list[str]:
    """Whichever branch is first to ask, all of them go the same way; other patches are asked between."""

    async def branch(k: int) -> str:
        before = await work("before", k)
        if durable.patched("both"):
            before += await work("new", k)
        if k == 1 and durable.patched("one only"):
            before += await work("one", k)
        return before + str(durable.patched("both"))

    found = await asyncio.gather(*(branch(k) for k in range(n)))
    durable.deprecate_patch("old way gone")
    return [*found, await work("after")]


@case(0, plain="never")
async def patches_in_epochs(n: int) -> list[str]:
    """Each epoch is asked anew, and marked anew."""
    first = await work("a", n) if durable.patched("each") else "old"
    if n == 2:
        return [first]
    await durable.continue_as_new(patches_in_epochs(n + 1))


@case(plain="never")
async def patches_in_a_loop() -> list[str]:
    """Asked again and again, it is marked once."""
    found = []
    for k in range(4):
        found.append(await work("new" if durable.patched("loop") else "old", k))
    return found


@case(plain="never", cancels=True)
async def patches_on_the_way_out() -> str:
    """In a `finally` that a cancellation, or the run's end, leads to."""

    async def left() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            durable.patched("left")

    branch = asyncio.ensure_future(left())
    try:
        return await work("a")
    finally:
        if durable.patched("way out"):
            await undo("a")
        assert not branch.done()
