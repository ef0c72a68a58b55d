"""What names in a function's source stand for, as dotted paths: through its imports, globals, closure and locals.

Only looked up, never run: modules and classes are asked for what is in them, and nothing of the user's is called. What
cannot be told (attributes of objects, results of calls, names that are bound twice) has no path.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple, TypeAlias

from engine.core.call import Definition
from engine.workflows.impure import PATHS

__all__ = ["FunctionNode", "Named", "Names", "plain_function"]

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_NOTHING: Final = object()
_DEPTH_MAX: Final = 20  # of names that stand for names
_SAME: Final = {
    "posix": "os",
    "nt": "os",
    "posixpath": "os.path",
    "ntpath": "os.path",
    "genericpath": "os.path",
    "_io": "io",
    "_thread": "threading",
    "_socket": "socket",
    "_sqlite3": "sqlite3",
    "_ssl": "ssl",
    "_random": "random",
    "pathlib._local": "pathlib",
}
"""Modules that implement others."""
_STILL_PATHS: Final = frozenset({"joinpath", "parent", "with_name", "with_suffix", "with_stem", "relative_to"})
_DATA: Final = (str, bytes, int, float, complex, tuple, frozenset, Enum, type(None))


class Named(NamedTuple):
    """What an expression stands for: its path, and the object itself where it was found."""

    path: str
    value: Any = _NOTHING

    @property
    def acts(self) -> bool:
        """Whether it is a function, or an object with a life of its own: no class, module or plain value."""
        return self.value is not _NOTHING and not issubclass(type(self.value), (*_DATA, ModuleType, type))

    @property
    def is_error(self) -> bool:
        """Whether it is an exception class."""
        return issubclass(type(self.value), type) and issubclass(self.value, BaseException)


class _Local(NamedTuple):
    """How a local name is bound: by an import, by an expression (`made`: as an instance of it), or opaquely."""

    module: str = ""
    attribute: str = ""
    expression: ast.expr | None = None
    made: bool = False


class Names:
    """The names of one function: `names.of(node)` is what an expression stands for."""

    def __init__(self, function: FunctionType) -> None:
        self._globals: Mapping[str, Any] = function.__globals__
        self._closure = _closure_of(function)
        self._scopes: list[dict[str, _Local]] = []
        self._depth = 0

    def enter(self, node: ast.AST) -> None:
        """Step into a function, class or comprehension: names bound in it hide those outside."""
        self._scopes.append(_bindings(node))

    def leave(self) -> None:
        self._scopes.pop()

    def of(self, node: ast.AST) -> Named | None:
        """What an expression stands for; None when that cannot be told."""
        if self._depth > _DEPTH_MAX:
            return None
        self._depth += 1
        try:
            return self._of(node)
        finally:
            self._depth -= 1

    def _of(self, node: ast.AST) -> Named | None:
        match node:
            case ast.Name(id=name):
                return self._of_name(name)
            case ast.Attribute(value=value, attr=attr):
                base = self.of(value)
                return None if base is None else _attribute(base, attr)
            case ast.Call(func=func):
                maker = self.of(func)
                return None if maker is None else _made_by(maker)
            case ast.BinOp(left=left, op=ast.Div()):
                base = self.of(left)
                return base if base is not None and base.path == PATHS else None
            case ast.Await(value=value) | ast.NamedExpr(value=value):
                return self.of(value)
            case _:
                return None

    def _of_name(self, name: str) -> Named | None:
        for index in range(len(self._scopes) - 1, -1, -1):
            if (local := self._scopes[index].get(name)) is not None:
                return self._of_local(local, index)
        for where in (self._closure, self._globals, vars(builtins)):
            if name in where:
                return _of_value(where[name])
        return None

    def _of_local(self, local: _Local, index: int) -> Named | None:
        if local.module:
            return _imported(local.module, local.attribute)
        if local.expression is None:
            return None
        inner, self._scopes = self._scopes, self._scopes[: index + 1]
        try:
            found = self.of(_unquoted(local.expression))
        finally:
            self._scopes = inner
        return _made_by(found) if found is not None and local.made else found


def plain_function(value: Any) -> FunctionType | None:
    """The function behind a value and its decorators; None for a task, a workflow, and what is no Python function."""
    for _ in range(_DEPTH_MAX):
        kind = type(value)
        if issubclass(kind, Definition):
            return None
        if issubclass(kind, staticmethod | classmethod | MethodType):
            value = value.__func__
            continue
        inner = inspect.getattr_static(value, "__wrapped__", None)
        if inner is None:
            return value if kind is FunctionType else None
        value = inner
    return None


def _closure_of(function: FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not filled yet
            found[name] = _NOTHING
    return found


# -- paths ------------------------------------------------------------------------------------------------------------


def _same(module: object) -> str:
    name = str(module)
    return "asyncio" if name.startswith("asyncio.") else _SAME.get(name, name)


def _of_value(value: Any) -> Named | None:
    """What an object that was found under a name is called where it comes from."""
    kind = type(value)  # never `isinstance`: a proxy of some framework would be asked what it stands for
    if value is _NOTHING:
        return None
    if issubclass(kind, ModuleType):
        return Named(_same(value.__name__), value)
    if issubclass(kind, random.SystemRandom):
        return Named("secrets", value)
    if issubclass(kind, random.Random):  # one that outlives the run: every run would take numbers from it
        return Named("random", value)
    if issubclass(kind, type):
        return Named(_class_path(value), value)
    if issubclass(kind, FunctionType | MethodType | BuiltinFunctionType):
        owner = getattr(value, "__self__", None)
        if owner is None or type(owner) is ModuleType:
            return Named(f"{_same(value.__module__ or 'builtins')}.{value.__qualname__}", value)
        base = _of_value(owner)
        return None if base is None else Named(f"{base.path}.{value.__name__}", value)
    return Named(f"{_class_path(kind)}()", value)


def _class_path(class_: type) -> str:
    name = f"{_same(class_.__module__)}.{class_.__qualname__}"
    return "pathlib.Path" if name in ("pathlib.PosixPath", "pathlib.WindowsPath") else name


def _attribute(base: Named, attr: str) -> Named:
    if base.path == PATHS and attr in _STILL_PATHS:
        return Named(PATHS if attr == "parent" else PATHS.removesuffix("()"))
    found = _NOTHING
    if issubclass(type(base.value), ModuleType | type):
        # Out of its dictionary, for asking for it might run code (a module's `__getattr__`, a descriptor).
        found = inspect.getattr_static(base.value, attr, _NOTHING)
        if issubclass(type(base.value), ModuleType) and (named := _of_value(found)) is not None:
            return named
    return Named(f"{base.path}.{attr}", found)


def _made_by(maker: Named) -> Named:
    path = "pathlib.Path" if maker.path in ("pathlib.Path.cwd", "pathlib.Path.home") else maker.path
    return Named(f"{path}()")


def _imported(module: str, name: str = "") -> Named:
    """What an import inside a function binds, if it was ever loaded; else what it would be called."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return Named(f"{_same(module)}.{name}" if name else _same(module))
    return _attribute(Named(_same(module), loaded), name) if name else Named(_same(module), loaded)


