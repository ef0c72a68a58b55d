"""How long what is kept: policies, and which runs are due by them. Nothing is taken away here.

A run is dealt with by the first policy that it fits, so what is special stands before what is general. Age is counted
from when a run was last written to, which is its end; destroying its payloads does not make it younger.

Runs are looked at page by page, oldest first, and only those that were made long enough ago, so memory and time do not
grow with what is not due yet (`newest` looks at all that it is said of).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from engine.core.fold import FINAL_STATUSES, RunStatus
from engine.errors import HoldfastError
from engine.runtime.pruning import last_written
from engine.runtime.streams import PAYLOADS, RUN_CATEGORY, STATUS, WORKFLOW, run_id_of
from eventstore import EventStore, StreamHead, StreamQuery, find_all

__all__ = ["Due", "DueFor", "Retention", "due_runs"]

DueFor: TypeAlias = Literal["prune", "payloads"]


class Retention(Struct, frozen=True, kw_only=True):
    """How long runs that have ended are kept: those of a workflow, or that ended so; None: of all, or however.

    `keep`: their histories. `payloads`: the values in them. None: for ever. `newest`: so many of the newest of each
    workflow are left as they are, however old.
    """

    workflow: str | None = None
    status: RunStatus | tuple[RunStatus, ...] | None = None
    keep: timedelta | None = None
    payloads: timedelta | None = None
    newest: int = 0

    def __post_init__(self) -> None:
        if wrong := sorted(set(self.statuses) - FINAL_STATUSES):
            raise HoldfastError(f"{self!r}: a run that is {wrong[0]} has not ended, and is kept")
        if min(self.keep or timedelta(0), self.payloads or timedelta(0)) < timedelta(0) or self.newest < 0:
            raise HoldfastError(f"{self!r}: times and numbers are 0 or more")
        if self.keep is None and self.payloads is None:
            raise HoldfastError(f"{self!r}: say keep=, payloads= or both; else nothing is ever due")

    @property
    def statuses(self) -> tuple[RunStatus, ...]:
        """The statuses that it is about."""
        if self.status is None:
            return tuple(sorted(FINAL_STATUSES))
        return self.status if isinstance(self.status, tuple) else (self.status,)

    def fits(self, workflow: str, status: str) -> bool:
        """Whether it says something of such runs."""
        return self.workflow in (None, workflow) and status in self.statuses

    def due(self, head: StreamHead, now: int) -> DueFor | None:
        """What is due of a run that it fits."""
        age = timedelta(microseconds=max(0, now - last_written(head)))
        if self.keep is not None and age >= self.keep:
            return "prune"
        gone = head.attributes.get(PAYLOADS) == "gone"
        return "payloads" if self.payloads is not None and age >= self.payloads and not gone else None

    @property
    def youngest(self) -> timedelta:
        """Nothing is due of a run that is younger."""
        return min(each for each in (self.keep, self.payloads) if each is not None)


class Due(Struct, frozen=True, kw_only=True):
    """A run of which something is due. Times in microseconds since the epoch."""

    id: str
    workflow: str
    status: RunStatus  # "pruned": its removal was begun, and is to be finished
    events: int
    due: DueFor
    last_written: int


async def due_runs(store: EventStore, policies: Sequence[Retention], *, now: int) -> AsyncIterator[Due]:
    """The runs of which something is due, those first whose removal was begun and not finished."""
    async for head in _ended(store, {STATUS: "pruned"}):
        yield _due(head, "prune")
    for index, policy in enumerate(policies):
        async for head in _of_policy(store, policy, now):
            workflow, status = str(head.attributes.get(WORKFLOW, "")), str(head.attributes.get(STATUS, ""))
            if any(earlier.fits(workflow, status) for earlier in policies[:index]):
                continue
            if (due := policy.due(head, now)) is not None:
                yield _due(head, due)


async def _of_policy(store: EventStore, policy: Retention, now: int) -> AsyncIterator[StreamHead]:
    wanted: dict[str, Any] = {STATUS: policy.statuses}
    if policy.workflow is not None:
        wanted[WORKFLOW] = policy.workflow
    if policy.keep is None:
        wanted[PAYLOADS] = (None, "some", "going")
    if not policy.newest:
        before = now - policy.youngest // timedelta(microseconds=1)
        async for head in _ended(store, wanted, before=before):
            yield head
        return
    seen: dict[str, int] = {}
    wanted.pop(PAYLOADS, None)  # those that are done are among the newest, too
    async for head in _ended(store, wanted, newest_first=True):
        workflow = str(head.attributes.get(WORKFLOW, ""))
        seen[workflow] = seen.get(workflow, 0) + 1
        if seen[workflow] > policy.newest:
            yield head


async def _ended(
    store: EventStore, attributes: dict[str, Any], *, before: int | None = None, newest_first: bool = False
) -> AsyncIterator[StreamHead]:
    if before is not None and before < 0:
        return
    query = StreamQuery(
        category=RUN_CATEGORY,
        attributes=attributes,
        closed=True,
        created_until=None if before is None else before + 1,
        newest_first=newest_first,
    )
    async for head in find_all(store, query):
        yield head


def _due(head: StreamHead, due: DueFor) -> Due:
    status: Any = head.attributes.get(STATUS)
    return Due(
        id=run_id_of(head.stream),
        workflow=str(head.attributes.get(WORKFLOW, "")),
        status=status,
        events=head.version,
        due=due,
        last_written=last_written(head),
    )
