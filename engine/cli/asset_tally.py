"""A materializing run in figures: which step is where, folded from the tasks of the run. Pure.

`Making` is a `Watched` that also knows assets. What a step is at is told by which of its tasks is under way, so a run
that another process works on, or that ended long ago, is read like one's own. Steps that have ended in good order are
kept as sums; those under way, failed or skipped one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct, field

from engine import HistoryEvent, RunState, TaskState
from engine.assets import CheckOutcome, Made, Plan, StepRef, reference_text
from engine.cli.tally import Watched

__all__ = ["ENDED", "Making", "NodeTally", "StepStatus", "StepTally", "plan_of", "summed"]

StepStatus: TypeAlias = Literal[
    "waiting", "running", "checking", "publishing", "published", "unchanged", "skipped", "failed"
]
ENDED: Final[tuple[StepStatus, ...]] = ("published", "unchanged", "skipped", "failed")
KEPT_MAX: Final = 1_000
"""Steps that failed, were skipped or have warnings, that are kept one by one."""
_ENDS: Final[Mapping[str, StepStatus]] = {
    "publish": "published",
    "leave": "unchanged",
    "skip": "skipped",
    "fail": "failed",
}
_SECOND: Final = 1_000_000


class StepTally(Struct, kw_only=True):
    """One partition of what one function makes."""

    node: str
    partition: str
    status: StepStatus = "running"
    began_at: int = 0  # microseconds since the epoch
    making_at: int = 0  # when its function began the last time; 0: not yet
    seconds: float = 0.0  # that its function took
    ended_at: int = 0
    attempts: int = 0
    retrying: bool = False
    rows: int | None = None
    size: int | None = None  # bytes
    checks: int = 0  # that were asked
    wrong: tuple[CheckOutcome, ...] = ()  # those that did not pass
    why: str = ""  # it failed
    because: tuple[str, ...] = ()  # it was skipped

    @property
    def title(self) -> str:
        """As messages call it."""
        return reference_text(self.node, self.partition)


class NodeTally(Struct, kw_only=True):
    """All steps of one function. `counts`: of those that have begun, by where they are."""

    node: str
    total: int
    counts: dict[StepStatus, int] = {}
    rows: int | None = None
    size: int | None = None
    seconds: float = 0.0  # that its function took, in all
    longest: float = 0.0
    checks: int = 0
    warnings: int = 0
    under_way: dict[str, StepTally] = {}  # by branch of the run
    began_at: int = 0
    ended_at: int = 0

    @property
    def ended(self) -> int:
        """Steps that have ended, in whatever way."""
        return sum(self.counts.get(each, 0) for each in ENDED)

    @property
    def waiting(self) -> int:
        """Steps that have not begun."""
        return max(0, self.total - self.ended - len(self.under_way))


class _StepArguments(Struct, frozen=True):
    step: StepRef | None = None
    begun: _BegunPart | None = None
    because: tuple[str, ...] = ()
    why: str = ""


class _BegunPart(Struct, frozen=True):
    step: StepRef


class _PlanArguments(Struct, frozen=True):
    plan: Plan


_arguments: Final = msgspec.json.Decoder(_StepArguments)
_made: Final = msgspec.json.Decoder(Made)
_outcome: Final = msgspec.json.Decoder(CheckOutcome)
_plan: Final = msgspec.json.Decoder(_PlanArguments)


class Making(Watched, kw_only=True):
    """A materializing run that a session works on or looks at."""

    plan: Plan | None = None
    nodes: dict[str, NodeTally] = field(default_factory=dict)
    steps: dict[str, StepTally] = field(default_factory=dict)  # under way, by branch
    failed: list[StepTally] = field(default_factory=list)
    skipped: list[StepTally] = field(default_factory=list)
    warned: list[StepTally] = field(default_factory=list)
    ended_before: int = 0  # steps that had ended when the session began
    last: StepTally | None = None  # the one that the last event was about

    @classmethod
    def of(cls, state: RunState, *, now: int, plan: Plan | None = None, store_words: str = "") -> Making:
        """Watch a run from its present state on. `plan`: of one that is to be started."""
        watched = Watched.begin(state, now=now, store_words=store_words)
        plan = plan or plan_of(state)
        nodes: dict[str, NodeTally] = {}
        for step in () if plan is None else plan.steps:
            tally = nodes.setdefault(step.node, NodeTally(node=step.node, total=0))
            tally.total += step.count
        own = {name: getattr(watched, name) for name in Watched.__struct_fields__}
        making = cls(**own, plan=plan, nodes=nodes)
        for task in sorted(state.tasks.values(), key=lambda task: task.scheduled_at):
            making._look(task)
        making.ended_before = sum(each.ended for each in nodes.values())
        return making

    def take(self, recorded: HistoryEvent) -> Mapping[str, Any]:
        """Fold one more event in. Returns its header as a dict with its `type`."""
        header = super().take(recorded)
        if header["type"] == "RunStarted" and self.plan is None:
            self.plan = plan_of(self.state)
        task = self.state.tasks.get(header.get("id", ""))
        self.last = None if task is None else self._look(task)
        return header

    def _look(self, task: TaskState) -> StepTally | None:
        branch = _branch(task.id)
        step = self.steps.get(branch)
        if step is None:
            found = _read(_arguments, task.arguments)
            ref = None if found is None else found.step or (found.begun and found.begun.step)
            if ref is None or (task.name != "begin" and task.name not in _ENDS):
                return None
            step = self.steps[branch] = StepTally(
                node=ref.node, partition=ref.partition, began_at=task.scheduled_at, status="running"
            )
            self._node(step).under_way[branch] = step
        if task.name in _ENDS and task.status == "completed":
            self._end(branch, step, task)
        else:
            _move(step, task)
        return step

    def _node(self, step: StepTally) -> NodeTally:
        node = self.nodes.setdefault(step.node, NodeTally(node=step.node, total=0))
        node.began_at = node.began_at or step.began_at
        return node

    def _end(self, branch: str, step: StepTally, task: TaskState) -> None:
        step.status = status = _ENDS[task.name]
        step.ended_at = task.ended_at or 0
        said = _read(_arguments, task.arguments)
        if said is not None:
            step.why, step.because = said.why, said.because
        node = self._node(step)
        del self.steps[branch], node.under_way[branch]
        node.counts[status] = node.counts.get(status, 0) + 1
        node.ended_at = max(node.ended_at, step.ended_at)
        node.seconds += step.seconds
        node.longest = max(node.longest, step.seconds)
        node.checks += step.checks
        if status == "published":
            node.rows, node.size = summed(node.rows, step.rows), summed(node.size, step.size)
            node.warnings += len(step.wrong)
        kept = {"failed": self.failed, "skipped": self.skipped}.get(status, self.warned if step.wrong else None)
        if kept is not None and len(kept) < KEPT_MAX:
            kept.append(step)

    # -- figures ------------------------------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """Steps of the plan."""
        return sum(each.total for each in self.nodes.values())

    def count(self, *statuses: StepStatus) -> int:
        """Steps that have ended so."""
        return sum(each.counts.get(status, 0) for each in self.nodes.values() for status in statuses)

    def under_way(self, *statuses: StepStatus) -> int:
        """Steps that are at that."""
        return sum(each.status in statuses for each in self.steps.values())


def plan_of(state: RunState) -> Plan | None:
    """The plan that a run was started with; None if its history does not say any more."""
    found = _read(_plan, state.arguments)
    return None if found is None else found.plan


def _move(step: StepTally, task: TaskState) -> None:
    """Where a task that is under way, or has ended, has brought its step."""
    kind = task.name.partition(":")[0]
    done = task.status == "completed"
    if kind == "asset":
        step.status = "running"
        step.attempts, step.retrying = task.attempts, task.status == "retrying"
        step.making_at = task.started_at or step.making_at
        if done:
            step.seconds = ((task.ended_at or 0) - step.making_at) / _SECOND
            _take_made(step, task)
    elif kind == "check":
        step.status = "checking"
        outcome = _read(_outcome, task.result) if done else None
        if outcome is not None:
            step.checks += 1
            if not outcome.passed:
                step.wrong = (*step.wrong, outcome)
    elif kind in ("publish", "leave", "fail"):
        step.status = "publishing"


def _take_made(step: StepTally, task: TaskState) -> None:
    made = _read(_made, task.result)
    for out in () if made is None else made.outs:
        if out.stored is not None:
            step.rows, step.size = summed(step.rows, out.stored.rows), summed(step.size, out.stored.size)


def _branch(id_: str) -> str:
    """Which branch of the run a task was called in: the second name in its id, behind the workflow's."""
    return [*id_.split("/", 2), ""][1]


def summed(one: int | None, other: int | None) -> int | None:
    """The sum of what is known; None if nothing is."""
    return one if other is None else other if one is None else one + other


def _read(decoder: msgspec.json.Decoder[Any], data: bytes | None) -> Any:
    """What it says; None for what was destroyed, or is of a later version."""
    try:
        return None if data is None else decoder.decode(data)
    except (ValueError, RecursionError):
        return None
