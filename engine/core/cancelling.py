"""Cancellations of a run: asked for from outside or by its deadline, heard by its main branch, or not heard in time.

One that the workflow has not heard when it continues as new is the next epoch's to hear.

A run that cleans up is left to it: its deadline does not cancel one that was asked to end before, nor its parent one
that is past its deadline. They share their deadline: both always come together, in either order. Whoever cancels a run
twice means it, as in asyncio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from engine.core.events import CancelRequested
from engine.errors import RunDeadlineExceeded

__all__ = ["Cancelling"]


class Cancelling:
    """See the module. `main` is the workflow's main branch, set as soon as it is made."""

    def __init__(self) -> None:
        self.main: asyncio.Task[Any] | None = None
        self.parent = ""  # the `by` of what its parent asks
        self.reason = ""  # of the first that was heard
        self._shields = 0  # sections of the workflow that no cancellation of the run may enter
        self._held: CancelRequested | None = None
        self._expired_meanwhile = False  # the deadline passed in a shielded section, and nothing else was held
        self._expired = False  # the deadline has cancelled the workflow
        self._ending = False  # the workflow was asked to end, by whom- or whatever, and has not taken that back
        self._asked: CancelRequested | None = None  # the last that was handed to the workflow
        self.carried: CancelRequested | None = None
        self._missed = False  # the workflow ended before it could hear of it

    def ask(self, fact: CancelRequested) -> None:
        """Ask the workflow to end, once it is in no shielded section; a carried one waits for `ask_as_carried`."""
        if fact.carried:
            self.carried = fact
        else:
            self._hand_over(fact)

    def ask_as_carried(self) -> bool:
        """A cancellation from the last epoch takes effect once the code of this one has begun: it may clean up.

        Whether there was one.
        """
        fact, self.carried = self.carried, None
        assert self.main is not None
        if fact is None or self.main.done():
            return False
        self._hand_over(fact)
        return True

    async def await_within(self, coro: Coroutine[Any, Any, Any], seconds: float, run_id: str) -> Any:
        """Await the workflow function within the run's deadline, `seconds` from its start.

        What `asyncio.timeout_at` does, but for when it cancels: see the module.
        """
        limit = asyncio.get_running_loop().call_at(seconds, self._expire)  # the loop's time is 0 at the start
        try:
            return await coro
        except asyncio.CancelledError:
            assert self.main is not None
            if not self._expired or asyncio.Task.uncancel(self.main) > 0:
                raise
            raise RunDeadlineExceeded(f"run {run_id!r} was not done by its deadline") from None
        finally:
            limit.cancel()

    def shield(self) -> None:
        """A shielded section is entered."""
        self._shields += 1

    def unshield(self) -> None:
        """A shielded section was left: a cancellation that waited for the last of them takes effect."""
        self._shields -= 1
        if self._shields:
            return
        if self._expired_meanwhile:
            self._expired_meanwhile = False
            self._expire()
        if self._held is not None:
            held, self._held = self._held, None
            self._hand_over(held)

    def taken_back(self, branch: asyncio.Task[Any]) -> None:
        """A branch has taken back every request to cancel it, as asyncio asks of code that goes on."""
        self._ending = self._ending and branch is not self.main

    def missed(self, branch: asyncio.Task[Any]) -> None:
        """A cancellation that an await had held back finds its branch ended."""
        self._missed = self._missed or branch is self.main

    def _expire(self) -> None:
        if self._shields:
            self._expired_meanwhile = self._held is None
            return
        if self._ending:
            return
        self._expired = self._ending = True
        self.main.cancel()  # type: ignore[union-attr]

    def _hand_over(self, fact: CancelRequested) -> None:
        if self._shields:
            self._held = self._held or fact
            return
        if self._expired and self._ending and fact.by == self.parent:
            return
        assert self.main is not None
        self._asked = fact
        self._ending = True
        self.reason = self.reason or fact.reason
        self.main.cancel(fact.reason or None)

    def unheard(self) -> CancelRequested | None:
        """What asked the run to end, and did not reach the workflow on its way out."""
        if self._held is not None:
            return self._held
        never_thrown: bool = self.main._must_cancel  # type: ignore[union-attr]
        return self._asked if never_thrown or self._missed else None
