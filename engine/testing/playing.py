"""Plays a run once, under a schedule: crashes where it says, and one thing after the other where several could happen.

Attempts are held until it is their turn, so that nothing is left to chance; time passes when nothing else can happen.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from engine import Call, Engine, SignalMessage, Workflow
from engine.errors import EngineFailed, RunEnded
from engine.testing.errors import Stuck
from engine.testing.fakes import TaskCall
from engine.testing.lab import Lab
from engine.testing.memory import Kept, globals_of, snapshot
from engine.testing.outcomes import Outcome, events_of, outcome_of
from engine.testing.schedules import Schedule
from engine.testing.store import Fault, WatchedStore
from eventstore import Commit, StoreUnavailable

__all__ = ["Crashed", "Played", "Setup", "play"]

RUN_ID: Final = "explored"
ENDED: Final = frozenset({"completed", "failed", "cancelled", "terminated", "suspended"})


class Setup(Struct, frozen=True):
    """What is explored, with what."""

    call: Call[Any]
    workflows: tuple[Workflow[..., Any], ...]
    signals: tuple[SignalMessage, ...]
    prepare: Callable[[Lab], object] | None
    outside: tuple[Any, ...]
    effects: Callable[[], Any] | None
    seed: int
    only_fakes: bool
    steps: int
    patience_seconds: float

    def fresh(self) -> Call[Any]:
        """The call once more: one can be used once only."""
        return self.call.definition(*self.call.args, **self.call.kwargs)


class Crashed(Struct, frozen=True):
    """A crash, as it happened: what stood in the history then, and what was not recorded any more."""

    events: tuple[dict[str, Any], ...]
    lost: tuple[dict[str, Any], ...]


class Played(Struct):
    """What came of it; and how much there was to disturb."""

    outcome: Outcome
    commits: int
    calls: int
    choices: list[tuple[str, ...]]  # what could have happened, at each choice
    crashes: list[Crashed]
    events: list[dict[str, Any]]


async def play(setup: Setup, schedule: Schedule, memory: Sequence[Any], outside: Sequence[Kept]) -> Played:
    """Play it. `memory` and `outside` are set back before. Raises `UnfakedTask`, and `Stuck` for too many steps."""
    for each in (*memory, *outside):
        each.restore()
    return await _Play(setup, schedule, memory).to_the_end()


def memory_of(setup: Setup) -> list[Any]:
    """What is set back at every crash."""
    return list(globals_of(setup.workflows, but=setup.outside))


class _Entropy:
    """Chance that repeats: the seed of the run is the same in every process that starts it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._others = random.Random(f"{seed}/explored")
        self.reopen()

    def reopen(self) -> None:
        """Another process begins."""
        self._seeds = random.Random(f"{self._seed}/seeds")

    def __call__(self, count: int) -> bytes:
        return (self._seeds if count == 16 else self._others).randbytes(count)


class _Held:
    """Attempts that wait for their turn, in the order they came."""

    def __init__(self) -> None:
        self.waiting: dict[TaskCall, asyncio.Future[None]] = {}

    async def gate(self, call: TaskCall) -> None:
        """See `Fakes.gate`."""
        self.waiting[call] = asyncio.get_running_loop().create_future()
        try:
            await self.waiting[call]
        finally:
            del self.waiting[call]


