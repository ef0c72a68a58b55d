"""Permits in SQLite: what they cost, that every look-up has its index, and what two processes make of one limit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from eventstore import NEW, LimitReached, StreamHead
from eventstore.conformance.harness import Shared, all_of, begin, claim, event, give_back, step, take, wait
from eventstore.sqlite import SqliteStore, permits
from eventstore.sqlite.guard import Guard
from eventstore.sqlite.schema import MIGRATIONS
from eventstore.sqlite.threads import on_thread
from tests.eventstore.sqlite.children import PATIENCE_SECONDS, child
from tests.eventstore.sqlite.conftest import Opener
from tests.eventstore.sqlite.test_batches import traced, transactions


def kinds(seen: list[str]) -> list[str]:
    return [sql.split()[0] for sql in seen]


async def test_a_commit_without_permits_pays_nothing_for_them(store: SqliteStore) -> None:
    """Not when its stream is closed either, nor when it sets attributes."""
    await begin(store, "run:a")
    seen = await traced(store)
    await store.commit(step("run:a", 1, event()))
    await store.commit(step("run:a", 2, event(), closed=True))
    assert kinds(seen) == ["BEGIN", "PRAGMA", "INSERT", "UPDATE", "COMMIT"] * 2
    seen.clear()
    await store.commit(step("run:a", 3, event(), attributes={"limit": 7}))
    assert kinds(seen) == ["BEGIN", "PRAGMA", "INSERT", "UPDATE", "INSERT", "COMMIT"]


async def test_an_uncontended_permit_is_part_of_the_batch(store: SqliteStore) -> None:
    """One statement more to load, and two to write, however many commits of the batch take or return."""
    shared = Shared(store, None)
    await shared.limit(1_000)
    names = [f"run:{number}" for number in range(100)]
    for count in (1, 100):
        streams = [f"{name} of {count}" for name in names[:count]]
        await all_of(store.commit(step(name, NEW, event())) for name in streams)
        seen = await traced(store)
        for version, permit in ((1, take), (2, take), (3, give_back)):
            seen.clear()
            await all_of(store.commit(step(name, version, event(), permits=(permit(name),))) for name in streams)
            largest = max(transactions(seen), key=len)
            selects = [sql for sql in largest if sql.startswith("SELECT")]
            assert len(selects) <= 1 + (count > 1), largest
            assert len(largest) <= (9 if count == 1 else 16), largest  # rows go in a few fixed sizes


def test_every_look_up_has_an_index() -> None:
    """As planned for a file without statistics, which is what a store is."""
    connection = sqlite3.connect(":memory:")
    for statements in MIGRATIONS:
        for sql in statements:
            connection.execute(sql)
    asked = [sql for name, sql in vars(permits).items() if name.isupper() and isinstance(sql, str) and "WHERE" in sql]
    assert len(asked) == 12
    for sql in asked:
        numbered = [int(one[0]) for one in sql.split("?")[1:] if one[:1].isdigit()]
        parameters = ["[]"] * (max(numbered) if numbered else sql.count("?"))
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
        walked = [one for one in plan if one.startswith("SCAN") and "VIRTUAL" not in one and "CONSTANT" not in one]
        assert walked in ([], ["SCAN p"]) and ("CO-ROUTINE p" in plan) == bool(walked), plan
        assert not [one for one in plan if "FOR ORDER BY" in one], plan
    connection.close()


async def test_a_long_queue_costs_its_head(store: SqliteStore) -> None:
    """The statements for one return do not grow with those who wait, and nothing walks over them."""
    shared = Shared(store, None)
    await shared.limit(1)
    await begin(store, "run:holds")
    await store.commit(step("run:holds", 1, event(), permits=(take("x"),)))
    counts = []
    version = 2
    for number in range(1, 4):
        waits = tuple(wait(f"w{number}.{more:03}", key=f"{more % 7}") for more in range(1_000))
        await store.commit(step(f"run:{number}", NEW, event(), permits=waits))
        connection = store._transactor._connection
        steps = [0]

        def count(steps: list[int] = steps) -> int:
            steps[0] += 1
            return 0

        await on_thread(store._writer._connection, lambda count=count: connection.set_progress_handler(count, 10))
        await store.commit(step("run:holds", version, event(), permits=(give_back("x"), wait("x"))))
        await on_thread(store._writer._connection, lambda: connection.set_progress_handler(None, 0))
        counts.append(steps[0])
        version += 1
        await shared.limit(number + 1)
    assert counts[-1] < counts[0] * 1.5 + 50, counts


async def test_who_holds_is_one_question_asked_when_a_pool_is_full(store: SqliteStore) -> None:
    """Beside the look for what is free; and a commit that gets its permit asks neither."""
    await Shared(store, None).limit(2)
    await begin(store, "run:a")
    seen = await traced(store)
    await store.commit(step("run:a", 1, event(), permits=(take("a1"), take("a2"))))
    assert len([sql for sql in seen if sql.startswith("SELECT")]) == 1
    seen.clear()
    with pytest.raises(LimitReached):
        await store.commit(step("run:a", 2, event(), permits=(take("a3"),)))
    asked = [sql for sql in seen if sql.startswith("SELECT")]
    assert len(asked) == 4, asked  # the batch's own, what nobody looks after, which grants have lapsed, who holds
    assert asked[-1].startswith("SELECT holder FROM permits WHERE pool"), asked


async def test_a_stream_that_has_no_permits_any_more_is_released_for_nothing(store: SqliteStore) -> None:
    """Its row says so after one look. What it holds is given up with as many statements, however many there are."""
    shared = Shared(store, None)
    await shared.limit(100)
    await begin(store, "run:a")
    seen, version, counts = await traced(store), 1, []
    for count in (1, 100):
        permits = tuple(take(f"h{number}") for number in range(count))
        await store.commit(step("run:a", version, event(), permits=permits))
        for more in (1, 2):
            seen.clear()
            await store.commit(step("run:a", version + more, event(), release=True))
            counts.append(kinds(seen))
        version += 3
    gives_up, rests, *of_many = counts
    assert rests == ["BEGIN", "PRAGMA", "INSERT", "UPDATE", "COMMIT"]
    assert of_many == [gives_up, rests]
    assert gives_up.count("DELETE") == 1
    await shared.does("run:b", *(take(f"b{number}") for number in range(100)))


async def test_a_failure_of_the_commit_leaves_no_permit(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the whole batch, and of the commit's own transaction."""
    shared = Shared(store, None)
    await shared.limit(1)
    write = store._transactor._write

    def fail(*given: object) -> None:
        write(*given)
        raise RuntimeError("after everything was written")

    monkeypatch.setattr(store._transactor, "_write", fail)
    with pytest.raises(RuntimeError):
        await store.commit(step("run:a", NEW, event(), permits=(take("a"),)))
    monkeypatch.undo()

    def loses(transaction) -> bytes:
        transaction.execute("CREATE TABLE IF NOT EXISTS mine (x UNIQUE)")
        transaction.execute("INSERT INTO mine VALUES (1)")
        transaction.execute("INSERT OR ROLLBACK INTO mine VALUES (1)")
        return b""

    async with store.lease("worker") as lease:
        results = await asyncio.gather(
            store.commit(step("run:a", NEW, event(), permits=(take("a"), wait("w")), transaction=loses)),
            store.commit(step("run:b", NEW, event(), permits=(take("b"),), lease=lease)),
            store.commit(step("run:c", NEW, event(), permits=(take("c"),))),
            return_exceptions=True,
        )
    assert [type(result) for result in results] == [sqlite3.IntegrityError, StreamHead, LimitReached]


