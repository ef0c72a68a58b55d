"""The workflow that makes what is planned: a branch for each partition of each function, parallel as the graph allows.

A branch waits for those upstream of it, and then calls tasks: one that pins what is read and says whether anything is
to be made at all, the asset's own, one for each check, and one that publishes. So a run that is killed at any moment
goes on from its log, a value that was written and not yet published is found again by its content, and what did not
change stops the wave where it did not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final, get_args

from msgspec import Struct, structs

from engine import Task, Workflow, workflow
from engine.assets.events import CheckOutcome
from engine.assets.expanding import Steps, expand
from engine.assets.plans import Begun, Made, Outcome, Plan, Report, StepRef
from engine.assets.troubles import told
from engine.errors import MaterializationFailed

__all__ = ["MATERIALIZE", "NAMED_MAX", "Hands", "materialize_workflow"]

MATERIALIZE: Final = "materialize"
"""The workflow's name."""
AT_ONCE: Final = 1_000
"""Steps that are under way at once; those that wait for what is upstream of them do not count."""
WATCHED_MAX: Final = 500
"""Steps that one look at another run asks about."""
NAMED_MAX: Final = 50
"""Steps that a report names one by one, of those that failed and of those that were skipped."""
_ORDER: Final[tuple[Outcome, ...]] = get_args(Outcome)


class Hands(Struct, frozen=True, kw_only=True, eq=False):
    """The tasks that do what the workflow decides."""

    begin: Task[[StepRef], Begun]
    watch: Task[[str, tuple[StepRef, ...]], tuple[str, ...]]
    make: Mapping[str, Task[[Begun], Made]]  # by node
    check: Mapping[str, tuple[Task[[Begun, Made], CheckOutcome], ...]]  # by node
    publish: Task[[Begun, Made, tuple[CheckOutcome, ...]], int]
    fail: Task[[Begun, tuple[CheckOutcome, ...], str], int]
    leave: Task[[Begun], int]
    skip: Task[[StepRef, tuple[str, ...]], int]


def materialize_workflow(hands: Hands, nodes: Any) -> Workflow[[Plan], Report]:
    """The workflow for these definitions; `nodes`: see `expanding.expand`."""
    make = dict(hands.make)  # named by the workflow, so that an engine knows their limits and executors when it opens

    @workflow(name=MATERIALIZE)
    async def materialize(plan: Plan) -> Report:
        """Make what is planned. Raises `MaterializationFailed` at the end if anything failed."""
        return await Materializing(hands, make, expand(nodes, plan)).all()

    return materialize


class Others:
    """Other runs that make what this one is to make: one branch watches each, however many steps wait for it."""

    def __init__(self, watch: Task[[str, tuple[StepRef, ...]], tuple[str, ...]], group: asyncio.TaskGroup) -> None:
        self._watch = watch
        self._group = group
        self._waiting: dict[str, dict[str, tuple[StepRef, asyncio.Event]]] = {}  # by run, by title

    async def free(self, title: str, step: StepRef, run: str) -> None:
        """Returns when that run no longer makes the step, or cannot go on with it by itself."""
        crowd = self._waiting.setdefault(run, {})
        event = asyncio.Event()
        crowd[title] = StepRef(node=step.node, partition=step.partition, environment=step.environment), event
        if len(crowd) == 1:
            self._group.create_task(self._look(run, crowd), name=f"wait for {run}")
        await event.wait()

    async def _look(self, run: str, crowd: dict[str, tuple[StepRef, asyncio.Event]]) -> None:
        while crowd:
            steps = tuple(step for step, _ in islice(crowd.values(), WATCHED_MAX))
            for title in await self._watch(run, steps):
                crowd.pop(title)[1].set()


