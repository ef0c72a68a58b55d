"""Other people's packages, when they are needed: one that is not there is an error that says what to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from engine.errors import StorageRefused

__all__ = ["needing"]

_EXTRA: Final = frozenset({"fsspec", "pyarrow"})


@contextmanager
def needing(what: str) -> Iterator[None]:
    """Around imports. Raises `StorageRefused`: ``tables need the package pyarrow: pip install "holdfast[assets]"``."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        install = '"holdfast[assets]"' if name in _EXTRA else name
        raise StorageRefused(f"{what} the package {name}: pip install {install}") from error
