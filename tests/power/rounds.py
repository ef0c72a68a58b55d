"""A round: record one workload, cut it in many places, check every image; open some under the recorder and cut those, too.

Cuts are drawn from a seed. The recording is not: threads interleave as they like. So an image that fails is saved with what
must be in it, and `python -m tests.power --check FOLDER` opens it again.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

from eventstore import NEW, Commit, NewEvent, StreamQuery
from eventstore.sqlite import SqliteStore
from tests.power import canaries
from tests.power.check import examine, go_on
from tests.power.disk import KINDS, Disk, draw
from tests.power.journal import Journal, replay
from tests.power.trace import Mark, Op, Recorded, Recording, Size, Write, record

STORE = "store.db"
EVERY_THROUGH_STORE = 4
"""One image in so many is opened and written by `SqliteStore` before it is read."""
EVERY_WHOLE = 8
"""One in so many is asked for its `integrity_check`; the others for `quick_check` behind a write."""
RECOVERY_SHARE = 0.3
"""Of a round's images, those of cuts while a store was recovered and went on."""
RARE = ("creating", "opening", "closing")
"""Moments of which many are recovered, for they are short."""
TRIES = 12
"""Draws in one place, before it is given up that another image differs from those before."""


@dataclass
class Report:
    """What was done, and what was wrong."""

    images: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)
    recordings: int = 0
    operations: int = 0
    acknowledged: int = 0  # answers that images were held against
    faults: list[str] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)

    def __iadd__(self, other: Report) -> Self:
        for name in ("images", "recordings", "operations", "acknowledged"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("kinds", "moments", "checked"):
            getattr(self, name).update(getattr(other, name))
        self.faults += other.faults
        self.saved += other.saved
        return self


@dataclass
class Round:
    """One recording, its images, and where they are built."""

    seed: int
    scratch: Path
    keep: Path  # failing images
    canary: str = ""
    faults_max: int = 3
    commits: int = 14
    recoveries: int = 12  # images that are opened under the recorder and cut again
    report: Report = field(default_factory=Report)
    of: ClassVar[str] = "store"
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def run(self, images: int) -> Report:
        """Record, and make about so many images, all of them different."""
        again = round(images * RECOVERY_SHARE)
        dice = random.Random(f"{self.seed}/cuts")
        chosen = self.cut(self.record(), images - again, dice)
        if again and len(self.report.faults) < self.faults_max:
            self._cut_recoveries(chosen, again, dice)
        return self.report

    def workload(self, marks: Path, store: Path) -> tuple[str, list[object]]:
        """The module that is recorded, and its arguments."""
        arguments = [marks, store, "--seed", self.seed, "--commits", self.commits, "--canary", self.canary]
        return "tests.power.workload", arguments

    def begin(self) -> Journal:
        """Of what is asked and answered, nothing yet."""
        return Journal(self.seed)

    def record(self) -> Recorded:
        """Run the workload, once. Raises `NoRecorder`."""
        folder = self.scratch / "run"
        folder.mkdir()
        record(*self.workload(self.scratch / "marks", folder / STORE), self.scratch / "trace")
        recording = Recording(folder, self.scratch / "marks")
        ops = list(recording.ops(self.scratch / "trace"))
        shutil.rmtree(folder)
        (self.scratch / "trace").unlink()
        return Recorded(self.seed, ops, recording.of_file)

    def cut(self, recorded: Recorded, images: int, dice: random.Random) -> list[tuple[dict[str, bytes], Journal]]:
        """Check images of a recording; a few are given back, to be recovered under the recorder."""
        ops = canaries.lies(self.canary, recorded.ops, recorded.names)
        self.report.recordings += 1
        self.report.operations += len(ops)
        disk, journal = Disk(), self.begin()
        places = Counter(_places(ops, images, dice))
        chosen: list[tuple[dict[str, bytes], Journal]] = []
        owed = 0
        for index, op in enumerate(ops):
            if isinstance(op, Mark):
                journal.take(op.what)
            else:
                disk.take(op)
            owed += places[index]
            if owed and disk.uncertain():
                moment = self.moment(journal, op, recorded.names)
                made = self._at(disk, journal, owed, dice, moment=moment, folder="")
                if (
                    self.recoveries
                    and made
                    and dice.random() < (0.5 if moment in RARE else 3 * self.recoveries * owed / images)
                ):
                    chosen.append((made, replay(self.seed, journal.marks, lenient=journal.lenient)))
                owed = 0
            if len(self.report.faults) >= self.faults_max:
                break
        dice.shuffle(chosen)
        return chosen[: self.recoveries]

    def _at(
        self, disk: Disk, journal: Journal, count: int, dice: random.Random, *, moment: str, folder: str
    ) -> dict[str, bytes]:
        """Images of one moment, which differ from each other and from those before; the last one made."""
        made: dict[str, bytes] = {}
        for _ in range(count):
            for _ in range(TRIES):
                cut = draw(dice)
                image = disk.image(cut, dice, folder)
                key = (len(journal.marks), _key(image))
                if key not in self._seen:
                    break
            else:
                return made
            self._seen.add(key)
            self.report.kinds[cut.kind] += 1
            self.report.moments[moment] += 1
            made = image
            self._check(image | left_over(dice), journal, f"seed {self.seed}, {moment}, {cut.kind}")
        return made

    def _check(self, image: dict[str, bytes], journal: Journal, what: str) -> None:
        report = self.report
        report.images += 1
        report.acknowledged += journal.answered
        faults = self.judge(self.scratch / "image", image, journal)
        if faults and len(report.faults) < self.faults_max:
            report.faults.append(
                f"{what}: {'; '.join(faults[:3])}" + (f" and {len(faults) - 3} more" if faults[3:] else "")
            )
            report.saved.append(str(self._save(image, journal, what, faults)))

    def moment(self, journal: Journal, op: Op, names: dict[int, str]) -> str:
        """What was being done."""
        if not journal.made:
            return "creating"
        if journal.under_way in ("open", "close"):
            return {"open": "opening", "close": "closing"}[journal.under_way]
        return "checkpoint" if isinstance(op, Write | Size) and names[op.file] == STORE else "working"

    def judge(self, folder: Path, image: dict[str, bytes], journal: Journal) -> list[str]:
        """What is wrong with an image."""
        number, checked = self.report.images, self.report.checked
        through_store = not journal.opened or number % EVERY_THROUGH_STORE == 0
        whole = number % EVERY_WHOLE == 0
        checked["SqliteStore" if through_store else "sqlite3"] += 1
        checked["integrity_check"] += whole
        return check(folder, image, journal, through_store=through_store, whole=whole)

    def _save(self, image: dict[str, bytes], journal: Journal, what: str, faults: list[str]) -> Path:
        self.keep.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=f"{self.seed}-", dir=self.keep))
        put(place / "image", image)
        known = {"seed": self.seed, "what": what, "faults": faults, "marks": journal.marks, "of": self.of}
        (place / "journal.json").write_text(json.dumps(known), encoding="utf-8")
        return place

    def _cut_recoveries(self, chosen: list[tuple[dict[str, bytes], Journal]], images: int, dice: random.Random) -> None:
        """Open these under the recorder, one after the other, and cut each of those lives in many places."""
        root = self.scratch / "again"
        names: dict[tuple[str, str], int] = {}
        contents: dict[int, bytes] = {}
        for number, (image, _) in enumerate(chosen):
            put(root / f"{number:03}", image)
            for name, text in image.items():
                file = names[f"{number:03}", name] = len(names) + 1
                contents[file] = text
        marks = self.scratch / "marks-again"
        stores = [root / f"{number:03}" / STORE for number in range(len(chosen))]
        arguments = [marks, *stores, "--recover", "--seed", self.seed, "--commits", 8, "--canary", self.canary]
        record("tests.power.workload", arguments, self.scratch / "trace")
        recording = Recording(root, marks, names=names)
        ops = list(recording.ops(self.scratch / "trace"))
        shutil.rmtree(root)
        self.report.recordings += 1
        self.report.operations += len(ops)
        disk = Disk(names, contents)
        places = Counter(_places(ops, images, dice))
        journals = {f"{number:03}": journal for number, (_, journal) in enumerate(chosen)}
        now, owed = "", 0
        for index, op in enumerate(canaries.lies(self.canary, ops, recording.of_file)):
            if isinstance(op, Mark):
                journals[op.what["at"]].take(op.what)
            else:
                disk.take(op)
                now = _folder(op, recording) or now
            owed += places[index]
            if owed and now and disk.uncertain(now):
                moment = "recovered and going on" if _opened(journals[now]) else "recovering"
                self._at(disk, journals[now], owed, dice, moment=moment, folder=now)
                owed = 0
            if len(self.report.faults) >= self.faults_max:
                return


