"""How assets and environments are called, and what that makes the names of streams and tasks.

An asset key is segments joined by slashes: ``orders``, ``raw/orders``. Segments have neither dots nor colons, so that a
task can be named after an asset, which has no slashes in its name.
"""

from __future__ import annotations

import re
from typing import Final

from engine.errors import AssetDefinitionError, AssetError

__all__ = [
    "ASSET",
    "ASSET_CATEGORY",
    "ENVIRONMENT",
    "ENVIRONMENT_CATEGORY",
    "KEY_CHARACTERS_MAX",
    "PRODUCTION",
    "asset_stream",
    "check_environment",
    "check_key",
    "environment_stream",
    "key_of",
    "task_name",
]

ASSET_CATEGORY: Final = "asset"
ENVIRONMENT_CATEGORY: Final = "environment"
ASSET: Final = "asset"
ENVIRONMENT: Final = "environment"
"""Attributes of an asset's stream, to find it by."""
PRODUCTION: Final = "prod"
"""The environment that is meant when none is named; the others branch off it."""
KEY_CHARACTERS_MAX: Final = 200
ENVIRONMENT_CHARACTERS_MAX: Final = 40

_KEY: Final = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
_ENVIRONMENT: Final = re.compile(r"[A-Za-z0-9_-]+")


def check_key(key: object, where: str) -> str:
    """The key. Raises `AssetDefinitionError`, naming `where`, for what cannot be one."""
    if isinstance(key, str) and len(key) <= KEY_CHARACTERS_MAX and _KEY.fullmatch(key):
        return key
    raise AssetDefinitionError(
        f"{where}: {key!r} cannot be an asset's key: letters, digits, '_' and '-', in segments joined by '/', as in"
        f" 'raw/orders', at most {KEY_CHARACTERS_MAX} characters"
    )


def check_environment(name: object) -> str:
    """The name of an environment. Raises `AssetError` for what cannot be one."""
    if isinstance(name, str) and len(name) <= ENVIRONMENT_CHARACTERS_MAX and _ENVIRONMENT.fullmatch(name):
        return name
    raise AssetError(
        f"{name!r} cannot name an environment: letters, digits, '_' and '-', at most {ENVIRONMENT_CHARACTERS_MAX}"
    )


def asset_stream(environment: str, key: str) -> str:
    """The stream of an asset in an environment."""
    return f"{ASSET_CATEGORY}:{environment}/{key}"


def environment_stream(name: str) -> str:
    """The stream of an environment."""
    return f"{ENVIRONMENT_CATEGORY}:{name}"


def key_of(stream: str) -> tuple[str, str]:
    """The environment and the key of an asset's stream."""
    environment, _, key = stream.removeprefix(f"{ASSET_CATEGORY}:").partition("/")
    return environment, key


def task_name(key: str) -> str:
    """What the task is called that makes this asset."""
    return f"asset:{key.replace('/', '.')}"
