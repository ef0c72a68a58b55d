"""Definitions and calls.

A `Definition` is what `@task` and `@workflow` make of a function; calling it makes a `Call`: a lazy coroutine that also
knows its definition and arguments. Awaited inside a workflow, a call is handed to the run's instance; awaited outside,
it does what its definition says (a task is simply its function).
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Generator, Iterable, Mapping
from types import CodeType
from typing import Any, Final, Generic, Literal, ParamSpec, TypeVar, cast

from engine.core.mapping import mapped
from engine.core.nesting import here
from engine.core.values import ArgumentsCodec, ValueCodec, resolved_hints
from engine.errors import DefinitionError

__all__ = ["Call", "Definition", "OnCancel"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

OnCancel = Literal["abandon", "wait"]
"""What cancelling the await of a task does: raise at once, or end with the recorded outcome."""


class Definition(Generic[P, R]):
    """A function that a history can name. `name` is its bare name unless given; `fn` is the plain function."""

    kind = "definition"
    version: str = ""  # of a workflow that is there in several
    on_cancel: OnCancel = "abandon"
    raises: tuple[type[BaseException], ...] = ()

    def __init__(self, fn: Callable[P, Any], *, name: str | None) -> None:
        if not callable(fn) or not hasattr(fn, "__qualname__"):
            raise DefinitionError(f"@{self.kind} decorates a function, not {fn!r}")
        self.fn = fn
        self.name = fn.__name__ if name is None else name
        if not self.name.isprintable() or not self.name or any(char in " /~#" for char in self.name):
            raise DefinitionError(
                f"{self.name!r} cannot name a {self.kind}: no spaces, control characters, '/', '~' or '#'"
            )
        functools.update_wrapper(self, fn)
        self.__wrapped__ = fn
        # Where its last call at an instruction was written. Not by code: hashing that is a walk through its constants.
        self.sites: dict[int, tuple[CodeType, str]] = {}

    @property
    def where(self) -> str:
        """How messages call it: ``task 'load'``."""
        return f"{self.kind} {self.name!r}"

    @functools.cached_property
    def arguments(self) -> ArgumentsCodec:
        """How its arguments are recorded. Raises `DefinitionError` for annotations that cannot be."""
        return ArgumentsCodec(self.fn, self.where)

    @functools.cached_property
    def result(self) -> ValueCodec:
        """How its result is recorded. Raises `DefinitionError` for an annotation that cannot be."""
        hints = resolved_hints(self.fn, self.where)
        return ValueCodec(hints.get("return", Any), f"the result of {self.where}")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """A call, not yet begun. Raises `ArgumentsError` for arguments that the signature does not take."""
        arguments = self.arguments
        if kwargs or len(args) != arguments.plain:
            arguments.check(args, kwargs)
        return Call(self, args, kwargs, sys._getframe(1))

    def map(
        self, inputs: Iterable[Any] | AsyncIterable[Any], *, concurrency: int, ordered: bool = True
    ) -> AsyncGenerator[R, None]:
        """Call it for each of very many inputs, at most `concurrency` at a time: ``async for found in load.map(files,
        concurrency=50)``. Memory grows with `concurrency`, not with the inputs, which are taken as they are needed.

        Results come in the order of the inputs; with `ordered=False` as the calls end. The first call that fails raises
        its error here; what is under way then, or when the loop is left (close the iterator: `contextlib.aclosing`), is
        cancelled and awaited. Raises `ValueError` for a `concurrency` below 1.
        """
        if concurrency < 1:
            raise ValueError(f"map(concurrency={concurrency}) of {self.where}: at least 1")
        call: Callable[..., Coroutine[Any, Any, R]] = self
        return mapped(call, inputs, concurrency=concurrency, ordered=ordered)

    def outside(self, call: Call[R]) -> Coroutine[Any, Any, R]:
        """What awaiting a call outside a workflow does."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{self.where}>"


