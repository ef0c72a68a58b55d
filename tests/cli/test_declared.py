"""Names that a target declares, and VALUE as their types say. Nothing here runs an engine."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from engine import Feed, Query, Request, Signal, State
from engine.cli import declared as declared_module
from engine.cli.declared import declared, find, find_or_none, types_text, value_of
from engine.cli.problems import Exit, Problem
from engine.cli.targets import load, load_task

FILE = """
from engine import Feed, Query, Request, Signal, State, task, workflow
approve = Signal("approve", bool)
same = approve
later = Signal("decide-later", int | None)
review = Request("review", dict[str, int], str)
size = Query("size", None, int)
phase = State("phase", str)
log = Feed("log", str)
@task
async def step(n: int) -> int:
    return n
@workflow
async def one() -> int:
    return 1
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(name: str, text: str = FILE) -> str:
    Path(name).write_text(text)
    return name


def test_all_of_a_kind_by_their_names() -> None:
    target = load(write("talk_a.py"))
    assert list(declared(target, Signal)) == ["approve", "decide-later"]
    assert list(declared(target, Request)) == ["review"]
    assert list(declared(target, Query)) == ["size"]
    assert list(declared(target, State)) == ["phase"]
    assert list(declared(target, Feed)) == ["log"]
    assert find(target, Signal, "approve") is target.module.approve
    assert find(target, Signal, "later").name == "decide-later", "the variable does as well"
    assert find_or_none(target, State, "approve") is None, "a signal is no state"


def test_an_unknown_name_lists_those_that_exist() -> None:
    target = load(write("talk_b.py"))
    with pytest.raises(Problem) as caught:
        find(target, Signal, "aprove")
    assert caught.value.code == Exit.USAGE
    assert caught.value.message == (
        "talk_b.py has no signal 'aprove'; its signals: approve (bool), decide-later (int | None)."
        " Did you mean approve?"
    )
    with pytest.raises(Problem, match=r"its requests: review \(dict\[str, int\] -> str\)"):
        find(target, Request, "x")


def test_a_target_without_any_is_told_how_to_declare_one() -> None:
    target = load(write("talk_c.py", "from engine import workflow\n@workflow\nasync def one() -> int:\n    return 1\n"))
    with pytest.raises(Problem, match="declare it beside the workflow, phase = State"):
        find(target, State, "phase")


def test_names_of_the_modules_that_workflows_live_in() -> None:
    write("lib_d.py")
    file = write("main_d.py", "from lib_d import one\n")
    assert find(load(file), Signal, "approve").name == "approve"
    file = write(
        "other_d.py",
        "import lib_d\nfrom engine import workflow\n@workflow\nasync def two() -> bool:\n"
        "    return await lib_d.approve.receive()\n",
    )
    assert find(load(file), Signal, "approve").name == "approve"


def test_the_nearest_of_two_with_one_name_is_meant() -> None:
    write("lib_e.py")
    file = write("main_e.py", 'from lib_e import one\nfrom engine import Signal\napprove = Signal("approve", str)\n')
    assert types_text(find(load(file), Signal, "approve")) == "str"


def test_two_that_differ_in_one_module_are_ambiguous() -> None:
    file = write("main_f.py", FILE + 'other = Signal("approve", str)\n')
    target = load(file)
    with pytest.raises(Problem, match="knows two signals 'approve', of bool and of str"):
        find(target, Signal, "approve")
    assert find(target, Signal, "decide-later").name == "decide-later"


def test_a_task_by_its_target() -> None:
    file = write("tasks_g.py")
    assert load_task(f"{file}:step").name == "step"
    assert load_task("tasks_g:step").name == "step"
    with pytest.raises(Problem, match="has no task 'stp'; its tasks: step. Did you mean step"):
        load_task(f"{file}:stp")
    with pytest.raises(Problem, match="names no task"):
        load_task(file)


class Draft(msgspec.Struct):
    text: str
    pages: int = 1


class Fussy(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        raise ZeroDivisionError("not today")


@pytest.mark.parametrize(
    ("text", "type_", "value"),
    [
        ("true", bool, True),
        ("5", int, 5),
        ("-5", int, -5),
        ("word", str, "word"),
        ("two words", str, "two words"),
        ('"quoted"', str, "quoted"),
        ("5", str, "5"),
        ("null", str | None, None),
        ("", str, ""),
        ("2026-01-31", date, date(2026, 1, 31)),
        ("a", Literal["a", "b"], "a"),
        ("5", int | str, 5),
        ("five", int | str, "five"),
        ('{"text": "x"}', Draft, Draft("x")),
        ("[1, 2]", list[int], [1, 2]),
        ("word", Any, "word"),
        ("{}", Any, {}),
        ("null", None, None),
        (None, None, None),
        (None, int | None, None),
    ],
)
def test_a_value_is_json_and_a_bare_word_a_string(text: str | None, type_: Any, value: Any) -> None:
    given = value_of(text, type_, what="signal x")
    assert (given, type(given)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "type_", "said"),
    [
        ("yes", bool, "signal x needs a bool (true, false), got 'yes' (write it as JSON)"),
        ("True", bool, "needs a bool (true, false), got 'True'"),
        ("1.5", int, "needs an int, got '1.5'"),
        ('"5"', int, "needs an int, got '\"5\"' (Expected `int`, got `str`)"),
        ("", int, "needs an int, got ''"),
        ("[1, ", list[int], "needs list[int] as JSON, got '[1, ' (Input data was truncated)"),
        ('{"pages": 2}', Draft, "needs Draft as JSON, got '{\"pages\": 2}' (Object missing required field `text`)"),
        ('{"n": 1}', Fussy, "(not today)"),
        ("NaN", float, "needs a float, got 'NaN'"),
        ("1e999", float, "needs a float, got '1e999'"),
        ("[" * 100_000, list[Any], "needs list[Any] as JSON"),
        ("c", Literal["a", "b"], "needs one of a, b, got 'c'"),
        ("\udcff", int, "needs an int"),
        ("x" * 200, int, "…"),
        ("5", None, "signal x takes no value, got '5'"),
        (None, bool, "signal x needs a bool (true, false): give it as VALUE"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_type(text: str | None, type_: Any, said: str) -> None:
    with pytest.raises(Problem) as caught:
        value_of(text, type_, what="signal x")
    assert said in caught.value.message
    assert caught.value.code == Exit.USAGE
    assert len(caught.value.message) < 400


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    given(b'{"text": "x"}\n')
    assert value_of("-", Draft, what="x") == Draft("x")
    given(b"a line\n")
    assert value_of("-", str, what="x") == "a line"
    given(b"\xff")
    with pytest.raises(Problem, match="is not UTF-8"):
        value_of("-", str, what="x")
    monkeypatch.setattr(declared_module, "INPUT_BYTES_MAX", 10)
    given(b"0" * 11)
    with pytest.raises(Problem, match="more than 10 bytes"):
        value_of("-", str, what="x")
