"""Values that a history does not hold: large ones, and tables, in a storage; crashes, losses, and engines without it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from tenacity import stop_after_attempt, wait_none

from engine import Engine, Gate, LargeValues, Memo, Signal, attempt, diagnose, durable, task, workflow
from engine.core.carriage import PAYLOAD_INLINE_BYTES, is_away
from engine.errors import (
    DefinitionError,
    EngineFailed,
    NotRecordable,
    PayloadTooLarge,
    RunEnded,
    RunFailedError,
    RunSuspendedError,
    StorageUnavailable,
)
from engine.storage import Storage, Stored
from engine.storage.blocking import BlockingStorage
from eventstore import EventStore
from tests.architecture.source import ROOT
from tests.runtime.apart import grow
from tests.runtime.faulty import FaultyStore, at_call
from tests.runtime.worlds import World, at_rest, result_of, soon, until

LONG = PAYLOAD_INLINE_BYTES + 1
go = Signal("go", str)


class Stage:
    """What the tasks have done."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.seen: list[int] = []


stage = Stage()


@pytest.fixture(autouse=True)
def _empty_stage() -> None:
    stage.__init__()  # type: ignore[misc]


@task
async def make(length: int) -> str:
    stage.made.append(length)
    return "x" * length


@task
async def measure(text: str, *, times: int = 1) -> int:
    stage.seen.append(len(text))
    return len(text) * times


@workflow
async def part(text: str) -> str:
    return text + text


@workflow
async def report(text: str) -> str:
    made = await make(LONG)
    word = await go.receive()
    measured = await measure(made)
    doubled = await part(made)
    return f"{word} {len(text)} {measured} {len(doubled)}"


EXPECTED = f"now {LONG} {LONG} {2 * LONG}"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path / "values")


async def payloads(store: EventStore) -> list[bytes]:
    return [each.payload async for each in store.read_all() if each.payload is not None]


def named_by(found: list[bytes]) -> list[Stored]:
    documents = [msgspec.json.decode(each) for each in found if is_away(each)]
    raw = [doc["stored"] for doc in documents if "stored" in doc]
    raw += [each for doc in documents for each in doc.get("tables", {}).values()]
    return [msgspec.convert(each, Stored) for each in raw]


async def whole(store: EventStore, storage: Storage) -> list[Stored]:
    """Nothing large stands in the store, and everything that it names is there and right."""
    found = await payloads(store)
    assert max(map(len, found)) < 2_000
    named = named_by(found)
    for each in named:
        await asyncio.to_thread(storage.blocking.check, each)
    return named


# -- there and back ----------------------------------------------------------------------------------------------------


async def test_large_results_and_arguments_lie_in_the_storage(world: World, storage: Storage) -> None:
    async with world.engine(report, part, storage=storage) as engine:
        run = await engine.start(report("y" * LONG), id="r", signals=[go.message("now")])
        assert await soon(run.result()) == EXPECTED
        by_name = {type(item.event).__name__: item.payload or b"" async for item in run.events()}
        assert len(by_name["ChildCompleted"]) == 2 * LONG + 2  # shown whole to who has the storage
    store = await world.store()
    # The run's arguments, the result, the argument of measure, the child's arguments (twice), and its result (twice).
    assert len(await whole(store, storage)) == 7
    assert sorted(stage.made + stage.seen) == [LONG, LONG]


async def test_a_restarted_run_reads_them_back(world: World, storage: Storage) -> None:
    async with world.engine(report, part, storage=storage, cached=0) as engine:
        await engine.start(report("y" * LONG), id="r")
        await until(lambda: stage.made)
        await at_rest(engine.store, "r")
    async with world.engine(report, part, storage=storage) as engine:
        await engine.run("r").signal(go, "now")
        assert await soon(engine.run("r").result()) == EXPECTED
        assert await soon((await engine.start(report("y" * LONG), id="r")).result()) == EXPECTED  # the same run
    assert stage.made == [LONG]


async def test_without_a_storage_a_large_value_is_the_error_that_it_was(world: World) -> None:
    async with world.engine(report, part) as engine:
        with pytest.raises(PayloadTooLarge, match="a history holds at most 262,144"):
            await engine.start(report("y" * LONG), id="r")
        run = await engine.start(report("y"), id="s")
        with pytest.raises(RunFailedError, match="result of task 'make' takes 262,147 bytes"):
            await soon(run.result())
        assert not [event async for event in run.events() if getattr(event.event, "large", False)]


