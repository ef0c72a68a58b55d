"""A lab with a storage: large values and tables in runs whose time only the test turns."""

from __future__ import annotations

import asyncio
from pathlib import Path

import polars as pl
import pytest

from engine import task, testing, workflow
from engine.errors import NotRecordable, PayloadTooLarge
from engine.storage import Storage


@task
async def frame(rows: int) -> pl.DataFrame:
    return pl.DataFrame({"a": list(range(rows))})


@task
def total(rows: pl.DataFrame) -> int:
    return int(rows["a"].sum())


@task
async def text(length: int) -> str:
    return "x" * length


@workflow
async def nightly(rows: int) -> str:
    found = await frame(rows)
    await asyncio.sleep(3600)
    async with asyncio.timeout(5):
        return f"{await total(found)} {len(await text(500_000))}"


@pytest.mark.parametrize("kind", [str, Storage])
async def test_time_passes_only_when_everybody_waits_for_it(tmp_path: Path, kind: type) -> None:
    async with testing.engine(nightly, storage=kind(str(tmp_path / "values"))) as lab:
        assert await lab.run(nightly(10)) == "45 500000"
        run = await lab.start(nightly(3))
        await lab.crash()
        assert await lab.result(lab.engine.run(run.id)) == "3 500000"
    assert list((tmp_path / "values").glob("??/*.parquet"))


async def test_fakes_return_what_is_large(tmp_path: Path) -> None:
    async with testing.engine(nightly, storage=str(tmp_path / "values")) as lab:
        lab.fake(frame, returns=pl.DataFrame({"a": [1, 2]}))
        lab.fake(text, returns="y" * 300_000)
        assert await lab.run(nightly(10)) == "3 300000"
        (call,) = lab.calls(total)
        assert call.arguments["rows"].equals(pl.DataFrame({"a": [1, 2]}))
    async with testing.engine(nightly) as lab:
        with pytest.raises(NotRecordable, match="tables travel through a storage"):
            lab.fake(frame, returns=pl.DataFrame({"a": [1, 2]}))
        with pytest.raises(PayloadTooLarge):
            lab.fake(text, returns="y" * 300_000)


@workflow
async def short() -> int:
    return 1


@pytest.mark.parametrize("stored", [False, True])
async def test_what_a_lab_keeps_can_be_taken_away(tmp_path: Path, stored: bool) -> None:
    """With a storage and without one: the store of a lab has all that the memory store has."""
    async with testing.engine(short, storage=str(tmp_path / "values") if stored else None) as lab:
        run = await lab.start(short())
        assert await lab.result(run) == 1
        assert await lab.engine.destroy_payloads(run.id, by="ann", reason="request 7") == 2
        assert await lab.engine.prune(run.id, by="ann", reason="policy") >= 2
