"""A slice of the simulation, and what shows that it finds something: planted bugs, each found within a few seeds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from engine.core.cancelling import Cancelling
from engine.core.events import AttemptHeartbeat, TaskCompleted
from engine.core.instance import Instance
from engine.core.lineage import idempotency_key
from engine.core.replay import Attempts, Replayer
from engine.runtime import asking, debouncing, forking, letters, memos, reopening, repairs
from engine.runtime.asking import PendingRequest
from engine.runtime.keys import is_singleton
from engine.runtime.steps import Step
from engine.runtime.streams import is_state_attribute
from eventstore.permits import Actions
from eventstore.pools import MemoryPool
from eventstore.rules import Streams
from tests.runtime.test_canaries import forget_to_write, no_wake_up_for_a_cancel
from tests.runtime.worlds import ManualClock
from tests.simulation import playing
from tests.simulation.drawing import draw
from tests.simulation.loops import Actor, OutOfBounds, SimulatedLoop
from tests.simulation.oracle import FAILED, ends_of
from tests.simulation.playing import forget, play
from tests.simulation.programs import RACES, kinds_of
from tests.simulation.scenarios import Scenario, scenario_of, text_of
from tests.simulation.trying import report_of, try_these

CHUNKS = range(0, 80, 10)


@pytest.fixture(autouse=True)
def _the_dead_are_collected() -> Iterator[None]:
    yield
    forget()


@pytest.mark.parametrize("first", CHUNKS)
def test_a_slice_of_the_seeds(first: int) -> None:
    tried = try_these(first, CHUNKS.step)
    assert tried.seeds == CHUNKS.step
    assert not tried.found, f"python -m tests.simulation --seed {tried.found[0].seed}: {tried.found[0].broken}"
    assert tried.checks["no acknowledged event lost"] > 100
    assert sum(tried.faults.values()) > 0


def test_a_play_can_be_had_again() -> None:
    for seed in (3, 7):
        scenario = scenario_of(seed)
        assert scenario == scenario_of(seed)
        one, other = play(scenario), play(msgspec.json.decode(msgspec.json.encode(scenario), type=Scenario))
        assert one.trace == other.trace
        assert one.steps > 100


# -- planted bugs ------------------------------------------------------------------------------------------------------


def no_fencing(patch: pytest.MonkeyPatch) -> None:
    """The store takes commits of whoever has lost its lease."""
    patch.setattr(Streams, "_check_lease", lambda *_: None)


def a_lost_wake_up(patch: pytest.MonkeyPatch) -> None:
    """Whoever is granted a permit that it waited for is not told."""
    patch.setattr(Actions, "messages", lambda _self: [])


def pools_without_end(patch: pytest.MonkeyPatch) -> None:
    """There is always room in a pool."""
    patch.setattr(MemoryPool, "held", property(lambda _self: 0))


def completed_tasks_again(patch: pytest.MonkeyPatch) -> None:
    """Whoever takes a run over does not see which tasks are completed."""
    original = Replayer.feed

    def feed(self: Replayer, version: int, event: Any, payload: Any) -> Any:
        return None if type(event) is TaskCompleted else original(self, version, event, payload)

    patch.setattr(Replayer, "feed", feed)


def validators_that_nobody_asks(patch: pytest.MonkeyPatch) -> None:
    """A request is taken whatever its validator would say."""
    patch.setattr(Instance, "ask", lambda *_: None)


def an_answer_to_somebody_else(patch: pytest.MonkeyPatch) -> None:
    """Whoever asks takes the first answer that there is."""

    async def find(self: Any, *kinds: Any) -> Any:
        async for item in self._events():
            self._seen = item.version
            if isinstance(item.event, kinds):
                return item
        return None

    patch.setattr(PendingRequest, "_find", find)


def no_delays(patch: pytest.MonkeyPatch) -> None:
    """What is to begin later begins at once."""
    patch.setattr("engine.runtime.beginning.beginning", lambda *_: 0)


def keys_without_end(patch: pytest.MonkeyPatch) -> None:
    """A key is free, whoever has it."""
    held = MemoryPool.held.fget  # type: ignore[attr-defined]
    patch.setattr(MemoryPool, "held", property(lambda self: 0 if is_singleton(self.name) else held(self)))


def one_memo_for_all(patch: pytest.MonkeyPatch) -> None:
    """The key says nothing about where a result is kept."""
    keyed = memos.keyed
    patch.setattr(memos, "keyed", lambda *args: replace(keyed(*args), stream="memo:kept:0"))


def forgotten_heartbeats(patch: pytest.MonkeyPatch) -> None:
    """No attempt knows how far the one before it was."""
    noted = Attempts.noted

    def note(self: Attempts, event: Any, payload: Any, *, at: int) -> None:
        if not isinstance(event, AttemptHeartbeat):
            noted(self, event, payload, at=at)

    patch.setattr(Attempts, "noted", note)


def a_state_that_stays(patch: pytest.MonkeyPatch) -> None:
    """The stream does not say where its states are."""
    mark = Step.mark

    def marked(self: Step, name: str, value: Any, *, behind: int | None = None) -> None:
        if not is_state_attribute(name):
            mark(self, name, value, behind=behind)

    patch.setattr(Step, "mark", marked)


def letters_of_chance(patch: pytest.MonkeyPatch) -> None:
    """What a run sends again goes by another id than before."""
    serial, letter = count(), letters._message_letter
    patch.setattr(
        letters, "_message_letter", lambda event, payload, run, _: letter(event, payload, run, f"{next(serial)}")
    )


def hasty_deadlines(patch: pytest.MonkeyPatch) -> None:
    """A run is asked to end at half its time."""
    await_within = Cancelling.await_within

    def await_less(self: Cancelling, coro: Any, seconds: float, run_id: str) -> Any:
        return await_within(self, coro, seconds / 2, run_id)

    patch.setattr(Cancelling, "await_within", await_less)


def lost_answers(patch: pytest.MonkeyPatch) -> None:
    """What somebody else ends a task with does not arrive."""

    async def send(*_: Any) -> None:
        return

    patch.setattr("engine.runtime.tokens.send_data", send)


def failures_that_stay(patch: pytest.MonkeyPatch) -> None:
    """Who is reopened is told the failure that ended it once more."""

    async def what_is_taken_back(*_: Any) -> str:
        return "decisions"

    patch.setattr(reopening, "_what_is_taken_back", what_is_taken_back)


def attempts_counted_anew(patch: pytest.MonkeyPatch) -> None:
    """What the end of a run has called off begins at the first attempt once more, when that is reopened."""
    patch.setattr(Replayer, "_call_off", lambda self, task_id: self.attempts.pop(task_id, None))


def forks_with_the_keys_of_their_origin(patch: pytest.MonkeyPatch) -> None:
    """What a fork does goes by the keys of the run that it is a fork of."""
    patch.setattr(
        "engine.runtime.dispatch.idempotency_key",
        lambda run_id, *task: idempotency_key(run_id.partition("-fork")[0], *task),
    )


def forks_that_leave_something_out(patch: pytest.MonkeyPatch) -> None:
    """What is copied lacks the last event of the prefix."""
    forked = forking._forked

    async def all_but_one(note: Any, prefix: Any) -> Any:
        async for item in forked(note, prefix):
            if item.version != note.version or item.version == 1:
                yield item

    patch.setattr(forking, "_forked", all_but_one)


def reruns_of_nothing(patch: pytest.MonkeyPatch) -> None:
    """A rerun is not told what its origin was told with its start."""

    async def first_signals(*_: Any) -> list[Any]:
        return []

    patch.setattr(repairs, "_first_signals", first_signals)


def deaf_children(patch: pytest.MonkeyPatch) -> None:
    """What a child is asked does not arrive."""
    send_data = asking.send_data

    async def send(store: Any, message: Any, run_id: str) -> None:
        if "/" not in run_id:
            await send_data(store, message, run_id)

    patch.setattr(asking, "send_data", send)


def nobody_is_superseded(patch: pytest.MonkeyPatch) -> None:
    """Every call of a burst begins a run."""
    superseding = debouncing._superseding
    patch.setattr(debouncing, "_superseding", lambda _, *args, **by: superseding("nobody", *args, **by))


def bursts_without_end(patch: pytest.MonkeyPatch) -> None:
    """Each call of a burst puts its run off, however long that has gone on."""
    patch.setattr(debouncing.Quiet, "begins_at", lambda self, *, now, since: now + self.needed)


def memos_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks how old a result is."""
    usable = memos.Memos._usable

    def used(self: Any, definition: Any, header: bytes, payload: bytes | None) -> Any:
        clock, self._clock = self._clock, ManualClock(0)
        try:
            return usable(self, definition, header, payload)
        finally:
            self._clock = clock

    patch.setattr(memos.Memos, "_usable", used)


