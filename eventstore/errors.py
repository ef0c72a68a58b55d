"""What a store can refuse, and why: one class per thing a caller would do differently.

Every message names the stream or file it is about and what to do next. Nothing recorded is lost by any of these.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CommitTooLarge",
    "EventStoreError",
    "InvalidArgument",
    "LeaseLost",
    "LimitReached",
    "MailWaiting",
    "NotAStore",
    "NotInstallable",
    "SchemaTooNew",
    "StoreClosed",
    "StoreDamaged",
    "StoreUnavailable",
    "StreamClosed",
    "StreamDiffers",
    "StreamNotFound",
    "StreamNotPrunable",
    "TransactionRefused",
    "UnknownMessage",
    "UnknownPool",
    "UnsupportedCapability",
    "VersionConflict",
]

_STATEMENT_SHOWN: Final = 200  # characters of SQL in a message


class EventStoreError(Exception):
    """Base of everything that a store raises on purpose."""


class InvalidArgument(EventStoreError, ValueError):
    """The call itself is malformed (an empty stream name, a negative limit): nothing was looked at or written."""


class CommitTooLarge(EventStoreError, ValueError):
    """The commit is over a named limit of the port (events, bytes of one payload, messages); split it."""


class UnsupportedCapability(EventStoreError):
    """The commit uses an optional part of the port that this store does not declare in ``capabilities``."""


class VersionConflict(EventStoreError):
    """The stream is not at the version the commit expected: somebody else wrote, or it exists already.

    ``stream`` is its name, ``expected`` what the commit said, ``actual`` what is stored (``NEW``: it does not exist).
    """

    def __init__(self, stream: str, *, expected: int, actual: int) -> None:
        self.stream = stream
        self.expected = expected
        self.actual = actual
        super().__init__(
            f"stream {stream!r} is at version {_version(actual)}, the commit expected {_version(expected)}:"
            " read the stream again and decide anew"
        )


class LeaseLost(EventStoreError):
    """The lease does not own the stream (any more), or has ended."""

    def __init__(self, stream: str | None, *, token: int | None, reason: str) -> None:
        self.stream = stream
        self.token = token
        self.reason = reason
        where = "the lease" if stream is None else f"stream {stream!r}"
        who = "a commit without a lease" if token is None else f"token {token}"
        super().__init__(f"{where} is not writable by {who}: {reason}")


class UnknownMessage(EventStoreError):
    """A commit consumes a message that is not waiting in the stream's mailbox (never sent, or consumed already)."""

    def __init__(self, stream: str, message_id: str) -> None:
        self.stream = stream
        self.message_id = message_id
        super().__init__(f"no message {message_id!r} is waiting in the mailbox of stream {stream!r}")


class MailWaiting(EventStoreError):
    """A commit that says ``drained`` leaves data messages behind: their senders were told that they were delivered.

    ``stream`` is its name, ``waiting`` how many data messages the commit does not consume.
    """

    def __init__(self, stream: str, *, waiting: int) -> None:
        self.stream = stream
        self.waiting = waiting
        super().__init__(
            f"data messages waiting in the mailbox of stream {stream!r} that the commit does not consume: {waiting};"
            " take them in and decide anew"
        )