def left_over(dice: random.Random) -> dict[str, bytes]:
    """Beside an image, now and then: what nobody syncs, as the index of the log and the files of leases, may be anything."""
    if dice.random() < 0.7:
        return {}
    lines = dice.choice((b"", dice.randbytes(82), b"0" * 82))
    return {
        f"{STORE}-shm": dice.randbytes(dice.choice((0, 3, 32_768))),
        f"{STORE}-leases/1": lines,
        f"{STORE}-guard": b"",
    }


class NormalRound(Round):
    """With `synchronous=NORMAL`: what was answered may be lost, as the option says, and nothing may be half."""

    of: ClassVar[str] = "normal"

    def __post_init__(self) -> None:
        self.canary = "normal"

    def begin(self) -> Journal:
        """Of what is asked and answered, nothing yet."""
        return Journal(self.seed, lenient=True)


class FullRound(Round):
    """With `synchronous=FULL`: as by default."""

    def __post_init__(self) -> None:
        self.canary = "full"


def check(
    folder: Path, image: dict[str, bytes], journal: Journal, *, through_store: bool, whole: bool = True
) -> list[str]:
    """Put an image there, open it, and name what is wrong with it."""
    put(folder, image)
    try:
        if through_store or not journal.opened:
            faults = asyncio.run(_through_store(folder / STORE, journal, whole=whole))
        else:
            faults = examine(folder / STORE, journal, whole=whole) or go_on(folder / STORE)
    except Exception as error:  # whatever an image does to the store is a finding
        faults = [f"{type(error).__name__}: {error}"]
    shutil.rmtree(folder)
    return faults


