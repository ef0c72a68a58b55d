"""A world for a run, without an engine and without a store: it answers decisions, in an order that a schedule chooses.

`play` runs a workflow to its end and returns its history, every event taken through its bytes. `resume` does what a
crash leads to: it rebuilds the run from a prefix of a history and goes on under the same schedule. Schedules are
functions of the step and of what could happen, so the rest of a resumed run meets the choices of the undisturbed one.

The outside has `mail` for the run, in order per name, at any time; a child run ends as its own code does when it is
played in a world of its own; a message reaches any run but those whose id begins with "missing" or "ended".
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal, NamedTuple

from msgspec import structs

from engine.core.call import Call, Definition
from engine.core.carriage import INLINE
from engine.core.events import (
    AnyEvent,
    CancelRequested,
    ChildCompleted,
    ChildFailed,
    ChildStarted,
    ContinuedAsNew,
    Decision,
    Fact,
    Note,
    RequestReceived,
    RunBegun,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunStarted,
    SendAccepted,
    SendRejected,
    SignalReceived,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TaskStarted,
    TimerFired,
    decode_header,
    encode_header,
)
from engine.core.failures import decode_error, describe, encode_error
from engine.core.fold import RunState
from engine.core.instance import Decided, Instance, PendingTask
from engine.core.pending import PendingChild
from engine.core.replay import Replayer
from engine.runtime.epochs import beginning_of_next

START = 1_767_225_600_000_000  # microseconds: 2026-01-01
TICK = 1_000  # microseconds between two facts that are no timers
STEPS_MAX = 2_000
SEED = "00112233445566778899aabbccddeeff"
RUN_ID = "run-1"


class Entry(NamedTuple):
    """An event as it stands on disk."""

    header: bytes
    payload: bytes | None

    @property
    def event(self) -> AnyEvent:
        return decode_header(self.header)


History = list[Entry]
Pick = Callable[[int, Sequence[str]], int]
"""Given the step and what could happen next (sorted), which it is."""


def first(_step: int, _options: Sequence[str]) -> int:
    return 0


def last(_step: int, options: Sequence[str]) -> int:
    return len(options) - 1


def seeded(seed: object) -> Pick:
    return lambda step, options: Random(f"{seed}/{step}").randrange(len(options))


def listed(choices: Sequence[int]) -> Pick:
    return lambda step, options: min(choices[step], len(options) - 1) if step < len(choices) else 0


class Mail(NamedTuple):
    """Something that is sent to the run: a signal, or a request."""

    kind: Literal["signal", "request"]
    name: str
    payload: bytes

    @property
    def option(self) -> str:
        return f"~{self.kind} {self.name}"


def signal(name: str, *payloads: str) -> tuple[Mail, ...]:
    return tuple(Mail("signal", name, payload.encode()) for payload in payloads)


def request(name: str, *payloads: str) -> tuple[Mail, ...]:
    return tuple(Mail("request", name, payload.encode()) for payload in payloads)


@dataclass(frozen=True)
class World:
    """What happens to a run: `timers` fire when nothing else can ("idle"), or whenever the schedule says so ("any")."""

    call: Call[Any]
    pick: Pick = first
    timers: Literal["idle", "any"] = "idle"
    cancel_at: tuple[int, ...] = ()  # steps at which cancellation is asked for
    tick: int = TICK
    mail: tuple[Mail, ...] = ()
    deadline: int = 0  # seconds from the start
    waits: int = 0  # so many seconds before the start it is recorded
    widths: list[int] = field(default_factory=list, compare=False)  # how many choices each step had

    def __post_init__(self) -> None:
        if not self.call.begun:
            self.call.take()

    @property
    def definition(self) -> Definition[..., Any]:
        return self.call.definition


class Stuck(AssertionError):
    """Nothing can happen any more, and the run has not ended."""


def outcome_of(definition: Definition[..., Any], arguments: bytes) -> tuple[bool, bytes, str]:
    """What the task does with these arguments: whether it succeeds, its payload, and the type of its error."""
    args, kwargs = definition.arguments.decode(arguments, INLINE)
    try:
        value = definition.fn(*args, **kwargs)
        if inspect.iscoroutine(value):
            value = finish_coroutine(value)
    except Exception as error:
        info = describe(error)
        return False, encode_error(info), info.type
    return True, definition.result.encode_checked(value), ""


def finish_coroutine(coro: Any) -> Any:
    try:
        coro.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the tasks of these tests do not wait")


def option_of(name: str, arguments: bytes) -> str:
    return f"{name} {arguments.decode()}"


def choose(world: World, instance: Instance, recorder: Recorder) -> tuple[Fact, bytes | None]:
    """The next fact of this world."""
    if instance.waiting is not None:
        return RunBegun(at=START), None
    now, step = instance.now, recorder.facts - 1 - bool(world.waits)
    if step in world.cancel_at:
        return CancelRequested(at=now + world.tick, reason="asked"), None
    options: dict[str, Any] = {}
    for pending in sorted(instance.pending.values(), key=lambda p: p.id):
        options[f"{option_of(pending.definition.name, pending.arguments)} {pending.id}"] = pending
    for child in sorted(instance.children.values(), key=lambda p: p.id):
        options[f"{child.definition.name} {child.id}"] = child
    options |= {f"send {id_}": sent for id_, sent in sorted(instance.outbox.sends.items())}
    names = sorted(options)
    due = bool(instance.timers) and (world.timers == "any" or not names)
    options |= possible_mail(world, instance, recorder)
    names = sorted(options)
    if due:
        # The earliest only; two of the same moment are told apart by their ids, which live and replay agree on.
        earliest = min(instance.timers, key=lambda id_: (instance.timers[id_].deadline, id_))
        names.append("~timer")
        options["~timer"] = earliest
    if not names:
        raise Stuck(f"nothing can happen in {world.call!r} after step {step}")
    while len(world.widths) <= step:
        world.widths.append(1)
    world.widths[step] = len(names)
    chosen = names[world.pick(step, names)]
    if chosen == "~timer":
        id_ = options[chosen]
        return TimerFired(at=max(now, instance.timers[id_].deadline), id=id_), None
    return fact_of(options[chosen], recorder, at=now + world.tick)


def fact_of(chosen: Any, recorder: Recorder, *, at: int) -> tuple[Fact, bytes | None]:
    match chosen:
        case PendingTask():
            done, payload, error = outcome_of(chosen.definition, chosen.arguments)
            if done:
                return TaskCompleted(at=at, id=chosen.id), payload
            return TaskFailed(at=at, id=chosen.id, error=error), payload
        case PendingChild():
            return outcome_of_child(chosen, recorder.children[chosen.id], at=at)
        case (Mail(kind="signal"), id_):
            return SignalReceived(at=at, id=id_, name=chosen[0].name), chosen[0].payload
        case (Mail(kind="request"), id_):
            return RequestReceived(at=at, id=id_, name=chosen[0].name), chosen[0].payload
    event = chosen.event
    if event.run.startswith("missing"):
        return SendRejected(at=at, id=event.id, reason="not_found"), None
    if event.run.startswith("ended"):
        return SendRejected(at=at, id=event.id, reason="closed"), None
    return SendAccepted(at=at, id=event.id), None


def possible_mail(world: World, instance: Instance, recorder: Recorder) -> dict[str, tuple[Mail, str]]:
    """The next of each name that has not arrived; of requests, the next that is not refused now."""
    found: dict[str, tuple[Mail, str]] = {}
    for index, mail in enumerate(world.mail):
        id_ = f"{mail.name}-{index}"
        if mail.option in found or id_ in recorder.arrived:
            continue
        if mail.kind == "signal" or instance.inbox.refusal(mail.name, mail.payload) is None:
            found[mail.option] = (mail, id_)
    return found


def outcome_of_child(child: PendingChild, arguments: bytes, *, at: int) -> tuple[Fact, bytes | None]:
    """How a child run ends, asked to end or not: one named "stubborn..." does not care."""
    definition: Any = child.definition
    if child.asked_to_end and not definition.name.startswith("stubborn"):
        return ChildFailed(at=at, id=child.id, status="cancelled"), None
    args, kwargs = definition.arguments.decode(arguments, INLINE)
    history = play(World(definition(*args, **kwargs)))
    event, payload = end_of(history)
    match event:
        case RunCompleted():
            return ChildCompleted(at=at, id=child.id), payload
        case RunFailed(error=error):
            return ChildFailed(at=at, id=child.id, status="failed", error=error), payload
        case _:
            return ChildFailed(at=at, id=child.id, status="cancelled", reason=event.reason), None


class Recorder:
    """Writes a history as the engine would: decisions behind their fact, notes behind those."""

    def __init__(self, history: History | None = None) -> None:
        self.history: History = []
        self.facts = 0
        self.started: set[str] = set()
        self.arrived: set[str] = set()  # ids of mail
        self.children: dict[str, bytes] = {}  # arguments, by id
        for entry in history or []:
            self.put(entry.event, entry.payload)

    def put(self, event: AnyEvent, payload: bytes | None) -> AnyEvent:
        entry = Entry(encode_header(event), payload)
        self.history.append(entry)
        if isinstance(event, Fact):
            self.facts += 1
        match event:
            case TaskStarted(id=id_):
                self.started.add(id_)
            case RunStarted():
                self.started.clear()  # ids of tasks begin anew with each epoch
            case ChildStarted(id=id_):
                assert payload is not None
                self.children[id_] = payload
            case SignalReceived(id=id_) | RequestReceived(id=id_):
                self.arrived.add(id_)
        return entry.event

    def turn(self, instance: Instance, fact: Fact, payload: bytes | None) -> None:
        back = self.put(fact, payload)
        assert back == fact
        self.decided(instance, instance.deliver(back, payload))  # type: ignore[arg-type]

    def decided(self, instance: Instance, decisions: list[Decided]) -> None:
        for decided in decisions:
            assert self.put(decided.event, decided.payload) == decided.event
        for id_ in instance.pending:
            if id_ not in self.started:
                self.put(TaskStarted(at=instance.now, id=id_, attempt=1, worker="w"), None)


def started(world: World) -> tuple[RunStarted, bytes]:
    definition = world.definition
    deadline = START + world.deadline * 1_000_000 if world.deadline else 0
    fact = RunStarted(
        at=START - world.waits * 1_000_000,
        workflow=definition.name,
        seed=SEED,
        python="3.11",
        anyio="4",
        deadline=deadline,
        waits=bool(world.waits),
        begins_at=START if world.waits else 0,
    )
    return fact, definition.arguments.encode(world.call.args, world.call.kwargs, INLINE)


def play(world: World) -> History:
    """The history of the undisturbed run."""
    instance = Instance(world.definition, RUN_ID, tables=None)
    recorder = Recorder()
    recorder.turn(instance, *started(world))
    return _go_on(world, instance, recorder)


def resume(world: World, prefix: History) -> History:
    """Crash after the last event of `prefix`, replay, append what was not written, go on to the end."""
    replayer, recorder = rebuild(world, prefix)
    return _go_on(world, replayer.instance, recorder, replayer.carrying)


def rebuild(world: World, prefix: History) -> tuple[Replayer, Recorder]:
    replayer = Replayer(world.definition, RUN_ID, versions=None, tables=None)
    for version, entry in enumerate(prefix, 1):
        replayer.feed(version, entry.event, entry.payload)
    recorder = Recorder(prefix)
    recorder.decided(replayer.instance, replayer.finish())
    return replayer, recorder


def _go_on(world: World, instance: Instance, recorder: Recorder, carrying: Sequence[Any] = ()) -> History:
    """`carrying`: what the last epoch had left, and a crash kept from being told to this one."""
    for fact, payload in carrying:
        if instance.outcome is None:
            recorder.turn(instance, structs.replace(fact, at=instance.now, carried=True), payload)
    while True:
        if isinstance(instance.outcome, ContinuedAsNew):
            instance = next_epoch(instance, recorder)
        elif instance.outcome is not None:
            return recorder.history
        else:
            assert recorder.facts < STEPS_MAX, f"{world.call!r} does not end under this schedule"
            recorder.turn(instance, *choose(world, instance, recorder))


def next_epoch(before: Instance, recorder: Recorder) -> Instance:
    instance = Instance(before.definition, RUN_ID, tables=None)
    now = before.now
    for arrival in beginning_of_next(before):
        if instance.outcome is not None:
            break  # what is carried on from here, the next one finds as left over
        assert isinstance(arrival.event, Fact)
        recorder.turn(instance, structs.replace(arrival.event, at=now), arrival.payload)
    return instance


# -- reading histories ------------------------------------------------------------------------------------------------


class Group(NamedTuple):
    """A fact and what was decided because of it, by id."""

    fact: Entry
    decisions: dict[str, Entry]


def groups(history: History) -> list[Group]:
    found: list[Group] = []
    for entry in history:
        match entry.event:
            case Fact():
                found.append(Group(entry, {}))
            case Decision(id=id_):
                assert id_ not in found[-1].decisions, f"{id_} was decided twice in one turn"
                found[-1].decisions[id_] = entry
            case Note():
                continue
    return found


def executions(history: History) -> dict[str, bytes | None]:
    """The tasks that were wanted, with their arguments."""
    return {e.event.id: e.payload for e in history if isinstance(e.event, TaskScheduled)}


def end_of(history: History) -> tuple[Any, bytes | None]:
    ends = [entry for entry in history if isinstance(entry.event, RunCompleted | RunFailed | RunCancelled)]
    assert len(ends) == 1, "a run ends once"
    return ends[0].event, ends[0].payload


def ending(history: History) -> tuple[str, Any]:
    """How the run ended: the status, and the result, (type, message), or reason."""
    event, payload = end_of(history)
    match event:
        case RunCompleted():
            return "completed", payload
        case RunFailed():
            assert payload is not None
            info = decode_error(payload)
            return "failed", (info.type, info.message)
        case _:
            return "cancelled", ""


def fold(history: History) -> RunState:
    state = RunState(run_id=RUN_ID)
    for version, entry in enumerate(history, 1):
        state.apply(version, entry.event, entry.payload)
    return state


# -- the checks -------------------------------------------------------------------------------------------------------


def check_crashes(world: World, history: History, *, boundaries: Sequence[int] | None = None) -> None:
    """A crash after any event changes nothing."""
    expected, wanted = groups(history), executions(history)
    for length in range(1, len(history) + 1) if boundaries is None else boundaries:
        again = resume(world, history[:length])
        assert groups(again) == expected, f"a crash after event {length} of {len(history)} changed the history"
        assert executions(again) == wanted
        assert again[:length] == history[:length]
        assert ending(again) == ending(history)


def explore(world: World, *, limit: int) -> Iterator[tuple[World, History]]:
    """Every schedule of this world (depth first, at most `limit`), each with its history."""
    choices: list[int] = []
    for _ in range(limit):
        this = replace(world, pick=listed(tuple(choices)), widths=[])
        history = play(this)
        yield this, history
        choices = list(itertools.islice(itertools.chain(choices, itertools.repeat(0)), len(this.widths)))
        while choices and choices[-1] + 1 >= this.widths[len(choices) - 1]:
            choices.pop()
        if not choices:
            return
        choices[-1] += 1
