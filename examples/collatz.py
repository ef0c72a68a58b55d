"""Work that computes, in worker processes: it says how far it is, one of them is killed, and nothing begins anew.

    .venv/bin/python examples/collatz.py [FILE]

Halve a number if it is even, else take three times it and one: which number below 60,000 takes the longest to get to 1?
FILE keeps the store (a temporary one without it), to be looked at with `holdfast history RUN --store sqlite:///FILE`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct
from tenacity import stop_after_attempt

from engine import Engine, attempt, task, workflow

STEP = 1_000  # numbers between two heartbeats


class Found(Struct):
    """The number with the longest way, among those that were looked at."""

    number: int
    length: int
    attempts: int
    went_on: bool  # from where the attempt before it was, and not from the beginning


def way(number: int) -> int:
    """How many steps it takes."""
    length = 0
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        length += 1
    return length


@task(executor="processes", stop=stop_after_attempt(3), heartbeat_timeout=60)
def search(first: int, last: int, trouble: bool = False) -> Found:
    """Look at a part of the numbers, in a process of its own."""
    here = attempt()
    at, best = here.last_heartbeat or (first, (0, first))  # where an earlier attempt was, also after a crash
    went_on = at > first
    while at < last:
        best = max(tuple(best), *((way(number), number) for number in range(at, min(at + STEP, last))))
        at += STEP
        here.heartbeat((at, best))  # cheap: say it as often as you like
        if trouble and here.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)  # memory ran out, say
    return Found(number=best[1], length=best[0], attempts=here.number, went_on=went_on)


@workflow
async def longest(limit: int, parts: int) -> list[Found]:
    """All parts at once, as many processes as there are processors; the second is in for trouble."""
    size = limit // parts
    return await asyncio.gather(
        *(search(1 + part * size, 1 + (part + 1) * size, trouble=part == 1) for part in range(parts))
    )


async def main(file: str) -> None:
    """Search, and say what was found."""
    async with Engine(f"sqlite:///{file}", workflows=[longest]) as engine:
        run = await engine.start(longest(60_000, 4))
        found = await run.result()
        for part, each in enumerate(found, 1):
            again = ", killed once, and went on where it was" if each.attempts == 2 and each.went_on else ""
            print(f"part {part}: {each.number} takes {each.length} steps{again}")
        failures = [task.error.message for task in (await run.state()).tasks.values() if task.error is not None]
        print(*failures, sep="\n")


if __name__ == "__main__":
    import collatz  # by its name: worker processes import it, and none of them could import `__main__`

    with TemporaryDirectory() as folder:
        asyncio.run(collatz.main(sys.argv[1] if len(sys.argv) > 1 else str(Path(folder) / "runs.db")))
