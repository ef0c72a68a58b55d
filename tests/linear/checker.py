"""Whether a recorded history is linearizable: some order of its operations, each between its beginning and its end, is
one that the model allows.

Wing and Gong's search, as Lowe made it (Testing for linearizability, 2017): one pass in the order of time that keeps every
configuration that what was seen so far allows: the model's state, and which of the operations under way have taken effect.
Objects are independent of each other, so each is checked by itself. Of an operation whose end nobody saw either may be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

__all__ = ["Op", "State", "apply", "not_linearizable"]


class Op(Struct, frozen=True):
    """One operation as a client saw it. Times are nanoseconds of the machine's monotonic clock."""

    start: int
    end: int | None  # None: nobody saw how it ended
    client: str
    object: str
    kind: str
    given: Any = None
    seen: Any = None


class State(Struct, frozen=True):
    """What one object is: a stream with its events and its mail, or its owner; or a pool, and who holds its slots."""

    events: tuple[str, ...] = ()
    mail: tuple[str, ...] = ()
    delivered: frozenset[str] = frozenset()
    owner: str = ""
    holders: frozenset[str] = frozenset()


SLOTS = 2


def apply(state: State, op: Op) -> State | None:
    """The state behind it; None when it cannot have seen what it saw."""
    handler = _HANDLERS[op.kind]
    return handler(state, op)


def _commit(state: State, op: Op) -> State | None:
    expected, event, consumes = op.given
    version = len(state.events)
    if version != expected:
        return state if op.seen in ("conflict", None) else None
    if consumes and consumes not in state.mail:
        return state if op.seen in ("unknown message", None) else None
    if op.seen not in (version + 1, None):
        return None
    mail = tuple(each for each in state.mail if each != consumes)
    return State((*state.events, event), mail, state.delivered)


def _head(state: State, op: Op) -> State | None:
    return state if op.seen is None or [len(state.events), list(state.mail)] == list(op.seen) else None


def _read(state: State, op: Op) -> State | None:
    return state if op.seen is None or list(state.events) == list(op.seen) else None


def _send(state: State, op: Op) -> State | None:
    if op.given in state.delivered:
        return state
    return State(state.events, (*state.mail, op.given), state.delivered | {op.given})


def _claim(state: State, op: Op) -> State | None:
    return State(owner=op.client) if not state.owner else None


def _write(state: State, op: Op) -> State | None:
    """A fenced commit, which may give the stream up."""
    mine = state.owner == op.client
    if op.seen is not None and (op.seen == "done") != mine:
        return None
    return State() if mine and op.given == "release" else state


def _take(state: State, op: Op) -> State | None:
    if op.given in state.holders or len(state.holders) < SLOTS:
        return State(holders=state.holders | {op.given}) if op.seen in ("done", None) else None
    return state if op.seen in ("full", None) else None


def _give(state: State, op: Op) -> State | None:
    return State(holders=state.holders - {op.given})


_HANDLERS = {
    "commit": _commit, "head": _head, "read": _read, "send": _send, "claim": _claim, "write": _write,
    "take": _take, "return": _give,
}  # fmt: skip


def not_linearizable(ops: Iterable[Op]) -> str | None:
    """The first operation that no order explains, and what was under way; None when there is an order for all."""
    by_object: dict[str, list[Op]] = defaultdict(list)
    for op in ops:
        by_object[op.object].append(op)
    return next(filter(None, (_wrong(name, each) for name, each in sorted(by_object.items()))), None)


def _wrong(name: str, ops: list[Op]) -> str | None:
    moments = [(op.start, 0, index) for index, op in enumerate(ops)]
    moments += [(op.end, 1, index) for index, op in enumerate(ops) if op.end is not None]
    under_way: set[int] = set()
    configurations = {(State(), frozenset[int]())}
    for _, ends, index in sorted(moments, key=lambda each: (each[0], each[1])):
        if not ends:
            under_way.add(index)
            continue
        configurations = _having(index, configurations, under_way, ops)
        under_way.remove(index)
        if not configurations:
            others = "\n".join(f"  under way: {ops[each]}" for each in sorted(under_way))
            return f"{name}: no order explains {ops[index]}\n{others}"
    return None


def _having(
    index: int, configurations: set[tuple[State, frozenset[int]]], under_way: set[int], ops: list[Op]
) -> set[tuple[State, frozenset[int]]]:
    """The configurations in which this operation has taken effect, which then need not be remembered of it."""
    found, known, pending = set(), set(configurations), list(configurations)
    while pending:
        state, done = pending.pop()
        if index in done:
            found.add((state, done - {index}))
            continue
        for each in under_way - done:
            after = apply(state, ops[each])
            if after is not None and (after, done | {each}) not in known:
                known.add((after, done | {each}))
                pending.append((after, done | {each}))
    return found
