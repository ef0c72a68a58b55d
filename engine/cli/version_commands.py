"""The commands about one asset, its versions and what became of it: `asset`, `why`, `lineage`; and `environment`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.asset_doing import with_assets
from engine.cli.problems import Exit
from engine.cli.words import (
    AtMostOption,
    ByOption,
    DebugOption,
    EnvOption,
    JsonOption,
    ReasonOption,
    SelectOption,
    SomeStoreOption,
    SomeTargetOption,
    commands,
    epilog,
)

if TYPE_CHECKING:
    from engine.cli.asset_desk import Desk

__all__ = ["asset_group", "environment_group", "group"]

group = commands()
asset_group = commands(name="asset", help="One asset and its versions.", no_args_is_help=True)
partitions_group = commands(name="partitions", help="Keys of dynamic partitions.", no_args_is_help=True)
environment_group = commands(name="environment", help="Branches of the catalog.", no_args_is_help=True)
asset_group.add_typer(partitions_group)

AssetArgument = Annotated[
    str,
    typer.Argument(
        metavar="ASSET",
        help="KEY, KEY@VERSION, 'KEY[PARTITION]' or 'KEY[PARTITION]@VERSION'; the current version if none is named.",
        show_default=False,
    ),
]
PartitionArgument = Annotated[
    str, typer.Argument(metavar="[PARTITION]", help="One of its partitions.", show_default=False)
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As Dynamic(NAME) says.", show_default=False)]
KeysArgument = Annotated[list[str], typer.Argument(metavar="KEY...", help="Partition keys.", show_default=False)]
EnvironmentArgument = Annotated[str, typer.Argument(metavar="NAME", help="Its name.", show_default=False)]


@asset_group.command(
    epilog=epilog(
        "holdfast asset show orders", "holdfast asset show 'flights[2013-01]'", "holdfast asset show orders@17 --json"
    )
)
def show(
    *,
    asset: AssetArgument,
    partition: PartitionArgument = "",
    env: EnvOption = "prod",
    target: SomeTargetOption = None,
    store: SomeStoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show a version: when and by which run it was made, of what, with which checks and metadata."""
    from engine.cli.asset_reading import show_version  # noqa: PLC0415 - see asset_doing

    async def do(desk: Desk) -> Exit:
        return await show_version(desk, asset, partition, env)

    with_assets(do, target=target, store=store, opening="look", json=json, debug=debug)


