"""Brings back a claimed run: begins a child that a message has opened, puts a run to rest without its code, or makes a
driver of it.
"""

from __future__ import annotations

from typing import Any, Protocol

from engine.core.call import Definition
from engine.core.compare import Diagnosis, Mismatch
from engine.core.instance import Instance
from engine.runtime.driver import Driver
from engine.runtime.gates import gates_of, is_waiting
from engine.runtime.large_values import TABLES, holds_large
from engine.runtime.mending import bind
from engine.runtime.opened import opened_by
from engine.runtime.pausing import PausedWorkflows
from engine.runtime.recovery import Rebuilt, give_up, rebuild_run, settle, suspend, terminate, wishes_of
from engine.runtime.residents import Residents
from engine.runtime.site import Site
from engine.runtime.steps import Arrival
from engine.runtime.streams import STATUS, WAITS, new_event
from eventstore import Commit, StreamHead

__all__ = ["bring_back"]


class Home(Site, Protocol):
    """The worker that a run is brought back to."""

    residents: Residents

    paused: PausedWorkflows


async def bring_back(home: Home, head: StreamHead, run_id: str) -> None:
    """See the module. Raises what the store raises."""
    store, lease = home.store, home.lease
    if head.closed:
        await settle(store, lease, head, commit_id=home.next_commit_id())
        return
    definition = home.definitions.of(head.attributes)
    assert definition is not None, "it was asked for by name and version"
    aside = home.paused.aside(definition.name, head.attributes)
    if aside and not any(message.control for message in head.messages):  # paused since the store was asked
        await give_up(store, lease, head, clock=home.clock, commit_id=home.next_commit_id())
        return
    if head.version == 0:
        begun = await _begin(home, head, run_id, definition, aside=bool(aside))
        if begun is None:
            return
        head = begun
    wishes = wishes_of(head)
    if (ending := wishes.ending(head)) is not None:
        home.residents.forget(run_id)
        await terminate(store, lease, head, ending, clock=home.clock, next_id=home.next_commit_id)
        return
    reopening = wishes.reopening(head, 0) if head.held else None
    held_before_it_began = is_waiting(head) and head.attributes.get(STATUS) != "suspended"
    if head.held and reopening is None and not held_before_it_began:
        await settle(store, lease, head, commit_id=home.next_commit_id())
        return
    if (rested := home.residents.wake(run_id, head.version)) is not None:
        driver = Driver(home, rested.instance, version=rested.version, last_at=rested.last_at, attempts=rested.attempts)
        _adopt(home, driver, head, reopened=reopening is not None)
        driver.go_on(head, reopened_by=reopening)
        return
    try:
        rebuilt = await _rebuilt(home, head, definition)
    except Mismatch as mismatch:
        code, commit_id = home.codes.of(definition), home.next_commit_id()
        await suspend(store, lease, head, mismatch.diagnosis, code=code, clock=home.clock, commit_id=commit_id)
        return
    replayer = rebuilt.replayer
    try:
        head = await bind(home, head, replayer.instance.definition)
    except BaseException:
        replayer.instance.evict()
        raise
    home.learn(replayer.instance.calls.definitions)
    driver = Driver(home, replayer.instance, version=head.version, last_at=replayer.last_at, attempts=replayer.attempts)
    _adopt(home, driver, head, reopened=reopening is not None)
    driver.go_on(head, rebuilt, reopened_by=reopening)


async def _rebuilt(home: Home, head: StreamHead, definition: Definition[..., Any]) -> Rebuilt:
    """Raises `Mismatch`, also for a run whose large values lie in a storage, where there is none."""
    rebuilt = await rebuild_run(home.store, head, definition, home.watchdog, versions=home.definitions.find)
    instance = rebuilt.replayer.instance
    if instance.started is not None and instance.started.large and not holds_large(home.store):
        instance.evict()
        message = (
            "this run began with a storage for large values, and this engine has none: give it that storage, as in"
            " Engine(..., storage=Storage('values')), and resume the run"
        )
        raise Mismatch(Diagnosis(reason="values", message=message, version=head.version))
    return rebuilt


def _adopt(home: Home, driver: Driver, head: StreamHead, *, reopened: bool) -> None:
    """The run is driven here; its workflow may have been paused since it was claimed."""
    aside = home.paused.aside(driver.instance.definition.name, head.attributes)
    driver.stand(gates_of(head, reopened=reopened), aside)
    home.residents.adopt(driver)


async def _begin(
    home: Home, head: StreamHead, run_id: str, definition: Definition[..., Any], *, aside: bool
) -> StreamHead | None:
    """A run that a message has opened. What else waits for it is claimed for once it has begun.

    `aside`: it may not begin, and is only recorded, as is one that is to begin later; what else waits for it is then to
    be looked at in the head that this returns.
    """
    opened = opened_by(head)
    if opened is None:
        # Nobody but a run opens a run: without its start there is nothing to begin, and nothing to lose.
        await settle(home.store, home.lease, head, commit_id=home.next_commit_id())
        return None
    message, mail = opened.message, opened.mail
    waits = aside or mail.begins_at > 0
    fact = opened.fact(at=home.clock.now() if waits else 0, waits=waits, large=holds_large(home.store))
    if waits:
        rests = len(head.messages) == 1 and mail.begins_at > fact.at
        recorded = await home.store.commit(
            Commit(
                id=home.next_commit_id(),
                stream=head.stream,
                expected_version=0,
                events=(new_event(fact, message.payload),),
                consumes=(message.id,),
                alarm=max(fact.at, fact.begins_at),  # as it is of one that is recorded by who starts it
                attributes={STATUS: "queued", WAITS: fact.begins_at},
                lease=home.lease,
                release=rests,
                progress=True,
            )
        )
        return None if rests else recorded
    driver = Driver(home, Instance(definition, run_id, tables=TABLES), version=0, last_at=0, attempts={})
    home.residents.adopt(driver)
    driver.begin(Arrival(fact, message.payload, message.id))
    return None
