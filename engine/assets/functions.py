"""Reading authors' functions: where they stand, and what their annotations name.

It knows nothing of assets; what an annotation makes of a parameter is decided in `nodes`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from engine.assets.values import Materialized, Output
from engine.errors import AssetDefinitionError

__all__ = ["hints_of", "is_instance", "plain", "value_of", "where_of"]


def where_of(fn: Callable[..., Any], what: str) -> str:
    """File and line of a function. Raises `AssetDefinitionError`, naming `what` was to be made of it, for what is none.

    A function that is decorated stands where it was written, and a bound method is one.
    """
    inner = inspect.unwrap(fn) if callable(fn) else fn
    code = getattr(inner, "__code__", None)
    if code is None or not (inspect.isfunction(fn) or inspect.ismethod(fn)):
        raise AssetDefinitionError(f"{what} decorates a function, not {fn!r}{_instead(fn)}")
    where = f"{Path(code.co_filename).name}:{code.co_firstlineno}"
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise AssetDefinitionError(f"{where}: {what} takes no generator: return the value of {fn.__name__}")
    return where


def _instead(fn: object) -> str:
    if isinstance(fn, functools.partial):
        return ": write a function that calls it, whose source tells what it does"
    if isinstance(fn, staticmethod | classmethod):
        return ": put it below @staticmethod, or outside of the class"
    if isinstance(fn, str):
        return f": say key={fn!r}"
    return ": put it below, next to the function" if hasattr(fn, "__wrapped__") else ""


def hints_of(annotated: Any, where: str) -> dict[str, Any]:
    """The annotations of a function or a class as types. Raises `AssetDefinitionError` for a name that is not there."""
    try:
        return get_type_hints(annotated, include_extras=True)
    except Exception as error:  # annotations are code: they may raise anything
        raise AssetDefinitionError(
            f"{where}: its annotations cannot be read ({error}): import the types that they name at module level, and"
            " outside of `if TYPE_CHECKING`, for they say what is read and injected"
        ) from None


def plain(hint: Any) -> Any:
    """A type without what `Annotated` says of it."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def value_of(hint: Any) -> Any:
    """The type of the value that is stored: that of an `Output[T]` is T, and `Materialized` has none."""
    hint = plain(hint)
    if get_origin(hint) is Output:
        return plain(get_args(hint)[0])
    return Any if hint is Output or hint is Materialized else hint


def is_instance(value: object, kind: Any) -> bool:
    """`isinstance` that says no to what cannot be asked, such as a protocol that is not checked at run time."""
    try:
        return isinstance(value, kind)
    except TypeError:
        return False
