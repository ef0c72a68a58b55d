"""Pages of streams that fit a query, in order of creation, without looking at those that do not fit where possible.

Every index that serves a search ends in ``created_at``, so each of its branches (a value of an attribute, a category)
is already in the order of the page. A query with several values is a union of such branches, each cut to the page's
length: its cost grows with the page and the number of values, not with the number of streams.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from msgspec.json import Decoder

from eventstore.port import Page, Scalar, StreamHead, StreamQuery, category_of
from eventstore.sqlite.rows import StreamRow, decode_streams, stream_json
from eventstore.sqlite.statements import encode_names
from eventstore.validation import page_cursor, parse_cursor

__all__ = ["condition", "find_page", "fits"]

_BRANCHES_MAX: Final = 200
"""Values of one attribute, or categories, that get a branch each (SQLite takes 500); more are sorted in one."""

_COUNTED_MAX: Final = 2_000
"""Streams with an attribute that are counted to learn which is rare: beyond that, all are common."""

_decode_names: Final = Decoder(list[str]).decode

_COUNT: Final = """
    SELECT count(*) FROM (SELECT 1 FROM attributes
                          WHERE name = ? AND value IN (SELECT value FROM json_each(?)) LIMIT ?)
"""
_CATEGORIES: Final = """
    WITH RECURSIVE found(category) AS (
        SELECT min(category) FROM streams WHERE pruned = {pruned}
        UNION ALL
        SELECT (SELECT min(category) FROM streams WHERE pruned = {pruned} AND category > found.category) FROM found
        WHERE found.category IS NOT NULL)
    SELECT json_group_array(category) FROM found WHERE category IS NOT NULL