# -- locals -----------------------------------------------------------------------------------------------------------

_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


def _bindings(scope: ast.AST) -> dict[str, _Local]:
    """How the names that `scope` binds are bound; one that is bound twice is opaque."""
    times: Counter[str] = Counter()
    outside: set[str] = set()
    told: dict[str, _Local] = {}
    if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        told.update(_parameters(scope.args))
        times.update(list(told))
    for node in _own_nodes(scope):
        times.update(_bound_by(node))
        told.update(_told_by(node))
        if isinstance(node, ast.Global | ast.Nonlocal):
            outside.update(node.names)
    return {
        name: told.get(name, _Local()) if count == 1 else _Local()
        for name, count in times.items()
        if name not in outside
    }


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope, without those of scopes in it."""
    pending: list[ast.AST] = []
    if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
        pending += scope.body
    elif isinstance(scope, _COMPREHENSIONS):
        pending += [each.target for each in scope.generators]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, _COMPREHENSIONS):  # what `:=` binds in one is bound around it
            for each in ast.walk(node):
                if isinstance(each, ast.NamedExpr):
                    pending.append(each)
        elif not isinstance(node, _SCOPES):
            pending += ast.iter_child_nodes(node)


def _bound_by(node: ast.AST) -> list[str]:
    """The names that this node itself binds."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            return [each.asname or each.name.partition(".")[0] for each in aliases]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
        case _:
            return []


def _told_by(node: ast.AST) -> Iterator[tuple[str, _Local]]:
    """What this node says of the names that it binds."""
    match node:
        case ast.Import(names=aliases):
            for each in aliases:
                top = each.name.partition(".")[0]
                yield each.asname or top, _Local(module=each.name if each.asname else top)
        case ast.ImportFrom(module=str(module), names=aliases, level=0):
            for each in aliases:
                yield each.asname or each.name, _Local(module=module, attribute=each.name)
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
            yield name, _Local(expression=annotation, made=True)
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            yield name, _Local(expression=value)
        case ast.NamedExpr(target=ast.Name(id=name), value=value):
            yield name, _Local(expression=value)


def _parameters(arguments: ast.arguments) -> Iterator[tuple[str, _Local]]:
    for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        yield each.arg, _Local(expression=each.annotation, made=True)
    for gathered in (arguments.vararg, arguments.kwarg):
        if gathered is not None:
            yield gathered.arg, _Local()


def _unquoted(node: ast.expr) -> ast.expr:
    """An annotation that was written as a string, or as one of several (`Path | None`), as what can be looked up."""
    match node:
        case ast.Constant(value=str(text)):
            try:
                return _unquoted(ast.parse(text, mode="eval").body)
            except SyntaxError:
                return node
        case ast.BinOp(left=left, op=ast.BitOr()):
            return _unquoted(left)
        case _:
            return node
