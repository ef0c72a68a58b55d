"""The flights as assets, on every thirtieth flight of the year: what is made, what is not made again, what stops what."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import shutil
import signal
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pytest

from engine import Engine
from engine.assets import Assets, Plan, Report, details_of
from engine.errors import RunFailedError
from eventstore.urls import open_store
from tests.cli import command
from tests.cli.command import Command
from tests.examples.conftest import EXAMPLES

EVERY = 30
MONTHS = [f"2013-{month:02}" for month in range(1, 13)]
SCORED = MONTHS[6:]
RAW = ["airlines", "airports", "planes", "weather", "flights"]


def load(path: Path) -> ModuleType:
    """A file as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"flights_assets_{abs(hash(path))}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load(EXAMPLES / "flights_assets.py")


@pytest.fixture(scope="module")
def package(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, with few of the flights."""
    full, folder = example.Package()._folder(), tmp_path_factory.mktemp("package")
    for name in RAW[:-1]:
        shutil.copy(full / f"{name}.csv", folder)
    with zipfile.ZipFile(full / "flights.csv.zip") as archive, archive.open("flights.csv") as packed:
        header, *lines = io.TextIOWrapper(packed, "utf-8", newline="").readlines()
    write_flights(folder, [header, *lines[::EVERY]])
    return folder


def write_flights(folder: Path, lines: list[str]) -> None:
    (folder / "flights.csv").write_text("".join(lines), encoding="utf-8", newline="")


@asynccontextmanager
async def opened(module: ModuleType, package: Path, folder: Path) -> AsyncIterator[tuple[Assets, Engine]]:
    """The module's assets, of that package, on the store of a folder."""
    definitions = module.defined(module.Package(package), folder / "flights-out")
    store = await open_store(f"sqlite:///{folder}/holdfast.db?synchronous=NORMAL")
    try:
        assets = Assets(definitions, store)
        async with Engine(store, workflows=assets.workflows) as engine:
            yield assets, engine
    finally:
        await store.aclose()


async def run(assets: Assets, engine: Engine, plan: Plan) -> Report:
    handle = await engine.start(assets.materialize(plan))
    return await handle.result()


async def versions(assets: Assets) -> dict[str, str]:
    """The data version of each partition of each asset."""
    views = await (await assets.catalog()).view(assets.definitions.specs)
    return {
        f"{key}[{partition}]": version.data_version
        for key, view in views.items()
        for partition in view.known()
        if (version := view.current(partition)) is not None
    }


def steps(plan: Plan) -> dict[str, int]:
    return {step.node: step.count for step in plan.steps}


class Made:
    """A folder in which all of it was made once, and what came of it."""

    def __init__(self, folder: Path, report: Report, versions: dict[str, str]) -> None:
        self.folder, self.report, self.versions = folder, report, versions

    def copy(self, to: Path) -> Path:
        return Path(shutil.copytree(self.folder, to / "copy"))


@pytest.fixture(scope="module")
def made(example: ModuleType, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")

    async def make() -> Made:
        async with opened(example, package, folder) as (assets, engine):
            report = await run(assets, engine, await assets.plan())
            return Made(folder, report, await versions(assets))

    return asyncio.run(make())


async def test_all_of_it_is_made_once(example: ModuleType, package: Path, made: Made, tmp_path: Path) -> None:
    assert made.report.counts == {"published": 37}
    folder = made.copy(tmp_path)
    async with opened(example, package, folder) as (assets, engine):
        again = await assets.plan()
        assert again.steps == ()
        assert (await run(assets, engine, again)).counts == {}
        assert await versions(assets) == made.versions

        page = await assets.read("report", str)
        assert page.startswith("<!doctype html>") and "Which flights from New York arrive late?" in page
        months: dict[str, pa.Table] = {name: await assets.read("joined", pa.Table, partition=name) for name in MONTHS}
        with example.database(str(folder / "flights-out" / "flights.duckdb")) as db:
            loaded = example.rows(db, "SELECT strftime(time_hour, '%Y-%m'), count(*) FROM flights GROUP BY ALL")
            columns = [name for name, *_ in example.rows(db, "DESCRIBE flights")]
        assert sum(count for _, count in loaded) == sum(table.num_rows for table in months.values()) > 10_000
        assert columns == months["2013-01"].column_names

        catalog = await assets.catalog()
        view = (await catalog.view(["delay_model"]))["delay_model"]
        for name in SCORED:
            current = view.current(name)
            assert current is not None
            said = details_of(await catalog.recorded("delay_model", current.version)).metadata
            trained = await assets.read("delay_model", example.Trained, partition=name)
            assert (said["auc"], said["flights"]) == (trained.score.auc, trained.score.flights)
            assert 0.5 < trained.score.auc < 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("LATE_MINUTES = 15 ", "LATE_MINUTES = 30 ", {"joined": 12, "warehouse": 12, "delay_model": 6, "report": 1}),
        ("if name < month]", "if name <= month]", {"delay_model": 6, "report": 1}),
        ("modules=[model]", "modules=[page]", {"delay_model": 6, "report": 1}),
        ("GROUP BY {by} ORDER BY {by}", "GROUP BY {by}  ORDER BY {by}", {"report": 1}),
        ("INSERT INTO flights BY NAME", "INSERT INTO flights  BY NAME", {"warehouse": 12}),
        ("# ── Transform and load", "# ── And now for something else", {}),
        ('"""Carriers by their two letters."""', '"""Carriers."""', {}),
    ],
)
async def test_a_change_of_one_function_is_a_plan_of_what_depends_on_it(
    old: str, new: str, expected: dict[str, int], package: Path, made: Made, tmp_path: Path
) -> None:
    changed = edited(tmp_path, old, new)
    async with opened(changed, package, made.copy(tmp_path)) as (assets, _):
        assert steps(await assets.plan()) == expected


