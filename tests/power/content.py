"""What stands in each event and message of the workload: a function of their names, so that a check needs no copy."""

from __future__ import annotations

import json
import random
from functools import lru_cache

LARGE_BYTES = (60_000, 120_000)


def header(stream: str, version: int) -> bytes:
    return json.dumps({"type": "noted", "stream": stream, "n": version}).encode()


@lru_cache(maxsize=8_192)
def payload(seed: int, stream: str, version: int) -> bytes | None:
    """None, a little JSON, some pages, or now and then what fills many pages; text and bytes."""
    dice = random.Random(f"{seed}/{stream}/{version}")
    chance = dice.random()
    if chance < 0.25:
        return None
    if chance < 0.78:
        return json.dumps({"of": stream, "n": version, "fill": "x" * dice.randrange(300)}).encode()
    sizes = (1_500, 6_000) if chance < 0.95 else (8_000, 20_000) if chance < 0.988 else LARGE_BYTES
    size = dice.randrange(*sizes)
    piece = dice.randbytes(211)  # of its own, and no part of a sector: so that a recording can be kept small
    return piece * (size // 211 + 1) if dice.random() < 0.5 else piece.hex().encode() * (size // 422 + 1)


@lru_cache(maxsize=8_192)
def mail(seed: int, stream: str, message: str) -> bytes:
    dice = random.Random(f"{seed}/{stream}/{message}")
    return json.dumps({"to": stream, "id": message, "fill": "y" * dice.randrange(900)}).encode()
