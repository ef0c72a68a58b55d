"""Effect contracts: what becomes of a task of which it is only known that an attempt began.

A worker that dies in the middle of an attempt leaves the question open whether the outside saw its effect. The author
of the task answers it, once, where the task is defined:

* ``idempotent``: run it again, under the same idempotency key.
* ``at_most_once``: never run it again; the call fails with `TaskInterrupted`.
* ``reconcile``: ask the outside, under the key, before any further attempt.
* ``transactional``: nothing is open. The effect is SQL on the store's own database, and commits with the completion.
"""

from __future__ import annotations

from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

__all__ = ["EFFECTS", "Effect", "EffectOutside", "Happened", "NotHappened", "Reconciled"]

R = TypeVar("R")

EffectOutside: TypeAlias = Literal["idempotent", "at_most_once", "reconcile"]
"""What may be done with a task whose attempt was cut off."""
Effect: TypeAlias = EffectOutside | Literal["transactional"]
"""The same, and the contract under which nothing needs to be done."""
EFFECTS: Final = ("idempotent", "at_most_once", "reconcile", "transactional")


class Happened(Generic[R]):
    """The answer of a ``reconcile`` function: the effect is there, and this is the task's result."""

    __slots__ = ("result",)

    def __init__(self, result: R) -> None:
        self.result = result

    def __repr__(self) -> str:
        return f"Happened({self.result!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Happened) and bool(self.result == other.result)

    __hash__ = None  # type: ignore[assignment] # the result may be mutable


class NotHappened:
    """The other answer: the outside knows nothing of it, and the task may be tried again."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NotHappened()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NotHappened)

    def __hash__(self) -> int:
        return hash(NotHappened)


Reconciled: TypeAlias = Happened[Any] | NotHappened
