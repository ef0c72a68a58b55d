"""What is written into a run's mailbox: the control messages that clients send and workers consume."""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from eventstore import Message, WaitingMessage

__all__ = ["CancelMail", "ControlMail", "ResumeMail", "control_message", "mail_or_none"]


class CancelMail(Struct, frozen=True, tag="cancel", omit_defaults=True):
    """Cancel the run."""

    by: str = ""
    reason: str = ""


class ResumeMail(Struct, frozen=True, tag="resume", omit_defaults=True):
    """Let a suspended run try again with the code that is here now."""

    by: str = ""


ControlMail: TypeAlias = CancelMail | ResumeMail

_decoder: Final[msgspec.json.Decoder[ControlMail]] = msgspec.json.Decoder(ControlMail)


def control_message(stream: str, id: str, mail: ControlMail) -> Message:  # noqa: A002 - the port's word
    """A control message to a run, for `EventStore.send`."""
    return Message(id=id, stream=stream, header=msgspec.json.encode(mail), control=True)


def mail_or_none(message: WaitingMessage) -> ControlMail | None:
    """What a waiting control message says; None for mail that this version does not know, which stays in the box."""
    try:
        return _decoder.decode(message.header)
    except msgspec.MsgspecError:
        return None
