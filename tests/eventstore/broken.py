"""What planted bugs are made of."""

from __future__ import annotations

from typing import Any

from eventstore.memory import MemoryStore
from eventstore.rules import Streams


class Broken(MemoryStore):
    """A memory store whose rules can be replaced."""

    rules: type[Streams] = Streams

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._streams.__class__ = self.rules
        self._streams._pools._looked_after = self._streams._looked_after  # bound when the class was another still
