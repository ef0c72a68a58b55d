"""What whoever does something to a run leaves behind, held against what it may: a repair writes to what it makes.

Whoever does it says so (`doing`), and whatever is written from there is held against that as it is written. It knows
nothing of the engine but the names of streams, and its events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from engine.core.events import CallDebounced, PayloadsDestroyed, RunPruned, RunReopened, decode_header
from eventstore import StreamHead
from eventstore.memory import MemoryStore
from tests.simulation.outside import OUTSIDE

__all__ = ["Doing", "Footprints"]

_ADDED: dict[str, type] = {
    "reopen": RunReopened,
    "prune": RunPruned,
    "forget": PayloadsDestroyed,
    "debounce": CallDebounced,
}
"""The one event that is added to a history that is there."""


class Doing:
    """Something that is being done to a run, by one of its clients."""

    def __init__(self, kind: str, run_id: str, new_id: str = "", n: int = 0) -> None:
        self.kind = kind
        self.run_id = run_id
        self.new_id = new_id  # of what is made
        self.n = n  # what a debounced call is called with
        self.over = False

    def may_write(self, stream: str) -> bool:
        """Whether events may be added there."""
        match self.kind:
            case "rerun" | "fork":
                return stream == f"run:{self.new_id}"
            case "debounce":
                return stream.startswith("debounce:")
            case "what-if":
                return False
        # The pool of a singleton's key is declared anew, if it is not there.
        return stream == f"run:{self.run_id}" or (self.kind == "reopen" and stream.startswith("pool:"))

    def may_send(self, stream: str) -> bool:
        """Whether somebody may be told something."""
        match self.kind:
            case "fork":
                return stream == f"run:{self.new_id}"
            case "reopen":
                return stream == f"run:{self.run_id}"
            case "debounce":
                return stream.startswith("run:sim-")
        return False


_DOING: ContextVar[Doing | None] = ContextVar("doing", default=None)


class Footprints:
    """Of all that was done, and how the histories were that it was done to."""

    def __init__(self, checks: Counter[str]) -> None:
        self.checks = checks
        self.known: dict[str, dict[int, bytes]] = {}  # digests by version, of runs to which something was done

    @contextmanager
    def doing(self, doing: Doing, head: StreamHead | None = None) -> Iterator[Doing]:
        """Around it; `head`: how the run's history ends as it begins."""
        if head is not None:
            self.known.setdefault(doing.run_id, {})[head.version] = head.digest
        token = _DOING.set(doing)
        try:
            yield doing
        finally:
            doing.over = True  # for what goes on in tasks that were begun meanwhile
            _DOING.reset(token)

    def now(self) -> Doing | None:
        """What is being done by whoever writes."""
        doing = _DOING.get()
        return None if doing is None or doing.over else doing

    def written(self, stream: str, headers: Iterable[bytes], *, existed: bool) -> None:
        """A commit was accepted."""
        if (doing := self.now()) is None:
            return
        self.checks["who repairs writes where it may"] += 1
        events = [decode_header(header) for header in headers]
        only = _ADDED.get(doing.kind)
        if not doing.may_write(stream):
            OUTSIDE.broke("footprints", f"{doing.kind} of {doing.run_id} wrote {events} to {stream}")
        elif (
            existed
            and events
            and only is not None
            and stream.startswith("run:")
            and [type(event) for event in events] != [only]
        ):
            OUTSIDE.broke("footprints", f"{doing.kind} of {doing.run_id} added {events} to it")

    def told(self, stream: str, sender: str | None) -> None:
        """A message was put into its mailbox."""
        if (doing := self.now()) is not None and not doing.may_send(stream):
            OUTSIDE.broke("footprints", f"{doing.kind} of {doing.run_id} told {stream} something, as {sender}")

    async def judge(self, store: MemoryStore) -> None:
        """At the end: what was there is there, as it was."""
        for run_id, digests in self.known.items():
            stream = f"run:{run_id}"
            there = {item.version: item.digest async for item in store.kept(stream)}
            there |= {item.version: item.digest async for item in store.read(stream)}
            for version, digest in digests.items():
                self.checks["whatever was repaired keeps its history"] += 1
                if there.get(version) != digest:
                    OUTSIDE.broke("footprints", f"version {version} of {run_id} is another one than it was: {there}")
