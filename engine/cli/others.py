"""Says for which other run a step waits: no two runs make the same partition at once, and a run that nobody works on
holds it until somebody does.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from engine.cli.asset_desk import Desk
from engine.cli.asset_tally import Making, StepTally
from engine.cli.progress import View
from engine.errors import HoldfastError
from eventstore import EventStoreError

__all__ = ["look_at_others"]

_PAUSES_SECONDS: Final = 1.0
_WAITS_AFTER: Final = 2_000_000
"""Microseconds after which beginning a step takes too long for anything else."""
_LOOKED_AT: Final = 20
"""Steps that are looked at each time."""


async def look_at_others(desk: Desk, making: Making, view: View) -> None:
    """Go on looking, and say once of each run that it is waited for, and what to do."""
    told: set[str] = set()
    with suppress(EventStoreError, HoldfastError):  # who works on the run meets it too, and says so
        while True:
            await asyncio.sleep(_PAUSES_SECONDS)
            now = desk.clock.now()
            begun = (each for each in making.steps.values() if not each.making_at)
            late = [each for each in begun if now - each.began_at > _WAITS_AFTER]
            for step in late[:_LOOKED_AT]:
                run = await _who_makes(desk, making, step)
                if run and run not in told:
                    told.add(run)
                    view.say(
                        f"{step.title} waits for run {run}, which began to make it and has not ended; if nobody works"
                        f" on that, let it go on: {desk.command('materialize', '--id', run)}"
                    )


async def _who_makes(desk: Desk, making: Making, step: StepTally) -> str:
    """The other run that has begun to make it; "" if none has."""
    if making.plan is None:
        return ""
    catalog = await desk.assets.catalog(making.plan.request.environment)
    started = (await catalog.state(step.node)).of(step.partition).started
    return "" if started is None or started.run == making.run_id else started.run
