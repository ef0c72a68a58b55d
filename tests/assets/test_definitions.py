"""Assets as authors define them: what their parameters are, and what is refused, with file and line."""

from __future__ import annotations

import asyncio
import functools
import inspect
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypedDict

import pytest
from tenacity import stop_after_attempt

from engine import TaskOptions
from engine.assets.calendar_partitions import Daily
from engine.assets.checks import Check, CheckContext, check
from engine.assets.definition import In, Out, asset, assets, external_asset
from engine.assets.definitions import Definitions
from engine.assets.mappings import SameKey
from engine.assets.options import AssetOptions
from engine.assets.partitions import Static, Unpartitioned
from engine.assets.values import AssetContext, Config, Materialized, Output
from engine.errors import AssetDefinitionError, AssetNotFound

if TYPE_CHECKING:
    from decimal import Decimal

THIS = Path(__file__).name


class Warehouse:
    pass


class Lake(Warehouse):
    pass


class Limits(Config):
    rows: int = 10


class More(Config):
    pass


@asset
def raw() -> list[int]:
    return [1]


@asset
def orders(raw: list[int]) -> list[int]:
    """What was sold."""
    return [each + 1 for each in raw]


def refused(*given: Any, checks: Any = (), resources: Any = ()) -> str:
    with pytest.raises(AssetDefinitionError) as raised:
        Definitions(given, checks=checks, resources=resources)
    return str(raised.value)


def line_of(fn: Any) -> str:
    return f"{THIS}:{inspect.unwrap(getattr(fn, 'fn', fn)).__code__.co_firstlineno}"


# ------------------------------------------------------------------------------------------------ what there is


def test_an_asset_is_its_function() -> None:
    assert orders([1]) == [2]
    assert (orders.__name__, orders.__doc__, orders.__module__) == ("orders", "What was sold.", __name__)
    assert inspect.signature(orders) == inspect.signature(orders.fn)
    assert repr(orders) == "<asset orders>"
    assert orders.where == line_of(orders)

    @asset
    async def later(raw: int) -> int:
        return raw

    assert asyncio.run(later(3)) == 3


def test_what_is_said_of_an_asset() -> None:
    @asset(
        key="raw/orders",
        deps=["raw", orders],
        group="sales",
        owners=["ann"],
        tags=["daily", "tier=1"],
        metadata={"source": "shop"},
        io="json",
        code_version="2",
        stop=stop_after_attempt(3),
        timeout=5,
    )
    def loaded() -> None:
        """What it is."""

    spec = loaded.outs[0]
    assert (spec.key, spec.description, spec.group, spec.owners) == ("raw/orders", "What it is.", "sales", ("ann",))
    assert (spec.tags, spec.metadata, spec.format) == ({"daily": "", "tier": "1"}, {"source": "shop"}, "json")
    assert (loaded.deps, loaded.code_version, loaded.options.timeout) == (("raw", "orders"), "2", 5)
    assert loaded.partitions == Unpartitioned()


def test_each_parameter_is_one_thing() -> None:
    @asset
    def report(
        orders: list[int],
        first: Annotated[list[int], In("raw", SameKey())],
        context: AssetContext,
        limits: Limits,
        warehouse: Warehouse,
        scale: int = 3,
        *,
        again: Annotated[Warehouse, "said"],
    ) -> None: ...

    house = Warehouse()
    node = Definitions([raw, orders, report], resources=[house, "text"]).node_of("report")
    assert [(each.key, each.parameter, each.annotation) for each in node.inputs] == [
        ("orders", "orders", list[int]),
        ("raw", "first", list[int]),
    ]
    assert isinstance(node.inputs[1].mapping, SameKey)
    assert node.wiring.context == ("context",)
    assert node.wiring.config == ("limits", Limits)
    assert node.wiring.resources == {"warehouse": house, "again": house}


def test_what_is_named_in_deps_and_read_is_one_input() -> None:
    @asset(deps=["raw", raw, "orders"])
    def report(raw: Any) -> None: ...

    node = Definitions([raw, orders, report]).node_of("report")
    assert [(each.key, each.parameter) for each in node.inputs] == [("raw", "raw"), ("orders", None)]


