"""What must not grow with what is stored: claiming beside many sleeping streams, pages of a search, waiting.

Work is counted in the steps of SQLite's virtual machine, which do not depend on the machine or its load.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from eventstore import NEW, Commit, NewEvent, Opening, StreamQuery
from eventstore.conformance.harness import ANY, begin, control, data, event, step
from eventstore.port import MAILBOX_PAGE
from eventstore.sqlite import SqliteStore
from eventstore.sqlite.claiming import candidates_sql, find_candidates
from eventstore.sqlite.finding import find_page
from eventstore.sqlite.mailboxes import load_mailboxes
from eventstore.sqlite.opening import open_reader
from eventstore.sqlite.rows import load_streams
from eventstore.sqlite.store import POLL_SECONDS_MAX
from eventstore.sqlite.threads import on_thread
from tests.eventstore.sqlite.conftest import Opener

FAR = 1 << 60
FEW, MANY = 1_000, 5_000  # both more than a batch, whose streams are of one moment and sorted by name
ONE_MOMENT_STEPS = 25_000  # to sort a batch, which is as large as chance would have it; all of `MANY` takes 190,000


async def fill(store: SqliteStore, count: int) -> None:
    """Sleeping streams of every kind: free with an alarm to come, owned by a living lease, held with mail, finished."""

    def commit(number: int) -> Commit:
        kind = number % 4
        return Commit(
            id="x",
            stream=f"run:{number:06}",
            expected_version=NEW,
            events=(NewEvent(b"{}"),),
            alarm=FAR if kind in (0, 1, 2) else None,
            held=kind == 2,
            closed=kind == 3,
            attributes={"workflow": "sleeper" if number % 10 else "rare", "status": "completed"},
        )

    async with store.lease("filler"):
        await asyncio.gather(*(store.commit(commit(number)) for number in range(count)))
        await asyncio.gather(*(store.send(data(f"run:{number:06}", "m")) for number in range(2, count, 4)))


def steps_of(path: Path, use: Callable[[sqlite3.Connection], Any]) -> tuple[int, Any]:
    """Steps of the virtual machine that a function takes on a read-only connection, and what it returns."""
    connection = open_reader(str(path))
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    try:
        use(connection)  # once before, so that nothing is prepared any more
        connection.set_progress_handler(count, 1)
        result = use(connection)
        return steps, result
    finally:
        connection.close()


async def build(path: Path, count: int) -> None:
    store = await SqliteStore.open(path, synchronous="NORMAL")
    try:
        await fill(store, count)
        async with store.lease("needy"):
            for number in range(3):
                await begin(store, f"run:needy-{number}")
                await store.send(data(f"run:needy-{number}", "m"))
            await store.commit(step("run:due", NEW, event(), alarm=1))
    finally:
        await store.aclose()


@pytest.fixture(scope="module")
def small_and_large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("scale")
    paths = directory / "small.db", directory / "large.db"
    for path, count in zip(paths, (FEW, MANY), strict=True):
        asyncio.run(build(path, count))
    return paths


def claiming(query: StreamQuery) -> Callable[[sqlite3.Connection], Any]:
    return lambda connection: find_candidates(
        connection, token=1 << 40, query=query, limit=10, busy=(), now=lambda: 2, judge=lambda _: False
    )


@pytest.mark.parametrize(
    "query",
    [
        ANY,
        StreamQuery(category="run", attributes={"workflow": ("rare", None)}),
        StreamQuery(streams=("run:needy-1", "run:due", "run:000000")),
    ],
    ids=["any", "workflow", "names"],
)
async def test_claiming_does_not_look_at_those_who_sleep(
    small_and_large: tuple[Path, Path], query: StreamQuery
) -> None:
    (few, found), (many, found_too) = (steps_of(path, claiming(query)) for path in small_and_large)
    assert found.names == found_too.names
    assert found.names
    assert many < few * 1.2 + 200, (few, many)


@pytest.mark.parametrize(
    "query",
    [
        StreamQuery(limit=5),
        StreamQuery(limit=5, category="run"),
        StreamQuery(limit=5, category="run", closed=False),
        StreamQuery(limit=5, attributes={"status": "completed"}),
        StreamQuery(limit=5, attributes={"workflow": ("rare", "sleeper")}, newest_first=False),
        StreamQuery(limit=5, category="other"),
    ],
    ids=["any", "category", "open", "attribute", "one of", "none"],
)
async def test_a_page_costs_what_is_on_it(small_and_large: tuple[Path, Path], query: StreamQuery) -> None:
    def both(connection: sqlite3.Connection) -> list[int]:
        page = find_page(connection, query)
        sizes = [len(page.items)]
        if page.next is not None:
            sizes.append(len(find_page(connection, StreamQuery(**{**_fields(query), "cursor": page.next})).items))
        return sizes

    (few, sizes), (many, sizes_too) = (steps_of(path, both) for path in small_and_large)
    assert sizes == sizes_too
    assert many < few * 3 + ONE_MOMENT_STEPS, (few, many)


async def test_the_rarest_attribute_leads(path: Path, opened: Opener) -> None:
    """The children of one parent among many finished runs: whichever attribute is named first."""
    store = await opened()
    sends = [
        data(f"run:{number}", "start", opens=Opening(attributes={"parent": str(number // 4_000), "root": "all"}))
        for number in range(4_004)
    ]
    await store.commit(step("run:p", NEW, sends=tuple(sends)))
    for wanted in ({"parent": "1"}, {"parent": "1", "root": "all"}, {"root": "all", "parent": "1"}):
        query = StreamQuery(category="run", attributes=wanted)
        steps, page = steps_of(path, lambda connection, query=query: find_page(connection, query))
        assert sorted(head.stream for head in page.items) == ["run:4000", "run:4001", "run:4002", "run:4003"]
        assert steps < 25_000, steps  # counting what is common goes to its limit, searching looks at four


async def test_a_changed_attribute_does_not_walk_over_those_of_others(store: SqliteStore) -> None:
    """One stream's, and those of a batch: with four times as many streams of the same status it costs the same."""
    connection, counts = store._transactor._connection, []
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    for number in range(4):
        names = [f"run:{number}.{more}" for more in range(1_000)]
        await asyncio.gather(*(store.commit(step(name, NEW, attributes={"status": "running"})) for name in names))
        await on_thread(store._writer._connection, lambda: connection.set_progress_handler(count, 10))
        steps[0] = 0
        await store.commit(step(names[0], 0, attributes={"status": "done"}))
        alone = steps[0]
        await asyncio.gather(*(store.commit(step(name, 0, attributes={"status": "done"})) for name in names[1:50]))
        counts.append((alone, steps[0]))
        await on_thread(store._writer._connection, lambda: connection.set_progress_handler(None, 0))
    for first, last in zip(counts[0], counts[-1], strict=True):
        assert last < first * 1.2 + 20, counts
    found = await store.find(StreamQuery(attributes={"status": "done"}, limit=1_000))
    assert len(found.items) == 200


