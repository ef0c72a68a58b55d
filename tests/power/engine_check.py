"""An engine on what a power cut has left: a round whose workload is `engine_work`, and whose images are lived on.

Of each image: the store is whole; what was seen of a run before the cut is on record (who had begun, what was given out);
every large value that a history names is there, byte for byte; then an engine is opened on it, and every run ends with the
result that it would have had, without beginning a task again whose completion is on record.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from engine import Engine
from engine.storage import Storage
from tests.power import engine_work
from tests.power.check import examine_digests
from tests.power.journal import Journal
from tests.power.rounds import STORE, FullRound, NormalRound, Report, Round, put, run_round
from tests.power.trace import Op

SECONDS_MAX = 60
ENGINE_SHARE = 0.03
"""Of a round's images, those on which an engine lives."""
LEVELS = (NormalRound, Round, Round, Round, Round, FullRound, Round, Round, Round, Round)
"""The levels of `synchronous` of ten rounds, by the last digit of the seed."""


class EngineRound(Round):
    """See the module."""

    of: ClassVar[str] = "engine"

    def workload(self, marks: Path, store: Path) -> tuple[str, list[object]]:
        """The module that is recorded, and its arguments."""
        return "tests.power.engine_work", [marks, store, "--seed", self.seed, "--canary", self.canary]

    def run(self, images: int) -> Report:
        """Record, and make about so many images: an engine on each is a recovery, so none is cut again."""
        self.recoveries = 0
        self.cut(self.record(), images, random.Random(f"{self.seed}/engine"))
        return self.report

    def moment(self, journal: Journal, op: Op, names: dict[int, str]) -> str:
        """What was being done."""
        return "an engine at work" if journal.deeds else "an engine beginning"

    def judge(self, folder: Path, image: dict[str, bytes], journal: Journal) -> list[str]:
        """What is wrong with an image."""
        self.report.checked["Engine"] += 1
        return live_on(folder, image, journal)


def live_on(folder: Path, image: dict[str, bytes], journal: Journal) -> list[str]:
    """Put an image there, look at it, open an engine on it, and name what is wrong."""
    put(folder, image)
    try:
        found = Found(folder / STORE) if any("started" in deed for deed in journal.deeds) else None
        faults = [] if found is None else [*found.faults(journal), *found.missing(folder / "values")]
        return faults or asyncio.run(_resume(folder, journal, found))
    except Exception as error:  # whatever an image does to the engine is a finding
        return [f"{type(error).__name__}: {error}"]
    finally:
        shutil.rmtree(folder)


class Found:
    """What the histories in an image say."""

    def __init__(self, path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            rows = connection.execute(
                "SELECT s.name, e.header, e.payload FROM events AS e JOIN streams AS s ON s.id = e.stream ORDER BY position"
            ).fetchall()
            self._wrong = list(examine_digests(connection))
        self.started: set[str] = set()
        self.begun: set[tuple[str, str, int]] = set()
        self.completed: set[tuple[str, str]] = set()
        self.ended: set[str] = set()
        self.payloads = [payload for *_, payload in rows if payload is not None]
        for stream, text, _ in rows:
            header, run = json.loads(text), stream.partition(":")[2]
            match header["type"]:
                case "RunStarted":
                    self.started.add(run)
                case "TaskStarted":
                    self.begun.add((run, header["id"], header["attempt"]))
                case "TaskCompleted":
                    self.completed.add((run, header["id"]))
                case "RunCompleted":
                    self.ended.add(run)

    def faults(self, journal: Journal) -> list[str]:
        """What was seen before the cut, and is not on record."""
        wrong = list(self._wrong)
        for deed in journal.deeds:
            if "started" in deed and f"day-{deed['started']}" not in self.started:
                wrong.append(f"run {deed['started']} was started, and is not there")
            if "began" in deed and tuple(deed["began"]) not in self.begun:
                wrong.append(f"{deed['began']} had begun, and there is no record of it")
            if "result" in deed and f"day-{deed['result']}" not in self.ended:
                wrong.append(f"the result of run {deed['result']} was given out, and is not there")
        return wrong

    def missing(self, values: Path) -> list[str]:
        """Objects that payloads name, and that are not there, or not whole."""
        wrong = []
        for payload in self.payloads:
            text = payload.decode() if isinstance(payload, bytes) else payload
            if not text.startswith(" "):
                continue
            key = json.loads(text)["stored"]["key"]
            object_ = values / key
            content = object_.read_bytes() if object_.exists() else b""
            if sha256(content).hexdigest() != Path(key).stem:
                wrong.append(f"{key} is named, and of it {len(content)} bytes are there, or others")
        return wrong


async def _resume(folder: Path, journal: Journal, found: Found | None) -> list[str]:
    """An engine as after a restart: every run that is there ends as it should; then another one is started."""
    again: Counter[tuple[str, str]] = Counter()
    engine_work.World.on_begin = staticmethod(lambda run, task, _: again.update([(run, task)]))
    wrong = []
    storage = Storage(folder / "values")
    async with (
        asyncio.timeout(SECONDS_MAX),
        Engine(
            f"sqlite:///{folder / STORE}", workflows=[engine_work.day], storage=storage, threads=1, grace=0
        ) as engine,
    ):
        there = sorted(found.started) if found is not None else []
        for run in there:
            result = await engine.run(run).result()
            if result != engine_work.expected(int(run.partition("-")[2])):
                wrong.append(f"{run} ended with {result!r}")
        new = await engine.start(engine_work.day(1), id="day-1")
        if await new.result() != engine_work.expected(1):
            wrong.append("a new run ended otherwise")
    if found is not None:
        wrong += [f"{each} began again, and its completion was on record" for each in again if each in found.completed]
    return wrong


def run_all(seed: int, images: int, keep: Path) -> tuple[Report, float]:
    """A round of everything: a store, an engine on a few images, and now and then a store that is opened otherwise."""
    of: type[Round] = LEVELS[seed % len(LEVELS)]
    engines = round(images * ENGINE_SHARE)
    report, seconds = run_round(seed, images - engines, keep, of=of)
    if engines and not report.faults:
        more, longer = run_round(seed, engines, keep, of=EngineRound)
        report += more
        seconds += longer
    return report, seconds
