"""The dbt project as assets: the tables that dbt's authors expect, and what fails stops what `dbt build` skips.

dbt is not in the `dev` extra (see docs/dbt.md): `.ci/run` runs this file in a virtual environment with the `dbt` one.
"""

from __future__ import annotations

import csv
import importlib.util
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engine import Engine
from engine.assets import Assets, Report, details_of
from engine.errors import RunFailedError
from eventstore.urls import open_store
from tests.cli import command
from tests.cli.command import Command
from tests.examples.conftest import EXAMPLES

JAFFLE = EXAMPLES / "jaffle"
RELATIONSHIP = "tests/relationships_orders_customer_id__customer_id__ref_customers_"

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("dbt") is None,
        reason='dbt is not installed; `.ci/run` runs this with it: pip install -e ".[assets,cli,dbt,test]"',
    ),
    pytest.mark.filterwarnings("default"),  # dbt's own
]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    spec = importlib.util.spec_from_file_location("jaffle_assets", JAFFLE / "jaffle.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, to be changed."""
    return Path(shutil.copytree(JAFFLE, tmp_path / "jaffle", ignore=shutil.ignore_patterns("__pycache__")))


@asynccontextmanager
async def opened(example: ModuleType, project: Path, out: Path) -> AsyncIterator[tuple[Assets, Engine, Any]]:
    there = example.Project(project, out)
    store = await open_store(f"sqlite:///{project.parent}/holdfast.db?synchronous=NORMAL")
    try:
        assets = Assets(example.defined(there), store)
        async with Engine(store, workflows=assets.workflows) as engine:
            yield assets, engine, there
    finally:
        await store.aclose()


async def materialize(assets: Assets, engine: Engine) -> Report:
    handle = await engine.start(assets.materialize(await assets.plan()))
    return await handle.result()


async def versions(assets: Assets) -> dict[str, str]:
    views = await (await assets.catalog()).view(assets.definitions.specs)
    return {key: version.data_version for key, view in views.items() if (version := view.current("")) is not None}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8", newline="")


def expected(table: str) -> list[dict[str, str]]:
    with (JAFFLE / "expected" / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        return sorted(csv.DictReader(file), key=str)


def as_text(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """As the expected files have it."""
    found = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    return sorted(found, key=str)


async def test_it_is_built_once_and_its_tables_are_the_expected_ones(example: ModuleType, project: Path) -> None:
    async with opened(example, project, project.parent / "out") as (assets, engine, dbt):
        assert (await materialize(assets, engine)).counts == {"published": 9}
        for table in ("stg_customers", "stg_orders", "stg_payments", "orders", "customers"):
            assert as_text(dbt.rows(f"FROM {table}").to_pylist()) == expected(table), table

        asked = await outcomes(assets)
        assert asked == dict.fromkeys(dbt.nodes, "success"), "each node of the manifest is one here, and went well"
        assert len(asked) == 28

        assert (await assets.plan()).steps == ()
        before = await versions(assets)

    # Another text with the same content: it is built again, and what is made of it is not.
    edit(project / "models" / "staging" / "stg_payments.sql", "it comes in cents", "cents")
    async with opened(example, project, project.parent / "out") as (assets, engine, _):
        assert [step.node for step in (await assets.plan()).steps][0] == "stg_payments"
        report = await materialize(assets, engine)
        assert report.nodes.pop("stg_payments") == {"published": 1}
        assert set(report.nodes) == {"orders", "customers", RELATIONSHIP}
        assert all(counts == {"unchanged": 1} for counts in report.nodes.values())
        assert await versions(assets) == before


BROKEN = {
    "an order twice": ("raw_orders.csv", "2,3,2018-01-02,completed", "1,3,2018-01-02,completed"),
    "a payment in shells": ("raw_payments.csv", "1,1,credit_card,1000", "1,1,shells,1000"),
    "a customer twice": ("raw_customers.csv", "2,Shawn", "1,Shawn"),
    "an order of nobody": ("raw_orders.csv", "2,3,2018-01-02,completed", "2,999,2018-01-02,completed"),
    "an order that nobody paid": ("raw_payments.csv", "1,1,credit_card,1000", "1,2,credit_card,1000"),
    "an amount that is none": ("raw_payments.csv", "1,1,credit_card,1000", "1,1,credit_card,many"),
}

HERE_ALSO = {"an order that nobody paid": {RELATIONSHIP}}
"""What is skipped here and not by dbt: a test of several does not look at one that has failed a check of its own."""


@pytest.mark.parametrize("case", BROKEN)
async def test_what_fails_stops_what_dbt_build_skips(example: ModuleType, project: Path, case: str) -> None:
    """Node by node, on the same data; with a model that is downstream of all that the relationship is of."""
    (project / "models" / "marts" / "summary.sql").write_text(
        "select count(*) as orders, (select count(*) from {{ ref('customers') }}) as customers from {{ ref('orders') }}\n"
    )
    file, old, new = BROKEN[case]
    edit(project / "seeds" / file, old, new)

    by_dbt = {
        result.node.unique_id: {"pass": "success", "error": "fail"}.get(str(result.status), str(result.status))
        for result in example.Project(project, project.parent / "dbt")._invoke("build").results
    }
    assert "fail" in by_dbt.values()

    async with opened(example, project, project.parent / "out") as (assets, engine, _):
        with pytest.raises(RunFailedError):
            await materialize(assets, engine)
        also = {str(assets.definitions.specs[key].metadata["dbt"]): "skipped" for key in HERE_ALSO.get(case, ())}
        assert await outcomes(assets) == by_dbt | also
        assert all(by_dbt[node] == "success" for node in also)


async def outcomes(assets: Assets) -> dict[str, str]:
    """What became of each of dbt's nodes, in dbt's words."""
    catalog = await assets.catalog()
    found: dict[str, str] = {}
    for key, spec in assets.definitions.specs.items():
        state = (await catalog.state(key)).of("")
        checks = assets.definitions.node_of(key).checks.get(key, ())
        node = str(spec.metadata["dbt"])
        if state.skipped is not None:
            found |= {node: "skipped"} | {each.check.description: "skipped" for each in checks}
            continue
        recorded = await catalog.recorded(key, (await catalog.state(key)).as_of)
        asked = {each.name: each for each in details_of(recorded).checks}
        if state.failed is not None and not asked:
            found |= {node: "fail"} | {each.check.description: "skipped" for each in checks}
            continue
        found[node] = "success"  # it was built, even if a check of it failed
        for each in checks:
            assert not asked[each.check.name].error
            found[each.check.description] = "success" if asked[each.check.name].passed else "fail"
    return found


def test_a_severity_of_warn_is_a_warning(example: ModuleType, project: Path) -> None:
    edit(project / "models" / "marts" / "schema.yml", "- not_null\n", "- not_null: {config: {severity: warn}}\n")
    definitions = example.defined(example.Project(project, project.parent / "out"))
    severities = {each.name: each.severity for each in definitions.checks}
    assert severities.pop("not_null_orders_customer_id") == "warning"
    assert set(severities.values()) == {"blocking"}


def test_an_error_of_dbt_is_told(example: ModuleType, project: Path) -> None:
    (project / "models" / "marts" / "orders.sql").write_text("select * from {{ ref('nowhere') }}")
    with pytest.raises(example.DbtError, match="nowhere"):
        example.defined(example.Project(project, project.parent / "out"))


async def test_killed_and_made_again_it_comes_to_the_same_versions(
    example: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "DEADLINE_SECONDS", 180.0)  # dbt is slow to import on a busy machine
    holdfast = Command(project.parent)
    process = holdfast.start("materialize", "jaffle/jaffle.py", fresh=True)
    process.wait_for("published 4/9")
    process.signal(signal.SIGKILL)
    assert process.end().code == -signal.SIGKILL
    ended = holdfast("materialize", "jaffle/jaffle.py", fresh=True)
    assert ended.code == 0, ended
    async with opened(example, project, project.parent / "jaffle-out") as (assets, _, dbt):
        assert (await assets.plan()).steps == ()
        for table in ("orders", "customers"):
            assert as_text(dbt.rows(f"FROM {table}").to_pylist()) == expected(table)