class StreamNotFound(EventStoreError, LookupError):
    """No stream of that name exists."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        super().__init__(f"no stream {stream!r} in this store")


class StreamClosed(EventStoreError):
    """A message was sent to a stream that is closed, which has finished and reads no more mail: a data message, or a
    control message that is for open streams only.
    """

    def __init__(self, stream: str) -> None:
        self.stream = stream
        super().__init__(f"stream {stream!r} is closed and takes no more messages")


class StreamNotPrunable(EventStoreError):
    """Events were to be taken away of a stream that is not closed, or its last one. ``stream`` is its name."""

    def __init__(self, stream: str, *, reason: str) -> None:
        self.stream = stream
        super().__init__(f"stream {stream!r} cannot be pruned so: {reason}")


class LimitReached(EventStoreError):
    """A permit that the commit takes is not to be had now: the pool is full, or the rate spent, or others wait for it.

    ``retry_at`` is when a rate will have room, in microseconds since the epoch, if everybody before this ``holder``
    starts as early as possible; None for slots, which come back when they are returned.
    ``held_by`` is the holder of the permit that was taken, or granted, longest ago, so of a pool of one who is in the
    way; None when the limit is 0, or it is not known.
    """

    def __init__(self, pool: str, holder: str, *, retry_at: int | None, held_by: str | None = None) -> None:
        self.pool = pool
        self.holder = holder
        self.retry_at = retry_at
        self.held_by = held_by
        whose = "" if held_by is None else f" (the oldest is {held_by!r}'s)"
        when = "when one is returned" if retry_at is None else f"at {retry_at} microseconds since the epoch"
        super().__init__(f"pool {pool!r} has no permit for {holder!r} now{whose}: wait for it, or try again {when}")


class UnknownPool(InvalidArgument):
    """No limit stands behind a permit: the pool has no stream, or that has no attribute ``limit`` that is one."""

    def __init__(self, pool: str, *, exists: bool) -> None:
        self.pool = pool
        what = "has no attributes that make a limit" if exists else "does not exist"
        super().__init__(
            f"stream 'pool:{pool}' {what}: commit the attribute 'limit' to it, 0 or more, and for a rate 'window', in"
            " microseconds"
        )


class TransactionRefused(EventStoreError):
    """A `Commit.transaction` did what it may not, or took too long: its commit is refused, and nothing of it written.

    ``stream`` is the commit's, ``statement`` the SQL that was refused (None: the function as a whole), ``reason`` why.
    """

    def __init__(self, stream: str, *, statement: str | None, reason: str) -> None:
        self.stream = stream
        self.statement = statement
        self.reason = reason
        what = "the transaction" if statement is None else f"the statement {_shortened(statement)!r} in the transaction"
        super().__init__(f"{what} of a commit of stream {stream!r} was refused: {reason}")


class NotInstallable(EventStoreError, ValueError):
    """What is to be installed is not what a store gives out: it was changed, is incomplete, or was never one.

    ``stream`` and ``version`` say where, as far as that is known; ``reason`` what is wrong. Nothing was installed.
    """

    def __init__(self, stream: str | None, *, reason: str, version: int | None = None) -> None:
        self.stream = stream
        self.version = version
        self.reason = reason
        where = "what is to be installed" if stream is None else f"stream {stream!r}"
        where += "" if version is None else f", version {version},"
        super().__init__(f"{where} cannot be installed: {reason}")


class StreamDiffers(EventStoreError):
    """A stream that is to be installed is here already, and its events are others. Nothing was installed.

    ``stream`` is its name, ``here`` and ``there`` the versions, ``reason`` what is the matter.
    """

    def __init__(self, stream: str, *, here: int, there: int, reason: str) -> None:
        self.stream = stream
        self.here = here
        self.there = there
        self.reason = reason
        super().__init__(f"stream {stream!r} is in this store already and {reason}; nothing was installed")


class StoreClosed(EventStoreError):
    """The store was closed; open it again."""


class StoreUnavailable(EventStoreError):
    """The store cannot be opened, read or written now (permission, disk full, I/O error, file removed or replaced).

    After an I/O error or corruption the store stays in this state until it is opened anew: after a failed fsync the
    next one lies. What was acknowledged before is unaffected.
    """


class StoreDamaged(StoreUnavailable):
    """What is stored is not what a store writes: a row was edited, or is missing. The rest can still be read."""


class NotAStore(StoreUnavailable):
    """The file exists, but is no Holdfast store: it is left untouched."""


class SchemaTooNew(StoreUnavailable):
    """The file was written by a newer version of the library: it is left untouched; upgrade to read it."""


def _shortened(statement: str) -> str:
    words = " ".join(statement.split())
    return words if len(words) <= _STATEMENT_SHOWN else words[:_STATEMENT_SHOWN] + "..."


def _version(version: int) -> str:
    return "NEW (no such stream)" if version < 0 else str(version)