async def test_a_full_mailbox_costs_its_first_page(path: Path, opened: Opener) -> None:
    store = await opened()
    for number, stream in enumerate(("run:full", "run:fuller")):
        await begin(store, stream)
        for batch in range(1 + 3 * number):
            sends = tuple(data(stream, f"{batch} {message:04}") for message in range(2_000))
            await store.commit(step(f"run:from {stream} {batch}", NEW, sends=sends))
    known = steps_of(path, lambda connection: load_streams(connection, ("run:full", "run:fuller"), ()))[1][0]
    for consumed in ((), tuple(f"0 {message:04}" for message in range(500))):
        (few, _), (many, boxes) = (
            steps_of(path, lambda connection, row=row: load_mailboxes(connection, {row.id: row.control}, consumed))
            for row in (known["run:full"], known["run:fuller"])
        )
        assert len(boxes[known["run:fuller"].id]) == MAILBOX_PAGE + len(consumed)
        assert many < few * 1.1, (few, many)


async def test_control_mail_behind_a_full_mailbox_is_not_searched_for(path: Path, opened: Opener) -> None:
    """It has an index: how many data messages wait before it does not matter, and a plain mailbox does not ask."""
    store = await opened()
    for number, stream in enumerate(("run:full", "run:fuller")):
        await begin(store, stream)
        for batch in range(1 + 3 * number):
            sends = tuple(data(stream, f"{batch} {message:04}") for message in range(2_000))
            await store.commit(step(f"run:from {stream} {batch}", NEW, sends=sends))
        await store.send(control(stream, "cancel"))
    known = steps_of(path, lambda connection: load_streams(connection, ("run:full", "run:fuller"), ()))[1][0]
    (few, _), (many, boxes) = (
        steps_of(path, lambda connection, row=row: load_mailboxes(connection, {row.id: row.control}))
        for row in (known["run:full"], known["run:fuller"])
    )
    (box,) = boxes.values()
    assert (len(box), "cancel" in box) == (MAILBOX_PAGE + 1, True)
    assert many < few * 1.1, (few, many)


