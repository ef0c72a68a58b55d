"""Every event of a run's history, as it stands on disk.

An event is a header (one of the Structs below, JSON with the tag first) and an optional payload (the user's values,
JSON). Additive change only: a field may be added with a default, a tag never changes or goes away; the wire samples in
`tests/core/test_event_wire.py` hold us to it. Three kinds, told apart by class:

* `Fact`: delivered to the workflow, one at a time.
* `Decision`: what only workflow code can cause; written directly behind the fact that led to it.
* `Note`: written by the engine, never seen by workflow code, skipped by replay.

All times are integer microseconds since the Unix epoch and never go back within a run; but what a fork has copied is
older than the `RunForked` that it stands behind.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from engine.core.event_kinds import Decision, Event, Fact, Note
from engine.core.other_events import (
    CallDebounced,
    LimitSet,
    ResultForgotten,
    ResultMemoised,
    WorkflowPaused,
    WorkflowUnpaused,
)
from engine.core.taken_away import PayloadsDestroyed, RunPruned
from engine.errors import HistoryError

__all__ = [
    "TURN_RULE",
    "AnyEvent",
    "AttemptFailed",
    "AttemptHeartbeat",
    "AttemptOutcomeIgnored",
    "AttributesGiven",
    "AttributesSet",
    "CallDebounced",
    "CancelRequested",
    "ChildCancelled",
    "ChildCompleted",
    "ChildFailed",
    "ChildOutcomeIgnored",
    "ChildStarted",
    "ChildStatus",
    "ChildTerminated",
    "ContinuedAsNew",
    "Decision",
    "EffectAnswer",
    "EffectReconciled",
    "Event",
    "Fact",
    "FeedPublished",
    "LimitSet",
    "MessageKind",
    "MessageSent",
    "Note",
    "ParentClose",
    "PatchMarked",
    "PayloadsDestroyed",
    "PrefixEnded",
    "RejectedReason",
    "RequestAnswered",
    "RequestFailed",
    "RequestReceived",
    "ResultForgotten",
    "ResultMemoised",
    "RunBegun",
    "RunCancelled",
    "RunCompleted",
    "RunFailed",
    "RunForked",
    "RunPaused",
    "RunPruned",
    "RunQueued",
    "RunReopened",
    "RunResumed",
    "RunStarted",
    "RunSuspended",
    "RunTerminated",
    "RunUnpaused",
    "SendAccepted",
    "SendRejected",
    "SignalIgnored",
    "SignalReceived",
    "StatePublished",
    "TakenBack",
    "TaskCancelled",
    "TaskCompleted",
    "TaskFailed",
    "TaskHandedOut",
    "TaskScheduled",
    "TaskStarted",
    "TimerCancelled",
    "TimerFired",
    "TimerStarted",
    "TurnSlow",
    "WorkflowPaused",
    "WorkflowUnpaused",
    "decode_header",
    "decode_known",
    "encode_header",
]

TURN_RULE: Final = 1
"""Version of the turn rule (DESIGN section 5) that new histories are written under."""


ParentClose: TypeAlias = Literal["cancel", "terminate", "abandon"]
"""What becomes of a child run that still runs when its parent ends."""
ChildStatus: TypeAlias = Literal["failed", "cancelled", "terminated", "conflict"]
"""How a child run ended otherwise than with a result; conflict: its id belongs to another run."""
MessageKind: TypeAlias = Literal["signal", "cancel", "terminate"]
"""What a run may send to another one."""
EffectAnswer: TypeAlias = Literal["not_happened", "unknown"]
"""What the outside said of an effect, short of a result."""
TakenBack: TypeAlias = Literal["turn", "decisions", "end"]
"""What counts no more of a run's last turn, once it is reopened."""
RejectedReason: TypeAlias = Literal["not_found", "closed"]
"""Why a message was not delivered: there is no such run, or it has ended."""


class RunStarted(Fact, frozen=True, tag="RunStarted", kw_only=True):
    """First event of every run. Payload: the arguments, one JSON object by parameter name."""

    workflow: str
    seed: str  # 32 hex digits; randomness, uuids and hashes of the run come from it
    rule: int = 1  # the turn rule; what leaves it out means 1 for ever, whatever TURN_RULE becomes: writers name it
    python: str = ""  # minor version that started it, "3.11"
    anyio: str = ""
    by: str = ""  # who asked, when known
    root: str = ""  # id of the run at the top of the tree, empty for a run without parent
    parent: str = ""  # id of the run that started this one as its child
    parent_call: str = ""  # id of the call that did, in that run
    parent_epoch: int = 0
    deadline: int = 0  # microseconds since the epoch; 0: none
    epoch: int = 0  # how often the run has continued as new
    carried: int = 0  # so many facts of the last epoch follow, and are there before the code begins
    waits: bool = False  # it is recorded, and begins with `RunBegun`; signals may come before
    begins_at: int = 0  # of one that waits: not before, microseconds since the epoch; 0: as soon as nothing holds it
    singleton: str = ""  # key: of this workflow's runs with it, one at most has begun and not ended
    rerun_of: str = ""  # id of the run whose workflow and arguments these are, if a person asked for it to run again
    reason: str = ""  # why, of such a run
    version: str = ""  # of the workflow, if it has versions
    large: bool = False  # its large values, and its tables, lie in a storage; its history says where
    attributes: tuple[str, ...] = ()  # names of those that the run has as its code begins


