"""One batch, one transaction, one fsync: what runs where the writer has it run.

`Transactor` owns the writable connection. A batch is: take the guard, BEGIN IMMEDIATE, load every stream it names in
one statement, apply the requests in memory (`apply`), write what changed in a handful of statements, COMMIT, look that
the files are still the ones opened. The number of calls into SQLite does not grow with the number of commits, but for
those which bring SQL of their own (`own_sql`).

After an I/O error, corruption, files that were replaced, or an interruption, it is poisoned: later batches are refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, Final, TypeVar, assert_never

from eventstore.clock import Clock
from eventstore.digest import SALT_BYTES
from eventstore.errors import EventStoreError, StoreUnavailable
from eventstore.moving import Installed
from eventstore.port import Timestamp
from eventstore.sqlite.apply import Batch, answer
from eventstore.sqlite.failures import poisons, unavailable
from eventstore.sqlite.guard import Guard
from eventstore.sqlite.installing import Installing, follow
from eventstore.sqlite.leases import LeaseFiles, SqliteLease
from eventstore.sqlite.loading import Memory, Named, load_mail
from eventstore.sqlite.log import Log
from eventstore.sqlite.opening import BUSY_SECONDS, PAGE_BYTES, Writing, open_guard, open_writer
from eventstore.sqlite.own_sql import OwnSql, TransactionLost
from eventstore.sqlite.permits import SqlitePools
from eventstore.sqlite.requests import (
    BatchOutcome,
    ClaimRequest,
    CommitRequest,
    InstallRequest,
    LeaseEnding,
    LeaseRequest,
    Request,
    SendRequest,
    Unclaim,
)
from eventstore.sqlite.rows import write_streams
from eventstore.sqlite.statements import encode_names
from eventstore.sqlite.writing import insert_attributes, insert_events, insert_messages

__all__ = ["GUARD_SECONDS", "Transactor"]

T = TypeVar("T")

GUARD_SECONDS: Final = 30.0
"""How long a writer waits for the other processes on the file before it gives up."""

_CONSUME: Final = (
    "UPDATE messages SET consumed_at = ?, header = NULL, payload = NULL, sender = NULL"
    " WHERE arrival IN (SELECT value FROM json_each(?))"
)
_END_LEASES: Final = (
    "UPDATE leases SET ended_at = ? WHERE ended_at IS NULL AND token IN (SELECT value FROM json_each(?))"
)
_TRUNCATE_SECONDS: Final = 0.2  # that cutting the log back may wait for readers, while commits wait for it
# Estimates of what goes into the log, measured on batches of many kinds; `checkpoints` corrects them.
_BATCH_BYTES: Final = 4 * PAGE_BYTES  # the last pages of the tables that every batch touches
_EVENT_BYTES: Final = 220  # beside header and payload: digests, record, index, and the page around it
_STREAM_BYTES: Final = 400


class Transactor:
    """The writable connection of a store, and the batches that run on it. Used by one thread at a time."""

    def __init__(
        self,
        path: str,
        *,
        writing: Writing,
        clock: Clock,
        entropy: Callable[[int], bytes],
        files: LeaseFiles,
        leases: Mapping[int, SqliteLease],
    ) -> None:
        self._path: Final = path
        self.writing: Final = writing
        self._clock: Final = clock
        self._entropy: Final = entropy
        self._files: Final = files
        self._leases: Final = leases  # of this store; the loop adds to it and takes away
        self._guard: Guard | None = None
        self._connection: sqlite3.Connection | None = None
        self._cursor: sqlite3.Cursor | None = None  # of what every batch executes
        self._log: Log | None = None
        self._memory: Final = Memory()
        self.poison: StoreUnavailable | None = None

    def open(self) -> sqlite3.Connection:
        """Open the guard and the connection. Raises what `opening` raises."""
        guard = open_guard(self._path)
        try:
            with guard.held(GUARD_SECONDS):
                self._connection, identity = open_writer(self._path, self.writing)
                self._log = Log(identity)
                self._cursor = self._connection.cursor()
                self._files.sweep()
        except BaseException:
            guard.close()
            raise
        self._guard = guard
        return self._connection

    def close(self) -> None:
        """Bring the log into the database, close the connection under the guard, and the guard. Never raises."""
        guard, connection, cursor = self._guard, self._connection, self._cursor
        self._guard = self._connection = self._cursor = None
        if guard is None or connection is None or cursor is None:
            return
        cursor.close()  # the frames of a failure that somebody keeps know it, and would keep the files open
        with closing(guard):
            try:
                with guard.held(GUARD_SECONDS):
                    self._close_connection(connection)
            except StoreUnavailable:  # a stopped process has the guard; readers of the log lose nothing
                connection.close()

    def _close_connection(self, connection: sqlite3.Connection) -> None:
        # What is not brought in stays in the log, where the next to open finds it.
        with closing(connection), suppress(sqlite3.Error):
            if self.poison is None:
                connection.execute("PRAGMA busy_timeout=0")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def data_version(self) -> int:
        """A number that changes when another connection has committed. No lock, no disk."""
        return int(self._use(lambda connection: connection.execute("PRAGMA data_version").fetchone()[0]))

    def checkpoint(self, *, truncate: bool) -> tuple[int, bool]:
        """Copy the log into the database: how long it was in bytes, and whether all of it is copied.

        A plain one never waits for a reader; one that truncates waits a moment for readers to move on.
        """
        mode, wait_seconds = ("TRUNCATE", _TRUNCATE_SECONDS) if truncate else ("PASSIVE", BUSY_SECONDS)

        def run(connection: sqlite3.Connection) -> tuple[int, bool]:
            assert self._guard is not None
            with self._guard.held(GUARD_SECONDS):
                connection.execute(f"PRAGMA busy_timeout={wait_seconds * 1_000:.0f}")
                try:
                    busy, frames, copied = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
                finally:
                    connection.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1_000:.0f}")
            return max(frames, 0) * PAGE_BYTES, not busy and frames == copied

        return self._use(run)

    def run(self, requests: Sequence[Request]) -> BatchOutcome:
        """Apply a batch, durably. Raises `StoreUnavailable`; nothing of the batch is then to be relied on."""
        return self._use(lambda connection: self._run(connection, requests))

    def install(self, request: InstallRequest) -> BatchOutcome:
        """Take in streams, durably, in a transaction of their own. Raises `StoreUnavailable`, and what refuses them."""
        return self._use(lambda connection: self._install(connection, request))

    def _install(self, connection: sqlite3.Connection, request: InstallRequest) -> BatchOutcome:
        assert self._guard is not None
        assert self._log is not None
        with self._guard.held(GUARD_SECONDS):
            self._memory.forget()  # what it remembers of streams is not kept true here
            try:
                connection.execute("BEGIN IMMEDIATE")
                arriving = Installing(connection)
                arriving.take_all(request.items)
                self._memory.learn(arriving.last_id)
                batch = self._load(connection, request.behind)
                if arriving.new:
                    follow(batch, arriving, request.behind)
                log_bytes = self._write(connection, batch)
                connection.execute("COMMIT")
            except BaseException:
                self._memory.forget()
                self._roll_back(connection)
                raise
            try:
                log_file_bytes = self._log.verify()
            except StoreUnavailable as failure:
                self.poison = failure
                raise
            self._memory.forget()
        alarms = [each for each in (arriving.alarm, batch.alarm) if each is not None]
        return BatchOutcome(
            [Installed(streams=len(arriving.new), events=arriving.events, same=arriving.same)],
            needy=True,
            alarm=min(alarms, default=None),
            log_bytes=log_bytes,
            log_file_bytes=log_file_bytes,
        )

    def keep(self, work: Callable[[sqlite3.Connection, Timestamp], T]) -> tuple[T, BatchOutcome]:
        """Take something away, and overwrite it, in a transaction. Raises what `work` does, and `StoreUnavailable`."""

        def run(connection: sqlite3.Connection) -> tuple[T, BatchOutcome]:
            assert self._guard is not None
            assert self._log is not None
            with self._guard.held(GUARD_SECONDS):
                before = connection.total_changes
                connection.execute("PRAGMA secure_delete=ON")
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    done = work(connection, self._clock.now())
                    connection.execute("COMMIT")
                except BaseException:
                    self._roll_back(connection)
                    raise
                finally:
                    connection.execute("PRAGMA secure_delete=OFF")
                    self._memory.forget()  # streams were changed behind its back
                changed = connection.total_changes - before
                outcome = BatchOutcome([], log_bytes=_BATCH_BYTES + changed * _EVENT_BYTES)
                try:
                    outcome.log_file_bytes = self._log.verify()
                except StoreUnavailable as failure:
                    self.poison = failure
                    raise
                return done, outcome

        return self._use(run)

    def _use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self.poison is not None:
            raise StoreUnavailable(str(self.poison)) from self.poison
        if self._connection is None:
            raise StoreUnavailable(f"the connection to {self._path} is closed")
        try:
            return work(self._connection)
        except sqlite3.Error as error:
            failure = unavailable(error, self._path)
            if poisons(error):
                self.poison = failure
            raise failure from error

    def interrupt(self) -> StoreUnavailable:
        """Take in that a batch was interrupted, by a Ctrl-C on the loop: what was committed is not known."""
        self.poison = self.poison or StoreUnavailable(f"a write to {self._path} was interrupted: open the store anew")
        return self.poison

    def _run(self, connection: sqlite3.Connection, requests: Sequence[Request]) -> BatchOutcome:
        assert self._guard is not None
        refused: dict[int, Exception] = {}  # by identity: commits whose own SQL cost the batch its transaction
        with self._guard.held(GUARD_SECONDS):
            while True:
                try:
                    return self._run_once(connection, requests, refused)
                except TransactionLost as lost:
                    refused[id(lost.commit)] = lost.error

    def _run_once(
        self, connection: sqlite3.Connection, requests: Sequence[Request], refused: Mapping[int, Exception]
    ) -> BatchOutcome:
        assert self._log is not None
        assert self._cursor is not None
        execute = self._cursor.execute
        created: list[SqliteLease] = []
        try:
            execute("BEGIN IMMEDIATE")
            self._log.make_room()
            batch = self._load(connection, requests)
            outcome = self._apply(connection, batch, requests, created, refused)
            execute("COMMIT")
        except BaseException:
            self._memory.forget()
            for lease in created:
                lease.end()
            self._roll_back(connection)
            raise
        try:
            outcome.log_file_bytes = self._log.verify(added_bytes=outcome.log_bytes)
        except StoreUnavailable as failure:
            self.poison = failure
            for lease in created:
                lease.end()
            raise
        self._memory.keep(batch.streams, batch.open_tokens, outcome.ended)
        for token in outcome.gone:
            self._files.remove(token)
        return outcome

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        """End a transaction that failed, unless SQLite has ended it already, as it does after some errors."""
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                self.poison = unavailable(error, self._path)

    def _apply(
        self,
        connection: sqlite3.Connection,
        batch: Batch,
        requests: Sequence[Request],
        created: list[SqliteLease],
        refused: Mapping[int, Exception],
    ) -> BatchOutcome:
        ended: set[int] = set()
        answers = [
            refused[id(request.commit)]
            if refused and isinstance(request, CommitRequest) and id(request.commit) in refused
            else self._answer(connection, batch, request, created, ended)
            for request in requests
        ]
        log_bytes = self._write(connection, batch)
        gone = frozenset(token for token in batch.dead if self._files.gone(token))
        ended |= gone
        if ended:
            connection.execute(_END_LEASES, (batch.now, encode_names(ended)))
        return BatchOutcome(
            answers,
            needy=batch.needy or bool(ended),
            alarm=batch.alarm,
            log_bytes=log_bytes,
            ended=frozenset(ended),
            gone=gone,
        )

    def _answer(
        self,
        connection: sqlite3.Connection,
        batch: Batch,
        request: Request,
        created: list[SqliteLease],
        ended: set[int],
    ) -> Any:
        match request:
            case CommitRequest():
                return answer(batch.commit, request)
            case SendRequest():
                return answer(batch.send, request.message)
            case ClaimRequest():
                return answer(batch.claim, request)
            case Unclaim():
                return batch.unclaim(request)
            case LeaseRequest():
                try:
                    lease = self._create_lease(connection, request.worker, batch.now)
                except EventStoreError as refusal:
                    return refusal
                created.append(lease)
                return lease
            case LeaseEnding():
                ended.update(request.tokens)
                return batch.end(request.tokens)
            case InstallRequest():
                raise AssertionError("it goes alone: see install")
            case _:
                assert_never(request)

    def _create_lease(self, connection: sqlite3.Connection, worker: str, now: int) -> SqliteLease:
        token = connection.execute("INSERT INTO leases (worker, started_at) VALUES (?, ?)", (worker, now)).lastrowid
        assert token is not None
        try:
            return self._files.create(token, worker)
        except OSError as error:
            raise StoreUnavailable(
                f"the lease file beside {self._path} cannot be written ({error.strerror}): check free space and this"
                " user's permissions"
            ) from error

    def _load(self, connection: sqlite3.Connection, requests: Sequence[Request]) -> Batch:
        named = Named(requests)
        streams, last_id, open_tokens = self._memory.load(self._cursor or connection, named.streams, named.tokens)
        pools = SqlitePools(connection, streams=streams, judge=self._alive)
        if named.permits:
            pools.load(named.permits)
        return Batch(
            now=self._clock.now(),
            streams=streams,
            known=load_mail(connection, streams, named),
            last_id=last_id,
            open_tokens=open_tokens,
            judge=self._alive,
            salts=self._entropy(named.payloads * SALT_BYTES) if named.payloads else b"",
            run_own=OwnSql(connection, self._clock).run,
            pools=pools,
        )

    def _alive(self, token: int) -> bool:
        lease = self._leases.get(token)
        return self._files.alive(token) if lease is None else lease.fresh()

    def _write(self, connection: sqlite3.Connection, batch: Batch) -> int:
        sql, events = self._cursor or connection, batch.events
        insert_events(sql, events)
        write_streams(sql, batch.streams.values())
        if batch.messages:
            insert_messages(connection, batch.message_parameters())
        if batch.consumed:
            connection.execute(_CONSUME, (batch.now, encode_names(batch.consumed)))
        batch.pools.write()
        insert_attributes(connection, batch.attributes)
        bytes_written = sum(map(len, events[2::7])) + sum(map(len, filter(None, events[3::7])))
        bytes_written += sum(len(message.payload or b"") for _, message, _ in batch.messages)
        return bytes_written + _BATCH_BYTES + _EVENT_BYTES * (len(events) // 7) + _STREAM_BYTES * len(batch.streams)
