"""`Desk`: what every command about assets is given: the definitions on a store, and where to say things."""

from __future__ import annotations

import shlex

from msgspec import Struct

from engine.assets import DEFAULT_STORAGE, Assets
from engine.cli.finding import Found
from engine.cli.output import Output
from engine.cli.session import Session
from engine.cli.targets import Target
from engine.storage import Storage
from eventstore import Clock, EventStore, SystemClock

__all__ = ["Desk", "desk_for"]


class Desk(Struct, frozen=True, kw_only=True, eq=False):
    """See the module. `asked_store`: the store that was named with the command, if one was."""

    found: Found
    assets: Assets
    store: EventStore
    url: str
    output: Output
    by: str
    grace: float
    asked_store: str | None = None
    debug: bool = False
    clock: Clock = SystemClock()

    @property
    def store_words(self) -> str:
        """What a command that reads the settings must say to mean this store; for others `Session.store_words`."""
        return "" if self.asked_store is None else f" --store {shlex.quote(self.asked_store)}"

    def command(self, verb: str, *words: str) -> str:
        """What to type for a verb on the same definitions and store."""
        target = [self.found.text] if self.found.text else []
        return shlex.join(["holdfast", verb, *target, *words]) + self.store_words

    def session(self, *, reason: str = "") -> Session:
        """For an engine that works on materializing runs; `reason`: why it is asked to."""
        target = Target(
            text=self.found.text,
            source=self.found.source,
            file=self.found.module.__file__ or self.found.source,
            module=self.found.module,
            workflows=self.assets.workflows,
            chosen=self.assets.materialize,
        )
        return Session(
            target=target,
            bound=((), {}),
            store=self.store,
            url=self.url,
            output=self.output,
            grace=self.grace,
            by=self.by,
            reason=reason,
            debug=self.debug,
            clock=self.clock,
            storage=self.assets.storage,
        )


def desk_for(
    found: Found,
    store: EventStore,
    url: str,
    output: Output,
    *,
    asked_store: str | None,
    by: str,
    grace: float,
    debug: bool,
) -> Desk:
    """A desk with the definitions on the store. Storage is what the definitions say, else what the settings do."""
    said = found.definitions.storage
    named = found.settings.storage_url if said == DEFAULT_STORAGE else ""
    assets = Assets(found.definitions, store, storage=Storage(named) if named else None)
    return Desk(
        found=found,
        assets=assets,
        store=store,
        url=url,
        output=output,
        by=by,
        grace=grace,
        asked_store=asked_store,
        debug=debug,
    )
