"""A process that replays runs for `holdfast gate`: ``python -m engine.cli.gate_child TARGET URL``.

It loads the target, opens the store read-only, and answers lines of run ids with lines of verdicts, all of it JSON. It
ends when its standard input does. What loading the target prints goes to standard error.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Final

import msgspec

from engine import Gate, Verdict
from engine.cli import stores
from engine.cli.gate_runs import Answer, check, workflows_of
from engine.cli.targets import load

__all__ = ["main"]

_orders: Final = msgspec.json.Decoder(list[str])


async def main(target: str, url: str, answers: int) -> None:
    """Answer until there is nothing more to answer; `answers`: the descriptor to write to."""
    loaded = load(target)
    with os.fdopen(answers, "wb") as out:
        async with stores.opened(url, read_only=True) as store, Gate(store, workflows_of(loaded)) as gate:
            while line := await asyncio.to_thread(sys.stdin.buffer.readline):
                verdicts: list[Verdict] = []
                teachers: list[str] = []
                for run_id in _orders.decode(line):
                    known = gate.learnt
                    if (verdict := await check(gate, run_id)) is not None:
                        verdicts.append(verdict)
                    if gate.learnt > known:
                        teachers.append(run_id)
                out.write(msgspec.json.encode(Answer(tuple(verdicts), tuple(teachers))) + b"\n")
                out.flush()


if __name__ == "__main__":
    kept = os.dup(1)
    os.dup2(2, 1)
    asyncio.run(main(sys.argv[1], sys.argv[2], kept))