@workflow
async def again(text: str, round_: int) -> int:
    if round_ == 0:
        return len(text)
    await durable.continue_as_new(again(text + "z", round_ - 1))
    raise AssertionError("it has continued")


async def test_epochs_carry_large_arguments(world: World, storage: Storage) -> None:
    async with world.engine(again, storage=storage) as engine:
        run = await engine.start(again("y" * LONG, 2), id="r")
        assert await soon(run.result()) == LONG + 2
    await whole(await world.store(), storage)


async def test_a_value_over_the_limit_of_the_storage_is_an_error(
    world: World, storage: Storage, monkeypatch: Any
) -> None:
    from engine.core import instance

    monkeypatch.setattr(instance, "PAYLOAD_LARGE_BYTES", LONG)
    async with world.engine(report, part, storage=storage) as engine:
        run = await engine.start(report("y"), id="r", signals=[go.message("now")])
        with pytest.raises(RunFailedError, match=f"at most {LONG:,} of one value"):
            await soon(run.result())


async def test_a_raw_value_that_looks_as_if_it_lay_elsewhere_does_not(world: World, storage: Storage) -> None:
    @workflow
    async def sly() -> Any:
        return msgspec.Raw(b' {"value":[1]}')

    async with world.engine(sly, storage=storage) as engine:
        run = await engine.start(sly(), id="r")
        assert await soon(run.result()) == {"value": [1]}


# -- what is lost ------------------------------------------------------------------------------------------------------


async def _begun(world: World, storage: Storage) -> Stored:
    """A run that waits behind its large result; where that lies."""
    async with world.engine(report, part, storage=storage, cached=0) as engine:
        await engine.start(report("y"), id="r")
        await until(lambda: stage.made)
        await at_rest(engine.store, "r")
    store = await world.store()
    (found,) = named_by(await payloads(store))
    return found


@pytest.mark.parametrize("how", ["missing", "damaged"])
async def test_what_is_lost_suspends_the_run_and_it_goes_on_when_it_is_back(
    world: World, storage: Storage, tmp_path: Path, how: str
) -> None:
    stored = await _begun(world, storage)
    path = tmp_path / "values" / stored.key
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(b"z" + content[1:])
    async with world.engine(report, part, storage=storage) as engine:
        run = engine.run("r")
        await run.signal(go, "now")
        with pytest.raises(RunSuspendedError) as caught:
            await soon(run.result())
        for told in ("the result of task 'make' lies in a storage", stored.key, "resume the run"):
            assert told in str(caught.value)
        path.write_bytes(content)
        await run.resume()
        assert await soon(run.result()) == EXPECTED.replace(str(LONG), "1", 1)
    assert stage.made == [LONG]


async def test_an_engine_without_the_storage_suspends_the_run_and_harms_nothing(world: World, storage: Storage) -> None:
    await _begun(world, storage)
    async with world.engine(report, part) as engine:
        await engine.run("r").signal(go, "now")
        with pytest.raises(
            RunSuspendedError, match=r"lies in a storage, and this engine has none|this engine has none"
        ):
            await soon(engine.run("r").result())
    async with world.engine(report, part, storage=storage) as engine:
        await engine.run("r").resume()
        assert await soon(engine.run("r").result()) == EXPECTED.replace(str(LONG), "1", 1)


async def test_a_result_in_a_storage_is_not_read_as_something_else(world: World, storage: Storage) -> None:
    async with world.engine(part, storage=storage) as engine:
        await soon((await engine.start(part("y" * LONG), id="r")).result())
    async with world.engine() as client:
        with pytest.raises(NotRecordable, match="lies in a storage, and this engine has none"):
            await soon(client.run("r").result())


async def test_arguments_that_are_lost_stop_nobody_who_needs_them_no_more(
    world: World, storage: Storage, tmp_path: Path
) -> None:
    """At a replay the code makes them anew, and the digest tells that they are the same."""

    @workflow
    async def waits() -> str:
        await measure("y" * LONG)
        return await go.receive()

    async with world.engine(waits, storage=storage, cached=0) as engine:
        await engine.start(waits(), id="r")
        await until(lambda: stage.seen)
        await at_rest(engine.store, "r")
    (stored,) = named_by(await payloads(await world.store()))
    (tmp_path / "values" / stored.key).unlink()
    async with world.engine(waits, storage=storage) as engine:
        await engine.run("r").signal(go, "now")
        assert await soon(engine.run("r").result()) == "now"