class RunBegun(Fact, frozen=True, tag="RunBegun", kw_only=True):
    """A run that was recorded before it might begin (`RunStarted.waits`) begins: its time starts here."""


class TaskCompleted(Fact, frozen=True, tag="TaskCompleted", kw_only=True):
    """Payload: the result. `reconciled`: not returned by the attempt, but found out afterwards (`EffectReconciled`).

    A result that was there already (`ResultMemoised`) is named by the run and the call that it comes from; `attempt` is
    0 then, for none took place.
    """

    id: str
    attempt: int = 1
    reconciled: bool = False
    reused_run: str = ""  # id of the run
    reused_id: str = ""  # and of the task call in it
    by: str = ""  # who ended a task that was handed out, by its token, and why
    reason: str = ""


class TaskFailed(Fact, frozen=True, tag="TaskFailed", kw_only=True):
    """The final failure; nothing more is tried. Payload: the error (`failures.ErrorInfo`)."""

    id: str
    error: str  # the exception's qualified type
    attempt: int = 1
    by: str = ""  # as in `TaskCompleted`
    reason: str = ""


class TimerFired(Fact, frozen=True, tag="TimerFired", kw_only=True):
    """The deadline of a durable timer has passed."""

    id: str


class CancelRequested(Fact, frozen=True, tag="CancelRequested", kw_only=True):
    """Somebody wants the run to end: the workflow function is cancelled, and may clean up."""

    by: str = ""
    reason: str = ""
    carried: bool = False  # was asked for, and had not taken effect, before the run continued as new
    unless_begun: bool = False  # only a run that had not begun was to end


class SignalReceived(Fact, frozen=True, tag="SignalReceived", kw_only=True):
    """A signal has arrived. Payload: its value. `id` is that of the message."""

    id: str
    name: str
    by: str = ""  # who sent it, when known: "run ID" for a run
    carried: bool = False  # had arrived, and was not received, before the run continued as new
    reason: str = ""  # why it was sent, when that was said


class RequestReceived(Fact, frozen=True, tag="RequestReceived", kw_only=True):
    """A request was accepted. Payload: its argument. `id` is that of the message."""

    id: str
    name: str
    by: str = ""
    carried: bool = False
    reason: str = ""


class ChildCompleted(Fact, frozen=True, tag="ChildCompleted", kw_only=True):
    """A child run has completed. Payload: its result."""

    id: str


class ChildFailed(Fact, frozen=True, tag="ChildFailed", kw_only=True):
    """A child run has ended without a result. Payload: the error (`failures.ErrorInfo`), if there is one."""

    id: str
    status: ChildStatus
    error: str = ""  # the exception's qualified type
    reason: str = ""  # of a cancellation or termination


class SendAccepted(Fact, frozen=True, tag="SendAccepted", kw_only=True):
    """A message that this run sent is in the other run's mailbox."""

    id: str


class SendRejected(Fact, frozen=True, tag="SendRejected", kw_only=True):
    """A message that this run sent could not be delivered."""

    id: str
    reason: RejectedReason


# Decisions -----------------------------------------------------------------------------------------------------------


class TaskScheduled(Decision, frozen=True, tag="TaskScheduled", kw_only=True):
    """Payload: the arguments, one JSON object by parameter name."""

    task: str


class TaskCancelled(Decision, frozen=True, tag="TaskCancelled", kw_only=True):
    """The workflow no longer wants the outcome of this task (or, with `on_cancel="wait"`, wants it to end soon)."""


class TimerStarted(Decision, frozen=True, tag="TimerStarted", kw_only=True):
    """A durable timer is wanted."""

    deadline: int


class TimerCancelled(Decision, frozen=True, tag="TimerCancelled", kw_only=True):
    """The timer is no longer wanted."""


class RunCompleted(Decision, frozen=True, tag="RunCompleted", kw_only=True):
    """Payload: the result."""


class RunFailed(Decision, frozen=True, tag="RunFailed", kw_only=True):
    """Payload: the error (`failures.ErrorInfo`)."""

    error: str


class RunCancelled(Decision, frozen=True, tag="RunCancelled", kw_only=True):
    """The workflow function ended with a cancellation."""

    reason: str = ""


