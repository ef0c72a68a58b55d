"""Which runs are meant: what a program searches for, as the store is asked for it.

Every condition is one that a store has an index for; what an author gave a run to be found by stands under names of its
own there (`streams.own_attribute`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from engine.core.attributes import AttributeValue, check_attribute
from engine.core.fold import RunStatus
from engine.errors import HoldfastError
from engine.runtime.streams import PARENT, RUN_CATEGORY, STATUS, WORKFLOW, own_attribute
from eventstore import StreamQuery

__all__ = ["Wanted", "runs_query"]

Wanted: TypeAlias = AttributeValue | tuple[AttributeValue | None, ...] | None
"""What an attribute is to be: equal to this, or to one of these; None: there is none of that name."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


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
        created_from=_microseconds(since, "since"),
        created_until=_microseconds(until, "until"),
        limit=limit,
        cursor=cursor,
        newest_first=newest_first,
    )


def _microseconds(when: datetime | None, what: str) -> int | None:
    if when is None:
        return None
    if not isinstance(when, datetime) or when.tzinfo is None:
        raise HoldfastError(
            f"runs({what}={when!r}): a datetime with a zone, for one without means another time elsewhere"
        )
    passed = when - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds
