"""Shows runs while they are worked on: frames that are drawn over each other on a terminal, lines elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from engine.cli import plain
from engine.cli.output import Output
from engine.cli.tally import Watched
from eventstore import Clock

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Lines", "Screen", "View", "view_on"]

_TICK_SECONDS: Final = 0.1
_DRAWING_SHARE: Final = 20  # a frame may take one part in so many of the time


class View(Protocol):
    """What a session tells of its progress. Entered while there is some."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def event(self, run: Watched, header: Mapping[str, Any]) -> None:
        """`run` has taken in an event."""

    def held(self, run: Watched) -> None:
        """`run` was paused, or its workflow was: it must be said how it goes on."""

    def say(self, text: str) -> None:
        """Something that the user must know now: that it stops, what it waits for."""

    def restore(self) -> None:
        """Leave the terminal as it was found; the process ends now."""


def view_on(output: Output, runs: Sequence[Watched], clock: Clock) -> View:
    """The view that fits the output."""
    return Screen(output, runs, clock) if output.live else Lines(output, runs)


class Lines:
    """One line per completion, retry and failure. `first_line`: what is said of a run before anything else."""

    def __init__(
        self, output: Output, runs: Sequence[Watched], *, first_line: Callable[[Watched], str] = plain.first_line
    ) -> None:
        self._output = output
        self._runs = runs
        self._first_line = first_line

    async def __aenter__(self) -> Self:
        for run in self._runs:
            self._output.line(self._first_line(run))
        return self

    async def __aexit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def event(self, run: Watched, header: Mapping[str, Any]) -> None:
        text = plain.line(run, header, many=len(self._runs) > 1)
        if text is not None:
            self._output.line(text)

    def held(self, run: Watched) -> None:
        for line in plain.paused_lines(run):
            self._output.line(line)

    def say(self, text: str) -> None:
        self._output.line(text)

    def restore(self) -> None:
        """Lines leave nothing to mend."""


class Screen:
    """Frames, several a second; what tasks print meanwhile appears above.

    `draw`: a frame at a time (microseconds since the epoch), of so many lines, with a note; the runs' own without.
    """

    def __init__(
        self,
        output: Output,
        runs: Sequence[Watched],
        clock: Clock,
        *,
        draw: Callable[[int, int, str], RenderableType] | None = None,
    ) -> None:
        from rich.live import Live  # noqa: PLC0415 - not needed, and not loaded, where there is no terminal

        self._output = output
        self._runs = runs
        self._clock = clock
        self._frame = draw or self._of_runs
        self._note = ""
        self._live = Live(console=output.console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._ticker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._live.start()
        self._ticker = asyncio.get_running_loop().create_task(self._tick(), name="progress")
        return self

    async def __aexit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.wait([self._ticker])
        self._live.stop()

    def event(self, run: Watched, header: Mapping[str, Any]) -> None:
        """The next frame shows it."""

    def held(self, run: Watched) -> None:
        """The next frame shows it."""

    def say(self, text: str) -> None:
        self._note = text
        self._draw()

    def restore(self) -> None:
        self._output.console.show_cursor(show=True)

    async def _tick(self) -> None:
        while True:
            began = self._clock.monotonic()
            self._draw()
            spent = self._clock.monotonic() - began
            await asyncio.sleep(max(_TICK_SECONDS, spent * _DRAWING_SHARE))

    def _draw(self) -> None:
        height = self._output.console.size.height
        self._live.update(self._frame(self._clock.now(), height, self._note), refresh=True)

    def _of_runs(self, now: int, height: int, note: str) -> RenderableType:
        from engine.cli.live import frame  # noqa: PLC0415 - as above

        return frame(self._runs, now=now, height=height, stopping=note)
