"""The code version of a function that does not declare one: a digest of what it says, and not of how it is written.

It covers the function; the functions, classes and constants of its own module that it names, and that those name, and
so on; from where the imported things among them are imported; and what a function that was made inside another one took
from there, if that is plain data or a function. Comments, docstrings, layout, place, and `@asset` with its options do
not count. The code that is imported does not count either: name its module in `modules`, or declare `code_version`, and
change it with that.

It reads source text as it stands when it is first asked, and never runs anything. The same text has the same version on
every version of Python.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from types import FunctionType, ModuleType
from typing import Any, Final

from engine.assets.provenance import DIGEST_CHARACTERS
from engine.assets.sources import Source, SourceGone, source_in, source_of
from engine.errors import AssetDefinitionError

__all__ = ["code_version_of", "with_modules"]

_PLAIN: Final = (type(None), bool, int, float, complex, str, bytes)


def code_version_of(fn: Callable[..., Any], where: str) -> str:
    """Raises `AssetDefinitionError`, naming `where`, when the source cannot be read, or does not say all of it."""
    if inspect.ismethod(fn):
        raise _undeclared(where, f"it is a method of {type(fn.__self__).__name__!r}, whose state is no source")
    function = inspect.unwrap(fn)
    if not isinstance(function, FunctionType):
        raise _undeclared(where, f"its source cannot be read: {fn!r} is no function")
    covered = _Covered(where)
    covered.take("", function, decorated=function is not fn)
    text = "\n".join(f"{name}={said}" for name, said in sorted(covered.said.items()))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_CHARACTERS]


def with_modules(version: str, modules: Iterable[ModuleType], where: str) -> str:
    """A code version that covers modules as well: each as a whole, and not what it imports. Raises
    `AssetDefinitionError` for one without source.
    """
    said = [version]
    for module in modules:
        try:
            said.append(f"{module.__name__}={source_in(getattr(module, '__file__', None) or module.__name__).text}")
        except (SourceGone, OSError) as error:
            raise _undeclared(where, f"the source of module {module.__name__} cannot be read: {error}") from None
    if len(said) == 1:
        return version
    return sha256("\n".join(said).encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_CHARACTERS]


class _Covered:
    """What a function's version covers, by name."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.said: dict[str, str] = {}

    def take(self, name: str, function: FunctionType, *, decorated: bool) -> None:
        """A function, and all that it names. `decorated`: otherwise than as an asset, so that its decorators count."""
        if name in self.said:
            return
        try:
            source = source_of(function)
            own = source.function(function, decorated=decorated)
        except SourceGone as error:
            raise _undeclared(self.where, f"its source cannot be read: {error}") from None
        self.said[name] = own.text
        self._take_enclosed(name, function)
        self._take_names(own.names, source, function.__globals__)

    def _take_names(self, names: Iterable[str], source: Source, namespace: Mapping[str, Any]) -> None:
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in self.said:
                continue
            definition = source.named(name)
            if definition is not None:
                self.said[name] = definition.text
                waiting += definition.names
            elif not source.is_module:
                self._take_value(name, namespace.get(name))

    def _take_value(self, name: str, value: Any) -> None:
        """What another cell of a notebook, or another input of a prompt, has defined."""
        if _is_plain(value):
            self.said[name] = repr(value)
        elif isinstance(value, FunctionType):
            self.take(name, value, decorated=True)

    def _take_enclosed(self, name: str, function: FunctionType) -> None:
        """What it has from the function around it, if there is one."""
        if "<locals>" in function.__qualname__:
            given = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
            self.said[f"{name}()"] = repr([each for each in given if _is_plain(each)])
        for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not yet assigned
                value = cell
            if _is_plain(value):
                self.said[f"{name}.{variable}"] = repr(value)
            elif isinstance(value, FunctionType) and inspect.unwrap(value) is value:
                self.take(f"{name}.{variable}", value, decorated=True)
            else:
                what = f"{variable!r} of the function around it, which is {type(value).__name__} and no plain data"
                raise _undeclared(self.where, f"it uses {what}")


def _undeclared(where: str, why: str) -> AssetDefinitionError:
    return AssetDefinitionError(
        f"{where}: {why}; so nothing tells when its code is another: declare code_version='1', and change it with the"
        " code"
    )


def _is_plain(value: object) -> bool:
    """Whether `repr` says all of it, and the same in each process."""
    match value:
        case tuple() | list():
            return type(value) in (tuple, list) and all(map(_is_plain, value))
        case dict():
            return type(value) is dict and all(_is_plain(each) for pair in value.items() for each in pair)
        case _:
            return type(value) in _PLAIN
