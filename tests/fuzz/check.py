"""Whether a target holds on an input: only documented errors, within a bounded time."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.targets import TARGETS

__all__ = ["SECONDS_MAX", "kept", "problem"]

SECONDS_MAX = 10.0
"""Of one input, on a slow machine that others use too."""
CORPUS = Path(__file__).parent / "corpus"


def problem(name: str, data: bytes) -> str | None:
    """What is wrong with how a target takes an input; None: nothing is."""
    target = TARGETS[name]
    begun = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.run(data)
    except target.errors as error:
        if not str(error):
            return f"{name}: {type(error).__name__} without a word"
    except Exception as error:
        return f"{name}: {type(error).__name__}: {str(error)[:200]}"
    took = time.monotonic() - begun
    return f"{name}: took {took:.1f} s" if took > SECONDS_MAX else None


def kept(name: str) -> Iterator[tuple[str, bytes]]:
    """The inputs that are kept of a target, each once a crasher: file name and bytes."""
    for path in sorted((CORPUS / name).glob("*")):
        yield path.name, path.read_bytes()
