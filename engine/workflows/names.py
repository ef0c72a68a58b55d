"""Typed names, shared by a workflow and those who talk with it: `Signal`, `Request`, `Query`, `State`, `Feed`.

Each is declared once, beside the workflow, and used from both sides: the workflow receives, serves, provides and
publishes; a client's `RunHandle` sends, asks and reads, and is refused there and then what is not of the type.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from msgspec import UNSET, Struct, UnsetType

from engine.core.inbox import Service
from engine.core.instance import Instance
from engine.core.values import ValueCodec
from engine.errors import DefinitionError, HoldfastError
from engine.workflows.here import instance_here

if TYPE_CHECKING:
    from typing_extensions import TypeForm  # what checkers know it by, on every Python; not needed to run

__all__ = ["Feed", "Query", "Received", "Request", "Signal", "SignalMessage", "State"]

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)
"""What clients only get is covariant: else mypy takes ``print(await run.read(phase))`` for a mistake, as it looks
first at what `print` wants. Whoever publishes or answers uses the name as it was declared."""

NAME_MAX: Final = 100
"""Characters of a signal's, request's, query's, state's or feed's name."""


class SignalMessage(Struct, frozen=True, kw_only=True):
    """A signal with its value, to start a run with. Made by `Signal.message`."""

    name: str
    payload: bytes
    id: str | None = None


class Signal(Generic[T]):
    """A one-way message into a run: ``approve = Signal("approve", bool)``.

    Raises `DefinitionError` for a name or type that cannot be recorded.
    """

    def __init__(self, name: str, type: TypeForm[T]) -> None:  # noqa: A002 - the word for it
        self.name = _checked_name(name, "signal")
        self.type = type
        _ = self.codec

    @functools.cached_property
    def codec(self) -> ValueCodec:
        """How its values are recorded."""
        return ValueCodec(self.type, f"the value of signal {self.name!r}")

    def message(self, value: T, *, id: str | None = None) -> SignalMessage:  # noqa: A002
        """The signal with a value, for ``engine.start(..., signals=[...])``; the same `id` is delivered once.

        Raises `NotRecordable` or `PayloadTooLarge`.
        """
        return SignalMessage(name=self.name, payload=self.codec.encode_checked(value), id=id)

    async def receive(self) -> T:
        """In a workflow: the next value, waiting for it if there is none. Cancelling the wait loses nothing."""
        value = await instance_here(f"Signal({self.name!r}).receive").inbox.receive(self)
        return cast("T", value)

    def waiting(self) -> int:
        """In a workflow: how many have arrived and were not received."""
        return instance_here(f"Signal({self.name!r}).waiting").inbox.waiting(self.name)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return await self.receive()

    def __repr__(self) -> str:
        return f"<signal {self.name!r}>"


class Received(Generic[A, R]):
    """A request that a workflow has taken, and has to answer."""

    def __init__(self, request: Request[A, R], id: str, value: A) -> None:  # noqa: A002
        self.request = request
        self.id = id
        self.value = value

    def answer(self, result: R) -> None:
        """Answer it. Raises `NotRecordable` for a result that is not of the type, `HoldfastError` the second time."""
        instance_here("Received.answer").outbox.answer(self.id, self.request, result)

    def reject(self, error: BaseException | str) -> None:
        """Answer it with an error. Raises `HoldfastError` the second time."""
        error = HoldfastError(error) if isinstance(error, str) else error
        instance_here("Received.reject").outbox.fail(self.id, self.request, error)

    def __repr__(self) -> str:
        return f"<request {self.id!r} ({self.request.name!r})>"


