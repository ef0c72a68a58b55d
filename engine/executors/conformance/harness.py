"""What an executor's author hands to the checks, and the words that these are written in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias

import msgspec

from engine.core.carriage import INLINE
from engine.core.failures import ErrorInfo, encode_error
from engine.executors.conformance.works import COROUTINES, FUNCTIONS
from engine.executors.port import Encoded, Executor, Work, WorkFailed
from engine.tasks import Attempt, Contact, GivenNames

__all__ = ["PATIENCE_SECONDS", "Check", "ExecutorHarness", "Guest"]

PATIENCE_SECONDS: Final = 20.0
"""How long a check waits for what must happen before it fails. A limit, not a wait."""
_LOOK_SECONDS: Final = 0.002


class Guest:
    """One attempt: the work to run, and what its code has said and was told."""

    def __init__(self, work: Work, heard: list[Any]) -> None:
        self.work = work
        self.heard = heard  # details of heartbeats, decoded
        self.contact = work.contact

    async def inside(self) -> None:
        """Wait until its code runs, for works that say so."""
        await until(lambda: "in" in self.heard)

    def release(self) -> None:
        """Let it go on, for works that wait."""
        self.contact.stopping.give()


class ExecutorHarness:
    """How the suite gets at an executor. `make` takes a number of slots.

    `coroutines`: whether it runs coroutine functions, or plain ones. `ends_work`: whether work that does not look is
    ended when its caller is cancelled; otherwise it must keep its slot until it ends by itself.
    """

    def __init__(self, make: Callable[[int], Executor], *, coroutines: bool = False, ends_work: bool = False) -> None:
        self._make = make
        self.coroutines = coroutines
        self.ends_work = ends_work
        self._made: list[Executor] = []

    def open(self, slots: int = 1) -> Executor:
        """A fresh executor; the harness closes it."""
        executor = self._make(slots)
        assert executor.slots.total == executor.slots.free == slots
        self._made.append(executor)
        return executor

    def guest(self, name: str, *args: Any) -> Guest:
        """An attempt of one of the works."""
        definition = (COROUTINES if self.coroutines else FUNCTIONS)[name]
        heard: list[Any] = []

        def hear(details: bytes | None) -> None:
            heard.append(None if details is None else msgspec.json.decode(details))

        attempt = Attempt(
            run_id="run-1",
            task_id=f"w/{name}#1",
            task=definition.name,
            number=2,
            scheduled_at=1_767_225_600_000_000,
            _names=GivenNames("0123456789abcdef" * 2, "a-token"),
            _contact=Contact(hear),
            _last_heartbeat=b'{"page":7}',
            _last_failure=encode_error(ErrorInfo(type="ValueError", message="last time")),
        )
        arguments = definition.arguments.encode(args, {}, INLINE)
        values, named = definition.arguments.decode(arguments, INLINE)
        return Guest(Work(definition, arguments, values, named, attempt), heard)

    async def aclose(self) -> None:
        """Close what was opened."""
        for executor in self._made:
            await executor.aclose()


Check: TypeAlias = Callable[[ExecutorHarness], Coroutine[Any, Any, None]]


def begin(executor: Executor, guest: Guest) -> asyncio.Task[Any]:
    """Take a slot, and begin the attempt there."""
    assert executor.slots.try_take()
    return asyncio.ensure_future(executor.run(guest.work))


async def result_of(executor: Executor, guest: Guest) -> Any:
    """Run it in a slot, and return its result."""
    assert executor.slots.try_take()
    return decoded(guest, await soon(executor.run(guest.work)))


async def failure_of(executor: Executor, guest: Guest) -> BaseException:
    """Run it in a slot, and return what it raised. Awaited here: some end the loop if a task ends with them."""
    assert executor.slots.try_take()
    try:
        value = await executor.run(guest.work)
    except WorkFailed as error:
        return error.as_itself()
    except BaseException as error:
        return error
    raise AssertionError(f"it returned {value!r}")


def decoded(guest: Guest, value: Any) -> Any:
    """A result, wherever it was encoded."""
    return guest.work.task.result.decode(value.payload) if isinstance(value, Encoded) else value


async def all_free(executor: Executor) -> None:
    """Wait until every slot is free."""
    await until(lambda: executor.slots.free == executor.slots.total)


async def soon(awaitable: Coroutine[Any, Any, Any] | asyncio.Future[Any]) -> Any:
    """What must happen; fails instead of hanging."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await awaitable


async def until(condition: Callable[[], Any]) -> None:
    """Wait until the condition holds; fails instead of hanging."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(_LOOK_SECONDS)
