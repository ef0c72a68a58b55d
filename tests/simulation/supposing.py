"""What would have come of a run: with nothing changed, what has come of it, and in no case is anything written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine import Engine
from engine.errors import RepairRefused
from tests.simulation.footprints import Doing
from tests.simulation.outside import OUTSIDE

if TYPE_CHECKING:
    from tests.simulation.playing import Play

__all__ = ["suppose"]

OF_ITS_CODE = ("completed", "failed", "cancelled")
"""How a run ends whose code has ended it."""


async def suppose(play: Play, engine: Engine, run_id: str, *, at: int, given: dict[str, Any]) -> None:
    """Ask what would have come of a run that has ended, and hold that against what has."""
    repaired, head = play.ledger.repaired, play.head_of(run_id)
    assert head is not None
    try:
        with play.ledger.footprints.doing(Doing("what-if", run_id), head):
            found = await engine.what_if(run_id, at=at, substitute=given)
    except RepairRefused as error:
        repaired.not_supposed(run_id, str(error))
        return
    now = play.head_of(run_id)
    if now is None or now.version != head.version or given:
        return
    play.ledger.checks["without a change, what was would be"] += 1
    was, would_be = found.was, found.would_be
    if found.problem or found.asked_otherwise or found.never_called:
        what = f"{found.problem}, {found.asked_otherwise}, {found.never_called}"
        OUTSIDE.broke("what-if", f"{run_id} at {at}: {what}")
    behind = play.ledger.headers[f"run:{run_id}"][at:]
    if was.status not in OF_ITS_CODE or any(header.startswith(b'{"type":"RunReopened"') for header in behind):
        return  # it was ended amid what it did, and would have gone on; or ends as it did before it was reopened
    one, other = [(state.status, state.result, state.error and state.error.type) for state in (was, would_be)]
    if found.diff.rows or one != other:
        rows = [(row.left and row.left.event, row.right and row.right.event) for row in found.diff.rows[:3]]
        OUTSIDE.broke("what-if", f"{run_id} at {at}: {other}, and was {one}; {rows}")
