"""Planted bugs of the shell: each must be found by the test that is named for it. A check that cannot fail proves nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from engine.core.instance import Instance
from engine.core.replay import Replayer
from engine.executors.port import Slots
from engine.runtime import post, pruning, tokens
from engine.runtime.dispatch import Dispatcher
from engine.runtime.driver import Driver
from eventstore.memory import MemoryLease
from eventstore.rules import Streams
from tests.runtime import (
    test_cancel,
    test_crash_everywhere,
    test_keeping,
    test_life,
    test_limits,
    test_recovery,
    test_retries,
    test_tasks,
    worlds,
)
from tests.runtime.plays import PLAYS, stage
from tests.runtime.worlds import MemoryWorld

PATIENCE_SECONDS = 1.0
"""A planted bug may be a hang: how long that is waited for here."""

PLAY = {play.name: play for play in PLAYS}
Planted = Callable[[pytest.MonkeyPatch], None]
Found = Callable[[Callable[..., MemoryWorld]], Coroutine[Any, Any, None]]


def forget_to_write(patch: pytest.MonkeyPatch) -> None:
    """Attempts begin without their record: the notes of a step are left out of its commit."""

    async def write(self: Driver, step: Any) -> None:
        kept = step.events
        step.events = [event for event in kept if b'"TaskStarted"' not in event.header]
        await original(self, step)

    original = Driver._write
    patch.setattr(Driver, "_write", write)


def no_look_at_the_lease(patch: pytest.MonkeyPatch) -> None:
    """A worker begins attempts however long it was paused, without a look at its lease. (Others judge it as ever.)"""
    original = MemoryLease.fresh

    def fresh(self: MemoryLease) -> bool:
        caller = sys._getframe(1).f_code.co_filename
        return True if caller.endswith(("port.py", "pen.py")) else original(self)

    patch.setattr(MemoryLease, "fresh", fresh)


def no_backlog(patch: pytest.MonkeyPatch) -> None:
    """What the last turn decided, and the log lacks, is not appended."""
    original = Replayer.finish

    def finish(self: Replayer) -> list[Any]:
        original(self)
        return []

    patch.setattr(Replayer, "finish", finish)


def no_eviction(patch: pytest.MonkeyPatch) -> None:
    """Instances are just forgotten: their `finally` blocks run when the collector finds them."""
    patch.setattr(Instance, "evict", lambda self: None)
    patch.setattr(Instance, "__del__", lambda self: None, raising=False)


def a_key_per_attempt(patch: pytest.MonkeyPatch) -> None:
    """The idempotency key is another one each time."""
    counter = iter(range(10**6))
    patch.setattr(tokens, "idempotency_key", lambda *_: f"{next(counter):032}")


def retries_from_the_start(patch: pytest.MonkeyPatch) -> None:
    """A restart forgets how often a task has failed and when its next attempt is."""
    original = Replayer._note

    def note(self: Replayer, event: Any) -> None:
        if type(event).__name__ != "AttemptFailed":
            original(self, event)

    patch.setattr(Replayer, "_note", note)


def no_limit(patch: pytest.MonkeyPatch) -> None:
    """Slots are always free."""
    patch.setattr(Slots, "try_take", lambda self: True)
    patch.setattr(Slots, "give_back", lambda self: None)


def claims_once(patch: pytest.MonkeyPatch) -> None:
    """Orphans are looked for when the engine opens, and never again."""
    patch.setattr(Streams, "ready", _ready_for_the_first(Streams.ready))


def _ready_for_the_first(original: Any) -> Any:
    seen: set[int] = set()

    def ready(self: Streams, token: int, query: Any, busy: Any) -> Any:
        if token in seen:
            return iter(())
        seen.add(token)
        return original(self, token, query, busy)

    return ready


def no_grace(patch: pytest.MonkeyPatch) -> None:
    """Closing waits for nobody."""

    async def wait(self: Dispatcher, seconds: float, hurry: Any) -> None:
        return

    patch.setattr(Dispatcher, "wait_for_attempts", wait)


def no_wake_up_for_a_cancel(patch: pytest.MonkeyPatch) -> None:
    """Control messages are taken out of the box and not delivered."""
    patch.setattr(post, "mail_or_none", lambda _message: None)


async def crashes(worlds: Callable[..., MemoryWorld], name: str) -> None:
    for fault in ("die before", "die after"):
        await test_crash_everywhere.test_a_crash_at_every_call_changes_nothing(PLAY[name], fault, worlds)


async def chunks(worlds: Callable[..., MemoryWorld], patch: pytest.MonkeyPatch) -> None:
    await test_crash_everywhere.test_a_crash_between_any_two_chunks(PLAY["fan_out"], 1, worlds, patch)


def takes_away_before_it_is_said(patch: pytest.MonkeyPatch) -> None:
    """The events of a run are pruned before the event that says so is durable."""
    original = pruning._note

    async def note(store: Any, head: Any, **said: Any) -> Any:
        found = await original(store, head, **said)
        await store.prune(head.stream, until=head.version - 1)
        return found

    patch.setattr(pruning, "_note", note)


def forgets_before_it_is_said(patch: pytest.MonkeyPatch) -> None:
    """The payloads of a run are destroyed before the event that says so is durable."""
    original = pruning._announce

    async def announce(store: Any, head: Any, versions: Any, **said: Any) -> Any:
        await store.forget(head.stream, versions=versions or None)
        return await original(store, head, versions, **said)

    patch.setattr(pruning, "_announce", announce)


FOUND: list[tuple[Planted, str, Callable[..., Coroutine[Any, Any, None]]]] = [
    (forget_to_write, "crashes", lambda worlds, _: crashes(worlds, "sequential")),
    (no_look_at_the_lease, "one side", lambda worlds, _: test_recovery.test_effects_begin_on_one_side_only(worlds)),
    (no_backlog, "chunks", chunks),
    (no_eviction, "garbage", lambda worlds, _: crashes(worlds, "failing")),
    (a_key_per_attempt, "keys", lambda worlds, _: test_tasks.test_the_key_outlives_attempts_and_engines(worlds())),
    (
        retries_from_the_start,
        "back-off",
        lambda worlds, _: test_retries.test_a_restart_goes_on_with_the_same_wait(worlds(), 3.0),
    ),
    (no_limit, "limits", lambda worlds, _: test_tasks.test_never_more_at_once_than_allowed(worlds())),
    (
        claims_once,
        "orphans",
        lambda worlds, _: test_recovery.test_a_dead_workers_runs_go_on_while_others_live(worlds()),
    ),
    (no_grace, "grace", lambda worlds, _: test_life.test_closing_lets_attempts_finish(worlds())),
    (no_wake_up_for_a_cancel, "cancel", lambda worlds, _: test_cancel.test_a_sleeping_run(worlds())),
    (
        takes_away_before_it_is_said,
        "keeping",
        lambda worlds, _: test_keeping.test_a_crash_at_any_call_is_finished_by_asking_again(worlds(), "die before"),
    ),
    (
        forgets_before_it_is_said,
        "keeping",
        lambda worlds, _: test_keeping.test_a_crash_at_any_call_is_finished_by_asking_again(worlds(), "die before"),
    ),
]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for waiting in (worlds.until, worlds.until_async, worlds.soon):
        monkeypatch.setitem(waiting.__kwdefaults__, "seconds", PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("plant", "test"), [(plant, test) for plant, _, test in FOUND], ids=[f"{p.__name__}-{n}" for p, n, _ in FOUND]
)
@pytest.mark.filterwarnings("ignore")
async def test_a_planted_bug_is_found(
    plant: Planted, test: Any, worlds: Callable[..., MemoryWorld], monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    stage.clear()
    for module in (test_recovery.effects, test_recovery.workers):
        module.clear()
    for said in (test_cancel.told, test_limits.ran):
        said.clear()
    before = asyncio.all_tasks()
    monkeypatch.setenv("HOLDFAST_TEST_EVERY", "1")  # the canary shows what all of it finds; it ends with the first
    plant(monkeypatch)
    found: BaseException | None = None
    try:
        async with asyncio.timeout(20):
            await test(worlds, monkeypatch)
    except Exception as error:
        found = error
    finally:
        left = asyncio.all_tasks() - before
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)
    assert found is not None, f"nobody noticed: {plant.__doc__}"


@pytest.mark.parametrize("test", [test for _, _, test in FOUND], ids=[name for _, name, _ in FOUND])
async def test_the_same_without_a_bug(
    test: Any, worlds: Callable[..., MemoryWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The named tests pass as they are called here: what finds the planted bugs is not the calling."""
    for module in (test_recovery.effects, test_recovery.workers):
        module.clear()
    for said in (test_cancel.told, test_limits.ran):
        said.clear()
    stage.clear()
    await test(worlds, monkeypatch)
