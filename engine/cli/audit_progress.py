"""How far verifying is: a bar on a terminal, elsewhere a line now and then on standard error."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from engine.audit import AuditProgress
from engine.cli.output import Output
from eventstore import Clock

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Bar"]

LINE_SECONDS: Final = 5.0
"""Between two lines where there is no terminal."""


class Bar:
    """Told of the progress while it is entered."""

    def __init__(self, output: Output, clock: Clock, *, doing: str = "verifying") -> None:
        self._output: Final = output
        self._doing: Final = doing
        self._clock: Final = clock
        self._began = self._said = clock.monotonic()
        self._bar: Progress | None = None
        self._row: TaskID | None = None

    def __enter__(self) -> Self:
        if self._output.live:
            from rich.progress import (  # noqa: PLC0415 - not loaded where there is no terminal
                BarColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn(self._doing),
                BarColumn(),
                TextColumn("{task.fields[said]}"),
                TimeRemainingColumn(),
                console=self._output.console,
                transient=True,
            )
            self._row = self._bar.add_task("", total=None, said="")
            self._bar.start()
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, progress: AuditProgress) -> None:
        """Show it, as often as that is of use."""
        now = self._clock.monotonic()
        rate = progress.events / (now - self._began) if now > self._began else 0.0
        of = "" if progress.total is None else f" of {progress.total:,}"
        said = f"{progress.events:,}{of} events, {rate:,.0f}/s"
        if progress.findings:
            said += f", {progress.findings:,} found wrong"
        if self._bar is not None and self._row is not None:
            self._bar.update(self._row, total=progress.total, completed=progress.events, said=said)
        elif now - self._said >= LINE_SECONDS:
            self._said = now
            self._output.note(said)
