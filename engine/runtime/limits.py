"""Pools and rates as they stand in the store: declared by engines, changed by people, each time as an event.

A limit is a stream, whose attributes say how much it gives. What an engine declares is written when it differs from
what was declared before: so code that says something else takes effect when it is deployed, and what a person has set
since stays when the same code is started again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from msgspec import Struct

from engine.core.events import LimitSet, decode_header
from engine.errors import DefinitionError, HoldfastError
from engine.runtime.histories import head_or_none
from engine.runtime.keys import SINGLETON_PREFIX, is_singleton
from engine.runtime.streams import SINGLETON, new_event
from engine.tasks import COUNT_MAX, EVERY_TASK, Rate, RateLike, Task, rate_of, wrong_name
from engine.workflows import Workflow
from engine.workflows.reach import named
from eventstore import NEW, Clock, Commit, EventStore, StreamHead, StreamQuery, VersionConflict, find_all
from eventstore.holding import limit_of
from eventstore.port import POOL_CATEGORY, pool_stream

__all__ = [
    "LimitState",
    "checked_limits",
    "declare",
    "declare_key",
    "read_limits",
    "set_limit",
    "slots_of",
]

_LIMIT: Final = "limit"
_WINDOW: Final = "window"
_DECLARED: Final = "declared"

Given = int | Rate


class LimitState(Struct, frozen=True, kw_only=True):
    """A pool or a rate: what it gives now, since when (microseconds since the epoch), and who set that."""

    name: str
    limit: int  # attempts at once, or starts in a window
    seconds: float | None  # the window of a rate; None: a pool
    at: int
    by: str = ""
    reason: str = ""


def checked_limits(pools: Mapping[str, int], rates: Mapping[str, RateLike]) -> Mapping[str, Given]:
    """What an engine is given to declare. Raises `HoldfastError` for what is no limit."""
    _refuse_keys((*pools, *rates))
    if twice := sorted(pools.keys() & rates.keys(), key=str):
        raise HoldfastError(f"Engine(...): {twice[0]!r} is among its pools and among its rates: limits have one name")
    if EVERY_TASK in rates:
        raise HoldfastError("Engine(rates={'*': ...}): only a pool can be over every task")
    given: dict[str, Given] = {}
    for what, limits, checked in (("pool", pools, slots_of), ("rate", rates, rate_of)):
        for name, value in limits.items():
            _named(name, what)
            try:
                given[name] = checked(value)
            except ValueError as error:
                raise HoldfastError(f"Engine({what}s={{{name!r}: {value!r}}}): {error}") from None
    return given


def _named(name: object, what: str) -> None:
    if name != EVERY_TASK and (reason := wrong_name(name)) is not None:
        raise HoldfastError(f"Engine({what}s={{{name!r}: ...}}): the name of a {what} is {reason}")


def slots_of(count: object) -> int:
    """The number of attempts at once that is meant. Raises `ValueError`, saying what was expected."""
    if type(count) is not int or not 0 <= count <= COUNT_MAX:
        raise ValueError(f"a pool lets from 0 to {COUNT_MAX:,} attempts run at once, not {count!r}")
    return count


def _refuse_keys(names: Iterable[object]) -> None:
    for name in names:
        if isinstance(name, str) and is_singleton(name):
            raise HoldfastError(
                f"{name!r} cannot be a limit: what begins with {SINGLETON_PREFIX!r} is a singleton's key"
            )


async def declare(
    store: EventStore,
    limits: Mapping[str, Given],
    workflows: Iterable[Workflow[..., Any]],
    *,
    clock: Clock,
    next_id: Callable[[], str],
) -> dict[str, bool]:
    """Let the store know what an engine and the tasks of its workflows declare; returns which of the limits that it
    declares, or its tasks name, are rates.

    Raises `DefinitionError` for a task that names a limit which neither this engine nor the store knows, or that is
    of the other kind; what is only named while the code runs fails then. Raises `HoldfastError` when the store has no
    shared limits, or one of that name and the other kind.
    """
    given, wanted = dict(limits), list(_wanted(workflows))
    if not given and not wanted:
        return {}
    if "permits" not in store.capabilities:
        raise HoldfastError(
            f"{type(store).__name__} has no limits that engines share (its capabilities: {sorted(store.capabilities)}):"
            " leave pools, rates and the tasks' own out, or use a store that has"
        )
    for task in wanted:
        given.update({limit.name: limit.own for limit in task.limits if limit.own is not None})
    for name, value in given.items():
        await _write(store, name, value, clock=clock, next_id=next_id, declared=True)
    for task in wanted:
        await _check(store, task, given)
    kinds = {name: isinstance(value, Rate) for name, value in given.items()}
    return kinds | {limit.name: limit.is_rate for task in wanted for limit in task.limits}


def _wanted(workflows: Iterable[Workflow[..., Any]]) -> Iterable[Task[..., Any]]:
    return (definition for definition in named(workflows) if isinstance(definition, Task) and definition.limits)


async def _check(store: EventStore, task: Task[..., Any], given: Mapping[str, Given]) -> None:
    for limit in task.limits:
        what, other = ("rate", "pool") if limit.is_rate else ("pool", "rate")
        value = given.get(limit.name)
        if value is None:
            value = _given_in(await head_or_none(store, pool_stream(limit.name)))
        if value is None:
            raise DefinitionError(
                f"{task.where}: it names the {what} {limit.name!r}, which no engine on this store has declared:"
                f" Engine({what}s={{{limit.name!r}: ...}})"
            )
        if isinstance(value, Rate) != limit.is_rate:
            raise DefinitionError(f"{task.where}: {limit.name!r} is a {other}: say {other}={limit.name!r}")


async def set_limit(
    store: EventStore,
    name: str,
    value: int | Rate,
    *,
    clock: Clock,
    next_id: Callable[[], str],
    by: str,
    reason: str,
) -> None:
    """Change what a limit gives. Raises `HoldfastError` when there is none of that name and kind."""
    _refuse_keys([name])
    before = _given_in(await head_or_none(store, pool_stream(name)))
    what = "rate" if isinstance(value, Rate) else "pool"
    if before is None or isinstance(before, Rate) != isinstance(value, Rate):
        states = await read_limits(store)
        known = sorted(state.name for state in states if (state.seconds is not None) == isinstance(value, Rate))
        raise HoldfastError(
            f"there is no {what} {name!r} on this store (there are: {', '.join(known) or 'none'}):"
            f" an engine declares it with Engine({what}s={{{name!r}: ...}})"
        )
    await _write(store, name, value, clock=clock, next_id=next_id, by=by, reason=reason)


async def read_limits(store: EventStore) -> tuple[LimitState, ...]:
    """All limits of a store, by name; keys of singletons are none of them."""
    found: list[LimitState] = []
    async for head in find_all(store, StreamQuery(category=POOL_CATEGORY, attributes={SINGLETON: None})):
        async for recorded in store.read(head.stream, after=head.version - 1, until=head.version):
            event = decode_header(recorded.header, where=f", version {recorded.version} of {head.stream!r},")
            if isinstance(event, LimitSet):
                found.append(_state(event))
    return tuple(sorted(found, key=lambda state: state.name))


def _state(event: LimitSet) -> LimitState:
    seconds = event.window / 1_000_000 if event.window else None
    return LimitState(
        name=event.name, limit=event.limit, seconds=seconds, at=event.at, by=event.by, reason=event.reason
    )


def _given_in(head: StreamHead | None) -> Given | None:
    limit = None if head is None else limit_of(head.attributes)
    if limit is None:
        return None
    return limit.count if limit.window is None else Rate(limit.count, limit.window / 1_000_000)


async def declare_key(store: EventStore, pool: str, *, clock: Clock, commit_id: str) -> None:
    """See to it that the pool of a singleton's key is there: one slot."""
    event = LimitSet(at=clock.now(), name=pool, limit=1)
    with suppress(VersionConflict):  # somebody else was quicker
        await store.commit(
            Commit(
                id=commit_id,
                stream=pool_stream(pool),
                expected_version=NEW,
                events=(new_event(event),),
                attributes={_LIMIT: 1, SINGLETON: True},
            )
        )


