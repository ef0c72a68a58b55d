"""What of a folder is on the disk for sure, and what may be: from that, the images that a power cut could leave.

Of each file that was synced is certain; what was done to it since the last sync that covers it may have reached the disk
or not: each sector of each write by itself (512 or 4,096 bytes, the last one torn at any byte), each change of its size,
and each name in the folder. No order holds between them but that of syncs. A hole where an extension reached the disk and
its bytes did not is zeros, or in some images what another file once had there.

Nothing of this knows SQLite.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.power.trace import DirectorySync, Name, Op, Size, Sync, Write

SECTORS = (512, 4_096)
KINDS = (
    "as written", "in order", "sectors 512", "sectors 4096", "one lost", "one kept", "by file", "sizes", "stale", "names",
)  # fmt: skip
"""
as written: everything that was written, names too, but the sector that was under way is torn: a process that is killed, and more
in order: a beginning of what is uncertain, of all files together, the last sector torn
sectors: each sector is there or not, by a chance that is drawn for the image
one lost, one kept: one sector missing, or alone there
by file: a file has all that was written to it, or nothing
sizes: sectors, and the file ends where it ended at another moment
stale: sectors, and holes are not zeros
names: sectors, and names that are not synced are there or not
"""


@dataclass(slots=True)
class File:
    """The certain content, and what has happened since."""

    certain: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, Write | Size]] = field(default_factory=list)  # with its number among all
    covered: int = 0  # of its changes, those that are certain

    def sync(self, covers: int) -> None:
        """Make certain what had happened when the sync began."""
        count = max(covers - self.covered, 0)
        for _, change in self.pending[:count]:
            apply(self.certain, change)
        del self.pending[:count]
        self.covered += count


@dataclass(frozen=True, slots=True)
class Cut:
    """What an image is drawn by."""

    kind: str
    sector: int
    chance: float


class Disk:
    """The files of some folders while a recording is gone through."""

    def __init__(
        self, names: dict[tuple[str, str], int] | None = None, contents: dict[int, bytes] | None = None
    ) -> None:
        self.files: dict[int, File] = {number: File(bytearray(text)) for number, text in (contents or {}).items()}
        self._certain: dict[tuple[str, str], int | None] = dict(names or {})
        self._pending: list[tuple[int, Name]] = []
        self._covered: dict[str, int] = {}
        self._folders: dict[str, int] = {}  # those that were made, by their path
        self._number = 0

    def take(self, op: Op) -> None:
        """One more thing happens."""
        self._number += 1
        match op:
            case Write(file=file) | Size(file=file):
                self.files[file].pending.append((self._number, op))
            case Sync(file=file, covers=covers):
                self.files[file].sync(covers)
            case Name():
                if op.file is not None:
                    self.files.setdefault(op.file, File())
                    if op.is_folder:
                        self._folders[_below(op.folder, op.name)] = op.file
                self._pending.append((self._number, op))
            case DirectorySync(folder=folder, covers=covers):
                self._sync_names(folder, covers)

    def _sync_names(self, folder: str, covers: int) -> None:
        count = max(covers - self._covered.get(folder, 0), 0)
        mine = [each for each in self._pending if each[1].folder == folder][:count]
        for _, name in mine:
            self._certain[folder, name.name] = name.file
        self._pending = [each for each in self._pending if each not in mine]
        self._covered[folder] = self._covered.get(folder, 0) + len(mine)

    def uncertain(self, folder: str = "") -> int:
        """How many changes of a folder's files and names may be on the disk or not."""
        files = {file for place, file in self._places(folder) if file is not None}
        return sum(len(self.files[file].pending) for file in files) + len(self._names(folder))

    def _names(self, folder: str) -> list[tuple[int, Name]]:
        return [each for each in self._pending if _is_in(each[1].folder, folder)]

    def _places(self, folder: str) -> Iterator[tuple[str, int | None]]:
        for (at, name), file in self._certain.items():
            if _is_in(at, folder):
                yield name, file
        for _, change in self._names(folder):
            yield change.name, change.file

    def image(self, cut: Cut, dice: random.Random, folder: str = "") -> dict[str, bytes]:
        """A folder as the disk may have it: content by name."""
        limit = self._number + 1
        pending = [number for number, _ in self._names(folder)]
        files = {file for _, file in self._places(folder) if file is not None}
        pending += [number for file in files for number, _ in self.files[file].pending]
        if cut.kind == "in order" and pending:
            limit = dice.choice(pending)
        names = {place: file for place, file in self._certain.items() if _is_in(place[0], folder)}
        lost = cut.kind == "names" and dice.random() < 0.3
        for number, change in self._names(folder):
            if number > limit or lost or (cut.kind == "names" and dice.random() < 0.5):
                continue
            names[change.folder, change.name] = change.file
        there = {place: file for place, file in names.items() if file is not None and self._is_reached(place, names)}
        the_one = dice.choice(pending) if pending and cut.kind in ("one lost", "one kept") else -1
        contents = {
            file: self._content(self.files[file], cut, dice, limit, the_one)
            for file in sorted(set(there.values()) - set(self._folders.values()))
        }
        start = len(folder) + 1 if folder else 0
        return {_below(*place)[start:]: contents[file] for place, file in there.items() if file in contents}

    def _is_reached(self, place: tuple[str, str], names: dict[tuple[str, str], int | None]) -> bool:
        """Whether every folder above, that was made since, is there."""
        above = place[0]
        while above:
            folder, _, name = above.rpartition("/")
            if above in self._folders and names.get((folder, name)) != self._folders[above]:
                return False
            above = folder
        return True

    def _content(self, file: File, cut: Cut, dice: random.Random, limit: int, the_one: int) -> bytes:
        content = bytearray(file.certain)
        if not file.pending:
            return bytes(content)
        last = file.pending[-1][0]
        keep_all = cut.kind == "by file" and dice.random() < 0.5
        stale = dice if cut.kind == "stale" else None
        for number, change in file.pending:
            match cut.kind:
                case "as written":
                    kept: Iterable[Write | Size] = torn(change, cut, dice) if number == last else (change,)
                case "in order":
                    kept = (change,) if number < limit else torn(change, cut, dice) if number == limit else ()
                case "one lost":
                    kept = one_less(change, cut, dice) if number == the_one else (change,)
                case "one kept":
                    kept = dice.choices(list(sectors(change, cut.sector))) if number == the_one else ()
                case "by file":
                    kept = (change,) if keep_all else ()
                case _:
                    kept = some(change, cut, dice)
            for each in kept:
                apply(content, each, stale)
        if cut.kind == "sizes":
            resize(content, dice.choice(sizes(file)), stale)
        return bytes(content)


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_in(folder: str, above: str) -> bool:
    return not above or folder == above or folder.startswith(above + "/")


