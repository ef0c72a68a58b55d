"""What workflow code says to `logging` is said once, and not again by a replay."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from engine import RunHandle, Signal, task, workflow
from engine.core.replay import Replayer
from engine.runtime.logs import quiet_replays
from tests.runtime.worlds import MemoryWorld, World, at_rest, forget, soon, until_async

logger = logging.getLogger("tests.logs")


@pytest.fixture(autouse=True)
def _factory() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(before)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="tests.logs")
    return caplog


@task
async def work(n: int) -> int:
    logger.info("task %s", n)
    return n


@workflow
async def telling() -> int:
    logger.debug("begun")
    for n in range(3):
        await work(n)
        logger.info("after %s", n)
        await asyncio.sleep(1_000)
    try:
        raise ValueError("wrong")
    except ValueError:
        logger.exception("caught")
    return 3


WHAT_IT_SAYS = ["begun", "task 0", "after 0", "task 1", "after 1", "task 2", "after 2", "caught"]


async def to_the_end(world: World, engine: Any, id_: str) -> Any:
    """Let time pass whenever the run rests, until it has ended."""
    run = engine.run(id_)

    async def ended() -> bool:
        if (await engine.store.head(f"run:{id_}")).owner is None:
            world.clock.advance(1_000)
        return (await run.status()) != "running"

    await until_async(ended)
    return await run.result()


async def test_each_line_is_said_once_however_often_it_is_replayed(world: World, said: Any) -> None:
    async with world.engine(telling, cached=0) as engine:
        await engine.start(telling(), id="a")
        await at_rest(engine.store, "a")
    for _ in range(3):  # others that open the store replay it, and change nothing
        world.clock.advance(1_000)
        async with world.engine(telling, cached=0) as engine:
            await at_rest(engine.store, "a")
    async with world.engine(telling, cached=0) as engine:
        assert await to_the_end(world, engine, "a") == 3
    assert said.messages == WHAT_IT_SAYS


async def test_a_record_names_its_run_and_keeps_its_error(memory: MemoryWorld, said: Any) -> None:
    async with memory.engine(telling) as engine:
        await engine.start(telling(), id="a")
        await to_the_end(memory, engine, "a")
    by_text = {record.getMessage(): record for record in said.records}
    assert by_text["begun"].run_id == by_text["after 2"].run_id == "a"
    assert not hasattr(by_text["task 1"], "run_id")
    assert by_text["caught"].levelno == logging.ERROR
    assert by_text["caught"].exc_info[0] is ValueError


async def test_code_that_brings_its_own_run_id_keeps_it(memory: MemoryWorld, said: Any) -> None:
    @workflow
    async def own() -> None:
        logger.info("mine", extra={"run_id": "mine", "other": 1})
        logger.info("other", extra={"other": 2})
        logging.LoggerAdapter(logger, {"run_id": "adapted"}).info("adapted")

    async with memory.engine(own) as engine:
        await soon((await engine.start(own(), id="a")).result())
    assert [record.run_id for record in said.records] == ["mine", "a", "adapted"]


async def test_whether_a_level_is_enabled_is_the_same_at_a_replay(memory: MemoryWorld, said: Any) -> None:
    seen: list[tuple[bool, bool]] = []

    @workflow
    async def asking() -> None:
        seen.append((logger.isEnabledFor(logging.DEBUG), logging.getLogger("tests.logs").getEffectiveLevel() == 10))
        await asyncio.sleep(1_000)

    async with memory.engine(asking, cached=0) as engine:
        await engine.start(asking(), id="a")
        await at_rest(engine.store, "a")
        await to_the_end(memory, engine, "a")
    assert seen == [(True, True)] * 2


async def test_the_last_words_of_a_dying_coroutine_are_nobodys(memory: MemoryWorld, said: Any) -> None:
    @workflow
    async def dying() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            logger.info("last words")

    async with memory.engine(dying, cached=0) as engine:
        await engine.start(dying(), id="a")
        await at_rest(engine.store, "a")
        forget()
    assert said.messages == []
    async with memory.engine(dying) as engine:
        await to_the_end(memory, engine, "a")
    assert said.messages == ["last words"]


async def test_a_finished_workflow_says_what_its_branches_say_at_the_end(memory: MemoryWorld, said: Any) -> None:
    """Branches that the workflow left are cancelled live, and a generator that nobody holds is closed live."""

    async def left() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            logger.info("left")

    async def generator() -> Any:
        try:
            yield 1
        finally:
            logger.info("closed")

    @workflow
    async def ending() -> None:
        branch = asyncio.create_task(left())
        async for _ in generator():
            break
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not branch.done()

    async with memory.engine(ending) as engine:
        await soon((await engine.start(ending())).result())
    assert sorted(said.messages) == ["closed", "left"]


async def test_captured_warnings_are_not_repeated(memory: MemoryWorld, caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def warning() -> None:
        warnings.warn("mind the gap", stacklevel=1)
        await asyncio.sleep(1_000)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        try:
            async with memory.engine(warning, cached=0) as engine:
                await engine.start(warning(), id="a")
                await at_rest(engine.store, "a")
                await to_the_end(memory, engine, "a")
        finally:
            logging.captureWarnings(False)
    assert len([record for record in caplog.records if "mind the gap" in record.getMessage()]) == 1


word = Signal("word", str)


async def _has_heard(run: RunHandle[Any]) -> bool:
    return bool((await run.state()).signals)


@workflow
async def cautious(name: str) -> None:
    warnings.warn("mind the gap", UserWarning, stacklevel=1)
    await asyncio.sleep(1_000)
    warnings.warn(f"mind the step of {name}", UserWarning, stacklevel=1)


@pytest.mark.parametrize("action", ["always", "default", "module", "once"])
async def test_a_warning_is_shown_once_however_often_it_is_replayed(action: Any, memory: MemoryWorld) -> None:
    shown: list[str] = []
    globals().pop("__warningregistry__", None)
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        warnings.showwarning = lambda message, *_args, **_options: shown.append(str(message))
        async with memory.engine(cautious, cached=0) as engine:
            await engine.start(cautious("a"), id="a")
            await at_rest(engine.store, "a")
            assert shown == ["mind the gap"]
            await engine.run("a").signal(word, "replay")
            await until_async(lambda: _has_heard(engine.run("a")))
            await at_rest(engine.store, "a")
        async with memory.engine(cautious, cached=0) as engine:
            await to_the_end(memory, engine, "a")
        assert shown == ["mind the gap", "mind the step of a"]


async def test_a_warning_that_only_a_replay_gave_is_still_to_be_shown(memory: MemoryWorld) -> None:
    """As in a process that takes a run over: what another run warns of there, live, is not held to be shown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        async with memory.engine(cautious, cached=0) as engine:
            await engine.start(cautious("a"), id="a")
            await at_rest(engine.store, "a")
    shown: list[str] = []
    globals().pop("__warningregistry__", None)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, *_args, **_options: shown.append(str(message))
        async with memory.engine(cautious, cached=0) as engine:
            await to_the_end(memory, engine, "a")
            assert shown == ["mind the step of a"]
            await engine.start(cautious("b"), id="b")
            await at_rest(engine.store, "b")
        assert shown == ["mind the step of a", "mind the gap"]


