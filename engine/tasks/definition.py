"""`@task`: code with effects that a workflow calls, outside replay, at least once, under one idempotency key."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Final, Literal, ParamSpec, TypeVar, overload

import msgspec
from msgspec import Struct

from engine.core.call import Call, Definition, OnCancel
from engine.core.carriage import Carriage
from engine.core.values import ArgumentsCodec, resolved_hints
from engine.errors import DefinitionError, HoldfastError
from engine.tasks.effects import EFFECTS, Effect, EffectOutside
from engine.tasks.limits import PRIORITY_MAX, RateLike, named_limits
from engine.tasks.memo import Memo, SourceVersion, check_memo
from engine.tasks.policies import check_policy
from engine.tasks.transaction import Transaction

__all__ = ["Task", "TaskOptions", "TransactionalTask", "task"]

P = ParamSpec("P")
R = TypeVar("R")

_FOR_COROUTINES: Final = "loop"
_FOR_FUNCTIONS: Final = "threads"
_FOR_TRANSACTIONS: Final = "transactions"
_EXACT: Final = ("idempotent", "transactional")  # an await that was given up leaves nothing to ask about
_OF_NO_TRANSACTION: Final[dict[str, str]] = {
    "executor": "it runs where the store writes",
    "reconcile": "nobody needs to ask: its effect is there exactly when its completion is recorded",
    "timeout": "every commit waits while it runs, so the store limits it itself; deadline= is for all of its attempts",
    "heartbeat_timeout": "the store limits how long it runs",
}
_SECONDS: Final = ("timeout", "deadline", "heartbeat_timeout")


class TaskOptions(Struct, frozen=True, kw_only=True):
    """How a task is tried. `stop`, `wait` and `retry` are tenacity's own objects; without any of them: one attempt."""

    stop: Callable[[Any], Any] | None = None
    wait: Callable[[Any], Any] | None = None
    retry: Callable[[Any], Any] | None = None
    timeout: float | None = None  # seconds, per attempt
    deadline: float | None = None  # seconds from scheduling, over all attempts and the waits between them
    on_cancel: OnCancel | None = None  # None: "wait" for "at_most_once" and "reconcile", "abandon" for the others
    effect: Effect = "idempotent"
    reconcile: Callable[..., Any] | None = None
    executor: str | None = None  # the name of one; None: "loop" for coroutine functions, "threads" for plain ones
    heartbeat_timeout: float | None = None  # seconds that an attempt may go without `Attempt.heartbeat`
    breaker: str | None = None  # the name of a circuit: attempts wait while what they depend on is down
    pool: str | None = None  # the name of a limit on attempts at once
    rate: RateLike | None = None  # the name of a limit on starts in a window, or one of its own: "10/s"
    priority: int = 0  # higher first, where attempts wait for a limit
    fairness_key: str | Callable[..., str] | None = None  # who shares its turns there; None: the tree of runs it is in
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
        self.on_cancel = self.policy.on_cancel or ("abandon" if self.policy.effect in _EXACT else "wait")
        self.is_coroutine = inspect.iscoroutinefunction(fn)
        self.executor = self.policy.executor or (_FOR_COROUTINES if self.is_coroutine else _FOR_FUNCTIONS)
        self.source = source or SourceVersion(fn)
        _check(self)
        try:
            self.limits = named_limits(self.name, pool=self.policy.pool, rate=self.policy.rate)
        except ValueError as error:
            raise DefinitionError(f"{self.where}: {error}") from None

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
        return type(self)(self.fn, name=self.name, options=options, raises=self.raises, source=self.source)

    def turn_key(self, arguments: bytes, carriage: Carriage) -> str:
        """Who shares the turns of a call with these arguments, where calls wait for a limit (`fairness_key`).

        Raises what the author's function raises, and `DefinitionError` when it returns no text.
        """
        given = self.policy.fairness_key
        if callable(given):
            args, kwargs = self.arguments.decode(arguments, carriage)
            given = given(*args, **kwargs)
        if not isinstance(given, str):
            raise DefinitionError(f"{self.where}: fairness_key returned {given!r}, where a text was expected")
        return given

    async def outside(self, call: Call[R]) -> R:
        result: Any = self.fn(*call.args, **call.kwargs)
        if isinstance(result, Awaitable):
            result = await result
        return result  # type: ignore[no-any-return]


