"""The tables of a SQLite store, and how an older file becomes a newer one.

Everything is readable with the plain ``sqlite3`` shell: STRICT tables, JSON as TEXT, times as integer microseconds. A
payload is TEXT when it is UTF-8 without NUL, else a BLOB.

Migrations go forward only, one transaction for all that are missing.

This file deliberately does not know when a row is written: that is `apply`'s business; it only says which indexes make
the questions of `claiming` and `reading` cheap.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "APPLICATION_ID",
    "MAIL_NEEDS",
    "MIGRATIONS",
    "OPEN_NEEDS",
    "RESERVED_PREFIX",
    "SCHEMA_VERSION",
    "STORE_TABLES",
]

APPLICATION_ID: Final = 0x486F6C64
"""``Hold`` in ASCII, in the file's header: how `file` and we recognise a store."""

MAIL_NEEDS: Final = "(control > 0 OR (data > 0 AND held = 0 AND closed = 0))"
"""A stream that needs attention for its mail. Written the same in the partial index and in every query that uses it."""
OPEN_NEEDS: Final = "held = 0 AND closed = 0"
"""A stream that an alarm or a dead owner can make need attention."""

_V1: Final = (
    """
    CREATE TABLE streams (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,           -- category:name
        version INTEGER NOT NULL,            -- 0: no events yet
        digest BLOB NOT NULL,                -- of the last event
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,         -- of the last commit
        alarm INTEGER,                       -- when somebody must look at it
        held INTEGER NOT NULL,
        closed INTEGER NOT NULL,
        owner INTEGER,                       -- token of a lease
        claims INTEGER NOT NULL,             -- since the last commit with progress
        control INTEGER NOT NULL,            -- waiting control messages
        data INTEGER NOT NULL,               -- waiting data messages
        mail_at INTEGER,                     -- when the oldest waiting message arrived
        attributes TEXT NOT NULL,            -- a JSON object
        commit_id TEXT,                      -- the last commit, and what its outcome had that may have changed since
        commit_owner INTEGER,
        commit_claims INTEGER,
        commit_mail INTEGER,                 -- how many messages were waiting after it
        commit_undelivered TEXT,             -- JSON: [[id, stream, reason], ...], NULL for none
        category TEXT GENERATED ALWAYS AS (substr(name, 1, instr(name, ':') - 1)) VIRTUAL
    ) STRICT
    """,
    "CREATE INDEX streams_created ON streams (category, created_at, name)",
    "CREATE INDEX streams_open ON streams (category, created_at, name) WHERE closed = 0",
    f"CREATE INDEX streams_mail ON streams (owner, mail_at) WHERE {MAIL_NEEDS}",
    f"CREATE INDEX streams_alarm ON streams (owner, alarm) WHERE alarm IS NOT NULL AND {OPEN_NEEDS}",
    f"CREATE INDEX streams_owned ON streams (owner) WHERE owner IS NOT NULL AND {OPEN_NEEDS}",
    """
    CREATE TABLE events (
        position INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the whole log; rises in commit order
        stream INTEGER NOT NULL,
        version INTEGER NOT NULL,
        header TEXT NOT NULL,                -- a JSON object
        payload ANY,                         -- NULL: never there, or destroyed; payload_digest tells which
        salt BLOB,
        payload_digest BLOB,                 -- NULL: never had a payload
        digest BLOB NOT NULL,
        UNIQUE (stream, version)
    ) STRICT
    """,
    """
    CREATE TABLE messages (
        arrival INTEGER PRIMARY KEY AUTOINCREMENT,
        stream INTEGER NOT NULL,
        id TEXT NOT NULL,
        sender TEXT,
        control INTEGER NOT NULL,
        header TEXT,                         -- NULL once consumed: what stays is a tombstone
        payload ANY,
        sent_at INTEGER NOT NULL,
        consumed_at INTEGER,
        UNIQUE (stream, id)
    ) STRICT
    """,
    "CREATE INDEX messages_waiting ON messages (stream, arrival) WHERE consumed_at IS NULL",
    """
    CREATE TABLE attributes (
        name TEXT NOT NULL,
        value ANY NOT NULL,                  -- booleans as 0 and 1
        created_at INTEGER NOT NULL,         -- of the stream: searches are in this order
        stream INTEGER NOT NULL,
        PRIMARY KEY (name, value, created_at, stream)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE leases (
        token INTEGER PRIMARY KEY AUTOINCREMENT,
        worker TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        ended_at INTEGER                     -- NULL: ask its file whether it is alive
    ) STRICT
    """,
    """
    CREATE TABLE permits (
        pool TEXT NOT NULL,
        holder TEXT NOT NULL,
        owner INTEGER,                       -- token of the lease it was taken under
        taken_at INTEGER NOT NULL,
        PRIMARY KEY (pool, holder)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE permit_waiters (
        pool TEXT NOT NULL,
        arrival INTEGER NOT NULL,
        stream INTEGER NOT NULL,
        holder TEXT NOT NULL,
        PRIMARY KEY (pool, arrival)
    ) STRICT, WITHOUT ROWID
    """,
)

