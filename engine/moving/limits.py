"""The limits of files that runs and stores travel in, by name and with their units."""

from __future__ import annotations

from typing import Final

__all__ = ["EXPORT_TRIES", "LINE_BYTES_MAX"]

LINE_BYTES_MAX: Final = 48 << 20
"""Bytes of one line, uncompressed: the largest payload there can be, as text or in base64, and its header."""
EXPORT_TRIES: Final = 5
"""How often runs are written anew that have started child runs meanwhile, before it is said that they do."""