class _Play:
    def __init__(self, setup: Setup, schedule: Schedule, memory: Sequence[Any]) -> None:
        self._setup = setup
        self._schedule = schedule
        self._memory = memory
        self._entropy = _Entropy(setup.seed)
        self._lab = Lab(
            *setup.workflows,
            seed=setup.seed,
            only_fakes=setup.only_fakes,
            patience_seconds=setup.patience_seconds,
            entropy=self._entropy,
        )
        self._held = _Held()
        self._client = Engine(self._lab.memory, clock=self._lab.clock)  # looks on; what it asks is not counted
        self._commits = self._calls = self._steps = 0
        self._lost: tuple[dict[str, Any], ...] = ()
        self._choices: list[tuple[str, ...]] = []
        self._crashes: list[Crashed] = []
        self._sent: set[int] = set()
        self._stuck = ""

    async def to_the_end(self) -> Played:
        if self._setup.prepare is not None:
            self._setup.prepare(self._lab)
        self._lab.fakes.gate = self._held.gate
        async with self._client:
            while not await self._one_process():
                self._crashes.append(Crashed(tuple(await self._events()), self._lost))
                for each in self._memory:
                    each.restore()
            run = self._client.run(RUN_ID)
            outcome = await outcome_of(run, self._effects(), stuck=self._stuck)
            played = Played(outcome, self._commits, self._calls, self._choices, self._crashes, await self._events())
        await self._lab.memory.aclose()
        return played

    async def _one_process(self) -> bool:
        """From the opening of an engine to the end of the run, or to the crash (False)."""
        lab = self._lab
        self._entropy.reopen()
        try:
            await lab.open(plan=self._plan)
            await self._start()
            while await self._lives():
                if await self._ended() or not await self._step():
                    return True
        except (StoreUnavailable, EngineFailed):
            if not lab.store.dead:
                raise
        finally:
            await lab.die()
        return False

    async def _lives(self) -> bool:
        """Let everything happen that can without time passing; whether the process is still there then."""
        await self._lab.settle()
        return not self._lab.store.dead

    async def _start(self) -> None:
        count = len(self._setup.signals)
        last = max((n for n in range(1, count + 1) if self._schedule.told(n, "with the start")), default=0)
        early = range(1, last + 1)  # and those before it: their order is the sender's, and is kept
        messages = [self._message(n) for n in early]
        await self._lab.engine.start(self._setup.fresh(), id=RUN_ID, signals=messages)
        self._sent.update(early)

    async def _ended(self) -> bool:
        return await self._client.run(RUN_ID).status() in ENDED

    async def _step(self) -> bool:
        """The next thing that happens. False: nothing can happen any more."""
        self._steps += 1
        if self._steps > self._setup.steps:
            raise Stuck(f"the run has not ended after {self._setup.steps} steps (Bounds(steps=...))")
        options = self._options()
        if not options:
            if await self._lab.turn_to_next():
                return True
            self._stuck = "(nothing is under way, and it waits for no time)"
            return False
        chosen = 0
        if len(options) > 1:
            self._choices.append(tuple(label for label, _ in options))
            chosen = min(self._schedule.option_at(len(self._choices)), len(options)) - 1
        thing = options[chosen][1]
        if isinstance(thing, int):
            await self._send(thing)
        else:
            thing.set_result(None)
        return True

    def _options(self) -> list[tuple[str, Any]]:
        """What could happen next: the next signal arrives, or an attempt acts and ends."""
        found: list[tuple[str, Any]] = []
        unsent = [n for n in range(1, len(self._setup.signals) + 1) if n not in self._sent]
        if unsent:
            found.append((f"signal {self._setup.signals[unsent[0] - 1].name!r} arrives", unsent[0]))
        found += [(f"{call.id} ends", future) for call, future in self._held.waiting.items() if not future.done()]
        return found

    async def _send(self, number: int) -> None:
        times = 2 if self._schedule.told(number, "twice") else 1
        for again in range(times):
            message = self._message(number, again=bool(again))
            try:
                await self._lab.engine.start(self._setup.fresh(), id=RUN_ID, signals=[message])
            except RunEnded:
                break
        self._sent.add(number)

    def _message(self, number: int, *, again: bool = False) -> SignalMessage:
        """A signal that has an id is known by it; sent again without one it is another one."""
        message = self._setup.signals[number - 1]
        return msgspec.structs.replace(message, id=message.id or f"signal-{number}" + ("-again" if again else ""))

    def _plan(self, _store: WatchedStore, name: str, argument: Any) -> Fault | None:
        self._calls += 1
        self._commits += name == "commit"
        fault = self._schedule.crash_at(self._commits, self._calls, is_commit=name == "commit")
        if fault is not None:
            lost = argument.events if isinstance(argument, Commit) and fault == "before" else ()
            self._lost = tuple(msgspec.json.decode(event.header) for event in lost)
        return fault

    async def _events(self) -> list[dict[str, Any]]:
        return await events_of(self._client, RUN_ID)

    def _effects(self) -> Any:
        setup = self._setup
        if setup.effects is not None:
            return setup.effects()
        if setup.outside:
            found = [snapshot(each) for each in setup.outside]
            return found[0] if len(found) == 1 else found
        # A memo may be lost in a crash, and then its task runs once more: that is no effect, but a miss.
        by_key = {call.key: call.text() for call in self._lab.fakes.calls if not call.memoised}
        return sorted(by_key.values())
