"""A request as its sender holds it: whether it was accepted, and its answer.

Acceptance and answer are events of the run's history, and are looked for there; a refusal leaves no trace in it, and
waits in a stream of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, Generic, Protocol, TypeVar

from engine.core.events import RequestAnswered, RequestFailed, RequestReceived, RunReopened
from engine.core.failures import ErrorInfo, decode_error, rebuild
from engine.errors import HistoryError, RequestFailedError, RequestRefused, RunEnded
from engine.runtime.histories import HistoryEvent, head_of, read_events
from engine.runtime.letters import refusal_stream
from engine.runtime.sending import send_data
from engine.runtime.watches import Watch
from engine.workflows import Request
from eventstore import EventStore, Message, StreamHead, StreamNotFound

__all__ = ["PendingRequest"]

R_co = TypeVar("R_co", covariant=True)

LOOK_SECONDS: Final = 1.0
"""How often whoever waits for acceptance looks for a refusal, at least."""


class Desk(Protocol):
    """What a request needs of its engine."""

    @property
    def store(self) -> EventStore: ...
    def watch(self, watch: Watch) -> None:
        """See to it that the watch rings when its run moves, also when another process moves it."""

    def check(self) -> None:
        """Raise once the engine cannot go on."""


class PendingRequest(Generic[R_co]):
    """A request that was sent. `id` names it, for ever: `RunHandle.pending_request` finds it again, also elsewhere."""

    def __init__(self, desk: Desk, watch: Watch, request: Request[Any, R_co], id: str) -> None:  # noqa: A002
        self.id = id
        self.run_id = watch.run_id
        self._desk = desk
        self._watch = watch
        self._request = request
        self._seen = 0  # events looked at
        self._reopened_at = 0  # the version of the last of them that took an end back
        self._accepted = False
        self._answer: HistoryEvent | None = None

    async def send(self, message: Message) -> None:
        """Send it; one that was sent already stays as it is. Raises `RunNotFound`, `RunEnded`."""
        self._seen = (await head_of(self._desk.store, self.run_id)).version
        await send_data(self._desk.store, message, self.run_id)

    async def accepted(self) -> None:
        """Wait until the workflow has accepted it. Raises `RequestRefused`, `RunEnded`, `RunNotFound`."""
        looked_back, since = False, 0
        while not self._accepted:
            bell = self._watch.bell()
            try:
                if await self._find(RequestReceived) is not None:
                    self._accepted = True
                    return
                await self._check_refused()
                head = await head_of(self._desk.store, self.run_id)
                since = since or head.version
                if self._seen < head.version:
                    continue
                in_box = any(waiting.id == self.id for waiting in head.messages)
                if not (looked_back or in_box):
                    looked_back, self._seen = True, 0  # it is in the box no more: it was taken before it was sent again
                    continue
                await self._check_taken(head, in_box=in_box, since=since)
                self._desk.check()
                self._desk.watch(self._watch)
                await asyncio.wait([bell], timeout=LOOK_SECONDS)  # a refusal is no event, and may ring nothing
            finally:
                self._watch.forget(bell)

    async def _check_taken(self, head: StreamHead, *, in_box: bool, since: int) -> None:
        """Raise `RunEnded` when an end of the run has turned it away, though that may have been taken back.

        No run ends over mail: behind an end nothing is left of what was sent before. So it is gone when the run was
        reopened behind the version that it had when it was sent (`since`, or earlier); or at any time, and there is
        no mail now that it could be among.
        """
        if head.closed:
            raise RunEnded(f"run {self.run_id!r} ended before it took request {self.id!r}")
        if not in_box and (self._reopened_at > since or (self._reopened_at and not head.messages)):
            await self._check_refused()  # since it was looked for
            raise RunEnded(
                f"run {self.run_id!r} ended before it took request {self.id!r}, and was reopened: send it anew, with"
                " another id"
            )

    async def answer(self) -> R_co:
        """Wait for the answer. Giving up the wait takes nothing back; ask again, here or with the same id elsewhere.

        Raises `RequestFailedError` when the workflow failed to answer (`__cause__` says why), `RunEnded` when the run
        ended first, and what `accepted` raises.
        """
        await self.accepted()
        while self._answer is None:
            bell = self._watch.bell()
            try:
                self._answer = await self._find(RequestAnswered, RequestFailed)
                if self._answer is not None:
                    break
                head = await head_of(self._desk.store, self.run_id)
                if self._seen < head.version:
                    continue
                if head.closed:
                    raise RunEnded(f"run {self.run_id!r} ended without an answer to request {self.id!r}")
                self._desk.check()
                self._desk.watch(self._watch)
                await bell
            finally:
                self._watch.forget(bell)
        return self._answer_of(self._answer)

    def _answer_of(self, found: HistoryEvent) -> R_co:
        if isinstance(found.event, RequestAnswered):
            if found.payload is None:
                raise HistoryError(f"the answer to request {self.id!r} was destroyed")
            value: R_co = self._request.result.decode(found.payload)
            return value
        info = decode_error(found.payload) if found.payload is not None else ErrorInfo(type="unknown")
        text = f"request {self.id!r} ({self._request.name!r}) failed with {info.type}: {info.message}"
        raise RequestFailedError(self.id, text) from rebuild(info)

    async def _find(self, *kinds: type[RequestReceived | RequestAnswered | RequestFailed]) -> HistoryEvent | None:
        """The first event of these kinds about this request among those not looked at yet."""
        async for item in self._events():
            self._seen = item.version
            event = item.event
            if isinstance(event, RunReopened):
                self._reopened_at = item.version
            if not isinstance(event, kinds):
                continue
            if (event.id if isinstance(event, RequestReceived) else event.request) == self.id:
                return item
        return None

    def _events(self) -> AsyncIterator[HistoryEvent]:
        return read_events(self._desk.store, self.run_id, after=self._seen)

    async def _check_refused(self) -> None:
        try:
            head = await self._desk.store.head(refusal_stream(self.run_id, self.id))
        except StreamNotFound:
            return
        payload = head.messages[0].payload if head.messages else None
        info = decode_error(payload) if payload is not None else ErrorInfo(type="unknown")
        raise RequestRefused(
            self.id, f"request {self.id!r} ({self._request.name!r}) was refused: {info.message or info.type}"
        ) from rebuild(info)

    def __repr__(self) -> str:
        return f"<request {self.id!r} to run {self.run_id!r}>"