@asset_group.command(
    epilog=epilog("holdfast asset versions orders", "holdfast asset versions flights 2013-01 --limit 5 --json")
)
def versions(
    *,
    asset: AssetArgument,
    partition: PartitionArgument = "",
    limit: AtMostOption = 20,
    env: EnvOption = "prod",
    target: SomeTargetOption = None,
    store: SomeStoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the versions of an asset, or of one of its partitions, the latest first."""
    from engine.cli.asset_reading import list_versions  # noqa: PLC0415 - see asset_doing

    async def do(desk: Desk) -> Exit:
        return await list_versions(desk, asset, partition, env, limit)

    with_assets(do, target=target, store=store, opening="look", json=json, debug=debug)


@asset_group.command(
    epilog=epilog(
        "holdfast asset diff orders@17 orders@23", "holdfast asset diff orders", "holdfast asset diff orders@17 --json"
    )
)
def diff(
    *,
    asset: AssetArgument,
    other: Annotated[
        str | None,
        typer.Argument(
            metavar="[OTHER]",
            help="The newer one; without it the first is held against the one before it, if it is"
            " the current one, and else against that.",
            show_default=False,
        ),
    ] = None,
    env: EnvOption = "prod",
    target: SomeTargetOption = None,
    store: SomeStoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what tells two versions apart: columns, rows, values, metadata, what they were made from, the code."""
    from engine.cli.asset_reading import show_diff  # noqa: PLC0415 - see asset_doing

    async def do(desk: Desk) -> Exit:
        return await show_diff(desk, asset, other, env)

    with_assets(do, target=target, store=store, opening="look", json=json, debug=debug)


@asset_group.command(epilog=epilog("holdfast asset restore orders@17 --reason 'the feed was broken'"))
def restore(
    *,
    asset: AssetArgument,
    env: EnvOption = "prod",
    by: ByOption = None,
    reason: ReasonOption = "",
    target: SomeTargetOption = None,
    store: SomeStoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make an earlier version the current one again. Nothing is computed, and nothing is taken away."""
    from engine.cli.asset_changing import restore_version  # noqa: PLC0415 - see asset_doing

    async def do(desk: Desk) -> Exit:
        return await restore_version(desk, asset, env, reason)

    with_assets(do, target=target, store=store, opening="change", json=json, debug=debug, by=by)


@partitions_group.command(epilog=epilog("holdfast asset partitions add customers acme globex"))
def add(
    *,
    name: NameArgument,
    keys: KeysArgument,
    by: ByOption = None,
    reason: ReasonOption = "",
    target: SomeTargetOption = None,
    store: SomeStoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Add keys to dynamic partitions."""
    from engine.cli.asset_changing import change_partitions  # noqa: PLC0415 - see asset_doing

    async def do(desk: Desk) -> Exit:
        return await change_partitions(desk, name, keys, reason, remove=False)

    with_assets(do, target=target, store=store, opening="work", json=json, debug=debug, by=by)


@partitions_group.command(epilog=epilog("holdfast asset partitions remove customers acme"))
def remove(
    *,
    name: NameArgument,
    keys: KeysArgument,
    by: ByOption = None,
    reason: ReasonOption = "",
    target: SomeTargetOption = None,
    store: SomeStoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Remove keys from dynamic partitions. What was made of them stays in the log."""
    from engine.cli.asset_changing import change_partitions  # noqa: PLC0415 - see asset_doing

    async def do(desk: Desk) -> Exit:
        return await change_partitions(desk, name, keys, reason, remove=True)

    with_assets(do, target=target, store=store, opening="change", json=json, debug=debug, by=by)


@group.command(
    epilog=epilog("holdfast why report", "holdfast why flights 2013-01", "holdfast why flights 2013-01 --json")
)
def why(
    *,
    asset: AssetArgument,
    partition: PartitionArgument = "",
    env: EnvOption = "prod",
    target: SomeTargetOption = None,
    store: SomeStoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say why an asset, or a partition of it, was made the last time, or was not, and how it stands now."""
    from engine.cli.tracing import show_why  # noqa: PLC0415 - see asset_doing

    async def do(desk: Desk) -> Exit:
        return await show_why(desk, asset, partition, env)

    with_assets(do, target=target, store=store, opening="look", json=json, debug=debug)


@group.command(
    epilog=epilog(
        "holdfast lineage report", "holdfast lineage orders@17 --down", "holdfast lineage report --depth 2 --mermaid"
    )
)
def lineage(
    *,
    asset: AssetArgument,
    partition: PartitionArgument = "",
    up: Annotated[bool, typer.Option("--up", help="All that it was made from; so without either.")] = False,
    down: Annotated[bool, typer.Option("--down", help="All that was made from it.")] = False,
    depth: Annotated[
        int | None, typer.Option("--depth", metavar="NUMBER", min=1, help="So many steps.", show_default=False)
    ] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As a flowchart in Mermaid's words.")] = False,
    env: EnvOption = "prod",
    target: SomeTargetOption = None,
    store: SomeStoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show which versions made a version, or were made from it, across runs."""
    from engine.cli.tracing import show_lineage  # noqa: PLC0415 - see asset_doing

    if json and mermaid:
        raise typer.BadParameter("it is printed as JSON or in Mermaid's words, not both", param_hint="--mermaid")

    async def do(desk: Desk) -> Exit:
        directions = ["up"] * (up or not down) + ["down"] * down
        return await show_lineage(desk, asset, partition, env, directions=directions, depth=depth, mermaid=mermaid)

    with_assets(do, target=target, store=store, opening="look", json=json, debug=debug)


@environment_group.command(
    epilog=epilog("holdfast environment create dev", "holdfast environment create trial --base dev")
)
def create(
    *,
    name: EnvironmentArgument,
    base: Annotated[str, typer.Option("--base", metavar="NAME", help="What it branches off.")] = "prod",
    by: ByOption = None,
    reason: ReasonOption = "",
    target: SomeTargetOption = None,
    store: SomeStoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a branch of the catalog, which shares what it does not make itself."""
    from engine.cli.asset_changing import create_branch  # noqa: PLC0415 - see asset_doing

    async def do(desk: Desk) -> Exit:
        return await create_branch(desk, name, base, reason)

    with_assets(do, target=target, store=store, opening="work", json=json, debug=debug, by=by)


@environment_group.command(name="list", epilog=epilog("holdfast environment list", "holdfast environment list --json"))
def list_(
    *,
    target: SomeTargetOption = None,
    store: SomeStoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List environments."""
    from engine.cli.asset_changing import list_branches  # noqa: PLC0415 - see asset_doing

    with_assets(list_branches, target=target, store=store, opening="look", json=json, debug=debug)


@environment_group.command(
    epilog=epilog(
        "holdfast environment promote dev", "holdfast environment promote dev --select +report --reason 'looks right'"
    )
)
def promote(
    *,
    name: EnvironmentArgument,
    select: SelectOption = None,
    by: ByOption = None,
    reason: ReasonOption = "",
    target: SomeTargetOption = None,
    store: SomeStoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make what a branch has made current in what it branches off, without computing it again."""
    from engine.cli.asset_changing import promote_branch  # noqa: PLC0415 - see asset_doing

    async def do(desk: Desk) -> Exit:
        return await promote_branch(desk, name, tuple(select or ()), reason)

    with_assets(do, target=target, store=store, opening="change", json=json, debug=debug, by=by)


@environment_group.command(
    epilog=epilog("holdfast environment reset dev", "holdfast environment reset dev --select raw_orders --reason stale")
)
def reset(
    *,
    name: EnvironmentArgument,
    select: SelectOption = None,
    by: ByOption = None,
    reason: ReasonOption = "",
    target: SomeTargetOption = None,
    store: SomeStoreOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let what a branch has made no longer count there, so that what it branches off is read again."""
    from engine.cli.asset_changing import reset_branch  # noqa: PLC0415 - see asset_doing

    async def do(desk: Desk) -> Exit:
        return await reset_branch(desk, name, tuple(select or ()), reason)

    with_assets(do, target=target, store=store, opening="change", json=json, debug=debug, by=by)