class Materializing:
    """One run of it."""

    def __init__(self, hands: Hands, make: Mapping[str, Task[[Begun], Made]], steps: Steps) -> None:
        self.hands = hands
        self.make = make
        self.steps = steps
        self.ended = {title: asyncio.Event() for title in steps}
        self.outcomes: dict[str, Outcome] = {}
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.warnings: dict[str, tuple[CheckOutcome, ...]] = {}
        self.room = asyncio.Semaphore(AT_ONCE)
        self.busy: dict[str, str] = {}
        self.others: Others

    async def all(self) -> Report:
        """Make all steps. Raises `MaterializationFailed`."""
        async with asyncio.TaskGroup() as group:
            self.others = Others(self.hands.watch, group)
            for title in self.steps:
                group.create_task(self._step(title), name=title)
        report = self._report()
        if self.failed:
            raise MaterializationFailed(_summary(report, self.failed))
        return report

    async def _step(self, title: str) -> None:
        step, upstream = self.steps[title]
        for other in upstream:
            await self.ended[other].wait()
        because = tuple(other for other in upstream if self.outcomes[other] in ("failed", "skipped"))
        while title not in self.outcomes:
            async with self.room:
                outcome = await self._skip(title, step, because) if because else await self._make(title, step)
            if outcome is None:
                await self.others.free(title, step, self.busy.pop(title))
            else:
                self.outcomes[title] = outcome
        self.ended[title].set()

    async def _make(self, title: str, step: StepRef) -> Outcome | None:
        """How it ended; None: another run is making it."""
        try:
            begun = await self.hands.begin(step)
        except Exception as error:
            return await self._fail(title, Begun(step=step, provenance="", code_version=""), (), told(error))
        if begun.busy:
            self.busy[title] = begun.busy
            return None
        if begun.missing:
            return await self._skip(title, step, begun.missing)
        if begun.unchanged:
            await self.hands.leave(begun.brief)
            return "unchanged"
        try:
            made = await self.make[step.node](begun)
            found = tuple(await asyncio.gather(*(check(begun, made) for check in self.hands.check[step.node])))
        except Exception as error:
            return await self._fail(title, begun, (), told(error))
        wrong = [each for each in found if not each.passed]
        if blocking := [each for each in wrong if each.severity == "blocking"]:
            names = ", ".join(f"{each.name} ({each.error or each.description or 'did not pass'})" for each in blocking)
            return await self._fail(title, begun, found, f"checks did not pass: {names}")
        if wrong:
            self.warnings[title] = tuple(structs.replace(each, rows=(), metadata={}) for each in wrong)
        await self.hands.publish(begun.brief, made, found)
        return "published"

    async def _fail(self, title: str, begun: Begun, found: tuple[CheckOutcome, ...], why: str) -> Outcome:
        await self.hands.fail(begun.brief, found, why)
        self.failed[title] = why
        return "failed"

    async def _skip(self, title: str, step: StepRef, because: tuple[str, ...]) -> Outcome:
        named = because[:NAMED_MAX]
        await self.hands.skip(step, named)
        self.skipped[title] = ", ".join(named)
        return "skipped"

    def _report(self) -> Report:
        counts: dict[str, int] = {}
        nodes: dict[str, dict[str, int]] = {}
        for title, (step, _) in self.steps.items():
            outcome = self.outcomes[title]
            counts[outcome] = counts.get(outcome, 0) + 1
            of_node = nodes.setdefault(step.node, {})
            of_node[outcome] = of_node.get(outcome, 0) + 1
        return Report(
            counts=counts,
            nodes=nodes,
            failed=_first(self.failed),
            skipped=_first(self.skipped),
            warnings=_first(self.warnings),
        )


def _first(found: Mapping[str, Any]) -> dict[str, Any]:
    return {title: found[title] for title in sorted(found)[:NAMED_MAX]}


def _summary(report: Report, failed: Mapping[str, str]) -> str:
    counted = ", ".join(f"{report.counts[outcome]} {outcome}" for outcome in _ORDER if outcome in report.counts)
    lines = "".join(f"\n  {title}: {why}" for title, why in report.failed.items())
    more = f"\n  and {len(failed) - len(report.failed)} more" if len(failed) > len(report.failed) else ""
    return f"{counted}; failed:{lines}{more}"