def edited(folder: Path, old: str, new: str) -> ModuleType:
    text = (EXAMPLES / "flights_assets.py").read_text(encoding="utf-8")
    assert text.count(old) == 1
    path = folder / "flights_assets.py"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return load(path)


async def test_a_change_that_changes_nothing_stops_the_wave(package: Path, made: Made, tmp_path: Path) -> None:
    changed = edited(tmp_path, 'package.table("planes")', 'package.table("planes").slice(0)')
    async with opened(changed, package, made.copy(tmp_path)) as (assets, engine):
        plan = await assets.plan()
        assert steps(plan) == {"planes": 1, "quality": 1, "joined": 12, "warehouse": 12, "delay_model": 6, "report": 1}
        assert (await run(assets, engine, plan)).counts == {"published": 1, "unchanged": 32}
        assert (await assets.plan()).steps == ()
        assert await versions(assets) == made.versions


async def test_a_change_is_made_where_it_leads_to(package: Path, made: Made, tmp_path: Path) -> None:
    changed = edited(tmp_path, "ORDER BY {by}", "ORDER  BY {by}")
    async with opened(changed, package, made.copy(tmp_path)) as (assets, engine):
        report = await run(assets, engine, await assets.plan())
        assert report.nodes == {"report": {"published": 1}}
        assert await versions(assets) == made.versions


async def test_a_broken_month_stops_what_is_made_of_it_alone(
    example: ModuleType, package: Path, made: Made, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(package, tmp_path / "package"))
    lines = (broken / "flights.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    write_flights(broken, [line for line in lines if not line.startswith("2013,2,")])
    async with opened(example, broken, tmp_path) as (assets, engine):
        handle = await engine.start(assets.materialize(await assets.plan()))
        with pytest.raises(
            RunFailedError, match=r"32 published, 1 failed, 4 skipped[\s\S]*joined\[2013-02\].*row_count"
        ):
            await handle.result()
        missing = made.versions.keys() - (await versions(assets)).keys()
        assert missing == {
            "joined[2013-02]",
            "warehouse[2013-02]",
            "delay_model[2013-07]",  # of the six months before it
            "delay_model[2013-08]",
            "report[]",
        }
        skipped = (await (await assets.catalog()).state("warehouse")).of("2013-02").skipped
        assert skipped is not None and skipped.because == ("joined[2013-02]",)

    async with opened(example, package, tmp_path) as (assets, engine):
        await run(assets, engine, await assets.plan("key:flights", force=True))
        report = await run(assets, engine, await assets.plan())
        assert report.nodes["warehouse"] == {"published": 1, "unchanged": 11}
        assert report.nodes["delay_model"] == {"published": 2, "unchanged": 4}
        assert await versions(assets) == made.versions


async def test_killed_at_any_moment_it_comes_to_the_same_versions(
    example: ModuleType, package: Path, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "DEADLINE_SECONDS", 180.0)
    (tmp_path / "thin.py").write_text(
        f"import sys\nsys.path.insert(0, {str(EXAMPLES)!r})\nfrom pathlib import Path\n"
        "import flights_assets\n"
        f"definitions = flights_assets.defined(flights_assets.Package(Path({str(package)!r})), Path('flights-out').resolve())\n"
    )
    holdfast = Command(tmp_path)
    for published in (4, 12):
        process = holdfast.start("materialize", "thin.py", fresh=True)
        process.wait_for(f"published {published}/37")
        process.signal(signal.SIGKILL)
        assert process.end().code == -signal.SIGKILL
    ended = holdfast("materialize", "thin.py", fresh=True)
    assert ended.code == 0, ended
    async with opened(example, package, tmp_path) as (assets, _):
        assert (await assets.plan()).steps == ()
        assert await versions(assets) == made.versions
