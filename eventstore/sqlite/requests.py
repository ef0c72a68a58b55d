"""What is asked of the writer, and what a batch of it brought about.

Requests are made on the event loop and read on the writer's thread; nothing in them changes on the way, but for the
future, which only the loop touches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from eventstore.moving import Item
from eventstore.port import Commit, Message, StreamQuery, Timestamp
from eventstore.sqlite.mailboxes import payload_to_row
from eventstore.validation import validate_commit

__all__ = [
    "BatchOutcome",
    "ClaimRequest",
    "CommitRequest",
    "InstallRequest",
    "LeaseEnding",
    "LeaseRequest",
    "Request",
    "SendRequest",
    "Unclaim",
    "commit_request",
    "install_request",
]


class CommitRequest(Struct, frozen=True, eq=False):
    """A commit that was found well-formed, with its events as they are stored.

    The garbage collector sees it: the error that refuses it knows the frames that know this, and its future the error.
    """

    future: asyncio.Future[Any]
    commit: Commit
    texts: tuple[tuple[str, str | bytes | None], ...]  # header and payload of each event, as they are stored
    payloads: int  # of its events, with the one that a transaction will bring
    payload_bytes: int  # of its events and messages
    rows: int

    def with_payload(self, payload: bytes) -> CommitRequest:
        """The same with what its transaction returned in the first event."""
        first, *rest = self.commit.events
        texts = ((self.texts[0][0], payload_to_row(payload)), *self.texts[1:])
        commit = replace(self.commit, events=(replace(first, payload=payload), *rest))
        return replace(self, commit=commit, texts=texts)


class SendRequest(Struct, frozen=True, eq=False):
    """A message to deliver."""

    future: asyncio.Future[Any]
    message: Message


class ClaimRequest(Struct, frozen=True, eq=False):
    """Candidates to claim, for a lease."""

    future: asyncio.Future[Any]
    token: int
    query: StreamQuery
    limit: int
    names: tuple[str, ...]  # candidates that a reader found, longest in need first; looked at again here
    dead: frozenset[int]  # owners that were judged dead, for good


class Unclaim(Struct, frozen=True, eq=False):
    """Give back what a cancelled caller claimed, so that its need shows again."""

    future: asyncio.Future[Any]
    token: int
    owners: Mapping[str, int | None]  # of the streams before the claim


class LeaseRequest(Struct, frozen=True, eq=False):
    """A worker who wants a lease."""

    future: asyncio.Future[Any]
    worker: str


class LeaseEnding(Struct, frozen=True, eq=False):
    """Leases that end: their blocks were left, or their store closes."""

    future: asyncio.Future[Any]
    tokens: tuple[int, ...]


class InstallRequest(Struct, frozen=True, eq=False):
    """Streams to take in: it has a transaction of its own."""

    future: asyncio.Future[Any]
    items: Iterable[Item]
    behind: tuple[CommitRequest, ...]  # one or none; its future is nobody's


Request: TypeAlias = CommitRequest | SendRequest | ClaimRequest | Unclaim | LeaseRequest | LeaseEnding | InstallRequest


class BatchOutcome(Struct):
    """What a committed batch brought about: the answers, and what waiters must know."""

    answers: list[Any]  # the value, or the exception, of each request in turn
    needy: bool = False  # a stream may have come to need attention
    alarm: Timestamp | None = None  # the earliest that was set
    log_bytes: int = 0  # an estimate of what it added to the write-ahead log
    log_file_bytes: int = 0  # the size of the log's file after it
    ended: frozenset[int] = frozenset()  # leases that it ended in the database
    gone: frozenset[int] = frozenset()  # dead owners whose leases it ended, and whose files nobody holds


def commit_request(commit: Commit, future: asyncio.Future[Any]) -> CommitRequest:
    """A validated commit, made ready on the caller's side."""
    texts: list[tuple[str, str | bytes | None]] = []
    payloads = size = 0
    for event in commit.events:
        payload = event.payload
        if payload is None:
            texts.append((event.header.decode(), None))
            continue
        payloads += 1
        size += len(payload)
        texts.append((event.header.decode(), payload_to_row(payload)))
    for message in commit.sends:
        size += len(message.payload or b"")
    return CommitRequest(
        future,
        commit,
        tuple(texts),
        payloads + (commit.transaction is not None),
        size,
        1 + len(texts) + len(commit.sends) + len(commit.consumes) + len(commit.permits),
    )


def install_request(items: Iterable[Item], behind: Commit | None, future: asyncio.Future[Any]) -> InstallRequest:
    """Streams to take in, and a commit that goes with them. Raises what `validate_commit` raises."""
    if behind is None:
        return InstallRequest(future, items, ())
    validate_commit(behind)
    return InstallRequest(future, items, (commit_request(behind, asyncio.get_running_loop().create_future()),))
