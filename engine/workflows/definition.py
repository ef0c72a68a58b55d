"""`@workflow`: the deterministic `async def` that an author writes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar, get_args, overload

import msgspec
from msgspec import Struct

from engine.core.call import Call, Definition, OnCancel
from engine.core.events import ParentClose
from engine.core.identity import check_run_id
from engine.errors import DefinitionError, HoldfastError

__all__ = ["ChildOptions", "Workflow", "workflow"]

P = ParamSpec("P")
R = TypeVar("R")

VERSION_MAX: Final = 40
"""Characters of a workflow's version."""


class ChildOptions(Struct, frozen=True, kw_only=True):
    """How a workflow is started as a child run.

    `id`: the child's run id, instead of one made of the parent's. `parent_close`: what becomes of it when its parent
    ends first. `on_cancel`: whether a cancelled await ends at once, or with the child's own end. `deadline`: seconds
    from its start; it never outlasts its parent's.
    """

    id: str | None = None
    parent_close: ParentClose = "cancel"
    on_cancel: OnCancel = "wait"
    deadline: float | None = None


class Workflow(Definition[P, R]):
    """What `@workflow` makes of an `async def`.

    Calling it makes a `Call` for `engine.start`, or to await in another workflow, where it is a child run.
    """

    kind = "workflow"

    def __init__(
        self,
        fn: Callable[P, Coroutine[Any, Any, R]],
        *,
        name: str | None = None,
        options: ChildOptions | None = None,
        version: str = "",
    ) -> None:
        super().__init__(fn, name=name)
        self.version = _checked_version(version, self.where)
        if not inspect.iscoroutinefunction(fn):
            raise DefinitionError(
                f"@workflow decorates an `async def`, {self.name!r} is not one: make it `async def`,"
                " or decorate it with @task if it has effects"
            )
        self.policy = ChildOptions() if options is None else options

    def options(self, **changes: Any) -> Workflow[P, R]:
        """The same workflow with other `ChildOptions` for the child runs that are called so.

        Raises `DefinitionError` for an option that does not exist or cannot be so.
        """
        known = set(ChildOptions.__struct_fields__)
        if unknown := sorted(changes.keys() - known):
            raise DefinitionError(f"{self.where} has no option {unknown[0]!r}; there are {', '.join(sorted(known))}")
        options = msgspec.structs.replace(self.policy, **changes)
        _check(options, self.where)
        return Workflow(self.fn, name=self.name, options=options, version=self.version)

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
def workflow(
    *, name: str | None = None, version: str = ""
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Workflow[P, R]]: ...
def workflow(fn: Any = None, /, *, name: str | None = None, version: str = "") -> Any:
    """Make a workflow of an `async def`; with or without parentheses.

    `name` is what histories call it (default: the function's bare name, never its module's). `version`: of several
    workflows of one name, which an engine has side by side; a run stays on the one that it began with. Raises
    `DefinitionError` for what is no coroutine function, or cannot be named so.
    """
    if fn is not None:
        return Workflow(fn, name=name)
    return lambda function: Workflow(function, name=name, version=version)


def _checked_version(version: str, where: str) -> str:
    fits = isinstance(version, str) and len(version) <= VERSION_MAX and version.isprintable() and " " not in version
    if not fits:
        raise DefinitionError(
            f"{where}: version is a text of at most {VERSION_MAX} printable characters without spaces, as in"
            f' @workflow(version="2"), not {version!r}'
        )
    return version


def _check(options: ChildOptions, where: str) -> None:
    if options.id is not None:
        check_run_id(options.id)
    if options.parent_close not in get_args(ParentClose):
        raise DefinitionError(
            f"{where}: parent_close is 'cancel', 'terminate' or 'abandon', not {options.parent_close!r}"
        )
    if options.on_cancel not in get_args(OnCancel):
        raise DefinitionError(f"{where}: on_cancel is 'abandon' or 'wait', not {options.on_cancel!r}")
    seconds = options.deadline
    if seconds is not None and not (isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0):
        raise DefinitionError(f"{where}: deadline must be a number of seconds above 0, not {seconds!r}")
