"""Starting a run by its id: it is made, or found to be there already and to be the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from engine.core.call import Definition
from engine.core.events import RunStarted
from engine.errors import RunConflict, RunNotFound
from engine.runtime.histories import read_beginning
from engine.runtime.mail import signal_message
from engine.runtime.sending import send_data
from engine.runtime.worker import Worker
from engine.workflows import SignalMessage
from eventstore import EventStore, LeaseLost, VersionConflict

__all__ = ["is_run_of", "start_or_join"]

LEASE_SECONDS: Final = 0.02
"""Between two tries to write a new run, while the worker takes a new lease."""


async def start_or_join(
    worker: Worker,
    definition: Definition[..., Any],
    run_id: str,
    fact: RunStarted,
    arguments: bytes,
    *,
    signals: Mapping[str, SignalMessage],
    check: Callable[[], None],
) -> None:
    """Make the run, told `signals` (by id) first; or see that it is there, the same, and send it those.

    `check` raises once the engine cannot go on. Raises `RunConflict`, and `RunEnded` for signals to a finished run.
    """
    while True:
        while worker.has(run_id):
            await worker.launches.settled(run_id)
            with suppress(RunNotFound):  # that launch failed: it is for us to try
                return await _join(worker.store, run_id, definition, arguments, signals)
        check()
        try:
            return await worker.launch(definition, run_id, fact, arguments, signals)
        except VersionConflict:
            return await _join(worker.store, run_id, definition, arguments, signals)
        except LeaseLost:
            check()  # our lease was lost while we wrote; the worker takes another
            await asyncio.sleep(LEASE_SECONDS)


async def _join(
    store: EventStore,
    run_id: str,
    definition: Definition[..., Any],
    arguments: bytes,
    signals: Mapping[str, SignalMessage],
) -> None:
    """The run is there already: see that it is the same, and send it what it was to begin with."""
    if not await is_run_of(store, run_id, definition, arguments):
        raise RunConflict(
            f"run {run_id!r} exists already, with another workflow or other arguments than {definition.where}:"
            " choose another id, or start it with the same call"
        )
    for id_, signal in signals.items():
        await send_data(store, signal_message(run_id, id_, signal), run_id)


async def is_run_of(store: EventStore, run_id: str, definition: Definition[..., Any], arguments: bytes) -> bool:
    """Whether the run is one of this workflow with these arguments. Raises `RunNotFound`, `HistoryError`."""
    began = await read_beginning(store, run_id)
    if began is None or began[0].workflow != definition.name or began[1] is None:
        return False
    return began[1] == arguments or definition.arguments.same(began[1], arguments)
