"""Appending to one stream from many places at once: what waits while a commit is written goes with the next, together.

A hundred thousand partitions of an asset are published one by one into one stream; one commit each would be a hundred
thousand fsyncs one after another.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from eventstore import (
    NEW,
    Commit,
    EventStore,
    EventStoreError,
    NewEvent,
    StoreUnavailable,
    StreamNotFound,
    VersionConflict,
)

__all__ = ["Appender"]

BATCH_EVENTS_MAX: Final = 500


class _Waiting:
    __slots__ = ("about", "decide", "done")

    def __init__(self, about: str, decide: Callable[[], NewEvent | None]) -> None:
        self.about = about
        self.decide = decide
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class Appender:
    """Appends to a stream. `refresh` brings what the deciders look at up to now, and returns the stream's version."""

    def __init__(
        self,
        store: EventStore,
        stream: str,
        refresh: Callable[[], Awaitable[int]],
        *,
        attributes: Mapping[str, str],
    ) -> None:
        self._store = store
        self._stream = stream
        self._refresh = refresh
        self._attributes = attributes
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None

    async def append(self, about: str, decide: Callable[[], NewEvent | None]) -> int:
        """Append what `decide` says; it is asked when all that was said before `about` the same is known, and again if
        others were quicker.

        The version of the event; 0 when it said None: there is nothing to append. Raises what `decide` and the store
        raise. A caller that is cancelled leaves the event appended, or not.
        """
        waiting = _Waiting(about, decide)
        self._waiting.append(waiting)
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())
        return await asyncio.shield(waiting.done)

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch = self._take()
                try:
                    await self._write_batch(batch)
                except EventStoreError as error:
                    await self._write_singly(batch, error)
                except BaseException as error:
                    _fail(batch, error)
                    if not isinstance(error, Exception):
                        raise
        finally:
            self._writer = None
            if self._waiting:  # the loop is being closed
                _fail(self._waiting, asyncio.CancelledError())

    async def _write_singly(self, batch: list[_Waiting], error: EventStoreError) -> None:
        """What the store refused together: one that is too large, say, is refused alone."""
        left = [each for each in batch if not each.done.done()]
        if isinstance(error, StoreUnavailable) or len(left) == 1:
            _fail(left, error)
            return
        for each in left:
            try:
                await self._write_batch([each])
            except EventStoreError as own:
                _fail([each], own)

    def _take(self) -> list[_Waiting]:
        """What goes with the next commit: of what is about the same, the first."""
        batch: dict[str, _Waiting] = {}
        later: list[_Waiting] = []
        for each in self._waiting:
            if len(batch) == BATCH_EVENTS_MAX or each.about in batch:
                later.append(each)
            else:
                batch[each.about] = each
        self._waiting = later
        return list(batch.values())

    async def _write_batch(self, batch: list[_Waiting]) -> None:
        while True:
            version = await self._refresh()
            told: list[_Waiting] = []
            events: list[NewEvent] = []
            for each in batch:
                if each.done.done():
                    continue
                try:
                    event = each.decide()
                except Exception as error:
                    each.done.set_exception(error)
                    continue
                if event is None:
                    each.done.set_result(0)
                else:
                    told.append(each)
                    events.append(event)
            if not events:
                return
            try:
                await self._store.commit(
                    Commit(
                        id=secrets.token_hex(16),
                        stream=self._stream,
                        expected_version=version or NEW,
                        events=tuple(events),
                        attributes=self._attributes,
                    )
                )
            except (VersionConflict, StreamNotFound):
                continue
            for number, each in enumerate(told, start=version + 1):
                each.done.set_result(number)
            return


def _fail(batch: list[_Waiting], error: BaseException) -> None:
    for each in batch:
        if not each.done.done():
            each.done.set_exception(error)
