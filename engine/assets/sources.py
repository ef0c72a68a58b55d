"""Source text as what it says: each definition of a module as a text without layout, and the names that it uses.

A module is read and parsed once, for all of its functions, and again when its file is another. It knows files, and what
`linecache` knows of notebooks; it runs nothing.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final

from engine.assets.names import names_in, stored_in

__all__ = ["Definition", "Source", "SourceGone", "source_in", "source_of", "text_of"]

SOURCES_MAX: Final = 64
"""Modules that are kept as they were parsed."""
_OWN_DECORATORS: Final = frozenset({"asset", "assets", "check"})

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class SourceGone(Exception):
    """The text of a function is not there, or is not the one that it was made from."""


class Definition:
    """What is said somewhere, and the names that are used for it."""

    def __init__(self, nodes: Iterable[ast.AST]) -> None:
        self._nodes = tuple(nodes)

    @cached_property
    def text(self) -> str:
        """It, without layout, comments and docstrings."""
        return ";".join(map(text_of, self._nodes))

    @cached_property
    def names(self) -> frozenset[str]:
        """What it uses of the module."""
        return frozenset().union(*map(names_in, self._nodes))


class Source:
    """One parsed text. `is_module`: it is all that its functions can name, and not one cell of a notebook."""

    def __init__(self, text: str, *, is_module: bool) -> None:
        self.is_module = is_module
        self._tree = ast.parse(text)
        self._functions: dict[tuple[int, str], list[Function]] = {}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                self._functions.setdefault((first, node.name), []).append(node)
            elif isinstance(node, ast.Lambda):
                self._functions.setdefault((node.lineno, "<lambda>"), []).append(node)

    @cached_property
    def text(self) -> str:
        """All of it, without layout, comments and docstrings."""
        return text_of(self._tree)

    @cached_property
    def _named(self) -> dict[str, Definition]:
        found: dict[str, list[ast.AST]] = {}
        for statement in chain.from_iterable(map(_tried, self._tree.body)):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                for name, node in _imported(statement):
                    found.setdefault(name, []).append(node)
            else:
                for name in stored_in(statement):
                    found.setdefault(name, []).append(statement)
        return {name: Definition(nodes) for name, nodes in found.items()}

    def named(self, name: str) -> Definition | None:
        """What the module says of a name: all statements that bind it."""
        return self._named.get(name)

    def function(self, function: FunctionType, *, decorated: bool) -> Definition:
        """A function, wherever it stands. Raises `SourceGone`. `decorated`: its decorators belong to it."""
        code = function.__code__
        found = self._functions.get((code.co_firstlineno, code.co_name), [])
        if len(found) > 1:
            found = _told_apart(found, code)
        if len(found) != 1:
            raise SourceGone(f"line {code.co_firstlineno} of {Path(code.co_filename).name} is another by now")
        node = found[0]
        if isinstance(node, ast.Lambda):
            return Definition([node])
        kept = [each for each in node.decorator_list if decorated and _name_of(each) not in _OWN_DECORATORS]
        return Definition([*kept, _undecorated(node)])


def source_of(function: FunctionType) -> Source:
    """The text that a function stands in. Raises `SourceGone`."""
    file = function.__code__.co_filename
    try:
        return source_in(file)
    except OSError:
        linecache.lazycache(file, function.__globals__)  # in an archive; or in a notebook, which has no file
        return _parsed(file, 0, 0)


def source_in(file: str) -> Source:
    """The text of a file. Raises `SourceGone` for what is no text of Python, `OSError` when it is not there."""
    found = Path(file).stat()
    return _parsed(file, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=SOURCES_MAX)
def _parsed(file: str, modified: int, _size: int) -> Source:
    linecache.checkcache(file)
    lines = linecache.getlines(file)
    if not lines:
        raise SourceGone(f"{file} is no file that is there")
    try:
        return Source("".join(lines), is_module=file.endswith(".py") and bool(modified))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise SourceGone(f"{file} is not what this version of Python reads: {error}") from None


# ------------------------------------------------------------------------------------------------ as text


def text_of(node: Any) -> str:
    """A syntax tree as text. It leaves out what is not given, so that a new version of Python, which may have more to
    give, writes the same; and docstrings.
    """
    out: list[str] = []
    _write(node, out)
    return "".join(out)


def _write(node: Any, out: list[str]) -> None:
    if isinstance(node, ast.AST):
        out.append(type(node).__name__)
        out.append("(")
        for field, value in ast.iter_fields(node):
            if value is None and not isinstance(node, ast.Constant):
                continue
            if value == [] or field in ("ctx", "kind", "type_comment"):
                continue
            out.append(field + "=")
            _write(_without_docstring(node, value) if field == "body" else value, out)
            out.append(",")
        out.append(")")
    elif isinstance(node, list):
        out.append("[")
        for each in node:
            _write(each, out)
            out.append(",")
        out.append("]")
    else:
        out.append(repr(node))


def _without_docstring(node: ast.AST, body: Any) -> Any:
    match body:
        case [ast.Expr(value=ast.Constant(value=str())), *rest] if isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module
        ):
            return rest
        case _:
            return body


def _undecorated(node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
    fields = {name: value for name, value in ast.iter_fields(node) if name != "decorator_list"}
    return type(node)(**fields, decorator_list=[])


def _name_of(decorator: ast.expr) -> str:
    node = decorator.func if isinstance(decorator, ast.Call) else decorator
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _tried(statement: ast.stmt) -> list[ast.stmt]:
    """The imports of a ``try`` that binds nothing when they fail, each of its own; any other statement as it is."""
    if not isinstance(statement, ast.Try):
        return [statement]
    otherwise = [
        *(each for handler in statement.handlers for each in handler.body),
        *statement.orelse,
        *statement.finalbody,
    ]
    plain = all(isinstance(each, ast.Import | ast.ImportFrom) for each in statement.body)
    return statement.body if plain and not any(map(stored_in, otherwise)) else [statement]


def _imported(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, ast.AST]]:
    """Each name that is imported, and the import of it alone."""
    for each in statement.names:
        name = each.asname or each.name.partition(".")[0]
        if isinstance(statement, ast.Import):
            yield name, ast.Import(names=[each])
        elif statement.module != "__future__":
            yield name, ast.ImportFrom(module=statement.module, names=[each], level=statement.level)


def _told_apart(nodes: list[Function], code: CodeType) -> list[Function]:
    """Of several on one line, which are lambdas, those that the code can be from: by where its instructions stand."""
    places = [
        ((line, column), (end_line, end_column))
        for line, end_line, column, end_column in code.co_positions()
        if line is not None and end_line is not None and column is not None and end_column  # else it is made up
    ]
    around = [node for node in nodes if places and all(_encloses(node, *place) for place in places)]
    return around[-1:]  # `ast.walk` goes from the outside in


def _encloses(node: Function, start: tuple[int, int], end: tuple[int, int]) -> bool:
    body = node.body
    if isinstance(body, list) or body.end_lineno is None or body.end_col_offset is None:
        return False
    return (body.lineno, body.col_offset) <= start and end <= (body.end_lineno, body.end_col_offset)
