"""What a worker asks its store for: as queries, for what it knows and has room for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from engine.runtime.driver import Driver
from engine.runtime.streams import ROOT, RUN_CATEGORY, WORKFLOW, stream_of
from eventstore import StreamQuery

__all__ = ["busy_streams", "claimable", "of_residents"]


def claimable(workflows: Iterable[str], paused: Collection[str], only: tuple[str, ...] | None) -> Iterator[StreamQuery]:
    """Runs of these workflows that are not paused; with `only`, those runs and what they have started as children."""
    known = {WORKFLOW: tuple(name for name in workflows if name not in paused)}
    if not known[WORKFLOW]:
        return
    if only is None:
        yield StreamQuery(category=RUN_CATEGORY, attributes=known)
        return
    yield StreamQuery(category=RUN_CATEGORY, streams=tuple(stream_of(run_id) for run_id in only), attributes=known)
    yield StreamQuery(category=RUN_CATEGORY, attributes={**known, ROOT: only})


def of_residents(run_ids: Iterable[str]) -> StreamQuery:
    """When memory is full: only the mail of runs that are in it."""
    return StreamQuery(category=RUN_CATEGORY, streams=tuple(stream_of(run_id) for run_id in run_ids))


def busy_streams(drivers: Iterable[Driver], rebuilding: Iterable[str]) -> list[str]:
    """Streams that are not to be claimed for now: their mail is being answered, or they are being brought back."""
    busy = [driver.stream for driver in drivers if driver.intake.is_busy or driver.reclaimed is not None]
    return busy + [stream_of(run_id) for run_id in rebuilding]