WORKER = """
import random

async def main():
    path, name, log, seed = sys.argv[1:]
    store = await SqliteStore.open(path, lease_ttl=3_600)
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    chance = random.Random(int(seed))

    def note(what, holder):
        os.write(out, f"{what} {name} {holder}\\n".encode())

    async with store.lease(name) as lease:
        async def live(number):
            stream, version, turn = f"run:{name}.{number}", NEW, 0
            def does(action, **parts):
                permit = Permit(pool="p", holder=f"{name}.{number}.{turn}", action=action, key=str(number % 3))
                return store.commit(Commit(id=os.urandom(8).hex(), stream=stream, expected_version=version,
                                           events=(event(action),), permits=(permit,), lease=lease, **parts))
            while True:
                turn += 1
                try:
                    head = await does("take")
                except LimitReached:
                    head = await does("wait")
                    version = head.version
                    while True:
                        try:
                            head = await does("take", consumes=tuple(m.id for m in head.messages))
                            break
                        except LimitReached:
                            await asyncio.sleep(0.002)
                            head = await store.head(stream)
                version = head.version
                note("begin", f"{number}.{turn}")
                await asyncio.sleep(chance.random() * 0.002)
                note("end", f"{number}.{turn}")
                head = await does("return", consumes=tuple(m.id for m in head.messages))
                version = head.version
        say("ready")
        await asyncio.gather(*(live(number) for number in range(4)))

asyncio.run(main())
"""