async def test_mail_that_is_no_single_value_is_read_row_by_row(path: Path, opened: Opener) -> None:
    """Mailboxes that are together longer than SQLite lets one value be are loaded all the same."""
    store = await opened()
    await begin(store, "run:a")
    for number in range(10):
        await store.send(replace(data("run:a", f"m{number}"), payload=b"x" * 5_000))
    connection = open_reader(str(path))
    try:
        row = load_streams(connection, ("run:a",), ())[0]["run:a"]
        whole = load_mailboxes(connection, {row.id: row.control})
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 20_000)
        assert load_mailboxes(connection, {row.id: row.control}) == whole
        assert len(whole[row.id]) == 10
    finally:
        connection.close()


async def test_plans_walk_the_partial_indexes(path: Path, opened: Opener) -> None:
    await begin(await opened(), "run:a")
    connection = open_reader(str(path))
    connection.text_factory = str
    try:
        for query in (ANY, StreamQuery(category="run", closed=False, attributes={"a": 1})):
            sql, parameters = candidates_sql(query, some_dead=True)
            parameters |= {"token": 1, "dead": "[2]", "busy": "[]", "now": 5, "limit": 10}
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
            streams = [line for line in plan if re.search(r"\b(s|streams)\b", line)]
            assert not any(line.startswith("SCAN") for line in streams), streams
            used = set(re.findall(r"INDEX (\w+)", " ".join(streams)))
            assert used == {"streams_mail", "streams_alarm", "streams_owned"}, streams
    finally:
        connection.close()


async def test_queries_that_contradict_themselves_find_nothing_and_fail_nowhere(path: Path, opened: Opener) -> None:
    """A named index that SQLite has no use for is an error: no query may come to that."""
    await begin(await opened(), "run:a")
    connection = open_reader(str(path))
    flags, names, values = (None, True, False), (None, (), ("run:a",)), (None, (), (None,), ("x", 1.5, True))
    try:
        for closed, held, streams, wanted in product(flags, flags, names, values):
            query = StreamQuery(category="run", streams=streams, closed=closed, held=held, attributes={"k": wanted})
            assert claiming(query)(connection).names == ()
            fits = closed is not True and held is not True and streams != () and wanted in (None, (None,))
            assert len(find_page(connection, query).items) == fits, query
    finally:
        connection.close()


async def test_a_claim_that_finds_nothing_writes_nothing(store: SqliteStore) -> None:
    await begin(store, "run:a")
    async with store.lease("worker") as lease:
        batches = 0
        run = store._transactor.run

        def counting(requests):
            nonlocal batches
            batches += 1
            return run(requests)

        store._transactor.run = counting
        assert await store.claim(lease, query=ANY, limit=10) == []
        assert batches == 0
        store._transactor.run = run


async def test_waiting_for_nothing_costs_next_to_nothing(store: SqliteStore) -> None:
    """Looks outside become rare: a tenth of a second apart, whatever `wait`'s caller does."""
    async with store.lease("worker") as lease:
        looks = 0
        data_version = store._transactor.data_version

        def counting() -> int:
            nonlocal looks
            looks += 1
            return data_version()

        await store.claim(lease, query=ANY, limit=1)
        store._poll_seconds = POLL_SECONDS_MAX
        store._transactor.data_version = counting
        await store.wait(lease, timeout=0.6)
        assert 1 <= looks <= 8


def _fields(query: StreamQuery) -> dict[str, Any]:
    return {name: getattr(query, name) for name in query.__struct_fields__}
