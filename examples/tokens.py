"""Completion tokens: a task that somebody else completes. A payment is confirmed by a call from the bank, days later.

    .venv/bin/python examples/tokens.py [FILE]

FILE keeps the store (a temporary one without it), to be looked at with `holdfast runs --store sqlite:///FILE`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from engine import Engine, attempt, task, workflow
from engine.errors import NotRecordable, TokenError


@task(deadline=14 * 86_400)  # two weeks, then it fails with TaskTimeout
def payment(bank: str, amount: int) -> str:
    """Ask the bank; the bank answers later, with the token, and its answer is the result."""
    here = attempt()
    letter = Path(bank) / here.idempotency_key  # the same file if a crash makes this run again
    letter.write_text(f"{amount} euros {here.token}", encoding="utf-8")
    here.later()


@workflow
async def order(bank: str, amount: int) -> str:
    """Sent when it is paid."""
    receipt = await payment(bank, amount)
    return f"sent, {receipt}"


async def letters(bank: Path, count: int) -> list[str]:
    """The bank's post: so many letters, once they are there."""
    while len(found := sorted(bank.iterdir())) < count or not all(each.read_text("utf-8") for each in found):
        await asyncio.sleep(0.01)
    return [each.read_text("utf-8") for each in found]


async def main(file: str) -> None:
    """Order, go away, and let the bank answer."""
    url = f"sqlite:///{file}"
    with TemporaryDirectory() as bank:
        async with Engine(url, workflows=[order]) as engine:
            run = await engine.start(order(bank, 80))
            (letter,) = await letters(Path(bank), 1)
            print("the bank reads:", letter.rpartition(" ")[0])

        token = letter.rpartition(" ")[2]
        async with Engine(url) as webhook:  # another process: it has the store and the token, and no workflow
            try:
                await webhook.complete("no-such-token", "paid")
            except TokenError as error:
                print(error)
            try:
                await webhook.complete(token, 80, task=payment)  # type: ignore[misc]  # a checker says so too
            except NotRecordable as error:
                print(error)
            await webhook.complete(token, "receipt 4711", task=payment, by="bank")
            await webhook.complete(token, "receipt 4712", task=payment, by="bank")  # too late: the first one holds

        async with Engine(url, workflows=[order]) as engine:
            print(await engine.run(run.id).result())


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db"))