class Observed:
    """What two workers did, as they wrote it into a file that nobody's death takes back."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def ended(self, name: str) -> int:
        return Counter(one[1] for one in self.lines() if one[0] == "end")[name]

    async def until_ended(self, name: str, more: int) -> None:
        before = self.ended(name)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.ended(name) < before + more:
                await asyncio.sleep(0.01)

    def most(self) -> int:
        """How many had begun and not ended, at most."""
        running: set[tuple[str, str]] = set()
        most = 0
        for what, name, holder in self.lines():
            if what == "begin":
                running.add((name, holder))
            elif what == "end":
                running.discard((name, holder))
            else:  # killed
                running = {one for one in running if one[0] != name}
            most = max(most, len(running))
        return most


async def two_workers(path: Path, observed: Observed, deaths: int, bug: str = "") -> None:
    """One stays, others come and are killed. No commit is made between a death and the line that tells of it."""
    guard = Guard(f"{path}-guard")
    try:
        async with child(bug + WORKER, path, "stays", observed.log, 1) as stays:
            await stays.expect("ready")
            for number in range(deaths):
                name = f"dies{number}"
                async with child(bug + WORKER, path, name, observed.log, number) as dies:
                    await dies.expect("ready")
                    await observed.until_ended(name, 10)
                    await observed.until_ended("stays", 5)
                    with guard.held(PATIENCE_SECONDS):
                        await dies.kill()
                        with observed.log.open("a") as note:
                            note.write(f"killed {name} -\n")
                await observed.until_ended("stays", 20)
    finally:
        guard.close()


async def test_two_processes_share_a_limit_and_a_killed_one_gives_its_slots_back(
    path: Path, opened: Opener, tmp_path: Path
) -> None:
    limit, observed = 3, Observed(tmp_path / "log")
    store = await opened()
    await Shared(store, None).limit(limit)
    await two_workers(path, observed, deaths=4)
    assert observed.most() == limit
    async with store.lease("heir") as lease:  # all slots are back once the last has died, too
        shared = Shared(store, lease)
        await all_of(shared.does(f"run:heir{number}", wait(f"heir{number}", priority=9)) for number in range(limit))
        for number in range(limit):
            await shared.does(f"run:heir{number}", take(f"heir{number}"))


DIES = """
async def main():
    store = await SqliteStore.open(sys.argv[1], lease_ttl=3_600)
    async with store.lease("dies") as lease:
        for number in range(2):
            permits = tuple(
                Permit(pool="p", holder=f"d{number}{action}", action="take", lasting=action == "lasts")
                for action in ("ends", "lasts")
            )
            await store.commit(Commit(id="c", stream=f"run:dies{number}", expected_version=NEW, events=(event(),),
                                      permits=permits, lease=lease))
        say("ready")
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_who_takes_over_from_a_killed_process_has_what_it_takes_again(path: Path, opened: Opener) -> None:
    """Of two runs: one goes on with its slot, the other does not, and its is free though a living worker owns it."""
    store = await opened()
    await Shared(store, None).limit(4)
    async with child(DIES, path) as dies, store.lease("heir") as lease:
        shared = Shared(store, lease)
        await dies.expect("ready")
        refusal = await shared.full("run:other", take("o1"))
        assert refusal.held_by in ("d0ends", "d0lasts")
        assert await claim(store, lease) == []
        await dies.kill()
        assert await claim(store, lease) == ["run:dies0", "run:dies1"]
        await shared.does("run:dies0", take("d0ends"))
        await shared.does("run:dies1")
        await shared.does("run:other", take("o1"))
        await shared.full("run:other", take("o2"))
        await shared.full("run:dies1", take("d1ends"))
        await shared.does("run:dies1", give_back("d1lasts"))
        await shared.does("run:other", take("o2"))
        await shared.does("run:dies0", wait("w"), release=True)
        assert await shared.granted("run:dies0") == ["w"]


STEALS = """
from eventstore.sqlite.permits import SqlitePools
SqlitePools.looked_after = lambda *_: False
"""


async def test_a_limit_that_is_exceeded_is_seen(path: Path, opened: Opener, tmp_path: Path) -> None:
    """The canary of the observer: workers that take everybody for dead."""
    observed = Observed(tmp_path / "log")
    await Shared(await opened(), None).limit(3)
    await two_workers(path, observed, deaths=1, bug=STEALS)
    assert observed.most() > 3
