"""What a target names, and every way in which it can be wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli.problems import Exit, Problem
from engine.cli.targets import load

ONE = "from engine import task, workflow\n@workflow\nasync def one() -> int:\n    return 1\n@task\nasync def step() -> int:\n    return 1\n"
TWO = ONE + "@workflow(name='second')\nasync def two() -> int:\n    return 2\nthing = 3\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, whose modules are forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(exist_ok=True, parents=True)
    Path(name).write_text(text)
    return name


def problem(target: str) -> Problem:
    with pytest.raises(Problem) as caught:
        load(target).only()
    assert caught.value.code == Exit.USAGE
    return caught.value


def test_a_file_with_one_workflow() -> None:
    target = load(write("shop_a.py", ONE))
    assert target.only().name == "one"
    assert target.only().fn.__module__ == "shop_a"


def test_a_named_workflow_of_several_by_its_name_or_its_variable() -> None:
    file = write("shop_b.py", TWO)
    assert load(f"{file}:second").only().name == "second"
    assert load(f"{file}:two").only().name == "second"
    assert [each.name for each in load(f"{file}:one").workflows] == ["one", "second"]


def test_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    write("package_c/__init__.py", "")
    write("package_c/flows.py", TWO)
    assert load("package_c.flows:one").only().name == "one"


def test_neighbours_can_be_imported_from_anywhere() -> None:
    write("folder_d/near_d.py", "NAME = 'near'\n")
    file = write("folder_d/main_d.py", "from near_d import NAME\n" + ONE)
    assert load(file).only().name == "one"


def test_a_files_own_workflow_comes_before_those_it_imports() -> None:
    write("lib_e.py", ONE)
    file = write(
        "main_e.py",
        "from lib_e import one\nfrom engine import workflow\n@workflow\nasync def own() -> int:\n    return await one()\n",
    )
    target = load(file)
    assert target.only().name == "own"
    assert {each.name for each in target.workflows} == {"one", "own"}


def test_a_file_named_like_a_module_hides_none() -> None:
    json = sys.modules["json"]
    file = write("json.py", ONE)
    assert load(file).only().fn.__module__ == "json_target"
    assert sys.modules["json"] is json


def test_the_main_guard_does_not_run() -> None:
    file = write("guarded.py", ONE + "if __name__ == '__main__':\n    raise SystemExit(9)\n")
    assert load(file).only().name == "one"


def test_no_such_file() -> None:
    write("flights_x.py", ONE)
    assert problem("flight_x.py").message == "no such file: flight_x.py; did you mean flights_x.py?"
    assert problem("nowhere/x.py").message == "no such file: nowhere/x.py (nor a folder nowhere)"


def test_a_folder() -> None:
    Path("folder.py").mkdir()
    assert "is a folder" in problem("folder.py").message


def test_a_syntax_error_is_shown_with_its_line() -> None:
    said = problem(write("broken_f.py", "x = 1\ndef f(:\n    pass\n")).message
    assert "broken_f.py is not valid Python" in said
    assert "line 2" in said
    assert "def f(:" in said
    assert "^" in said


def test_an_error_while_loading_is_told_with_the_users_line() -> None:
    said = problem(write("raises_g.py", "import json\n\njson.loads('{')\n")).message
    assert "raises_g.py cannot be loaded" in said
    assert "JSONDecodeError" in said
    assert "raises_g.py, line 3" in said


def test_a_missing_package_is_named() -> None:
    found = problem(write("needs_h.py", "import surely_not_installed_h.part\n"))
    assert "No module named 'surely_not_installed_h'" in found.message
    assert "Install surely_not_installed_h" in found.hint


def test_a_bad_definition_is_told_as_the_engine_tells_it() -> None:
    file = write("bad_i.py", "from engine import workflow\n@workflow\ndef plain() -> int:\n    return 1\n")
    said = problem(file).message
    assert "make it `async def`" in said
    assert "line 2" in said or "line 3" in said


def test_a_file_that_ends_the_program() -> None:
    assert "__main__" in problem(write("exits_j.py", "import sys\nsys.exit(3)\n")).message


def test_no_workflow() -> None:
    assert "has no workflow: decorate" in problem(write("empty_k.py", "x = 1\n")).message


def test_several_workflows_are_listed_with_what_to_type() -> None:
    said = problem(write("shop_l.py", TWO)).message
    assert "has 2 workflows; say which one:\n  shop_l.py:one\n  shop_l.py:second" in said


def test_a_name_that_is_no_workflow() -> None:
    file = write("shop_m.py", TWO)
    assert "'step' in shop_m.py is a task, not a workflow" in problem(f"{file}:step").message
    assert "'thing' in shop_m.py is a int, not a workflow" in problem(f"{file}:thing").message
    assert (
        "has no workflow 'secnd'; its workflows: one, second. Did you mean second?" in problem(f"{file}:secnd").message
    )


def test_no_such_module() -> None:
    assert "no module 'surely_not_there_n' can be imported" in problem("surely_not_there_n:x").message
    write("with_file_n.py", ONE)
    assert load("with_file_n:one").only().name == "one"


def test_a_file_without_its_ending() -> None:
    write("shop_o", ONE)
    assert "is not a Python file" in problem("./shop_o").message
