"""Which runs are meant: what a program searches for, as the store is asked for it.

Every condition is one that a store has an index for; what an author gave a run to be found by stands under names of its
own there (`streams.own_attribute`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeAlias

from engine.core.attributes import AttributeValue, check_attribute
from engine.core.fold import RunStatus
from engine.runtime.deadlines import moment
from engine.runtime.streams import PARENT, RUN_CATEGORY, STATUS, WORKFLOW, own_attribute
from eventstore import StreamQuery

__all__ = ["Wanted", "runs_query"]

Wanted: TypeAlias = AttributeValue | tuple[AttributeValue | None, ...] | None
"""What an attribute is to be: equal to this, or to one of these; None: there is none of that name."""


def runs_query(
    *,
    workflow: str | None,
    parent: str | None,
    status: RunStatus | tuple[RunStatus, ...] | None,
    attributes: Mapping[str, Wanted],
    since: datetime | None,
    until: datetime | None,
    limit: int,
    cursor: str | None,
    newest_first: bool,
) -> StreamQuery:
    """The streams of these runs. Raises `HoldfastError` for an attribute, or a time, that cannot be."""
    wanted: dict[str, Any] = {}
    if parent is not None:
        wanted[PARENT] = parent
    if workflow is not None:
        wanted[WORKFLOW] = workflow
    if status is not None:
        wanted[STATUS] = status
    for name, values in attributes.items():
        for value in values if isinstance(values, tuple) else (values,):
            check_attribute(name, value, where="runs(attributes=)", removing=True)
        wanted[own_attribute(name)] = values
    return StreamQuery(
        category=RUN_CATEGORY,
        pruned=None if "pruned" in (status or ()) else False,
        attributes=wanted,
        created_from=None if since is None else moment(since, "runs: since"),
        created_until=None if until is None else moment(until, "runs: until"),
        limit=limit,
        cursor=cursor,
        newest_first=newest_first,
    )
