"""A dbt project as data assets: each seed, each model and each test of its manifest is a node here.

    pip install -e ".[assets,cli,dbt]"                # in a virtual environment of its own: see docs/dbt.md
    holdfast materialize examples/jaffle/jaffle.py    # dbt builds it, node by node, in jaffle-out/jaffle.duckdb
    holdfast plan examples/jaffle/jaffle.py           # what another time would build, and why

The project, in the folder of this file, knows nothing of it. Its manifest says what depends on what:

* a seed or a model is an asset that lies elsewhere: dbt writes its table, and its version is a digest of what is in it,
* a test of one of them is a check of it, blocking unless its severity is `warn`,
* a test of several (a relationship) is an asset of its own, for it is of none of them alone; a model waits for it when
  it is downstream of all that the test is of, and only then: so `dbt build` has it.

Seeds, models and tests are all that it knows: no snapshots, sources or ephemeral models.
"""

import json
import os
import threading
from collections.abc import Iterable, Mapping
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from engine.assets import (
    PRODUCTION,
    Asset,
    AssetContext,
    Check,
    CheckContext,
    CheckResult,
    Definitions,
    Materialized,
    asset,
    check,
)
from engine.storage import data_version

try:
    from dbt.cli.main import dbtRunner
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'{error}; this example needs: pip install "holdfast[assets,cli,dbt]", in a virtual environment of its own'
    ) from error

SAMPLE_ROWS = 5
COMMANDS = {"seed": "seed", "model": "run", "test": "test"}
QUIETLY = ("--log-level", "none", "--log-level-file", "none", "--no-send-anonymous-usage-stats")


class DbtError(Exception):
    """What dbt says when something went wrong."""


_one_at_a_time = threading.Lock()  # dbt keeps its state in globals: one command at a time in a process


class Project:
    """A dbt project in a folder, and the folder that it builds into: the database, and what dbt writes beside it."""

    def __init__(self, folder: Path, out: Path) -> None:
        self.folder = folder
        self.out = out
        self.database = out / "jaffle.duckdb"

    @cached_property
    def manifest(self) -> Any:
        """What is in the project, as dbt has read it."""
        return self._invoke("parse")

    @property
    def nodes(self) -> dict[str, Any]:
        """Seeds, models and tests by their unique ids."""
        return {name: node for name, node in self.manifest.nodes.items() if str(node.resource_type) in COMMANDS}

    def build(self, node: Any) -> Any:
        """Let dbt do what one node says. Raises `DbtError`; a test that fails is a result."""
        selected = f"fqn:{'.'.join(node.fqn)}"
        run = self._invoke(COMMANDS[str(node.resource_type)], "--select", selected, manifest=self.manifest)
        (result,) = run.results
        if str(result.status) in {"error", "runtime error"}:
            raise DbtError(f"{node.unique_id}: {result.message}")
        return result

    def rows(self, sql: str) -> pa.Table:
        """What is in the database now."""
        with _one_at_a_time, duckdb.connect(str(self.database)) as db:
            return db.sql(sql).to_arrow_table()

    def _invoke(self, *words: str, manifest: Any = None) -> Any:
        self.out.mkdir(parents=True, exist_ok=True)
        places = {
            "--project-dir": self.folder,
            "--profiles-dir": self.folder,
            "--target-path": self.out / "target",
            "--log-path": self.out / "logs",
        }
        options = [str(each) for pair in places.items() for each in pair]
        with _one_at_a_time:
            os.environ["JAFFLE_DATABASE"] = str(self.database)  # `profiles.yml` asks for it
            done = dbtRunner(manifest=manifest).invoke([*QUIETLY, *words, *options])
        if done.exception is not None:
            raise DbtError(f"dbt {' '.join(words)}: {done.exception}")
        return done.result


# ── Of its nodes: assets and checks ───────────────────────────────────────────────────────────────────────────────


def defined(project: Project) -> Definitions:
    """The project as assets and checks."""
    nodes = project.nodes
    assets, checks = [], []
    for name, node in nodes.items():
        if not is_test(node):
            assets.append(built(project, node, [key_of(nodes[each]) for each in waits_for(name, nodes)]))
        elif len(parents := parents_of(node, nodes)) == 1:
            checks.append(checked(project, node, key_of(nodes[parents[0]])))
        else:
            assets.append(tested(project, node, [key_of(nodes[each]) for each in parents]))
    return Definitions(assets, checks=checks, storage=str(project.out / "assets"))


def key_of(node: Any) -> str:
    """What its asset is called here."""
    return f"tests/{node.name}" if is_test(node) else str(node.name)


