"""What a step asks of the limits that the store shares: who is to start, who waits, what is given back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct, field

from engine.core.lineage import idempotency_key
from engine.tasks import Named
from eventstore import NewEvent, Permit
from eventstore.port import COMMIT_PERMITS_MAX, NAME_BYTES_MAX

__all__ = ["Asked", "Claim", "Line", "slot_holder"]

_HOLDER_BYTES_MAX: Final = NAME_BYTES_MAX - 32  # room for the number of an attempt


def slot_holder(run_id: str, epoch: int, task_id: str) -> str:
    """Under what name a task holds slots: one that people can read, unless it is too long for that."""
    holder = f"{run_id}/{epoch}/{task_id}"
    return holder if len(holder.encode()) <= _HOLDER_BYTES_MAX else idempotency_key(run_id, epoch, task_id)


class Line(Struct, eq=False):
    """A task that needs permits: on its way to them, or with them."""

    task_id: str
    holder: str  # of slots; a start is held under a name of its own for each attempt
    needs: tuple[Named, ...]
    priority: int = 0
    key: str = ""
    attempt: int = 1  # the number of the attempt that these permits are for
    # Lined up here; in the store's queue; told, or hoping, that there is room; its attempt is being made.
    state: Literal["lined up", "waiting", "called", "started"] = "lined up"
    at: int = 0  # which of its needs it waits for
    granted: bool = False  # the store has said so
    has_queued: bool = False  # whether the store may have a place in a queue, or a slot, for it

    @property
    def limit(self) -> str:
        """The name of what it waits for."""
        return self.needs[self.at].name

    @property
    def rests(self) -> bool:
        """Whether it stands in the store's queue, and holds nothing meanwhile."""
        return self.state == "waiting" and (not self.at or self.needs[self.at].is_rate)

    def index_of(self, limit: str) -> int | None:
        """Which of its needs that is."""
        return next((index for index, need in enumerate(self.needs) if need.name == limit), None)

    def holder_of(self, need: Named) -> str:
        return f"{self.holder}@{self.attempt}" if need.is_rate else self.holder

    def permit(self, need: Named, action: Literal["take", "wait", "return"]) -> Permit:
        return Permit(pool=need.name, holder=self.holder_of(need), action=action, priority=self.priority, key=self.key)

    def takes(self, until: int) -> list[Permit]:
        return [self.permit(need, "take") for need in self.needs[:until]]

    def waits(self) -> list[Permit]:
        """What is said to the store while it waits for one of them."""
        need = self.needs[self.at]
        if not need.is_rate:
            return [*self.takes(self.at), self.permit(need, "wait")]
        return [*(self.permit(slot, "return") for slot in self.needs[: self.at]), self.permit(need, "wait")]

    def returns(self, *, started: bool) -> list[Permit]:
        """All that it may have. A start that was made cannot be given back."""
        return [self.permit(need, "return") for need in self.needs if not (started and need.is_rate)]


class Claim(Struct, eq=False):
    """What a step asks of the limits for one task: to start (`event` is its `TaskStarted`), or to wait."""

    line: Line
    event: NewEvent | None = None

    @property
    def permits(self) -> list[Permit]:
        return self.line.waits() if self.event is None else self.line.takes(len(self.line.needs))


class Asked(Struct, eq=False):
    """All that one step asks."""

    claims: list[Claim] = field(default_factory=list)
    returns: list[Permit] = field(default_factory=list)
    needs: int = 0  # of the claims, together

    @property
    def permits(self) -> tuple[Permit, ...]:
        """What goes into the commit: what is given back, which may make room, comes first."""
        return (*self.returns, *(permit for claim in self.claims for permit in claim.permits))

    def add(self, claim: Claim) -> None:
        """What was granted comes first: it is not to be had by others, and so is refused with none of them."""
        self.claims.insert(0 if claim.line.granted else len(self.claims), claim)
        self.needs += len(claim.line.needs)

    def keep(self, claims: Iterable[Claim]) -> None:
        """Ask only that."""
        self.claims = list(claims)
        self.needs = sum(len(claim.line.needs) for claim in self.claims)

    def has_room(self, needs: int) -> bool:
        return self.needs + len(self.returns) + needs <= COMMIT_PERMITS_MAX
