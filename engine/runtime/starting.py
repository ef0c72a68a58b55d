"""Starting a run by its id: it is made, or found to be there already and to be the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from msgspec import Struct

from engine.core.call import Definition
from engine.core.events import RunStarted
from engine.errors import RunConflict, RunNotFound, RunPrunedError
from engine.runtime.histories import read_beginning
from engine.runtime.launching import AtTheDoor
from engine.runtime.mail import signal_message
from engine.runtime.sending import send_data
from engine.runtime.worker import Worker
from engine.workflows import SignalMessage
from eventstore import EventStore, LeaseLost, VersionConflict

__all__ = ["Start", "is_run_of"]

LEASE_SECONDS: Final = 0.02
"""Between two tries to write a new run, while the worker takes a new lease."""


class Start(Struct):
    """One start of a run: of which workflow, by what id, with what. `signals`, by id, are what it is told first;
    `attributes` are as they are recorded.

    `check` raises once the engine cannot go on.
    """

    worker: Worker
    definition: Definition[..., Any]
    run_id: str
    fact: RunStarted
    arguments: bytes
    signals: Mapping[str, SignalMessage]
    attributes: bytes | None
    check: Callable[[], None]

    async def launch(self) -> None:
        """Make it. Raises what `Worker.launch` raises."""
        await self.worker.launch(
            self.definition, self.run_id, self.fact, self.arguments, self.signals, attributes=self.attributes
        )

    async def enqueue(self, door: AtTheDoor) -> None:
        """Record it, with what is said of how it gets in. Raises what the store raises."""
        launches = self.worker.launches
        await launches.enqueue(
            self.definition, self.run_id, self.fact, self.arguments, self.signals, attributes=self.attributes, door=door
        )

    async def made_or_joined(self, make: Callable[[], Awaitable[None]]) -> bool:
        """Make the run; or see that it is there, the same, and send it the signals. Whether it was made.

        Raises `RunConflict`, and `RunEnded` for signals to a finished run.
        """
        worker, run_id = self.worker, self.run_id
        while True:
            while worker.has(run_id):
                await worker.launches.settled(run_id)
                with suppress(RunNotFound):  # that launch failed: it is for us to try
                    await self._join()
                    return False
            self.check()
            try:
                await make()
            except VersionConflict:
                await self._join()
                return False
            except LeaseLost:
                self.check()  # our lease was lost while we wrote; the worker takes another
                await asyncio.sleep(LEASE_SECONDS)
            else:
                return True

    async def _join(self) -> None:
        """The run is there already: see that it is the same, and send it what it was to begin with."""
        store = self.worker.store
        try:
            same = await is_run_of(store, self.run_id, self.definition, self.arguments)
        except RunPrunedError as pruned:
            raise RunConflict(f"{pruned}. Its id stays taken: choose another") from None
        if same is None:
            raise RunConflict(
                f"run {self.run_id!r} exists already, and its arguments were destroyed, so that nobody can tell whether"
                " it is this call: choose another id"
            )
        if not same:
            raise RunConflict(
                f"run {self.run_id!r} exists already, with another workflow or other arguments than"
                f" {self.definition.where}: choose another id, or start it with the same call"
            )
        for id_, signal in self.signals.items():
            await send_data(store, signal_message(self.run_id, id_, signal), self.run_id)


async def is_run_of(store: EventStore, run_id: str, definition: Definition[..., Any], arguments: bytes) -> bool | None:
    """Whether the run is one of this workflow with these arguments; None: its own were destroyed.

    Raises `RunNotFound`, `HistoryError`.
    """
    began = await read_beginning(store, run_id)
    if began is None or began[0].workflow != definition.name:
        return False
    if began[1] is None:
        return None
    return began[1] == arguments or definition.arguments.same(began[1], arguments)
