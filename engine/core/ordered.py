"""Sets that iterate in insertion order, where a library keeps awaitables in a set inside a workflow.

`asyncio.wait`, `as_completed`, `TaskGroup` and anyio's scopes keep tasks and scopes in sets, and a set iterates by
hash, which for most objects is their address: another one in every process. Our own tasks and futures have a hash that
comes from the run's seed; for what is not ours (raw coroutines, anyio's scopes) the name `set` *inside those modules*
is replaced by `WorkflowSet`. Outside a workflow, `WorkflowSet(...)` is the builtin `set`: one call more, nothing else.

This, and gather's future class getting a hash, are the only process-wide changes the core makes.
"""

from __future__ import annotations

import asyncio
import asyncio.taskgroups
import asyncio.tasks
import builtins
from collections.abc import Iterable, Iterator
from inspect import iscoroutine
from types import ModuleType
from typing import Any

__all__ = ["OrderedSet", "WorkflowSet", "install", "install_asyncio"]


class OrderedSet(set[Any]):
    """A `set` whose iteration is in order of insertion. Members are kept twice: as a set and as the keys of a dict."""

    __slots__ = ("_order",)
    _order: dict[Any, None]

    def __init__(self, iterable: Iterable[Any] = ()) -> None:
        _refuse_unordered(iterable)
        self._order = dict.fromkeys(iterable)
        super().__init__(self._order)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._order)

    def __repr__(self) -> str:
        return f"{{{', '.join(map(repr, self._order))}}}" if self._order else "set()"

    def add(self, element: Any) -> None:
        super().add(element)
        self._order[element] = None

    def discard(self, element: Any) -> None:
        super().discard(element)
        self._order.pop(element, None)

    def remove(self, element: Any) -> None:
        super().remove(element)
        del self._order[element]

    def pop(self) -> Any:
        if not self._order:
            raise KeyError("pop from an empty set")
        element = next(iter(self._order))
        self.remove(element)
        return element

    def clear(self) -> None:
        super().clear()
        self._order.clear()

    def copy(self) -> OrderedSet:
        return OrderedSet(self)

    def update(self, *others: Iterable[Any]) -> None:
        for other in others:
            for element in other:
                self.add(element)

    def difference_update(self, *others: Iterable[Any]) -> None:
        for other in others:
            for element in list(other):
                self.discard(element)

    def intersection_update(self, *others: Iterable[Any]) -> None:
        self._keep(builtins.set(self).intersection(*others))

    def symmetric_difference_update(self, other: Iterable[Any]) -> None:
        for element in OrderedSet(other):
            if element in self:
                self.remove(element)
            else:
                self.add(element)

    def union(self, *others: Iterable[Any]) -> OrderedSet:
        result = self.copy()
        result.update(*others)
        return result

    def difference(self, *others: Iterable[Any]) -> OrderedSet:
        result = self.copy()
        result.difference_update(*others)
        return result

    def intersection(self, *others: Iterable[Any]) -> OrderedSet:
        result = self.copy()
        result.intersection_update(*others)
        return result

    def symmetric_difference(self, other: Iterable[Any]) -> OrderedSet:
        result = self.copy()
        result.symmetric_difference_update(other)
        return result

    # The operators of `set` take sets only, and return NotImplemented otherwise; so do these.

    def __or__(self, other: Any) -> Any:
        return self.union(other) if isinstance(other, builtins.set | frozenset) else NotImplemented

    def __and__(self, other: Any) -> Any:
        return self.intersection(other) if isinstance(other, builtins.set | frozenset) else NotImplemented

    def __sub__(self, other: Any) -> Any:
        return self.difference(other) if isinstance(other, builtins.set | frozenset) else NotImplemented

    def __xor__(self, other: Any) -> Any:
        return self.symmetric_difference(other) if isinstance(other, builtins.set | frozenset) else NotImplemented

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def __iand__(self, other: Any) -> Any:
        self.intersection_update(other)
        return self

    def __isub__(self, other: Any) -> Any:
        self.difference_update(other)
        return self

    def __ixor__(self, other: Any) -> Any:
        self.symmetric_difference_update(other)
        return self

    def _keep(self, kept: set[Any]) -> None:
        for element in [element for element in self._order if element not in kept]:
            self.remove(element)


def _refuse_unordered(iterable: Iterable[Any]) -> None:
    """A builtin set of raw coroutines has no order that a replay could find again; nothing we do later can mend it."""
    if type(iterable) in (builtins.set, frozenset) and sum(iscoroutine(element) for element in iterable) > 1:
        raise TypeError(
            "a set of coroutines has no order that a replay could repeat: hand asyncio a list (or tasks) instead"
        )


class _SetSwitch(type):
    """Makes ``isinstance(x, set)`` mean the builtin where `set` is `WorkflowSet`."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, builtins.set)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, builtins.set)


class WorkflowSet(metaclass=_SetSwitch):
    """Called like `set`: an `OrderedSet` inside a workflow, a builtin `set` everywhere else."""

    def __new__(cls, iterable: Iterable[Any] = ()) -> Any:
        if getattr(asyncio._get_running_loop(), "holds_workflow", False):
            return OrderedSet(iterable)
        return builtins.set(iterable)

    def __class_getitem__(cls, item: Any) -> Any:
        return builtins.set[item]


def install(module: ModuleType) -> None:
    """Let the name `set` inside `module` be `WorkflowSet`. Doing it again changes nothing."""
    module.__dict__["set"] = WorkflowSet


def install_asyncio() -> None:
    """Make asyncio's own sets, and gather's future, iterate in the same order in every process inside a workflow."""
    install(asyncio.tasks)
    install(asyncio.taskgroups)
    gathering: Any = asyncio.tasks._GatheringFuture  # type: ignore[attr-defined]
    gathering.__hash__ = _gathering_hash


def _gathering_hash(future: Any) -> int:
    loop = future.get_loop()
    if not getattr(loop, "holds_workflow", False):
        return object.__hash__(future)
    # Asked with getattr: a subclass of the C future takes attributes, but shows no `__dict__`.
    serial = getattr(future, "_holdfast_hash", None)
    if serial is None:
        serial = future._holdfast_hash = loop.next_hash()
    return int(serial)
