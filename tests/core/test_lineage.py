"""Ids: of branches, of calls; keys and random sequences that follow from them."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import anyio
import pytest

from engine import durable, workflow
from engine.core.events import TaskScheduled, TimerStarted
from engine.core.lineage import Branch, branch_name, derived_random, idempotency_key
from engine.errors import HoldfastError
from tests.core.cases import work
from tests.core.harness import World, check_crashes, ending, last, play, seeded


def ids(fn: Any, *args: Any) -> list[str]:
    world = World(workflow(fn)(*args), seeded(1))
    history = play(world)
    check_crashes(world, history)
    return sorted(e.event.id for e in history if isinstance(e.event, TaskScheduled | TimerStarted))


async def named_elsewhere(label: str) -> None:
    await work(label)


def module_level(label: str) -> Any:
    """Not a coroutine function itself: anyio names the branch after it, with the module, which must not show."""
    return named_elsewhere(label)


def decorated() -> None: ...


@functools.wraps(decorated)
async def wrapped(label: str) -> None:
    await work(label)


async def serves(label: str, *, task_status: Any) -> None:
    task_status.started()
    await work(label)


def test_calls_are_counted_by_branch_and_name() -> None:
    branch = Branch("w")
    assert [branch.next_id("load"), branch.next_id("load"), branch.next_id("timer")] == [
        "w/load#1",
        "w/load#2",
        "w/timer#1",
    ]
    child = branch.child("load")
    assert (child.id, child.next_id("load")) == ("w/load~1", "w/load~1/load#1")
    assert branch.child("load").id == "w/load~2"
    assert branch.next_id("load") == "w/load#3", "branches and calls are counted apart"


def test_names_that_would_read_as_structure_are_made_harmless() -> None:
    async def odd() -> None:
        names = ["a/b", "a~1", "x#2", "", " ", "\n", "\x00", "\ud800", "n" * 5_000, "<locals>.f"]
        await asyncio.gather(*(asyncio.create_task(work(str(n)), name=name) for n, name in enumerate(names)))

    found = ids(odd)
    assert len(set(found)) == 10
    assert all(id_.count("/") == 2 and id_.count("~") == 1 and id_.count("#") == 1 for id_ in found)
    assert all(id_.isprintable() for id_ in found)
    assert max(map(len, found)) < 300


def test_every_way_to_make_a_branch_names_it_after_its_function() -> None:
    async def leaf(label: str) -> None:
        await work(label)

    class Worker:
        async def method(self, label: str) -> None:
            await work(label)

        async def __call__(self, label: str) -> None:
            await work(label)

    async def makes() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(leaf("a"))
            group.create_task(Worker().method("b"))
            group.create_task(Worker()("c"))
            group.create_task(functools.partial(leaf, "d")())
            group.create_task(work("e"))
            group.create_task(leaf("f"), name="chosen")
        await asyncio.gather(leaf("g"), asyncio.ensure_future(leaf("h")), asyncio.shield(leaf("i")))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leaf, "j")
            tasks.start_soon(Worker().method, "k")
            tasks.start_soon(functools.partial(leaf, "l"))
            tasks.start_soon(leaf, "m", name="chosen")
            tasks.start_soon(work, "n")
            tasks.start_soon(Worker(), "o")
            tasks.start_soon(lambda label: leaf(label), "p")
            tasks.start_soon(wrapped, "q")
            tasks.start_soon(module_level, "r")
            await tasks.start(serves, "s")

    assert ids(makes) == sorted(
        [f"makes/leaf~{n}/work#1" for n in range(1, 8)]
        + [f"makes/Worker.method~{n}/work#1" for n in (1, 2)]
        + [f"makes/Worker.__call__~{n}/work#1" for n in (1, 2)]
        + [f"makes/{name}~1/work#1" for name in ("<lambda>", "decorated", "module_level", "serves")]
        + [f"makes/work~{n}/work#1" for n in (1, 2)]
        + [f"makes/chosen~{n}/work#1" for n in (1, 2)]
    )


def test_wait_for_and_timeouts_are_transparent() -> None:
    async def waits() -> None:
        await asyncio.wait_for(work("a"), 10)
        async with asyncio.timeout(10):
            await work("b")
        await asyncio.wait_for(asyncio.sleep(1), 10)
        await asyncio.wait_for(asyncio.wait_for(work("c"), 10), 20)

    assert [id_ for id_ in ids(waits) if "timer" not in id_] == ["waits/work#1", "waits/work#2", "waits/work#3"]


def test_ids_do_not_depend_on_the_schedule() -> None:
    @workflow
    async def runs() -> None:
        async def one(label: str) -> None:
            await work(label)
            await asyncio.gather(work(label, 1), work(label, 2))

        await asyncio.gather(one("a"), one("b"))

    def named(pick: Any) -> dict[str, bytes | None]:
        return {e.event.id: e.payload for e in play(World(runs(), pick)) if isinstance(e.event, TaskScheduled)}

    expected = named(last)
    assert len(expected) == 6
    for seed in range(12):
        assert named(seeded(seed)) == expected


def test_a_name_set_after_the_first_step_is_only_a_label() -> None:
    async def renames() -> str:
        async def leaf() -> None:
            await work("a")

        branch = asyncio.create_task(leaf())
        await asyncio.sleep(0)
        branch.set_name("too late")
        await branch
        return branch.get_name()

    world = World(workflow(renames)())
    history = play(world)
    assert ending(history) == ("completed", b'"too late"')
    assert [e.event.id for e in history if isinstance(e.event, TaskScheduled)] == ["renames/leaf~1/work#1"]


def test_a_branch_without_a_name_is_called_by_its_id_whatever_else_the_process_did() -> None:
    async def tells() -> list[str]:
        async def leaf() -> str:
            return asyncio.current_task().get_name()  # type: ignore[union-attr]

        branch = asyncio.create_task(leaf())
        named = asyncio.create_task(leaf(), name="mine")
        return [branch.get_name(), await branch, await named, await leaf()]

    history = play(World(workflow(tells)()))
    assert ending(history) == ("completed", b'["Task","tells/leaf~1","mine","tells"]')


def test_branch_names_of_strange_awaitables() -> None:
    class Custom:
        def __await__(self) -> Any:
            yield

        def send(self, _value: Any) -> None:
            raise StopIteration

    assert branch_name(None, Custom()) == "Custom"  # type: ignore[arg-type]
    assert branch_name("given", Custom()) == "given"  # type: ignore[arg-type]


def test_idempotency_keys_never_change() -> None:
    assert idempotency_key("nightly-2026-01-01", 0, "nightly/load~2/extract#1") == "5d1167fc9a63b5b92db9bb27f6128561"
    assert idempotency_key("nightly-2026-01-01", 1, "nightly/load~2/extract#1") == "ac3bbac7978c8375b215c3959d4ebd8e"
    assert idempotency_key("", 0, "") == "f78b037f6d1ecfc5a00bc7d96858bdc7"
    keys = {idempotency_key(run, epoch, task) for run in ("a", "b") for epoch in (0, 1) for task in ("x#1", "x#2")}
    assert len(keys) == 8
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)


def test_random_sequences_never_change_and_are_each_branchs_own() -> None:
    draw = derived_random("00112233445566778899aabbccddeeff", "w/load~1")
    assert [draw.random(), draw.randrange(10**9), draw.getrandbits(64)] == RANDOM
    other = derived_random("00112233445566778899aabbccddeeff", "w/load~2")
    assert other.random() != RANDOM[0]
    assert derived_random("ff", "w/load~1").random() != RANDOM[0]


RANDOM: list[Any] = [0.365105818208594, 826925969, 6407147294296207698]


def test_randomness_does_not_depend_on_the_schedule() -> None:
    @workflow
    async def draws() -> list[Any]:
        async def one(label: str) -> list[Any]:
            first = durable.random().random()
            await work(label)
            return [first, durable.random().randrange(100), str(durable.uuid4())]

        return [*(await asyncio.gather(one("a"), one("b"), one("c"))), durable.random().random()]

    outcomes = {ending(play(World(draws(), seeded(seed)))) for seed in range(6)}
    assert len(outcomes) == 1


@pytest.mark.parametrize("name", ["now", "random", "uuid4", "run_id"])
def test_outside_a_workflow_durable_says_so(name: str) -> None:
    with pytest.raises(HoldfastError, match=rf"durable\.{name}\(\) works only inside a workflow"):
        getattr(durable, name)()


async def test_inside_another_loop_it_says_so_too() -> None:
    with pytest.raises(HoldfastError, match="only inside a workflow"):
        durable.now()
