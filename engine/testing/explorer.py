"""The crash explorer: a workflow is run once undisturbed, and then again and again, each time disturbed otherwise.

The process dies before and after every commit; concurrent attempts end in other orders; signals come earlier, later,
twice. What a run results in, publishes and does to the outside must be the same each time.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct

from engine import Call, SignalMessage, Workflow
from engine.errors import HoldfastError
from engine.testing.errors import NotRepeatable
from engine.testing.lab import Lab
from engine.testing.memory import Kept
from engine.testing.playing import Played, Setup, memory_of, play
from engine.testing.report import Finding, Report, finding_of
from engine.testing.schedules import Crash, Part, Schedule, Swap, Told, parse
from eventstore import SystemClock

__all__ = ["Bounds", "Progress", "explore"]

PARTS_MAX: Final = 4
"""How many things are disturbed at once, when several are."""


class Bounds(Struct, frozen=True, kw_only=True):
    """How much is tried, and of what."""

    schedules: int = 300
    seconds: float = 30.0  # of real time; what is under way then is ended
    steps: int = 10_000  # of one run: things that happen in it one after the other
    crashes: bool = True
    orders: bool = True  # concurrent attempts end, and signals arrive, in another order
    duplicates: bool = True  # signals without an id are sent twice
    together: bool = True  # several things at once, when all single ones are through
    patience_seconds: float = 0.05  # of real time for attempts of real tasks, as in a lab


Progress: TypeAlias = Callable[[int, int, int], object]
"""Called with how many schedules were played, of how many there are at most, and how many findings there are."""


async def explore(
    call: Call[Any],
    *,
    workflows: Sequence[Workflow[..., Any]] = (),
    signals: Sequence[SignalMessage] = (),
    prepare: Callable[[Lab], object] | None = None,
    outside: Sequence[Any] = (),
    effects: Callable[[], Any] | None = None,
    only_fakes: bool = False,
    bounds: Bounds = Bounds(),  # noqa: B008 - it is frozen
    seed: int = 0,
    schedule: Schedule | str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Look for a crash, an order or a repetition that changes what comes out of a run.

    As in ``report = await explore(order("ann"))``.

    `signals`: what the run is told, in this order, as soon as it has begun (`Signal.message`); one with an id is known
    by it. `prepare`: called with each new lab, before each run: fakes are made here. `outside`: dicts, lists, sets and
    deques that stand for the outside: they outlive crashes, are set back before each run, and are compared; or
    `effects`: a function that returns what the outside saw. With neither, it is which calls were made to tasks, by
    their idempotency keys. Module-level values that workflow code names are set back at each crash, as in a new
    process. `workflows`: others that take part and that no call of theirs shows. `seed`: of what is tried when not
    everything can be. `schedule`: just this one, from an earlier report.

    Raises `NotRepeatable` when two undisturbed runs differ, and what a `Lab` raises.
    """
    definition = call.definition
    call.take()
    if not isinstance(definition, Workflow):
        raise HoldfastError(f"explore takes a call of a workflow, as in explore(nightly(day)), not {call!r}")
    setup = Setup(
        call=call,
        workflows=tuple(dict.fromkeys((definition, *workflows))),
        signals=tuple(signals),
        prepare=prepare,
        outside=tuple(outside),
        effects=effects,
        seed=seed,
        only_fakes=only_fakes,
        steps=bounds.steps,
        patience_seconds=bounds.patience_seconds,
    )
    exploration = _Exploration(setup, bounds, progress)
    try:
        await exploration.undisturbed()
        if schedule is None:
            await exploration.everything()
        else:
            await exploration.try_out(parse(schedule) if isinstance(schedule, str) else schedule)
    finally:
        exploration.restore()
    return exploration.report()


