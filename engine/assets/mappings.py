"""From the partitions of one asset to those of another that it is made from, and back.

A mapping answers for whole sets at once: `upstream`, which partitions some are made from, and `downstream`, which are made
from some. What it answers is always a part of a set that is handed in, the partitions that there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from engine.assets.key_sets import KeySet


class Mapping(ABC):
    """How the partitions of a downstream asset are made from those of an upstream one."""

    @abstractmethod
    def upstream(self, keys: KeySet, there: KeySet) -> KeySet:
        """Those of `there`, partitions of the upstream asset, that `keys` of the downstream one are made from."""

    @abstractmethod
    def downstream(self, keys: KeySet, there: KeySet) -> KeySet:
        """Those of `there`, partitions of the downstream asset, that are made from `keys` of the upstream one."""


class SameKey(Mapping):
    """Each from the one with the same key; one that has no such counterpart is made from none."""

    def upstream(self, keys: KeySet, there: KeySet) -> KeySet:
        return keys & there if keys.partitions == there.partitions else there.read(keys).keys

    def downstream(self, keys: KeySet, there: KeySet) -> KeySet:
        return self.upstream(keys, there)

    def __repr__(self) -> str:
        return "SameKey()"
