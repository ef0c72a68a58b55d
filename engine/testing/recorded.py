"""Recorded histories as tests: what a run of the past was told, replayed against the workflow as it is now.

`holdfast export RUN --redact > tests/histories/order.jsonl`, and in a test::

    assert_replays(load_history("tests/histories/order.jsonl"), order)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from engine import Diagnosis, HistoryEvent, Workflow, diagnose
from engine.errors import HoldfastError
from engine.testing.histories import History

__all__ = ["RecordedHistory", "assert_replays", "load_history"]


class _First(Struct):
    """The first line of a file: whose history follows."""

    holdfast: str
    form: int
    run: str
    redacted: bool = False


class _Line(Struct):
    version: int
    header: Raw
    payload: Raw = Raw()  # empty: it has none, which is another thing than null


_FORM: Final = 1
_first: Final = msgspec.json.Decoder(_First)
_line: Final = msgspec.json.Decoder(_Line)


class RecordedHistory(History):
    """A `History` that was read from a file: also the id of its run, and whether it was redacted."""

    def __init__(self, events: list[HistoryEvent], *, run: str, redacted: bool, file: str) -> None:
        super().__init__(events)
        self.run = run
        self.redacted = redacted
        self.file = file


def load_history(file: str | Path) -> RecordedHistory:
    """The history that `holdfast export` wrote into a file.

    Raises `HoldfastError` naming file and line for what is none, `OSError` for a file that cannot be read.
    """
    lines = Path(file).read_bytes().splitlines()
    try:
        first = _first.decode(lines[0] if lines else b"")
    except (ValueError, RecursionError) as error:
        raise HoldfastError(f"{file}, line 1: no history of `holdfast export`: {error}") from None
    if first.holdfast != "history" or first.form > _FORM:
        raise HoldfastError(f"{file}, line 1: {first.holdfast!r} in form {first.form}, this version reads {_FORM}")
    events: list[HistoryEvent] = []
    for number, line in enumerate(lines[1:], 2):
        try:
            each = _line.decode(line)
            events.append(HistoryEvent.from_stored(each.version, bytes(each.header), bytes(each.payload) or None))
        except (ValueError, RecursionError, HoldfastError) as error:
            raise HoldfastError(f"{file}, line {number}: {error}") from None
    return RecordedHistory(events, run=first.run, redacted=first.redacted, file=str(file))


def assert_replays(history: RecordedHistory, *workflows: Workflow[..., Any]) -> None:
    """Assert that the workflow (or its versions) decides again what this history has.

    Raises `AssertionError` with both columns and the history, `HoldfastError` for a history of another workflow.
    """
    diagnosis = diagnose(history.events, *workflows, run_id=history.run)
    if diagnosis is not None:
        raise AssertionError(_text(history, diagnosis))


def _text(history: RecordedHistory, diagnosis: Diagnosis) -> str:
    redacted = (
        "\nThe history is redacted: code that looks into strings goes another way (export it with --keep)."
        if history.redacted
        else ""
    )
    shown = history.text(marked=[diagnosis.version])
    return f"{history.file} does not replay\n{diagnosis.render()}{redacted}\nin the history\n{shown}"
