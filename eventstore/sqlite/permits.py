"""The permits of a SQLite store, as one batch sees them. What they mean is in `eventstore.holding`.

What the commits of a batch name (their pools, and what their holders have there) is loaded by one statement with the
batch, and what they change is written with it: a permit that there is room for asks nothing more. Only when a pool is
full, or its queue is served, is the database asked in between, by an index each time; what was changed so far is
written before, so that the answer is true.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.json import Decoder, encode
from msgspec.structs import astuple

from eventstore.errors import UnknownPool
from eventstore.holding import Held, Limit, Waiting, limit_of, looked_after, looked_after_here
from eventstore.port import Message, Timestamp, pool_stream
from eventstore.sqlite.leases import Judge
from eventstore.sqlite.mailboxes import Known, load_known
from eventstore.sqlite.rows import StreamRow, load_streams
from eventstore.sqlite.statements import encode_names, execute_rows

__all__ = ["SqlitePool", "SqlitePools"]

_HELD: Final = "p.pool, p.holder, p.stream, p.taken_at, p.confirmed, p.priority, p.key, p.token, p.lasting"
_WAITING: Final = "w.pool, w.holder, w.stream, w.priority, w.key, w.tag, w.arrival, w.lasting"
_LOAD: Final = f"""
    SELECT (SELECT json_group_array(json_array(pool, held, waiting, arrivals, json(turns))) FROM permit_pools
            WHERE pool IN (SELECT json_extract(value, '$[0]') FROM json_each(?1))),
           (SELECT json_group_array(json_array({_HELD})) FROM json_each(?1) AS j CROSS JOIN permits AS p
            ON p.pool = json_extract(j.value, '$[0]') AND p.holder = json_extract(j.value, '$[1]')),
           (SELECT json_group_array(json_array({_WAITING})) FROM json_each(?1) AS j CROSS JOIN permit_waiters AS w
            ON w.pool = json_extract(j.value, '$[0]') AND w.holder = json_extract(j.value, '$[1]'))
"""
_FIRST: Final = (
    f"SELECT {_WAITING} FROM permit_waiters AS w WHERE w.pool = ? ORDER BY priority DESC, tag, arrival LIMIT 1"
)
_LAST_TAG: Final = "SELECT max(tag) FROM permit_waiters WHERE pool = ? AND priority = ? AND key = ?"
_AHEAD: Final = """
    SELECT count(*) FROM permit_waiters
    WHERE pool = ?1 AND (priority > ?2 OR (priority = ?2 AND (tag < ?3 OR (tag = ?3 AND arrival < ?4))))
"""
_OLDEST: Final = "SELECT holder FROM permits WHERE pool = ? ORDER BY taken_at, holder LIMIT 1"
_STAMP: Final = "SELECT taken_at FROM permits WHERE pool = ? ORDER BY taken_at LIMIT 1 OFFSET ?"
_TAKEN_UNTIL: Final = "SELECT json_group_array(holder) FROM permits WHERE pool = ? AND taken_at <= ?"
_GRANTED_UNTIL: Final = f"""
    SELECT json_group_array(json_array({_HELD})) FROM (
        SELECT * FROM permits WHERE confirmed = 0 AND pool = ? AND taken_at <= ? ORDER BY taken_at, holder) AS p
"""
_LOOKED_AFTER: Final = """
    SELECT json_group_array(
        json_array(p.holder, p.stream, p.confirmed, p.token, p.lasting, s.owner, l.ended_at IS NOT NULL))
    FROM permits AS p LEFT JOIN streams AS s ON s.name = p.stream LEFT JOIN leases AS l ON l.token = s.owner
    WHERE p.pool = ?
"""
_OF_STREAM: Final = """
    SELECT pool, holder FROM permits WHERE stream = ?1 UNION SELECT pool, holder FROM permit_waiters WHERE stream = ?1
"""
_SET_POOLS: Final = "INSERT OR REPLACE INTO permit_pools (pool, held, waiting, arrivals, turns)"
_SET_PERMITS: Final = f"INSERT OR REPLACE INTO permits ({_HELD.replace('p.', '')})"
_SET_WAITERS: Final = f"INSERT OR REPLACE INTO permit_waiters ({_WAITING.replace('w.', '')})"
_PERMIT_COLUMNS: Final = _HELD.count(",") + 1
_WAITER_COLUMNS: Final = _WAITING.count(",") + 1
_DROP_PERMITS: Final = "DELETE FROM permits WHERE pool = ? AND holder IN (SELECT value FROM json_each(?))"
_DROP_WAITERS: Final = "DELETE FROM permit_waiters WHERE pool = ? AND holder IN (SELECT value FROM json_each(?))"


class PoolRow(Struct, array_like=True):
    """What is kept of a pool beside its permits and its queue."""

    pool: str
    held: int
    waiting: int
    arrivals: int
    turns: dict[int, int]


class HeldRow(Struct, array_like=True):
    """A permit, in the order of its columns."""

    pool: str
    holder: str
    stream: str
    taken_at: int
    confirmed: int
    priority: int
    key: str
    token: int | None
    lasting: int

    @property
    def permit(self) -> Held:
        confirmed, lasting = bool(self.confirmed), bool(self.lasting)
        return Held(self.stream, self.taken_at, confirmed, self.priority, self.key, self.token, lasting)


class WaitingRow(Struct, array_like=True):
    """A place in a queue, in the order of its columns."""

    pool: str
    holder: str
    stream: str
    priority: int
    key: str
    tag: int
    arrival: int
    lasting: int

    @property
    def waiter(self) -> Waiting:
        return Waiting(self.stream, self.priority, self.key, self.tag, self.arrival, bool(self.lasting))


class HolderRow(Struct, array_like=True):
    """A permit, and what its stream's row says of who looks after it."""

    holder: str
    stream: str
    confirmed: int
    token: int | None
    lasting: int
    owner: int | None
    ended: int  # the owner's lease, as far as the database knows


