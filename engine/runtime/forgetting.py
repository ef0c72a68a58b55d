"""Forgetting what was memoised: the next call computes anew. The results stay in the log; nothing uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import structs

from engine.core.call import Call
from engine.core.events import ResultForgotten
from engine.errors import HoldfastError
from engine.runtime.histories import head_or_none
from engine.runtime.large_values import LARGE
from engine.runtime.memos import keyed
from engine.runtime.streams import MEMO_CATEGORY, MEMO_OF, new_event
from engine.tasks import Task
from eventstore import Clock, Commit, EventStore, StreamQuery, VersionConflict
from eventstore.port import FIND_LIMIT_MAX

__all__ = ["forget"]


async def forget(
    store: EventStore,
    what: Any,
    *,
    clock: Clock,
    message_id: Callable[[], str],
    by: str,
    reason: str,
) -> int:
    """Forget the result of a call, or all results of a task; how many there were. See `Engine.forget`."""
    stream = _stream_of(what)

    def forgotten(task: str) -> ResultForgotten:
        return ResultForgotten(at=clock.now(), task=task, by=by, reason=reason)

    if stream is not None:
        return await _forget_one(store, stream, forgotten, message_id)
    query = StreamQuery(category=MEMO_CATEGORY, attributes={MEMO_OF: what.name}, limit=FIND_LIMIT_MAX)
    count = 0
    while True:
        page = await store.find(query)
        count += sum(
            await asyncio.gather(*(_forget_one(store, head.stream, forgotten, message_id) for head in page.items))
        )
        if page.next is None:
            return count
        query = structs.replace(query, cursor=page.next)


async def _forget_one(
    store: EventStore, stream: str, forgotten: Callable[[str], ResultForgotten], message_id: Callable[[], str]
) -> int:
    while True:
        head = await head_or_none(store, stream)
        task = None if head is None else head.attributes.get(MEMO_OF)
        if head is None or task is None:
            return 0
        commit = Commit(
            id=message_id(),
            stream=stream,
            expected_version=head.version,
            events=(new_event(forgotten(str(task))),),
            attributes={MEMO_OF: None},
        )
        try:
            await store.commit(commit)
        except VersionConflict:
            continue  # a newer one was kept meanwhile: that as well
        return 1


def _stream_of(what: Any) -> str | None:
    """The memo of a call; None for a task, which may have many."""
    if isinstance(what, Task):
        return None
    if isinstance(what, Call):
        what.take()
        definition = what.definition
        if isinstance(definition, Task):
            if definition.policy.memo is None:
                raise HoldfastError(
                    f"{definition.where} has no memo, so that nothing is known by its arguments: give it"
                    f" memo=Memo(...), or forget all that there is of it with forget({definition.name})"
                )
            return keyed(definition, definition.arguments.encode(what.args, dict(what.kwargs), LARGE)).stream
    raise HoldfastError(f"an engine forgets results of a task, as in forget(load), or of a call of one, not {what!r}")
