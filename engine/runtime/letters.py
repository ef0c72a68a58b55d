"""What a run's decisions send to other streams: its outbox, written in the commit that records the decisions.

Ids of messages are made of who sends them and why, so that sending one again changes nothing.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Protocol

from msgspec import structs

from engine.core.decided import Decided
from engine.core.events import (
    ChildCancelled,
    ChildStarted,
    ChildStatus,
    ChildTerminated,
    Decision,
    MessageSent,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunStarted,
)
from engine.core.failures import ErrorInfo, encode_error
from engine.core.fold import RunState
from engine.core.identity import by_run, child_run_id, ended_call
from engine.core.lineage import idempotency_key
from engine.runtime.mail import (
    CancelMail,
    ChildMail,
    SignalMail,
    StartMail,
    TerminateMail,
    control_message,
    data_message,
)
from engine.runtime.streams import CALL, PARENT, REPLY_CATEGORY, ROOT, STATUS, VERSION, WORKFLOW, stream_of
from eventstore import Message, Opening

__all__ = [
    "closing_letters",
    "conflict_letter",
    "end_letter",
    "ending_letter",
    "letter_of",
    "refusal_letter",
    "refusal_stream",
]


def letter_of(item: Decided, started: RunStarted, run_id: str) -> Message | None:
    """The message that a decision of this run sends, if it sends one. `started` is what its epoch began with."""
    event = item.event
    match event:
        case ChildStarted():
            return _start_letter(event, item.payload, started, run_id, _key_of(event, started, run_id))
        case ChildCancelled(run=run, id=id_):
            call = _call_of(run, run_id, started.epoch, ended_call(id_))
            mail = CancelMail(by=by_run(run_id), parent=run_id, call=call)
            key = _key_of(event, started, run_id)
            return control_message(stream_of(run), f"cancel:{key}", mail, sender=stream_of(run_id))
        case ChildTerminated(run=run, id=id_):
            call = _call_of(run, run_id, started.epoch, ended_call(id_))
            key = _key_of(event, started, run_id)
            return ending_letter(run, run_id, f"terminate:{key}", "its parent run has ended", call=call)
        case MessageSent():
            return _message_letter(event, item.payload, run_id, _key_of(event, started, run_id))
        case RunCompleted():
            return end_letter(started, run_id, None, item.payload)
        case RunFailed(error=error):
            return end_letter(started, run_id, "failed", item.payload, error=error)
        case RunCancelled(reason=reason):
            return end_letter(started, run_id, "cancelled", None, reason=reason)
        case _:
            return None


def _key_of(decision: Decision, started: RunStarted, run_id: str) -> str:
    """What makes the ids of the letters of one decision: the same whenever it is sent."""
    return idempotency_key(run_id, started.epoch, decision.id)


def _call_of(run: str, parent: str, epoch: int, call_id: str) -> str:
    """By which call of its parent a child run is, where its id does not say: one that was chosen may be any call's."""
    return "" if run == child_run_id(parent, epoch, call_id) else f"{epoch}:{call_id}"


def _start_letter(event: ChildStarted, arguments: bytes | None, started: RunStarted, run_id: str, key: str) -> Message:
    root = started.root or run_id
    mail = StartMail(
        workflow=event.workflow,
        seed=sha256(f"{started.seed}\x00{event.id}".encode()).hexdigest()[:32],
        parent=run_id,
        call=event.id,
        root=root,
        epoch=started.epoch,
        deadline=event.deadline,
        version=event.version,
    )
    attributes = {WORKFLOW: event.workflow, STATUS: "running", PARENT: run_id, ROOT: root}
    if event.version:
        attributes[VERSION] = event.version
    if call := _call_of(event.run, run_id, started.epoch, event.id):
        attributes[CALL] = call
    message = data_message(stream_of(event.run), f"start:{key}", mail, arguments, sender=stream_of(run_id))
    return structs.replace(message, opens=Opening(attributes=attributes))


def _message_letter(event: MessageSent, value: bytes | None, run_id: str, key: str) -> Message:
    stream, by, id_, sender = stream_of(event.run), by_run(run_id), f"send:{key}", stream_of(run_id)
    match event.kind:
        case "signal":
            return data_message(stream, id_, SignalMail(name=event.name, by=by), value, sender=sender)
        case "cancel":
            return control_message(stream, id_, CancelMail(by=by, reason=event.reason), sender=sender, open_only=True)
        case "terminate":
            mail = TerminateMail(by=by, reason=event.reason)
            return control_message(stream, id_, mail, sender=sender, open_only=True)


class Parented(Protocol):
    """What is known of who started a run: its `RunStarted`, or its folded state."""

    @property
    def parent(self) -> str: ...
    @property
    def parent_call(self) -> str: ...
    @property
    def parent_epoch(self) -> int: ...


def end_letter(
    started: Parented,
    run_id: str,
    status: ChildStatus | None,
    payload: bytes | None,
    *,
    error: str = "",
    reason: str = "",
) -> Message | None:
    """What a run's parent, if it has one, is told of its end."""
    if not started.parent:
        return None
    mail = ChildMail(call=started.parent_call, epoch=started.parent_epoch, status=status, error=error, reason=reason)
    return data_message(
        stream_of(started.parent), f"end:{idempotency_key(run_id, 0, 'end')}", mail, payload, sender=stream_of(run_id)
    )


def closing_letters(state: RunState) -> list[Message]:
    """To the children of a run that ends without its code. Each child is ended as its call said."""
    run_id = state.run_id
    letters: list[Message] = []
    for child in state.children.values():
        key = idempotency_key(run_id, state.epoch, f"{child.id}!")
        call = _call_of(child.run, run_id, state.epoch, child.id)
        if child.ended_at is not None or child.parent_close == "abandon":
            continue
        if child.parent_close == "terminate":
            why = "its parent run was terminated"
            letters.append(ending_letter(child.run, run_id, f"terminate:{key}", why, call=call))
        elif not child.asked_to_end:
            mail = CancelMail(by=by_run(run_id), reason="its parent run was terminated", parent=run_id, call=call)
            letters.append(control_message(stream_of(child.run), f"cancel:{key}", mail, sender=stream_of(run_id)))
    return letters


def ending_letter(run: str, sender: str, id_: str, reason: str, *, call: str) -> Message:
    """What ends a child run without its code."""
    mail = TerminateMail(by=by_run(sender), reason=reason, parent=sender, call=call)
    return control_message(stream_of(run), id_, mail, sender=stream_of(sender))


def conflict_letter(mail: StartMail, run_id: str) -> Message:
    """To a run that wanted a child under an id that belongs to another run already: this one."""
    answer = ChildMail(call=mail.call, epoch=mail.epoch, status="conflict")
    id_ = f"conflict:{idempotency_key(mail.parent, mail.epoch, mail.call)}"
    return data_message(stream_of(mail.parent), id_, answer, None, sender=stream_of(run_id))


def refusal_stream(run_id: str, request_id: str) -> str:
    """The stream that a refused request's refusal waits in: it must not be part of the run's history."""
    return f"{REPLY_CATEGORY}:{idempotency_key(run_id, 0, request_id)}"


def refusal_letter(run_id: str, request_id: str, error: ErrorInfo) -> Message:
    """To whoever sent a request that was refused."""
    return Message(
        id="refusal",
        stream=refusal_stream(run_id, request_id),
        header=b'{"type":"refusal"}',
        payload=encode_error(error),
        sender=stream_of(run_id),
        opens=Opening(),
    )
