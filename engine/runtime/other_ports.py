"""A store around another one, as far as it hands on what stands beside the port: `Keeping` and `MovingStore`.

Both are of what is stored, and say nothing of what is made of it on the way.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Sequence

from eventstore import Commit, EventStore, Keeping, KeptDigest, UnsupportedCapability, keeps
from eventstore.keeping import Leaf
from eventstore.moving import Installed, Item, moving_store

__all__ = ["OtherPorts"]


class OtherPorts:
    """See the module. A method raises `UnsupportedCapability` when the store inside does not have it."""

    def __init__(self, inner: EventStore) -> None:
        self.inner = inner

    async def forget(self, stream: str, *, versions: Collection[int] | None = None) -> int:
        """See `Keeping`. Large values stay in the storage until it is swept."""
        return await self._keeping().forget(stream, versions=versions)

    async def prune(self, stream: str, *, until: int) -> int:
        """See `Keeping`, likewise."""
        return await self._keeping().prune(stream, until=until)

    def leaves(self, *, after: int = 0) -> AsyncIterator[Leaf]:
        """See `Keeping`."""
        return self._keeping().leaves(after=after)

    def kept(self, stream: str, *, after: int = 0) -> AsyncIterator[KeptDigest]:
        """See `Keeping`."""
        return self._keeping().kept(stream, after=after)

    def dump(self, streams: Sequence[str] | None = None) -> AsyncGenerator[Item, None]:
        """See `MovingStore`. Large values are moved with their storage."""
        return moving_store(self.inner).dump(streams)

    async def install(self, items: Iterable[Item], *, behind: Commit | None = None) -> Installed:
        """See `MovingStore`."""
        return await moving_store(self.inner).install(items, behind=behind)

    def _keeping(self) -> Keeping:
        if not keeps(self.inner):
            raise UnsupportedCapability(f"{type(self.inner).__name__} does not have the capability 'keeping'")
        return self.inner
