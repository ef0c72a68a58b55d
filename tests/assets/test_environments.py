"""Branches of the catalog: what is seen in them, and what comes of promoting and restoring."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.assets import AssetContext, Out, Static, asset, assets, environments, external_asset
from engine.errors import AssetError, AssetNotFound
from tests.assets.shop import materialize, shop, steps, told
from tests.runtime.worlds import World


async def test_what_was_only_observed_is_not_promoted(world: World, tmp_path: Path) -> None:
    source = external_asset("source", observe=lambda: "v1")

    @asset(deps=[source], code_version="1")
    def copied() -> int:
        return 1

    async with shop(world, tmp_path, source, copied) as (offered, engine):
        await offered.create_environment("dev")
        await materialize(offered, engine, environment="dev")
        assert [each.key for each in await offered.promote("dev")] == ["copied"]
        assert await offered.promote("dev") == []


async def test_what_a_branch_of_a_branch_shares_with_production_is_not_promoted(world: World, tmp_path: Path) -> None:
    @asset(code_version="1")
    def number() -> int:
        return 1

    async with shop(world, tmp_path, number) as (offered, engine):
        await offered.create_environment("dev")
        await offered.create_environment("mine", base="dev")
        await materialize(offered, engine, environment="mine")
        await materialize(offered, engine)
        assert await offered.promote("mine") == []
        assert (await (await offered.catalog("dev")).state("number")).as_of == 0


async def test_what_a_branch_has_made_hides_what_its_base_makes_later_until_it_is_reset(
    world: World, tmp_path: Path
) -> None:
    content = {"value": 1}

    @asset(code_version="1")
    def extracted() -> int:
        return content["value"]

    @asset(code_version="1")
    def doubled(extracted: int) -> int:
        return 2 * extracted

    async with shop(world, tmp_path, extracted, doubled) as (offered, engine):
        await offered.create_environment("dev")
        await materialize(offered, engine, environment="dev")
        content["value"] = 5
        await materialize(offered, engine)
        assert await offered.read("doubled", environment="dev") == 2
        assert [each.key for each in await offered.reset("dev", "extracted", by="ann")] == ["extracted"]
        assert await offered.reset("dev", "extracted") == []
        assert await offered.read("extracted", environment="dev") == 5
        assert steps(await offered.plan(environment="dev")) == {"doubled": ("extracted changed",)}
        await offered.reset("dev")
        assert (await offered.plan(environment="dev")).steps == ()
        assert await offered.read("doubled", environment="dev") == 10
        await offered.restore("extracted", 2, environment="dev")
        assert await offered.read("extracted", environment="dev") == 1
        with pytest.raises(AssetError, match="'prod' branches off nothing"):
            await offered.reset("prod")


async def test_a_promotion_takes_what_the_branch_has_while_it_moves_on(memory: World, tmp_path: Path) -> None:
    content = {"value": 1}

    @asset(code_version="1")
    def number() -> int:
        return content["value"]

    async with shop(memory, tmp_path, number) as (offered, engine):
        await offered.create_environment("dev")
        await materialize(offered, engine, environment="dev")

        async def moving() -> None:
            for value in range(2, 5):
                content["value"] = value
                await materialize(offered, engine, environment="dev", force=True)

        async def promoting() -> None:
            for _ in range(20):
                await offered.promote("dev")
                await asyncio.sleep(0)

        await asyncio.gather(moving(), promoting())
        await offered.promote("dev")
        assert await offered.read("number") == await offered.read("number", environment="dev") == 4


def _sides(version: str, right: int = 2) -> Any:
    @assets(outs={"left": Out(), "right": Out()}, code_version=version)
    def sides() -> tuple[int, int]:
        return 1, right

    return sides


async def test_one_of_several_assets_that_is_restored_stays_so(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, _sides("1")) as (offered, engine):
        await materialize(offered, engine)
        first = (await (await offered.catalog()).view(["right"]))["right"].current("")
        assert first is not None
    async with shop(world, tmp_path, _sides("2", right=3)) as (offered, engine):
        await materialize(offered, engine)
        assert (await offered.plan()).steps == ()
        await offered.restore("right", first.version)
        assert (await offered.plan()).steps == ()
        assert await offered.read("right") == 2
    async with shop(world, tmp_path, _sides("3", right=4)) as (offered, engine):
        assert steps(await offered.plan()) == {"left": ("code changed",)}
        assert (await materialize(offered, engine)).counts == {"published": 1}
        assert await offered.read("right") == 4


async def test_one_of_several_assets_that_is_promoted_alone_makes_the_function_stale(
    world: World, tmp_path: Path
) -> None:
    async with shop(world, tmp_path, _sides("1")) as (offered, engine):
        await materialize(offered, engine)
        await offered.create_environment("dev")
    async with shop(world, tmp_path, _sides("2")) as (offered, engine):
        await materialize(offered, engine, environment="dev")
        # As a crash between two assets leaves it.
        await environments.promote(offered.store, "dev", ["left"], clock=world.clock)
        assert steps(await offered.plan()) == {"left": ("code changed",)}
        with pytest.raises(AssetError, match="configuration for 'right', which 'left' makes"):
            await offered.plan(config={"right": {"x": 1}})
    assert told() == []


async def test_a_version_is_read_where_it_is_found(world: World, tmp_path: Path) -> None:
    """In what an environment branches off, too; and of no other partition than was asked for."""

    @asset(partitions=Static(["a", "b"]), code_version="1")
    async def part(context: AssetContext) -> str:
        return f"of {context.partition}"

    async with shop(world, tmp_path, part) as (offered, engine):
        await materialize(offered, engine)
        await offered.create_environment("dev")
        version = (await offered.version("part", partition="b")).version
        assert await offered.read("part", version=version) == "of b"
        assert await offered.read("part", partition="b", version=version) == "of b"
        with pytest.raises(AssetNotFound, match=f"part@{version} is of partition 'b', not 'a'"):
            await offered.read("part", partition="a", version=version)
        assert await offered.read("part", partition="b", version=version, environment="dev") == "of b"
