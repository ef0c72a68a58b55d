"""Patterns of events: what tests say of histories. ``events.scheduled(charge("ann"))``, ``events.timer_fired()``.

A task, a child's workflow, a signal or a state may stand for any of its events; a call of one stands for those with
just these arguments, and `value` for those with just this value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct

from engine import Call, Feed, LargeValues, Request, Signal, State, Task, Workflow
from engine.errors import HoldfastError
from engine.testing.fakes import bound
from engine.testing.histories import Seen

__all__ = [
    "Pattern",
    "answered",
    "attempted",
    "begun",
    "cancel_requested",
    "cancelled",
    "completed",
    "continued",
    "event",
    "failed",
    "published",
    "requested",
    "reused",
    "run_cancelled",
    "run_completed",
    "run_failed",
    "scheduled",
    "signalled",
    "started",
    "timer_cancelled",
    "timer_fired",
    "timer_started",
]

_encoder: Final = msgspec.json.Encoder(order="deterministic")


class Pattern(Struct, frozen=True):
    """What an event has to be: one of these types, and more. `text` is what it is called."""

    types: tuple[str, ...]
    text: str
    holds: Callable[[Seen], bool]

    def matches(self, seen: Seen) -> bool:
        """Whether an event is so."""
        return seen.type in self.types and self.holds(seen)


def event(type: str) -> Pattern:  # noqa: A002 - the word for it
    """Any event of this type, as histories name it: ``event("TurnSlow")``."""
    return Pattern((type,), type, lambda _: True)


def started(workflow: Workflow[..., Any] | Call[Any] | None = None) -> Pattern:
    """The run began."""
    if workflow is None:
        return event("RunStarted")
    return _of_call(("RunStarted",), "started", workflow)


def begun() -> Pattern:
    """A run that had been recorded before it might begin began."""
    return event("RunBegun")


def scheduled(what: Task[..., Any] | Workflow[..., Any] | Call[Any]) -> Pattern:
    """The workflow asked for a task, or started a child run."""
    return _of_call(("TaskScheduled", "ChildStarted"), "scheduled", what)


def attempted(task: Task[..., Any] | Call[Any], *, number: int | None = None) -> Pattern:
    """An attempt of a task began; the so-manieth, from 1."""
    base = _of_call(("TaskStarted",), "attempted", task)
    if number is None:
        return base
    return _and(base, f" (attempt {number})", lambda seen: seen.header["attempt"] == number)


def completed(what: Task[..., Any] | Workflow[..., Any] | Call[Any], value: Any = UNSET) -> Pattern:
    """A task, or a child run, ended with a result."""
    return _with_value(_of_call(("TaskCompleted", "ChildCompleted"), "completed", what), value)


def reused(task: Task[..., Any] | Call[Any], value: Any = UNSET) -> Pattern:
    """A task ended with a result that was there already, memoised by an earlier call: no attempt was made."""
    base = _and(_of_call(("TaskCompleted",), "reused", task), "", lambda seen: bool(seen.header.get("reused_run")))
    return _with_value(base, value)


def failed(what: Task[..., Any] | Workflow[..., Any] | Call[Any], error: type[BaseException] | None = None) -> Pattern:
    """A task, or a child run, failed for good."""
    return _with_error(_of_call(("TaskFailed", "ChildFailed"), "failed", what), error)


def cancelled(what: Task[..., Any] | Workflow[..., Any] | Call[Any]) -> Pattern:
    """The workflow no longer wanted a task, or asked a child run to end."""
    return _of_call(("TaskCancelled", "ChildCancelled"), "cancelled", what)


def timer_started(*, seconds: float | None = None) -> Pattern:
    """A durable timer was wanted; one of so many seconds."""
    if seconds is None:
        return event("TimerStarted")
    span = round(seconds * 1_000_000)
    return _and(
        event("TimerStarted"), f" of {seconds:g} s", lambda seen: seen.header["deadline"] - seen.header["at"] == span
    )


def timer_fired() -> Pattern:
    """A timer's time had come."""
    return event("TimerFired")


def timer_cancelled() -> Pattern:
    """A timer was no longer wanted."""
    return event("TimerCancelled")


def signalled(signal: Signal[Any], value: Any = UNSET) -> Pattern:
    """A signal arrived."""
    return _with_value(_named("SignalReceived", "signalled", signal.name), value)


def requested(request: Request[Any, Any], argument: Any = UNSET) -> Pattern:
    """A request was accepted."""
    return _with_value(_named("RequestReceived", "requested", request.name), argument)


def answered(value: Any = UNSET) -> Pattern:
    """A request was answered."""
    return _with_value(event("RequestAnswered"), value)


def published(what: State[Any] | Feed[Any], value: Any = UNSET) -> Pattern:
    """A value was published."""
    type_ = "StatePublished" if isinstance(what, State) else "FeedPublished"
    return _with_value(_named(type_, "published", what.name), value)


def cancel_requested() -> Pattern:
    """Somebody wanted the run to end."""
    return event("CancelRequested")


def run_completed(value: Any = UNSET) -> Pattern:
    """The workflow function returned."""
    return _with_value(event("RunCompleted"), value)


def run_failed(error: type[BaseException] | None = None) -> Pattern:
    """The workflow function raised."""
    return _with_error(event("RunFailed"), error)


def run_cancelled() -> Pattern:
    """The workflow function ended with a cancellation."""
    return event("RunCancelled")


def continued() -> Pattern:
    """The run continued as new."""
    return event("ContinuedAsNew")


def pattern_of(what: Any, of: Callable[[Any], Pattern] = scheduled) -> Pattern:
    """A pattern as it is; of a task, a workflow or a call of one, what `of` makes."""
    return what if isinstance(what, Pattern) else of(what)


def _of_call(types: tuple[str, ...], verb: str, what: Any) -> Pattern:
    if isinstance(what, Task | Workflow):
        return Pattern(types, f"{verb} {what.name}", lambda seen: seen.name == what.name)
    if not isinstance(what, Call):
        raise HoldfastError(f"{verb}(...) takes a task, a workflow, or a call of one, not {what!r}")
    what.take()
    definition: Any = what.definition
    wanted = bound(definition, what.args, dict(what.kwargs))

    def holds(seen: Seen) -> bool:
        if seen.name != definition.name or seen.arguments is None:
            return False
        return bound(definition, *definition.arguments.decode(seen.arguments, LargeValues.carriage)) == wanted

    shown = ", ".join(f"{name}={value!r}" for name, value in wanted.items())
    return Pattern(types, f"{verb} {definition.name}({shown})", holds)


def _named(type_: str, verb: str, name: str) -> Pattern:
    return Pattern((type_,), f"{verb} {name}", lambda seen: seen.header["name"] == name)


def _and(base: Pattern, text: str, holds: Callable[[Seen], bool]) -> Pattern:
    return Pattern(base.types, base.text + text, lambda seen: base.holds(seen) and holds(seen))


def _with_value(base: Pattern, value: Any) -> Pattern:
    if value is UNSET:
        return base
    wanted = msgspec.json.decode(_encoder.encode(value))
    return _and(
        base,
        f" = {value!r}",
        lambda seen: seen.payload is not None and bool(msgspec.json.decode(seen.payload) == wanted),
    )


def _with_error(base: Pattern, error: type[BaseException] | None) -> Pattern:
    if error is None:
        return base
    name = error.__qualname__ if error.__module__ == "builtins" else f"{error.__module__}.{error.__qualname__}"
    return _and(base, f" with {name}", lambda seen: seen.header.get("error") == name)
