"""Memoised tasks: what one run has computed, later ones use; for how long, under which key, and how it is forgotten.

    .venv/bin/python examples/memos.py [FILE]

FILE keeps the store (a temporary one without it), to be looked at with `holdfast history RUN --store sqlite:///FILE`.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from tempfile import TemporaryDirectory

from engine import Engine, Memo, task, workflow


@task(memo=Memo(expires=timedelta(hours=12)))
async def rate(currency: str) -> int:
    """What one of them is worth, in euro cents. The bank is asked twice a day, and not for each invoice."""
    print(f"  the bank is asked for {currency}")
    return {"USD": 92, "CHF": 105}[currency]


@task(memo=Memo(key=lambda words, _: sorted(set(words)), version="2"))
def index(words: list[str], by: str) -> dict[str, int]:
    """Neither the order of the words nor who asks makes another index; version 2 counts letters."""
    print(f"  an index is made by {by}")
    return {word: len(word) for word in sorted(set(words))}


@workflow
async def invoice(amount: int, currency: str) -> str:
    """In euros."""
    return f"{amount * await rate(currency) / 100:.2f} euros"


@workflow
async def exact_invoice(amount: int, currency: str) -> str:
    """For whom half a day is too old: not older than a second, or not from any memo."""
    fresh = await rate.options(memo=Memo(expires=1))(currency)
    return f"{amount * fresh / 100:.2f} euros, {amount * await rate.options(memo=None)(currency) / 100:.2f} euros"


@workflow
async def catalogue(words: list[str], by: str) -> int:
    """How many there are."""
    return len(await index(words, by))


async def main(file: str) -> None:
    """Each run says what was done for it."""
    async with Engine(f"sqlite:///{file}", workflows=[invoice, catalogue]) as engine:
        await engine.forget(rate)  # so that this says the same when it is run again
        await engine.forget(index)
        for amount, currency in ((100, "USD"), (250, "USD"), (10, "CHF")):
            run = await engine.start(invoice(amount, currency))
            print(f"{amount} {currency}: {await run.result()}")
        for words, by in ((["pen", "ink"], "ann"), (["ink", "pen", "ink"], "ben")):
            print("words:", await (await engine.start(catalogue(words, by))).result())

    async with Engine(f"sqlite:///{file}", workflows=[invoice, exact_invoice]) as engine:
        run = await engine.start(invoice(30, "USD"))
        print("another process, later:", await run.result())
        (found,) = (await run.state()).tasks.values()
        print(f"  {found.attempts} attempts, reused from run {found.reused_run}")

        forgotten = await engine.forget(rate("USD"), by="the bank called")
        print("forgotten:", forgotten)
        print("asked again:", await (await engine.start(invoice(30, "USD"))).result())
        await asyncio.sleep(1.1)
        print("exactly:", await (await engine.start(exact_invoice(30, "USD"))).result())


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db"))
