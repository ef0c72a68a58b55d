"""What is found in workflow code when an engine is made, what is let through, and what is said of it."""

from __future__ import annotations

import importlib.util
import linecache
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engine import Engine, workflow
from engine.core.call import Definition
from engine.core.failures import describe, rebuild
from engine.errors import DefinitionError, DeterminismError
from engine.workflows.impure import instead_of
from engine.workflows.screening import Finding, refuse, screen
from eventstore.memory import MemoryStore
from tests.workflows import suspects

FILE = suspects.__file__
LINES = Path(FILE).read_text().splitlines()
SUSPECTS = [
    name for name, value in vars(suspects).items() if isinstance(value, Definition) and value.kind == "workflow"
]


def lines_of(name: str) -> range:
    """The lines that a workflow of `suspects` answers for."""
    first = next(index for index, line in enumerate(LINES, 1) if f"def {name}(" in line)
    last = next(
        (index for index in range(first + 1, len(LINES)) if re.match(r"@|def |\w+ = ", LINES[index])), len(LINES)
    )
    return range(first, last + 1)


def expected(lines: range) -> list[tuple[int, str]]:
    return [(line, found) for line in lines for found in re.findall(r"# found: (`.*?`)(?=  #|$)", LINES[line - 1])]


def found_by(definition: Any) -> list[tuple[int, str]]:
    return [(finding.line, finding.found) for finding in screen(definition)]


@pytest.mark.parametrize("name", ["clocks", "chance", "surroundings", "the_outside", "sets"])
def test_what_is_not_the_same_at_a_replay_is_found(name: str) -> None:
    wanted = expected(lines_of(name))
    assert len(wanted) > 10
    assert sorted(found_by(getattr(suspects, name))) == sorted(wanted)


def test_nested_functions_and_plain_ones_of_the_module_are_read_too() -> None:
    names = ("nested", "helper", "deeper", "cached", "around")
    wanted = [each for name in names for each in expected(lines_of(name))]
    assert len(wanted) == 7
    assert sorted(found_by(suspects.nested)) == sorted(wanted)


def test_the_closure_says_what_a_name_stands_for() -> None:
    assert found_by(suspects.closed_over) == expected(lines_of("closed_over"))
    assert found_by(suspects.closed_over_nothing) == []


def test_a_reason_lets_a_line_through_and_an_empty_one_does_not() -> None:
    found = found_by(suspects.marked)
    empty = [line for line in lines_of("marked") if LINES[line - 1].endswith("# deterministic:")]
    assert len(empty) == 2
    wanted = expected(lines_of("marked"))
    wanted += [(line, "`# deterministic:` without a reason") for line in empty] + [(empty[0], "`time.time()`")]
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("name", ["blameless", "calls_it"])
def test_what_is_fine_is_not_found(name: str) -> None:
    assert found_by(getattr(suspects, name)) == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("time.time", "durable.now()"),
        ("random.random", "durable.random()"),
        ("uuid.uuid4", "durable.uuid4()"),
        ("time.sleep", "asyncio.sleep"),
        ("os.environ", "argument"),
        ("io.open", "@task"),
        ("threading.Thread", "@task"),
    ],
)
def test_what_to_write_instead_is_said(path: str, says: str) -> None:
    assert says in (instead_of(path, 0) or "")


# -- the engine -------------------------------------------------------------------------------------------------------


def test_an_engine_refuses_all_of_it_at_once() -> None:
    with pytest.raises(DeterminismError) as caught:
        Engine(MemoryStore(), workflows=[suspects.clocks, suspects.chance, suspects.calls_it])
    error = caught.value
    assert isinstance(error, DefinitionError)
    assert len(error.findings) == len(expected(lines_of("clocks"))) + len(expected(lines_of("chance")))
    text = str(error)
    for finding in error.findings:
        assert isinstance(finding, Finding)
        assert f"{FILE}:{finding.line}: {finding.found} in workflow {finding.workflow!r}: write " in text
    assert "# deterministic: <reason>" in text


