"""What arrives at a run from outside: signals and requests that the workflow has not taken yet, and queries it answers.

Signals wait in a queue per name, as recorded bytes: their type is known only when somebody receives one. Requests are
taken by a `Service`, of which there is one per name from the moment the workflow first serves or receives it; until
then a request is not even recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias

from engine.core.events import CancelRequested, RequestReceived, SignalReceived
from engine.core.failures import ErrorInfo, describe
from engine.core.loop import DeterministicLoop
from engine.core.values import present
from engine.errors import HistoryError, NotRecordable

__all__ = ["Inbox", "LeftOver", "NamedRequest", "NamedSignal", "Service"]


LeftOver: TypeAlias = tuple[SignalReceived | RequestReceived | CancelRequested, bytes | None]
"""What had arrived at a run that continues as new, and was not taken."""


class ValueCodec(Protocol):
    """How values of one type are written."""

    def decode(self, data: bytes) -> Any: ...
    def same(self, one: bytes, other: bytes) -> bool: ...


class NamedSignal(Protocol):
    """A signal's name and type."""

    @property
    def name(self) -> str: ...
    @property
    def codec(self) -> Any: ...


class NamedRequest(Protocol):
    """A request's name and types."""

    @property
    def name(self) -> str: ...
    @property
    def argument(self) -> Any: ...
    @property
    def result(self) -> Any: ...


class InboxHost(Protocol):
    """What an inbox needs of its instance."""

    @property
    def loop(self) -> DeterministicLoop: ...
    def check_open(self, what: object) -> None: ...
    def suspend(self, error: Exception) -> None:
        """Let this turn end in an error: the run is suspended, and the workflow sees nothing of it."""

    def ask(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call user code that may read the workflow's objects and decide nothing."""


class Service:
    """Requests of one name: those that were accepted and not taken yet."""

    def __init__(self, request: NamedRequest) -> None:
        self.request = request
        self.validator: Callable[[Any], object] | None = None
        self.open = False  # requests are accepted
        self.served = False  # by a block that is in force
        self.queue: asyncio.Queue[tuple[RequestReceived, bytes | None]] = asyncio.Queue()


class Inbox:
    """See the module."""

    def __init__(self, host: InboxHost) -> None:
        self.carried: set[str] | None = None  # ids of the signals that were there before the code began
        self.under_way: dict[str, tuple[RequestReceived, bytes | None]] = {}  # accepted and not answered
        self.queries: dict[str, Callable[..., Any]] = {}
        self._host = host
        self._signals: dict[str, asyncio.Queue[tuple[SignalReceived, bytes | None]]] = {}
        self._services: dict[str, Service] = {}
        self._unserved: dict[str, list[tuple[RequestReceived, bytes | None]]] = {}  # by code that has changed since

    # -- signals ------------------------------------------------------------------------------------------------------

    def accept_signal(self, fact: SignalReceived, payload: bytes | None) -> None:
        """A signal has arrived."""
        if fact.carried:
            self.carried = self.carried or set()
            self.carried.add(fact.id)
        self._queue_of(fact.name).put_nowait((fact, payload))

    async def receive(self, signal: NamedSignal) -> Any:
        """The next signal of this name, waiting for it if there is none."""
        host = self._host
        host.check_open(f"the wait for signal {signal.name!r}")
        _, payload = await self._queue_of(signal.name).get()
        try:
            return signal.codec.decode(present(payload, f"the value of a signal {signal.name!r}"))
        except (NotRecordable, HistoryError) as error:
            # Whoever sent it knew another type. The workflow could do nothing about it; fixed code can.
            host.suspend(error)
            return await host.loop.create_future()

    def waiting(self, name: str) -> int:
        """Signals of this name that have arrived and were not received."""
        queue = self._signals.get(name)
        return 0 if queue is None else queue.qsize()

    def _queue_of(self, name: str) -> asyncio.Queue[tuple[SignalReceived, bytes | None]]:
        queue = self._signals.get(name)
        if queue is None:
            queue = self._signals[name] = asyncio.Queue()
        return queue

    # -- requests -----------------------------------------------------------------------------------------------------

    def service(self, request: NamedRequest) -> Service:
        """The service of this name, made if there is none, with what arrived before its code was there."""
        service = self._services.get(request.name)
        if service is None:
            service = self._services[request.name] = Service(request)
            for item in self._unserved.pop(request.name, ()):
                service.queue.put_nowait(item)
        service.request = request
        return service

    def serves(self, name: str) -> bool:
        """Whether requests of this name are taken now."""
        service = self._services.get(name)
        return service is not None and service.open

    def refusal(self, name: str, payload: bytes | None) -> ErrorInfo | Literal["later"] | None:
        """Whether a request is to be refused, before it is recorded: why; "later" when nobody serves it now; or None.

        Asked live only, never at replay.
        """
        service = self._services.get(name)
        if service is None or not service.open:
            return "later"
        try:
            argument = service.request.argument.decode(payload if payload is not None else b"null")
            if service.validator is not None:
                self._host.ask(service.validator, argument)
        except Exception as error:
            return describe(error)
        return None

    def accept_request(self, fact: RequestReceived, payload: bytes | None) -> None:
        """A request was accepted."""
        item = (fact, payload)
        self.under_way[fact.id] = item
        service = self._services.get(fact.name)
        if service is None:
            self._unserved.setdefault(fact.name, []).append(item)
        else:
            service.queue.put_nowait(item)

    # -- what is left -------------------------------------------------------------------------------------------------

    def left_over(self) -> list[tuple[SignalReceived | RequestReceived, bytes | None]]:
        """What has arrived and was not received or answered, in order of arrival per name."""
        left: list[tuple[SignalReceived | RequestReceived, bytes | None]] = []
        for queue in self._signals.values():
            while not queue.empty():
                left.append(queue.get_nowait())
        left.extend(self.under_way.values())
        return left
