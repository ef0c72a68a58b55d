"""The workflows that are crashed at every store call, and the outside world in which their tasks have effects.

A `Play` is a workflow and what its user does: start it, perhaps cancel it, ask for its end. Users repeat themselves
after a crash, so every step of one may be done again. The `Stage` outlives crashes: it counts effects per idempotency
key, as the outside of a real task would.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

import anyio
from tenacity import stop_after_attempt, wait_fixed

from engine import (
    Engine,
    Feed,
    Happened,
    Memo,
    NotHappened,
    Request,
    Signal,
    State,
    Workflow,
    attempt,
    durable,
    task,
    workflow,
)
from engine.errors import HoldfastError, RequestRefused, ResultError, RunCancelledError, RunEnded, TaskError


class Stage:
    """The outside world."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.effects: Counter[str] = Counter()  # by idempotency key
        self.failures: Counter[str] = Counter()  # those already given, by label
        self.tokens: list[str] = []  # handed out
        self.strays = 0  # effects outside every attempt: a workflow's `finally` run by the garbage collector, say

    def effect(self) -> None:
        try:
            self.effects[attempt().idempotency_key] += 1
        except HoldfastError:
            self.strays += 1


stage = Stage()


@task
async def add(a: int, b: int = 1) -> int:
    stage.effect()
    await asyncio.sleep(0)
    return a + b


@task
def add_in_thread(a: int, b: int = 1) -> int:
    stage.effect()
    return a + b


@task
async def never() -> None:
    stage.effect()
    await asyncio.Event().wait()


@task(stop=stop_after_attempt(20), wait=wait_fixed(7))
async def flaky(label: str, failures: int) -> str:
    stage.effect()
    if stage.failures[label] < failures:
        stage.failures[label] += 1
        raise ConnectionError(f"{label} is down")
    return label.upper()


@task
async def refuse(label: str) -> None:
    stage.effect()
    raise ValueError(label)


@task
async def undo(label: str) -> str:
    stage.effect()
    return f"undone {label}"


@task(on_cancel="wait")
async def charge() -> str:
    stage.effect()
    await asyncio.Event().wait()
    return "charged"


@task(on_cancel="wait", stop=stop_after_attempt(99), wait=wait_fixed(11))
async def charge_in_vain() -> str:
    stage.effect()
    await asyncio.sleep(0)
    raise ConnectionError("nobody answers")


@workflow
async def sequential(n: int) -> list[int]:
    found = []
    for index in range(n):
        found.append(await (add(index) if index % 2 else add_in_thread(index)))
    return found


@workflow
async def fan_out(width: int) -> int:
    first = await asyncio.gather(*(add(index) for index in range(width)))
    async with asyncio.TaskGroup() as group:
        second = [group.create_task(add(value, 10)) for value in first]
    return sum(task_.result() for task_ in second)


@workflow
async def timed() -> list[str]:
    said = []
    try:
        async with asyncio.timeout(30):
            await never()
    except TimeoutError:
        said.append("timeout")
    before = durable.now()
    await asyncio.sleep(86_400)  # given up meanwhile
    said.append(str((durable.now() - before).total_seconds() >= 86_400))
    with anyio.move_on_after(5) as scope:
        await asyncio.gather(never(), flaky("slept", 1))
    said.append(f"scope {scope.cancelled_caught}")
    said.append(str(await add(1)))
    return said


@workflow
async def retried() -> list[str]:
    return await asyncio.gather(flaky("one", 2), flaky("two", 0), flaky("three", 3))


@workflow
async def raced() -> str:
    branches = {asyncio.create_task(_branch(name), name=name) for name in ("left", "right")}
    done, pending = await asyncio.wait(branches, return_when=asyncio.FIRST_COMPLETED)
    for branch in pending:
        branch.cancel()
    await asyncio.wait(pending)
    return str(sorted(branch.result() for branch in done))


async def _branch(name: str) -> str:
    if name == "left":
        await add(1)
        return await flaky(name, 1)
    await never()
    return "never"


@workflow
async def compensated() -> str:
    try:
        async with AsyncExitStack() as stack:
            for label in ("flight", "hotel"):
                await add(len(label))
                stack.push_async_callback(_undo, label)
            await refuse("no car")
    except ValueError as error:
        return f"{error}, {await undo('all')}"
    return "booked"


async def _undo(label: str) -> None:
    await undo(label)
    await asyncio.sleep(90)


@workflow
async def failing() -> None:
    try:
        await asyncio.gather(add(1), refuse("wrong"), never())
    finally:
        await undo("at the end")


