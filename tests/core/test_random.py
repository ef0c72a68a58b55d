"""Random workflows from a small grammar, in random worlds, crashed at random events; plain asyncio is the oracle.

A program is data (nested tuples); one workflow interprets it. Its calls are of one task, told apart by a serial number
in their arguments, so a result that went to the wrong place shows. Programs log what they see, and return the log.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Signal, task, workflow
from tests.core.harness import World, check_crashes, ending, executions, option_of, play, seeded, signal
from tests.core.oracle import on_plain_asyncio


@task
async def step(n: int) -> int:
    if n % 7 == 6:
        raise ValueError(n)
    return n * 10


sent = Signal("sent", int)

Program = list[Any]
"""A tree as JSON: ``["seq", p, q]``, ``["call"]``, ``["gather", p, q]``, ..."""

LEAVES = st.sampled_from([["call"], ["call"], ["call"], ["receive"], ["sleep"], ["yield"], ["raise"]])


def nodes(children: st.SearchStrategy[Program]) -> st.SearchStrategy[Program]:
    some = st.lists(children, min_size=1, max_size=3)
    return st.one_of(
        some.map(lambda ps: ["seq", *ps]),
        some.map(lambda ps: ["gather", *ps]),
        some.map(lambda ps: ["gather_all", *ps]),
        some.map(lambda ps: ["group", *ps]),
        some.map(lambda ps: ["wait_first", *ps]),
        some.map(lambda ps: ["completed", *ps]),
        children.map(lambda p: ["timeout", p]),
        children.map(lambda p: ["wait_for", p]),
        children.map(lambda p: ["shield", p]),
        st.tuples(children, children).map(lambda ps: ["finally", *ps]),
        st.tuples(children, children).map(lambda ps: ["except", *ps]),
        st.tuples(children, children).map(lambda ps: ["cancel", *ps]),
        st.tuples(children, children).map(lambda ps: ["lock", *ps]),
    )


PROGRAMS = st.recursive(LEAVES, nodes, max_leaves=20)


def seconds(kind: int, number: int) -> float:
    """Deadlines that (nearly) never meet: plain asyncio fires all timers of one moment in one iteration, we one by one."""
    return kind + number * 0.37 + (number * number * 7 + kind) * 1e-6


class Interpreter:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.lock = asyncio.Lock()
        self.serial = 0

    def numbered(self, program: Program) -> Program:
        """Calls and sleeps get their numbers before anything runs, so that they do not depend on the order of things."""
        self.serial += 1
        return [program[0], self.serial, *[self.numbered(child) for child in program[1:]]]

    async def run(self, program: Program) -> Any:
        kind, number, *children = program
        match kind:
            case "call":
                got = await step(number)
                self.log.append(f"{number} got {got}")
                return got
            case "receive":
                try:
                    async with asyncio.timeout(seconds(5, number)):
                        value = await sent.receive()
                except TimeoutError:
                    value = -1
                self.log.append(f"{number} received {value}")
                return value
            case "sleep":
                await asyncio.sleep(seconds(1, number))
                self.log.append(f"{number} woke")
            case "yield":
                await asyncio.sleep(0)
            case "raise":
                raise KeyError(number)
            case "seq":
                return [await self.run(child) for child in children]
            case "gather":
                return list(await asyncio.gather(*map(self.run, children)))
            case "gather_all":
                return [str(x) for x in await asyncio.gather(*map(self.run, children), return_exceptions=True)]
            case "group":
                async with asyncio.TaskGroup() as group:
                    branches = [group.create_task(self.run(child)) for child in children]
                return [branch.result() for branch in branches]
            case "wait_first":
                return await self.wait_first(children)
            case "completed":
                return [await earliest for earliest in asyncio.as_completed([self.task(c) for c in children])]
            case "timeout":
                async with asyncio.timeout(seconds(2, number)):
                    return await self.run(children[0])
            case "wait_for":
                return await asyncio.wait_for(self.run(children[0]), seconds(3, number))
            case "shield":
                return await asyncio.shield(self.run(children[0]))
            case _:
                return await self.guarded(kind, number, *children)
        return None

    async def guarded(self, kind: str, number: int, one: Program, other: Program) -> Any:
        match kind:
            case "finally":
                try:
                    return await self.run(one)
                finally:
                    self.log.append(f"{number} finally")
                    await self.run(other)
            case "except":
                try:
                    return await self.run(one)
                except Exception as error:
                    self.log.append(f"{number} caught {type(error).__name__}")
                    return await self.run(other)
            case "cancel":
                branch = self.task(one)
                try:
                    return await self.run(other)
                finally:
                    branch.cancel()
                    self.log.append(f"{number} cancelled {branch.done()}")
            case "lock":
                async with self.lock:
                    self.log.append(f"{number} in")
                    first = await self.run(one) if one[0] in ("call", "sleep", "yield") else None
                return [first, await self.run(other)]
        raise AssertionError(kind)

    def task(self, program: Program) -> asyncio.Task[Any]:
        return asyncio.create_task(self.run(program))

    async def wait_first(self, children: list[Program]) -> Any:
        branches = [self.task(child) for child in children]
        done, pending = await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
        found = [str(b.exception() or b.result()) if not b.cancelled() else "cancelled" for b in branches if b in done]
        for branch in branches:
            if branch in pending:
                branch.cancel()
        return found


@workflow
async def interprets(program: Program) -> list[Any]:
    interpreter = Interpreter()
    try:
        result = await interpreter.run(interpreter.numbered(program))
    except Exception as error:
        result = type(error).__name__
    return [str(result), *interpreter.log]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    PROGRAMS,
    st.integers(0, 10_000),
    st.sampled_from(["idle", "any"]),
    st.lists(st.integers(0, 6), max_size=1),
    st.integers(0, 4),
    st.data(),
)
def test_a_crash_changes_nothing_and_plain_asyncio_agrees(
    program: Program, seed: int, timers: Any, cancel_at: list[int], signals: int, data: st.DataObject
) -> None:
    mail = signal("sent", *map(str, range(signals)))
    world = World(interprets(program), seeded(seed), timers, tuple(cancel_at), mail=mail)
    history = play(world)
    count = data.draw(st.integers(1, 4))
    boundaries = data.draw(
        st.lists(st.integers(1, len(history)), min_size=count, max_size=count, unique=True)
        if len(history) >= count
        else st.just([1])
    )
    check_crashes(world, history, boundaries=boundaries)
    plain = on_plain_asyncio(replace(world, widths=[]), ordered=True)
    assert ending(history) == plain.ending
    calls = [option_of("step", args or b"") for args in executions(history).values()]
    assert sorted(calls) == plain.calls