class Request(Generic[A, R_co]):
    """A message into a run with an answer: ``review = Request("review", Draft, Verdict)``.

    Raises `DefinitionError` for a name or type that cannot be recorded.
    """

    def __init__(self, name: str, argument: TypeForm[A], result: TypeForm[R_co]) -> None:
        self.name = _checked_name(name, "request")
        self.argument = ValueCodec(argument, f"the argument of request {name!r}")
        self.result = ValueCodec(result, f"the answer to request {name!r}")

    async def receive(self) -> Received[A, R_co]:
        """In a workflow: the next request, waiting for it if there is none. It must be answered or rejected."""
        instance = instance_here(f"Request({self.name!r}).receive")
        instance.check_open(f"the wait for request {self.name!r}")
        service = instance.inbox.service(self)
        service.open = True
        return await self._next(instance, service)

    async def _next(self, instance: Instance, service: Service) -> Received[A, R_co]:
        while True:
            fact, payload = await service.queue.get()
            try:
                value = self.argument.decode(payload if payload is not None else b"null")
            except HoldfastError as error:  # accepted under an earlier type
                instance.outbox.fail(fact.id, self, error)
                continue
            return Received(self, fact.id, value)

    @asynccontextmanager
    async def serve(
        self,
        handler: Callable[[A], Awaitable[R_co]] | Callable[[A], R_co],
        *,
        validator: Callable[[A], object] | None = None,
    ) -> AsyncGenerator[None, None]:
        """In a workflow: answer requests with `handler` while the block is in force, each in a branch of its own.

        `validator` is asked before a request is recorded, and refuses it by raising; it may read, and decide nothing;
        replay does not ask it again. Leaving the block waits for the requests under way; leaving it by an exception
        cancels them.
        """
        instance = instance_here(f"Request({self.name!r}).serve")
        service = instance.inbox.service(self)
        if service.served:
            raise HoldfastError(f"request {self.name!r} is served already, in another place of this workflow")
        service.open, service.served, service.validator = True, True, validator
        branches: dict[asyncio.Task[None], None] = {}
        server = asyncio.create_task(self._serve(instance, service, handler, branches), name=f"serve-{self.name}")
        try:
            yield
            while not service.queue.empty():  # noqa: ASYNC110 - accepted already: its branch begins within a few steps
                await asyncio.sleep(0)
        except BaseException:
            for branch in list(branches):
                branch.cancel()
            raise
        finally:
            service.open, service.served, service.validator = False, False, None
            server.cancel()
            await asyncio.gather(*branches, return_exceptions=True)

    async def _serve(
        self, instance: Instance, service: Service, handler: Any, branches: dict[asyncio.Task[None], None]
    ) -> None:
        while True:
            received = await self._next(instance, service)
            branch = asyncio.create_task(self._handle(received, handler), name=self.name)
            branches[branch] = None
            branch.add_done_callback(functools.partial(self._branch_over, instance, branches, received))

    def _branch_over(
        self,
        instance: Instance,
        branches: dict[asyncio.Task[None], None],
        received: Received[A, R_co],
        branch: asyncio.Task[None],
    ) -> None:
        """Also of a branch that was cancelled before it began: its request was accepted, so it is answered."""
        branches.pop(branch, None)
        leaving = instance.ending or instance.continuing or instance.loop.poisoned
        if branch.cancelled() and not leaving and received.id in instance.inbox.under_way:
            received.reject(asyncio.CancelledError("the request was cancelled"))

    async def _handle(self, received: Received[A, R_co], handler: Any) -> None:
        try:
            result = handler(received.value)
            if isinstance(result, Awaitable):
                result = await result
            received.answer(result)
        except Exception as error:
            received.reject(error)

    def __repr__(self) -> str:
        return f"<request {self.name!r}>"


class Query(Generic[A, R_co]):
    """A question that a run answers by being replayed, unchanged: ``progress = Query("progress", None, int)``.

    Argument type None: it takes no argument. Raises `DefinitionError` for a name or type that cannot be written.
    """

    def __init__(self, name: str, argument: TypeForm[A], result: TypeForm[R_co]) -> None:
        self.name = _checked_name(name, "query")
        self.takes_argument = argument is not None
        self.argument = ValueCodec(argument if argument is not None else type(None), f"the argument of query {name!r}")
        self.result = ValueCodec(result, f"the answer to query {name!r}")

    def provide(self, answer: Callable[..., R_co]) -> None:
        """In a workflow: what answers it from now on. It may read the workflow's objects, and decide nothing."""
        instance_here(f"Query({self.name!r}).provide").inbox.queries[self.name] = answer

    def __repr__(self) -> str:
        return f"<query {self.name!r}>"


class State(Generic[T_co]):
    """A value that a run publishes, and anyone may read at any time: ``phase = State("phase", str, initial="new")``.

    Raises `DefinitionError` for a name, type or initial value that cannot be recorded.
    """

    def __init__(self, name: str, type: TypeForm[T_co], *, initial: T_co | UnsetType = UNSET) -> None:  # noqa: A002
        self.name = _checked_name(name, "state")
        self.codec = ValueCodec(type, f"the value of state {name!r}")
        self.initial = initial
        if initial is not UNSET:
            self.codec.encode_checked(initial)

    async def publish(self, value: T_co) -> None:  # type: ignore[misc]
        """In a workflow: set its value. Raises `NotRecordable` for one that is not of the type."""
        instance = instance_here(f"State({self.name!r}).publish")
        instance.outbox.publish_state(self.name, self.codec.encode_checked(value), self.codec)

    def __repr__(self) -> str:
        return f"<state {self.name!r}>"


class Feed(Generic[T_co]):
    """Values that a run publishes one after the other; late readers see all of them: ``log = Feed("log", str)``.

    Raises `DefinitionError` for a name or type that cannot be recorded.
    """

    def __init__(self, name: str, type: TypeForm[T_co]) -> None:  # noqa: A002 - the word for it
        self.name = _checked_name(name, "feed")
        self.codec = ValueCodec(type, f"a value of feed {name!r}")

    async def publish(self, value: T_co) -> None:  # type: ignore[misc]
        """In a workflow: append a value. Raises `NotRecordable` for one that is not of the type."""
        instance = instance_here(f"Feed({self.name!r}).publish")
        instance.outbox.publish_to_feed(self.name, self.codec.encode_checked(value), self.codec)

    def __repr__(self) -> str:
        return f"<feed {self.name!r}>"


def _checked_name(name: str, what: str) -> str:
    fine = isinstance(name, str) and name.isprintable() and 0 < len(name) <= NAME_MAX
    if not fine or any(char in " /~#" for char in name):
        raise DefinitionError(
            f"{name!r} cannot name a {what}: 1 to {NAME_MAX} printable characters, no spaces, '/', '~' or '#'"
        )
    return name