async def test_other_arguments_than_those_in_the_storage_are_a_mismatch(world: World, storage: Storage) -> None:
    def make_waits(length: int) -> Any:
        @workflow(name="waits")
        async def waits() -> str:
            await measure("y" * length)
            return await go.receive()

        return waits

    first = make_waits(LONG)
    async with world.engine(first, storage=storage, cached=0) as engine:
        await engine.start(first(), id="r")
        await until(lambda: stage.seen)
        await at_rest(engine.store, "r")
    async with world.engine(make_waits(LONG + 1), storage=storage) as engine:
        await engine.run("r").signal(go, "now")
        with pytest.raises(RunSuspendedError, match="the code decides otherwise than it did"):
            await soon(engine.run("r").result())


# -- crashes and full disks --------------------------------------------------------------------------------------------


async def test_a_crash_at_any_call_of_the_store_names_nothing_that_is_not_there(worlds: Any, tmp_path: Path) -> None:
    for number in range(1, 60):
        for fault in ("die before", "die after"):
            world, storage = worlds(), Storage(tmp_path / f"{number}-{fault}")
            handle = await world.store()
            store = FaultyStore(handle, at_call(number, fault))
            try:
                async with Engine(
                    store, workflows=[report, part], clock=world.clock, grace=0, storage=storage
                ) as engine:
                    run = await engine.start(report("y" * LONG), id="r", signals=[go.message("now", id="s")])
                    await soon(run.result())
            except Exception as error:
                assert store.faults, error
            await world.crash(handle)
            async with world.engine(report, part, storage=storage) as engine:
                run = await engine.start(report("y" * LONG), id="r")
                with suppress(RunEnded):
                    await run.signal(go, "now", id="s")
                assert await soon(result_of(run)) == EXPECTED
            await whole(handle, storage)
            if not store.faults:
                return
    raise AssertionError("more calls of the store than were crashed")


