"""The keys of singletons, as pools of the store: one slot each, made when first asked for."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from eventstore.port import POOL_BYTES_MAX

__all__ = ["KEY_CHARACTERS_MAX", "SINGLETON_PREFIX", "is_singleton", "pool_of"]

SINGLETON_PREFIX: Final = "singleton/"
"""What the names of these pools begin with, and those of no others."""
KEY_CHARACTERS_MAX: Final = 200
"""Characters of a key."""


def pool_of(workflow: str, key: str) -> str:
    """The pool that is this key: a name that people can read, unless it is too long."""
    name = f"{SINGLETON_PREFIX}{workflow}/{key}"
    if len(name.encode()) <= POOL_BYTES_MAX:  # no workflow's name has a slash, or #
        return name
    digest = sha256(f"{workflow}\x00{key}".encode()).hexdigest()
    return f"{SINGLETON_PREFIX}#{digest}"


def is_singleton(pool: str) -> bool:
    """Whether a pool is a key of singletons."""
    return pool.startswith(SINGLETON_PREFIX)