async def test_a_warning_that_is_an_error_is_one_at_a_replay_too(memory: MemoryWorld) -> None:
    @workflow
    async def strict() -> str:
        try:
            warnings.warn("mind the gap", UserWarning, stacklevel=1)
        except UserWarning:
            await asyncio.sleep(1_000)
            return "raised"
        return "not raised"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with memory.engine(strict, cached=0) as engine:
            await engine.start(strict(), id="a")
            await at_rest(engine.store, "a")
            assert await to_the_end(memory, engine, "a") == "raised"


def test_warnings_outside_of_workflows_are_shown_as_ever() -> None:
    quiet_replays()
    quiet_replays()
    with pytest.warns(UserWarning, match="as ever"):
        warnings.warn("as ever", UserWarning, stacklevel=1)


async def test_a_live_instance_out_of_a_replayer_speaks(memory: MemoryWorld) -> None:
    replayer = Replayer(telling, "a", versions=None, tables=None)
    assert replayer.instance.replaying
    replayer.finish()
    assert not replayer.instance.replaying


# -- the chain --------------------------------------------------------------------------------------------------------


def chained(calls: list[str]) -> None:
    before = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        calls.append(str(record.msg))
        record.extra_thing = "kept"
        return record

    logging.setLogRecordFactory(factory)


def test_installing_again_changes_nothing() -> None:
    logging.setLogRecordFactory(logging.LogRecord)
    quiet_replays()
    factory = logging.getLogRecordFactory()
    quiet_replays()
    assert logging.getLogRecordFactory() is factory


async def test_factories_below_and_above_are_kept(memory: MemoryWorld, said: Any) -> None:
    calls: list[str] = []
    logging.setLogRecordFactory(logging.LogRecord)
    chained(calls)
    async with memory.engine(telling, cached=0) as engine:
        await engine.start(telling(), id="a")
        await at_rest(engine.store, "a")
    chained(calls)  # on top of ours
    factory = logging.getLogRecordFactory()
    async with memory.engine(telling, cached=0) as engine:
        assert logging.getLogRecordFactory() is factory
        await to_the_end(memory, engine, "a")
    assert said.messages == WHAT_IT_SAYS
    assert all(record.extra_thing == "kept" for record in said.records)


async def test_a_factory_that_threw_ours_away_gets_it_again(memory: MemoryWorld, said: Any) -> None:
    async with memory.engine(telling, cached=0) as engine:
        await engine.start(telling(), id="a")
        await at_rest(engine.store, "a")
    logging.setLogRecordFactory(logging.LogRecord)
    async with memory.engine(telling, cached=0) as engine:
        await to_the_end(memory, engine, "a")
    assert said.messages == WHAT_IT_SAYS


def test_a_factory_that_chokes_on_the_probe_is_no_obstacle() -> None:
    def picky(*args: Any, **kwargs: Any) -> logging.LogRecord:
        assert isinstance(args[4], str)
        return logging.LogRecord(*args, **kwargs)

    logging.setLogRecordFactory(picky)
    quiet_replays()
    assert logging.getLogRecordFactory() is not picky
    logger.info("goes through")
