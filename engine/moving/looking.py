"""What is moved, looked at item by item: the same of a file that is written, of which none may come that would not be
taken in, and of one that is read.

It deliberately does not know where the items come from, nor where they go.
"""

from __future__ import annotations

from typing import Final

from engine.moving.families import stream_of
from engine.moving.objects import Named
from engine.moving.pruned import Remains
from eventstore.arrivals import Arrivals
from eventstore.moving import Item, StoredStream

__all__ = ["Looked"]


class Looked:
    """Told of the items in their order, it counts them and knows which objects they name."""

    def __init__(self) -> None:
        self.arrivals: Final = Arrivals()
        self.named: Final = Named()
        self.unfinished = 0  # runs that have not ended
        self._remains: Final = Remains()

    def take(self, item: Item) -> None:
        """The next item. Raises `NotInstallable`."""
        self.arrivals.take(item)  # first: the others rely on numbers that it has looked at
        self._remains.check(item)
        self.named.look(item)
        if isinstance(item, StoredStream):
            self.unfinished += item.stream.startswith(stream_of("")) and not item.closed

    def finish(self) -> None:
        """There are no more. Raises `NotInstallable`."""
        self.arrivals.finish()
