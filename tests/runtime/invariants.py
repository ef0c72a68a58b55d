"""What every history that an engine wrote satisfies, whatever happened to the engine. Used by all tests of the shell."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeAlias

from engine.core.call import Definition
from engine.core.events import (
    AttemptFailed,
    AttemptHeartbeat,
    AttemptOutcomeIgnored,
    AttributesGiven,
    AttributesSet,
    CancelRequested,
    ChildCancelled,
    ChildCompleted,
    ChildFailed,
    ChildOutcomeIgnored,
    ChildStarted,
    ChildTerminated,
    ContinuedAsNew,
    Decision,
    EffectReconciled,
    Fact,
    FeedPublished,
    MessageSent,
    PatchMarked,
    PrefixEnded,
    RequestAnswered,
    RequestFailed,
    RequestReceived,
    RunBegun,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunForked,
    RunPaused,
    RunQueued,
    RunReopened,
    RunResumed,
    RunStarted,
    RunSuspended,
    RunTerminated,
    RunUnpaused,
    SendAccepted,
    SendRejected,
    SignalIgnored,
    SignalReceived,
    StatePublished,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskHandedOut,
    TaskScheduled,
    TaskStarted,
    TimerCancelled,
    TimerFired,
    TimerStarted,
    TurnSlow,
    decode_header,
)
from engine.core.replay import Replayer
from engine.core.standing import standing
from engine.runtime.histories import read_state
from eventstore import EventStore, RecordedEvent, StreamHead
from eventstore.digest import NO_DIGEST, chain_start, event_digest

Span: TypeAlias = tuple[int, float, str]
ENDS = (RunCompleted, RunFailed, RunCancelled, RunTerminated)


class Broken(AssertionError):
    """A history breaks an invariant."""


def demand(condition: object, message: str) -> None:
    if not condition:
        raise Broken(message)


async def check_history(store: EventStore, run_id: str, *definitions: Definition[..., Any]) -> list[Any]:
    """Check the history of one run and return its events. With its code, in all of its versions, also that it replays."""
    head = await store.head(f"run:{run_id}")  # first: a late outcome may be noted while we read
    recorded = [event async for event in store.read(f"run:{run_id}", until=head.version)]
    events = [decode_header(item.header) for item in recorded]
    try:
        check_chain(f"run:{run_id}", recorded)
        demand(head.version == len(recorded), f"the head says version {head.version}")
        check_events(counting(events))
        check_marks(head, counting(events))
        if definitions:
            check_replay(definitions, run_id, recorded, events)
    except Broken as broken:
        lines = [f"{item.version:4} {item.header.decode()} {(item.payload or b'')[:200]!r}" for item in recorded]
        raise Broken(f"run {run_id!r}: {broken}\n" + "\n".join(lines)) from None
    return events


async def check_store(store: EventStore, *definitions: Definition[..., Any]) -> None:
    """Check the history of every run in a store."""
    from eventstore import StreamQuery

    cursor: str | None = None
    had: dict[tuple[str, str], list[Span]] = {}
    while True:
        page = await store.find(StreamQuery(category="run", cursor=cursor, limit=500))
        for head in page.items:
            of = [definition for definition in definitions if definition.name == head.attributes.get("workflow")]
            events = await check_history(store, head.stream.partition(":")[2], *of)
            if "workflow" in head.attributes:
                await check_attributes(store, head)
            else:
                demand(isinstance(events[0], RunForked), f"{head.stream} has no workflow, and is no fork that is made")
            first = events[0] if events else None  # a fork has no key, whatever its origin had
            if isinstance(first, RunStarted) and first.singleton:
                had.setdefault((first.workflow, first.singleton), []).extend(await spans_of(store, head.stream))
        if page.next is None:
            return check_singletons(had)
        cursor = page.next


async def check_attributes(store: EventStore, head: StreamHead) -> None:
    """What the stream is found by is what the history says, and nothing of it is left that was taken away."""
    state = await read_state(store, head.stream.partition(":")[2])
    there = {
        name.removeprefix("attribute:"): value
        for name, value in head.attributes.items()
        if name.startswith("attribute:")
    }
    demand(there == state.attributes, f"{head.stream} is found by {there}, its history says {state.attributes}")


async def spans_of(store: EventStore, stream: str) -> list[Span]:
    """From where to where in the log a run had begun and not ended, and whose that was: more than once if reopened."""
    spans: list[Span] = []
    begun: int | None = None
    has_begun = False
    async for item in store.read(stream):
        event = decode_header(item.header)
        if isinstance(event, RunBegun) or (isinstance(event, RunReopened) and has_begun):
            begun, has_begun = item.position, True
        if isinstance(event, ENDS) and begun is not None:
            spans.append((begun, item.position, stream))
            begun = None
    return spans if begun is None else [*spans, (begun, float("inf"), stream)]


def check_singletons(had: dict[tuple[str, str], list[Span]]) -> None:
    """Of the runs with one key, none began before the one before it had ended."""
    for key, spans in had.items():
        spans.sort()
        for (_, ended, one), (begun, _, other) in itertools.pairwise(spans):
            demand(ended < begun, f"{one} and {other} had key {key} at once: until {ended}, and from {begun}")


def check_chain(stream: str, recorded: list[RecordedEvent]) -> None:
    """Versions are contiguous, positions rise, and every digest is what the documented form says."""
    digest, position = chain_start(stream), 0
    for version, item in enumerate(recorded, 1):
        demand(item.version == version, f"version {item.version} stands where {version} should")
        demand(item.position > position, f"position {item.position} is behind {position}")
        position = item.position
        if item.payload is None:
            demand(item.payload_digest == NO_DIGEST, f"version {version} lacks its payload")
        else:
            demand(
                sha256((item.salt or b"") + item.payload).digest() == item.payload_digest,
                f"the payload of version {version} is not what its digest says",
            )
        digest = event_digest(digest, item.header, item.payload_digest)
        demand(item.digest == digest, f"the chain breaks at version {version}")


class _Told:
    """What the events so far have said."""

    def __init__(self) -> None:
        self.scheduled: dict[str, int] = {}
        self.given: set[str] = set()  # tasks whose results were given with a fork
        self.started: dict[str, int] = {}  # attempts begun
        self.failed: dict[str, int] = {}  # the last attempt that is recorded as failed
        self.retry_at: dict[str, int] = {}  # when the next may begin
        self.over: dict[str, str] = {}
        self.unwanted: set[str] = set()  # cancelled; those that are waited for have an outcome all the same
        self.timers: dict[str, int] = {}
        self.timers_over: set[str] = set()
        self.children: dict[str, str] = {}  # runs by call
        self.children_over: set[str] = set()
        self.children_asked: set[tuple[type, str]] = set()  # to end, softly or hard
        self.sent: set[str] = set()
        self.sent_over: set[str] = set()
        self.signals: set[str] = set()
        self.requests: set[str] = set()
        self.requests_over: set[str] = set()
        self.patches: set[str] = set()
        self.continued = False
        self.epoch = 0
        self.ended: str = ""
        self.suspended = False
        self.paused = False
        self.paused_at = 0  # what fell due at that very time may have come first
        self.fact = False
        self.waits = False  # it is recorded, and has not begun
        self.begins_at = 0


@dataclass
class _Item:
    version: int
    event: Any


def counting(events: list[Any]) -> list[Any]:
    """Those that count: without what was taken back when the run was reopened."""
    return [item.event for item in standing(_Item(version, event) for version, event in enumerate(events, 1))]


def check_events(events: list[Any]) -> None:
    """The grammar of a history."""
    demand(events, "it is empty")
    told, last = _Told(), 0
    forks = 0
    while isinstance(events[forks], RunForked):
        told.given |= set(events[forks].substituted)
        forks += 1
    demand(isinstance(events[forks], RunStarted), f"it begins with {events[forks]!r}")
    for version, event in enumerate(events[forks:], 1):
        where = f"version {version + forks}, {event!r}"
        demand(event.at >= last, f"{where}: time goes back from {last}")
        last = event.at
        if isinstance(event, RunStarted) and version > 1:
            demand(told.continued, f"{where}: it starts twice")
            demand(not event.waits, f"{where}: it has begun long since")
            demand(event.epoch == told.epoch + 1, f"{where}: behind epoch {told.epoch}")
            before = told
            told = _Told()
            told.epoch, told.paused, told.given = event.epoch, before.paused, before.given
        if told.ended:
            late = AttemptOutcomeIgnored | ChildOutcomeIgnored | SignalIgnored | TaskStarted | TurnSlow | Decision
            demand(isinstance(event, late), f"{where}: after {told.ended}")
        demand(
            not told.suspended
            or isinstance(
                event,
                RunResumed
                | RunTerminated
                | RunReopened
                | PrefixEnded  # behind which nothing of a fork is held
                | RunSuspended
                | AttemptOutcomeIgnored
                | SignalIgnored,
            ),
            f"{where}: while suspended",
        )
        if isinstance(event, Fact):
            told.fact = True
        if version == 1:
            told.waits, told.begins_at = event.waits, event.begins_at
        elif told.waits:
            _check_waiting(told, event, where)
        if isinstance(event, Decision):
            demand(told.fact, f"{where}: no fact has led to this decision")
        _check_event(told, event, where)


def _check_waiting(told: _Told, event: Any, where: str) -> None:
    """Before a run begins nothing of its code has run; it may be paused, told something, or ended."""
    may_come = SignalReceived | CancelRequested | RunQueued | RunPaused | RunUnpaused | RunSuspended | RunResumed
    may_come |= AttributesGiven
    ends = RunCancelled | RunTerminated | SignalIgnored | RunReopened  # which takes such an end back
    demand(isinstance(event, may_come | ends | RunBegun), f"{where}: before it has begun")
    if isinstance(event, RunBegun):
        demand(not told.paused, f"{where}: while paused")
        demand(event.at >= told.begins_at, f"{where}: before its time, {told.begins_at}")
        told.waits = False


def _check_event(told: _Told, event: Any, where: str) -> None:
    match event:
        case TaskScheduled(id=id_):
            demand(id_ not in told.scheduled, f"{where}: scheduled twice")
            told.scheduled[id_] = event.at
        case TaskStarted(id=id_, attempt=attempt):
            demand(not told.paused, f"{where}: while paused")
            demand(id_ in told.scheduled, f"{where}: was never scheduled")
            demand(id_ not in told.over, f"{where}: it is {told.over.get(id_)} already")
            demand(attempt == told.started.get(id_, 0) + 1, f"{where}: {told.started.get(id_, 0)} began before")
            demand(event.at >= told.retry_at.get(id_, 0), f"{where}: before its time, {told.retry_at.get(id_)}")
            told.started[id_] = attempt
        case AttemptFailed(id=id_, attempt=attempt):
            demand(attempt == told.started.get(id_), f"{where}: that attempt did not begin")
            demand(attempt > told.failed.get(id_, 0), f"{where}: that attempt has failed already")
            demand(id_ not in told.over, f"{where}: it is {told.over.get(id_)} already")
            demand(event.retry_at >= told.scheduled[id_], f"{where}: retried before it was scheduled")
            told.failed[id_], told.retry_at[id_] = attempt, event.retry_at
        case AttemptHeartbeat(id=id_, attempt=attempt):
            demand(attempt == told.started.get(id_), f"{where}: that attempt did not begin")
            demand(attempt > told.failed.get(id_, 0), f"{where}: that attempt has failed already")
            demand(id_ not in told.over, f"{where}: it is {told.over.get(id_)} already")
        case EffectReconciled(id=id_, attempt=attempt):
            demand(attempt == told.started.get(id_), f"{where}: that attempt did not begin")
            demand(id_ not in told.over, f"{where}: it is {told.over.get(id_)} already")
        case TaskCompleted(id=id_, attempt=attempt) | TaskFailed(id=id_, attempt=attempt):
            demand(id_ in told.scheduled, f"{where}: was never scheduled")
            demand(id_ not in told.over, f"{where}: it is {told.over.get(id_)} already")
            begun = told.started.get(id_, 0)
            # Asked to end before it began, a task that is waited for fails without an attempt, or behind its last one;
            # so does one whose memo could not be looked up, for its key function raised, and one that waited for a
            # limit in vain. One that was found has none.
            reused = isinstance(event, TaskCompleted) and bool(event.reused_run)
            demand(not reused or attempt == begun == 0, f"{where}: reused, and yet it was tried")
            least = 0 if reused or (isinstance(event, TaskFailed) and (id_ in told.unwanted or not begun)) else 1
            demand(least <= attempt <= begun or id_ in told.given, f"{where}: that attempt did not begin")
            demand(
                attempt > told.failed.get(id_, 0)
                or id_ in told.unwanted
                or id_ in told.given
                or is_of_the_outside(event)
                or not begun,
                f"{where}: that attempt has failed already",
            )
            told.over[id_] = type(event).__name__
        case TaskCancelled(id=id_):
            demand(id_ in told.scheduled, f"{where}: was never scheduled")
            demand(id_ not in told.over, f"{where}: it is {told.over.get(id_)} already")
            demand(id_ not in told.unwanted, f"{where}: cancelled twice")
            told.unwanted.add(id_)
        case AttemptOutcomeIgnored(id=id_, attempt=attempt):
            # 0: somebody with its token ended the task once more; that is no attempt's outcome.
            demand(0 <= attempt <= told.started.get(id_, 0), f"{where}: that attempt did not begin")
        case TimerStarted(id=id_, deadline=deadline):
            demand(id_ not in told.timers, f"{where}: started twice")
            told.timers[id_] = deadline
        case TimerFired(id=id_):
            demand(not told.paused or event.at == told.paused_at, f"{where}: while paused")
            demand(id_ in told.timers and id_ not in told.timers_over, f"{where}: no such timer is running")
            demand(event.at >= told.timers[id_], f"{where}: fired before its deadline {told.timers[id_]}")
            told.timers_over.add(id_)
        case TimerCancelled(id=id_):
            demand(id_ in told.timers and id_ not in told.timers_over, f"{where}: no such timer is running")
            told.timers_over.add(id_)
        case RunReopened() | PrefixEnded():
            # What stood still goes on later, and as if it had stood still.
            told.suspended = told.paused = False
            if isinstance(event, PrefixEnded):
                told.retry_at = {}  # its attempts are a fork's own, and the first of them waits for nothing
        case RunForked():
            raise Broken(f"{where}: a fork within a history")
        case RunSuspended():
            told.suspended = True
        case RunResumed():
            demand(told.suspended, f"{where}: it was not suspended")
            told.suspended = False
        case RunCompleted() | RunFailed() | RunCancelled() | RunTerminated():
            demand(not told.ended, f"{where}: it has ended with {told.ended} already")
            told.ended = type(event).__name__
            told.suspended = False
        case RunPaused():
            told.paused, told.paused_at = True, event.at
        case RunUnpaused():
            demand(told.paused, f"{where}: it was not paused")
            told.paused = False
        case CancelRequested() | TurnSlow():
            told.paused = False  # what it still does is clean up
        case ContinuedAsNew():
            told.continued = True
        case PatchMarked(name=name):
            demand(name not in told.patches, f"{where}: marked twice")
            told.patches.add(name)
        case RunStarted() | RunBegun() | RunQueued() | StatePublished() | FeedPublished() | TaskHandedOut():
            return
        case AttributesSet() | AttributesGiven():
            return
        case _:
            _check_talk(told, event, where)


def is_of_the_outside(event: TaskCompleted | TaskFailed) -> bool:
    """Whether it is the answer to what became of an attempt, which may have failed before."""
    if isinstance(event, TaskCompleted):
        return event.reconciled
    return event.error == "engine.errors.TaskInterrupted"


def _check_talk(told: _Told, event: Any, where: str) -> None:
    """What a run has to do with others."""
    match event:
        case ChildStarted(id=id_, run=run):
            demand(id_ not in told.children, f"{where}: that call has started one")
            told.children[id_] = run
        case ChildCompleted(id=id_) | ChildFailed(id=id_):
            demand(id_ in told.children, f"{where}: was never started")
            demand(id_ not in told.children_over, f"{where}: it has ended already")
            told.children_over.add(id_)
        case ChildCancelled(id=id_, run=run) | ChildTerminated(id=id_, run=run):
            demand(run in told.children.values(), f"{where}: was never started")
            demand((type(event), id_) not in told.children_asked, f"{where}: was asked to already")
            told.children_asked.add((type(event), id_))
        case ChildOutcomeIgnored() | SignalIgnored():
            return
        case MessageSent(id=id_):
            demand(id_ not in told.sent, f"{where}: sent twice")
            told.sent.add(id_)
        case SendAccepted(id=id_) | SendRejected(id=id_):
            demand(id_ in told.sent, f"{where}: was never sent")
            demand(id_ not in told.sent_over, f"{where}: its fate is known already")
            told.sent_over.add(id_)
        case SignalReceived(id=id_) | SignalIgnored(id=id_):
            demand(id_ not in told.signals, f"{where}: received twice")
            told.signals.add(id_)
        case RequestReceived(id=id_):
            demand(id_ not in told.requests, f"{where}: received twice")
            told.requests.add(id_)
        case RequestAnswered(request=id_) | RequestFailed(request=id_):
            demand(id_ in told.requests, f"{where}: was never received")
            demand(id_ not in told.requests_over, f"{where}: answered twice")
            told.requests_over.add(id_)
        case _:
            raise Broken(f"{where}: unknown")


def check_marks(head: Any, events: list[Any]) -> None:
    """What lists and claims see of the stream agrees with its history."""
    ended = [event for event in events if isinstance(event, ENDS)]
    status = head.attributes["status"]
    if ended:
        expected = {
            RunCompleted: "completed",
            RunFailed: "failed",
            RunCancelled: "cancelled",
            RunTerminated: "terminated",
        }
        demand(status == expected[type(ended[0])], f"its status is {status!r}, but it ended with {ended[0]!r}")
        demand(head.closed, "it has ended, but its stream is open")
        return
    demand(not head.closed, "it has not ended, but its stream is closed")
    begun = not any(getattr(event, "waits", False) for event in events)
    begun = begun or any(isinstance(event, RunBegun) for event in events)
    # What was held when it ended, or was forked, is held no more.
    since = max((n for n, event in enumerate(events) if isinstance(event, RunReopened | PrefixEnded)), default=0)
    events = events[since:]
    marks = [event for event in events if isinstance(event, RunSuspended | RunResumed)]
    suspended = bool(marks) and isinstance(marks[-1], RunSuspended)
    marks = [event for event in events if isinstance(event, RunPaused | RunUnpaused | CancelRequested)]
    paused = bool(marks) and isinstance(marks[-1], RunPaused)
    expected_now = "suspended" if suspended else "paused" if paused else "running" if begun else "queued"
    demand(("waits" in head.attributes) == (not begun), f"begun is {begun}, but its attributes are {head.attributes}")
    demand(status == expected_now, f"its status is {status!r}, not {expected_now!r}")
    demand(head.held or not suspended, f"held is {head.held}")


def check_replay(
    definitions: Sequence[Definition[..., Any]], run_id: str, recorded: list[RecordedEvent], events: list[Any]
) -> None:
    """The code decides again what is recorded; nothing is missing from the last turn of a run that has ended."""
    if isinstance(events[-1], RunTerminated | RunSuspended):
        return
    versions = {definition.version: definition for definition in definitions}
    find = (lambda _name, version: versions.get(version)) if len(versions) > 1 else None
    replayer = Replayer(definitions[-1], run_id, versions=find, tables=None)
    try:
        for item, event in zip(recorded, events, strict=True):
            replayer.feed(item.version, event, item.payload)
        rest = replayer.finish()
    except Exception as error:
        raise Broken(f"it does not replay: {error}") from error
    replayer.instance.evict()
    if any(isinstance(event, ENDS) for event in counting(events)):
        demand(rest == [], f"replay decides what is not recorded: {rest!r}")
