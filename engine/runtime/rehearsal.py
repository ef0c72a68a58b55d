"""A run by hand: no engine, no store, no time. Facts are told one by one, and what the workflow decides comes back.

It is the turn rule itself (`Instance.deliver`), so what is seen here is what an engine would record. Values go through
the codecs of their definitions, as if an attempt or a client had sent them.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from engine.core.call import Call, Definition
from engine.core.carriage import INLINE
from engine.core.events import (
    AnyEvent,
    CancelRequested,
    ChildCompleted,
    ChildFailed,
    Fact,
    MessageSent,
    RequestReceived,
    RunStarted,
    SendAccepted,
    SignalReceived,
    TaskCompleted,
    TaskFailed,
    TimerFired,
    encode_header,
)
from engine.core.failures import describe, encode_error
from engine.core.instance import Instance
from engine.errors import HoldfastError
from engine.runtime.anyio_seams import order_anyio_sets
from engine.runtime.guard import install_guard
from engine.runtime.histories import HistoryEvent
from engine.runtime.versions import PYTHON
from engine.workflows import Request, Signal, Workflow

__all__ = ["Pending", "Rehearsal"]

SEED = "00112233445566778899aabbccddeeff"


class Pending(Struct, frozen=True):
    """Something that the workflow has asked for and not heard of: a task call, a child run or a timer."""

    kind: Literal["task", "child", "timer"]
    id: str
    definition: Definition[..., Any] | None  # None: a timer
    arguments: bytes | None
    deadline: int | None  # of a timer, in microseconds since the epoch


class Rehearsal:
    """One epoch of a run of `call`, begun at `at` (microseconds since the epoch). Close it when you are done.

    Every method that tells something returns the decisions it led to, and raises `HoldfastError` for what the workflow
    does not wait for, `NotRecordable` for a value that is not of its type.
    """

    def __init__(self, call: Call[Any], *, run_id: str = "rehearsal", at: int, seed: str = SEED) -> None:
        call.take()
        if not isinstance(call.definition, Workflow):
            raise HoldfastError(f"a rehearsal is of a call of a workflow, as in Rehearsal(nightly(day)), not {call!r}")
        order_anyio_sets()
        install_guard()
        self.history: list[HistoryEvent] = []
        self._instance = Instance(call.definition, run_id, tables=None)
        self._told = 0
        arguments = call.definition.arguments.encode(call.args, call.kwargs, INLINE)
        self.began = self._tell(RunStarted(at=at, workflow=call.definition.name, seed=seed, python=PYTHON), arguments)

    @property
    def now(self) -> int:
        """Microseconds since the epoch: the time of the last fact."""
        return self._instance.now

    @property
    def ended(self) -> bool:
        """Whether the workflow function has ended."""
        return self._instance.outcome is not None

    def pending(self) -> list[Pending]:
        """What the workflow waits for: tasks and child runs as they were asked for, then timers, the next one first."""
        instance = self._instance
        tasks = [Pending("task", each.id, each.definition, each.arguments, None) for each in instance.pending.values()]
        children = [
            Pending("child", each.id, each.definition, self._arguments_of(each.id), None)
            for each in instance.children.values()
        ]
        timers = [Pending("timer", id_, None, None, each.deadline) for id_, each in instance.timers.items()]
        return [*tasks, *children, *sorted(timers, key=lambda timer: timer.deadline or 0)]

    def completed(self, id: str, value: Any) -> list[HistoryEvent]:  # noqa: A002 - the word for it
        """A task, or a child run, has ended with a result."""
        definition = self._definition_of(id)
        payload = definition.result.encode_checked(value)
        fact = (TaskCompleted if definition.kind == "task" else ChildCompleted)(at=self.now, id=id)
        return self._tell(fact, payload)

    def failed(self, id: str, error: BaseException) -> list[HistoryEvent]:  # noqa: A002
        """A task, or a child run, has failed for good."""
        info = describe(error)
        fact: Fact
        if self._definition_of(id).kind == "task":
            fact = TaskFailed(at=self.now, id=id, error=info.type)
        else:
            fact = ChildFailed(at=self.now, id=id, status="failed", error=info.type)
        return self._tell(fact, encode_error(info))

    def fired(self, id: str) -> list[HistoryEvent]:  # noqa: A002
        """A timer's time has come."""
        timer = self._instance.timers.get(id)
        if timer is None:
            raise HoldfastError(f"no timer {id!r} is running; there are {', '.join(self._instance.timers) or 'none'}")
        return self._tell(TimerFired(at=max(self.now, timer.deadline), id=id), None)

    def signal(self, signal: Signal[Any], value: Any, *, at: int | None = None) -> list[HistoryEvent]:
        """A signal has arrived."""
        fact = SignalReceived(at=self._at(at), id=self._message_id(), name=signal.name)
        return self._tell(fact, signal.codec.encode_checked(value))

    def request(self, request: Request[Any, Any], argument: Any, *, at: int | None = None) -> list[HistoryEvent]:
        """A request was accepted. Raises `HoldfastError` for one that the workflow refuses, or does not serve now."""
        payload = request.argument.encode_checked(argument)
        refusal = self._instance.inbox.refusal(request.name, payload)
        if refusal == "later":
            raise HoldfastError(f"the workflow does not serve {request!r} now: an engine would keep it in the mailbox")
        if refusal is not None:
            raise HoldfastError(f"the workflow refuses {request!r}: {refusal.type}: {refusal.message}")
        return self._tell(RequestReceived(at=self._at(at), id=self._message_id(), name=request.name), payload)

    def cancel(self, reason: str = "", *, at: int | None = None) -> list[HistoryEvent]:
        """Somebody wants the run to end."""
        return self._tell(CancelRequested(at=self._at(at), reason=reason), None)

    def close(self) -> None:
        """Put the instance away."""
        self._instance.evict()

    def __del__(self) -> None:
        instance = getattr(self, "_instance", None)
        if instance is not None:
            instance.evict()

    def _at(self, at: int | None) -> int:
        return self.now if at is None else max(at, self.now)

    def _message_id(self) -> str:
        self._told += 1
        return f"message-{self._told}"

    def _arguments_of(self, id_: str) -> bytes | None:
        return next((item.payload for item in self.history if getattr(item.event, "id", "") == id_), None)

    def _definition_of(self, id_: str) -> Definition[..., Any]:
        found = self._instance.pending.get(id_) or self._instance.children.get(id_)
        if found is None:
            waited_for = ", ".join([*self._instance.pending, *self._instance.children]) or "none"
            raise HoldfastError(f"the workflow waits for no call {id_!r}; there are {waited_for}")
        return found.definition

    def _tell(self, fact: Fact, payload: bytes | None) -> list[HistoryEvent]:
        if self._instance.outcome is not None:
            raise HoldfastError(f"the run has ended with {type(self._instance.outcome).__name__}: it is told no more")
        self._record(fact, payload)
        decided = [self._record(item.event, item.payload) for item in self._instance.deliver(fact, payload)]
        for item in list(decided):  # in a rehearsal, what is sent to others arrives
            if isinstance(item.event, MessageSent) and not self.ended:
                decided += self._tell(SendAccepted(at=self.now, id=item.event.id), None)
        return decided

    def _record(self, event: Any, payload: bytes | None) -> HistoryEvent:
        recorded: AnyEvent = event
        version = len(self.history) + 1
        self.history.append(HistoryEvent(version, version, recorded, payload, encode_header(recorded), b""))
        return self.history[-1]
