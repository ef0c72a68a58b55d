"""What is right: a run that was killed and resumed is judged by its result and by the effects that its tasks left.

A value says where it came from: task `a2`, given `a.a1`, answers `a.a1.a2`. So a task that begins with a value proves
that the task which made the value had completed and that its value was passed on; and a result that took another
branch's value shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["right", "wrong", "failed", "never"]

RESULTS = {
    "different": ("a.a1.a2.a3|b.b1.b2.b3.join",),
    "same_named": ("a.step.step.step|b.step.step.step.join",),
    "first_completed": ("x.race.follow.close", "y.race.follow.close"),
    "timeout": ("v.race.follow.close", "late.follow.close"),
}
ACTIONS = ("follow", "close", "join")
"""Tasks that act on what the workflow chose or joined: they may begin with one value only."""


@dataclass(frozen=True)
class Effect:
    """A line that a task wrote: it began or ended, with that value."""

    kind: str
    task: str
    value: str


@dataclass(frozen=True)
class Verdict:
    """How one run ended."""

    outcome: Outcome
    ran_again: tuple[str, ...]  # tasks that began again although they had completed
    why: str = ""


def effects_of(text: str) -> list[Effect]:
    """The lines of an effects file; the last may be torn by a kill only if the write was, which one write is not."""
    return [Effect(*line.split(" ", 2)) for line in text.splitlines()]


def ran_again(effects: Iterable[Effect]) -> tuple[str, ...]:
    """Tasks that began again after a task that needed their value had begun."""
    passed_on: set[str] = set()
    again: list[str] = []
    for effect in effects:
        if effect.kind != "begin":
            continue
        if f"{effect.value}.{effect.task}" in passed_on:
            again.append(f"{effect.task}({effect.value})")
        passed_on.update(effect.value.split("|"))
    return tuple(again)


def judge(program: str, effects: Sequence[Effect], *, result: str | None, error: str | None) -> Verdict:
    """The verdict on one run: `result` if it ended, `error` if it ended by failing, neither if it did not end.

    Right is: the result is one that the program has when nobody kills it, and whatever acted on a choice or on joined
    values (`follow`, `close`, `join`) never began with another value than the one that the result has.
    """
    again = ran_again(effects)
    if error is not None:
        return Verdict("failed", again, error)
    if result is None:
        return Verdict("never", again)
    if result not in RESULTS[program]:
        return Verdict("wrong", again, f"result {result}")
    for effect in effects:
        if effect.kind == "begin" and effect.task in ACTIONS and not result.startswith(f"{effect.value}.{effect.task}"):
            return Verdict("wrong", again, f"{effect.task} acted on {effect.value}, the result is {result}")
    return Verdict("right", again)