CANARIES: list[tuple[Callable[[pytest.MonkeyPatch], None], int, set[str]]] = [
    (no_fencing, 4, {"two writers"}),
    (a_lost_wake_up, 9, {"stuck"}),
    (pools_without_end, 32, {"permits"}),
    (completed_tasks_again, 1, {"history", "ran again"}),
    (forget_to_write, 0, {"history"}),
    (validators_that_nobody_asks, 31, {"requests"}),
    (an_answer_to_somebody_else, 9, {"requests"}),
    (no_delays, 0, {"too early"}),
    (keys_without_end, 9, {"keys"}),
    (one_memo_for_all, 103, {"memos"}),
    (forgotten_heartbeats, 17, {"heartbeats"}),
    (a_state_that_stays, 0, {"states"}),
    (letters_of_chance, 30, {"sends"}),
    (hasty_deadlines, 19, {"deadline"}),
    (lost_answers, 3, {"stuck"}),
    (failures_that_stay, 3, {"refused"}),
    (attempts_counted_anew, 4, {"history"}),
    (forks_with_the_keys_of_their_origin, 3, {"keys shared"}),
    (forks_that_leave_something_out, 3, {"copies"}),
    (reruns_of_nothing, 31, {"stuck"}),
    (deaf_children, 30, {"stuck"}),
    (nobody_is_superseded, 115, {"debounced"}),
    (bursts_without_end, 24, {"debounced"}),
    (memos_for_ever, 121, {"memos"}),
    (no_wake_up_for_a_cancel, 0, {"stuck"}),
]
SEEDS_MAX = 40


