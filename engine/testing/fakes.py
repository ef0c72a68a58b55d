"""Fakes for tasks, and a record of every attempt that was made, faked or not.

A fake stands where the task's function would: arguments and results go through the same codecs, a failure is retried
as the task says. Nothing is patched: the engine is handed what stands in (`Engine(stand_in=...)`).
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from inspect import signature
from math import inf
from typing import Any, Final, Generic, ParamSpec, TypeVar

from msgspec import UNSET, Struct, UnsetType

from engine import Call, LargeValues, Task, Workflow, attempt
from engine.errors import HoldfastError
from engine.testing.clock import TurnedClock
from engine.testing.errors import UnfakedTask

__all__ = ["Fake", "Fakes", "TaskCall", "bound", "task_of"]

P = ParamSpec("P")
R = TypeVar("R")
_NOTHING: Final = "nothing"


class TaskCall(Struct, kw_only=True, eq=False):
    """One attempt of a task, as it was made. `key` is the idempotency key: the same for all attempts of one call."""

    task: str
    arguments: dict[str, Any]  # by parameter name, defaults included
    attempt: int  # from 1; attempts that a crash cut off are counted
    key: str
    run: str
    id: str  # of the call in its run, as in "nightly/load~2/extract#1"
    at: int  # microseconds since the epoch
    faked: bool = False
    memoised: bool = False  # its task is: whether there was an attempt at all is no matter
    result: Any = UNSET  # unset: it did not return
    error: BaseException | None = None

    def text(self) -> str:
        """As code: ``load(table='flights')``."""
        return f"{self.task}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


class Fake(Generic[P, R]):
    """What stands in for a task, and what was asked of it: `calls`, one for each attempt."""

    def __init__(self, task: Task[..., R], arguments: dict[str, Any] | None, answer: _Answer) -> None:
        self.task = task
        self.arguments = arguments  # for a call with just these; None: for any
        self.calls: list[TaskCall] = []
        self._answer = answer

    @property
    def keys(self) -> list[str]:
        """Idempotency keys, each once, in the order they came: one for each call that the workflow made."""
        return list(dict.fromkeys(call.key for call in self.calls))

    def matches(self, task: Task[..., Any], arguments: dict[str, Any]) -> bool:
        """Whether it stands in for this call."""
        return self.task.name == task.name and self.arguments in (None, arguments)

    async def run(self, clock: TurnedClock, call: TaskCall, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Answer an attempt."""
        return await self._answer.give(clock, call.attempt, args, kwargs)

    def __repr__(self) -> str:
        return f"<fake of {self.task.where}, {len(self.calls)} attempts>"


