"""Patches: places where the code of running workflows has changed, and which way each run goes there.

A patch is named by the author. A run that reaches it live takes the new way, and says so with the decision
`PatchMarked`, behind the fact whose turn it was; a replay finds that marker and takes the new way again. A history that
went past the place without one was written by the code before the change, and takes the old way for ever.

Which of the two a replay is in, is asked of the turn and not of the whole history: the turn is past the place when a
later fact was delivered, or when the turn's own decisions hold one that the code has not taken yet when it asks. So a
run that stands exactly at the place when the new code comes takes the new way, also when it has been there for weeks.

Markers are never compared with what the code decides: they are what it is told. Code that no longer asks fits as well,
as long as everything else does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, Protocol

from engine.core.decided import Decided
from engine.core.events import Decision, PatchMarked
from engine.core.sites import site
from engine.errors import ForbiddenInWorkflow, HoldfastError

__all__ = ["PATCH_NAME_MAX", "Patches"]

PATCH_NAME_MAX: Final = 100
"""Characters of a patch's name."""


class PatchHost(Protocol):
    """What patches need of their instance."""

    decided: dict[str, Decided]
    asking: bool

    @property
    def now(self) -> int: ...
    def decide(self, event: Decision, payload: bytes | None = None) -> None: ...


class Patches:
    """Those of one epoch of a run. `recorded` is set by a replay: the other decisions of the turn that it tells, or
    None while the run is live; `complete` says whether more facts stand behind that turn.
    """

    __slots__ = ("_answers", "_host", "_marked", "_unasked", "complete", "recorded")

    def __init__(self, host: PatchHost) -> None:
        self.recorded: Collection[str] | None = None
        self.complete = False
        self._host = host
        self._answers: dict[str, tuple[bool, str]] = {}  # by name: the answer, and where it was asked for first
        self._marked: dict[str, str] = {}  # in the history: by name, where it was asked for then
        self._unasked: set[str] = set()  # of those, the ones of this turn that the code has not asked for yet

    def ask(self, name: str) -> bool:
        """Whether the run takes the new way at this patch. The same for the rest of the epoch.

        Raises `HoldfastError` for what cannot be a name, `ForbiddenInWorkflow` in a validator or a query that is the
        first to ask.
        """
        known = self._answers.get(name)
        if known is not None:
            return known[0]
        _check(name)
        if self._host.asking:
            raise ForbiddenInWorkflow(
                f"patch {name!r} was asked for by a validator or a query first: they read, and decide nothing; ask in"
                " the workflow, before it serves or provides that"
            )
        where = site()
        new = name in self._marked
        self._unasked.discard(name)
        if not new and not self._is_past():
            self._host.decide(PatchMarked(at=self._host.now, id=f"patch:{name}", site=where, name=name))
            new = True
        self._answers[name] = new, where
        return new

    def _is_past(self) -> bool:
        """Whether the history has gone past where the code stands."""
        recorded = self.recorded
        if recorded is None:
            return False
        return self.complete or bool(self._unasked) or any(id_ not in self._host.decided for id_ in recorded)

    def mark(self, event: PatchMarked) -> bool:
        """A replay has come to a marker. False when the code went the old way at that patch before: it does not fit."""
        if self._answers.get(event.name, (True, ""))[0]:
            self._marked[event.name] = event.site
            if event.name not in self._answers:
                self._unasked.add(event.name)
            return True
        return False

    def turn_told(self) -> None:
        """The turn whose markers were given is over."""
        self._unasked.clear()

    def take_back(self) -> None:
        """The turn whose markers were given was never taken: nobody has asked in it."""
        for name in self._unasked:
            del self._marked[name]
        self._unasked.clear()

    def site_of(self, name: str) -> str:
        """Where the code asked for it first; empty when it did not."""
        return self._answers.get(name, (False, ""))[1]

    def hints(self) -> Iterator[str]:
        """What a person should know of them where code and history disagree."""
        for name, (new, where) in self._answers.items():
            if not new:
                yield (
                    f"patch {name!r}, asked for at {where or 'an unknown place'}, is not in this history: the run went"
                    " past there before the patch, so it needs what the code did then"
                )
        for name, where in self._marked.items():
            if name not in self._answers:
                yield (
                    f"this history has patch {name!r} (from {where or 'an unknown place'}), and the code has not asked"
                    " for it up to here: the run needs what the code does with that patch"
                )


def _check(name: str) -> None:
    if not isinstance(name, str) or not name or len(name) > PATCH_NAME_MAX or not name.isprintable():
        raise HoldfastError(f"{name!r} cannot name a patch: 1 to {PATCH_NAME_MAX} printable characters")
