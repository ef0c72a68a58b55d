"""The code version of a function: what changes it, what does not, and what has none."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import linecache
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from engine.assets import asset, sources
from engine.assets.code_versions import code_version_of, with_modules
from engine.errors import AssetDefinitionError

BASE = """
    from engine.assets.definition import asset

    RATE = 1.2
    UNUSED = 1

    def tax(amount):
        return amount * RATE

    def gross(amount):
        return amount + tax(amount)

    @asset
    def orders(raw):
        return [gross(each) for each in raw]
"""
Load = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Imports a source text as a module."""
    numbers = itertools.count()

    def load(text: str, *, path: Path | None = None) -> ModuleType:
        number = next(numbers)
        path = path or tmp_path / f"module_{number}.py"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        os.utime(path, ns=(number * 10**9 + 10**18, number * 10**9 + 10**18))
        spec = importlib.util.spec_from_file_location(f"module_{number}", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
        return module

    return load


def version(module: ModuleType, name: str = "orders") -> str:
    found = getattr(module, name)
    return code_version_of(getattr(found, "fn", found), "here")


def changed(load: Load, *replacements: tuple[str, str], base: str = BASE) -> bool:
    text = base
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return version(load(base)) != version(load(text))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return [gross", "# a comment\n        return [gross"),
        ("def orders(raw):", 'def orders(raw):\n        """What it is."""'),
        ("def orders(raw):", "def orders(\n        raw,\n    ):"),
        ("[gross(each) for each in raw]", "[\n            gross(each)\n            for each in raw\n        ]"),
        ("RATE = 1.2", "\n\n\n    RATE = 1.2  # as of today"),
        ("@asset", "@asset(group='sales', owners=['ann'], timeout=3)"),
        ("UNUSED = 1", "UNUSED = 2"),
        ("UNUSED = 1", "def unused(): ..."),
        ("def tax(amount):", 'def tax(amount):\n        "Of an amount."'),
        (
            "from engine.assets.definition import asset",
            "import os\n    from engine.assets.definition import Out, asset",
        ),
    ],
)
def test_what_does_not_change_it(load: Load, old: str, new: str) -> None:
    assert not changed(load, (old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[gross(each) for each in raw]", "[gross(each) + 1 for each in raw]"),
        ("amount + tax(amount)", "amount - tax(amount)"),
        ("amount * RATE", "amount / RATE"),
        ("RATE = 1.2", "RATE = 1.3"),
        ("RATE = 1.2", "RATE = 1.2\n    RATE += 1"),
        ("RATE = 1.2", "if UNUSED_TOO := True:\n        RATE = 1.2\n    else:\n        RATE = 0"),
        ("def orders(raw):", "async def orders(raw):"),
        ("def orders(raw):", "def orders(raw, limit=3):"),
        ("def tax(amount):", "def tax(amount, more=2):"),
        ("def gross(amount):", "@print\n    def gross(amount):"),
    ],
)
def test_what_changes_it(load: Load, old: str, new: str) -> None:
    text = BASE.replace(old, new).replace("@print\n", "@(lambda fn: fn)\n")
    assert version(load(BASE)) != version(load(text))


def test_from_where_a_name_is_imported_counts_and_what_is_imported_beside_it_does_not(load: Load) -> None:
    base = "from math import floor as f\ndef orders(raw):\n    return f(raw)\n"
    one = version(load(base))
    assert version(load(base.replace("floor as f", "ceil as f"))) != one
    assert version(load(base.replace("floor as f", "ceil, floor as f"))) == one


def test_imports_that_are_tried_count_each_of_its_own_unless_something_stands_in_for_them(load: Load) -> None:
    base = """
        try:
            from math import floor
        except ImportError as error:
            raise RuntimeError("no") from error
        def orders(raw):
            return floor(raw)
    """
    one = version(load(base))
    assert version(load(base.replace("from math import floor", "import os\n            from math import floor"))) == one
    assert version(load(base.replace("math import floor", "math import ceil as floor"))) != one
    instead = base.replace('raise RuntimeError("no") from error', "floor = int")
    assert version(load(instead)) != one
    assert version(load(instead.replace("floor = int", "floor = round"))) != version(load(instead))


def test_modules_of_the_author_s_own_count_as_a_whole_and_not_how_they_are_written(load: Load) -> None:
    text = """
        \'\'\'What it is.\'\'\'
        import os
        def fit(rows):
            return rows
    """
    one = with_modules("1", [load(text)], "here")
    assert with_modules("1", [], "here") == "1"
    assert with_modules("2", [load(text)], "here") != one
    lib = load(text)
    lib.__name__ = "lib"
    same = with_modules("1", [lib], "here")
    for old, new, equal in [
        ("What it is.", "What else it is.", True),
        ("return rows", "return rows  # all", True),
        ("return rows", "return rows[1:]", False),
        ("import os", "import sys", False),
    ]:
        other = load(text.replace(old, new))
        other.__name__ = "lib"
        assert (with_modules("1", [other], "here") == same) is equal


