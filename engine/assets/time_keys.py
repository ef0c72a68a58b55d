"""How keys of time partitions are written and read: ISO form by itself, or a format of `strftime`.

Names of months and days are not written: they depend on the machine. It knows no zones.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from engine.errors import DefinitionError

DIRECTIVES: Final = "YmdHMSjGVu"
"""What may stand behind a `%` in a format, beside a second `%`."""

_OFFSET: Final = re.compile(r"(.+)([+-])(\d\d):(\d\d)(?::(\d\d))?", re.ASCII | re.DOTALL)


class TimeFormat:
    """Keys of one definition, from what a clock shows at the beginning of a partition."""

    def __init__(self, iso: str, given: str | None) -> None:
        """`iso` is the format when none is given. A `DefinitionError` names what a given one may not hold."""
        self.is_iso = given is None
        self._format = iso if given is None else given
        for found in re.finditer("%(.?)", self._format, re.DOTALL):
            if not found[1] or found[1] not in f"{DIRECTIVES}%":
                raise DefinitionError(
                    f"format={given!r}: {found[0]!r} is not for keys; those are %{' %'.join(DIRECTIVES)}, "
                    "which say the same on every machine and in every century"
                )
        self.tells_years: Final = "%Y" in self._format or "%G" in self._format
        # A week of the ISO calendar is read as its Monday.
        self._week = "%V" in self._format and "%u" not in self._format

    def write(self, label: datetime) -> str:
        """The key of what begins then."""
        return label.strftime(self._format)

    def read(self, key: str) -> datetime:
        """What `write` wrote it for, naive. A ValueError when it has not that form."""
        if self._week:
            return datetime.strptime(f"{key} 1", f"{self._format} %u")  # noqa: DTZ007 - what a wall clock shows
        return datetime.strptime(key, self._format)  # noqa: DTZ007 - as above


def offset_text(seconds: int) -> str:
    """An offset from UTC: `+02:00`, `-03:30`, `+05:41:16`."""
    minutes, left = divmod(abs(seconds), 60)
    text = f"{'-' if seconds < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"
    return f"{text}:{left:02}" if left else text


def split_offset(key: str) -> tuple[str, int | None]:
    """A key without the offset at its end, and that offset in seconds; None when there is none."""
    found = _OFFSET.fullmatch(key)
    if not found:
        return key, None
    seconds = int(found[3]) * 3600 + int(found[4]) * 60 + int(found[5] or 0)
    return found[1], -seconds if found[2] == "-" else seconds
