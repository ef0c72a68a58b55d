"""A plan for a person: what is made, why, and what cannot be; a row for an asset, or for many that are alike. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engine.assets import Definitions, Plan, PlanStep, Unpartitioned
from engine.cli.readable import clipped, counted, instant

__all__ = ["plan_document", "plan_headline", "plan_view"]

ASSETS_SHOWN: Final = 40
"""Rows that name single assets; a plan with more is shown by groups and reasons."""
_REASONS_SHOWN: Final = 3
_INDENT: Final = (0, 0, 0, 2)


class _Row(Struct, kw_only=True):
    """What is made for the same reasons: partitions of one asset, or many assets of a group."""

    group: str
    names: list[str]
    count: int
    partitions: str
    reasons: tuple[str, ...]


def plan_headline(plan: Plan, definitions: Definitions) -> str:
    """The plan in a sentence."""
    where = "" if plan.request.environment == "prod" else f" in {plan.request.environment}"
    unchanged = sum(plan.unchanged.values())
    if not plan.steps:
        if plan.blocked:
            return f"nothing can be made{where}"
        return f"nothing to do{where}: {_things(unchanged, len(plan.unchanged))} up to date"
    nodes = dict.fromkeys(step.node for step in plan.steps)
    observed = [name for name in nodes if definitions.node_of(name).asset.external]
    steps = sum(step.count for step in plan.steps if step.node not in observed)
    parts = [f"{counted(steps, 'step')} to make {counted(len(nodes) - len(observed), 'asset')}"] if steps else []
    parts += [f"{counted(len(observed), 'external asset')} to observe"] if observed else []
    parts += [f"{_things(unchanged, len(plan.unchanged))} up to date"] if unchanged else []
    parts += [f"{counted(len(plan.blocked), 'asset')} blocked"] if plan.blocked else []
    return f"plan{where}: {', '.join(parts)}"


def plan_view(plan: Plan, definitions: Definitions) -> RenderableType:
    """All of it."""
    parts: list[RenderableType] = [Text(plan_headline(plan, definitions), style="bold")]
    request = plan.request
    said = [f"select {' '.join(request.select)}"] if request.select else []
    said += [f"partitions {request.partitions}"] if request.partitions else []
    said += ["also what is not stale (--force)"] if request.force else []
    if said:
        parts.append(Text(f"  {'; '.join(said)}", style="dim"))
    if plan.steps:
        parts += [Text(""), _table(_rows(plan, definitions))]
    if plan.blocked:
        parts.append(Text(""))
        for name, why in list(plan.blocked.items())[:ASSETS_SHOWN]:
            text = Text(f"  ⊘ {name} is blocked: ", style="yellow").append(why, style="default")
            parts.append(text)
        if len(plan.blocked) > ASSETS_SHOWN:
            parts.append(Text(f"  … and {len(plan.blocked) - ASSETS_SHOWN:,} more", style="dim"))
    return Group(*parts)


def plan_document(plan: Plan, definitions: Definitions) -> dict[str, Any]:
    """The same as JSON."""
    request = plan.request
    return {
        "environment": request.environment,
        "select": request.select,
        "partitions": request.partitions,
        "force": request.force,
        "at": instant(plan.at),
        "count": plan.count,
        "steps": [
            {
                "asset": step.node,
                "group": _group(step.node, definitions),
                "partitions": "" if _whole(step, definitions) else step.partitions,
                "count": step.count,
                "reasons": step.reasons,
            }
            for step in plan.steps
        ],
        "unchanged": plan.unchanged,
        "blocked": plan.blocked,
    }


def _rows(plan: Plan, definitions: Definitions) -> list[_Row]:
    if len(plan.steps) <= ASSETS_SHOWN:
        return [
            _Row(
                group=_group(step.node, definitions),
                names=[step.node],
                count=step.count,
                partitions="" if _whole(step, definitions) else step.partitions,
                reasons=step.reasons,
            )
            for step in plan.steps
        ]
    rows: dict[tuple[str, tuple[str, ...]], _Row] = {}
    for step in plan.steps:
        group, reasons = _group(step.node, definitions), _kinds(step.reasons)
        row = rows.setdefault((group, reasons), _Row(group=group, names=[], count=0, partitions="", reasons=reasons))
        row.names.append(step.node)
        row.count += step.count
    return list(rows.values())


def _kinds(reasons: Sequence[str]) -> tuple[str, ...]:
    """Reasons without the names in them, so that assets that are alike come together."""
    words: Mapping[str, str] = {"changed": "upstream changed", "first": "upstream is made first"}
    own = {"code changed", "configuration changed"}
    return tuple(dict.fromkeys(each if each in own else words.get(each.split()[-1], each) for each in reasons))


def _table(rows: Sequence[_Row]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    grouped = any(row.group for row in rows)
    if grouped:
        table.add_column("group", no_wrap=True)
    table.add_column("asset", no_wrap=True)
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("why")
    partitioned = any(row.partitions for row in rows)
    if partitioned:
        table.add_column("partitions")
    for row in rows:
        cells: list[Text | str] = [Text(row.group)] if grouped else []
        cells += [_names(row.names), f"{row.count:,}", _why(row.reasons)]
        table.add_row(*cells, *([clipped(row.partitions, 60)] if partitioned else []))
    return Padding(table, _INDENT, expand=False)


def _names(names: Sequence[str]) -> Text:
    distinct = list(dict.fromkeys(names))
    if len(distinct) == 1:
        return Text(distinct[0], style="bold")
    return Text(f"{len(distinct):,} assets", style="bold").append(f"  {distinct[0]}, …", style="dim")


def _why(reasons: Sequence[str]) -> str:
    shown = ", ".join(reasons[:_REASONS_SHOWN])
    return shown if len(reasons) <= _REASONS_SHOWN else f"{shown}, and {len(reasons) - _REASONS_SHOWN:,} more"


def _group(name: str, definitions: Definitions) -> str:
    return definitions.specs[name].group


def _whole(step: PlanStep, definitions: Definitions) -> bool:
    return isinstance(definitions.node_of(step.node).partitions, Unpartitioned)


def _things(partitions: int, assets: int) -> str:
    if partitions == assets:
        return f"{counted(assets, 'asset')} {'is' if assets == 1 else 'are'}"
    return f"{counted(partitions, 'partition')} of {counted(assets, 'asset')} are"
