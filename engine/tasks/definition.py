"""`@task`: code with effects that a workflow calls, outside replay, at least once, under one idempotency key."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar, get_args, overload

import msgspec
from msgspec import Struct

from engine.core.call import Call, Definition, OnCancel
from engine.errors import DefinitionError
from engine.tasks.effects import Effect
from engine.tasks.memo import Memo, SourceVersion, check_memo

__all__ = ["Task", "TaskOptions", "task"]

P = ParamSpec("P")
R = TypeVar("R")

_FOR_COROUTINES: Final = "loop"
_FOR_FUNCTIONS: Final = "threads"
_SECONDS: Final = ("timeout", "deadline", "heartbeat_timeout")


class TaskOptions(Struct, frozen=True, kw_only=True):
    """How a task is tried. `stop`, `wait` and `retry` are tenacity's own objects; without any of them: one attempt."""

    stop: Callable[[Any], Any] | None = None
    wait: Callable[[Any], Any] | None = None
    retry: Callable[[Any], Any] | None = None
    timeout: float | None = None  # seconds, per attempt
    deadline: float | None = None  # seconds from scheduling, over all attempts and the waits between them
    on_cancel: OnCancel | None = None  # None: "abandon" for an idempotent task, "wait" for the others
    effect: Effect = "idempotent"
    reconcile: Callable[..., Any] | None = None
    executor: str | None = None  # the name of one; None: "loop" for coroutine functions, "threads" for plain ones
    heartbeat_timeout: float | None = None  # seconds that an attempt may go without `Attempt.heartbeat`
    memo: Memo | None = None  # how its results are kept for later calls

    @property
    def retries(self) -> bool:
        """Whether a failed attempt may be followed by another."""
        return self.stop is not None or self.wait is not None or self.retry is not None


class Task(Definition[P, R]):
    """What `@task` makes of a function. Calling it makes a `Call` to await in a workflow.

    Awaited outside a workflow, a call is simply the function: unit tests need nothing.
    """

    kind = "task"

    def __init__(
        self,
        fn: Callable[P, Any],
        *,
        name: str | None = None,
        options: TaskOptions | None = None,
        raises: tuple[type[BaseException], ...] = (),
        source: SourceVersion | None = None,
    ) -> None:
        super().__init__(fn, name=name)
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise DefinitionError(f"task {self.name!r} is a generator: return its values, in pages if they are many")
        self.policy = TaskOptions() if options is None else options
        self.raises = raises
        self.on_cancel = self.policy.on_cancel or ("abandon" if self.policy.effect == "idempotent" else "wait")
        self.is_coroutine = inspect.iscoroutinefunction(fn)
        self.executor = self.policy.executor or (_FOR_COROUTINES if self.is_coroutine else _FOR_FUNCTIONS)
        self.source = source or SourceVersion(fn)
        _check(self)

    def options(self, **changes: Any) -> Task[P, R]:
        """The same task with other options for the calls made of it: ``load.options(timeout=5)(...)``.

        Raises `DefinitionError` for an option that does not exist or cannot be so.
        """
        known = set(TaskOptions.__struct_fields__)
        if unknown := sorted(changes.keys() - known):
            raise DefinitionError(
                f"task {self.name!r} has no option {unknown[0]!r}; there are {', '.join(sorted(known))}"
            )
        options = msgspec.structs.replace(self.policy, **changes)
        return Task(self.fn, name=self.name, options=options, raises=self.raises, source=self.source)

    async def outside(self, call: Call[R]) -> R:
        result: Any = self.fn(*call.args, **call.kwargs)
        if isinstance(result, Awaitable):
            result = await result
        return result  # type: ignore[no-any-return]


