"""Cancellations of a run: asked for from outside, heard by the workflow's main branch, or not heard in time.

One that the workflow has not heard when it continues as new is the next epoch's to hear.
"""

from __future__ import annotations

import asyncio
from typing import Any

from engine.core.events import CancelRequested

__all__ = ["Cancelling"]


class Cancelling:
    """See the module. `main` is the workflow's main branch, set as soon as it is made."""

    def __init__(self) -> None:
        self.main: asyncio.Task[Any] | None = None
        self.reason = ""  # of the first that was heard
        self._shields = 0  # sections of the workflow that no cancellation of the run may enter
        self._held: CancelRequested | None = None
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

    def shield(self) -> None:
        """A shielded section is entered."""
        self._shields += 1

    def unshield(self) -> None:
        """A shielded section was left: a cancellation that waited for the last of them takes effect."""
        self._shields -= 1
        if not self._shields and self._held is not None:
            held, self._held = self._held, None
            self._hand_over(held)

    def missed(self, branch: asyncio.Task[Any]) -> None:
        """A cancellation that an await had held back finds its branch ended."""
        self._missed = self._missed or branch is self.main

    def _hand_over(self, fact: CancelRequested) -> None:
        if self._shields:
            self._held = self._held or fact
            return
        assert self.main is not None
        self._asked = fact
        self.reason = self.reason or fact.reason
        self.main.cancel(fact.reason or None)

    def unheard(self) -> CancelRequested | None:
        """What asked the run to end, and did not reach the workflow on its way out."""
        if self._held is not None:
            return self._held
        never_thrown: bool = self.main._must_cancel  # type: ignore[union-attr]
        return self._asked if never_thrown or self._missed else None
