"""What a person changes in a catalog: the current version, keys of partitions, branches; each says who, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import to_builtins
from rich.text import Text

from engine.assets import (
    Definitions,
    Dynamic,
    Partitions,
    Product,
    Promotion,
    list_environments,
    parse_reference,
    reference_text,
)
from engine.cli.asset_desk import Desk
from engine.cli.asset_tables import version_document
from engine.cli.problems import Exit, Problem
from engine.cli.readable import clock, instant
from engine.cli.tables import table_of

__all__ = ["change_partitions", "create_branch", "list_branches", "promote_branch", "reset_branch", "restore_version"]


async def restore_version(desk: Desk, text: str, environment: str, reason: str) -> Exit:
    """Make an earlier version the current one."""
    ref = parse_reference(text)
    if ref.version is None:
        raise Problem(
            f"which version of {text}? Say {ref.key}@VERSION", hint=f"holdfast asset versions {ref.key} lists them"
        )
    if ref.partition:  # a version that is of another partition is refused
        await desk.assets.version(ref.key, ref.version, partition=ref.partition, environment=environment)
    found = await desk.assets.restore(ref.key, ref.version, environment=environment, by=desk.by, reason=reason)
    if desk.output.json:
        desk.output.document({"asset": ref.key, "restored": version_document(found)})
    else:
        title = reference_text(ref.key, found.partition)
        desk.output.line(f"version {found.version} of {title} is the current one again in {environment}")
        desk.output.line("What was made from another version is stale now; plan says what.")
    return Exit.COMPLETED


async def change_partitions(desk: Desk, name: str, keys: Iterable[str], reason: str, *, remove: bool) -> Exit:
    """Add or remove keys."""
    known = _dynamic(desk.assets.definitions)
    if name not in known:
        there = f"there are {', '.join(sorted(known))}" if known else "none of the assets has any"
        raise Problem(f"no asset has dynamic partitions {name!r}; {there}")
    change = desk.assets.remove_partitions if remove else desk.assets.add_partitions
    changed = await change(name, *keys, by=desk.by, reason=reason)
    word = "removed" if remove else "added"
    if desk.output.json:
        desk.output.document({"partitions": name, word: changed})
    else:
        desk.output.line(f"{name}: {word} {', '.join(changed)}" if changed else f"{name}: nothing to be {word}")
    return Exit.COMPLETED


def _dynamic(definitions: Definitions) -> set[str]:
    names: set[str] = set()
    waiting: list[Partitions] = [node.partitions for node in definitions.nodes.values()]
    while waiting:
        match waiting.pop():
            case Dynamic() as each:
                names.add(each.name)
            case Product() as each:
                waiting += [each.first, each.second]
            case _:
                pass
    return names


async def create_branch(desk: Desk, name: str, base: str, reason: str) -> Exit:
    """Make an environment."""
    found = await desk.assets.create_environment(name, base=base, by=desk.by, reason=reason)
    if desk.output.json:
        desk.output.document({"environment": found.name, "base": found.base})
    else:
        desk.output.line(f"environment {found.name} branches off {found.base}; holdfast materialize --env {found.name}")
    return Exit.COMPLETED


async def list_branches(desk: Desk) -> Exit:
    """All environments."""
    found = await list_environments(desk.store)
    if desk.output.json:
        rows = [{**to_builtins(each), "at": instant(each.at or None)} for each in found]
        desk.output.document({"environments": rows})
        return Exit.COMPLETED
    table = table_of("environment", "branches off", "since", "by", "reason")
    for each in found:
        table.add_row(Text(each.name, style="bold"), each.base, clock(each.at) if each.at else "", each.by, each.reason)
    desk.output.show(table)
    return Exit.COMPLETED


async def promote_branch(desk: Desk, name: str, select: tuple[str, ...], reason: str) -> Exit:
    """Make what a branch has made current in its base."""
    found = await desk.assets.promote(name, *select, by=desk.by, reason=reason)
    nothing = f"nothing to promote: {name} has made nothing that its base does not have"
    return _say(desk, name, "promoted", found, nothing)


async def reset_branch(desk: Desk, name: str, select: tuple[str, ...], reason: str) -> Exit:
    """Let what a branch has made no longer count."""
    found = await desk.assets.reset(name, *select, by=desk.by, reason=reason)
    return _say(desk, name, "reset", found, f"nothing to reset: {name} has nothing of its own")


def _say(desk: Desk, name: str, word: str, found: Sequence[Promotion], nothing: str) -> Exit:
    if desk.output.json:
        desk.output.document({"environment": name, word: [to_builtins(each) for each in found]})
        return Exit.COMPLETED
    if not found:
        desk.output.line(nothing)
        return Exit.COMPLETED
    by_key: dict[str, int] = {}
    for each in found:
        by_key[each.key] = by_key.get(each.key, 0) + 1
    for key, number in by_key.items():
        desk.output.line(f"{word} {key}" + (f", {number:,} partitions" if number > 1 else ""))
    return Exit.COMPLETED
