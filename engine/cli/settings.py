"""What a project says of itself in `pyproject.toml`, for the commands about assets.

::

    [tool.holdfast]
    definitions = "shop.assets:definitions"
    store = "sqlite:///shop.db"
    storage = "values"

The nearest file with that table counts, in the working folder or above it; what is relative in it is so to its folder.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from engine.cli.problems import Problem
from engine.cli.stores import anchored

__all__ = ["Settings", "read_settings"]

_FILE: Final = "pyproject.toml"
_KNOWN: Final = ("definitions", "storage", "store")


class Settings(Struct, frozen=True, kw_only=True):
    """The table as it stands; "" for what it does not say. `file`: where it stands, "" if nowhere."""

    file: str = ""
    definitions: str = ""
    storage: str = ""
    store: str = ""

    @property
    def folder(self) -> Path:
        """What is relative is so to this."""
        return Path(self.file).parent

    @property
    def store_url(self) -> str:
        """The store, found from any folder, as is the storage in its options; "" if none is named."""
        return anchored(self.store, self.folder)

    @property
    def storage_url(self) -> str:
        """The storage, likewise."""
        return self.storage if not self.storage or "://" in self.storage else str(self.folder / self.storage)


def read_settings(start: Path) -> Settings:
    """The settings that count in a folder. Raises `Problem` for a table that cannot be meant."""
    for folder in (start, *start.parents):
        file = folder / _FILE
        if not file.is_file():
            continue
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("holdfast")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Problem(f"{file} is not valid TOML: {error}") from error
        if table is not None:
            return _checked(file, table)
    return Settings()


def _checked(file: Path, table: Any) -> Settings:
    if not isinstance(table, dict):
        raise Problem(f"{file}: tool.holdfast is a table, [tool.holdfast], with {', '.join(_KNOWN)}")
    for name, value in table.items():
        if name not in _KNOWN:
            close = difflib.get_close_matches(name, _KNOWN, n=1)
            meant = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(_KNOWN)}"
            raise Problem(f"{file}: [tool.holdfast] has no setting {name!r}{meant}")
        if not isinstance(value, str) or not value:
            raise Problem(f"{file}: {name} in [tool.holdfast] is a string, not {value!r}")
    return Settings(file=str(file), **table)
