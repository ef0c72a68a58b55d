"""Who of one run needs permits, and where each of them stands: lined up here, in the store's queue, or with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import Struct, field

from engine.runtime.permits import Line
from engine.runtime.queues import FairQueue

__all__ = ["WAITING_MAX", "Lines", "Queue"]

WAITING_MAX: Final = 100
"""Tasks of one run that stand in the store's queue of one limit."""


class Queue(Struct, eq=False):
    """Who waits for one limit: in the store's queue, and behind that here."""

    waiting: dict[str, Line] = field(default_factory=dict)  # by holder, in order
    lined_up: FairQueue[Line] = field(default_factory=FairQueue)  # and some who have left it since
    behind: int = 0  # how many are lined up
    contended: bool = False  # others took what was given back here, when that was last tried

    @property
    def may_join(self) -> bool:
        """Whether somebody who is lined up may join the store's queue."""
        return self.behind > 0 and self.room > 0

    @property
    def room(self) -> int:
        """How many more may join the store's queue."""
        return WAITING_MAX - len(self.waiting)

    def next(self) -> Line | None:
        """Who is the next to join it; who has left the line-up since is passed over."""
        while self.lined_up:
            line = self.lined_up.pop()
            if line.state == "lined up":
                self.behind -= 1
                line.state = "called"
                return line
        return None


class Lines:
    """See the module. Each goes by the name under which it holds slots (`permits.slot_holder`)."""

    def __init__(self) -> None:
        self.by_holder: dict[str, Line] = {}  # of most runs empty, and asked of at each step
        self.queues: dict[str, Queue] = {}  # by limit

    def __len__(self) -> int:
        return len(self.by_holder)

    def __iter__(self) -> Iterator[Line]:
        return iter(list(self.by_holder.values()))

    @property
    def rest(self) -> bool:
        """Whether all of them stand in the store's queues, and hold nothing meanwhile."""
        return all(line.rests for line in self.by_holder.values())

    def get(self, holder: str) -> Line | None:
        """Who goes by that name, or one of whose attempts does."""
        return self.by_holder.get(holder) or self.by_holder.get(holder.rpartition("@")[0])

    def add(self, line: Line) -> None:
        """A task needs permits."""
        self.by_holder[line.holder] = line

    def queue_of(self, limit: str) -> Queue:
        """Who waits for a limit."""
        queue = self.queues.get(limit)
        if queue is None:
            queue = self.queues[limit] = Queue()
        return queue

    def line_up(self, line: Line, at: int) -> None:
        """It waits for that one of its needs, and does not stand in the store's queue yet."""
        self._leave(line)
        line.at, line.state, line.granted = at, "lined up", False
        queue = self.queue_of(line.limit)
        queue.behind += 1
        queue.lined_up.push(line, priority=line.priority, key=line.key)

    def join(self, line: Line, at: int) -> None:
        """It waits for that one of its needs, in the store's queue."""
        self._leave(line)
        line.at, line.state, line.granted, line.has_queued = at, "waiting", False, True
        self.queue_of(line.limit).waiting[line.holder] = line

    def call(self, line: Line) -> None:
        """There may be room for it."""
        self._leave(line)
        line.state = "called"

    def start(self, line: Line) -> None:
        """Its attempt begins, with its permits."""
        self._leave(line)
        line.state = "started"

    def drop(self, line: Line) -> None:
        """It needs none any more."""
        self.start(line)  # whoever comes upon it in a line-up passes it over
        self.by_holder.pop(line.holder, None)

    def _leave(self, line: Line) -> None:
        if line.state == "waiting":
            self.queue_of(line.limit).waiting.pop(line.holder, None)
        elif line.state == "lined up":
            self.queue_of(line.limit).behind -= 1
