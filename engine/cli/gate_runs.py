"""Who replays runs for `holdfast gate`: this process, or a few others beside it.

Replaying is work for a processor, and workflow code holds the interpreter's lock, so more of it at once means more
processes. Each is a fresh interpreter that loads the target itself and reads the store itself. One that dies of a run
is replaced, and the runs that it had are replayed one by one: so the one that kills it is found, and named.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Struct

from engine import Diagnosis, Gate, RunSummary, Verdict, Workflow
from engine.cli.problems import Exit, Problem
from engine.cli.targets import Target
from engine.errors import RunNotFound

__all__ = ["FEW_RUNS", "Answer", "Hands", "check", "workflows_of"]

BATCH_RUNS: Final = 16
"""Runs that a process is given at once."""
FEW_RUNS: Final = 500
"""So many are replayed here: starting other processes would take longer."""
LINE_BYTES: Final = 64 << 20
"""Of an answer; a diagnosis of a large turn names all of its decisions."""


class Answer(Struct, frozen=True):
    """What was found of one batch. `teachers`: runs that have shown a workflow to the process that it did not know."""

    verdicts: tuple[Verdict, ...]
    teachers: tuple[str, ...] = ()


_answers: Final = msgspec.json.Decoder(Answer)


def workflows_of(target: Target) -> Sequence[Workflow[..., Any]]:
    """The workflow that the target names, or else all that its module holds."""
    named = target.text != target.source
    name = target.only().name if named else ""
    return [each for each in target.workflows if not named or each.name == name]


async def check(gate: Gate, run_id: str) -> Verdict | None:
    """Replay one run; None for one that is no longer there."""
    with suppress(RunNotFound):
        return await gate.check(run_id)
    return None


class Hands:
    """Other processes that replay runs of the target, as many as `processes`; each begins when there is work for it."""

    def __init__(self, target: str, url: str, processes: int) -> None:
        self._words = (target, url)
        self._processes = processes
        self.teachers: list[str] = []  # runs that have shown a workflow which is not in the target's module

    async def check(self, runs: AsyncIterator[RunSummary]) -> AsyncIterator[Verdict]:
        """The verdicts, as they are found: in bounded memory, however many runs there are."""
        orders: asyncio.Queue[list[RunSummary] | None] = asyncio.Queue(self._processes)
        answers: asyncio.Queue[Verdict | None] = asyncio.Queue(BATCH_RUNS * self._processes)

        async def feed() -> None:
            batch: list[RunSummary] = []
            async for run in runs:
                batch.append(run)
                if len(batch) >= BATCH_RUNS:
                    await orders.put(batch)
                    batch = []
            await orders.put(batch)
            for _ in range(self._processes):
                await orders.put(None)

        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(feed())
                for _ in range(self._processes):
                    group.create_task(_Hand(self._words, self.teachers).work(orders, answers))
            await answers.put(None)

        working = asyncio.create_task(work())
        try:
            while True:
                found = asyncio.ensure_future(answers.get())
                await asyncio.wait([found, working], return_when=asyncio.FIRST_COMPLETED)
                if not found.done():  # it failed
                    found.cancel()
                    working.result()
                verdict = await found
                if verdict is None:
                    return
                yield verdict
        finally:
            working.cancel()
            await asyncio.wait([working])


class _Hand:
    """One place where a process works; a new one, when that has died."""

    def __init__(self, words: Sequence[str], teachers: list[str]) -> None:
        self._words = words
        self._teachers = teachers
        self._process: asyncio.subprocess.Process | None = None

    async def work(
        self, orders: asyncio.Queue[list[RunSummary] | None], answers: asyncio.Queue[Verdict | None]
    ) -> None:
        try:
            while (batch := await orders.get()) is not None:
                for verdict in await self._answer(batch):
                    await answers.put(verdict)
        finally:
            await self._end()

    async def _answer(self, batch: list[RunSummary]) -> Sequence[Verdict]:
        if not batch:
            return ()
        answer = await self._ask(batch)
        if answer is not None:
            return answer.verdicts
        found: list[Verdict] = []
        for run in batch:
            one = await self._ask([run])
            found += [_deadly(run)] if one is None else one.verdicts
        return found

    async def _ask(self, batch: list[RunSummary]) -> Answer | None:
        """What the process answers; None when it dies of it."""
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "engine.cli.gate_child",
                *self._words,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_BYTES,
                start_new_session=True,  # Ctrl-C is for us to answer; it ends when its standard input does
            )
            await self._exchange([])  # that it comes up at all is not for a run to blame
            if self._process is None:
                raise Problem(
                    "a process that was to replay runs has ended before it began: see what it wrote above",
                    code=Exit.FAILED,
                    hint="--processes 1 replays everything here.",
                )
        return await self._exchange([run.id for run in batch])

    async def _exchange(self, run_ids: list[str]) -> Answer | None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(msgspec.json.encode(run_ids) + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        if line.endswith(b"\n"):
            answer = _answers.decode(line)
            self._teachers += answer.teachers
            return answer
        await self._end()
        return None

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()  # it has nothing to put away: it only reads
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def _deadly(run: RunSummary) -> Verdict:
    return Verdict(
        run=run.id,
        workflow=run.workflow,
        status=run.status,
        version=run.version,
        workflow_version=run.workflow_version,
        diagnosis=Diagnosis(
            reason="crashes",
            message="the process that replayed it died",
            version=run.version,
            advice="A worker that has this run would die, too: look at what it wrote above, and mend that first.",
        ),
    )
