"""Bugs that are planted, each found within a few seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from engine.core.cancelling import Cancelling
from engine.core.events import AttemptHeartbeat, TaskCompleted
from engine.core.instance import Instance
from engine.core.lineage import idempotency_key
from engine.core.replay import Attempts, Replayer
from engine.runtime import (
    asking,
    beginning,
    cutting,
    debouncing,
    forking,
    letters,
    memos,
    operating,
    pruning,
    reopening,
    repairs,
    what_if,
)
from engine.runtime.asking import PendingRequest
from engine.runtime.keys import is_singleton
from engine.runtime.steps import Step
from engine.runtime.streams import is_state_attribute
from eventstore import Commit, LeaseLost, StoreUnavailable
from eventstore.permits import Actions
from eventstore.pools import MemoryPool
from eventstore.rules import Streams
from tests.runtime.test_canaries import forget_to_write, no_wake_up_for_a_cancel
from tests.runtime.worlds import ManualClock
from tests.simulation import playing
from tests.simulation.playing import forget, play
from tests.simulation.scenarios import scenario_of


@pytest.fixture(autouse=True)
def _the_dead_are_collected() -> Iterator[None]:
    yield
    forget()


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
        "engine.runtime.tokens.idempotency_key",
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


def calls_acknowledged_too_soon(patch: pytest.MonkeyPatch) -> None:
    """Whoever debounces a call is told that it is on record, also when the store has refused it."""
    debounce = beginning.debounce

    async def hasty(*args: Any, **options: Any) -> None:
        with suppress(StoreUnavailable):
            await debounce(*args, **options)

    patch.setattr(beginning, "debounce", hasty)


def reruns_of_the_parent(patch: pytest.MonkeyPatch) -> None:
    """Whoever runs a child again gets its parent."""
    read_beginning = repairs.read_beginning
    patch.setattr(
        repairs,
        "read_beginning",
        lambda store, run_id, **start: read_beginning(store, run_id.partition("/")[0], **start),
    )


def forks_of_forks_anywhere(patch: pytest.MonkeyPatch) -> None:
    """A fork is cut in what it has copied, as if that were its own."""
    follow = cutting._Cutting._follow

    def followed(self: Any, item: Any) -> None:
        follow(self, item)
        self._copied = 0

    patch.setattr(cutting._Cutting, "_follow", followed)


def suppositions_that_are_told_backwards(patch: pytest.MonkeyPatch) -> None:
    """What happened behind the cut is told in another order."""
    tell_next = what_if._Supposition._tell_next

    def tell_last(self: Any, facts: list[Any]) -> bool:
        facts.reverse()
        try:
            return tell_next(self, facts)
        finally:
            facts.reverse()

    patch.setattr(what_if._Supposition, "_tell_next", tell_last)


def suppositions_that_are_noted(patch: pytest.MonkeyPatch) -> None:
    """Who asks what would have come of a run leaves a mark at it."""
    suppose = operating.suppose

    async def noted(store: Any, definitions: Any, run_id: str, **what: Any) -> Any:
        head = await store.head(f"run:{run_id}")
        marks = Commit(id="mark", stream=head.stream, expected_version=head.version, attributes={"mark": 1})
        with suppress(LeaseLost):
            await store.commit(marks)
        return await suppose(store, definitions, run_id, **what)

    patch.setattr(operating, "suppose", noted)


def origins_that_are_told(patch: pytest.MonkeyPatch) -> None:
    """What a fork is to be told is told to its origin."""
    append = forking._append

    async def appended(store: Any, stream: str, *args: Any, attributes: Any, sends: Any = (), **how: Any) -> int:
        origin = f"run:{attributes['origin']}"
        sends = tuple(replace(each, stream=origin) for each in sends)
        return await append(store, stream, *args, attributes=attributes, sends=sends, **how)

    patch.setattr(forking, "_append", appended)


def children_that_nobody_needs(patch: pytest.MonkeyPatch) -> None:
    """A child is pruned while its parent is under way."""

    async def why_it_stays(_: Any, head: Any) -> str | None:
        return None if head.closed else "it has not ended"

    patch.setattr(pruning, "why_it_stays", why_it_stays)


def values_that_stay(patch: pytest.MonkeyPatch) -> None:
    """What was to be forgotten is said to be, and is not."""

    async def forget(*_: Any, **__: Any) -> int:
        return 1

    patch.setattr("tests.simulation.stores.Handle.forget", forget)


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
    (attempts_counted_anew, 50, {"history"}),
    (forks_with_the_keys_of_their_origin, 3, {"keys shared"}),
    (forks_that_leave_something_out, 3, {"copies"}),
    (reruns_of_nothing, 110, {"stuck"}),
    (deaf_children, 30, {"stuck"}),
    (nobody_is_superseded, 115, {"debounced"}),
    (bursts_without_end, 24, {"debounced"}),
    (memos_for_ever, 121, {"memos"}),
    (no_wake_up_for_a_cancel, 0, {"stuck"}),
    (calls_acknowledged_too_soon, 300, {"debounced"}),
    (reruns_of_the_parent, 40, {"copies"}),
    (forks_of_forks_anywhere, 70, {"copies"}),
    (suppositions_that_are_told_backwards, 0, {"what-if"}),
    (suppositions_that_are_noted, 0, {"footprints"}),
    (origins_that_are_told, 0, {"footprints"}),
    (children_that_nobody_needs, 20, {"taken"}),
    (values_that_stay, 0, {"taken"}),
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