def test_what_two_workflows_share_is_named_once() -> None:
    @workflow
    async def one() -> float:
        return suspects.time.time()  # deterministic: made for this test

    with pytest.raises(DeterminismError) as caught:
        refuse([suspects.closed_over, suspects.made(suspects.time.time), one])
    assert len(caught.value.findings) == 1


def test_a_client_reads_no_source() -> None:
    code = "import sys, engine\nengine.Engine('sqlite:///x.db')\nsys.exit('engine.workflows.screening' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_the_error_comes_back_as_itself() -> None:
    with pytest.raises(DeterminismError) as caught:
        refuse([suspects.clocks])
    again = rebuild(describe(caught.value))
    assert isinstance(again, DeterminismError)
    assert str(again) == str(caught.value)


# -- sources ----------------------------------------------------------------------------------------------------------


def load(path: Path, text: str, name: str) -> ModuleType:
    path.write_text(textwrap.dedent(text))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(path.read_text(), path, "exec"), vars(module))
    return module


BAD = """
import time
from engine import workflow

@workflow
async def w() -> float:
    return time.time()
"""


def test_code_without_source_is_not_checked() -> None:
    namespace: dict[str, Any] = {"__name__": "typed"}
    exec(BAD, namespace)
    assert screen(namespace["w"]) == ()


def test_source_that_is_not_the_codes_own_is_not_read(tmp_path: Path) -> None:
    module = load(tmp_path / "m.py", BAD, "m")
    (tmp_path / "m.py").write_text("this is no Python (")
    assert screen(module.w) == ()
    module = load(tmp_path / "n.py", BAD, "n")
    (tmp_path / "n.py").write_text("\n\n\ndef other(): ...\n")
    assert screen(module.w) == ()


def test_a_file_that_was_mended_and_loaded_again_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    assert len(screen(load(path, BAD, "m").w)) == 1
    marked = BAD.replace("time.time()", "time.time()  # deterministic: it is not looked at")
    assert screen(load(path, marked, "m").w) == ()


def test_a_cell_of_a_notebook_is_read() -> None:
    """As IPython does it: the text is in `linecache`, under a name that is no file."""
    name = "<ipython-input-1>"
    linecache.cache[name] = (len(BAD), None, BAD.splitlines(keepends=True), name)
    try:
        namespace: dict[str, Any] = {"__name__": "notebook"}
        exec(compile(BAD, name, "exec"), namespace)
        assert [finding.line for finding in screen(namespace["w"])] == [7]
    finally:
        del linecache.cache[name]


def test_nothing_of_the_users_is_run(tmp_path: Path) -> None:
    """Looking a name up asks dictionaries: no `__getattr__` of a module or class, no property, no proxy."""
    module = load(
        tmp_path / "m.py",
        """
        import sys
        from types import ModuleType
        from engine import workflow

        class Loud:
            @property
            def __class__(self): raise AssertionError("asked")
            def __getattribute__(self, name): raise AssertionError(name)

        class Meta(type):
            def __getattribute__(cls, name):
                if name not in ("__module__", "__qualname__", "__mro__", "__dict__"):
                    raise AssertionError(name)
                return super().__getattribute__(name)

        class Quiet(metaclass=Meta): ...

        lazy = ModuleType("lazy")
        lazy.__getattr__ = lambda name: sys.exit(name)
        loud = Loud()

        @workflow
        async def w() -> None:
            loud.now(), loud, lazy.thing(), Quiet.thing(), [Quiet]
            for each in loud: print(each)
        """,
        "m",
    )
    assert screen(module.w) == ()
    assert linecache.getline(str(tmp_path / "m.py"), 2)


def test_two_lambdas_on_one_line_are_left_alone(tmp_path: Path) -> None:
    module = load(
        tmp_path / "m.py",
        """
        import time
        from engine import workflow
        a, b = (lambda: time.time()), (lambda: 1)
        c = lambda: time.time()

        @workflow
        async def w() -> None:
            a(), b(), c()
        """,
        "m",
    )
    assert [finding.line for finding in screen(module.w)] == [5]
