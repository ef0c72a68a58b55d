"""The client of a run: begins it, tells and asks it what the scenario says, and awaits its end.

Each thing is done again, also in another life, until it is acknowledged. What it hears is told to the books.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeAlias

from engine import Engine, Request, RunHandle
from engine.errors import (
    HistoryError,
    RunCancelledError,
    RunConflict,
    RunEnded,
    RunFailedError,
    RunPrunedError,
    RunSuspendedError,
    RunTerminatedError,
    SingletonHeld,
)
from tests.simulation.asking import ask
from tests.simulation.loops import Actor
from tests.simulation.mending import Mender
from tests.simulation.outside import OUTSIDE
from tests.simulation.programs import WORKFLOWS, asked, phase, report, served, sim, told
from tests.simulation.scenarios import Run

if TYPE_CHECKING:
    from tests.simulation.playing import Play

__all__ = ["Client"]

Doing: TypeAlias = Callable[[RunHandle[Any]], Coroutine[Any, Any, Any]]


class Client:
    """Of one run, through all of its lives."""

    def __init__(self, play: Play, number: int, run: Run) -> None:
        self.play = play
        self.number = number
        self.run = run
        self.slot, self.id = play.scenario.workers + number, f"r{number}"
        self.begun = False
        self.over = False
        self.todo = self._todo()
        self.done = 0
        self.questions = [(at, served, f"{self.id}.served{n}", value) for n, (at, value) in enumerate(run.asks)]
        self.questions += [(at, asked, f"{self.id}.asked{n}", n) for n, at in enumerate(run.takes)]
        self.answered: set[str] = set()
        self.looks = list(run.reads)
        self.mender = Mender(self)
        self.joined = ""  # the run that has the key, if that is the one to have

    def _todo(self) -> list[tuple[float, Doing]]:
        run, todo = self.run, list[tuple[float, Doing]]()
        for n, at in enumerate(run.signals):
            todo.append((at, lambda handle, n=n: handle.signal(told, n, id=f"{self.id}.{n}")))
        if run.cancel_at is not None:
            todo.append((run.cancel_at, lambda handle: handle.cancel(reason="enough")))
        if run.terminate_at is not None:
            todo.append((run.terminate_at, self._terminate))
        if run.pause is not None:
            todo += [(run.pause[0], lambda handle: handle.pause()), (run.pause[1], lambda handle: handle.unpause())]
        return sorted(todo, key=lambda item: item[0])

    async def whole(self) -> None:
        await asyncio.sleep(self.run.start_at)
        await self.play.lives(self.slot, self._visit, lambda: self.over)

    async def _visit(self, actor: Actor) -> None:
        """One life."""
        own = not self.begun or self.mender.left  # what is reopened is tried with the code
        options: Any = {"workflows": WORKFLOWS, "only": [self.id]} if own else {}
        async with self.play.engine(self.slot, actor, **options) as engine:
            if not self.begun:
                self.begun = await self._begin(engine)
                if self.number % 2 or not self.begun:
                    return  # whoever serves goes on with it
            handle = engine.run(self.joined or self.id)
            if self.joined:  # what there is to do was for a run of its own
                self.todo, self.questions, self.looks, self.mender.left = [], [], [], []
            left = [one for one in self.questions if one[2] not in self.answered]
            doing = [self._do(engine, handle), *(self.ask(handle, *one) for one in left)]
            await self.all_of([*doing, *(self._look(engine, at) for at in self.looks)])
            self.over = True

    async def _begin(self, engine: Engine) -> bool:
        """Whether there is a run to have."""
        run, keys = self.run, self.play.ledger.keys
        keys.asked(self.id, run.delay)
        options: Any = {"singleton": run.key, "on_conflict": run.on_conflict} if run.key else {}
        first = [told.message(-n, id=f"{self.id}.first{n}") for n in range(run.first)]
        try:
            call = sim(list(run.epochs), [])
            handle = await engine.start(
                call, id=self.id, signals=first, delay=run.delay, deadline=run.deadline, **options
            )
        except RunConflict as error:  # likewise, and nobody can tell any more whether it is the same
            self.play.ledger.taken.missed(self.id, error)
            return True
        except RunEnded:  # of an earlier life's: it is there, and is not told any more
            return True
        except SingletonHeld as error:
            keys.heard(self.id, error.run_id)
            return False
        if handle.id != self.id:
            keys.heard(self.id, handle.id)
            self.joined = handle.id
        return True

    async def _do(self, engine: Engine, handle: RunHandle[Any]) -> None:
        while self.done < len(self.todo):
            at, do = self.todo[self.done]
            await self._until(at)
            try:
                await do(handle)
            except RunEnded:
                OUTSIDE.checks["too late"] += 1
            except RunPrunedError as error:
                self.play.ledger.taken.missed(handle.id, error)
            self.done += 1
        await self.await_end(handle)
        await self.mender.mend(engine, handle)

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self.play.loop.time()))

    async def _terminate(self, handle: RunHandle[Any]) -> None:
        await handle.terminate(reason="over")
        self.play.ledger.wishes.terminated.setdefault(handle.id, self.play.loop.time())

    async def ask(self, handle: RunHandle[Any], at: float, request: Request[int, Any], id_: str, value: int) -> None:
        await self._until(at)
        await ask(self.play, handle, request, id_, value)
        self.answered.add(id_)

    async def _look(self, engine: Engine, at: float) -> None:
        await self._until(at)
        try:
            await self._see(engine, engine.run(self.id))
        except (RunPrunedError, HistoryError) as error:
            self.play.ledger.taken.missed(self.id, error)
        self.looks.remove(at)

    async def _see(self, engine: Engine, handle: RunHandle[Any]) -> None:
        seen = self.play.ledger.seen
        since = seen.count(self.id)
        seen.was_read(self.id, since, await handle.read(phase), -1)
        since = len(seen.feeds.get(self.id, ()))
        values = [value async for value in handle.feed(report, follow=False)]
        if self.play.ledger.taken.has(self.id):
            return  # those that were destroyed are left out
        seen.was_followed(self.id, since, values)
        if (given := seen.attributes.get(self.id)) is not None:
            wanted = given[-1]
            page = await engine.runs(attributes=wanted)
            if not self.play.ledger.taken.has(self.id):  # since
                seen.was_found(self.id, wanted, self.id in [summary.id for summary in page.items])

    async def await_end(self, handle: RunHandle[Any]) -> None:
        """Its end; a run that is parked, for its workers died under it, is let go on, as a person would."""
        while True:
            try:
                await handle.result()
            except (RunPrunedError, HistoryError) as error:  # it had a result
                self.play.ledger.taken.missed(handle.id, error)
                return
            except RunSuspendedError:
                state = await handle.state()
                if state.diagnosis is not None and state.diagnosis.reason != "crashes":
                    OUTSIDE.broke("suspended", f"{handle.id}: {state.diagnosis}")
                    return
                await handle.resume()
                await asyncio.sleep(0.1)
                continue
            except (RunFailedError, RunCancelledError, RunTerminatedError):
                pass
            return

    @staticmethod
    async def all_of(coros: list[Coroutine[Any, Any, None]]) -> None:
        """At once; when one fails the others are of no use any more."""
        tasks = [asyncio.create_task(coro) for coro in coros]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
