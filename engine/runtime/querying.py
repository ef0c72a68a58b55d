"""Queries: a run's history is replayed here, without a lease and without a word to the log, and its code is asked."""

from __future__ import annotations

from typing import TypeVar

from engine.core.compare import Mismatch
from engine.errors import QueryFailed, RunSuspendedError
from engine.runtime.histories import check_remembers
from engine.runtime.recovery import rebuild_run
from engine.runtime.serving import Served
from engine.runtime.streams import run_id_of, workflow_of
from engine.workflows import Query
from eventstore import EventStore, StreamHead

__all__ = ["run_query"]

A = TypeVar("A")
R = TypeVar("R")


async def run_query(
    store: EventStore,
    head: StreamHead,
    definitions: Served,
    query: Query[A, R],
    argument: A,
) -> R:
    """Replay the run as of `head`, and ask it. The instance is put away, whatever comes of it."""
    run_id = run_id_of(head.stream)
    check_remembers(head)
    definition = definitions.require(*workflow_of(head.attributes))
    recorded = query.argument.decode(query.argument.encode_checked(argument))
    try:
        rebuilt = await rebuild_run(store, head, definition, versions=definitions.find)
    except Mismatch as mismatch:
        raise RunSuspendedError(run_id, f"run {run_id!r} cannot be replayed: {mismatch}") from None
    instance = rebuilt.replayer.instance
    provided = instance.inbox.queries.get(query.name)
    if provided is None:
        instance.evict()
        raise QueryFailed(f"run {run_id!r} provides no answer to query {query.name!r} now")
    try:
        answer = instance.ask(provided, recorded) if query.takes_argument else instance.ask(provided)
        value: R = query.result.decode(query.result.encode_checked(answer))
    except Exception as error:
        raise QueryFailed(f"query {query.name!r} of run {run_id!r} failed: {error}") from error
    else:
        return value
    finally:
        instance.evict()
