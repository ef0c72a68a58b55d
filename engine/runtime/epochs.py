"""How a run that continues as new begins again: what its next epoch starts with, and what it takes along."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256

from msgspec import structs

from engine.core.events import (
    AttemptFailed,
    AttemptHeartbeat,
    CancelRequested,
    EffectReconciled,
    Fact,
    RequestReceived,
    RunStarted,
    SignalReceived,
    TaskHandedOut,
)
from engine.core.inbox import LeftOver
from engine.core.instance import Instance
from engine.runtime.steps import Arrival, as_ignored, ignored
from engine.runtime.versions import PYTHON

__all__ = ["beginning_of_next", "carried_over", "told_now"]


def beginning_of_next(before: Instance, *, version: str | None = None) -> Iterator[Arrival]:
    """The next epoch's start, and behind it what had arrived in the last one and was not received or answered.

    `version`: that of the workflow which it is of; None: as before.
    """
    started = before.started
    assert started is not None
    epoch = started.epoch + 1
    yield Arrival(
        structs.replace(
            started,
            at=0,
            seed=sha256(f"{started.seed}\x00epoch\x00{epoch}".encode()).hexdigest()[:32],
            python=PYTHON,
            epoch=epoch,
            carried=len(before.left_over),
            waits=False,
            begins_at=0,
            attributes=before.attributes.names,
            version=started.version if version is None else version,
        ),
        before.continuation,
    )
    yield from told_now(before.left_over)


def told_now(left_over: Iterable[LeftOver]) -> Iterator[Arrival]:
    """What had arrived in the last epoch, as it is told to the next."""
    for fact, payload in left_over:
        yield Arrival(structs.replace(fact, at=0, carried=True), payload)


def carried_over(arrivals: Iterable[Arrival], *, epoch: int) -> Iterator[Arrival]:
    """Of what had arrived in an epoch and was not taken, what the next one takes: outcomes of the last become notes."""
    for arrival in arrivals:
        event = arrival.event
        gone = isinstance(event, RunStarted | TaskHandedOut | EffectReconciled | AttemptHeartbeat)
        if gone or getattr(event, "carried", False) is True:
            continue  # what the beginning of the next epoch says anew, or says of a task that is no more
        if isinstance(event, AttemptFailed):
            yield ignored(event.id, event.attempt, "failed", arrival.payload)
        elif not isinstance(event, Fact) or isinstance(event, SignalReceived | RequestReceived | CancelRequested):
            yield arrival
        elif arrival.message is not None or arrival.payload is not None:
            yield structs.replace(arrival, event=as_ignored(arrival, epoch=epoch))