async def _write(
    store: EventStore,
    name: str,
    value: Given,
    *,
    clock: Clock,
    next_id: Callable[[], str],
    declared: bool = False,
    by: str = "",
    reason: str = "",
) -> None:
    """Let it give that from here on; as declared, only when something else was declared before."""
    count, window = (value.count, value.window) if isinstance(value, Rate) else (value, None)
    attributes: dict[str, Any] = {_LIMIT: count, _WINDOW: window}
    if declared:
        attributes[_DECLARED] = str(value)
    while True:
        head = await head_or_none(store, pool_stream(name))
        if declared and head is not None and head.attributes.get(_DECLARED) == str(value):
            return
        if (before := _given_in(head)) is not None and isinstance(before, Rate) != isinstance(value, Rate):
            what, other = ("rate", "pool") if isinstance(value, Rate) else ("pool", "rate")
            raise HoldfastError(
                f"Engine({what}s={{{name!r}: ...}}): {name!r} is a {other} on this store; name it otherwise"
            )
        event = LimitSet(at=clock.now(), name=name, limit=count, window=window or 0, by=by, reason=reason)
        try:
            await store.commit(
                Commit(
                    id=next_id(),
                    stream=pool_stream(name),
                    expected_version=NEW if head is None else head.version,
                    events=(new_event(event),),
                    attributes=attributes,
                )
            )
        except VersionConflict:
            continue  # somebody else was quicker: look again at how it stands
        return
