"""An asset, one of its partitions, one of its versions, as a text: ``orders``, ``flights[2013-01]``, ``orders@17``."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from engine.errors import AssetError

__all__ = ["AssetRef", "parse_reference", "reference_text"]

_FORM: Final = re.compile(
    r"(?P<key>[^\[\]@]+)(?:@(?P<before>\d+))?(?:\[(?P<partition>.*)\])?(?:@(?P<behind>\d+))?", re.DOTALL
)


class AssetRef(Struct, frozen=True, kw_only=True):
    """What a text names. `partition` "" and `version` None: none is named."""

    key: str
    partition: str = ""
    version: int | None = None


def parse_reference(text: str) -> AssetRef:
    """Read ``KEY``, ``KEY[PARTITION]``, ``KEY@VERSION`` or ``KEY[PARTITION]@VERSION``. Raises `AssetError`."""
    found = _FORM.fullmatch(text)
    if found is None or (found["before"] and found["behind"]):
        raise AssetError(f"{text!r} names no asset: write KEY, KEY[PARTITION], KEY@VERSION or KEY[PARTITION]@VERSION")
    version = found["before"] or found["behind"]
    return AssetRef(
        key=found["key"], partition=found["partition"] or "", version=None if version is None else int(version)
    )


def reference_text(key: str, partition: str = "", version: int | None = None) -> str:
    """The text that names it."""
    named = f"{key}[{partition}]" if partition else key
    return named if version is None else f"{named}@{version}"