class ChildStarted(Decision, frozen=True, tag="ChildStarted", kw_only=True):
    """A child run is wanted. Payload: the arguments, one JSON object by parameter name."""

    workflow: str
    run: str  # the child's run id
    parent_close: ParentClose = "cancel"
    deadline: int = 0  # microseconds since the epoch; 0: none
    version: str = ""  # of the workflow, if it has versions


class ChildCancelled(Decision, frozen=True, tag="ChildCancelled", kw_only=True):
    """The child run is asked to end; it may clean up."""

    run: str


class ChildTerminated(Decision, frozen=True, tag="ChildTerminated", kw_only=True):
    """The child run is to end without its code."""

    run: str


class MessageSent(Decision, frozen=True, tag="MessageSent", kw_only=True):
    """A message to another run. Payload: the value of a signal."""

    kind: MessageKind
    run: str
    name: str = ""  # of the signal
    reason: str = ""  # of a cancellation or termination


class StatePublished(Decision, frozen=True, tag="StatePublished", kw_only=True):
    """Payload: the state's value from now on."""

    name: str


class FeedPublished(Decision, frozen=True, tag="FeedPublished", kw_only=True):
    """Payload: the feed's next value."""

    name: str


class AttributesSet(Decision, frozen=True, tag="AttributesSet", kw_only=True):
    """Payload: attributes of the run by name, one JSON object; null takes one away."""


class RequestAnswered(Decision, frozen=True, tag="RequestAnswered", kw_only=True):
    """Payload: the answer."""

    request: str


class RequestFailed(Decision, frozen=True, tag="RequestFailed", kw_only=True):
    """Payload: the error (`failures.ErrorInfo`)."""

    request: str
    error: str


class PatchMarked(Decision, frozen=True, tag="PatchMarked", kw_only=True):
    """From here on the run goes the new way at this patch. Told to a replay, and never compared."""

    name: str


class ContinuedAsNew(Decision, frozen=True, tag="ContinuedAsNew", kw_only=True):
    """The run goes on from its beginning, with a history of its own behind this. Payload: the arguments.

    As the newest version of its workflow that its worker has; `pinned`: as this `version`.
    """

    pinned: bool = False
    version: str = ""


# Notes ---------------------------------------------------------------------------------------------------------------


class AttributesGiven(Note, frozen=True, tag="AttributesGiven", kw_only=True):
    """What attributes were given with the start; directly behind that. Payload: by name, one JSON object."""


class TaskStarted(Note, frozen=True, tag="TaskStarted", kw_only=True):
    """Written before the attempt begins, durable before anything acts on the outside."""

    id: str
    attempt: int
    worker: str
    executor: str = "loop"


class AttemptFailed(Note, frozen=True, tag="AttemptFailed", kw_only=True):
    """An attempt failed and another follows at `retry_at`. Payload: the error (`failures.ErrorInfo`)."""

    id: str
    attempt: int
    error: str
    retry_at: int


class AttemptHeartbeat(Note, frozen=True, tag="AttemptHeartbeat", kw_only=True):
    """A running attempt said that it lives. Payload: details it gave, if they are new; a later one replaces them."""

    id: str
    attempt: int


class EffectReconciled(Note, frozen=True, tag="EffectReconciled", kw_only=True):
    """The outside was asked whether an attempt that began, and did not end well, had its effect after all.

    `answer` "not happened": the task may be tried again. "unknown": asking failed, and is done again at `retry_at`;
    payload: the error. That it had happened is the task's outcome: `TaskCompleted.reconciled`.
    """

    id: str
    attempt: int
    answer: EffectAnswer
    retry_at: int = 0


class AttemptOutcomeIgnored(Note, frozen=True, tag="AttemptOutcomeIgnored", kw_only=True):
    """An attempt ended after its task was cancelled, or its run had ended. Payload: result or error, if any."""

    id: str
    attempt: int
    outcome: str  # "completed", "failed" or "cancelled"
    by: str = ""  # who said so, with a token, and why
    reason: str = ""


class TaskHandedOut(Note, frozen=True, tag="TaskHandedOut", kw_only=True):
    """An attempt has ended and left the task to whoever holds its token."""

    id: str
    attempt: int


class ChildOutcomeIgnored(Note, frozen=True, tag="ChildOutcomeIgnored", kw_only=True):
    """A child run ended when nobody waited for it any more."""

    id: str
    outcome: str  # "completed", or a `ChildStatus`
    epoch: int = 0  # in which it was called


class SignalIgnored(Note, frozen=True, tag="SignalIgnored", kw_only=True):
    """A signal arrived when the run's end was decided already, and only had to be written. Payload: its value."""

    id: str
    name: str
    by: str = ""
    reason: str = ""


