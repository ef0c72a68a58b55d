"""Runs that a message has opened, and of which nothing is recorded yet: children, and those that were debounced.

The first event of such a run comes from that message, whatever is done with the run: begun, put off, or parked.
"""

from __future__ import annotations

from msgspec import Struct

from engine.core.events import RunStarted
from engine.core.identity import by_run
from engine.runtime.anyio_seams import anyio_version
from engine.runtime.mail import StartMail, mail_or_none
from engine.runtime.versions import PYTHON
from eventstore import StreamHead, WaitingMessage

__all__ = ["Opened", "opened_by"]


class Opened(Struct, frozen=True):
    """What has opened a run."""

    message: WaitingMessage
    mail: StartMail

    def fact(self, *, at: int, waits: bool, large: bool) -> RunStarted:
        """The first event. `waits`: it is recorded, and does not begin yet. `large`: it may keep values outside."""
        mail = self.mail
        return RunStarted(
            at=at,
            workflow=mail.workflow,
            seed=mail.seed,
            python=PYTHON,
            anyio=anyio_version(),
            by=by_run(mail.parent) if mail.parent else mail.by,
            root=mail.root,
            parent=mail.parent,
            parent_call=mail.call,
            parent_epoch=mail.epoch,
            deadline=mail.deadline,
            waits=waits,
            begins_at=mail.begins_at,
            version=mail.version,
            large=large,
        )


def opened_by(head: StreamHead) -> Opened | None:
    """What has opened the run of a stream without events; None: nothing that waits there."""
    for message in head.messages:
        mail = mail_or_none(message)
        if isinstance(mail, StartMail):
            return Opened(message, mail)
    return None
