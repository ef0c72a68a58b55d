"""Runs the command as people do: as a process, with a deadline for everything that is waited for."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from engine.cli.app import app
from tests.architecture.source import ROOT
from tests.cli.nursery import Born, Nursery

DEADLINE_SECONDS = 30.0
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environment() -> dict[str, str]:
    """What a process of the command finds around it."""
    found = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm-256color",
        "PYTHONWARNINGS": "error::ResourceWarning",
    }
    found.pop("NO_COLOR", None)
    return found


@cache
def nursery() -> Nursery:
    """One for all tests of this process; `conftest.py` closes it."""
    return Nursery(environment(), ROOT)


class Ended:
    """What a process left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    def json(self) -> Any:
        return json.loads(self.out)


class Command:
    """`holdfast` in one folder, where its store is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *words: str, code: str | None = None, fresh: bool = False, **options: Any) -> Started:
        """As another process: `fresh` with an interpreter of its own, else from the nursery, which is much quicker."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        if not fresh and code is None and options.keys() <= streams.keys():
            return Started(nursery().bear(words, self.folder, environment(), **(streams | options)))
        program = ["-m", "engine.cli"] if code is None else ["-c", code]
        return Started(
            subprocess.Popen(
                [sys.executable, *program, *words],
                cwd=self.folder,
                env=environment(),
                **(streams | {"text": True} | options),
            )
        )

    def __call__(self, *words: str, **options: Any) -> Ended:
        return self.start(*words, **options).end()

    def inside(self, *words: str) -> Ended:
        """The same in this process, which is much quicker: for commands that load no file and need no signals."""
        here = Path.cwd()
        os.chdir(self.folder)
        try:
            result = CliRunner().invoke(app, words)
        finally:
            os.chdir(here)
        return Ended(result.exit_code, result.stdout, result.stderr)

    def effects(self) -> list[str]:
        """What tasks wrote down as they ran, one line per attempt."""
        file = self.folder / "effects"
        return file.read_text().split() if file.exists() else []

    def open_gate(self) -> None:
        (self.folder / "gate").touch()

    def close_gate(self) -> None:
        (self.folder / "gate").unlink()


class Started:
    """A process whose output is collected as it comes."""

    def __init__(self, process: subprocess.Popen[str] | Born) -> None:
        self.process = process
        self._texts = {"out": "", "err": ""}
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in (("out", process.stdout), ("err", process.stderr))
            if stream is not None
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: Any) -> None:
        for line in stream:
            self._texts[name] += line
        stream.close()

    def wait_for(self, text: str) -> None:
        """Until `text` has been written to either stream."""
        self.until(lambda: any(text in each for each in self._texts.values()), f"{text!r} written")

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Look again and again until `condition` holds; the process must live meanwhile."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            if self.process.poll() is not None and not condition():
                raise AssertionError(f"the process ended before this happened: {what}\n{self.end()}")
            if time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"did not happen within {DEADLINE_SECONDS} s: {what}\n{self.end()}")
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> Ended:
        """Wait for its end; it is killed at the deadline."""
        try:
            code = self.process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"did not end within {DEADLINE_SECONDS} s:\n{self._texts}") from None
        finally:
            for reader in self._readers:
                reader.join(DEADLINE_SECONDS)
        return Ended(code, self._texts["out"], self._texts["err"])


def without_colours(text: str) -> str:
    return _ANSI.sub("", text)


def collect(terminal: int, into: bytearray) -> None:
    """Read what is written to a terminal, until its other side is closed."""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other side is closed: so a pty says the end
            return
        if not data:
            return
        into += data
