"""Branches of the catalog: what is seen in them, and what comes of promoting and restoring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.assets import Out, asset, assets, environments, external_asset
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
    assert told() == []
