"""Given, when, then: a run's history is told by hand, and what the workflow decides is looked at. Pure, and quick.

run = given(order("ann"))
run.then(charge("ann"))
run.task(charge).returns("paid")
run.signal(approve, True)
run.then(ship("ann"))
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Generic, ParamSpec, TypeVar, overload

from engine import Call, HistoryEvent, LargeValues, Rehearsal, Request, Signal, Task, Workflow
from engine.errors import HoldfastError
from engine.testing.clock import START, as_datetime, microseconds
from engine.testing.events import Pattern, pattern_of, scheduled
from engine.testing.fakes import bound
from engine.testing.histories import History, Seen

__all__ = ["Given", "GivenCall", "given"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
A = TypeVar("A")

_ALWAYS: Final = frozenset(
    {"TaskScheduled", "TaskCancelled", "ChildStarted", "ChildCancelled", "MessageSent", "ContinuedAsNew"}
    | {"RunCompleted", "RunFailed", "RunCancelled"}
)
"""Decisions that `then` wants to be named; timers, and what is published, only if any of their kind is."""


class GivenCall(Generic[R]):
    """A task call, or a child run, that the workflow waits for: say how it ended."""

    def __init__(self, run: Given, id: str) -> None:  # noqa: A002 - the word for it
        self.id = id
        self._run = run

    def returns(self, value: R) -> Given:
        """It ended with this result. Raises `NotRecordable` for one that is not of its type."""
        return self._run._told(self._run.rehearsal.completed(self.id, value))

    def raises(self, error: BaseException | type[BaseException]) -> Given:
        """It failed for good."""
        made = error() if isinstance(error, type) else error
        return self._run._told(self._run.rehearsal.failed(self.id, made))


class Given:
    """A run whose history is told by hand. What tells something returns the run itself, so that it can go on."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self.rehearsal = rehearsal
        self._decided: Sequence[HistoryEvent] = rehearsal.began

    # -- given, when ---------------------------------------------------------------------------------------------------

    @overload
    def task(self, task: Task[..., R], *, number: int = 1) -> GivenCall[R]: ...
    @overload
    def task(self, task: Call[R], *, number: int = 1) -> GivenCall[R]: ...
    def task(self, task: Task[..., R] | Call[R], *, number: int = 1) -> GivenCall[R]:
        """A call that the workflow waits for: of a task, or of one with just these arguments; the first, or `number`.

        Raises `HoldfastError` when it waits for no such call.
        """
        return self._waited_for(task, number)

    @overload
    def child(self, workflow: Workflow[..., R], *, number: int = 1) -> GivenCall[R]: ...
    @overload
    def child(self, workflow: Call[R], *, number: int = 1) -> GivenCall[R]: ...
    def child(self, workflow: Workflow[..., R] | Call[R], *, number: int = 1) -> GivenCall[R]:
        """A child run that the workflow has started and that has not ended; likewise."""
        return self._waited_for(workflow, number)

    def signal(self, signal: Signal[T], value: T) -> Given:
        """A signal arrived. Raises `NotRecordable` for a value that is not of its type."""
        return self._told(self.rehearsal.signal(signal, value))

    def request(self, request: Request[A, Any], argument: A) -> Given:
        """A request was accepted. Raises `HoldfastError` for one that the workflow refuses, or does not serve."""
        return self._told(self.rehearsal.request(request, argument))

    def cancel(self, reason: str = "") -> Given:
        """Somebody wants the run to end."""
        return self._told(self.rehearsal.cancel(reason))

    def time(self, *, days: float = 0.0, hours: float = 0.0, minutes: float = 0.0, seconds: float = 0.0) -> Given:
        """So much time passed: the timers that became due fired, in their order.

        Raises `HoldfastError` when none became due: a workflow is told of time by its timers only.
        """
        span = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        end = self.rehearsal.now + span // timedelta(microseconds=1)
        decided: list[HistoryEvent] = []
        fired = False
        while not self.rehearsal.ended:
            due = [each for each in self.rehearsal.pending() if each.deadline is not None and each.deadline <= end]
            if not due:
                break
            decided += self.rehearsal.fired(due[0].id)
            fired = True
        if not fired:
            raise HoldfastError(f"no timer is due by {as_datetime(end)}, so that the workflow is told of nothing")
        return self._told(decided)

    # -- then ----------------------------------------------------------------------------------------------------------

    @property
    def history(self) -> History:
        """All of it, facts and decisions."""
        return History(self.rehearsal.history)

    @property
    def decided(self) -> list[Seen]:
        """What the workflow decided when it was last told something."""
        first = {item.version for item in self._decided}
        return [seen for seen in self.history if seen.version in first]

    def decides(self, what: Pattern | Task[..., Any] | Workflow[..., Any] | Call[Any]) -> bool:
        """Whether the workflow, when it was last told something, decided that (among other things)."""
        pattern = pattern_of(what)
        return any(pattern.matches(seen) for seen in self.decided)

    def then(self, *expected: Pattern | Task[..., Any] | Workflow[..., Any] | Call[Any]) -> Given:
        """Assert what the workflow decided when it was last told something: just these, in any order.

        A task, a workflow or a call is one that was scheduled; `engine.testing.events` has names for the others.
        Timers, and what was published and answered, need not be named if none of their kind is. Raises
        `AssertionError`, with both in two columns.
        """
        patterns = [pattern_of(each, scheduled) for each in expected]
        types = _ALWAYS.union(*(pattern.types for pattern in patterns))
        left = [seen for seen in self.decided if seen.type in types]
        rows: list[tuple[str, str]] = []
        missing: list[Pattern] = []
        for pattern in patterns:
            found = next((seen for seen in left if pattern.matches(seen)), None)
            if found is None:
                missing.append(pattern)
            else:
                left.remove(found)
                rows.append((pattern.text, _with_site(found)))
        if missing or left:
            longest = max(len(missing), len(left))
            rows += [
                (
                    f"! {missing[index].text}" if index < len(missing) else "! (nothing)",
                    _with_site(left[index]) if index < len(left) else "(nothing)",
                )
                for index in range(longest)
            ]
            raise AssertionError(
                f"the workflow decided otherwise\n{_columns(rows)}\nin the history\n{self.history.text()}"
            )
        return self

    # -- inside --------------------------------------------------------------------------------------------------------

    def _told(self, decided: Sequence[HistoryEvent]) -> Given:
        self._decided = decided
        return self

    def _waited_for(self, what: Any, number: int) -> GivenCall[Any]:
        if isinstance(what, Call):
            what.take()
            definition: Any = what.definition
            wanted = bound(definition, what.args, dict(what.kwargs))
        else:
            definition, wanted = what, None
        fitting = [
            each
            for each in self.rehearsal.pending()
            if each.definition is not None
            and each.definition.name == definition.name
            and (
                wanted is None
                or bound(definition, *definition.arguments.decode(each.arguments or b"{}", LargeValues.carriage))
                == wanted
            )
        ]
        if number > len(fitting):
            waited_for = "\n".join(f"  {each.id}" for each in self.rehearsal.pending()) or "  nothing"
            with_ = "" if wanted is None else f" with {wanted}"
            raise HoldfastError(
                f"the workflow waits for {len(fitting)} calls of {definition.where}{with_}, not for {number}; it waits"
                f" for\n{waited_for}\nin the history\n{self.history.text()}"
            )
        return GivenCall(self, fitting[number - 1].id)


def given(call: Call[Any], *, at: datetime = START) -> Given:
    """A run of this call that has just begun, at this time.

    As in ``run = given(order("ann"))``.

    No engine, no store, no task: only the workflow's code, and what it is told. Raises `HoldfastError` for what is no
    call of a workflow.
    """
    return Given(Rehearsal(call, at=microseconds(at)))


def _with_site(seen: Seen) -> str:
    return f"{seen.text()}  at {seen.site}" if seen.site else seen.text()


def _columns(rows: Sequence[tuple[str, str]]) -> str:
    shown = [("expected", "decided"), *rows]
    width = max(len(left) for left, _ in shown)
    return "\n".join(f"  {left:<{width}}  |  {right}" for left, right in shown)