def test_a_resource_of_a_subclass_and_of_a_protocol() -> None:
    class Queries(Protocol):
        def query(self) -> int: ...

    @asset
    def report(warehouse: Warehouse) -> None: ...

    lake = Lake()
    assert Definitions([report], resources=[lake]).node_of("report").wiring.resources == {"warehouse": lake}

    def wanting(queries: Queries) -> None: ...

    wanting.__annotations__ = {"queries": Queries}
    assert "its parameter 'queries' is no asset, and no resource is a Queries" in refused(
        asset(wanting), resources=[lake]
    )


def test_what_an_asset_s_value_is() -> None:
    @asset
    def one() -> Output[list[int]]: ...

    @asset(io="external")
    def written() -> Materialized: ...

    node = Definitions([one]).node_of("one")
    assert node.returns_of("one") == list[int]
    assert Definitions([written]).node_of("written").returns_of("written") is Any
    assert Definitions([orders, raw]).node_of("orders").returns_of("orders") == list[int]


class Both(TypedDict):
    good: list[int]
    bad: Output[str]


def test_several_assets_of_one_function() -> None:
    outs = {"good": Out(description="Fine."), "bad": Out("raw/bad", group="trash", tags=["x"])}

    @assets(outs=outs, group="sales")
    def in_order(raw: int) -> tuple[list[int], Output[str]]: ...

    @assets(outs={"c": Out(), "d": Out()})
    def by_name() -> dict[str, int]: ...

    node = Definitions([raw, in_order]).node_of("raw/bad")
    assert (node.name, node.keys, node.asset.names, node.asset.fn_name) == (
        "good",
        ("good", "raw/bad"),
        ("good", "bad"),
        "in_order",
    )
    assert [each.group for each in in_order.outs] == ["sales", "trash"]
    assert (node.returns_of("good"), node.returns_of("raw/bad")) == (list[int], str)
    assert Definitions([by_name]).node_of("d").returns_of("c") is int

    @assets(outs=outs)
    def typed(raw: int) -> Both: ...

    @assets(outs=outs)
    def untyped(raw): ...

    assert Definitions([raw, typed]).node_of("good").returns == {"good": list[int], "raw/bad": str}
    assert Definitions([raw, untyped]).node_of("good").returns == {"good": Any, "raw/bad": Any}


def test_upstream_one_of_several_is_upstream_of_the_function() -> None:
    @assets(outs={"a": Out(), "b": Out()})
    def both() -> tuple[int, int]: ...

    @asset
    def last(b: int) -> None: ...

    definitions = Definitions([last, both])
    assert definitions.order == ("a", "last")
    assert definitions.graph.upstream == {"last": ("a",), "a": ()}


def test_external_assets() -> None:
    async def look() -> str:
        return "3"

    shop = external_asset("shop/orders", observe=look, tags=["x"], timeout=3)
    bare = external_asset("bare")

    @asset(deps=[shop])
    def copied() -> None: ...

    definitions = Definitions([shop, bare, copied])
    assert definitions.node_of("shop/orders").asset.external
    assert definitions.node_of("copied").inputs[0].parameter is None
    assert shop.where == line_of(look)
    assert bare.where.startswith(f"{THIS}:")
    with pytest.raises(AssetDefinitionError, match="bare is external, and nothing observes it"):
        bare()


def test_modules_stand_for_their_assets_and_checks() -> None:
    module = ModuleType("shop")

    @check(orders)
    def fine(value: Any) -> bool: ...

    module.__dict__.update(raw=raw, orders=orders, again=orders, fine=fine, Warehouse=Warehouse)
    definitions = Definitions([module, raw])
    assert set(definitions.nodes) == {"raw", "orders"}
    assert [each.check for each in definitions.node_of("orders").checks["orders"]] == [fine]


def test_merging() -> None:
    one, two = Definitions([raw]), Definitions([external_asset("x")])
    assert set(Definitions.merge(one, two).nodes) == {"raw", "x"}
    with pytest.raises(AssetDefinitionError, match="two assets are called 'raw'"):
        Definitions.merge(one, Definitions([asset(key="raw")(lambda: 1)]))
    with pytest.raises(AssetDefinitionError, match="other storages, here, there: say storage="):
        Definitions.merge(Definitions(storage="here"), Definitions(storage="there"))
    assert Definitions.merge(Definitions(storage="here"), Definitions(storage="there"), storage="x").storage == "x"