def apply(content: bytearray, change: Write | Size, stale: random.Random | None = None) -> None:
    """Do to a content what was done to a file."""
    if isinstance(change, Size):
        resize(content, change.size, stale)
        return
    if len(content) < change.offset:
        resize(content, change.offset, stale)
    content[change.offset : change.offset + len(change.data)] = change.data


def resize(content: bytearray, size: int, stale: random.Random | None = None) -> None:
    """Cut or extend; what is new is zeros, or, of `stale`, anything."""
    missing = size - len(content)
    if missing < 0:
        del content[size:]
    elif missing > 0:
        content += stale.randbytes(missing) if stale is not None else bytes(missing)


def sectors(change: Write | Size, sector: int) -> Iterator[Write | Size]:
    """A write by the sectors that it touches."""
    if isinstance(change, Size):
        yield change
        return
    start, end = change.offset, change.offset + len(change.data)
    while start < end:
        stop = min(end, (start // sector + 1) * sector)
        yield Write(change.file, start, change.data[start - change.offset : stop - change.offset])
        start = stop


def some(change: Write | Size, cut: Cut, dice: random.Random) -> Iterator[Write | Size]:
    for each in sectors(change, cut.sector):
        if dice.random() < cut.chance:
            yield each


def one_less(change: Write | Size, cut: Cut, dice: random.Random) -> list[Write | Size]:
    parts = list(sectors(change, cut.sector))
    del parts[dice.randrange(len(parts))]
    return parts


def torn(change: Write | Size, cut: Cut, dice: random.Random) -> list[Write | Size]:
    """A beginning of a write: whole sectors, and of the next one some bytes."""
    parts = list(sectors(change, cut.sector))
    index = dice.randrange(len(parts))
    part = parts[index]
    if isinstance(part, Size):
        return parts if dice.random() < 0.5 else []
    return [*parts[:index], Write(part.file, part.offset, part.data[: dice.randrange(len(part.data) + 1)])]


def sizes(file: File) -> list[int]:
    """Where the file may end: where it did for sure, and after each change since."""
    found = [len(file.certain)]
    for _, change in file.pending:
        if isinstance(change, Size):
            found.append(change.size)
        else:
            found.append(max(found[-1], change.offset + len(change.data)))
    return found


def draw(dice: random.Random, kinds: tuple[str, ...] = KINDS) -> Cut:
    kind = dice.choice(kinds)
    sector = int(kind.rpartition(" ")[2]) if kind.startswith("sectors") else dice.choice(SECTORS)
    return Cut(kind, sector, dice.choice((0.03, 0.2, 0.5, 0.8, 0.97)))
