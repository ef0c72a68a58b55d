"""What a batch must know before it is applied, loaded with as little asking as possible.

`Memory` remembers streams between batches. It is exact: SQLite's data version says inside the transaction whether any
other connection has committed since, and then everything is forgotten; what this connection committed was applied to
the remembered rows themselves; a transaction that failed forgets, too. So a stream that this store wrote last is not
read again, which is most of what a worker does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, assert_never

from eventstore.port import Commit, Message, pool_stream
from eventstore.sqlite.mailboxes import Known, load_known, load_mailboxes
from eventstore.sqlite.requests import (
    ClaimRequest,
    CommitRequest,
    InstallRequest,
    LeaseEnding,
    LeaseRequest,
    Request,
    SendRequest,
    Unclaim,
)
from eventstore.sqlite.rows import StreamRow, load_streams
from eventstore.sqlite.statements import Sql

__all__ = ["REMEMBERED_STREAMS_MAX", "Memory", "Named", "load_mail"]

REMEMBERED_STREAMS_MAX: Final = 4_096
"""Streams remembered between batches: a few hundred bytes and the attributes of each."""


class Memory:
    """Streams and leases as this connection last saw them."""

    __slots__ = ("_data_version", "_last_id", "_open_tokens", "_streams")

    def __init__(self) -> None:
        self._data_version: int | None = None
        self._streams: dict[str, StreamRow] = {}
        self._open_tokens: set[int] = set()
        self._last_id = 0

    def load(
        self, sql: Sql, names: Collection[str], tokens: Collection[int]
    ) -> tuple[dict[str, StreamRow], int, set[int]]:
        """The streams of these names, the highest stream id, and which of these leases have not ended.

        Inside a transaction that writes. The rows are the batch's to change, until `keep` or `forget`.
        """
        data_version = sql.execute("PRAGMA data_version").fetchone()[0]
        if data_version != self._data_version:
            self.forget()
            self._data_version = data_version
        streams = {name: row for name in names if (row := self._streams.get(name)) is not None}
        open_tokens = self._open_tokens.intersection(tokens)
        if len(streams) < len(names) or len(open_tokens) < len(tokens):
            missing = [name for name in names if name not in streams]
            loaded, self._last_id, opened = load_streams(
                sql, missing, [token for token in tokens if token not in open_tokens]
            )
            streams |= loaded
            open_tokens |= opened
        return streams, self._last_id, open_tokens

    def keep(self, streams: Mapping[str, StreamRow], open_tokens: Iterable[int], ended: Collection[int]) -> None:
        """The batch was committed: remember what it left. `ended` are the leases that it ended."""
        for row in streams.values():
            row.settle()
            self._last_id = max(self._last_id, row.id)
        self._streams |= streams
        self._open_tokens.update(open_tokens)
        if ended or len(self._streams) > REMEMBERED_STREAMS_MAX:
            self._streams.clear()  # others than the batch's may have lost their owner
            self._open_tokens.clear()

    def learn(self, last_id: int) -> None:
        """Stream ids up to this one are taken, whoever was asked for."""
        self._last_id = max(self._last_id, last_id)

    def forget(self) -> None:
        """The batch failed, or somebody else has written."""
        self._data_version = None
        self._streams.clear()
        self._open_tokens.clear()


class Named:
    """What the requests of a batch name, so that it can be loaded at once."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.streams: dict[str, None] = {}
        self.acting: dict[str, None] = {}  # streams whose mailboxes are needed
        self.tokens: set[int] = set()
        self.sent: list[tuple[str, str]] = []  # messages, by stream and id, that may have been delivered before
        self.consumed: list[tuple[str, str]] = []  # and those that must have been
        self.permits: list[tuple[str, str]] = []  # pools and holders
        self.payloads = 0
        for request in requests:
            self._add(request)

    def _add(self, request: Request) -> None:
        match request:
            case CommitRequest(commit=commit):
                self._add_commit(commit)
                self.payloads += request.payloads
            case SendRequest(message=message):
                self._add_message(message)
            case ClaimRequest():
                self.tokens.add(request.token)
                for name in request.names:
                    self._add_acting(name)
            case Unclaim():
                self.streams.update(dict.fromkeys(request.owners))
            case LeaseRequest() | LeaseEnding() | InstallRequest():
                pass
            case _:
                assert_never(request)

    def _add_commit(self, commit: Commit) -> None:
        self._add_acting(commit.stream)
        for message_id in commit.consumes:
            self.consumed.append((commit.stream, message_id))
        for message in commit.sends:
            self._add_message(message)
        if commit.lease is not None:
            self.tokens.add(commit.lease.token)
        for permit in commit.permits:
            self.streams[pool_stream(permit.pool)] = None
            self.permits.append((permit.pool, permit.holder))

    def _add_acting(self, name: str) -> None:
        self.streams[name] = self.acting[name] = None

    def _add_message(self, message: Message) -> None:
        self.streams[message.stream] = None
        self.sent.append((message.stream, message.id))


def load_mail(
    connection: sqlite3.Connection, streams: Mapping[str, StreamRow], named: Named
) -> dict[tuple[int, str], Known]:
    """Fill in the mailboxes of the streams that act; what is known of the other messages that are named."""
    wanted: list[StreamRow] = []
    for name in named.acting:
        row = streams.get(name)
        if row is not None:
            row.mailbox = {}
            if row.control + row.data:
                wanted.append(row)
    if wanted:
        consumed = [message_id for _, message_id in named.consumed]
        boxes = load_mailboxes(connection, {row.id: row.control for row in wanted}, consumed)
        for row in wanted:
            row.mailbox = boxes[row.id]
    known = [(streams[stream].id, message_id) for stream, message_id in named.sent if stream in streams]
    for stream, message_id in named.consumed:  # beyond the oldest that were loaded, or not there
        found = streams.get(stream)
        if found is not None and found.mailbox is not None and message_id not in found.mailbox:
            known.append((found.id, message_id))
    return load_known(connection, known) if known else {}
