"""`@workflow`: the deterministic `async def` that an author writes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, overload

from engine.core.call import Call, Definition
from engine.errors import DefinitionError, HoldfastError

__all__ = ["Workflow", "workflow"]

P = ParamSpec("P")
R = TypeVar("R")


class Workflow(Definition[P, R]):
    """What `@workflow` makes of an `async def`. Calling it makes a `Call` for `engine.start`."""

    kind = "workflow"

    def __init__(self, fn: Callable[P, Coroutine[Any, Any, R]], *, name: str | None = None) -> None:
        super().__init__(fn, name=name)
        if not inspect.iscoroutinefunction(fn):
            raise DefinitionError(
                f"@workflow decorates an `async def`, {self.name!r} is not one: make it `async def`,"
                " or decorate it with @task if it has effects"
            )

    def outside(self, call: Call[R]) -> Coroutine[Any, Any, R]:
        call.take()
        raise HoldfastError(
            f"{call!r} was awaited outside a run: start it with"
            f" `run = await engine.start({self.name}(...))`, then `await run.result()`;"
            f" to test it as plain code, await `{self.name}.fn(...)`"
        )


@overload
def workflow(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(*, name: str | None = None) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Workflow[P, R]]: ...
def workflow(fn: Any = None, /, *, name: str | None = None) -> Any:
    """Make a workflow of an `async def`; with or without parentheses.

    `name` is what histories call it (default: the function's bare name, never its module's). Raises `DefinitionError`
    for what is no coroutine function or cannot be named so.
    """
    if fn is not None:
        return Workflow(fn, name=name)
    return lambda function: Workflow(function, name=name)
