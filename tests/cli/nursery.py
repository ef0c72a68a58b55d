"""Gives birth to processes of the command: one process has imported all of it, and forks.

The interpreter's start and the imports are most of what a short command takes, and these tests start two hundred. What
is born here is a process as any other: with its own folder, environment, streams, signals, and end. This module is both
sides: what tests call, and the program of the process that forks (which knows nothing of tests).
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, NoReturn

_IMPORTED = (
    *("engine.assets", "engine.audit", "engine.moving", "engine.workflows.screening", "eventstore.sqlite"),
    *("anyio._backends._asyncio", "email.parser", "rich._unicode_data", "rich.tree", "statistics", "tenacity"),
)
"""What is imported late, when a command needs it, beside the rooms of the command itself."""


class Born:
    """A process, with as much of `Popen` as tests use."""

    def __init__(self, reply: socket.socket, stdout: IO[str] | None, stderr: IO[str] | None) -> None:
        self._reply = reply
        self._lines = reply.makefile()
        self.stdout, self.stderr = stdout, stderr
        self.returncode: int | None = None
        self.pid = int(self._lines.readline())

    def poll(self) -> int | None:
        """The exit code, once there is one."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; negative if it was a signal that ended it."""
        if self.returncode is None:
            if not select.select([self._reply], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("holdfast", timeout or 0)
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._reply.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To the process, if it is there."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """At once."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks."""

    def __init__(self, environment: dict[str, str], root: Path) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                cwd=root,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def bear(
        self, words: tuple[str, ...], folder: Path, environment: dict[str, str], *, stdin: Any, stdout: Any, stderr: Any
    ) -> Born:
        """A process `holdfast WORDS`, as `Popen` would start it."""
        pipes: list[IO[str] | None] = []
        given: list[int] = []
        close: list[int] = []
        for stream in (stdin, stdout, stderr):
            reading = None
            if stream == subprocess.DEVNULL:
                close.append(os.open(os.devnull, os.O_RDWR))
                given.append(close[-1])
            elif stream == subprocess.PIPE:
                ours, writing = os.pipe()
                reading = os.fdopen(ours)
                close.append(writing)
                given.append(writing)
            else:
                given.append(stream if isinstance(stream, int) else stream.fileno())
            pipes.append(reading)
        reply, theirs = socket.socketpair()
        with theirs:
            order = json.dumps({"words": words, "folder": str(folder), "environment": environment}) + "\n"
            socket.send_fds(self._control, [order.encode()], [*given, theirs.fileno()])
        for each in close:
            os.close(each)
        return Born(reply, pipes[1], pipes[2])

    def close(self) -> None:
        """It ends when nobody can ask it any more."""
        self._control.close()
        self._process.wait()


# -- the process that forks --------------------------------------------------------------------------------------------


def _serve(control: socket.socket) -> None:
    """Fork for every order. Returns in those who are born, as somebody who has just been started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: whoever runs the tests ends, and with it this
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    while True:
        data, streams, _, _ = socket.recv_fds(control, 1 << 16, 4)
        while data and not data.endswith(b"\n"):
            data += control.recv(1 << 16)
        if not data:
            os._exit(0)
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            *standard, reply = streams
            pid = os.fork()
            if pid == 0:
                os.close(reply)
                return _begin(json.loads(data), standard)
            _keep(pid, standard, reply)
        for each in streams:
            os.close(each)


def _keep(pid: int, standard: list[int], reply: int) -> NoReturn:
    """Wait for the one that was born, and tell how it ended."""
    for each in (0, 1, 2, *standard):  # nobody may wait for the end of a stream because of us
        os.close(each)
    os.write(reply, b"%d\n" % pid)
    # Gone, but not forgotten: until the answer is sent the number is nobody else's, and may be sent signals.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.write(reply, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


def _begin(order: dict[str, Any], standard: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(standard):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.path[0] = order["folder"]
    sys.argv = ["holdfast", *order["words"]]
    # As the interpreter makes them at its start.
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = open(1, "w", buffering=1 if os.isatty(1) else -1, closefd=False)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = open(  # type: ignore[misc]
        2, "w", buffering=1, errors="backslashreplace", closefd=False
    )


def _live() -> None:
    """The command, up to the end of the process.

    What the interpreter does last, taking every module apart, takes longer than a short command, as all memory that is
    shared with the nursery is copied for it. What the command has made is collected, for the warnings there may be.
    """
    try:
        runpy.run_module("engine.cli", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):  # nobody reads: what the interpreter says and does then is its own affair
        sys.exit(code)
    os._exit(code)  # type: ignore[arg-type]


if __name__ == "__main__":
    from functools import cache
    from importlib import import_module
    from pkgutil import iter_modules

    import typer.main

    # All commands and their options: built before anybody is born.
    typer.main.get_command = cache(typer.main.get_command)
    from typer.testing import CliRunner

    import engine.cli
    from engine.cli.app import app

    rooms = [f"engine.cli.{room.name}" for room in iter_modules(engine.cli.__path__) if room.name != "__main__"]
    for name in (*rooms, *_IMPORTED):
        import_module(name)
    CliRunner().invoke(app, ["runs", "--store", "sqlite:///no/such/folder/runs.db"])  # typer imports as it needs, too
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    _live()
