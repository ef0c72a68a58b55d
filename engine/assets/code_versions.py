"""The code version of a function that does not declare one: a digest of what it says, and not of how it is written.

It covers the function, and the functions, classes and plain values of its own module that it names, as far as that goes.
Comments, docstrings, blank lines, line numbers and decorators do not count. What is imported from elsewhere does not
count either: declare `code_version`, and change it with that.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from engine.assets.provenance import DIGEST_CHARACTERS
from engine.errors import AssetDefinitionError

__all__ = ["code_version_of"]

_Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


def code_version_of(fn: Callable[..., Any], where: str) -> str:
    """Raises `AssetDefinitionError`, naming `where`, when the source cannot be read."""
    function = inspect.unwrap(fn)
    try:
        own = ast.parse(_dedented(function)).body[0]
    except (OSError, TypeError, SyntaxError, IndexError) as error:
        raise AssetDefinitionError(
            f"{where}: its source cannot be read ({error}), so nothing tells when its code is another: declare"
            " code_version='1', and change it with the code"
        ) from None
    there = _module_level(function)
    parts = {"": own} | {name: there[name] for name in _reached(own, there)}
    text = "\n".join(f"{name}={_bare(node)}" for name, node in sorted(parts.items()))
    return sha256(text.encode()).hexdigest()[:DIGEST_CHARACTERS]


def _dedented(function: Callable[..., Any]) -> str:
    return inspect.cleandoc("\n" + inspect.getsource(function))


def _module_level(function: Callable[..., Any]) -> dict[str, ast.stmt]:
    """What the function's module defines, by name; nothing for a module without a file."""
    try:
        source = Path(inspect.getsourcefile(function) or "").read_text("utf-8")
        body = ast.parse(source).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return found


def _reached(own: ast.stmt, there: dict[str, ast.stmt]) -> set[str]:
    """The names of the module that a function names, and that those name, and so on; not other assets and checks."""
    found: set[str] = set()
    waiting = [own]
    while waiting:
        for name in _names(waiting.pop()):
            node = there.get(name)
            if node is not None and name not in found and not _is_defined_here(node):
                found.add(name)
                waiting.append(node)
    return found


def _names(node: ast.AST) -> set[str]:
    """What is named outside of decorators and annotations."""
    stripped = _strip(node)
    return {each.id for each in ast.walk(stripped) if isinstance(each, ast.Name)}


def _is_defined_here(node: ast.stmt) -> bool:
    """Whether it is an asset or a check of its own, which has a version of its own."""
    decorators = getattr(node, "decorator_list", [])
    names = {ast.unparse(each.func if isinstance(each, ast.Call) else each).rpartition(".")[2] for each in decorators}
    return bool(names & {"asset", "assets", "check"})


class _Bare(ast.NodeTransformer):
    """Takes out what does not change what code does."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:  # noqa: N802 - the name that `ast` calls
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:  # noqa: N802 - likewise
        return self._function(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:  # noqa: N802 - likewise
        _without_docstring(node)
        return self.generic_visit(node)

    def _function(self, node: Any) -> ast.AST:
        node.decorator_list = []
        _without_docstring(node)
        return self.generic_visit(node)


def _without_docstring(node: Any) -> None:
    if ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:] or [ast.Pass()]


def _strip(node: ast.AST) -> ast.AST:
    return _Bare().visit(ast.parse(ast.unparse(node)))  # a copy: `ast` changes trees in place


def _bare(node: ast.AST) -> str:
    return ast.dump(_strip(node))
