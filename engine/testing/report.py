"""What an exploration found, for people: where it was disturbed, what came out instead, and how to see it again."""

from __future__ import annotations

import linecache
from collections.abc import Awaitable, Callable
from types import CodeType
from typing import Any

from msgspec import Struct

from engine.testing.outcomes import Difference, Outcome
from engine.testing.playing import Crashed, Played, Setup
from engine.testing.schedules import Crash, Schedule, Swap, Told, parse

__all__ = ["Finding", "Report", "finding_of"]

_WIDTH = 400  # characters of a value that are shown


class Finding(Struct, frozen=True):
    """A schedule under which something else comes out: the smallest of its kind."""

    schedule: Schedule
    where: tuple[str, ...]  # lines for people
    differences: tuple[Difference, ...]

    def text(self) -> str:
        """Several lines: what was done, where the run was, what was expected, and what came out instead."""
        lines = [f"{self.schedule}", *(f"  {line}" for line in self.where)]
        for difference in self.differences:
            lines += [
                f"  {difference.what}",
                f"    expected  {_short(difference.expected)}",
                f"    instead   {_short(difference.instead)}",
            ]
        lines.append(f'  to see it again: explore(..., schedule="{self.schedule}")')
        return "\n".join(lines)


class Report(Struct, frozen=True):
    """What was tried, and found: `findings`, the smallest first, one for each kind of disturbance and of difference."""

    workflow: str
    played: int  # schedules, the undisturbed ones included
    outcome: Outcome  # of the undisturbed run
    findings: tuple[Finding, ...]
    again: Callable[[Schedule], Awaitable[Played]]

    @property
    def schedule(self) -> Schedule | None:
        """The smallest that was found; None: nothing was found."""
        return self.findings[0].schedule if self.findings else None

    def text(self) -> str:
        """For people."""
        found = {0: "nothing that makes a difference", 1: "1 finding"}.get(
            len(self.findings), f"{len(self.findings)} findings"
        )
        head = f"explored {self.workflow}: {self.played} runs, {found}"
        each = [f"{number}. {finding.text()}" for number, finding in enumerate(self.findings, 1)]
        return "\n\n".join([head, *each])

    __str__ = text

    @property
    def exit_code(self) -> int:
        """For a script: 1 when there are findings, else 0."""
        return int(bool(self.findings))

    def raise_for_findings(self) -> None:
        """Raise `AssertionError`, with the text of the report, if there are any."""
        if self.findings:
            raise AssertionError(self.text())

    async def replay(self, schedule: Schedule | str | None = None) -> Outcome:
        """Play a schedule again, by default the smallest that was found, and return what comes out."""
        given = self.schedule if schedule is None else schedule
        played = await self.again(parse(given) if isinstance(given, str) else given or Schedule())
        return played.outcome


def finding_of(schedule: Schedule, expected: Played, played: Played, setup: Setup) -> Finding:
    """The finding that a run under a schedule is."""
    lines: list[str] = []
    crashes = iter(played.crashes)
    code = setup.call.definition.fn.__code__
    for part in schedule.parts:
        match part:
            case Crash():
                if (crashed := next(crashes, None)) is not None:
                    lines += _crash_lines(crashed, code)
            case Swap(step=step, option=option):
                labels = played.choices[step - 1] if step <= len(played.choices) else ()
                if labels:
                    lines.append(f"{labels[min(option, len(labels)) - 1]} before {labels[0].rpartition(' ')[0]}")
                    lines += _site_lines(_asked_by(labels, played.events), code)
            case Told(signal=signal, how=how):
                name = setup.signals[signal - 1].name
                before = " and those before it are" if how == "with the start" and signal > 1 else " is"
                lines.append(f"signal {name!r}{before} sent {how}")
    return Finding(schedule, tuple(lines), expected.outcome.differences(played.outcome))


def _crash_lines(crashed: Crashed, code: CodeType) -> list[str]:
    last = crashed.events[-1] if crashed.events else None
    line = "before anything was recorded" if last is None else f"after event {len(crashed.events)}, {_event(last)}"
    lines = [f"the process died {line}"]
    if crashed.lost:
        lines.append(f"it had not recorded yet: {', '.join(map(_event, crashed.lost))}")
    sites = [event["site"] for event in crashed.events if event.get("site")]
    return lines + _site_lines(sites[-1:], code)


def _asked_by(labels: tuple[str, ...], events: list[dict[str, Any]]) -> list[str]:
    ids = {label.removesuffix(" ends") for label in labels}
    sites = [event["site"] for event in events if event.get("id") in ids and event.get("site")]
    return list(dict.fromkeys(sites))


def _site_lines(sites: list[str], code: CodeType) -> list[str]:
    """Places in workflow code, with what is written there."""
    lines = []
    for site in sites:
        file, _, number = site.rpartition(":")
        source = ""
        if number.isdigit() and code.co_filename.replace("\\", "/").endswith(file):
            source = linecache.getline(code.co_filename, int(number)).strip()
        lines.append(f"at {site}  {source}".rstrip())
    return lines


def _event(event: dict[str, Any]) -> str:
    attempt = f" (attempt {event['attempt']})" if "attempt" in event else ""
    return f"{event['type']} {event.get('id', '')}".rstrip() + attempt


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]} ..."
