"""The same workflow on plain asyncio, under the same schedule: what it would mean elsewhere.

An ordinary selector loop with a clock that only we move. Task calls wait for a future that the schedule resolves, one
at a time, each time until nothing can run: what `harness.play` does, with none of the code that is under test but the
`Call` objects. What comes out must be what the instance decides.
"""

from __future__ import annotations

import asyncio
import itertools
import warnings
from typing import Any, NamedTuple
from unittest import mock

from engine.core.call import Call
from engine.core.carriage import INLINE
from engine.core.failures import decode_error, describe, rebuild
from engine.tasks import Task
from engine.workflows import Signal
from tests.core.harness import TICK, Stuck, World, option_of, outcome_of

QUIET_ROUNDS = 3  # of anyio's cancellation retrying with nobody else moving
PUT_AWAY_ROUNDS = 100  # of cancelling what goes on nevertheless


class Seen(NamedTuple):
    """How it ended, and which calls were made (those made and cancelled in one turn left out)."""

    ending: tuple[str, Any]
    calls: list[str]


class _Waiting(NamedTuple):
    option: str
    call: Call[Any]
    arguments: bytes
    future: asyncio.Future[Any]
    turn: int


class Oracle:
    def __init__(self, world: World, *, ordered: bool) -> None:
        self.world = world
        self.now = 0.0
        self.turn = 0
        self.waiting: list[_Waiting] = []
        self.calls: list[str] = []
        self.mail = list(world.mail)
        self.queues: dict[str, asyncio.Queue[Any]] = {}
        self.loop = asyncio.SelectorEventLoop()
        self.loop.time = lambda: self.now  # type: ignore[method-assign]
        if ordered:  # its sets then iterate as ours do, not by address
            serial = itertools.count()
            self.loop.holds_workflow = True  # type: ignore[attr-defined]
            self.loop.next_hash = lambda: next(serial)  # type: ignore[attr-defined]
        self.loop.set_exception_handler(lambda _loop, _context: None)

    async def outside(self, call: Call[Any]) -> Any:
        arguments = call.definition.arguments.encode(call.args, call.kwargs, INLINE)
        option = option_of(call.definition.name, arguments)
        made = _Waiting(option, call, arguments, self.loop.create_future(), self.turn)
        self.waiting.append(made)
        self.calls.append(option)
        try:
            return await made.future
        except asyncio.CancelledError:
            if made.turn == self.turn and made in self.waiting:
                self.calls.remove(option)
            raise
        finally:
            if made in self.waiting:
                self.waiting.remove(made)

    def run(self) -> Seen:
        world = self.world
        args, kwargs = world.definition.arguments.decode(
            world.definition.arguments.encode(world.call.args, world.call.kwargs, INLINE), INLINE
        )
        oracle = self

        async def outside(_task: Any, call: Call[Any]) -> Any:
            return await oracle.outside(call)

        async def receive(signal: Any) -> Any:
            return signal.codec.decode(await oracle.queue_of(signal.name).get())

        replaced = mock.patch.object(Task, "outside", outside), mock.patch.object(Signal, "receive", receive)
        with replaced[0], replaced[1], warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", RuntimeWarning
            )  # a task cancelled before its first step never awaits its call
            try:
                main = self.loop.create_task(world.definition.fn(*args, **kwargs))
                self.settle()
                while not main.done():
                    self.step(main)
                calls = list(self.calls)
                for made in self.waiting:
                    if made.turn == self.turn:  # wanted in the very turn that ends the run: nothing of it is left
                        calls.remove(made.option)
                for left in asyncio.all_tasks(self.loop):
                    left.cancel()
                self.settle()
                return Seen(self.ending(main), sorted(calls))
            finally:
                self.put_away()
                self.loop.run_until_complete(self.loop.shutdown_asyncgens())
                self.loop.close()

    def put_away(self) -> None:
        """End what did not end when it was asked to once. On a closed loop it would complain, during whatever runs then."""
        for _ in range(PUT_AWAY_ROUNDS):
            left = asyncio.all_tasks(self.loop)
            if not left:
                return
            for task in left:
                task.cancel()
            self.settle()
        raise AssertionError(f"still not at an end, after so many cancellations: {asyncio.all_tasks(self.loop)}")

    def queue_of(self, name: str) -> asyncio.Queue[Any]:
        """What a signal is on plain asyncio."""
        return self.queues.setdefault(name, asyncio.Queue())

    def possible_mail(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for mail in self.mail:
            found.setdefault(mail.option, mail)
        return found

    def step(self, main: asyncio.Task[Any]) -> None:
        step, self.turn = self.turn, self.turn + 1
        if step in self.world.cancel_at:
            self.now += TICK / 1e6
            main.cancel("asked")
            return self.settle()
        options = sorted(self.waiting, key=lambda w: w.option)
        timers = sorted((t for t in self.loop._scheduled if not t._cancelled), key=lambda t: t._when)  # type: ignore[attr-defined]
        mail = self.possible_mail()
        due = ["~timer"] if timers and (self.world.timers == "any" or not options) else []
        names = [w.option for w in options] + sorted(mail) + due
        if not names:
            raise Stuck("nothing can happen on plain asyncio either")
        index = self.world.pick(step, names)
        if names[index] == "~timer":
            self.now = max(self.now, timers[0]._when)
        elif names[index] in mail:
            self.now += TICK / 1e6
            arrived = mail[names[index]]
            self.mail.remove(arrived)
            self.queue_of(arrived.name).put_nowait(arrived.payload)
        else:
            self.now += TICK / 1e6
            chosen = options[index]
            self.waiting.remove(chosen)
            definition: Any = chosen.call.definition
            done, payload, _ = outcome_of(definition, chosen.arguments)
            if done:
                chosen.future.set_result(definition.result.decode(payload))
            else:
                chosen.future.set_exception(rebuild(decode_error(payload), definition.raises))
        return self.settle()

    def settle(self) -> None:
        quiet = 0
        while quiet < QUIET_ROUNDS:
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            ready = list(self.loop._ready)  # type: ignore[attr-defined]
            due = any(not t._cancelled and t._when <= self.now for t in self.loop._scheduled)  # type: ignore[attr-defined]
            level = all("_deliver_cancellation" in repr(handle) for handle in ready)
            quiet = quiet + 1 if level and not due else 0

    def ending(self, main: asyncio.Task[Any]) -> tuple[str, Any]:
        if main.cancelled():
            return "cancelled", ""
        error = main.exception()
        if error is None:
            return "completed", self.world.definition.result.encode_checked(main.result())
        info = describe(error)
        return "failed", (info.type, info.message)


def on_plain_asyncio(world: World, *, ordered: bool = False) -> Seen:
    return Oracle(world, ordered=ordered).run()
