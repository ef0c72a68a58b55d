"""Data assets: the orders of a small shop, split by month, checked, and summed up.

On the command line, in a folder of its own::

    holdfast plan examples/assets.py
    holdfast materialize examples/assets.py
    holdfast materialize examples/assets.py
    holdfast assets examples/assets.py
    holdfast why revenue --target examples/assets.py
    holdfast lineage revenue --target examples/assets.py

Or as a program: ``python examples/assets.py [FILE]``.
"""

import asyncio
import sys
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc

from engine import Engine
from engine.assets import (
    AssetContext,
    Assets,
    CheckResult,
    Config,
    Definitions,
    Monthly,
    asset,
    check,
    not_null,
)
from engine.storage import Storage
from eventstore.urls import open_store

MONTHS = Monthly("2026-01", end="2026-04")


@asset(group="raw", owners=["ann"], tags={"tier": "1"})
def raw_orders() -> pa.Table:
    """What the shop system exports."""
    return pa.table(
        {
            "id": [1, 2, 3, 4],
            "month": ["2026-01", "2026-02", "2026-02", "2026-03"],
            "amount": [10.0, 20.0, 2.5, 40.0],
        }
    )


@asset(group="sales", partitions=MONTHS, checks=[not_null("id")])
def orders(raw_orders: pa.Table, context: AssetContext) -> pa.Table:
    """The orders of one month."""
    found = raw_orders.filter(pc.equal(raw_orders["month"], context.partition))
    context.add_metadata(largest=pc.max(found["amount"]).as_py())
    return found


@check(orders, blocking=False)
def few_small_ones(orders: pa.Table) -> CheckResult:
    """Orders that hardly pay for their postage; a warning, so that it blocks nothing."""
    small = orders.filter(pc.less(orders["amount"], 5.0))
    return CheckResult(small.num_rows == 0, f"{small.num_rows} below 5", rows=small.to_pylist())


class Rules(Config, frozen=True):
    """What is counted."""

    least: float = 0.0


@asset(group="report")
def revenue(orders: dict[str, pa.Table], rules: Rules) -> dict[str, float]:
    """By month, the sum of all orders that are large enough."""
    sums = {}
    for month, table in orders.items():
        counted = table.filter(pc.greater_equal(table["amount"], rules.least))
        sums[month] = float(pc.sum(counted["amount"]).as_py() or 0.0)
    return sums


definitions = Definitions([raw_orders, orders, revenue], checks=[few_small_ones])


async def main(file: str) -> None:
    """Make what is stale, and look at it."""
    store = await open_store(f"sqlite:///{file}")
    assets = Assets(definitions, store, storage=Storage(f"{file}-values"))
    async with Engine(store, workflows=assets.workflows, storage=assets.storage) as engine:
        plan = await assets.plan("+revenue")
        if plan.steps:
            run = await engine.start(assets.materialize(plan))
            await run.result()
        print("stale now:", list(await assets.stale()))
        print("revenue:", await assets.read("revenue", dict[str, float]))
        why = await assets.why("orders", "2026-02")
        print("orders of February:", why.outcome, *(each.description for each in why.checks))
        lineage = await assets.lineage("revenue")
        print("made from:", ", ".join(sorted({each.key for each in lineage.versions if each.depth})))
    await store.aclose()


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{folder}/runs.db"))