def test_partitions_of_upstream_by_partition() -> None:
    days = Daily("2013-01-01", end="2013-01-04")

    @asset(partitions=days)
    def flights() -> None: ...

    @asset(partitions=days)
    def late(flights: Any) -> None: ...

    @asset
    def all_of_them(flights: Any) -> None: ...

    definitions = Definitions([flights, late, all_of_them])
    from datetime import UTC, datetime

    now = datetime(2026, 1, 1, tzinfo=UTC)
    (one,), (every,) = definitions.node_of("late").inputs, definitions.node_of("all_of_them").inputs
    assert list(one.upstream_of("2013-01-02", now=now)) == ["2013-01-02"]
    assert len(every.upstream_of("", now=now)) == 3
    assert list(every.upstream_of("", now=datetime(2013, 1, 2, 12, tzinfo=UTC))) == ["2013-01-01"]


# ------------------------------------------------------------------------------------------------ what is refused


def test_a_cycle_is_shown_as_a_path() -> None:
    @asset
    def a(c: Any) -> None: ...

    @asset
    def b(a: Any) -> None: ...

    @asset
    def c(b: Any) -> None: ...

    said = refused(c, b, a)
    assert said.startswith("assets are upstream of themselves: ")
    shown = said.removeprefix("assets are upstream of themselves: ").split(" -> ")
    assert shown[0] == shown[-1]
    assert set(shown) == {f"{each.key} ({line_of(each)})" for each in (a, b, c)}
    follows = {"a": "b", "b": "c", "c": "a"}
    names = [each.partition(" ")[0] for each in shown]
    assert all(follows[one] == two for one, two in zip(names, names[1:], strict=False))


def test_a_long_cycle_is_shown_in_part() -> None:
    ring = [asset(key=f"n{n}", deps=[f"n{(n + 1) % 100}"])(lambda: 1) for n in range(100)]
    assert refused(*ring).count("->") == 20


def test_an_asset_that_reads_itself_is_a_cycle() -> None:
    @asset
    def a(a: Any) -> None: ...

    assert f"a ({line_of(a)}) -> a ({line_of(a)})" in refused(a)


def test_an_unknown_upstream_asset_is_refused_with_the_nearest() -> None:
    @asset
    def report(order: Any) -> None: ...

    @asset(deps=["order"])
    def other() -> None: ...

    @asset
    def third(x: Annotated[Any, In("rw")]) -> None: ...

    at = line_of(report)
    assert refused(orders, raw, report) == (
        f"{at}: asset report: its parameter 'order' is no asset. Did you mean 'orders'?"
    )
    assert f"{line_of(other)}: asset other: there is no asset 'order'. Did you mean 'orders'?" == refused(
        orders, raw, other
    )
    assert "there is no asset 'rw'. Did you mean 'raw'?" in refused(raw, third)
    with pytest.raises(AssetNotFound, match="there is no asset 'rw'. Did you mean 'raw'?"):
        Definitions([raw]).node_of("rw")


def test_unannotated_parameters_beside_resources_are_refused_clearly() -> None:
    @asset
    def report(thing): ...

    assert "its parameter 'thing' is no asset. There are" in refused(report, resources=[Warehouse()])


def test_two_assets_of_one_key() -> None:
    other = asset(key="raw")(lambda: 1)
    assert refused(raw, other) == f"two assets are called 'raw': {raw.where} and {other.where}"
    assert set(Definitions([raw, raw]).nodes) == {"raw"}


def test_two_resources_or_a_resource_and_an_asset() -> None:
    @asset
    def report(warehouse: Warehouse) -> None: ...

    @asset
    def warehouse() -> None: ...

    said = refused(report, resources=[Warehouse(), Lake()])
    assert f"{line_of(report)}: asset report: 2 resources are a Warehouse, as 'warehouse' asks for one" in said
    assert "'warehouse' is an asset by its name, and a resource by its type Warehouse" in refused(
        report, warehouse, resources=[Warehouse()]
    )


def test_two_configurations() -> None:
    @asset
    def report(one: Limits, two: More) -> None: ...

    assert f"{line_of(report)}: asset report: 'one' and 'two' are both configuration" in refused(report)


def test_one_asset_read_twice() -> None:
    @asset
    def report(raw: Any, again: Annotated[Any, In("raw")]) -> None: ...

    assert f"{line_of(report)}: asset report: 'raw' and 'again' are both asset raw" in refused(raw, report)


