"""What makes names last: a file that was made, renamed or taken away is so after a power cut once its folder is synced.

It knows nothing of what lies in the folder, and turns no error of the file system into one of ours.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["OPEN_FOLDER", "make_folder", "sync_folder"]

OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def sync_folder(folder: Path) -> None:
    """What was done to the names in a folder is on disk. Blocks. Raises `OSError`."""
    descriptor = os.open(folder, OPEN_FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Have a folder, for its user alone, and those above it, there for good. Blocks. Raises `OSError`."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)
