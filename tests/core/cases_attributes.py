"""`durable.set_attributes`: in branches, in every epoch, on the way out."""

from __future__ import annotations

import asyncio

from engine import durable
from tests.core.cases import case, undo, work


@case(3, plain="never")
async def attributes_in_branches(n: int) -> list[str]:
    """Each branch sets its own, and all of them one; a name is taken away again."""
    durable.set_attributes(stage="begun", doomed=True)

    async def branch(k: int) -> str:
        before = await work("before", k)
        durable.set_attributes(last=k, **{f"branch-{k}": 0.5 * k})
        return before

    found = await asyncio.gather(*(branch(k) for k in range(n)))
    durable.set_attributes(stage="done", doomed=None)
    durable.set_attributes()  # says nothing, and decides nothing
    return [*found, await work("after")]


@case(0, plain="never")
async def attributes_in_epochs(n: int) -> int:
    """Later epochs keep them, and how many there may be counts over all of them."""
    await work("a", n)
    durable.set_attributes(**{f"epoch-{n}": n, "epoch": n})
    if n == 2:
        return n
    await durable.continue_as_new(attributes_in_epochs(n + 1))


@case(plain="never", cancels=True)
async def attributes_on_the_way_out() -> str:
    try:
        return await work("a")
    finally:
        durable.set_attributes(way="out")
        await undo("a")
