"""Processes of the peers' programs: each in a group of its own, read line by line, killed as a group by its id."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAMS = Path(__file__).parent / "programs"


class Child:
    """One process of a program. Leaving the context kills whatever is left of it and of what it started."""

    def __init__(
        self,
        python: Path,
        program: str,
        command: str,
        folder: Path,
        arguments: Mapping[str, object],
        env: Mapping[str, str],
    ) -> None:
        self._errors = (folder / f"{command}.stderr").open("ab")
        self._process = subprocess.Popen(
            [python, PROGRAMS / program, command, folder, json.dumps(dict(arguments))],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **env},
            cwd=folder,
        )
        # Not a SimpleQueue: asked with a timeout of microseconds, CPython's may wait for ever.
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    def said(self, key: str, *, timeout: float) -> Any:
        """The value of the next line that has that key; None when the process ended or the time is over without one."""
        while True:
            try:
                line = self._lines.get(timeout=timeout)
            except queue.Empty:
                return None
            if line is None:
                self._lines.put(None)
                return None
            if key in line:
                return line[key]

    def ended(self, *, timeout: float) -> bool:
        """Whether it ends within so many seconds."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL to the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(5)
        self._errors.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for raw in lines:
                line = parsed(raw)
                if line is not None:
                    self._lines.put(line)
        self._lines.put(None)


def parsed(raw: bytes) -> dict[str, Any] | None:
    """A line of JSON that a program said; None for what a library printed in between."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
