"""What is written into a run's mailbox, and what a waiting message says.

*Control* mail is for the engine (cancel, pause ...): it reaches a held run too. *Data* mail is for the workflow, or for
one of its awaits, and waits while the run is held.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from engine.core.events import ChildStatus
from engine.core.identity import says_its_call
from engine.runtime.streams import CALL, PARENT, stream_of
from engine.workflows import SignalMessage
from eventstore import Message, WaitingMessage
from eventstore.port import Scalar

__all__ = [
    "CancelMail",
    "ChildMail",
    "CompletionMail",
    "ControlMail",
    "DataMail",
    "PauseMail",
    "PermitMail",
    "RequestMail",
    "ResumeMail",
    "SignalMail",
    "StartMail",
    "TerminateMail",
    "UnpauseMail",
    "control_message",
    "data_message",
    "is_for",
    "mail_or_none",
    "signal_message",
]


class CancelMail(Struct, frozen=True, tag="cancel", omit_defaults=True):
    """Cancel the run; it may clean up."""

    by: str = ""
    reason: str = ""
    unless_begun: bool = False  # one that has begun goes on
    parent: str = ""  # the run that asks this of its child; of nobody else's
    call: str = ""  # and of the child of which of its calls, where the id does not say


class TerminateMail(Struct, frozen=True, tag="terminate", omit_defaults=True):
    """End the run without its code."""

    by: str = ""
    reason: str = ""
    parent: str = ""  # as for `CancelMail`
    call: str = ""


class ResumeMail(Struct, frozen=True, tag="resume", omit_defaults=True):
    """Let a suspended run try again with the code that is here now."""

    by: str = ""
    reason: str = ""


class PauseMail(Struct, frozen=True, tag="pause", omit_defaults=True):
    """Let nothing of the run begin."""

    by: str = ""
    reason: str = ""


class UnpauseMail(Struct, frozen=True, tag="unpause", omit_defaults=True):
    """Let a paused run go on."""

    by: str = ""
    reason: str = ""


class PermitMail(Struct, frozen=True, tag="PermitGranted", omit_defaults=True):
    """From the store: a limit has room for one of the run's tasks, which goes by `permits.slot_holder`."""

    pool: str
    holder: str


class StartMail(Struct, frozen=True, tag="start", omit_defaults=True):
    """Begin this run, as a child, or (`begins_at`) later. Payload: the arguments."""

    workflow: str
    seed: str
    parent: str = ""  # none: it is nobody's child
    call: str = ""
    root: str = ""
    epoch: int = 0  # the parent's
    deadline: int = 0
    begins_at: int = 0  # not before this, microseconds since the epoch; 0: at once
    by: str = ""  # who asked, of a run that is nobody's child
    version: str = ""  # of the workflow


class SignalMail(Struct, frozen=True, tag="signal", omit_defaults=True):
    """A signal. Payload: its value."""

    name: str
    by: str = ""
    reason: str = ""


class RequestMail(Struct, frozen=True, tag="request", omit_defaults=True):
    """A request. Payload: its argument."""

    name: str
    by: str = ""
    reason: str = ""


class ChildMail(Struct, frozen=True, tag="child", omit_defaults=True):
    """A child run has ended. Payload: its result or error."""

    call: str
    epoch: int = 0  # of this run, when it made the call
    status: ChildStatus | None = None  # None: with a result
    error: str = ""
    reason: str = ""


class CompletionMail(Struct, frozen=True, tag="completion", omit_defaults=True):
    """Somebody with its token ends a task. Payload: the result or error."""

    task: str
    epoch: int = 0
    error: str = ""  # the exception's qualified type; empty: it is completed
    by: str = ""
    reason: str = ""


ControlMail: TypeAlias = CancelMail | TerminateMail | ResumeMail | PauseMail | UnpauseMail | PermitMail
DataMail: TypeAlias = StartMail | SignalMail | RequestMail | ChildMail | CompletionMail

_decoder: Final[msgspec.json.Decoder[ControlMail | DataMail]] = msgspec.json.Decoder(ControlMail | DataMail)


def is_for(mail: ControlMail | DataMail | None, run_id: str, attributes: Mapping[str, Scalar]) -> bool:
    """Whether this run, whose stream has these attributes, is meant. The id of a call's child may be that of somebody
    else's run, or of the child of another call, which its caller hears of only later; one of the two ids was chosen.
    """
    if not isinstance(mail, CancelMail | TerminateMail) or not mail.parent:
        return True
    if mail.parent != attributes.get(PARENT):
        return False
    mine = attributes.get(CALL, "")
    if not mine and not says_its_call(run_id, mail.parent):
        return True  # a child of an earlier version, which did not say
    return mail.call == mine


def control_message(
    stream: str,
    id: str,  # noqa: A002 - the port's word
    mail: ControlMail,
    *,
    sender: str | None = None,
    open_only: bool = False,
) -> Message:
    """A control message to a run. `open_only`: it is not delivered to one that has ended, and its sender learns it."""
    header = msgspec.json.encode(mail)
    return Message(id=id, stream=stream, header=header, control=True, sender=sender, open_only=open_only)


def data_message(
    stream: str,
    id: str,  # noqa: A002 - the port's word
    mail: DataMail,
    payload: bytes | None,
    *,
    sender: str | None = None,
) -> Message:
    """A data message to a run."""
    return Message(id=id, stream=stream, header=msgspec.json.encode(mail), payload=payload, sender=sender)


def signal_message(run_id: str, id: str, signal: SignalMessage) -> Message:  # noqa: A002
    """A signal that a run is started with."""
    return data_message(stream_of(run_id), id, SignalMail(name=signal.name), signal.payload)


def mail_or_none(message: WaitingMessage) -> ControlMail | DataMail | None:
    """What a waiting message says; None for mail that this version does not know, which stays in the box."""
    try:
        return _decoder.decode(message.header)
    except (ValueError, RecursionError):
        return None
