"""Which definitions the code of a workflow names: the workflows that it may call as child runs, and the tasks.

A child may need a worker when nobody has its parent in memory, after a restart say, so a worker must know its workflow
without having seen the call. Names are followed through globals, closures, modules and plain containers, and through
the functions that these lead to in the workflow's own modules. What is only made while the code runs is not found
here; a worker learns it when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

from engine.core.call import Definition
from engine.workflows.definition import Workflow

__all__ = ["is_foreign", "named", "reached"]


def named(workflows: Iterable[Workflow[..., Any]]) -> Iterator[Definition[..., Any]]:
    """These workflows, and the workflows and tasks that they name; the code of tasks is not looked into."""
    return (each for each in _walk(workflows) if isinstance(each, Definition))


def reached(workflow: Definition[..., Any]) -> Iterator[Definition[..., Any] | FunctionType]:
    """A workflow, and the definitions and functions that it names, in the same order in every process."""
    return _walk([workflow])


def _walk(workflows: Iterable[Definition[..., Any]]) -> Iterator[Definition[..., Any] | FunctionType]:
    seen: set[int] = set()
    waiting: list[Any] = list(workflows)
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, Definition):
            if id(value) in seen:
                continue
            seen.add(id(value))
            yield value
            value = value.fn if isinstance(value, Workflow) else None
            # One that this package brings: its code is known, and what it calls is its user's.
            if isinstance(value, FunctionType) and is_foreign(value.__module__):
                waiting.extend(_named_by(value))
        if isinstance(value, FunctionType) and id(value) not in seen and not is_foreign(value.__module__):
            seen.add(id(value))
            yield value
            waiting.extend(_named_by(value))


def _named_by(function: FunctionType) -> Iterator[Any]:
    names = set(_names(function.__code__))
    scope: dict[str, Any] = {name: function.__globals__[name] for name in names if name in function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            scope[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    for name in sorted(scope):
        value = scope[name]
        yield from _members(value)
        if isinstance(value, ModuleType | type):
            yield from (vars(value)[attribute] for attribute in sorted(names & vars(value).keys()))


def _members(value: Any) -> Iterator[Any]:
    match value:
        case Definition() | FunctionType():
            yield value
        case Mapping():
            yield from (item for item in value.values() if isinstance(item, Definition | FunctionType))
        case list() | tuple():
            yield from (item for item in value if isinstance(item, Definition | FunctionType))
        case _:
            return


def _names(code: CodeType) -> Iterator[str]:
    """The names that code uses, those of functions inside it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def is_foreign(module: str | None) -> bool:
    """Whether a module is of the standard library, or of this one: no workflow of a user's is named there."""
    root = (module or "").partition(".")[0]
    return root in sys.stdlib_module_names or root in ("engine", "eventstore", "anyio", "tenacity", "msgspec")
