"""Assets that are made in worker processes, or refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from engine.assets import Assets, Definitions, asset, details_of
from engine.assets.elsewhere import Address, _bench
from engine.errors import AssetDefinitionError, AssetError, RunFailedError
from engine.storage import Storage
from tests.assets import plant
from tests.runtime.worlds import World, soon

SECONDS = 180.0
"""A fresh interpreter takes its time on a slow machine."""


async def test_assets_are_made_in_worker_processes(
    memory: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANT_KEY", "hush hush")
    store = await memory.store()
    offered = Assets(plant.definitions, store, storage=Storage(tmp_path), clock=memory.clock)
    async with Engine(store, workflows=offered.workflows, clock=memory.clock, grace=0, processes=1) as engine:
        plan = await offered.plan("+cut", config={"cut": {"size": 4}})
        run = await engine.start(offered.materialize(plan))
        assert (await soon(run.result(), seconds=SECONDS)).counts == {"published": 4}
        value: Any = await offered.read("cut", partition="2025-12")
        assert (value["text"], value["secret"]) == ("2025", 9)
        assert value["process"] == value["meter"] != os.getpid()
        catalog = await offered.catalog()
        current = (await catalog.state("cut")).of("2025-12").current
        assert current is not None
        assert details_of(await catalog.recorded("cut", current.version)).metadata == {"size": 4}
        run = await engine.start(offered.materialize(await offered.plan("breaks")))
        with pytest.raises(
            RunFailedError, match=r"breaks: AssetError: RuntimeError: 2 \*\*\* \(raised at plant.py:\d+\)"
        ):
            await soon(run.result(), seconds=SECONDS)
        events = [each async for each in engine.store.read_all()]
        assert not [each for each in events if b"hush hush" in each.header + (each.payload or b"")]


async def test_definitions_that_no_other_process_finds_are_refused(memory: World, tmp_path: Path) -> None:
    @asset(executor="processes", code_version="1")
    def hidden() -> int:
        return 1

    store = await memory.store()
    with pytest.raises(AssetDefinitionError, match=r"test_elsewhere.py:\d+: asset hidden has executor='processes'"):
        Assets(Definitions([hidden]), store, storage=Storage(tmp_path))


def test_a_coroutine_function_is_refused() -> None:
    with pytest.raises(AssetDefinitionError, match=r"test_elsewhere.py:\d+: it is an `async def`"):

        @asset(executor="processes", code_version="1")
        async def waits() -> int:
            return 1


def test_what_a_worker_process_does_not_find(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="no Definitions 'nothing'"):
        _bench(Address(module="tests.assets.plant", name="nothing"))
    file = tmp_path / "lone_plant.py"
    file.write_text("from engine.assets import Definitions\nthere = Definitions([])\n")
    found = _bench(Address(module="lone_plant", name="there", file=str(file), storage=str(tmp_path)))
    assert found.storage.name == str(tmp_path)
