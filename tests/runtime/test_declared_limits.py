"""Which limits there are: declared by engines, changed by people, named by tasks; and what is refused, in which words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import Rate, task, workflow
from engine.core.events import LimitSet, decode_header
from engine.errors import DefinitionError, HoldfastError
from tests.runtime.rooms import Room, nothing_held
from tests.runtime.worlds import World, soon, until

room = Room()


@pytest.fixture(autouse=True)
def _an_empty_room() -> None:
    room.__init__()  # type: ignore[misc]


@task(pool="room")
async def visit(who: str) -> str:
    return await room.visit(who)


@task
async def stroll(who: str) -> str:
    return await room.visit(who)


@workflow
async def visiting(names: list[str]) -> list[str]:
    return list(await asyncio.gather(*(visit(name) for name in names)))


@workflow
async def strolling(names: list[str]) -> list[str]:
    return list(await asyncio.gather(*(stroll(name) for name in names)))


@workflow
async def elsewhere(pool: str) -> str:
    try:
        return await visit.options(pool=pool)("it")
    except DefinitionError as error:
        return str(error)


async def limits_of(engine: Any) -> dict[str, Any]:
    return {limit.name: (limit.limit, limit.seconds) for limit in await engine.limits()}


async def test_what_is_declared_is_shown(world: World) -> None:
    async with world.engine(pools={"a": 2, "b": 0}, rates={"c": "10/min", "d": Rate(3, seconds=0.5)}) as engine:
        assert await limits_of(engine) == {"a": (2, None), "b": (0, None), "c": (10, 60.0), "d": (3, 0.5)}
        await engine.set_pool("a", 5, by="ops", reason="night")
        await engine.set_rate("c", "20/min", by="ops")
        assert await limits_of(engine) == {"a": (5, None), "b": (0, None), "c": (20, 60.0), "d": (3, 0.5)}
        found = next(limit for limit in await engine.limits() if limit.name == "a")
        assert (found.by, found.reason, found.at) == ("ops", "night", world.clock.now())
        events = [decode_header(item.header) async for item in engine.store.read("pool:a")]
        assert [(type(event), event.limit) for event in events] == [(LimitSet, 2), (LimitSet, 5)]


async def test_what_was_set_stays_until_the_code_says_something_new(world: World) -> None:
    async with world.engine(pools={"a": 2}) as engine:
        await engine.set_pool("a", 5)
    async with world.engine(pools={"a": 2}) as engine:
        assert await limits_of(engine) == {"a": (5, None)}
    async with world.engine(pools={"a": 3}) as engine:
        assert await limits_of(engine) == {"a": (3, None)}
        await engine.set_pool("a", 9)
    async with world.engine(pools={"a": 2}) as engine:
        assert await limits_of(engine) == {"a": (2, None)}
    async with world.engine() as engine:
        assert await limits_of(engine) == {"a": (2, None)}, "an engine that says nothing changes nothing"


async def test_engines_that_declare_at_once(world: World) -> None:
    async def declare(slots: int) -> None:
        async with world.engine(pools={f"pool-{n}": slots for n in range(5)}):
            pass

    await soon(asyncio.gather(*(declare(3) for _ in range(5))))
    async with world.engine() as engine:
        assert await limits_of(engine) == {f"pool-{n}": (3, None) for n in range(5)}


@pytest.mark.parametrize("kind", ["pool", "rate"])
async def test_an_undeclared_limit_is_refused_when_the_engine_opens(kind: str, world: World) -> None:
    named = task(pool="nowhere") if kind == "pool" else task(rate="nowhere")

    @named
    async def lost() -> None: ...

    @workflow
    async def losing() -> None:
        await lost()

    with pytest.raises(DefinitionError, match=rf"lost.*'nowhere'.*{kind}s="):
        async with world.engine(losing):
            pass
    async with world.engine(**{f"{kind}s": {"nowhere": 1 if kind == "pool" else "1/s"}}):
        pass
    async with world.engine(losing) as engine:  # another engine has declared it
        await soon((await engine.start(losing())).result())


async def test_a_pool_that_is_a_rate_is_refused(world: World) -> None:
    with pytest.raises(DefinitionError, match="is a rate: say rate='room'"):
        async with world.engine(visiting, rates={"room": "1/s"}):
            pass


async def test_one_that_is_only_named_while_the_code_runs(world: World) -> None:
    async with world.engine(elsewhere, pools={"room": 1, "other": 1}, rates={"mail": "1/s"}) as engine:
        room.let_all_go()
        assert "'nowhere'" in await soon((await engine.start(elsewhere("nowhere"))).result())
        assert await soon((await engine.start(elsewhere("other"))).result()) == "it"
        assert "mail" in await soon((await engine.start(elsewhere("mail"))).result()), "it is a rate"
        await nothing_held(engine.store)


async def test_the_pool_over_every_task(world: World) -> None:
    """It counts those with a pool of their own and those without; engines that do not declare it are not under it."""
    async with (
        world.engine(visiting, strolling, pools={"room": 2, "*": 3}) as engine,
        world.engine(visiting, strolling, pools={"room": 2}) as outside,
    ):
        runs = [await engine.start(strolling([f"s-{n}" for n in range(4)]), id="s")]
        runs.append(await engine.start(visiting([f"v-{n}" for n in range(4)]), id="v"))
        await room.holds(3)
        runs.append(await outside.start(strolling(["x"]), id="x"))
        await until(lambda: "x" in room.inside)
        assert len(room.inside) == 4
        room.let_go("x")
        for _ in range(8):
            await until(lambda: room.inside)
            inside = list(room.inside)
            assert sum(name[0] == "v" for name in inside) <= 2
            room.let_go(inside[0])
            await until(lambda gone=inside[0]: gone not in room.inside)
        await soon(asyncio.gather(*(run.result() for run in runs)))
        await nothing_held(engine.store)
    assert room.most <= 4


async def test_the_pool_over_every_task_is_changed(world: World) -> None:
    async with world.engine(strolling, pools={"*": 0}) as engine:
        run = await engine.start(strolling(["a", "b", "c"]), id="s")
        await engine.set_pool("*", 2)
        await room.holds(2)
        room.let_all_go()
        await soon(run.result())
        await nothing_held(engine.store)
    assert room.most == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pools": {"a": -1}}, r"pools=\{'a': -1\}"),
        ({"pools": {"a": 1.5}}, "1.5"),
        ({"pools": {"a": True}}, "True"),
        ({"pools": {"": 1}}, "name"),
        ({"pools": {"a" * 300: 1}}, "bytes"),
        ({"pools": {"a\nb\x00": 1}}, "pool"),
        ({"pools": {5: 1}}, "5"),
        ({"rates": {"a": "fast"}}, "'fast'"),
        ({"rates": {"a": "10/0s"}}, "window"),
        ({"rates": {"a": "-1/s"}}, "-1/s"),
        ({"rates": {"a": 10}}, "10"),
        ({"rates": {"a": Rate(-1)}}, "-1"),
        ({"rates": {"a": Rate(1, seconds=float("inf"))}}, "inf"),
        ({"rates": {"a": Rate(1, seconds=float("nan"))}}, "nan"),
        ({"rates": {"a": Rate(1, seconds=1e30)}}, "1e"),
        ({"pools": {"a": 2**70}}, "1180591620717411303424"),
        ({"rates": {"*": "1/s"}}, "only a pool"),
        ({"pools": {"a": 1}, "rates": {"a": "1/s"}}, "'a'"),
    ],
)
async def test_what_is_no_limit_is_refused(options: Any, words: str, world: World) -> None:
    with pytest.raises(HoldfastError, match=words):
        async with world.engine(**options):
            pass


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("room", -1, "-1"),
        ("room", "3", "'3'"),
        ("nowhere", 1, "no pool 'nowhere'.*room"),
        ("mail", 1, "no pool 'mail'"),
    ],
)
async def test_what_cannot_be_set_is_refused(name: str, value: Any, words: str, world: World) -> None:
    async with world.engine(pools={"room": 1}, rates={"mail": "1/s"}) as engine:
        with pytest.raises(HoldfastError, match=words):
            await engine.set_pool(name, value)
        with pytest.raises(HoldfastError, match="no rate 'room'.*mail"):
            await engine.set_rate("room", "1/s")
        with pytest.raises(HoldfastError, match="set_rate.*'often'"):
            await engine.set_rate("mail", "often")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pool": ""}, "pool is the name"),
        ({"pool": "*"}, "other than"),
        ({"pool": 3}, "not 3"),
        ({"pool": "x" * 201}, "200 bytes"),
        ({"rate": "fast/er"}, "fast/er"),
        ({"rate": 5}, "not 5"),
        ({"pool": "a", "rate": "a"}, "one name"),
        ({"priority": 1.5}, "priority"),
        ({"priority": True}, "priority"),
        ({"fairness_key": 5}, "fairness_key"),
    ],
)
def test_what_a_task_cannot_have_is_refused(options: Any, words: str) -> None:
    async def some() -> None: ...

    with pytest.raises(DefinitionError, match=words):
        task(**options)(some)


def test_a_task_whose_name_is_too_long_for_a_rate_of_its_own() -> None:
    async def some() -> None: ...

    with pytest.raises(DefinitionError, match="bytes"):
        task(rate="1/s", name="x" * 400)(some)


@pytest.mark.parametrize(
    ("text", "count", "seconds"),
    [("10/s", 10, 1), ("100/min", 100, 60), ("5000/h", 5000, 3600), ("3/10s", 3, 10), (" 4 / 0.5 s ", 4, 0.5)],
)
async def test_rates_as_they_are_written(text: str, count: int, seconds: float, world: World) -> None:
    async with world.engine(rates={"a": text}) as engine:
        assert await limits_of(engine) == {"a": (count, seconds)}