def test_a_module_without_source_is_refused() -> None:
    with pytest.raises(AssetDefinitionError, match="^here: the source of module math cannot be read.*code_version"):
        with_modules("1", [sys.modules["math"]], "here")
    with pytest.raises(AssetDefinitionError, match="modules is a list of modules, and 'json' is none"):

        @asset(modules=["json"])  # type: ignore[list-item]
        def orders() -> int:
            return 1


def test_what_a_parameter_or_a_variable_hides_is_not_used(load: Load) -> None:
    base = """
        rows = 1
        raw = 2
        def orders(raw):
            rows = [x for x in raw]
            return rows
        x = 3
    """
    one = version(load(base))
    assert (
        version(load(base.replace("rows = 1", "rows = 5").replace("raw = 2", "raw = 5").replace("x = 3", "x = 5")))
        == one
    )
    used = base.replace("rows = [x for", "global rows; rows = [x for")
    assert version(load(used)) != version(load(used.replace("rows = 1", "rows = 5")))


@pytest.mark.parametrize(
    "body",
    [
        "return CONSTANT",
        "return [CONSTANT for x in raw]",
        "return [x for x in CONSTANT]",
        "return [CONSTANT for CONSTANT in CONSTANT]",
        "return (lambda a=CONSTANT: a)()",
        "def inner():\n                return CONSTANT\n            return inner()",
        "class Inner:\n                CONSTANT = CONSTANT\n            return Inner",
        "class Inner(CONSTANT.__class__):\n                pass\n            return Inner",
        "return f'{CONSTANT}'",
        "match raw:\n                case CONSTANT.real:\n                    return 1",
        "return raw[CONSTANT.x](*CONSTANT, **CONSTANT)",
        "CONSTANT.append(1)",
    ],
)
def test_a_name_is_found_wherever_it_is_used(load: Load, body: str) -> None:
    base = f"""
        CONSTANT = 1
        def orders(raw):
            {body}
    """
    assert changed(load, ("CONSTANT = 1", "CONSTANT = 2"), base=base)


@pytest.mark.parametrize(
    "body",
    [
        "CONSTANT = 5\n            return CONSTANT",
        "for CONSTANT in raw:\n                return CONSTANT",
        "with raw as CONSTANT:\n                return CONSTANT",
        "import os as CONSTANT\n            return CONSTANT",
        "try:\n                raw()\n            except KeyError as CONSTANT:\n                return CONSTANT",
        "match raw:\n                case {'a': x, **CONSTANT}:\n                    return CONSTANT",
        "match raw:\n                case [1, *CONSTANT]:\n                    return CONSTANT",
        "if (CONSTANT := raw):\n                return CONSTANT",
        "[(CONSTANT := x) for x in raw]\n            return CONSTANT",
        "def CONSTANT(): ...\n            return CONSTANT",
        "return [CONSTANT for CONSTANT in raw]",
        "return lambda CONSTANT: CONSTANT",
        "return raw.CONSTANT",
    ],
)
def test_a_name_of_the_function_s_own_is_not_the_module_s(load: Load, body: str) -> None:
    base = f"""
        CONSTANT = 1
        def orders(raw):
            {body}
    """
    assert not changed(load, ("CONSTANT = 1", "CONSTANT = 2"), base=base)


def test_a_class_that_is_named_counts_with_what_it_names(load: Load) -> None:
    base = """
        LIMIT = 3
        class Row:
            "One."
            def full(self):
                return LIMIT
        def orders(raw: Row):
            return raw.full()
    """
    assert changed(load, ("LIMIT = 3", "LIMIT = 4"), base=base)
    assert not changed(load, ('"One."', '"Two."'), base=base)


def test_other_assets_count_where_they_are_called_and_not_where_they_are_named_upstream(load: Load) -> None:
    base = """
        from engine.assets.definition import asset
        @asset
        def raw():
            return 1
        @asset(deps=[raw])
        def orders():
            return 2
        @asset
        def twice():
            return raw() * 2
    """
    other = base.replace("return 1", "return 3")
    assert version(load(base)) == version(load(other))
    assert version(load(base), "twice") != version(load(other), "twice")


def test_decorators_of_the_author_s_own_count_with_what_they_do(load: Load) -> None:
    base = """
        import functools
        from engine.assets.definition import asset
        TIMES = 2
        def repeated(fn):
            @functools.wraps(fn)
            def inner(*args):
                return [fn(*args)] * TIMES
            return inner
        @asset(group="a")
        @repeated
        def orders(raw):
            return raw
    """
    assert changed(load, ("TIMES = 2", "TIMES = 3"), base=base)
    assert changed(load, ("        @repeated\n", ""), base=base)
    assert not changed(load, ('group="a"', 'group="b"'), base=base)


def test_a_method_and_a_static_method_have_the_version_of_what_they_say(load: Load) -> None:
    base = """
        from engine.assets.definition import asset
        class Shop:
            RATE = 3
            @staticmethod
            @asset
            def orders(raw):
                return raw + 1
        orders = Shop.orders
    """
    assert changed(load, ("raw + 1", "raw + 2"), base=base)
    assert not changed(load, ("RATE = 3", "RATE = 4"), base=base)


