"""Where the command writes: results to standard output, progress beside them, complaints to standard error.

With `--json`, standard output is for the one document alone: whatever else writes there meanwhile, tasks and the
libraries they call included, is led to standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

import msgspec
from rich.console import Console, RenderableType
from rich.text import Text

from engine.cli.problems import Problem

__all__ = ["Output", "complain"]

_FILE_COLUMNS: Final = 1_000
"""Columns where there is no terminal to ask: nothing is wrapped or cut short in a file."""


class Output:
    """The two streams of one command."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.stream: IO[str] = sys.stderr if json else sys.stdout
        self.console = console_on(self.stream)
        self._kept: int | None = None  # the real standard output, while it is reserved

    @property
    def live(self) -> bool:
        """Whether progress can be drawn over itself."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    def line(self, text: str, style: str = "") -> None:
        """One line for a person, at once."""
        self.console.print(Text(text, style=style), soft_wrap=True)
        self.stream.flush()

    def note(self, text: str) -> None:
        """One line beside the results, on standard error: why it takes so long."""
        console_on(sys.stderr).print(Text(text, style="dim"), soft_wrap=True)

    def show(self, view: RenderableType) -> None:
        """Something larger for a person."""
        if self.console.is_terminal:
            self.console.print(view)
            return
        with self.console.capture() as captured:
            self.console.print(view)
        for line in captured.get().splitlines():
            self.stream.write(f"{line.rstrip()}\n")  # tables are padded to their full width
        self.stream.flush()

    def document(self, value: Any) -> None:
        """One JSON document (or one of JSON lines) for a program."""
        data = msgspec.json.encode(value) + b"\n"
        if self._kept is None:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        view = memoryview(data)
        while view:  # a pipe may take less than it is given
            view = view[os.write(self._kept, view) :]

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """With `--json`: while inside, what is written to standard output arrives at standard error."""
        if not self.json:
            yield
            return
        sys.stdout.flush()
        self._kept = os.dup(1)
        os.dup2(2, 1)
        try:
            yield
        finally:
            sys.stdout.flush()
            os.dup2(self._kept, 1)
            os.close(self._kept)
            self._kept = None


class _Console(Console):
    """rich's console, but for a reader that has gone away (`| head`): what that means is for the command to say."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console_on(stream: IO[str]) -> Console:
    """A console that styles a terminal, and cuts nothing short in a file."""
    plain = not stream.isatty()
    return _Console(
        file=stream,
        width=_FILE_COLUMNS if plain else None,
        highlight=False,
        markup=False,
        emoji=False,
        no_color=plain or None,
    )


def complain(problem: Problem) -> None:
    """Say on standard error what is wrong."""
    console = console_on(sys.stderr)
    text = Text("error: ", style="bold red").append(problem.message, style="default not bold")
    console.print(text, soft_wrap=True)
    if problem.hint:
        console.print(Text(problem.hint), soft_wrap=True)
