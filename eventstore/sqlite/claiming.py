"""Who needs attention: found on a reader, so that looking and finding nothing never disturbs a writer.

A claim first asks which tokens own anything that could need somebody, judges which of them are dead, and then walks
the partial indexes of mail, alarms and owned streams for those owners it may take from: none, itself, the dead.
Streams that sleep (no mail, an alarm to come, a living owner) are in none of the ranges walked, so their number costs
nothing. The writer looks at each candidate again inside the transaction that claims it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from typing import Any, Final

from msgspec import Struct
from msgspec.json import Decoder

from eventstore.port import StreamQuery, Timestamp
from eventstore.sqlite.finding import condition
from eventstore.sqlite.leases import Judge
from eventstore.sqlite.schema import MAIL_NEEDS, OPEN_NEEDS
from eventstore.sqlite.statements import encode_names

__all__ = ["Candidates", "candidates_sql", "dead_owners", "find_candidates"]

_OWNERS: Final = f"""
    WITH RECURSIVE
    owned(token) AS (
        SELECT min(owner) FROM streams WHERE owner IS NOT NULL AND {OPEN_NEEDS}
        UNION ALL
        SELECT (SELECT min(owner) FROM streams WHERE owner > owned.token AND {OPEN_NEEDS}) FROM owned
        WHERE owned.token IS NOT NULL),
    mailed(token) AS (
        SELECT min(owner) FROM streams WHERE owner IS NOT NULL AND {MAIL_NEEDS}
        UNION ALL
        SELECT (SELECT min(owner) FROM streams WHERE owner > mailed.token AND {MAIL_NEEDS}) FROM mailed
        WHERE mailed.token IS NOT NULL)
    SELECT json_group_array(json_array(o.token, l.ended_at IS NOT NULL OR l.token IS NULL))
    FROM (SELECT token FROM owned UNION SELECT token FROM mailed) AS o LEFT JOIN leases AS l ON l.token = o.token
    WHERE o.token IS NOT NULL
"""

_decode_owners: Final = Decoder(list[tuple[int, int]]).decode
_decode_names: Final = Decoder(list[str]).decode


class Candidates(Struct, frozen=True):
    """What a claim may take, as a reader saw it."""

    names: tuple[str, ...]  # longest in need first
    dead: frozenset[int]  # owners whose leases have ended or died
    due_at: Timestamp | None  # the next alarm of a stream that is free or the caller's


def dead_owners(connection: sqlite3.Connection, judge: Judge) -> frozenset[int]:
    """Tokens that own streams, and whose leases have ended or died."""
    owners = _decode_owners(connection.execute(_OWNERS).fetchone()[0])
    return frozenset(token for token, ended in owners if ended or not judge(token))


def find_candidates(
    connection: sqlite3.Connection,
    *,
    token: int,
    query: StreamQuery,
    limit: int,
    busy: Collection[str],
    now: Callable[[], Timestamp],
    judge: Judge,
) -> Candidates:
    """Streams that fit the query and that this token could claim, at most `limit`."""
    dead = dead_owners(connection, judge)
    sql, parameters = candidates_sql(query, some_dead=bool(dead))
    parameters |= {
        "token": token,
        "dead": encode_names(dead),
        "busy": encode_names(busy),
        "now": now(),
        "limit": limit,
    }
    names, due_at = connection.execute(sql, parameters).fetchone()
    return Candidates(tuple(_decode_names(names)), dead, due_at)


def candidates_sql(query: StreamQuery, *, some_dead: bool) -> tuple[str, dict[str, Any]]:
    """The statement of `find_candidates`, and the parameters of its query."""
    where, parameters = condition(query)
    where += " AND s.name NOT IN (SELECT value FROM json_each(:busy))"
    owners = ["s.owner IS NULL", "s.owner = :token"]
    if some_dead:
        owners.append(_DEAD)
    needs = _FREE_NEEDS[:1] if query.control else _FREE_NEEDS  # whoever has control mail is found by its mail
    if query.streams is None:
        selects = [
            _select(f"streams AS s INDEXED BY {index}", f"{owner} AND {need}", since)
            for index, need, since in needs
            for owner in owners
        ]
        if some_dead and not query.control:
            index, need, since = _ORPHAN_NEEDS
            selects.append(_select(f"streams AS s INDEXED BY {index}", f"{_DEAD} AND {need}", since))
    else:  # few names: look each of them up
        source = "json_each(:streams) AS j CROSS JOIN streams AS s ON s.name = j.value"
        selects = [_select(source, f"({' OR '.join(owners)}) AND {need}", since) for _, need, since in needs]
        if some_dead and not query.control:
            selects.append(_select(source, f"{_DEAD} AND {_ORPHAN_NEEDS[1]}", _ORPHAN_NEEDS[2]))
    branches = " UNION ALL ".join(select.format(where=where) for select in selects)
    return (
        f"""
        SELECT
        (SELECT json_group_array(name) FROM (
            SELECT name, min(since) AS first FROM ({branches}) GROUP BY name ORDER BY first LIMIT :limit)),
        (SELECT min(alarm) FROM (
            SELECT min(alarm) AS alarm FROM streams WHERE owner IS NULL AND alarm > :now AND {OPEN_NEEDS}
            UNION ALL
            SELECT min(alarm) FROM streams WHERE owner = :token AND alarm > :now AND {OPEN_NEEDS}))
        """,
        parameters,
    )


_DEAD: Final = "s.owner IN (SELECT value FROM json_each(:dead))"
_FREE_NEEDS: Final = (
    ("streams_mail", MAIL_NEEDS, "s.mail_at"),
    ("streams_alarm", f"s.alarm <= :now AND {OPEN_NEEDS}", "s.alarm"),
)
_ORPHAN_NEEDS: Final = ("streams_owned", OPEN_NEEDS, "s.updated_at")
"""Each need with the partial index that holds only those who may have it, and since when they have it. The index is
named, because a query that also asks for a category would tempt SQLite to walk all open streams of that category."""


def _select(source: str, need: str, since: str) -> str:
    return (
        f"SELECT * FROM (SELECT s.name AS name, {since} AS since FROM {source} WHERE {need} AND {{where}}"
        f" ORDER BY {since} LIMIT :limit)"
    )
