"""One asset in several parameters: other partitions of it in each; and what checks read beside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from engine.assets import AllPartitions, AssetContext, Daily, In, SameKey, TimeWindow, asset, check, details_of
from tests.assets.shop import materialize, shop, steps, tell, told
from tests.runtime.worlds import World

DAYS = Daily("2025-12-29", end="2026-01-01")


def _assets(version: str = "1") -> list[Any]:
    @asset(partitions=DAYS, code_version=version)
    def level(context: AssetContext) -> int:
        return int(context.partition[-2:]) * int(version)

    @asset(partitions=DAYS, code_version="1")
    def change(
        today: Annotated[int, In("level")],
        yesterday: Annotated[int | None, In("level", mapping=TimeWindow(-1, -1))],
        context: AssetContext,
    ) -> int | None:
        tell("change", context.partition)
        return None if yesterday is None else today - yesterday

    return [level, change]


async def test_today_and_yesterday(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, *_assets()) as (offered, engine):
        await materialize(offered, engine)
        days = ["2025-12-29", "2025-12-30", "2025-12-31"]
        assert [await offered.read("change", partition=day) for day in days] == [None, 1, 1]
        assert (await offered.plan()).steps == ()
        current = (await (await offered.catalog()).view(["change"]))["change"].current(days[1])
        assert current is not None
        assert list(current.inputs) == ["level", "level#yesterday"]
        upstream = details_of(await (await offered.catalog()).recorded("change", current.version)).upstream
        assert [(each.key, each.versions[0].partition) for each in upstream] == [("level", days[1]), ("level", days[0])]
        up = await offered.lineage("change", partition=days[1])
        assert {(each.key, each.partition) for each in up.versions if each.key == "level"} == {
            ("level", days[0]),
            ("level", days[1]),
        }
        down = await offered.lineage("level", partition=days[0], direction="down")
        assert {each.partition for each in down.versions if each.key == "change"} == {days[0], days[1]}
    told()
    async with shop(world, tmp_path, *_assets("2")) as (offered, engine):
        await materialize(offered, engine, "level", partitions="2025-12-30")
        assert steps(await offered.plan("change")) == {"change[2025-12-30..2025-12-31]": ("level changed",)}
        assert (await materialize(offered, engine, "change")).counts == {"published": 2}
        assert await offered.read("change", partition="2025-12-30") == 31
    assert told() == ["change[2025-12-30]", "change[2025-12-31]"]


async def test_a_check_reads_other_partitions_than_its_asset_and_what_that_only_waits_for(
    world: World, tmp_path: Path
) -> None:
    seen: list[Any] = []

    @asset(partitions=DAYS, code_version="1")
    def level(context: AssetContext) -> int:
        return int(context.partition[-2:])

    @asset(code_version="1")
    def limit() -> int:
        return 100

    @asset(partitions=DAYS, deps=[limit], code_version="1")
    def change(level: int) -> int:
        return level

    @check(change)
    def plausible(
        change: int,
        everything: Annotated[dict[str, int], In("level", mapping=AllPartitions())],
        same: Annotated[int, In("level", mapping=SameKey())],
        limit: int,
    ) -> bool:
        seen.append((change, sorted(everything.values()), same, limit))
        return True

    async with shop(world, tmp_path, level, limit, change, checks=[plausible]) as (offered, engine):
        await materialize(offered, engine)
        assert (await offered.plan()).steps == ()
    assert sorted(seen) == [(day, [29, 30, 31], day, 100) for day in (29, 30, 31)]