def test_a_value_that_lies_elsewhere_is_not_read() -> None:
    @asset(io="external")
    def table() -> Materialized: ...

    @asset
    def report(table: Any) -> None: ...

    shop = external_asset("shop")

    @asset
    def other(shop: Any) -> None: ...

    said = refused(table, report)
    assert said.startswith(f"{line_of(report)}: asset report: its parameter 'table' is asset table ({line_of(table)})")
    assert "name it in deps=['table']" in said
    assert "name it in deps=['shop']" in refused(shop, other)

    @asset(deps=[table, shop])
    def fine() -> None: ...

    Definitions([table, shop, fine])


def test_partitions_that_do_not_go_together() -> None:
    @asset(partitions=Static(["a", "b"]))
    def names() -> None: ...

    @asset(partitions=Daily("2013-01-01"))
    def days(names: Any) -> None: ...

    said = refused(names, days)
    assert said.startswith(f"{line_of(days)}: asset days: its upstream names ({line_of(names)}): ")
    assert "Static" in said and "Daily" in said

    @asset(partitions=Static(["a", "b"]), mappings={"nams": SameKey()})
    def more(names: Any) -> None: ...

    assert "mappings names 'nams', which is not upstream of it" in refused(names, more)


def test_types_that_only_a_type_checker_sees() -> None:
    @asset
    def report(price: Decimal) -> None: ...

    said = refused(report)
    assert said.startswith(f"{line_of(report)}: asset report: its annotations cannot be read (name 'Decimal'")
    assert "TYPE_CHECKING" in said


def test_parameters_that_nothing_tells_of() -> None:
    def loose(fn: Any) -> Any:
        def inner(*args: Any, **kwargs: Any) -> Any:
            return fn(*args, **kwargs)

        return inner

    def kept(fn: Any) -> Any:
        return functools.wraps(fn)(loose(fn))

    @asset(key="a")
    @loose
    def one(raw: Any) -> None: ...

    @asset
    @kept
    def two(raw: Any) -> None: ...

    @asset
    def three(raw: Any, /) -> None: ...

    assert "asset a: nothing tells what goes into *args: name each parameter" in refused(raw, one)
    assert Definitions([raw, two]).node_of("two").inputs[0].parameter == "raw"
    assert two.where == line_of(two)
    assert f"{line_of(three)}: asset three: its parameter 'raw' is given by name: take out the '/'" in refused(
        raw, three
    )


def test_functions_in_classes() -> None:
    class Shop:
        @staticmethod
        @asset
        def fine(raw: Any) -> None: ...

        @asset
        def method(self, raw: Any) -> None: ...

    assert set(Definitions([raw, Shop.fine]).nodes) == {"raw", "fine"}
    assert "asset method: it is a method: put it below @staticmethod" in refused(raw, Shop.method)

    class Reader:
        def rows(self, raw: Any) -> None: ...

    bound = asset(Reader().rows)
    assert [each.key for each in Definitions([raw, bound]).node_of("rows").inputs] == ["raw"]


def numbers() -> Any:
    yield 1


