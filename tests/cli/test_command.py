"""The command itself: help, version, and what it says without its packages."""

from __future__ import annotations

import ast

import pytest
from typer.testing import CliRunner

from engine.cli.app import app
from tests.architecture.source import ROOT
from tests.cli.command import Command

BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
from engine.cli import main
main()
"""


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_the_extra_it_says_what_to_install(holdfast: Command, package: str) -> None:
    ended = holdfast.start(package, code=BLOCKED).end()
    assert ended.code == 3, ended
    assert ended.err == f'error: the command holdfast needs {package}: pip install "holdfast[cli]"\n'


def test_version_names_what_matters(holdfast: Command) -> None:
    ended = holdfast("--version", fresh=True)
    assert ended.code == 0, ended
    lines = ended.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["holdfast", "Python", "SQLite"]


def test_an_option_that_several_verbs_have_is_declared_once() -> None:
    """In `words.py`; there the id of a run is an argument that is needed, and one that is not."""
    declared: dict[str, list[str]] = {}
    for path in sorted((ROOT / "engine" / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.Option", "typer.Argument"):
                declared.setdefault(ast.unparse(node), []).append(path.name)
    assert len(declared) > 30
    run = declared.pop("typer.Argument(metavar='RUN', help='The id of a run.', show_default=False)")
    assert run == ["words.py", "words.py"]
    assert {text: where for text, where in declared.items() if len(where) > 1} == {}


VERBS = """
run resume runs show history signal request query state feed complete reject cancel terminate pause unpause
limits set-pool set-rate
verify seal prove check-proof keygen archive
gate export import
diff rerun reopen fork what-if
replay
prune forget sweep
plan materialize assets why lineage asset environment
""".split()
GROUPS = {"asset": "show versions diff restore partitions", "environment": "create list promote reset"}
"""Verbs that are said with another word behind them."""
PHRASES = [
    *(verb for verb in VERBS if verb not in GROUPS),
    *(f"{verb} {word}" for verb, words in GROUPS.items() for word in words.split() if word != "partitions"),
    "asset partitions add",
    "asset partitions remove",
]
STORELESS = {"check-proof", "keygen"}


@pytest.mark.parametrize("verb", PHRASES)
def test_help_has_examples(verb: str) -> None:
    said = CliRunner().invoke(app, [*verb.split(), "--help"])
    assert said.exit_code == 0
    assert f"holdfast {verb} " in said.output
    assert "Examples:" in said.output
    assert "130  interrupted; can be resumed" in said.output
    assert ("--store" in said.output) == (verb not in STORELESS)
    assert "--json" in said.output


def test_the_verbs_are_listed_and_there_are_no_others() -> None:
    said = CliRunner().invoke(app, ["--help"]).output
    assert _listed(said) == VERBS
    for verb, words in GROUPS.items():
        assert sorted(_listed(CliRunner().invoke(app, [verb, "--help"]).output)) == sorted(words.split())


def _listed(said: str) -> list[str]:
    """The words under "Commands:", without lines that only go on."""
    lines = said.partition("Commands:")[2].partition("Examples:")[0].splitlines()
    return [line.split()[0] for line in lines if line[:2] == "  " and line[2:3].strip()]


def test_help_loads_little(holdfast: Command) -> None:
    code = "import sys; sys.argv[0] = 'holdfast'\ntry:\n    from engine.cli import main; main()\nfinally:\n    print(sorted(m for m in sys.modules if m in ('rich.live', 'rich.table', 'aiosqlite', 'engine.cli.session')))"
    ended = holdfast.start("--help", code=code).end()
    assert ended.code == 0, ended
    assert ended.out.splitlines()[-1] == "[]"
