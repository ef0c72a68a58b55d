"""The async generators that a workflow has begun: who closes those that it leaves, and when."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from threading import get_ident
from typing import Any
from weakref import WeakValueDictionary

__all__ = ["GeneratorKeeper"]


class GeneratorKeeper:
    """The part of a loop that knows its async generators. Nothing is made for the many runs that begin none."""

    _generators: WeakValueDictionary[int, AsyncGenerator[Any, Any]] | None = None
    _generator_serial = 0

    def generator_begins(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Remember an async generator, by weak reference."""
        if self._generators is None:
            self._generators = WeakValueDictionary()
        self._generator_serial += 1
        self._generators[self._generator_serial] = generator

    def generator_dies(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Close a generator that nobody holds any more, soon; what it awaits is refused.

        That happens within a turn, when its last reference goes. When the garbage collector finds it (never within a
        turn) the moment is no part of the history, and the thread may be any: then none of its code runs.
        """
        loop: Any = self
        if loop.thread == get_ident():
            loop.call_soon(loop.close_silently, generator)

    def live_generators(self) -> list[AsyncGenerator[Any, Any]]:
        """The async generators that were begun and not finished, oldest first; forgets them."""
        found, self._generators = self._generators, None
        return [] if found is None else list(found.values())

    async def shutdown_asyncgens(self) -> None:
        """asyncio's name for: close them all."""
        for generator in self.live_generators():
            await generator.aclose()