async def later_numbers() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            functools.partial(print, 1),
            "@asset decorates a function, not functools.partial.*: write a function that calls it",
        ),
        (staticmethod(numbers), "@asset decorates a function, not <staticmethod.*: put it below @staticmethod"),
        ("orders", "@asset decorates a function, not 'orders': say key='orders'"),
        (raw, "@asset decorates a function, not <asset raw>: put it below"),
        (print, "@asset decorates a function, not <built-in"),
        (Warehouse, "@asset decorates a function, not <class"),
        (3, "@asset decorates a function, not 3"),
        (numbers, f"{THIS}:[0-9]+: @asset takes no generator: return the value of numbers"),
        (later_numbers, f"{THIS}:[0-9]+: @asset takes no generator"),
        (lambda: 1, f"{THIS}:[0-9]+: '<lambda>' cannot be an asset's key"),
    ],
)
def test_what_cannot_be_an_asset(given: Any, said: str) -> None:
    with pytest.raises(AssetDefinitionError, match=said):
        asset(given)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"key": "a b"}, "'a b' cannot be an asset's key"),
        ({"key": "a//b"}, "cannot be an asset's key"),
        ({"key": "a" * 201}, "at most 200 characters"),
        ({"key": 3}, "3 cannot be an asset's key"),
        ({"io": "csv"}, "io is one of parquet, json, text, bytes, joblib, external, not 'csv'"),
        ({"tags": "daily"}, "tags is a list, as in tags=[...], not 'daily'"),
        ({"tags": ["a b"]}, "'a b' cannot be a tag"),
        ({"tags": {"tier": 1}}, "the tag 'tier': 1 is no text"),
        ({"tags": 3}, "tags is a list"),
        ({"owners": "ann"}, "owners is a list, as in owners=[...], not 'ann'"),
        ({"owners": [3]}, "owners is a list of texts, and 3 is none"),
        ({"group": 3}, "group is a text, not 3"),
        ({"description": 3}, "description is a text, not 3"),
        ({"metadata": {"a": object()}}, "metadata 'a' is object"),
        ({"metadata": [1]}, "metadata is a mapping"),
        ({"checks": [print]}, "checks is a list of checks, and <built-in function print> is none"),
        ({"deps": "raw"}, "deps is a list, as in deps=['raw']"),
        ({"deps": raw}, "deps is a list, as in deps=[<asset raw>]"),
        ({"deps": [print]}, "cannot be an asset's key"),
        ({"partitions": "daily"}, "partitions is Daily(...), Static(...) or such, not 'daily'"),
        ({"mappings": [SameKey()]}, "mappings takes an upstream key and a mapping for each"),
        ({"mappings": {"raw": "same"}}, "mappings['raw'] is no mapping of partitions: 'same'"),
        ({"code_version": 2}, "code_version is a text such as '2', not 2"),
        ({"code_version": ""}, "code_version is a text such as '2', not ''"),
        ({"timout": 3}, "no option 'timout'; of a task's there are"),
        ({"effect": "idempotent"}, "an asset takes no effect"),
        ({"memo": None}, "an asset takes no memo"),
        ({"timeout": -1}, "timeout"),
        ({"rate": "a/b"}, "a rate is written as"),
    ],
)
def test_options_that_cannot_be_so(options: dict[str, Any], said: str) -> None:
    def some() -> None: ...

    with pytest.raises(AssetDefinitionError) as raised:
        asset(**options)(some)
    assert said in str(raised.value)
    assert str(raised.value).startswith(f"{line_of(some)}: ")
    if not options.keys() & {"io", "checks", "description"}:  # those are of each Out
        with pytest.raises(AssetDefinitionError):
            external_asset(**{"key": "x", "observe": some, **options}) if options.keys() & {
                "key", "tags", "owners", "group", "metadata", "partitions", "timeout", "rate", "effect", "memo", "timout",
            } else assets(outs={"x": Out(**{k: v for k, v in options.items() if k == "key"})}, **options)(some)  # fmt: skip


def test_options_are_those_of_a_task_that_mean_something_here() -> None:
    assert set(TaskOptions.__struct_fields__) - AssetOptions.__annotations__.keys() == {
        "effect",
        "reconcile",
        "memo",
        "on_cancel",
    }
    assert AssetOptions.__annotations__.keys() <= set(TaskOptions.__struct_fields__)


@pytest.mark.parametrize("outs", [{}, [Out()], {"a": "b"}, {"a b": Out()}, {"a": Out("x"), "b": Out("x")}])
def test_outs_that_cannot_be_so(outs: Any) -> None:
    def some() -> None: ...

    with pytest.raises(AssetDefinitionError, match=f"{line_of(some)}"):
        Definitions([assets(outs=outs)(some)])


@pytest.mark.parametrize("given", [print, "orders", [raw], Warehouse()])
def test_definitions_take_assets_and_modules(given: Any) -> None:
    with pytest.raises(AssetDefinitionError, match="Definitions takes assets and modules, not"):
        Definitions([given])


# ------------------------------------------------------------------------------------------------ checks


def test_parameters_of_checks() -> None:
    @asset
    def other() -> int: ...

    @check(orders, blocking=False, name="fine-ish")
    def fine(
        value: Annotated[list[int], "said"], other: int, context: AssetContext, now: CheckContext, house: Warehouse
    ) -> bool:
        """It is fine."""
        return value == [2]

    assert fine([2], 1, None, None, None)  # type: ignore[arg-type]
    assert (fine.name, fine.asset, fine.severity, fine.description) == ("fine-ish", "orders", "warning", "It is fine.")
    definitions = Definitions([raw, orders, other], checks=[fine], resources=[Warehouse()])
    node = definitions.node_of("orders")
    (bound,) = node.checks["orders"]
    assert (bound.value, bound.annotation) == ("value", list[int])
    assert [each.key for each in bound.wiring.inputs] == ["other"]
    assert (bound.wiring.context, bound.wiring.check_context) == (("context",), ("now",))
    assert [each.key for each in node.checked_against] == ["other"]
    assert definitions.order.index("other") < definitions.order.index("orders")


