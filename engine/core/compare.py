"""Recorded decisions against decided ones, and the diagnosis when they disagree.

Decisions of one turn are compared as a mapping from id to decision; their order is no information. Where bytes differ,
the recorded ones are decoded as the present type and values are compared, so that a new field with a default does not
suspend a run. Call sites and times stay outside the comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import msgspec
from msgspec import Struct

from engine.core.carriage import readable
from engine.core.decided import Codec, Decided
from engine.core.events import (
    AttributesSet,
    ChildCancelled,
    ChildStarted,
    ChildTerminated,
    ContinuedAsNew,
    Decision,
    FeedPublished,
    MessageSent,
    PatchMarked,
    RequestAnswered,
    RequestFailed,
    RunCancelled,
    RunCompleted,
    RunFailed,
    StatePublished,
    TaskCancelled,
    TaskScheduled,
    TimerCancelled,
    TimerStarted,
)
from engine.errors import HoldfastError

__all__ = [
    "Diagnosis",
    "Difference",
    "Mismatch",
    "Reason",
    "compare",
    "decode_diagnosis",
    "describe_decision",
    "encode_diagnosis",
    "shown_time",
]

Reason = Literal["decisions", "delivery", "values", "spinning", "history", "internal", "crashes"]
"""Decisions differ; nobody waits for a recorded fact; recorded values do not fit the types; a turn does not end; the
history itself cannot be read; something failed that should not; the run kills its workers."""

_SHOWN: Final = 60  # characters of the arguments that a diagnosis shows
_ADVICE: Final = (
    "The run is suspended, nothing is lost. Ways on: bring back the code that wrote this history and resume;"
    " or change the code so that it decides the same up to here, for runs that are past a change with"
    " durable.patched(...) around it; or cancel the run."
)


class Difference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the two columns; an empty side means that nothing stands there."""

    recorded: str = ""
    recorded_site: str = ""
    decided: str = ""
    decided_site: str = ""