def is_test(node: Any) -> bool:
    """Whether it is one."""
    return str(node.resource_type) == "test"


def parents_of(node: Any, nodes: Mapping[str, Any]) -> list[str]:
    """The seeds and models that it is made from, or is a test of."""
    return [each for each in dict.fromkeys(node.depends_on_nodes) if each in nodes]


def waits_for(name: str, nodes: Mapping[str, Any]) -> list[str]:
    """What a seed or a model waits for: what it is made from, and tests of several of those upstream of it."""
    upstream = ancestors(name, nodes)
    several = [each for each in nodes if is_test(nodes[each]) and len(parents_of(nodes[each], nodes)) > 1]
    tests = [each for each in several if upstream.issuperset(parents_of(nodes[each], nodes))]
    return [*parents_of(nodes[name], nodes), *tests]


def ancestors(name: str, nodes: Mapping[str, Any]) -> set[str]:
    """All that is upstream of a node."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = set(parents_of(nodes[waiting.pop()], nodes)) - found
        found |= new
        waiting += new
    return found


def code_of(project: Project, node: Any) -> str:
    """The code version: what its file says, its configuration, and the project's own macros that it uses."""
    macros = (project.manifest.macros[each] for each in node.depends_on.macros)
    said = {
        "code": node.raw_code,
        "checksum": node.checksum.checksum,
        "config": node.config.to_dict(),
        "macros": [each.macro_sql for each in macros if each.package_name == node.package_name],
    }
    return sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]


def built(project: Project, node: Any, deps: Iterable[str]) -> Asset[..., Any]:
    """A seed or a model as an asset."""

    @asset(
        key=key_of(node),
        deps=list(deps),
        group=str(node.fqn[1]) if len(node.fqn) > 2 else f"{node.resource_type}s",
        description=node.description,
        tags=node.tags,
        metadata={"dbt": node.unique_id, "materialized": str(node.config.materialized)},
        code_version=code_of(project, node),
        io="external",
    )
    def build(context: AssetContext) -> Materialized:
        if context.environment != PRODUCTION:
            raise DbtError(
                f"{context.environment} would write into the tables of {PRODUCTION}: a branch needs a database of its"
                " own, with all that it shares in it"
            )
        result = project.build(node)
        table = project.rows(f'FROM "{node.schema}"."{node.alias}" ORDER BY ALL')
        seconds = round(result.execution_time, 3)
        return Materialized(data_version=data_version(table), metadata={"rows": len(table), "seconds": seconds})

    return build


def checked(project: Project, node: Any, of: str) -> Check[..., Any]:
    """A test of one seed or model as a check of it."""
    blocking = str(node.config.severity).lower() != "warn"

    @check(of, name=name_of(node), blocking=blocking, description=node.unique_id, code_version=code_of(project, node))
    def holds(context: CheckContext) -> CheckResult:  # noqa: ARG001 - the value lies elsewhere, where dbt looks at it
        result = project.build(node)
        passed = str(result.status) == "pass" or (blocking and str(result.status) == "warn")
        return CheckResult(passed, result.message or "", rows=failing(project, result), metadata=told(result))

    return holds


def tested(project: Project, node: Any, of: Iterable[str]) -> Asset[..., Any]:
    """A test of several as an asset of its own: what waits for it is not built when it fails."""

    @asset(
        key=key_of(node),
        deps=list(of),
        group="tests",
        metadata={"dbt": node.unique_id},
        code_version=code_of(project, node),
        io="external",
    )
    def holds() -> Materialized:
        result = project.build(node)
        if str(result.status) == "fail":
            raise DbtError(f"{result.message}, such as {failing(project, result)}")
        return Materialized(data_version=f"{result.status} {result.failures}", metadata=told(result))

    return holds


def name_of(node: Any) -> str:
    """What its check is called: dbt's name, cut to what fits."""
    return str(node.name) if len(node.name) <= 80 else f"{node.name[:71]}_{sha256(node.name.encode()).hexdigest()[:8]}"


def failing(project: Project, result: Any) -> list[dict[str, Any]]:
    """Some of the rows that a test has found."""
    if not result.failures:
        return []
    rows: list[dict[str, Any]] = project.rows(f"FROM ({result.node.compiled_code}) LIMIT {SAMPLE_ROWS}").to_pylist()
    return rows


def told(result: Any) -> dict[str, Any]:
    """What is recorded of a test."""
    return {"status": str(result.status), "failures": result.failures, "seconds": round(result.execution_time, 3)}


definitions = defined(Project(Path(__file__).parent, Path("jaffle-out").resolve()))