def test_lambdas_on_one_line_are_told_apart(load: Load) -> None:
    module = load("one, two, three = lambda: 1, lambda: (lambda x: x), lambda: 3\nfour = (lambda: 1)\n")
    inner = module.two()
    found = [code_version_of(fn, "here") for fn in (module.one, module.two, module.three, inner)]
    assert len(set(found)) == 4
    assert code_version_of(module.four, "here") == found[0]


def test_functions_made_by_functions_count_with_the_plain_data_that_they_were_given(load: Load) -> None:
    module = load("""
        def made(table, columns=("a",)):
            def load():
                return table, columns
            return load
        def by_default(table):
            def load(name=table):
                return name
            return load
        def with_function(fn):
            def load():
                return fn()
            return load
        one, other = lambda: 1, lambda: 2
    """)
    assert version_of(module.made("a")) == version_of(module.made("a"))
    assert len({version_of(module.made(*each)) for each in (("a",), ("b",), ("a", ("b",)))}) == 3
    assert version_of(module.by_default("a")) != version_of(module.by_default("b"))
    assert version_of(module.with_function(module.one)) != version_of(module.with_function(module.other))


def version_of(fn: Callable[..., Any]) -> str:
    return code_version_of(fn, "shop.py:3")


@pytest.mark.parametrize("value", [object(), [object()], {1, 2}, functools.partial(print)])
def test_a_function_that_was_given_anything_else_declares_its_version(load: Load, value: Any) -> None:
    module = load("def made(client):\n    def load():\n        return client\n    return load\n")
    with pytest.raises(
        AssetDefinitionError, match=r"shop\.py:3: it uses 'client' of the function around it.*code_version='1'"
    ):
        version_of(module.made(value))


def test_a_bound_method_declares_its_version(load: Load) -> None:
    module = load("class Shop:\n    def orders(self): ...\nshop = Shop()\n")
    with pytest.raises(AssetDefinitionError, match=r"shop\.py:3: it is a method of 'Shop'.*code_version"):
        version_of(module.shop.orders)


def test_a_function_without_source_declares_its_version() -> None:
    namespace: dict[str, Any] = {}
    exec("def orders(): ...", namespace)
    with pytest.raises(AssetDefinitionError, match=r"shop\.py:3: its source cannot be read: <string>.*code_version"):
        version_of(namespace["orders"])
    with pytest.raises(AssetDefinitionError, match=r"its source cannot be read.*is no function"):
        version_of(print)


def test_a_file_that_was_changed_behind_its_module_is_noticed(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    module = load("def orders():\n    return 1\n", path=path)
    one = version(module)
    again = load("def orders():\n    return 2\n", path=path)
    assert version(again) != one
    path.write_text("\n\n\ndef orders():\n    return 2\n")
    with pytest.raises(AssetDefinitionError, match="line 1 of shop.py is another by now"):
        version(again)
    path.write_text("def orders(:\n")
    with pytest.raises(AssetDefinitionError, match="not what this version of Python reads"):
        version(again)


def cell(number: int, text: str, namespace: dict[str, Any]) -> None:
    """Runs a text as a notebook runs a cell."""
    name = f"<ipython-input-{number}-{hash(text)}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), namespace)


def test_functions_of_notebooks_have_versions_across_their_cells() -> None:
    def notebook(rate: float, what: str) -> str:
        namespace: dict[str, Any] = {"__name__": "__main__"}
        cell(1, f"RATE = {rate}\n", namespace)
        cell(2, f"def tax(amount):\n    return amount {what} RATE\n", namespace)
        cell(3, "LIMIT = 3\ndef orders(raw):\n    return tax(raw) + LIMIT\n", namespace)
        return version_of(namespace["orders"])

    assert notebook(1.5, "*") == notebook(1.5, "*")
    assert len({notebook(1.5, "*"), notebook(1.6, "*"), notebook(1.5, "/")}) == 3


def test_functions_that_name_each_other_in_a_circle_have_versions(load: Load) -> None:
    base = "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - 1)\norders = even\n"
    assert changed(load, ("n != 0", "n != 1"), base=base)


def test_versions_are_the_same_in_every_process_and_with_every_seed(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    module = load(BASE, path=path)
    program = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import shop
from engine.assets.code_versions import code_version_of
print(code_version_of(shop.orders.fn, ""))
"""
    found = {version(module)}
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        found.add(done.stdout.strip())
    assert len(found) == 1


def test_a_version_stays_what_it_was(load: Load) -> None:
    """All that was ever made would be stale if it did not: change this only with a note in the changelog."""
    assert version(load(BASE)) == "a8861eaf0645aeaf3749aeeca4dc1611"


def test_a_module_is_parsed_once_for_all_of_its_functions(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    parse = sources.ast.parse
    module = load(
        "".join(f"def f{n}(x):\n    return helper(x) + {n}\n" for n in range(2_000)) + "def helper(x): return x\n"
    )
    monkeypatch.setattr(sources.ast, "parse", lambda text, **more: (parsed.append(text), parse(text, **more))[1])
    found = {version(module, f"f{n}") for n in range(2_000)}
    assert len(found) == 2_000
    assert len(parsed) == 1
