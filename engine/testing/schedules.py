"""Schedules: what is done to a run that would otherwise go undisturbed. As values, and as text that can be kept."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from msgspec import Struct

from engine.errors import HoldfastError

__all__ = ["Crash", "Part", "Schedule", "Swap", "Told", "parse"]


class Crash(Struct, frozen=True):
    """The process dies: before a commit (or any call of the store) takes effect, or behind that."""

    number: int  # from 1, over the whole run
    when: Literal["before", "after"]
    of: Literal["commit", "store call"] = "commit"

    def __str__(self) -> str:
        return f"crash {self.when} {self.of} {self.number}"


class Swap(Struct, frozen=True):
    """Where several things could happen next, another one than the first does."""

    step: int  # from 1, of those that had a choice
    option: int  # from 2

    def __str__(self) -> str:
        return f"at choice {self.step} take option {self.option}"


class Told(Struct, frozen=True):
    """A signal is sent in another way: twice, or together with the start of the run."""

    signal: int  # from 1
    how: Literal["twice", "with the start"]

    def __str__(self) -> str:
        return f"signal {self.signal} {self.how}"


Part: TypeAlias = Crash | Swap | Told


class Schedule(Struct, frozen=True):
    """Everything that is done otherwise; nothing, for a run that goes undisturbed. `parse` reads its text."""

    parts: tuple[Part, ...] = ()

    def __str__(self) -> str:
        return "; ".join(map(str, self.parts)) or "undisturbed"

    @property
    def kinds(self) -> frozenset[str]:
        """Of which kinds its parts are."""
        return frozenset(part.how if isinstance(part, Told) else type(part).__name__.lower() for part in self.parts)

    def without(self, part: Part) -> Schedule:
        """Without one of its parts."""
        return Schedule(tuple(each for each in self.parts if each != part))

    def crash_at(self, commits: int, calls: int, *, is_commit: bool) -> Literal["before", "after"] | None:
        """Whether the process dies at this call of the store, the so-manieth, and when."""
        for part in self.parts:
            if isinstance(part, Crash):
                hit = part.number == commits and is_commit if part.of == "commit" else part.number == calls
                if hit:
                    return part.when
        return None

    def option_at(self, step: int) -> int:
        """Which option is taken at this choice, from 1."""
        return next((part.option for part in self.parts if isinstance(part, Swap) and part.step == step), 1)

    def told(self, signal: int, how: str) -> bool:
        """Whether this signal is sent so."""
        return any(isinstance(part, Told) and part.signal == signal and part.how == how for part in self.parts)


_CRASH = re.compile(r"crash (before|after) (commit|store call) (\d+)")
_SWAP = re.compile(r"at choice (\d+) take option (\d+)")
_TOLD = re.compile(r"signal (\d+) (twice|with the start)")


def parse(text: str) -> Schedule:
    """The schedule of a text, as `str` writes it and reports show it. Raises `HoldfastError`."""
    if text.strip() in ("", "undisturbed"):
        return Schedule()
    return Schedule(tuple(_part(part.strip()) for part in text.split(";")))


def _part(text: str) -> Part:
    if found := _CRASH.fullmatch(text):
        when: Literal["before", "after"] = "before" if found[1] == "before" else "after"
        return Crash(int(found[3]), when, "commit" if found[2] == "commit" else "store call")
    if found := _SWAP.fullmatch(text):
        return Swap(int(found[1]), int(found[2]))
    if found := _TOLD.fullmatch(text):
        return Told(int(found[1]), "twice" if found[2] == "twice" else "with the start")
    raise HoldfastError(f"{text!r} is no part of a schedule: as in 'crash before commit 3; at choice 2 take option 2'")
