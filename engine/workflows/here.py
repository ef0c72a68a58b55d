"""The run that the calling code belongs to."""

from __future__ import annotations

from typing import cast

from engine.core.instance import Instance
from engine.core.loop import DeterministicLoop
from engine.core.nesting import here
from engine.errors import HoldfastError

__all__ = ["instance_here", "loop_here"]


def loop_here(name: str) -> DeterministicLoop:
    """The loop of the workflow that calls. Raises `HoldfastError` outside of one, `Evicted` once it is put away."""
    loop = here.loop
    if loop is None:
        raise HoldfastError(f"{name}() works only inside a workflow")
    loop.check_alive()
    return cast("DeterministicLoop", loop)


def instance_here(name: str) -> Instance:
    """The instance of the workflow that calls; raises as `loop_here` does."""
    return cast("Instance", loop_here(name).host)
