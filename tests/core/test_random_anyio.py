"""Random workflows of anyio's task groups and scopes, as `test_random.py` has them of asyncio's.

What anyio adds is level cancellation: a cancelled scope cancels every await in it until it is left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import workflow
from tests.core.harness import World, check_crashes, ending, executions, option_of, play, seeded
from tests.core.oracle import on_plain_asyncio
from tests.core.test_random import LEAVES, Program, seconds, step


def nodes(children: st.SearchStrategy[Program]) -> st.SearchStrategy[Program]:
    some = st.lists(children, min_size=1, max_size=3)
    return st.one_of(
        some.map(lambda ps: ["seq", *ps]),
        some.map(lambda ps: ["group", *ps]),
        some.map(lambda ps: ["cancelled group", *ps]),
        some.map(lambda ps: ["started", *ps]),
        children.map(lambda p: ["move_on_after", p]),
        children.map(lambda p: ["fail_after", p]),
        children.map(lambda p: ["shielded", p]),
        children.map(lambda p: ["swallow", p]),
        st.tuples(children, children).map(lambda ps: ["finally", *ps]),
        st.tuples(children, children).map(lambda ps: ["except", *ps]),
        st.tuples(children, children).map(lambda ps: ["limited", *ps]),
    )


PROGRAMS = st.recursive(LEAVES, nodes, max_leaves=12)


class Interpreter:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.limiter = anyio.CapacityLimiter(1)
        self.serial = 0

    def numbered(self, program: Program) -> Program:
        self.serial += 1
        return [program[0], self.serial, *[self.numbered(child) for child in program[1:]]]

    async def run(self, program: Program) -> None:
        kind, number, *children = program
        match kind:
            case "call":
                self.log.append(f"{number} got {await step(number)}")
            case "sleep":
                await anyio.sleep(seconds(1, number))
                self.log.append(f"{number} woke")
            case "yield":
                await anyio.lowlevel.checkpoint()
            case "raise":
                raise KeyError(number)
            case "seq":
                for child in children:
                    await self.run(child)
            case "group":
                async with anyio.create_task_group() as group:
                    for child in children:
                        group.start_soon(self.run, child)
            case "cancelled group":
                async with anyio.create_task_group() as group:
                    for child in children:
                        group.start_soon(self.run, child)
                    await step(number)
                    group.cancel_scope.cancel()
                self.log.append(f"{number} caught {group.cancel_scope.cancelled_caught}")
            case "started":
                async with anyio.create_task_group() as group:
                    for child in children:
                        await group.start(self.service, child)
                        self.log.append(f"{number} started")
            case "move_on_after":
                with anyio.move_on_after(seconds(2, number)) as scope:
                    await self.run(children[0])
                self.log.append(f"{number} caught {scope.cancelled_caught}")
            case "fail_after":
                with anyio.fail_after(seconds(3, number)):
                    await self.run(children[0])
            case "shielded":
                with anyio.CancelScope(shield=True):
                    await self.run(children[0])
            case _:
                await self.guarded(kind, number, *children)

    async def service(self, program: Program, *, task_status: Any) -> None:
        await step(program[1])
        task_status.started()
        await self.run(program)

    async def guarded(self, kind: str, number: int, one: Program, other: Program | None = None) -> None:
        match kind:
            case "swallow":
                try:
                    await self.run(one)
                except anyio.get_cancelled_exc_class():
                    self.log.append(f"{number} told")
                    await anyio.lowlevel.checkpoint()
            case "finally":
                try:
                    await self.run(one)
                finally:
                    self.log.append(f"{number} finally")
                    assert other is not None
                    await self.run(other)
            case "except":
                try:
                    await self.run(one)
                except Exception as error:
                    self.log.append(f"{number} caught {type(error).__name__}")
                    assert other is not None
                    await self.run(other)
            case "limited":
                async with self.limiter:
                    self.log.append(f"{number} in")
                    await step(number)
                assert other is not None
                await self.run(one)
                await self.run(other)


@workflow
async def interprets_anyio(program: Program) -> list[Any]:
    interpreter = Interpreter()
    try:
        await interpreter.run(interpreter.numbered(program))
    except Exception as error:
        interpreter.log.append(type(error).__name__)
    return interpreter.log


def check(world: World, boundaries: list[int]) -> None:
    history = play(world)
    check_crashes(world, history, boundaries=[1 + at % len(history) for at in boundaries])
    plain = on_plain_asyncio(replace(world, widths=[]), ordered=True)
    assert ending(history) == plain.ending
    calls = [option_of("step", args or b"") for args in executions(history).values()]
    assert sorted(calls) == plain.calls


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    PROGRAMS,
    st.integers(0, 10_000),
    st.sampled_from(["idle", "any"]),
    st.lists(st.integers(0, 6), max_size=1),
    st.lists(st.integers(0, 1_000), min_size=1, max_size=4),
)
def test_a_crash_changes_nothing_and_plain_anyio_agrees(
    program: Program, seed: int, timers: Any, cancel_at: list[int], boundaries: list[int]
) -> None:
    check(World(interprets_anyio(program), seeded(seed), timers, tuple(cancel_at)), boundaries)
