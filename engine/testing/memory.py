"""What dies with a process, and what does not: so that a crash that is only played is like a real one.

A process that begins anew has its modules as they are imported. Module-level values that workflow code looks at are
therefore set back at every crash; the things that stand for the outside are set back before each run only.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType
from typing import Any, Final

from engine import Workflow

__all__ = ["Kept", "globals_of", "snapshot"]

_CONTAINERS: Final = (dict, list, set, deque, bytearray)
_SCALARS: Final = (int, float, str, bytes, bool, type(None))


class Kept:
    """A container as it was, to be made so again."""

    def __init__(self, container: Any) -> None:
        self.container = container
        self._content = snapshot(container)

    def restore(self) -> None:
        """Make the container again what it was, in place."""
        content = snapshot(self._content)
        self.container.clear()
        if isinstance(self.container, dict | set):
            self.container.update(content)
        else:
            self.container.extend(content)


class KeptName:
    """What a module-level name stood for."""

    def __init__(self, names: dict[str, Any], name: str) -> None:
        self._names, self._name, self._value = names, name, names[name]

    def restore(self) -> None:
        """Let it stand for that again."""
        self._names[self._name] = self._value


def snapshot(value: Any) -> Any:
    """A copy that later changes do not reach, as deep as it goes."""
    try:
        return copy.deepcopy(value)
    except Exception:  # it holds what cannot be copied: a lock, a connection
        return copy.copy(value)


def globals_of(workflows: Iterable[Workflow[..., Any]], *, but: Iterable[Any]) -> list[Kept | KeptName]:
    """The module-level values that the code of these workflows names, directly or in functions of the same module.

    `but`: containers that stand for the outside.
    """
    outside = {id(each) for each in but}
    found: dict[tuple[int, str], Kept | KeptName] = {}
    pending: list[FunctionType] = [definition.fn for definition in workflows if isinstance(definition.fn, FunctionType)]
    seen: set[CodeType] = set()
    while pending:
        function = pending.pop()
        if function.__code__ in seen:
            continue
        seen.add(function.__code__)
        names = function.__globals__
        for name in _names_in(function.__code__):
            value = names.get(name)
            if isinstance(value, Workflow) and isinstance(value.fn, FunctionType):
                pending.append(value.fn)  # called as a child run
            elif isinstance(value, FunctionType) and value.__globals__ is names:
                pending.append(value)
            elif name in names and type(value) in _SCALARS and not name.startswith("__"):
                found[id(names), name] = KeptName(names, name)
            elif isinstance(value, _CONTAINERS) and id(value) not in outside:
                found[id(names), name] = Kept(value)
    return list(found.values())


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
