"""A step as commits: one, or for a large one several chunks in order, each with the messages that its events answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import UNSET

from engine.runtime.steps import Step
from engine.runtime.streams import STATUS, WORKFLOW
from eventstore import Commit, Lease
from eventstore.port import COMMIT_EVENTS_MAX

__all__ = ["commits_of"]


def commits_of(
    step: Step, *, stream: str, workflow: str, version: int, lease: Lease, over: bool, next_id: Callable[[], str]
) -> Iterator[Commit]:
    """The commits of a step of a stream that is at `version` (`NEW`: the first makes it).

    What changes the stream itself (its alarm, whether it is held, closed or given up) comes with the last. `over`: the
    run has ended and nothing of it runs any more, so it is given up too.
    """
    at = 0
    while True:
        chunk = tuple(step.events[at : at + COMMIT_EVENTS_MAX])
        until = at + len(chunk)
        last = until >= len(step.events)
        attributes: dict[str, Any] = dict(step.attributes) if last else {}
        if version < 0:
            attributes = {WORKFLOW: workflow, STATUS: "running", **attributes}
        yield Commit(
            id=next_id(),
            stream=stream,
            expected_version=version,
            events=chunk,
            consumes=tuple(id_ for index, id_ in step.consumes if (index > at or at == 0) and index <= until),
            alarm=step.alarm if last else UNSET,
            held=step.suspended if last and (step.suspended or step.resumed) else UNSET,
            closed=True if last and step.ended is not None else UNSET,
            attributes=attributes or UNSET,
            lease=lease,
            release=last and (step.release or over),
            progress=step.progress,
        )
        if last:
            return
        version, at = max(version, 0) + len(chunk), until