_decode_pools: Final = Decoder(list[PoolRow]).decode
_decode_permits: Final = Decoder(list[HeldRow]).decode
_decode_waiters: Final = Decoder(list[WaitingRow]).decode
_decode_holders: Final = Decoder(list[HolderRow]).decode
_decode_names: Final = Decoder(list[str]).decode


class SqlitePool:
    """One pool: what is known of it, and where the rest is asked for."""

    def __init__(self, pools: SqlitePools, row: PoolRow) -> None:
        self.name = row.pool
        self.held = row.held
        self.waiting = row.waiting
        self.arrivals = row.arrivals
        self.turns: Mapping[int, int] = row.turns
        self._pools: Final = pools
        self._stored = self.row
        # What is known, None: that there is nothing; and which of it is not written yet.
        self.permits: Final[dict[str, Held | None]] = {}
        self.waiters: Final[dict[str, Waiting | None]] = {}
        self.changed_permits: Final[set[str]] = set()
        self.changed_waiters: Final[set[str]] = set()

    @property
    def limit(self) -> Limit | None:
        row = self._pools.stream(pool_stream(self.name))
        return None if row is None else limit_of(row.attributes)

    @property
    def row(self) -> tuple[str, int, int, int, str]:
        """As it is to be stored."""
        turns = {str(priority): tag for priority, tag in self.turns.items()}
        return self.name, self.held, self.waiting, self.arrivals, encode(turns).decode()

    def unwritten(self) -> tuple[str, int, int, int, str] | None:
        """Its row, if that has changed since it was last asked for here."""
        row = self.row
        if row == self._stored:
            return None
        self._stored = row
        return row

    def permit(self, holder: str) -> Held | None:
        if holder not in self.permits:
            self._pools.load([(self.name, holder)])
        return self.permits[holder]

    def waiter(self, holder: str) -> Waiting | None:
        if holder not in self.waiters:
            self._pools.load([(self.name, holder)])
        return self.waiters[holder]

    def set_permit(self, holder: str, permit: Held | None) -> None:
        self.held += (permit is not None) - (self.permit(holder) is not None)
        self.permits[holder] = permit
        self.changed_permits.add(holder)

    def set_waiter(self, holder: str, waiter: Waiting | None) -> None:
        self.waiting += (waiter is not None) - (self.waiter(holder) is not None)
        self.waiters[holder] = waiter
        self.changed_waiters.add(holder)

    def first(self) -> tuple[str, Waiting]:
        found = WaitingRow(*self._pools.ask(_FIRST, (self.name,)))
        self.waiters[found.holder] = found.waiter
        return found.holder, found.waiter

    def last_tag(self, priority: int, key: str) -> int:
        if not self.waiting:
            return 0
        tag: int | None = self._pools.ask(_LAST_TAG, (self.name, priority, key))[0]
        return tag or 0

    def ahead(self, waiter: Waiting) -> int:
        place = (self.name, waiter.priority, waiter.tag, waiter.arrival)
        count: int = self._pools.ask(_AHEAD, place)[0]
        return count

    def oldest(self) -> str:
        holder: str = self._pools.ask(_OLDEST, (self.name,))[0]
        return holder

    def stamp(self, index: int) -> Timestamp:
        taken_at: Timestamp = self._pools.ask(_STAMP, (self.name, index))[0]
        return taken_at

    def taken_until(self, until: Timestamp) -> list[str]:
        return _decode_names(self._pools.ask(_TAKEN_UNTIL, (self.name, until))[0])

    def granted_until(self, until: Timestamp) -> list[tuple[str, Held]]:
        rows = _decode_permits(self._pools.ask(_GRANTED_UNTIL, (self.name, until))[0])
        for row in rows:
            self.permits[row.holder] = row.permit
        return [(row.holder, row.permit) for row in rows]

    def abandoned(self, stream: str, token: int | None) -> list[str]:
        rows = _decode_holders(self._pools.ask(_LOOKED_AFTER, (self.name,))[0])
        return [
            row.holder
            for row in rows
            if not (looked_after_here(row, token) if row.stream == stream else self._pools.looked_after(row))
        ]


