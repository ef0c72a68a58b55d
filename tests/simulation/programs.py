"""Random programs of a small grammar, and one workflow that interprets them; their tasks are in `tasks`.

A program is data, a tree of lists: ``["gather", 1, ["ok", 2, 0.5], ["flaky", 3, 2]]``: kind, number, and what the kind
takes. Most have one possible result, whatever fails; those that race have a few, which `oracle` lists.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from engine import Feed, Request, Signal, State, durable, workflow
from engine.errors import RunEnded, RunNotFound
from tests.simulation.outside import OUTSIDE
from tests.simulation.tasks import TASKS, answering, endless, fresh, handed, kept, once, outage

__all__ = [
    "RACES",
    "WORKFLOWS",
    "Interpreter",
    "asked",
    "children_of",
    "fails_to_answer",
    "given_in",
    "kinds_of",
    "phase",
    "report",
    "served",
    "sim",
    "sim_child",
    "told",
]

LONG_SECONDS = 1e8
"""Of timeouts that never come: a scenario is out of bounds long before."""
RACES = frozenset({"once", "outage", "timeout", "first", "cancel"})

told = Signal("told", int)
asked = Request("asked", int, list[int])
"""Taken by hand, by "take"."""
phase = State("phase", int, initial=-1)
report = Feed("report", int)
served = Request("served", int, list[int])
"""Answered while "serve" is in force; what is negative is refused."""


def fails_to_answer(value: int) -> bool:
    return value % 7 == 5


async def answer(value: int) -> list[int]:
    found = await answering(value)
    if fails_to_answer(value):
        raise LookupError(value)
    return found


def check_asked(value: int) -> None:
    if value < 0:
        raise ValueError(value)


class Interpreter:
    """Runs a program as workflow code; `oracle` has another one, for plain asyncio."""

    async def run(self, program: Any) -> Any:
        kind, n, *rest = program
        match kind:
            case "seq":
                return [await self.run(child) for child in rest]
            case "gather":
                return list(await asyncio.gather(*map(self.run, rest)))
            case "gather_all":
                found = await asyncio.gather(*map(self.run, rest), return_exceptions=True)
                return ["failed" if isinstance(one, BaseException) else one for one in found]
            case "group":
                async with asyncio.TaskGroup() as group:
                    branches = [group.create_task(self.run(child)) for child in rest]
                return [branch.result() for branch in branches]
            case "within":
                async with asyncio.timeout(LONG_SECONDS):
                    return await self.run(rest[0])
            case "shield":
                return await asyncio.shield(self.run(rest[0]))
            case "deadline":
                return await self.deadline(*rest)
            case "serve":
                return await self.serving(rest[0])
            case "except":
                try:
                    return await self.run(rest[0])
                except Exception:
                    return ["caught", await self.run(rest[1])]
            case "finally":
                try:
                    return await self.run(rest[0])
                finally:
                    await self.run(rest[1])
            case "raise":
                raise KeyError(n)
            case "sleep":
                await asyncio.sleep(rest[0])
                return n
            case "lock":
                lock = asyncio.Lock()

                async def locked(child: Any) -> Any:
                    async with lock:
                        return await self.run(child)

                return list(await asyncio.gather(*map(locked, rest)))
            case _ if kind in RACES:
                return await self.race(kind, n, rest)
        return await self.leaf(kind, n, rest)

    async def deadline(self, seconds: float, inner: Any) -> Any:
        """Something without an end, and a timeout that ends it."""

        async def for_ever() -> None:
            await asyncio.gather(self.run(inner), self.endless(inner[1]))

        try:
            async with asyncio.timeout(seconds):
                await for_ever()
        except TimeoutError:
            return "timed out"

    async def endless(self, n: int) -> Any:
        return await endless(n)

    async def serving(self, inner: Any) -> Any:
        async with served.serve(answer, validator=check_asked):
            return await self.run(inner)

    async def leaf(self, kind: str, n: int, rest: list[Any]) -> Any:
        match kind:
            case "receive":
                await told.receive()
                return n
            case "publish":
                await phase.publish(n)
                await report.publish(n)
                return n
            case "mark":
                durable.set_attributes(last=n, third=n if n % 3 else None)
                return n
            case "kept":
                if (found := await kept(n, *rest))[0] != rest[0]:
                    OUTSIDE.broke("memos", f"{n} wants one of {rest[0]}, and has {found}")
                return n
            case "fresh":
                if (found := await fresh(n, *rest))[0] != rest[0]:
                    OUTSIDE.broke("memos", f"{n} wants one of {rest[0]}, and has {found}")
                return n
            case "handed":
                await handed(n, *rest)
                return n
            case "take":
                received = await asked.receive()
                received.answer(await answering(received.value))
                return n
            case "child":
                return await sim_child.options(parent_close=rest[0])(rest[1])
            case "spawn":
                await durable.start(sim_child.options(parent_close=rest[0])(rest[1]))
                return n
            case "guide":
                return await self.guided(*rest)
            case "halt":
                target, other = rest
                with suppress(RunNotFound, RunEnded):
                    run = durable.run(f"r{target}")
                    await (run.cancel("a run has enough") if other == "cancel" else run.terminate("a run is through"))
                return n
            case "tell":
                with suppress(RunNotFound, RunEnded):
                    await durable.run(f"r{rest[0]}").signal(told, n)
                return n
        return await TASKS[kind](n, *rest)

    async def guided(self, parent_close: Any, program: Any) -> Any:
        """A child, and all that it waits to be told."""
        child = await durable.start(sim_child.options(parent_close=parent_close)(program))
        with suppress(RunEnded):
            for number in range(kinds_of(program).count("receive")):
                await child.signal(told, number)
        return await child.result()

    async def race(self, kind: str, n: int, rest: list[Any]) -> Any:
        match kind:
            case "once":
                return await once(n, *rest)
            case "outage":
                return await outage(n)
            case "timeout":
                async with asyncio.timeout(rest[0]):
                    return await self.run(rest[1])
            case "first":
                branches = [asyncio.create_task(self.run(child)) for child in rest]
                done, pending = await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
                for branch in pending:
                    branch.cancel()
                return ["first", next(branch for branch in branches if branch in done).result()]
            case _:
                branch = asyncio.create_task(self.run(rest[1]))
                await asyncio.sleep(rest[0])
                branch.cancel()
                try:
                    return await branch
                except asyncio.CancelledError:
                    return "cancelled"


@workflow
async def sim(epochs: list[Any], done: list[Any]) -> list[Any]:
    """One program after the other, each in an epoch of its own."""
    done = [*done, await Interpreter().run(epochs[0])]
    if len(epochs) > 1:
        await durable.continue_as_new(sim(epochs[1:], done))
    return done


@workflow
async def sim_child(program: list[Any]) -> Any:
    return await Interpreter().run(program)


WORKFLOWS = (sim, sim_child)


def children_of(program: Any) -> list[Any]:
    return [part for part in program[2:] if isinstance(part, list)]


def given_in(program: Any) -> list[Any]:
    """The programs of all child runs that it starts, and that these start."""
    own = [program[3]] if program[0] in ("child", "spawn", "guide") else []
    return own + [given for child in children_of(program) for given in given_in(child)]


def kinds_of(program: Any) -> list[str]:
    """Of all of its nodes."""
    return [program[0], *(kind for child in children_of(program) for kind in kinds_of(child))]
