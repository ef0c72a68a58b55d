"""Where workflow code depends on the order of a set. A set of texts has another order in every process.

Sets are told by how they are written: literals, comprehensions, `set(...)`, `frozenset(...)`, and what operators and
methods make of these. What only asks whether something is in a set, or puts it in order, is fine.
"""

from __future__ import annotations

import ast
from typing import Final

from engine.workflows.naming import Names

__all__ = ["unordered_use"]

_KEEPING: Final = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})
_VIEWS: Final = frozenset({"keys", "items"})
_ORDERING: Final = frozenset(
    f"builtins.{name}"
    for name in ("list", "tuple", "iter", "enumerate", "map", "filter", "zip", "sum", "str", "repr", "reversed")
)
"""Builtins whose answer depends on the order of what they are given."""
_ORDERLESS: Final = frozenset(
    f"builtins.{name}" for name in ("sorted", "set", "frozenset", "len", "any", "all", "min", "max")
)
"""Builtins that may be given a comprehension over a set. Not `min` and `max` with a `key`: which of two comes?"""


def unordered_use(node: ast.AST, names: Names) -> ast.expr | None:
    """The set whose order this node depends on, itself and not what is in it; None when there is none."""
    match node:
        case ast.For(iter=iterated) | ast.Starred(value=iterated) | ast.YieldFrom(value=iterated):
            candidates = [iterated]
        case ast.Assign(targets=[ast.Tuple() | ast.List(), *_], value=value):
            candidates = [value]
        case ast.DictComp(generators=generators):
            candidates = [each.iter for each in generators]
        case ast.ListComp(generators=generators) | ast.GeneratorExp(generators=generators) if not _is_lost(node):
            candidates = [each.iter for each in generators]
        case ast.Call():
            candidates = _given(node, names)
        case _:
            return None
    return next((each for each in candidates if _is_set(each, names)), None)


def _given(node: ast.Call, names: Names) -> list[ast.expr]:
    """What a call goes through in order. Marks what one that loses the order is given."""
    named = names.of(node.func)
    path = "" if named is None else named.path
    match node.func:
        case ast.Attribute(value=owner, attr="pop") if not node.args:
            return [owner]
        case ast.Attribute(attr="join" | "fromkeys" | "extend" | "from_iterable"):
            return node.args[:1]
    keyed = path in ("builtins.min", "builtins.max") and any(each.arg == "key" for each in node.keywords)
    if path in _ORDERLESS and not keyed:
        for each in node.args:
            each.order_is_lost = True  # type: ignore[attr-defined]
        return []
    return list(node.args) if path in _ORDERING or keyed else []


def _is_lost(node: ast.AST) -> bool:
    return getattr(node, "order_is_lost", False)


def _is_set(node: ast.expr, names: Names) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.NamedExpr(value=value):
            return _is_set(value, names)
        case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.BitXor() | ast.Sub(), right=right):
            return any(_is_set(side, names) or _is_view(side) for side in (left, right))
        case ast.IfExp(body=body, orelse=orelse):
            return _is_set(body, names) or _is_set(orelse, names)
        case ast.Call(func=ast.Attribute(value=owner, attr=attr)) if attr in _KEEPING:
            return _is_set(owner, names)
        case ast.Call(func=func):
            named = names.of(func)
            return named is not None and named.path in ("builtins.set", "builtins.frozenset")
        case _:
            return False


def _is_view(node: ast.expr) -> bool:
    """Whether it is `d.keys()` or `d.items()`, of which operators make sets."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _VIEWS
