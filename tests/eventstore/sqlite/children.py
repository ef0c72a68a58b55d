"""Real processes for tests: Python programs that print lines, are waited for, and are killed or stopped."""

from __future__ import annotations

import asyncio
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

PATIENCE_SECONDS = 20.0
ROOT = Path(__file__).parents[3]

PRELUDE = """
import asyncio, os, signal, sys
from eventstore import *
from eventstore.sqlite import SqliteStore

def say(*words):
    print(*words, flush=True)

def event(text="noted"):
    return NewEvent(b'{"type":"%s"}' % text.encode())
"""


class Child:
    """A process under test."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid

    async def line(self) -> str:
        """The next line it prints; fails when it ends instead."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            raise AssertionError(f"the child ended: {(await self.process.stderr.read()).decode()}")
        return line.decode().rstrip("\n")

    async def expect(self, line: str) -> None:
        assert await self.line() == line

    async def tell(self, line: str) -> None:
        """Give it a line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        await self.process.stdin.drain()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def rest(self) -> list[str]:
        """Every line it has printed and not yet been asked for; it must have ended."""
        assert self.process.stdout is not None
        return (await self.process.stdout.read()).decode().splitlines()

    async def succeed(self) -> str:
        """Wait for its end, which must be a good one; what it printed."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            out, errors = await self.process.communicate()
        assert self.process.returncode == 0, errors.decode()
        return out.decode()


@asynccontextmanager
async def child(program: str, *args: object, wrapper: tuple[str, ...] = ()) -> AsyncIterator[Child]:
    """Run a program, with `PRELUDE` before it, in another Python; it is killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *wrapper,
        sys.executable,
        "-c",
        PRELUDE + textwrap.dedent(program),
        *map(str, args),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    running = Child(process)
    try:
        yield running
    finally:
        await running.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe._transport.close() if hasattr(pipe, "_transport") else None
        process._transport.close()
