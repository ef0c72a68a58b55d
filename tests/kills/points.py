"""Where a process is killed, or a system call of its failed: by the call, and by which of the store's files it is on.

Each is hit by strace as the call is entered. How often a life makes each call is counted once, by a life that nothing
happens to, so that every one of them can be chosen.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from random import Random
from typing import Final

from msgspec import Struct

__all__ = ["POINTS", "Hit", "Point", "count", "tracing"]

LEASES_MAX: Final = 60
"""Lives of one file: each has a lease of its own, whose file has its number."""
_FILES: Final = {
    "database": ("",),
    "wal": ("-wal",),
    "shm": ("-shm",),
    "journal": ("-journal",),
    "guard": ("-guard",),
    "leases": ("-leases",),
    "lease": tuple(f"-leases/{number}" for number in range(1, LEASES_MAX)),
}
_KILLED: Final = (
    *(("pwrite64", file) for file in ("database", "wal", "shm", "journal", "lease")),
    *(("fdatasync", file) for file in ("database", "wal", "journal")),
    *(("ftruncate", file) for file in ("database", "wal", "shm")),
    *(("unlink", file) for file in ("wal", "shm", "journal", "lease")),
    *(("openat", file) for file in ("database", "wal", "shm", "journal", "guard", "lease")),
    ("mkdir", "leases"),
)
_FAILED: Final = (
    *(("pwrite64", file, error) for file in ("database", "wal", "journal") for error in ("EIO", "ENOSPC")),
    *(("fdatasync", file, "EIO") for file in ("database", "wal", "journal")),
    *(("openat", file, "EIO") for file in ("wal", "journal", "lease")),
    ("ftruncate", "database", "EIO"),
    ("pwrite64", "lease", "ENOSPC"),
    ("mkdir", "leases", "ENOSPC"),
)


class Point(Struct, frozen=True):
    """A system call on a file of the store; `error`: what it fails with, from then on, instead of the process dying."""

    call: str
    file: str
    error: str = ""

    @property
    def name(self) -> str:
        return f"{self.error or 'kill'} at {self.call} of the {self.file}"


POINTS: Final = (*(Point(*each) for each in _KILLED), *(Point(*each) for each in _FAILED))


class Hit(Struct, frozen=True):
    """A point, and at which of its calls."""

    point: Point
    number: int

    @classmethod
    def chosen(cls, chance: Random, calls: Counter[tuple[str, str]], points: tuple[Point, ...] = POINTS) -> Hit:
        """Each point as likely, and each of its calls."""
        point = chance.choice(points)
        return cls(point, chance.randint(1, max(1, calls[point.call, point.file])))

    def command(self, database: Path, out: Path) -> list[str]:
        """What goes before the command of a process."""
        paths = [word for suffix in _FILES[self.point.file] for word in ("-P", f"{database}{suffix}")]
        # A disk that fails goes on to fail: SQLite tries some calls twice.
        what = (
            f"error={self.point.error}:when={self.number}+" if self.point.error else f"signal=KILL:when={self.number}"
        )
        call = self.point.call
        return ["strace", "-f", "-qq", "-o", str(out), *paths, "-e", f"trace={call}", "-e", f"inject={call}:{what}"]

    def reached(self, out: Path, returncode: int) -> bool:
        """Whether it came to that."""
        return "(INJECTED)" in out.read_text(errors="replace") if self.point.error else returncode in (-9, 137)


def tracing(out: Path) -> list[str]:
    """What goes before the command of a life whose calls are to be counted."""
    calls = ",".join(sorted({point.call for point in POINTS}))
    return ["strace", "-f", "-qq", "-y", "-o", str(out), "-e", f"trace={calls}"]


def count(out: Path, database: Path) -> Counter[tuple[str, str]]:
    """How often each call was made, by call and file."""
    found: Counter[tuple[str, str]] = Counter()
    files = {f"{database}{suffix}": file for file, suffixes in _FILES.items() for suffix in suffixes}
    for line in out.read_text(errors="replace").splitlines():
        call = re.match(r"\d+ +(\w+)\(", line)
        for path in re.findall(r'[<"]([^<>"]+)[>"]', line)[:2]:
            if call and path in files:
                found[call[1], files[path]] += 1
                break
    return found
