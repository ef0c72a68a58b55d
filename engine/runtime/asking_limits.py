"""Writes a step that asks something of the limits that the store shares: without what is not to be had, in the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from engine.core.failures import describe
from engine.errors import DefinitionError
from engine.runtime.attempts import Failed, Outcome
from engine.runtime.board import Board
from engine.runtime.pen import Pen
from engine.runtime.steps import Step
from eventstore import LimitReached
from eventstore.errors import UnknownPool

__all__ = ["write_asking"]


class Writer(Protocol):
    """A driver, as this module knows it."""

    board: Board
    pen: Pen

    def attempt_ended(self, task_id: str, number: int, outcome: Outcome | None, /) -> None:
        """A task has its outcome."""


async def write_asking(run: Writer, step: Step, write: Callable[[Step], Awaitable[None]]) -> None:
    """Write the step; each time a limit turns out to be reached, without the starts that needed it.

    A task that names a limit which is not there fails. Raises what `write` raises otherwise.
    """
    failed: dict[str, str] = {}
    while True:
        try:
            await write(step)
            break
        except LimitReached as error:
            _drop_written(run, step)
            run.board.starts.refused(step, error)
        except UnknownPool as error:
            _drop_written(run, step)
            failed.update(dict.fromkeys(run.board.starts.unknown(step, error.pool), error.pool))
    for task_id, pool in failed.items():
        unknown = DefinitionError(
            f"the task names the limit {pool!r}, which no engine on this store has declared:"
            f" Engine(pools={{{pool!r}: ...}}) or Engine(rates={{{pool!r}: ...}})"
        )
        number = attempts.started if (attempts := run.board.attempts.get(task_id)) is not None else 0
        run.attempt_ended(task_id, number, Failed(describe(unknown)))


def _drop_written(run: Writer, step: Step) -> None:
    """Chunks before the one that was refused are written."""
    if (written := max(run.pen.version, 0) - step.base) > 0:
        step.drop(written)