@workflow
async def cleaned_up() -> None:
    try:
        await add(1)
        await asyncio.gather(never(), asyncio.sleep(1e9))
    finally:
        await add_in_thread(2)
        await asyncio.sleep(60)
        await undo("everything")


@workflow
async def careful() -> list[str]:
    """Tasks that are waited for when they are cancelled, and what makes them good."""
    said = []
    for call in (charge, charge_in_vain):
        try:
            async with asyncio.timeout(20):
                await call()
        except (TimeoutError, TaskError, ConnectionError):
            said.append(await undo(call.name))
    await asyncio.sleep(3_600)
    return said


@task(stop=stop_after_attempt(20), wait=wait_fixed(7), heartbeat_timeout=60)
async def beat(label: str, failures: int) -> str:
    """What an attempt left is there for the next, or what one before it left: a crash may have come in between."""
    here = attempt()
    stage.effect()
    assert here.last_heartbeat in (None, *range(1, here.number)), here.last_heartbeat
    here.heartbeat(here.number)
    await asyncio.sleep(0)
    here.heartbeat()
    if stage.failures[label] < failures:
        stage.failures[label] += 1
        raise ConnectionError(f"{label} is down")
    if here.last_failure is not None:
        assert here.last_failure.message == f"{label} is down"
    return label


@workflow
async def beating() -> list[str]:
    return await asyncio.gather(beat("one", 2), beat("two", 0))


User = Callable[[Engine], Awaitable[str]]


@dataclass(frozen=True)
class Play:
    """A workflow with its user. `act` returns how the run ended, in words."""

    definition: Workflow[..., Any]
    act: User
    others: tuple[Workflow[..., Any], ...] = ()  # whose runs take part; engines are not told of them

    @property
    def definitions(self) -> tuple[Workflow[..., Any], ...]:
        """Those whose histories must replay."""
        return (self.definition, *self.others)

    @property
    def name(self) -> str:
        return self.definition.name


def awaiting(definition: Workflow[..., Any], *args: Any, others: tuple[Workflow[..., Any], ...] = ()) -> Play:
    async def act(engine: Engine) -> str:
        run = await engine.start(definition(*args), id="play")
        try:
            return repr(await run.result())
        except ResultError as error:
            return f"{type(error).__name__} {error.__cause__!r}"

    return Play(definition, act, others)


def cancelling(definition: Workflow[..., Any], *, others: tuple[Workflow[..., Any], ...] = ()) -> Play:
    async def act(engine: Engine) -> str:
        run = await engine.start(definition(), id="play")
        while (state := await run.state()).timers == {} and not state.ended:
            await asyncio.sleep(0.001)
        if not state.cancel_requested:
            await run.cancel(reason="enough", by="tester")
        try:
            return repr(await run.result())
        except RunCancelledError as error:
            return f"{type(error).__name__}"

    return Play(definition, act, others)


word = Signal("word", str)
double = Request("double", int, int)
WORDS = ("a", "b", "c", "d", "e")


@workflow
async def many_epochs(said: str) -> str:
    """One word an epoch; ids of tasks repeat, and what was not received is carried on."""
    count = len(said)
    found = await word.receive()
    left = asyncio.create_task(never(), name="left behind")
    await asyncio.gather(add(count), flaky(f"epoch {count}", count % 2))
    said += found
    if len(said) == len(WORDS):
        left.cancel()
        return said
    await durable.continue_as_new(many_epochs(said))


@workflow
async def serving_epochs(n: int) -> int:
    """Requests are accepted in one epoch and answered in whichever is there."""

    async def answer(value: int) -> int:
        return await add(value, value)

    async with double.serve(answer):
        await word.receive()
        if n < 2:
            await durable.continue_as_new(serving_epochs(n + 1))
    return n


def signalled_early() -> Play:
    async def act(engine: Engine) -> str:
        signals = [word.message(each, id=f"word-{each}") for each in WORDS]
        try:
            run = await engine.start(many_epochs(""), id="play", signals=signals)
        except RunEnded:
            run = engine.run("play")
        return repr(await run.result())

    return Play(many_epochs, act)


def signalled_meanwhile() -> Play:
    async def act(engine: Engine) -> str:
        run = await engine.start(many_epochs(""), id="play")
        with suppress(RunEnded):
            for each in WORDS:
                await run.signal(word, each, id=f"word-{each}")
                await asyncio.sleep(0.002)
        return repr(await run.result())

    return Play(many_epochs, act)