class _Exploration:
    def __init__(self, setup: Setup, bounds: Bounds, progress: Progress | None) -> None:
        self._setup = setup
        self._bounds = bounds
        self._progress = progress
        self._memory = memory_of(setup)
        self._outside = [Kept(each) for each in setup.outside]
        self._expected: Played
        self._found: dict[Any, Finding] = {}
        self._guilty: set[Part] = set()  # what makes a difference all by itself
        self._played = 0

    def report(self) -> Report:
        findings = sorted(self._found.values(), key=lambda finding: len(finding.schedule.parts))
        text = f"{self._setup.call.definition.name}"
        return Report(
            workflow=text,
            played=self._played,
            outcome=self._expected.outcome,
            findings=tuple(findings),
            again=self._again,
        )

    def restore(self) -> None:
        """Leave everything as it was found."""
        for each in (*self._memory, *self._outside):
            each.restore()

    async def undisturbed(self) -> None:
        self._expected = await self._play(Schedule())
        again = await self._play(Schedule())
        differences = self._expected.outcome.differences(again.outcome)
        if differences:
            each = "\n".join(f"  {d.what}: {d.expected}\n    and then {d.instead}" for d in differences)
            raise NotRepeatable(
                f"two undisturbed runs of {self._setup.call.definition.name!r} came out differently, so that nothing"
                f" can be compared with them; look for chance or clocks in tasks, and fake those:\n{each}"
            )

    async def everything(self) -> None:
        clock = SystemClock()
        end = clock.monotonic() + self._bounds.seconds
        for schedule in itertools.islice(self._schedules(), self._bounds.schedules):
            if clock.monotonic() > end:
                break
            await self.try_out(schedule)
            if self._progress is not None:
                self._progress(self._played, self._bounds.schedules, len(self._found))

    async def try_out(self, schedule: Schedule) -> None:
        """Play it; what differs is made as small as it gets, and kept if it is something new."""
        played = await self._play(schedule)
        if not self._differs(played):
            return
        schedule, played = await self._smallest(schedule, played)
        finding = finding_of(schedule, self._expected, played, self._setup)
        if len(schedule.parts) == 1:
            self._guilty.add(schedule.parts[0])
        key = schedule.kinds, tuple(difference.what for difference in finding.differences)
        known = self._found.get(key)
        if known is None or len(known.schedule.parts) > len(schedule.parts):
            self._found[key] = finding

    async def _play(self, schedule: Schedule) -> Played:
        self._played += 1
        return await play(self._setup, schedule, self._memory, self._outside)

    async def _again(self, schedule: Schedule) -> Played:
        try:
            return await play(self._setup, schedule, self._memory, self._outside)
        finally:
            self.restore()

    def _differs(self, played: Played) -> bool:
        return bool(self._expected.outcome.differences(played.outcome))

    async def _smallest(self, schedule: Schedule, played: Played) -> tuple[Schedule, Played]:
        """Leave out part after part, as long as it still comes out differently."""
        parts = list(schedule.parts)
        while parts and len(schedule.parts) > 1:
            smaller = schedule.without(parts.pop())
            again = await self._play(smaller)
            if self._differs(again):
                schedule, played = smaller, again
                parts = list(smaller.parts)  # what was needed beside the one that is gone need not be needed now
        return schedule, played

    def _schedules(self) -> Iterator[Schedule]:
        """The smallest first: each single disturbance from the beginning of the run on, then several together."""
        single = [*self._crashes(), *self._swaps(), *self._tellings()]
        for part in single:
            yield Schedule((part,))
        if self._bounds.crashes:
            for number, when in itertools.product(range(1, self._expected.calls + 1), ("before", "after")):
                yield Schedule((Crash(number, when, "store call"),))  # type: ignore[arg-type]
        innocent = [part for part in single if part not in self._guilty]
        if self._bounds.together and len(innocent) > 1:
            yield from self._together(innocent)

    def _together(self, innocent: list[Part]) -> Iterator[Schedule]:
        """Several of those that make no difference alone: by twos, in a seeded order, and then more."""
        chance = random.Random(f"{self._setup.seed}/together")
        pairs = list(itertools.combinations(innocent, 2))
        chance.shuffle(pairs)
        yield from map(Schedule, pairs)
        tried: set[frozenset[Part]] = set()
        for _ in range(self._bounds.schedules if len(innocent) > 2 else 0):
            parts = chance.sample(innocent, min(len(innocent), chance.randint(3, PARTS_MAX)))
            if frozenset(parts) not in tried:
                tried.add(frozenset(parts))
                yield Schedule(tuple(parts))

    def _crashes(self) -> Iterator[Part]:
        if self._bounds.crashes:
            for number in range(1, self._expected.commits + 1):
                yield Crash(number, "before")
                yield Crash(number, "after")

    def _swaps(self) -> Iterator[Part]:
        if self._bounds.orders:
            for step, options in enumerate(self._expected.choices, 1):
                for option in range(2, len(options) + 1):
                    yield Swap(step, option)

    def _tellings(self) -> Iterator[Part]:
        for number in range(1, len(self._setup.signals) + 1):
            if self._bounds.orders:
                yield Told(number, "with the start")
            if self._bounds.duplicates:
                yield Told(number, "twice")
