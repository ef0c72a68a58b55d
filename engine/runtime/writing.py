"""A step as commits: one, or for a large one several chunks in order, each with the messages that its events answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from msgspec import UNSET

from engine.runtime.steps import Step
from engine.runtime.streams import STATUS, WORKFLOW
from eventstore import Commit, Lease
from eventstore.port import COMMIT_EVENTS_MAX

__all__ = ["commits_of"]

T = TypeVar("T")


def commits_of(
    step: Step, *, stream: str, workflow: str, version: int, lease: Lease, over: bool, next_id: Callable[[], str]
) -> Iterable[Commit]:
    """The commits of a step of a stream that is at `version` (`NEW`: the first makes it).

    What changes the stream itself (its alarm, whether it is given up) and what is asked of limits come with the last,
    where the attempts begin. It is closed with the event that ends the run, which nobody would look at again if a crash
    came between the two. `over`: the run has ended and nothing of it runs any more, so it is given up too. What holds
    since an event comes with that event: what a state is, and whether the stream is held.
    The commit that ends the run is refused (`MailWaiting`) while something has been delivered to it that it has not
    seen; the chunks before it are written by then.
    """
    if step.is_needless and not over:
        return ()
    if len(step.events) > COMMIT_EVENTS_MAX:
        return _chunks(step, stream=stream, workflow=workflow, version=version, lease=lease, over=over, next_id=next_id)
    attributes = dict(step.attributes)
    if version < 0:
        attributes = {WORKFLOW: workflow, STATUS: "running", **attributes}
    ended = step.ended is not None
    whole = Commit(
        id=next_id(),
        stream=stream,
        expected_version=version,
        events=tuple(step.events),
        consumes=tuple([message for _, message in step.consumes]) if step.consumes else (),
        sends=tuple([message for _, message in step.sends]) if step.sends else (),
        alarm=step.alarm,
        held=step.held,
        closed=True if ended else UNSET,
        drained=ended,
        attributes=attributes or UNSET,
        permits=() if step.asked is None else step.asked.permits,
        lease=lease,
        release=step.release or over,
        progress=step.progress or step.release,  # who gives it up in good order has not died of it
    )
    return (whole,)


def _chunks(
    step: Step, *, stream: str, workflow: str, version: int, lease: Lease, over: bool, next_id: Callable[[], str]
) -> Iterator[Commit]:
    # Mail that the step answers behind its end goes with the end: nothing may be left in the box when that is written.
    behind = step.ended_behind if step.ended is not None else len(step.events)
    consumes = [(min(index, behind), message) for index, message in step.consumes]
    at = 0
    for until in _cuts(len(step.events), 0 if step.asked is None else len(step.asked.starts)):
        chunk = tuple(step.events[at:until])
        last = until == len(step.events)
        ends = step.ended is not None and at < step.ended_behind <= until  # notes may follow, in later chunks
        attributes: dict[str, Any] = dict(step.attributes if last or ends else step.marked(until))
        if version < 0:
            attributes = {WORKFLOW: workflow, STATUS: "running", **attributes}
        yield Commit(
            id=next_id(),
            stream=stream,
            expected_version=version,
            events=chunk,
            consumes=_of_chunk(consumes, at, until),
            sends=_of_chunk(step.sends, at, until),
            alarm=step.alarm if last else UNSET,
            held=step.held if last else step.held_since(until),
            closed=True if ends else UNSET,
            drained=ends,
            attributes=attributes or UNSET,
            permits=step.asked.permits if last and step.asked is not None else (),
            lease=lease,
            release=last and (step.release or over),
            progress=step.progress or step.release,
        )
        version, at = max(version, 0) + len(chunk), until


def _cuts(events: int, starts: int) -> Iterator[int]:
    """Behind how many of the events each chunk ends. The last `starts` of them, which need the permits that are taken
    with the last chunk, are all in that: no attempt is on record without its permit.
    """
    at = 0
    while events - at > max(COMMIT_EVENTS_MAX, starts):
        at = min(at + COMMIT_EVENTS_MAX, events - starts)
        yield at
    yield events


def _of_chunk(items: Iterable[tuple[int, T]], at: int, until: int) -> tuple[T, ...]:
    """Those that stand behind an event of this chunk."""
    return tuple(item for index, item in items if (index > at or at == 0) and index <= until)
