"""What depends on what, by name: order, closures, cycles. Pure, and linear in the number of edges."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

__all__ = ["Graph"]


class Graph:
    """A graph of names. `upstream` names of each what it is made from, in a fixed order; all of them must be in it."""

    def __init__(self, upstream: Mapping[str, Iterable[str]]) -> None:
        self.upstream: dict[str, tuple[str, ...]] = {
            name: tuple(dict.fromkeys(others)) for name, others in upstream.items()
        }
        downstream: dict[str, list[str]] = {name: [] for name in self.upstream}
        for name, others in self.upstream.items():
            for other in others:
                downstream[other].append(name)
        self.downstream = {name: tuple(others) for name, others in downstream.items()}

    @cached_property
    def cycle(self) -> tuple[str, ...]:
        """A path that ends where it began, each name made from the one before it; () if there is none."""
        if len(self.order) == len(self.upstream):
            return ()
        try:
            TopologicalSorter(self.upstream).prepare()
        except CycleError as error:
            return tuple(error.args[1])
        raise AssertionError("an order that lacks names has a cycle")

    @cached_property
    def order(self) -> tuple[str, ...]:
        """All names, each behind what it is made from, and otherwise as early, and in the order, that they were given.

        What is on a cycle, or made from what is, is left out.
        """
        lacks = {name: len(others) for name, others in self.upstream.items()}
        order = [name for name, count in lacks.items() if not count]
        for name in order:  # which grows while it is gone through
            for other in self.downstream[name]:
                lacks[other] -= 1
                if not lacks[other]:
                    order.append(other)
        return tuple(order)

    def above(self, names: Iterable[str], *, steps: int | None = None) -> set[str]:
        """These names and what they are made from, `steps` deep, or all of it."""
        return _reached(self.upstream, names, steps)

    def below(self, names: Iterable[str], *, steps: int | None = None) -> set[str]:
        """These names and what is made from them, likewise."""
        return _reached(self.downstream, names, steps)


def _reached(edges: Mapping[str, tuple[str, ...]], names: Iterable[str], steps: int | None) -> set[str]:
    depth = dict.fromkeys(names, 0)
    waiting = deque(depth)
    while waiting:
        name = waiting.popleft()
        if steps is not None and depth[name] >= steps:
            continue
        for other in edges[name]:
            if other not in depth:
                depth[other] = depth[name] + 1
                waiting.append(other)
    return set(depth)
