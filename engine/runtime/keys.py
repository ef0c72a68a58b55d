"""Keys that callers say, of singletons and of debounced calls, and what they are called in the store.

The key of a singleton is a pool with one slot, made when first asked for; that of a debounced call is a stream.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final, Literal

from engine.errors import HoldfastError
from eventstore import Permit
from eventstore.port import POOL_BYTES_MAX

__all__ = [
    "KEY_CHARACTERS_MAX",
    "SINGLETON_PREFIX",
    "check_key",
    "is_singleton",
    "key_permit",
    "keyed_name",
    "pool_of",
]

SINGLETON_PREFIX: Final = "singleton/"
"""What the names of these pools begin with, and those of no others."""
KEY_CHARACTERS_MAX: Final = 200
"""Characters of a key."""


def pool_of(workflow: str, key: str) -> str:
    """The pool that is this key of singletons."""
    return keyed_name(SINGLETON_PREFIX, workflow, key, bytes_max=POOL_BYTES_MAX)


def key_permit(pool: str, run_id: str, action: Literal["take", "wait"]) -> Permit:
    """What the commit asks by which a run is to have its key, or to queue for it: it is the run's until that ends."""
    return Permit(pool=pool, holder=run_id, action=action, lasting=True)


def is_singleton(pool: str) -> bool:
    """Whether a pool is a key of singletons."""
    return pool.startswith(SINGLETON_PREFIX)


def keyed_name(prefix: str, workflow: str, key: str, *, bytes_max: int) -> str:
    """What a workflow's key is called: something that people can read, unless it is too long."""
    name = f"{prefix}{workflow}/{key}"
    if len(name.encode()) <= bytes_max:  # no workflow's name has a slash, or #
        return name
    digest = sha256(f"{workflow}\x00{key}".encode()).hexdigest()
    return f"{prefix}#{digest}"


def check_key(key: object, *, what: str) -> str:
    """The key, if it can be one. Raises `HoldfastError` saying why not."""
    if not isinstance(key, str) or not key or len(key) > KEY_CHARACTERS_MAX or not key.isprintable():
        raise HoldfastError(f"{what}={key!r}: 1 to {KEY_CHARACTERS_MAX} printable characters")
    return key
