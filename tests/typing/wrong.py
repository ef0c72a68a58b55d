"""What both checkers must refuse: each line that ends in `# wrong`, and no other."""

from __future__ import annotations

from datetime import date

from msgspec import Struct

from engine import (
    Engine,
    Feed,
    Memo,
    Query,
    Request,
    RunHandle,
    Signal,
    State,
    Transaction,
    durable,
    task,
    testing,
    workflow,
)
from engine.assets import Definitions, asset, check, not_null


class Draft(Struct):
    text: str


approve = Signal("approve", bool)
note = Signal("note", str | None)
review = Request("review", Draft, int)
greet = Request("greet", None, str)
count = Query("count", str, int)
phase = State("phase", str)
log = Feed("log", str)


@task
async def fetch(url: str) -> int:
    return len(url)


@task(effect="transactional")
def booked(tx: Transaction, order: str) -> int:
    return len(tx.execute(order))


@task(effect="transactional")  # wrong
def forgot(order: str) -> int:
    return len(order)


@workflow
async def part(day: date) -> int:
    return day.year


async def to_text(draft: Draft) -> str:
    return draft.text


@workflow
async def nightly(day: date) -> int:
    await fetch(3)  # wrong
    await booked(3)  # wrong
    await booked(None, "o-1")  # wrong
    booked.fn("o-1")  # wrong
    row: str = await booked("o-1")  # wrong
    await fetch("a", "b")  # wrong
    text: str = await fetch("a")  # wrong
    await part("today")  # wrong
    flag: str = await approve.receive()  # wrong
    await phase.publish(3)  # wrong
    await log.publish(None)  # wrong
    await durable.run("r").signal(approve, "yes")  # wrong
    handle = await durable.start(part("today"))  # wrong
    answer: str = await handle.result()  # wrong
    async with review.serve(to_text):  # wrong
        pass
    received = await review.receive()
    received.answer("three")  # wrong
    print(text, flag, answer, row)
    durable.set_attributes(tags=["a"])  # wrong
    await durable.continue_as_new(nightly("today"))  # wrong


async def client(run: RunHandle[int], engine: Engine) -> None:
    await run.signal(approve, "yes")  # wrong
    await run.signal(note, 3)  # wrong
    await run.request(review, "text")  # wrong
    await run.ask(review)  # wrong
    await run.ask(greet, 3)  # wrong
    text: str = await run.ask(review, Draft(text="a"))  # wrong
    await run.query(count)  # wrong
    await run.query(count, 3)  # wrong
    number: int = await run.read(phase)  # wrong
    async for line in run.feed(log):
        size: int = line  # wrong
        print(size)
    await engine.start(fetch)  # wrong
    await engine.start(nightly("today"))  # wrong
    await engine.start(nightly(date(2026, 1, 1)), attributes={"day": date(2026, 1, 1)})  # wrong
    await engine.runs(attributes={"day": [1]})  # wrong
    await engine.debounce(nightly("today"), key="k", seconds=1)  # wrong
    approve.message("yes")  # wrong
    await engine.complete("token", "text", task=fetch)  # wrong
    await engine.forget("fetch")  # wrong
    print(Memo(expires="1d"), Memo(60))  # wrong
    print(text, number)


async def tests() -> None:
    async with testing.engine(nightly) as lab:
        lab.fake(fetch, returns="one")  # wrong
        lab.fake(fetch, side_effect=lambda url: url)  # wrong
        lab.fake(nightly, returns=1)  # wrong
        lab.fake(fetch)  # wrong
        text: str = await lab.run(nightly(date(2026, 1, 1)))  # wrong
        print(text)
    story = testing.given(nightly(date(2026, 1, 1)))
    story.task(fetch).returns("one")  # wrong
    story.signal(approve, "yes")  # wrong
    story.then("fetch")  # wrong
    await testing.explore(nightly)  # wrong


@asset
def raw(day: date) -> list[int]:
    return [day.year]


@check(raw)
def sorted_rows(value: list[int]) -> bool:
    return sorted(value) == value


def data() -> None:
    raw("today")  # wrong
    text: str = raw(date(2026, 1, 1))  # wrong
    sorted_rows("text")  # wrong
    asset(raw, key="orders")  # wrong
    asset(tags=3)  # wrong
    asset(timout=3)  # wrong
    asset(timeout="long")  # wrong
    not_null("id", blocking="no")  # wrong
    Definitions(["orders"])  # wrong
    print(text)