_V2: Final = (
    # Behind a full page of data messages, a head finds its control messages here.
    "CREATE INDEX messages_control ON messages (stream, arrival) WHERE consumed_at IS NULL AND control = 1",
    # Whether a stream may hold permits or wait for some: a closing stream without any asks nobody.
    "ALTER TABLE streams ADD COLUMN permits INTEGER NOT NULL DEFAULT 0",
    "DROP TABLE permits",
    "DROP TABLE permit_waiters",
    """
    CREATE TABLE permit_pools (
        pool TEXT NOT NULL PRIMARY KEY,      -- its limit is the stream pool:<pool>
        held INTEGER NOT NULL,               -- rows of permits
        waiting INTEGER NOT NULL,            -- rows of permit_waiters
        arrivals INTEGER NOT NULL,           -- how many have ever joined the queue
        turns TEXT NOT NULL                  -- JSON: by priority the tag of the last granted
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE permits (
        pool TEXT NOT NULL,
        holder TEXT NOT NULL,
        stream TEXT NOT NULL,                -- whose it is
        taken_at INTEGER NOT NULL,           -- or granted
        confirmed INTEGER NOT NULL,          -- 0: granted from the queue, and not yet taken
        priority INTEGER NOT NULL,           -- with key: how it waits again if the grant lapses
        key TEXT NOT NULL,
        token INTEGER,                       -- of the lease it was taken under; NULL: of none, granted, or lasting
        lasting INTEGER NOT NULL,            -- its stream's, whoever owns that
        PRIMARY KEY (pool, holder)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX permits_taken ON permits (pool, taken_at, holder)",
    "CREATE INDEX permits_granted ON permits (pool, taken_at, holder) WHERE confirmed = 0",
    "CREATE INDEX permits_stream ON permits (stream)",
    """
    CREATE TABLE permit_waiters (
        pool TEXT NOT NULL,
        holder TEXT NOT NULL,
        stream TEXT NOT NULL,
        priority INTEGER NOT NULL,
        key TEXT NOT NULL,
        tag INTEGER NOT NULL,
        arrival INTEGER NOT NULL,
        lasting INTEGER NOT NULL,            -- what it waits for
        PRIMARY KEY (pool, holder)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX permit_waiters_queue ON permit_waiters (pool, priority DESC, tag, arrival)",
    "CREATE INDEX permit_waiters_key ON permit_waiters (pool, priority, key, tag)",
    "CREATE INDEX permit_waiters_stream ON permit_waiters (stream)",
)

_V3: Final = (
    # Of an event that was pruned, the leaf that it is of the tree over the log.
    """
    CREATE TABLE kept_digests (
        position INTEGER PRIMARY KEY,        -- that the event had
        stream INTEGER NOT NULL,
        version INTEGER NOT NULL,
        digest BLOB NOT NULL,
        UNIQUE (stream, version)
    ) STRICT
    """,
    # Lists do not walk over what was pruned.
    "ALTER TABLE streams ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0",
    "DROP INDEX streams_created",
    "CREATE INDEX streams_created ON streams (category, created_at, name) WHERE pruned = 0",
    "CREATE INDEX streams_pruned ON streams (category, created_at, name) WHERE pruned = 1",
)

_V4: Final = (
    # What was said of a pruning speaks of the positions that the events had then, wherever their leaves are now.
    "ALTER TABLE kept_digests ADD COLUMN was INTEGER",  # that position; NULL: the same
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (_V1, _V2, _V3, _V4)
"""Statements that bring a file from schema version n to n + 1, n being the index."""
SCHEMA_VERSION: Final = len(MIGRATIONS)

STORE_TABLES: Final = frozenset(
    {"streams", "events", "kept_digests", "messages", "attributes", "leases"}
    | {"permits", "permit_pools", "permit_waiters"}
)
"""The tables above: the rest of the file is the users' own, see `own_sql`."""
RESERVED_PREFIX: Final = "holdfast"
"""Users name no table so: tables that later versions need may be."""