@overload
def task(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    stop: Callable[[Any], Any] | None = None,
    wait: Callable[[Any], Any] | None = None,
    retry: Callable[[Any], Any] | None = None,
    timeout: float | None = None,
    deadline: float | None = None,
    raises: tuple[type[BaseException], ...] = (),
    on_cancel: OnCancel | None = None,
    effect: Effect | None = None,
    reconcile: Callable[..., Any] | None = None,
    executor: str | None = None,
    heartbeat_timeout: float | None = None,
    memo: Memo | None = None,
) -> _TaskDecorator: ...
def task(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    stop: Any = None,
    wait: Any = None,
    retry: Any = None,
    timeout: float | None = None,
    deadline: float | None = None,
    raises: tuple[type[BaseException], ...] = (),
    on_cancel: OnCancel | None = None,
    effect: Effect | None = None,
    reconcile: Callable[..., Any] | None = None,
    executor: str | None = None,
    heartbeat_timeout: float | None = None,
    memo: Memo | None = None,
) -> Any:
    """Make a task of an `async def` (runs on the loop) or a `def` (runs in a thread); with or without parentheses.

    `stop`, `wait`, `retry`: tenacity's objects, asked when an attempt fails; with none of them a task has one attempt,
    with some of them the others have tenacity's defaults (never stop, wait nothing, retry on every `Exception`).
    `timeout`: seconds for one attempt. `deadline`: seconds over all attempts, from scheduling.
    `raises`: exception types that come back as themselves in the workflow, beside builtins.
    `on_cancel`: what cancelling the await does, see `OnCancel`.
    `executor`: where it runs: "loop", "threads", "processes", or the name of one given to `Engine(executors=...)`.
    `heartbeat_timeout`: seconds; an attempt that does not call `attempt().heartbeat()` for so long is asked to end and
    fails with `HeartbeatTimeout`.
    `effect`: what becomes of the task when a worker dies in the middle of an attempt. "idempotent": it is run again,
    under the same idempotency key. "at_most_once": it never is; the call fails with `TaskInterrupted`, and the task has
    one attempt. `reconcile`: a function of the task's own arguments, `def` or `async def`, that asks the outside under
    `attempt().idempotency_key` and returns `Happened(result)` or `NotHappened()`; asked before any further attempt.
    `memo`: how results are kept and used again by later calls, also of other runs: see `Memo`. For idempotent tasks.

    Raises `DefinitionError` for what cannot be a task or an option that cannot be so.
    """
    options = TaskOptions(
        stop=stop,
        wait=wait,
        retry=retry,
        timeout=timeout,
        deadline=deadline,
        on_cancel=on_cancel,
        executor=executor,
        heartbeat_timeout=heartbeat_timeout,
        effect=effect or ("idempotent" if reconcile is None else "reconcile"),
        reconcile=reconcile,
        memo=memo,
    )
    if fn is not None:
        return Task(fn, name=name, options=options, raises=raises)
    return lambda function: Task(function, name=name, options=options, raises=raises)


class _TaskDecorator:
    """The type of ``task(...)``; at run time a plain function."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, fn: Any, /) -> Any:
        raise TypeError(f"only a type, not to be called with {fn!r}")


def _check(definition: Task[Any, Any]) -> None:
    options, where = definition.policy, definition.where
    for name in _SECONDS:
        seconds = getattr(options, name)
        if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
            raise DefinitionError(f"{where}: {name} must be a number of seconds above 0, not {seconds!r}")
    for name in ("stop", "wait", "retry"):
        policy = getattr(options, name)
        if policy is not None and not callable(policy):
            raise DefinitionError(
                f"{where}: {name} takes a tenacity object such as stop_after_attempt(5), not {policy!r}"
            )
    if options.executor is not None and not (isinstance(options.executor, str) and options.executor):
        raise DefinitionError(f"{where}: executor is the name of one, such as 'processes', not {options.executor!r}")
    _check_effect(options, where)
    if options.memo is not None:
        check_memo(options.memo, effect=options.effect, where=where, source=definition.source)
    if options.on_cancel not in (None, "abandon", "wait"):
        raise DefinitionError(f"{where}: on_cancel is 'abandon' or 'wait', not {options.on_cancel!r}")
    if not all(isinstance(type_, type) and issubclass(type_, BaseException) for type_ in definition.raises):
        raise DefinitionError(f"{where}: raises takes exception types, not {definition.raises!r}")


def _check_effect(options: TaskOptions, where: str) -> None:
    effects = ", ".join(map(repr, get_args(Effect)))
    if options.effect not in get_args(Effect):
        raise DefinitionError(f"{where}: effect is one of {effects}, not {options.effect!r}")
    if (options.effect == "reconcile") != (options.reconcile is not None):
        raise DefinitionError(
            f"{where}: effect='reconcile' and reconcile=... go together: the function says what became of an attempt"
        )
    if options.reconcile is not None and not callable(options.reconcile):
        raise DefinitionError(f"{where}: reconcile takes a function of the task's arguments, not {options.reconcile!r}")
    if options.effect == "at_most_once" and options.retries:
        raise DefinitionError(
            f"{where}: effect='at_most_once' has one attempt: leave stop, wait and retry out, or give it reconcile=..."
        )