class TransactionalTask(Task[P, R]):
    """A task with ``effect="transactional"``: its function is given the transaction, calls are made without it."""

    fn: Callable[Concatenate[Transaction, P], R]  # type: ignore[assignment] # it is called otherwise than the task

    def __init__(
        self,
        fn: Callable[Concatenate[Transaction, P], R],
        *,
        name: str | None = None,
        options: TaskOptions | None = None,
        raises: tuple[type[BaseException], ...] = (),
        source: SourceVersion | None = None,
    ) -> None:
        function: Callable[..., R] = fn
        super().__init__(function, name=name, options=options, raises=raises, source=source)
        if self.is_coroutine:
            raise DefinitionError(
                f"{self.where} is an `async def`: effect='transactional' takes a plain `def`, which a SQLite store"
                " calls between BEGIN and COMMIT, where nothing may be awaited"
            )
        self.executor = _FOR_TRANSACTIONS
        self._transaction, self.__signature__ = _without_transaction(fn, self.where)

    @functools.cached_property
    def arguments(self) -> ArgumentsCodec:
        hint = resolved_hints(self.fn, self.where).get(self._transaction, Any)
        if hint is not Any and not (hasattr(hint, "execute") and hasattr(hint, "executemany")):
            raise DefinitionError(
                f"{self.where} has effect='transactional', so its first parameter is the transaction, and not"
                f" `{self._transaction}: {getattr(hint, '__name__', hint)}`. Put `tx: Transaction` before it"
            )
        return ArgumentsCodec(self.fn, self.where, signature=self.__signature__)

    async def outside(self, call: Call[R]) -> R:
        raise HoldfastError(
            f"{self.where} has effect='transactional' and was awaited outside a workflow ({call.site}), where there is"
            f" no transaction: call `{self.name}.fn(tx, ...)` with one of your own"
        )


def _without_transaction(fn: Callable[..., Any], where: str) -> tuple[str, inspect.Signature]:
    """The name of the transaction's parameter, and the signature of calls, which are made without it."""
    signature = inspect.signature(fn)
    first, *others = signature.parameters.values() or (None,)
    if first is None or first.kind not in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD):
        raise DefinitionError(
            f"{where} has effect='transactional', so its first parameter is the transaction, and it has none:"
            f" `def {getattr(fn, '__name__', 'task')}(tx: Transaction, ...)`"
        )
    return first.name, signature.replace(parameters=others)


@overload
def task(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
@overload
def task(fn: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    effect: Literal["transactional"],
    name: str | None = None,
    stop: Callable[[Any], Any] | None = None,
    wait: Callable[[Any], Any] | None = None,
    retry: Callable[[Any], Any] | None = None,
    deadline: float | None = None,
    raises: tuple[type[BaseException], ...] = (),
    on_cancel: OnCancel | None = None,
    breaker: str | None = None,
    pool: str | None = None,
    rate: RateLike | None = None,
    priority: int = 0,
    fairness_key: str | Callable[..., str] | None = None,
) -> _TransactionalDecorator: ...
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
    effect: EffectOutside | None = None,
    reconcile: Callable[..., Any] | None = None,
    executor: str | None = None,
    heartbeat_timeout: float | None = None,
    breaker: str | None = None,
    pool: str | None = None,
    rate: RateLike | None = None,
    priority: int = 0,
    fairness_key: str | Callable[..., str] | None = None,
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
    breaker: str | None = None,
    pool: str | None = None,
    rate: RateLike | None = None,
    priority: int = 0,
    fairness_key: str | Callable[..., str] | None = None,
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
    `breaker`: the name of what the task depends on: after failures in a row of the tasks that name it, none of them
    begins an attempt until one that is let through has succeeded (`Breaker`).
    `pool`, `rate`: limits that all runs and all engines on the store share, by name (see `Engine`): attempts at once,
    and starts in a window; ``rate="10/s"`` is one of the task's own. `priority`: higher first where attempts wait.
    `fairness_key`: those that wait with one key share its turns; a text, or a function of the task's arguments.
    `effect`: what becomes of the task when a worker dies in the middle of an attempt. "idempotent": it is run again,
    under the same idempotency key. "at_most_once": it never is; the call fails with `TaskInterrupted`, and the task has
    one attempt. `reconcile`: a function of the task's own arguments, `def` or `async def`, that asks the outside under
    `attempt().idempotency_key` and returns `Happened(result)` or `NotHappened()`; asked before any further attempt.
    "transactional": a plain `def` whose first parameter is a `Transaction`; the SQL that it executes, on tables of its
    own in the store's database, commits in one transaction with the task's completion, so it happens exactly once.
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
        breaker=breaker,
        pool=pool,
        rate=rate,
        priority=priority,
        fairness_key=fairness_key,
        effect=effect or ("idempotent" if reconcile is None else "reconcile"),
        reconcile=reconcile,
        memo=memo,
    )
    make: Any = TransactionalTask if effect == "transactional" else Task
    if fn is not None:
        return make(fn, name=name, options=options, raises=raises)
    return lambda function: make(function, name=name, options=options, raises=raises)


