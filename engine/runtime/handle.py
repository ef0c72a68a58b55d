"""A handle on a run: what a client of an engine can ask and do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Generic, NoReturn, Protocol, TypeVar, overload

import msgspec
from msgspec import Struct

from engine.core.attributes import AttributeValue
from engine.core.carriage import refuse_away, unpack
from engine.core.failures import ErrorInfo, decode_error, rebuild
from engine.core.fold import FINAL_STATUSES, RunState, RunStatus
from engine.core.fold_parts import diagnosis_of
from engine.core.values import ValueCodec
from engine.errors import (
    EngineFailed,
    HistoryError,
    RunCancelledError,
    RunFailedError,
    RunPrunedError,
    RunSuspendedError,
    RunTerminatedError,
)
from engine.runtime import asking
from engine.runtime.asking import PendingRequest
from engine.runtime.half_forks import is_half
from engine.runtime.histories import HistoryEvent, Outcome, check_whole, head_of, outcome_of, read_events, read_state
from engine.runtime.large_values import LARGE
from engine.runtime.mail import (
    CancelMail,
    ControlMail,
    PauseMail,
    RequestMail,
    ResumeMail,
    SignalMail,
    TerminateMail,
    UnpauseMail,
    control_message,
    data_message,
)
from engine.runtime.published import follow_feed, read_published
from engine.runtime.querying import run_query
from engine.runtime.sending import send_data
from engine.runtime.serving import Served
from engine.runtime.streams import (
    ORIGIN,
    PARENT,
    SINGLETON,
    SLOW,
    STATUS,
    SUSPENDED_FOR,
    VERSION,
    WAITS,
    WORKFLOW,
    own_attributes,
    run_id_of,
    stream_of,
)
from engine.runtime.watches import Watch
from engine.workflows import Feed, Query, Request, Signal, State
from eventstore import EventStore

__all__ = ["HistoryEvent", "RunHandle", "RunSummary", "summary_of"]

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class RunSummary(Struct, frozen=True, kw_only=True):
    """One line of a list of runs. Times in microseconds since the epoch."""

    id: str
    workflow: str
    status: RunStatus
    version: int  # events in its history
    created_at: int
    updated_at: int
    workflow_version: str = ""  # if its workflow has versions
    suspended_for: str = ""  # the reason of its diagnosis, while it is suspended
    parent: str = ""  # id of the run that started it as its child
    origin: str = ""  # id of the run that it is a rerun or a fork of
    slow: int = 0  # microseconds of its slowest turn, if one kept other runs waiting
    begins_at: int = 0  # of one that is queued: not before this; 0: as soon as nothing holds it
    singleton: str = ""  # the key that one run of the workflow has at a time
    attributes: dict[str, AttributeValue] = {}  # what its author gave it, to be found by


def summary_of(head: Any) -> RunSummary:
    """One line of a list of runs, from the head of a stream."""
    queued = head.attributes.get(STATUS) == "queued"
    return RunSummary(
        id=run_id_of(head.stream),
        workflow=str(head.attributes.get(WORKFLOW, "")),
        status=head.attributes.get(STATUS, "running"),
        version=head.version,
        created_at=head.created_at,
        updated_at=head.updated_at,
        workflow_version=str(head.attributes.get(VERSION) or ""),
        suspended_for=str(head.attributes.get(SUSPENDED_FOR) or ""),
        parent=str(head.attributes.get(PARENT, "")),
        origin=str(head.attributes.get(ORIGIN, "")),
        slow=head.attributes.get(SLOW) or 0,
        begins_at=(head.attributes.get(WAITS) or 0) if queued else 0,
        singleton=str(head.attributes.get(SINGLETON, "")),
        attributes=own_attributes(head.attributes),
    )


class Desk(asking.Desk, Protocol):
    """What a handle needs of its engine: what a request needs, and more."""

    @property
    def definitions(self) -> Served:
        """The workflows that this engine has, those that its runs have named included."""

    def message_id(self) -> str: ...

    async def end_half_fork(self, run_id: str, *, by: str, reason: str) -> None:
        """End a fork that was not made to its end. See `half_forks`."""


class RunHandle(Generic[R_co]):
    """A run of one engine. Handles are cheap; any number of them may stand for one run.

    Every method raises `RunNotFound` when there is no such run, `EngineClosed` when the engine is closed, and
    `eventstore.StoreUnavailable` when the store fails.
    """

    def __init__(self, desk: Desk, watch: Watch, codec: ValueCodec | None) -> None:
        self.id = watch.run_id
        self._desk = desk
        self._watch = watch
        self._codec = codec

    def __repr__(self) -> str:
        return f"<run {self.id!r}>"

    async def result(self) -> R_co:
        """Wait for the run's end and return its result, of the workflow's annotated type.

        Cancelling whoever awaits this does not cancel the run. Raises `RunFailedError` (its `__cause__` is the
        recorded exception), `RunCancelledError`, `RunTerminatedError`, `RunSuspendedError` (with the diagnosis),
        `RunPrunedError`, or `EngineFailed` when this engine can no longer tell.
        """
        watch = self._watch
        while (outcome := self._known()) is None:
            self._desk.check()
            bell = watch.end_bell()  # before we look: what happens meanwhile rings it
            try:
                if not watch.resident and (outcome := await self._look()) is not None:
                    break
                self._desk.watch(watch)
                await bell
            finally:
                watch.forget(bell)
        return self._deliver(outcome)

    async def status(self) -> RunStatus:
        """The run's status now, as recorded."""
        head = await head_of(self._store, self.id)
        status: Any = head.attributes.get(STATUS, "running")
        return status  # type: ignore[no-any-return]

    async def state(self, *, at: int | None = None) -> RunState:
        """The fold of the run's history, at a version or now; needs no code of the workflow."""
        return await read_state(self._store, self.id, at=at)

    async def events(self, *, after: int = 0, follow: bool = False) -> AsyncIterator[HistoryEvent]:
        """The run's events behind version `after`. With `follow`, goes on until the run has ended or is suspended."""
        while True:
            bell = self._watch.bell()  # before we look: what happens meanwhile rings it
            try:
                async for item in read_events(self._store, self.id, after=after):
                    after = item.version
                    yield item
                if not follow:
                    return
                head = await head_of(self._store, self.id)
                if head.version > after:
                    continue
                resting = head.held and head.attributes.get(STATUS) == "suspended"
                if head.closed or (resting and not any(message.control for message in head.messages)):
                    return
                self._desk.check()
                self._desk.watch(self._watch)
                await bell
            finally:
                self._watch.forget(bell)

    async def cancel(self, *, reason: str = "", by: str = "") -> None:
        """Ask the run to end; the workflow may clean up. Durable when this returns; a finished run is left as it is.

        It takes effect when a worker has the run; a suspended run is then terminated without its code. One that has not
        begun ends without it, too, and a fork that was not made to its end is terminated at once.
        """
        await self._send(CancelMail(by=by, reason=reason))

    async def resume(self, *, reason: str = "", by: str = "") -> None:
        """Ask a suspended run to try again with the code that its worker has now. Others are left as they are."""
        await self._send(ResumeMail(by=by, reason=reason))

    async def terminate(self, *, reason: str = "", by: str = "") -> None:
        """End the run without its code: it cannot clean up. A finished run is left as it is.

        Its children are ended as their calls said (`parent_close`), its parent is told.
        """
        await self._send(TerminateMail(by=by, reason=reason))

    async def pause(self, *, reason: str = "", by: str = "") -> None:
        """Let nothing of the run begin; attempts under way end and are recorded, and what arrives is kept."""
        await self._send(PauseMail(by=by, reason=reason))

    async def unpause(self, *, reason: str = "", by: str = "") -> None:
        """Let a paused run go on, with everything that arrived meanwhile. Others are left as they are."""
        await self._send(UnpauseMail(by=by, reason=reason))

    # -- talking with the workflow -------------------------------------------------------------------------------------

    async def signal(
        self,
        signal: Signal[T],
        value: T,
        *,
        id: str | None = None,  # noqa: A002
        by: str = "",
        reason: str = "",
    ) -> None:
        """Send a signal. Durable when this returns; the same `id` again is delivered once.

        The history says who sent it, and why, if that is said.

        Raises `RunEnded` for a finished run, `NotRecordable` or `PayloadTooLarge` for a value that is not of its type.
        """
        payload = signal.codec.encode_checked(value)
        mail = SignalMail(name=signal.name, by=by, reason=reason)
        await send_data(
            self._store, data_message(stream_of(self.id), id or self._desk.message_id(), mail, payload), self.id
        )

    @overload
    async def request(
        self, request: Request[None, R], argument: None = None, *, id: str | None = None, by: str = "", reason: str = ""
    ) -> PendingRequest[R]: ...
    @overload
    async def request(
        self, request: Request[A, R], argument: A, *, id: str | None = None, by: str = "", reason: str = ""
    ) -> PendingRequest[R]: ...
    async def request(
        self,
        request: Request[Any, R],
        argument: Any = None,
        *,
        id: str | None = None,  # noqa: A002
        by: str = "",
        reason: str = "",
    ) -> PendingRequest[R]:
        """Send a request, and wait until the workflow has accepted it: it is then part of the history.

        Giving up the wait takes nothing back. The same `id` again is the same request, which is answered once.
        Raises `RequestRefused` when the validator refuses it, `RunEnded` when the run ended before it took it,
        `NotRecordable` or `PayloadTooLarge` for an argument that is not of its type.
        """
        payload = request.argument.encode_checked(argument)
        id_ = id or self._desk.message_id()
        pending: PendingRequest[R] = PendingRequest(self._desk, self._watch, request, id_)
        mail = RequestMail(name=request.name, by=by, reason=reason)
        await pending.send(data_message(stream_of(self.id), id_, mail, payload))
        await pending.accepted()
        return pending

    @overload
    async def ask(
        self, request: Request[None, R], argument: None = None, *, id: str | None = None, by: str = "", reason: str = ""
    ) -> R: ...
    @overload
    async def ask(
        self, request: Request[A, R], argument: A, *, id: str | None = None, by: str = "", reason: str = ""
    ) -> R: ...
    async def ask(
        self,
        request: Request[Any, R],
        argument: Any = None,
        *,
        id: str | None = None,  # noqa: A002
        by: str = "",
        reason: str = "",
    ) -> R:
        """Send a request and wait for the answer. Raises what `request` and `PendingRequest.answer` raise."""
        pending = await self.request(request, argument, id=id, by=by, reason=reason)
        return await pending.answer()

    def pending_request(self, request: Request[A, R], id: str) -> PendingRequest[R]:  # noqa: A002
        """A request that was sent before, by its id."""
        return PendingRequest(self._desk, self._watch, request, id)

    @overload
    async def query(self, query: Query[None, R], argument: None = None) -> R: ...
    @overload
    async def query(self, query: Query[A, R], argument: A) -> R: ...
    async def query(self, query: Query[Any, R], argument: Any = None) -> R:
        """Ask the workflow's code, as of now: the history is replayed here, and nothing is changed.

        The workflow must be among the engine's. Raises `QueryFailed` when it provides no answer, or that raised;
        `RunSuspendedError` when the code does not fit the history.
        """
        head = await head_of(self._store, self.id)
        return await run_query(self._store, head, self._desk.definitions, query, argument)

    async def read(self, state: State[T]) -> T:
        """The value that the run published last. Raises `NotPublished` when there is none, and no initial one;
        `RunPrunedError` when nobody can tell.

        Reads the log: no worker is needed, and none is asked.
        """
        head = await head_of(self._store, self.id)
        check_whole(head)
        return await read_published(self._store, head, state)

    async def feed(self, feed: Feed[T], *, follow: bool = True) -> AsyncIterator[T]:
        """All values of a feed, from the first. With `follow`, goes on until the run has ended or is suspended.

        Those that were destroyed are left out. Raises `RunPrunedError`.
        """
        check_whole(await head_of(self._store, self.id))
        async for value in follow_feed(self.events(follow=follow), feed):
            yield value

    def _known(self) -> Outcome | None:
        """The outcome, if this process was told. Raises `EngineFailed` when it never will be."""
        watch = self._watch
        if watch.status is not None:
            return Outcome(watch.status, watch.payload, watch.reason)
        if watch.failure is not None:
            raise EngineFailed(f"the engine stopped before run {self.id!r} ended: {watch.failure}") from watch.failure
        return None

    @property
    def _store(self) -> EventStore:
        self._desk.check()
        return self._desk.store

    async def _send(self, mail: ControlMail) -> None:
        head = await head_of(self._store, self.id)
        if is_half(head) and isinstance(mail, CancelMail | TerminateMail):  # nobody works on it, to take that up
            reason = mail.reason or "it had not been made to its end"
            await self._desk.end_half_fork(self.id, by=mail.by, reason=reason)
            head = await head_of(self._store, self.id)
        if not head.closed:
            await self._store.send(control_message(stream_of(self.id), self._desk.message_id(), mail))

    async def _look(self) -> Outcome | None:
        head = await head_of(self._store, self.id)
        resting = head.held and head.attributes.get(STATUS) == "suspended"
        if head.closed or (resting and not any(message.control for message in head.messages)):
            return await outcome_of(self._store, head, self.id)
        return None

    def _deliver(self, outcome: Outcome) -> R_co:
        if outcome.status != "completed":
            self._raise(outcome)
        if outcome.payload is None:
            raise HistoryError(f"the result of run {self.id!r} was destroyed")
        codec = self._codec
        if codec is not None:
            return codec.decode(outcome.payload, LARGE)  # type: ignore[no-any-return]
        refuse_away(outcome.payload, f"the result of run {self.id!r}")
        try:
            value: Any = msgspec.json.decode(unpack(outcome.payload)[0])
        except (ValueError, RecursionError) as error:
            raise HistoryError(f"the result of run {self.id!r} is no value: {error}") from error
        return value  # type: ignore[no-any-return]

    def _raise(self, outcome: Outcome) -> NoReturn:
        match outcome.status:
            case "failed":
                self._raise_failure(outcome.payload)
            case "suspended":
                diagnosis = diagnosis_of(outcome.payload)
                text = "" if diagnosis is None else diagnosis.render()
                raise RunSuspendedError(self.id, f"run {self.id!r} is suspended: {text}")
            case "pruned":
                raise RunPrunedError(self.id)
            case "terminated":
                raise RunTerminatedError(self.id, f"run {self.id!r} was terminated{_because(outcome.reason)}")
            case _:
                assert outcome.status in FINAL_STATUSES
                raise RunCancelledError(self.id, f"run {self.id!r} was cancelled{_because(outcome.reason)}")

    def _raise_failure(self, payload: bytes | None) -> NoReturn:
        info = decode_error(payload) if payload is not None else ErrorInfo(type="unknown", message="(destroyed)")
        raise RunFailedError(self.id, type=info.type, message=info.message, traceback=info.traceback) from rebuild(info)


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
