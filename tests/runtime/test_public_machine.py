"""The engine as its users hold it, against a model of a few lines: start, signal, cancel, pause, unpause, reopen, fork at
the beginning, restart, crash, and time that passes, in any order.

`HOLDFAST_TEST_EVERY=1` has it go through a hundred times as many histories.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from engine import Signal, task, workflow
from engine.errors import RepairRefused, RunEnded
from engine.testing import Lab

add = Signal("add", int)
RUNS_MAX = 4


@task
async def plus(total: int, value: int) -> int:
    return total + value


@workflow
async def adding() -> int:
    """Adds what it is told, resting for as many seconds as that; zero ends it."""
    total = 0
    while (value := await add.receive()) != 0:
        total = await plus(total, value)
        await asyncio.sleep(value)
    return total


@dataclass
class Model:
    """What one run must be."""

    status: str = "running"
    total: int = 0
    waiting: list[int] = field(default_factory=list)
    rests_until: int | None = None  # seconds since the lab's start
    is_fork: bool = False

    def goes_on(self, now: int) -> None:
        """What happens until `now`, one thing after the other."""
        while self.status == "running":
            if self.rests_until is not None:
                if self.rests_until > now:
                    return
                self.rests_until = None
            if not self.waiting:
                return
            value = self.waiting.pop(0)
            if value == 0:
                self.status = "completed"
            else:
                self.total += value
                self.rests_until = now + value

    def passes(self, now: int, until: int) -> None:
        """Time passes."""
        while self.status == "running" and self.rests_until is not None and self.rests_until <= until:
            now = max(now, self.rests_until)
            self.goes_on(now)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.lab = Lab(adding)
        self.do(self.lab.open())
        self.models: dict[str, Model] = {}
        self.now = 0

    def do(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def settle(self) -> None:
        self.do(self.lab.settle())

    def any(self, chosen: int, *statuses: str) -> str | None:
        """One of the runs that are so."""
        found = [id_ for id_, model in self.models.items() if model.status in statuses]
        return found[chosen % len(found)] if found else None

    @precondition(lambda self: len(self.models) < RUNS_MAX)
    @rule()
    def start(self) -> None:
        id_ = f"r{len(self.models)}"
        self.do(self.lab.start(adding(), id=id_))
        self.models[id_] = Model()

    @rule(chosen=st.integers(0, 9))
    def start_again(self, chosen: int) -> None:
        id_ = self.any(chosen, "running", "paused", "completed", "cancelled")
        if id_ is not None:
            self.do(self.lab.start(adding(), id=id_))  # the same run

    @rule(chosen=st.integers(0, 9), value=st.sampled_from((1, 2, 5, 0)))
    def signal(self, chosen: int, value: int) -> None:
        id_ = self.any(chosen, "running", "paused", "completed", "cancelled")
        if id_ is None:
            return
        model = self.models[id_]
        try:
            self.do(self.lab.engine.run(id_).signal(add, value))
        except RunEnded:
            assert model.status in ("completed", "cancelled")
            return
        assert model.status in ("running", "paused")
        self.settle()
        model.waiting.append(value)
        model.goes_on(self.now)

    @rule(chosen=st.integers(0, 9))
    def cancel(self, chosen: int) -> None:
        id_ = self.any(chosen, "running", "completed")
        if id_ is not None:
            self.do(self.lab.engine.run(id_).cancel())
            self.settle()
            if self.models[id_].status == "running":
                self.models[id_].status = "cancelled"

    @rule(chosen=st.integers(0, 9))
    def pause(self, chosen: int) -> None:
        id_ = self.any(chosen, "running")
        if id_ is not None:
            self.do(self.lab.engine.run(id_).pause())
            self.settle()
            self.models[id_].status = "paused"

    @rule(chosen=st.integers(0, 9))
    def unpause(self, chosen: int) -> None:
        id_ = self.any(chosen, "paused")
        if id_ is not None:
            self.do(self.lab.engine.run(id_).unpause())
            self.settle()
            self.models[id_].status = "running"
            self.models[id_].goes_on(self.now)

    @rule(chosen=st.integers(0, 9))
    def reopen(self, chosen: int) -> None:
        id_ = self.any(chosen, "cancelled")
        if id_ is not None:
            self.do(self.lab.engine.reopen(id_))
            self.settle()
            self.models[id_].status = "running"
            self.models[id_].goes_on(self.now)

    @precondition(lambda self: len(self.models) < RUNS_MAX)
    @rule(chosen=st.integers(0, 9))
    def fork_at_its_beginning(self, chosen: int) -> None:
        origin = self.any(chosen, "running", "paused", "completed", "cancelled")
        if origin is not None:
            id_ = f"r{len(self.models)}"
            try:
                self.do(self.lab.engine.fork(origin, at=1, id=id_))
            except RepairRefused:
                assert self.models[origin].is_fork  # its beginning is its origin's
                return
            assert not self.models[origin].is_fork
            self.settle()
            self.models[id_] = Model(is_fork=True)

    @rule(seconds=st.sampled_from((1, 3, 10)))
    def pass_time(self, seconds: int) -> None:
        self.do(self.lab.turn(seconds=seconds))
        for model in self.models.values():
            model.passes(self.now, self.now + seconds)
        self.now += seconds

    @rule()
    def restart(self) -> None:
        self.do(self.lab.close())
        self.do(self.lab.open())
        self.settle()

    @rule()
    def crash(self) -> None:
        self.do(self.lab.crash())
        self.settle()

    @invariant()
    def every_run_is_as_the_model_says(self) -> None:
        for id_, model in self.models.items():
            run = self.lab.engine.run(id_)
            assert self.do(run.status()) == model.status, id_
            if model.status == "completed":
                assert self.do(run.result()) == model.total
            state = self.do(run.state())
            done = sum(each.status == "completed" for each in state.tasks.values())
            events = [each for each in self.do(_events(run)) if type(each.event).__name__ == "TaskCompleted"]
            assert done == len(events) == len({each.event.id for each in events})  # none ran to its end twice

    def teardown(self) -> None:
        self.do(self.lab.close())
        self.do(self.lab.memory.aclose())
        self.loop.close()


async def _events(run):
    return [each async for each in run.events()]


def test_the_engine_does_what_the_model_does() -> None:
    many = 100 if os.environ.get("HOLDFAST_TEST_EVERY") else 1
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=20 * many,
            stateful_step_count=25,
            deadline=None,
            database=None,
            derandomize=many == 1,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        ),
    )
