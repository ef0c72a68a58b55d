"""What is planned is made, in order, once, and only what has to be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import pytest

from engine.assets import (
    AssetContext,
    CheckContext,
    CheckResult,
    Config,
    Daily,
    Dynamic,
    In,
    Materialized,
    Monthly,
    Out,
    Output,
    Secret,
    Static,
    asset,
    assets,
    check,
    details_of,
    external_asset,
)
from engine.assets.code_versions import code_version_of
from engine.errors import AssetError, AssetNotFound, RunFailedError
from tests.assets.shop import made, materialize, run, scheduled, shop, steps, tell, told
from tests.runtime.worlds import World, soon, until

REGIONS = Static(["eu", "us"])


@asset
def numbers() -> list[int]:
    tell("numbers")
    return [1, 2, 3]


@asset
async def total(numbers: list[int]) -> int:
    tell("total")
    return sum(numbers)


@asset
def doubled(total: int) -> int:
    tell("doubled")
    return 2 * total


async def test_a_first_time_a_second_time_and_forced(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, numbers, total, doubled) as (offered, engine):
        plan = await offered.plan()
        assert steps(plan) == {
            "numbers": ("missing",),
            "total": ("missing", "numbers is made first"),
            "doubled": ("missing", "total is made first"),
        }
        assert (await run(offered, engine, plan)).counts == {"published": 3}
        assert made == ["numbers", "total", "doubled"]
        assert await offered.read("doubled", int) == 12
        made.clear()
        again = await offered.plan()
        assert (again.steps, again.unchanged) == ((), {"numbers": 1, "total": 1, "doubled": 1})
        assert (await run(offered, engine, again)).counts == {}
        assert told() == []
        report = await materialize(offered, engine, "total", force=True)
        assert report.counts == {"published": 1}
        assert told() == ["total"]


async def test_what_is_known_survives_the_engine(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, numbers, total) as (offered, engine):
        await materialize(offered, engine)
    async with shop(world, tmp_path, numbers, total, doubled) as (offered, engine):
        assert steps(await offered.plan()) == {"doubled": ("missing",)}
        await materialize(offered, engine)
    assert told() == ["doubled", "numbers", "total"]


def _of(version: str, value: Any, name: str = "numbers") -> Any:
    @asset(key=name, code_version=version)
    def function() -> list[int]:
        tell(name)
        return list(value)

    return function


async def test_another_code_with_the_same_content_stops_the_wave(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, _of("1", [1, 2]), total, doubled) as (offered, engine):
        await materialize(offered, engine)
    told()
    async with shop(world, tmp_path, _of("2", [1, 2]), total, doubled) as (offered, engine):
        plan = await offered.plan()
        assert steps(plan) == {
            "numbers": ("code changed",),
            "total": ("numbers is made first",),
            "doubled": ("total is made first",),
        }
        assert (await run(offered, engine, plan)).counts == {"published": 1, "unchanged": 2}
        assert told() == ["numbers"]
        assert (await offered.plan()).steps == ()
    async with shop(world, tmp_path, _of("3", [5]), total, doubled) as (offered, engine):
        assert (await materialize(offered, engine)).counts == {"published": 3}
        assert await offered.read("doubled") == 10
        assert told() == ["doubled", "numbers", "total"]


async def test_only_what_depends_on_a_change_is_made(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, _of("1", [1]), _of("1", [2], "others"), total) as (offered, engine):
        await materialize(offered, engine)
    told()
    async with shop(world, tmp_path, _of("1", [1]), _of("2", [3], "others"), total) as (offered, engine):
        assert await offered.stale() == ("others",)
        assert (await materialize(offered, engine, "stale")).counts == {"published": 1}
    assert told() == ["others"]


async def test_an_upstream_that_was_made_alone_makes_the_rest_stale(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, _of("1", [1]), total, doubled) as (offered, engine):
        await materialize(offered, engine)
    async with shop(world, tmp_path, _of("2", [2]), total, doubled) as (offered, engine):
        await materialize(offered, engine, "numbers")
        assert steps(await offered.plan("total+")) == {
            "total": ("numbers changed",),
            "doubled": ("total is made first",),
        }


async def test_what_is_upstream_and_not_there_blocks(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, numbers, total, doubled) as (offered, engine):
        plan = await offered.plan("doubled")
        assert plan.steps == ()
        assert "total" in plan.blocked["doubled"]
        assert (await run(offered, engine, plan)).counts == {}
        assert (await materialize(offered, engine, "+doubled")).counts == {"published": 3}


# ------------------------------------------------------------------------------------------------ partitions


@asset(partitions=Daily("2025-12-30", end="2026-01-01"))
def daily(context: AssetContext) -> int:
    tell("daily", context.partition)
    assert context.window is not None
    return context.window.start.day


@asset(partitions=Monthly("2025-12", end="2026-01"))
def monthly(daily: dict[str, int], context: AssetContext) -> dict[str, int]:
    tell("monthly", context.partition)
    return daily


@asset
def yearly(monthly: dict[str, dict[str, int]]) -> int:
    tell("yearly")
    return sum(sum(days.values()) for days in monthly.values())


async def test_partitions_go_into_the_windows_that_hold_them(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, daily, monthly, yearly) as (offered, engine):
        plan = await offered.plan()
        assert {(step.node, step.count) for step in plan.steps} == {("daily", 2), ("monthly", 1), ("yearly", 1)}
        assert (await run(offered, engine, plan)).counts == {"published": 4}
        assert made[-2:] == ["monthly[2025-12]", "yearly"]
        assert await offered.read("yearly") == 61
        assert await offered.read("monthly", partition="2025-12") == {"2025-12-30": 30, "2025-12-31": 31}
        with pytest.raises(AssetNotFound, match=r"monthly\[2025-11\]"):
            await offered.read("monthly", partition="2025-11")


async def test_some_partitions(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, daily, monthly) as (offered, engine):
        assert steps(await offered.plan("daily", partitions="2025-12-31")) == {"daily[2025-12-31]": ("missing",)}
        await materialize(offered, engine, "daily", partitions="2025-12-31")
        assert told() == ["daily[2025-12-31]"]
        plan = await offered.plan("daily")
        assert steps(plan) == {"daily[2025-12-30]": ("missing",)}
        assert plan.unchanged == {"daily": 1}
        with pytest.raises(AssetError, match="2025-12-29"):
            await offered.plan("daily", partitions="2025-12-29")
        blocked = await offered.plan("monthly")
        assert "daily" in blocked.blocked["monthly"]


async def test_partitions_that_come_with_time(world: World, tmp_path: Path) -> None:
    @asset(partitions=Daily("2025-12-31"))
    def days(context: AssetContext) -> str:
        tell("days", context.partition)
        return context.partition

    async with shop(world, tmp_path, days) as (offered, engine):
        await materialize(offered, engine)
        assert told() == ["days[2025-12-31]"]
        world.clock.advance(86_400)
        await materialize(offered, engine)
        assert told() == ["days[2026-01-01]"]


async def test_partitions_that_are_added(world: World, tmp_path: Path) -> None:
    @asset(partitions=Dynamic("customers"))
    def invoices(context: AssetContext) -> str:
        tell("invoices", context.partition)
        return context.partition

    @asset
    def invoiced(invoices: dict[str, str]) -> list[str]:
        tell("invoiced")
        return list(invoices)

    async with shop(world, tmp_path, invoices, invoiced) as (offered, engine):
        assert (await offered.plan("invoices")).steps == ()
        assert await offered.add_partitions("customers", "ann", "bob", by="me") == ("ann", "bob")
        assert await offered.add_partitions("customers", "bob", "cid") == ("cid",)
        await materialize(offered, engine)
        assert told() == ["invoiced", "invoices[ann]", "invoices[bob]", "invoices[cid]"]
        assert await offered.remove_partitions("customers", "bob", "nobody") == ("bob",)
        plan = await offered.plan()
        assert steps(plan) == {"invoiced": ("invoices changed",)}
        await run(offered, engine, plan)
        assert await offered.read("invoiced") == ["ann", "cid"]


# ------------------------------------------------------------------------------------------------ failures


@asset(partitions=REGIONS)
def sales(context: AssetContext) -> int:
    tell("sales", context.partition)
    if context.partition in broken:
        raise ValueError(f"{context.partition} is broken")
    return 1


@asset(partitions=REGIONS)
def tax(sales: int, context: AssetContext) -> int:
    tell("tax", context.partition)
    return sales


@asset
def summary(tax: dict[str, int]) -> int:
    tell("summary")
    return sum(tax.values())


@asset
def beside() -> int:
    tell("beside")
    return 0


broken: set[str] = set()


async def test_a_failure_stops_what_is_downstream_of_it_and_nothing_else(world: World, tmp_path: Path) -> None:
    broken.add("us")
    async with shop(world, tmp_path, sales, tax, summary, beside) as (offered, engine):
        with pytest.raises(
            RunFailedError, match=r"3 published, 1 failed, 2 skipped[\s\S]*sales\[us\]: ValueError: us is"
        ):
            await materialize(offered, engine)
        assert told() == ["beside", "sales[eu]", "sales[us]", "tax[eu]"]
        catalog = await offered.catalog()
        state = await catalog.state("sales")
        assert (state.of("us").failed is not None, state.of("eu").current is not None) == (True, True)
        skipped = (await catalog.state("summary")).of("").skipped
        assert skipped is not None
        assert skipped.because == ("tax[us]",)
        broken.clear()
        plan = await offered.plan()
        assert steps(plan) == {
            "sales[us]": ("missing", "failed last time"),
            "tax[us]": ("missing", "sales is made first"),
            "summary": ("missing", "tax is made first"),
        }
        assert (await run(offered, engine, plan)).counts == {"published": 3}
        assert told() == ["sales[us]", "summary", "tax[us]"]


async def test_checks_block_warn_and_are_recorded(world: World, tmp_path: Path) -> None:
    values = {"value": 20}

    @asset(code_version="1")
    def measured() -> int:
        tell("measured")
        return values["value"]

    @asset
    def used(measured: int) -> int:
        tell("used")
        return measured

    @check(measured)
    def small(measured: int, context: CheckContext) -> CheckResult:
        before = context.previous.data_version if context.previous else ""
        return CheckResult(
            measured < 10, f"{measured} is too much", rows=[{"measured": measured}], metadata={"was": before}
        )

    @check(measured, blocking=False)
    def even(measured: int) -> bool:
        return measured % 2 == 0

    @check(measured, blocking=False)
    async def raises(measured: int) -> bool:
        raise KeyError("no such thing")

    options = {"checks": [small, even, raises]}
    async with shop(world, tmp_path, measured, used, **options) as (offered, engine):
        with pytest.raises(RunFailedError, match=r"measured: checks did not pass: small \(20 is too much\)"):
            await materialize(offered, engine)
        assert told() == ["measured"]
        catalog = await offered.catalog()
        with pytest.raises(AssetNotFound):
            await offered.read("measured")
        event = await catalog.recorded("measured", (await catalog.state("measured")).as_of)
        outcomes = {each.name: each for each in details_of(event).checks}
        assert (outcomes["small"].passed, outcomes["small"].rows) == (False, ({"measured": 20},))
        assert (outcomes["even"].passed, outcomes["raises"].error) == (True, "KeyError: 'no such thing'")
        values["value"] = 7
        report = await materialize(offered, engine)
        assert report.counts == {"published": 2}
        assert [each.name for each in report.warnings["measured"]] == ["even", "raises"]
        assert (await offered.catalog()).base is None
        assert (await catalog.view(["measured"]))["measured"].current("").warnings == 2  # type: ignore[union-attr]
    assert told() == ["measured", "used"]


# ------------------------------------------------------------------------------------------------ kinds


async def test_several_from_one_function(world: World, tmp_path: Path) -> None:
    @assets(outs={"left": Out(), "right": Out("right/side", metadata={"side": "right"})})
    def halves(numbers: list[int]) -> tuple[list[int], list[int]]:
        tell("halves")
        return numbers[:1], numbers[1:]

    @asset
    def last(left: list[int], right: Annotated[list[int], In("right/side")]) -> int:
        return (left + right)[-1]

    async with shop(world, tmp_path, numbers, halves, last) as (offered, engine):
        assert (await materialize(offered, engine)).counts == {"published": 3}
        assert await offered.read("right/side") == [2, 3]
        assert await offered.read("last") == 3
        assert (await offered.plan()).steps == ()
    assert told() == ["halves", "numbers"]


async def test_what_lies_elsewhere_and_what_is_only_observed(world: World, tmp_path: Path) -> None:
    seen = {"version": "v1"}
    source = external_asset("source", observe=lambda: seen["version"])
    table: list[str] = []

    @asset(deps=[source], io="external")
    def loaded() -> Materialized:
        tell("loaded")
        table.append(seen["version"])
        return Materialized(data_version=seen["version"], metadata={"rows": len(table)})

    @asset(deps=[loaded])
    def counted() -> int:
        tell("counted")
        return len(table)

    async with shop(world, tmp_path, source, loaded, counted) as (offered, engine):
        assert (await materialize(offered, engine)).counts == {"published": 3}
        assert told() == ["counted", "loaded"]
        assert (await materialize(offered, engine)).counts == {"published": 1, "unchanged": 2}
        assert told() == []
        seen["version"] = "v2"
        assert (await materialize(offered, engine)).counts == {"published": 3}
        assert told() == ["counted", "loaded"]


class Fee(Config):
    percent: int = 10
    key: Secret = Secret("FEE_KEY")


class Bank:
    def __init__(self, name: str) -> None:
        self.name = name


@asset
def fee(total: int, config: Fee, bank: Bank, context: AssetContext) -> Output[str]:
    tell("fee")
    assert context.secret(config.key) == "hush hush"
    return Output(f"{bank.name}:{total * config.percent}", metadata={"percent": config.percent})


async def test_configuration_is_provenance_and_resources_are_not(world: World, tmp_path: Path) -> None:
    secrets = {"FEE_KEY": "hush hush"}
    async with shop(world, tmp_path, numbers, total, fee, resources=[Bank("a")], secrets=secrets) as (offered, engine):
        await materialize(offered, engine)
        assert await offered.read("fee") == "a:60"
        events = [each async for each in engine.store.read_all()]
        assert not [each for each in events if b"hush hush" in each.header + (each.payload or b"")]
    async with shop(world, tmp_path, numbers, total, fee, resources=[Bank("b")], secrets=secrets) as (offered, engine):
        assert (await offered.plan()).steps == ()
        config = {"fee": {"percent": 20}}
        assert steps(await offered.plan(config=config)) == {"fee": ("configuration changed",)}
        await materialize(offered, engine, config=config)
        assert await offered.read("fee") == "b:120"
        with pytest.raises(AssetError, match="fee.*percentage"):
            await offered.plan(config={"fee": {"percentage": 20}})
        with pytest.raises(AssetError, match="fees"):
            await offered.plan(config={"fees": {}})
    async with shop(world, tmp_path, numbers, total, fee, resources=[Bank("c")]) as (offered, engine):
        with pytest.raises(RunFailedError, match="there is no secret 'FEE_KEY'"):
            await materialize(offered, engine, "fee", force=True)


# ------------------------------------------------------------------------------------------------ environments


async def test_a_branch_shares_what_it_has_not_made_and_is_promoted_without_computing(
    world: World, tmp_path: Path
) -> None:
    async with shop(world, tmp_path, _of("1", [1]), total, doubled) as (offered, engine):
        await materialize(offered, engine)
        await offered.create_environment("dev", by="ann")
        assert (await offered.plan(environment="dev")).steps == ()
        with pytest.raises(AssetError, match="there is no environment 'staging'"):
            await offered.plan(environment="staging")
    told()
    async with shop(world, tmp_path, _of("2", [5]), total, doubled) as (offered, engine):
        await materialize(offered, engine, "numbers", "total", environment="dev")
        assert told() == ["numbers", "total"]
        assert await offered.read("total", environment="dev") == 5
        assert await offered.read("total") == 1
        assert await offered.read("doubled", environment="dev") == 2
        promoted = await offered.promote("dev", by="ann", reason="checked")
        assert [each.key for each in promoted] == ["numbers", "total"]
        assert await offered.promote("dev") == []
        assert await offered.read("total") == 5
        assert steps(await offered.plan()) == {"doubled": ("total changed",)}
        await materialize(offered, engine)
        assert told() == ["doubled"]


async def test_an_earlier_version_is_restored(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, _of("1", [1]), total) as (offered, engine):
        await materialize(offered, engine)
        first = (await (await offered.catalog()).view(["numbers"]))["numbers"].current("")
    async with shop(world, tmp_path, _of("2", [2]), total) as (offered, engine):
        await materialize(offered, engine)
        assert first is not None
        await offered.restore("numbers", first.version, by="ann", reason="the second one was wrong")
        assert await offered.read("numbers") == [1]
        assert await offered.read("numbers", version=first.version) == [1]
        assert steps(await offered.plan()) == {"total": ("numbers changed",)}, "what was restored stays"
        assert (await materialize(offered, engine)).counts == {"published": 1}
        assert await offered.read("total") == 1
        assert (await offered.plan()).steps == ()
        with pytest.raises(AssetNotFound, match="numbers@99"):
            await offered.restore("numbers", 99)
    async with shop(world, tmp_path, _of("3", [3]), total) as (offered, engine):
        assert steps(await offered.plan("numbers")) == {"numbers": ("code changed",)}, (
            "until it would come out otherwise"
        )


# ------------------------------------------------------------------------------------------------ at once


async def test_two_runs_at_once_make_nothing_twice(world: World, tmp_path: Path) -> None:
    gate = asyncio.Event()

    @asset(code_version="1")
    async def slow() -> int:
        tell("slow")
        await gate.wait()
        return 1

    @asset
    def quick(slow: int) -> int:
        tell("quick")
        return slow

    async with shop(world, tmp_path, slow, quick) as (offered, engine):
        plan = await offered.plan()
        one = await engine.start(offered.materialize(plan), id="one")
        await until(lambda: made)
        two = await engine.start(offered.materialize(plan), id="two")
        catalog = await offered.catalog()
        async with asyncio.timeout(30):
            while not any([event.task == "begin" async for event in scheduled(two)]):
                await asyncio.sleep(0.01)
        gate.set()
        assert (await soon(one.result())).counts == {"published": 2}
        assert (await soon(two.result())).counts == {"unchanged": 2}
        assert told() == ["quick", "slow"]
        assert (await catalog.state("slow")).of("").current.run == "one"  # type: ignore[union-attr]


async def test_the_code_version_of_an_asset_is_that_of_its_function(memory: World, tmp_path: Path) -> None:
    async with shop(memory, tmp_path, numbers) as (offered, engine):
        await materialize(offered, engine)
        current = (await (await offered.catalog()).view(["numbers"]))["numbers"].current("")
        assert current is not None
        assert current.code_version == code_version_of(numbers.fn, "here")  # type: ignore[arg-type]
