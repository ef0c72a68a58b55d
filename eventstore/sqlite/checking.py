"""What refuses a commit, in the order that the port gives: before it has changed anything.

Asked inside the transaction that would append, of the streams as the requests before it have left them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from eventstore.errors import LeaseLost, MailWaiting, UnknownMessage, VersionConflict
from eventstore.port import NEW, Commit
from eventstore.sqlite.leases import Judge
from eventstore.sqlite.mailboxes import Known
from eventstore.sqlite.rows import StreamRow

__all__ = ["check"]


def check(
    commit: Commit,
    row: StreamRow | None,
    *,
    known: Mapping[tuple[int, str], Known],
    open_tokens: Collection[int],
    judge: Judge,
) -> None:
    """Let a commit of this stream (None: there is none) pass, or raise what `Commit` lists behind its arguments.

    `known` are the messages named beyond the mailbox that was loaded; `open_tokens` the leases that have not ended.
    """
    actual = NEW if row is None else row.version
    if commit.expected_version == NEW != actual:  # the name is taken, whoever owns it
        raise VersionConflict(commit.stream, expected=NEW, actual=actual)
    _check_lease(commit, row, open_tokens, judge)
    if commit.expected_version != actual:
        raise VersionConflict(commit.stream, expected=commit.expected_version, actual=actual)
    data = 0
    for message_id in commit.consumes:
        data += not _is_control(commit.stream, row, message_id, known)
    if commit.drained and row is not None and row.data > data:
        raise MailWaiting(commit.stream, waiting=row.data - data)


def _check_lease(commit: Commit, row: StreamRow | None, open_tokens: Collection[int], judge: Judge) -> None:
    owner = None if row is None else row.owner
    if commit.lease is not None:
        token = commit.lease.token
        if token not in open_tokens:
            raise LeaseLost(commit.stream, token=token, reason="the lease has ended")
        if row is not None and owner != token:
            reason = "nobody owns it: claim it" if owner is None else f"token {owner} owns it"
            raise LeaseLost(commit.stream, token=token, reason=reason)
    elif row is not None and owner is not None and not row.owner_ended and judge(owner):
        raise LeaseLost(commit.stream, token=None, reason=f"token {owner} owns it and is alive")


def _is_control(stream: str, row: StreamRow | None, message_id: str, known: Mapping[tuple[int, str], Known]) -> bool:
    """Whether a message that waits is for the engine. Raises `UnknownMessage` if it does not wait."""
    if row is not None:
        mail = None if row.mailbox is None else row.mailbox.get(message_id)
        if mail is not None:
            return mail.message.control
        beyond = known.get((row.id, message_id))
        if beyond is not None and beyond.waiting:
            return bool(beyond.control)
    raise UnknownMessage(stream, message_id)
