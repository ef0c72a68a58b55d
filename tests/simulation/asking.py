"""Asks runs, and tells the books what is heard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine import Request, RunHandle
from engine.errors import HistoryError, RequestFailedError, RequestRefused, RunEnded, RunPrunedError

if TYPE_CHECKING:
    from tests.simulation.playing import Play

__all__ = ["ask"]


async def ask(play: Play, handle: RunHandle[Any], request: Request[int, Any], id_: str, value: int) -> None:
    """Until it is known what came of it; then once more, for that is known for ever."""
    for _ in range(2):
        outcome: Any
        try:
            outcome = await handle.ask(request, value, id=id_)
        except RequestRefused:
            outcome = "refused"
        except RequestFailedError:
            outcome = "failed"
        except RunEnded:
            outcome = "ended"
        except (RunPrunedError, HistoryError) as error:  # nobody knows any more
            play.ledger.taken.missed(handle.id, error)
            return
        if outcome == "ended" and handle.id in play.ledger.taken.pruned:
            return  # it takes no more questions, and nobody knows what came of this one
        play.ledger.answers.heard(handle.id, id_, value, outcome)
