"""What a program may result in: it is run on plain asyncio, with no engine, no store and no faults, once for each end.

A race is decided beforehand, each way in turn; tasks are what they come to after their retries.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.simulation.loops import SimulatedLoop
from tests.simulation.programs import Interpreter, kinds_of

__all__ = ["FAILED", "ends_of"]

FAILED = "failed"
ENDS_MAX = 300


class _Plain(Interpreter):
    """The same program, as asyncio alone runs it; `choices` decide the races in the order that they come up."""

    def __init__(self, choices: list[int]) -> None:
        self.choices = choices
        self.options: list[int] = []

    def choose(self, options: int) -> int:
        self.options.append(options)
        if len(self.options) > len(self.choices):
            self.choices.append(0)
        return self.choices[len(self.options) - 1]

    async def endless(self, n: int) -> Any:
        await asyncio.Event().wait()

    async def serving(self, inner: Any) -> Any:
        return await self.run(inner)

    async def leaf(self, kind: str, n: int, rest: list[Any]) -> Any:
        match kind:
            case "child" | "guide":
                return await self.run(rest[1])
            case "broken":
                raise ValueError(n)
            case "handed" if not rest[1]:
                raise ValueError(n)
            case "ok" | "charge" | "pooled" | "both" | "rated":
                await asyncio.sleep(rest[0])
        return n

    async def race(self, kind: str, n: int, rest: list[Any]) -> Any:
        match kind:
            case "once":
                if self.choose(2):
                    raise RuntimeError("interrupted")
                return n
            case "outage":
                if self.choose(2):
                    raise ConnectionError(n)
                return n
            case "timeout":
                if self.choose(2):
                    raise TimeoutError
                return await self.run(rest[1])
            case "first":
                return ["first", await self.run(rest[self.choose(len(rest))])]
            case _:
                # Who waits to be tried again, and is asked to end, has failed.
                match self.choose(3 if "paid" in kinds_of(rest[1]) else 2):
                    case 0:
                        return await self.run(rest[1])
                    case 1:
                        return "cancelled"
                raise ValueError(n)


def ends_of(program: Any) -> frozenset[str] | None:
    """Its possible results as JSON, `FAILED` among them if it may fail; None: too many to say."""
    found: set[str] = set()
    choices: list[int] = []
    for _ in range(ENDS_MAX):
        plain = _Plain(choices)
        found.add(_end(plain, program))
        choices = plain.choices
        while choices and choices[-1] + 1 >= plain.options[len(choices) - 1]:
            choices.pop()
        if not choices:
            return frozenset(found)
        choices[-1] += 1
    return None


def _end(plain: _Plain, program: Any) -> str:
    loop = SimulatedLoop()
    loop.set_exception_handler(lambda _loop, _context: None)
    try:
        return json.dumps(loop.run_until_complete(plain.run(program)))
    except Exception:
        return FAILED
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.close()
