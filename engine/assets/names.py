"""Which names a piece of syntax uses of the module around it, and which it binds there. Scopes as Python has them.

Where it cannot be told, a name counts as used.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

__all__ = ["names_in", "stored_in"]

_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def names_in(node: ast.AST) -> frozenset[str]:
    """The names that it looks up outside of itself: globals, and builtins."""
    return frozenset(_free(node))


def stored_in(statement: ast.AST) -> frozenset[str]:
    """The names that a statement binds in its own scope; imports aside, unless they stand within it."""
    return frozenset(_bound([statement]))


def _free(node: ast.AST) -> set[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Load()):
            return {name}
        case ast.Global(names=names):
            return set(names)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            around = [*node.decorator_list, node.args, *([node.returns] if node.returns else [])]
            return _of_all(around) | _of_function(node.args, node.body)
        case ast.Lambda(args=args, body=body):
            return _free(args) | _of_function(args, [body])
        case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
            inner = _of_all(ast.iter_child_nodes(node)) - _targets(node)
            return inner | _free(node.generators[0].iter)  # that is looked up outside
        case _:  # of a class too: its functions do not see what its body binds
            return _of_all(ast.iter_child_nodes(node))


def _of_all(nodes: Iterable[ast.AST]) -> set[str]:
    return set().union(*map(_free, nodes))


def _of_function(args: ast.arguments, body: list[ast.stmt] | list[ast.expr]) -> set[str]:
    given = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    outside = {name for each in _own_scope(body) if isinstance(each, ast.Global) for name in each.names}
    return _of_all(body) - ({each.arg for each in given if each} | _bound(body)) | outside


def _targets(node: _Comprehension) -> set[str]:
    return set().union(*(_bound([each.target]) for each in node.generators))


def _bound(nodes: Iterable[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in _own_scope(nodes):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {each.asname or each.name.partition(".")[0] for each in names}
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                found.add(name)
            case ast.MatchMapping(rest=str(name)):
                found.add(name)
    return found


def _own_scope(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """These, and what is within them, but not within another function or class."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            waiting += [each for each in ast.walk(node) if isinstance(each, ast.NamedExpr)]
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