"""  # steps from category to category along an index


def find_page(connection: sqlite3.Connection, query: StreamQuery) -> Page[StreamHead]:
    """A page of the streams that fit, without their mail."""
    branches, parameters = _branches(connection, query)
    order = "DESC" if query.newest_first else "ASC"
    found = connection.execute(
        f"""
        SELECT json_group_array({stream_json("s")})
        FROM (SELECT id FROM ({" UNION ALL ".join(branches)}) ORDER BY at {order}, name {order} LIMIT :limit) AS page
        CROSS JOIN streams AS s ON s.id = page.id
        """,
        parameters | {"limit": query.limit + 1},
    ).fetchone()[0]
    rows = decode_streams(found)  # aggregated in no promised order
    rows.sort(key=lambda row: (row.created_at, row.name), reverse=query.newest_first)
    more = len(rows) > query.limit
    rows = rows[: query.limit]
    return Page(
        items=tuple(row.head(mail=False) for row in rows),
        next=page_cursor(rows[-1].created_at, rows[-1].name) if more else None,
    )


def condition(
    query: StreamQuery, *, created_at: str = "s.created_at", skip: str | None = None
) -> tuple[str, dict[str, Any]]:
    """SQL that holds for a stream ``s`` that fits the query, apart from its order and page, with its parameters.

    `skip` is an attribute that is looked at elsewhere.
    """
    terms = ["1"]
    parameters: dict[str, Any] = {}
    if query.category is not None:
        terms.append("s.category = :category")
        parameters["category"] = query.category
    if query.streams is not None:
        terms.append("s.name IN (SELECT value FROM json_each(:streams))")
        parameters["streams"] = encode_names(query.streams)
    for mark, wanted_mark in (("closed", query.closed), ("held", query.held), ("pruned", query.pruned)):
        if wanted_mark is not None:
            terms.append(f"s.{mark} = {int(wanted_mark)}")
    if query.control is not None:
        terms.append("s.control > 0" if query.control else "s.control = 0")
    if query.created_from is not None:
        terms.append(f"{created_at} >= :created_from")
        parameters["created_from"] = query.created_from
    if query.created_until is not None:
        terms.append(f"{created_at} < :created_until")
        parameters["created_until"] = query.created_until
    for index, (name, wanted) in enumerate(query.attributes.items()):
        if name != skip:
            terms.append(_attribute_term(index, name, _values(wanted), parameters))
    return " AND ".join(terms), parameters


def fits(query: StreamQuery, row: StreamRow) -> bool:
    """The same in memory: whether a stream fits the query, apart from its order and page."""
    return (
        (query.category is None or category_of(row.name) == query.category)
        and (query.streams is None or row.name in query.streams)
        and (query.closed is None or bool(row.closed) == query.closed)
        and (query.held is None or bool(row.held) == query.held)
        and (query.control is None or bool(row.control) == query.control)
        and (query.pruned is None or bool(row.pruned) == query.pruned)
        and (query.created_from is None or row.created_at >= query.created_from)
        and (query.created_until is None or row.created_at < query.created_until)
        and all(
            row.attributes.get(name) in (wanted if isinstance(wanted, tuple) else (wanted,))
            for name, wanted in query.attributes.items()
        )
    )


def _attribute_term(index: int, name: str, values: tuple[Scalar, ...], parameters: dict[str, Any]) -> str:
    """SQL that holds when an attribute has one of these values; absent is None."""
    parameters[f"name{index}"] = name
    terms = []
    present = [value for value in values if value is not None]
    if present:
        parameters[f"values{index}"] = encode_names(present)
        terms.append(
            f"EXISTS (SELECT 1 FROM attributes AS a WHERE a.name = :name{index}"
            f" AND a.value IN (SELECT value FROM json_each(:values{index}))"
            " AND a.created_at = s.created_at AND a.stream = s.id)"
        )
    if len(present) < len(values):
        terms.append(f"NOT EXISTS (SELECT 1 FROM json_each(s.attributes) AS k WHERE k.key = :name{index})")
    if not terms:
        parameters["never"] = (
            0  # as a constant it would leave SQLite nothing to use an index for, and a named one fails
        )
        return ":never"
    return f"({' OR '.join(terms)})"


def _branches(connection: sqlite3.Connection, query: StreamQuery) -> tuple[list[str], dict[str, Any]]:
    """SELECTs that together find every stream that fits, each in order and cut to the page, and their parameters."""
    driver = None if query.streams is not None else _driving_attribute(connection, query.attributes)
    created_at = "s.created_at" if driver is None else "d.created_at"
    where, parameters = condition(query, created_at=created_at, skip=driver)
    order = "DESC" if query.newest_first else "ASC"
    if query.cursor is not None:
        parameters["at"], parameters["name"] = parse_cursor(query.cursor)
        compare = "<" if query.newest_first else ">"
        # The first comparison bounds the walk along the index, the second is exact.
        where += f" AND {created_at} {compare}= :at AND ({created_at}, s.name) {compare} (:at, :name)"
    select = f"SELECT s.id AS id, {created_at} AS at, s.name AS name FROM"
    tail = f"ORDER BY {created_at} {order}, s.name {order} LIMIT :limit"
    if driver is not None:
        parameters["driver"] = driver
        branches = []
        for index, value in enumerate(_values(query.attributes[driver])):
            parameters[f"driver{index}"] = value
            branches.append(
                f"{select} attributes AS d CROSS JOIN streams AS s ON s.id = d.stream"
                f" WHERE d.name = :driver AND d.value = :driver{index} AND {where} {tail}"
            )
    else:
        found = _indexed(connection, query) if query.streams is None else []
        branches = []
        for index, (category, pruned) in enumerate(found):
            parameters[f"category{index}"] = category
            along = f"s.category = :category{index} AND s.pruned = {pruned}"
            branches.append(f"{select} streams AS s WHERE {along} AND {where} {tail}")
        if not 0 < len(branches) <= _BRANCHES_MAX:
            branches = [f"{select} streams AS s WHERE {where} {tail}"]
    return [f"SELECT * FROM ({branch})" for branch in branches], parameters


def _indexed(connection: sqlite3.Connection, query: StreamQuery) -> list[tuple[str, int]]:
    """The stretches of the two indexes of creation that a query walks: which category, and whether it was pruned."""
    found: list[tuple[str, int]] = []
    for pruned in (0, 1) if query.pruned is None else (int(query.pruned),):
        if query.category is not None:
            found.append((query.category, pruned))
        else:
            names = connection.execute(_CATEGORIES.format(pruned=pruned)).fetchone()[0]
            found += ((name, pruned) for name in _decode_names(names))
    return found


def _driving_attribute(
    connection: sqlite3.Connection, attributes: Mapping[str, Scalar | tuple[Scalar, ...]]
) -> str | None:
    """The attribute whose index is walked: of those that cannot be absent and have few values, the rarest."""
    able: list[str] = []
    for name, wanted in attributes.items():
        values = _values(wanted)
        if values and None not in values and len(set(values)) == len(values) <= _BRANCHES_MAX:
            able.append(name)
    if len(able) < 2:
        return able[0] if able else None

    def count(name: str) -> int:
        parameters = (name, encode_names(_values(attributes[name])), _COUNTED_MAX)
        found: int = connection.execute(_COUNT, parameters).fetchone()[0]
        return found

    return min(able, key=count)


def _values(wanted: Scalar | tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    return wanted if isinstance(wanted, tuple) else (wanted,)
