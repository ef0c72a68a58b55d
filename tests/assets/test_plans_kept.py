"""What was planned is what is made, whatever is added, removed or changed before it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.assets import (
    AllPartitions,
    AssetContext,
    Daily,
    Dynamic,
    Product,
    SameKey,
    Static,
    TimeWindow,
    asset,
)
from engine.errors import RunFailedError, RunSuspendedError
from tests.assets.shop import made, materialize, run, shop, steps, tell, told
from tests.runtime.worlds import World, soon, until


def _invoices() -> list[Any]:
    @asset(partitions=Dynamic("customers"), code_version="1")
    def invoices(context: AssetContext) -> str:
        tell("invoices", context.partition)
        return context.partition

    @asset(partitions=Dynamic("customers"), code_version="1")
    def sent(invoices: str, context: AssetContext) -> str:
        tell("sent", context.partition)
        return invoices

    @asset(code_version="1")
    def invoiced(invoices: dict[str, str]) -> list[str]:
        tell("invoiced")
        return list(invoices)

    return [invoices, sent, invoiced]


async def test_keys_that_are_added_and_removed_after_the_plan(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, *_invoices()) as (offered, engine):
        await offered.add_partitions("customers", "ann", "bob", "cid")
        await offered.remove_partitions("customers", "ann")
        plan = await offered.plan()
        await offered.remove_partitions("customers", "bob")
        await offered.add_partitions("customers", "dan", "ann")
        assert (await run(offered, engine, plan)).counts == {"published": 5}
        assert told() == ["invoiced", "invoices[bob]", "invoices[cid]", "sent[bob]", "sent[cid]"]
        assert await offered.read("invoiced") == ["bob", "cid"]
        assert steps(await offered.plan()) == {
            "invoices[ann,dan]": ("missing",),
            "sent[ann,dan]": ("missing", "invoices is made first"),
            "invoiced": ("invoices changed", "invoices is made first"),
        }
        await materialize(offered, engine)
        assert await offered.read("invoiced") == ["ann", "cid", "dan"]


async def test_days_that_come_while_a_plan_waits(world: World, tmp_path: Path) -> None:
    @asset(partitions=Product(Dynamic("shops"), Daily("2025-12-31")), code_version="1")
    def takings(context: AssetContext) -> str:
        tell("takings", context.partition)
        return context.partition

    async with shop(world, tmp_path, takings) as (offered, engine):
        await offered.add_partitions("shops", "a")
        plan = await offered.plan()
        world.clock.advance(86_400)
        await offered.add_partitions("shops", "b")
        await run(offered, engine, plan)
        assert told() == ["takings[a|2025-12-31]"]


def _names(gate: asyncio.Event, *names: str) -> Any:
    @asset(partitions=Static(names), code_version="1")
    async def named(context: AssetContext) -> str:
        tell("named", context.partition)
        await gate.wait()
        return context.partition

    return named


async def test_a_plan_is_not_read_under_another_definition(world: World, tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with shop(world, tmp_path, _names(gate, "a", "b", "c")) as (offered, engine):
        plan = await offered.plan()
        one = await engine.start(offered.materialize(plan), id="one")
        await until(lambda: len(made) == 3)
    told()
    for others in (("a", "x", "b", "c"), ("a", "c")):
        async with shop(world, tmp_path, _names(gate, *others)) as (offered, engine):
            with pytest.raises(
                RunFailedError, match=r"the partitions .* of named are no longer those that were planned"
            ):
                await run(offered, engine, plan)
            with pytest.raises(RunSuspendedError):
                await soon(engine.run("one").result())
            assert told() == []
    gate.set()
    async with shop(world, tmp_path, _names(gate, "a", "b", "c")) as (offered, engine):
        one = engine.run("one")
        if (await one.state()).status == "suspended":
            await one.resume()
        assert (await soon(one.result()))["counts"] == {"published": 3}
    assert told() == ["named[a]", "named[b]", "named[c]"]


async def test_an_upstream_partition_that_vanishes(world: World, tmp_path: Path) -> None:
    def assets(*names: str) -> list[Any]:
        @asset(partitions=Static(names), code_version="1")
        def up(context: AssetContext) -> str:
            return context.partition

        @asset(partitions=Static(["a", "b"]), mappings={"up": SameKey()}, code_version="1")
        def down(up: str) -> str:
            tell("down", up)
            return up

        @asset(mappings={"up": AllPartitions()}, code_version="1")
        def all_of_it(up: dict[str, str]) -> list[str]:
            return list(up)

        return [up, down, all_of_it]

    async with shop(world, tmp_path, *assets("a", "b")) as (offered, engine):
        await materialize(offered, engine)
        told()
    async with shop(world, tmp_path, *assets("a")) as (offered, engine):
        plan = await offered.plan()
        assert steps(plan) == {"all_of_it": ("up changed",)}
        assert "down" in plan.blocked
        assert "no partition of up" in plan.blocked["down"]
        await run(offered, engine, plan)
        assert await offered.read("all_of_it") == ["a"]
        assert await offered.read("down", partition="b") == "b"


async def test_the_first_day_has_no_day_before(world: World, tmp_path: Path) -> None:
    days = Daily("2025-12-30", end="2026-01-01")
    before = TimeWindow(-1, -1)

    @asset(partitions=days, code_version="1")
    def day(context: AssetContext) -> str:
        return context.partition

    @asset(partitions=days, mappings={"day": before}, code_version="1")
    def by_day(day: dict[str, str]) -> list[str]:
        return list(day)

    @asset(partitions=days, mappings={"day": before}, code_version="1")
    def perhaps(day: str | None) -> str | None:
        return day

    @asset(partitions=days, mappings={"day": before}, code_version="1")
    def needed(day: str) -> str:
        return day

    async with shop(world, tmp_path, day, by_day, perhaps, needed) as (offered, engine):
        plan = await offered.plan()
        assert plan.blocked == {"needed": "no partition of day belongs to 1 partition"}
        await run(offered, engine, plan)
        for key, expected in (("by_day", [[], ["2025-12-30"]]), ("perhaps", [None, "2025-12-30"])):
            assert [await offered.read(key, partition=each) for each in ("2025-12-30", "2025-12-31")] == expected
        assert await offered.read("needed", partition="2025-12-31") == "2025-12-30"


async def test_an_upstream_asset_that_is_no_longer_one(world: World, tmp_path: Path) -> None:
    def assets(*deps: str) -> list[Any]:
        @asset(code_version="1")
        def one() -> int:
            return 1

        @asset(code_version="1")
        def two() -> int:
            return 2

        @asset(deps=deps, code_version="1")
        def both() -> int:
            tell("both")
            return 3

        return [one, two, both]

    async with shop(world, tmp_path, *assets("one", "two")) as (offered, engine):
        await materialize(offered, engine)
    async with shop(world, tmp_path, *assets("one")) as (offered, engine):
        assert steps(await offered.plan()) == {"both": ("no longer made from two",)}
        await materialize(offered, engine)
        assert (await offered.plan()).steps == ()
    assert told() == ["both", "both"]


async def test_what_was_read_is_written_once_for_those_who_read_it(memory: World, tmp_path: Path) -> None:
    days = Daily("2025-01-01", end="2026-01-01")

    @asset(partitions=days, code_version="1")
    async def day(context: AssetContext) -> int:
        return 1

    @asset(code_version="1")
    def year(day: dict[str, int]) -> int:
        return sum(day.values())

    async with shop(memory, tmp_path, day, year) as (offered, engine):
        handle = await engine.start(offered.materialize(await offered.plan("+year")))
        report = await soon(handle.result(), seconds=120)
        assert report.counts == {"published": 366}
        events = [each async for each in handle.events()]
        sizes = {
            each.event.task: len(each.payload or b"") for each in events if type(each.event).__name__ == "TaskScheduled"
        }
        assert sizes["asset:year"] > 50_000
        assert sizes["publish"] < 3_000
        assert await offered.read("year") == 365
