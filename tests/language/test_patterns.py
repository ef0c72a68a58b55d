"""The workflow control-flow patterns, each played, and crashed behind every commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from engine import Engine, RunHandle, Workflow
from engine.errors import RunCancelledError, RunEnded
from tests.language import patterns
from tests.language.patterns import change_seat, go, phase, stop
from tests.runtime.faulty import at_call
from tests.runtime.plays import Play, stage
from tests.runtime.test_crash_everywhere import CALLS_MAX, go_on, perform, undisturbed

User = Callable[[RunHandle[Any]], Awaitable[object]]


@pytest.fixture(autouse=True)
def _empty_stage() -> None:
    stage.clear()


async def nobody(_run: RunHandle[Any]) -> None:
    """Says nothing."""


def saying(*messages: tuple[Any, str]) -> User:
    async def say(run: RunHandle[Any]) -> None:
        for number, (signal, value) in enumerate(messages):
            await run.signal(signal, value, id=f"message-{number}")

    return say


def once(number: int, user: User) -> User:
    """When so many tasks have been completed."""

    async def wait(run: RunHandle[Any]) -> None:
        while True:
            state = await run.state()
            if state.ended_at or sum(each.status == "completed" for each in state.tasks.values()) >= number:
                return await user(run)
            await asyncio.sleep(0.001)

    return wait


async def listened_to(run: RunHandle[Any]) -> None:
    while await run.read(phase) != "listening":
        await asyncio.sleep(0.001)
    await run.signal(go, "now", id="now")


async def changing_seats(run: RunHandle[Any]) -> None:
    assert await run.ask(change_seat, "12a", id="seat") == "12a"
    await run.signal(go, "board", id="boarding")


async def cancelling(run: RunHandle[Any]) -> None:
    while not (await run.state()).timers:
        if (await run.state()).ended_at:
            return
        await asyncio.sleep(0.001)
    if not (await run.state()).cancel_requested:
        await run.cancel(reason="enough")


def play(
    number: int,
    definition: Workflow[..., Any],
    *arguments: Any,
    user: User = nobody,
    early: tuple[Any, ...] = (),
    abandoned: tuple[Workflow[..., Any], ...] = (),
) -> Any:
    """A pattern with its user, who repeats himself after a crash."""

    async def act(engine: Engine) -> str:
        with suppress(RunEnded):
            await engine.start(definition(*arguments), id="play", signals=early)
        run = engine.run("play")
        with suppress(RunEnded):
            await user(run)
        try:
            ended = repr(await run.result())
        except RunCancelledError:
            ended = "cancelled"
        for child in abandoned:
            ended += f", {await engine.run(f'play/{child.name}#1').result()}"
        return ended

    return pytest.param(Play(definition, act, abandoned), id=f"WCP-{number} {definition.name}")


early = go.message("early", id="early")
told = saying((stop, "enough"))

PLAYS = {
    1: (play(1, patterns.sequence), "['pack', 'send']"),
    2: (play(2, patterns.parallel_split), "'both'"),
    3: (play(3, patterns.synchronization), "'send parcel with bill'"),
    4: (play(4, patterns.exclusive_choice), "'by sea'"),
    5: (play(5, patterns.simple_merge, True), "'deliver by air'"),
    6: (play(6, patterns.multi_choice), "['police', 'fire']"),
    7: (play(7, patterns.structured_synchronizing_merge, ["a", "b"]), "'report of a, b'"),
    8: (play(8, patterns.multi_merge), "['paint left', 'paint right']"),
    9: (play(9, patterns.structured_discriminator), "['triage, 1 to come', 'pulse', 'breath']"),
    10: (play(10, patterns.arbitrary_cycles), "['draft', 'review', 'research', 'review']"),
    11: (play(11, patterns.implicit_termination), "['attic', 'hall', 'kitchen', 'stairs']"),
    12: (
        play(12, patterns.instances_without_synchronization, abandoned=(patterns.inspection,)),
        "'inspections go on without us', 0",
    ),
    13: (play(13, patterns.instances_known_at_design_time), "['signature 0', 'signature 1', 'signature 2']"),
    14: (play(14, patterns.instances_known_at_run_time), "['witness 0', 'witness 1', 'witness 2', 'witness 3']"),
    15: (
        play(15, patterns.instances_not_known_before, user=saying((go, "rome"), (go, "oslo"), (go, "home"))),
        "['rome', 'oslo']",
    ),
    16: (play(16, patterns.deferred_choice, early=(early,)), "'thank'"),
    17: (
        play(17, patterns.interleaved_parallel_routing),
        "['draw begins', 'draw ends', 'x-ray begins', 'x-ray ends', 'analyse begins', 'analyse ends']",
    ),
    18: (play(18, patterns.milestone, user=changing_seats), "'boarded at 12a'"),
    19: (play(19, patterns.cancel_task, user=told), "'withdrawn, True'"),
    20: (play(20, patterns.cancel_case, user=cancelling), "cancelled"),
    21: (play(21, patterns.structured_loop), "12"),
    22: (play(22, patterns.recursion, 3), "4"),
    23: (play(23, patterns.transient_trigger, user=listened_to, early=(early,)), "'now'"),
    24: (play(24, patterns.persistent_trigger, early=(early,)), "'early'"),
    25: (play(25, patterns.cancel_region, user=told), "['report', 'True']"),
    26: (play(26, patterns.cancel_instances, user=told), "'found elsewhere, 3 cancelled'"),
    27: (play(27, patterns.complete_instances, user=once(2, told)), "['evaluate', 'one', 'two']"),
    28: (play(28, patterns.blocking_discriminator), "['assess 1', 'b 1', 'assess 2', 'b 2']"),
    29: (play(29, patterns.cancelling_discriminator), "'answered by phone, 1 cancelled'"),
    30: (play(30, patterns.structured_partial_join), "['open, 1 to come', 'cook', 'waiter', 'manager']"),
    31: (play(31, patterns.blocking_partial_join), "['assess 1', 'assess 2']"),
    32: (play(32, patterns.cancelling_partial_join), "'two are enough, 1 cancelled'"),
    33: (play(33, patterns.generalized_and_join), "['wheel 1 and frame 1', 'wheel 2 and frame 2']"),
    34: (
        play(34, patterns.static_partial_join),
        "['three of five are in, 2 to come', 'review 0', 'review 1', 'review 2', 'review 3', 'review 4']",
    ),
    35: (play(35, patterns.cancelling_partial_join_of_instances), "'three samples are enough, 2 cancelled'"),
    36: (play(36, patterns.dynamic_partial_join), "'enough votes'"),
    37: (play(37, patterns.local_synchronizing_merge, True), "'settle 2'"),
    38: (play(38, patterns.general_synchronizing_merge), "'hand over'"),
    39: (play(39, patterns.critical_section), "['moor a', 'unload a', 'moor b', 'unload b']"),
    40: (play(40, patterns.interleaved_routing), "['open hood', 'close hood', 'open boot', 'close boot']"),
    41: (play(41, patterns.thread_merge), "'bind 3'"),
    42: (play(42, patterns.thread_split), "['seat 0', 'seat 1', 'seat 2']"),
    43: (play(43, patterns.explicit_termination), "'void, 2 searches are cancelled'"),
}


def test_there_is_a_play_for_every_pattern() -> None:
    assert list(PLAYS) == list(range(1, 44))


@pytest.mark.parametrize(
    ("performed", "expected"),
    [pytest.param(*param.values, expected, id=param.id) for param, expected in PLAYS.values()],
)
async def test_a_pattern_crashed_behind_every_commit(performed: Play, expected: str, worlds) -> None:
    ended, calls, _ = await undisturbed(worlds(), performed)
    assert ended == expected
    for number in range(1, CALLS_MAX):
        stage.clear()
        world = worlds()
        crashed = await perform(world, performed, at_call(number, "die after", only="commit"))
        assert await go_on(world, performed) == expected, f"commit {number}"
        for key, times in crashed.recorded.items():
            assert stage.effects[key] == times, f"commit {number}: ran again although recorded"
        if not crashed.faults:
            break
    assert number > calls.count("commit") // 2
