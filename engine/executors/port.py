"""The executor port: a place with a limited number of slots, where attempts run.

Threads, processes, Dask and Ray are executors; what each must promise is here, and `engine.executors.conformance` holds
it to that. A slot is given back when the work has *really* ended, which may be long after whoever awaited it was
cancelled: a thread cannot be stopped from outside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from msgspec import Struct

from engine.core.carriage import PAYLOAD_INLINE_BYTES
from engine.core.failures import ErrorInfo, rebuild
from engine.errors import DefinitionError
from engine.tasks import Attempt, Contact, Task

__all__ = ["Encoded", "Executor", "NotBegun", "Nowhere", "Slots", "Work", "WorkFailed"]


class NotBegun(Exception):
    """The work was not begun: its engine may not have the run any more. See `Work.begin`."""


def _always() -> bool:
    return True


class Work(Struct, frozen=True):
    """One attempt of a task, and what it is given: decoded, and as recorded (JSON), for places far away."""

    task: Task[..., Any]
    arguments: bytes
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    attempt: Attempt
    instead: Callable[..., Any] | None = None  # of the task's function: what asks about an attempt, here and now
    bytes_max: int = PAYLOAD_INLINE_BYTES  # of its result, encoded
    may_begin: Callable[[], bool] = _always  # asked from whatever thread it is to begin in

    @property
    def fn(self) -> Callable[..., Any]:
        """The function to call with `args` and `kwargs`."""
        return self.task.fn if self.instead is None else self.instead

    def begin(self) -> None:
        """To be called where it begins, and right before that, however long the way there took. Raises `NotBegun`."""
        if not self.may_begin():
            raise NotBegun

    @property
    def contact(self) -> Contact:
        """What an executor carries between the attempt's code and the engine: heartbeats, notices."""
        return self.attempt._contact


class Encoded(Struct, frozen=True):
    """A result that was encoded where it was made, with the task's own codec (`Task.result.encode_checked`)."""

    payload: bytes


class WorkFailed(Exception):
    """The work raised, somewhere whose exceptions do not travel: `info` describes what it raised."""

    def __init__(self, info: ErrorInfo) -> None:
        self.info = info
        super().__init__(f"{info.type}: {info.message}")

    def as_itself(self, raises: Sequence[type[BaseException]] = ()) -> BaseException:
        """What the work raised, for policies that ask for its type.

        Of the types that this process has loaded already, those declared (`raises`) and builtins included; one that it
        does not know is a `TaskError`. Nothing is imported.
        """
        return rebuild(self.info, (*raises, *_loaded(self.info)))


class Executor(Protocol):
    """Where attempts run. It serves one engine, which closes it."""

    @property
    def name(self) -> str:
        """What tasks and histories call it."""

    @property
    def slots(self) -> Slots:
        """How many attempts may be here at once."""

    def check(self, task: Task[..., Any]) -> None:
        """Raise `DefinitionError`, saying what to do, for a task that cannot run here. Called before each attempt."""

    async def run(self, work: Work) -> Any:
        """Run it in a slot taken before: return its result (or `Encoded`), or raise what it raised (or `WorkFailed`).

        * The slot is given back exactly once, when the work has ended or is certain never to begin.
        * `work.begin()` is called before anything of the work, as near to it as can be; what it raises is raised.
        * Cancelling the caller asks the work to end: it is cancelled, killed, or finds `attempt().cancelled`. Work that
          does not end keeps its slot.
        * `attempt()` is there, with all that it says; heartbeats reach `work.contact.beat`, the engine's closing
          (`work.contact.stopping`) reaches the code.
        * Whatever the work raises is its outcome, `SystemExit` and `GeneratorExit` included, and harms nobody else. (A
          `GeneratorExit` from another thread is raised as the cause of something else: it would close whoever awaits.)
        * `CompletedLater` ends the attempt, and is raised.
        """

    async def aclose(self) -> None:
        """End what can be ended; nothing is run here any more."""


class Slots:
    """A counted set of places, all on one event loop: no locks."""

    __slots__ = ("_on_free", "free", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._on_free: Callable[[], None] | None = None

    def try_take(self) -> bool:
        """Take a slot if one is free."""
        if self.free <= 0:
            return False
        self.free -= 1
        return True

    def give_back(self) -> None:
        """A taken slot is free again; whoever waits for one is told."""
        self.free += 1
        assert self.free <= self.total, "a slot was given back twice"
        if self._on_free is not None:
            self._on_free()

    def when_free(self, callback: Callable[[], None] | None) -> None:
        """Call back, on the loop, whenever a slot is given back. One listener."""
        self._on_free = callback


class Nowhere:
    """Stands for an executor that the engine does not have: tasks fail there, and say so."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.slots = Slots(1)
        self._known = tuple(known)

    def check(self, task: Task[..., Any]) -> NoReturn:
        """Always raises `DefinitionError`."""
        known = ", ".join(repr(name) for name in self._known)
        raise DefinitionError(
            f"{task.where} is for executor {self.name!r}, and this engine has {known}:"
            f" give it to Engine(executors=[...]), or name one of these"
        )

    async def run(self, work: Work) -> NoReturn:
        self.slots.give_back()
        self.check(work.task)

    async def aclose(self) -> None:
        """There is nothing to end."""


def _loaded(info: ErrorInfo) -> Iterator[type[BaseException]]:
    """The types of an error and its causes that this process knows already."""
    current: ErrorInfo | None = info
    while current is not None:
        module, _, name = current.type.rpartition(".")
        # A name is looked up in what is loaded; nested classes are not, for theirs would be a longer walk.
        found = getattr(sys.modules.get(module or "builtins"), name, None)
        if isinstance(found, type) and issubclass(found, BaseException):
            yield found
        current = current.cause