@pytest.mark.parametrize(("plant", "first", "shows"), CANARIES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_bug_is_found(plant: Any, first: int, shows: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playing, "STEPS_MAX", 20_000)  # ten times what a play takes
    plant(monkeypatch)
    for seed in range(first, first + SEEDS_MAX):  # the first of them, as the grammar is now
        if shows & {what for what, _ in play(scenario_of(seed)).broken}:
            return
    pytest.fail(f"not found within {SEEDS_MAX} seeds")


def test_a_failing_seed_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_to_write(monkeypatch)
    text = report_of(scenario_of(0))
    assert "BROKEN: history" in text
    small = text.partition("shrunk to:\n")[2]
    assert "no faults" in small
    assert small.startswith("1 worker(s), order fifo, delays none")
    assert small.count("\nrun r") == 1
    scenario = msgspec.json.decode(small.partition("--scenario '")[2].rpartition("'")[0], type=Scenario)
    assert len(kinds_of(scenario.runs[0].epochs[0])) == 1
    assert any(what == "history" for what, _ in play(scenario).broken)


# -- its parts ---------------------------------------------------------------------------------------------------------


def test_the_loop_keeps_what_asyncio_guarantees_and_permutes_the_rest() -> None:
    seen: list[str] = []

    async def count_up(name: str) -> None:
        for n in range(3):
            seen.append(f"{name}{n}")
            await asyncio.sleep(0)

    orders = set()
    for seed in range(20):
        seen.clear()
        loop = SimulatedLoop(Random(seed))
        tasks = [loop.spawn(Actor(name), count_up(name)) for name in "ab"]
        loop.run_until_complete(asyncio.wait(tasks))
        loop.close()
        for name in "ab":
            assert [each for each in seen if each[0] == name] == [f"{name}{n}" for n in range(3)]
        orders.add(tuple(seen))
    assert len(orders) > 3


def test_the_dead_do_nothing_more_and_the_frozen_do_it_later() -> None:
    loop, seen = SimulatedLoop(Random(0)), []
    dead, frozen = Actor("dead"), Actor("frozen")

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(1)
            seen.append((name, loop.time()))
        finally:
            seen.append((f"{name} is over", loop.time()))

    async def befall() -> None:
        await asyncio.sleep(0.5)
        loop.kill(dead)
        loop.freeze(frozen)
        await asyncio.sleep(4.5)
        loop.thaw(frozen)
        await asyncio.sleep(1)

    for actor in (dead, frozen):
        loop.spawn(actor, work(actor.name))
    loop.run_until_complete(befall())
    assert seen == [("frozen", 5.0), ("frozen is over", 5.0)]
    seen.clear()
    for task in dead.tasks:
        task._log_destroy_pending = False
    loop.close()


def test_who_waits_for_ever_is_told() -> None:
    loop = SimulatedLoop()
    task = loop.create_task(asyncio.Event().wait())
    with pytest.raises(OutOfBounds):
        loop.run_until_complete(task)
    task._log_destroy_pending = False
    loop.close()


@pytest.mark.parametrize(
    ("program", "ends"),
    [
        (["seq", 1, ["ok", 2, 1], ["flaky", 3, 2]], {"[2, 3]"}),
        (["gather_all", 1, ["broken", 2], ["ok", 3, 0]], {'["failed", 3]'}),
        (["except", 1, ["group", 2, ["broken", 3], ["ok", 4, 9]], ["ok", 5, 0]], {'["caught", 5]'}),
        (["deadline", 1, 5, ["ok", 2, 1]], {'"timed out"'}),
        (["timeout", 1, 3, ["ok", 2, 1]], {"2", FAILED}),
        (["first", 1, ["ok", 2, 0], ["broken", 3]], {'["first", 2]', FAILED}),
        (["seq", 1, ["cancel", 2, 1, ["ok", 3, 0]], ["once", 4, 0]], {"[3, 4]", '["cancelled", 4]', FAILED}),
    ],
)
def test_what_a_program_may_result_in(program: Any, ends: set[str]) -> None:
    assert ends_of(program) == ends


def test_the_grammar_draws_everything() -> None:
    chance, drawn = Random(0), Counter[str]()
    for _ in range(300):
        drawn.update(kinds_of(draw(chance, 9)))
    assert RACES <= drawn.keys()
    assert len(drawn) == 41
    assert "run r0: started at" in text_of(scenario_of(1))
