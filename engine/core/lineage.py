"""Identity: which branch asked, and for the how-many-eth time.

A branch is named by its explicit asyncio name, else by its coroutine's `__qualname__`, plus a counter per parent and
name; a task call or a timer by its branch, its name and a counter: ``nightly/load~2/extract#1``. So an id does not
depend on what other branches did, and code added in one branch does not renumber another.

Branches share a hash that comes from the run's seed, so that sets of tasks iterate alike in every process.
"""

from __future__ import annotations

from collections.abc import Coroutine
from functools import lru_cache
from hashlib import sha256
from random import Random
from typing import Any, Final

__all__ = ["Branch", "branch_name", "cleaned", "derived_random", "idempotency_key"]

_LOCAL: Final = "<locals>."
_NAME_MAX: Final = 100  # characters of a branch's name; every id below it repeats them
_UNSAFE: Final = str.maketrans({"/": "|", "~": "-", "#": "-"})


class Branch:
    """One asyncio task inside a workflow, as an identity: its id and its counters."""

    __slots__ = ("_counters", "_first", "id", "random")

    def __init__(self, id: str) -> None:  # noqa: A002 - the word for it
        self.id = id
        self._counters: dict[str, int] | None = None  # of a fan-out's branches, hardly any counts anything twice
        self._first = ""  # what it has counted once, while there is nothing else
        self.random: Random | None = None

    def child(self, name: str) -> Branch:
        """The next branch of that name below this one."""
        return Branch(f"{self.id}/{name}~{self._count('~' + name)}")

    def next_id(self, name: str) -> str:
        """The id of the next call (or timer) of that name made by this branch."""
        if not self._first:  # of a fan-out's branches, the only one there is
            self._first = name
            return f"{self.id}/{name}#1"
        return f"{self.id}/{name}#{self._count(name)}"

    def _count(self, name: str) -> int:
        counters = self._counters
        if counters is None:
            if not self._first:
                self._first = name
                return 1
            counters = self._counters = {self._first: 1}
        number = counters[name] = counters.get(name, 0) + 1
        return number


def branch_name(explicit: str | None, coro: Coroutine[Any, Any, Any], label: str | None = None) -> str:
    """The name of a branch: what its author called it, else what its function is called (`label`, where that is known).

    anyio names every task, ``module.qualname`` of what it was given (or the one it has of the two); the module is left
    out, for it depends on how a file was loaded.
    """
    if label is not None:
        return cleaned(label if explicit is None else explicit)
    inner = _unwrapped(coro)
    qualname = str(getattr(inner, "__qualname__", type(inner).__qualname__))
    if explicit is None:
        return cleaned(qualname)
    if inner is coro:
        return cleaned(explicit)
    function = getattr(getattr(inner, "definition", None), "fn", None)
    module = _module_of(inner, function)
    names = (module, "functools", f"{module}.{getattr(function, '__qualname__', qualname)}")
    if explicit in names or explicit.endswith(f".{qualname}"):
        return cleaned(qualname)
    return cleaned(explicit.removeprefix(f"{module}."))


@lru_cache(maxsize=1_024)
def cleaned(name: str) -> str:
    """A name as a part of an id."""
    name = name.rpartition(_LOCAL)[2].translate(_UNSAFE)[:_NAME_MAX]
    if not name.isprintable():
        name = "".join(char if char.isprintable() else "-" for char in name)
    return name or "-"


def _unwrapped(coro: Any) -> Any:
    """The user's coroutine, where anyio has put one of its own around it (its wrapper is not what the branch is)."""
    frame = getattr(coro, "cr_frame", None)
    if frame is None or not str(frame.f_globals.get("__name__", "")).startswith("anyio."):
        return coro
    held = frame.f_locals.get("coro")  # TaskGroup._run_wrapped_task(coro, ...), up to anyio 4.12
    if held is None:
        held = getattr(frame.f_locals.get("self"), "_coro", None)  # TaskHandle._run_coro(self), later ones
    return coro if held is None else held


def _module_of(coro: Any, function: Any) -> str:
    frame = getattr(coro, "cr_frame", None)
    if function is None and frame is not None:
        return str(frame.f_globals.get("__name__", ""))
    return str(getattr(function, "__module__", ""))


def idempotency_key(run_id: str, epoch: int, task_id: str) -> str:
    """The key under which every attempt of one task call runs, for ever: 32 hex digits.

    `epoch` rises with each continue-as-new of the run; it is 0 before the first.
    """
    return sha256(f"{run_id}\x00{epoch}\x00{task_id}".encode()).hexdigest()[:32]


def derived_random(seed: str, branch_id: str) -> Random:
    """The branch's own sequence of random numbers, the same at every replay."""
    return Random(int.from_bytes(sha256(f"{seed}\x00{branch_id}".encode()).digest(), "big"))  # noqa: S311 - not for secrets
