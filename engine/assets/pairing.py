"""Of each partition, which upstream partitions it is made from: what planning asks a hundred thousand times.

A mapping answers for sets. Asked for one partition at a time it would make a set for each; the mappings that are used
most are answered here without that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from engine.assets.key_sets import KeySet
from engine.assets.mappings import AllPartitions, LastPartition, Mapping, SameKey

__all__ = ["upstream_of_each"]


def upstream_of_each(mapping: Mapping, keys: KeySet, there: KeySet) -> Iterator[tuple[str, Collection[str]]]:
    """Each of `keys`, in order, with those of `there` that it is made from, in their order. Where all are made from the
    same it is the same object.
    """
    match mapping:
        case SameKey():
            known = set(there)
            for key in keys:
                yield key, (key,) if key in known else ()
        case AllPartitions() | LastPartition():
            same = tuple(mapping.upstream(keys[:1], there))
            for key in keys:
                yield key, same
        case _:
            for place, key in enumerate(keys):
                yield key, tuple(mapping.upstream(keys[place : place + 1], there))