class SqlitePools:
    """The pools that a batch touches."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        streams: dict[str, StreamRow],
        judge: Judge,
    ) -> None:
        self._connection: Final = connection
        self._streams: Final = streams  # the batch's, as it has left them so far
        self._judge: Final = judge
        self._judged: Final[dict[int, bool]] = {}
        self._pools: Final[dict[str, SqlitePool]] = {}

    def pool(self, name: str) -> SqlitePool:
        if self.stream(pool_stream(name)) is None:
            raise UnknownPool(name, exists=False)
        if name not in self._pools:
            self.load([(name, "")])
        return self._pools[name]

    def stream(self, name: str) -> StreamRow | None:
        """A stream as the batch has left it so far; one that no request names joins the batch."""
        row = self._streams.get(name)
        if row is None:
            row = load_streams(self._connection, (name,), ())[0].get(name)
            if row is not None:
                self._streams[name] = row
        return row

    def known(self, message: Message) -> dict[tuple[int, str], Known]:
        """Whether a message was ever delivered, its stream being there and in the batch from now on."""
        row = self.stream(message.stream)
        assert row is not None
        return load_known(self._connection, [(row.id, message.id)])

    def end(self, tokens: Iterable[int]) -> None:
        """These leases have ended in this batch, which the database does not know yet."""
        self._judged.update(dict.fromkeys(tokens, False))

    def load(self, wanted: Collection[tuple[str, str]]) -> None:
        """What these pools have, and what these holders have in them."""
        pools, permits, waiters = self._connection.execute(_LOAD, (encode_names(wanted),)).fetchone()
        rows = {row.pool: row for row in _decode_pools(pools)}
        for name, holder in wanted:
            if name not in self._pools:
                self._pools[name] = SqlitePool(self, rows.get(name) or PoolRow(name, 0, 0, 0, {}))
            self._pools[name].permits.setdefault(holder, None)
            self._pools[name].waiters.setdefault(holder, None)
        for held in _decode_permits(permits):
            pool = self._pools[held.pool]
            if held.holder not in pool.changed_permits:
                pool.permits[held.holder] = held.permit
        for waiting in _decode_waiters(waiters):
            pool = self._pools[waiting.pool]
            if waiting.holder not in pool.changed_waiters:
                pool.waiters[waiting.holder] = waiting.waiter

    def of_stream(self, stream: str) -> list[tuple[str, str]]:
        """Pool and holder of all that a stream has; it is loaded, too."""
        self.write()
        found = sorted(self._connection.execute(_OF_STREAM, (stream,)).fetchall())
        if found:
            self.load(found)
        return found

    def ask(self, sql: str, parameters: tuple[Any, ...]) -> tuple[Any, ...]:
        """The one row of a question, once everything is written that it may be about."""
        self.write()
        row: tuple[Any, ...] = self._connection.execute(sql, parameters).fetchone()
        return row

    def looked_after(self, row: HolderRow) -> bool:
        """Whether anybody may still want what a stream holds; the batch knows better than what is stored."""
        stream = self._streams.get(row.stream)
        if stream is not None:
            row.owner, row.ended = stream.owner, stream.owner_ended
        return looked_after(row, row.owner, (lambda _: False) if row.ended else self._alive)

    def _alive(self, owner: int) -> bool:
        if owner not in self._judged:
            self._judged[owner] = self._judge(owner)
        return self._judged[owner]

    def write(self) -> None:
        """Write what has changed."""
        pools: list[Any] = []
        permits: list[tuple[Any, ...]] = []
        waiters: list[tuple[Any, ...]] = []
        for pool in self._pools.values():
            pools += pool.unwritten() or ()
            permits += self._split(_DROP_PERMITS, pool.name, pool.changed_permits, pool.permits)
            waiters += self._split(_DROP_WAITERS, pool.name, pool.changed_waiters, pool.waiters)
        for put, columns, rows in (
            (_SET_PERMITS, _PERMIT_COLUMNS, permits),
            (_SET_WAITERS, _WAITER_COLUMNS, waiters),
        ):
            if rows:
                execute_rows(self._connection, put, columns, [value for row in rows for value in row])
        if pools:
            execute_rows(self._connection, _SET_POOLS, 5, pools)

    def _split(
        self, drop: str, pool: str, changed: set[str], known: Mapping[str, Held | Waiting | None]
    ) -> list[tuple[Any, ...]]:
        """Drop what is gone of what has changed, and return the rest as rows."""
        gone = [holder for holder in changed if known[holder] is None]
        if gone:
            self._connection.execute(drop, (pool, encode_names(gone)))
        kept = [(pool, holder, *astuple(row)) for holder in changed if (row := known[holder]) is not None]
        changed.clear()
        return kept