def asked_meanwhile() -> Play:
    async def act(engine: Engine) -> str:
        run = await engine.start(serving_epochs(0), id="play")
        answers = [asyncio.create_task(run.ask(double, n, id=f"q-{n}")) for n in range(3)]
        try:
            for each in "ab":
                with suppress(RunEnded):
                    await run.signal(word, each, id=f"word-{each}")
            found = [await answer for answer in answers]
            with suppress(RunEnded):
                await run.signal(word, "c", id="word-c")
            return f"{found} {await run.result()}"
        finally:
            for answer in answers:
                answer.cancel()
            await asyncio.gather(*answers, return_exceptions=True)

    return Play(serving_epochs, act)


phase = State("phase", str, initial="new")
line = Feed("line", str)


@task
async def ask_someone() -> str:
    stage.effect()
    stage.tokens.append(attempt().token)
    attempt().later()


def _not_negative(value: int) -> None:
    if value < 0:
        raise ValueError(f"{value} is negative")


@workflow
async def conversing() -> list[str]:
    """A task that somebody else ends, a state, a feed, requests accepted and refused, a signal that ends it."""
    said = []

    async def answer(value: int) -> int:
        await line.publish(f"asked {value}")
        return await add(value, value)

    await phase.publish("asking")
    said.append(await ask_someone())
    await phase.publish("serving")
    async with double.serve(answer, validator=_not_negative):
        said.append(await word.receive())
    await line.publish("over")
    await phase.publish("over")
    return said


def conversed() -> Play:
    async def act(engine: Engine) -> str:
        run = await engine.start(conversing(), id="play")
        while not stage.tokens:
            await run.status()  # raises once the engine cannot go on
            await asyncio.sleep(0.001)
        with suppress(RunEnded):
            await engine.complete(stage.tokens[0], "seven", task=ask_someone)
        refused = ""
        try:
            await run.ask(double, -1, id="q-0")
        except RequestRefused as error:
            refused = str(error)
        answers = [await run.ask(double, n, id=f"q-{n}") for n in (1, 2)]
        with suppress(RunEnded):
            await run.signal(word, "enough", id="word")
        said, feed = await run.result(), [value async for value in run.feed(line)]
        return f"{refused} {answers} {said} {feed} {await run.read(phase)}"

    return Play(conversing, act)


async def _what_became(label: str) -> Happened[str] | NotHappened:
    return Happened(label.upper()) if stage.effects[attempt().idempotency_key] else NotHappened()


@task(reconcile=_what_became)
async def pay_once(label: str) -> str:
    if stage.effects[attempt().idempotency_key]:
        stage.strays += 1  # what a reconciling task must never do
    stage.effect()
    await asyncio.sleep(0)
    return label.upper()


@workflow
async def reconciled() -> list[str]:
    return [*await asyncio.gather(pay_once("a"), pay_once("b")), await pay_once("c")]


@task(memo=Memo(expires=1e9), stop=stop_after_attempt(3), wait=wait_fixed(7))
async def look_up(label: str) -> str:
    stage.effect()
    if stage.failures[label] < 1:
        stage.failures[label] += 1
        raise ConnectionError(f"{label} is down")
    return label.upper()


@workflow
async def memoised() -> list[str]:
    """Some are found, some not, depending on what a crash has left; the end is the same."""
    found = list(await asyncio.gather(look_up("a"), look_up("a"), look_up("b")))
    await asyncio.sleep(3600)
    return [*found, await look_up("b"), await look_up("c"), await look_up("c")]


@workflow
async def found_by(n: int) -> int:
    """Sets attributes in turns of all kinds, and in two epochs."""
    durable.set_attributes(stage="begun", n=n)
    found = sum(await asyncio.gather(*(add(k) for k in range(3))))
    durable.set_attributes(stage="counted", found=found)
    await asyncio.sleep(60)
    if n == 0:
        await durable.continue_as_new(found_by(1))
    durable.set_attributes(stage=None, done=True)
    return found


def searched() -> Play:
    """What is found in the end does not depend on what a crash has left; what was given is searched, too."""

    async def act(engine: Engine) -> str:
        run = await engine.start(found_by(0), id="play", attributes={"who": "ann"})
        result = await run.result()
        page = await engine.runs(attributes={"done": True, "n": 1, "found": (result, "?"), "stage": None})
        others = await engine.runs(attributes={"stage": ("begun", "counted")})
        return f"{result} {[each.id for each in page.items]} {[each.id for each in others.items]}"

    return Play(found_by, act)


PLAYS = [
    awaiting(sequential, 4),
    awaiting(reconciled),
    awaiting(fan_out, 5),
    awaiting(timed),
    awaiting(retried),
    awaiting(beating),
    awaiting(raced),
    awaiting(compensated),
    awaiting(failing),
    awaiting(careful),
    cancelling(cleaned_up),
    signalled_early(),
    signalled_meanwhile(),
    asked_meanwhile(),
    conversed(),
    awaiting(memoised),
    searched(),
]
