"""What is asked for, what is planned, and what came of it: the values that a materializing run is given and returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct, structs

from engine.assets.checks import EarlierVersion
from engine.assets.events import CheckOutcome
from engine.assets.keys import PRODUCTION
from engine.assets.metadata import MetadataValue
from engine.assets.references import reference_text
from engine.storage import Stored

__all__ = [
    "NAMED_VERSIONS",
    "Begun",
    "Earlier",
    "Made",
    "MadeOut",
    "Outcome",
    "Pinned",
    "PinnedVersion",
    "Plan",
    "PlanStep",
    "Report",
    "Request",
    "StepRef",
]


class Request(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody asks for."""

    select: tuple[str, ...] = ()  # as `selection` reads it; () is everything
    partitions: str = ""  # as a `KeySet` is written; "" is all that there are
    environment: str = PRODUCTION
    force: bool = False  # also what is not stale
    config: Mapping[str, Mapping[str, Any]] = {}  # by key of the asset
    by: str = ""
    reason: str = ""


class PlanStep(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Partitions of what one function makes that are to be made for the same reasons."""

    node: str  # the key of its (first) asset
    partitions: str  # as a `KeySet` is written; "" without partitions
    count: int
    reasons: tuple[str, ...]
    digest: str = ""  # of the keys, one by one: whoever expands the text later compares it


class Plan(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be made, upstream first, and why. Made by a planner that touches nothing."""

    request: Request
    at: int  # microseconds since the epoch; which partitions of time there are depends on it
    steps: tuple[PlanStep, ...] = ()
    unchanged: Mapping[str, int] = {}  # by node, how many partitions are up to date
    blocked: Mapping[str, str] = {}  # by node, why it cannot be made
    dynamic: Mapping[str, tuple[str, ...]] = {}  # the keys of dynamic partitions, as they were
    dynamic_as_of: Mapping[str, int] = {}  # by their name, the version of their stream

    @property
    def count(self) -> int:
        """How many partitions of functions it makes."""
        return sum(step.count for step in self.steps)


class StepRef(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One partition of what one function makes."""

    node: str
    partition: str = ""
    at: int = 0  # of the plan
    dynamic_as_of: Mapping[str, int] = {}  # likewise
    environment: str = PRODUCTION
    force: bool = False
    config: Mapping[str, Any] = {}
    reasons: tuple[str, ...] = ()  # why it is planned

    @property
    def title(self) -> str:
        """As messages call it."""
        return reference_text(self.node, self.partition)


class PinnedVersion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A version of a partition that is read."""

    partition: str
    version: int
    data_version: str
    stored: Stored | None = None


class Pinned(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a step reads of one upstream asset."""

    key: str
    environment: str
    as_of: int
    partitions: str
    count: int
    digest: str
    slot: str = ""
    versions: tuple[PinnedVersion, ...] = ()  # all of them, if it is read


NAMED_VERSIONS: Final = 20
"""Upstream versions that an event names one by one; of more it says as of when, and their digest."""


class Earlier(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was published of an asset before."""

    previous: EarlierVersion | None = None
    history: tuple[EarlierVersion, ...] = ()


class Begun(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step that has begun: what it is made from is pinned. `unchanged`: it need not be made. `busy`: it has
    not begun, for another run is making it.
    """

    step: StepRef
    provenance: str
    code_version: str
    config: str = ""
    inputs: tuple[Pinned, ...] = ()
    beside: tuple[Pinned, ...] = ()  # what only checks read
    earlier: Mapping[str, Earlier] = {}  # by key, for checks that ask
    started_at: int = 0
    as_of: int = 0  # of the stream of the (first) asset that is made
    unchanged: bool = False
    busy: str = ""  # the run that is making it already
    missing: tuple[str, ...] = ()  # upstream partitions that are not there: it cannot be made

    @property
    def brief(self) -> Begun:
        """What is needed to say how it ended: not where all that was read lies, which may be ten thousand places."""
        return structs.replace(self, inputs=tuple(map(_brief, self.inputs)), beside=(), earlier={})


def _brief(pinned: Pinned) -> Pinned:
    few = pinned.versions if pinned.count <= NAMED_VERSIONS else ()
    return structs.replace(pinned, versions=tuple(structs.replace(each, stored=None) for each in few))


class MadeOut(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A value that was written, and that nobody else can see yet."""

    key: str
    data_version: str
    stored: Stored | None = None
    metadata: Mapping[str, MetadataValue] = {}


class Made(Struct, frozen=True, kw_only=True):
    """What a function has made."""

    outs: tuple[MadeOut, ...]


Outcome: TypeAlias = Literal["published", "unchanged", "failed", "skipped"]


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a plan."""

    counts: Mapping[str, int]
    nodes: Mapping[str, Mapping[str, int]] = {}  # by node, how many of its partitions ended so
    failed: Mapping[str, str] = {}  # why, of the first ones
    skipped: Mapping[str, str] = {}  # because of what, likewise
    warnings: Mapping[str, tuple[CheckOutcome, ...]] = {}
