"""What docs/storage.md shows, as it stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl

from engine import Engine, task, workflow
from engine.storage import Storage, data_version


@task
def extract(day: str) -> pl.DataFrame:
    return pl.DataFrame({"day": [day] * 3, "amount": [10, 20, 30]})


@task
async def total(rows: pd.DataFrame) -> int:
    return int(rows["amount"].sum())


@workflow
async def nightly(day: str) -> int:
    rows = await extract(day)
    return await total(rows.to_pandas())


async def test_values_in_a_storage(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pl.DataFrame({"id": [1, 2], "name": ["ann", None]})

    storage = Storage("values")  # or "file:///srv/values", "s3://bucket/values", ...
    stored = await storage.write(frame)
    assert (stored.format, stored.rows) == ("parquet", 2)

    again = await storage.read(stored, pd.DataFrame)
    assert data_version(pl.from_pandas(again)) == data_version(frame) == stored.data_version

    async with storage.local_path(stored) as path:
        names = duckdb.sql(f"SELECT count(name) FROM read_parquet('{path}')").fetchall()
    assert names == [(1,)]

    swept = await storage.sweep(keep=[stored])
    assert (swept.objects, swept.kept) == (0, 1)


async def test_an_engine_with_a_storage(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    async with Engine("sqlite:///runs.db", workflows=[nightly], storage=Storage("values")) as engine:
        run = await engine.start(nightly("2026-01-31"))
        assert await run.result() == 60
    assert len(list(Path("values").glob("*/*.parquet"))) == 2
