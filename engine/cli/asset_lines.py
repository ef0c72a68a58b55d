"""A materializing run where there is no terminal: a line for each step that ends, and for what a person must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from engine.cli import plain
from engine.cli.asset_tally import ENDED, Making, StepTally
from engine.cli.output import Output
from engine.cli.progress import Lines
from engine.cli.readable import amount, clipped, counted, duration, error_text
from engine.cli.tally import Watched

__all__ = ["AssetLines", "figures_of", "first_line", "step_text"]

_SECOND: Final = 1_000_000
_STEP_EVENTS: Final = frozenset(
    {"TaskScheduled", "TaskStarted", "TaskCompleted", "TaskFailed", "TaskCancelled", "AttemptFailed"}
)
_BECAUSE_SHOWN: Final = 3


def first_line(run: Making) -> str:
    """What is about to happen."""
    if run.version_before == 0:
        return f"materialize: new run {run.run_id}, {counted(run.total, 'step')}"
    status = "" if run.state.status == "running" else f", {run.state.status}"
    ended = f"{run.ended_before:,} of {counted(run.total, 'step')} have ended already"
    return f"materialize: run {run.run_id}{status}, {ended}"


def step_text(step: StepTally) -> str:
    """How a step has ended, in a line."""
    match step.status:
        case "failed":
            return clipped(step.why, 300)
        case "skipped":
            named = ", ".join(step.because[:_BECAUSE_SHOWN])
            return f"because of {named}" + (", ..." if len(step.because) > _BECAUSE_SHOWN else "")
        case "published":
            warned = f"; warning: {', '.join(each.name for each in step.wrong)}" if step.wrong else ""
            return figures_of(step.rows, step.size, step.seconds) + warned
        case _:
            return ""


def figures_of(rows: int | None, size: int | None, seconds: float) -> str:
    """``1,234 rows, 45.1 kB, in 320 ms``, as far as it is known."""
    parts = [] if rows is None else [counted(rows, "row")]
    parts += [] if size is None else [amount(size)]
    return ", ".join([*parts, f"in {duration(seconds)}"])


class AssetLines(Lines):
    """One line for each step that ends, and for each retry."""

    def __init__(self, output: Output, runs: Sequence[Making]) -> None:
        super().__init__(output, runs, first_line=_first)

    def event(self, run: Watched, header: Mapping[str, Any]) -> None:
        """Say what it means for the step, if anything; else what it means for the run."""
        assert isinstance(run, Making)
        text = self._about_step(run, header) if header["type"] in _STEP_EVENTS else None
        if text is not None:
            self._output.line(f"[{duration((header['at'] - run.began_at) / _SECOND):>8}] {text}")
        elif header["type"] not in _STEP_EVENTS:
            super().event(run, header)

    def _about_step(self, run: Making, header: Mapping[str, Any]) -> str | None:
        step = run.last
        if step is None:
            return None
        if header["type"] == "AttemptFailed":
            task = run.state.tasks[header["id"]]
            wait = duration((header["retry_at"] - header["at"]) / _SECOND)
            why = "" if task.error is None else clipped(error_text(task.error), 160)
            return f"retry in {wait}  {step.title}: attempt {header['attempt']} failed: {why}"
        if step.status not in ENDED:
            return None
        said = step_text(step)
        done = run.count(*ENDED)
        return f"{step.status} {done:,}/{run.total:,}  {step.title}{f'  {said}' if said else ''}"


def _first(run: Watched) -> str:
    return first_line(run) if isinstance(run, Making) else plain.first_line(run)
