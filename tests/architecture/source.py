"""Reading the source: modules as syntax trees, with their imports resolved. Nothing is imported or run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.architecture import table

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Import:
    """One imported module or name. `from a.b import c` has module ``a.b`` and name ``c``; `import a.b` has no name."""

    module: str
    name: str | None
    line: int

    @property
    def full(self) -> str:
        return self.module if self.name is None else f"{self.module}.{self.name}"

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


@dataclass(frozen=True)
class Module:
    """A module by its dotted name, its text and its tree."""

    name: str
    text: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        """When it is asked for: not in every worker that only looks for tests."""
        return ast.parse(self.text, filename=self.name)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All of the tree: nearly every rule walks it."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every import in the module, also inside functions and under TYPE_CHECKING: to know is to depend."""
        return tuple(self._imports())

    def _imports(self) -> Iterator[Import]:
        for node in self.nodes:
            match node:
                case ast.Import(names=names):
                    yield from (Import(alias.name, None, node.lineno) for alias in names)
                case ast.ImportFrom(module=module, names=names, level=level):
                    yield from (Import(self._absolute(module, level), alias.name, node.lineno) for alias in names)
                case ast.Call(func=func, args=[ast.Constant(value=str(name)), *_]) if called(func) in DYNAMIC:
                    yield Import(name, None, node.lineno)

    def _absolute(self, module: str | None, level: int) -> str:
        if level == 0:
            return module or ""
        parts = self.name.split(".")
        base = parts[: len(parts) - level + (1 if self.is_package else 0)]
        return ".".join([*base, *([module] if module else [])])

    @cached_property
    def bound(self) -> dict[str, str]:
        """What imported names stand for: ``{"dt": "datetime.datetime"}``."""
        names: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    names[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    names[alias.asname or alias.name] = f"{self._absolute(node.module, node.level)}.{alias.name}"
        return names

    def resolved(self, node: ast.expr) -> str | None:
        """The dotted path an expression names, through this module's imports: ``dt.now`` is ``datetime.datetime.now``."""
        path = called(node)
        if path is None:
            return None
        head, _, rest = path.partition(".")
        base = self.bound.get(head)
        if base is None:
            return None
        return f"{base}.{rest}" if rest else base

    @cached_property
    def exported(self) -> frozenset[str] | None:
        """`__all__`, read from the source; None when there is none that is plainly written."""
        for node in self.tree.body:
            match node:
                case (
                    ast.Assign(targets=[ast.Name(id="__all__")], value=value)
                    | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value)
                ):
                    try:
                        return frozenset(ast.literal_eval(value))
                    except ValueError:
                        return None
        return None


DYNAMIC = frozenset({"__import__", "import_module", "importlib.import_module"})


def called(node: ast.expr) -> str | None:
    """``a.b.c`` of an expression made of names and attributes, else None."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            base = called(value)
            return None if base is None else f"{base}.{attr}"
    return None


def project() -> dict[str, Module]:
    """Every module of the two packages, by name."""
    found = {}
    for package in table.PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            found[name] = Module(name, path.read_text(encoding="utf-8"), is_package=is_package)
    return found


def within(name: str, room: str) -> bool:
    """Whether a module is the room or below it."""
    return name == room or name.startswith(f"{room}.")


def room_of(name: str) -> str | None:
    """The room a module stands in: the longest that fits. The face and unknown modules have none."""
    rooms = [room for room in table.FLOORS if within(name, room)]
    return max(rooms, key=len) if rooms else None


def words_of(name: str) -> list[str]:
    """The words of an identifier: ``run_claimed``, ``RunClaimed`` -> ``["run", "claimed"]``."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
