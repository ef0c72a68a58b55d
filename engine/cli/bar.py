"""How far something long is: drawn over itself on a terminal, elsewhere a line now and then on standard error."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from engine.cli.output import Output
from eventstore import Clock

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Bar"]

LINE_SECONDS: Final = 5.0
"""Between two lines where there is no terminal."""


class Bar:
    """Told of the progress while it is entered. `doing`: what is done, before a bar; "": words alone, with no end."""

    def __init__(self, output: Output, clock: Clock, doing: str = "") -> None:
        self._output: Final = output
        self._clock: Final = clock
        self._doing = doing
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

            said = TextColumn("{task.fields[said]}")
            doing = TextColumn("{task.description}")
            columns = [doing, BarColumn(), said, TimeRemainingColumn()] if self._doing else [said]
            self._bar = Progress(
                *columns,
                console=self._output.console,
                transient=True,
                redirect_stdout=False,  # else what workflow code prints while it is replayed is drawn inside its turn
                redirect_stderr=False,
            )
            self._row = self._bar.add_task(self._doing, total=None, said="")
            self._bar.start()
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return self._clock.monotonic() - self._began

    def turn_to(self, doing: str) -> None:
        """What is done from now on; the same as before is no change."""
        if doing == self._doing:
            return
        self._doing, self._began = doing, self._clock.monotonic()
        if self._bar is not None and self._row is not None:
            self._bar.update(self._row, description=doing)

    def tell(self, done: int, say: Callable[[float], str], *, total: int | None = None) -> None:
        """Show it, as often as that is of use. `say`: the words for it, given how many are done in a second."""
        now = self._clock.monotonic()
        if self._bar is None and now - self._said < LINE_SECONDS:
            return
        said = say(done / (now - self._began) if now > self._began else 0.0)
        if self._bar is not None and self._row is not None:
            self._bar.update(self._row, total=total, completed=done, said=said)
        else:
            self._said = now
            self._output.note(said)

    def tell_events(self, events: int, total: int | None = None, *, also: str = "") -> None:
        """The same for events: so many, of so many if that is known. `also`: what is said behind it."""
        of = "" if total is None else f" of {total:,}"
        self.tell(events, lambda rate: f"{events:,}{of} events, {rate:,.0f}/s{also}", total=total)
