"""Effect contracts: what becomes of a task when its worker dies in the middle of it. Four tasks, four answers.

    .venv/bin/python examples/effects.py

The program runs a workflow in a process of its own, which is killed (SIGKILL) between an effect and its record, and
then run again. The outside (a folder, and a table in the engine's own file) tells what has happened.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from engine import Engine, Happened, NotHappened, Transaction, attempt, task, workflow
from engine.errors import TaskInterrupted


def deliver(folder: str, what: str) -> str:
    """An effect that happens each time this is called; the first time, the process dies before it can say so."""
    first = not (Path(folder) / what).exists()
    with (Path(folder) / what).open("a", encoding="utf-8") as book:
        book.write(f"{attempt().idempotency_key}\n")
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{what} sent by attempt {attempt().number}"


@task
async def index(folder: str) -> str:
    """Doing it twice is as good as once: the default."""
    return deliver(folder, "index")


@task(effect="at_most_once")
async def letter(folder: str) -> str:
    """Twice would be worse than never."""
    return deliver(folder, "letter")


async def find_payment(folder: str) -> Happened[str] | NotHappened:
    """Ask the bank's books for the key."""
    book = Path(folder) / "payment"
    if book.exists() and attempt().idempotency_key in book.read_text("utf-8"):
        return Happened("payment found in the books")
    return NotHappened()


@task(reconcile=find_payment)
async def payment(folder: str) -> str:
    """The outside can be asked: exactly once."""
    return deliver(folder, "payment")


@task(effect="transactional")
def booking(tx: Transaction, folder: str, amount: int) -> str:
    """SQL in the engine's own file: exactly once, with nothing to ask."""
    tx.execute("CREATE TABLE IF NOT EXISTS bookings (amount INT)")
    tx.execute("INSERT INTO bookings VALUES (?)", (amount,))
    first = not (Path(folder) / "booking").exists()
    (Path(folder) / "booking").touch()
    if first:
        os.kill(os.getpid(), signal.SIGKILL)  # the row is written, and not committed
    ((total,),) = tx.execute("SELECT sum(amount) FROM bookings")
    return f"booked by attempt {attempt().number}: {total} in all"


@workflow
async def month(folder: str) -> list[str]:
    """All four; whether the letter was sent nobody knows, and the workflow decides what that means."""
    said = [await index(folder)]
    try:
        said.append(await letter(folder))
    except TaskInterrupted:
        said.append("letter: sent or not, a person must look")
    said.append(await payment(folder))
    said.append(await booking(folder, 80))
    return said


async def main(folder: str) -> None:
    """One process's share: begin the run, or go on with it."""
    async with Engine(f"sqlite:///{folder}/runs.db", workflows=[month]) as engine:
        run = await engine.start(month(folder), id="month")
        for line in await run.result():
            print(line)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(sys.argv[1]))
        sys.exit()
    with TemporaryDirectory() as scratch:
        command = [sys.executable, __file__, scratch]
        while (code := subprocess.run(command, check=False).returncode) == -signal.SIGKILL:  # noqa: S603 - itself
            print("killed", flush=True)
        for name in ("index", "letter", "payment"):
            print(f"{name}: {len((Path(scratch) / name).read_text('utf-8').splitlines())} time(s)")
        with closing(sqlite3.connect(f"file:{scratch}/runs.db?mode=ro", uri=True)) as database:
            print(f"booking: {len(database.execute('SELECT * FROM bookings').fetchall())} time(s)")
        sys.exit(code)
