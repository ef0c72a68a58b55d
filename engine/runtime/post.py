"""What waits in a run's mailbox, as arrivals: each message becomes a fact, a note, or nothing but a message less."""

from __future__ import annotations

from collections.abc import Mapping

from engine.core.carriage import INLINE, is_away
from engine.core.events import (
    AttemptOutcomeIgnored,
    CancelRequested,
    ChildCompleted,
    ChildFailed,
    ChildOutcomeIgnored,
    Fact,
    Note,
    RequestReceived,
    RunPaused,
    RunUnpaused,
    SignalReceived,
    TaskCompleted,
    TaskFailed,
)
from engine.core.failures import describe, encode_error
from engine.core.instance import Instance
from engine.core.replay import Attempts
from engine.errors import NotRecordable
from engine.runtime.letters import conflict_letter
from engine.runtime.mail import (
    CancelMail,
    ChildMail,
    CompletionMail,
    PauseMail,
    PermitMail,
    RequestMail,
    ResumeMail,
    SignalMail,
    StartMail,
    TerminateMail,
    UnpauseMail,
    is_for,
    mail_or_none,
)
from engine.runtime.steps import Arrival
from eventstore import WaitingMessage
from eventstore.port import Scalar

__all__ = ["arrival_of"]


def arrival_of(
    message: WaitingMessage,
    instance: Instance,
    attempts: Mapping[str, Attempts],
    *,
    paused: bool,
    attributes: Mapping[str, Scalar],
) -> Arrival | TerminateMail | None:
    """What a message means to this run, whose stream has these attributes.

    A `TerminateMail` is for whoever has the run: it ends without its code. None: mail of a newer version, which stays
    in the box.
    """
    mail = mail_or_none(message)
    if not is_for(mail, instance.run_id, attributes) or message.id in (instance.inbox.carried or ()):
        return Arrival(None, None, message.id)  # another's; or a signal that came with the start, and is in the history
    match mail:
        case None | TerminateMail():
            return mail
        case CancelMail() | PauseMail() | UnpauseMail() | ResumeMail():
            return Arrival(_of_control(mail, paused=paused), None, message.id)
        case PermitMail(pool=pool, holder=holder):
            return Arrival(None, None, message.id, granted=(pool, holder))
        case SignalMail(name=name, by=by, reason=why):
            fact: Fact = SignalReceived(at=0, id=message.id, name=name, by=by, reason=why)
            return Arrival(fact, message.payload, message.id)
        case RequestMail(name=name, by=by, reason=why):
            fact = RequestReceived(at=0, id=message.id, name=name, by=by, reason=why)
            return Arrival(fact, message.payload, message.id)
        case ChildMail():
            return _of_child(mail, message, instance)
        case CompletionMail():
            return _of_completion(mail, message, instance, attempts.get(mail.task))
        case StartMail():
            started = instance.started
            asked = (mail.parent, mail.epoch, mail.call)
            mine = started is not None and (started.parent, started.parent_epoch, started.parent_call) == asked
            return Arrival(None, None, message.id, None if mine else conflict_letter(mail, instance.run_id))


def _of_control(mail: CancelMail | PauseMail | UnpauseMail | ResumeMail, *, paused: bool) -> Fact | Note | None:
    """None for what changes nothing: a run that is not held has nothing to resume."""
    match mail:
        case CancelMail(by=by, reason=reason, unless_begun=unless_begun):
            return CancelRequested(at=0, by=by, reason=reason, unless_begun=unless_begun)
        case PauseMail(by=by, reason=reason):
            return None if paused else RunPaused(at=0, by=by, reason=reason)
        case UnpauseMail(by=by, reason=reason):
            return RunUnpaused(at=0, by=by, reason=reason) if paused else None
        case ResumeMail():
            return None


def _of_child(mail: ChildMail, message: WaitingMessage, instance: Instance) -> Arrival:
    if mail.epoch != instance.epoch:
        note = ChildOutcomeIgnored(at=0, id=mail.call, outcome=mail.status or "completed", epoch=mail.epoch)
        return Arrival(note, None, message.id)
    if mail.status is None:
        return Arrival(ChildCompleted(at=0, id=mail.call), message.payload, message.id)
    fact = ChildFailed(at=0, id=mail.call, status=mail.status, error=mail.error, reason=mail.reason)
    return Arrival(fact, message.payload, message.id)


def _of_completion(
    mail: CompletionMail, message: WaitingMessage, instance: Instance, attempts: Attempts | None
) -> Arrival:
    pending = instance.pending.get(mail.task) if mail.epoch == instance.epoch else None
    if pending is None:
        outcome = "failed" if mail.error else "completed"
        note = AttemptOutcomeIgnored(at=0, id=mail.task, attempt=0, outcome=outcome, by=mail.by, reason=mail.reason)
        return Arrival(note, message.payload, message.id)
    number = 1 if attempts is None else max(attempts.started, 1)  # of the attempt that has the token out
    if mail.error:
        fact = TaskFailed(at=0, id=mail.task, error=mail.error, attempt=number, by=mail.by, reason=mail.reason)
        return Arrival(fact, message.payload, message.id)
    payload = b"null" if message.payload is None else message.payload
    try:
        missing = is_away(payload) and pending.carriage is not INLINE  # the delivery says so, and suspends the run
        if not missing:
            pending.definition.result.decode(payload, pending.carriage)
    except NotRecordable as error:  # it must not reach the workflow, and nobody is left to be told
        info = describe(error)
        fact = TaskFailed(at=0, id=mail.task, error=info.type, attempt=number, by=mail.by, reason=mail.reason)
        return Arrival(fact, encode_error(info), message.id)
    done = TaskCompleted(at=0, id=mail.task, attempt=number, by=mail.by, reason=mail.reason)
    return Arrival(done, message.payload, message.id)
