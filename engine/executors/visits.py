"""One attempt in a worker process, and the process as its engine sees it. Loaded when the first attempt needs one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from engine.core.failures import decode_error
from engine.errors import WorkerProcessDied
from engine.executors.frames import Answer, Beat, Begun, Do, Done, Frames, Later, Raised, Stopping, frame
from engine.executors.functions import name_of
from engine.executors.port import Encoded, Slots, Work, WorkFailed
from engine.tasks import CompletedLater, Contact

__all__ = ["TERMINATE_SECONDS", "Process", "Visit"]

TERMINATE_SECONDS: Final = 3.0
"""How long work that was asked to end may clean up, before its process is killed."""
_DRAIN_SECONDS: Final = 0.2
"""How long the last words of a process that has ended may take."""
_BOOT: Final = """\
import json, sys
path = json.loads(sys.argv.pop())
sys.path += path  # last, for now: no file of the work's folder is to hide a module that the engine needs
from engine.executors.child import main
sys.path[:] = path
main()
"""


class Pool(Protocol):
    """Where processes wait for work."""

    slots: Slots

    def take(self) -> Process | None:
        """One that waits for work, if there is any."""

    def put(self, process: Process) -> None:
        """It may be used again."""


class Visit:
    """One attempt in a process, in an asyncio task of its own: whoever awaits it may leave, its slot is given back."""

    def __init__(self, pool: Pool, work: Work) -> None:
        self._pool = pool
        self._work = work
        self._process: Process | None = None
        self._called_off = False
        self.task = asyncio.ensure_future(self._live())
        self.task.add_done_callback(_heard)

    def call_off(self) -> None:
        """Nobody wants its outcome any more."""
        self._called_off = True
        self._work.contact.cancelled.give()
        if self._process is not None:
            self._process.ask_to_end()

    async def _live(self) -> Encoded:
        self._work.contact.preparing = True
        try:
            order = _order(self._work)
            while True:
                used = self._process = self._pool.take()
                process = self._process = used or await Process.start()
                if self._called_off:
                    process.ask_to_end()
                self._work.begin()
                answer = await process.perform(order, self._work.contact)
                if answer is not None:
                    return _outcome(answer)
                if used is None or process.begun or self._called_off:
                    ran = "ran" if process.begun else "was to run"
                    raise WorkerProcessDied(f"the process that {ran} {self._work.task.where} {process.fate}")
                await process.end()  # it had died while it waited for work: nothing of this attempt was run
        finally:
            await self._leave()

    async def _leave(self) -> None:
        process = self._process
        try:
            if process is not None:
                if process.alive and process.answered and not self._called_off:
                    self._pool.put(process)
                else:
                    await process.end()
        finally:
            self._pool.slots.give_back()


class Process(asyncio.SubprocessProtocol):
    """A worker process, as its engine sees it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._frames: Frames[Answer] = Frames(Answer)
        self._transport: Any = None
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._answer: asyncio.Future[Answer | None] | None = None
        self._contact: Contact | None = None
        self._asked_to_end = False
        self._killing: asyncio.TimerHandle | None = None
        self.begun = False  # the work it has, or had last
        self.answered = True  # whether it waits for work

    @classmethod
    async def start(cls) -> Process:
        """A fresh one, with this process' way of finding modules."""
        path = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
        process: Process
        _, process = await asyncio.get_running_loop().subprocess_exec(
            cls, sys.executable, "-P", "-c", _BOOT, path, stderr=None, start_new_session=True
        )
        return process

    @property
    def alive(self) -> bool:
        return not self._exited.done() and not self._asked_to_end

    @property
    def fate(self) -> str:
        """How it ended, as the end of a sentence."""
        code = self._transport.get_returncode()
        if code is None:
            return "stopped answering"
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        why = "; the system does that when memory runs out" if -code == signal.SIGKILL else ""
        return f"was killed by signal {-code} ({name}){why}"

    async def perform(self, order: Do, contact: Contact) -> Answer | None:
        """Have it run an attempt. None: it has died."""
        answer: asyncio.Future[Answer | None] = self._loop.create_future()
        self._answer = answer
        self._contact, self.begun, self.answered = contact, False, False
        if self._exited.done():
            self._lost()
        self._write(frame(order))
        forget = contact.stopping.when_given(self._tell_stopping)
        try:
            return await answer
        finally:
            forget()
            self._contact = self._answer = None

    def ask_to_end(self) -> None:
        """Let its work be interrupted, and it end; it is killed if it does not."""
        if not self._asked_to_end and not self._exited.done():
            self._asked_to_end = True
            self._stdin.close()
            self._killing = self._loop.call_later(TERMINATE_SECONDS, self._kill)

    async def end(self) -> None:
        """Have it end. Returns when it has ended."""
        self.ask_to_end()
        await asyncio.wait([self._exited])
        self._transport.close()

    def _kill(self) -> None:
        if not self._exited.done():
            with suppress(ProcessLookupError):
                os.killpg(self._transport.get_pid(), signal.SIGKILL)  # with what its work has started

    # -- what asyncio says --------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 - there is one that it reads
        for answer in self._frames.feed(data):
            match answer:
                case Begun():
                    self.begun = True
                    if self._contact is not None:
                        self._contact.begin()
                case Beat(details=details):
                    if self._contact is not None:
                        self._contact.beat(details)
                case Done() | Raised() | Later():
                    self.answered = True
                    self._settle(answer)

    def process_exited(self) -> None:
        if not self._exited.done():
            self._exited.set_result(None)
        if self._killing is not None:
            self._killing.cancel()
        if self._answer is None:
            self._transport.close()
        else:  # what it wrote last may still be in the pipe, which something that its work has started may hold open
            self._loop.call_later(_DRAIN_SECONDS, self._lost)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the exit code says more
        self._lost()

    def _lost(self) -> None:
        self._settle(None)

    def _settle(self, answer: Answer | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _tell_stopping(self) -> None:
        with suppress(RuntimeError):  # given in another thread, after the loop was closed
            self._loop.call_soon_threadsafe(self._write, frame(Stopping()))

    def _write(self, data: bytes) -> None:
        if not self._asked_to_end and not self._exited.done():
            self._stdin.write(data)

    @property
    def _stdin(self) -> Any:
        return self._transport.get_pipe_transport(0)


def _order(work: Work) -> Do:
    attempt = work.attempt
    return Do(
        function=name_of(work.task),
        arguments=work.arguments,
        run_id=attempt.run_id,
        task_id=attempt.task_id,
        task=attempt.task,
        number=attempt.number,
        idempotency_key=attempt.idempotency_key,
        scheduled_at=attempt.scheduled_at,
        token=attempt.token,
        last_heartbeat=attempt._last_heartbeat,
        last_failure=attempt._last_failure,
        bytes_max=work.bytes_max,
    )


def _outcome(answer: Answer) -> Encoded:
    match answer:
        case Done(payload=payload):
            return Encoded(payload)
        case Raised(error=error):
            raise WorkFailed(decode_error(error))
        case _:
            raise CompletedLater


def _heard(task: asyncio.Task[Encoded]) -> None:
    """An outcome that nobody waits for is no news."""
    if not task.cancelled():
        task.exception()
