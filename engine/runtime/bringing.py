"""Brings back a claimed run: begins a child that a message has opened, puts a run to rest without its code, or makes a
driver of it.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Protocol

from engine.core.call import Definition
from engine.core.compare import Mismatch
from engine.core.events import RunStarted
from engine.core.instance import Instance
from engine.runtime.anyio_seams import anyio_version
from engine.runtime.driver import Driver
from engine.runtime.mail import StartMail, mail_or_none
from engine.runtime.recovery import give_up, rebuild_run, settle, suspend, terminate, wishes_of
from engine.runtime.residents import Residents
from engine.runtime.site import Site
from engine.runtime.steps import Arrival
from engine.runtime.streams import WORKFLOW
from engine.runtime.versions import PYTHON
from eventstore import StreamHead

__all__ = ["bring_back"]


class Home(Site, Protocol):
    """The worker that a run is brought back to."""

    definitions: dict[str, Definition[..., Any]]
    residents: Residents

    @property
    def paused(self) -> Container[str]:
        """The workflows that are paused by name."""


async def bring_back(home: Home, head: StreamHead, run_id: str) -> None:
    """See the module. Raises what the store raises."""
    store, lease = home.store, home.lease
    if head.closed:
        await settle(store, lease, head, commit_id=home.next_commit_id())
        return
    definition = home.definitions[str(head.attributes[WORKFLOW])]
    if definition.name in home.paused:  # since the store was asked what there is to do
        await give_up(store, lease, head, clock=home.clock, commit_id=home.next_commit_id())
        return
    if head.version == 0:
        await _begin(home, head, run_id, definition)
        return
    wishes = wishes_of(head)
    if (ending := wishes.ending(head)) is not None:
        home.residents.forget(run_id)
        await terminate(store, lease, head, ending, clock=home.clock, next_id=home.next_commit_id)
        home.watches.ring(run_id)
        return
    reopening = wishes.reopening(head, 0) if head.held else None
    if head.held and reopening is None:
        await settle(store, lease, head, commit_id=home.next_commit_id())
        return
    if (rested := home.residents.wake(run_id, head.version)) is not None:
        driver = Driver(home, rested.instance, version=rested.version, last_at=rested.last_at, attempts=rested.attempts)
        home.residents.adopt(driver)
        driver.go_on(head, reopened_by=reopening)
        return
    try:
        rebuilt = await rebuild_run(store, head, definition, home.watchdog)
    except Mismatch as mismatch:
        await suspend(store, lease, head, mismatch.diagnosis, clock=home.clock, commit_id=home.next_commit_id())
        home.watches.ring(run_id)
        return
    replayer = rebuilt.replayer
    home.learn(replayer.instance.calls.definitions)
    driver = Driver(home, replayer.instance, version=head.version, last_at=replayer.last_at, attempts=replayer.attempts)
    home.residents.adopt(driver)
    driver.go_on(head, rebuilt, reopened_by=reopening)


async def _begin(home: Home, head: StreamHead, run_id: str, definition: Definition[..., Any]) -> None:
    """A child run that its parent's message has opened. What else waits for it is claimed for once it has begun."""
    for message in head.messages:
        mail = mail_or_none(message)
        if isinstance(mail, StartMail):
            break
    else:
        # Nobody but a run opens a run: without its start there is nothing to begin, and nothing to lose.
        await settle(home.store, home.lease, head, commit_id=home.next_commit_id())
        return
    fact = RunStarted(
        at=0,
        workflow=definition.name,
        seed=mail.seed,
        python=PYTHON,
        anyio=anyio_version(),
        by=f"run {mail.parent}",
        root=mail.root,
        parent=mail.parent,
        parent_call=mail.call,
        parent_epoch=mail.epoch,
        deadline=mail.deadline,
    )
    driver = Driver(home, Instance(definition, run_id), version=0, last_at=0, attempts={})
    home.residents.adopt(driver)
    driver.begin(Arrival(fact, message.payload, message.id))
