"""A power cut as a kernel does it: ``python -m tests.power.mounted --cuts N [--seed S] [--json] [--keep FOLDER]``.

The workload runs on an ext4 file system in a file, mounted by loop. At a moment by chance the file system is shut down under
it (`EXT4_IOC_SHUTDOWN`): what the kernel has not written by then is gone, in memory and on the disk, and every call that
follows fails. The file system is unmounted and mounted again, which replays its journal, and what is left of the store is
held against what was acknowledged, as images are. Of every second cut the store goes on to be cut again.

Three ways to order data, and shutdowns that write the journal first and that do not. It needs root, loop devices, mkfs.ext4,
mount and umount; it says what is missing and exits with 2. It mounts nothing but its own file, and unmounts it at the end.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.power.journal import Journal, replay
from tests.power.rounds import STORE, check
from tests.power.trace import ROOT

TOOLS = ("mkfs.ext4", "mount", "umount")
DISK_BYTES = 96 << 20
EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
WAYS = {"journal not written": 2, "journal written": 1}
ORDERS = ("ordered", "writeback", "journal")
SECONDS_MAX = 60
COMMITS = 60
"""Of each committer in each phase: it is seldom done before it is cut."""
LIFE_SECONDS = (0.0, 0.6)
"""Of a workload until it is cut, from its first mark."""


class NotPossible(Exception):
    """Something is missing here; what."""


@dataclass
class Outcome:
    """What was done, and what was wrong."""

    cuts: int = 0
    ends: Counter[str] = field(default_factory=Counter)  # what was cut: whether the workload lived to its end
    ways: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    lost: int = 0  # commits that were asked, not answered, and are not there
    faults: list[str] = field(default_factory=list)


class Disk:
    """The file system in a file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "disk"
        self.place = folder / "mounted"
        self.place.mkdir()

    def make(self) -> None:
        """A new one."""
        with self._file.open("wb") as file:
            file.truncate(DISK_BYTES)
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self._file)

    def mount(self, order: str) -> None:
        _run("mount", "-o", f"loop,data={order},noatime", self._file, self.place)

    def unmount(self) -> None:
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            try:
                _run("umount", self.place)
            except NotPossible:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)  # a process that was killed has it open for a moment yet
            else:
                return

    def shut_down(self, how: int) -> None:
        """Nothing reaches the disk from here on."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", how))
        except OSError as error:
            raise NotPossible(f"this kernel's ext4 cannot be shut down: {error}") from error
        finally:
            os.close(descriptor)

    def sync(self) -> None:
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _run(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=SECONDS_MAX)
    if done.returncode:
        raise NotPossible(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


def check_possible() -> None:
    """Raises `NotPossible`."""
    if os.geteuid() != 0:
        raise NotPossible("only root may mount a file system; python -m tests.power needs no root")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise NotPossible(f"{', '.join(missing)} is not installed (apt-get install e2fsprogs mount)")


def cut(disk: Disk, arguments: list[object], marks: Path, dice: random.Random, outcome: Outcome) -> None:
    """Let the workload live on the mounted disk for a while, and shut the disk down under it."""
    process = subprocess.Popen(
        [sys.executable, "-B", "-m", "tests.power.workload", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(marks, process)
        lives_until = time.monotonic() + dice.uniform(*LIFE_SECONDS)
        while process.poll() is None and (left := lives_until - time.monotonic()) > 0:
            with suppress(subprocess.TimeoutExpired):
                process.wait(min(left, dice.uniform(0.01, 0.1)))
            if dice.random() < 0.3:
                disk.sync()  # what is written back by itself comes too seldom
        way = dice.choice(list(WAYS))
        outcome.ends["at its end" if process.poll() is not None else "at work"] += 1
        outcome.ways[way] += 1
        disk.shut_down(WAYS[way])
    finally:
        process.kill()
        process.wait()
    outcome.cuts += 1


def _wait_for(marks: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not marks.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


def read_marks(path: Path) -> list[dict[str, Any]]:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def left_on(disk: Disk) -> dict[str, bytes]:
    """The store's files, without those that an opening makes anew."""
    files = [disk.place / "work" / f"{STORE}{end}" for end in ("", "-wal", "-journal")]
    return {file.name: file.read_bytes() for file in files if file.exists()}


def life(disk: Disk, scratch: Path, dice: random.Random, outcome: Outcome, keep: Path, canary: str) -> None:
    """A new store, cut, and now and then cut again while it is recovered and goes on."""
    order = dice.choice(ORDERS)
    disk.mount(order)
    shutil.rmtree(disk.place / "work", ignore_errors=True)
    (disk.place / "work").mkdir()
    disk.sync()
    known: list[dict[str, Any]] = []
    seed = dice.randrange(1_000)
    for recover in (False, True):
        marks = scratch / f"marks-{outcome.cuts}"
        arguments: list[object] = [marks, disk.place / "work" / STORE, "--seed", seed, "--canary", canary]
        arguments += ["--commits", COMMITS, *(["--recover"] if recover else [])]
        cut(disk, arguments, marks, dice, outcome)
        known += read_marks(marks)
        disk.unmount()
        disk.mount(order)
        image, journal = left_on(disk), replay(seed, known)
        outcome.acknowledged += journal.answered
        faults = check(scratch / "image", image, journal, through_store=outcome.cuts % 2 == 0)
        if faults:
            outcome.faults.append(f"cut {outcome.cuts}, data={order}: {'; '.join(faults[:3])}")
            _save(keep / f"cut-{outcome.cuts}", image, journal, faults)
        if faults or not journal.opened or dice.random() < 0.5:
            break
    disk.unmount()


def _save(place: Path, image: dict[str, bytes], journal: Journal, faults: list[str]) -> None:
    (place / "image").mkdir(parents=True, exist_ok=True)
    for name, text in image.items():
        (place / "image" / name).write_bytes(text)
    known = {"seed": journal.seed, "what": "mounted", "faults": faults, "marks": journal.marks}
    (place / "journal.json").write_text(json.dumps(known), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.power.mounted", description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "holdfast-power")
    parser.add_argument("--canary", default="", help="off or normal: it must be found")
    options = parser.parse_args()
    outcome, began = Outcome(), time.monotonic()
    dice = random.Random(options.seed)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="power-mounted-", dir=memory if memory.is_dir() else None) as scratch:
        disk = Disk(Path(scratch))
        try:
            check_possible()
            disk.make()
            while outcome.cuts < options.cuts and not outcome.faults:
                life(disk, Path(scratch), dice, outcome, options.keep, options.canary)
        except NotPossible as missing:
            print(f"not possible here: {missing}", file=sys.stderr)
            return 2
        finally:
            if os.path.ismount(disk.place):
                disk.unmount()
    show(outcome, time.monotonic() - began, options)
    return int(bool(outcome.faults))


def show(outcome: Outcome, seconds: float, options: argparse.Namespace) -> None:
    known = {name: getattr(outcome, name) for name in outcome.__dataclass_fields__}
    if options.json:
        print(json.dumps({"seed": options.seed, "seconds": round(seconds, 1), **known}))
        return
    print(f"{outcome.cuts} cuts of a mounted ext4 in {seconds:.0f} s: {dict(outcome.ways)}, {dict(outcome.ends)}")
    print(f"answers that were held against what was left: {outcome.acknowledged:,}")
    for fault in outcome.faults:
        print(f"WRONG: {fault}; saved below {options.keep}: python -m tests.power --check FOLDER")
    print(f"wrong: {len(outcome.faults)}")


if __name__ == "__main__":
    sys.exit(main())
