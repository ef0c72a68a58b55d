"""One step of a run: what arrives, and what is decided, before it is written.

Plain data and the small functions that make events of it; `driver` fills a `Step`, writes it, and acts on it.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType, field

from engine.core.calls import CANCELLED
from engine.core.decided import Decided
from engine.core.events import (
    AttemptFailed,
    AttemptOutcomeIgnored,
    AttributesGiven,
    AttributesSet,
    CancelRequested,
    ChildCompleted,
    ChildFailed,
    ChildOutcomeIgnored,
    ChildStarted,
    ContinuedAsNew,
    Decision,
    EffectReconciled,
    Fact,
    MessageSent,
    Note,
    RunBegun,
    RunStarted,
    SendAccepted,
    SendRejected,
    SignalReceived,
    StatePublished,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskHandedOut,
    TaskScheduled,
    TimerFired,
    decode_header,
)
from engine.core.failures import ErrorInfo, encode_error
from engine.core.instance import Instance
from engine.core.pending import PendingTask
from engine.executors import Executor
from engine.runtime.letters import letter_of
from engine.runtime.permits import Asked
from engine.runtime.streams import (
    EPOCH_START,
    STATUS,
    is_state_attribute,
    new_event,
    set_attributes,
    state_attribute,
    status_of,
)
from eventstore import Message, NewEvent, Undelivered
from eventstore.port import Scalar

__all__ = ["Arrival", "Step", "as_ignored", "ignored", "task_cancelled", "task_failed", "wanted"]


class Arrival(Struct, frozen=True, gc=False):
    """What is to be recorded next, not yet stamped: a fact on its way to the instance, or a note.

    `message` is the mailbox message it came by; without an event, the message is just taken out of the box, and
    `reply`, if there is one, sent. `granted`: the limit and the holder of a permit that is to be had.
    `attributes`: what was given with a start, which is written with it.
    """

    event: Fact | Note | None
    payload: bytes | None = None
    message: str | None = None
    reply: Message | None = None
    granted: tuple[str, str] | None = None
    attributes: bytes | None = None


class Step(Struct):
    """What one step decided: written as a whole, then acted on. `base` is the version of the stream before it."""

    base: int = 0
    began_at: int = 0  # time of the last event before it
    events: list[NewEvent] = field(default_factory=list)
    # Behind how many events of this step, which message. Hardly any step has any: no list of its own for each.
    consumes: list[tuple[int, str]] | tuple[()] = ()
    sends: list[tuple[int, Message]] | tuple[()] = ()  # likewise
    awaited: dict[str, Decision] | None = None  # by message id: sends whose delivery somebody awaits
    undelivered: tuple[Undelivered, ...] = ()  # what the commits said of them
    written: int = 0  # how many of the events
    taken: list[Arrival] = field(default_factory=list)
    later: tuple[Arrival, ...] = ()  # requests that the workflow does not serve now
    cancelled: list[str] | tuple[()] = ()  # tasks whose outcome is no longer wanted
    scheduled: list[str] = field(default_factory=list)
    starting: list[tuple[PendingTask, Executor]] = field(default_factory=list)
    asked: Asked | None = None  # of the limits that the store shares
    children: bool = False  # whether child runs were started
    progress: bool = False
    suspended: bool = False
    release: bool = False
    held: bool | UnsetType = UNSET
    holds: list[tuple[int, bool]] | tuple[()] = ()  # behind how many events of this step it is held, or not
    let_on: str | None = None  # the pause of its workflow that it may pass from here on
    alarm: int | UnsetType | None = UNSET
    attributes: dict[str, Scalar] = field(default_factory=dict)
    marks: list[tuple[int, str, Scalar]] | tuple[()] = ()  # those that hold since one of its events
    ended: Decided | None = None
    ended_behind: int = 0  # how many events of this step stand up to the one that ended the run, itself included
    continued: bool = False
    told: bool = False  # it begins with the decisions of a turn whose fact is recorded already
    may_be_decided_anew: bool = False  # what ends the run in this step might have ended it otherwise, behind other mail

    def add(self, decided: list[Decided], started: RunStarted, run_id: str) -> None:
        """Write decisions behind the fact that led to them, and note what follows from them."""
        for item in decided:
            event = item.event
            self.events.append(new_event(event, item.payload))
            if isinstance(event, TaskScheduled):
                self.scheduled.append(event.id)
                continue
            if isinstance(event, TaskCancelled):
                self.call_off(event.id)
            elif isinstance(event, StatePublished):
                self.mark(state_attribute(event.name), self.base + len(self.events))
            elif isinstance(event, AttributesSet):
                self._mark_attributes(item.payload)
            elif isinstance(event, ContinuedAsNew):
                self.continued = True
            elif (status := status_of(event)) is not None:
                self.ended, self.ended_behind = item, len(self.events)
                self.attributes[STATUS] = status
            if (message := letter_of(item, started, run_id)) is not None:
                self.send(message)
                if isinstance(event, MessageSent | ChildStarted):
                    self.awaited = self.awaited or {}
                    self.awaited[message.id] = event
                    self.children = self.children or isinstance(event, ChildStarted)

    def call_off(self, task_id: str) -> None:
        """The outcome of a task is no longer wanted."""
        self.cancelled = self.cancelled or []
        self.cancelled.append(task_id)

    def give_attributes(self, payload: bytes, *, at: int) -> None:
        """Write the attributes that a run was given, behind its start."""
        self.events.append(new_event(AttributesGiven(at=at), payload))
        self._mark_attributes(payload)

    def _mark_attributes(self, payload: bytes | None) -> None:
        for name, value in set_attributes(payload or b"{}").items():
            self.mark(name, value)

    def consume(self, *messages: str) -> None:
        """Take messages out of the mailbox, behind the events there are by now."""
        self.consumes = self.consumes or []
        self.consumes.extend((len(self.events), message) for message in messages)

    def send(self, message: Message) -> None:
        """Send a message, behind the events there are by now."""
        self.sends = self.sends or []
        self.sends.append((len(self.events), message))

    def mark(self, name: str, value: Scalar, *, behind: int | None = None) -> None:
        """Let an attribute say something of the stream, since that many of the events (None: all there are by now)."""
        self.attributes[name] = value
        self.marks = self.marks or []
        self.marks.append((len(self.events) if behind is None else behind, name, value))

    def hold(self, held: bool, status: str) -> None:
        """Let the stream be held, or not, since the last of the events there are by now."""
        self.held = held
        self.holds = self.holds or []
        self.holds.append((len(self.events), held))
        self.mark(STATUS, status)

    def marked(self, until: int) -> dict[str, Scalar]:
        """What is marked of the stream once the first `until` events are written, and no more."""
        return {name: value for index, name, value in self.marks if index <= until}

    def held_since(self, until: int) -> bool | UnsetType:
        """Whether the stream is held then; UNSET for as before."""
        return next((held for index, held in reversed(self.holds) if index <= until), UNSET)

    def drop(self, written: int) -> None:
        """Forget the first events, which are written: the rest is a step of its own."""
        self.began_at = decode_header(self.events[written - 1].header).at
        self.events = self.events[written:]
        self.consumes = [(index - written, id_) for index, id_ in self.consumes if index > written]
        self.sends = [(index - written, message) for index, message in self.sends if index > written]
        self.marks = [(index - written, name, value) for index, name, value in self.marks if index > written]
        self.holds = [(index - written, held) for index, held in self.holds if index > written]
        self.base, self.ended_behind = self.base + written, self.ended_behind - written

    def move(self, by: int) -> None:
        """Let it stand that many versions later: something is written before it."""
        self._shift_versions(by, behind=self.base)
        self.base += by

    def take_in(self, late: Step) -> None:
        """Let another step's notes stand behind the first event of this one: nothing stands before a run's start."""
        by = len(late.events)
        self.events[1:1] = late.events
        self.consumes = [(index + by if index > 1 else index, message) for index, message in self.consumes]
        self.sends = [(index + by if index > 1 else index, message) for index, message in self.sends]
        self.marks = [(index + by if index > 1 else index, name, value) for index, name, value in self.marks]
        self.holds = [(index + by if index > 1 else index, held) for index, held in self.holds]
        self.consumes += [(index + 1, message) for index, message in late.consumes]
        self.sends += [(index + 1, message) for index, message in late.sends]
        self.ended_behind += by
        self._shift_versions(by, behind=1)

    def _shift_versions(self, by: int, *, behind: int) -> None:
        """Attributes that are versions follow their events; other numbers (`slow`) are none of these."""

        def shifted(name: str, value: Scalar) -> Scalar:
            is_version = name == EPOCH_START or is_state_attribute(name)
            return value + by if is_version and type(value) is int and value > behind else value

        self.attributes = {name: shifted(name, value) for name, value in self.attributes.items()}
        self.marks = [(index, name, shifted(name, value)) for index, name, value in self.marks]

    @property
    def is_needless(self) -> bool:
        """Whether nothing came of it: of a turn whose fact is recorded already, and that decided nothing."""
        said = self.events or self.consumes or self.sends or self.attributes or self.release or self.asked
        return self.told and not said and self.alarm is UNSET and self.held is UNSET

    def deliveries(self) -> list[Arrival]:
        """What the commits said of the messages, as facts for those who await it."""
        reasons = {each.id: each.reason for each in self.undelivered}
        arrivals: list[Arrival] = []
        for id_, event in (self.awaited or {}).items():
            reason = reasons.get(id_)
            if isinstance(event, MessageSent):
                fact = SendAccepted(at=0, id=event.id) if reason is None else rejected(event.id, reason)
                arrivals.append(Arrival(fact))
            elif reason is not None:  # a child whose id belongs to a run that has ended
                arrivals.append(Arrival(ChildFailed(at=0, id=event.id, status="conflict")))
        return arrivals


def rejected(id_: str, reason: str) -> SendRejected:
    """The fact that a message was not delivered."""
    return SendRejected(at=0, id=id_, reason="not_found" if reason == "not_found" else "closed")


def task_cancelled(task_id: str, number: int) -> Arrival:
    """The outcome of a task that was asked to end, and did, or never began."""
    error = ErrorInfo(type=CANCELLED, message="the task was cancelled")
    return Arrival(task_failed(task_id, number, error), encode_error(error))


def wanted(fact: Fact, instance: Instance) -> bool:
    """Whether the run still waits for this fact."""
    if instance.outcome is not None:
        return isinstance(instance.outcome, ContinuedAsNew) and isinstance(fact, SignalReceived)
    match fact:
        case TaskCompleted(id=id_) | TaskFailed(id=id_):
            return id_ in instance.pending
        case TimerFired(id=id_):
            return id_ in instance.timers
        case ChildCompleted(id=id_) | ChildFailed(id=id_):
            return id_ in instance.calls.children or id_ in instance.calls.abandoned
        case SendAccepted(id=id_) | SendRejected(id=id_):
            return id_ in instance.outbox.sends
        case RunBegun() | CancelRequested(unless_begun=True):
            return instance.waiting is not None
        case _:
            return True


def task_failed(task_id: str, number: int, error: ErrorInfo) -> TaskFailed:
    """The final failure of a task, not yet stamped."""
    return TaskFailed(at=0, id=task_id, error=error.type, attempt=number)


def ignored(task_id: str, number: int, outcome: str, payload: bytes | None = None) -> Arrival:
    """The note of an outcome that nobody waits for."""
    return Arrival(AttemptOutcomeIgnored(at=0, id=task_id, attempt=number, outcome=outcome), payload)


def as_ignored(arrival: Arrival, *, epoch: int) -> Note | None:
    """What became of a cancelled or finished task is a note, never delivered; other stale facts leave no trace."""
    match arrival.event:
        case TaskCompleted(reused_run=run) if run:
            return None  # of an attempt that ended there would be something to say
        case TaskCompleted(id=id_, attempt=number, by=by, reason=reason):
            return AttemptOutcomeIgnored(at=0, id=id_, attempt=number, outcome="completed", by=by, reason=reason)
        case TaskFailed(id=id_, attempt=number, by=by, reason=reason):
            return AttemptOutcomeIgnored(at=0, id=id_, attempt=number, outcome="failed", by=by, reason=reason)
        case AttemptFailed(id=id_, attempt=number) | EffectReconciled(id=id_, attempt=number, answer="unknown"):
            return AttemptOutcomeIgnored(at=0, id=id_, attempt=number, outcome="failed")
        case EffectReconciled(id=id_, attempt=number):
            return AttemptOutcomeIgnored(at=0, id=id_, attempt=number, outcome="not happened")
        case TaskHandedOut(id=id_, attempt=number):
            return AttemptOutcomeIgnored(at=0, id=id_, attempt=number, outcome="handed out")
        case ChildCompleted(id=id_):
            return ChildOutcomeIgnored(at=0, id=id_, outcome="completed", epoch=epoch)
        case ChildFailed(id=id_, status=status):
            return ChildOutcomeIgnored(at=0, id=id_, outcome=status, epoch=epoch)
        case _:
            return None
