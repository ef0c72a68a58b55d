"""Why, lineage and diffs of versions, as a program asks for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.assets import (
    AssetContext,
    Dynamic,
    DynamicKeys,
    Out,
    Static,
    StepRef,
    asset,
    assets,
    mermaid,
    parse_reference,
    reference_text,
    why_lines,
)
from engine.assets.lineage import Tracing
from engine.assets.row_diff import compare_rows
from engine.errors import AssetError, AssetNotFound, PartitionError
from engine.storage import Storage
from tests.assets.shop import materialize, shop
from tests.runtime.worlds import World

MANY = Static([f"p{number:02}" for number in range(30)])
BROKEN: set[str] = set()


@asset
def source() -> dict[str, int]:
    return {"value": 1}


@asset(partitions=MANY)
def parts(source: dict[str, int], context: AssetContext) -> int:
    if context.partition in BROKEN:
        raise ValueError("broken")
    return source["value"]


@asset
def total(parts: dict[str, int]) -> int:
    return sum(parts.values())


@assets(outs={"left": Out(), "right": Out()})
def halves(total: int) -> tuple[int, int]:
    return total, total


@asset
def end(right: int) -> int:
    return right


EVERY = (source, parts, total, halves, end)


async def test_lineage_reads_many_versions_as_they_stood(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, *EVERY) as (offered, engine):
        await materialize(offered, engine)
        first = await offered.version("total")
        await materialize(offered, engine, "parts", partitions="p05", force=True)
        up = await offered.lineage("total", first.version)
        names = {each.title for each in up.versions}
        assert len(names) == 1 + 30 + 1
        assert all(edge.exact for edge in up.edges)
        now = (await offered.version("parts", partition="p05")).version
        assert f"parts[p05]@{now}" not in names, "what was made later is not what it was made from"
        down = await offered.lineage("source", direction="down")
        assert {each.key for each in down.versions} == {"source", "parts", "total", "left", "right", "end"}
        assert sum(each.key == "parts" for each in down.versions) == 31, "the one that was made again is its, too"
        assert "v0" in mermaid(down)


async def test_lineage_is_bounded_in_depth_and_number(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, *EVERY) as (offered, engine):
        await materialize(offered, engine)
        near = await offered.lineage("end", depth=1)
        assert [each.title for each in near.versions] == ["end@2", "right@1"]
        assert [(edge.upstream, edge.downstream) for edge in near.edges] == [("prod:right@1", near.root)]
        catalog = await offered.catalog()
        tracing = Tracing(catalog, offered.definitions, DynamicKeys())
        few = await tracing.trace("total", (await offered.version("total")).version, "up", versions_max=5)
        assert (len(few.versions), few.left_out) == (5, 27)
        assert {edge.downstream for edge in few.edges} <= {each.id for each in few.versions}
        with pytest.raises(AssetNotFound, match="total@99 is no version of it in prod"):
            await tracing.trace("total", 99, "up")


async def test_why_of_many_names_the_first_and_counts_the_rest(world: World, tmp_path: Path) -> None:
    BROKEN.update(MANY.names)
    try:
        async with shop(world, tmp_path, *EVERY) as (offered, engine):
            with pytest.raises(Exception, match="broken"):
                await materialize(offered, engine)
            why = await offered.why("end")
            assert why.outcome == "skipped"
            (halves_why,) = why.because
            (total_why,) = halves_why.because
            assert (len(total_why.because), total_why.unnamed) == (10, 20)
            assert {each.outcome for each in why.roots} == {"failed"}
            assert "      and because of 20 more" in why_lines(why, str)
            with pytest.raises(PartitionError, match="p99"):
                await offered.why("parts", "p99")
    finally:
        BROKEN.clear()


async def test_why_of_what_was_begun_and_never_ended(world: World, tmp_path: Path) -> None:
    async with shop(world, tmp_path, *EVERY) as (offered, engine):
        plan = await offered.plan("source")
        begun = await offered._shop.begin(StepRef(node="source", at=plan.at, reasons=plan.steps[0].reasons), "gone")
        assert not begun.unchanged
        why = await offered.why("source")
        assert (why.outcome, why.run, why.reasons) == ("started", "gone", ("missing",))
        assert why_lines(why, str)[0].startswith("Run gone has begun to make source at")


async def test_a_partition_that_is_gone_is_still_known_to_the_log(world: World, tmp_path: Path) -> None:
    @asset(partitions=Dynamic("guests"))
    def plate() -> int:
        return 1

    async with shop(world, tmp_path, plate) as (offered, engine):
        await offered.add_partitions("guests", "ann")
        await materialize(offered, engine)
        await offered.remove_partitions("guests", "ann")
        why = await offered.why("plate", "ann")
        assert (why.outcome, why.stale) == ("published", ())


@pytest.mark.parametrize("at_once", [1, 7, 1_000])
def test_rows_are_compared_in_as_many_passes_as_it_takes(at_once: int, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    storage = Storage(tmp_path).blocking
    old = storage.write(pa.table({"id": [1, 2, 2, 3, None], "t": [["a"], [], [], None, ["x"]]}))
    new = storage.write(pa.table({"t": [None, [], ["x"], ["b"]], "id": [3, 2, None, 4], "more": [0, 0, 0, 0]}))
    found = compare_rows(storage, old, new, ["id", "t"], at_once=at_once)
    assert (found.added, found.removed) == (1, 2)
    assert [dict(row) for row in found.added_rows] == [{"id": 4, "t": "['b']"}]
    assert sorted(row["id"] for row in found.removed_rows) == [1, 2]


@pytest.mark.parametrize(
    ("text", "key", "partition", "version"),
    [
        ("orders", "orders", "", None),
        ("raw/orders@17", "raw/orders", "", 17),
        ("flights[2013-01]", "flights", "2013-01", None),
        ("flights[eu|a[b]@3]@17", "flights", "eu|a[b]@3", 17),
        ("flights@17[2013-01]", "flights", "2013-01", 17),
    ],
)
def test_references_are_read_as_they_are_written(text: str, key: str, partition: str, version: int | None) -> None:
    ref = parse_reference(text)
    assert (ref.key, ref.partition, ref.version) == (key, partition, version)
    assert parse_reference(reference_text(key, partition, version)) == ref


@pytest.mark.parametrize("text", ["", "@1", "orders@", "orders@x", "orders[a", "orders@1@2", "orders@1[a]@2", "[a]"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(AssetError, match="names no asset"):
        parse_reference(text)