class RunQueued(Note, frozen=True, tag="RunQueued", kw_only=True):
    """The run stands in the queue for the key of a singleton, and begins when it is its turn."""

    key: str
    behind: str = ""  # id of the run that had the key
    replaces: bool = False  # which was asked to end, as were those in the queue


class RunPaused(Note, frozen=True, tag="RunPaused", kw_only=True):
    """Nothing begins until the run is unpaused; what arrives is kept."""

    by: str = ""
    reason: str = ""


class RunUnpaused(Note, frozen=True, tag="RunUnpaused", kw_only=True):
    """The run goes on."""

    by: str = ""
    reason: str = ""


class RunSuspended(Note, frozen=True, tag="RunSuspended", kw_only=True):
    """Code and history disagree, or the run kills its workers. Payload: the diagnosis (`compare.Diagnosis`)."""

    reason: str


class RunResumed(Note, frozen=True, tag="RunResumed", kw_only=True):
    """A suspended run may go on, with the code there is now."""

    by: str = ""
    reason: str = ""


class RunTerminated(Note, frozen=True, tag="RunTerminated", kw_only=True):
    """Ends a run without its code."""

    by: str = ""
    reason: str = ""


class RunReopened(Note, frozen=True, tag="RunReopened", kw_only=True):
    """A run that had ended goes on; what is taken back, counts as never having happened.

    That is the last turn, its fact and what was decided; or the decisions alone, and the fact is told again, now, to
    the code there is now; or, of a run that was terminated, its end alone.
    """

    by: str = ""
    reason: str = ""
    takes_back: TakenBack = "turn"


class RunForked(Note, frozen=True, tag="RunForked", kw_only=True):
    """First event of a fork. Behind it stand events of its origin, copied, until `PrefixEnded`."""

    origin: str  # the run's id
    version: int  # the last of its events that was copied
    digest: str  # the origin's at that version, 64 hex digits
    by: str = ""
    reason: str = ""
    substituted: tuple[str, ...] = ()  # ids of the tasks whose results were given with the fork


class PrefixEnded(Note, frozen=True, tag="PrefixEnded", kw_only=True):
    """From here on a fork is a run of its own. `retold`: the last fact is told again, now, to the code there is now."""

    retold: bool = False


class TurnSlow(Note, frozen=True, tag="TurnSlow", kw_only=True):
    """A turn kept the engine's other runs waiting for `took` microseconds. Stands behind its decisions."""

    took: int
    site: str = ""  # file and line where it was seen


AnyEvent: TypeAlias = (
    RunStarted
    | RunBegun
    | TaskCompleted
    | TaskFailed
    | TimerFired
    | CancelRequested
    | SignalReceived
    | RequestReceived
    | ChildCompleted
    | ChildFailed
    | SendAccepted
    | SendRejected
    | TaskScheduled
    | TaskCancelled
    | TimerStarted
    | TimerCancelled
    | RunCompleted
    | RunFailed
    | RunCancelled
    | ChildStarted
    | ChildCancelled
    | ChildTerminated
    | MessageSent
    | StatePublished
    | FeedPublished
    | AttributesSet
    | RequestAnswered
    | RequestFailed
    | ContinuedAsNew
    | PatchMarked
    | AttributesGiven
    | TaskStarted
    | AttemptFailed
    | AttemptHeartbeat
    | EffectReconciled
    | AttemptOutcomeIgnored
    | TaskHandedOut
    | ChildOutcomeIgnored
    | SignalIgnored
    | RunQueued
    | RunPaused
    | RunUnpaused
    | WorkflowPaused
    | WorkflowUnpaused
    | LimitSet
    | CallDebounced
    | RunSuspended
    | RunResumed
    | RunReopened
    | RunForked
    | PrefixEnded
    | RunTerminated
    | PayloadsDestroyed
    | RunPruned
    | TurnSlow
    | ResultMemoised
    | ResultForgotten
)

_encoder: Final = msgspec.json.Encoder()
_decoder: Final[msgspec.json.Decoder[AnyEvent]] = msgspec.json.Decoder(AnyEvent)

decode_known: Final = _decoder.decode
"""As `decode_header`, for whoever has many: raises `ValueError` or `RecursionError` for what that explains."""
encode_header: Final = _encoder.encode
"""An event as the bytes of its header: compact JSON, the tag first, fields in the order above."""


def decode_header(header: bytes, *, where: str = "") -> AnyEvent:
    """The event of a stored header.

    Raises `HistoryError`, naming `where`, for bytes that are no event of this version of the library.
    """
    try:
        return _decoder.decode(header)
    except (ValueError, RecursionError) as error:
        place = f" at {where}" if where else ""
        raise HistoryError(
            f"the history{place} holds an event that this version of holdfast does not know: {error};"
            " it was written by a newer version or damaged: upgrade, or verify the file"
        ) from error