KILLED = """
import asyncio, os, sys
from engine import Engine, task, workflow
from engine.storage.blocking import BlockingStorage
from engine.runtime.large_values import LargeValues
folder, when = sys.argv[1:]

@task
async def make() -> str:
    return "x" * 500_000

@workflow
async def two() -> int:
    return len(await make()) + len(await make())

real = LargeValues.commit
async def commit(self, commit):
    from engine.core.carriage import is_bundle
    large = any(len(e.payload or b"") > 300_000 for e in commit.events)
    if large and when == "before":
        os._exit(9)  # the object is written, nobody names it
    if large and when == "between":
        inner = self.inner.commit
        async def die(commit):
            os._exit(9)
        self.inner.commit = die
    head = await real(self, commit)
    if large and when == "after":
        os._exit(9)
    return head
if when:
    LargeValues.commit = commit

async def main():
    async with Engine(f"sqlite:///{folder}/runs.db", workflows=[two], storage=f"{folder}/values") as engine:
        run = await engine.start(two(), id="r")
        print(await run.result())

asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_a_process_killed_around_the_commit_of_a_large_value(tmp_path: Path, when: str) -> None:
    def play(when: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path), when],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert play(when).returncode == 9
    objects = list((tmp_path / "values").glob("??/*.json"))
    assert len(objects) == 1
    with sqlite3.connect(tmp_path / "runs.db") as database:
        named = [row for (row,) in database.execute("SELECT payload FROM events") if row and row[:1] == " "]
    database.close()
    assert len(named) == (1 if when == "after" else 0)
    done = play("")
    assert (done.returncode, done.stdout) == (0, "1000000\n"), done.stderr


async def test_a_result_that_cannot_be_written_fails_its_attempt_which_is_tried_again(
    world: World, storage: Storage, monkeypatch: Any
) -> None:
    real = BlockingStorage.write_bytes
    refusals = iter([True, True, False])

    def full(self: BlockingStorage, *args: Any) -> Stored:
        if next(refusals, False):
            raise StorageUnavailable("no space left on device")
        return real(self, *args)

    monkeypatch.setattr(BlockingStorage, "write_bytes", full)

    @task(stop=stop_after_attempt(3), wait=wait_none())
    async def stubborn() -> str:
        stage.made.append(1)
        return "x" * LONG

    @workflow
    async def tries() -> int:
        return len(await stubborn())

    async with world.engine(tries, storage=storage) as engine:
        assert await soon((await engine.start(tries(), id="r")).result()) == LONG
    assert len(stage.made) == 3


async def test_a_storage_that_cannot_be_written_at_a_commit_stops_the_engine_and_no_run(
    world: World, storage: Storage, monkeypatch: Any
) -> None:
    real = BlockingStorage.write_bytes

    def full(self: BlockingStorage, *args: Any) -> Stored:
        raise StorageUnavailable("no space left on device")

    @workflow
    async def tells() -> int:
        await go.receive()
        return await measure("y" * LONG)

    async with world.engine(tells, storage=storage) as engine:
        run = await engine.start(tells(), id="r")
        monkeypatch.setattr(BlockingStorage, "write_bytes", full)
        await run.signal(go, "now")
        with pytest.raises(EngineFailed, match="large values cannot be written or read: no space left"):
            await soon(run.result())
    monkeypatch.setattr(BlockingStorage, "write_bytes", real)
    async with world.engine(tells, storage=storage) as engine:
        assert await soon(engine.run("r").result()) == LONG


# -- tables ------------------------------------------------------------------------------------------------------------


@task
def numbers(count: int) -> pl.DataFrame:
    stage.made.append(count)
    return pl.DataFrame({"a": list(range(count))})


@task
async def summed(rows: pd.DataFrame, factor: int = 1) -> int:
    return int(rows["a"].sum()) * factor


@task
def maybe(rows: pa.Table | None) -> dict[str, pl.DataFrame]:
    return {} if rows is None else {"half": pl.DataFrame(pl.from_arrow(rows)).head(2)}


@workflow
async def tabular(first: pl.DataFrame) -> pl.DataFrame:
    rows = await numbers(4)
    total = await summed(rows.to_pandas(), factor=2)
    none = await maybe(None)
    halves = await maybe(rows.to_arrow())
    word = await go.receive()
    return pl.concat([first, halves["half"]]).with_columns(
        total=pl.lit(total), word=pl.lit(word), none=pl.lit(len(none))
    )


async def test_tables_travel_as_parquet(world: World, storage: Storage) -> None:
    first = pl.DataFrame({"a": [7]})
    wanted = pl.DataFrame({"a": [7, 0, 1], "total": [12] * 3, "word": ["now"] * 3, "none": [0] * 3})
    async with world.engine(tabular, storage=storage, cached=0) as engine:
        await engine.start(tabular(first), id="r")
        await until(lambda: stage.made)
        await at_rest(engine.store, "r")
    async with world.engine(tabular, storage=storage) as engine:
        await engine.run("r").signal(go, "now")
        found = await soon((await engine.start(tabular(first), id="r")).result())
        assert found.cast({"total": pl.Int64, "none": pl.Int64}).equals(wanted)
    assert stage.made == [4]
    named = await whole(await world.store(), storage)
    assert {each.format for each in named} == {"parquet"}
    assert {each.rows for each in named} == {1, 2, 3, 4}
    for each in named:
        assert each.schema[0].name == "a"
        assert await storage.read(each, pa.Table)


async def test_a_replay_compares_tables_by_their_content(world: World, storage: Storage, monkeypatch: Any) -> None:
    """Another pyarrow writes other bytes of the same table; that is no mismatch, and another table is one."""

    def make(last: int) -> Any:
        @workflow(name="waits")
        async def waits() -> str:
            await summed(pd.DataFrame({"a": [1, 2, last]}))
            return await go.receive()

        return waits

    from engine.storage.arrow import parquet

    first = make(3)
    async with world.engine(first, storage=storage, cached=0) as engine:
        await engine.start(first(), id="r")
        await at_rest(engine.store, "r")
    monkeypatch.setattr(parquet, "_COMPRESSION", "none")
    async with world.engine(make(4), storage=storage) as engine:
        await engine.run("r").signal(go, "now")
        with pytest.raises(RunSuspendedError, match="the code decides otherwise"):
            await soon(engine.run("r").result())
    async with world.engine(make(3), storage=storage) as engine:
        await engine.run("r").resume()
        assert await soon(engine.run("r").result()) == "now"


async def test_tables_without_a_storage_are_refused_before_anything_runs(world: World) -> None:
    @workflow
    async def asks() -> int:
        return len(await numbers(3))

    async with world.engine(asks, tabular) as engine:
        with pytest.raises(RunFailedError, match=r"result of task 'numbers' is a table.*Engine\(\.\.\., storage="):
            await soon((await engine.start(asks(), id="r")).result())
        with pytest.raises(NotRecordable, match="is a table, and tables travel through a storage"):
            await engine.start(tabular(pl.DataFrame({"a": [1]})), id="s")
    assert stage.made == []
    assert (await numbers(3)).shape == (3, 1)  # outside of a workflow a task is its function


async def test_a_value_that_is_another_table_than_annotated_is_refused(world: World, storage: Storage) -> None:
    @task
    def wrong() -> pl.DataFrame:
        return [1, 2]  # type: ignore[return-value]

    @workflow
    async def asks() -> int:
        return len(await wrong())

    async with world.engine(asks, storage=storage) as engine:
        with pytest.raises(
            RunFailedError, match=r"result of task 'wrong' is annotated DataFrame, but the value does not"
        ):
            await soon((await engine.start(asks(), id="r")).result())


async def test_worker_processes_take_large_values_and_no_tables(world: World, storage: Storage) -> None:
    @task(executor="processes")
    def there() -> pl.DataFrame:
        return pl.DataFrame()

    @workflow
    async def asks() -> int:
        return len(await there())

    with pytest.raises(DefinitionError, match="tables, which do not travel to worker processes"):
        Engine(await world.store(), workflows=[asks], storage=storage)

    @workflow
    async def grows() -> int:
        return len(await grow("y" * LONG))

    async with world.engine(grows, storage=storage, processes=1) as engine:
        assert await soon((await engine.start(grows(), id="r")).result()) == 2 * LONG
    await whole(await world.store(), storage)


# -- repair, gate, other tools -----------------------------------------------------------------------------------------


async def test_repair_and_the_gate_with_the_storage(world: World, storage: Storage) -> None:
    async with world.engine(report, part, storage=storage) as engine:
        run = await engine.start(report("y" * LONG), id="r", signals=[go.message("now")])
        assert await soon(run.result()) == EXPECTED
        events = [item async for item in run.events()]
        received = next(item.version for item in events if type(item.event).__name__ == "TaskCompleted")
        fork = await engine.fork("r", at=received, id="f", by="ann", reason="to see")
        assert await soon(fork.result()) == EXPECTED.replace("now", "now")
        rerun = await engine.rerun("r", id="again", by="ann", reason="to see")
        assert await soon(rerun.result()) == EXPECTED
        supposed = await engine.what_if("r", at=received)
        assert supposed.would_be.status == "completed"
        assert diagnose(events, report, run_id="r") is None
        store = await world.store()
        async with Gate(store, [report, part], storage=storage) as gate:
            assert (await gate.check("r")).fits
        async with Gate(store, [report, part]) as gate:
            verdict = await gate.check("r")
        assert verdict.diagnosis is not None
        assert "lies in a storage" in verdict.diagnosis.message
    await whole(await world.store(), storage)


async def test_a_sweep_keeps_what_the_store_names(world: World, storage: Storage, tmp_path: Path) -> None:
    async with world.engine(report, part, tabular, storage=storage) as engine:
        await soon((await engine.start(report("y" * LONG), id="r", signals=[go.message("now")])).result())
        await soon(
            (await engine.start(tabular(pl.DataFrame({"a": [1]})), id="t", signals=[go.message("now")])).result()
        )
        await engine.debounce(part("z" * LONG), key="k", seconds=10 * 86_400)
    stray = await storage.write({"nobody": "names me"})
    other = await storage.write({"somebody": "else does"})
    for path in (tmp_path / "values").glob("??/*"):
        os.utime(path, (0, 0))
    store = await world.store()
    before = len(list((tmp_path / "values").glob("??/*")))
    swept = await LargeValues(store, storage).sweep([other])
    assert (swept.objects, swept.kept) == (1, before - 1)
    assert not await storage.exists(stray)
    await whole(store, storage)
    async with world.engine(report, part, storage=storage) as engine:
        world.clock.advance(20 * 86_400)
        (queued,) = [run.id for run in (await engine.runs(workflow="part", status="queued")).items] or [
            run.id for run in (await engine.runs(workflow="part")).items if not run.parent
        ]
        assert len(await soon(engine.run(queued).result())) == 2 * LONG


async def test_the_line_of_the_page(world: World, storage: Storage) -> None:
    store = await world.store()
    swept = await LargeValues(store, storage).sweep()
    assert swept.objects == 0


# -- values that come by another way than a task's return --------------------------------------------------------------


@task
async def outside() -> pa.Table:
    tokens.append(attempt().token)
    attempt().later()


tokens: list[str] = []


@task(memo=Memo(key=lambda table: table.num_rows))
async def count_rows(table: pa.Table) -> int:
    stage.seen.append(table.num_rows)
    return int(table.num_rows)


@task(memo=Memo())
async def kept_rows(rows: int) -> pa.Table:
    stage.made.append(rows)
    return pa.table({"a": list(range(rows))})


@workflow
async def counted(rows: int) -> int:
    return await count_rows(await kept_rows(rows))


@workflow
async def handed_in() -> int:
    return await count_rows(await outside())


async def test_a_fork_takes_a_table_in_place_of_a_result(world: World, storage: Storage) -> None:
    async with world.engine(counted, storage=storage) as engine:
        run = await engine.start(counted(2), id="r")
        assert await soon(run.result()) == 2
        events = [item async for item in run.events()]
        task_id = next(item.event.id for item in events if type(item.event).__name__ == "TaskScheduled")
        at = next(item.version for item in events if type(item.event).__name__ == "TaskCompleted")
        fork = await engine.fork("r", at=at, substitute={task_id: pa.table({"a": [1, 2, 3]})}, id="f")
        assert await soon(fork.result()) == 3


async def test_a_completion_may_be_a_table_and_one_that_is_lost_suspends_the_run(
    world: World, storage: Storage, tmp_path: Path
) -> None:
    tokens.clear()
    async with world.engine(handed_in, storage=storage, grace=0) as engine:
        await engine.start(handed_in(), id="r")
        await until(lambda: tokens)
    async with world.engine(storage=storage) as client:
        await client.complete(tokens[0], pa.table({"a": [1, 2, 3, 4]}), task=outside)
    (lost,) = (tmp_path / "values").glob("??/*.parquet")
    held = lost.read_bytes()
    lost.unlink()
    async with world.engine(handed_in, storage=storage) as engine:
        with pytest.raises(RunSuspendedError):
            await soon(engine.run("r").result())
        lost.write_bytes(held)
        await engine.run("r").resume()
        assert await soon(engine.run("r").result()) == 4


async def test_memos_of_tables_are_found_and_forgotten(world: World, storage: Storage) -> None:
    async with world.engine(counted, storage=storage) as engine:
        for number in (1, 2):
            assert await soon((await engine.start(counted(3), id=f"r{number}")).result()) == 3
        assert (stage.made, stage.seen) == ([3], [3])
        assert await engine.forget(kept_rows(3)) == 1
        assert await engine.forget(count_rows(pa.table({"a": [7, 8, 9]}))) == 1
        assert await soon((await engine.start(counted(3), id="r3")).result()) == 3
        assert (stage.made, stage.seen) == ([3, 3], [3, 3])


@task(pool="room", fairness_key=lambda table: str(table.num_rows))
async def seated(table: pa.Table) -> int:
    return int(table.num_rows)


@workflow
async def queueing() -> list[int]:
    tables = (pa.table({"a": list(range(rows))}) for rows in (1, 2, 3))
    return list(await asyncio.gather(*(seated(table) for table in tables)))


async def test_a_table_says_whose_turn_it_is(world: World, storage: Storage) -> None:
    async with world.engine(queueing, storage=storage, pools={"room": 1}) as engine:
        assert await soon((await engine.start(queueing())).result()) == [1, 2, 3]


async def test_a_rerun_has_the_storage_that_there_is_now(world: World, storage: Storage) -> None:
    async with world.engine(counted) as engine:
        run = await engine.start(counted(2), id="r")
        with pytest.raises(RunFailedError, match="give the engine one"):
            await soon(run.result())
    async with world.engine(counted, storage=storage) as engine:
        again = await engine.rerun("r", id="again")
        assert await soon(again.result()) == 2
