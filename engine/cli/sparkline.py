"""Numbers as a line of little bars, for a history in a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = ["sparkline"]

_BARS: Final = "▁▂▃▄▅▆▇█"
_GAP: Final = " "


def sparkline(values: Sequence[float | None]) -> str:
    """One bar for each, from the least to the most; all of one height when they are all the same, a gap for None."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    least, span = min(known), max(known) - min(known)
    middle = _BARS[len(_BARS) // 2 - 1]
    return "".join(
        _GAP if value is None else middle if not span else _BARS[round((value - least) / span * (len(_BARS) - 1))]
        for value in values
    )
