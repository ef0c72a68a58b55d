"""Writes the steps of one run, under the lease that its driver lives with, and knows how the stream stands then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from msgspec import UNSET

from engine.runtime.intake import Intake
from engine.runtime.site import Site
from engine.runtime.steps import Step
from engine.runtime.streams import stream_of
from engine.runtime.turns import Turns
from engine.runtime.writing import commits_of
from eventstore import Commit, LeaseLost, MailWaiting, NewEvent, StreamHead, Transaction

__all__ = ["DECIDED_ANEW_MAX", "Pen"]

DECIDED_ANEW_MAX: Final = 3
"""How often a run's end is decided anew for mail that came in between; what comes later is noted before the end."""


class Receiving(Protocol):
    """Whose end is written."""

    discarded: bool

    def receive(self, head: StreamHead) -> None:
        """Take in a page of its mail; nothing, if it is discarded."""


class Pen:
    """See the module. `version` and `alarm` are the stream's."""

    def __init__(self, site: Site, *, run_id: str, workflow: str, version: int) -> None:
        self.lease = site.lease  # the one it lives and dies with, whatever its worker takes later
        self.stream = stream_of(run_id)
        self.version = version
        self.alarm: int | None = None
        self.progressed = False  # whether a fact was written since the run came here
        self.first_commit: Callable[[BaseException | None], None] | None = (
            None  # told once, of a new run's first commit
        )
        self._site = site
        self._workflow = workflow
        self._refused = 0

    async def write(self, step: Step, *, over: bool = False) -> None:
        """Write it, in as many commits as it takes. `over`: the run has ended, and nothing of it runs any more.

        Raises `LeaseLost` also when the lease is too old to act on, and `MailWaiting` for an end over mail.
        """
        site = self._site
        for commit in commits_of(
            step,
            stream=self.stream,
            workflow=self._workflow,
            version=self.version,
            lease=self.lease,
            over=over,
            next_id=site.next_commit_id,
        ):
            head = await site.store.commit(commit)
            step.undelivered += head.undelivered
            self.version = max(self.version, 0) + len(commit.events)
            if self.first_commit is not None:
                self.report(None)
        if step.alarm is not UNSET:
            self.alarm = step.alarm
        if step.progress:
            self.progressed = True
            if step.ended is None:
                self._refused = 0
        if step.starting and not self.lease.fresh():
            raise self.too_late()  # others may have taken over since the commit: begin nothing

    def too_late(self) -> LeaseLost:
        """That the process stood still for longer than its lease."""
        return LeaseLost(self.stream, token=self.lease.token, reason="its beat is too old to act on")

    async def write_own(self, event: NewEvent, transaction: Callable[[Transaction], bytes]) -> None:
        """Write a fact, its payload what the transaction returns, in one commit with the SQL that this executes.

        Raises what the store raises, and what the transaction does.
        """
        await self._site.store.commit(
            Commit(
                id=self._site.next_commit_id(),
                stream=self.stream,
                expected_version=self.version,
                events=(event,),
                transaction=transaction,
                lease=self.lease,
                progress=True,
            )
        )
        self.version += 1
        self.progressed, self._refused = True, 0

    async def write_end(self, step: Step, intake: Intake, turns: Turns, *, over: bool, run: Receiving) -> None:
        """Write a step that ends the run; raises `MailWaiting` when it is to be decided anew, behind mail not seen.

        What may not change the end any more is noted before it, a page of mail at a time. Raises `LeaseLost` once the
        run takes nothing in any more (its engine has failed, say): the end would be refused for ever.
        """
        anew = step.may_be_decided_anew and self._refused < DECIDED_ANEW_MAX
        while True:
            late = None if anew else intake.late(turns, base=step.base, at=step.began_at)
            if late is not None and self.version <= 0:
                step.take_in(late)  # behind its start: nothing stands before that
            elif late is not None:
                await self.write(late)
                intake.written(late)
                step.move(len(late.events))
            try:
                await self.write(step, over=over)
            except MailWaiting:
                self._refused += 1
                if (written := max(self.version, 0) - step.base) > 0:
                    step.drop(written)
                elif anew:
                    raise
                anew = False
                run.receive(await self._site.store.head(self.stream))
                if run.discarded:
                    reason = "the run was put out of memory as its end was written"
                    raise LeaseLost(self.stream, token=self.lease.token, reason=reason) from None
            else:
                return

    def report(self, error: BaseException | None) -> None:
        """Tell whoever waits for a new run's first commit how that went; once."""
        if self.first_commit is not None:
            told, self.first_commit = self.first_commit, None
            told(error)
