"""Which Python a run is written under: part of what its history begins with."""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["PYTHON"]

PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The minor version of this interpreter, ``3.11``."""
