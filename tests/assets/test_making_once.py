"""Two runs on one store make nothing twice, and wait for each other no longer than they must."""

from __future__ import annotations

import asyncio
from pathlib import Path

from engine.assets import (
    AssetFailed,
    AssetPromoted,
    AssetPublished,
    AssetSkipped,
    AssetStarted,
    AssetState,
    AssetUnchanged,
    asset,
)
from engine.assets.catalog import fold
from tests.assets.shop import materialize, shop
from tests.runtime.worlds import World


def test_what_another_run_says_does_not_end_a_making() -> None:
    published = {"code_version": "1", "data_version": "d", "provenance": "p"}
    for said in (
        AssetPublished(at=2, run="two", **published),
        AssetPromoted(at=2, run="two", environment="dev", version=1, **published),
        AssetFailed(at=2, run="two"),
        AssetSkipped(at=2, run="two", because=("x",)),
        AssetUnchanged(at=2, run="two", provenance="p"),
    ):
        state = AssetState(key="a", environment="prod", partitions={}, published={})
        started = AssetStarted(at=1, run="one", provenance="p")
        fold(state, started, 1)
        fold(state, said, 2)
        assert state.of("").started == started, said
        fold(state, AssetFailed(at=3, run="one"), 3)
        assert state.of("").started is None


async def test_limits_of_assets_are_known_when_the_engine_opens(world: World, tmp_path: Path) -> None:
    @asset(rate="1000/s", code_version="1")
    async def limited() -> int:
        await asyncio.sleep(0)
        return 1

    async with shop(world, tmp_path, limited) as (offered, engine):
        assert (await materialize(offered, engine)).counts == {"published": 1}