async def _through_store(path: Path, journal: Journal, *, whole: bool) -> list[str]:
    """Open it as a user does, hold it against the journal, commit, and read that back. `whole`: first only to read."""
    if whole and journal.opened:
        reader = await SqliteStore.open(path, read_only=True)
        try:
            for stream, digests in journal.heads.items():
                if (await reader.head(stream)).version < max(digests):
                    return [f"{stream}: opened only to read, less than version {max(digests)} is there"]
        finally:
            await reader.aclose()
    store = await SqliteStore.open(path)
    try:
        faults = examine(path, journal, whole=whole)
        if faults:
            return faults
        head = await store.commit(
            Commit(id="on", stream="on:1", expected_version=NEW, events=(NewEvent(b"{}", b"on"),))
        )
        ((read),) = [event async for event in store.read("on:1")]
        if (read.payload, read.digest) != (b"on", head.digest):
            return ["a commit behind the recovery is not read as it was answered"]
        for answered in journal.heads:
            await store.head(answered)
        await store.find(StreamQuery(limit=10))
    finally:
        await store.aclose()
    return go_on(path)


def load(place: Path) -> tuple[dict[str, bytes], Journal, str]:
    """An image that was saved, and what it is of."""
    known = json.loads((place / "journal.json").read_text(encoding="utf-8"))
    files = [file for file in (place / "image").rglob("*") if file.is_file()]
    image = {str(file.relative_to(place / "image")): file.read_bytes() for file in files}
    of = known.get("of", "store")
    return image, replay(known["seed"], known["marks"], lenient=of == NormalRound.of), of


def put(folder: Path, image: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, text in image.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)


def _key(image: dict[str, bytes]) -> int:
    key = 0
    for name in sorted(image):
        key = zlib.crc32(image[name], zlib.crc32(name.encode(), key))
    return key


def _places(ops: Sequence[Op], images: int, dice: random.Random) -> Iterator[int]:
    """Where to cut: most behind a write, for those are most of what happens; some while a store is opened or closed, for
    that is short; some anywhere.
    """
    writes = [index for index, op in enumerate(ops) if isinstance(op, Write)]
    alone = list(_alone(ops)) or writes
    for _ in range(images):
        chance = dice.random()
        yield dice.choice(writes if chance < 0.5 else alone) if chance < 0.65 else dice.randrange(len(ops))


def _alone(ops: Sequence[Op]) -> Iterator[int]:
    """Where a store is being opened or closed."""
    numbers: set[int] = set()
    for index, op in enumerate(ops):
        if isinstance(op, Mark):
            if op.what.get("kind") in ("open", "close"):
                numbers.add(op.what["do"])
            numbers.discard(op.what.get("done", 0))
        if numbers:
            yield index


def _folder(op: Op, recording: Recording) -> str | None:
    match op:
        case Mark():
            return None
        case _ if hasattr(op, "folder"):
            return op.folder
    return next((folder for (folder, _), file in recording.names.items() if file == op.file), None)


def _opened(journal: Journal) -> bool:
    return any("seen" in mark for mark in journal.marks)


def run_round(seed: int, images: int, keep: Path, canary: str = "", *, of: type[Round] = Round) -> tuple[Report, float]:
    """One round in a folder of its own in memory, and the seconds that it took."""
    began = time.monotonic()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="power-", dir=memory if memory.is_dir() else None) as scratch:
        report = of(seed, Path(scratch), keep, canary).run(images)
    return report, time.monotonic() - began


__all__ = ["KINDS", "Report", "Round", "check", "load", "run_round"]
