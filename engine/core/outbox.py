"""What a run says to others: messages to other runs, published states and feeds, answers to requests."""

from __future__ import annotations

from typing import Any, Final, Protocol

from engine.core.decided import Codec
from engine.core.events import (
    Decision,
    FeedPublished,
    MessageKind,
    MessageSent,
    RequestAnswered,
    RequestFailed,
    SendAccepted,
    SendRejected,
    StatePublished,
)
from engine.core.failures import describe, encode_error
from engine.core.inbox import Inbox, NamedRequest, NamedSignal
from engine.core.loop import DeterministicLoop, LoopFuture
from engine.core.sites import site
from engine.errors import HistoryError, HoldfastError, RunEnded, RunNotFound

__all__ = ["Outbox", "PendingSend"]

_TOO_LATE: Final[dict[MessageKind, str]] = {
    "signal": "it takes no signal any more",
    "cancel": "it cannot be cancelled any more",
    "terminate": "it cannot be terminated any more",
}


class OutboxHost(Protocol):
    """What an outbox needs of its instance."""

    inbox: Inbox

    @property
    def loop(self) -> DeterministicLoop: ...
    @property
    def now(self) -> int: ...
    def check_open(self, what: object) -> None: ...
    def decide(self, event: Decision, payload: bytes | None = None) -> None: ...


class PendingSend:
    """A message of which nobody has said yet whether it was delivered."""

    __slots__ = ("event", "future", "payload")

    def __init__(self, event: MessageSent, payload: bytes | None, future: LoopFuture) -> None:
        self.event = event
        self.payload = payload
        self.future = future


class Outbox:
    """See the module. `sends` is by the id of the decision."""

    def __init__(self, host: OutboxHost) -> None:
        self.sends: dict[str, PendingSend] = {}
        self.codecs: dict[str, Codec] = {}  # of what this turn has published and answered, by what it was
        self._host = host

    # -- messages to other runs ----------------------------------------------------------------------------------------

    async def signal(self, run_id: str, signal: NamedSignal, value: Any) -> None:
        """Send a signal; ends when it is in the other run's mailbox."""
        await self._send("signal", run_id, name=signal.name, payload=signal.codec.encode_checked(value))

    async def cancel(self, run_id: str, reason: str) -> None:
        """Ask another run to end; ends when that is in its mailbox."""
        await self._send("cancel", run_id, reason=reason)

    async def terminate(self, run_id: str, reason: str) -> None:
        """End another run without its code; ends when that is in its mailbox."""
        await self._send("terminate", run_id, reason=reason)

    async def _send(
        self, kind: MessageKind, run_id: str, *, name: str = "", reason: str = "", payload: bytes | None = None
    ) -> None:
        host = self._host
        if host.loop.poisoned:
            host.loop.check_alive()
            await host.loop.create_future()
        host.check_open(f"a {kind} to run {run_id!r}")
        id_ = host.loop.current_branch().next_id(f"send:{kind}")
        event = MessageSent(at=host.now, id=id_, site=site(), kind=kind, run=run_id, name=name, reason=reason)
        future = host.loop.create_future()
        self.sends[id_] = PendingSend(event, payload, future)
        host.decide(event, payload)
        await future

    def settle(self, fact: SendAccepted | SendRejected) -> None:
        """A message was delivered, or could not be. Raises `HistoryError` for one that was never sent."""
        pending = self.sends.pop(fact.id, None)
        if pending is None:
            raise HistoryError(f"{fact!r}: no such message was sent")
        if pending.future.done():
            return
        if isinstance(fact, SendAccepted):
            pending.future.set_result(None)
            return
        run = pending.event.run
        error: HoldfastError = (
            RunNotFound(f"no run {run!r} in this store")
            if fact.reason == "not_found"
            else RunEnded(f"run {run!r} has ended: {_TOO_LATE[pending.event.kind]}")
        )
        pending.future.set_exception(error)

    # -- what others can read ------------------------------------------------------------------------------------------

    def publish_state(self, name: str, payload: bytes, codec: Codec) -> None:
        """Set a state's value."""
        self.codecs[f"state:{name}"] = codec
        if (id_ := self._next_id("a state", f"state:{name}")) is not None:
            self._host.decide(StatePublished(at=self._host.now, id=id_, site=site(), name=name), payload)

    def publish_to_feed(self, name: str, payload: bytes, codec: Codec) -> None:
        """Append a value to a feed."""
        self.codecs[f"feed:{name}"] = codec
        if (id_ := self._next_id("a feed's value", f"feed:{name}")) is not None:
            self._host.decide(FeedPublished(at=self._host.now, id=id_, site=site(), name=name), payload)

    def _next_id(self, what: str, name: str) -> str | None:
        """The id of what the current branch decides next; None when it may decide nothing any more."""
        host = self._host
        host.check_open(what)
        return None if host.loop.poisoned else host.loop.current_branch().next_id(name)

    def codec_of(self, event: Decision) -> Codec | None:
        """What knows the type of a decision's payload, if this outbox has made it."""
        match event:
            case StatePublished(name=name):
                return self.codecs.get(f"state:{name}")
            case FeedPublished(name=name):
                return self.codecs.get(f"feed:{name}")
            case RequestAnswered(request=request):
                return self.codecs.get(f"answer:{request}")
            case _:
                return None

    # -- answers -------------------------------------------------------------------------------------------------------

    def answer(self, request_id: str, request: NamedRequest, value: Any) -> None:
        """Answer a request. Raises `NotRecordable` for a value not of its type, `HoldfastError` the second time."""
        payload = request.result.encode_checked(value)
        self.codecs[f"answer:{request_id}"] = request.result
        if self._closes(request_id, request):
            event = RequestAnswered(at=self._host.now, id=f"answer:{request_id}", site=site(), request=request_id)
            self._host.decide(event, payload)

    def fail(self, request_id: str, request: NamedRequest, error: BaseException) -> None:
        """Answer a request with an error. Raises `HoldfastError` the second time."""
        if self._closes(request_id, request):
            info = describe(error)
            event = RequestFailed(
                at=self._host.now, id=f"answer:{request_id}", site=site(), request=request_id, error=info.type
            )
            self._host.decide(event, encode_error(info))

    def _closes(self, request_id: str, request: NamedRequest) -> bool:
        host = self._host
        host.check_open(f"the answer to a request {request.name!r}")
        if host.loop.poisoned:
            return False
        if host.inbox.under_way.pop(request_id, None) is None:
            raise HoldfastError(f"request {request_id!r} ({request.name!r}) was answered already")
        return True