class Diagnosis(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a run cannot go on with the present code, for a person to act on."""

    reason: Reason
    message: str
    version: int  # of the fact after which code and history disagree
    differences: tuple[Difference, ...] = ()
    hints: tuple[str, ...] = ()  # what else bears on it: patches that this history has, or has not
    advice: str = _ADVICE

    def render(self) -> str:
        """Several lines of plain text: the message, the two columns, the advice."""
        lines = [f"at version {self.version}: {self.message}"]
        if self.differences:
            rows = [("history has", "the code now asks for")]
            rows += [
                (_with_site(d.recorded, d.recorded_site), _with_site(d.decided, d.decided_site))
                for d in self.differences
            ]
            width = max(len(left) for left, _ in rows)
            lines += [f"  {left:<{width}}  |  {right}" for left, right in rows]
        lines += [f"  note: {hint}" for hint in self.hints]
        lines.append(self.advice)
        return "\n".join(lines)


class Mismatch(HoldfastError):
    """Code and history disagree; `diagnosis` says how. Never destroys a run: whoever catches it suspends the run."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        self.diagnosis = diagnosis
        super().__init__(diagnosis.render())


encode_diagnosis: Final = msgspec.json.Encoder().encode
decode_diagnosis: Final = msgspec.json.Decoder(Diagnosis).decode


def compare(
    recorded: Mapping[str, Decided],
    decided: Mapping[str, Decided],
    *,
    version: int,
    complete: bool,
    codec_of: Callable[[Decision], Codec | None],
) -> None:
    """Raise `Mismatch` unless the recorded decisions are those decided (a subset, for an incomplete last group).

    `version` is that of the fact they follow. Values are compared as what `codec_of` the
    deciding code has now.
    """
    differing: list[Difference] = []
    only_recorded: list[Decided] = []
    for id_, was in recorded.items():
        now = decided.get(id_)
        if now is None:
            only_recorded.append(was)
        elif type(was.event) is type(now.event) is TaskScheduled and was.payload == now.payload:
            # Nearly all there are, in place: a call for each is a tenth of what comparing a fan-out takes.
            if was.event.task != now.event.task:
                differing.append(_difference(was, now))
        elif not _same(was, now, codec_of):
            differing.append(_difference(was, now))
    if not differing and not only_recorded and (not complete or len(decided) == len(recorded)):
        return
    only_decided = [now for id_, now in decided.items() if id_ not in recorded] if complete or only_recorded else []
    longest = max(len(only_recorded), len(only_decided))
    for index in range(longest):
        was_ = only_recorded[index] if index < len(only_recorded) else None
        now_ = only_decided[index] if index < len(only_decided) else None
        differing.append(_difference(was_, now_))
    raise Mismatch(
        Diagnosis(
            reason="decisions",
            message="the code decides otherwise than it did",
            version=version,
            differences=tuple(differing),
        )
    )


def _same(was: Decided, now: Decided, codec_of: Callable[[Decision], Codec | None]) -> bool:
    before, after = was.event, now.event
    if type(before) is not type(after):
        return False
    if isinstance(before, TaskScheduled) and isinstance(after, TaskScheduled):
        return before.task == after.task and _same_values(was, now, codec_of)
    match before, after:
        case TimerStarted(deadline=deadline), TimerStarted(deadline=other_deadline):
            return deadline == other_deadline
        case ContinuedAsNew() as old, ContinuedAsNew() as new:
            return (old.pinned, old.version) == (new.pinned, new.version) and _same_values(was, now, codec_of)
        case (RunCompleted(), _) | (RequestAnswered(), _) | (AttributesSet(), _):
            return _same_values(was, now, codec_of)
        case (RunFailed(error=error), RunFailed(error=other_error)) | (
            RequestFailed(error=error),
            RequestFailed(error=other_error),
        ):
            return error == other_error  # the message and the traceback may name lines that have moved
        case ChildStarted() as child, ChildStarted() as other_child:
            return (child.workflow, child.run) == (other_child.workflow, other_child.run) and _same_values(
                was, now, codec_of
            )
        case MessageSent() as sent, MessageSent() as other_sent:
            addressed = (sent.kind, sent.run, sent.name) == (other_sent.kind, other_sent.run, other_sent.name)
            return addressed and _same_values(was, now, codec_of)
        case (StatePublished(name=name), StatePublished(name=other)) | (
            FeedPublished(name=name),
            FeedPublished(name=other),
        ):
            return name == other and _same_values(was, now, codec_of)
        case _:
            return True


def _same_values(was: Decided, now: Decided, codec_of: Callable[[Decision], Codec | None]) -> bool:
    if was.payload == now.payload:
        return True
    codec = codec_of(now.event)
    if was.payload is None or now.payload is None or codec is None:
        return was.payload is None  # a destroyed payload can no longer contradict anybody
    return codec.same(was.payload, now.payload)


def _difference(was: Decided | None, now: Decided | None) -> Difference:
    return Difference(
        recorded=describe_decision(was) if was is not None else "",
        recorded_site=was.event.site if was is not None else "",
        decided=describe_decision(now) if now is not None else "",
        decided_site=now.event.site if now is not None else "",
    )


def describe_decision(decided: Decided) -> str:
    """A decision in a few words: ``charge("alice")  [shop/charge#1]``."""
    event = decided.event
    text = _of_calls(decided) or _of_others(decided) or _of_ends(decided) or type(event).__name__
    return f"{text}  [{event.id}]" if event.id else text


def _of_calls(decided: Decided) -> str:
    event = decided.event
    match event:
        case TaskScheduled(task=task):
            return f"{task}({_shown_arguments(decided.payload)})"
        case TaskCancelled():
            return "cancel the task"
        case TimerStarted(deadline=deadline):
            return f"a timer until {shown_time(deadline)}"
        case TimerCancelled():
            return "cancel the timer"
        case ChildStarted(workflow=workflow, run=run):
            return f"start {workflow}({_shown_arguments(decided.payload)}) as run {run}"
        case ChildCancelled(run=run):
            return f"cancel run {run}"
        case ChildTerminated(run=run):
            return f"terminate run {run}"
        case _:
            return ""


def _of_others(decided: Decided) -> str:
    match decided.event:
        case MessageSent(kind=kind, run=run, name=name):
            return f"send {kind} {name} to run {run}: {_shown(decided.payload)}"
        case StatePublished(name=name) | FeedPublished(name=name):
            return f"publish {name} = {_shown(decided.payload)}"
        case RequestAnswered(request=request):
            return f"answer request {request}: {_shown(decided.payload)}"
        case RequestFailed(request=request, error=error):
            return f"fail request {request} with {error}"
        case PatchMarked(name=name):
            return f"patch {name}"
        case AttributesSet():
            return f"set attributes {_shown(decided.payload)}"
        case _:
            return ""


def _of_ends(decided: Decided) -> str:
    match decided.event:
        case RunCompleted():
            return f"return {_shown(decided.payload)}"
        case RunFailed(error=error):
            return f"raise {error}"
        case RunCancelled():
            return "end as cancelled"
        case ContinuedAsNew():
            return f"continue as new({_shown_arguments(decided.payload)})"
        case _:
            return ""


def _shown_arguments(payload: bytes | None) -> str:
    if payload is None:
        return "..."
    try:
        values = msgspec.json.decode(readable(payload), type=dict[str, msgspec.Raw])
        text = ", ".join(bytes(value).decode() for value in values.values())
    except (ValueError, RecursionError):
        text = "(unreadable)"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _shown(payload: bytes | None) -> str:
    text = "..." if payload is None else readable(payload).decode("utf-8", "replace")
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def shown_time(microseconds: int) -> str:
    """A time in microseconds since the epoch as people read it, in UTC."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    except OverflowError:  # nothing that this library writes
        return f"{microseconds} µs"
    return moment.isoformat(sep=" ", timespec="milliseconds")


def _with_site(text: str, site: str) -> str:
    return f"{text} from {site}" if text and site else text
