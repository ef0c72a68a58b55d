"""What is said of what fails, and that nothing else fails for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tenacity import stop_after_attempt

from engine.assets import (
    AssetContext,
    AssetFailed,
    CheckContext,
    CheckResult,
    Daily,
    asset,
    check,
    details_of,
    pinning,
    read_event,
)
from engine.errors import RunFailedError
from tests.assets.shop import materialize, run, shop, told
from tests.runtime.worlds import World, soon, until


async def _last(offered: Any, key: str) -> Any:
    catalog = await offered.catalog()
    return await catalog.recorded(key, (await catalog.state(key)).as_of)


async def test_an_error_says_type_text_and_the_line_where_it_was_raised(world: World, tmp_path: Path) -> None:
    def inner() -> None:
        raise LookupError("no such table")

    line = inner.__code__.co_firstlineno + 1

    @asset(code_version="1")
    def broken() -> int:
        inner()
        return 1

    async with shop(world, tmp_path, broken) as (offered, engine):
        with pytest.raises(RunFailedError):
            await materialize(offered, engine)
        recorded = await _last(offered, "broken")
        assert isinstance(read_event(recorded), AssetFailed)
        place = f"test_asset_failures.py:{line}"
        assert details_of(recorded).error == f"LookupError: no such table (raised at {place})"


async def test_no_secret_is_told_by_an_error_or_a_check(world: World, tmp_path: Path) -> None:
    @asset(code_version="1")
    async def asked(context: AssetContext) -> int:
        address = f"postgres://me:{context.secret('PASSWORD')}@db"
        try:
            raise OSError(f"cannot reach {address}")
        except OSError as error:
            raise RuntimeError("no data") from error

    @asset(code_version="1")
    def checked() -> int:
        return 1

    @check(checked)
    def reached(checked: int, context: AssetContext) -> bool:
        raise OSError(f"cannot reach {checked} {context.secret('PASSWORD')}")

    options: dict[str, Any] = {"checks": [reached], "secrets": {"PASSWORD": "hush hush"}}
    async with shop(world, tmp_path, asked, checked, **options) as (offered, engine):
        with pytest.raises(RunFailedError, match=r"2 failed"):
            await materialize(offered, engine)
        events = [each async for each in engine.store.read_all()]
        assert not [each for each in events if b"hush hush" in each.header + (each.payload or b"")]
        assert details_of(await _last(offered, "asked")).error.startswith(
            "AssetError: RuntimeError: no data (raised at"
        )
        (outcome,) = details_of(await _last(offered, "checked")).checks
        assert (outcome.error, outcome.where.partition(":")[0]) == (
            "AssetError: OSError: cannot reach 1 ***",
            "test_asset_failures.py",
        )


async def test_what_cannot_be_begun_fails_alone(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinning, "INPUT_VERSIONS_MAX", 1)

    @asset(partitions=Daily("2025-12-30", end="2026-01-01"), code_version="1")
    def days() -> int:
        return 1

    @asset(code_version="1")
    def whole(days: dict[str, int]) -> int:
        return len(days)

    @asset(code_version="1")
    def beside() -> int:
        return 1

    async with shop(world, tmp_path, days, whole, beside) as (offered, engine):
        with pytest.raises(RunFailedError, match="3 published, 1 failed.*\n.*whole: AssetError: whole would read 2"):
            await materialize(offered, engine)
        assert (await (await offered.catalog()).state("whole")).of("").failed is not None


class Hostile(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


async def test_hostile_errors_and_results_of_checks_fail_their_asset_alone(world: World, tmp_path: Path) -> None:
    class bool_:  # noqa: N801 - as numpy calls it
        def item(self) -> bool:
            return True

    @asset(code_version="1")
    def one() -> int:
        return 1

    @asset(code_version="1")
    def two() -> int:
        return 2

    @check(one)
    def raises(one: int) -> bool:
        raise Hostile

    @check(two)
    def numpy(two: int) -> Any:
        return bool_()

    async with shop(world, tmp_path, one, two, checks=[raises, numpy]) as (offered, engine):
        with pytest.raises(RunFailedError, match=r"1 published, 1 failed.*\n.*one: .*Hostile, whose text"):
            await materialize(offered, engine)
    assert told() == []


async def test_a_report_names_warnings_and_leaves_their_rows_in_the_log(world: World, tmp_path: Path) -> None:
    @asset(code_version="1")
    def some() -> int:
        return 1

    @check(some, blocking=False)
    def fussy(some: int, context: CheckContext) -> CheckResult:
        return CheckResult(False, f"{context.key} is {some}", rows=[{"row": some}])

    async with shop(world, tmp_path, some, checks=[fussy]) as (offered, engine):
        report = await materialize(offered, engine)
        assert [(each.description, each.rows) for each in report.warnings["some"]] == [("some is 1", ())]
        assert details_of(await _last(offered, "some")).checks[0].rows == ({"row": 1},)


async def test_a_plan_of_other_definitions_is_refused_and_says_so(memory: World, tmp_path: Path) -> None:
    @asset(code_version="1")
    def orders() -> int:
        return 1

    @asset(code_version="1")
    def order() -> int:
        return 1

    async with shop(memory, tmp_path, orders) as (offered, _):
        plan = await offered.plan()
    async with shop(memory, tmp_path, order) as (offered, engine):
        with pytest.raises(
            RunFailedError, match=r"other definitions.*there is no asset 'orders'. Did you mean 'order'"
        ):
            await run(offered, engine, plan)


async def test_attempts_that_fail_or_take_too_long_publish_once_and_leave_nothing_begun(
    world: World, tmp_path: Path
) -> None:
    tried: list[str] = []
    never = asyncio.Event()

    @asset(code_version="1", stop=stop_after_attempt(3), timeout=60)
    async def slow() -> int:
        tried.append("slow")
        if len(tried) == 1:
            await never.wait()
        return len(tried)

    @asset(code_version="1", stop=stop_after_attempt(2))
    async def flaky(slow: int) -> int:
        tried.append("flaky")
        raise OSError("away")

    async with shop(world, tmp_path, slow, flaky) as (offered, engine):
        handle = await engine.start(offered.materialize(await offered.plan()))
        await until(lambda: tried)
        async with asyncio.timeout(60):
            while len(tried) < 2:
                world.clock.advance(61)
                await asyncio.sleep(0.01)
        with pytest.raises(RunFailedError, match=r"1 published, 1 failed; failed:\n  flaky: OSError: away"):
            await soon(handle.result())
        assert tried == ["slow", "slow", "flaky", "flaky"]
        catalog = await offered.catalog()
        for key in ("slow", "flaky"):
            assert (await catalog.state(key)).of("").started is None
        events = [read_event(each) async for each in offered.store.read("asset:prod/slow")]
        assert [type(each).__name__ for each in events] == ["AssetStarted", "AssetPublished"]
        assert await offered.read("slow") == 2
