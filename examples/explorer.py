"""The crash explorer, on workflows with classical mistakes: each is found, and its correct twin is not.

    .venv/bin/python examples/explorer.py [NAME ...]

Every one of them passes a test that runs it once. See docs/testing.md, which walks through it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from engine import Signal, SignalMessage, Workflow, attempt, task, workflow
from engine.testing import Report, explore

account: dict[str, int] = {"ann": 0}
"""Stands for a bank: it outlives our process."""
payments: dict[str, int] = {}
"""What the bank knows of payments, by idempotency key."""
letters: list[str] = []
"""Stands for a mail server: what it has sent cannot be taken back."""
approve = Signal("approve", bool)


# -- 1. a task that counts twice --------------------------------------------------------------------------------------


@task
async def deposit(name: str, cents: int) -> int:
    """Wrong: a second attempt, after a crash in between, adds the money once more."""
    account[name] += cents
    return account[name]


@task
async def deposit_once(name: str, cents: int) -> int:
    """Right: the bank knows the payment by its key, which is the same for every attempt."""
    key = attempt().idempotency_key
    if key not in payments:
        payments[key] = cents
        account[name] += cents
    return account[name]


@workflow
async def salary(name: str) -> int:
    """Pays, with the task that counts twice."""
    return await deposit(name, 100)


@workflow
async def salary_fixed(name: str) -> int:
    """Pays once."""
    return await deposit_once(name, 100)


# -- 2. a workflow that looks at what tasks have left in memory -------------------------------------------------------

cache: dict[str, int] = {}


@task
async def look_up(name: str) -> int:
    """Leaves its answer in a global."""
    cache[name] = len(name)
    return cache[name]


@workflow
async def invoice(name: str) -> int:
    """Wrong: after a crash the task is not run again, and the global is empty."""
    await look_up(name)
    await post_letter(f"dear {name}")
    return cache.get(name, 0)


@workflow
async def invoice_fixed(name: str) -> int:
    """Right: results of tasks are in the history."""
    length = await look_up(name)
    await post_letter(f"dear {name}")
    return length


# -- 3. branches that append to one list ------------------------------------------------------------------------------


@task
async def quote(shop: str) -> str:
    """Asks a shop."""
    return f"{shop}: 10"


@workflow
async def quotes(shops: list[str]) -> list[str]:
    """Wrong: the order is that in which shops answer."""
    found: list[str] = []

    async def ask(shop: str) -> None:
        found.append(await quote(shop))

    await asyncio.gather(*(ask(shop) for shop in shops))
    return found


@workflow
async def quotes_fixed(shops: list[str]) -> list[str]:
    """Right: the order is that in which they were asked."""
    return list(await asyncio.gather(*(quote(shop) for shop in shops)))


# -- 4. a signal that is seen only if it comes in time ----------------------------------------------------------------


@workflow
async def purchase(what: str) -> str:
    """Wrong: whether the approval is there already is a matter of luck."""
    await quote(what)
    if not approve.waiting():
        return "nobody approved"
    return f"bought {what}" if await approve.receive() else "refused"


@workflow
async def purchase_fixed(what: str) -> str:
    """Right: it waits."""
    await quote(what)
    return f"bought {what}" if await approve.receive() else "refused"


# -- 5. an effect in the wrong place ----------------------------------------------------------------------------------


@task
async def post_letter(text: str) -> None:
    """Right: an effect stands in a task, and a letter that is on its way already is not sent again."""
    if text not in letters:
        letters.append(text)


@workflow
async def reminder(name: str) -> int:
    """Wrong: workflow code runs again at every replay."""
    length = await look_up(name)
    letters.append(f"dear {name}")
    await asyncio.sleep(86_400)
    return length


@workflow
async def reminder_fixed(name: str) -> int:
    """Right: the task is in the history, and is not run again."""
    length = await look_up(name)
    await post_letter(f"dear {name}")
    await asyncio.sleep(86_400)
    return length


class Pair(Struct, frozen=True):
    """A workflow with a mistake, and its twin without; what both are called with, and what they are told."""

    wrong: Workflow[..., Any]
    right: Workflow[..., Any]
    argument: Any
    signals: tuple[SignalMessage, ...] = ()


PAIRS = {
    "counts twice": Pair(salary, salary_fixed, "ann"),
    "reads a global": Pair(invoice, invoice_fixed, "ann"),
    "order of answers": Pair(quotes, quotes_fixed, ["a", "b", "c"]),
    "signal in time": Pair(purchase, purchase_fixed, "tea", (approve.message(True),)),
    "effect outside tasks": Pair(reminder, reminder_fixed, "ann"),
}


async def examine(name: str) -> tuple[Report, Report]:
    """Explore both of a pair; `account`, `payments` and `letters` are the outside."""
    pair = PAIRS[name]
    outside = [account, payments, letters]
    return (
        await explore(pair.wrong(pair.argument), signals=pair.signals, outside=outside),
        await explore(pair.right(pair.argument), signals=pair.signals, outside=outside),
    )


async def main(names: Sequence[str]) -> int:
    """Explore the pairs that are named, or all. 0 if just the wrong ones have findings."""
    failed = 0
    for name in names or PAIRS:
        wrong, right = await examine(name)
        print(f"-- {name}\n\n{wrong.text()}\n\n{right.text()}\n")
        failed += wrong.exit_code != 1 or right.exit_code != 0
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
