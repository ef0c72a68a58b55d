"""What plain asyncio lacks, inside a workflow: the run's own time, randomness and identity, the same at every replay.

Import the module: ``from engine import durable``; then ``durable.now()``. Outside a workflow every function raises
`HoldfastError`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from engine.core.lineage import derived_random
from engine.core.loop import DeterministicLoop
from engine.errors import HoldfastError

__all__ = ["now", "random", "run_id", "uuid4"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> datetime:
    """The time of the last fact that the run was told (UTC, aware): it stands still until something happens."""
    return _EPOCH + timedelta(microseconds=_loop("now").now)


def random() -> Random:
    """The current branch's own generator of random numbers, seeded by the run; not for secrets."""
    return _random("random")


def uuid4() -> UUID:
    """A random UUID (version 4) of the current branch's own sequence."""
    return UUID(int=_random("uuid4").getrandbits(128), version=4)


def run_id() -> str:
    """The id of the run that is executing this workflow."""
    host: Any = _loop("run_id").host
    return str(host.run_id)


def _random(asked_for: str) -> Random:
    loop = _loop(asked_for)
    branch = loop.current_branch()
    if branch.random is None:
        host: Any = loop.host
        branch.random = derived_random(host.seed, branch.id)
    return branch.random


def _loop(name: str) -> DeterministicLoop:
    loop = asyncio._get_running_loop()
    if not isinstance(loop, DeterministicLoop):
        raise HoldfastError(f"durable.{name}() works only inside a workflow; elsewhere use the standard library")
    loop.check_alive()
    return loop
