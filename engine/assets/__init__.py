"""Data assets: what is defined, planned, materialized and known. See docs/assets.md.

It uses what anybody can import from `engine`, `engine.storage` and `eventstore`.
"""

from __future__ import annotations

from engine.assets.builtin import (
    accepted_values,
    in_range,
    matches,
    not_null,
    references,
    row_count,
    row_count_against_history,
    schema_unchanged,
    unique,
)
from engine.assets.calendar_partitions import Daily, Monthly, Weekly
from engine.assets.catalog import AssetState, AssetView, Catalog, PartitionState, Version
from engine.assets.checks import Check, CheckContext, CheckResult, EarlierVersion, check
from engine.assets.comparing import Change, RowChanges, VersionDetails, VersionDiff
from engine.assets.definition import Asset, AssetSpec, In, Out, asset, assets, external_asset
from engine.assets.definitions import DEFAULT_STORAGE, Definitions
from engine.assets.dimensions import Dimension, EachDimension, default_mapping
from engine.assets.environments import Environment, Promotion, list_environments
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
    Details,
    EnvironmentCreated,
    PartitionsAdded,
    PartitionsRemoved,
    Upstream,
    UpstreamVersion,
    details_of,
    read_event,
)
from engine.assets.expanding import expand
from engine.assets.facade import Assets
from engine.assets.hours import Hourly
from engine.assets.key_sets import KeySet, ReadKeys
from engine.assets.keys import PRODUCTION, asset_stream, key_of, task_name
from engine.assets.lineage import Lineage, LineageEdge, LineageVersion, mermaid
from engine.assets.mappings import AllPartitions, Custom, LastPartition, Mapping, SameKey, TimeWindow
from engine.assets.metadata import Json, Link, Markdown, Metadata, MetadataValue, Moment
from engine.assets.overview import AssetSummary
from engine.assets.partitions import Dynamic, DynamicKeys, Partitions, Product, Static, Unpartitioned, Window
from engine.assets.plans import Begun, Made, MadeOut, Outcome, Plan, PlanStep, Report, Request, StepRef
from engine.assets.references import AssetRef, parse_reference, reference_text
from engine.assets.values import AssetContext, Config, Materialized, Output, Secret
from engine.assets.why import Why, why_lines
from engine.assets.with_pandera import pandera_check
from engine.assets.with_pointblank import pointblank_check

__all__ = [
    "DEFAULT_STORAGE",
    "PRODUCTION",
    "AllPartitions",
    "Asset",
    "AssetContext",
    "AssetEvent",
    "AssetFailed",
    "AssetObserved",
    "AssetPromoted",
    "AssetPublished",
    "AssetRef",
    "AssetReset",
    "AssetRestored",
    "AssetSkipped",
    "AssetSpec",
    "AssetStarted",
    "AssetState",
    "AssetSummary",
    "AssetUnchanged",
    "AssetView",
    "Assets",
    "Begun",
    "Catalog",
    "Change",
    "Check",
    "CheckContext",
    "CheckOutcome",
    "CheckResult",
    "Config",
    "Custom",
    "Daily",
    "Definitions",
    "Details",
    "Dimension",
    "Dynamic",
    "DynamicKeys",
    "EachDimension",
    "EarlierVersion",
    "Environment",
    "EnvironmentCreated",
    "Hourly",
    "In",
    "Json",
    "KeySet",
    "LastPartition",
    "Lineage",
    "LineageEdge",
    "LineageVersion",
    "Link",
    "Made",
    "MadeOut",
    "Mapping",
    "Markdown",
    "Materialized",
    "Metadata",
    "MetadataValue",
    "Moment",
    "Monthly",
    "Out",
    "Outcome",
    "Output",
    "PartitionState",
    "Partitions",
    "PartitionsAdded",
    "PartitionsRemoved",
    "Plan",
    "PlanStep",
    "Product",
    "Promotion",
    "ReadKeys",
    "Report",
    "Request",
    "RowChanges",
    "SameKey",
    "Secret",
    "Static",
    "StepRef",
    "TimeWindow",
    "Unpartitioned",
    "Upstream",
    "UpstreamVersion",
    "Version",
    "VersionDetails",
    "VersionDiff",
    "Weekly",
    "Why",
    "Window",
    "accepted_values",
    "asset",
    "asset_stream",
    "assets",
    "check",
    "default_mapping",
    "details_of",
    "expand",
    "external_asset",
    "in_range",
    "key_of",
    "list_environments",
    "matches",
    "mermaid",
    "not_null",
    "pandera_check",
    "parse_reference",
    "pointblank_check",
    "read_event",
    "reference_text",
    "references",
    "row_count",
    "row_count_against_history",
    "schema_unchanged",
    "task_name",
    "unique",
    "why_lines",
]
