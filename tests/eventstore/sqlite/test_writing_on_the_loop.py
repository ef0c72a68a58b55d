"""`writes_on="loop"`: what is different about it. What is not, every other test here says, for it runs with both."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from eventstore import InvalidArgument, StoreUnavailable, Transaction
from eventstore.conformance.harness import ANY, begin, data, event, history, step
from eventstore.sqlite import SqliteStore, WritesOn
from eventstore.sqlite.checkpoints import Checkpoints
from eventstore.sqlite.guard import Guard
from eventstore.sqlite.log import Log
from eventstore.sqlite.transaction import Transactor
from eventstore.sqlite.writer import Writer
from eventstore.urls import open_store
from tests.eventstore.sqlite.children import child
from tests.eventstore.sqlite.conftest import Opener

asked_by: contextvars.ContextVar[str] = contextvars.ContextVar("asked_by", default="nobody")


@pytest.fixture
def writes_on() -> WritesOn:
    return "loop"


class Seen:
    """The threads that a store's transactions ran on, and how often."""

    def __init__(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[int] = []
        self.threads: set[threading.Thread] = set()
        self._run = store._transactor.run
        monkeypatch.setattr(store._transactor, "run", self._note)

    def _note(self, requests: list[Any]) -> Any:
        self.batches.append(len(requests))
        self.threads.add(threading.current_thread())
        return self._run(requests)


async def test_transactions_run_on_the_thread_of_the_loop(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(store, monkeypatch)
    await begin(store, "run:a")
    await store.commit(step("run:a", 1, event("next")))
    await store.send(data("run:a", "m"))
    assert seen.threads == {threading.current_thread()}
    assert await history(store, "run:a") == ["begun", "next"]


async def test_the_loop_stands_still_while_another_process_writes(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is its price, and what the option is off by default for."""
    turns = 0
    let_go, asked, turned = threading.Event(), threading.Event(), threading.Event()
    seen: list[int] = []

    def another() -> None:
        with closing(Guard(f"{path}-guard")) as guard, guard.held(1):
            let_go.set()
            asked.wait()
            turned.wait(0.1)  # on a thread of its own the store would let the loop turn within that

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            if asked.is_set():
                turned.set()
            await asyncio.sleep(0)

    run = store._transactor.run

    def counted(requests: list[Any]) -> Any:
        seen.append(turns)
        asked.set()
        outcome = run(requests)  # waits for the other
        seen.append(turns)
        return outcome

    monkeypatch.setattr(store._transactor, "run", counted)
    thread = threading.Thread(target=another)
    thread.start()
    let_go.wait()
    counting = asyncio.create_task(others())
    await begin(store, "run:a")
    counting.cancel()
    with suppress(asyncio.CancelledError):
        await counting
    thread.join()
    before, after = seen
    assert before == after > 0


async def test_those_who_are_told_have_something_for_the_next_batch(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty that go on as soon as they are told share each of their commits."""
    names = [f"run:{number}" for number in range(20)]
    await asyncio.gather(*(begin(store, name) for name in names))
    seen = Seen(store, monkeypatch)

    async def go_on(name: str) -> None:
        for version in range(1, 6):
            await store.commit(step(name, version, event()))

    await asyncio.gather(*(go_on(name) for name in names))
    assert seen.batches == [20] * 5


async def test_what_runs_in_a_transaction_does_not_see_who_asked(store: SqliteStore) -> None:
    asked_by.set("me")
    await begin(store, "run:a")

    def own(_: Transaction) -> bytes:
        return asked_by.get().encode()

    head = await store.commit(step("run:a", 1, event(), transaction=own))
    assert head.version == 2
    assert [item.payload async for item in store.read("run:a")][1] == b"nobody"


async def test_the_others_have_their_turn_while_much_is_taken_away(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventstore.sqlite.keeping.KEEP_EVENTS_MAX", 10)
    await begin(store, "run:a")
    await store.commit(step("run:a", 1, *(event() for _ in range(100))))
    await store.commit(step("run:a", 101, event(), closed=True))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(others())
    assert await store.prune("run:a", until=101) > 0
    counting.cancel()
    assert turns >= 10


class Pressed(KeyboardInterrupt):
    """As a second Ctrl-C raises it, wherever the thread of the loop is."""


@pytest.mark.parametrize(
    ("where", "committed"),
    [
        ((Writer, "_take"), False),
        ((Transactor, "_write"), False),
        ((Log, "verify"), True),
        ((Writer, "_tell"), True),
        ((Checkpoints, "after"), True),
    ],
)
def test_a_ctrl_c_during_a_write_hangs_nobody_and_loses_nothing(
    path: Path, where: tuple[type, str], committed: bool, writes_on: WritesOn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was acknowledged is there; what was not is whole or absent; the store says that it is to be opened anew."""
    ended: list[str] = []

    def press(*_: object, **__: object) -> int:
        monkeypatch.undo()
        raise Pressed

    async def main() -> None:
        store = await SqliteStore.open(path, writes_on=writes_on)
        try:
            await begin(store, "run:a")
            monkeypatch.setattr(*where, press)
            try:
                await store.commit(step("run:a", 1, event("interrupted")))
            except asyncio.CancelledError:  # `asyncio.run` cancels what is still there, and waits for it
                ended.append("cancelled")
                with pytest.raises(StoreUnavailable, match="interrupted: open the store anew"):
                    await store.commit(step("run:a", 1, event("too soon")))
        finally:
            await store.aclose()
            ended.append("closed")

    async def look() -> list[str]:
        store = await SqliteStore.open(path)
        try:
            found = await history(store, "run:a")
            await store.commit(step("run:a", len(found), event("goes on")))
            assert (await store.find(ANY)).items[0].version == len(found) + 1
            return found
        finally:
            await store.aclose()

    with pytest.raises(Pressed):
        asyncio.run(main())
    assert ended == ["cancelled", "closed"]
    assert asyncio.run(look()) == (["begun", "interrupted"] if committed else ["begun"])


def test_a_ctrl_c_in_a_function_of_the_callers_is_not_taken_for_its_refusal(path: Path, writes_on: WritesOn) -> None:
    async def main() -> None:
        store = await SqliteStore.open(path, writes_on=writes_on)
        try:
            await begin(store, "run:a")

            def own(_: Transaction) -> bytes:
                raise Pressed

            await store.commit(step("run:a", 1, event(), transaction=own))
        finally:
            await store.aclose()

    with pytest.raises(Pressed):
        asyncio.run(main())


WRITER = """
    async def main():
        store = await SqliteStore.open(sys.argv[1], writes_on="loop")
        count = 0
        while True:
            event = NewEvent(b'{"n": %d}' % count)
            await store.commit(Commit(id=f"c{count}", stream="run:a", expected_version=count or NEW, events=(event,)))
            count += 1
            say(count)

    asyncio.run(main())
"""


async def test_a_killed_process_loses_nothing_that_was_acknowledged(path: Path, opened: Opener) -> None:
    async with child(WRITER, path) as writer:
        while await writer.line() != "50":
            pass
        await writer.kill()
    store = await opened()
    headers = [item.header async for item in store.read("run:a")]
    assert len(headers) >= 50
    assert headers == [b'{"n": %d}' % number for number in range(len(headers))]


@pytest.fixture
async def by_url(path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_store(f"sqlite:///{path}?writes_on=loop&synchronous=NORMAL")
    assert isinstance(store, SqliteStore)
    yield store
    await store.aclose()


async def test_a_url_may_ask_for_it(by_url: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(by_url, monkeypatch)
    await begin(by_url, "run:a")
    assert seen.threads == {threading.current_thread()}


async def test_another_place_is_refused(path: Path) -> None:
    with pytest.raises(InvalidArgument, match="writes_on must be thread or loop, not 'here'"):
        await SqliteStore.open(path, writes_on="here")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="writes_on is thread or loop, not 'here'"):
        await open_store(f"sqlite:///{path}?writes_on=here")
    assert not path.exists()