def test_a_check_that_reads_no_value() -> None:
    @asset(io="external")
    def table() -> None: ...

    @check(table)
    def fine(context: CheckContext, house: Warehouse) -> bool: ...

    @check(table)
    def value(value: Any) -> bool: ...

    (bound,) = Definitions([table], checks=[fine], resources=[Warehouse()]).node_of("table").checks["table"]
    assert (bound.value, bound.wiring.check_context) == (None, ("context",))
    said = refused(table, checks=[value])
    assert said.startswith(f"{line_of(value)}: check value of table: asset table has io='external'")


def test_checks_that_cannot_be_so() -> None:
    @check("ordrs")
    def lost(value: Any) -> bool: ...

    @check(orders)
    def nothing() -> bool: ...

    @check(orders)
    def itself(value: Any, orders: Any) -> bool: ...

    @check(orders)
    def odd(value: Any, thing: Any) -> bool: ...

    @check(orders)
    def context(context: AssetContext) -> bool: ...

    @check(orders)
    def limits(limits: Limits, value: Any) -> bool: ...

    assert "its first parameter 'context' is the asset's value, and not AssetContext" in refused(
        raw, orders, checks=[context]
    )
    assert "its first parameter 'limits' is the asset's value, and not Limits" in refused(raw, orders, checks=[limits])
    loose = Check(name="loose", fn=lambda value: True, where="x.py:3")
    assert refused(raw, orders, checks=[lost]) == (
        f"{line_of(lost)}: check lost is of 'ordrs', which is no asset here. Did you mean 'orders'?"
    )
    assert f"{line_of(nothing)}: check nothing of orders takes nothing" in refused(raw, orders, checks=[nothing])
    assert "it reads orders itself" in refused(raw, orders, checks=[itself])
    assert "its parameter 'thing' is no asset" in refused(raw, orders, checks=[odd])
    assert "x.py:3: check loose says of no asset what it is of" in refused(raw, orders, checks=[loose])

    @asset(checks=[loose, loose])
    def twice() -> None: ...

    assert f"{line_of(twice)}: asset twice has two checks 'loose'" in refused(twice)
    shop = external_asset("shop")
    assert "asset shop is external: what is not made is not checked" in refused(shop, checks=[check(shop)(odd.fn)])
    for given in (3, None):
        with pytest.raises(AssetDefinitionError, match="@check takes an asset or its key, not"):
            check(given)(lambda value: True)
    with pytest.raises(AssetDefinitionError, match="'<lambda>' cannot name a check"):
        check(orders)(lambda value: True)
    with pytest.raises(AssetDefinitionError, match="@check decorates a function"):
        check(orders)(fine := lost)  # type: ignore[arg-type] # noqa: F841


def test_checks_that_read_each_other_s_assets_are_a_cycle() -> None:
    @asset
    def a() -> None: ...

    @asset
    def b() -> None: ...

    @check(a)
    def of_a(value: Any, b: Any) -> bool: ...

    @check(b)
    def of_b(value: Any, a: Any) -> bool: ...

    assert "assets are upstream of themselves" in refused(a, b, checks=[of_a, of_b])


# ------------------------------------------------------------------------------------------------ many, and lean


def test_ten_thousand_assets_are_defined_in_proportion() -> None:
    def seconds(count: int) -> float:
        def some(before: Any = None) -> None: ...

        made = [asset(key=f"n{n}", deps=[f"n{n - 1}", f"n{n // 2}"] if n else [])(some) for n in range(count)]
        began = time.perf_counter()
        definitions = Definitions(made, checks=[check(f"n{n}", name="fine")(lambda value: True) for n in range(count)])
        assert len(definitions.order) == count
        return time.perf_counter() - began

    small, large = min(seconds(1_000) for _ in range(3)), seconds(10_000)
    assert large < 40 * small  # ten times as many; a square would be a hundred


def test_defining_loads_no_library_of_tables() -> None:
    program = """
import sys
from engine.assets.definition import asset
from engine.assets.builtin import not_null, row_count, references
from engine.assets.with_pandera import pandera_check
from engine.assets.with_pointblank import pointblank_check
from engine.assets.definitions import Definitions
@asset(checks=[not_null("id"), row_count(1), references("other", "id")])
def orders(): ...
@asset
def other(): ...
Definitions([orders, other])
print([name for name in ("pyarrow", "fsspec", "polars", "pandas", "duckdb", "pandera", "pointblank") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]"