class _Answer(Struct):
    """What a fake does."""

    outcomes: tuple[Any, ...] = ()
    side_effect: Callable[..., Any] | None = None
    takes: float = 0.0

    async def give(self, clock: TurnedClock, number: int, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if self.takes:
            await clock.sleep(self.takes)
        if self.side_effect is not None:
            result = self.side_effect(*args, **kwargs)
            return await result if isinstance(result, Awaitable) else result
        outcome = self.outcomes[min(number, len(self.outcomes)) - 1]
        if _is_error(outcome):
            raise _fresh(outcome)
        return outcome


def task_of(task: Task[..., R] | Call[R], what: str) -> tuple[Task[..., R], dict[str, Any] | None]:
    """The task that is meant, and the arguments, if they are: ``load`` or ``load("flights")``.

    Raises `HoldfastError` for what is neither.
    """
    if isinstance(task, Task):
        return task, None
    if isinstance(task, Call) and isinstance(task.definition, Task):
        task.take()
        return task.definition, bound(task.definition, task.args, dict(task.kwargs))
    raise HoldfastError(f"{what} takes a task, or a call of one, not {task!r}")


def bound(task: Task[..., Any] | Workflow[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by parameter name, as an attempt gets them: through their codec, defaults filled in."""
    every = LargeValues.carriage
    args, kwargs = task.arguments.decode(task.arguments.encode(tuple(args), kwargs, every), every)
    found = signature(task).bind(*args, **kwargs)
    found.apply_defaults()
    return dict(found.arguments)


class Fakes:
    """The fakes of one lab, and all attempts that were made in it."""

    def __init__(self, clock: TurnedClock, *, only_fakes: bool, large: bool = False) -> None:
        self.calls: list[TaskCall] = []
        self.problem: Exception | None = None
        self.gate: Callable[[TaskCall], Awaitable[None]] | None = None  # awaited before an attempt does anything
        self.on_move: Callable[[], None] | None = None  # called when an attempt has ended
        self.waited_for: set[TaskCall] = set()  # real ones, under way, that may be busy with real things
        self._only_fakes = only_fakes
        self._carriage = LargeValues.carriage if large else None  # what results may be
        self._clock = clock
        self._fakes: list[Fake[..., Any]] = []

    def add(
        self,
        task: Task[..., R] | Call[R],
        *,
        returns: Any | UnsetType = UNSET,
        raises: Any = None,
        side_effect: Callable[..., Any] | None = None,
        outcomes: Sequence[Any] = (),
        takes: float = 0.0,
    ) -> Fake[..., R]:
        """See `Lab.fake`."""
        definition, arguments = task_of(task, "fake")
        given = [returns is not UNSET, raises is not None, side_effect is not None, bool(outcomes), takes == inf]
        if given.count(True) != 1:
            raise HoldfastError(
                f"fake({definition.name}, ...): one of returns=, raises=, side_effect=, outcomes= or takes=inf"
            )
        every = tuple(outcomes) or ((raises,) if raises is not None else (returns,) if given[0] else ())
        for outcome in every:
            if not _is_error(outcome):
                definition.result.encode_checked(outcome, self._carriage)  # here and now, and not in the run
        fake: Fake[..., R] = Fake(definition, arguments, _Answer(every, side_effect, takes))
        self._fakes.append(fake)
        return fake

    def stand_in(self, task: Task[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
        """See `Engine(stand_in=...)`."""
        if function is not task.fn:  # it asks what became of an attempt: that has no effect, and is nobody's to fake

            async def ask(*args: Any, **kwargs: Any) -> Any:
                return await _called(function, args, kwargs)

            return ask

        async def run(*args: Any, **kwargs: Any) -> Any:
            return await self._attempt(task, args, kwargs)

        return run

    async def _attempt(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        now = attempt()
        call = TaskCall(
            task=task.name,
            arguments=_bound_as_they_are(task, args, kwargs),
            attempt=now.number,
            key=now.idempotency_key,
            run=now.run_id,
            id=now.task_id,
            at=self._clock.now(),
            memoised=task.policy.memo is not None,
        )
        fake = self._find(task, call.arguments)
        call.faked = fake is not None
        if fake is None and (self._only_fakes or task.policy.effect == "transactional"):
            await self._refuse(call, task)
        if self.gate is not None:
            await self.gate(call)
        self.calls.append(call)
        try:
            if fake is not None:
                fake.calls.append(call)
                call.result = await fake.run(self._clock, call, args, kwargs)
            else:
                self.waited_for.add(call)
                call.result = await _called(task.fn, args, kwargs)
        except BaseException as error:
            call.error = error
            raise
        finally:
            self.waited_for.discard(call)
            if self.on_move is not None:
                self.on_move()
        return call.result

    def _find(self, task: Task[..., Any], arguments: dict[str, Any]) -> Fake[..., Any] | None:
        """The last one for just this call; else the last one for the task."""
        fitting = [fake for fake in self._fakes if fake.matches(task, arguments)]
        exact = [fake for fake in fitting if fake.arguments is not None]
        found = exact or fitting
        return found[-1] if found else None

    async def _refuse(self, call: TaskCall, task: Task[..., Any]) -> None:
        """End the test, not the task: workflow code might take a failure in its stride."""
        instead = "or leave out only_fakes"
        if task.policy.effect == "transactional":
            instead = (
                "for it is transactional and a lab has no database; test its SQL by"
                f" `{call.task}.fn(tx, ...)`, or in an Engine on a SQLite file"
            )
        self.problem = self.problem or UnfakedTask(
            f"{call.text()} was begun in run {call.run!r} and has no fake: lab.fake({call.task}, returns=...),"
            f" {instead}"
        )
        if self.on_move is not None:
            self.on_move()
        await asyncio.Event().wait()


async def _called(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = function(*args, **kwargs)
    return await result if isinstance(result, Awaitable) else result


def _bound_as_they_are(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    found = signature(task).bind(*args, **kwargs)
    found.apply_defaults()
    return dict(found.arguments)


def _is_error(outcome: Any) -> bool:
    return isinstance(outcome, BaseException) or (isinstance(outcome, type) and issubclass(outcome, BaseException))


def _fresh(error: Any) -> BaseException:
    """The same error, without what was added to it when it was raised before."""
    try:
        fresh: BaseException = error() if isinstance(error, type) else copy.copy(error)
    except Exception as failure:
        raise HoldfastError(f"a fake cannot raise {error!r}: it cannot be made again ({failure})") from failure
    return fresh
