"""The workflows of these tests: a register, and the tasks that they call.

Branches of one workflow call tasks of the same name, told apart by their arguments only; results are a function of the
arguments, so that a swapped result shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from engine.core.call import Call
from engine.tasks import task
from engine.workflows import Workflow, workflow
from tests.core.harness import Mail, Pick, World, first


class Declined(Exception):
    """A user's exception, declared by the task that raises it."""


@task
async def work(label: str, n: int = 0) -> str:
    return f"{label}:{n}"


@task(raises=(Declined,))
def fail(label: str) -> str:
    raise Declined(label)


@task
async def undo(label: str) -> str:
    return f"undone {label}"


@task(on_cancel="wait")
async def charge(label: str) -> str:
    return f"charged {label}"


@task(on_cancel="wait", name="fail_charge")
async def fail_charge(label: str) -> str:
    raise ValueError(label)


Plain = Literal["alike", "sorted", "never"]
"""Whether plain asyncio, under the same schedule, ends alike; "sorted": but for an order that is by address there."""


@dataclass(frozen=True)
class Case:
    """A workflow, its arguments, and how much of its world is tried."""

    definition: Workflow[..., Any]
    args: tuple[Any, ...]
    limit: int  # schedules, depth first; those left out are sampled by seed
    timers: Literal["idle", "any"]
    cancels: bool  # whether it is cancelled at every point
    plain: Plain
    mail: tuple[Mail, ...] = ()
    deadline: int = 0

    @property
    def name(self) -> str:
        return self.definition.name

    def world(self, pick: Pick = first, **more: Any) -> World:
        call: Call[Any] = self.definition(*self.args)
        return World(call, pick, self.timers, mail=self.mail, deadline=self.deadline, **more)


CASES: dict[str, Case] = {}


def case(
    *args: Any,
    limit: int = 120,
    timers: Literal["idle", "any"] = "idle",
    cancels: bool = True,
    plain: Plain = "alike",
    mail: tuple[Mail, ...] = (),
    deadline: int = 0,
) -> Callable[[Any], Workflow[..., Any]]:
    def register(fn: Any) -> Workflow[..., Any]:
        definition = workflow(fn)
        assert definition.name not in CASES
        CASES[definition.name] = Case(definition, args, limit, timers, cancels, plain, mail, deadline)
        return definition

    return register
