"""Assertions on histories. What fails shows the history, with what was found of it marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from engine import Call, HistoryEvent, RunHandle, Task, Workflow
from engine.errors import HoldfastError
from engine.testing.events import Pattern, pattern_of, scheduled
from engine.testing.histories import History, Seen

__all__ = ["assert_history", "assert_never_ran", "assert_order", "assert_ran"]

_ENDS = ("TaskCompleted", "TaskFailed", "ChildCompleted", "ChildFailed")


def assert_history(
    history: History | Iterable[HistoryEvent],
    patterns: Sequence[Pattern | Task[..., Any] | Workflow[..., Any] | Call[Any]],
    *,
    exactly: bool = False,
) -> None:
    """Assert that events like these stand in a history, in this order; others may stand between, unless `exactly`.

    A task, a workflow or a call stands for the event that it was scheduled. Raises `AssertionError`.
    """
    seen, wanted = _history(history), [pattern_of(pattern) for pattern in patterns]
    found: list[int] = []
    position = 0
    for number, pattern in enumerate(wanted, 1):
        at = next((index for index in range(position, len(seen)) if pattern.matches(seen[index])), None)
        if at is None or (exactly and at != position):
            behind = f" behind version {found[-1]}" if found else ""
            what = "is not" if at is None else "is not the next event"
            _fail(f"{number} of {len(wanted)}: {pattern.text!r} {what}{behind}", seen, found)
        found.append(seen[at].version)
        position = at + 1
    if exactly and position < len(seen):
        _fail(f"{len(seen) - position} more events than expected", seen, found)


def assert_ran(
    history: History | Iterable[HistoryEvent],
    what: Task[..., Any] | Workflow[..., Any] | Call[Any],
    *,
    times: int | None = None,
    attempts: int | None = None,
) -> None:
    """Assert that a workflow called a task or a child: ``load`` with any arguments, ``load("x")`` with just these.

    `times`: so many calls, instead of at least one. `attempts`: so many attempts of them all. Raises `AssertionError`.
    """
    seen, pattern = _history(history), scheduled(what)
    calls = [each for each in seen if pattern.matches(each)]
    versions = [each.version for each in calls]
    if times is None and not calls:
        _fail(f"not {pattern.text}", seen, versions)
    if times is not None and len(calls) != times:
        _fail(f"{pattern.text} {len(calls)} times, not {times}", seen, versions)
    ids = {each.header["id"] for each in calls}
    made = [each.version for each in seen if each.type == "TaskStarted" and each.header["id"] in ids]
    if attempts is not None and len(made) != attempts:
        _fail(f"{pattern.text} with {len(made)} attempts, not {attempts}", seen, made)


def assert_never_ran(
    history: History | Iterable[HistoryEvent], what: Task[..., Any] | Workflow[..., Any] | Call[Any]
) -> None:
    """Assert that a workflow never called a task or a child. Raises `AssertionError`."""
    assert_ran(history, what, times=0)


def assert_order(
    history: History | Iterable[HistoryEvent], *what: Pattern | Task[..., Any] | Workflow[..., Any] | Call[Any]
) -> None:
    """Assert that one thing was over before the next began: of tasks and children, all calls; of patterns, all events.

    Raises `AssertionError`, also for what never happened.
    """
    seen = _history(history)
    before: tuple[str, int] = "", 0
    for each in what:
        pattern = pattern_of(each)
        begun = [item for item in seen if pattern.matches(item)]
        if not begun:
            _fail(f"not {pattern.text}", seen, ())
        first, last = begun[0].version, begun[-1].version if isinstance(each, Pattern) else _end_of(begun, seen)
        if first < before[1]:
            _fail(f"{pattern.text} before {before[0]!r} was over", seen, (before[1], first))
        before = pattern.text, last


def _end_of(begun: Sequence[Seen], seen: History) -> int:
    """The version of the last end of these calls; behind everything, if one has not ended."""
    ids = {each.header["id"] for each in begun}
    ends = [each for each in seen if each.type in _ENDS and each.header["id"] in ids]
    return ends[-1].version if len({each.header["id"] for each in ends}) == len(ids) else len(seen) + 1


def _history(history: Any) -> History:
    if isinstance(history, RunHandle):
        raise HoldfastError("read the history first: assert_ran(await testing.history(run), ...)")
    return history if isinstance(history, History) else History(history)


def _fail(message: str, history: History, marked: Iterable[int]) -> NoReturn:
    raise AssertionError(f"{message}; the history is\n{history.text(marked=marked)}")
