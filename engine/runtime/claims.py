"""What a worker asks its store for: as queries, for what it knows and has room for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from engine.runtime.driver import Driver
from engine.runtime.pausing import PausedWorkflows
from engine.runtime.serving import Served
from engine.runtime.streams import CODE, LET_ON, ROOT, RUN_CATEGORY, VERSION, WORKFLOW, stream_of
from eventstore import StreamQuery
from eventstore.port import Scalar

__all__ = ["busy_streams", "claimable", "marked", "of_residents"]


def claimable(
    workflows: Served, paused: PausedWorkflows, only: tuple[str, ...] | None, *, codes: Iterable[str]
) -> Iterator[StreamQuery]:
    """Runs of these workflows, in the versions that there are.

    With `only`, those runs and what they have started as children.
    Of a paused workflow, those that have control mail, or that a cancel has let pass its pause. Of runs that are bound
    to a code, those bound to one of `codes`.
    """
    names, bound = set(workflows), (None, *codes)
    for going, versions in workflows.groups(names.difference(paused)):
        yield from _of_family({WORKFLOW: going, VERSION: versions, CODE: bound}, only)
    for held, versions in workflows.groups(names.intersection(paused)):
        yield from _of_family({WORKFLOW: held, VERSION: versions, CODE: bound}, only, control=True)
        pauses = tuple(paused.pause_of(name) for name in held)
        yield from _of_family({LET_ON: pauses, VERSION: versions, CODE: bound}, only)


def marked(workflows: Iterable[str], only: tuple[str, ...] | None, mark: Mapping[str, Scalar]) -> Iterator[StreamQuery]:
    """Likewise, those whose streams have these attributes."""
    if names := tuple(workflows):
        yield from _of_family({WORKFLOW: names, **mark}, only)


def _of_family(
    attributes: Mapping[str, Any], only: tuple[str, ...] | None, *, control: bool | None = None
) -> Iterator[StreamQuery]:
    if only is None:
        yield StreamQuery(category=RUN_CATEGORY, attributes=attributes, control=control)
        return
    streams = tuple(stream_of(run_id) for run_id in only)
    yield StreamQuery(category=RUN_CATEGORY, streams=streams, attributes=attributes, control=control)
    yield StreamQuery(category=RUN_CATEGORY, attributes={**attributes, ROOT: only}, control=control)


def of_residents(drivers: Iterable[Driver]) -> Iterator[StreamQuery]:
    """When memory is full: only the mail of runs that are in it; of those put aside, the control mail."""
    going: list[str] = []
    aside: list[str] = []
    for driver in drivers:
        (aside if driver.set_aside else going).append(driver.stream)
    yield StreamQuery(category=RUN_CATEGORY, streams=tuple(going))
    if aside:
        yield StreamQuery(category=RUN_CATEGORY, streams=tuple(aside), control=True)


def busy_streams(drivers: Iterable[Driver], rebuilding: Iterable[str]) -> list[str]:
    """Streams that are not to be claimed for now: their mail is being answered, or they are being brought back."""
    busy = [driver.stream for driver in drivers if driver.intake.is_busy or driver.reclaimed is not None]
    return busy + [stream_of(run_id) for run_id in rebuilding]
