"""The planner: what is stale, why, in which order. Pure: definitions and what the catalog says in, a `Plan` out.

What is compared is identities: of the code, of the configuration, and of what was read. A partition whose upstream is in
the plan is in the plan, too; whether it is really made is decided when its upstream is there, and may have come out as
it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from engine.assets.catalog import AssetView, Version
from engine.assets.definitions import Definitions
from engine.assets.nodes import Input, Node
from engine.assets.partitions import DynamicKeys
from engine.assets.key_sets import KeySet
from engine.assets.plans import Plan, PlanStep, Request
from engine.assets.provenance import inputs_digest
from engine.errors import AssetError, PartitionError

__all__ = ["Facts", "make_plan", "moment"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Facts(Struct, frozen=True, kw_only=True, eq=False):
    """What a plan is made of, as it stands at `at`."""

    at: int  # microseconds since the epoch
    views: Mapping[str, AssetView]  # by key
    code: Mapping[str, str]  # by node
    config: Mapping[str, str]  # by node
    dynamic: DynamicKeys


def moment(at: int) -> datetime:
    """Microseconds since the epoch as a time."""
    return _EPOCH + timedelta(microseconds=at)


def make_plan(definitions: Definitions, request: Request, chosen: Iterable[str], facts: Facts) -> Plan:
    """What is to be made of the chosen nodes. Raises `AssetError` for partitions that none of them has."""
    return _Planning(definitions, request, frozenset(chosen), facts).plan()
