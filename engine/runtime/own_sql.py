"""The transactions of one run: its driver commits them, one at a time, between two steps.

What such a commit is stands in `transacting`. Once the completion of a task is recorded in it, the driver has the same
to do as whoever finds a history that ends there after a crash: tell the workflow, and write what it decides directly
behind it, before anything else.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Protocol

from engine.core.events import TaskCompleted
from engine.core.instance import Instance
from engine.runtime.intake import Intake
from engine.runtime.pen import Pen
from engine.runtime.steps import Step
from engine.runtime.streams import new_event
from engine.runtime.transacting import Transacting
from engine.runtime.turns import Turns

__all__ = ["OwnSql"]


class Run(Protocol):
    """A driver, as this module knows it."""

    pen: Pen
    turns: Turns


class Board(Protocol):
    """Its board, likewise."""

    @property
    def running(self) -> MutableMapping[str, Any]: ...
    @property
    def attempts(self) -> MutableMapping[str, Any]: ...
    def settled(self, task_id: str) -> None: ...


class OwnSql:
    """The transactions that attempts of one run wait for, and the completion that its workflow has not heard of yet."""

    __slots__ = ("_completed", "_facts_first", "_kick", "waiting")

    def __init__(self, kick: Callable[[], None]) -> None:
        self._kick = kick  # its driver
        self.waiting: tuple[Transacting, ...] = ()  # no more than there are slots; and most runs never have one
        self._completed: tuple[TaskCompleted, bytes] | None = None
        self._facts_first = True

    def add(self, attempt: Transacting) -> None:
        """An attempt waits for its commit."""
        self.waiting += (attempt,)
        self._kick()

    def has_work(self, instance: Instance) -> bool:
        """Whether there is something to commit, or to tell."""
        while self.waiting and not self.waiting[0].is_wanted(instance):
            self.waiting = self.waiting[1:]  # it hears that by itself: it was asked to end
        return bool(self.waiting) or self._completed is not None

    def is_next(self, instance: Instance, intake: Intake) -> bool:
        """Whether the next thing to write is a transaction, and not a step.

        Not before the decisions that belong behind the last one; else they take turns with what has arrived, so that
        a cancellation need not wait for all of them, nor they for the last piece of mail.
        """
        if self._completed is not None or not self.has_work(instance):
            return False
        first, self._facts_first = self._facts_first, False
        return not (first and intake)

    async def commit_next(self, run: Run, board: Board) -> None:
        """Commit a transaction. Raises what the store raises, but for the failures of the attempt itself."""
        attempt, *_ = self.waiting
        self.waiting = self.waiting[1:]
        self._facts_first = True
        fact = attempt.begin(run.turns.stamp())
        try:
            await run.pen.write_own(new_event(fact), attempt.call)
        except BaseException as error:
            if not attempt.failed(error):
                raise
        else:
            for known in (board.running, board.attempts):  # nothing of the task is under way any more
                known.pop(attempt.task_id, None)
            board.settled(attempt.task_id)
            self._completed = fact, attempt.payload
            attempt.done()

    def tell(self, step: Step, turns: Turns) -> None:
        """Let the workflow hear of the completion that is recorded: what it decides stands first in this step."""
        if self._completed is not None:
            completed, self._completed = self._completed, None
            turns.tell(step, *completed)
