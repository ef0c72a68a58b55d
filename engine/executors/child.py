"""A worker process: runs one attempt after the other, until its engine closes its standard input, or dies.

The main thread runs the work. One thread reads what the engine says, another sends heartbeats, so that both go on while
the work computes. What the work prints goes to standard error: the pipes belong to the protocol.
"""

from __future__ import annotations

import contextvars
import os
import signal
import sys
import time
from asyncio import CancelledError
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Event, Lock, Thread, main_thread
from typing import Any, Final

from engine.core.carriage import INLINE, Carriage
from engine.core.failures import describe, encode_error
from engine.executors.frames import Answer, Beat, Begun, Do, Done, Frames, Later, Order, Raised, Stopping, frame
from engine.executors.functions import find
from engine.tasks import Attempt, CompletedLater, Contact, GivenNames, bind_attempt

__all__ = ["ENDING_SECONDS", "main"]

BEAT_SECONDS: Final = 0.05
"""Between two heartbeats that are sent: the engine hears that the code lives, not how often it says so."""
ENDING_SECONDS: Final = 5.0
"""How long work may clean up when nobody wants it any more, before the process ends in the midst of it."""
READ_BYTES: Final = 65_536


class Terminated(CancelledError):
    """Raised into the work where it stands: nobody wants it any more."""


def main() -> None:
    """The life of the process. Standard input and output are the engine's."""
    inlet, outlet = os.dup(0), os.dup(1)
    _let_work_print_to_stderr()
    Child(inlet, outlet).live()


def _let_work_print_to_stderr() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # there is no standard error
        os.dup2(nothing, 1)
    os.close(nothing)
    reconfigure: Any = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:  # made for a pipe, it would keep what is printed until the end
        reconfigure(line_buffering=True)


class Child:
    """See the module."""

    def __init__(self, inlet: int, outlet: int) -> None:
        self._inlet = inlet
        self._outlet = outlet
        self._writing = Lock()
        self._orders: SimpleQueue[tuple[Do, Contact] | None] = SimpleQueue()
        self._contact: Contact | None = None  # of the attempt that is here
        self._beats = _Beats(self._send)

    def live(self) -> None:
        """Until the engine no longer needs it."""
        try:
            signal.signal(signal.SIGTERM, _terminate)
            Thread(target=self._listen, name="holdfast-orders", daemon=True).start()
            while (order := self._orders.get()) is not None:
                answer = self._perform(*order)
                self._contact = None
                self._beats.flush()
                self._send(answer)
        except Terminated:
            sys.exit(128 + signal.SIGTERM)
        except BrokenPipeError:
            sys.exit(1)  # the engine has died

    def _perform(self, order: Do, contact: Contact) -> Answer:
        try:
            definition = find(order.function)
            args, kwargs = definition.arguments.decode(order.arguments, INLINE)
            attempt = _attempt(order, contact)
            self._send(Begun())
            value = contextvars.copy_context().run(_called, attempt, definition.fn, args, kwargs)
            return Done(definition.result.encode_checked(value, Carriage(order.bytes_max)))
        except Terminated:
            raise
        except CompletedLater:
            return Later()
        except BaseException as error:
            return Raised(encode_error(describe(error)))

    def _send(self, answer: Answer) -> None:
        data = memoryview(frame(answer))
        with self._writing:
            while data:
                data = data[os.write(self._outlet, data) :]

    def _listen(self) -> None:
        """In a thread of its own: what the engine says, until it says no more."""
        frames: Frames[Order] = Frames(Order)
        while data := os.read(self._inlet, READ_BYTES):
            for order in frames.feed(data):
                if isinstance(order, Do):
                    contact = self._contact = Contact(self._beats.beat)
                    self._orders.put((order, contact))
                elif isinstance(order, Stopping) and (listening := self._contact) is not None:
                    listening.stopping.give()
        self._end()

    def _end(self) -> None:
        """The engine closes us, no longer wants what runs here, or has died: in each case nobody waits for it."""
        self._orders.put(None)
        contact = self._contact
        if contact is not None:
            contact.cancelled.give()
            signal.pthread_kill(main_thread().ident or 0, signal.SIGTERM)  # also when it blocks: not just any thread
        time.sleep(ENDING_SECONDS)
        os._exit(1)


class _Beats:
    """Sends heartbeats: one at once, then the last there is, at most one in so long, from a thread."""

    def __init__(self, send: Callable[[Answer], None]) -> None:
        self._send = send
        self._lock = Lock()
        self._sent = Event()
        self._resting = False  # one was sent just now
        self._unsent = False
        self._details: bytes | None = None
        self._thread: Thread | None = None

    def beat(self, details: bytes | None) -> None:
        with self._lock:
            self._unsent = True
            if details is not None:
                self._details = details
            if self._resting:
                return
            self._resting = True
            self._flush()  # now: who knows how long we live
            if self._thread is None:
                self._thread = Thread(target=self._run, name="holdfast-beats", daemon=True)
                self._thread.start()
        self._sent.set()

    def flush(self) -> None:
        """Send what is not sent yet."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._unsent:
            details, self._details, self._unsent = self._details, None, False
            self._send(Beat(details))

    def _run(self) -> None:
        with suppress(OSError):  # the engine has died; the one who listens to it ends the process
            while self._sent.wait():
                self._sent.clear()
                while self._resting:
                    time.sleep(BEAT_SECONDS)
                    with self._lock:
                        self._resting = self._unsent
                        self._flush()


def _terminate(_signal: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, _nothing)  # once: what cleans up is left alone
    raise Terminated("the attempt is asked to end")


def _nothing(_signal: int, _frame: object) -> None:
    """Not SIG_IGN, which what the work starts would inherit."""


def _attempt(order: Do, contact: Contact) -> Attempt:
    return Attempt(
        run_id=order.run_id,
        task_id=order.task_id,
        task=order.task,
        number=order.number,
        scheduled_at=order.scheduled_at,
        _names=GivenNames(order.idempotency_key, order.token),
        _contact=contact,
        _last_heartbeat=order.last_heartbeat,
        _last_failure=order.last_failure,
    )


def _called(attempt: Attempt, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bind_attempt(attempt)
    return fn(*args, **kwargs)
