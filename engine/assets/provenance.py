"""Identities: what a version was made from, as one digest. Equal provenance is what makes a computation unnecessary.

It counts by content: an upstream asset that was made again and came out the same is the same input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec

from engine.assets.values import Config
from engine.errors import AssetError

__all__ = ["DIGEST_CHARACTERS", "config_digest", "inputs_digest", "keys_digest", "provenance_of"]

DIGEST_CHARACTERS: Final = 32
"""Hex digits of the digests here: 128 bits."""

_encode: Final = msgspec.json.Encoder(order="deterministic").encode


def inputs_digest(versions: Iterable[tuple[str, str]]) -> str:
    """Of the (partition, data version) that were read of one upstream asset, in the order of its partitions."""
    return _digest(list(versions))


def keys_digest(keys: Iterable[str]) -> str:
    """Of partition keys, in their order."""
    return _digest(list(keys))


def config_digest(config: Config | None, where: str) -> str:
    """Of what a function's configuration is; "" for none. A `Secret` counts by its name.

    Raises `AssetError`, naming `where`, for what is no JSON.
    """
    if config is None:
        return ""
    try:
        return _digest(config)
    except (TypeError, ValueError, OverflowError) as error:
        raise AssetError(f"{where}: its configuration cannot be written as JSON: {error}") from None


def provenance_of(node: str, partition: str, *, code_version: str, config: str, inputs: Mapping[str, str]) -> str:
    """Of a version of a partition. `inputs`: the digest of what was read, by upstream key."""
    return _digest([node, partition, code_version, config, sorted(inputs.items())])


def _digest(value: Any) -> str:
    return sha256(_encode(value)).hexdigest()[:DIGEST_CHARACTERS]
