"""Why something was made, or was not: read from the log, and followed to where it began.

Of a partition the last word counts that was said in its stream. What was skipped was so because of others, whose last
word in that run is read in turn, down to what failed, or was never there. It writes nothing, and holds one stream's
last words at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from engine.assets.catalog import Catalog, Version
from engine.assets.events import (
    AssetEvent,
    AssetFailed,
    AssetObserved,
    AssetPromoted,
    AssetPublished,
    AssetReset,
    AssetRestored,
    AssetSkipped,
    AssetStarted,
    AssetUnchanged,
    CheckOutcome,
    details_of,
    read_event,
)
from engine.assets.keys import asset_stream
from engine.assets.references import parse_reference, reference_text
from eventstore import RecordedEvent, StreamNotFound

__all__ = ["LastWord", "Why", "why_lines", "why_of"]

LastWord: TypeAlias = Literal[
    "published", "promoted", "restored", "reset", "observed", "unchanged", "failed", "skipped", "started", "never"
]
"""What was said last of a partition; "never": nothing was."""

DEPTH_MAX: Final = 50
"""Steps that are followed, one because of the other."""
BECAUSE_MAX: Final = 10
"""Of several that one was skipped for, those that are followed."""


class Why(Struct, frozen=True, kw_only=True):
    """What the log says of a partition. Times are microseconds since the epoch."""

    key: str
    partition: str
    environment: str  # whose stream said it
    outcome: LastWord
    at: int = 0
    run: str = ""
    event: int = 0  # the version of the stream that says it
    version: int | None = None  # the version of the asset that it is about
    reasons: tuple[str, ...] = ()  # why it was planned, as far as it is known
    error: str = ""
    checks: tuple[CheckOutcome, ...] = ()  # those that did not pass
    because: tuple[Why, ...] = ()  # it was skipped for these
    unnamed: int = 0  # and for so many more
    by: str = ""  # who asked for it, and why
    reason: str = ""
    current: Version | None = None  # what is read now
    stale: tuple[str, ...] = ()  # why it would be made now; () if it is up to date
    blocked: str = ""  # why it cannot be made now
    external: bool = False

    @property
    def title(self) -> str:
        """As messages call it."""
        return reference_text(self.key, self.partition)

    @property
    def roots(self) -> tuple[Why, ...]:
        """Where it began: what it was skipped for in the end, or itself."""
        return tuple(root for each in self.because for root in each.roots) if self.because else (self,)


class _Words(Struct):
    """The last words that a stream said of a partition: the last but those that only began, and the last that began."""

    said: tuple[AssetEvent, RecordedEvent] | None = None
    started: AssetStarted | None = None
    started_at: int = 0  # version


async def why_of(catalog: Catalog, key: str, partition: str = "", *, run: str = "") -> Why:
    """Why it was made the last time, or was not. `run`: what that run said of it, if it said anything."""
    return await _why(catalog, key, partition, run, _Followed())


class _Followed(Struct):
    """What was read on the way. `depth`: steps to go on for, one because of the other."""

    seen: dict[str, Why] = {}
    depth: int = DEPTH_MAX


async def _why(catalog: Catalog, key: str, partition: str, run: str, followed: _Followed) -> Why:
    title = reference_text(key, partition)
    if title in followed.seen:
        return followed.seen[title]
    environment = catalog.environment
    words = await _words(catalog, environment, key, partition, run)
    if words is None and run:
        return await _why(catalog, key, partition, "", followed)  # it said nothing: what was said of it ever
    if words is None and catalog.base is not None:
        return await _why(catalog.base, key, partition, run, followed)
    found = Why(key=key, partition=partition, environment=environment, outcome="never")
    followed.seen[title] = found
    if words is not None:
        found = _told(found, words)
        if words.said is not None and isinstance(words.said[0], AssetSkipped) and followed.depth:
            followed.depth -= 1
            found = await _because(catalog, found, words.said[0], followed)
            followed.depth += 1
    followed.seen[title] = found
    return found


async def _because(catalog: Catalog, found: Why, event: AssetSkipped, followed: _Followed) -> Why:
    because: list[Why] = []
    for title in event.because[:BECAUSE_MAX]:
        other = parse_reference(title)
        because.append(await _why(catalog, other.key, other.partition, event.run, followed))
    return replace(found, because=tuple(because), unnamed=max(0, len(event.because) - BECAUSE_MAX))


async def _words(catalog: Catalog, environment: str, key: str, partition: str, run: str) -> _Words | None:
    words = _Words()
    try:
        async for recorded in catalog.store.read(asset_stream(environment, key)):
            event = read_event(recorded)
            if event.partition != partition or (run and event.run != run):
                continue
            if isinstance(event, AssetStarted):
                words.started, words.started_at = event, recorded.version
            else:
                words.said = event, recorded
    except StreamNotFound:
        return None
    return words if words.said is not None or words.started is not None else None


def _told(found: Why, words: _Words) -> Why:
    started = words.started
    if words.said is None or (started is not None and words.started_at > words.said[1].version):
        assert started is not None
        return replace(
            found,
            outcome="started",
            at=started.at,
            run=started.run,
            event=words.started_at,
            reasons=started.reasons,
        )
    event, recorded = words.said
    reasons = started.reasons if started is not None and started.run == event.run else ()
    found = replace(found, at=event.at, run=event.run, event=recorded.version, reasons=reasons)
    match event:
        case AssetPromoted():
            return replace(found, outcome="promoted", version=recorded.version, by=event.by, reason=event.reason)
        case AssetPublished():
            checks = tuple(each for each in details_of(recorded).checks if not each.passed)
            return replace(found, outcome="published", version=recorded.version, checks=checks)
        case AssetRestored():
            return replace(found, outcome="restored", version=event.version, by=event.by, reason=event.reason)
        case AssetReset():
            return replace(found, outcome="reset", by=event.by, reason=event.reason)
        case AssetObserved():
            return replace(found, outcome="observed", version=recorded.version)
        case AssetUnchanged():
            return replace(found, outcome="unchanged", reasons=event.reasons)
        case AssetFailed():
            details = details_of(recorded)
            checks = tuple(each for each in details.checks if not each.passed)
            return replace(found, outcome="failed", error=details.error, checks=checks)
        case _:
            return replace(found, outcome="skipped")


# ------------------------------------------------------------------------------------------------ in words


def why_lines(why: Why, when: Callable[[int], str]) -> list[str]:
    """The same as sentences; what was followed is indented by two blanks for each step. `when`: a time in words."""
    return [*_said(why, when, 0), *_now(why)]


def _said(why: Why, when: Callable[[int], str], depth: int) -> Iterator[str]:
    blanks = "  " * depth
    yield blanks + _sentence(why, when)
    for check in why.checks:
        said = check.error or check.description or "it did not pass"
        yield f"{blanks}  check {check.name} ({check.severity}): {said}"
    for each in why.because:
        yield from _said(each, when, depth + 1)
    if why.unnamed:
        yield f"{blanks}  and because of {why.unnamed:,} more"


def _sentence(why: Why, when: Callable[[int], str]) -> str:
    title, at, run = why.title, when(why.at) if why.at else "", f"run {why.run}"
    asked = f"{f' by {why.by}' if why.by else ''}{f': {why.reason}' if why.reason else ''}"
    planned = f" because of this: {', '.join(why.reasons)}" if why.reasons else ""
    match why.outcome:
        case "promoted" | "restored" | "reset":
            return _by_a_person(why, f"{at}{asked}")
        case "published":
            return f"{title} was made by {run} at {at}{planned}. That is version {why.version}."
        case "observed":
            return f"{title} was observed by {run} at {at}. That is version {why.version}."
        case "unchanged":
            return (
                f"{title} was planned{planned}, and {run} did not make it at {at}: what it would be made from is what"
                " its current version was made from."
            )
        case "failed":
            return f"{title} was not made by {run} at {at}, which tried{planned}: {why.error}"
        case "skipped":
            return f"{title} was planned, and {run} skipped it at {at} because of what is upstream of it:"
        case "started":
            return f"{run[0].upper()}{run[1:]} has begun to make {title} at {at}{planned}, and has said nothing since."
        case "never":
            return f"Nothing was ever planned, made or observed of {title} in {why.environment}."


def _by_a_person(why: Why, asked: str) -> str:
    title = why.title
    if why.outcome == "promoted":
        return (
            f"{title} was promoted from a branch at {asked}. That is version {why.version}; run {why.run} had made it."
        )
    if why.outcome == "restored":
        return f"Version {why.version} of {title} was made the current one again at {asked}."
    return f"{title} was reset at {asked}: what the branch had made of it no longer counts."


def _now(why: Why) -> Iterator[str]:
    if why.external:
        yield "It is external: something else makes it, and it is only observed here."
        return
    if why.current is not None and why.outcome not in {"published", "promoted", "restored"}:
        yield f"What is read meanwhile is version {why.current.version}, of run {why.current.run}."
    if why.blocked:
        yield f"It cannot be made now: {why.blocked}."
    elif why.stale:
        yield f"It is stale now, and would be made by the next run that it is selected for: {', '.join(why.stale)}."
    elif why.current is not None:
        yield "It is up to date, so that nothing would make it now."
