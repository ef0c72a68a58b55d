"""When a run may be given up: nothing of it is under way, and nothing is due soon."""

from __future__ import annotations

from typing import Final, Protocol

from engine.core.instance import Instance
from engine.runtime.board import Board
from engine.runtime.intake import Intake
from engine.runtime.site import Site

__all__ = ["IDLE_RELEASE_SECONDS", "may_rest", "next_due"]

IDLE_RELEASE_SECONDS: Final = 1.0
"""A run that has nothing to do for longer than this is given up, and claimed again when its time has come."""


def next_due(instance: Instance, board: Board) -> int | None:
    """Microseconds since the epoch at which somebody must look at the run again; None: when it gets mail."""
    dues = (instance.clocks.next_deadline(), board.next_due())
    return min((due for due in dues if due is not None), default=None)


class Resident(Protocol):
    """A driver, as this module knows it."""

    instance: Instance
    board: Board
    intake: Intake
    site: Site
    holding: bool  # whether nothing of it begins, or goes on, as it stands in the store


def may_rest(run: Resident, *, holding: bool) -> bool:
    """Whether a run may be given up now. `holding`: nothing of it begins anyway, whatever falls due."""
    if run.holding and not holding:
        return False  # what stood still is taken up again when that is written: until then nothing is due
    if run.site.stopping or not run.board.idle or run.intake.keeps_mail or run.instance.outbox.sends:
        return False
    if holding:
        return True
    due = next_due(run.instance, run.board)
    if run.instance.waiting is not None:  # it begins when it is claimed for that, so with a look into its mailbox
        return due is not None and due > run.site.clock.now()
    return due is None or due - run.site.clock.now() > IDLE_RELEASE_SECONDS * 1_000_000
