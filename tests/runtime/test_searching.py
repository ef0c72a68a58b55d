"""Searching runs costs a page, and no more with what is stored: which indexes a search walks, and in how many steps."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.runtime.finding import runs_query
from engine.runtime.streams import own_attribute
from eventstore import NEW, Commit, NewEvent, StreamQuery
from eventstore.sqlite import SqliteStore
from eventstore.sqlite.finding import find_page
from eventstore.sqlite.opening import open_reader
from tests.eventstore.sqlite.test_scale import steps_of

FEW, MANY = 3_000, 9_000  # both more than are counted to learn which attribute is rare
BATCH = 50  # runs of one moment


async def fill(path: Path, count: int) -> None:
    """Runs, some every five minutes: one in four in the region, a rare customer among them, and other streams beside them."""

    class Clock:
        at = 0

        def now(self) -> int:
            self.at += 300_000_000
            return self.at

        def monotonic(self) -> float:
            return 0.0

    def commit(number: int) -> Commit:
        return Commit(
            id="x",
            stream=f"run:{number:06}",
            expected_version=NEW,
            events=(NewEvent(b"{}"),),
            attributes={
                "workflow": "order",
                "status": "running" if number % 3 else "completed",
                own_attribute("region"): "eu" if number % 4 else "us",
                own_attribute("customer"): "rare" if number % (count // 5) == 7 else f"customer-{number % 100}",
                own_attribute("amount"): number % 50,
            },
        )

    store = await SqliteStore.open(path, clock=Clock(), synchronous="NORMAL")
    try:
        for first in range(0, count, BATCH):
            await asyncio.gather(*(store.commit(commit(number)) for number in range(first, first + BATCH)))
    finally:
        await store.aclose()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("searching")
    paths = {count: folder / f"{count}.db" for count in (FEW, MANY)}
    for count, path in paths.items():
        asyncio.run(fill(path, count))
    return paths


def query(**wanted: Any) -> StreamQuery:
    usual: dict[str, Any] = {
        "workflow": None,
        "parent": None,
        "status": None,
        "attributes": {},
        "since": None,
        "until": None,
        "limit": 20,
        "cursor": None,
        "newest_first": True,
    }
    return runs_query(**(usual | wanted))


SEARCHES = {
    "one attribute": query(attributes={"region": "eu"}),
    "any of its values": query(attributes={"amount": (3, 4, 5)}),
    "several": query(attributes={"region": "eu", "customer": "rare"}),
    "with the engine's own": query(workflow="order", status=("running", "failed"), attributes={"customer": "rare"}),
    "since": query(attributes={"region": "eu"}, since=datetime(1970, 1, 1, 1, tzinfo=UTC)),
    "oldest first": query(attributes={"region": "eu"}, newest_first=False),
    "times alone": query(since=datetime(1970, 1, 1, 2, tzinfo=UTC), until=datetime(1970, 1, 1, 3, tzinfo=UTC)),
}


class Explaining:
    """A connection that keeps the plan of whatever is asked of it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.plan: list[str] = []

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        explained = self._connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)
        self.plan += [row[3].decode() if isinstance(row[3], bytes) else row[3] for row in explained]
        return self._connection.execute(sql, parameters)


@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_walks_an_index(search: str, filled: dict[int, Path]) -> None:
    connection = open_reader(str(filled[FEW]))
    try:
        explaining = Explaining(connection)
        page = find_page(explaining, SEARCHES[search])  # type: ignore[arg-type]
        assert page.items, "a plan of what finds nothing says little"
    finally:
        connection.close()
    tables = [line for line in explaining.plan if re.search(r"\b(streams|attributes|[sda])\b", line)]
    assert not [line for line in tables if line.startswith("SCAN")], tables
    if SEARCHES[search].attributes:
        assert [line for line in tables if line.startswith("SEARCH d USING PRIMARY KEY (name=? AND value=?")], tables
    else:
        assert [line for line in tables if "streams_created (category=? AND created_at>? AND created_at<?" in line]


@pytest.mark.parametrize("search", SEARCHES)
def test_a_page_costs_the_same_of_few_and_of_many(search: str, filled: dict[int, Path]) -> None:
    """In SQLite's steps, which depend on no machine's load."""

    few, page = steps_of(filled[FEW], lambda connection: find_page(connection, SEARCHES[search]))
    many, _ = steps_of(filled[MANY], lambda connection: find_page(connection, SEARCHES[search]))
    assert page.items
    assert many < 1.5 * few + 2_000, f"{few} steps among {FEW} runs, {many} among {MANY}"


def test_the_last_page_costs_what_the_first_does(filled: dict[int, Path]) -> None:
    wanted = SEARCHES["one attribute"]

    def use(asked: StreamQuery) -> Any:
        return steps_of(filled[MANY], lambda there: find_page(there, asked))

    steps, page = use(wanted)
    first, seen = steps, [head.stream for head in page.items]
    while page.next is not None:
        asked = query(attributes={"region": "eu"}, cursor=page.next)
        steps, page = use(asked)
        seen += [head.stream for head in page.items]
        assert steps < 2 * first + 1_000
    assert len(seen) == len(set(seen)) == MANY * 3 // 4
    assert seen == sorted(seen, reverse=True)
