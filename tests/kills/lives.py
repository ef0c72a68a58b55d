"""One trial: processes work on two runs of one file; they are killed, stopped and failed; then all must be as if not.

What must hold: the results, and what the tasks left outside, are right; no task ran again whose completion was on record;
every history replays, and every digest is right; who was stopped past its lease changed nothing when it went on; a
process whose disk fails ends by itself, with an error of ours, and does not hang.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final, get_args

from msgspec import Struct, field

from engine.audit import verify
from engine.core.events import TaskCompleted, decode_header
from engine.core.lineage import idempotency_key
from eventstore import EventStoreError
from eventstore.sqlite import SqliteStore, WritesOn
from tests.architecture.source import ROOT
from tests.crash.pipeline import pipeline
from tests.kills.points import Hit, count, tracing
from tests.runtime.invariants import check_history

__all__ = ["Broken", "Outcome", "count_calls", "trial"]

RUNS: Final = ("a", "b")
PATIENCE_SECONDS: Final = 120.0
LIVES_MAX: Final = 4
"""That are ended early in one trial."""
OURS: Final = ("StoreUnavailable", "StoreDamaged", "StoreFull", "EngineFailed", "LeaseLost", "OSError", "RunSuspended")
"""One of these is the last word of a process whose disk failed."""


class Broken(AssertionError):
    """What must hold does not."""


class Outcome(Struct):
    """What a trial came to."""

    seed: int
    kills: int = 0
    failures: int = 0
    stops: int = 0
    reached: Counter[str] = field(default_factory=Counter)
    checks: int = 0
    broken: str = ""


class _Trial:
    def __init__(self, folder: Path, chance: Random, calls: Counter[tuple[str, str]], outcome: Outcome) -> None:
        self.database = folder / "runs.db"
        self.outside = folder / "outside"
        self.outside.mkdir()
        self._out = folder / "strace"
        self._chance = chance
        self._calls = calls
        self._outcome = outcome
        self._done: dict[str, int] = {}  # effects of tasks whose completion is on record, by key
        self._lives = 0

    # -- processes --------------------------------------------------------------------------------------------------------

    def begin(self, before: list[str], *, ttl: float = 10.0) -> subprocess.Popen[str]:
        self._lives += 1
        command = [sys.executable, "-m", "tests.crash.pipeline", str(self.database), "--runs", *RUNS, "--ttl", str(ttl)]
        command += ["--writes-on", self._chance.choice(get_args(WritesOn))]
        return subprocess.Popen(
            [*before, *command],
            cwd=ROOT,
            env={**os.environ, "PIPELINE_OUTSIDE": str(self.outside)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # strace and what it traces end together
        )

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        try:
            out, err = process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise Broken(f"it hangs\n{out}\n{err[-4000:]}") from None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whom strace left behind
        return process.returncode, out, err

    def ended_well(self, ended: tuple[int, str, str]) -> None:
        code, out, err = ended
        if code != 0 or json.loads(out.splitlines()[-1]) != [10] * len(RUNS) or "Traceback" in err:
            raise Broken(f"exit {code}\n{out}\n{err[-4000:]}")
        self._outcome.checks += 1

    # -- how lives end ----------------------------------------------------------------------------------------------------

    def at_a_point(self) -> None:
        """Killed, or failed, at a system call; or it was not reached, and all is done."""
        hit = Hit.chosen(self._chance, self._calls)
        beside = self.begin([]) if self._chance.random() < 0.25 else None
        code, out, err = self.end(self.begin(hit.command(self.database, self._out)))
        if hit.reached(self._out, code):
            self._outcome.reached[hit.point.name] += 1
            if hit.point.error:
                self._outcome.failures += 1
                self._says_why(code, err)
            else:
                self._outcome.kills += 1
        else:
            self.ended_well((code, out, err))
        if beside is not None:
            self.ended_well(self.end(beside))

    def _says_why(self, code: int, err: str) -> None:
        if code == 0:
            return  # what failed was not needed: a checkpoint, say
        last = err.strip().splitlines()[-1] if err.strip() else ""
        if not any(name in err for name in OURS):
            raise Broken(f"exit {code}, and its last word is {last!r}\n{err[-4000:]}")
        self._outcome.checks += 1

    def at_random(self) -> None:
        """Killed from outside, whatever it is doing."""
        process = self.begin([])
        _doze(self._chance.uniform(0.05, 1.0))
        process.kill()
        code, out, err = self.end(process)
        if code == -signal.SIGKILL:
            self._outcome.kills += 1
            self._outcome.reached["kill at random"] += 1
        else:
            self.ended_well((code, out, err))

    def stopped(self) -> None:
        """Stopped past its lease; another takes over and ends all; it goes on, and changes nothing.

        Stopped amid a write it keeps all others from writing, who are told so, and then go on when it has.
        """
        process = self.begin([], ttl=0.6)
        _doze(self._chance.uniform(0.2, 0.9))
        process.send_signal(signal.SIGSTOP)
        try:
            ended = self.end(self.begin([], ttl=0.6))
            amid_a_write = "another process has held" in ended[2]
            if not amid_a_write:
                self.ended_well(ended)
            before = self.effects()
        finally:
            process.send_signal(signal.SIGCONT)
        self.ended_well(self.end(process))
        if self.effects() != before and not amid_a_write:
            raise Broken("who was stopped past its lease began something when it went on")
        self._outcome.stops += 1
        self._outcome.reached["stopped past its lease"] += 1
        self._outcome.checks += 1

    # -- what must hold ---------------------------------------------------------------------------------------------------

    def effects(self) -> Counter[str]:
        path = self.outside / "effects"
        return Counter(line.split(" ")[0] for line in path.read_text().splitlines()) if path.exists() else Counter()

    async def nothing_ran_again(self) -> None:
        """Of what was on record after the life before; and take in what is on record now."""
        counts = self.effects()
        for key, times in self._done.items():
            if counts[key] != times:
                raise Broken("a task ran again whose completion was recorded")
        self._outcome.checks += len(self._done)
        for key in await self._completed():
            if not counts[key]:
                raise Broken("a completion is on record of a task that never ran")
            self._done[key] = counts[key]

    async def _completed(self) -> list[str]:
        if not self.database.exists():
            return []
        store = await SqliteStore.open(self.database)
        found = []
        try:
            for run_id in RUNS:
                with suppress(LookupError):
                    async for item in store.read(f"run:{run_id}"):
                        event = decode_header(item.header)
                        if isinstance(event, TaskCompleted):
                            found.append(idempotency_key(run_id, 0, event.id))
        finally:
            await store.aclose()
        return found

    async def all_is_well(self) -> None:
        if json.loads((self.outside / "table").read_text()) != [1, 2, 3, 4]:
            raise Broken("what was loaded is not what was extracted")
        store = await SqliteStore.open(self.database)
        try:
            for run_id in RUNS:
                await check_history(store, run_id, pipeline)
            verdict = await verify(store)
            if not verdict.holds:
                raise Broken(f"the log does not verify: {verdict.findings}")
            self._outcome.checks += len(RUNS) + verdict.events
        finally:
            await store.aclose()

    async def go(self) -> None:
        for _ in range(self._chance.randint(1, LIVES_MAX)):
            what: Any = self._chance.choices((self.at_a_point, self.at_random, self.stopped), (12, 3, 1))[0]
            await asyncio.to_thread(what)
            await self.nothing_ran_again()
        self.ended_well(await asyncio.to_thread(lambda: self.end(self.begin([]))))
        await self.nothing_ran_again()
        await self.all_is_well()


def _doze(seconds: float) -> None:
    """The moment of a kill that comes from outside is what is tried: there is no condition to wait for."""
    time.sleep(seconds)


def count_calls(folder: Path) -> Counter[tuple[str, str]]:
    """How often a life makes each call."""
    outcome = Outcome(0)
    trial_ = _Trial(folder, Random(0), Counter(), outcome)
    out = folder / "trace"
    trial_.ended_well(trial_.end(trial_.begin(tracing(out))))
    return count(out, trial_.database)


def trial(seed: int, calls: Counter[tuple[str, str]]) -> Outcome:
    """The trial of a seed, in a folder of its own."""
    outcome = Outcome(seed)
    try:
        with TemporaryDirectory(prefix="kills-") as folder:
            asyncio.run(_Trial(Path(folder), Random(seed), calls, outcome).go())
    except (AssertionError, EventStoreError, OSError, ValueError) as error:
        outcome.broken = f"{type(error).__name__}: {error}"
    return outcome