class _TaskDecorator:
    """The type of ``task(...)``; at run time a plain function."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    def __call__(self, fn: Any, /) -> Any:
        raise TypeError(f"only a type, not to be called with {fn!r}")


class _TransactionalDecorator:
    """Likewise, of ``task(effect="transactional", ...)``."""

    def __call__(self, fn: Callable[Concatenate[Transaction, P], R], /) -> TransactionalTask[P, R]:
        raise TypeError(f"only a type, not to be called with {fn!r}")


def _check(definition: Task[Any, Any]) -> None:
    options, where = definition.policy, definition.where
    for name in _SECONDS:
        seconds = getattr(options, name)
        if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
            raise DefinitionError(f"{where}: {name} must be a number of seconds above 0, not {seconds!r}")
    for name in ("stop", "wait", "retry"):
        check_policy(name, getattr(options, name), where)
    if options.executor is not None and not (isinstance(options.executor, str) and options.executor):
        raise DefinitionError(f"{where}: executor is the name of one, such as 'processes', not {options.executor!r}")
    _check_effect(definition, options, where)
    if options.memo is not None:
        check_memo(options.memo, effect=options.effect, where=where, source=definition.source)
    _check_waiting(options, where)
    if options.on_cancel not in (None, "abandon", "wait"):
        raise DefinitionError(f"{where}: on_cancel is 'abandon' or 'wait', not {options.on_cancel!r}")
    if not all(isinstance(type_, type) and issubclass(type_, BaseException) for type_ in definition.raises):
        raise DefinitionError(f"{where}: raises takes exception types, not {definition.raises!r}")


def _check_waiting(options: TaskOptions, where: str) -> None:
    if options.breaker is not None and not (isinstance(options.breaker, str) and options.breaker):
        raise DefinitionError(f"{where}: breaker is the name of one, not {options.breaker!r}")
    if type(options.priority) is not int or abs(options.priority) > PRIORITY_MAX:
        raise DefinitionError(
            f"{where}: priority is a whole number of at most {PRIORITY_MAX:,}, higher first, not {options.priority!r}"
        )
    key = options.fairness_key
    if key is not None and not (isinstance(key, str) or callable(key)):
        raise DefinitionError(f"{where}: fairness_key is a text, or a function of the task's arguments, not {key!r}")


def _check_effect(definition: Task[Any, Any], options: TaskOptions, where: str) -> None:
    effects = ", ".join(map(repr, EFFECTS))
    if options.effect not in EFFECTS:
        raise DefinitionError(f"{where}: effect is one of {effects}, not {options.effect!r}")
    if (options.effect == "transactional") != isinstance(definition, TransactionalTask):
        raise DefinitionError(
            f"{where}: effect='transactional' says what the function is given, so it stands in @task, and in no options"
        )
    if options.effect == "transactional":
        for name, why in _OF_NO_TRANSACTION.items():
            if getattr(options, name) is not None:
                raise DefinitionError(f"{where}: effect='transactional' takes no {name}: {why}")
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
