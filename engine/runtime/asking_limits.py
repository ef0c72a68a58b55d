"""Writes a step that asks something of the limits that the store shares: without what is not to be had, in the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from engine.core.failures import describe
from engine.errors import DefinitionError
from engine.runtime.attempts import Failed, Outcome
from engine.runtime.board import Board
from engine.runtime.pen import Pen
from engine.runtime.site import Site
from engine.runtime.steps import Step
from engine.tasks import Named
from eventstore import LimitReached
from eventstore.errors import UnknownPool

__all__ = ["write_asking"]


class Writer(Protocol):
    """A driver, as this module knows it."""

    site: Site
    board: Board
    pen: Pen

    def attempt_ended(self, task_id: str, number: int, outcome: Outcome | None, /) -> None:
        """A task has its outcome."""


async def write_asking(run: Writer, step: Step, write: Callable[[Step], Awaitable[None]]) -> None:
    """Write the step; each time a limit turns out to be reached, without the starts that needed it.

    A task that names a limit which is not there, or is of the other kind, fails. Raises what `write` raises otherwise.
    """
    failed: dict[str, DefinitionError] = {}
    assert step.asked is not None
    while (wrong := await run.site.limits.learn(run.site.store, step.asked.needs)) is not None:
        error = _wrong(wrong, exists=run.site.limits.knows(wrong.name))
        failed.update(dict.fromkeys(run.board.starts.unknown(step, wrong.name, is_rate=wrong.is_rate), error))
    while True:
        try:
            await write(step)
            break
        except LimitReached as reached:
            _drop_written(run, step)
            run.board.starts.refused(step, reached)
        except UnknownPool as unknown:
            _drop_written(run, step)
            for is_rate in (False, True):
                gone = run.board.starts.unknown(step, unknown.pool, is_rate=is_rate)
                failed.update(dict.fromkeys(gone, _wrong(Named(unknown.pool, is_rate), exists=False)))
    for task_id, reason in failed.items():
        number = attempts.started if (attempts := run.board.attempts.get(task_id)) is not None else 0
        run.attempt_ended(task_id, number, Failed(describe(reason)))


def _wrong(need: Named, *, exists: bool) -> DefinitionError:
    what, other = ("rate", "pool") if need.is_rate else ("pool", "rate")
    if exists:
        return DefinitionError(f"the task names {need.name!r} as its {what}, and it is a {other}: say {other}=...")
    return DefinitionError(
        f"the task names the {what} {need.name!r}, which no engine on this store has declared:"
        f" Engine({what}s={{{need.name!r}: ...}})"
    )


def _drop_written(run: Writer, step: Step) -> None:
    """Chunks before the one that was refused are written."""
    if (written := max(run.pen.version, 0) - step.base) > 0:
        step.drop(written)