class Call(Coroutine[Any, Any, R_co]):
    """What calling a task or workflow returns: awaitable, not yet begun. May be awaited once, like any coroutine."""

    __slots__ = (
        "__name__",
        "__qualname__",
        "__weakref__",
        "_code",
        "_hash",
        "_instruction",
        "_runner",
        "args",
        "definition",
        "kwargs",
    )
    _asyncio_future_blocking: Final = None  # how asyncio is told, without an error inside, that it is no future

    def __init__(
        self, definition: Definition[..., R_co], args: tuple[Any, ...], kwargs: Mapping[str, Any], frame: Any
    ) -> None:
        # What asyncio and anyio ask a coroutine for when they name or show a task. Slots, and no `__getattr__`: a class
        # that has one is slow at every attribute.
        self.__name__ = self.__qualname__ = definition.name
        self.definition = definition
        self.args = args
        self.kwargs = kwargs
        self._runner: Coroutine[Any, Any, R_co] | None = None
        # Only what is needed to say where the call was written; keeping the frame would keep all its locals alive, and
        # asking it for the line means a walk through a table.
        self._code: CodeType = frame.f_code
        self._instruction: int = frame.f_lasti
        loop = here.loop
        self._hash: int = object.__hash__(self) if loop is None else loop.next_hash()

    def __hash__(self) -> int:
        return self._hash

    @property
    def site(self) -> str:
        """File and line where the call was written, ``shop.py:41``; no folder, so that it is the same everywhere."""
        sites, instruction = self.definition.sites, self._instruction
        found = sites.get(instruction)
        if found is None or found[0] is not self._code:
            found = sites[instruction] = self._code, _site_of(self._code, instruction)
        return found[1]

    @property
    def begun(self) -> bool:
        """Whether it was awaited, or handed to an engine."""
        return self._runner is not None

    def take(self) -> None:
        """Mark it as handed on (to `engine.start`, say), so that nobody warns that it was never awaited."""
        self._runner = cast("Coroutine[Any, Any, R_co]", _Taken())

    def for_branch(self, loop: Any) -> Coroutine[Any, Any, R_co]:
        """What a branch of this workflow's loop that is made of it steps; itself, once it was begun."""
        if self._runner is not None:
            return self
        return self._begin_in(loop)

    def _begin(self) -> Coroutine[Any, Any, R_co]:
        if self._runner is None:
            loop = here.loop
            if loop is not None:
                return self._begin_in(loop)
            self._runner = self.definition.outside(self)
        return self._runner

    def _begin_in(self, loop: Any) -> Coroutine[Any, Any, R_co]:
        try:
            runner: Coroutine[Any, Any, R_co] = loop.host.begin(self, loop)
        except BaseException:
            self.take()  # it was awaited, and refused
            raise
        self._runner = runner
        return runner

    def __await__(self) -> Generator[Any, Any, R_co]:
        if self._runner is not None:
            raise RuntimeError(f"cannot reuse already awaited call of {self.definition.where}")
        return self._begin().__await__()

    def send(self, value: Any) -> Any:
        runner = self._runner
        return (self._begin() if runner is None else runner).send(value)

    def throw(self, *args: Any) -> Any:
        return self._begin().throw(*args)

    def close(self) -> None:
        if self._runner is None:
            self.take()
        else:
            self._runner.close()

    @property
    def cr_await(self) -> Any:
        return getattr(self._runner, "cr_await", None)

    @property
    def cr_code(self) -> CodeType:
        return cast("CodeType", getattr(self.definition.fn, "__code__", self._code))

    @property
    def cr_frame(self) -> Any:
        return getattr(self._runner, "cr_frame", None)

    @property
    def cr_running(self) -> bool:
        return bool(getattr(self._runner, "cr_running", False))

    def __repr__(self) -> str:
        return f"<call of {self.definition.where} at {self.site}>"

    def __del__(self) -> None:
        if getattr(self, "_runner", self) is None:
            if here.loop is not None and here.loop.poisoned:
                return
            warnings.warn(f"{self!r} was never awaited", RuntimeWarning, stacklevel=1, source=self)


def _site_of(code: CodeType, instruction: int) -> str:
    lines = (line for first, end, line in code.co_lines() if first <= instruction < end)
    return f"{code.co_filename.replace(chr(92), '/').rpartition('/')[2]}:{next(lines, None) or code.co_firstlineno}"


class _Taken:
    """Stands where a runner would, in a call that somebody else has taken or that was closed unawaited."""

    __slots__ = ()

    def close(self) -> None:
        """There is nothing to close."""

    def send(self, _value: Any) -> Any:
        raise RuntimeError("this call was handed to an engine, or closed; it cannot be awaited")

    def throw(self, *_args: Any) -> Any:
        raise RuntimeError("this call was handed to an engine, or closed; it cannot be awaited")
